r"""Exact join counts of every pair of labels, and how they fall under random labelling.

For a symmetric graph with weights w and no self-loops, :math:`J_{ab} = \sum_{ij} w_{ij} [l_i = a][l_j = b]` over ordered
pairs. With S0, T2, T3, T4 of :mod:`._joincount` and :math:`(x)_m` the falling factorial, random labelling of n
observations, :math:`n_a` of them a, gives

.. math::

    a \ne b:\quad & p_2 = \frac{n_a n_b}{(n)_2}, \quad
    E J^2 = T_2 p_2 + T_3 \frac{n_a (n_b)_2 + (n_a)_2 n_b}{(n)_3} + T_4 \frac{(n_a)_2 (n_b)_2}{(n)_4} \\
    a = b:\quad & p_2 = \frac{(n_a)_2}{(n)_2}, \quad
    E J^2 = 2 T_2 p_2 + 4 T_3 \frac{(n_a)_3}{(n)_3} + T_4 \frac{(n_a)_4}{(n)_4}

and :math:`E J = S_0 p_2`. Reported are edges: :math:`J_{ab}`, and :math:`J_{aa} / 2`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit
from scipy.spatial import cKDTree
from scipy.stats import binom, nbinom, norm, poisson

from ._joincount import _falling, _ratio
from ._tiles import AnyGraph, Part, RadiusGraph, Ring, parts_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator

RARE = 60  # labels of so few observations are looked at one by one where the degrees are uneven
SKEW_OFF = 0.25  # difference in skewness from the negative binomial above which the places of a rare label are drawn
N_DRAWS = 4000


class Counts(NamedTuple):
    """Sums over the edges of each group of observations (library): what the moments need."""

    J: np.ndarray  # groups × labels × labels, ordered pairs
    n: np.ndarray  # groups × labels, observations
    S0: np.ndarray  # groups
    T2: np.ndarray
    T3: np.ndarray
    degrees: np.ndarray  # row sums, within the group and among labelled observations
    crossing: float  # weight of the edges between groups, which are left out


class Moments(NamedTuple):
    """Edges of every pair of labels (… × labels × labels) with mean and variance under random labelling."""

    observed: np.ndarray
    expected: np.ndarray
    variance: np.ndarray


def pair_counts(A: AnyGraph, codes: np.ndarray, groups: np.ndarray, n_labels: int, n_groups: int) -> Counts:
    """Join counts by group. ``A`` symmetric without diagonal; observations with ``codes < 0`` are as if not there."""
    sums = _Sums(codes, groups, n_labels, n_groups)
    for part in parts_of(A):
        sums.add(part)
    return sums.counts()


def ring_counts(
    A: RadiusGraph, rings: list[Ring], codes: np.ndarray, groups: np.ndarray, n_labels: int, n_groups: int
) -> list[Counts]:
    """The same for each ring of distances, in one pass over the tiles of the graph that holds them all."""
    sums = [_Sums(codes, groups, n_labels, n_groups) for _ in rings]
    for part in A.parts(lengths=True):
        for one, ring in zip(sums, rings, strict=True):
            one.add(ring.of(part))
    return [one.counts() for one in sums]


class _Sums:
    """Join counts that are added up part by part."""

    def __init__(self, codes: np.ndarray, groups: np.ndarray, n_labels: int, n_groups: int) -> None:
        self.codes, self.groups = np.asarray(codes, dtype=np.int32), np.asarray(groups, dtype=np.int32)
        self.J, self.T2 = np.zeros((n_groups, n_labels, n_labels)), np.zeros(n_groups)
        self.degrees, self.crossing = np.zeros(len(codes)), 0.0

    def add(self, part: Part) -> None:
        """The edges of one part."""
        B, ids = part.A, part.ids
        n_groups, n_labels, _ = self.J.shape
        J, T2, degrees, crossing = _pair_counts(
            B.indptr, B.indices, B.data, self.codes[ids], self.groups[ids], n_labels, n_groups
        )
        self.J, self.T2, self.crossing = self.J + J, self.T2 + T2, self.crossing + crossing
        self.degrees[ids] += degrees

    def counts(self) -> Counts:
        """What came of all parts."""
        n_groups, n_labels, _ = self.J.shape
        known, r = self.codes >= 0, self.degrees
        n = np.zeros((n_groups, n_labels), dtype=np.int64)
        np.add.at(n, (self.groups[known], self.codes[known]), 1)
        S0 = np.bincount(self.groups, r, n_groups)
        T3 = np.bincount(self.groups, r * r, n_groups) - self.T2
        return Counts(self.J, n, S0, self.T2, T3, r, self.crossing)


@njit(cache=True)
def _pair_counts(indptr, indices, data, codes, groups, n_labels, n_groups):
    J = np.zeros((n_groups, n_labels, n_labels))
    T2 = np.zeros(n_groups)
    r = np.zeros(codes.size)
    crossing = 0.0
    for i in range(codes.size):
        a, g = codes[i], groups[i]
        if a < 0:
            continue
        degree, squares = 0.0, 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            b = codes[j]
            if b < 0:
                continue
            w = np.float64(data[e])
            if groups[j] != g:
                crossing += w
                continue
            J[g, a, b] += w
            degree += w
            squares += w * w
        r[i] = degree
        T2[g] += squares
    return J, T2, r, crossing / 2


def moments(counts: Counts) -> Moments:
    """Edges, mean and variance of every pair in every group."""
    shape = counts.J.shape
    mean, variance = np.zeros(shape), np.zeros(shape)
    for g in range(shape[0]):
        sizes = [int(x) for x in counts.n[g]]
        sums = float(counts.S0[g]), float(counts.T2[g]), float(counts.T3[g])
        for a in range(shape[1]):
            for b in range(a, shape[1]):
                mean[g, a, b], variance[g, a, b] = _pair_moments(*sums, sum(sizes), sizes[a], sizes[b], same=a == b)
                mean[g, b, a], variance[g, b, a] = mean[g, a, b], variance[g, a, b]
    once = np.ones(shape[1:]) - np.eye(shape[1]) / 2  # an edge within a label is met from both ends
    return Moments(counts.J * once, mean * once, variance * once**2)


def _pair_moments(S0: float, T2: float, T3: float, n: int, n_a: int, n_b: int, *, same: bool) -> tuple[float, float]:
    """Mean and variance of J_ab. Differences are taken between exact fractions, as in ``agreement_moments``."""
    T4 = S0 * S0 - 2 * T2 - 4 * T3
    if same:
        p2, p3, p4 = (_ratio(_falling(n_a, m), _falling(n, m)) for m in (2, 3, 4))
        terms = ((2 * T2, p2), (4 * T3, p3), (T4, p4))
    else:
        pairs_a, pairs_b = _falling(n_a, 2), _falling(n_b, 2)
        p2 = _ratio(n_a * n_b, _falling(n, 2))
        # S0² = T4 + 2 T2 + 4 T3, so that each probability is halved or quartered to stand beside its share of (E J)²
        p3 = _ratio(n_a * pairs_b + pairs_a * n_b, 4 * _falling(n, 3))
        p4 = _ratio(pairs_a * pairs_b, _falling(n, 4))
        terms = ((2 * T2, p2 / 2), (4 * T3, p3), (T4, p4))
    return S0 * float(p2), max(sum(t * float(p - p2 * p2) for t, p in terms), 0.0)


def pooled(moments: Moments) -> Moments:
    """Sums over the groups, which are labelled independently."""
    return Moments(*(x.sum(0) for x in moments))


def tails(observed: np.ndarray | float, mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(X ≤ x) and P(X ≥ x) of a count with this mean and variance.

    Negative binomial where the variance is above the mean, binomial where it is below, Poisson where they are equal.
    NaN where nothing can vary (mean or variance 0).
    """
    x, mean, variance = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (observed, mean, variance)))
    lower, upper = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
    varies = (mean > 0) & (variance > 0)
    ratio = np.divide(variance, mean, out=np.ones(x.shape), where=varies)
    over, under = varies & (ratio > 1 + 1e-9), varies & (ratio < 1 - 1e-9)
    for where, make in ((over, _nbinom), (under, _binom), (varies & ~over & ~under, lambda m, _: poisson(m))):
        if where.any():
            X = make(mean[where], variance[where])
            lower[where], upper[where] = X.cdf(x[where]), X.sf(x[where] - 1)
    return lower, upper


def _nbinom(mean: np.ndarray, variance: np.ndarray) -> Any:
    return nbinom(mean**2 / (variance - mean), mean / variance)


def _binom(mean: np.ndarray, variance: np.ndarray) -> Any:
    trials = np.maximum(np.ceil(mean**2 / (mean - variance)), np.ceil(mean))  # whole: the variance is met nearly
    return binom(trials, mean / trials)


def normal_tails(observed: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for weighted sums, by the normal distribution."""
    sd = np.sqrt(variance)
    z = np.divide(observed - mean, sd, out=np.full(sd.shape, np.nan), where=sd > 0)
    return norm.cdf(z), norm.sf(z)


def two_sided(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Twice the smaller tail, at most 1."""
    return np.minimum(1.0, 2 * np.minimum(lower, upper))


def uneven_pairs(r: np.ndarray, sizes: np.ndarray, found: Moments) -> list[tuple[int, int]]:
    """Pairs (rare label first) of a group with degrees ``r`` whose counts a negative binomial of the same mean and variance does not describe.

    The places of a rare label are a small sample of the degrees, and the count is a thinning of their sum D with
    probability q of the other label. Its third cumulant is known from those of D; where hubs or dense cores move the
    skewness off that of the negative binomial, the pair is listed.
    """
    n = int(sizes.sum())
    if n < 4:
        return []
    centred = r - r.mean()
    k = np.array([r.mean(), (centred**2).mean(), (centred**3).mean()])
    out = []
    for a in np.flatnonzero((sizes > 0) & (sizes <= RARE)):
        for b in np.flatnonzero(sizes >= sizes[a]):
            mean, variance = found.expected[a, b], found.variance[a, b]
            if mean <= 0 or variance <= 0 or (sizes[b] == sizes[a] and b < a):
                continue
            q = sizes[b] / n * (0.5 if a == b else 1.0)
            k1, k2, k3 = sizes[a] * k
            third = q**3 * k3 + 3 * q**2 * (1 - q) * k2 + q * (1 - q) * (1 - 2 * q) * k1
            if abs(third - variance * (2 * variance / mean - 1)) > SKEW_OFF * variance**1.5:
                out.append((int(a), int(b)))
    return out


class Places(NamedTuple):
    """Edges of the drawn places of a rare label: within, and leaving to other members of the group."""

    within: np.ndarray
    leaving: np.ndarray
    squares: np.ndarray  # Σ m², m the edges that one other member has to the drawn places
    n_others: int


def draw_places(A: AnyGraph | Ring, members: np.ndarray, n_a: int, rng: np.random.Generator) -> Places:
    """Draw the places of a rare label N_DRAWS times among the labelled observations (``members``) of a group."""
    is_member = np.zeros(A.shape[0], dtype=np.bool_)
    is_member[members] = True
    draws = np.array([members[rng.choice(len(members), n_a, replace=False, shuffle=False)] for _ in range(N_DRAWS)])
    rows = rows_of(A, np.unique(draws))
    within, leaving, squares = _draw_edges(rows.indptr, rows.indices, is_member, draws)
    return Places(within, leaving, squares, len(members) - n_a)


def drawn_tails(places: Places, n_b: int, observed: float, *, same: bool) -> tuple[float, float]:
    """P(J ≤ x) and P(J ≥ x) over the drawn places.

    Edges within are counted. The other label falls on n_b of the N other members, whose edges m to the drawn places add up
    to a sum of known mean and variance, and so to the tails of :func:`tails`, averaged over the draws.
    """
    if same:
        at_most, at_least = (places.within <= observed).sum(), (places.within >= observed).sum()
        return (at_most + 1) / (N_DRAWS + 1), (at_least + 1) / (N_DRAWS + 1)
    N = places.n_others
    mean = n_b * places.leaving / N
    spread = places.squares / N - (places.leaving / N) ** 2
    lower, upper = tails(observed, mean, n_b * (N - n_b) / max(N - 1, 1) * spread)
    fixed = np.isnan(lower)  # nothing varies: the sum is its mean
    lower[fixed], upper[fixed] = (mean[fixed] <= observed + 1e-9), (mean[fixed] >= observed - 1e-9)
    return float(lower.mean()), float(upper.mean())


@njit(cache=True)
def _draw_edges(indptr, indices, is_member, draws):
    """Edges within, edges leaving to other members, and the squares of each of these members' edges, of every drawn set."""
    within, leaving, squares = np.zeros(len(draws)), np.zeros(len(draws)), np.zeros(len(draws))
    drawn = np.zeros(is_member.size, dtype=np.bool_)
    edges = np.zeros(is_member.size, dtype=np.int32)
    for s in range(len(draws)):
        for i in draws[s]:
            drawn[i] = True
        inside, outside, square = 0, 0, 0
        for i in draws[s]:
            for e in range(indptr[i], indptr[i + 1]):
                j = indices[e]
                if drawn[j]:
                    inside += 1
                elif is_member[j]:
                    outside += 1
                    square += 2 * edges[j] + 1  # (m + 1)² − m²
                    edges[j] += 1
        within[s], leaving[s], squares[s] = inside / 2, outside, square
        for i in draws[s]:
            drawn[i] = False
            for e in range(indptr[i], indptr[i + 1]):
                edges[indices[e]] = 0
    return within, leaving, squares


def shifted_codes(
    coords: np.ndarray, codes: np.ndarray, rng: np.random.Generator, n_shifts: int
) -> Iterator[np.ndarray]:
    """Labels moved by a random vector on the torus of the bounding box: each place takes the label that lands nearest."""
    low, extent = coords.min(0), np.ptp(coords, axis=0)
    tree = cKDTree(coords)
    for _ in range(n_shifts):
        moved = low + np.mod(coords - low - rng.random(coords.shape[1]) * extent, np.where(extent > 0, extent, 1.0))
        yield codes[tree.query(moved)[1]]


def cross_counts(A: AnyGraph, codes: np.ndarray, others: np.ndarray, n_labels: int) -> np.ndarray:
    """Edges between observations of label a and those that another labelling calls b, both ways averaged."""
    codes, others = codes.astype(np.int32), others.astype(np.int32)
    J = np.zeros((n_labels, n_labels))
    for part in parts_of(A):
        B, ids = part.A, part.ids
        J += _cross_counts(B.indptr, B.indices, B.data, codes[ids], others[ids], n_labels)
    return (J + J.T) / 2 * (np.ones(J.shape) - np.eye(n_labels) / 2)


@njit(cache=True)
def _cross_counts(indptr, indices, data, codes, others, n_labels):
    J = np.zeros((n_labels, n_labels))
    for i in range(codes.size):
        a = codes[i]
        if a < 0:
            continue
        for e in range(indptr[i], indptr[i + 1]):
            b = others[indices[e]]
            if b >= 0:
                J[a, b] += data[e]
    return J


def neighbour_counts(
    A: AnyGraph, codes: np.ndarray, groups: np.ndarray, n_labels: int, *, include_self: bool
) -> np.ndarray:
    """Weight of each label among each observation's neighbours of its group (n × labels), in one pass over the graph."""
    counts = np.zeros((len(codes), n_labels))
    codes, groups = np.asarray(codes, dtype=np.int32), np.asarray(groups, dtype=np.int32)
    for part in parts_of(A):
        B, ids = part.A, part.ids
        local = part.local(counts)
        local[:] = 0
        _neighbour_counts(B.indptr, B.indices, B.data, codes[ids], groups[ids], local)
        part.put(local, counts)
    if include_self:
        known = np.flatnonzero(codes >= 0)
        counts[known, codes[known]] += 1
    return counts


@njit(cache=True)
def _neighbour_counts(indptr, indices, data, codes, groups, out):
    for i in range(codes.size):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if codes[j] >= 0 and groups[j] == groups[i]:
                out[i, codes[j]] += data[e]
