r"""Intervals of the shares of cells, calibrated on spots whose truth is known.

Counts: curvature knows the noise of counting. It does not know that a spot holds a few cells, which are not the mean of their type, nor that the
mean itself comes from a few. So spots are made as the section's are: on its graph, with its depths, with the shares that were found
in it. The cells are parted in two by type; one half makes the profiles, the other the spots, and then the other way round. These are
deconvolved with the section's own options, and their errors, whose truth is known, give the width (conformal prediction, split by class):

* of the shares v > 0, the errors :math:`(v - \hat v) / h` have quantiles of their own by type (few errors borrow from the other types), with
  :math:`h^2 = c_0 + c_1\hat v(1-\hat v) + (c_2 + c_3 \hat v(1-\hat v)) / N` fitted to their squares, N the counts of the spot;
* of the shares v = 0, the found ones have a quantile by type: up to it, the interval begins at zero.

So each of the two classes, the types that are present and those that are not, is covered as often as asked, on spots made so.

Least squares: the spots are made of the shares that were found, with the noise of the section's residuals (:mod:`spanmf.core._stl_noise`);
no cells are needed. Counts without cells keep the intervals of curvature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import nnls
from scipy.sparse.csgraph import breadth_first_order

from . import _ops, _stl, _stl_noise
from ._blocks import Blocks
from ._stl_model import DEFAULTS, Fit, Options, Progress, Reference
from ._stl_spots import Cells, make_spots

Array = np.ndarray
SPOTS = 4000  # of the section, that are made anew
PATCHES = 4  # in which they lie, so that they have neighbours
MADE = 3000  # spots that are made in all, or more
SPLITS = (2, 8)  # of the cells, at least and at most
BORROWED = 50.0  # errors that a type borrows from all
BORROWED_ZEROS = 200.0  # the same, of shares that are zero
LEAST = 0.01  # part of the mean squared error that h² has everywhere
PRESENT = 1e-3  # lowest bound of a type that is not held possible to be absent


@dataclass(frozen=True)
class Calibration:
    """Coefficients of h², quantiles of the errors by type, and the shares up to which a type may be absent."""

    scale: Array
    low: Array
    high: Array
    absent: Array

    def bounds(self, cells: Array, depth: Array) -> tuple[Array, Array]:
        """Lower and upper bounds (n × k, float32) of the shares found in spots of some depth."""
        lower, upper = np.empty(cells.shape, np.float32), np.empty(cells.shape, np.float32)
        for rows in _ops.row_blocks(len(cells)):
            v = cells[rows].astype(np.float64)
            h = np.sqrt(_variance_terms(v, depth[rows]) @ self.scale)
            upper[rows] = np.clip(np.maximum(v + self.high * h, v), 0, 1)
            inside = np.clip(np.minimum(v + self.low * h, v), np.minimum(v, PRESENT), 1)
            lower[rows] = np.where(v <= self.absent, 0 * v, inside)
        return lower, upper


def fit(
    X: Any,
    reference: Reference,
    cells: Cells | None,
    *,
    cells_per_spot: tuple[int, int],
    columns: Array | None = None,
    graph: Any = None,
    regions: Array | None = None,
    options: Options = DEFAULTS,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Fit:
    """Deconvolve as :func:`spanmf.core._stl.fit` does, with calibrated intervals; of counts without cells, with those of curvature."""
    known: dict[str, Any] = {"columns": columns, "graph": graph, "regions": regions, "progress": progress}
    cells = None if cells is None or options.level is None else cells.with_counts()
    found = _stl.fit(X, reference, options=options if cells is None else replace(options, level=None), rng=rng, **known)
    if options.level is None or (cells is None and found.likelihood == "poisson"):
        return found
    wanted = _stl_noise.SPOTS if found.likelihood == "gaussian" else SPOTS
    rows = patch(graph, np.flatnonzero(found.depth > 0), rng, wanted)
    part = _part(X, rows, columns)
    near: dict[str, Any] = {
        "graph": None if graph is None else graph[rows][:, rows],
        "regions": None if regions is None else regions[rows],
        "rng": rng,
        "progress": progress,
    }
    made = replace(options, level=None, likelihood=found.likelihood, platform=found.platform is not None, device=None)
    if cells is None or found.likelihood == "gaussian":
        section = _stl_noise.Section(
            part, reference.B, lambda values: _stl.fit(values, reference, options=made, **near).cells
        )
        calibration = from_errors(*section.errors(found.cells[rows], rng), options.level)
    else:
        calibration = calibrate(
            cells, found.cells[rows], np.asarray(part.sum(1)).ravel(), level=options.level,
            cells_per_spot=cells_per_spot, factors=gene_factors(found, part.shape[1]), options=made, **near,
        )  # fmt: skip
    lower, upper = calibration.bounds(found.cells, found.depth)
    return replace(found, lower=lower, upper=upper, calibrated=True)


def _part(X: Any, rows: Array, columns: Array | None) -> sp.csr_matrix:
    """Some spots on some columns."""
    if isinstance(X, Blocks):
        return (X if columns is None else X.select(columns)).take(rows).as_scipy()
    part = sp.csr_matrix(X[rows])
    return part if columns is None else part[:, columns]


def calibrate(
    cells: Cells,
    shares: Array,
    depth: Array,
    *,
    level: float,
    cells_per_spot: tuple[int, int],
    factors: Array | None = None,
    graph: Any = None,
    regions: Array | None = None,
    options: Options = DEFAULTS,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Calibration:
    """Learn from spots made of cells how far from the truth the shares are that are found in them."""
    found, truth, depths = [], [], []
    for _ in range(int(np.clip(-(-MADE // (2 * len(shares))), *SPLITS))):
        halves = cells.halves(rng)
        for known, held in (halves, halves[::-1]):
            X, V = make_spots(held, shares, depth, cells_per_spot, rng, factors)
            done = _stl.fit(
                X, known.reference(), graph=graph, regions=regions, options=options, rng=rng, progress=progress
            )
            valid = done.depth > 0
            found.append(done.cells[valid])
            truth.append(V[valid])
            depths.append(done.depth[valid])
    return from_errors(np.concatenate(found), np.concatenate(truth), np.concatenate(depths), level)


def from_errors(found: Array, truth: Array, depth: Array, level: float) -> Calibration:
    """Widths from shares found (n × k) whose truth is known."""
    found = found.astype(np.float64)
    present, tail = truth > 0, (1 - level) / 2
    error, terms = truth - found, _variance_terms(found, depth)
    scale, _ = nnls(terms[present], error[present] ** 2)
    scale[0] += LEAST * np.mean(error[present] ** 2)  # else the width at a share of zero may be none at all
    ratio = error / np.sqrt(np.maximum(terms @ scale, 1e-12))
    k = found.shape[1]
    low, high, absent = np.empty(k), np.empty(k), np.empty(k)
    for t in range(k):
        own, zero = present[:, t], ~present[:, t]
        low[t], high[t] = _shared_quantiles(ratio[own, t], ratio[present], BORROWED, (tail, 1 - tail))
        (absent[t],) = _shared_quantiles(found[zero, t], found[~present], BORROWED_ZEROS, (level,))
    return Calibration(scale, low, high, absent)


def patch(graph: Any, valid: Array, rng: np.random.Generator, wanted: int) -> Array:
    """Spots to make anew (ascending): all, or some patches of neighbours, or, without a graph, some."""
    if len(valid) <= wanted:
        return valid
    if graph is None:
        return np.sort(rng.choice(valid, wanted, replace=False))
    taken = np.zeros(graph.shape[0], bool)
    usable = np.zeros(graph.shape[0], bool)
    usable[valid] = True
    while taken.sum() < wanted:
        near = breadth_first_order(graph, rng.choice(valid), directed=False, return_predecessors=False)
        near = near[usable[near] & ~taken[near]]
        taken[near[: min(wanted // PATCHES, wanted - int(taken.sum()))]] = True
    return np.flatnonzero(taken)


def gene_factors(found: Fit, p: int) -> Array | None:
    """Factors of all genes that section and reference have in common: one for those not in use."""
    if found.platform is None:
        return None
    out = np.ones(p)
    out[found.genes] = found.platform
    return out


def _variance_terms(v: Array, depth: Array) -> Array:
    """The terms of h² (n × k × 4)."""
    spread = v * (1 - v)
    noise = np.broadcast_to(1 / np.maximum(depth, 1)[:, None], v.shape)
    return np.stack([np.ones_like(v), spread, noise, spread * noise], axis=-1)


def _shared_quantiles(own: Array, all_: Array, borrowed: float, levels: tuple[float, ...]) -> list[float]:
    """Quantiles of a type's own values and of all, these with the weight of a few."""
    values = np.concatenate([own, all_])
    weights = np.concatenate([np.ones(len(own)), np.full(len(all_), borrowed / max(len(all_), 1))])
    if not len(values):
        return [0.0 for _ in levels]
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    at = np.searchsorted(reached, np.array(levels) * reached[-1])
    return [float(v) for v in values[order][np.minimum(at, len(values) - 1)]]
