"""Intervals of the shares of cells from the curvature of the objective."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.stats import norm

from ._blocks import Blocks
from ._ops import Rows

Array = np.ndarray
ROWS = 1024  # whose Hessians are in memory at a time
FREE = 1e-3  # share above which a type counts as present, not as held at zero


def blocks(n: int) -> Iterator[slice]:
    """Rows to deal with at a time."""
    return (slice(start, min(start + ROWS, n)) for start in range(0, n, ROWS))


@dataclass(frozen=True)
class Counted:
    """What the intervals of all spots depend on: profiles (p × k), dispersion, the rates of the types (k), and the level."""

    Qt: Array
    dispersion: float
    rates: Array
    level: float


def of_counts(X: Rows | Blocks, known: Counted, V: Array, depth: Array, prior: Array, weight: Array) -> Array:
    """Bounds (2 × n × k) of the shares of the cells from the curvature of the Poisson objective."""
    if isinstance(X, Blocks):
        by_row = (X.cut(M) for M in (V, depth, prior, weight))
        return np.concatenate(X.each_with(of_counts, known, *by_row), axis=1)
    k = known.Qt.shape[1]
    out = np.full((2, len(V), k), np.nan, np.float32)
    for rows in blocks(len(V)):
        pseudo = (weight[rows, None] * prior[rows, :k]).astype(np.float64)
        v = V[rows, :k].astype(np.float64) * (depth[rows, None] + (depth[rows, None] == 0))
        hessian, pulled = np.zeros((len(v), k, k)), np.zeros((len(v), k))
        curvature(X.indptr[rows.start : rows.stop + 1], X.indices, X.data, known.Qt, v, hessian, pulled)
        diagonal = np.arange(k)
        hessian[:, diagonal, diagonal] += pseudo / np.maximum(v, 1e-6) ** 2
        gradient = np.maximum(1 - pulled, 0)
        out[:, rows] = bounds(v, hessian, gradient, known.dispersion, known.rates, known.level)
    return out


@njit(cache=True)
def curvature(indptr, indices, data, Qt, V, hessian, pulled):
    """``Σ_j x q qᵀ / μ²`` and ``Σ_j x q / μ`` of every row."""
    k = V.shape[1]
    for i in range(len(V)):
        for e in range(indptr[i], indptr[i + 1]):
            q = Qt[indices[e]]
            mu = 1e-12
            for r in range(k):
                mu += V[i, r] * q[r]
            once = data[e] / mu
            for r in range(k):
                pulled[i, r] += once * q[r]
                for s in range(k):
                    hessian[i, r, s] += once / mu * q[r] * q[s]


def bounds(V: Array, hessian: Array, gradient: Array, scale: float, rates: Array, level: float) -> tuple[Array, Array]:
    """Laplace intervals of the cells' shares from abundances V, curvature and gradient of the objective.

    Types in the free set of a spot vary together by ``scale`` × the inverse of their block of the Hessian, carried over
    to shares by the delta method; a type at zero has an exponential tail, whose rate is the gradient there.
    """
    k = V.shape[1]
    free = FREE * V.sum(1, keepdims=True) < V
    block = np.where(free[:, :, None] & free[:, None, :], hessian, 0.0)
    diagonal = np.arange(k)
    ridge = 1e-6 * np.maximum(block[:, diagonal, diagonal].max(1), 1e-12)
    block[:, diagonal, diagonal] += np.where(free, ridge[:, None], 1.0)
    covariance = scale * np.linalg.inv(block) * (free[:, :, None] & free[:, None, :])
    cells = V / rates
    total = np.maximum(cells.sum(1), 1e-300)
    shares = cells / total[:, None]
    jacobian = (np.eye(k) - shares[:, :, None]) / rates / total[:, None, None]
    sd = np.sqrt(np.maximum(np.einsum("ikr,irs,iks->ik", jacobian, covariance, jacobian, optimize=True), 0))
    half = norm.ppf(0.5 + level / 2) * sd
    tail = -np.log1p(-level) * scale / np.maximum(gradient, 1e-3 * scale) / rates / total[:, None]
    upper = shares + np.where(free, half, tail)
    lower = np.where(free, shares - half, 0)
    return np.clip(lower, 0, 1).astype(np.float32), np.clip(upper, 0, 1).astype(np.float32)
