"""Silhouette widths: how much nearer a point is to its own cluster than to the next one."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from . import _ops

TILE = 512  # points that stay in cache while others are compared with them


def widths(Z: np.ndarray, codes: np.ndarray) -> np.ndarray:
    r"""Silhouette width of every row of ``Z`` (n × d) in clusters ``codes`` (0, 1, …, none of them empty).

    .. math:: s_i = \frac{b_i - a_i}{\max(a_i, b_i)}

    with :math:`a_i` the mean distance to the others of its cluster, :math:`b_i` the smallest mean distance to another
    cluster; 0 for a point alone in its cluster, and where both are 0. Distances are summed in the order of the clusters, so
    that nothing of the size n × n is kept: n² d operations.
    """
    order = np.argsort(codes, kind="stable")
    own = codes[order]
    sizes = np.bincount(codes)
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    points = np.ascontiguousarray((Z - Z.mean(0, dtype=np.float64))[order].T, dtype=np.float64)  # d × n
    with _ops.threads_for(points.size * len(order)):
        within, b = _distances(points, own, bounds)
    a = within / np.maximum(sizes[own] - 1, 1)  # the point itself adds 0 to the sum, but does not count
    largest = np.maximum(a, b)
    s = np.divide(b - a, largest, out=np.zeros(len(own)), where=(largest > 0) & (sizes[own] > 1))
    out = np.empty(len(own))
    out[order] = s
    return out


@njit(cache=True, parallel=True, fastmath={"reassoc", "contract", "nsz"})
def _distances(points, own, bounds):
    """Sum of the distances of each point (columns of d × n, sorted by cluster) to its cluster; least mean to another."""
    d, n = points.shape
    within, nearest = np.zeros(n), np.full(n, np.inf)
    for i in prange(n):
        squares = np.empty(TILE)
        for c in range(len(bounds) - 1):
            total = 0.0
            for start in range(bounds[c], bounds[c + 1], TILE):
                m = min(TILE, bounds[c + 1] - start)
                squares[:m] = 0
                for axis in range(d):
                    here, row = points[axis, i], points[axis]
                    for j in range(m):
                        difference = row[start + j] - here
                        squares[j] += difference * difference
                for j in range(m):
                    total += np.sqrt(squares[j])
            if c == own[i]:
                within[i] = total
            else:
                nearest[i] = min(nearest[i], total / (bounds[c + 1] - bounds[c]))
    return within, nearest
