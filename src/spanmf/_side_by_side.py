"""Dask arrays of the same observations, put side by side: a block of all is made where it is needed, of the blocks of each.

Each matrix may have blocks and observations of its own, as long as all of them are in one order: then the rows that belong to some
others are rows that stand together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp

from . import _dask
from .core import _blocks
from .core._normalise import Steps

Array = np.ndarray


@dataclass(frozen=True)
class Part:
    """One of the matrices: a dask array, or CSR in memory; what is done to its values, and its rows among all (ascending)."""

    name: str
    X: Any
    rows: Array
    steps: Steps
    n_columns: int  # after the steps

    @property
    def is_lazy(self) -> bool:
        """Whether it is read block by block."""
        return _dask.is_lazy(self.X)

    @property
    def shape(self) -> tuple[int, int]:
        """Own rows × columns after the steps."""
        return len(self.rows), self.n_columns

    def scaled(self, scale: float) -> Part:
        """The same, multiplied."""
        return replace(self, steps=replace(self.steps, scale=scale))

    def sorted_by(self, rows: Array) -> Part:
        """The same with other rows among all, which those of a dask array must have in order."""
        if self.is_lazy:
            return replace(self, rows=rows)
        order = np.argsort(rows)
        return replace(self, X=self.X if (np.diff(order) > 0).all() else self.X[order], rows=rows[order])


def largest(matrices: Sequence[Any]) -> int:
    """Which of them (dask arrays before others) says how the rows are cut."""
    return max(range(len(matrices)), key=lambda i: (_dask.is_lazy(matrices[i]), np.prod(matrices[i].shape)))


def common_order(rows: Sequence[Array], n: int, base: int) -> Array:
    """All observations in an order in which those of every matrix ascend, as far as the base tells.

    It is that of the base; what it lacks comes after the observation of the base that it follows elsewhere, by the first matrix that
    has it (:func:`check_order` says whether that is every matrix's order).
    """
    place = np.full(n, -1)
    place[rows[base]] = np.arange(len(rows[base]))
    missing = place < 0
    after, source, turn = place.copy(), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    for i, own in enumerate(rows):
        new = own[missing[own]]
        after[new] = np.maximum.accumulate(place[own])[missing[own]]
        source[new], turn[new] = i + 1, np.arange(len(new))
        missing[new] = False
    return np.lexsort((turn, source, after))


def check_order(name: str, rows: Array) -> None:
    """Say which matrix cannot be read block by block beside the others."""
    if (np.diff(rows) < 0).any():
        place = f"mdata.mod[{name!r}]"
        msg = (
            f"Modality {name!r} has its observations in another order than the others, and its rows cannot be read block "
            f"by block beside theirs. Store it in their order, or read it first: `{place}.X = {place}.X.compute()`."
        )
        raise ValueError(msg)


def as_blocks(parts: Sequence[Part], n: int) -> _blocks.Blocks:
    """The matrices side by side (n rows), in the blocks of the largest one."""
    base = parts[largest([part.X for part in parts])]
    client = _dask.cluster_of(base.X)
    bounds = _bounds(base, n)
    pieces = zip(*(_pieces(part, bounds, client) for part in parts), strict=True)
    sources = tuple(_joined(_dask.block_name(b, bounds), own) for b, own in enumerate(pieces))
    width = sum(part.n_columns for part in parts)
    return _blocks.Blocks(sources, bounds, width, _dask.engine_of(base.X, client, sources))


def _bounds(base: Part, n: int) -> Array:
    """First rows of the blocks: those of the base, and more where the others have many rows that it lacks."""
    own = _dask.bounds_of(base.X)
    cuts = np.concatenate([[0], base.rows[own[1:-1]], [n]])
    most = 2 * int(np.diff(own).max())
    starts = [np.linspace(a, z, -(-(z - a) // most) + 1).astype(np.int64)[:-1] for a, z in pairwise(cuts)]
    return np.concatenate([*starts, [n]])


@dataclass(frozen=True)
class Piece:
    """The rows of one matrix in a block of all: where they come from, and what is done to them."""

    source: _dask.Source
    own: slice  # those of the rows that come
    there: Array | None  # which rows of the block they are; None: all
    steps: Steps

    def load(self, inputs: dict[Any, Any]) -> sp.csr_matrix:
        """The rows of the block, those that are not there empty."""
        X = replace(self.source, inputs={key: inputs[key] for key in self.source.inputs}).load()
        X = self.steps(X if self.own == slice(0, X.shape[0]) else X[self.own])
        if self.there is None:
            return X
        ends = np.concatenate([[0], np.cumsum(self.there)])  # rows of X before each row of the block
        return sp.csr_matrix((X.data, X.indices, X.indptr[ends]), shape=(len(self.there), X.shape[1]))


@dataclass(frozen=True)
class Source:
    """A block of all matrices."""

    name: str
    pieces: tuple[Piece, ...]
    inputs: dict[Any, Any]  # futures, or what came of them

    def load(self) -> sp.csr_matrix:
        """Load the rows of each, and put them side by side."""
        return sp.hstack([piece.load(self.inputs) for piece in self.pieces], format="csr")


def _joined(name: str, pieces: Sequence[Piece]) -> Source:
    """One source of them; what waits on a cluster is named by each, and held by the whole."""
    inputs = {key: value for piece in pieces for key, value in piece.source.inputs.items()}
    named = [replace(p, source=replace(p.source, inputs=dict.fromkeys(p.source.inputs))) for p in pieces]
    return Source(name, tuple(named), inputs)


def _pieces(part: Part, bounds: Array, client: Any) -> Iterator[Piece]:
    """What a matrix gives to each block."""
    ends = np.searchsorted(part.rows, bounds)
    source_of = _from_dask(_dask.settled(part.X, client)) if part.is_lazy else _from_memory(part, client)
    for a, z, first, last in zip(bounds[:-1], bounds[1:], ends[:-1], ends[1:], strict=True):
        there = None
        if last - first < z - a:
            there = np.zeros(z - a, dtype=bool)
            there[part.rows[first:last] - a] = True
        source, start = source_of(int(first), int(last))
        yield Piece(source, slice(int(first) - start, int(last) - start), there, part.steps)


# from the first of some rows to behind the last: their source, and which row is the first that it gives
Given = Callable[[int, int], tuple[_dask.Source, int]]


def _from_dask(X: Any) -> Given:
    reader = _dask.Reader(X)

    def source_of(first: int, last: int) -> tuple[_dask.Source, int]:
        if first == last:
            return _nothing(X.shape[1]), first
        c = int(np.searchsorted(reader.starts, first, "right")) - 1
        return reader.source(c, int(np.searchsorted(reader.starts, last)), ""), int(reader.starts[c])

    return source_of


def _from_memory(part: Part, client: Any) -> Given:
    def source_of(first: int, last: int) -> tuple[_dask.Source, int]:
        X, key = part.X[first:last], f"spanmf-{part.name}-{first}"
        if client is None:
            return _dask.Source("", {key: X}, [key], X.shape), first
        from . import _cluster

        return _dask.Source("", {}, [key], X.shape, {key: _cluster.sent(client, X)}), first

    return source_of


def _nothing(n_columns: int) -> _dask.Source:
    empty = sp.csr_matrix((0, n_columns), dtype=np.float32)
    return _dask.Source("", {"spanmf-nothing": empty}, ["spanmf-nothing"], empty.shape)
