"""CHAOS and Moran kernels against slow references and full enumeration."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import scipy.sparse as sp

from spanmf.core._spatial import morans_i, nearest_in_group, standardise


@pytest.mark.parametrize("dim", [2, 3])
def test_nearest_in_group_equals_brute_force(dim: int) -> None:
    rng = np.random.default_rng(0)
    coords = rng.random((300, dim))
    coords[40:60] = coords[0:20]  # coincident
    groups = rng.integers(0, 7, 300)
    groups[5] = 99  # alone
    slow = np.full(300, np.nan)
    for i in range(300):
        d = [np.linalg.norm(coords[i] - coords[j]) for j in range(300) if j != i and groups[j] == groups[i]]
        slow[i] = min(d) if d else np.nan
    np.testing.assert_allclose(nearest_in_group(coords, groups), slow, rtol=1e-12)
    assert np.isnan(slow).sum() == 1
    assert (slow == 0).any()


def test_standardise_within_libraries() -> None:
    rng = np.random.default_rng(1)
    coords = rng.normal(size=(50, 3)) * [1, 100, 0] + [5, -3, 8]  # the last axis has no spread
    libraries = np.repeat([0, 1], [20, 30])
    Z = standardise(coords, libraries)
    for rows in (slice(0, 20), slice(20, 50)):
        np.testing.assert_allclose(Z[rows].mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(Z[rows].std(0), [1, 1, 0], atol=1e-12)


def graph(n: int, seed: int, *, symmetric: bool) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    A = rng.random((n, n)) * (rng.random((n, n)) < 0.6)
    np.fill_diagonal(A, 0)
    return sp.csr_matrix((A + A.T if symmetric else A).astype(np.float32))


def slow_morans_i(A: np.ndarray, v: np.ndarray) -> float:
    z = v - v.mean()
    top = sum(A[i, j] * z[i] * z[j] for i in range(len(v)) for j in range(len(v)))
    return len(v) / A.sum() * top / (z**2).sum()


@pytest.mark.parametrize("symmetric", [True, False])
def test_randomisation_moments_equal_enumeration(symmetric: bool) -> None:
    A = graph(6, 0, symmetric=symmetric)
    V = np.random.default_rng(1).gamma(0.5, size=(6, 2))
    observed, expected, sd = morans_i(A, V, "randomisation")
    dense = A.toarray().astype(float)
    for c in range(2):
        every = [slow_morans_i(dense, np.array(p)) for p in permutations(V[:, c])]
        assert observed[c] == pytest.approx(every[0], rel=1e-9)
        assert expected == pytest.approx(np.mean(every), rel=1e-9)
        assert sd[c] == pytest.approx(np.std(every), rel=1e-9)


def test_normality_moments_agree_with_draws() -> None:
    A = graph(12, 2, symmetric=False)
    draws = np.random.default_rng(3).normal(size=(12, 20_000))
    observed, expected, sd = morans_i(A, draws, "normality")
    assert abs(observed.mean() - expected) < 4 * sd[0] / np.sqrt(20_000)
    assert observed.std() == pytest.approx(sd[0], rel=0.03)


# esda 2.9.0 on the ring with a chord below: Moran(v, w, transformation="o", permutations=0)
ESDA_I = 0.0997067448680352
ESDA_SD = {"normality": 0.2608543744776444, "randomisation": 0.2605650399897475}


def test_moments_equal_esda() -> None:
    n = 10
    A = np.roll(np.eye(n), 1, axis=1) + np.roll(np.eye(n), -1, axis=1)
    A[0, 5] = A[5, 0] = 1
    v = np.array([1.0, 2.0, 4.0, 3.0, 7.0, 1.0, 0.0, 2.0, 9.0, 5.0])[:, None]
    for assumption, esda_sd in ESDA_SD.items():
        observed, expected, sd = morans_i(sp.csr_matrix(A.astype(np.float32)), v, assumption)
        assert observed[0] == pytest.approx(ESDA_I, rel=1e-10)
        assert expected == pytest.approx(-1 / 9)
        assert sd[0] == pytest.approx(esda_sd, rel=1e-10)


def test_a_constant_that_rounds_is_still_constant() -> None:
    V = np.full((7, 2), np.float32(0.1)).astype(np.float64)
    V[:, 1] = np.arange(7)
    observed, _, sd = morans_i(graph(7, 4, symmetric=True), V, "randomisation")
    np.testing.assert_array_equal(np.isnan(observed), [True, False])
    np.testing.assert_array_equal(np.isnan(sd), [True, False])
