"""Deconvolution on arrays, against dense references and planted truth."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from numba import get_num_threads, set_num_threads
from scipy.optimize import minimize, nnls

from spanmf.core import _ops, _stl_poisson, _stl_reference
from spanmf.core._stl import fit as deconvolve
from spanmf.core._stl_em import deviances, em_pass
from spanmf.core._stl_model import Options, Reference
from spanmf.core._stl_prior import Smoother, weaken_borders


def simulate(
    n: int = 150, p: int = 200, k: int = 5, depth: float = 800, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, mean counts of a cell (k × p) and shares of the cells."""
    rng = np.random.default_rng(seed)
    B = rng.gamma(0.5, 1, p) * np.exp(rng.normal(0, 1.2, (k, p)))
    B *= (rng.uniform(500, 2000, k) / B.sum(1))[:, None]
    V = rng.dirichlet(np.full(k, 0.5), n)
    mean = V @ B
    X = rng.poisson(mean * (depth / mean.sum(1))[:, None] * rng.lognormal(0, 0.3, (n, 1)))
    return X.astype(np.float32), B, V


def line_graph(n: int) -> sp.csr_matrix:
    return sp.csr_matrix(sp.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[-1, 1]), dtype=np.float32)


def error(found: np.ndarray, V: np.ndarray) -> float:
    return float(np.linalg.norm(found - V) / np.linalg.norm(V))


def slow_objective(x: np.ndarray, Q: np.ndarray, v: np.ndarray, m: np.ndarray, a: float) -> float:
    return float(-(x * np.log(v @ Q)).sum() - a * (m * np.log(v)).sum())


@pytest.mark.parametrize("a", [0.0, 15.0])
def test_rows_reach_the_optimum_of_the_dense_objective_and_never_rise(a: float) -> None:
    X, B, _ = simulate(n=6)
    Q = B / B.sum(1, keepdims=True)
    k = len(Q)
    rows = _ops.as_rows(X)
    prior = _ops.pad(np.random.default_rng(1).dirichlet(np.ones(k), len(X)))
    V = _ops.pad(np.full((len(X), k), 1 / k))
    weight = np.full(len(X), a, np.float32)
    values = []
    for _ in range(60):
        done = em_pass(rows, Q, V, prior if a else None, weight if a else None)
        V = done.V
        values.append(done.prior - done.log_likelihood)
    assert (np.diff(values) <= 1e-6 * np.abs(values[-1])).all()
    for x, v, m in zip(X, V[:, :k].astype(float), prior[:, :k].astype(float), strict=True):

        def objective(z: np.ndarray, x: np.ndarray = x, m: np.ndarray = m) -> float:
            e = np.exp(z - z.max())
            return slow_objective(x, Q, np.maximum(e / e.sum(), 1e-12), m, a)

        best = minimize(objective, np.zeros(k), method="L-BFGS-B", options={"maxiter": 500}).fun
        assert slow_objective(x, Q, np.maximum(v, 1e-12), m, a) <= best + 1e-4 * abs(best)


def test_statistics_of_a_pass_are_those_of_the_dense_matrices() -> None:
    X, B, _ = simulate(n=40)
    Q = B / B.sum(1, keepdims=True)
    done = em_pass(_ops.as_rows(X), Q, _ops.pad(np.full((40, 5), 0.2)))
    V = done.V[:, :5].astype(float)
    assert done.log_likelihood == pytest.approx((X * np.log(V @ Q)).sum(), rel=1e-5)
    np.testing.assert_allclose(done.sums, (X / (V @ Q)).T @ V, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(V.sum(1), 1, rtol=1e-5)


def test_least_squares_is_that_of_scipy() -> None:
    _, B, V = simulate(n=30)
    X = (V @ B + np.random.default_rng(0).normal(0, 0.05, (30, B.shape[1]))).clip(0).astype(np.float32)
    fit = deconvolve(X, Reference(B), options=Options(likelihood="gaussian", tol=1e-6))
    slow = np.stack([nnls(B.T, x)[0] for x in X.astype(float)])
    np.testing.assert_allclose(fit.cells, slow / slow.sum(1, keepdims=True), atol=2e-4)
    assert fit.converged


def test_least_squares_is_drawn_to_the_surroundings_as_far_as_there_is_noise() -> None:
    _, B, V = simulate(n=60)
    V = np.repeat(V[:6], 10, axis=0)  # ten neighbours alike
    rng, graph = np.random.default_rng(0), line_graph(60)
    errors = []
    for sd in (1e-3, 8.0):
        X = (V @ B + rng.normal(0, sd, (60, B.shape[1]))).astype(np.float32)
        X[X < 0] = 0
        alone, drawn = (
            deconvolve(X, Reference(B), graph=graph, options=Options(likelihood="gaussian", graph_weight=w))
            for w in (0.0, 10.0)
        )
        errors.append((error(alone.cells, V), error(drawn.cells, V), np.abs(alone.cells - drawn.cells).max()))
    assert errors[0][2] < 1e-3
    assert errors[1][1] < errors[1][0]


def test_likelihood_follows_the_dispersion() -> None:
    X, B, V = simulate(depth=3000)
    assert deconvolve(X, Reference(B)).likelihood == "poisson"
    exact = deconvolve(np.floor(V @ B * 3), Reference(B))
    assert exact.likelihood == "gaussian"
    assert exact.dispersion < 0.75


def test_planted_shares_are_found_of_cells_and_of_mrna() -> None:
    X, B, V = simulate(depth=5000)
    fit = deconvolve(X, Reference(B, np.full(5, 100)), graph=line_graph(150))
    assert error(fit.cells, V) < 0.08
    mrna = V * B.sum(1)
    assert error(fit.mrna, mrna / mrna.sum(1, keepdims=True)) < 0.08
    np.testing.assert_allclose(fit.cells.sum(1), 1, rtol=1e-5)


def test_the_section_mends_profiles_of_few_cells() -> None:
    X, B, V = simulate(n=300, depth=2000)
    n_cells = np.array([1, 1, 1, 200, 200])  # most of the types: none is mended more readily than the median one
    rough = np.random.default_rng(3).poisson(B * 0.2 * n_cells[:, None]) / (0.2 * n_cells[:, None])
    mended, kept = (
        deconvolve(X, Reference(rough, 0.2 * n_cells), options=Options(reference_weight=w)) for w in (2.0, np.inf)
    )
    mrna = V * B.sum(1)
    mrna /= mrna.sum(1, keepdims=True)
    assert error(mended.mrna, mrna) < 0.8 * error(kept.mrna, mrna)
    Q = (B / B.sum(1, keepdims=True))[:, mended.genes]
    Q /= Q.sum(1, keepdims=True)
    assert np.linalg.norm(mended.profiles - Q) < np.linalg.norm(kept.profiles - Q)
    assert len(kept.mending) == 0
    assert len(mended.mending) > 2


def test_factors_of_genes_are_found_where_there_are_some_and_only_there() -> None:
    X, B, V = simulate(n=300, p=400, depth=4000)
    factors = np.random.default_rng(5).lognormal(0, 0.8, 400)
    shifted = np.random.default_rng(6).poisson(X * factors).astype(np.float32)
    plain, found = deconvolve(X, Reference(B)), deconvolve(shifted, Reference(B))
    assert plain.platform is None
    assert found.platform is not None
    log = np.log(found.platform) - np.log(factors[found.genes])
    assert np.std(log) < 0.4
    without = deconvolve(shifted, Reference(B), options=Options(platform=False))
    assert error(found.cells, V) < 0.8 * error(without.cells, V)


def test_the_graph_helps_where_neighbours_are_alike() -> None:
    _, B, V = simulate(n=200)
    V = np.repeat(V[:10], 20, axis=0)
    X = np.random.default_rng(2).poisson(V @ B * 0.05).astype(np.float32)
    alone, drawn = (
        deconvolve(X, Reference(B), graph=line_graph(200), options=Options(graph_weight=w)) for w in (0.0, 30.0)
    )
    assert error(drawn.cells, V) < 0.9 * error(alone.cells, V)


def test_means_of_the_surroundings_are_those_of_dense_products() -> None:
    rng = np.random.default_rng(0)
    A, regions = line_graph(12), np.array([0] * 4 + [1] * 5 + [-1] * 3)
    V = _ops.pad(rng.dirichlet(np.ones(3), 12))
    valid = np.arange(12) != 5
    smoother = Smoother.of(A, regions, 3, Options(graph_weight=4.0, region_weight=6.0))
    mean, weight = smoother.mean(V, valid)
    near = A.toarray() * valid[None]
    near /= near.sum(1, keepdims=True)
    for i in range(12):
        parts = 4.0 * near[i] @ V
        if regions[i] >= 0:
            parts = parts + 6.0 * V[(regions == regions[i]) & valid].mean(0)
        assert weight[i] == (10.0 if regions[i] >= 0 else 4.0)
        np.testing.assert_allclose(mean[i], parts / weight[i], rtol=1e-5)


def test_borders_are_weak_between_known_regions_only() -> None:
    A = line_graph(4)
    weak = weaken_borders(A, np.array([0, 1, 1, -1]), 0.25)
    np.testing.assert_array_equal(weak.toarray()[0, 1], 0.25)
    np.testing.assert_array_equal([weak[1, 2], weak[2, 3]], [1, 1])
    assert A[0, 1] == 1


def test_spots_without_counts_are_nan_and_change_nothing() -> None:
    X, B, _ = simulate(n=30)
    X[7] = 0
    fit = deconvolve(X, Reference(B, np.full(5, 50)), graph=line_graph(30))
    assert np.isnan(fit.cells[7]).all()
    assert np.isnan(fit.spot_deviance[7])
    assert np.isfinite(np.delete(fit.cells, 7, axis=0)).all()


@pytest.mark.parametrize("likelihood", ["poisson", "gaussian"])
def test_sparse_is_dense_and_one_thread_is_two(likelihood: str) -> None:
    X, B, _ = simulate(n=1500, p=300)
    options = Options(likelihood=likelihood, level=0.9)
    results = []
    for threads, form in ((1, X), (2, sp.csc_matrix(X))):
        before = get_num_threads()
        set_num_threads(min(threads, before))
        results.append(deconvolve(form, Reference(B, np.full(5, 20)), graph=line_graph(1500), options=options))
        set_num_threads(before)
    one, two = results
    np.testing.assert_array_equal(one.cells, two.cells)
    np.testing.assert_array_equal(one.trace, two.trace)
    np.testing.assert_array_equal(one.upper, two.upper)


def test_deviances_are_those_of_the_dense_fit() -> None:
    X, B, V = simulate(n=20)
    Q = B / B.sum(1, keepdims=True)
    mu = X.sum(1, keepdims=True) * (V @ Q)
    term = 2 * (X * np.log(np.where(X > 0, X, 1) / mu) - (X - mu))
    spot, gene = deviances(_ops.as_rows(X), X.sum(1).astype(float), Q, _ops.pad(V))
    np.testing.assert_allclose(gene, term.sum(0), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(spot, term.sum(1), rtol=1e-3, atol=5e-2)


def test_intervals_cover_where_the_reference_is_exact() -> None:
    X, B, V = simulate(n=300, depth=1500)
    options = Options(likelihood="poisson", level=0.9, reference_weight=np.inf, platform=False, graph_weight=0)
    fit = deconvolve(X, Reference(B), options=options)
    assert fit.lower is not None
    assert fit.upper is not None
    assert (fit.lower <= fit.cells + 1e-6).all()
    assert (fit.cells <= fit.upper + 1e-6).all()
    inside = (fit.lower <= V) & (fit.upper >= V)
    assert 0.85 <= inside.mean() <= 0.95


def test_a_type_held_at_zero_may_be_absent() -> None:
    _, B, V = simulate(n=200)
    V[V < 0.2] = 0
    V /= V.sum(1, keepdims=True)
    X = np.random.default_rng(4).poisson(V @ B).astype(np.float32)
    fit = deconvolve(X, Reference(B), options=Options(level=0.9, platform=False))
    assert fit.lower is not None
    assert (fit.lower[V == 0] == 0).mean() > 0.9


def test_large_sections_are_learned_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    X, B, V = simulate(n=400, depth=3000)
    monkeypatch.setattr(_stl_poisson, "LEARNING_SPOTS", 100)
    fit = deconvolve(X, Reference(B, np.full(5, 20)), graph=line_graph(400))
    assert error(fit.cells, V) < 0.15
    assert fit.trace[-1] > fit.mending[-1]  # of four times as many spots


def test_one_spot_and_one_type() -> None:
    X, B, V = simulate(n=1, depth=5000)
    assert error(deconvolve(X, Reference(B, np.full(5, 50))).cells, V) < 0.2
    alone = deconvolve(X, Reference(B[:1], np.ones(1)))
    np.testing.assert_allclose(alone.cells, 1)


def test_informative_genes_differ_between_types_and_are_seen() -> None:
    profiles = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.3, 0.2, 0.4]])
    np.testing.assert_array_equal(_stl_reference.informative(np.array([1, 1, 1, 0], bool), profiles, 10), [0])
    np.testing.assert_array_equal(_stl_reference.informative(np.ones(4, bool), profiles, None), [0, 3])


def test_sizes_of_types_from_few_cells_are_drawn_to_the_common_mean() -> None:
    B = np.diag([1000.0, 1000.0, 8000.0])
    sizes = _stl_reference.shrunk_sizes(B, np.array([500.0, 500.0, 1.0]))
    assert 1000 < sizes[2] < 8000
    assert sizes[0] == pytest.approx(1000, rel=0.02)
    np.testing.assert_array_equal(_stl_reference.shrunk_sizes(B, None), B.sum(1))
