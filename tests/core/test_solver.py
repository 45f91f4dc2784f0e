"""The engine against slow references: the pass over X, the update of H, objectives, penalties, starts."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import nnls
from sklearn.decomposition import NMF

import spanmf as sn
from spanmf.core import _init, _ops, _smooth, _snmf, _solver


@pytest.fixture(scope="module")
def X() -> sp.csr_matrix:
    rng = np.random.default_rng(0)
    dense = rng.gamma(0.3, 1, (700, 4)) @ rng.gamma(0.3, 1, (4, 60)) * (rng.random((700, 60)) < 0.5)
    dense[5] = 0
    dense[:, 7] = 0
    return sp.csr_matrix(dense.astype(np.float32))


@pytest.fixture(scope="module")
def graph() -> _smooth.Graph:
    return _smooth.as_graph(_ring(700))


def _ring(n: int) -> sp.csr_matrix:
    """A ring of n − 1 nodes with weights, and one isolated node at the end."""
    i = np.arange(n - 1)
    w = 1 + (i % 3)
    A = sp.coo_matrix((w, (i, (i + 1) % (n - 1))), shape=(n, n)).tocsr()
    return sp.csr_matrix(A + A.T, dtype=np.float32)


def _start(k: int, n: int = 700, p: int = 60, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((n, k)).astype(np.float32), rng.random((k, p)).astype(np.float32)


def _frobenius(X: sp.csr_matrix, W: np.ndarray, H: np.ndarray, p: _solver.Penalty = _solver.NO_PENALTY) -> float:
    W, H = W.astype(float), H.astype(float)
    return float(
        0.5 * ((X.toarray() - W @ H) ** 2).sum()
        + p.l1_w * W.sum() + p.l1_h * H.sum() + 0.5 * p.l2_w * (W**2).sum() + 0.5 * p.l2_h * (H**2).sum()
    )  # fmt: skip


def _divergence(X: sp.csr_matrix, W: np.ndarray, H: np.ndarray) -> float:
    x, fit = X.toarray().astype(float), W.astype(float) @ H.astype(float)
    logs = np.where(x > 0, x * np.log(np.where(x > 0, x, 1) / np.maximum(fit, 1e-20)), 0)
    return float((logs - x + fit).sum())


@pytest.mark.parametrize("k", [1, 3, 16, 19, 112])
@pytest.mark.parametrize("with_anchor", [False, True])
def test_hals_pass_equals_slow_coordinate_descent(X: sp.csr_matrix, k: int, with_anchor: bool) -> None:
    W, H = _start(k)
    rng = np.random.default_rng(2)
    c, q = (rng.random((700, k)), rng.random(700)) if with_anchor else (np.zeros((700, k)), np.zeros(700))
    l1, G = 0.3, (H @ H.T).astype(float)
    slow = W.astype(float)
    target = X @ H.T.astype(float) - l1 + c
    for _ in range(3):
        for r in range(k):
            slow[:, r] = np.maximum(slow[:, r] + (target[:, r] - slow @ G[:, r] - q * slow[:, r]) / (G[r, r] + q), 0)
    out = _ops.pad(np.zeros_like(W))
    stats = _ops.hals_pass(
        _ops.as_rows(X), _ops.pad(H.T), _ops.pad(W), out, k, gram=G, sweeps=3, l1=l1,
        anchor=_ops.pad(c) if with_anchor else None, anchor_weight=q.astype(np.float32) if with_anchor else None,
    )  # fmt: skip
    np.testing.assert_allclose(out[:, :k], slow, atol=2e-4)
    assert not out[:, k:].any()
    fast = out[:, :k].astype(float)
    np.testing.assert_allclose(stats.xtw, X.T @ fast, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(stats.wtw, fast.T @ fast, rtol=1e-5)
    np.testing.assert_allclose(stats.w_sum, fast.sum(0), rtol=1e-5)


def test_kl_pass_equals_slow_multiplicative_updates(X: sp.csr_matrix) -> None:
    W, H = _start(3)
    x, slow = X.toarray().astype(float), W.astype(float)
    for _ in range(2):
        slow *= (x / np.maximum(slow @ H, 1e-20)) @ H.T / (H.sum(1) + 0.2)
    out = _ops.pad(np.zeros_like(W))
    stats = _ops.kl_pass(_ops.as_rows(X), _ops.pad(H.T), _ops.pad(W), out, 3, h_sum=H.sum(1), sweeps=2, l1=0.2)
    np.testing.assert_allclose(out[:, :3], slow, rtol=1e-4, atol=1e-6)
    fit = np.maximum(out[:, :3].astype(float) @ H, 1e-20)
    np.testing.assert_allclose(stats.xtw, (x / fit).T @ out[:, :3], rtol=1e-4, atol=1e-4)
    assert stats.log_term == pytest.approx((x * np.log(fit))[x > 0].sum(), rel=1e-5)


@pytest.mark.parametrize("p", [1, 63, 64, 65, 130])
def test_h_in_tiles_is_slow_coordinate_descent(p: int) -> None:
    rng = np.random.default_rng(p)
    W, H = rng.random((40, 5)), rng.random((p, 5))
    W[:, 2] = 0  # a component without weights keeps its loadings
    stats = _ops.Statistics(rng.random((p, 40)) @ W, W.T @ W, W.sum(0))
    slow = H.copy()
    C = stats.wtw + 0.2 * np.eye(5) * (np.arange(5) != 2)
    for _ in range(3):
        for r in (0, 1, 3, 4):
            slow[:, r] = np.maximum(slow[:, r] + (stats.xtw[:, r] - 0.3 - slow @ C[:, r]) / C[r, r], 0)
    stats = _ops.Statistics(stats.xtw, C, stats.w_sum)
    np.testing.assert_allclose(_solver.hals_h(stats, H, l1=0.3, sweeps=3), slow, atol=1e-12)


PENALTIES = [_solver.NO_PENALTY, _solver.Penalty(l1_w=0.2, l1_h=1.0), _solver.Penalty(l2_w=0.5, l2_h=2.0)]


@pytest.mark.parametrize("penalty", PENALTIES, ids=["plain", "l1", "l2"])
def test_objective_is_what_it_says_and_never_rises(X: sp.csr_matrix, penalty: _solver.Penalty) -> None:
    W, H = _start(4)
    result = _solver.fit(_ops.as_rows(X), H, W, penalty=penalty, max_iter=60, tol=0)
    assert result.trace[-1] == pytest.approx(_frobenius(X, result.W, result.H, penalty), rel=1e-6)
    assert (np.diff(result.trace) <= 0).all()
    assert result.trace[-1] < 0.7 * result.trace[0]
    assert (result.W >= 0).all()
    assert (result.H >= 0).all()
    assert result.W.dtype == result.H.dtype == np.float32


def test_kl_objective_is_what_it_says_and_never_rises(X: sp.csr_matrix) -> None:
    W, H = _start(4)
    result = _solver.fit(_ops.as_rows(X), H, W, loss="kl", max_iter=60, tol=0)
    assert result.trace[-1] == pytest.approx(_divergence(X, result.W, result.H), rel=1e-5)
    assert (np.diff(result.trace) <= 0).all()


def test_laplacian_objective_never_rises_and_rows_of_h_keep_unit_norm(X: sp.csr_matrix, graph: _smooth.Graph) -> None:
    W, H = _start(4)
    result = _solver.fit(_ops.as_rows(X), H, W, graph=graph, graph_weight=0.3, max_iter=80, tol=0)
    A = _ring(700).toarray()
    L = np.diag(A.sum(1)) - A
    w = result.W.astype(float)
    expected = _frobenius(X, result.W, result.H) + 0.15 * np.trace(w.T @ L @ w)
    assert result.trace[-1] == pytest.approx(expected, rel=1e-6)
    assert (np.diff(result.trace) <= 0).all()
    np.testing.assert_allclose(np.linalg.norm(result.H, axis=1), 1, atol=1e-6)


def test_laplacian_is_stationary_for_w(X: sp.csr_matrix, graph: _smooth.Graph) -> None:
    """At the end every positive weight has gradient 0 and every zero weight a gradient that keeps it there."""
    W, H = _start(3)
    result = _solver.fit(_ops.as_rows(X), H, W, graph=graph, graph_weight=0.3, max_iter=3000, tol=1e-12)
    A = _ring(700).toarray()
    w, h = result.W.astype(float), result.H.astype(float)
    gradient = w @ h @ h.T - X @ h.T + 0.3 * (A.sum(1)[:, None] * w - A @ w)
    scale = np.abs(X @ h.T).max()
    assert np.abs(gradient[w > 1e-4]).max() < 1e-3 * scale
    assert gradient[w <= 1e-4].min() > -1e-3 * scale


@pytest.mark.parametrize(("difficulty", "least"), [("easy", 3), ("hard", 11)])
def test_starts_that_agree_spare_the_others(difficulty: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = sn.datasets.planted_factors(1200, difficulty=difficulty, rng=0)
    if difficulty == "easy":
        table.X = table.X.log1p()
    begun, begin = [], _solver.begin
    monkeypatch.setattr(_solver, "begin", lambda *args: begun.append(args) or begin(*args))
    _init.starts(_ops.as_rows(table.X), 10, np.random.default_rng(0))
    assert len(begun) == least if difficulty == "easy" else len(begun) >= least


def test_a_run_goes_on_where_it_stopped(X: sp.csr_matrix) -> None:
    rows, H = _ops.as_rows(X), np.random.default_rng(0).random((4, X.shape[1]))
    assert (
        _init._Run(rows, H, 1e-5).advance(3).advance(7).objective == _solver.fit(rows, H, max_iter=7, tol=0).trace[-1]
    )


def test_reaches_scikit_learns_objective(X: sp.csr_matrix) -> None:
    for seed in range(3):
        H = _init.starts(_ops.as_rows(X), 4, np.random.default_rng(seed))
        ours = _solver.fit(_ops.as_rows(X), H, max_iter=2000, tol=1e-9)
        peer = NMF(4, init="nndsvda", max_iter=2000, tol=1e-6).fit(X.astype(np.float64))
        reference = 0.5 * peer.reconstruction_err_**2
        assert ours.trace[-1] <= reference * (1 + 1e-4)


def test_kl_reaches_scikit_learns_objective(X: sp.csr_matrix) -> None:
    W, H = _init.initialise(_ops.as_rows(X), 4, "nndsvda", np.random.default_rng(0), "kl")
    ours = _solver.fit(_ops.as_rows(X), H, W, loss="kl", max_iter=2000, tol=1e-8)
    peer = NMF(4, init="nndsvda", solver="mu", beta_loss="kullback-leibler", max_iter=2000, tol=1e-8).fit(X)
    assert ours.trace[-1] <= _divergence(X, peer.transform(X), peer.components_) * (1 + 1e-3)


@pytest.mark.parametrize("penalty", PENALTIES[1:], ids=["l1", "l2"])
def test_penalties_mean_what_scikit_learns_mean(X: sp.csr_matrix, penalty: _solver.Penalty) -> None:
    W, H = _start(3)
    ours = _solver.fit(_ops.as_rows(X), H, W, penalty=penalty, max_iter=3000, tol=1e-10)
    n, p = X.shape
    ratio = 1.0 if penalty.l1_w else 0.0
    peer = NMF(
        3, init="custom", l1_ratio=ratio, max_iter=3000, tol=1e-8,
        alpha_W=(penalty.l1_w + penalty.l2_w) / p, alpha_H=(penalty.l1_h + penalty.l2_h) / n,
    )  # fmt: skip
    V = peer.fit_transform(X.astype(np.float64), W=W.astype(np.float64), H=H.astype(np.float64))
    assert ours.trace[-1] == pytest.approx(_frobenius(X, V, peer.components_, penalty), rel=2e-3)


def test_solve_w_is_non_negative_least_squares(X: sp.csr_matrix) -> None:
    _, H = _start(4)
    W = _solver.solve_w(_ops.as_rows(X), H, tol=1e-6)
    for i in (0, 5, 350, 699):
        np.testing.assert_allclose(W[i], nnls(H.T.astype(float), X[i].toarray().ravel().astype(float))[0], atol=2e-4)


def test_solve_w_kl_is_stationary(X: sp.csr_matrix) -> None:
    _, H = _start(4)
    W = _solver.solve_w(_ops.as_rows(X), H, loss="kl", tol=1e-5, max_iter=400).astype(float)
    x = X.toarray().astype(float)
    filled = x.sum(1) > 0
    gradient = H.sum(1) - (x / np.maximum(W @ H, 1e-20)) @ H.T
    assert np.abs((gradient * W)[filled]).max() < 1e-2
    assert not W[~filled].any()


def test_refit_h_is_the_best_h(X: sp.csr_matrix) -> None:
    W, H = _start(3)
    refitted = _snmf.refit_h(_ops.as_rows(X), W, H)
    x = X.toarray().astype(float)
    for j in (0, 7, 30):
        np.testing.assert_allclose(refitted[:, j], nnls(W.astype(float), x[:, j])[0], atol=1e-3)
    before, after = _divergence(X, W, H), _divergence(X, W, _snmf.refit_h(_ops.as_rows(X), W, H, "kl"))
    assert after < before


@pytest.mark.parametrize("method", ["auto", "nndsvd", "nndsvda", "nndsvdar", "random"])
def test_starts_are_non_negative_and_repeat(X: sp.csr_matrix, method: str) -> None:
    first, second = (_init.initialise(_ops.as_rows(X), 4, method, np.random.default_rng(3)) for _ in range(2))
    for a, b, shape in zip(first, second, [(700, 4), (4, 60)], strict=True):
        if a is None:
            assert method == "auto"
            continue
        assert a.shape == shape
        assert (a >= 0).all()
        np.testing.assert_array_equal(a, b)


def test_nndsvd_is_boutsidis_and_gallopoulos(X: sp.csr_matrix) -> None:
    """Against the definition, with an exact SVD."""
    U, S, V = np.linalg.svd(X.toarray().astype(float), full_matrices=False)
    W, H = _init.nndsvd(_ops.as_rows(X), 3, np.random.default_rng(0))
    product = np.outer(np.abs(U[:, 0]), np.abs(V[0])) * S[0]
    np.testing.assert_allclose(np.outer(W[:, 0], H[0]), product, atol=1e-3 * product.max())
    for r in (1, 2):
        best = max(
            (np.linalg.norm(np.maximum(s * U[:, r], 0)) * np.linalg.norm(np.maximum(s * V[r], 0)), s) for s in (1, -1)
        )[1]
        product = S[r] * np.outer(np.maximum(best * U[:, r], 0), np.maximum(best * V[r], 0))
        np.testing.assert_allclose(np.outer(W[:, r], H[r]), product, atol=5e-2 * product.max())


def test_planted_factors_come_back() -> None:
    rng = np.random.default_rng(4)
    H = rng.gamma(0.2, 1, (5, 80))
    H /= np.linalg.norm(H, axis=1, keepdims=True)
    W = rng.gamma(0.2, 5, (1500, 5))
    X = _ops.as_rows(sp.csr_matrix((W @ H).astype(np.float32)))
    result = _solver.fit(X, _init.starts(X, 5, rng), max_iter=3000, tol=1e-9)
    found = result.H / np.linalg.norm(result.H, axis=1, keepdims=True)
    assert (found @ H.T).max(0).min() > 0.999


def test_same_bits_on_one_thread_and_two(X: sp.csr_matrix, graph: _smooth.Graph) -> None:
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    big = sp.vstack([X] * 8, format="csr")
    _, H = _start(4)
    outcomes = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        try:
            outcomes.append(
                [
                    _solver.fit(_ops.as_rows(big), H, max_iter=10, tol=0),
                    _solver.fit(_ops.as_rows(big), H, loss="kl", max_iter=5, tol=0),
                    _solver.fit(_ops.as_rows(X), H, graph=graph, graph_weight=0.3, max_iter=5, tol=0),
                ]
            )
        finally:
            numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    for one, two in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(one.W, two.W)
        np.testing.assert_array_equal(one.H, two.H)
        np.testing.assert_array_equal(one.trace, two.trace)


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, np.asarray, sp.coo_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_rows_of_any_container(form: type, dtype: type) -> None:
    dense = np.random.default_rng(0).poisson(0.5, (30, 11)).astype(dtype)
    mask = np.arange(11) % 3 > 0
    rows = _ops.as_rows(form(dense), mask)
    assert rows.data.dtype == np.float32
    assert rows.shape == (30, 7)
    back = sp.csr_matrix((rows.data, rows.indices, rows.indptr), shape=rows.shape)
    np.testing.assert_array_equal(back.toarray(), dense[:, mask])


def test_csr_float32_is_not_copied(X: sp.csr_matrix) -> None:
    assert np.shares_memory(_ops.as_rows(X).data, X.data)


def test_smoothing_is_the_formula(graph: _smooth.Graph) -> None:
    W, _ = _start(3)
    A = _ring(700).toarray().astype(float)
    P = (A + np.eye(700)) / (A.sum(1) + 1)[:, None]
    expected = W.astype(float)
    for _ in range(3):
        expected = 0.3 * expected + 0.7 * P @ expected
    smoothed = _smooth.diffuse(graph, W, 0.7, 3)
    np.testing.assert_allclose(smoothed, expected, atol=1e-5)
    np.testing.assert_allclose(smoothed[-1], W[-1], rtol=1e-6)  # the isolated one
    np.testing.assert_array_equal(_smooth.diffuse(graph, W, 0.7, 0), W)
