r"""Pareto dominance and hypervolume of points whose every coordinate is to be large."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
ROWS_A_BLOCK = 256


def dominated(points: Array, by: Array) -> Array:
    """Whether each point (n × m) is at most another one of ``by`` everywhere, and less somewhere."""
    out = np.zeros(len(points), dtype=bool)
    for start in range(0, len(points), ROWS_A_BLOCK):
        block = points[start : start + ROWS_A_BLOCK, None]
        out[start : start + ROWS_A_BLOCK] = np.any(np.all(by >= block, axis=2) & np.any(by > block, axis=2), axis=1)
    return out


def front_ranks(points: Array) -> Array:
    """1 for what nothing dominates, 2 for what nothing dominates once these are taken away, and so on."""
    ranks = np.zeros(len(points), dtype=np.int64)
    left = np.arange(len(points))
    rank = 1
    while len(left):
        beaten = dominated(points[left], points[left])
        ranks[left[~beaten]] = rank
        left, rank = left[beaten], rank + 1
    return ranks


def nearest_to_ideal(points: Array) -> int:
    """The point nearest to the best value of every coordinate, these scaled to span 0 to 1 (ties: the first)."""
    best, span = points.max(0), np.ptp(points, axis=0)
    gaps = (best - points) / np.where(span > 0, span, 1)
    return int(np.argmin(np.square(gaps).sum(1).round(12)))


def hypervolume(points: Array) -> float:
    r"""Volume of :math:`\bigcup_i [0, p_i]`, points (n × m) with positive coordinates.

    By exclusive volumes: with the points in some order, each adds its own box less the part of it that the points
    after it cover, which is the volume of these points, each cut to that box, found in the same way. Dominated points
    are dropped on every level; two coordinates are a staircase.
    """
    points = np.asarray(points, dtype=np.float64)
    points = points[(points > 0).all(1)]
    return _volume(points) if len(points) else 0.0


def _undominated(points: Array) -> Array:
    return points[~dominated(points, points)]


def _volume(points: Array) -> float:
    """Volume of the union of the boxes from 0 to each point."""
    if len(points) == 1:
        return float(points[0].prod())
    if points.shape[1] == 1:
        return float(points.max())
    if points.shape[1] == 2:
        return _area(points)
    points = _undominated(np.unique(points, axis=0))
    points = points[np.argsort(points[:, -1], kind="stable")]
    total = 0.0
    for i, point in enumerate(points):
        # every later point reaches at least as high as this one: what they cover of its box has its full height
        later = np.minimum(points[i + 1 :, :-1], point[:-1])
        covered = _volume(later) if len(later) else 0.0
        total += float(point[-1]) * (float(point[:-1].prod()) - covered)
    return total


def _area(points: Array) -> float:
    """Two coordinates: a staircase, from the widest point to the narrowest."""
    points = points[np.argsort(-points[:, 0], kind="stable")]
    height = np.maximum.accumulate(points[:, 1])
    return float(np.diff(height, prepend=0.0) @ points[:, 0])
