"""From a dask array to the engine's blocks: which scheduler is there, what a block needs to be loaded, clear errors.

dask is imported only where a dask array was given, so that it is there.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from ._logging import logger
from .core import _blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import dask.array as da

# Blocks of dask are joined until they have so many rows, or so many entries: a small one costs more than the work on it.
ROWS = 1 << 14
ENTRIES = 1 << 28
SMALL = 8_192  # rows of a block of dask below which reading it again and again is slow


def is_lazy(X: Any) -> bool:
    """Whether X is a dask array."""
    arrays = sys.modules.get("dask.array")
    return arrays is not None and isinstance(X, arrays.Array)


def in_memory(X: Any) -> Any:
    """What a dask array stands for, read; anything else as it is."""
    return X.compute() if is_lazy(X) else X


@dataclass(frozen=True)
class Source:
    """Some blocks of dask, one above the other: the part of the graph that makes them, and data that wait on a cluster."""

    name: str
    graph: dict[Any, Any]
    keys: list[Any]
    shape: tuple[int, int]
    inputs: dict[Any, Any] = field(default_factory=dict)  # futures, or what came of them

    def load(self) -> Any:
        """Compute the blocks in this thread."""
        import dask

        parts = dask.get({**self.graph, **self.inputs}, self.keys)
        is_sparse = any(sp.issparse(part) for part in parts)
        X = parts[0] if len(parts) == 1 else sp.vstack(parts, "csr") if is_sparse else np.concatenate(parts)
        if X.shape != self.shape:  # the kernels trust it
            msg = f"a block of shape {X.shape} came, and {self.shape} was announced"
            raise ValueError(msg)
        return X


def in_blocks(X: Any, name: str, columns: np.ndarray | None = None) -> Any:
    """A dask array as blocks of rows, with some columns (mask or numbers) in use; anything else as it is."""
    if not is_lazy(X):
        return X
    blocks = as_blocks(X, name)
    return blocks if columns is None else blocks.select(columns)


def as_blocks(X: da.Array, name: str, owner: str = "") -> _blocks.Blocks:
    """Wrap a dask array in blocks of rows; nothing is read. ``owner`` tells in errors of a block whose it is."""
    check_chunks(X, name)
    client = cluster_of(X)
    X = settled(X, client)
    sources = tuple(_sources(X, owner))
    return _blocks.Blocks(sources, bounds_of(X), X.shape[1], engine_of(X, client, sources))


def settled(X: da.Array, client: Any) -> da.Array:
    """The same array; data that are in its graph themselves go to the workers of a cluster, once."""
    if client is None:
        return X
    from . import _cluster

    first = next(_sources(X))  # as a rule all are alike
    return X if _cluster.is_light(first) else client.persist(X)


def engine_of(X: da.Array, client: Any, sources: tuple[Any, ...]) -> _blocks.Engine:
    """Who works on blocks: the workers of a cluster, or this process."""
    if client is None:
        return _blocks.InProcess(_runner(X))
    from . import _cluster

    return _cluster.Workers.of(client, sources)


def check_chunks(X: da.Array, name: str) -> None:
    """A matrix in blocks of rows, of known sizes."""
    if X.ndim != 2 or 0 in X.shape:
        msg = f"{name} must have two axes (observations × variables), not shape {X.shape}."
        raise ValueError(msg)
    if any(np.isnan(size) for axis in X.chunks for size in axis):
        msg = f"The blocks of {name} have unknown sizes. Call `X = X.compute_chunk_sizes()` first."
        raise ValueError(msg)
    if len(X.chunks[1]) > 1:
        place = name.strip("`")
        msg = (
            f"{name} is cut by columns ({len(X.chunks[1])} blocks across), and blocks of whole rows are needed. Call "
            f"`{place} = {place}.rechunk({{1: -1}})` first; a matrix that was stored by columns (CSC) is best written "
            "again by rows (CSR)."
        )
        raise ValueError(msg)
    sizes = X.chunks[0]
    if len(sizes) > 100 and X.shape[0] < SMALL * len(sizes):
        logger.warning(
            "%s comes in %d blocks of about %d rows: every pass reads all of them, and larger ones are read faster, e.g. "
            "`read_elem_lazy(group['X'], chunks=(100_000, adata.n_vars))` of `anndata.experimental`",
            name, len(sizes), X.shape[0] // len(sizes),
        )  # fmt: skip


def _groups(X: da.Array) -> Iterator[tuple[int, int]]:
    """Blocks of dask that are worked on together: first and last."""
    sizes = X.chunks[0]
    most = min(ROWS, ENTRIES // max(X.shape[1], 1))
    first, rows = 0, 0
    for b, size in enumerate(sizes):
        if rows and rows + size > most:
            yield first, b
            first, rows = b, 0
        rows += size
    if rows:
        yield first, len(sizes)


def bounds_of(X: da.Array) -> np.ndarray:
    """First row of each group of blocks, and the end of the last."""
    ends = np.concatenate([[0], np.cumsum(X.chunks[0])]).astype(np.int64)
    return np.array([0, *(ends[last] for _, last in _groups(X))])


class Reader:
    """A dask array taken apart, to tell what it takes to load some of its blocks."""

    def __init__(self, X: da.Array) -> None:
        self.graph = dict(X.__dask_graph__())
        self.keys = [key for (key,) in X.__dask_keys__()]
        self.starts = np.concatenate([[0], np.cumsum(X.chunks[0])]).astype(np.int64)
        self.n_columns = X.shape[1]

    def source(self, first: int, last: int, name: str) -> Source:
        """Blocks of dask from the first to before the last."""
        from dask.optimization import cull

        wanted = self.keys[first:last]
        own, _ = cull(self.graph, wanted)
        inputs = {key: value for key, value in own.items() if _is_future(value)}
        rest = {key: value for key, value in own.items() if key not in inputs}
        return Source(name, rest, wanted, (int(self.starts[last] - self.starts[first]), self.n_columns), inputs)


def block_name(b: int, bounds: np.ndarray, owner: str = "") -> str:
    """What errors call a block."""
    return f"Block {b + 1} of {len(bounds) - 1} (rows {bounds[b]:,} to {bounds[b + 1] - 1:,}){owner}"


def _sources(X: da.Array, owner: str = "") -> Iterator[Source]:
    """What it takes to load each group of blocks."""
    reader, bounds = Reader(X), bounds_of(X)
    for b, (first, last) in enumerate(_groups(X)):
        yield reader.source(first, last, block_name(b, bounds, owner))


def _is_future(value: Any) -> bool:
    module = sys.modules.get("distributed")
    return module is not None and isinstance(value, module.Future)


def cluster_of(X: da.Array) -> Any:
    """The client of the cluster that dask would compute X on, if any."""
    from dask.base import get_scheduler

    client = getattr(get_scheduler(collections=[X]), "__self__", None)
    return client if hasattr(client, "scheduler_info") else None


def _runner(X: da.Array) -> _blocks.Run:
    """Run calls on the scheduler of dask that is chosen, threads by default."""
    import dask.multiprocessing
    import dask.threaded
    from dask.base import get_scheduler

    get: Callable[..., Any] = get_scheduler(collections=[X]) or dask.threaded.get
    if get is dask.multiprocessing.get:
        msg = (
            "Factors cannot be shared by dask's scheduler 'processes'. Use `dask.config.set(scheduler='threads')`, or a "
            "cluster on this machine: `client = distributed.Client(n_workers=2)`."
        )
        raise ValueError(msg)

    def run(calls: list[Callable[[], Any]]) -> list[Any]:
        keys = [("spanmf-block", i) for i in range(len(calls))]
        return list(get({key: (_call, call) for key, call in zip(keys, calls, strict=True)}, keys))

    return run


def _call(function: Callable[[], Any]) -> Any:
    return function()
