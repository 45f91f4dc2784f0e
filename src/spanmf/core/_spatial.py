"""Statistics of labels and values in space: CHAOS, PAS, Moran's I, Geary's C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

from . import _knn
from ._joincount import EdgeSums, edge_sums
from ._tiles import AnyGraph, parts_of


def standardise(coords: np.ndarray, libraries: np.ndarray) -> np.ndarray:
    """Each axis to mean 0 and standard deviation 1 within each library (an axis without spread becomes 0)."""
    out = np.zeros(coords.shape)
    for rows in group_rows(libraries):
        centred = coords[rows] - coords[rows].mean(0)
        sd = centred.std(0)
        out[rows] = np.divide(centred, sd, out=np.zeros_like(centred), where=sd > 0)
    return out


def nearest_in_group(coords: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Distance from each point to the nearest other point of its group; NaN where it is the only one."""
    out = np.full(len(coords), np.nan)
    for rows in group_rows(groups):
        if len(rows) < 2:
            continue
        tree = cKDTree(coords[rows], balanced_tree=False)
        rows = rows[tree.indices]  # asked in the order of the leaves, which keeps them in cache
        out[rows] = tree.query(coords[rows], k=2)[0][:, 1]
    return out


def neighbours_in_group(coords: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k nearest other points of each point's group (n × k, int32; −1 where there are fewer)."""
    out = np.full((len(coords), k), -1, dtype=np.int32)
    for rows in group_rows(groups):
        found = min(k, len(rows) - 1)
        if found > 0:
            out[rows, :found] = rows[_knn.nearest(coords[rows], found + 1)[0][:, 1:]]
    return out


@njit(cache=True)
def outnumbered(neighbours, codes):
    """Whether more than half of a point's neighbours (n × k; −1 for none) have another code: 1 or 0; −1 without any."""
    n, k = neighbours.shape
    out = np.empty(n, np.int8)
    for i in range(n):
        others, there = 0, 0
        for c in range(k):
            j = neighbours[i, c]
            if j >= 0:
                there += 1
                others += codes[j] != codes[i]
        out[i] = -1 if there == 0 else (2 * others > there)
    return out


def group_rows(groups: np.ndarray) -> list[np.ndarray]:
    """Row indices of each distinct value of ``groups``."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def morans_i(
    A: AnyGraph, V: np.ndarray, assumption: Literal["randomisation", "normality"]
) -> tuple[np.ndarray, float, np.ndarray]:
    r"""Moran's I of every column of ``V`` (n × k), its expectation and its standard deviation.

    .. math:: I = \frac{n}{S_0} \frac{z^\top A z}{z^\top z}, \qquad z = v - \bar v, \qquad E\,I = -\frac{1}{n - 1}

    with the variance of Cliff and Ord: of permuted values (``"randomisation"``, which needs n ≥ 4) or of
    independent normal ones. NaN for constant columns and for a graph without edges.
    """
    n = len(V)
    Z = V - V.mean(0)
    Z[:, np.ptp(V, axis=0) == 0] = 0  # a constant's mean may be off by rounding
    squares = Z * Z
    ss = squares.sum(0)
    sums = edge_sums(A, np.zeros(n, dtype=np.int64))
    expected = -1 / (n - 1) if n > 1 else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = n / np.float64(sums.S0) * _over_edges(_quadratic_forms, A, Z) / ss
        kurtosis = n * (squares * squares).sum(0) / ss**2
        moment = _under_permutation if assumption == "randomisation" else _under_normality
        variance = moment(n, sums, kurtosis) - expected**2
    return observed, expected, np.sqrt(np.maximum(variance, 0.0))


def gearys_c(
    A: AnyGraph, V: np.ndarray, assumption: Literal["randomisation", "normality"]
) -> tuple[np.ndarray, float, np.ndarray]:
    r"""Geary's C of every column of ``V`` (n × k), its expectation and its standard deviation.

    .. math:: C = \frac{n - 1}{2 S_0} \frac{\sum_{ij} A_{ij} (v_i - v_j)^2}{\sum_i (v_i - \bar v)^2}, \qquad E\,C = 1

    with the variance of Cliff and Ord, as in :func:`morans_i`. NaN for constant columns and for a graph without edges.
    """
    n = len(V)
    Z = V - V.mean(0)
    Z[:, np.ptp(V, axis=0) == 0] = 0
    squares = Z * Z
    ss = squares.sum(0)
    sums = edge_sums(A, np.zeros(n, dtype=np.int64))
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = (n - 1) / np.float64(2 * sums.S0) * _over_edges(_squared_differences, A, Z) / ss
        kurtosis = n * (squares * squares).sum(0) / ss**2
        moment = _geary_under_permutation if assumption == "randomisation" else _geary_under_normality
        variance = moment(n, sums, kurtosis)
    return observed, 1.0, np.sqrt(np.maximum(variance, 0.0))


def _geary_under_permutation(n: int, sums: EdgeSums, kurtosis: np.ndarray) -> np.ndarray:
    """Variance of C when the values are permuted over the observations."""
    S0, S1, S2 = _cliff_ord(sums)
    pairs = (n - 1) * S1 * (n * n - 3 * n + 3 - (n - 1) * kurtosis)
    touching = (n - 1) * S2 * (n * n + 3 * n - 6 - (n * n - n + 2) * kurtosis) / 4
    separate = S0**2 * (n * n - 3 - (n - 1) ** 2 * kurtosis)
    return (pairs - touching + separate) / np.float64(n * (n - 2) * (n - 3) * S0**2)


def _geary_under_normality(n: int, sums: EdgeSums, kurtosis: np.ndarray) -> np.ndarray:
    """Variance of C of independent normal values; NaN where the kurtosis is (constant values)."""
    S0, S1, S2 = _cliff_ord(sums)
    variance = ((2 * S1 + S2) * (n - 1) - 4 * S0**2) / np.float64(2 * (n + 1) * S0**2)
    return np.where(np.isnan(kurtosis), np.nan, variance)


def _under_permutation(n: int, sums: EdgeSums, kurtosis: np.ndarray) -> np.ndarray:
    """E I² when the values are permuted over the observations."""
    S0, S1, S2 = _cliff_ord(sums)
    scatter = n * ((n * n - 3 * n + 3) * S1 - n * S2 + 3 * S0**2)
    tails = kurtosis * ((n * n - n) * S1 - 2 * n * S2 + 6 * S0**2)
    return (scatter - tails) / np.float64((n - 1) * (n - 2) * (n - 3) * S0**2)


def _under_normality(n: int, sums: EdgeSums, kurtosis: np.ndarray) -> np.ndarray:
    """E I² of independent normal values; NaN where the kurtosis is (constant values)."""
    S0, S1, S2 = _cliff_ord(sums)
    moment = (n * n * S1 - n * S2 + 3 * S0**2) / np.float64((n * n - 1) * S0**2)
    return np.where(np.isnan(kurtosis), np.nan, moment)


def _cliff_ord(sums: EdgeSums) -> tuple[float, float, float]:
    """S0 = Σ w_ij, S1 = ½ Σ (w_ij + w_ji)², S2 = Σ_i (row sum + column sum)²."""
    return sums.S0, 2 * sums.T2, 4 * (sums.T2 + sums.T3)


def _over_edges(kernel: Callable[..., np.ndarray], A: AnyGraph, Z: np.ndarray) -> np.ndarray:
    """Sum of what a kernel gives for the parts of a graph (one value a column of Z)."""
    total = np.zeros(Z.shape[1])
    for part in parts_of(A):
        total += kernel(part.A.indptr, part.A.indices, part.A.data, Z[part.ids])
    return total


@njit(cache=True)
def _quadratic_forms(indptr, indices, data, Z):
    """Diagonal of ZᵀAZ in one pass over A, in float64."""
    n, k = Z.shape
    out, lag = np.zeros(k), np.empty(k)
    for i in range(n):
        lag[:] = 0
        for e in range(indptr[i], indptr[i + 1]):
            w, j = np.float64(data[e]), indices[e]
            for c in range(k):
                lag[c] += w * Z[j, c]
        for c in range(k):
            out[c] += Z[i, c] * lag[c]
    return out


@njit(cache=True)
def _squared_differences(indptr, indices, data, Z):
    """Σ_ij A_ij (z_i − z_j)² of every column, in one pass over A, in float64."""
    n, k = Z.shape
    out = np.zeros(k)
    for i in range(n):
        for e in range(indptr[i], indptr[i + 1]):
            w, j = np.float64(data[e]), indices[e]
            for c in range(k):
                difference = Z[i, c] - Z[j, c]
                out[c] += w * difference * difference
    return out
