"""How the matrices of several modalities are put side by side, and which observations have which of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, singledispatch
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from . import _ops
from ._blocks import Blocks
from ._ops import Rows

Array = np.ndarray
FLOOR = 1e-2  # of the mean: no loading starts at a zero that it could not leave
ABSENT = 0.02  # at 0.1 components begin to serve the missing rows; at 0.005 types are told apart no better


@dataclass(frozen=True)
class Modality:
    """One matrix (n × p_m in memory, all rows there, missing ones empty), which rows it has, and its share in the objective."""

    X: Any
    present: Array
    weight: float = 1.0
    loss: str = "frobenius"
    private: int = 0

    @property
    def scale(self) -> float:
        """What the matrix is multiplied by so that its loss is weighted."""
        return self.weight if self.loss == "kl" else float(np.sqrt(self.weight))


@dataclass(frozen=True)
class Layout:
    """The scaled matrices side by side. In memory rows are sorted by which modalities they have; blocks are as they come."""

    X: Any  # n × P: Rows, or Blocks
    order: Array  # row of X -> observation
    group: Array  # row of X -> group: rows with the same modalities
    has: Array  # groups × modalities, the most complete observations first
    columns: list[slice]  # features of each modality
    components: list[Array]  # components that each modality may load on
    losses: list[str]
    known: Moments | None = None  # of X, where they are

    @property
    def differs(self) -> bool:
        """Whether losses differ between modalities, or KL has missing rows or private components."""
        return len(set(self.losses)) > 1 or (self.losses[0] == "kl" and not self.complete)

    @property
    def complete(self) -> bool:
        """Whether every row has every modality, and every modality every component."""
        k = len(set(np.concatenate(self.components)))
        return len(self.has) == 1 and all(len(c) == k for c in self.components)

    @property
    def n_shared(self) -> int:
        """Components that all modalities may load on."""
        return len(set.intersection(*(set(c.tolist()) for c in self.components)))

    @cached_property
    def ranked(self) -> Array:
        """Rows of X by group, then by observation: in memory as they stand, so that samples are the same in blocks."""
        return np.lexsort((self.order, self.group))

    @cached_property
    def moments(self) -> Moments:
        """Sums of every column, and of its squares."""
        return moments(self.X) if self.known is None else self.known

    @property
    def bounds(self) -> Array:
        """First and last row of each group, where they are sorted."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.group, minlength=len(self.has)))])

    def shares(self, absent: float = ABSENT) -> Array:
        """Weight of each group's rows in each modality."""
        return np.where(self.has, 1.0, absent)

    def take(self, numbers: Array) -> Layout:
        """Copy some rows into memory, by their numbers (ascending) in the order of :attr:`ranked`."""
        rows = self.ranked[numbers]
        ascending = np.argsort(rows)
        X = self.X.take(rows[ascending])
        if (np.diff(ascending) < 0).any():
            X = X.take(np.argsort(ascending))
        return replace(self, X=X, order=np.arange(len(rows)), group=self.group[rows], known=None)

    def of_rows(self, M: Any) -> Any:
        """Values of the observations, sorted as the rows of X are."""
        return M if self.as_observed else M[self.order]

    def of_observations(self, M: Any) -> Any:
        """Values of the rows of X, sorted as the observations are."""
        return M if self.as_observed else M[np.argsort(self.order)]

    @cached_property
    def as_observed(self) -> bool:
        """Whether the rows of X are the observations in their order."""
        return bool((np.diff(self.order) > 0).all())


def lay_out(
    modalities: Sequence[Modality],
    n_components: int,
    X: Any = None,
    order: Array | None = None,
    known: Moments | None = None,
) -> Layout:
    """Scale the matrices, put them side by side and sort their rows into groups.

    ``X`` is all that in blocks already, its rows in ``order``, and its moments are ``known``.
    """
    present = np.stack([m.present for m in modalities], axis=1)
    patterns, group = np.unique(present, axis=0, return_inverse=True)
    patterns, group = patterns[::-1], (len(patterns) - 1 - group.ravel()).astype(np.int16)  # complete ones first
    if X is None or order is None:
        order = np.argsort(group, kind="stable")
        parts = [
            sp.csr_matrix((m.X.data * np.float32(m.scale), m.X.indices, m.X.indptr), shape=m.X.shape)
            for m in modalities
        ]
        stacked = sp.hstack(parts, format="csr", dtype=np.float32)
        X = _ops.as_rows(stacked[order] if len(patterns) > 1 else stacked)
    ends = np.cumsum([m.X.shape[1] for m in modalities])
    n_private = [m.private for m in modalities]
    shared = n_components - sum(n_private)
    first = shared + np.concatenate([[0], np.cumsum(n_private)]).astype(int)
    return Layout(
        X,
        order,
        group[order],
        patterns,
        [slice(int(e) - m.X.shape[1], int(e)) for e, m in zip(ends, modalities, strict=True)],
        [np.concatenate([np.arange(shared), np.arange(a, a + q)]) for a, q in zip(first[:-1], n_private, strict=True)],
        [m.loss for m in modalities],
        known,
    )


def allowed(layout: Layout, H: Array) -> Array:
    """H (P × k) without loadings on other modalities' private components."""
    out = np.zeros(H.shape)
    for columns, components in zip(layout.columns, layout.components, strict=True):
        out[columns, components] = H[columns, components]
    return out


class Moments(NamedTuple):
    """Of every column the sum of its values and of their squares, in float64."""

    sums: Array
    squares: Array


def beside(parts: Sequence[Moments], scales: Sequence[float]) -> Moments:
    """Moments of matrices side by side, each multiplied by its scale."""
    return Moments(
        np.concatenate([part.sums * c for part, c in zip(parts, scales, strict=True)]),
        np.concatenate([part.squares * c**2 for part, c in zip(parts, scales, strict=True)]),
    )


@singledispatch
def moments(X: Any) -> Moments:
    """The moments of a matrix by rows."""
    squares = np.zeros(X.shape[1])
    for start in range(0, len(X.data), _ops.VALUES):
        part = slice(start, start + _ops.VALUES)
        squares += np.bincount(X.indices[part], X.data[part].astype(np.float64) ** 2, minlength=X.shape[1])
    return Moments(_ops.column_sums(X), squares)


@moments.register
def _(X: Blocks) -> Moments:
    return added(X.each(_moments))


def _moments(X: Rows) -> Moments:
    return moments(X)


def added(parts: Sequence[Moments]) -> Moments:
    """Moments of rows one above the other."""
    return Moments(sum(part.sums for part in parts), sum(part.squares for part in parts))  # type: ignore[arg-type]
