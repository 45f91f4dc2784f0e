r"""Products of a graph with factors: smoothing :math:`W \leftarrow (1-\beta)W + \beta P W`, :math:`P = (D+I)^{-1}(A+I)`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
from numba import njit, prange

from . import _ops
from ._simd import FAST, LANE, gather, make_lanes
from ._tiles import Part, RadiusGraph

Array = np.ndarray
ROWS_A_TASK = 4096


@dataclass(frozen=True)
class Graph:
    """A symmetric graph by rows, stored or described, and its degrees (row sums, float64)."""

    rows: _ops.Rows | RadiusGraph
    degree: Array

    def parts(self) -> Iterator[tuple[_ops.Rows, Part]]:
        """Its rows: of a stored graph all at once, of a described one tile by tile."""
        if isinstance(self.rows, RadiusGraph):
            yield from ((_ops.as_rows(part.A), part) for part in self.rows.parts())
        else:
            yield self.rows, Part(None)


def as_graph(A: Any) -> Graph:
    """Wrap a CSR matrix of weights (no copy where it is float32 with int32 indices), or a described graph."""
    if isinstance(A, RadiusGraph):
        return Graph(A, A.row_sums)
    rows = _ops.as_rows(A)
    return Graph(rows, _ops.row_sums(rows))


@singledispatch
def beside(X: Any, A: Any) -> Graph:
    """A graph of the rows of X, where X lies."""
    return as_graph(A)


@singledispatch
def pull(graph: Graph, W: Any, neighbours: Any, weight: float) -> tuple[Any, Any]:
    r"""What :math:`\tfrac\lambda2 \operatorname{Tr}(W^\top L W)`, majorised at the present W by :math:`L \preceq 2D`, adds to each row's problem.

    Anchor :math:`c_i = \lambda(d_i w_i + (AW)_i)` and its weight :math:`q_i = 2\lambda d_i`; ``neighbours`` is AW.
    """
    degree = graph.degree.astype(np.float32)
    return np.float32(weight) * (degree[:, None] * W + neighbours), np.float32(2 * weight) * degree


@singledispatch
def roughness(graph: Graph, W: Any, neighbours: Any) -> float:
    """``Tr(Wᵀ L W)``, with ``neighbours`` = AW."""
    return float(np.vdot(W, graph.degree.astype(np.float32)[:, None] * W - neighbours))


@singledispatch
def graph_product(graph: Graph, W: Any) -> Any:
    """``A W`` for padded W (n × width, float32)."""
    out = np.empty_like(W)
    for A, part in graph.parts():
        local = part.local(out)
        with _ops.threads_for(len(A.data)):
            _product(A.indptr, A.indices, A.data, W[part.ids], local, make_lanes(W.shape[1]))
        part.put(local, out)
    return out


@njit(cache=True, parallel=True, fastmath=set(FAST))
def _product(indptr, indices, data, W, out, lanes):
    n = out.shape[0]
    for task in prange((n + ROWS_A_TASK - 1) // ROWS_A_TASK):
        for i in range(task * ROWS_A_TASK, min((task + 1) * ROWS_A_TASK, n)):
            gather(out[i], data, indices, W, indptr[i], indptr[i + 1], lanes)


@singledispatch
def diffuse(graph: Graph, W: Array, beta: float = 0.6, n_steps: int = 2) -> Array:
    """Smooth the columns of W (n × k) over the graph; isolated observations stay as they are."""
    k = W.shape[1]
    W = _ops.pad(W)
    out = np.empty_like(W)
    share = (beta / (graph.degree + 1)).astype(np.float32)
    own, lanes = np.float32(1 - beta), make_lanes(W.shape[1])
    for _ in range(n_steps):
        for A, part in graph.parts():
            local = part.local(out)
            with _ops.threads_for(len(A.data)):
                _step(A.indptr, A.indices, A.data, W[part.ids], local, own, share[part.ids], lanes)
            part.put(local, out)
        W, out = out, W
    return np.ascontiguousarray(W[:, :k])


@njit(cache=True, parallel=True, fastmath=set(FAST))
def _step(indptr, indices, data, W, out, own, share, lanes):
    """``out = (1 − β) W + β (D + I)⁻¹ (A + I) W``, with ``own`` = 1 − β and ``share`` = β / (d + 1)."""
    n, width = out.shape[0], len(lanes) * LANE
    for task in prange((n + ROWS_A_TASK - 1) // ROWS_A_TASK):
        row = np.zeros(width, np.float32)
        for i in range(task * ROWS_A_TASK, min((task + 1) * ROWS_A_TASK, n)):
            gather(row, data, indices, W, indptr[i], indptr[i + 1], lanes)
            for r in range(width):
                out[i, r] = own * W[i, r] + share[i] * (row[r] + W[i, r])
