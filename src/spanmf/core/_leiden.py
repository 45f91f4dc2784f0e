r"""Leiden communities of a symmetric weighted graph, by one of three libraries, on one thread.

All maximise the modularity with resolution γ, :math:`\sum_c (e_c - \gamma K_c^2 / 2m)`. Every undirected edge is handed
over once.

networkit takes most of its time for the many light edges of a dense spatial graph. On a large one it is given the heavy edges and
a random part of the light ones, each standing for several, and what it finds is finished on the whole graph.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import njit

from ._graph import upper_edges

Array = np.ndarray
_lock = threading.Lock()  # networkit's and igraph's random states are the process's
MAX_SEARCH = 24  # Leiden runs that the search for a number of communities may take
THINNED_FROM = 5_000_000  # stored weights from which networkit runs on a part of them
LIGHT = 0.02  # of the mean sum of a row: weights below are thinned, so that a row keeps about 50 at most
LEAST_GAIN = 1e-9  # of the weights of a node, for which it changes its community


def leiden(A: sp.csr_matrix, resolution: float, *, flavor: str, seed: int) -> Array:
    """Community of every node, by 3 iterations of networkit or 2 of igraph or leidenalg."""
    return prepared(A, flavor)(resolution, seed)


def prepared(A: sp.csr_matrix, flavor: str) -> Callable[[float, int], Array]:
    """Build the library's graph once, for several runs."""
    return FLAVORS[flavor](A)


def search_resolution(A: sp.csr_matrix, n_communities: int, *, flavor: str, seed: int) -> tuple[Array, float, int]:
    """Labels with the wanted number of communities, or the nearest found: labels, resolution, number found.

    Bisection of the logarithm of the resolution, since the number grows with it (nearly) without steps back.
    """
    run = prepared(A, flavor)
    low, high = 1e-3, 16.0
    best: tuple[int, Array, float, int] | None = None
    for _ in range(MAX_SEARCH):
        resolution = float(np.sqrt(low * high))
        labels = run(resolution, seed)
        found = len(np.unique(labels))
        if best is None or abs(found - n_communities) < best[0]:
            best = abs(found - n_communities), labels, resolution, found
        if found == n_communities:
            break
        low, high = (resolution, high) if found < n_communities else (low, resolution)
    assert best is not None
    return best[1:]


def _networkit(A: sp.csr_matrix) -> Callable[[float, int], Array]:
    """On a large graph by its heavy and a part of its light weights; then single nodes move on the whole of it."""
    if A.nnz < THINNED_FROM:
        return _networkit_whole(A)
    strength = np.asarray(A.sum(1, dtype=np.float64)).ravel()
    run = _networkit_whole(thinned(A, LIGHT * float(strength.mean())))

    def run_and_move(resolution: float, seed: int) -> Array:
        found = np.unique(run(resolution, seed), return_inverse=True)[1]
        return moved(A, strength, found, resolution, seed)

    return run_and_move


def thinned(A: sp.csr_matrix, least: float) -> sp.csr_matrix:
    """Keep a weight w below ``least`` with probability w / ``least``, as ``least``: a symmetric graph of the same mean.

    Chance is a hash of the two nodes' numbers, the same in both rows of an edge.
    """
    parts = _thin(A.indptr, A.indices, A.data, np.float32(least))
    return sp.csr_matrix(parts, shape=A.shape)


def moved(A: sp.csr_matrix, strength: Array, labels: Array, resolution: float, seed: int) -> Array:
    """Labels (0, 1, …) after moves of single nodes, until none raises the modularity."""
    labels = labels.astype(np.int32)
    totals = np.bincount(labels, weights=strength)
    order = np.random.default_rng(seed).permutation(len(labels))
    _move(A.indptr, A.indices, A.data, strength, labels, totals, resolution / strength.sum(), order)
    return labels.astype(np.int64)


@njit(cache=True)
def _thin(indptr, indices, data, least):
    new_indptr = np.zeros_like(indptr)
    kept_data, kept_indices = np.empty(len(data), np.float32), np.empty(len(data), indices.dtype)
    m = 0
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            j, w = indices[e], data[e]
            if w >= least or _chance(min(i, j), max(i, j)) * least < w:
                kept_data[m], kept_indices[m] = max(w, least), j
                m += 1
        new_indptr[i + 1] = m
    return kept_data[:m].copy(), kept_indices[:m].copy(), new_indptr


@njit(cache=True)
def _chance(i, j):
    """A number in [0, 1) of two others, by the finaliser of splitmix64 (Steele et al. 2014)."""
    x = np.uint64(i) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(j) * np.uint64(0xD1B54A32D192ED03)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((x ^ (x >> np.uint64(31))) >> np.uint64(11)) / 2.0**53


@njit(cache=True)
def _move(indptr, indices, data, strength, labels, totals, expected, order):
    """Move each node to the community of its neighbours that gains most; again those whose neighbours moved away."""
    weights = np.zeros(len(totals))
    near = np.empty(len(totals), np.int32)
    waits = np.ones(len(labels), np.bool_)
    again = True
    while again:
        again = False
        for i in order:
            if not waits[i]:
                continue
            waits[i] = False
            n_near = 0
            for e in range(indptr[i], indptr[i + 1]):
                c = labels[indices[e]]
                if data[e] > 0 and indices[e] != i:
                    if weights[c] == 0:
                        near[n_near] = c
                        n_near += 1
                    weights[c] += data[e]
            own = best = labels[i]
            gain = weights[own] - expected * strength[i] * (totals[own] - strength[i]) + LEAST_GAIN * strength[i]
            for c in near[:n_near]:
                other = weights[c] - expected * strength[i] * totals[c]
                if c != own and other > gain:
                    best, gain = c, other
                weights[c] = 0
            if best == own:
                continue
            labels[i] = best
            totals[own] -= strength[i]
            totals[best] += strength[i]
            for j in indices[indptr[i] : indptr[i + 1]]:
                waits[j] |= labels[j] != best
            again = True


def _networkit_whole(A: sp.csr_matrix) -> Callable[[float, int], Array]:
    import networkit as nk

    rows, cols, weights = upper_edges(A)
    edges = weights.astype(np.float64), (rows.astype(np.uint64), cols.astype(np.uint64))
    graph = nk.GraphFromCoo(edges, n=A.shape[0], weighted=True)

    def run(resolution: float, seed: int) -> Array:
        with _networkit_state(seed):
            algorithm = nk.community.ParallelLeiden(graph, iterations=3, gamma=resolution)
            return np.asarray(algorithm.run().getPartition().getVector(), dtype=np.int64)

    return run


@contextmanager
def _networkit_state(seed: int) -> Iterator[None]:
    """One thread and our seed; afterwards the user's number of threads, and a seed drawn from the user's stream.

    networkit does not tell its seed, so what is put back is not the state but its consequence: a run that the user
    seeded stays reproducible.
    """
    import networkit as nk

    with _lock:
        yield from _with_seed(nk, seed)


def _with_seed(nk: Any, seed: int) -> Iterator[None]:
    threads = nk.getMaxNumberOfThreads()
    draws = nk.graphtools.randomNodes(nk.Graph(1 << 15), 4)
    nk.setNumberOfThreads(1)
    nk.setSeed(seed, False)
    try:
        yield
    finally:
        nk.setNumberOfThreads(threads)
        nk.setSeed(sum(d << (15 * i) for i, d in enumerate(draws)), True)


def _igraph(A: sp.csr_matrix) -> Callable[[float, int], Array]:
    import igraph

    graph = _igraph_graph(A)

    def run(resolution: float, seed: int) -> Array:
        with _lock:
            igraph.set_random_number_generator(random.Random(seed))
            try:
                partition = graph.community_leiden(
                    objective_function="modularity", weights="weight", resolution=resolution, n_iterations=2
                )
            finally:
                igraph.set_random_number_generator(random)
        return np.asarray(partition.membership, dtype=np.int64)

    return run


def _leidenalg(A: sp.csr_matrix) -> Callable[[float, int], Array]:
    import leidenalg

    graph = _igraph_graph(A)

    def run(resolution: float, seed: int) -> Array:
        partition = leidenalg.find_partition(
            graph,
            leidenalg.RBConfigurationVertexPartition,
            weights="weight",
            resolution_parameter=resolution,
            n_iterations=2,
            seed=seed,
        )
        return np.asarray(partition.membership, dtype=np.int64)

    return run


def _igraph_graph(A: sp.csr_matrix) -> Any:
    import igraph

    rows, cols, weights = upper_edges(A)
    edges = list(zip(rows.tolist(), cols.tolist(), strict=True))  # the fastest form that igraph takes
    return igraph.Graph(n=A.shape[0], edges=edges, edge_attrs={"weight": weights.astype(np.float64).tolist()})


FLAVORS: dict[str, Callable[[sp.csr_matrix], Callable[[float, int], Array]]] = {
    "networkit": _networkit,
    "igraph": _igraph,
    "leidenalg": _leidenalg,
}
