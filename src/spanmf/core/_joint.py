r"""Several matrices that share the observations' factors, each with rows that may be missing.

.. math:: \sum_m \omega_m \, D_m(M_m \circ X_m, \; M_m \circ W H_m) \;\bigl(+ \tfrac\lambda2 \operatorname{Tr}(W^\top L W),
   \; \lVert H_k \rVert = 1 \bigr)

with :math:`M_m` the rows that modality m has. Under the Frobenius loss :math:`\sqrt{\omega_m} X_m` are put side by side
(:mod:`._joint_layout`) and the engine of :mod:`._solver` runs on that one matrix, in memory or in blocks: observations with the same
modalities form a group, which has its own Gram matrix :math:`\sum_{m \in g} H_m H_m^\top`, and :math:`H_m` is updated from the
statistics of the groups that have m. Under Kullback–Leibler the weight multiplies the matrix itself. Losses that differ are the
business of :mod:`._joint_mixed`.

Missing rows count as zeros with the weight :data:`._joint_layout.ABSENT`. Without that a component that the modalities at hand hardly show has no
bound in such rows: its W explodes (a thousandfold on generated tissues), and with it every distance.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch
from typing import Any

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from . import _joint_mixed, _ops, _snmf, _solver
from ._blocks import Blocks, with_factors_here
from ._joint_layout import Layout, allowed
from ._ops import Statistics
from ._smooth import Graph, beside, graph_product, pull, roughness

Array = np.ndarray


def fit(
    layout: Layout,
    H: Array,
    *,
    graph: sp.csr_matrix | None = None,
    graph_weight: float = 0.0,
    max_iter: int = 500,
    tol: float = 3e-6,
    progress: _solver.Progress | None = None,
) -> _solver.Result:
    """Factorise from loadings H (k × P, of the scaled matrices). W comes back in the order of the observations."""
    own = None
    if graph is not None:  # what goes over a graph needs all rows of W
        layout = replace(layout, X=with_factors_here(layout.X))
        own = beside(layout.X, graph if layout.as_observed else graph[layout.order][:, layout.order])
    state = begin(layout, allowed(layout, np.asarray(H, dtype=np.float64).T), own, graph_weight)
    result = _solver.run(state, max_iter=max_iter, tol=tol, progress=progress)
    return _solver.Result(layout.of_observations(result.W), result.H, result.trace, result.converged)


def begin(layout: Layout, H: Array, graph: Graph | None = None, weight: float = 0.0) -> _solver.State:
    """The state of a factorisation after its first pass, from loadings H (P × k)."""
    if layout.differs:
        return _joint_mixed.Mixed(layout, H)
    if layout.complete:
        return _solver.begin(layout.X, H.T, loss=layout.losses[0], graph=graph, graph_weight=weight)
    return _Masked(layout, H, graph, weight)


@singledispatch
def hals_by_group(
    X: Any,
    Ht: Array,
    W: Any,
    out: Any,
    k: int,
    *,
    group: Array,
    grams: Array,
    sweeps: int = _solver.W_SWEEPS,
    anchor: Any = None,
    anchor_weight: Any = None,
) -> Statistics:
    """:func:`._ops.hals_pass` with a Gram matrix for every group of rows (groups × k × k); so are ``wtw`` and ``w_sum``."""
    if (group[1:] < group[:-1]).any():  # in a block
        order = np.argsort(group, kind="stable")
        after = np.zeros_like(W)
        statistics = hals_by_group(
            X.take(order), Ht, W[order], after, k, group=group[order], grams=grams, sweeps=sweeps,
            anchor=None if anchor is None else anchor[order],
            anchor_weight=None if anchor_weight is None else anchor_weight[order],
        )  # fmt: skip
        out[order] = after
        return statistics
    xtw, wtw, w_sum = np.zeros((X.shape[1], k)), np.zeros(grams.shape), np.zeros(grams.shape[:2])
    bounds = np.searchsorted(group, np.arange(len(grams) + 1))
    for g in np.flatnonzero(np.diff(bounds)):
        own = slice(int(bounds[g]), int(bounds[g + 1]))
        s = _ops.hals_pass(
            X.part(own.start, own.stop), Ht, W[own], out[own], k, gram=grams[g], sweeps=sweeps,
            anchor=None if anchor is None else anchor[own],
            anchor_weight=None if anchor_weight is None else anchor_weight[own],
        )  # fmt: skip
        xtw += s.xtw
        wtw[g], w_sum[g] = s.wtw, s.w_sum
    return Statistics(xtw, wtw, w_sum)


@hals_by_group.register
def _(
    X: Blocks, Ht: Array, W: Any, out: Any, k: int, *, group: Array, grams: Array, sweeps: int = _solver.W_SWEEPS,
    anchor: Any = None, anchor_weight: Any = None,
) -> Statistics:  # fmt: skip
    by_row = {"group": group, "anchor": anchor, "anchor_weight": anchor_weight}
    return X.engine.update(X, hals_by_group, Ht, W, out, k, by_row, {"grams": grams, "sweeps": sweeps})


class _Masked(_solver._Frobenius):
    """HALS as in the plain engine, a Gram matrix a group; with a graph, rows of H at unit norm."""

    def __init__(self, layout: Layout, H: Array, graph: Graph | None, weight: float) -> None:
        self.layout, self.graph, self.weight = layout, graph, weight
        self.neighbours: Array | None = None
        if graph is not None:
            H = _unit(H)
        super().__init__(layout.X, H, None, _solver.NO_PENALTY, graph, weight)

    def pass_over(self, H: Array, sweeps: int = _solver.W_SWEEPS) -> Statistics:
        layout = self.layout
        anchor, q = self._anchor()
        stats = hals_by_group(
            layout.X, _ops.pad(H), self.W, self.spare, self.k, group=layout.group, grams=_grams(layout, H),
            sweeps=sweeps, anchor=anchor, anchor_weight=q,
        )  # fmt: skip
        if self.graph is not None:
            self.spare_neighbours = graph_product(self.graph, self.spare)
        return stats

    def _anchor(self) -> tuple[Array | None, Array | None]:
        """What the graph term adds to every row's problem (see ``_solver._Laplacian``)."""
        if self.graph is None or self.neighbours is None:
            return None, None
        return pull(self.graph, self.W, self.neighbours, self.weight)

    def accept(self) -> None:
        super().accept()
        if self.graph is not None:
            self.neighbours = self.spare_neighbours

    def feasible(self, H: Array) -> Array:
        H = np.maximum(H, 0)
        return H if self.graph is None else _unit(H)

    def improve(self, stats: Statistics, H: Array) -> tuple[Array, float]:
        layout = self.layout
        wtw = _by_modality(stats.wtw, layout.shares())
        if self.graph is not None:
            H = self._unit_norm_h(stats.xtw, wtw, H)
        else:
            H = _hals_h(layout, stats.xtw, wtw, H, _solver.H_SWEEPS)
        value = self.x_norm - 2 * np.vdot(stats.xtw, H)
        for C, columns in zip(wtw, layout.columns, strict=True):
            value += np.vdot(C, H[columns].T @ H[columns])
        if self.graph is not None:
            value += self.weight * roughness(self.graph, self.spare, self.spare_neighbours)
        return H, float(value / 2)

    def _unit_norm_h(self, xtw: Array, wtw: Array, H: Array) -> Array:
        """Best column of H by column, under its norm of one: the positive part of its target over (WᵀW)_rr + μ."""
        H, layout = H.copy(), self.layout
        for _ in range(_solver.H_SWEEPS):
            for r in range(self.k):
                target, curvature = np.zeros(len(H)), np.zeros(len(H))
                for C, columns, c in zip(wtw, layout.columns, layout.components, strict=True):
                    if r in c:
                        target[columns] = xtw[columns, r] - H[columns] @ C[:, r] + H[columns, r] * C[r, r]
                        curvature[columns] = C[r, r]
                H[:, r] = _on_sphere(target, curvature, H[:, r])
        return H


def _unit(H: Array) -> Array:
    norms = np.linalg.norm(H, axis=0)
    return H / np.where(norms > 0, norms, 1)


def _on_sphere(target: Array, curvature: Array, before: Array) -> Array:
    """Minimise ½ Σ c_j h_j² − Σ t_j h_j over h ≥ 0 of unit norm; as before where no target is positive."""
    positive = np.maximum(target, 0)
    if not positive.any():
        return before
    steps, which = np.unique(curvature, return_inverse=True)
    mass = np.bincount(which.ravel(), positive**2)
    steps, mass = steps[mass > 0], mass[mass > 0]
    low, high = -steps[0], np.sqrt(mass.sum()) - steps[0]  # Σ mass / (c + μ)² falls from ∞ past 1 in between
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if (mass / (steps + middle) ** 2).sum() > 1 else (low, middle)
    h = positive / np.where(positive > 0, curvature + high, 1)
    return h / np.linalg.norm(h)


def _grams(layout: Layout, H: Array) -> Array:
    """``H_m H_mᵀ`` of every group, added up over the modalities (groups × k × k)."""
    return np.tensordot(layout.shares(), np.stack([H[c].T @ H[c] for c in layout.columns]), axes=1)


def _by_modality(by_group: Array, shares: Array) -> Array:
    """Statistics of groups, added up for each modality."""
    return np.tensordot(shares.T, by_group, axes=1)


def _hals_h(layout: Layout, xtw: Array, wtw: Array, H: Array, sweeps: int) -> Array:
    """Improve each modality's H from ``XᵀW`` and its own ``WᵀW``."""
    out = np.zeros(H.shape)
    for C, columns, c in zip(wtw, layout.columns, layout.components, strict=True):
        own = Statistics(xtw[columns][:, c], C[np.ix_(c, c)], C[0])
        out[columns, c] = _solver.hals_h(own, H[columns][:, c], sweeps=sweeps)
    return out


def refit_h(layout: Layout, W: Array, H: Array) -> Array:
    """H (k × P) that fits the scaled matrices best for the given W (n × k), each over the rows that have it."""
    with threadpool_limits(1, "blas"):  # the last bits depend on the number of threads
        Ht, k = np.array(H, dtype=np.float64).T, len(H)
        factors = _ops.start(layout.X, k, layout.of_rows(W))
        if layout.differs:
            out = _joint_mixed.refit_h(layout, factors, Ht)
        elif layout.losses[0] == "kl":
            return _snmf.refit_h(layout.X, layout.of_rows(W), H, "kl")
        else:
            none = np.zeros((len(layout.has), k, k))
            stats = hals_by_group(layout.X, _ops.pad(Ht), factors, factors, k, group=layout.group, grams=none, sweeps=0)
            wtw = _by_modality(stats.wtw, layout.shares(absent=0.0))
            out = _hals_h(layout, stats.xtw, wtw, Ht, _snmf.REFIT_SWEEPS)
    return np.ascontiguousarray(out.T, dtype=np.float32)


def variance_explained(layout: Layout, W: Array, H: Array) -> Array:
    r"""Share of a modality's variance (rows that are there) that each component's activity explains alone (k × modalities).

    :math:`\lVert X_c^\top w_c \rVert^2 / (\lVert w_c \rVert^2 \lVert X_c \rVert^2)`, both centred by column: the share of a regression of every
    feature on that component. 0 where the component has no loadings. Components overlap: the shares do not add up.
    """
    W = np.asarray(layout.of_rows(W), dtype=np.float64)
    products = np.asarray(_ops.transposed_product(layout.X, W))  # missing rows are zeros
    out = np.full((len(H), len(layout.columns)), np.nan)
    for m, columns in enumerate(layout.columns):
        own = W[layout.has[layout.group, m]]
        mean = layout.moments.sums[columns] / len(own)
        total = float(layout.moments.squares[columns].sum()) - len(own) * float(mean @ mean)
        if total > 0:
            size = ((own - own.mean(0)) ** 2).sum(0)
            cross = ((products[columns] - np.outer(mean, own.sum(0))) ** 2).sum(0)
            known = (size > 0) & H[:, columns].any(axis=1)
            out[:, m] = np.divide(cross, size * total, out=np.zeros(len(H)), where=known)
    return out
