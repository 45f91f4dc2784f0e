"""Factors that several modalities share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from .. import _checks, _dask, _data, _keys, _mudata
from .._docs import doc
from .._logging import timed
from ..core import _graph, _init, _joint, _joint_layout, _joint_start, _smooth, _snmf
from . import _fit, _joint_values
from ._snmf import check_smoothing, smoothing_params

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

WEIGHTS = ("balanced", "stacked")
MISSING = ("mask", "pad")
SMOOTHINGS = (None, *_fit.SMOOTHINGS)
PAPER = {"preprocessing": "log1p", "weights": "stacked", "missing": "pad", "init": "nndsvda", "max_iter": 500}


@_fit.presets(PAPER)
@doc
def joint_nmf(
    data: MuData | Mapping[str, AnnData] | AnnData,
    n_components: int = 10,
    *,
    obsm_key: str | None = None,
    preprocessing: Literal["auto", "rna", "protein", "log1p", "none"] | Mapping[str, str] = "auto",
    weights: Literal["balanced", "stacked"] | Mapping[str, float] = "balanced",
    missing: Literal["mask", "pad"] = "mask",
    loss: Literal["frobenius", "kl"] | Mapping[str, str] = "frobenius",
    private: int | Mapping[str, int] = 0,
    smoothing: Literal["refit", "diffuse", "laplacian"] | None = None,
    beta: float = 0.6,
    n_steps: int = 2,
    laplacian_weight: float = 1.0,
    connectivity_key: str | None = None,
    init: Literal["auto", "nndsvda"] = "auto",
    max_iter: int = 500,
    tol: float = 3e-6,
    preset: Literal["paper"] | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    device: str = "cpu",
    key_added: str = "joint_nmf",
    copy: bool = False,
) -> MuData | None:
    r"""Factorise two or more modalities into factors that they share.

    .. math::

        \min_{W, H \ge 0} \sum_m \omega_m \tfrac12 \lVert M_m \circ (X_m - W H_m) \rVert_F^2
        \;\bigl(+ \tfrac\lambda2 \operatorname{Tr}(W^\top L W)\bigr)

    with :math:`X_m` the preprocessed values of modality m and :math:`M_m` the observations that it has. Those that a modality lacks
    count there as zeros of weight 0.02, which bounds what nothing else bounds. The preprocessing decides more than the solver (see :doc:`/methods`).

    Parameters
    ----------
    data
        A MuData; or a dict of AnnData (name: table); or one AnnData with the other modality in ``obsm`` (``obsm_key``).
        Observations are matched by name. X of a modality may be a dask array of blocks of rows, with its observations in the order of
        the others; it is read block by block, and stays as it is (see :doc:`/large_data`). Tables that were opened lazily go into a dict,
        since a MuData needs their ``obs`` and ``var`` in memory.
    n_components
        Number of shared components k.
    obsm_key
        Entry of ``adata.obsm`` that holds the other modality of one AnnData, which is then called ``"rna"``.
    preprocessing
        For all modalities, or one each. ``"rna"``: library size, log1p (where the values are counts), selected genes, divided
        by their standard deviations. ``"protein"``: :func:`spanmf.pp.clr`. ``"log1p"``: the logarithm alone (published; not
        where ``uns["log1p"]`` says that it was taken).
        ``"none"``: the values as they are. ``"auto"``: by the name of the modality or ``var["feature_types"]``. RNA uses
        ``var["highly_variable"]`` where it is, else the 2,000 most variable genes where there are more. Counts of a
        ``loss="kl"`` modality stay as they are.
    weights
        ``"balanced"``: every modality the same mean square of an observation. ``"stacked"``: values as they are side by side
        (published). Or a number each, in units of the balanced weight.
    missing
        ``"mask"``, or ``"pad"`` with the values of the nearest observation in space that has them (published; needs
        coordinates; flagged in ``mdata.obs``).
    loss
        ``"frobenius"`` or ``"kl"`` (counts), for all modalities or one each.
    private
        Number of components that belong to one modality alone, for all or one each: for signal that the others lack.
    smoothing
        ``None`` for cell types. For domains as in :func:`spanmf.tl.snmf`: ``"refit"``, ``"diffuse"``, ``"laplacian"``.
    beta
        Share β of the neighbourhood in a smoothing step, from 0 to 1 (refit, diffuse).
    n_steps
        Number of smoothing steps (refit, diffuse).
    laplacian_weight
        Weight λ of the graph term, in units of the data term for an observation of average degree (laplacian).
    connectivity_key
        Spatial graph in the ``obsp`` of the MuData or of a modality; only with ``smoothing``.
    init
        ``"auto"``: means of clusters found on principal components. ``"nndsvda"``: as published.
    {stopping}
    preset
        ``"paper"``: log1p, stacked, padded, NNDSVDa, where no other ones are given.
    {rng}
    {device}
        Losses that differ, and KL with missing observations or private components, run on the CPU only.
    key_added
        Base name of the slots.
    copy
        Work on a copy of the MuData and return it.

    Returns
    -------
    A MuData if ``copy`` or if none was given, else ``None``. Written (with the default ``key_added``):

    ``mdata.obsm["X_joint_nmf"]`` : n × K, float32
        Shared factors W, then the private ones of each modality, larger components first. Each ``mod[m].obsm`` has its rows.
    ``mdata.mod[m].varm["joint_nmf_loadings"]`` : p_m × K, float32
        Loadings of the preprocessed values (zero rows for variables that were not used).
    ``mdata.obs["joint_nmf"]`` : categorical
        Dominant component, :math:`\arg\max_k W_{ik} \lVert H_k \rVert` over all modalities as weighted.
    ``mdata.uns["joint_nmf"]`` : dict
        ``params``, ``trace``, ``n_iter``, ``converged``, ``variance_explained`` (DataFrame, components × modalities: the
        share of the variance that a regression on each component alone explains), ``scales``, ``versions``. Each ``mod[m].uns["joint_nmf"]`` keeps the Gram matrix of
        all loadings, so that :func:`spanmf.tl.hsnmf` with ``use_rep="X_joint_nmf"`` knows distances between observations.

    Raises
    ------
    KeyError
        If a table of ``obsm``, the graph or coordinates are missing.
    ValueError
        If modalities share no observations; if values are negative, NaN, infinite or all zero; if it cannot be told how to
        preprocess a modality; if options do not go together, or with dask arrays; if there is no such device.
    RuntimeError
        If a block of a dask array cannot be read or worked on: which one, and why.
    ImportError
        If the device needs torch, and torch is not installed.
    MemoryError
        If the device has too little memory: what is needed, and what is free.

    References
    ----------
    SpatialMultiOmics (the published form). Lee and Seung (1999), *Nature* 401, 788.

    Examples
    --------
    >>> import spanmf as sn
    >>> mdata = sn.datasets.rna_protein_tissue(1000, missing=0.3)
    >>> sn.tl.joint_nmf(mdata, 10)
    >>> mdata.obsm["X_joint_nmf"].shape, mdata.mod["protein"].varm["joint_nmf_loadings"].shape
    ((1000, 10), (30, 10))
    """
    mdata, made = _mudata.as_mudata(data, obsm_key)
    names = list(mdata.mod)
    _checks.check_key_added(key_added)
    _checks.check_range("n_components", n_components, 1, integer=True)
    _check_options(weights, missing, init, smoothing, max_iter, tol)
    kinds = _joint_values.kinds_of(mdata, preprocessing)
    losses = _each(names, loss, "loss", lambda n, v: _checks.check_choice(f"loss of {n!r}", v, _fit.LOSSES))
    n_private = _each(
        names, private, "private", lambda n, v: _checks.check_range(f"private of {n!r}", v, 0, integer=True)
    )
    k = int(n_components) + sum(n_private.values())
    on = _checks.check_device(device)
    if smoothing is not None:
        loss_ = "kl" if "kl" in losses.values() else "frobenius"
        check_smoothing(smoothing, beta, n_steps, laplacian_weight, loss_, 0.0, "same")
    A, graph_key = (None, None) if smoothing is None else _mudata.get_graph(mdata, connectivity_key)
    rng_ = _data.default_rng(rng, random_state)
    with timed("tl.joint_nmf") as notes:
        _joint_values.check_lazy(mdata, missing, device)
        order = _joint_values.order_of(mdata)
        values = {n: _joint_values.read(mdata, n, kinds[n], losses[n]) for n in names}
        _checks.check_n_components(k, mdata.n_obs, sum(v.part.n_columns for v in values.values()))
        padded = _pad(mdata, values) if missing == "pad" else None
        modalities = _modalities(values, losses, n_private, weights)
        layout = _joint_values.laid_out(modalities, list(values.values()), k, order)
        placed = _placed(layout, k, on, 0 if A is None else A.nnz, device)
        result, W, H = _factorise(placed, k, A, smoothing, beta, n_steps, laplacian_weight, init, max_iter, tol, rng_)
        W, H = _ordered(W, H, int(n_components))
        explained = pd.DataFrame(
            _joint.variance_explained(layout, W, H),
            index=[str(i) for i in range(k)],
            columns=_data.storable_names(names),
        )
        params: dict[str, Any] = {
            "n_components": int(n_components), "preprocessing": kinds, "weights": dict(weights) if isinstance(weights, Mapping) else weights,
            "missing": missing, "loss": losses, "private": n_private, "connectivity_key": graph_key, "init": init,
            "max_iter": int(max_iter), "tol": float(tol), "preset": preset, "rng": _fit.seed_of(rng, random_state), "device": device,
        }  # fmt: skip
        if smoothing is not None:
            params |= smoothing_params(smoothing, beta, n_steps, laplacian_weight)
        scales = {n: m.scale for n, m in zip(names, modalities, strict=True)}
        record = _data.provenance(params, **_fit.solver_results(result), scales=scales)
        mdata = _mudata.copy(mdata) if copy and not made else mdata
        _write(mdata, key_added, W, H, layout, values, scales, record | {"variance_explained": explained}, padded)
        notes += [
            f"{k} components of {len(names)} modalities, {result.n_iter} passes",
            f"added obsm['X_{key_added}'], obs[{key_added!r}], uns[{key_added!r}] and varm['{key_added}_loadings'] of each",
        ]
    return mdata if copy or made else None


def _check_options(weights: Any, missing: str, init: str, smoothing: str | None, max_iter: int, tol: float) -> None:
    if not isinstance(weights, Mapping):
        _checks.check_choice("weights", weights, WEIGHTS)
    _checks.check_choice("missing", missing, MISSING)
    _checks.check_choice("init", init, ("auto", "nndsvda"))
    _checks.check_choice("smoothing", smoothing, SMOOTHINGS)
    _checks.check_range("max_iter", max_iter, 1, integer=True)
    _checks.check_range("tol", tol, 0)


def _each(names: list[str], value: Any, option: str, check: Any) -> dict[str, Any]:
    """One value a modality, from one for all or a mapping."""
    if isinstance(value, Mapping):
        _checks.check_members(option, value, names)
    out = {
        n: value.get(n, "frobenius" if option == "loss" else 0) if isinstance(value, Mapping) else value for n in names
    }
    for n, v in out.items():
        check(n, v)
    return out


def _pad(mdata: MuData, values: dict[str, _joint_values.Values]) -> dict[str, np.ndarray]:
    """Fill missing rows from the nearest observation that has them, in place; which rows were filled."""
    coords = np.full((mdata.n_obs, 2), np.nan)
    for name, table in mdata.mod.items():
        if _keys.SPATIAL in table.obsm:
            coords[_mudata.rows_of(mdata, name)] = _data.get_coordinates(table)[:, :2]
    if np.isnan(coords).any():
        msg = "`missing='pad'` takes values of the nearest observation, and not all have coordinates in `obsm['spatial']`. Use `missing='mask'`."
        raise ValueError(msg)
    absent = {name: ~v.present for name, v in values.items()}
    for name, lacks in absent.items():
        if lacks.any():
            source, have = np.arange(mdata.n_obs), np.flatnonzero(~lacks)
            source[lacks] = have[cKDTree(coords[have]).query(coords[lacks])[1]]
            values[name] = _joint_values.filled(values[name], source)
    return absent


def _modalities(
    values: dict[str, _joint_values.Values], losses: dict[str, str], private: dict[str, int], weights: Any
) -> list[_joint_layout.Modality]:
    if isinstance(weights, Mapping):
        _checks.check_members("weights", weights, list(values))
    out = []
    for n, v in values.items():
        size = float((v.moments.squares if losses[n] == "frobenius" else v.moments.sums).sum())
        weight = 1.0 if weights == "stacked" else v.present.sum() / size
        if isinstance(weights, Mapping):
            _checks.check_range(f"weight of {n!r}", weights.get(n, 1.0), 0, open_low=True)
            weight *= float(weights.get(n, 1.0))
        out.append(_joint_layout.Modality(v.part, v.present, weight, losses[n], private[n]))
    return out


def _placed(layout: _joint_layout.Layout, k: int, on: str | None, edges: int, device: str) -> _joint_layout.Layout:
    """The same on a device of torch, where one is asked for."""
    if on is None:
        return layout
    if layout.differs:
        msg = (
            f"`device={device!r}`: losses that differ between modalities, and `loss='kl'` with missing observations or "
            "private components, run on the CPU only. Leave `device` out."
        )
        raise ValueError(msg)
    return replace(layout, X=_fit.placed(layout.X, k, on, layout.bounds, edges=edges))


def _factorise(
    layout: _joint_layout.Layout,
    k: int,
    A: sp.csr_matrix | None,
    smoothing: str | None,
    beta: float,
    n_steps: int,
    weight: float,
    init: str,
    max_iter: int,
    tol: float,
    rng: np.random.Generator,
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Run the engine under a progress bar; smooth where asked."""
    for loss in set(layout.losses):
        _fit.compile_once(loss, k)
    inside, graph_weight = None, 0.0
    if smoothing == "laplacian":
        inside = _graph.symmetrised(A)
        graph_weight = _snmf.relative_weight(_smooth.as_graph(inside), weight)

    def progress(i: int, objective: float) -> None:
        bar.update()
        bar.set_postfix(objective=f"{objective:.6g}", refresh=False)

    with (
        threadpool_limits(1, "blas"),
        tqdm(total=max_iter, desc="tl.joint_nmf", unit="pass", delay=3, leave=False) as bar,
    ):
        H = _joint_start.start(layout, k, rng) if init == "auto" else _init.METHODS[init](layout.X, k, rng)[1]
        result = _joint.fit(
            layout, H, graph=inside, graph_weight=graph_weight, max_iter=max_iter, tol=tol, progress=progress
        )
    if not result.converged:
        _checks.warn(
            f"tl.joint_nmf stopped at max_iter={max_iter} before the objective settled to tol={tol:g}. Raise `max_iter`.",
            _checks.ConvergenceWarning,
        )
    W, H = result.W, result.H
    if smoothing in ("refit", "diffuse"):
        W = _smooth.diffuse(_smooth.beside(layout.X, A), np.asarray(W), beta, n_steps)
    if smoothing == "refit":
        H = _joint.refit_h(layout, W, H)
    return result, W, H


def _ordered(W: np.ndarray, H: np.ndarray, n_shared: int) -> tuple[np.ndarray, np.ndarray]:
    """Shared components by size, at unit norm; private ones stay behind them."""
    norms = np.linalg.norm(H, axis=1)
    norms[norms == 0] = 1
    W, H = W * norms, H / norms[:, None]
    order = np.concatenate(
        [np.argsort(-np.asarray(W[:, :n_shared].sum(0)), kind="stable"), np.arange(n_shared, len(H))]
    )
    W = W[:, order].astype(np.float32)
    return W if _dask.is_lazy(W) else np.ascontiguousarray(W), np.ascontiguousarray(H[order], dtype=np.float32)


def _write(
    mdata: MuData,
    key: str,
    W: np.ndarray,
    H: np.ndarray,
    layout: _joint_layout.Layout,
    values: dict[str, _joint_values.Values],
    scales: dict[str, float],
    record: dict[str, Any],
    padded: dict[str, np.ndarray] | None,
) -> None:
    keys = _keys.FactorKeys(key)
    gram = H.astype(np.float64) @ H.T
    for (name, table), columns in zip(mdata.mod.items(), layout.columns, strict=True):
        own = W[_mudata.rows_of(mdata, name)]
        _data.write_factors(table, key, own, H[:, columns] / np.float32(scales[name]), values[name].mask)
        table.uns[keys.provenance] = _data.provenance({"modality": name}, gram=gram)
    mdata.obsm[keys.factors] = W
    mdata.obs[keys.labels] = _fit.component_labels(_fit.dominant(W, H), len(H))
    mdata.uns[keys.provenance] = record
    for name, rows in (padded or {}).items():
        mdata.obs[f"{key}_padded_{name.replace('/', '|')}"] = rows
