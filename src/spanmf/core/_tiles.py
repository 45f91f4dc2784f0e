"""A graph of all pairs within a radius that is described and not stored: its rows are made tile by tile.

A tile is a part of the observations (some libraries, or a piece of one), and its halo all others of the same library
whose coordinates are within the radius of the tile's box. Every neighbour of the tile's own observations is there, so
the rows of a tile are those of the whole graph to the bit, and every row is in one tile. What is kept is the order of
the observations by tile; edges live as long as a tile does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp

from . import _graph, _ops

Array = np.ndarray
TILE = 1 << 16  # observations of a tile: the halo is some 10 % of them, the edges some 50 MB at 80 neighbours


@dataclass(frozen=True)
class Part:
    """Rows of a graph: a square matrix over the observations ``ids``, of which the rows at ``own`` are there.

    The other rows are empty, so that a sum over the edges of all parts is the sum over the edges of the graph. ``D``
    holds the lengths of the same edges, where they were asked for.
    """

    A: Any
    ids: Any = field(default_factory=partial(slice, None))  # numbers of the observations, ascending
    own: Any = field(default_factory=partial(slice, None))
    D: sp.csr_matrix | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all rows are there."""
        return isinstance(self.own, slice)

    @property
    def rows(self) -> Any:
        """Numbers of the observations whose rows are there."""
        return self.own if self.is_whole else self.ids[self.own]

    def local(self, out: Array) -> Array:
        """Where a kernel writes its rows: ``out`` itself (one row an observation), or what :meth:`put` copies there."""
        return out if self.is_whole else np.empty((len(self.ids), *out.shape[1:]), out.dtype)

    def put(self, local: Array, out: Array) -> None:
        """Copy the rows that are there to their places in ``out``."""
        if not self.is_whole:
            out[self.rows] = local[self.own]


@dataclass(frozen=True)
class _Tiling:
    """Observations by tile, ascending within it, and the box of each tile."""

    order: Array
    starts: Array
    low: Array
    high: Array
    split: Array  # whether others of the same library are in other tiles


@dataclass(frozen=True, eq=False)
class RadiusGraph:
    """The graph that :func:`._graph.radius_graph` would make of the same arguments."""

    coords: Array
    codes: Array
    contact_radius: float
    context_radius: float = 0.0
    contact_weight: float = 2.5
    context_weight: float = 1.0
    combine: str = "max"
    tile_size: int = TILE

    @property
    def shape(self) -> tuple[int, int]:
        """Observations, twice."""
        return len(self.coords), len(self.coords)

    @property
    def radius(self) -> float:
        """The longest edge."""
        return max(self.contact_radius, self.context_radius)

    @cached_property
    def _totals(self) -> tuple[Array, Array]:
        """Sum of the weights (float64) and number of neighbours of every observation, in one pass over the tiles."""
        weights, degree = np.zeros(len(self.coords)), np.zeros(len(self.coords), dtype=np.int64)
        for part in self.parts():
            degree[part.rows] = np.diff(part.A.indptr)[part.own]
            weights[part.rows] = _ops.row_sums(_ops.as_rows(part.A))[part.own]
        return weights, degree

    @property
    def row_sums(self) -> Array:
        """Sum of the weights of every row (float64)."""
        return self._totals[0]

    @property
    def n_neighbors(self) -> Array:
        """Number of neighbours of every observation."""
        return self._totals[1]

    @property
    def nnz(self) -> int:
        """Number of stored values that the matrix would have."""
        return int(self.n_neighbors.sum())

    def sum(self) -> float:
        """Sum of all weights."""
        return float(self.row_sums.sum())

    def parts(self, *, lengths: bool = False) -> Iterator[Part]:
        """The rows of the graph, tile by tile."""
        if len(self._tiling.starts) == 2:  # one tile: what it holds is within what a tile may hold
            yield replace(self._only, D=self._only.D if lengths else None)
            return
        for t in range(len(self._tiling.starts) - 1):
            yield self._part(t, lengths=lengths)

    @cached_property
    def _only(self) -> Part:
        A, D = self._edges(slice(None))
        return Part(A, D=D)

    def _part(self, t: int, *, lengths: bool) -> Part:
        own, halo = self._members(t)
        ids = np.concatenate([own, halo])
        inside = np.concatenate([np.ones(len(own), dtype=bool), np.zeros(len(halo), dtype=bool)])
        order = np.argsort(ids)
        ids, inside = ids[order], inside[order]
        A, D = self._edges(ids)
        return Part(_only_rows(A, inside), ids, np.flatnonzero(inside), _only_rows(D, inside) if lengths else None)

    def _members(self, t: int) -> tuple[Array, Array]:
        """Observations of a tile and of its halo."""
        tiling = self._tiling
        own = tiling.order[tiling.starts[t] : tiling.starts[t + 1]]
        if not tiling.split[t]:
            return own, own[:0]
        # as far as a rounded distance may reach
        reach = self.radius * (1 + 1e-6) + 8 * np.finfo(float).eps * np.abs(self.coords[own]).max()
        low, high = tiling.low[t] - reach, tiling.high[t] + reach
        near = ((tiling.low <= high) & (tiling.high >= low)).all(1) & tiling.split
        near[t] = False
        halo = [own[:0]]
        for other in np.flatnonzero(near):
            theirs = tiling.order[tiling.starts[other] : tiling.starts[other + 1]]
            if self.codes[theirs[0]] != self.codes[own[0]]:
                continue
            xy = self.coords[theirs]
            halo.append(theirs[((xy >= low) & (xy <= high)).all(1)])
        return own, np.concatenate(halo)

    def _edges(self, ids: Any) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        return _graph.radius_graph(
            self.coords[ids], self.codes[ids], self.contact_radius, self.context_radius,
            contact_weight=self.contact_weight, context_weight=self.context_weight, combine=self.combine,
        )  # fmt: skip

    @cached_property
    def _tiling(self) -> _Tiling:
        order = np.argsort(self.codes, kind="stable").astype(np.int32)
        pieces, stack = [], [order]
        while stack:
            ids = stack.pop()
            if len(ids) <= self.tile_size:
                pieces.append(ids)
                continue
            stack += _halves(ids, self.codes, self.coords)[::-1]
        sizes = np.bincount(self.codes)
        for ids in pieces:
            ids.sort()
        boxes = [(self.coords[ids].min(0), self.coords[ids].max(0)) for ids in pieces]
        low, high = (np.array(side) for side in zip(*boxes, strict=True))
        split = np.array([sizes[self.codes[ids[0]]] > len(ids) for ids in pieces])
        return _Tiling(np.concatenate(pieces), np.cumsum([0, *map(len, pieces)]), low, high, split)

    def subset(self, rows: Array) -> RadiusGraph:
        """The graph among some of the observations."""
        return replace(self, coords=self.coords[rows], codes=self.codes[rows])

    def matrices(self) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        """The whole matrix, and the lengths of its edges."""
        return self._edges(slice(None))

    def tocsr(self) -> sp.csr_matrix:
        """The whole matrix."""
        return self.matrices()[0]


@dataclass(frozen=True, eq=False)
class Ring:
    """The edges of a described graph whose lengths are above ``low`` and at most ``high``."""

    graph: RadiusGraph
    low: float
    high: float

    @property
    def shape(self) -> tuple[int, int]:
        """Observations, twice."""
        return self.graph.shape

    def parts(self) -> Iterator[Part]:
        """The rows, tile by tile."""
        return map(self.of, self.graph.parts(lengths=True))

    def subset(self, rows: Array) -> Ring:
        """The ring among some of the observations."""
        return replace(self, graph=self.graph.subset(rows))

    def of(self, part: Part) -> Part:
        """Of a part of the graph, with its lengths, the edges that belong to the ring."""
        assert part.D is not None
        A, lengths = part.A, part.D.data
        keep = (lengths > np.float32(self.low)) & (lengths <= np.float32(self.high))
        indptr = np.concatenate([[0], np.cumsum(keep)])[A.indptr]
        ring = _graph._csr(A.data[keep], A.indices[keep], indptr.astype(A.indptr.dtype), A.shape[0])
        return replace(part, A=ring, D=None)


def _halves(ids: Array, codes: Array, coords: Array) -> list[Array]:
    """Cut between libraries where there are several, else across the longest side; neither half is empty."""
    middle = len(ids) // 2
    own = codes[ids]
    if own[0] != own[-1]:  # sorted by library
        cuts = np.flatnonzero(np.diff(own)) + 1
        cut = cuts[np.abs(cuts - middle).argmin()]
        return [ids[:cut], ids[cut:]]
    xy = coords[ids]
    by = np.argpartition(xy[:, np.ptp(xy, axis=0).argmax()], middle)
    return [ids[by[:middle]], ids[by[middle:]]]


def _only_rows(A: sp.csr_matrix, there: Array) -> sp.csr_matrix:
    """The same matrix with the other rows emptied."""
    if there.all():
        return A
    taken = A[np.flatnonzero(there)]
    indptr = np.concatenate([[0], np.cumsum(np.diff(A.indptr) * there)]).astype(A.indptr.dtype)
    return _graph._csr(taken.data, taken.indices, indptr, A.shape[0])


AnyGraph: TypeAlias = sp.csr_matrix | RadiusGraph


def parts_of(A: AnyGraph | Ring) -> Iterator[Part]:
    """The rows of a graph: a stored one's all at once, a described one's tile by tile."""
    if isinstance(A, RadiusGraph | Ring):
        yield from A.parts()
    else:
        yield Part(A)


def degrees(A: AnyGraph) -> Array:
    """Number of neighbours of every observation."""
    return A.n_neighbors if isinstance(A, RadiusGraph) else _graph.degrees(A)


def has_coincident(A: RadiusGraph) -> Array:
    """Whether another observation of the library is at the same place."""
    out = np.zeros(A.shape[0], dtype=bool)
    for part in A.parts(lengths=True):
        assert part.D is not None
        starts = np.repeat(np.arange(part.D.shape[0]), np.diff(part.D.indptr))
        out[part.ids] |= np.bincount(starts[part.D.data == 0], minlength=part.D.shape[0]) > 0
    return out


def rows_of(A: AnyGraph | Ring, rows: Array) -> sp.csr_matrix:
    """A stored matrix with some rows of the graph; the others may be empty."""
    if not isinstance(A, RadiusGraph | Ring):
        return A
    wanted = np.zeros(A.shape[0], dtype=bool)
    wanted[rows] = True
    taken = []
    for part in A.parts():
        ids = np.arange(A.shape[0], dtype=np.int32)[part.ids]
        local = np.arange(len(ids))[part.own]
        local = local[wanted[ids[local]]]
        chosen = part.A[local]
        taken.append((ids[local], np.diff(chosen.indptr), ids[chosen.indices], chosen.data))
    numbers, counts, columns, weights = (np.concatenate(x) for x in zip(*taken, strict=True))
    row = np.repeat(numbers, counts)
    return sp.csr_matrix((weights, (row, columns)), shape=A.shape)


def among(A: AnyGraph, rows: Array) -> AnyGraph:
    """The graph among some of the observations."""
    return A.subset(rows) if isinstance(A, RadiusGraph) else A[rows][:, rows]


def symmetrised(A: AnyGraph) -> AnyGraph:
    """``(A + Aᵀ)/2``; a described graph is symmetric."""
    return A if isinstance(A, RadiusGraph) else _graph.symmetrised(A)


def unweighted(A: AnyGraph) -> AnyGraph:
    """The same edges, each weighing 1 (a stored graph's indices are shared: read only)."""
    if isinstance(A, RadiusGraph):
        return replace(A, contact_weight=1.0, context_weight=1.0, combine="max")
    B = A.copy() if A.nnz == 0 else type(A)((np.ones_like(A.data), A.indices, A.indptr), shape=A.shape)
    B.has_canonical_format = True
    return B
