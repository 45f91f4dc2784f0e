r"""Leiden communities of a symmetric weighted graph, by one of three libraries, on one thread.

All maximise the modularity with resolution γ, :math:`\sum_c (e_c - \gamma K_c^2 / 2m)`. Every undirected edge is handed
over once.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse as sp

from ._graph import upper_edges

Array = np.ndarray
_lock = threading.Lock()  # networkit's and igraph's random states are the process's
MAX_SEARCH = 24  # Leiden runs that the search for a number of communities may take


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
