"""Cell types in spots."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from .. import _checks, _dask, _data, _keys, _reference
from .._docs import doc
from .._logging import logger, status, timed
from ..core import _stl, _stl_calibrate, _stl_em, _stl_model, _stl_prior, _torch
from . import _fit, _stl_paper_form

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from .._stl_weights import StlWeights


@_fit.presets({}, _stl_paper_form.idle)
@doc
def stl_nmf(
    adata: AnnData | SpatialData,
    reference: AnnData | pd.DataFrame,
    *,
    region_key: str | None = None,
    connectivity_key: str | None = None,
    likelihood: Literal["auto", "poisson", "gaussian"] = "auto",
    graph_weight: float = 10.0,
    border_weight: float = 0.3,
    region_weight: float = 0.0,
    reference_weight: float = 2.0,
    platform: bool | Literal["auto"] = "auto",
    n_genes: int | None = 3000,
    interval: float | None = None,
    cells_per_spot: tuple[int, int] = (3, 12),
    preset: Literal["paper"] | None = None,
    weights: StlWeights | str | Path | None = None,
    layer: str | None = None,
    max_iter: int = 300,
    tol: float = 1e-4,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    device: str = "cpu",
    library_key: str | None = None,
    key_added: str = "stl_nmf",
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Tell what share of the cells, and of the mRNA, of every spot belongs to each cell type.

    Let x be the counts of a spot of depth N, :math:`q_k` the profile of type k on the genes in use (sums to one) and
    :math:`\pi` the types' shares of the counts. Minimised is

    .. math:: \sum_i N_i\,\mathrm{KL}\Bigl(\tfrac{x_i}{N_i}\Big\|\sum_k \pi_{ik} q_k\Bigr)
              + a\sum_i\mathrm{KL}(m_i\|\pi_i) + \sum_k s_k\,\mathrm{KL}(q_k^0\|q_k)

    with :math:`m_i` the mean of :math:`\pi` over the spot's neighbours, which counts as *a* molecules (``graph_weight``), and
    :math:`q^0_k` the reference's profile, which stands on :math:`s_k` molecules (``reference_weight`` times those of its cells,
    and at least as many as the median type's): the section itself mends the profiles. Shares of mRNA are :math:`\pi` relative to what the genes in use
    catch of each type; shares of cells are those divided by the types' mRNA content. Data whose residuals are smaller than counting
    would make them (simulated without noise, averaged, smoothed) are fitted by non-negative least squares on all genes instead.

    X may be a dask array of blocks of rows: these are read one by one in every pass, and never together.

    Parameters
    ----------
    {adata}
    reference
        What :func:`spanmf.tl.reference_profiles` returns, or a DataFrame (types × genes) of mean counts of a cell. Without
        cell numbers (a DataFrame) the profiles are taken as they are.
    region_key
        Column of ``adata.obs`` with regions (histology). Spots without one (NaN) belong to none.
    {connectivity_key}
    likelihood
        ``"poisson"``, ``"gaussian"``, or by the data: Gaussian where the Pearson dispersion of a first fit is below 0.75.
    graph_weight
        Pseudo-counts a of the neighbours' mean; 0 leaves the graph out.
    border_weight
        Factor on edges between different regions.
    region_weight
        Pseudo-counts of the region's mean.
    reference_weight
        How much a molecule of the reference's cells weighs against one of the section; ``np.inf`` keeps the profiles as they are.
    platform
        Give every gene a factor of its own between reference and section. ``"auto"``: where the genes' totals depart from
        a first fit by a robust log-sd above 0.5.
    n_genes
        Number of genes to use, those with the most variance between types relative to their mean; ``None``: all.
    interval
        Level of intervals of the shares of cells (e.g. 0.9); ``None``: none. If the reference holds cells (as
        :func:`spanmf.tl.reference_profiles` keeps them), widths are calibrated on spots made of one half of these and
        deconvolved by the other: of the types that are present so many shares are covered, and of those that are not, on spots that are sums of cells
        like the reference's. Takes 4 to 16 further fits, of up to 4,000 spots. Counts without such cells (a DataFrame) get intervals that know of counting
        noise only, and are too narrow by far where spots are sums of a few cells. For least squares no cells are needed: widths are calibrated on spots (up to
        1,000) made of the shares found, with the noise that the residuals have, cut or rounded where values are whole; they know of no error of the profiles.
    cells_per_spot
        Least and most cells in a spot of those made to calibrate the intervals: the fewer, the wider these are.
    preset
        ``"paper"``: the published form, on all genes in common, with a dense graph of place (``adata.obsm["spatial"]``) and region (up to 5,000 spots;
        a dask array is read whole).
    weights
        Its numbers, as :func:`spanmf.tl.learn_stl_nmf` returns them, or the path of their file (:class:`spanmf.tl.StlWeights`).
        Given, the published form is used. ``None``: those from which the authors' training starts.
    {layer}
    max_iter
        Most passes, of the mending and of the shares each.
    tol
        The run stops when a pass changes the objective by less than this share of it.
    {rng}
    {device}
        What is learned of the profiles, from at most 4,000 spots, and least squares stay on the CPU.
    {library_key}
        Edges between them are cut, and a region is one region in each.
    key_added
        Base name of the slots.
    {table_key}
    {copy}

    Returns
    -------
    The copy if ``copy``, else ``None``. Written (with the default ``key_added``):

    ``adata.obsm["stl_nmf"]`` : DataFrame n × k, float32
        Shares of the cells; rows sum to one, NaN where a spot has no counts. Types are the columns; ``/``, which files cannot hold in a
        name, is ``|`` there (plots and ``uns`` have the names as given).
    ``adata.obsm["stl_nmf_mrna"]`` : DataFrame n × k, float32
        Shares of the mRNA (on the genes that section and reference have in common).
    ``adata.obsm["stl_nmf_lower"]``, ``adata.obsm["stl_nmf_upper"]`` : DataFrame n × k, float32
        Bounds of the shares of the cells, if ``interval`` is given. A lower bound above zero says that the type is there.
    ``adata.obs["stl_nmf"]`` : categorical
        Type with the largest share of the cells.
    ``adata.obs["stl_nmf_deviance"]``, ``adata.var["stl_nmf_deviance"]`` : float64
        Poisson deviance of each spot (a count) and gene (in all; NaN for genes not in use).
    ``adata.varm["stl_nmf_profiles"]`` : p × k, float32
        Profiles as the section has mended them; zero rows for genes not in use.
    ``adata.uns["stl_nmf"]`` : dict
        ``params``, ``types`` (their names as given), ``likelihood`` and ``dispersion``, ``platform`` (whether genes got factors),
        ``n_genes``, ``calibrated`` (whether the intervals are), ``mrna`` (content of the types as used), ``trace``, ``mending``, ``n_iter``, ``converged``, ``versions``.

    Of the published form, ``trace`` is its objective before every update and after the last, and ``uns`` has ``weights`` besides.

    Raises
    ------
    KeyError
        If there is no spatial graph (unless ``graph_weight=0``), or a column or layer is missing.
    ValueError
        If values are negative, NaN, infinite or logarithms; if section and reference have too few genes in common; if a type's profile
        is all zero; if a parameter is out of range; if ``region_weight`` is given without ``region_key``;
        if ``weights`` were learned for other types or regions, or there are too many spots for the published form;
        if there is no such device.
    RuntimeError
        If a block of X cannot be read: which, and why.
    ImportError
        If the device needs torch, and torch is not installed.
    MemoryError
        If the device has too little memory: what is needed, and what is free.

    Warns
    -----
    SpanmfWarning
        If genes were matched by anything but their equal names, or are few; if two types have almost the same profile; if
        spots have no counts.
    ConvergenceWarning
        If ``max_iter`` was reached.

    References
    ----------
    Konkel, Zhang, Guo, Zhang: *Unrolling regularized non-negative matrix factorization for spatial transcriptomics
    deconvolution* (the idea of place and region). Varadhan & Roland (2008), *Scand. J. Stat.* 35, 335 (acceleration).

    Examples
    --------
    >>> import spanmf as sn
    >>> cells, section = sn.datasets.xenium_tissue(1000), sn.datasets.visium_section(200)
    >>> sn.gr.contact_neighbors(section)
    >>> reference = sn.tl.reference_profiles(cells, "cell_type")
    >>> sn.tl.stl_nmf(section, reference)
    >>> section.obsm["stl_nmf"].shape == (200, reference.n_obs)
    True
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    _checks.check_key_added(key_added)
    options = _options(
        likelihood,
        graph_weight,
        region_weight,
        reference_weight,
        platform,
        n_genes,
        interval,
        cells_per_spot,
        max_iter,
        tol,
    )
    options = replace(options, device=_checks.check_device(device))
    if region_weight > 0 and region_key is None:
        msg = f"`region_weight={region_weight:g}` needs regions: name their column of `adata.obs` with `region_key=`."
        raise ValueError(msg)
    _checks.check_range("border_weight", border_weight, 0)
    published = preset is not None or weights is not None
    if published:
        _stl_paper_form.check_size(table.n_obs)  # before anything is read
    profiles = _reference.as_profiles(reference)
    columns, matched, how = _reference.match_genes(list(table.var_names), profiles.genes)
    _reference.check_matched(len(columns), list(table.var_names), profiles)
    B = profiles.B[:, matched]
    kept = None if profiles.cells is None else replace(profiles.cells, X=profiles.cells.X[:, matched])
    _reference.check_left(B, profiles.types)
    _reference.warn_of_same(profiles.types, B)
    regions = _regions(table, region_key, library_key)
    numbers = _stl_paper_form.as_weights(weights)
    A, graph_key = (
        (None, None)
        if published
        else _graph(table, connectivity_key, graph_weight, regions, border_weight, library_key)
    )
    X, name = _data.get_matrix(table, layer, lazy=not published)
    X = _dask.in_blocks(X, name)
    _checks.check_in_memory(X, device)
    _reference.check_section(X, name)
    _check_device(X, len(B), options)
    with timed("tl.stl_nmf") as notes:
        with (
            threadpool_limits(1, "blas"),
            status("spanmf: compiling kernels (once on this machine)", show=not _stl_em.is_compiled(len(B))),
        ):
            _stl.warm_up(len(B))
        with threadpool_limits(1, "blas"), tqdm(desc="tl.stl_nmf", unit="pass", delay=3, leave=False) as bar:

            def progress(i: int, objective: float) -> None:
                bar.update()
                bar.set_postfix(objective=f"{objective:.6g}", refresh=False)

            stream = _data.default_rng(rng, random_state)
            fit = _stl_paper_form.fit(
                table, X, columns, B, profiles.types, numbers, region_key, library_key, stream, progress
            ) if published else _stl_calibrate.fit(
                X, _stl_model.Reference(B, profiles.n_cells), kept, cells_per_spot=cells_per_spot, columns=columns, graph=A,
                regions=regions, options=options, rng=stream, progress=progress,
            )  # fmt: skip
        empty = int(np.isnan(fit.cells[:, 0]).sum())
        if empty:
            _checks.warn(f"{empty} of {table.n_obs} spots have no counts on the genes in use: their shares are NaN.")
        if not fit.converged:
            _checks.warn(
                f"tl.stl_nmf stopped at max_iter={max_iter} before the objective settled to tol={tol:g}.",
                _checks.ConvergenceWarning,
            )
        if fit.likelihood == "gaussian" and options.device is not None and not published:
            _checks.warn(f"`device={device!r}` had no effect: these values are fitted by least squares, on the CPU.")
        params = {
            "region_key": region_key, "connectivity_key": graph_key, "likelihood": likelihood,
            "graph_weight": float(graph_weight), "border_weight": float(border_weight),
            "region_weight": float(region_weight), "reference_weight": float(reference_weight), "platform": platform,
            "n_genes": n_genes, "interval": interval, "cells_per_spot": cells_per_spot, "layer": layer, "max_iter": max_iter, "tol": tol,
            "library_key": library_key, "device": device,
        }  # fmt: skip
        if published:
            params = {k: v for k, v in params.items() if k not in _stl_paper_form.IDLE} | {"preset": "paper"}
        record = _data.provenance(
            params, types=np.array(profiles.types, dtype=object), likelihood=fit.likelihood,
            dispersion=float(fit.dispersion), platform=fit.platform is not None, n_genes=len(fit.genes),
            matched={k.replace(" ", "_"): n for k, n in how.items()}, mrna=fit.sizes, trace=fit.trace,
            calibrated=fit.calibrated if interval is not None else None, mending=fit.mending, n_iter=fit.n_iter, converged=bool(fit.converged),
        )  # fmt: skip
        if published:
            record["weights"] = _data.storable({k: v for k, v in asdict(numbers).items() if v != ()})
        table = _data.target(table, copy=copy)
        _write(table, key_added, profiles.types, fit, columns)
        table.uns[_keys.ProportionKeys(key_added).cells] = record
        notes.append(
            f"{len(B)} types on {len(fit.genes)} genes, {fit.likelihood}; added obsm[{key_added!r}], obs[{key_added!r}]"
        )
    return table if copy else None


def _options(
    likelihood: str, graph_weight: float, region_weight: float, reference_weight: float, platform: bool | str,
    n_genes: int | None, interval: float | None, cells_per_spot: tuple[int, int], max_iter: int, tol: float,
) -> _stl_model.Options:  # fmt: skip
    """Check what the user chose."""
    _checks.check_choice("likelihood", likelihood, _stl_model.LIKELIHOODS)
    _checks.check_choice("platform", platform, (True, False, "auto"))
    _checks.check_range("graph_weight", graph_weight, 0)
    _checks.check_range("region_weight", region_weight, 0)
    if reference_weight != np.inf:
        _checks.check_range("reference_weight", reference_weight, 0)
    if n_genes is not None:
        _checks.check_range("n_genes", n_genes, 1, integer=True)
    if interval is not None:
        _checks.check_range("interval", interval, 0.01, 0.999)
    _checks.check_bounds("cells_per_spot", cells_per_spot, 1)
    _checks.check_range("max_iter", max_iter, 1, integer=True)
    _checks.check_range("tol", tol, 0)
    return _stl_model.Options(
        likelihood, n_genes, float(graph_weight), float(region_weight), float(reference_weight), platform,
        int(max_iter), float(tol), interval,
    )  # fmt: skip


def _check_device(X: Any, n_types: int, options: _stl_model.Options) -> None:
    """What the device is to do, and whether it can hold the counts."""
    if options.device is None:
        return
    if options.likelihood == "gaussian":
        msg = "`likelihood='gaussian'` runs on the CPU only. Leave `device` out."
        raise ValueError(msg)
    values = int(X.nnz if sp.issparse(X) else np.count_nonzero(X))
    needed = _torch.bytes_needed(X.shape[0], values, n_types, by_column=False)
    _checks.check_device_memory(needed, _torch.memory_left(options.device), options.device)


def _regions(table: AnnData, region_key: str | None, library_key: str | None) -> np.ndarray | None:
    """Codes of the regions (of each library), −1 where there is none."""
    if region_key is None:
        return None
    codes, names = _data.get_labels(table, region_key)
    if not names:
        msg = f"No spot has a region in `adata.obs[{region_key!r}]`."
        raise ValueError(msg)
    missing = int((codes < 0).sum())
    if missing:
        logger.info("%d spots have no region in obs[%r]: they belong to none", missing, region_key)
    libraries, _ = _data.get_libraries(table, library_key)
    return np.where(codes < 0, -1, libraries.astype(np.int64) * len(names) + codes)


def _graph(
    table: AnnData, connectivity_key: str | None, weight: float, regions: np.ndarray | None, border: float,
    library_key: str | None,
) -> tuple[Any, str | None]:  # fmt: skip
    """The graph with weak edges across borders and none between libraries; ``None`` where it has no weight."""
    if weight == 0 or table.n_obs == 1:
        return None, None
    A, key = _data.get_graph(table, connectivity_key)
    _checks.check_edges(A, key)
    if regions is not None:
        A = _stl_prior.weaken_borders(A, regions, border)
    if library_key is not None:
        A = _stl_prior.weaken_borders(A, _data.get_libraries(table, library_key)[0], 0.0)
    return _data.as_graph(A), key


def _write(table: AnnData, key: str, types: list[str], fit: _stl_model.Fit, columns: np.ndarray) -> None:
    """Write shares, labels, quality and profiles."""
    keys = _keys.ProportionKeys(key)
    names = _reference.storable_names(types)
    for slot, values in (
        (keys.cells, fit.cells), (keys.mrna, fit.mrna), (keys.lower, fit.lower), (keys.upper, fit.upper)
    ):  # fmt: skip
        if values is None:
            table.obsm.pop(slot, None)  # of an earlier run
        else:
            table.obsm[slot] = pd.DataFrame(values, index=table.obs_names.copy(), columns=names)
    empty = np.isnan(fit.cells[:, 0])
    codes = np.where(empty, -1, np.nan_to_num(fit.cells).argmax(1))
    table.obs[keys.cells] = pd.Categorical.from_codes(codes, categories=names)
    table.obs[keys.deviance] = fit.spot_deviance
    used = columns[fit.genes]
    quality = np.full(table.n_vars, np.nan)
    quality[used] = fit.gene_deviance
    table.var[keys.deviance] = quality
    loadings = np.zeros((table.n_vars, len(types)), np.float32)
    loadings[used] = fit.profiles.T
    table.varm[keys.profiles] = loadings
