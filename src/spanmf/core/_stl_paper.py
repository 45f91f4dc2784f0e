r"""STL-NMF as published (Konkel, Zhang, Guo, Zhang): dense graph of place and region, multiplicative updates.

With spots in rows (X is n × p, B k × p the profiles, V n × k the shares; the paper has all of them transposed), minimised is

.. math:: \|X-VB\|_F^2 + \lambda_1\operatorname{Tr}(V^\top LV) + \lambda_2\,n\sum_i(\textstyle\sum_k v_{ik}-1)^2 + \lambda_3\,G(V)

where the n of the sum-to-one term comes from the paper's n columns of ones. The group term G is, as printed,
:math:`\|WV^\top\|_F^2=\sum_i v_i^\top(W^\top W)v_i` with one k × k matrix for all spots, and as meant
:math:`\sum_i\|v_i-\omega_{r(i)}\|^2`. One update is

.. math:: V \leftarrow V\circ\frac{XB^\top+\lambda_1AV+\lambda_2\,n\,11^\top\,(+\lambda_3\,\omega_{r(i)})}
          {V(BB^\top+\lambda_2\,n\,11^\top)+\lambda_1DV+\lambda_3\,V W^\top W\ (\text{or } \lambda_3V)}

A is positive semidefinite (a product of a Gaussian kernel and one of regions, with its diagonal), so what is divided by majorises the
curvature and the objective cannot rise, unless rows are divided by their sums or small values cut off after the update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

Array = np.ndarray
Progress = Callable[[int, float], None]
GROUPS = ("printed", "meant")
LAYERS = 150
CUTOFF = 1e-3
LAMBDAS = (30.0, 50.0, 30.0)
SIGMAS = (5.0, 5.0)  # the first in units of the array's pitch
MAX_SPOTS = 5000  # beyond, the dense graph is refused
TINY = 1e-12


@dataclass(frozen=True)
class Weights:
    """The numbers that unrolling learns, and the form of the update that they are for.

    ``relative``: the λ are in units of the data term, which has the curvature s (mean diagonal of BBᵀ): λ1 s / (mean degree), λ2 s / n, λ3 s.
    """

    lambdas: tuple[float, float, float] = LAMBDAS  # graph, sum to one, group
    sigmas: tuple[float, float] = SIGMAS
    omega: Array | None = None  # regions × types; None: even
    group: str = "printed"
    relative: bool = False
    n_layers: int = LAYERS
    normalise: bool = True  # after every update
    cutoff: float = CUTOFF


def needed_bytes(n: int) -> int:
    """Memory of the dense graph and of the one matrix of its size that is needed to make it."""
    return 2 * 8 * n * n


def adjacency(coords: Array, regions: Array, sigmas: tuple[float, float], libraries: Array | None = None) -> Array:
    """``exp(−d² / σ1² − ‖z_i − z_j‖₁² / σ2²)``, n × n; z is one-hot, or zero where the code is −1; 0 between libraries."""
    A = cdist(coords, coords, "sqeuclidean")
    A /= -(sigmas[0] ** 2)
    A -= region_distance(regions) ** 2 / sigmas[1] ** 2
    np.exp(A, out=A)
    if libraries is not None:
        A *= libraries[:, None] == libraries
    return A


def region_distance(regions: Array) -> Array:
    """``‖z_i − z_j‖₁``: 0 within a region, 2 between two, 1 between a region and none."""
    known = (regions >= 0).astype(np.float64)
    return np.where(regions[:, None] == regions, 0.0, known[:, None] + known)


def omega_rows(omega: Array, regions: Array) -> Array:
    """The stacked W of the paper (n × k): every spot's region's shares; zero rows where it has none."""
    return np.where((regions >= 0)[:, None], omega[np.maximum(regions, 0)], 0.0)


@dataclass(frozen=True)
class Terms:
    """The objective ``constant − 2⟨target, V⟩ + ⟨V gram, V⟩ + Σ own V² − ⟨V, AV⟩``, all λ inside."""

    target: Array  # n × k
    gram: Array  # k × k
    own: Array  # n × 1
    A: Array  # n × n, λ1 inside
    constant: float

    @classmethod
    def of(cls, X: Any, B: Array, A: Array, regions: Array, weights: Weights) -> Terms:
        """Put the terms of the objective together; X and A are used up to here only."""
        n, k = X.shape[0], len(B)
        cross, gram = np.asarray(X @ B.T, dtype=np.float64), B @ B.T
        degree = A.sum(1, keepdims=True)
        graph, total, group = absolute(weights, float(np.trace(gram)) / k, float(degree.mean()), n)
        omega = np.full((int(regions.max(initial=0)) + 1, k), 1 / k) if weights.omega is None else weights.omega
        rows = omega_rows(omega, regions)
        values = X.data if hasattr(X, "indptr") else np.asarray(X)
        constant = float(np.vdot(values, values)) + total * n
        target, own = cross + total, graph * degree
        gram = gram + total
        if weights.group == "meant":
            target = target + group * rows
            own = own + group * (regions >= 0)[:, None]
            constant += group * float(np.vdot(rows, rows))
        else:
            gram = gram + group * rows.T @ rows
        return cls(target, gram, own, graph * A, constant)

    def objective(self, V: Array) -> float:
        """The objective, by the products of the next update."""
        return self._value(V, self.A @ V, V @ self.gram + self.own * V)

    def _value(self, V: Array, pulled: Array, pushed: Array) -> float:
        return self.constant + float(np.vdot(V, pushed - pulled - 2 * self.target))

    def step(self, V: Array) -> tuple[Array, float]:
        """The updated shares, and the objective before the update."""
        pulled, pushed = self.A @ V, V @ self.gram + self.own * V
        return V * ((self.target + pulled) / np.maximum(pushed, TINY)), self._value(V, pulled, pushed)


def absolute(weights: Weights, scale: float, degree: float, n: int) -> tuple[float, float, float]:
    """Weights of graph, sum (its n inside) and group term as they stand in the objective."""
    graph, total, group = weights.lambdas
    if weights.relative:
        return graph * scale / degree, total * scale, group * scale
    return graph, total * n, group


def start(n: int, k: int, rng: np.random.Generator) -> Array:
    """The authors' start: 1/k + uniform(0, 0.5)."""
    return 1 / k + rng.uniform(0, 0.5, (n, k))


def shares(V: Array) -> Array:
    """Rows divided by their sums; an empty one stays."""
    total = V.sum(1, keepdims=True)
    return V / np.where(total > 0, total, 1)


@dataclass(frozen=True)
class PaperFit:
    """Shares (n × k, rows of sum one) and the objective before every update and after the last."""

    V: Array
    trace: Array


def fit(
    X: Any,
    B: Array,
    A: Array,
    regions: Array,
    weights: Weights,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> PaperFit:
    """Run the layers; ``regions`` are codes, −1 where unknown."""
    terms = Terms.of(X, B, A, regions, weights)
    V = start(X.shape[0], len(B), rng)
    trace = []
    for i in range(weights.n_layers):
        V, value = terms.step(V)
        trace.append(value)
        if weights.cutoff > 0:
            V = np.where(weights.cutoff > V, 0.0, V)
        if weights.normalise:
            V = shares(V)
        if progress is not None:
            progress(i + 1, value)
    trace.append(terms.objective(V))
    return PaperFit(shares(V), np.array(trace))
