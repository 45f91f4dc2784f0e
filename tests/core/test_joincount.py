"""Join counts against full enumeration of all labelings, and against permutations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import scipy.sparse as sp

from spanmf.core._joincount import agreement_moments, edge_sums


def weighted_graph(n: int, seed: int, *, symmetric: bool, density: float = 0.4) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    A = rng.choice([0.5, 1.0, 2.5], size=(n, n)) * (rng.random((n, n)) < density)
    A = np.triu(A, 1) + (np.triu(A, 1).T if symmetric else np.tril(A, -1))
    return sp.csr_matrix(A.astype(np.float32))


def agreeing(A: np.ndarray, labels: np.ndarray) -> float:
    return sum(float(A[i, j]) for i in range(len(A)) for j in range(len(A)) if labels[i] == labels[j])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    "labels", [[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2, 3], [0, 1, 2, 3, 4, 5, 5], [0, 0, 0, 0, 0, 0, 1], [0, 1, 1]]
)
def test_moments_equal_enumeration(labels: list[int], symmetric: bool) -> None:
    A = weighted_graph(len(labels), seed=len(set(labels)), symmetric=symmetric, density=0.7)
    J = [agreeing(A.toarray(), np.array(p)) for p in permutations(labels)]
    sums = edge_sums(A, np.array(labels))
    mean, variance = agreement_moments(sums, np.bincount(labels))
    assert sums.agreeing == pytest.approx(agreeing(A.toarray(), np.array(labels)), rel=1e-12)
    assert mean == pytest.approx(np.mean(J), rel=1e-12)
    assert variance == pytest.approx(np.var(J), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("symmetric", [True, False])
def test_unlabelled_observations_are_as_if_not_there(symmetric: bool) -> None:
    A = weighted_graph(40, seed=3, symmetric=symmetric)
    codes = np.random.default_rng(4).integers(-1, 3, 40)
    keep = np.flatnonzero(codes >= 0)
    assert 0 < len(keep) < 40
    np.testing.assert_allclose(edge_sums(A, codes), edge_sums(A[keep][:, keep], codes[keep]), rtol=1e-12)


def test_moments_agree_with_permutations_above_the_int64_range() -> None:
    n, rng = 60_000, np.random.default_rng(0)  # (n)_4 is 1.3e19, beyond int64
    step = np.arange(n)
    A = sum(sp.csr_matrix((np.ones(n), (step, (step + d) % n)), shape=(n, n)) for d in (1, 2, 7))
    A = sp.csr_matrix(A + A.T, dtype=np.float32)
    A.sort_indices()
    codes = rng.choice(4, size=n, p=[0.7, 0.2, 0.0999, 0.0001])
    mean, variance = agreement_moments(edge_sums(A, codes), np.bincount(codes))
    rows, cols = A.nonzero()
    J = []
    for _ in range(400):
        shuffled = rng.permutation(codes)
        J.append(np.sum(shuffled[rows] == shuffled[cols]))
    assert abs(np.mean(J) - mean) < 4 * np.sqrt(variance / 400)
    assert np.std(J) == pytest.approx(np.sqrt(variance), rel=0.15)


def test_one_label_cannot_vary() -> None:
    A = weighted_graph(30, seed=1, symmetric=True)
    sums = edge_sums(A, np.zeros(30, dtype=int))
    assert agreement_moments(sums, np.array([30])) == (sums.S0, 0.0)
