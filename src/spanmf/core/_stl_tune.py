"""Weights of a deconvolution, chosen on spots made of the reference's own cells and checked on genes of the section that are held out.

The cells of every type are parted in two. One half makes profiles; of the other, spots are summed, on the section's graph and with its
depths and the shares of a first fit, so that their truth is known. One weight at a time is moved along its values as long as the error of
the shares falls. What is found counts only if, in the real section, it explains genes that were held out as well as what it started from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from . import _ops, _stl
from ._blocks import Blocks
from ._stl_calibrate import SPOTS, gene_factors, patch
from ._stl_model import Fit, Options, Reference
from ._stl_reference import shrunk_profiles
from ._stl_spots import Cells, make_spots

Array = np.ndarray
VALUES: dict[str, tuple[float, ...]] = {
    "reference_weight": (0.5, 2.0, 8.0, np.inf),
    "graph_weight": (0.0, 3.0, 10.0, 30.0, 100.0),
    "region_weight": (0.0, 3.0, 10.0, 30.0),
}
SPLITS = 2  # of the cells; every half makes spots once
GAIN = 0.01  # of the error, for less than which no weight is moved
FOLDS = 2  # of genes
WORSE = 2.0  # standard errors by which held-out genes may be explained worse


@dataclass(frozen=True)
class Section:
    """What is deconvolved: counts on the genes of the reference (some of the spots are taken of blocks), graph and regions."""

    X: Any
    graph: Any = None
    regions: Array | None = None

    def take(self, rows: Array) -> Section:
        """Some of the spots."""
        return Section(
            self.X.take(rows).as_scipy() if isinstance(self.X, Blocks) else self.X[rows],
            None if self.graph is None else self.graph[rows][:, rows],
            None if self.regions is None else self.regions[rows],
        )

    def fit(self, reference: Reference, options: Options) -> Fit:
        return _stl.fit(self.X, reference, graph=self.graph, regions=self.regions, options=options)


@dataclass(frozen=True)
class Tuned:
    """``weights`` to use; ``best`` on made spots; every trial with its error; what the best loses on held-out genes."""

    weights: dict[str, float]
    best: dict[str, float]
    trials: list[tuple[dict[str, float], float]]
    loss: float  # log-likelihood of a spot, in standard errors; NaN where nothing better was found

    @property
    def accepted(self) -> bool:
        """Whether the best weights are to be used."""
        return self.weights == self.best


def tune(
    section: Section,
    reference: Reference,
    cells: Cells,
    *,
    start: Options,
    cells_per_spot: tuple[int, int],
    rng: np.random.Generator,
    progress: Callable[[float], None] | None = None,
) -> Tuned:
    """Choose among ``VALUES``, beginning with those of ``start``; of a large section some patches are used."""
    depth = _ops.row_sums(section.X)
    section = section.take(patch(section.graph, np.flatnonzero(depth > 0), rng, SPOTS))
    depth = np.asarray(section.X.sum(1)).ravel()
    begin = weights_of(start)
    first = section.fit(reference, start)
    if first.likelihood == "gaussian":
        return Tuned(begin, begin, [], np.nan)
    options = replace(start, likelihood="poisson", platform=first.platform is not None)
    made = []
    for _ in range(SPLITS):
        halves = cells.halves(rng)
        for known, held in (halves, halves[::-1]):
            X, V = make_spots(held, first.cells, depth, cells_per_spot, rng, gene_factors(first, section.X.shape[1]))
            made.append((replace(section, X=X), known.reference(), V))
    trials: list[tuple[dict[str, float], float]] = []

    def error(weights: dict[str, float]) -> float:
        for tried, value in trials:
            if tried == weights:
                return value
        found = weighted(options, weights)
        value = float(np.mean([relative_error(part.fit(B, found).cells, V) for part, B, V in made]))
        trials.append((weights, value))
        if progress is not None:
            progress(value)
        return value

    used = [
        name
        for name in VALUES
        if not (name == "graph_weight" and section.graph is None)
        and not (name == "region_weight" and section.regions is None)
    ]
    best = descend(begin, used, error)
    loss = held_out_loss(section, reference, options, weighted(options, best), rng) if best != begin else np.nan
    return Tuned(best if loss <= WORSE else begin, best, trials, loss)


def weights_of(options: Options) -> dict[str, float]:
    return {name: getattr(options, name) for name in VALUES}


def weighted(options: Options, weights: Mapping[str, Any]) -> Options:
    return replace(options, **weights)


def descend(begin: dict[str, float], names: list[str], error: Callable[[dict[str, float]], float]) -> dict[str, float]:
    """Move one weight after the other to its neighbour among ``VALUES`` as long as the error falls, twice round."""
    best = begin
    for name in 2 * names:
        for values in (VALUES[name], VALUES[name][::-1]):
            for value in values:
                onward = (value > best[name]) == (values[0] < values[-1]) and value != best[name]
                if not onward:
                    continue
                if error(best | {name: value}) >= (1 - GAIN) * error(best):
                    break
                best = best | {name: value}
    return best


def relative_error(found: Array, truth: Array) -> float:
    """Relative Frobenius error; a spot left without counts has even shares."""
    found = np.where(np.isfinite(found), found, 1 / found.shape[1])
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def held_out_loss(
    section: Section, reference: Reference, before: Options, after: Options, rng: np.random.Generator
) -> float:
    """How much less likely genes become that were held out, by shares from the others: mean over spots, in standard errors."""
    fold = rng.permutation(section.X.shape[1]) % FOLDS
    profiles = shrunk_profiles(reference.B, reference.n_cells) * reference.B.sum(1)[:, None]
    loss = np.zeros(section.X.shape[0])
    for f in range(FOLDS):
        seen, held = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        part, known = replace(section, X=section.X[:, seen]), Reference(reference.B[:, seen], reference.n_cells)
        for options, sign in ((before, 1), (after, -1)):
            loss += sign * log_likelihood(section.X[:, held], part.fit(known, options).cells, profiles[:, held])
    return float(loss.mean() / max(loss.std() / np.sqrt(len(loss)), 1e-12))


def log_likelihood(X: sp.csr_matrix, cells: Array, profiles: Array) -> Array:
    """Of the counts of each spot given their sum, by shares of cells and mean counts of a cell."""
    cells = np.where(np.isfinite(cells), cells, 1 / cells.shape[1]).astype(np.float64)
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    expected = np.einsum("ek,ke->e", cells[rows], profiles[:, X.indices]) / (cells @ profiles.sum(1))[rows]
    return np.bincount(rows, X.data * np.log(np.maximum(expected, 1e-300)), X.shape[0])
