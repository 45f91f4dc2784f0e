"""Exact nearest neighbours."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

from . import _threads

Array = np.ndarray
LEAF = 64  # points a leaf
MAX_DIMENSIONS = 30  # on 34k cells: 50 unsmoothed principal components take a tree 21 s, all pairs 5 s


def nearest(points: Array, k: int) -> tuple[Array, Array]:
    """Indices (int32) and distances (float32) of the k nearest of every point, itself first.

    By a k-d tree, or where there are too many dimensions for it, by the comparison of all pairs in matrix products.
    """
    by = _by_tree if points.shape[1] <= MAX_DIMENSIONS else _by_pairs
    return by(points, k)


def _by_tree(points: Array, k: int) -> tuple[Array, Array]:
    """Build the tree on points in the order of its own leaves: three times as fast as in the given order.

    Points that are queried one after another then visit the same nodes.
    """
    points = np.asarray(points, dtype=np.float64)
    n = len(points)
    order = cKDTree(points, leafsize=LEAF, balanced_tree=False).indices
    ordered = np.ascontiguousarray(points[order])
    tree = cKDTree(ordered, leafsize=LEAF, balanced_tree=False)
    distances, found = tree.query(ordered, k=k, workers=_threads.allowed())
    indices = np.empty((n, k), dtype=np.int32)
    lengths = np.empty((n, k), dtype=np.float32)
    _itself_first(found, distances)
    indices[order], lengths[order] = order[found], distances
    return indices, lengths


def _by_pairs(points: Array, k: int) -> tuple[Array, Array]:
    distances, found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points).kneighbors(points)
    _itself_first(found, distances)
    return found.astype(np.int32), distances.astype(np.float32)


def _itself_first(found: Array, distances: Array) -> None:
    """Among coincident points a point may come later in its own list, or not at all: put it first, at no distance."""
    own = np.arange(len(found))
    for i in np.flatnonzero(found[:, 0] != own):
        at = np.flatnonzero(found[i] == i)
        last = at[0] if len(at) else found.shape[1] - 1
        found[i, 1 : last + 1] = found[i, :last].copy()
        found[i, 0] = i
        distances[i, 1 : last + 1] = distances[i, :last].copy()
    distances[:, 0] = 0
