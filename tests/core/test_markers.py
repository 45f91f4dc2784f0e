"""Rank sums and marker sums against slow references."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import erfc
from scipy.stats import mannwhitneyu, rankdata

from spanmf.core import _markers, _ops


def values(n: int = 90, p: int = 12, seed: int = 0) -> np.ndarray:
    """Rounded, so that non-zeros tie too; the last gene is constant, the one before has no zero."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.gamma(0.6, 1.0, (n, p)), 1) * (rng.random((n, p)) < 0.6)
    X[:, -2] += 0.5
    X[:, -1] = 3
    return X


def slow_z(X: np.ndarray, own: np.ndarray, tie_correct: bool) -> np.ndarray:
    z = []
    for column in X.T:
        R = rankdata(column)
        n, k = len(R), own.sum()
        t = np.unique(column, return_counts=True)[1].astype(float)
        ties = 1 - (t**3 - t).sum() / (n**3 - n) if tie_correct else 1.0
        variance = k * (n - k) * (n + 1) / 12 * ties
        z.append(0.0 if variance == 0 else (R[own].sum() - k * (n + 1) / 2) / np.sqrt(variance))
    return np.array(z)


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, np.asarray])
@pytest.mark.parametrize("tie_correct", [True, False])
@pytest.mark.parametrize("signed", [False, True])
def test_wilcoxon_equals_slow_ranks_in_every_fold(make, tie_correct: bool, signed: bool) -> None:
    X = values()
    if signed:
        X = X * np.where(np.random.default_rng(2).random(X.shape) < 0.3, -1, 1)
    rng = np.random.default_rng(1)
    codes, folds = rng.integers(0, 3, len(X)), rng.integers(0, 2, len(X))
    codes[::9] = folds[::9] = -1
    z = _markers.wilcoxon(_markers.rank(make(X), folds), codes, 3, tie_correct=tie_correct)
    for f in range(2):
        for c in range(3):
            np.testing.assert_allclose(
                z[f, c], slow_z(X[folds == f], codes[folds == f] == c, tie_correct), rtol=1e-6, atol=1e-9
            )


def test_wilcoxon_p_values_are_those_of_scipy() -> None:
    X, codes = values(), np.repeat([0, 1, 2], 30)
    z = _markers.wilcoxon(_markers.rank(X, np.zeros(90)), codes, 3)[0]
    for c in range(3):
        for g in range(X.shape[1] - 1):  # scipy divides by zero for the constant one
            p = mannwhitneyu(
                X[codes == c, g], X[codes != c, g], use_continuity=False, method="asymptotic", alternative="greater"
            )
            assert p.pvalue == pytest.approx(0.5 * erfc(z[c, g] / np.sqrt(2)), rel=1e-5)


def test_a_group_that_is_empty_or_all_has_no_score() -> None:
    ranked = _markers.rank(values(), np.zeros(90))
    z = _markers.wilcoxon(ranked, np.zeros(90, dtype=int), 2)[0]
    assert np.isnan(z).all()


def test_explicit_zeros_are_zeros() -> None:
    X = sp.csr_matrix(values())
    stored = X.copy()
    stored.data[::4] = 0
    clean = stored.copy()
    clean.eliminate_zeros()
    codes = np.arange(90) % 3
    z = [_markers.wilcoxon(_markers.rank(x, np.zeros(90)), codes, 3) for x in (stored, clean)]
    np.testing.assert_array_equal(*z)
    rows = [_markers.totals(_ops.as_rows(x), codes, 3)[1] for x in (stored, clean)]
    np.testing.assert_array_equal(*rows)


def test_parts_of_a_value_are_added_up() -> None:
    """Entries that a sparse matrix holds twice are one value, and the matrix that was given stays as it was."""
    X, codes = values(), np.arange(90) % 3
    half = sp.coo_matrix(X / 2)
    row, col, data = (np.r_[a, a] for a in (half.row, half.col, half.data))
    order = np.argsort(col, kind="stable")
    twice = sp.csc_matrix((data[order], row[order], np.r_[0, np.cumsum(np.bincount(col))]), shape=X.shape)
    assert twice.nnz == 2 * half.nnz
    np.testing.assert_allclose(
        *(_markers.wilcoxon(_markers.rank(x, np.zeros(90)), codes, 3) for x in (twice, X)), atol=1e-12
    )
    assert twice.nnz == 2 * half.nnz


def test_totals_equal_dense_sums() -> None:
    X, codes = values(), np.arange(90) % 4 - 1
    sums, expressing = _markers.totals(_ops.as_rows(X), codes, 3)
    for c in range(3):
        np.testing.assert_allclose(sums[c], X[codes == c].sum(0), rtol=1e-6)
        np.testing.assert_array_equal(expressing[c], (X[codes == c] > 0).sum(0))


def test_own_and_best_other_equal_a_dense_product() -> None:
    X, rng = values(), np.random.default_rng(3)
    codes, folds = rng.integers(-1, 4, len(X)), rng.integers(0, 2, len(X))
    weights = rng.random((2, 4, X.shape[1])) * (rng.random((2, 4, X.shape[1])) < 0.3)
    weights[0, 2] = 0  # a group without markers in one fold
    own, other = _markers.own_and_best_other(_ops.as_rows(X), codes, folds, weights)
    for i in range(len(X)):
        scores = [X[i] @ w if w.any() else np.nan for w in weights[folds[i]]]
        expected = (np.nan, np.nan) if codes[i] < 0 else (scores[codes[i]], np.nanmax(np.delete(scores, codes[i])))
        np.testing.assert_allclose((own[i], other[i]), expected, rtol=1e-5)
    assert (
        np.isnan(_markers.own_and_best_other(_ops.as_rows(X), np.zeros(90, int), np.zeros(90, int), weights)[1]).sum()
        == 0
    )
    alone = weights * (np.arange(4) == 1)[:, None]
    own, other = _markers.own_and_best_other(_ops.as_rows(X), np.ones(90, int), np.zeros(90, int), alone)
    assert not np.isnan(own).any()
    assert np.isnan(other).all()
