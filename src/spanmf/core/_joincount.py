"""Exact join counts: the edges of a weighted graph whose ends carry the same label, under random labelling.

With symmetric weights ``w`` (a graph that is not symmetric is read as ``(w_ij + w_ji) / 2``, which leaves every sum
over ordered pairs as it is), ordered pairs of edges share two, one or no observations. Their products sum to::

    S0 = Σ w_ij    T2 = Σ w_ij²    T3 = Σ_i r_i² − T2    T4 = S0² − 2 T2 − 4 T3        (r_i: row sums)

so that every second moment under random labelling is one of these times the probability that 2, 3 or 4 distinct
observations carry the labels in question.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numba import njit

from ._tiles import AnyGraph, parts_of


class EdgeSums(NamedTuple):
    """Sums over the ordered pairs of a graph's labelled observations."""

    S0: float  # Σ w
    T2: float  # Σ w², symmetrised weights
    T3: float  # products of two edges that share one observation
    T4: float  # products of two edges that share none
    agreeing: float  # Σ w of the pairs with equal labels


def edge_sums(A: AnyGraph, codes: np.ndarray) -> EdgeSums:
    """Sums over the edges of ``A`` (sorted CSR, no diagonal) between observations with ``codes >= 0``."""
    codes = np.asarray(codes, dtype=np.int64)
    r = np.zeros(len(codes))
    S0, T2, agreeing = 0.0, 0.0, 0.0
    for part in parts_of(A):
        B = part.A
        *sums, own = _edge_sums(B.indptr, B.indices, B.data, codes[part.ids], not part.is_whole)
        S0, T2, agreeing = S0 + sums[0], T2 + sums[1], agreeing + sums[2]
        r[part.ids] += own
    T3 = float(r @ r) - T2
    return EdgeSums(S0, T2, T3, S0 * S0 - 2 * T2 - 4 * T3, agreeing)


@njit(cache=True)
def _edge_sums(indptr, indices, data, codes, both_ways):
    """``both_ways``: every edge has one back of the same weight, wherever that is stored."""
    n = codes.size
    cursor = indptr[:-1].copy()  # where row j is read when its partners i are met in ascending order
    r = np.zeros(n)
    S0, T2, agreeing = 0.0, 0.0, 0.0
    for i in range(n):
        if codes[i] < 0:
            continue
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if codes[j] < 0:
                continue
            w = np.float64(data[e])
            S0 += w
            T2 += w * w / 2
            r[i] += w / 2
            r[j] += w / 2
            if codes[i] == codes[j]:
                agreeing += w
            if both_ways:
                T2 += w * w / 2
            elif j > i:  # the edge back, if there is one: ((w_ij + w_ji) / 2)² twice is w_ij²/2 + w_ji²/2 + w_ij w_ji
                c, end = cursor[j], indptr[j + 1]
                while c < end and indices[c] < i:
                    c += 1
                cursor[j] = c
                if c < end and indices[c] == i:
                    T2 += w * np.float64(data[c])
    return S0, T2, agreeing, r


def agreement_moments(sums: EdgeSums, sizes: np.ndarray) -> tuple[float, float]:
    r"""Mean and variance of :math:`J = \sum_a J_{aa}` when the labels are permuted over the observations.

    With :math:`(x)_m` the falling factorial and :math:`n_a` the ``sizes``, the probabilities that two observations,
    the three ends of two touching edges, and the two ends each of two separate edges agree are

    .. math::

        p_2 = \frac{\sum_a (n_a)_2}{(n)_2}, \quad p_3 = \frac{\sum_a (n_a)_3}{(n)_3}, \quad
        p_4 = \frac{\sum_a (n_a)_4 + \sum_{a \ne b} (n_a)_2 (n_b)_2}{(n)_4}

    and :math:`E J = S_0 p_2`, :math:`\mathrm{Var} J = 2 T_2 (p_2 - p_2^2) + 4 T_3 (p_3 - p_2^2) + T_4 (p_4 - p_2^2)`.
    The differences are taken between exact fractions: at a million observations they are far below the rounding of
    the terms themselves.
    """
    n_a = [int(s) for s in sizes]
    n, pairs = sum(n_a), [_falling(s, 2) for s in n_a]
    p2 = _ratio(sum(pairs), _falling(n, 2))
    p3 = _ratio(sum(_falling(s, 3) for s in n_a), _falling(n, 3))
    separate = sum(_falling(s, 4) for s in n_a) + sum(pairs) ** 2 - sum(q * q for q in pairs)
    p4 = _ratio(separate, _falling(n, 4))
    terms = ((2 * sums.T2, p2), (4 * sums.T3, p3), (sums.T4, p4))
    variance = sum(t * float(p - p2 * p2) for t, p in terms)
    return sums.S0 * float(p2), max(variance, 0.0)


def _falling(x: int, m: int) -> int:
    """Falling factorial, the product of the m integers from x down."""
    out = 1
    for i in range(m):
        out *= x - i
    return out


def _ratio(a: int, b: int) -> Fraction:
    """A probability; 0 where there are not enough observations (then no such pair of edges exists)."""
    return Fraction(a, b) if b else Fraction(0)
