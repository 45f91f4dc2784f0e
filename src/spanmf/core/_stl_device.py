"""A pass of expectation–maximisation over counts that lie on a device of torch: all rows of a block at once.

The shares stay in memory between passes: what the surroundings say of them is worked out there, and they are small beside the counts.
"""

from __future__ import annotations

import numpy as np

from . import _ops
from ._ops import TINY, Rows
from ._stl_em import LONGEST, Pass, em_pass
from ._torch import Array, Block, DeviceRows, Tensor, _fitted, _tensor, _with_values, on_device, torch_


def counts_on(X: Rows, device: str | None) -> Rows:
    """Counts where the passes over all spots run; on a device by rows only, so that ``em_pass`` leaves no statistics."""
    return X if device is None else on_device(X, device, by_column=False)


@em_pass.register
def _em_pass(
    X: DeviceRows,
    Q: Array,
    V: Array,
    prior: Array | None = None,
    weight: Array | None = None,
    *,
    statistics: bool = True,
) -> Pass:
    out, (k, p) = np.empty_like(V), Q.shape
    Qt = _tensor(_ops.pad(Q.T), X.device)
    log_likelihood, prior_term, sums = 0.0, 0.0, np.zeros((p if statistics else 0, k))
    for b in X.blocks:
        v = _tensor(V[b.rows], X.device)
        mean = torch_().zeros_like(v) if prior is None else _tensor(prior[b.rows], X.device)
        a = torch_().zeros_like(v[:, :1]) if weight is None else _tensor(weight[b.rows, None], X.device)
        rows = _Rows(b, Qt, mean, a)
        v = rows.improved(v)
        out[b.rows] = v.cpu().numpy()
        log_likelihood += float(rows.log_likelihood(rows.fitted(v)).sum())
        prior_term += float((a.double() * torch_().xlogy(mean, mean)).sum() - rows.log_prior(v).sum())
        if statistics:
            ratio = b.by_column.values() / _fitted(b.by_column, Qt, v)
            sums += (_with_values(b.by_column, ratio) @ v)[:, :k].cpu().numpy()
    return Pass(out, log_likelihood, prior_term, sums)


class _Rows:
    """Rows of counts with their prior means and pseudo-counts ``a`` (a column)."""

    def __init__(self, block: Block, Qt: Tensor, mean: Tensor, a: Tensor) -> None:
        self.X, self.Qt, self.mean, self.a = block.by_row, Qt, mean, a
        self.ones = torch_().ones((len(Qt), 1), dtype=torch_().float64, device=Qt.device)
        total = self.sums(self.X.values().double()).float() + a
        self.there = total > 0
        self.scale = torch_().where(self.there, 1 / total, 0)

    def sums(self, values: Tensor) -> Tensor:
        """Of every row (a column), in float64."""
        return _with_values(self.X, values) @ self.ones

    def fitted(self, v: Tensor) -> Tensor:
        """The fit where there are counts."""
        return _fitted(self.X, v, self.Qt)

    def step(self, v: Tensor, fitted: Tensor) -> Tensor:
        """One step of EM."""
        numerator = _with_values(self.X, self.X.values() / fitted) @ self.Qt
        return (v * numerator + self.a * self.mean) * self.scale

    def log_likelihood(self, fitted: Tensor) -> Tensor:
        """``Σ x log`` of the fit."""
        return self.sums(self.X.values().double() * fitted.double().log())

    def log_prior(self, v: Tensor) -> Tensor:
        """``a Σ m log v``."""
        return (self.a * self.mean).double().mul(v.clamp(min=float(TINY)).double().log()).sum(1, keepdim=True)

    def improved(self, v: Tensor) -> Tensor:
        """Two steps, an extrapolation and a third; where that falls behind, three plain ones."""
        first = self.step(v, self.fitted(v))
        there = self.fitted(first)
        second = self.step(first, there)
        reached = self.log_likelihood(there) + self.log_prior(first)
        far = _extrapolated(v, first, second)
        there = self.fitted(far)
        third = self.step(far, there)
        behind = self.log_likelihood(there) + self.log_prior(far) < reached
        if behind.any():
            third = torch_().where(behind, self.step(second, self.fitted(second)), third)
        return torch_().where(self.there, third, v)


def _extrapolated(start: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Two steps of EM on, by the ratio of their lengths (SQUAREM), short of zero and back on the simplex."""
    step = first - start
    turn = second - first - step
    length, bend = (step * step).sum(1, keepdim=True), (turn * turn).sum(1, keepdim=True)
    alpha = torch_().where(bend > float(TINY), (length / bend).sqrt().clamp(1, float(LONGEST)), 1)
    v = torch_().maximum(start + 2 * alpha * step + alpha * alpha * turn, 0.01 * second)
    return v / v.sum(1, keepdim=True).clamp(min=float(TINY))
