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


def as_blocks(X: da.Array, name: str) -> _blocks.Blocks:
    """Wrap a dask array in blocks of rows; nothing is read."""
    check_chunks(X, name)
    client = cluster_of(X)
    if client is None:
        return _blocks.Blocks(tuple(_sources(X)), _bounds(X), X.shape[1], _blocks.InProcess(_runner(X)))
    from . import _cluster

    sources = tuple(_sources(X))
    if not _cluster.is_light(sources):  # the data themselves are in the graph: they go to the workers, once
        X = client.persist(X)
        sources = tuple(_sources(X))
    return _blocks.Blocks(sources, _bounds(X), X.shape[1], _cluster.Workers.of(client, sources))


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


def _bounds(X: da.Array) -> np.ndarray:
    ends = np.concatenate([[0], np.cumsum(X.chunks[0])]).astype(np.int64)
    return np.array([0, *(ends[last] for _, last in _groups(X))])


def _sources(X: da.Array) -> Iterator[Source]:
    """What it takes to load each group of blocks."""
    from dask.optimization import cull

    graph = dict(X.__dask_graph__())
    keys = [key for (key,) in X.__dask_keys__()]
    bounds = _bounds(X)
    groups = list(_groups(X))
    for i, (first, last) in enumerate(groups):
        wanted = keys[first:last]
        own, _ = cull(graph, wanted)
        inputs = {key: value for key, value in own.items() if _is_future(value)}
        name = f"Block {i + 1} of {len(groups)} (rows {bounds[i]:,} to {bounds[i + 1] - 1:,})"
        rest = {key: value for key, value in own.items() if key not in inputs}
        yield Source(name, rest, wanted, (int(bounds[i + 1] - bounds[i]), X.shape[1]), inputs)


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
