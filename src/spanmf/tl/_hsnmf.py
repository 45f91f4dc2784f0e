"""Tissue domains from spatially smoothed factors."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp

from .. import _checks, _data, _keys
from .._docs import doc
from .._logging import status, timed
from ..core import _domains, _graph, _landmarks, _leiden, _scale, _smooth
from ..gr._hybrid import LARGE, feature_graph, write_hybrid
from . import _fit
from ._snmf import check_smoothing, raw_factors, smoothed, smoothing_params
from ._steps import check_steps, chosen_steps

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from anndata import AnnData
    from spatialdata import SpatialData

    from ..core._tiles import AnyGraph

CLUSTERINGS = ("auto", "potts", "kmeans", "leiden")
# alpha and resolution: best mean ARI of 25 pairs over generated and real tissues (docs/domains_evidence.md)
PAPER = _fit.PAPER_NMF | {
    "smoothing": "diffuse", "n_steps": 2, "scale": None, "clustering": "leiden", "alpha": 0.5, "resolution": 0.4,
    "flavor": "leidenalg",
}  # fmt: skip
FACTORISATION = (
    "n_components", "layer", "mask_var", "loss", "init", "alpha_W", "alpha_H", "l1_ratio", "max_iter", "tol", "normalize",
)  # fmt: skip


def _idle(options: dict[str, Any]) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Options that take no part in what the other ones ask for."""
    if options["use_rep"] is not None:
        same = ("smoothing",) if options["smoothing"] == "refit" else ()  # without a factorisation it would diffuse
        yield "`use_rep`, which leaves nothing to factorise", (*FACTORISATION, *same)
    yield from _fit.idle_smoothing(options)
    clustering = _resolved(options["clustering"], options["n_domains"])
    if clustering in ("potts", "kmeans"):
        how = (
            f"`clustering={clustering!r}`"
            if options["clustering"] == clustering
            else "`n_domains` (`clustering='potts'`)"
        )
        yield how, ("resolution", "alpha", "flavor", "n_neighbors", "n_landmarks")
    elif options["n_domains"] is not None:
        yield "`n_domains`, for which the resolution is searched", ("resolution",)


def _resolved(clustering: str, n_domains: int | None) -> str:
    """What ``"auto"`` means."""
    return clustering if clustering != "auto" else "leiden" if n_domains is None else "potts"


@_fit.presets(PAPER, _idle)
@doc
def hsnmf(
    adata: AnnData | SpatialData,
    n_components: int = 10,
    *,
    n_domains: int | None = None,
    resolution: float = 0.4,
    alpha: float = 0.1,
    clustering: Literal["auto", "potts", "kmeans", "leiden"] = "auto",
    flavor: Literal["networkit", "igraph", "leidenalg"] = "networkit",
    smooth: bool = True,
    smoothing: Literal["refit", "diffuse", "laplacian"] = "refit",
    beta: float = 0.6,
    n_steps: int | Literal["auto"] = "auto",
    laplacian_weight: float = 1.0,
    scale: Literal["gram", "norm"] | None = "gram",
    use_rep: str | None = None,
    n_neighbors: int = 15,
    n_landmarks: int | None = None,
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
    key_added: str = "hsnmf",
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Find tissue domains.

    1. Factors W and loadings H, smoothed over the spatial graph as in :func:`spanmf.tl.snmf`.
    2. Z, the factors on a scale on which distances mean something. The scale of every row of H is arbitrary, so
       distances between rows of W are, too. ``"gram"``: :math:`Z = W (HH^\top)^{1/2}`, whose distances are those between
       the reconstructions; ``"norm"``: :math:`Z_{ik} = W_{ik} \lVert H_k \rVert`. Z serves for distances only and is
       not stored.
    3. Domains. With ``n_domains`` K given: a Gaussian mixture of K domains with one variance on the 10 leading
       principal components of Z, whose labels follow a Potts field on the spatial graph (``"potts"``), or k-means
       (``"kmeans"``), or Leiden at the resolution that gives K (``"leiden"``). Without: Leiden on the hybrid graph of
       :func:`spanmf.gr.hybrid_neighbors`, :math:`\alpha` of space and :math:`1-\alpha` of the ``n_neighbors`` nearest
       in Z, at ``resolution``.

    Domains are numbered by size and are common to all libraries. The published form is ``preset="paper"``.

    Parameters
    ----------
    {adata}
    n_components
        Number of components k, from 1 to min(n, p).
    n_domains
        Wanted number of domains, if it is known.
    resolution
        Resolution γ of Leiden: more and smaller domains when higher.
    alpha
        Weight of space in the hybrid graph, from 0 to 1.
    clustering
        How domains are made (see above). ``"auto"``: ``"potts"`` with ``n_domains``, else ``"leiden"``.
    flavor
        Library that runs Leiden. ``"networkit"`` is the fastest; ``"igraph"`` and ``"leidenalg"`` are scanpy's.
    smooth
        ``False`` leaves W as it is: for cell types rather than domains (with ``alpha=0``, space plays no part at all and
        no graph is needed).
    {smoothing_form}
    {auto_steps}
    {laplacian_weight}
    scale
        Scale of Z (see above); ``None`` uses W as it is.
    use_rep
        Representation in ``adata.obsm`` to use in place of a factorisation, e.g. ``"X_joint_nmf"`` or ``"X_pca"``. It is
        smoothed unless ``smooth=False``, and rescaled if its loadings are in ``adata.varm``.
    n_neighbors
        Number of nearest neighbours in Z for the hybrid graph, the observation itself counted.
    n_landmarks
        For very many observations: Leiden runs on so many of them, drawn at random; each of the others takes the domain that is the
        commonest among the 5 of them nearest in Z. Their spatial graph has all neighbours that they have in the tissue, each
        represented by the nearest landmark. No hybrid graph is written, and a described spatial graph will do
        (:func:`spanmf.gr.contact_neighbors` with ``store=False``). A fifth of 100,000 cells agrees with the full run about as much as
        another seed of it does: see :doc:`/large_data`. ``None``: all observations.
    {connectivity_key}
    {layer}
    {mask_var}
    {loss}
    {init}
    {penalties}
    {stopping}
    {normalize}
    preset
        ``"paper"``: NNDSVDa, at most 500 iterations, ``smoothing="diffuse"``, two steps, ``scale=None``, Leiden by leidenalg with
        ``alpha=0.5`` and ``resolution=0.4``, where no other ones are given. The graph has a preset of its own:
        ``sn.gr.contact_neighbors(adata, preset="paper")``.
    {rng}
    {device}
    key_added
        Base name of the slots.
    {table_key}
    {copy}

    Returns
    -------
    The copy if ``copy``, else ``None``. Written (with the default ``key_added``):

    ``adata.obs["hsnmf"]`` : categorical
        Domains ``"0"``, ``"1"``, … in decreasing size.
    ``adata.obsm["X_hsnmf"]`` : n × k, float32
        Smoothed factors W (with ``use_rep`` removed, as they would not belong to the labels).
    ``adata.varm["hsnmf_loadings"]`` : p × k, float32
        Loadings Hᵀ; zero rows for variables that were not used (likewise).
    ``adata.obsp["hybrid_connectivities"]``, ``adata.obsp["hybrid_distances"]``, ``adata.uns["hybrid_neighbors"]``
        The hybrid graph (with Leiden on all observations only; with another ``key_added``, its base name is ``f"{key_added}_hybrid"``).
    ``adata.uns["hsnmf"]`` : dict
        ``params``, ``trace``, ``n_iter``, ``converged``, ``n_domains``, ``resolution`` (the one found by the search),
        ``n_steps_chosen`` (whether ``"auto"`` chose the ``n_steps`` of ``params``), ``versions``.

    Raises
    ------
    KeyError
        If there is no spatial graph, or a layer, representation or column is missing.
    ValueError
        If values are negative, NaN, infinite or all zero; if a parameter is out of range; if ``"laplacian"`` is combined
        with the KL loss or penalties, or ``use_rep`` with what belongs to a factorisation; if ``"potts"`` or ``"kmeans"``
        lacks ``n_domains``; if an option is given that has no effect beside the others (``resolution``, ``alpha``,
        ``flavor``, ``n_neighbors`` and ``n_landmarks`` belong to Leiden, and ``resolution`` not to a wanted number of domains); if there is
        no such device.
    ImportError
        If the device needs torch, and torch is not installed.
    MemoryError
        If the device has too little memory: what is needed, and what is free.

    References
    ----------
    Mahmud et al. (2026), *hSNMF: Hybrid Spatially Regularized NMF for Image-Derived Spatial Transcriptomics*, ISBI,
    `arXiv:2602.02638 <https://arxiv.org/abs/2602.02638>`_. Traag et al. (2019), *Sci. Rep.* 9, 5233 (Leiden).

    Examples
    --------
    >>> import scanpy as sc, spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> sn.gr.contact_neighbors(adata, library_key="library")
    >>> sn.tl.hsnmf(adata, 8, n_domains=5)
    >>> adata.obs["hsnmf"].cat.categories.tolist()
    ['0', '1', '2', '3', '4']
    """
    table = _data.get_table(adata, table_key)
    _checks.check_key_added(key_added)
    _checks.check_flag("smooth", smooth)
    check_steps(n_steps)
    check_smoothing(smoothing, beta, 0, laplacian_weight, loss, alpha_W, alpha_H)
    plan = _plan(table, n_domains, clustering, resolution, alpha, flavor, n_neighbors, n_landmarks, scale)
    A, graph_key = _graph_in_use(
        table, connectivity_key, stored=plan.needs_matrix or device != "cpu", needed=smooth or plan.needs_graph
    )
    rng_ = _data.default_rng(rng, random_state)
    params: dict[str, Any] = {"connectivity_key": graph_key, "smooth": smooth, "rng": _fit.seed_of(rng, random_state)}
    choose = partial(chosen_steps, n_steps, table, A, graph_key, beta=beta, mixture=plan.clustering != "leiden")
    with timed("tl.hsnmf") as notes:
        fit, steps = None, 0
        if use_rep is None:
            problem = _fit.prepare(
                table, n_components, layer=layer, mask_var=mask_var, loss=loss, init=init, alpha_W=alpha_W,
                alpha_H=alpha_H, l1_ratio=l1_ratio, max_iter=max_iter, tol=tol, normalize=normalize, preset=preset,
                rng=rng_, device=device, edges=A.nnz if smooth else 0,
            )  # fmt: skip
            kind = smoothing if smooth else "diffuse"
            result, W, H = raw_factors(problem, A, "tl.hsnmf", kind, laplacian_weight)
            if smooth and kind != "laplacian":
                steps = choose(_scale.rescale(np.asarray(W), H, scale))
            W, H = smoothed(problem, A, W, H, kind, beta=beta, n_steps=steps)
            fit, rep = (W, H, problem.mask), _keys.FactorKeys(key_added).factors
            Z = _scale.rescale(W, H, scale)
            params |= problem.params
        else:
            if smoothing == "laplacian":
                msg = "With `use_rep` nothing is factorised, so `smoothing='laplacian'` cannot be used."
                raise ValueError(msg)
            if device != "cpu":
                msg = f"With `use_rep` nothing is factorised, so `device={device!r}` has no effect. Leave it out."
                raise ValueError(msg)
            kind, result = "diffuse", None
            Z, rep = _data.get_scaled(table, use_rep, scale), _data.representation_key(table, use_rep)
            if smooth:
                steps = choose(Z)
                Z = _smooth.diffuse(_smooth.as_graph(A), Z, beta, steps)
            params |= {"use_rep": use_rep, "preset": preset}
        outcome: dict[str, Any] = {}
        if smooth:
            params |= smoothing_params(kind, beta, steps, laplacian_weight)
            if kind != "laplacian":
                outcome["n_steps_chosen"] = isinstance(n_steps, str)
                chosen = f" (n_steps={n_steps!r})" if outcome["n_steps_chosen"] else ""
                notes.append(f"smoothed in {steps} step{'s' * (steps != 1)}{chosen}")
        found = _cluster(Z, A, plan, rng_)
        labels = _data.ordered_labels(found.codes)
        outcome |= {"n_domains": len(labels.categories), "resolution": found.resolution}
        if result is not None:
            outcome |= _fit.solver_results(result)
        table = _data.target(table, copy=copy)
        if fit is None and rep != _keys.FactorKeys(key_added).factors:
            _fit.remove_factors(table, key_added)
        added = _fit.write(table, key_added, fit, labels, params | plan.params(), **outcome)
        if found.hybrid is not None:
            keys = _keys.GraphKeys(_keys.hybrid_of(key_added))
            write_hybrid(
                table, keys, *found.hybrid, plan.graph_params() | {"connectivity_key": graph_key, "use_rep": rep}
            )
            added += f", obsp[{keys.connectivities!r}], uns[{keys.neighbors!r}]"
        notes += [f"{len(labels.categories)} domains by {plan.clustering}", added]
    return table if copy else None


def _graph_in_use(
    table: AnnData, connectivity_key: str | None, *, stored: bool, needed: bool
) -> tuple[AnyGraph, str | None]:
    """Give the spatial graph, or an empty one where space plays no part."""
    if not needed:
        return sp.csr_matrix((table.n_obs, table.n_obs), dtype=np.float32), None
    A, key = (_data.get_graph if stored else _data.find_graph)(table, connectivity_key)
    _checks.check_edges(A, key)
    return A, key


@dataclass(frozen=True)
class _Plan:
    """Checked options of the clustering."""

    clustering: str
    n_domains: int | None
    resolution: float
    alpha: float
    flavor: str
    n_neighbors: int
    n_landmarks: int | None
    scale: _scale.Scale

    @property
    def needs_graph(self) -> bool:
        return self.clustering == "potts" or (self.clustering == "leiden" and self.alpha > 0)

    @property
    def needs_matrix(self) -> bool:
        return self.clustering == "leiden" and self.alpha > 0 and self.n_landmarks is None

    def graph_params(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "n_neighbors": self.n_neighbors, "scale": self.scale, "method": "umap"}

    def params(self) -> dict[str, Any]:
        out = {"clustering": self.clustering, "scale": self.scale, "n_domains": self.n_domains}
        if self.clustering == "leiden":
            out |= {"alpha": self.alpha, "flavor": self.flavor, "n_neighbors": self.n_neighbors}
            out["n_landmarks"] = self.n_landmarks
            if self.n_domains is None:
                out["resolution"] = self.resolution
        return out


def _plan(
    table: AnnData,
    n_domains: int | None,
    clustering: str,
    resolution: float,
    alpha: float,
    flavor: str,
    n_neighbors: int,
    n_landmarks: int | None,
    scale: _scale.Scale,
) -> _Plan:
    """Check the options of the clustering and choose what ``"auto"`` means."""
    _checks.check_choice("clustering", clustering, CLUSTERINGS)
    _checks.check_choice("flavor", flavor, tuple(_leiden.FLAVORS))
    _checks.check_choice("scale", scale, ("gram", "norm", None))
    _checks.check_range("resolution", resolution, 0, open_low=True)
    _checks.check_range("alpha", alpha, 0, 1)
    _checks.check_range("n_neighbors", n_neighbors, 2, integer=True)
    if n_landmarks is not None:
        _checks.check_n_landmarks(n_landmarks, table.n_obs, n_neighbors)
        n_landmarks = int(n_landmarks)
    if n_domains is not None:
        _checks.check_range(
            "n_domains", n_domains, 2, table.n_obs if n_landmarks is None else n_landmarks, integer=True
        )
    elif clustering in ("potts", "kmeans"):
        msg = (
            f"`clustering={clustering!r}` needs `n_domains`. Without it, use `clustering='leiden'` with a `resolution`."
        )
        raise ValueError(msg)
    return _Plan(
        _resolved(clustering, n_domains), n_domains, float(resolution), float(alpha), flavor,
        int(n_neighbors), n_landmarks, scale,
    )  # fmt: skip


@dataclass(frozen=True)
class _Found:
    codes: np.ndarray
    resolution: float | None = None
    hybrid: tuple[sp.csr_matrix, sp.csr_matrix] | None = None


def _cluster(Z: np.ndarray, A: AnyGraph, plan: _Plan, rng: np.random.Generator) -> _Found:
    """Domains of the rows of Z."""
    if plan.clustering == "potts":
        return _Found(_domains.potts_mixture(Z, plan.n_domains, _smooth.as_graph(A), rng))
    if plan.clustering == "kmeans":
        return _Found(_domains.k_means(Z, plan.n_domains, rng)[0])
    if plan.n_landmarks is None:
        return _communities(Z, A if plan.alpha > 0 else None, plan, rng)
    rows = _landmarks.sample(len(Z), plan.n_landmarks, rng)
    with status("tl.hsnmf: nearest landmarks", show=len(Z) >= LARGE):
        nearest = _landmarks.nearest(Z, rows)
    among = _landmarks.graph_among(A, rows, nearest[:, 0]) if plan.alpha > 0 else None
    found = _communities(Z[rows], among, plan, rng)
    return _Found(_landmarks.spread(found.codes, rows, nearest), found.resolution)


def _communities(Z: np.ndarray, A: sp.csr_matrix | None, plan: _Plan, rng: np.random.Generator) -> _Found:
    """Leiden on the hybrid graph of the rows of Z and, where space plays a part, of A."""
    seed, F, D = neighbours(Z, plan.n_neighbors, rng)
    M = _graph.mix(sp.csr_matrix(F.shape, dtype=np.float32) if A is None else A, F, plan.alpha)
    with status(f"tl.hsnmf: Leiden ({plan.flavor})", show=len(Z) >= LARGE):
        if plan.n_domains is None:
            return _Found(_leiden.leiden(M, plan.resolution, flavor=plan.flavor, seed=seed), hybrid=(M, D))
        codes, resolution, found = _leiden.search_resolution(M, plan.n_domains, flavor=plan.flavor, seed=seed)
    if found != plan.n_domains:
        _checks.warn(
            f"No resolution gave {plan.n_domains} domains; the nearest is {found} at resolution {resolution:.3g}. "
            "`clustering='potts'` gives the wanted number."
        )
    return _Found(codes, resolution, (M, D))


def neighbours(Z: np.ndarray, n_neighbors: int, rng: np.random.Generator) -> tuple[int, sp.csr_matrix, sp.csr_matrix]:
    """What Leiden needs of Z alone: its seed, the feature graph and the distances."""
    seed = int(rng.integers(2**31 - 1))
    _load_networkit()
    return seed, *feature_graph(Z, n_neighbors)


def _load_networkit() -> None:
    """Import networkit without its side effects: it changes matplotlib's settings and puts HTML into notebooks."""
    import matplotlib as mpl

    with mpl.rc_context(), _no_notebook_output():
        import networkit  # noqa: F401


def _no_notebook_output() -> AbstractContextManager[Any]:
    """Drop what is displayed meanwhile, where there is a notebook."""
    if "IPython" not in sys.modules:
        return nullcontext()
    from IPython.utils.capture import capture_output

    return capture_output(stdout=False, stderr=False)
