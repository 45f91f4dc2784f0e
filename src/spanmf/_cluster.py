"""The engine on the workers of a dask cluster: blocks of X are loaded there, W stays there, statistics come back.

W is a list of futures, one a block. A lost worker costs time, no result: dask makes its blocks again, by the same steps, from
what the scheduler knows. So that it need not know all steps since the start, W comes to the client and back every
:data:`LINEAGE` passes, from where the steps are counted anew.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import numpy as np

from . import _settings
from ._logging import logger
from .core import _blocks, _ops, _threads

Array = np.ndarray
LINEAGE = 25  # passes after which W starts anew from its values
LIGHT = 1 << 20  # bytes of what a worker is sent to load a block; more means that the data are in it
BATCH = 32  # blocks whose results travel together
PATIENCE = 600.0  # seconds without any worker after which a call gives up
LOOK = 10.0  # seconds from one look at the workers to the next
_numbers = count()


def is_light(source: Any) -> bool:
    """Whether a source tells where the data are, and is not the data."""
    import cloudpickle

    return bool(source.inputs) or len(cloudpickle.dumps(source, protocol=pickle.HIGHEST_PROTOCOL)) < LIGHT


@dataclass
class Spread:
    """Factors on the workers: of each block a future of (W, statistics), where the latter belong to the pass that made it."""

    workers: Workers
    sizes: list[int]
    k: int
    parts: list[Any] = field(default_factory=list)
    age: int = 0  # passes since its values were known to the scheduler


@dataclass(frozen=True)
class Workers:
    """Sends tasks to the workers of ``client`` that load ``roots``."""

    client: Any
    roots: list[Any]  # futures of the sources
    inputs: list[list[Any]]  # futures of data that the sources need
    names: list[str]
    keeps: bool = True  # W stays on the workers

    @classmethod
    def of(cls, client: Any, sources: Sequence[Any]) -> Workers:
        """Tell the workers where the blocks are."""
        light = [replace(source, inputs=dict.fromkeys(source.inputs)) for source in sources]
        inputs = [list(source.inputs.values()) for source in sources]
        return cls(client, _send(client, "source", _same, light), inputs, [source.name for source in sources])

    def holding(self) -> Workers:
        """The same, with W in the memory of the client."""
        return replace(self, keeps=False)

    def shared(self, value: Any) -> Any:
        """See :class:`.core._blocks.Engine`."""
        return sent(self.client, value)

    def _each(self, what: str, task: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        """Futures of a task on every block."""
        return _send(self.client, what, _on_block, [task] * len(self.roots), self.roots, self.inputs, *arguments)

    def collected(self, futures: list[Any], first: int = 0) -> list[Any]:
        """What came of the blocks from ``first``; an error names the block."""
        from distributed import KilledWorker

        watch = _Watch(self.client, futures)
        try:
            with watch:
                return self.client.gather(futures)
        except Exception as error:
            error.__traceback__ = None  # the client keeps the error, and with its frames all that is under way here
            if watch.gave_up:
                told = _blocks.BlockError(
                    f"The cluster had no workers for {PATIENCE:g} s. Start some, wait for them (`client.wait_for_workers(1)`), and "
                    "call again."
                )
            elif isinstance(error, _blocks.BlockError):
                told = _blocks.BlockError(*error.args)
            elif isinstance(error, KilledWorker):
                reason = RuntimeError("its worker died every time that it was tried, as it does when memory runs out")
                told = _blocks.failed(self._culprit(futures, first), reason)
            else:  # lost data, a cluster that is gone
                told = _blocks.failed(self._culprit(futures, first), error)
        raise told

    def _culprit(self, futures: list[Any], first: int) -> str:
        bad = [b for b, future in enumerate(futures, first) if future.status not in ("finished", "pending")]
        return self.names[bad[0]] if bad else "A block"

    def each(
        self, X: _blocks.Blocks, function: Callable[..., Any], *arguments: Sequence[Any], raw: bool = False
    ) -> list[Any]:
        """See :class:`.core._blocks.Engine`."""
        return self.collected(self._each("block", _blocks.Task(function, X.columns, raw), *arguments))

    def start(self, X: _blocks.Blocks, k: int, W: Array | None, fill: float | None) -> Any:
        """See :class:`.core._blocks.Engine`."""
        if not self.keeps:
            return _blocks.InProcess.start(self, X, k, W, fill)  # type: ignore[arg-type]
        sizes = [own.stop - own.start for own in X.slices]
        spread = Spread(self, sizes, k)
        if W is not None:
            spread.parts = _send(self.client, "given", _given, [_ops.pad(part) for part in X.cut(W)])
        elif fill is None:
            spread.parts = _send(self.client, "zero", partial(_zero, width=_ops.padded(k)), sizes)
        else:
            task = _blocks.Task(partial(_filled, k=k, fill=fill), X.columns)
            spread.parts = self._each("fill", task)
        return spread

    def update(
        self, X: _blocks.Blocks, kernel: Any, Ht: Array, W: Any, out: Any, k: int, by_row: dict[str, Any],
        options: dict[str, Any],
    ) -> _ops.Statistics:  # fmt: skip
        """See :class:`.core._blocks.Engine`."""
        task = _blocks.Task(partial(_passed, kernel=kernel, k=k), X.columns)
        common = [self.shared((Ht, options))] * len(self.roots)
        cuts = [{name: v[own] for name, v in by_row.items() if v is not None} for own in X.slices]
        if isinstance(W, Spread):
            if W.age >= LINEAGE:
                renew(W)
            states = self._each("pass", task, common, W.parts, cuts)
            out.parts, out.age = states, W.age + 1
        else:
            states = self._each("pass", task, common, [(part, None) for part in X.cut(W)], cuts)
        total = _blocks.InOrder()
        left = _send(self.client, "statistics", _statistics, states)
        for first in range(0, len(left), BATCH):
            found = self.collected(left[first : first + BATCH], first)
            for b, statistics in enumerate(found, first):
                total.add(b, statistics)
        if not isinstance(W, Spread):
            for own, (new, _) in zip(X.slices, self.collected(states), strict=True):
                out[own] = new
        assert total.total is not None
        return total.total


class _Watch:
    """Cancels what is waited for when there has been no worker for long: dask itself would wait for ever."""

    def __init__(self, client: Any, futures: list[Any]) -> None:
        self.client, self.futures = client, futures
        self.gave_up = False
        self.done = Event()
        self.thread = Thread(target=self._look, name="spanmf-watch", daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def _look(self) -> None:
        since = None
        while not self.done.wait(LOOK):
            if self.client.nthreads():
                since = None
            elif since is None:
                since = time.monotonic()
                logger.warning("the cluster has no workers: waiting %g s for some", PATIENCE)
            elif time.monotonic() - since > PATIENCE:
                self.gave_up = True
                self.client.cancel(self.futures)
                return


def _key(what: str) -> str:
    return f"spanmf-{what}-{uuid4().hex[:8]}-{next(_numbers)}"


def _send(client: Any, what: str, function: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
    import dask

    name = _key(what)
    keys = [f"{name}-{b}" for b in range(len(arguments[0]))]
    # parts of W travel with their tasks on purpose: so the scheduler can send them again when a worker is lost
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": sys.maxsize}):
        return client.map(function, *arguments, key=keys, pure=False)


def sent(client: Any, value: Any) -> Any:
    """A future of a value, which the scheduler can send again when its worker is lost."""
    return _send(client, "given", _same, [value])[0]


def renew(W: Spread) -> None:
    """Let W start anew from its values, so that the scheduler can forget how it came about."""
    parts = []
    for first in range(0, len(W.parts), BATCH):
        values = W.workers.collected(_send(W.workers.client, "values", _factors, W.parts[first : first + BATCH]), first)
        parts += _send(W.workers.client, "given", _given, values)
    W.parts, W.age = parts, 0


def _on_block(task: Callable[..., Any], source: Any, inputs: list[Any], *arguments: Any) -> Any:
    from distributed import get_worker

    if inputs:
        source = replace(source, inputs=dict(zip(source.inputs, inputs, strict=True)))
    with _threads.at_most(get_worker().state.nthreads):
        return task(source, *arguments)


def _same(value: Any) -> Any:
    return value


def _given(W: Array) -> tuple[Array, None]:
    return W, None


def _zero(n: int, width: int) -> tuple[Array, None]:
    return np.zeros((n, width), dtype=np.float32), None


def _filled(rows: _ops.Rows, k: int, fill: float) -> tuple[Array, None]:
    return _ops.start(rows, k, None, fill), None


def _passed(
    rows: _ops.Rows,
    common: tuple[Array, dict[str, Any]],
    state: tuple[Array, Any],
    by_row: dict[str, Any],
    *,
    kernel: Any,
    k: int,
) -> tuple[Array, _ops.Statistics]:
    Ht, options = common
    W = np.array(
        state[0]
    )  # what came over the wire may be read-only, and the kernel is compiled for arrays that are not
    out = np.zeros_like(W)  # the columns that pad it stay zero
    given = {name: np.array(values) for name, values in by_row.items()}
    return out, _blocks.locked(kernel, rows, np.array(Ht), W, out, k, **given, **options)


def _statistics(state: tuple[Array, _ops.Statistics]) -> _ops.Statistics:
    return state[1]


def _factors(state: tuple[Array, Any]) -> Array:
    return state[0]


def _narrow(state: tuple[Array, Any], k: int) -> Array:
    return np.ascontiguousarray(state[0][:, :k])


def _distance(state: tuple[Array, Any], other: tuple[Array, Any]) -> tuple[float, float]:
    return _ops.squared_distance(state[0], other[0])


@_ops.spare.register
def _(W: Spread) -> Spread:
    return Spread(W.workers, W.sizes, W.k)


@_ops.gathered.register
def _(W: Spread, k: int) -> Any:
    if _settings.settings.factors == "dask":
        return _dask_array(W, k)
    out = np.empty((sum(W.sizes), k), dtype=np.float32)
    ends = np.concatenate([[0], np.cumsum(W.sizes)])
    for first in range(0, len(W.parts), BATCH):
        parts = _send(W.workers.client, "factors", partial(_narrow, k=k), W.parts[first : first + BATCH])
        for b, part in enumerate(W.workers.collected(parts, first), first):
            out[ends[b] : ends[b + 1]] = part
    return out


def _dask_array(W: Spread, k: int) -> Any:
    """The factors as they lie."""
    import dask
    import dask.array as da

    parts = _send(W.workers.client, "factors", partial(_narrow, k=k), W.parts)
    return da.concatenate(
        [da.from_delayed(dask.delayed(part), (n, k), np.float32) for part, n in zip(parts, W.sizes, strict=True)]
    )


@_ops.squared_distance.register
def _(W: Spread, other: Spread) -> tuple[float, float]:
    parts = W.workers.collected(_send(W.workers.client, "distance", _distance, W.parts, other.parts))
    return sum(a for a, _ in parts), sum(b for _, b in parts)
