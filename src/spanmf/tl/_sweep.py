"""Domains over a grid of ranks and resolutions, with every metric of each."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from .. import _checks, _data, _keys
from .._docs import doc
from .._logging import timed
from ..core import _graph, _leiden, _ops, _scale
from ..metrics._rows import ROWS
from ..metrics._scorer import Candidate, Factors, Scorer
from ..metrics._smoothing import smoothing_of
from . import _fit
from ._hsnmf import PAPER as PAPER_HSNMF
from ._hsnmf import neighbours
from ._snmf import check_smoothing, raw_factors, smoothed, smoothing_params
from ._sweep_file import LABELS, Key, SweepFile, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import scipy.sparse as sp
    from spatialdata import SpatialData

    from ..metrics._scorer import Row

AXES = ("n_components", "beta", "alpha", "resolution", "rng")
SCORING_SEED = int(np.random.default_rng(0).integers(2**31 - 1))  # as in metrics.panel
PAPER = {name: value for name, value in PAPER_HSNMF.items() if name not in ("clustering", "resolution")}


@_fit.presets(PAPER, _fit.idle_smoothing)
@doc
def sweep(
    adata: AnnData | SpatialData,
    n_components: int | Sequence[int] = (5, 10, 15, 20, 25),
    resolution: float | Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0),
    *,
    alpha: float | Sequence[float] = 0.1,
    beta: float | Sequence[float] = 0.6,
    rng: int | Sequence[int] = 0,
    random_state: int | Sequence[int] | None = None,
    file: str | Path | None = None,
    keep_labels: bool = False,
    store: bool = False,
    key_added: str = "sweep",
    library_key: str | None = None,
    reference_key: str | None = None,
    gene_sets: Mapping[str, Sequence[str]] | str | Path | None = None,
    connectivity_key: str | None = None,
    spatial_key: str = "spatial",
    smoothing: Literal["refit", "diffuse", "laplacian"] = "refit",
    n_steps: int = 2,
    laplacian_weight: float = 1.0,
    scale: Literal["gram", "norm"] | None = "gram",
    n_neighbors: int = 15,
    flavor: Literal["networkit", "igraph", "leidenalg"] = "networkit",
    layer: str | None = None,
    mask_var: str | np.ndarray | None = "auto",
    loss: Literal["frobenius", "kl"] = "frobenius",
    init: Literal["auto", "nndsvd", "nndsvda", "nndsvdar", "random"] = "auto",
    alpha_W: float = 0.0,
    alpha_H: float | Literal["same"] = "same",
    l1_ratio: float = 0.0,
    max_iter: int = 500,
    tol: float = 3e-6,
    normalize: bool = False,
    preset: Literal["paper"] | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Find domains for every combination of options, and score each.

    A run is what :func:`spanmf.tl.hsnmf` makes by Leiden with the same options, label for label, but each stage is
    computed once: the factorisation for every (rank, seed), the smoothing and the graph of nearest neighbours for
    every β of these, the hybrid graph for every α of these, and Leiden for every resolution of these. The metrics
    share what depends on the table alone, or on the factors alone.

    No run is the best. :func:`spanmf.metrics.pareto_front` and :func:`spanmf.pl.pareto` tell which ones no other
    beats; :func:`spanmf.tl.select_n_components` asks for the rank itself.

    Parameters
    ----------
    {adata}
    n_components, resolution, alpha, beta, rng
        The grid: a value or several of each, as in :func:`spanmf.tl.hsnmf`; ``rng`` takes seeds.
    random_state
        Alias of ``rng``, as in scanpy.
    file
        Where to write each run as soon as it is finished (JSON lines). If the file is there already, its runs are taken
        from it and only those that are missing are made, so an interrupted sweep goes on where it was, and a finished one
        can be extended. A file of another table or of other options is refused.
    keep_labels
        Write the labels of every run to the table. Runs that a file holds without labels are made again.
    store
        Write the resulting table to ``adata.uns``.
    key_added
        Base name of what ``store`` and ``keep_labels`` write.
    {library_key}
    reference_key
        Column of ``adata.obs`` with known labels to compare with.
    gene_sets
        Gene sets for the enrichment: a mapping from name to genes, or a GMT file. ``None``: no enrichment.
    {connectivity_key}
    {spatial_key}
    smoothing, n_steps, laplacian_weight
        How factors are smoothed, see :func:`spanmf.tl.snmf`; ``"laplacian"`` has no ``beta``.
    scale
        Scale of the factors for the nearest neighbours, see :func:`spanmf.tl.hsnmf`. (The metrics always use
        ``"gram"``.)
    n_neighbors
        Number of nearest neighbours in the feature graph, the observation itself counted.
    flavor
        Library that runs Leiden.
    {layer}
    {mask_var}
    {loss}
    init
        As in :func:`spanmf.tl.nmf`, by name.
    {penalties}
    {stopping}
    {normalize}
    preset
        ``"paper"``: as in :func:`spanmf.tl.hsnmf`; the grid is yours.
    {table_key}

    Returns
    -------
    DataFrame with one row a run, in the order of the grid (rank, β, α, resolution, seed; the last varies fastest), and the
    columns ``n_components``, ``beta`` (NaN where the smoothing has none), ``alpha``, ``resolution``, ``rng``, ``key`` (a
    name, such as ``"k10_b0.6_a0.1_r0.4_s0"``), every metric of :func:`spanmf.metrics.panel` over all observations, and
    ``note`` (why a metric is NaN). Markers are found anew for each run. Metrics that draw samples use the same seed for all
    runs.

    With ``store``:

    ``adata.uns["sweep"]`` : dict
        ``table`` (the DataFrame), ``params``, ``versions``.

    With ``keep_labels``:

    ``adata.obsm["sweep_labels"]`` : DataFrame, n × runs
        One categorical column a run, named by its ``key``: ``adata.obs["domains"] = adata.obsm["sweep_labels"][key]``.

    Raises
    ------
    KeyError
        If there is no spatial graph, or a layer or column is missing.
    ValueError
        If the grid has an empty axis, a value twice or one out of range; if the values of the table cannot be factorised;
        if ``file`` is of another table or of other options (it names which), or damaged.
    FileNotFoundError
        If there is no folder for ``file``.

    References
    ----------
    Mahmud et al. (2026), *hSNMF*, `arXiv:2602.02638 <https://arxiv.org/abs/2602.02638>`_.

    Examples
    --------
    >>> import scanpy as sc, spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> sn.gr.contact_neighbors(adata, library_key="library")
    >>> runs = sn.tl.sweep(adata, n_components=[4, 8], resolution=[0.2, 0.6], library_key="library")
    >>> len(runs), bool((runs["n_clusters"] > 1).all())
    (4, True)
    """
    given = _data.get_table(adata, table_key)
    _checks.check_key_added(key_added)
    for name, flag in (("keep_labels", keep_labels), ("store", store), ("normalize", normalize)):
        _checks.check_flag(name, flag)
    grid = {
        "n_components": _axis("n_components", n_components, low=1, integer=True),
        "beta": [None] if smoothing == "laplacian" else _axis("beta", beta, low=0, high=1),
        "alpha": _axis("alpha", alpha, low=0, high=1),
        "resolution": _axis("resolution", resolution, low=0, open_low=True),
        "rng": _axis("rng" if random_state is None else "random_state", rng if random_state is None else random_state,
                     low=0, integer=True),
    }  # fmt: skip
    check_smoothing(smoothing, 0.0, n_steps, laplacian_weight, loss, alpha_W, alpha_H)
    _checks.check_choice("flavor", flavor, tuple(_leiden.FLAVORS))
    _checks.check_choice("scale", scale, ("gram", "norm", None))
    _checks.check_range("n_neighbors", n_neighbors, 2, integer=True)
    if not isinstance(init, str):
        msg = f"`init` must be the name of a start, since one that is given fits one rank only, not {type(init).__name__}."
        raise TypeError(msg)
    A, graph_key = _data.get_graph(given, connectivity_key)
    _checks.check_edges(A, graph_key)
    table = _normalised(given, layer) if normalize else given
    layer = None if normalize else layer
    with timed("tl.sweep") as notes:
        problem = _fit.prepare(
            table, max(grid["n_components"]), layer=layer, mask_var=mask_var, loss=loss, init=init, alpha_W=alpha_W,
            alpha_H=alpha_H, l1_ratio=l1_ratio, max_iter=max_iter, tol=tol, normalize=False, preset=preset,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        scorer = Scorer(
            table, library_key=library_key, connectivity_key=connectivity_key, spatial_key=spatial_key,
            reference_key=reference_key, gene_sets=gene_sets, layer=layer, rng=SCORING_SEED,
        )  # fmt: skip
        setup = _Setup(
            problem=problem, A=A, graph_key=graph_key, smoothing=smoothing, n_steps=int(n_steps),
            weight=float(laplacian_weight), scale=scale, n_neighbors=int(n_neighbors), flavor=flavor,
        )  # fmt: skip
        options = setup.options() | {"normalize": normalize}
        subject = {} if file is None else _subject(table, setup, scorer, options)
        done = SweepFile(None if file is None else Path(file).expanduser(), subject, AXES)
        wanted = list(product(*grid.values()))
        before = sum(done.has(key, labels=keep_labels) for key in wanted)
        with tqdm(total=len(wanted), initial=before, desc="tl.sweep", unit="run", delay=3, leave=False) as bar:
            for run, labels in _runs(grid, setup, scorer, lambda key: done.has(key, labels=keep_labels)):
                done.add(run, labels if keep_labels else None)
                bar.update()
        result = _table(done, wanted)
        added = _write(given, key_added, result, done, wanted, options, store=store, keep_labels=keep_labels)
        notes += [f"{len(wanted)} runs ({before} of them there already)", *added]
    return result


@dataclass(frozen=True)
class _Setup:
    """What all runs have in common."""

    problem: _fit.Problem
    A: sp.csr_matrix
    graph_key: str
    smoothing: str
    n_steps: int
    weight: float
    scale: _scale.Scale
    n_neighbors: int
    flavor: str

    def options(self) -> dict[str, Any]:
        """For the record."""
        params = {k: v for k, v in self.problem.params.items() if k != "n_components"}
        params |= smoothing_params(self.smoothing, 0.0, self.n_steps, self.weight)
        params.pop("beta", None)
        return params | {"scale": self.scale, "n_neighbors": self.n_neighbors, "flavor": self.flavor}


def _axis(name: str, values: Any, **bounds: Any) -> list[Any]:
    """One axis of the grid: at least one value, each in range and there once."""
    values = [values] if np.ndim(values) == 0 else list(values)
    if not values:
        msg = f"`{name}` is empty: give at least one value."
        raise ValueError(msg)
    for value in values:
        _checks.check_range(name, value, **bounds)
    values = [int(v) if bounds.get("integer") else float(v) for v in values]
    twice = sorted({v for v in values if values.count(v) > 1})
    if twice:
        msg = f"`{name}` has {', '.join(map(str, twice))} more than once: give each value once."
        raise ValueError(msg)
    return values


def _normalised(table: AnnData, layer: str | None) -> AnnData:
    """The table with log-normalised values, the rest of it shared."""
    X, name = _data.get_matrix(table, layer)
    _checks.check_matrix(X, name)
    if not _checks.looks_like_counts(X):
        _checks.warn(f"`normalize=True`, but {name} does not look like raw counts: it is normalised once more.")
    return AnnData(_fit.log_normalised(X), obs=table.obs, var=table.var, obsm=dict(table.obsm), obsp=dict(table.obsp))


# --- runs -----------------------------------------------------------------------------------------------------------


def _runs(
    grid: dict[str, list[Any]], setup: _Setup, scorer: Scorer, is_done: Callable[[Key], bool]
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Make and score every run that is not there yet; what only later runs of the same factors need is kept until then."""
    for seed, k in product(grid["rng"], grid["n_components"]):
        missing = [key for key in product([k], *(grid[name] for name in AXES[1:-1]), [seed]) if not is_done(key)]
        if not missing:
            continue
        problem = replace(setup.problem, n_components=k, rng=np.random.default_rng(seed))
        _, W, H = raw_factors(problem, setup.A, f"tl.sweep: {k} components", setup.smoothing, setup.weight)
        for beta in grid["beta"]:
            of_beta = [key for key in missing if key[1] == beta]
            if of_beta:
                yield from _runs_of_factors(problem, setup, scorer, beta, W, H, of_beta)


def _runs_of_factors(
    problem: _fit.Problem,
    setup: _Setup,
    scorer: Scorer,
    beta: float | None,
    W: np.ndarray,
    H: np.ndarray,
    keys: list[Key],
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Smooth the factors, and cluster them for every (α, resolution) that is wanted."""
    W, H = smoothed(problem, setup.A, W, H, setup.smoothing, beta=beta, n_steps=setup.n_steps)
    factors = _for_scoring(problem, setup, scorer, beta, W, H)
    Z = factors.Z if setup.scale == factors.scale else _scale.rescale(W, H, setup.scale)
    seed, F, _ = neighbours(Z, setup.n_neighbors, deepcopy(problem.rng))  # every β starts where the factorisation ended
    for alpha in dict.fromkeys(key[2] for key in keys):
        communities = _leiden.prepared(_graph.mix(setup.A, F, alpha), setup.flavor)
        for key in (key for key in keys if key[2] == alpha):
            labels = _data.ordered_labels(communities(key[3], seed))
            codes = labels.codes.astype(np.int64)
            candidate = Candidate(codes, [str(c) for c in labels.categories], factors)
            yield _scored(dict(zip(AXES, key, strict=True)), scorer, candidate), codes


def _for_scoring(
    problem: _fit.Problem, setup: _Setup, scorer: Scorer, beta: float | None, W: np.ndarray, H: np.ndarray
) -> Factors:
    """Factors with loadings of all variables, as the table would hold them."""
    loadings = np.zeros((H.shape[0], len(problem.mask)), dtype=np.float32)
    loadings[:, problem.mask] = H
    made = smoothing_params(setup.smoothing, beta, setup.n_steps, setup.weight) | {"connectivity_key": setup.graph_key}
    return Factors(np.ascontiguousarray(W, dtype=np.float32), loadings, smoothing_of(made))


def _scored(run: dict[str, Any], scorer: Scorer, candidate: Candidate) -> dict[str, Any]:
    """Add name, metrics, and why some of them are NaN."""
    lines = scorer.score(candidate, ROWS)
    reasons = [f"{line.metric}: {line.note}" for line in lines if np.isnan(line.value) and line.note]
    return run | {"key": _name(run)} | {line.metric: line.value for line in lines} | {"note": " ".join(reasons)}


def _name(run: dict[str, Any]) -> str:
    """A name for a run that a store can hold."""
    letters = dict(zip(AXES, "kbars", strict=True))
    return "_".join(f"{letters[axis]}{run[axis]:.10g}" for axis in AXES if run[axis] is not None)


# --- file and results -----------------------------------------------------------------------------------------------


def _subject(table: AnnData, setup: _Setup, scorer: Scorer, options: dict[str, Any]) -> dict[str, Any]:
    """What the runs of a file must have in common: fingerprints of the table's parts, and the options."""
    X = _ops.as_rows(_data.get_matrix(table, scorer.layer)[0])
    codes, names = _data.get_libraries(table, scorer.library_key)
    parts = {
        "observations": digest(table.obs_names.tolist()),
        "variables": digest(table.var_names.tolist()),
        "values": digest(X.indptr, X.indices, X.data),
        "variables in use": digest(setup.problem.mask),
        "graph": digest(setup.A.indptr, setup.A.indices, setup.A.data),
        "coordinates": digest(np.asarray(table.obsm[scorer.spatial_key])) if scorer.spatial_key in table.obsm else "",
        "libraries": digest(codes, names) if scorer.library_key is not None else "",
        "reference labels": digest(scorer.reference) if scorer.reference_key is not None else "",
        "gene sets": digest(scorer.gene_sets),
    }
    from .. import __version__

    metrics = [name for row in _rows_of(scorer) for name in row.metrics]
    return {"table": parts, "options": options | {"version of spanmf": __version__, "metrics": metrics}}


def _rows_of(scorer: Scorer) -> Iterable[Row]:
    """Rows of the panel that this scorer can have for labels and factors."""
    there = scorer.has | {"labels", "clusters", "factors", "loadings"}
    return (row for row in ROWS if row.needs <= there)


def _table(done: SweepFile, wanted: list[Key]) -> pd.DataFrame:
    """One row a run, in the order of the grid."""
    table = pd.DataFrame([done.runs[key] for key in wanted]).drop(columns=LABELS, errors="ignore")
    note = table.pop("note")
    for name in table.columns.drop(["key", "n_components", "rng"]):
        table[name] = table[name].astype(np.float64)
    return table.assign(n_clusters=table["n_clusters"].astype(np.int64), note=note)


def _write(
    table: AnnData,
    key_added: str,
    result: pd.DataFrame,
    done: SweepFile,
    wanted: list[Key],
    options: dict[str, Any],
    *,
    store: bool,
    keep_labels: bool,
) -> list[str]:
    """Put into the table what was asked for, and name the slots."""
    added = []
    record = _data.provenance(options) | {"table": result.copy()}
    record["table"].index = record["table"].index.astype(str)
    if keep_labels:
        columns = {}
        for name, key in zip(result["key"], wanted, strict=True):
            columns[name] = _data.ordered_labels(done.labels(key))
        slot = _keys.sweep_labels(key_added)
        table.obsm[slot] = pd.DataFrame(columns, index=table.obs_names)
        added.append(f"obsm[{slot!r}]")
    if store:
        table.uns[key_added] = record
        added.append(f"uns[{key_added!r}]")
    return [f"added {', '.join(added)}"] if added else []
