"""Spatial non-negative matrix factorisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _checks, _data
from .._docs import doc
from .._logging import timed
from ..core import _smooth, _snmf, _tiles
from . import _fit

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from ..core._solver import Result
    from ..core._tiles import AnyGraph

PAPER = _fit.PAPER_NMF | {"smoothing": "diffuse"}


@_fit.presets(PAPER, _fit.idle_smoothing)
@doc
def snmf(
    adata: AnnData | SpatialData,
    n_components: int = 10,
    *,
    smoothing: Literal["refit", "diffuse", "laplacian"] = "refit",
    beta: float = 0.6,
    n_steps: int = 2,
    laplacian_weight: float = 1.0,
    connectivity_key: str | None = None,
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
    key_added: str = "snmf",
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Explain every cell as a sum of parts that vary smoothly over the tissue.

    With A the spatial graph, D its degrees and :math:`P = (D+I)^{-1}(A+I)`:

    * ``"refit"`` and ``"diffuse"``: the factors of :func:`spanmf.tl.nmf` are smoothed ``n_steps`` times,
      :math:`W \leftarrow (1-\beta) W + \beta P W`. The published form (``"diffuse"``) stops there and so fits badly by
      construction; ``"refit"`` fits H to the smoothed W again.
    * ``"laplacian"``: minimises :math:`\tfrac12\lVert X-WH\rVert_F^2 + \tfrac\lambda2\operatorname{Tr}(W^\top L W)` with
      :math:`L = D - A` and the rows of H at unit norm, since WH could otherwise shrink W and empty the penalty.
      λ is ``laplacian_weight`` divided by the mean degree.

    Isolated observations keep their own factors.

    Parameters
    ----------
    {adata}
    n_components
        Number of components k, from 1 to min(n, p).
    {smoothing}
    {connectivity_key}
    {layer}
    {mask_var}
    {loss}
    {init}
    {penalties}
    {stopping}
    {normalize}
    preset
        ``"paper"``: NNDSVDa, at most 500 iterations and ``smoothing="diffuse"``, where no other ones are given
        (β = 0.6 and two steps are the published ones already).
    {rng}
    {device}
    key_added
        Base name of the slots.
    {table_key}
    {copy}

    Returns
    -------
    The copy if ``copy``, else ``None``. Written (with the default ``key_added``):

    ``adata.obsm["X_snmf"]`` : n × k, float32
        Smoothed factors W.
    ``adata.varm["snmf_loadings"]`` : p × k, float32
        Loadings Hᵀ; zero rows for variables that were not used.
    ``adata.obs["snmf"]`` : categorical
        Dominant component of each observation, :math:`\arg\max_k W_{ik}\lVert H_k\rVert`; NaN where W is all zero.
    ``adata.uns["snmf"]`` : dict
        ``params``, ``trace`` (objective after each pass of the fit), ``n_iter``, ``converged``, ``versions``.

    Raises
    ------
    KeyError
        If there is no spatial graph, or the layer or mask column is missing.
    ValueError
        If values are negative, NaN, infinite or all zero; if a parameter is out of range; if ``"laplacian"`` is combined
        with the KL loss or penalties; if an option is given that has no effect beside the others; if there is no such device.
    ImportError
        If the device needs torch, and torch is not installed.
    MemoryError
        If the device has too little memory: what is needed, and what is free.

    References
    ----------
    Mahmud et al. (2026), *hSNMF*, `arXiv:2602.02638 <https://arxiv.org/abs/2602.02638>`_ (diffuse). Cai et al. (2011),
    *IEEE TPAMI* 33, 1548 (Laplacian).

    Examples
    --------
    >>> import scanpy as sc, spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> sn.gr.contact_neighbors(adata, library_key="library")
    >>> sn.tl.snmf(adata, 5)
    >>> adata.obsm["X_snmf"].shape
    (1000, 5)
    """
    table = _data.get_table(adata, table_key)
    _checks.check_key_added(key_added)
    check_smoothing(smoothing, beta, n_steps, laplacian_weight, loss, alpha_W, alpha_H)
    A, graph_key = (_data.find_graph if device == "cpu" else _data.get_graph)(table, connectivity_key)
    _checks.check_edges(A, graph_key)
    with timed("tl.snmf") as notes:
        problem = _fit.prepare(
            table, n_components, layer=layer, mask_var=mask_var, loss=loss, alpha_W=alpha_W, alpha_H=alpha_H,
            l1_ratio=l1_ratio, init=init, max_iter=max_iter, tol=tol, normalize=normalize, preset=preset,
            rng=_data.default_rng(rng, random_state), device=device, edges=A.nnz,
        )  # fmt: skip
        result, W, H = smooth_factors(
            problem, A, "tl.snmf", smoothing, beta=beta, n_steps=n_steps, weight=laplacian_weight
        )
        params = problem.params | {
            **smoothing_params(smoothing, beta, n_steps, laplacian_weight),
            "connectivity_key": graph_key,
            "rng": _fit.seed_of(rng, random_state),
        }
        table = _data.target(table, copy=copy)
        labels = _fit.component_labels(_fit.dominant(W, H), problem.n_components)
        added = _fit.write(table, key_added, (W, H, problem.mask), labels, params, **_fit.solver_results(result))
        notes += [f"{problem.n_components} components, {result.n_iter} passes, {smoothing}", added]
    return table if copy else None


def check_smoothing(
    smoothing: str, beta: float, n_steps: int, weight: float, loss: str, alpha_W: float, alpha_H: float | str
) -> None:
    """Options of smoothing, and what does not go together."""
    _checks.check_choice("smoothing", smoothing, _fit.SMOOTHINGS)
    _checks.check_range("beta", beta, 0, 1)
    _checks.check_range("n_steps", n_steps, 0, integer=True)
    _checks.check_range("laplacian_weight", weight, 0)
    if smoothing == "laplacian" and (loss != "frobenius" or alpha_W or alpha_H not in (0, "same")):
        msg = (
            "`smoothing='laplacian'` is defined for the Frobenius loss without penalties (H is held at unit norm). "
            "Use `smoothing='refit'` with `loss='kl'`, `alpha_W` or `alpha_H`."
        )
        raise ValueError(msg)


def smoothing_params(smoothing: str, beta: float, n_steps: int, weight: float) -> dict[str, Any]:
    """Those that took part, for the record."""
    if smoothing == "laplacian":
        return {"smoothing": smoothing, "laplacian_weight": weight}
    return {"smoothing": smoothing, "beta": beta, "n_steps": n_steps}


def smooth_factors(
    problem: _fit.Problem, A: AnyGraph, name: str, smoothing: str, *, beta: float, n_steps: int, weight: float
) -> tuple[Result, np.ndarray, np.ndarray]:
    """Factorise and smooth: the run, W and H."""
    result, W, H = raw_factors(problem, A, name, smoothing, weight)
    return result, *smoothed(problem, A, W, H, smoothing, beta=beta, n_steps=n_steps)


def raw_factors(
    problem: _fit.Problem, A: AnyGraph, name: str, smoothing: str, weight: float
) -> tuple[Result, np.ndarray, np.ndarray]:
    """Factorise (under the graph term, if there is one): what does not depend on the steps of smoothing after it."""
    if smoothing == "laplacian":
        graph = _smooth.beside(problem.X, _tiles.symmetrised(A))  # L = D − A takes an undirected graph
        result = _fit.factorise(problem, name, graph=graph, graph_weight=_snmf.relative_weight(graph, weight))
    else:
        result = _fit.factorise(problem, name)
    return result, *_fit.by_size(result.W, result.H)


def smoothed(
    problem: _fit.Problem, A: AnyGraph, W: np.ndarray, H: np.ndarray, smoothing: str, *, beta: float, n_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """W and H as they are kept, from those of the fit."""
    W = np.asarray(W)  # of all cells, wherever it was
    if smoothing == "laplacian":
        return W, H
    W = _smooth.diffuse(_smooth.beside(problem.X, A), W, beta, n_steps)
    if smoothing == "refit":
        H = _snmf.refit_h(problem.X, W, H, problem.loss, problem.penalty)
    return _fit.unit_loadings(problem, W, H)
