"""X as blocks of rows that are loaded where they lie, one after the other or side by side.

A pass goes over the blocks: each is loaded, its rows of W are improved by the kernels of :mod:`._ops`, its statistics are
added up, and it is let go. The sums are taken in the order of the blocks, whichever is ready first, so that results do not
depend on who runs them. Who does is the business of an :class:`Engine`: this process (:class:`InProcess`), or others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, singledispatch
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.sparse as sp

from . import _ops, _survey
from ._ops import Rows, Statistics
from ._threads import allowed, at_most

Array = np.ndarray
KERNEL = Lock()  # one kernel at a time: not every threading layer of numba takes calls from two threads


class BlockError(RuntimeError):
    """A block could not be loaded or worked on; the message names it and says why."""


class Source(Protocol):
    """Where a block comes from."""

    name: str

    def load(self) -> Any:
        """The block in memory: sparse or dense, rows × all variables."""


class Engine(Protocol):
    """Who loads the blocks and works on them."""

    def each(self, X: Blocks, function: Callable[..., Any], *arguments: Sequence[Any], raw: bool = False) -> list[Any]:
        """``function(block, *arguments of the block)`` for every block; the block as :class:`Rows`, or as loaded if ``raw``."""

    def start(self, X: Blocks, k: int, W: Array | None, fill: float | None) -> Any:
        """See :func:`._ops.start`."""

    def update(
        self,
        X: Blocks,
        kernel: Any,
        Ht: Array,
        W: Any,
        out: Any,
        k: int,
        by_row: dict[str, Any],
        options: dict[str, Any],
    ) -> Statistics:
        """One pass of ``kernel``; ``by_row`` are options with a value for every row."""

    def holding(self) -> Engine:
        """The same, with W in the memory of this process."""

    def shared(self, value: Any) -> Any:
        """An argument that is the same for every block, sent to where they are worked on once."""


@dataclass(frozen=True)
class Blocks:
    """A matrix in blocks of rows: where they come from, the first row of each, and the columns in use (None: all)."""

    sources: tuple[Any, ...]
    bounds: Array
    n_columns: int
    engine: Any
    columns: Array | None = None
    norm: float | None = None  # ‖X‖², where it is known

    @property
    def shape(self) -> tuple[int, int]:
        """Rows × columns in use."""
        return int(self.bounds[-1]), self.n_columns if self.columns is None else len(self.columns)

    @property
    def slices(self) -> list[slice]:
        """The rows of each block."""
        return [slice(int(a), int(b)) for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True)]

    def select(self, columns: Array) -> Blocks:
        """Use some columns only (a mask, or numbers in the order that is wanted)."""
        if columns.dtype == bool:
            columns = np.flatnonzero(columns)
        every = len(columns) == self.n_columns and np.array_equal(columns, np.arange(self.n_columns))
        return replace(self, columns=None if every else columns, norm=None)

    def each(self, function: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        """``function(Rows, *arguments of the block)`` for every block, in their order."""
        return self.engine.each(self, function, *arguments)

    def each_with(self, function: Callable[..., Any], common: Any, *arguments: Sequence[Any]) -> list[Any]:
        """``function(Rows, common, *arguments of the block)`` for every block, in their order."""
        return self.each(function, [self.engine.shared(common)] * len(self.sources), *arguments)

    def cut(self, M: Array) -> list[Array]:
        """The rows of M (n × anything) that belong to each block."""
        return [M[own] for own in self.slices]

    def take(self, rows: Array) -> Rows:
        """Copy some rows (ascending) into memory."""
        ends = np.searchsorted(rows, self.bounds)
        wanted = [rows[a:b] - first for a, b, first in zip(ends[:-1], ends[1:], self.bounds[:-1], strict=True)]
        return _ops.as_rows(sp.vstack(self.each(_some_rows, wanted), format="csr"))

    @cached_property
    def survey(self) -> Survey:
        """What the checks and the objective need to know of all blocks: one reading."""
        n_head = _survey.HEAD // len(self.sources) + 1  # so that all of them together do not grow with the blocks
        parts = self.engine.each(self, partial(_survey_of, columns=self.columns, n_head=n_head), raw=True)
        return Survey(
            _survey.together([part.values for part in parts]),
            sum(part.squared_norm for part in parts),
            sum(part.n_empty for part in parts),
            np.any([part.seen for part in parts], axis=0),
        )


class Survey(NamedTuple):
    """Of all values what the checks look at; of the columns in use ``‖X‖²``, how many rows are all zero, which columns are not."""

    values: _survey.Values
    squared_norm: float
    n_empty: int
    seen: Array


def _survey_of(X: Any, columns: Array | None, n_head: int) -> Survey:
    values = _survey.look_at(_survey.values_of(X), n_head)
    if values.dtype.kind not in "fiub":
        return Survey(values, 0.0, 0, np.zeros(X.shape[1] if columns is None else len(columns), dtype=bool))
    rows = rows_of(X, columns)
    return Survey(values, _ops.squared_norm(rows), int((np.diff(rows.indptr) == 0).sum()), _seen(rows))


def _seen(X: Rows) -> Array:
    """Columns with a stored value."""
    seen = np.zeros(X.shape[1], dtype=bool)
    for part in _ops.chunks(X.indices):
        seen[part] = True
        if seen.all():  # as a rule, after the first part
            break
    return seen


def rows_of(X: Any, columns: Array | None = None) -> Rows:
    """A loaded block by rows, with the columns in use."""
    if columns is None:
        return _ops.as_rows(X)
    X = X.tocsr() if sp.issparse(X) else np.asarray(X)
    return _ops.as_rows(X[:, columns])


def _some_rows(X: Rows, rows: Array) -> sp.csr_matrix:
    return X.as_scipy()[rows]


@dataclass(frozen=True)
class Task:
    """A function of a block, to be called where the block is loaded."""

    function: Callable[..., Any]
    columns: Array | None = None
    raw: bool = False

    def __call__(self, source: Any, *arguments: Any) -> Any:
        """Load, work, let go; whatever goes wrong is told with the name of the block."""
        try:
            X = source.load()
            return self.function(X if self.raw else rows_of(X, self.columns), *arguments)
        except BlockError:
            raise
        except Exception as error:
            raise failed(source.name, error) from error


def failed(name: str, error: BaseException) -> BlockError:
    """The error of a block."""
    reason = " ".join(str(error).split()) or "no reason given"
    return BlockError(f"{name} could not be worked on: {type(error).__name__}: {reason}")


class InOrder:
    """Adds statistics up in the order of the blocks; those that come early wait."""

    def __init__(self) -> None:
        self.total: Statistics | None = None
        self.waiting: dict[int, Statistics] = {}
        self.n = 0
        self.lock = Lock()

    def add(self, b: int, statistics: Statistics) -> None:
        """Take what block ``b`` left."""
        with self.lock:
            self.waiting[b] = statistics
            while self.n in self.waiting:
                new = self.waiting.pop(self.n)
                self.total = new if self.total is None else _sum(self.total, new)
                self.n += 1


def _sum(a: Statistics, b: Statistics) -> Statistics:
    return Statistics(
        a.xtw + b.xtw, a.wtw + b.wtw, a.w_sum + b.w_sum, a.log_term + b.log_term, a.prior + b.prior
    )  # fmt: skip


Run = Callable[[list[Callable[[], Any]]], list[Any]]


def one_by_one(calls: list[Callable[[], Any]]) -> list[Any]:
    """The plainest way to run them."""
    return [call() for call in calls]


@dataclass(frozen=True)
class InProcess:
    """Blocks are loaded in this process, by as many threads as ``run`` has; W is a numpy array, improved in place."""

    run: Run = one_by_one

    def each(self, X: Blocks, function: Callable[..., Any], *arguments: Sequence[Any], raw: bool = False) -> list[Any]:
        task, n = Task(function, X.columns, raw), allowed()

        def call(*of_block: Any) -> Any:
            with at_most(n):  # of this thread of dask's, which knows nothing of what the caller's may use
                return task(*of_block)

        return self.run([partial(call, *of_block) for of_block in zip(X.sources, *arguments, strict=True)])

    def start(self, X: Blocks, k: int, W: Array | None, fill: float | None) -> Array:
        if W is not None:
            return _ops.pad(W)
        out = np.zeros((X.shape[0], _ops.padded(k)), dtype=np.float32)
        if fill is not None:
            out[:, :k] = (_ops.row_sums(X) * fill)[:, None]
        return out

    def update(
        self,
        X: Blocks,
        kernel: Any,
        Ht: Array,
        W: Array,
        out: Array,
        k: int,
        by_row: dict[str, Any],
        options: dict[str, Any],
    ) -> Statistics:
        total = InOrder()

        def on_block(rows: Rows, b: int, own: slice) -> None:
            cut = {name: None if values is None else values[own] for name, values in by_row.items()}
            total.add(b, locked(kernel, rows, Ht, W[own], out[own], k, **cut, **options))

        self.each(X, on_block, range(len(X.sources)), X.slices)
        assert total.total is not None
        return total.total

    def holding(self) -> InProcess:
        return self

    def shared(self, value: Any) -> Any:
        return value


def locked(kernel: Any, *arguments: Any, **options: Any) -> Statistics:
    """Call a kernel that runs on several threads of numba."""
    with KERNEL:
        return kernel(*arguments, **options)


def with_factors_here(X: Any) -> Any:
    """The same matrix, with the factors that belong to it in the memory of this process: for what needs all rows at once."""
    return replace(X, engine=X.engine.holding()) if isinstance(X, Blocks) else X


def part_in_memory(X: Any, rows: Array | None) -> Rows:
    """Some rows (ascending; None: all) in memory."""
    if rows is None:
        return X if isinstance(X, Rows) else X.take(np.arange(X.shape[0]))
    return X.take(rows)


@singledispatch
def has_values(X: Any) -> bool:
    """Whether any value is above 0."""
    return bool((X.data > 0).any())


@has_values.register
def _(X: Blocks) -> bool:
    return bool(X.survey.squared_norm > 0)


@singledispatch
def all_zero(X: Any) -> tuple[int, int]:
    """Count the rows and the columns without a stored value."""
    return int((np.diff(X.indptr) == 0).sum()), int((~_seen(X)).sum())


@all_zero.register
def _(X: Blocks) -> tuple[int, int]:
    return X.survey.n_empty, int((~X.survey.seen).sum())


@_ops.squared_norm.register
def _(X: Blocks) -> float:
    return X.survey.squared_norm if X.norm is None else X.norm


@_ops.entropy.register
def _(X: Blocks) -> float:
    return float(sum(X.each(_ops.entropy)))


@_ops.row_sums.register
def _(X: Blocks) -> Array:
    return np.concatenate(X.each(_ops.row_sums))


@_ops.column_sums.register
def _(X: Blocks) -> Array:
    return sum(X.each(_ops.column_sums))


@_ops.product.register
def _(X: Blocks, M: Array) -> Array:
    return np.concatenate(X.each(partial(_product, M=M)))


def _product(X: Rows, M: Array) -> Array:
    return _ops.product(X, M)


@_ops.transposed_product.register
def _(X: Blocks, M: Array) -> Array:
    return sum(X.each(_ops.transposed_product, X.cut(M)))


@_ops.start.register
def _(X: Blocks, k: int, W: Array | None = None, fill: float | None = None) -> Any:
    return X.engine.start(X, k, W, fill)


@_ops.hals_pass.register
def _(
    X: Blocks, Ht: Array, W: Any, out: Any, k: int, *, anchor: Any = None, anchor_weight: Any = None, **options: Any
) -> Statistics:
    by_row = {} if anchor is None else {"anchor": anchor, "anchor_weight": anchor_weight}
    return X.engine.update(X, _ops.hals_pass, Ht, W, out, k, by_row, options)


@_ops.kl_pass.register
def _(X: Blocks, Ht: Array, W: Any, out: Any, k: int, **options: Any) -> Statistics:
    return X.engine.update(X, _ops.kl_pass, Ht, W, out, k, {}, options)
