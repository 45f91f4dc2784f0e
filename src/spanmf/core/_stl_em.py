"""One pass of expectation–maximisation over the counts: shares of every row for given profiles; deviances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
from numba import njit, prange

from . import _ops
from ._blocks import Blocks
from ._ops import FLUSH, TINY, Rows, Statistics, _sum_x_log, cached, flush, threads_for
from ._simd import FAST, LANE, dots, gather, make_lanes, padded, scatter

Array = np.ndarray
APART = 128  # float32 between rows of scratch memory
LONGEST = np.float32(16)  # extrapolation of the shares, in steps of EM


@dataclass(frozen=True)
class Pass:
    """What one pass leaves: new shares, ``Σ x log(VQ)``, ``Σ a KL(m‖π)`` and ``(X / VQ)ᵀV`` (p × k)."""

    V: Array
    log_likelihood: float
    prior: float
    sums: Array


@singledispatch
def em_pass(
    X: Any,
    Q: Array,
    V: Array,
    prior: Array | None = None,
    weight: Array | None = None,
    *,
    statistics: bool = True,
) -> Pass:
    """Improve every row of V (n × width) for fixed Q (k × p) and prior means, then add up the statistics.

    Two steps of EM, an extrapolation and a third step (Varadhan & Roland 2008); where that falls behind, three plain steps.
    """
    out = np.empty_like(V)
    done = improve(X, _ops.pad(Q.T), V, out, len(Q), prior=prior, weight=weight, statistics=statistics)
    return Pass(out, done.log_term, done.prior, done.xtw)


@em_pass.register
def _(
    X: Blocks,
    Q: Array,
    V: Array,
    prior: Array | None = None,
    weight: Array | None = None,
    *,
    statistics: bool = True,
) -> Pass:
    out, by_row = np.empty_like(V), {"prior": prior, "weight": weight}
    done = X.engine.update(X, improve, _ops.pad(Q.T), V, out, len(Q), by_row, {"statistics": statistics})
    return Pass(out, done.log_term, done.prior, done.xtw)


def improve(
    X: Rows,
    Qt: Array,
    V: Array,
    out: Array,
    k: int,
    *,
    prior: Array | None = None,
    weight: Array | None = None,
    statistics: bool = True,
) -> Statistics:
    """The same with the profiles as the kernel takes them (p × width); the shares go to ``out``."""
    n, width = V.shape
    p = len(Qt)
    nb = _ops.n_blocks(n, p, k)
    sums = np.zeros((nb, p, k) if statistics else (nb, 0, 0))
    log_term, prior_term = np.zeros(nb), np.zeros(nb)
    none = np.zeros((0, width), np.float32)
    longest = int(np.diff(X.indptr).max(initial=0))
    with threads_for(len(X.data)):
        _em_blocks(
            X.indptr, X.indices, X.data, Qt, none if prior is None else np.asarray(prior, np.float32),
            none[:, 0] if weight is None else np.asarray(weight, np.float32), V, out, k, longest, sums, log_term,
            prior_term, make_lanes(width),
        )  # fmt: skip
    return Statistics(sums.sum(0), np.zeros((0, 0)), np.zeros(0), float(log_term.sum()), float(prior_term.sum()))


@njit(cache=True, fastmath=set(FAST), error_model="numpy")
def _em_step(v, x, column, Qt, ratio, numerator, prior, i, a, depth, lanes):
    """One step of EM of a row; ``ratio`` is left as x over the fit before the step."""
    m = len(x)
    dots(v, ratio, column, Qt, 0, m, lanes)
    for j in range(m):
        ratio[j] = x[j] / max(ratio[j], TINY)
    gather(numerator, ratio, column, Qt, 0, m, lanes)
    scale = np.float32(1) / (depth + a)
    if a > 0:
        for r in range(len(v)):
            v[r] = (v[r] * numerator[r] + a * prior[i, r]) * scale
    else:
        for r in range(len(v)):
            v[r] *= numerator[r] * scale


@njit(cache=True, fastmath=set(FAST), error_model="numpy")
def _prior_log(v, prior, i, a, k):
    """``a Σ m log v``."""
    total = 0.0
    if a > 0:
        for r in range(k):
            if prior[i, r] > 0:
                total += prior[i, r] * np.log(max(v[r], TINY))
    return a * total


@njit(cache=True, fastmath=set(FAST), error_model="numpy")
def _extrapolate(start, first, second, v):
    """Two steps of EM on, by the ratio of their lengths (SQUAREM), short of zero and back on the simplex."""
    length, bend = np.float32(0), np.float32(0)
    for r in range(len(v)):
        step = first[r] - start[r]
        turn = second[r] - first[r] - step
        length += step * step
        bend += turn * turn
    alpha = np.float32(1) if bend <= TINY else min(max(np.sqrt(length / bend), np.float32(1)), LONGEST)
    total = np.float32(0)
    for r in range(len(v)):
        step = first[r] - start[r]
        turn = second[r] - first[r] - step
        v[r] = max(start[r] + np.float32(2) * alpha * step + alpha * alpha * turn, np.float32(0.01) * second[r])
        total += v[r]
    for r in range(len(v)):
        v[r] /= total


@njit(cache=True, parallel=True, fastmath=set(FAST), error_model="numpy")
def _em_blocks(indptr, indices, data, Qt, prior, weight, V, out, k, longest, block_sums, log_term, prior_term, lanes):
    n, p, width, nb = V.shape[0], Qt.shape[0], len(lanes) * LANE, len(log_term)
    wants_sums, has_prior = block_sums.shape[1] > 0, prior.shape[0] > 0
    for b in prange(nb):
        first, last = n * b // nb, n * (b + 1) // nb
        sums = np.zeros((p if wants_sums else 0, width), np.float32)
        ratio = np.zeros(longest, np.float32)
        mantissa = np.zeros(longest, np.float32)
        # rows of one table, a fixed distance apart: side by side on the heap they would at times be taken for overlapping,
        # and a scalar loop rounds otherwise than a vector one
        work = np.zeros((5, width + APART), np.float32)
        v, numerator, start = work[0, :width], work[1, :width], work[2, :width]
        first_step, second_step = work[3, :width], work[4, :width]
        since_flush = 0
        for i in range(first, last):
            lo, hi = indptr[i], indptr[i + 1]
            m = hi - lo
            column, x = indices[lo:hi], data[lo:hi]
            a = weight[i] if has_prior else np.float32(0)
            depth = np.float32(0)
            for j in range(m):
                depth += x[j]
            v[:] = V[i]
            if depth + a > 0:
                start[:] = v
                _em_step(v, x, column, Qt, ratio, numerator, prior, i, a, depth, lanes)
                first_step[:] = v
                _em_step(v, x, column, Qt, ratio, numerator, prior, i, a, depth, lanes)
                second_step[:] = v
                for j in range(m):  # at the first step
                    ratio[j] = x[j] / max(ratio[j], TINY)
                reached = _sum_x_log(x, ratio, mantissa) + _prior_log(first_step, prior, i, a, k)
                _extrapolate(start, first_step, second_step, v)
                start[:] = v
                _em_step(v, x, column, Qt, ratio, numerator, prior, i, a, depth, lanes)
                for j in range(m):
                    ratio[j] = x[j] / max(ratio[j], TINY)
                if _sum_x_log(x, ratio, mantissa) + _prior_log(start, prior, i, a, k) < reached:
                    v[:] = second_step
                    _em_step(v, x, column, Qt, ratio, numerator, prior, i, a, depth, lanes)
            out[i] = v
            dots(v, ratio, column, Qt, 0, m, lanes)
            for j in range(m):
                ratio[j] = max(ratio[j], TINY)
            log_term[b] += _sum_x_log(x, ratio, mantissa)
            if a > 0:
                prior_term[b] -= _prior_log(v, prior, i, a, k)
                for r in range(k):
                    if prior[i, r] > 0:
                        prior_term[b] += a * prior[i, r] * np.log(prior[i, r])
            if wants_sums:
                for j in range(m):
                    ratio[j] = x[j] / ratio[j]
                scatter(v, ratio, column, sums, 0, m, lanes)
                since_flush += 1
                if since_flush >= FLUSH or i + 1 == last:
                    since_flush = 0
                    flush(sums, block_sums[b])


def deviances(X: Rows | Blocks, depth: Array, Q: Array, V: Array) -> tuple[Array, Array]:
    """Poisson deviance ``2 Σ x log(x / μ) − (x − μ)`` of every spot and of every gene."""
    Qt = _ops.pad(Q.T)
    if isinstance(X, Blocks):
        parts = X.each_with(_terms, Qt, X.cut(V), X.cut(depth))
        spot, gene = np.concatenate([part[0] for part in parts]), sum(part[1] for part in parts)
    else:
        spot, gene = _terms(X, Qt, V, depth)
    return spot, gene + 2 * (depth @ V[:, : len(Q)].astype(np.float64)) @ Q


def _terms(X: Rows, Qt: Array, V: Array, depth: Array) -> tuple[Array, Array]:
    """Of the deviances what stored values add: of every spot, and of every gene but for μ."""
    spot, gene = np.zeros(X.shape[0]), np.zeros(X.shape[1])
    mean = np.empty(int(np.diff(X.indptr).max(initial=0)), np.float32)
    _deviances(X.indptr, X.indices, X.data, Qt, V, depth, mean, spot, gene, make_lanes(V.shape[1]))
    return spot, gene


@njit(cache=True, fastmath=set(FAST), error_model="numpy")
def _deviances(indptr, indices, data, Qt, V, depth, mean, spot, gene, lanes):
    v = np.zeros(V.shape[1], np.float32)
    for i in range(len(indptr) - 1):
        lo, hi = indptr[i], indptr[i + 1]
        v[:] = V[i]
        dots(v, mean, indices[lo:hi], Qt, 0, hi - lo, lanes)
        for j in range(hi - lo):
            x = data[lo + j]
            if x > 0:
                term = 2 * x * np.log(x / (max(mean[j], TINY) * np.float32(depth[i])))
                spot[i] += term
                gene[indices[lo + j]] += term - 2 * x


def is_compiled(k: int) -> bool:
    """Whether a deconvolution into k types runs at once: compiled here, or (up to 16 types) cached on disk."""
    kernel: Any = _em_blocks
    if any(signature[-1].count * LANE == padded(k) for signature in kernel.signatures):
        return True
    return padded(k) == LANE and cached(kernel)
