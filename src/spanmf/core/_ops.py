"""Everything that touches X: conversion to CSR, norms, and the one fused pass that an iteration makes over it.

The engine knows X by its ``shape``, ``take`` (some rows, in memory) and the functions marked ``singledispatch`` here, W by the latter
alone. What stands here is for a matrix in memory (:class:`Rows`; W a numpy array); another container registers its own, and small
statistics (p × k and k × k, numpy float64) are all that leaves it.

Layout: factors are kept as ``W`` (n × width) and ``Ht`` (p × width), float32, where ``width`` is k rounded up to whole
vector lanes and the columns beyond k are zero. Statistics are added up in float64, block by block in a fixed order, so
that the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import njit, prange

from ._simd import FAST, LANE, dots, gather, make_lanes, padded, scatter
from ._threads import threads_for

ROWS = 64  # rows whose factors are updated together, one lane a row
FLUSH = 2048  # rows after which float32 sums are added to the float64 statistics
MAX_BLOCKS = 64
MAX_STATISTICS = 1 << 25  # float64 values of all blocks together: 256 MiB
VALUES = 1 << 20  # stored values that are summed at a time
COPIED_ROWS = 4096  # rows of which a copy is made at a time
TINY = np.float32(1e-20)

Array = np.ndarray
FASTMATH = set(FAST)


@dataclass(frozen=True)
class Rows:
    """A sparse matrix by rows: int64 ``indptr``, int32 ``indices``, float32 ``data``."""

    indptr: Array
    indices: Array
    data: Array
    shape: tuple[int, int]

    def take(self, rows: Array) -> Rows:
        """Copy some rows (ascending) into memory."""
        return as_rows(self.as_scipy()[rows])

    def part(self, first: int, last: int) -> Rows:
        """Some rows that stand together (a view)."""
        return Rows(self.indptr[first : last + 1], self.indices, self.data, (last - first, self.shape[1]))

    def as_scipy(self) -> sp.csr_matrix:
        """The same arrays as scipy holds them, without a copy."""
        return sp.csr_matrix((self.data, self.indices, self.indptr), shape=self.shape, copy=False)


def as_rows(X: Any, mask: Array | None = None) -> Rows:
    """Any sparse or dense matrix by rows; without a copy where it is float32 CSR already.

    ``mask`` selects columns.
    """
    if isinstance(X, Rows):
        return X
    X = X.tocsr() if sp.issparse(X) else sp.csr_matrix(np.asarray(X, dtype=np.float32))
    if mask is not None and not mask.all():
        return _with_columns(X, mask)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return Rows(
        np.ascontiguousarray(X.indptr, dtype=np.int64),
        np.ascontiguousarray(X.indices, dtype=np.int32),
        np.ascontiguousarray(X.data, dtype=np.float32),
        (int(X.shape[0]), int(X.shape[1])),
    )


@singledispatch
def beside(X: Any, other: Rows) -> Rows:
    """Another matrix in memory, put where X lies."""
    return other


def _with_columns(X: sp.csr_matrix, mask: Array) -> Rows:
    """Some columns, copied a few rows at a time: memory holds X and the result, whatever the type of the values."""
    columns = np.flatnonzero(mask)
    size = sum(int(np.count_nonzero(mask[part])) for part in chunks(X.indices[: X.indptr[-1]]))
    data, indices = np.empty(size, np.float32), np.empty(size, np.int32)
    indptr = np.zeros(X.shape[0] + 1, np.int64)
    for rows in row_blocks(X.shape[0]):
        part = X[rows][:, columns]
        part.sum_duplicates()
        start = indptr[rows.start]
        indptr[rows.start + 1 : rows.stop + 1] = start + part.indptr[1:]
        data[start : start + part.nnz], indices[start : start + part.nnz] = part.data, part.indices
    return Rows(indptr, indices[: indptr[-1]], data[: indptr[-1]], (int(X.shape[0]), len(columns)))


def row_blocks(n: int) -> Iterator[slice]:
    """Rows to deal with at a time, where each takes some memory."""
    return (slice(start, min(start + COPIED_ROWS, n)) for start in range(0, n, COPIED_ROWS))


@singledispatch
def squared_norm(X: Any) -> float:
    """``‖X‖²_F`` in float64."""
    return float(_sum_of_squares(X.data))


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _sum_of_squares(v):
    """Not by BLAS, whose threads get into each other's way where blocks are looked at side by side."""
    total = 0.0
    for i in range(len(v)):  # over values it would not be vectorised
        total += np.float64(v[i]) * np.float64(v[i])
    return total


@singledispatch
def entropy(X: Any) -> float:
    """``Σ x log x − x`` in float64: the part of the KL divergence that does not change."""
    total = 0.0
    for part in chunks(X.data):
        x = part[part > 0].astype(np.float64)
        total += float((x * np.log(x) - x).sum())
    return total


@singledispatch
def row_sums(X: Any) -> Array:
    """Sum of the values of every row, in float64."""
    out = np.zeros(X.shape[0])
    for rows in row_blocks(X.shape[0]):  # reduceat copies all that it is given as float64
        ends = X.indptr[rows.start : rows.stop + 1]
        filled = np.diff(ends) > 0
        if filled.any():
            values = X.data[ends[0] : ends[-1]]
            out[rows][filled] = np.add.reduceat(values, (ends[:-1] - ends[0])[filled], dtype=np.float64)
    return out


@singledispatch
def column_sums(X: Any) -> Array:
    """Sum of the values of every column, in float64."""
    out = np.zeros(X.shape[1])
    for start in range(0, len(X.data), VALUES):  # bincount copies all that it is given as int64 and float64
        part = slice(start, start + VALUES)
        out += np.bincount(X.indices[part], X.data[part], minlength=X.shape[1])
    return out


def mean(X: Any) -> float:
    """Mean of all values, zeros included."""
    return float(column_sums(X).sum()) / (X.shape[0] * X.shape[1])


@singledispatch
def product(X: Any, M: Array) -> Array:
    """``X M`` for a small dense M (p × k)."""
    return X.as_scipy() @ M


@singledispatch
def transposed_product(X: Any, M: Array) -> Array:
    """``Xᵀ M`` for a dense M (n × k)."""
    return X.as_scipy().T @ M


def chunks(v: Array, size: int = 1 << 16) -> list[Array]:
    """Parts of an array (views), one after the other."""
    return [v[i : i + size] for i in range(0, len(v), size)]


def pad(M: Array) -> Array:
    """Widen ``M`` (rows × k) to whole vector lanes; always a new float32 array."""
    out = np.zeros((M.shape[0], padded(M.shape[1])), dtype=np.float32)
    out[:, : M.shape[1]] = M
    return out


@singledispatch
def start(X: Any, k: int, W: Array | None = None, fill: float | None = None) -> Any:
    """Factors for X as its passes take them: ``W`` (n × k) if given, else zero, or each row's sum times ``fill``."""
    if W is not None:
        return pad(W)
    out = pad(np.zeros((X.shape[0], k), dtype=np.float32))
    if fill is not None:
        out[:, :k] = (row_sums(X) * fill)[:, None]
    return out


@singledispatch
def spare(W: Any) -> Any:
    """Room for the next factors."""
    return np.zeros_like(W)


@singledispatch
def gathered(W: Any, k: int) -> Array:
    """Factors as a numpy array (n × k, float32), without the columns that pad them."""
    return np.ascontiguousarray(W[:, :k])


@singledispatch
def squared_distance(W: Any, other: Any) -> tuple[float, float]:
    """``‖W − W′‖²`` and ``‖W‖²``."""
    return float(np.linalg.norm(W - other) ** 2), float(np.linalg.norm(W) ** 2)


@dataclass(frozen=True)
class Statistics:
    """What one pass over X leaves: ``XᵀW`` (p × k), ``WᵀW`` (k × k), column sums of W, and ``Σ x log(WH)`` for KL.

    ``prior`` is what rows differ from their surroundings by, where a pass draws them there.
    """

    xtw: Array
    wtw: Array
    w_sum: Array
    log_term: float = 0.0
    prior: float = 0.0


def n_blocks(n: int, p: int, k: int) -> int:
    """Count the row blocks: a function of the sizes alone, never of the number of threads."""
    return max(1, min(MAX_BLOCKS, n // 512, MAX_STATISTICS // (p * k)))


@singledispatch
def hals_pass(
    X: Any,
    Ht: Array,
    W: Any,
    out: Any,
    k: int,
    *,
    gram: Array,
    sweeps: int = 4,
    l1: float = 0.0,
    anchor: Any = None,
    anchor_weight: Any = None,
    statistics: bool = True,
) -> Statistics:
    r"""Update W against fixed H by ``sweeps`` rounds of HALS and add up the statistics, in one pass over X.

    Each row solves :math:`\min_{w\ge0} \tfrac12 w^\top(G + q_i I)w - w^\top(H x_i - l_1 + c_i)` approximately, from the
    row of ``W``; the result goes to ``out`` (which may be ``W``). ``anchor`` is c (n × width), ``anchor_weight`` q (n).
    """
    n, width = W.shape
    nb = n_blocks(n, X.shape[1], k)
    xtw = np.zeros((nb, X.shape[1], k) if statistics else (nb, 0, 0))
    wtw = np.zeros((nb, k, k))
    w_sum = np.zeros((nb, k))
    G = np.zeros((width, width), dtype=np.float32)
    G[:k, :k] = gram
    no = np.zeros((0, width), dtype=np.float32)
    anchor = no if anchor is None else anchor
    anchor_weight = no[:, 0] if anchor_weight is None else anchor_weight
    with threads_for(len(X.data)):
        _hals_blocks(
            X.indptr, X.indices, X.data, Ht, G, W, out, anchor, anchor_weight, np.float32(l1), sweeps, k,
            xtw, wtw, w_sum, make_lanes(width),
        )  # fmt: skip
    return Statistics(xtw.sum(0), _symmetric(wtw.sum(0)), w_sum.sum(0))


def _symmetric(upper: Array) -> Array:
    return upper + np.triu(upper, 1).T


@njit(cache=True, fastmath=FASTMATH, error_model="numpy")
def hals_rows(B, V, step, G, q, sweeps, k):
    """HALS on ROWS rows at once (lanes are rows): B holds the right-hand sides and becomes the residual B − (G + q)V."""
    for r in range(k):
        for s in range(k):
            g = G[r, s]
            for i in range(ROWS):
                B[r, i] -= g * V[s, i]
        for i in range(ROWS):
            B[r, i] -= q[i] * V[r, i]
    for _ in range(sweeps):
        for r in range(k):
            g_rr = G[r, r]
            if g_rr <= TINY:  # a component without loadings keeps its weights
                continue
            for i in range(ROWS):
                old = V[r, i]
                new = max(old + B[r, i] / (g_rr + q[i]), np.float32(0))
                V[r, i] = new
                step[i] = new - old
            for s in range(k):
                g = G[s, r]
                for i in range(ROWS):
                    B[s, i] -= g * step[i]
            for i in range(ROWS):
                B[r, i] -= q[i] * step[i]


@njit(cache=True, parallel=True, fastmath=FASTMATH, error_model="numpy")
def _hals_blocks(
    indptr, indices, data, Ht, G, W, out, anchor, anchor_weight, l1, sweeps, k, xtw, wtw, w_sum, lanes
):  # fmt: skip
    n, p, width, nb = W.shape[0], Ht.shape[0], len(lanes) * LANE, wtw.shape[0]
    has_anchor, wants_xtw = anchor.shape[0] > 0, xtw.shape[1] > 0
    for b in prange(nb):
        first, last = n * b // nb, n * (b + 1) // nb
        sums = np.zeros((p if wants_xtw else 0, width), np.float32)
        gram = np.zeros((k, k), np.float32)
        row = np.zeros((ROWS, width), np.float32)
        B = np.zeros((width, ROWS), np.float32)
        V = np.zeros((width, ROWS), np.float32)
        q = np.zeros(ROWS, np.float32)
        step = np.zeros(ROWS, np.float32)
        since_flush = 0
        for start in range(first, last, ROWS):
            m = min(ROWS, last - start)
            if m < ROWS:
                B[:] = 0
                V[:] = 0
                q[:] = 0
            for i in range(m):
                gather(row[i], data, indices, Ht, indptr[start + i], indptr[start + i + 1], lanes)
            for r in range(k):
                for i in range(m):
                    B[r, i] = row[i, r] - l1
                    V[r, i] = W[start + i, r]
            if has_anchor:
                for i in range(m):
                    q[i] = anchor_weight[start + i]
                    for r in range(k):
                        B[r, i] += anchor[start + i, r]
            hals_rows(B, V, step, G, q, sweeps, k)
            for i in range(m):
                for r in range(k):
                    row[i, r] = V[r, i]
                    out[start + i, r] = V[r, i]
            for r in range(k):
                total = np.float32(0)
                for i in range(m):
                    total += V[r, i]
                w_sum[b, r] += total
                for s in range(r, k):
                    total = np.float32(0)
                    for i in range(ROWS):
                        total += V[r, i] * V[s, i]
                    gram[r, s] += total
            if wants_xtw:
                for i in range(m):
                    scatter(row[i], data, indices, sums, indptr[start + i], indptr[start + i + 1], lanes)
            since_flush += m
            if since_flush >= FLUSH or start + ROWS >= last:
                since_flush = 0
                flush(sums, xtw[b])
                flush(gram, wtw[b])


@njit(cache=True)
def flush(source, target):
    """Add float32 sums to the float64 statistics and empty them."""
    for i in range(source.shape[0]):
        for r in range(target.shape[1]):
            target[i, r] += source[i, r]
            source[i, r] = 0


@singledispatch
def kl_pass(
    X: Any,
    Ht: Array,
    W: Any,
    out: Any,
    k: int,
    *,
    h_sum: Array,
    sweeps: int = 2,
    l1: float = 0.0,
    statistics: bool = True,
) -> Statistics:
    r"""Multiplicative updates of W for the KL divergence against fixed H, and their statistics, in one pass over X.

    ``w_r ← w_r Σ_j (x_j / (WH)_j) h_rj / (Σ_j h_rj + l1)``. Here ``xtw`` is :math:`(X / WH)^\top W`.
    """
    n, width = W.shape
    nb = n_blocks(n, X.shape[1], k)
    xtw = np.zeros((nb, X.shape[1], k) if statistics else (nb, 0, 0))
    w_sum = np.zeros((nb, k))
    log_term = np.zeros(nb)
    inverse = np.zeros(width, dtype=np.float32)
    total = np.asarray(h_sum, dtype=np.float64) + l1
    np.divide(1, total, out=inverse[:k], where=total > TINY, casting="unsafe")
    longest = int(np.diff(X.indptr).max(initial=0))
    with threads_for(len(X.data)):
        _kl_blocks(
            X.indptr, X.indices, X.data, Ht, inverse, W, out, sweeps, k, longest,
            xtw, w_sum, log_term, make_lanes(width),
        )  # fmt: skip
    return Statistics(xtw.sum(0), np.zeros((k, k)), w_sum.sum(0), float(log_term.sum()))


@njit(cache=True, parallel=True, fastmath=FASTMATH, error_model="numpy")
def _kl_blocks(indptr, indices, data, Ht, inverse, W, out, sweeps, k, longest, xtw, w_sum, log_term, lanes):
    n, p, width, nb = W.shape[0], Ht.shape[0], len(lanes) * LANE, w_sum.shape[0]
    wants_xtw = xtw.shape[1] > 0
    for b in prange(nb):
        first, last = n * b // nb, n * (b + 1) // nb
        sums = np.zeros((p if wants_xtw else 0, width), np.float32)
        ratio = np.zeros(longest, np.float32)
        mantissa = np.zeros(longest, np.float32)
        w = np.zeros(width, np.float32)
        numerator = np.zeros(width, np.float32)
        since_flush = 0
        for i in range(first, last):
            lo, hi = indptr[i], indptr[i + 1]
            m = hi - lo
            column, x = indices[lo:hi], data[lo:hi]
            w[:] = W[i]
            for _ in range(sweeps):
                dots(w, ratio, column, Ht, 0, m, lanes)
                for j in range(m):
                    ratio[j] = x[j] / max(ratio[j], TINY)
                gather(numerator, ratio, column, Ht, 0, m, lanes)
                for r in range(width):
                    w[r] *= numerator[r] * inverse[r]
            out[i] = w
            for r in range(k):
                w_sum[b, r] += w[r]
            dots(w, ratio, column, Ht, 0, m, lanes)
            for j in range(m):
                ratio[j] = max(ratio[j], TINY)
            log_term[b] += _sum_x_log(x, ratio, mantissa)
            for j in range(m):
                ratio[j] = x[j] / ratio[j]
            if wants_xtw:
                scatter(w, ratio, column, sums, 0, m, lanes)
                since_flush += 1
                if since_flush >= FLUSH or i + 1 == last:
                    since_flush = 0
                    flush(sums, xtw[b])


@njit(cache=True, fastmath=FASTMATH, error_model="numpy")
def _sum_x_log(x, y, mantissa):
    """``Σ x log y`` of positive floats, in plain vector loops: the library's logarithm took half the time of a pass.

    y = 2ᵉ m with √½ ≤ m < √2, and log m = 2 artanh((m − 1)/(m + 1)) by its series, whose next term is below 1e-9.
    """
    bits, parts = y.view(np.int32), mantissa.view(np.int32)
    for j in range(len(x)):
        parts[j] = (bits[j] & 0x007FFFFF) | 0x3F800000
    total = 0.0
    for j in range(len(x)):
        exponent = np.float32((bits[j] >> 23) - 127)
        m = mantissa[j]
        high = m > np.float32(1.4142135)
        m = np.float32(0.5) * m if high else m
        exponent = exponent + np.float32(1) if high else exponent
        s = (m - np.float32(1)) / (m + np.float32(1))
        q = s * s
        series = np.float32(1 / 7) + q * np.float32(1 / 9)
        series = np.float32(1 / 3) + q * (np.float32(1 / 5) + q * series)
        total += np.float64(x[j]) * np.float64(
            exponent * np.float32(0.6931472) + np.float32(2) * s * (np.float32(1) + q * series)
        )
    return total


def is_compiled(loss: str, k: int) -> bool:
    """Whether a factorisation of this loss and rank runs at once: compiled here, or (up to rank 16) cached on disk."""
    kernel: Any = _kl_blocks if loss == "kl" else _hals_blocks
    width = padded(k)
    if any(signature[-1].count * LANE == width for signature in kernel.signatures):
        return True
    return width == LANE and cached(kernel)


def cached(kernel: Any) -> bool:
    """Whether numba has compiled a kernel in this process or keeps it on disk."""
    folder = Path(kernel.stats.cache_path or "")
    return bool(kernel.signatures) or any(folder.glob(f"*.{kernel.py_func.__name__}-*.nbi"))
