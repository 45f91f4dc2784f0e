"""Matching of two sets of places, and the smooth field that lies between them."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

Array = np.ndarray
WARP_ROUNDS = 30
WARP_NEIGHBOURS = 60  # matched pairs that a place's displacement is averaged over, at most
SETTLED = 1e-3  # of the range: the field has stopped moving


def mutual_nearest(a: Array, b: Array, radius: float) -> tuple[Array, Array, Array]:
    """Pairs (i of a, j of b) that are each other's nearest within ``radius``, and their distances."""
    forward, distance = _nearest(a, b)
    back, _ = _nearest(b, a)
    i = np.flatnonzero((back[forward] == np.arange(len(a))) & (distance <= radius))
    return i, forward[i], distance[i]


def _nearest(a: Array, b: Array) -> tuple[Array, Array]:
    distance, index = cKDTree(b).query(a)
    return index, distance


def warp(a: Array, b: Array, radius: float, scale: float) -> Array:
    r"""Displacement of the places b (n × axes) that brings them onto a.

    Mutual neighbours within ``radius`` of the displaced places say where these should go; the field at a place is the
    mean of the offsets of the pairs around it, with weights :math:`\exp(-d^2 / 2 s^2)` for ``scale`` s. Wrong pairs point
    anywhere, right ones alike, so that the field grows towards the right one, round by round.
    """
    field = np.zeros_like(b)
    best, best_score = field, -1.0
    for _ in range(WARP_ROUNDS):
        i, j, distance = mutual_nearest(a, b + field, radius)
        if len(i) < 3:
            break
        score = float(np.exp(-((distance / radius) ** 2)).sum())
        if score > best_score:
            best, best_score = field, score
        offsets = a[i] - b[j]
        k = min(WARP_NEIGHBOURS, len(j))
        far, near = cKDTree(b[j]).query(b, k=k)
        far, near = far.reshape(len(b), k), near.reshape(len(b), k)
        weights = np.exp(-0.5 * (far / scale) ** 2) + 1e-12
        moved = np.einsum("nk,nkd->nd", weights, offsets[near]) / weights.sum(1, keepdims=True)
        change = float(np.sqrt(((moved - field) ** 2).sum(1).mean()))
        field = moved
        if change < SETTLED * scale:
            break
    i, _, distance = mutual_nearest(a, b + field, radius)
    return field if float(np.exp(-((distance / radius) ** 2)).sum()) >= best_score else best
