"""Where a factorisation starts from: sketches against slow references, and what the tournament of starts finds."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import scipy.sparse as sp

import spanmf as sn
from spanmf.core import _init, _ops, _sketch, _solver


def _matrix(n: int = 700, p: int = 60) -> sp.csr_matrix:
    rng = np.random.default_rng(0)
    dense = rng.gamma(0.3, 1, (n, 6)) @ rng.gamma(0.3, 1, (6, p)) * (rng.random((n, p)) < 0.5)
    return sp.csr_matrix(dense.astype(np.float32))


@pytest.fixture(scope="module")
def X() -> sp.csr_matrix:
    return _matrix()


def _rows_of(tiles: np.ndarray, n: int) -> np.ndarray:
    """n × k of what is kept in tiles."""
    return tiles.transpose(0, 2, 1).reshape(-1, tiles.shape[1])[:n]


@pytest.mark.parametrize("k", [1, 4, 17])
@pytest.mark.parametrize("q", [5, 12])
@pytest.mark.parametrize("l1", [0.0, 0.3])
def test_a_pass_over_a_sketch_is_a_pass_over_what_it_shows(X: sp.csr_matrix, k: int, q: int, l1: float) -> None:
    rng = np.random.default_rng(1)
    V = np.linalg.qr(rng.standard_normal((60, q)))[0].astype(np.float32)
    seen = _sketch.sketch(_ops.as_rows(X), V)
    shown = X.toarray().astype(float) @ V @ V.T
    np.testing.assert_allclose(_rows_of(seen.Y, 700) @ V.T, shown, atol=1e-4)
    assert not _rows_of(seen.Y, 704)[700:].any()
    H = rng.random((k, 60))
    G = H @ H.T
    slow = np.zeros((700, k))
    for _ in range(3):
        for r in range(k):
            slow[:, r] = np.maximum(slow[:, r] + (shown @ H[r] - l1 - slow @ G[:, r]) / G[r, r], 0)
    W = _ops.start(seen, k)
    stats = _ops.hals_pass(seen, _ops.pad(H.T), W, W, k, gram=G, sweeps=3, l1=l1)
    fast = _rows_of(W, 700).astype(float)
    np.testing.assert_allclose(fast, slow, atol=2e-4)
    np.testing.assert_allclose(stats.xtw, shown.T @ fast, rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(stats.wtw, fast.T @ fast, rtol=1e-4)
    np.testing.assert_allclose(stats.w_sum, fast.sum(0), rtol=1e-4)
    assert _ops.squared_norm(seen) == pytest.approx(float((X.toarray().astype(float) ** 2).sum()), rel=1e-6)


def test_a_sketch_through_all_directions_fits_as_the_matrix_does(X: sp.csr_matrix) -> None:
    rows, H = _ops.as_rows(X), np.random.default_rng(2).random((5, 60))
    plain, seen = _solver.begin(rows, H), _solver.begin(_sketch.sketch(rows, np.eye(60, dtype=np.float32)), H)
    for _ in range(10):
        plain.step(0)
        seen.step(0)
    assert seen.objective == pytest.approx(plain.objective, rel=1e-5)
    np.testing.assert_allclose(seen.H, plain.H, rtol=1e-2, atol=1e-3)


def test_leading_directions_are_those_of_the_svd(X: sp.csr_matrix) -> None:
    U, S, V = _sketch.leading(_ops.as_rows(X), 8, np.random.default_rng(0))
    u, s, vt = np.linalg.svd(X.toarray().astype(float), full_matrices=False)
    np.testing.assert_allclose(S[:3], s[:3], rtol=1e-4)
    np.testing.assert_allclose(np.abs((V[:, :3] * vt[:3].T).sum(0)), 1, atol=1e-3)
    np.testing.assert_allclose(np.abs((U[:, :3] * u[:, :3]).sum(0)), 1, atol=1e-3)
    np.testing.assert_allclose(V.T @ V, np.eye(8), atol=1e-5)


def test_points_are_positive_and_differ(X: sp.csr_matrix) -> None:
    u, s, vt = np.linalg.svd(X.toarray().astype(float), full_matrices=False)
    found = _init.points(u, s, vt, 4, 5, np.random.default_rng(0))
    assert len(found) == 5
    assert all(H.shape == (4, 60) and (H > 0).all() for H in found)
    assert not np.allclose(found[1], found[2])


def test_starts_of_empty_rows_can_be_fitted_to_others(X: sp.csr_matrix) -> None:
    """Where a table is almost empty the sampled rows may all be."""
    rows = _ops.as_rows(sp.csr_matrix((300, 60), dtype=np.float32))
    H = _init.starts(rows, 4, np.random.default_rng(0))
    fitted = _solver.fit(_ops.as_rows(X), H)
    assert (fitted.H.max(1) > 0).all()
    assert fitted.trace[-1] < 0.25 * _ops.squared_norm(_ops.as_rows(X))


def test_starts_beat_most_single_starts() -> None:
    """On overlapping programmes, which have several minima, the whole fit from the winner is about the best of ten."""
    rows = _ops.as_rows(sn.datasets.planted_factors(3_000, difficulty="hard", rng=1).X)
    assert _sketch.pays(rows, 30)
    ends = [
        _solver.fit(rows, np.random.default_rng(seed).random((10, rows.shape[1])), tol=1e-6).trace[-1]
        for seed in range(10)
    ]
    ours = _solver.fit(rows, _init.starts(rows, 10, np.random.default_rng(0)), tol=1e-6).trace[-1]
    assert max(ends) > (1 + 5e-4) * min(ends)  # there is something to win
    assert ours <= (1 + 2e-4) * min(ends)


def test_runs_in_one_minimum_count_once(X: sp.csr_matrix) -> None:
    rows, H = _ops.as_rows(X), np.random.default_rng(3).random((4, 60))
    twice = [_init._Run(rows, H, 0.0).advance(30), _init._Run(rows, H[::-1].copy(), 0.0).advance(20)]
    other = _init._Run(rows, np.vstack([H[:1]] * 4), 0.0).advance(2)  # one component, four times
    found = _init._minima([other, *twice], rows, gap=10.0)
    assert found == [twice[0], other]
    assert _init._minima([other, *twice], rows, gap=0.0) == [twice[0]]


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 40), (40, 3), (65, 12)])
def test_small_matrices(shape: tuple[int, int]) -> None:
    rows = _ops.as_rows(sp.csr_matrix(np.random.default_rng(0).random(shape).astype(np.float32)))
    k = min(shape)
    H = _init.starts(rows, k, np.random.default_rng(0))
    assert H.shape == (k, shape[1])
    assert np.isfinite(H).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("doubled", [False, True])
def test_rank_below_the_number_of_components(seed: int, doubled: bool) -> None:
    rng = np.random.default_rng(seed)
    X = (rng.random((3000, 4)) @ rng.random((4, 60))).astype(np.float32)
    X = np.repeat(np.log1p(rng.poisson(5 * X[:, :8])), 2, axis=1).astype(np.float32) if doubled else X
    rows = _ops.as_rows(sp.csr_matrix(X))
    fitted = _solver.fit(rows, _init.starts(rows, 12, rng))
    assert np.isfinite(fitted.W).all()
    assert np.isfinite(fitted.H).all()
    assert fitted.trace[-1] < 0.01 * _ops.squared_norm(rows)


def test_fewer_rows_than_components(X: sp.csr_matrix) -> None:
    assert _init.starts(_ops.as_rows(X[:13]), 18, np.random.default_rng(0)).shape == (18, 60)


def test_minima_are_compared_on_rows_of_all_sections(X: sp.csr_matrix) -> None:
    """Not on the first ones, which may be empty or another tissue."""
    joined = _ops.as_rows(sp.vstack([sp.csr_matrix((300, 60), dtype=np.float32), X], format="csr"))
    rng = np.random.default_rng(0)
    runs = [_init._Run(joined, rng.random((4, 60)), 0.0).advance(1) for _ in range(3)]
    assert len(_init._minima(runs, joined, gap=10.0)) == 3


def test_runs_that_failed_are_left_out(X: sp.csr_matrix) -> None:
    rows, H = _ops.as_rows(X), np.random.default_rng(0).random((4, 60))
    failed, good = (_init._Run(rows, H, 0.0).advance(3) for _ in range(2))
    failed.state.objective = np.nan
    assert _init._minima([failed, good], rows, gap=1.0) == [good]


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only")
def test_the_number_of_threads_does_not_matter() -> None:
    rows = _ops.as_rows(sn.datasets.planted_factors(21_000, difficulty="hard", rng=0).X)
    found = []
    before = numba.get_num_threads()
    try:
        for n_threads in (1, 2):
            numba.set_num_threads(n_threads)
            found.append(_init.starts(rows, 6, np.random.default_rng(0)))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
