"""What surrounds networkit's Leiden on large graphs: a part of the light weights, and moves of single nodes at the end."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

from spanmf.core import _leiden

N, GROUPS = 600, 4
TRUTH = np.arange(N) % GROUPS


@pytest.fixture(scope="module")
def graph() -> sp.csr_matrix:
    """Four groups; heavy edges to few and light ones to many, most of them within a group; a node without edges."""
    rng = np.random.default_rng(0)
    same = TRUTH[:, None] == TRUTH
    heavy = np.where(rng.random((N, N)) < np.where(same, 0.06, 0.002), 1.0, 0.0)
    light = np.where(rng.random((N, N)) < np.where(same, 0.5, 0.1), 0.02 * rng.random((N, N)), 0.0)
    upper = np.triu(np.maximum(heavy, light), 1)
    upper[7] = upper[:, 7] = 0
    return sp.csr_matrix(upper + upper.T, dtype=np.float32)


def modularity(A: sp.csr_matrix, labels: np.ndarray, gamma: float) -> float:
    """By its definition."""
    dense = A.toarray().astype(np.float64)
    k = dense.sum(1)
    B = dense - gamma * np.outer(k, k) / k.sum()
    return float(B[labels[:, None] == labels].sum() / k.sum())


def test_thinning_keeps_heavy_weights_symmetry_and_the_mean(graph: sp.csr_matrix) -> None:
    least = 0.02 * float(graph.sum()) / N
    few = _leiden.thinned(graph, least)
    assert few.nnz < 0.5 * graph.nnz
    assert few.has_sorted_indices
    assert abs(few - few.T).max() == 0
    before, after = graph.toarray(), few.toarray()
    np.testing.assert_array_equal(after[before >= least], before[before >= least])
    assert set(np.unique(after[before < least])) == {0, np.float32(least)}
    light = before < least
    np.testing.assert_allclose(after[light].sum(), before[light].sum(), rtol=0.05)
    within, between = light & (TRUTH[:, None] == TRUTH), light & (TRUTH[:, None] != TRUTH)
    for part in (within, between):
        np.testing.assert_allclose(after[part].sum(), before[part].sum(), rtol=0.1)


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_moves_end_where_no_node_gains(graph: sp.csr_matrix, gamma: float) -> None:
    strength = np.asarray(graph.sum(1, dtype=np.float64)).ravel()
    start = np.random.default_rng(1).integers(0, 6, N)
    end = _leiden.moved(graph, strength, start, gamma, 0)
    best = modularity(graph, end, gamma)
    assert best > modularity(graph, start, gamma) + 0.1
    for i in range(0, N, 20):
        for c in np.unique(end):
            other = end.copy()
            other[i] = c
            assert modularity(graph, other, gamma) <= best + 1e-8
    np.testing.assert_array_equal(end, _leiden.moved(graph, strength, start, gamma, 0))


def test_a_large_graph_is_clustered_as_well_by_a_part_of_its_weights(
    graph: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _leiden.leiden(graph, 1.0, flavor="networkit", seed=0)
    monkeypatch.setattr(_leiden, "THINNED_FROM", 0)
    parts = [_leiden.leiden(graph, 1.0, flavor="networkit", seed=0) for _ in range(2)]
    np.testing.assert_array_equal(*parts)
    assert modularity(graph, parts[0], 1.0) > modularity(graph, whole, 1.0) - 0.01
    assert adjusted_rand_score(TRUTH, parts[0]) > 0.9
    assert set(parts[0]) == set(range(parts[0].max() + 1))
