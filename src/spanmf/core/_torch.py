r"""The engine's functions of X, W and a graph, for matrices that lie on a device of torch: a GPU, or the CPU for tests.

X is kept in blocks of rows, each twice: by rows for :math:`XH^\top` (8 bytes a value) and by columns for :math:`X^\top W` (8 more).
With one copy a pass would read no less, since it makes both products one after the other, and one of them would have to add up by
atomic operations. Columns gather rows of W at random: a block has so few rows that its part of W (16 MiB up to rank 16) stays in the
cache of a GPU, so that these reads cost no bandwidth of the memory. W is n × width as on the CPU (whole rows are what the products
gather); the inner rounds of HALS run on its transpose, a block at a time, where every component is one contiguous vector.

Products add up in float32 within a block and in float64 over blocks, so the objective agrees with the CPU's to 1e-6. Nothing but
statistics (p × k, k × k) leaves the device during a fit. On CUDA the sparse products of cuSPARSE may differ in their last bits from
run to run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from . import _ops, _smooth
from ._ops import TINY, Rows, Statistics
from ._simd import padded

Array = np.ndarray
Tensor = Any  # torch.Tensor: torch is loaded on use
BLOCK_ROWS = 1 << 18
BLOCK_VALUES = 1 << 26  # bounds what turning a block by columns needs for a moment: 28 bytes a value
CHUNK = 1 << 22  # values at a time in float64


@dataclass(frozen=True)
class Block:
    """Some rows, on the device: by rows, and by columns (``None`` for a graph, which is used by rows only)."""

    first: int
    last: int
    by_row: Tensor
    by_column: Tensor

    @property
    def rows(self) -> slice:
        """Where they stand."""
        return slice(self.first, self.last)


@dataclass(frozen=True)
class DeviceRows(Rows):
    """A sparse matrix in memory that lies on a device, too. What is done once is done in memory, every pass on the device."""

    blocks: tuple[Block, ...]
    device: str

    def part(self, first: int, last: int) -> DeviceRows:
        """Some rows (a view); no block may reach over their ends."""
        host = super().part(first, last)
        inside = (b for b in self.blocks if first <= b.first and b.last <= last)
        blocks = tuple(replace(b, first=b.first - first, last=b.last - first) for b in inside)
        return DeviceRows(host.indptr, host.indices, host.data, host.shape, blocks, self.device)


@dataclass(frozen=True)
class DeviceGraph(_smooth.Graph):
    """A graph in memory that lies on a device, too, by rows."""

    on_device: DeviceRows
    degrees: Tensor


# --- moving -----------------------------------------------------------------------------------------------------------


@cache
def torch_() -> Any:
    """Torch, taught what the engine asks of W: once, when the first matrix is put on a device."""
    import torch

    _ops.spare.register(torch.Tensor, _spare)
    _ops.gathered.register(torch.Tensor, _gathered)
    _ops.squared_distance.register(torch.Tensor, _squared_distance)
    return torch


def on_device(X: Rows, device: str, cuts: Array | None = None, *, by_column: bool = True) -> DeviceRows:
    """Copy a matrix to a device; ``cuts`` are rows at which a block must end. Without columns there are no statistics."""
    if isinstance(X, DeviceRows):
        return X
    blocks = tuple(_upload(X, a, b, device, by_column=by_column) for a, b in _block_bounds(X, cuts))
    return DeviceRows(X.indptr, X.indices, X.data, X.shape, blocks, device)


@_ops.beside.register
def _beside(X: DeviceRows, other: Rows) -> DeviceRows:
    return on_device(other, X.device)


@_smooth.beside.register
def graph_beside(X: DeviceRows, A: Any) -> DeviceGraph:
    """A graph on the device of X."""
    graph = _smooth.as_graph(A)
    rows: Any = graph.rows  # stored: one that is described is refused before
    on = on_device(rows, X.device, by_column=False)
    return DeviceGraph(rows, graph.degree, on, _tensor(graph.degree, X.device))


def bytes_needed(n: int, nnz: int, k: int, *, by_column: bool = True, edges: int = 0) -> int:
    """Memory of a factorisation on a device, at its highest: X, W and what a pass keeps beside it, and work on one block.

    With ``edges`` (stored values of a graph), that of the graph and of what is made of W over it.
    """
    width = padded(k)
    block = min(n, BLOCK_ROWS)
    largest = min(nnz, BLOCK_VALUES, 2 * nnz * block // max(n, 1))
    over_graph = 8 * edges + 16 * width * n if edges else 0
    return (16 if by_column else 8) * nnz + 32 * largest + 4 * width * (2 * n + 6 * block) + over_graph


def memory_left(device: str) -> int | None:
    """Bytes that are free on a GPU, those included that torch keeps for itself; ``None`` for the CPU."""
    torch = torch_()
    if torch.device(device).type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + kept)


def _block_bounds(X: Rows, cuts: Array | None) -> Iterator[tuple[int, int]]:
    """First and last row of every block: at most so many rows and values, and never over a cut."""
    ends = np.unique(np.concatenate([[X.shape[0]], [] if cuts is None else cuts])).astype(np.int64)
    first = 0
    for end in ends[ends > 0]:
        while first < end:
            full = int(np.searchsorted(X.indptr, X.indptr[first] + BLOCK_VALUES, side="right")) - 1
            last = min(int(end), first + BLOCK_ROWS, max(full, first + 1))
            yield first, last
            first = last


def _tensor(a: Array, device: str, dtype: type = np.float32) -> Tensor:
    """A copy on the device, also where that is the CPU: the user's arrays are never shared."""
    return torch_().tensor(np.ascontiguousarray(a, dtype=dtype), device=device)


def _upload(X: Rows, first: int, last: int, device: str, *, by_column: bool) -> Block:
    torch = torch_()
    lo, hi = X.indptr[first], X.indptr[last]
    indptr = _tensor(X.indptr[first : last + 1] - lo, device, np.int32)
    indices, data = _tensor(X.indices[lo:hi], device, np.int32), _tensor(X.data[lo:hi], device)
    size = (last - first, X.shape[1])
    rows = _csr(indptr, indices, data, size)
    if not by_column:
        return Block(first, last, rows, None)
    columns, order = torch.sort(indices, stable=True)
    starts = torch.searchsorted(columns, torch.arange(size[1] + 1, dtype=torch.int32, device=device))
    row = torch.repeat_interleave(torch.arange(size[0], dtype=torch.int32, device=device), indptr.diff())
    return Block(first, last, rows, _csr(starts.int(), row[order], data[order], size[::-1]))


def _csr(indptr: Tensor, indices: Tensor, data: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():  # torch calls its sparse matrices a beta, once a process
        warnings.simplefilter("ignore", UserWarning)
        return torch_().sparse_csr_tensor(indptr, indices, data, size=size, check_invariants=False)


def _with_values(pattern: Tensor, values: Tensor) -> Tensor:
    return _csr(pattern.crow_indices(), pattern.col_indices(), values, tuple(pattern.shape))


def _spare(W: Tensor) -> Tensor:
    return torch_().zeros_like(W)


def _gathered(W: Tensor, k: int) -> Array:
    return W[:, :k].contiguous().cpu().numpy().copy()


def _squared_distance(W: Tensor, other: Tensor) -> tuple[float, float]:
    moved = sum(((a - b) ** 2).sum(dtype=torch_().float64) for a, b in zip(_pieces(W), _pieces(other), strict=True))
    size = sum((a**2).sum(dtype=torch_().float64) for a in _pieces(W))
    return float(moved), float(size)


def _pieces(W: Tensor) -> Any:
    return W.split(BLOCK_ROWS)


# --- X ----------------------------------------------------------------------------------------------------------------


@_ops.squared_norm.register
def _squared_norm(X: DeviceRows) -> float:
    parts = (part.double() for b in X.blocks for part in b.by_row.values().split(CHUNK))
    return float(sum((part @ part).item() for part in parts))


@_ops.entropy.register
def _entropy(X: DeviceRows) -> float:
    parts = (part.double() for b in X.blocks for part in b.by_row.values().split(CHUNK))
    return float(sum((torch_().xlogy(part, part) - part).sum().item() for part in parts))


@_ops.product.register
def _product(X: DeviceRows, M: Array) -> Array:
    M = _tensor(M, X.device)
    out = np.empty((X.shape[0], M.shape[1]), dtype=np.float32)
    for b in X.blocks:
        out[b.rows] = (b.by_row @ M).cpu().numpy()
    return out


@_ops.transposed_product.register
def _transposed_product(X: DeviceRows, M: Array) -> Array:
    total = np.zeros((X.shape[1], M.shape[1]))
    for b in X.blocks:
        total += (b.by_column @ _tensor(M[b.rows], X.device)).cpu().numpy()
    return total.astype(np.float32)


@_ops.start.register
def _start(X: DeviceRows, k: int, W: Array | None = None, fill: float | None = None) -> Tensor:
    out = torch_().zeros((X.shape[0], padded(k)), device=X.device)
    if W is not None:
        out[:, :k] = _tensor(W, X.device)
    elif fill is not None:
        out[:, :k] = _tensor(_ops.row_sums(X) * fill, X.device)[:, None]
    return out


class _Sums:
    """The statistics of a pass, added up on the device in float64, and fetched once."""

    def __init__(self, X: DeviceRows, k: int, *, wants_xtw: bool) -> None:
        self.k, self.wants_xtw = k, wants_xtw
        options = {"dtype": torch_().float64, "device": X.device}
        self.xtw = torch_().zeros((X.shape[1] if wants_xtw else 0, k), **options)
        self.wtw = torch_().zeros((k, k), **options)
        self.w_sum = torch_().zeros(k, **options)
        self.log_term = torch_().zeros((), **options)

    def add(self, by_column: Tensor, W: Tensor) -> None:
        """Rows W of a block, and the matrix (by columns) that they are multiplied with."""
        precise = W[:, : self.k].double()
        self.wtw += precise.T @ precise
        self.w_sum += precise.sum(0)
        if self.wants_xtw:
            self.xtw += (by_column @ W)[:, : self.k]

    def fetch(self) -> Statistics:
        xtw, wtw, w_sum = (a.cpu().numpy() for a in (self.xtw, self.wtw, self.w_sum))
        return Statistics(xtw, wtw, w_sum, float(self.log_term))


@_ops.hals_pass.register
def _hals_pass(
    X: DeviceRows,
    Ht: Array,
    W: Tensor,
    out: Tensor,
    k: int,
    *,
    gram: Array,
    sweeps: int = 4,
    l1: float = 0.0,
    anchor: Tensor | None = None,
    anchor_weight: Tensor | None = None,
    statistics: bool = True,
) -> Statistics:
    Ht = _tensor(Ht, X.device)
    rounds = _Hals(gram, X.device, sweeps, divided=anchor_weight is None)
    sums = _Sums(X, k, wants_xtw=statistics)
    for b in X.blocks:
        if sweeps:
            target = (b.by_row @ Ht)[:, :k] - l1
            if anchor is not None:
                target += anchor[b.rows, :k]
            q = None if anchor_weight is None else anchor_weight[b.rows]
            out[b.rows, :k] = rounds.improve(_turned(W[b.rows, :k]), _turned(target), q).T
        elif out is not W:
            out[b.rows] = W[b.rows]
        sums.add(b.by_column, out[b.rows])
    return sums.fetch()


def _turned(rows: Tensor) -> Tensor:
    """The transpose, always a copy: that of one row is contiguous as it is, and W must stay as it was."""
    return rows.T.clone(memory_format=torch_().contiguous_format)


class _Hals:
    r"""Rounds of HALS on all rows of a block at once; three kernels an update.

    :math:`v_r = \max\bigl(0, (b_r - \sum_{s \ne r} G_{rs} v_s) / (G_{rr} + q)\bigr)`, the update of the CPU in other words. Where no row
    has a weight q of its own, everything is divided by :math:`G_{rr}` once.
    """

    def __init__(self, gram: Array, device: str, sweeps: int, *, divided: bool) -> None:
        diagonal = np.diag(gram)
        self.moving = np.flatnonzero(diagonal > TINY)  # a component without loadings keeps its weights
        scale = 1 / np.where(diagonal > TINY, diagonal, 1) if divided else np.ones(len(gram))
        self.scale = _tensor(scale[:, None], device)
        self.others = _tensor((gram - np.diag(diagonal)) * scale[:, None], device)
        self.diagonal = _tensor(diagonal[:, None], device)
        self.sweeps = sweeps

    def improve(self, V: Tensor, target: Tensor, q: Tensor | None) -> Tensor:
        """V (k × rows, in place) for right-hand sides ``target`` (spent)."""
        torch = torch_()
        target *= self.scale
        inverse = None if q is None else 1 / (self.diagonal + q)
        best = torch.empty_like(V[0])
        for _ in range(self.sweeps):
            for r in self.moving:
                torch.addmv(target[r], V.T, self.others[r], alpha=-1, out=best)
                if inverse is not None:
                    best *= inverse[r]
                torch.clamp(best, min=0, out=V[r])
        return V


@_ops.kl_pass.register
def _kl_pass(
    X: DeviceRows,
    Ht: Array,
    W: Tensor,
    out: Tensor,
    k: int,
    *,
    h_sum: Array,
    sweeps: int = 2,
    l1: float = 0.0,
    statistics: bool = True,
) -> Statistics:
    total = np.asarray(h_sum, dtype=np.float64) + l1
    inverse = np.divide(1, total, out=np.zeros(len(total)), where=total > TINY)
    Ht, scale = _tensor(Ht, X.device), _tensor(_ops.pad(inverse[None])[0], X.device)
    sums = _Sums(X, k, wants_xtw=statistics)
    for b in X.blocks:
        w, x = W[b.rows].clone(), b.by_row.values()
        for _ in range(sweeps):
            w *= (_with_values(b.by_row, x / _fitted(b.by_row, w, Ht)) @ Ht) * scale
        out[b.rows] = w
        sums.log_term += (x * _fitted(b.by_row, w, Ht).log()).sum(dtype=torch_().float64)
        ratio = b.by_column
        if statistics:
            ratio = _with_values(ratio, ratio.values() / _fitted(ratio, Ht, w))
        sums.add(ratio, w)
    return replace(sums.fetch(), wtw=np.zeros((k, k)))


def _fitted(pattern: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Products of rows of ``left`` and ``right`` where the matrix has a value, never all of them; above zero."""
    out = _with_values(pattern, torch_().zeros_like(pattern.values()))  # given, else torch copies all indices as int64
    torch_().sparse.sampled_addmm(out, left, right.T, beta=0.0, out=out)
    return out.values().clamp_(min=float(TINY))


# --- a graph ----------------------------------------------------------------------------------------------------------


@_smooth.pull.register
def _pull(graph: DeviceGraph, W: Tensor, neighbours: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    return weight * (graph.degrees[:, None] * W + neighbours), 2 * weight * graph.degrees


@_smooth.roughness.register
def _roughness(graph: DeviceGraph, W: Tensor, neighbours: Tensor) -> float:
    parts = zip(*(_pieces(a) for a in (W, graph.degrees, neighbours)), strict=True)
    return float(sum((w * (d[:, None] * w - a)).sum(dtype=torch_().float64) for w, d, a in parts))


@_smooth.graph_product.register
def _graph_product(graph: DeviceGraph, W: Tensor) -> Tensor:
    out = torch_().empty_like(W)
    for b in graph.on_device.blocks:
        out[b.rows] = b.by_row @ W
    return out


@_smooth.diffuse.register
def _diffuse(graph: DeviceGraph, W: Array, beta: float = 0.6, n_steps: int = 2) -> Array:
    k = W.shape[1]
    W = _start(graph.on_device, k, W)
    share = (beta / (graph.degrees + 1))[:, None]
    for _ in range(n_steps):
        W = (1 - beta) * W + share * (_graph_product(graph, W) + W)
    return _gathered(W, k)
