r"""Held-out error of a factorisation: bi-cross-validation over tiles of observations × folds of variables.

For the observations I of a fold and the variables J of a fold (Owen & Perry 2009): H (k × p) is fitted to the
observations outside I, the factors of I are solved on the variables outside J alone, and :math:`X_{IJ}` is predicted by
:math:`W_I H_J`. Neither the held-out values nor, for a method that smooths, neighbours of theirs took part.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from . import _init, _ops, _solver
from ._error import objective
from ._ops import Rows

Array = np.ndarray

LEVELS, N_STARTS = (_init.Level(3_000, ((20, 1),)),), 5  # the tournament of starts for a fit: see `_init.starts`
SOLVED = 1e-3  # W of held-out observations: change of a pass, relative, at which it is taken for solved
FLOOR = 1e-2  # share of the mean profile in a prediction under KL: a count where none is predicted costs a finite sum


@dataclass(frozen=True)
class Split:
    """Tile of every observation, fold of every tile, and fold of every variable."""

    tile: Array
    fold_of_tile: Array
    var_fold: Array

    @property
    def n_folds(self) -> int:
        """Count the folds of tiles."""
        return int(self.fold_of_tile.max()) + 1

    @property
    def n_var_folds(self) -> int:
        """Count the folds of variables."""
        return int(self.var_fold.max()) + 1


def spatial_tiles(coords: Array, libraries: Array, n_tiles: int) -> Array:
    """Number of the tile of every observation: the largest is halved along its widest axis until there are enough.

    No tile has observations of two libraries.
    """
    parts = [np.flatnonzero(libraries == code) for code in np.unique(libraries)]
    heap = [(-len(rows), i, rows) for i, rows in enumerate(parts)]
    heapq.heapify(heap)
    while len(heap) < n_tiles:
        _, i, rows = heapq.heappop(heap)
        at = coords[rows]
        order = rows[np.argsort(at[:, np.ptp(at, axis=0).argmax()], kind="stable")]
        for half, number in ((order[: len(order) // 2], i), (order[len(order) // 2 :], len(heap) + 1)):
            heapq.heappush(heap, (-len(half), number, half))
    tile = np.empty(len(coords), dtype=np.int64)
    for number, (_, _, rows) in enumerate(sorted(heap, key=lambda part: part[2].min())):
        tile[rows] = number
    return tile


def random_tiles(n: int, n_tiles: int, rng: np.random.Generator) -> Array:
    """Number of the tile of every observation, at random and of equal size."""
    return rng.permutation(n) % n_tiles


def split(X: Rows, tile: Array, n_folds: int, n_var_folds: int, rng: np.random.Generator) -> Split:
    """Put tiles and variables into folds at random; variables so that every fold has high and low ones alike."""
    n_tiles, p = int(tile.max()) + 1, X.shape[1]
    order = np.argsort(-np.bincount(X.indices, X.data, minlength=p), kind="stable")
    var_fold = np.empty(p, dtype=np.int64)
    for start in range(0, p, n_var_folds):
        group = order[start : start + n_var_folds]
        var_fold[group] = rng.permutation(n_var_folds)[: len(group)]
    return Split(tile, rng.permutation(n_tiles) % n_folds, var_fold)


def unit_variance(X: Rows) -> Rows:
    """Divide every variable by its standard deviation (a constant one is left as it is).

    Else the few variables with the largest values decide, and a programme of few or low ones does not show.
    """
    n, p = X.shape
    mean = np.bincount(X.indices, X.data, minlength=p) / n
    variance = np.bincount(X.indices, np.square(X.data, dtype=np.float64), minlength=p) / n - mean**2
    sd = np.sqrt(np.where(variance > 1e-12 * mean**2, variance, 1))
    return Rows(X.indptr, X.indices, (X.data / sd[X.indices]).astype(np.float32), X.shape)


def held_out_errors(
    X: Rows,
    ranks: list[int],
    parts: Split,
    rng: np.random.Generator,
    *,
    loss: str = "frobenius",
    max_iter: int = 500,
    tol: float = 1e-5,
    progress: Callable[[], None] = lambda: None,
) -> tuple[Array, Array]:
    """Error of every rank on every tile (ranks × tiles), summed over the folds of variables; and that of the null model.

    Errors are ``‖X − WH‖²`` of variables at unit variance, or twice the KL divergence of X. The null model is the mean of every variable, scaled under KL to
    the seen counts of the observation.
    """
    X = X if loss == "kl" else unit_variance(X)
    n_tiles = len(parts.fold_of_tile)
    errors, null = np.zeros((len(ranks), n_tiles)), np.zeros(n_tiles)
    for fold, stream in enumerate(rng.spawn(parts.n_folds)):
        held = parts.fold_of_tile[parts.tile] == fold
        train = X.take(np.flatnonzero(~held))
        blocks = _Blocks(X, parts, np.flatnonzero(held), loss)
        mean = np.bincount(train.indices, train.data, minlength=X.shape[1]) / train.shape[0]
        blocks.add(null, NullModel(mean, loss))
        for i, (k, own) in enumerate(zip(ranks, stream.spawn(len(ranks)), strict=True)):
            H = _init.starts(train, k, own, LEVELS, N_STARTS)
            H = _init.without_zeros(H) if loss == "kl" else H
            fitted = _solver.fit(train, H, loss=loss, max_iter=max_iter, tol=tol)
            blocks.add(errors[i], Predictor.of(fitted, train, mean, loss))
            progress()
    return errors, null


class _Blocks:
    """The held-out observations of one fold, seen and hidden variables apart."""

    def __init__(self, X: Rows, parts: Split, rows: Array, loss: str) -> None:
        rows = rows[np.argsort(parts.tile[rows], kind="stable")]  # tile by tile
        tile = parts.tile[rows]
        starts = np.flatnonzero(np.r_[True, tile[1:] != tile[:-1]])
        self.spans = list(zip(tile[starts], starts, [*starts[1:], len(rows)], strict=True))
        part = X.take(rows)
        matrix = sp.csr_matrix((part.data, part.indices, part.indptr), shape=part.shape, copy=False)
        masks = [parts.var_fold == j for j in range(parts.n_var_folds)]
        self.folds = [(_ops.as_rows(matrix[:, ~hidden]), matrix[:, hidden], hidden) for hidden in masks]
        self.loss = loss

    def add(self, errors: Array, model: Predictor | NullModel) -> None:
        """Add the error of every tile to ``errors``."""
        for seen, hidden_values, hidden in self.folds:
            W, H = model.predict(seen, hidden)
            for tile, first, last in self.spans:
                errors[tile] += 2 * objective(_ops.as_rows(hidden_values[first:last]), W[first:last], H, self.loss)


@dataclass(frozen=True)
class NullModel:
    """The mean of every variable; under KL in proportion to the seen counts of the observation."""

    mean: Array
    loss: str

    def predict(self, seen: Rows, hidden: Array) -> tuple[Array, Array]:
        """W and H of rank one."""
        if self.loss == "frobenius":
            return np.ones((seen.shape[0], 1)), self.mean[None, hidden]
        size = _ops.row_sums(seen) / max(self.mean[~hidden].sum(), _ops.TINY)
        return size[:, None], self.mean[None, hidden]


@dataclass(frozen=True)
class Predictor:
    r"""Loadings scaled so that the factors of the fit are of size one, and what noise calls for.

    Part of the variables show few counts of an observation, so plain least squares would make weak components pure noise. W is
    the most probable one under the spread that the factors had in the fit: with :math:`H_r` scaled by
    :math:`\sqrt{\overline{W_r^2}}`, a ridge of the residual variance (Gaussian prior); under KL, with :math:`H_r` scaled
    by :math:`\overline{W_r^2} / \overline{W_r}`, the mean of a component where it is in use, an L1 penalty of 1
    (exponential prior).
    """

    H: Array
    noise: float
    mean: Array
    loss: str

    @classmethod
    def of(cls, fitted: _solver.Result, X: Rows, mean: Array, loss: str) -> Predictor:
        """From a fit to X and the mean of every variable."""
        W = fitted.W.astype(np.float64)
        square = np.square(W).mean(0)
        size = square / np.maximum(W.mean(0), _ops.TINY) if loss == "kl" else np.sqrt(square)
        H = fitted.H * size[:, None]
        return cls(H[H.any(1)], float(2 * fitted.trace[-1] / (X.shape[0] * X.shape[1])), mean, loss)

    def predict(self, seen: Rows, hidden: Array) -> tuple[Array, Array]:
        """W solved on the seen variables, and the loadings of the hidden ones that belong to it."""
        known, wanted = self.H[:, ~hidden], self.H[:, hidden]
        if self.loss == "frobenius":
            return _solver.solve_w(seen, known, penalty=_solver.Penalty(l2_w=self.noise), tol=SOLVED), wanted
        W = _solver.solve_w(seen, known, loss="kl", penalty=_solver.Penalty(l1_w=1.0), tol=SOLVED)
        total = W @ self.H.sum(1, keepdims=True)
        profile = self.mean[None, hidden] / self.mean.sum()
        return np.hstack([W, total]), np.vstack([(1 - FLOOR) * wanted, FLOOR * profile])


def paired_rule(errors: Array) -> tuple[int, int, Array, Array]:
    """Position of the lowest error, and of the first rank within one standard error of it.

    Also the excess of every rank over the lowest, and its standard error from the differences tile by tile (whatever
    makes a tile hard for all ranks alike does not count).
    """
    best = int(errors.sum(1).argmin())
    difference = errors - errors[best]
    excess = difference.sum(1)
    spread = np.sqrt(errors.shape[1]) * difference.std(1, ddof=1)
    return best, int(np.flatnonzero(excess <= spread)[0]), excess, spread


def elbow(ranks: Array, explained: Array) -> int:
    """Position that lies farthest above the chord from the first to the last."""
    x = (ranks - ranks[0]) / max(ranks[-1] - ranks[0], 1)
    rise = explained[-1] - explained[0]
    y = (explained - explained[0]) / rise if rise > 0 else np.zeros(len(x))
    return int(np.argmax(y - x))
