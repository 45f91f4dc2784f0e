"""Non-negative matrix factorisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from .. import _checks, _data
from .._docs import doc
from .._logging import timed
from . import _fit

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@_fit.presets(_fit.PAPER_NMF)
@doc
def nmf(
    adata: AnnData | SpatialData,
    n_components: int = 10,
    *,
    layer: str | None = None,
    mask_var: str | np.ndarray | None = "auto",
    loss: Literal["frobenius", "kl"] = "frobenius",
    init: Literal["auto", "nndsvd", "nndsvda", "nndsvdar", "random"]
    | np.ndarray
    | tuple[np.ndarray, np.ndarray] = "auto",
    alpha_W: float = 0.0,
    alpha_H: float | Literal["same"] = "same",
    l1_ratio: float = 0.0,
    max_iter: int = 500,
    tol: float = 3e-6,
    normalize: bool = False,
    preset: Literal["paper"] | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    device: str = "cpu",
    key_added: str = "nmf",
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Explain every cell as a sum of a few non-negative parts.

    With X (n × p) the values, finds :math:`W \ge 0` (n × k) and :math:`H \ge 0` (k × p) that minimise

    .. math::
        \tfrac12 \lVert X - WH \rVert_F^2
        + \alpha_W p \left(\rho \lVert W \rVert_1 + \tfrac{1-\rho}{2} \lVert W \rVert_F^2\right)
        + \alpha_H n \left(\rho \lVert H \rVert_1 + \tfrac{1-\rho}{2} \lVert H \rVert_F^2\right)

    (ρ is ``l1_ratio``; scikit-learn's scaling), or with ``loss="kl"`` the divergence
    :math:`\sum_{ij} x_{ij} \log \frac{x_{ij}}{(WH)_{ij}} - x_{ij} + (WH)_{ij}` plus L1 penalties: the likelihood of
    Poisson counts. X is read once an iteration and stays sparse. The objective never rises. Components are ordered by
    what they contribute.

    Parameters
    ----------
    {adata}
    n_components
        Number of components k, from 1 to min(n, p).
    {layer}
    {mask_var}
    {loss}
    {init}
    {penalties}
    {stopping}
    {normalize}
    preset
        ``"paper"``: NNDSVDa and at most 500 iterations, where no other ones are given.
    {rng}
    {device}
    key_added
        Base name of the slots.
    {table_key}
    {copy}

    Returns
    -------
    The copy if ``copy``, else ``None``. Written (with the default ``key_added``):

    ``adata.obsm["X_nmf"]`` : n × k, float32
        Factors W.
    ``adata.varm["nmf_loadings"]`` : p × k, float32
        Loadings Hᵀ; zero rows for variables that were not used.
    ``adata.obs["nmf"]`` : categorical
        Dominant component of each observation, :math:`\arg\max_k W_{ik}\lVert H_k\rVert`; NaN where W is all zero.
    ``adata.uns["nmf"]`` : dict
        ``params``, ``trace`` (objective after each pass), ``n_iter``, ``converged``, ``versions``.

    Raises
    ------
    KeyError
        If the layer or the mask column is missing.
    ValueError
        If values are negative, NaN, infinite or all zero, or if ``n_components`` is out of range; if there is no such device.
    ImportError
        If the device needs torch, and torch is not installed.
    MemoryError
        If the device has too little memory: what is needed, and what is free.

    Warns
    -----
    SpanmfWarning
        If the values look like raw counts (with the Frobenius loss).
    ConvergenceWarning
        If ``max_iter`` was reached first.

    References
    ----------
    Lee & Seung (1999), *Nature* 401, 788. Cichocki & Phan (2009), *IEICE Trans.* E92-A, 708 (HALS). Gillis & Glineur
    (2012), *Neural Computation* 24, 1085, and Ang & Gillis (2019), *Neural Computation* 31, 417 (acceleration).

    See Also
    --------
    spanmf.tl.snmf : the same with factors smoothed in space.
    spanmf.tl.top_features : the features that make a component.

    Examples
    --------
    >>> import scanpy as sc, spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> sn.tl.nmf(adata, 5)
    >>> adata.obsm["X_nmf"].shape
    (1000, 5)
    """
    table = _data.get_table(adata, table_key)
    _checks.check_key_added(key_added)
    with timed("tl.nmf") as notes:
        problem = _fit.prepare(
            table, n_components, layer=layer, mask_var=mask_var, loss=loss, alpha_W=alpha_W, alpha_H=alpha_H,
            l1_ratio=l1_ratio, init=init, max_iter=max_iter, tol=tol, normalize=normalize, preset=preset,
            rng=_data.default_rng(rng, random_state), device=device,
        )  # fmt: skip
        result = _fit.factorise(problem, "tl.nmf")
        W, H = _fit.unit_loadings(problem, *_fit.by_size(result.W, result.H))
        params = problem.params | {"rng": _fit.seed_of(rng, random_state)}
        table = _data.target(table, copy=copy)
        labels = _fit.component_labels(_fit.dominant(W, H), problem.n_components)
        added = _fit.write(table, key_added, (W, H, problem.mask), labels, params, **_fit.solver_results(result))
        notes += [f"{problem.n_components} components, {result.n_iter} passes", added]
    return table if copy else None
