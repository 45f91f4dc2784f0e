r"""Losses that differ between modalities (or Kullback–Leibler with missing rows or private components).

At the present W every KL term is majorised by :math:`\sum_r h_r w_r - a_r \log w_r`, with :math:`a_r` the numerator of
the multiplicative update; with the Gram matrix G and the products b of the Frobenius terms, a coordinate's minimum is the
positive root of :math:`G_{rr} w^2 - (b_r - \sum_{s \ne r} G_{rs} w_s - h_r) w - a_r = 0`. So the objective cannot rise.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, singledispatch
from typing import Any, NamedTuple

import numpy as np

from . import _ops, _snmf, _solver
from ._blocks import Blocks
from ._joint_layout import FLOOR, Layout, allowed
from ._ops import Rows, Statistics

Array = np.ndarray
SWEEPS = 2


class Terms(NamedTuple):
    """The terms of the objective: loss and features of each modality, and the weight of each group's rows in it."""

    losses: list[str]
    columns: list[slice]
    shares: Array  # groups × modalities


class Mixed:
    """A factorisation under way. ``H`` here is P × k."""

    def __init__(self, layout: Layout, H: Array) -> None:
        self.layout, self.k = layout, H.shape[1]
        self.terms = Terms(layout.losses, layout.columns, layout.shares())
        self.H = allowed(layout, np.maximum(H, FLOOR * H.mean()))
        self.constant = constant(layout.X, self.terms)
        self.W = _ops.start(layout.X, self.k, None, 1 / max(self.H.sum(), _ops.TINY))
        self.spare = _ops.spare(self.W)
        self.stats, self.objective = self._pass_over(self.H, 0)
        self.W, self.spare = self.spare, self.W
        self.step(0.0)

    def step(self, tol: float) -> bool:
        H = improved_h(self.layout, self.stats, self.H)
        stats, value = self._pass_over(H, SWEEPS)
        gain = self.objective - value
        if gain < 0:  # rounding is all that is left
            return True
        self.W, self.spare = self.spare, self.W
        self.stats, self.H, self.objective = stats, H, value
        return gain <= tol * abs(value)

    def _pass_over(self, H: Array, sweeps: int) -> tuple[Statistics, float]:
        """Put the next W into ``spare``; its statistics and the objective."""
        group = self.layout.group
        stats = mixed_pass(self.layout.X, H, self.W, self.spare, self.k, group=group, terms=self.terms, sweeps=sweeps)
        value = self.constant - stats.log_term
        for m, (loss, columns) in enumerate(zip(*self.terms[:2], strict=True)):
            if loss == "kl":
                value += float(stats.w_sum[m] @ H[columns].sum(0))
            else:
                own = H[columns]
                value += 0.5 * float(np.vdot(stats.wtw[m], own.T @ own)) - float(np.vdot(stats.xtw[columns], own))
        return stats, value


def improved_h(layout: Layout, stats: Statistics, H: Array, sweeps: int = _solver.H_SWEEPS) -> Array:
    """H from the statistics: multiplied, or by HALS, as the loss of the modality asks."""
    out = np.zeros(H.shape)
    for m, (loss, columns, c) in enumerate(zip(layout.losses, layout.columns, layout.components, strict=True)):
        xtw, total = stats.xtw[columns], stats.w_sum[m]
        if loss == "kl":
            out[columns, c] = (H[columns] * (xtw / np.where(total > 0, total, 1)))[:, c]
        else:
            own = Statistics(xtw[:, c], stats.wtw[m][np.ix_(c, c)], total)
            out[columns, c] = _solver.hals_h(own, H[columns][:, c], sweeps=sweeps)
    return out


def refit_h(layout: Layout, W: Any, H: Array) -> Array:
    """H (P × k) that fits best for the given W, each modality over the rows that have it."""
    terms = Terms(layout.losses, layout.columns, layout.shares(absent=0.0))
    for loss, columns, c in zip(layout.losses, layout.columns, layout.components, strict=True):
        if loss == "kl":
            floor = np.zeros_like(H[columns])
            floor[:, c] = 1e-6 * H[columns][:, c].mean()
            H[columns] = np.maximum(H[columns], floor)
    for _ in range(_snmf.REFIT_PASSES):
        stats = mixed_pass(layout.X, H, W, W, H.shape[1], group=layout.group, terms=terms, sweeps=0)
        H = improved_h(layout, stats, H, _snmf.REFIT_SWEEPS)
    return H


@singledispatch
def constant(X: Any, terms: Terms) -> float:
    """The part of the objective that does not change."""
    parts = zip(_cut(X, terms.columns), terms.losses, strict=True)
    return sum(_ops.entropy(part) if loss == "kl" else 0.5 * _ops.squared_norm(part) for part, loss in parts)


@constant.register
def _(X: Blocks, terms: Terms) -> float:
    return sum(X.each(partial(_constant, terms=terms)))


def _constant(X: Rows, terms: Terms) -> float:
    return constant(X, terms)


def _cut(X: Rows, columns: Sequence[slice]) -> list[Rows]:
    sparse = X.as_scipy()
    return [_ops.as_rows(sparse[:, c]) for c in columns]


@singledispatch
def mixed_pass(
    X: Any, H: Array, W: Any, out: Any, k: int, *, group: Array, terms: Terms, sweeps: int = SWEEPS
) -> Statistics:
    """Improve W against H (P × k) ``sweeps`` times; of the result ``XᵀW``, and of each modality ``WᵀW`` and column sums."""
    parts = _cut(X, terms.columns)
    if sweeps == 0:
        out[:] = W
    for i in range(sweeps):
        out[:] = _improved_w(parts, H, W if i == 0 else out, k, group, terms)
    precise = out[:, :k].astype(np.float64)
    n_modalities = len(parts)
    total = Statistics(np.zeros((X.shape[1], k)), np.zeros((n_modalities, k, k)), np.zeros((n_modalities, k)))
    log_term = 0.0
    for m, (part, loss, columns) in enumerate(zip(parts, *terms[:2], strict=True)):
        share = terms.shares[group, m]
        total.w_sum[m] = share @ precise
        if loss == "kl":
            own = H[columns]
            s = _ops.kl_pass(part, _ops.pad(own), out, out, k, h_sum=own.sum(0), sweeps=0)
            total.xtw[columns] = s.xtw
            log_term += s.log_term
        else:
            total.xtw[columns] = _ops.transposed_product(part, precise)
            total.wtw[m] = (precise * share[:, None]).T @ precise
    return Statistics(total.xtw, total.wtw, total.w_sum, log_term)


@mixed_pass.register
def _(X: Blocks, H: Array, W: Any, out: Any, k: int, *, group: Array, terms: Terms, sweeps: int = SWEEPS) -> Statistics:
    return X.engine.update(X, mixed_pass, H, W, out, k, {"group": group}, {"terms": terms, "sweeps": sweeps})


def _improved_w(parts: list[Rows], H: Array, W: Array, k: int, group: Array, terms: Terms) -> Array:
    a, b = np.zeros((len(W), k)), np.zeros((len(W), k))
    for part, loss, columns in zip(parts, *terms[:2], strict=True):
        own = H[columns]
        if loss == "kl":
            moved = np.empty_like(W)
            _ops.kl_pass(part, _ops.pad(own), W, moved, k, h_sum=own.sum(0), sweeps=1, statistics=False)
            a += moved[:, :k].astype(np.float64) * own.sum(0)
        else:
            b += _ops.product(part, own)
    out = W[:, :k].astype(np.float64)
    for g in np.unique(group):
        rows = group == g
        G, h = np.zeros((k, k)), np.zeros(k)
        for loss, columns, share in zip(*terms[:2], terms.shares[g], strict=True):
            if loss == "kl":
                h += share * H[columns].sum(0)
            else:
                G += share * (H[columns].T @ H[columns])
        out[rows] = _positive_roots(out[rows], a[rows], b[rows], G, h)
    return _ops.pad(out)


def _positive_roots(W: Array, a: Array, b: Array, G: Array, h: Array) -> Array:
    """Coordinate by coordinate."""
    for r in range(W.shape[1]):
        d = b[:, r] - W @ G[:, r] + W[:, r] * G[r, r] - h[r]
        if G[r, r] > 0:
            W[:, r] = (d + np.sqrt(d * d + 4 * G[r, r] * a[:, r])) / (2 * G[r, r])
        elif h[r] > 0:
            W[:, r] = a[:, r] / h[r]
    return W
