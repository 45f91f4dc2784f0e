"""Many factorisations of the same data, and what they agree on.

Restarts, filter and clusters as in Kotliar et al. (2019), *eLife* 8, e43803.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import silhouette_score

from . import _domains, _solver
from ._ops import Rows

Array = np.ndarray

WARM_ROWS = 5_000  # rows on which a restart begins
WARM_PASSES = 40
WARM_TOL = 1e-4
NEIGHBOURHOOD = 0.3  # share of the restarts whose nearest spectra make the local density


@dataclass(frozen=True)
class Runs:
    """Loadings of every restart with rows of unit norm (runs × k × p, float32), and their objectives."""

    H: Array
    objective: Array
    converged: Array


@dataclass(frozen=True)
class Consensus:
    """Consensus loadings (k × p, rows of unit norm), the cluster of every spectrum (−1: left out), their silhouette."""

    H: Array
    cluster: Array
    silhouette: float

    @property
    def share_filtered(self) -> float:
        """Share of the spectra that were left out."""
        return float((self.cluster < 0).mean())


def restart(X: Rows, k: int, rng: np.random.Generator, *, loss: str, max_iter: int, tol: float) -> _solver.Result:
    """One factorisation from random loadings: first on random rows of its own, then on all of them.

    The first part costs little and saves about half of the passes over all rows. Neither the loadings nor the rows are shared
    with other restarts, and each ends by the same rule on all of X.
    """
    H = rng.random((k, X.shape[1])) * X.data.mean(dtype=np.float64)
    n = X.shape[0]
    if n >= 2 * WARM_ROWS:
        part = X.take(np.sort(rng.choice(n, WARM_ROWS, replace=False)))
        H = _solver.fit(part, H, loss=loss, max_iter=WARM_PASSES, tol=WARM_TOL).H
        H = np.maximum(H, 1e-2 * H.mean()) if loss == "kl" else H  # a zero is for ever under KL
    return _solver.fit(X, H, loss=loss, max_iter=max_iter, tol=tol)


def restarts(
    X: Rows,
    k: int,
    streams: list[np.random.Generator],
    *,
    loss: str = "frobenius",
    max_iter: int = 500,
    tol: float = 1e-5,
    progress: Callable[[], None] = lambda: None,
) -> tuple[Runs, _solver.Result]:
    """All restarts, and the one of the lowest objective whole."""
    best: _solver.Result | None = None
    spectra = np.zeros((len(streams), k, X.shape[1]), dtype=np.float32)
    objective, converged = np.zeros(len(streams)), np.zeros(len(streams), dtype=bool)
    for i, stream in enumerate(streams):
        result = restart(X, k, stream, loss=loss, max_iter=max_iter, tol=tol)
        spectra[i], objective[i], converged[i] = unit_rows(result.H), result.trace[-1], result.converged
        best = result if best is None or objective[i] < best.trace[-1] else best
        progress()
    assert best is not None
    return Runs(spectra, objective, converged), best


def unit_rows(H: Array) -> Array:
    """Rows of unit norm; empty ones stay empty."""
    norms = np.linalg.norm(H, axis=1, keepdims=True)
    return H / np.where(norms > 0, norms, 1)


def local_density(spectra: Array, n_neighbors: int) -> Array:
    """Mean distance of every spectrum (m × p, unit norm) to its nearest others; infinite for empty ones."""
    filled = np.flatnonzero(spectra.any(1))
    density = np.full(len(spectra), np.inf)
    if len(filled) < 2:
        return density
    S = spectra[filled].astype(np.float64)
    distances = np.sqrt(np.maximum(2 - 2 * S @ S.T, 0))
    np.fill_diagonal(distances, np.inf)
    n_neighbors = min(n_neighbors, len(filled) - 1)
    density[filled] = np.partition(distances, n_neighbors - 1, axis=1)[:, :n_neighbors].mean(1)
    return density


def densities(runs: Runs) -> Array:
    """Local density of every spectrum, run by run."""
    n_runs, k, p = runs.H.shape
    return local_density(runs.H.reshape(n_runs * k, p), max(1, int(NEIGHBOURHOOD * n_runs)))


def consensus(runs: Runs, density: Array, threshold: float, rng: np.random.Generator) -> Consensus:
    """Leave out spectra of a density from ``threshold``, k-means into k clusters, median of each.

    At least k spectra must be below the threshold.
    """
    n_runs, k, p = runs.H.shape
    spectra = runs.H.reshape(n_runs * k, p)
    kept = np.flatnonzero(density < threshold)
    labels, _ = _domains.k_means(spectra[kept], k, rng)
    H = unit_rows(np.stack([np.median(spectra[kept[labels == c]], axis=0) for c in range(k)]))
    cluster = np.full(n_runs * k, -1)
    cluster[kept] = labels
    clear = 1 < k < len(kept)
    return Consensus(H, cluster, float(silhouette_score(spectra[kept], labels)) if clear else float("nan"))


def matched_cosine(runs: Runs) -> float:
    """Stability: cosine of the components of two runs, matched one to one, averaged over components and pairs of runs."""
    H = runs.H.astype(np.float64)
    values = []
    for i in range(len(H)):
        for j in range(i):
            cosine = H[i] @ H[j].T
            values.append(cosine[linear_sum_assignment(-cosine)].mean())
    return float(np.mean(values))
