"""Consensus of many factorisations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from .. import _checks, _data
from .._docs import doc
from .._logging import timed
from ..core import _blocks, _consensus, _error, _solver
from . import _fit

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def consensus_nmf(
    adata: AnnData | SpatialData,
    n_components: int = 10,
    *,
    n_restarts: int = 20,
    density_threshold: float = 0.5,
    layer: str | None = None,
    mask_var: str | np.ndarray | None = "auto",
    loss: Literal["frobenius", "kl"] = "frobenius",
    max_iter: int = 500,
    tol: float = 3e-6,
    normalize: bool = False,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    key_added: str = "consensus_nmf",
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Factorise many times from random starts and keep what the runs agree on.

    The objective of :func:`spanmf.tl.nmf` has many local minima; which one a run ends in is chance. As in cNMF:

    1. ``n_restarts`` runs, each from random loadings. Above 10,000 observations a run begins on 5,000 random ones of its
       own and is then continued on all, to the same stopping rule. Neither start nor rows are shared between runs.
    2. The rows of every H, at unit norm, are the spectra. The local density of one is its mean distance to the nearest
       30 % × ``n_restarts`` others; spectra at ``density_threshold`` or above, which few other runs found, are left out.
    3. k-means puts the others into k clusters; the median of each, at unit norm, is a row of the consensus H.
    4. W is solved with this H fixed: non-negative least squares, or its KL counterpart.

    Parameters
    ----------
    {adata}
    n_components
        Number of components k, from 1 to min(n, p).
    n_restarts
        Number of runs, at least 2.
    density_threshold
        Local density (mean distance between spectra, from 0 to √2) from which a spectrum is left out. 0.5 leaves out
        what hardly any other run found; 0.1 is strict. 2 keeps all.
    {layer}
    {mask_var}
    {loss}
    {stopping}
    {normalize}
    {rng}
    key_added
        Base name of the slots.
    {table_key}
    {copy}

    Returns
    -------
    The copy if ``copy``, else ``None``. Written (with the default ``key_added``):

    ``adata.obsm["X_consensus_nmf"]`` : n × k, float32
        Factors W.
    ``adata.varm["consensus_nmf_loadings"]`` : p × k, float32
        Loadings Hᵀ, columns of unit norm; zero rows for variables that were not used.
    ``adata.obs["consensus_nmf"]`` : categorical
        Dominant component of each observation, :math:`\arg\max_k W_{ik}\lVert H_k\rVert`; NaN where W is all zero.
    ``adata.uns["consensus_nmf"]`` : dict
        ``params``; ``silhouette`` of the clusters of spectra (−1 to 1, higher is more stable; NaN for one component);
        ``stability`` (mean cosine of the components of two runs, matched one to one; 0 to 1); ``share_filtered`` of the
        spectra; ``density`` and ``cluster`` (−1: left out) of every spectrum, run by run; ``run_objective`` of every
        run; ``objective`` of the consensus factors, which is above the best run's; ``versions``.

    Raises
    ------
    KeyError
        If the layer or the mask column is missing.
    ValueError
        If values are negative, NaN, infinite or all zero; if a parameter is out of range; if the filter leaves fewer
        than k spectra.

    Warns
    -----
    SpanmfWarning
        If the values look like raw counts (with the Frobenius loss).
    ConvergenceWarning
        If runs reached ``max_iter`` first.

    References
    ----------
    Kotliar et al. (2019), *Identifying gene expression programs of cell-type identity and cellular activity with
    single-cell RNA-Seq* (cNMF), *eLife* 8, e43803.

    See Also
    --------
    spanmf.tl.select_n_components : stability over a range of k, beside held-out error.

    Examples
    --------
    >>> import scanpy as sc, spanmf as sn
    >>> adata = sn.datasets.planted_factors(500, 60, 4)
    >>> sn.tl.consensus_nmf(adata, 4, n_restarts=6, loss="kl")
    >>> adata.obsm["X_consensus_nmf"].shape
    (500, 4)
    >>> adata.uns["consensus_nmf"]["silhouette"] > 0.8
    True
    """
    table = _data.get_table(adata, table_key)
    _checks.check_key_added(key_added)
    check_restarts(n_restarts)
    _checks.check_range("density_threshold", density_threshold, 0, open_low=True)
    with timed("tl.consensus_nmf") as notes:
        stream = _data.default_rng(rng, random_state)
        problem = _fit.prepare(
            table, n_components, layer=layer, mask_var=mask_var, loss=loss, alpha_W=0.0, alpha_H=0.0, l1_ratio=0.0,
            init="random", max_iter=max_iter, tol=tol, normalize=normalize, preset=None, rng=stream,
        )  # fmt: skip
        problem = replace(problem, X=_blocks.part_in_memory(problem.X, None))  # a dask array is read
        found = agree(problem, n_restarts, density_threshold)
        params = problem.params | {
            "n_restarts": int(n_restarts),
            "density_threshold": float(density_threshold),
            "rng": _fit.seed_of(rng, random_state),
        }
        table = _data.target(table, copy=copy)
        labels = _fit.component_labels(_fit.dominant(found.W, found.H), problem.n_components)
        added = _fit.write(table, key_added, (found.W, found.H, problem.mask), labels, params, **found.results)
        notes += [f"{n_restarts} runs, {found.results['share_filtered']:.0%} of the spectra left out", added]
    return table if copy else None


def check_restarts(n_restarts: Any) -> None:
    """A consensus needs two."""
    _checks.check_range("n_restarts", n_restarts, 2, integer=True)


@dataclass(frozen=True)
class Agreed:
    """Consensus factors, and what ``uns`` keeps of how they came about."""

    W: np.ndarray
    H: np.ndarray
    results: dict[str, Any]


def run_all(problem: _fit.Problem, k: int, n_restarts: int, bar: tqdm) -> tuple[_consensus.Runs, _solver.Result]:
    """All restarts at one rank, with a warning where some did not converge."""
    runs, best = _consensus.restarts(
        problem.X, k, problem.rng.spawn(n_restarts), loss=problem.loss, max_iter=problem.max_iter, tol=problem.tol,
        progress=bar.update,
    )  # fmt: skip
    if not runs.converged.all():
        _checks.warn(
            f"{int((~runs.converged).sum())} of {n_restarts} runs with {k} components stopped at "
            f"max_iter={problem.max_iter} before the objective settled to tol={problem.tol:g}. "
            "Raise `max_iter`, or `tol` if the factors are good enough.",
            _checks.ConvergenceWarning,
        )
    return runs, best


def agree(problem: _fit.Problem, n_restarts: int, density_threshold: float) -> Agreed:
    """Restarts, consensus, W refitted."""
    k = problem.n_components
    _fit.compile_once(problem.loss, k)
    with threadpool_limits(1, "blas"):  # the last bits of its products depend on the number of threads
        with tqdm(total=n_restarts, desc="tl.consensus_nmf", unit="run", delay=3, leave=False) as bar:
            runs, _ = run_all(problem, k, n_restarts, bar)
        density = _consensus.densities(runs)
        _checks.check_density(density, density_threshold, k)
        agreed = _consensus.consensus(runs, density, density_threshold, problem.rng)
        W = _solver.solve_w(problem.X, agreed.H, loss=problem.loss)
        results = {
            "silhouette": agreed.silhouette,
            "stability": _consensus.matched_cosine(runs),
            "share_filtered": agreed.share_filtered,
            "density": density,
            "cluster": agreed.cluster,
            "run_objective": runs.objective,
            "objective": _error.objective(problem.X, W, agreed.H, problem.loss),
        }
        W, H = _fit.by_size(W, agreed.H)
    return Agreed(W, H, results)
