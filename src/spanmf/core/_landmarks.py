r"""Communities of many observations from those of a sample (landmarks), which stands for the others by nearness in Z.

Among a random sample few of the neighbours in space are left, and those that are left are no sample of a neighbourhood.
So the spatial graph of the landmarks is made of *all* neighbours that they have, each of them represented by the landmark
nearest to it in Z: with P the n × m matrix of these assignments and S the rows of the graph,

.. math:: S_L = S_{L\cdot} P .

The rows of :math:`S_L` are then shares of a landmark's true surroundings, as those of S are. What it is worth is in
``docs/large_data.md``.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

from . import _knn, _threads
from ._tiles import AnyGraph, rows_of

Array = np.ndarray
N_VOTES = 5  # nearest landmarks whose labels are counted: one makes borders ragged, fifteen change nothing more
CHUNK = 1 << 18  # observations whose landmarks are looked for at a time


def sample(n: int, n_landmarks: int, rng: np.random.Generator) -> Array:
    """Numbers of the landmarks, ascending."""
    return np.sort(rng.choice(n, n_landmarks, replace=False))


def nearest(Z: Array, landmarks: Array) -> Array:
    """Which landmarks (0, 1, …) are the nearest in Z of every observation, nearest first (n × votes, int32)."""
    points = np.ascontiguousarray(Z[landmarks], dtype=np.float64)
    k = min(N_VOTES, len(landmarks))
    if Z.shape[1] <= _knn.MAX_DIMENSIONS:
        tree = cKDTree(points, leafsize=_knn.LEAF, balanced_tree=False)
    else:
        everything = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points)
    out = np.empty((len(Z), k), dtype=np.int32)
    for start in range(0, len(Z), CHUNK):
        part = Z[start : start + CHUNK].astype(np.float64)
        if Z.shape[1] <= _knn.MAX_DIMENSIONS:
            found = tree.query(part, k=k, workers=_threads.allowed())[1]
        else:
            found = everything.kneighbors(part, return_distance=False)
        out[start : start + CHUNK] = found.reshape(len(part), k)
    out[landmarks, 0] = np.arange(len(landmarks))  # itself, also where another lies at the same place
    return out


def graph_among(A: AnyGraph, landmarks: Array, stand_in: Array) -> sp.csr_matrix:
    """Weights between landmarks: those of their neighbours, added up by the landmark (``stand_in``, n) for each of them."""
    rows = rows_of(A, landmarks)[landmarks]
    m = len(landmarks)
    S = sp.csr_matrix((rows.data, stand_in[rows.indices], rows.indptr), shape=(m, m))
    S.sum_duplicates()
    S = sp.csr_matrix(S - sp.diags_array(S.diagonal()))
    S.eliminate_zeros()
    return S


def spread(codes: Array, landmarks: Array, nearest: Array) -> Array:
    """Codes of all observations: the commonest among their nearest landmarks (ties: the lowest); landmarks keep theirs."""
    values, codes = np.unique(codes, return_inverse=True)
    out = np.empty(len(nearest), dtype=np.int64)
    for start in range(0, len(nearest), CHUNK):
        part = nearest[start : start + CHUNK]
        votes = np.zeros((len(part), len(values)), dtype=np.int8)
        for column in part.T:
            votes[np.arange(len(part)), codes[column]] += 1
        out[start : start + CHUNK] = values[votes.argmax(1)]
    out[landmarks] = values[codes]
    return out
