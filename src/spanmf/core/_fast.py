r"""FAST: shares and profiles of unknown types by place and sum, without a reference.

.. math:: \tfrac12\|X-WH\|_F^2 + \tfrac{\lambda_1}2\operatorname{Tr}(W^\top LW) + \tfrac{\lambda_2}2\sum_i(\textstyle\sum_kw_{ik}-1)^2,
          \quad W, H\ge0

On the engine of :mod:`spanmf.core._solver`: the graph term is majorised as there, and the sum term is :math:`\lambda_2 11^\top` on the Gram
matrix and :math:`\lambda_2` on the right-hand side of each row's problem. The sum also settles the scale, so H needs no unit norm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import nnls

from . import _ops, _solver
from ._smooth import Graph, graph_product

Array = np.ndarray


def fit(
    X: _ops.Rows,
    H: Array,
    graph: Graph | None,
    *,
    graph_weight: float,
    sum_weight: float,
    max_iter: int = 500,
    tol: float = 3e-6,
    progress: Any = None,
) -> _solver.Result:
    """Factorise X from loadings H (k × p); the objective never rises."""
    state = _Fast(X, unit_sums(X, H).T, graph, graph_weight, sum_weight)
    return _solver.run(state, max_iter=max_iter, tol=tol, progress=progress)


def unit_sums(X: _ops.Rows, H: Array) -> Array:
    """H scaled so that the rows of W that fit it sum to one, as nearly as they can."""
    W = _solver.solve_w(X, H).astype(np.float64)
    scale, _ = nnls(W, np.ones(len(W)))
    scale = np.where(scale > 0, scale, 1 / (len(H) * np.maximum(W.mean(0), 1e-12)))
    return np.asarray(H / scale[:, None], dtype=np.float64)


class _Fast(_solver._Frobenius):
    """HALS with the terms of place and sum. ``H`` here is p × k."""

    def __init__(self, X: _ops.Rows, H: Array, graph: Graph | None, graph_weight: float, sum_weight: float) -> None:
        self.graph, self.weight, self.total = graph, graph_weight, sum_weight
        self.degree = None if graph is None else graph.degree.astype(np.float32)[:, None]
        self.neighbours: Array | None = None  # A W of the present W
        super().__init__(X, H, None, _solver.NO_PENALTY, None, 0.0)

    def pass_over(self, H: Array, sweeps: int = _solver.W_SWEEPS) -> _ops.Statistics:
        """Put the next W into ``spare``."""
        anchor, q = None, None
        if self.degree is not None and self.neighbours is not None:
            anchor = np.float32(self.weight) * (self.degree * self.W + self.neighbours)
            q = np.float32(2 * self.weight) * self.degree[:, 0]
        stats = _ops.hals_pass(
            self.X, _ops.pad(H), self.W, self.spare, self.k, gram=H.T @ H + self.total, sweeps=sweeps, l1=-self.total,
            anchor=anchor, anchor_weight=q,
        )  # fmt: skip
        if self.graph is not None:
            self.spare_neighbours = graph_product(self.graph, self.spare)
        return stats

    def accept(self) -> None:
        """Make ``spare`` the present W."""
        super().accept()
        if self.graph is not None:
            self.neighbours = self.spare_neighbours

    def improve(self, stats: _ops.Statistics, H: Array) -> tuple[Array, float]:
        """New H and the objective."""
        H = _solver.hals_h(stats, H)
        value = 0.5 * (self.x_norm - 2 * np.vdot(stats.xtw, H) + np.vdot(stats.wtw, H.T @ H))
        off = self.spare.sum(1, dtype=np.float64) - 1
        value += 0.5 * self.total * np.vdot(off, off)
        if self.degree is not None:
            value += 0.5 * self.weight * np.vdot(self.spare, self.degree * self.spare - self.spare_neighbours)
        return H, float(value)
