"""Cell types in spots without a reference."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from .. import _checks, _data
from .._docs import doc
from .._logging import timed
from ..core import _fast, _graph, _init, _ops, _smooth
from . import _fit

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def fast_nmf(
    adata: AnnData | SpatialData,
    n_components: int = 10,
    *,
    graph_weight: float = 0.1,
    sum_weight: float = 0.1,
    connectivity_key: str | None = None,
    layer: str | None = None,
    mask_var: str | np.ndarray | None = "auto",
    init: Literal["auto", "nndsvd", "nndsvda", "nndsvdar", "random"] = "auto",
    max_iter: int = 500,
    tol: float = 3e-6,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    key_added: str = "fast_nmf",
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Find types and their shares in spots without a reference, smooth over the tissue (FAST).

    The terms are those of the published STL-NMF without the regions, and the profiles H are unknown too:

    .. math:: \tfrac12\lVert X-WH\rVert_F^2 + \tfrac{\lambda_1}2\operatorname{Tr}(W^\top L W)
              + \tfrac{\lambda_2}2\sum_i\Bigl(\sum_k w_{ik} - 1\Bigr)^2

    X are the counts, every spot divided by its depth (times the median depth): a sum of one says nothing of raw counts, whose depth
    differs from spot to spot. They are not log-transformed, since a spot is a sum of its cells.

    Shares are identifiable only as far as there are spots in which a type is (nearly) absent or alone. Where there is a single-cell reference, use
    :func:`spanmf.tl.stl_nmf`.

    Parameters
    ----------
    {adata}
    n_components
        Number of types k, from 1 to min(n, p).
    graph_weight
        Weight of the graph term in units of the data term (mean squared norm of a spot, divided by the mean degree); 0 leaves the graph out.
    sum_weight
        Weight of the sum-to-one term in units of the data term.
    {connectivity_key}
    {layer}
    {mask_var}
    init
        As in :func:`spanmf.tl.nmf`.
    {stopping}
    {rng}
    key_added
        Base name of the slots.
    {table_key}
    {copy}

    Returns
    -------
    The copy if ``copy``, else ``None``. Written (with the default ``key_added``):

    ``adata.obsm["X_fast_nmf"]`` : n × k, float32
        Shares of the types in the spot's counts; rows sum to one (zero where a spot has no counts).
    ``adata.varm["fast_nmf_loadings"]`` : p × k, float32
        Profiles Hᵀ, counts at the median depth; zero rows for variables that were not used.
    ``adata.obs["fast_nmf"]`` : categorical
        Type with the largest share.
    ``adata.uns["fast_nmf"]`` : dict
        ``params``, ``trace``, ``n_iter``, ``converged``, ``versions``.

    Raises
    ------
    KeyError
        If there is no spatial graph (unless ``graph_weight=0``), or the layer or mask column is missing.
    ValueError
        If values are negative, NaN, infinite or all zero; if a parameter is out of range.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` was reached.

    References
    ----------
    Zhang, Liu, Parker, An, Sun (2023), *Flexible analysis of spatial transcriptomics data (FAST): a deconvolution
    approach*, bioRxiv.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.visium_section(300, n_genes=500)
    >>> sn.gr.contact_neighbors(adata)
    >>> sn.tl.fast_nmf(adata, 5)
    >>> adata.obsm["X_fast_nmf"].shape
    (300, 5)
    """
    table = _data.get_table(adata, table_key)
    _checks.check_key_added(key_added)
    for name, value in (("graph_weight", graph_weight), ("sum_weight", sum_weight), ("tol", tol)):
        _checks.check_range(name, value, 0)
    _checks.check_range("max_iter", max_iter, 1, integer=True)
    _checks.check_choice("init", init, _fit.INITS)
    mask = _data.get_mask(table, mask_var)
    _checks.check_n_components(n_components, table.n_obs, int(mask.sum()))
    X, name = _data.get_matrix(table, layer)
    _checks.check_matrix(X, name)
    graph, key = None, None
    if graph_weight > 0:
        A, key = _data.get_graph(table, connectivity_key)
        _checks.check_edges(A, key)
        graph = _smooth.as_graph(_graph.symmetrised(A))
    with timed("tl.fast_nmf") as notes:
        rows = to_median_depth(_ops.as_rows(X, mask))
        if not (rows.data > 0).any():
            _checks.check_matrix(np.zeros(1), f"{name}, on the variables in use,")
        unit = _ops.squared_norm(rows) / table.n_obs
        _fit.compile_once("frobenius", n_components)
        with threadpool_limits(1, "blas"), tqdm(total=max_iter, desc="tl.fast_nmf", delay=3, leave=False) as bar:
            _, H = _init.initialise(rows, n_components, init, _data.default_rng(rng, random_state))
            result = _fast.fit(
                rows, H, graph, graph_weight=0.0 if graph is None else graph_weight * unit / float(graph.degree.mean()),
                sum_weight=sum_weight * unit, max_iter=max_iter, tol=tol, progress=lambda *_: bar.update(),
            )  # fmt: skip
        if not result.converged:
            _checks.warn(
                f"tl.fast_nmf stopped at max_iter={max_iter} before the objective settled to tol={tol:g}.",
                _checks.ConvergenceWarning,
            )
        W = result.W.astype(np.float64)
        W[_ops.row_sums(rows) == 0] = 0
        order = np.argsort(-W.sum(0), kind="stable")
        total = W.sum(1, keepdims=True)
        W, H = (W / np.where(total > 0, total, 1))[:, order], result.H[order]
        codes = np.where(total[:, 0] > 0, W.argmax(1), -1)
        params = {
            "n_components": int(n_components), "graph_weight": float(graph_weight), "sum_weight": float(sum_weight),
            "connectivity_key": key, "layer": layer, "mask_var": mask_var if isinstance(mask_var, str) else None,
            "init": init, "max_iter": max_iter, "tol": tol, "rng": _fit.seed_of(rng, random_state),
        }  # fmt: skip
        table = _data.target(table, copy=copy)
        labels = _fit.component_labels(codes, n_components)
        added = _fit.write(table, key_added, (W, H, mask), labels, params, **_fit.solver_results(result))
        notes += [f"{n_components} types, {result.n_iter} passes", added]
    return table if copy else None


def to_median_depth(X: _ops.Rows) -> _ops.Rows:
    """Every row divided by its sum, times the median of the sums above zero."""
    depth = _ops.row_sums(X)
    median = float(np.median(depth[depth > 0])) if (depth > 0).any() else 1.0
    factor = (median / np.where(depth > 0, depth, 1)).astype(np.float32)
    return replace(X, data=X.data * np.repeat(factor, np.diff(X.indptr)))
