r"""A matrix seen through its leading singular directions: passes over it at a part of their cost, to compare starts.

:math:`X \approx Y V^\top` with :math:`V` (p × q) orthonormal and :math:`Y = XV`. A pass over Y reads q values a row instead of all
that X stores, and leaves what one over X would: :math:`X H^\top \approx Y (HV)^\top`, :math:`X^\top W \approx V (Y^\top W)`
(compressed NMF: Tepper & Sapiro 2016; Erichson et al. 2018). W and H are those of X, non-negative and whole. The objective is too
high by what a factorisation fits outside of V: 0.2–0.4 % with k = 10, q = 30, alike for all minima to some 3e-5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, prange

from . import _ops
from ._ops import FASTMATH, FLUSH, ROWS, Rows, Statistics
from ._simd import gather, make_lanes, padded
from ._threads import threads_for

Array = np.ndarray
POWER_STEPS = 5  # with two, the fits that follow need three times the passes over X


@dataclass(frozen=True)
class Sketch:
    """Y in tiles (tiles × q × ROWS: one lane a row, zeros after the last), V (p × q) and ``‖X‖²``; W is in tiles likewise."""

    Y: Array
    V: Array
    squared_norm: float
    shape: tuple[int, int]


def leading(X: Any, q: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """U (n × q), S and V (p × q): about the leading singular triplets, the first of them well.

    Subspace iteration on XᵀX (Halko et al. 2011): every step reads X twice and leaves it sparse.
    """
    V = rng.standard_normal((X.shape[1], q)).astype(np.float32)
    for _ in range(POWER_STEPS):
        V = np.linalg.qr(_ops.transposed_product(X, _ops.product(X, V)))[0]
    Y = _ops.product(X, V).astype(np.float64)
    squares, R = np.linalg.eigh(Y.T @ Y)
    R, S = R[:, ::-1], np.sqrt(np.maximum(squares[::-1], 0))
    return Y @ R / np.maximum(S, _ops.TINY), S, (V @ R).astype(np.float32)


def sketch(X: Rows, V: Array) -> Sketch:
    """X seen through V."""
    q = V.shape[1]
    Y = np.zeros((-(-X.shape[0] // ROWS), q, ROWS), dtype=np.float32)
    with threads_for(len(X.data)):
        _project(X.indptr, X.indices, X.data, _ops.pad(V), Y, make_lanes(padded(q)))
    return Sketch(Y, V, _ops.squared_norm(X), X.shape)


def pays(X: Rows, q: int) -> bool:
    """Whether a row of X stores so much more than q values that its sketch is worth making."""
    return len(X.data) > 2 * q * X.shape[0]


@njit(cache=True, parallel=True)
def _project(indptr, indices, data, V, Y, lanes):
    n = len(indptr) - 1
    for t in prange(len(Y)):
        row = np.zeros(V.shape[1], np.float32)
        for i in range(min(ROWS, n - t * ROWS)):
            at = t * ROWS + i
            gather(row, data, indices, V, indptr[at], indptr[at + 1], lanes)
            for s in range(Y.shape[1]):
                Y[t, s, i] = row[s]


@_ops.squared_norm.register
def _(X: Sketch) -> float:
    return X.squared_norm


@_ops.start.register
def _(X: Sketch, k: int, W: Array | None = None, fill: float | None = None) -> Array:
    return np.zeros((len(X.Y), k, ROWS), dtype=np.float32)


@_ops.hals_pass.register
def _(X: Sketch, Ht: Array, W: Array, out: Array, k: int, *, gram: Array, sweeps: int, l1: float) -> Statistics:
    A = np.ascontiguousarray(Ht[:, :k].T @ X.V, dtype=np.float32)
    nb, q = _ops.n_blocks(*X.shape, k), A.shape[1]
    ytw, wtw, w_sum = np.zeros((nb, q, k)), np.zeros((nb, k, k)), np.zeros((nb, k))
    with threads_for(X.Y.size):
        _hals_tiles(X.Y, A, gram.astype(np.float32), W, out, np.float32(l1), sweeps, ytw, wtw, w_sum)
    return Statistics(X.V @ ytw.sum(0), wtw.sum(0), w_sum.sum(0))


@njit(cache=True, parallel=True, fastmath=FASTMATH, error_model="numpy")
def _hals_tiles(Y, A, G, W, out, l1, sweeps, ytw, wtw, w_sum):
    (k, q), nb = A.shape, len(wtw)
    for b in prange(nb):
        first, last = len(Y) * b // nb, len(Y) * (b + 1) // nb
        cross, gram = np.zeros((q, k), np.float32), np.zeros((k, k), np.float32)
        B, no, step = np.zeros((k, ROWS), np.float32), np.zeros(ROWS, np.float32), np.zeros(ROWS, np.float32)
        for t in range(first, last):
            y, w = Y[t], out[t]
            w[:] = W[t]
            B[:] = -l1
            for r in range(k):
                for s in range(0, q - 1, 2):  # two at a time: B is read and written half as often
                    a, c = A[r, s], A[r, s + 1]
                    for i in range(ROWS):
                        B[r, i] += a * y[s, i] + c * y[s + 1, i]
                if q % 2:
                    a = A[r, q - 1]
                    for i in range(ROWS):
                        B[r, i] += a * y[q - 1, i]
            _ops.hals_rows(B, w, step, G, no, sweeps, k)
            _add_products(y, w, cross)
            _add_products(w, w, gram)
            for r in range(k):
                w_sum[b, r] += w[r].sum()
            if (t + 1 - first) % (FLUSH // ROWS) == 0 or t + 1 == last:
                _ops.flush(cross, ytw[b])
                _ops.flush(gram, wtw[b])


@njit(cache=True, fastmath=FASTMATH, error_model="numpy")
def _add_products(left, right, out):
    """``out += left rightᵀ``."""
    for s in range(len(left)):
        for r in range(len(right)):
            total = np.float32(0)
            for i in range(ROWS):
                total += left[s, i] * right[r, i]
            out[s, r] += total


def is_compiled() -> bool:
    """Whether sketches can be made at once."""
    return _ops.cached(_project) and _ops.cached(_hals_tiles)


def warm_up(k: int, q: int) -> None:
    """Compile what starts of this rank need, on a matrix of one value."""
    one = Rows(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.float32), (1, 1))
    seen = sketch(one, np.ones((1, q), np.float32))
    W = _ops.start(seen, k)
    _ops.hals_pass(seen, _ops.pad(np.ones((1, k))), W, W, k, gram=np.eye(k), sweeps=1, l1=0.0)
