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

from .. import _checks, _data, _keys, _mudata
from .._docs import doc
from .._logging import timed
from ..core import _graph, _init, _joint, _normalise, _smooth, _snmf
from . import _fit
from ._snmf import check_smoothing, smoothing_params

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

PREPROCESSING = ("rna", "protein", "log1p", "none")
N_VARIABLE = 2000  # genes kept where none are marked as highly variable and there are more
RNA_NAMES = ("rna", "gex", "gene expression", "transcriptome", "tx", "xenium", "merfish", "visium", "atac")
PROTEIN_NAMES = (
    "protein",
    "prot",
    "adt",
    "antibody capture",
    "protein expression",
    "proteome",
    "codex",
    "mibi",
    "imc",
    "cycif",
)
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
        Observations are matched by name.
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
        preprocess a modality; if options do not go together; if there is no such device.
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
    kinds = _kinds(mdata, preprocessing)
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
        parts = {n: _values(mdata, n, kinds[n], losses[n]) for n in names}
        _checks.check_n_components(k, mdata.n_obs, sum(X.shape[1] for X, _ in parts.values()))
        rows = {n: _mudata.rows_of(mdata, n) for n in names}
        spread = {n: _mudata.spread(X, rows[n], mdata.n_obs) for n, (X, _) in parts.items()}
        present = {n: np.isin(np.arange(mdata.n_obs), rows[n]) for n in names}
        padded = _pad(mdata, spread, present) if missing == "pad" else None
        modalities = _modalities(names, spread, present, losses, n_private, weights)
        layout = _joint.lay_out(modalities, k)
        if on is not None:
            if layout.differs:
                msg = (
                    f"`device={device!r}`: losses that differ between modalities, and `loss='kl'` with missing observations or "
                    "private components, run on the CPU only. Leave `device` out."
                )
                raise ValueError(msg)
            edges = 0 if A is None else A.nnz
            layout = replace(layout, X=_fit.placed(layout.X, k, on, layout.bounds, edges=edges))
        result, W, H = _factorise(layout, k, A, smoothing, beta, n_steps, laplacian_weight, init, max_iter, tol, rng_)
        W, H = _ordered(W, H, int(n_components))
        explained = pd.DataFrame(
            {n: _joint.variance_explained(spread[n][present[n]], W[present[n]], H[:, c] / modalities[i].scale)
             for i, (n, c) in enumerate(zip(names, layout.columns, strict=True))},
            index=[str(i) for i in range(k)],
        )  # fmt: skip
        params: dict[str, Any] = {
            "n_components": int(n_components), "preprocessing": kinds, "weights": dict(weights) if isinstance(weights, Mapping) else weights,
            "missing": missing, "loss": losses, "private": n_private, "connectivity_key": graph_key, "init": init,
            "max_iter": int(max_iter), "tol": float(tol), "preset": preset, "rng": _fit.seed_of(rng, random_state), "device": device,
        }  # fmt: skip
        if smoothing is not None:
            params |= smoothing_params(smoothing, beta, n_steps, laplacian_weight)
        scales = {n: m.scale for n, m in zip(names, modalities, strict=True)}
        explained.columns = _data.storable_names(explained.columns)
        record = _data.provenance(params, **_fit.solver_results(result), scales=scales)
        mdata = _mudata.copy(mdata) if copy and not made else mdata
        _write(mdata, key_added, W, H, layout, parts, scales, record | {"variance_explained": explained}, padded)
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


def _kinds(mdata: MuData, preprocessing: Any) -> dict[str, str]:
    """How each modality is preprocessed."""
    given = preprocessing if isinstance(preprocessing, Mapping) else dict.fromkeys(mdata.mod, preprocessing)
    _checks.check_members("preprocessing", given, list(mdata.mod))
    out = {}
    for name, table in mdata.mod.items():
        kind = given.get(name, "auto")
        _checks.check_choice(f"preprocessing of {name!r}", kind, ("auto", *PREPROCESSING))
        out[name] = _kind_of(name, table) if kind == "auto" else kind
    return out


def _kind_of(name: str, table: AnnData) -> str:
    words = [name.lower().replace("_", " ")]
    if "feature_types" in table.var:
        words += [str(x).lower() for x in table.var["feature_types"].unique()]
    for kind, known in (("protein", PROTEIN_NAMES), ("rna", RNA_NAMES)):
        if any(w in known for w in words):
            return kind
    msg = (
        f"It cannot be told from the name {name!r} how to preprocess this modality: say so, e.g. "
        f"`preprocessing={{{name!r}: 'rna'}}` (one of {', '.join(PREPROCESSING)})."
    )
    raise ValueError(msg)


def _values(mdata: MuData, name: str, kind: str, loss: str) -> tuple[sp.csr_matrix, np.ndarray]:
    """Preprocessed values of one modality (its observations × variables in use), and the mask of these variables."""
    table = mdata.mod[name]
    X, where = _data.get_matrix(table)
    where = f"{where} of modality {name!r}"
    (_checks.check_intensities if kind == "protein" else _checks.check_matrix)(X, where)
    mask = np.ones(table.n_vars, dtype=bool)
    X = sp.csr_matrix(X, dtype=np.float32)
    if kind in ("rna", "log1p") and loss == "frobenius":
        if kind == "rna":
            logged = _fit.log_normalised(X) if _checks.looks_like_counts(X) else X
        else:
            logged = X if "log1p" in table.uns else X.log1p()  # scanpy notes there that it was done
        mask = _variable(table, logged) if kind == "rna" or table.n_vars > N_VARIABLE else mask
        X = logged[:, mask]
        X = _normalise.over_sd(X) if kind == "rna" else X
    elif kind == "protein" and loss == "frobenius":
        X = _normalise.clr(X)
    if loss == "kl" and not _checks.looks_like_counts(X):
        _checks.warn(f"{where} does not look like counts, which `loss='kl'` is for.")
    return sp.csr_matrix(X, dtype=np.float32), mask


def recorded_values(mdata: MuData, name: str, record: Mapping[str, Any]) -> tuple[sp.csr_matrix, np.ndarray]:
    """Preprocessed values of a modality again, as a recorded run had them."""
    params = record.get("params", {})
    stored = name.replace("/", "|")
    if stored not in params.get("preprocessing", {}) or stored not in params.get("loss", {}):
        msg = f"What `sn.tl.joint_nmf` recorded of modality {name!r} is gone from `mdata.uns`. Run it again."
        raise KeyError(msg)
    return _values(mdata, name, str(params["preprocessing"][stored]), str(params["loss"][stored]))


def _variable(table: AnnData, logged: sp.csr_matrix) -> np.ndarray:
    """Genes marked as highly variable, or the most variable ones where there are many."""
    if _keys.HIGHLY_VARIABLE in table.var or table.n_vars <= N_VARIABLE:
        return _data.get_mask(table, "auto")
    import scanpy as sc
    from anndata import AnnData

    holder = AnnData(logged)
    sc.pp.highly_variable_genes(holder, n_top_genes=N_VARIABLE)
    return holder.var["highly_variable"].to_numpy()


def _pad(mdata: MuData, spread: dict[str, sp.csr_matrix], present: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fill missing rows from the nearest observation that has them, in place; which rows were filled."""
    coords = np.full((mdata.n_obs, 2), np.nan)
    for name, table in mdata.mod.items():
        if _keys.SPATIAL in table.obsm:
            coords[_mudata.rows_of(mdata, name)] = _data.get_coordinates(table)[:, :2]
    if np.isnan(coords).any():
        msg = "`missing='pad'` takes values of the nearest observation, and not all have coordinates in `obsm['spatial']`. Use `missing='mask'`."
        raise ValueError(msg)
    filled = {}
    for name, there in present.items():
        filled[name] = ~there
        if not there.all():
            source = np.arange(mdata.n_obs)
            have = np.flatnonzero(there)
            source[~there] = have[cKDTree(coords[have]).query(coords[~there])[1]]
            spread[name] = spread[name][source]
            present[name] = np.ones_like(there)
    return filled


def _modalities(
    names: list[str],
    spread: dict[str, sp.csr_matrix],
    present: dict[str, np.ndarray],
    losses: dict[str, str],
    private: dict[str, int],
    weights: Any,
) -> list[_joint.Modality]:
    if isinstance(weights, Mapping):
        _checks.check_members("weights", weights, names)
    out = []
    for n in names:
        X = spread[n]
        size = float(
            np.vdot(X.data.astype(np.float64), X.data) if losses[n] == "frobenius" else X.data.sum(dtype=np.float64)
        )
        weight = 1.0 if weights == "stacked" else present[n].sum() / size
        if isinstance(weights, Mapping):
            _checks.check_range(f"weight of {n!r}", weights.get(n, 1.0), 0, open_low=True)
            weight *= float(weights.get(n, 1.0))
        out.append(_joint.Modality(X, present[n], weight, losses[n], private[n]))
    return out


def _factorise(
    layout: _joint.Layout,
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
        H = _joint.start(layout, k, rng) if init == "auto" else _init.METHODS[init](layout.X, k, rng)[1]
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
        W = _smooth.diffuse(_smooth.beside(layout.X, A), W, beta, n_steps)
    if smoothing == "refit":
        H = _joint.refit_h(layout, W, H)
    return result, W, H


def _ordered(W: np.ndarray, H: np.ndarray, n_shared: int) -> tuple[np.ndarray, np.ndarray]:
    """Shared components by size, at unit norm; private ones stay behind them."""
    norms = np.linalg.norm(H, axis=1)
    norms[norms == 0] = 1
    W, H = W * norms, H / norms[:, None]
    order = np.concatenate([np.argsort(-W[:, :n_shared].sum(0), kind="stable"), np.arange(n_shared, len(H))])
    return np.ascontiguousarray(W[:, order], dtype=np.float32), np.ascontiguousarray(H[order], dtype=np.float32)


def _write(
    mdata: MuData,
    key: str,
    W: np.ndarray,
    H: np.ndarray,
    layout: _joint.Layout,
    parts: dict[str, tuple[sp.csr_matrix, np.ndarray]],
    scales: dict[str, float],
    record: dict[str, Any],
    padded: dict[str, np.ndarray] | None,
) -> None:
    keys = _keys.FactorKeys(key)
    gram = H.astype(np.float64) @ H.T
    for (name, table), columns in zip(mdata.mod.items(), layout.columns, strict=True):
        _data.write_factors(
            table, key, W[_mudata.rows_of(mdata, name)], H[:, columns] / np.float32(scales[name]), parts[name][1]
        )
        table.uns[keys.provenance] = _data.provenance({"modality": name}, gram=gram)
    mdata.obsm[keys.factors] = W
    mdata.obs[keys.labels] = _fit.component_labels(_fit.dominant(W, H), len(H))
    mdata.uns[keys.provenance] = record
    for name, rows in (padded or {}).items():
        mdata.obs[f"{key}_padded_{name.replace('/', '|')}"] = rows
