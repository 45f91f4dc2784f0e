"""Join counts of pairs against enumeration and permutations; p-values that are uniform when labels are random."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import scipy.sparse as sp

from spanmf.core import _colocalization as core
from spanmf.core import _graph


def symmetric_graph(n: int, seed: int, density: float = 0.5) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    A = np.triu(rng.choice([0.5, 1.0, 2.5], size=(n, n)) * (rng.random((n, n)) < density), 1)
    return sp.csr_matrix((A + A.T).astype(np.float32))


def slow_edges(A: np.ndarray, labels: np.ndarray, m: int) -> np.ndarray:
    out = np.zeros((m, m))
    for i in range(len(A)):
        for j in range(i + 1, len(A)):
            a, b = labels[i], labels[j]
            if a >= 0 and b >= 0:
                out[a, b] += A[i, j]
                out[b, a] += A[i, j] * (a != b)
    return out


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 1, 2], [0, 1, 2, 2, 2, 2, 2], [0, 0, 0, 0, 1], [0, 1], [0, 0, 1]])
def test_moments_equal_enumeration(labels: list[int]) -> None:
    m, n = max(labels) + 1, len(labels)
    A = symmetric_graph(n, seed=n, density=0.8)
    found = core.moments(core.pair_counts(A, np.array(labels), np.zeros(n, int), m, 1))
    J = np.array([slow_edges(A.toarray(), np.array(p), m) for p in permutations(labels)])
    np.testing.assert_allclose(found.observed[0], slow_edges(A.toarray(), np.array(labels), m), rtol=1e-12)
    np.testing.assert_allclose(found.expected[0], J.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.variance[0], J.var(0), rtol=1e-9, atol=1e-9)


def test_the_variance_of_the_sum_over_labels_is_that_of_edge_agreement() -> None:
    from spanmf.core._joincount import agreement_moments, edge_sums

    A, codes = symmetric_graph(30, 1), np.random.default_rng(0).integers(0, 3, 30)
    found = core.moments(core.pair_counts(A, codes, np.zeros(30, int), 3, 1))
    mean, _ = agreement_moments(edge_sums(A, codes), np.bincount(codes))
    assert 2 * np.trace(found.expected[0]) == pytest.approx(mean, rel=1e-12)


def test_groups_are_as_if_each_were_alone_and_unlabelled_as_if_not_there() -> None:
    rng = np.random.default_rng(0)
    A, codes, groups = symmetric_graph(60, 3), rng.integers(-1, 3, 60), rng.integers(0, 2, 60)
    counts = core.pair_counts(A, codes, groups, 3, 2)
    found = core.moments(counts)
    for g in range(2):
        keep = np.flatnonzero((groups == g) & (codes >= 0))
        alone = core.moments(core.pair_counts(A[keep][:, keep].tocsr(), codes[keep], np.zeros(len(keep), int), 3, 1))
        for both, one in zip(found, alone, strict=True):
            np.testing.assert_allclose(both[g], one[0], rtol=1e-10)
    known = codes >= 0
    across = (groups[:, None] != groups) & known & known[:, None]
    assert counts.crossing == pytest.approx(A.toarray()[across].sum() / 2)


def test_moments_agree_with_permutations_above_the_int64_range() -> None:
    n, rng = 60_000, np.random.default_rng(0)
    step = np.arange(n)
    A = sum(sp.csr_matrix((np.ones(n), (step, (step + d) % n)), shape=(n, n)) for d in (1, 2, 7))
    A = sp.csr_matrix(A + A.T, dtype=np.float32)
    codes = rng.choice(3, size=n, p=[0.7, 0.295, 0.005])
    groups = np.zeros(n, int)
    found = core.moments(core.pair_counts(A, codes, groups, 3, 1))
    J = np.array([core.pair_counts(A, rng.permutation(codes), groups, 3, 1).J[0] for _ in range(400)])
    J *= np.ones((3, 3)) - np.eye(3) / 2
    sd = np.sqrt(found.variance[0])
    assert (np.abs(J.mean(0) - found.expected[0]) < 4 * sd / 20).all()
    np.testing.assert_allclose(J.std(0), sd, rtol=0.16)  # 4.5 standard errors


def _dense_core(rng: np.random.Generator, n: int = 700) -> sp.csr_matrix:
    """Half of the cells packed twenty times as densely as the others."""
    half, width = n // 2, np.sqrt(n / 2) * 10
    coords = np.concatenate([rng.random((n - half, 2)) * width, rng.random((half, 2)) * width / np.sqrt(20) + 50])
    return _graph.radius_graph(coords, np.zeros(n, np.int32), 20.0, contact_weight=1.0)[0]


def _even(rng: np.random.Generator, n: int = 700) -> sp.csr_matrix:
    return _graph.radius_graph(rng.random((n, 2)) * np.sqrt(n) * 10, np.zeros(n, np.int32), 20.0, contact_weight=1.0)[0]


SIZES = np.array([3, 8, 30, 100, 559])  # rare and common labels


@pytest.mark.parametrize("graph", [_even, _dense_core])
def test_p_values_of_random_labels_are_uniform_for_rare_and_common_labels_alike(graph) -> None:
    rng = np.random.default_rng(0)
    A = graph(rng)
    n, m, n_runs = A.shape[0], len(SIZES), 200
    labels, groups = np.repeat(np.arange(m), SIZES), np.zeros(A.shape[0], int)
    counts = core.pair_counts(A, labels, groups, m, 1)
    found = core.moments(counts)
    expected, variance = found.expected[0], found.variance[0]
    uneven = core.uneven_pairs(counts.degrees, SIZES, core.Moments(*(x[0] for x in found)))
    places = {a: core.draw_places(A, np.arange(n), int(SIZES[a]), rng) for a in {a for a, _ in uneven}}
    u = np.empty((n_runs, m, m))
    for run in range(n_runs):
        observed = core.moments(core.pair_counts(A, rng.permutation(labels), groups, m, 1)).observed[0]
        lower, upper = core.tails(observed, expected, variance)
        for a, b in uneven:
            lower[a, b], upper[a, b] = core.drawn_tails(places[a], int(SIZES[b]), observed[a, b], same=a == b)
        u[run] = lower - np.maximum(lower + upper - 1, 0) * rng.random((m, m))  # randomised PIT: counts are discrete
    rejected = 2 * np.minimum(u, 1 - u)[:, *np.triu_indices(m)]
    # a share of 0.01 of 200 runs has a standard error of 0.007, of all 15 pairs together 0.0018
    assert (rejected < 0.01).mean() == pytest.approx(0.01, abs=0.006)
    assert ((rejected < 0.01).mean(0) < 0.045).all()
    assert (rejected < 0.001).mean() < 0.004
    assert len(uneven) > 5 or graph is _even  # else the draws were not tried


def test_tails_meet_the_mean_and_variance() -> None:
    x = np.arange(0, 400)
    for mean, variance in ((20.0, 60.0), (20.0, 20.0), (20.0, 15.0)):
        lower, upper = core.tails(x, np.full(x.shape, mean), np.full(x.shape, variance))
        np.testing.assert_allclose(lower[:-1] + upper[1:], 1, atol=1e-12)
        p = np.diff(np.concatenate([[0], lower]))
        assert p @ x == pytest.approx(mean, rel=1e-6)
        assert p @ x**2 - mean**2 == pytest.approx(variance, rel=0.02)
    assert np.isnan(core.tails(np.zeros(1), np.zeros(1), np.zeros(1))).all()


def test_shifts_keep_the_patches() -> None:
    rng = np.random.default_rng(0)
    coords = rng.random((2000, 2)) * 100
    codes = (coords[:, 0] > 50).astype(int)
    A = _graph.radius_graph(coords, np.zeros(2000, np.int32), 5.0, contact_weight=1.0)[0]
    for labels in core.shifted_codes(coords, codes, rng, 5):
        within = core.cross_counts(A, labels, labels, 2)
        assert within[0, 1] / within.sum() < 0.12  # two borders; permuted labels would have 0.33
        assert 0.4 < labels.mean() < 0.6
