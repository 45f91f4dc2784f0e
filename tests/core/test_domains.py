"""A wanted number of domains: k-means and the Potts mixture."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

from spanmf.core import _domains, _smooth

SIDE = 30


def lattice(side: int = SIDE) -> sp.csr_matrix:
    """Rook neighbours on a square."""
    line = sp.diags([np.ones(side - 1)] * 2, [-1, 1])
    return sp.csr_matrix(sp.kron(line, sp.eye(side)) + sp.kron(sp.eye(side), line)).astype(np.float32)


@pytest.fixture
def planted() -> tuple[np.ndarray, np.ndarray]:
    """Z (n × 6) and labels: three stripes of a lattice, whose noise is about as large as what sets them apart."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), SIDE * SIDE // 3)
    centres = 2.2 * np.eye(3, 6)
    return (centres[truth] + rng.normal(size=(len(truth), 6))).astype(np.float32), truth


@pytest.fixture
def graph() -> _smooth.Graph:
    return _smooth.as_graph(lattice())


def potts(Z: np.ndarray, graph: _smooth.Graph, n_domains: int = 3, seed: int = 0) -> np.ndarray:
    return _domains.potts_mixture(Z, n_domains, graph, np.random.default_rng(seed))


def dense_potts(Z: np.ndarray, A: np.ndarray, n_domains: int, rng: np.random.Generator, n_steps: int) -> np.ndarray:
    """Posterior after some steps of mean field, one observation and one domain at a time, in float64."""
    centred = Z.astype(np.float64) - Z.mean(0, dtype=np.float64)
    U, s, _ = np.linalg.svd(centred, full_matrices=False)
    scores = (U * s)[:, : _domains.N_PCS]
    labels = _domains.k_means(_domains.principal_components(Z, _domains.N_PCS), n_domains, rng)[0]
    R = np.eye(n_domains)[labels]
    n, d = scores.shape
    for _ in range(n_steps):
        means = np.array([np.average(scores, axis=0, weights=R[:, k]) for k in range(n_domains)])
        within = sum(R[i, k] * ((scores[i] - means[k]) ** 2).sum() for i in range(n) for k in range(n_domains))
        variance = within / (n * d)
        new = np.empty_like(R)
        for i in range(n):
            degree = A[i].sum()
            field = A[i] @ R / degree if degree else np.zeros(n_domains)
            log_r = -((scores[i] - means) ** 2).sum(1) / (2 * variance) + _domains.POTTS * field
            new[i] = np.exp(log_r - log_r.max())
            new[i] /= new[i].sum()
        R = new
    return R


def test_planted_mixture_is_recovered_and_the_field_helps(planted, graph) -> None:
    Z, truth = planted
    alone = adjusted_rand_score(truth, _domains.k_means(Z, 3, np.random.default_rng(0))[0])
    with_field = adjusted_rand_score(truth, potts(Z, graph))
    assert alone < 0.9
    assert with_field > 0.97


@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_steps_are_those_of_a_dense_reference(planted, monkeypatch, n_steps) -> None:
    rng = np.random.default_rng(1)
    Z = planted[0][:200]
    A = np.triu(rng.random((200, 200)) * (rng.random((200, 200)) < 0.03), 1)
    A = (A + A.T).astype(np.float32)
    A[:5] = A[:, :5] = 0  # isolated
    monkeypatch.setattr(_domains, "MAX_STEPS", n_steps)
    found = potts(Z, _smooth.as_graph(sp.csr_matrix(A)))
    expected = dense_potts(Z, A.astype(np.float64), 3, np.random.default_rng(0), n_steps)
    top = np.sort(expected, axis=1)
    sure = top[:, -1] - top[:, -2] > 1e-3  # float32 may decide the others differently
    assert sure.mean() > 0.97
    np.testing.assert_array_equal(found[sure], expected.argmax(1)[sure])


def test_isolated_observations_get_the_label_of_their_own_values(planted, graph) -> None:
    Z, truth = planted
    A = lattice().tolil()
    alone = [0, 450, 899]
    for i in alone:
        A[i, :] = 0
        A[:, i] = 0
        Z[i] = 2.2 * np.eye(3, 6)[truth[i]]
    labels = potts(Z, _smooth.as_graph(sp.csr_matrix(A).astype(np.float32)))
    for i in alone:
        assert labels[i] == np.bincount(labels[truth == truth[i]]).argmax()


def test_without_edges_every_observation_is_with_its_nearest_mean(planted) -> None:
    Z, _ = planted
    labels = potts(Z, _smooth.as_graph(sp.csr_matrix((len(Z), len(Z)), dtype=np.float32)))
    k_means = _domains.k_means(Z, 3, np.random.default_rng(0))[0]
    assert adjusted_rand_score(labels, k_means) > 0.85


def test_same_seed_same_labels_on_one_and_two_threads() -> None:
    side = 100  # several tasks of rows
    Z = np.random.default_rng(2).normal(size=(side * side, 6)).astype(np.float32)
    graph = _smooth.as_graph(lattice(side))
    threads = numba.get_num_threads()
    runs = []
    try:
        for n in (1, min(2, numba.config.NUMBA_NUM_THREADS), 1):
            numba.set_num_threads(n)
            runs.append(potts(Z, graph, seed=3))
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


def test_scale_and_shift_of_z_do_not_matter(planted, graph) -> None:
    Z, _ = planted
    np.testing.assert_array_equal(potts(Z, graph), potts(64 * Z + 8, graph))


def test_k_means_continues_on_all_from_a_subsample(planted, monkeypatch) -> None:
    Z, truth = planted
    Z = Z + 2 * np.eye(3, 6, dtype=np.float32)[truth]
    monkeypatch.setattr(_domains, "SAMPLE", 100)
    labels, centres = _domains.k_means(Z, 3, np.random.default_rng(0))
    assert adjusted_rand_score(truth, labels) > 0.97
    nearest = ((Z[:, None] - centres) ** 2).sum(2).argmin(1)
    np.testing.assert_array_equal(labels, nearest)


def test_values_that_are_all_the_same_stay_finite(graph) -> None:
    with pytest.warns(match="distinct clusters"):  # scikit-learn says so
        labels = potts(np.ones((SIDE * SIDE, 4), dtype=np.float32), graph)
    assert set(labels) <= {0, 1, 2}


def test_principal_components_are_those_of_an_svd(planted) -> None:
    Z, _ = planted
    scores = _domains.principal_components(Z, 4)
    U, s, _ = np.linalg.svd(Z.astype(np.float64) - Z.mean(0, dtype=np.float64), full_matrices=False)
    np.testing.assert_allclose(np.abs(scores), np.abs(U * s)[:, :4], atol=1e-8)
    np.testing.assert_array_equal(_domains.principal_components(Z, 99).shape, Z.shape)
