"""RNA and protein of one tissue, from files to types, niches and who sits next to whom."""

from __future__ import annotations

import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from . import _checks, _data, _keys, _marker_sets, gr, io, pl, pp, tl
from . import _report as _report_parts
from ._docs import doc
from ._logging import timed
from ._runs import save
from .io._folder import whole_folder
from .pp._align import check_units
from .tl._joint_values import recorded_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from mudata import MuData

RNA, PROTEIN = "rna", "protein"
KEY = "joint_nmf"
TYPE = "cell_type"
NICHE = "niche"
COMPOSITION = "niche_composition"
PAIRS = "colocalization"
OUTPUTS = {  # what a run leaves, in the order in which to look at it
    "report.html": "types, factors, neighbours, niches and numbers on one page: look here first",
    "cell_types.png": "where the types lie",
    "colocalization.png": "who sits next to whom, more (blue) or less (brown) than by chance",
    "niches.png": "groups of cells with alike neighbours, and what they are made of",
    "factors.png": "each factor on the tissue, with its top genes",
    "modality_loadings.png": "the genes of each factor beside its proteins",
    "alignment.png": "which cells of the two tables were matched",
    "shared_labels.csv": "cell_id, x, y and type of every cell",
    "co_localization.csv": "every pair of types: edges, expected, ratio, z, p",
    "niche_composition.csv": "shares of the types around every cell, their number, the niche",
    "nmf_factors.csv": "factors of every cell",
    "factor_types.csv": "the type of every factor, with score, margin, p and markers",
    "W_transcript.npy": "loadings of genes (genes × factors)",
    "W_protein.npy": "loadings of proteins (proteins × factors)",
    "H_shared.npy": "shared factors (factors × cells)",
    "result.h5mu": "everything, for mudata: mdata.obsm['X_joint_nmf'], mdata.obs['cell_type'], …",
}


@dataclass(frozen=True, eq=False)
class JointResult:
    """What :func:`spanmf.run_joint` found.

    Cells are those of the MuData (``mdata.obs_names``), in its order; types are by name, ``"Unknown"`` among them.
    """

    cell_types: list[str]
    """Names of the types that occur."""
    shared_labels: pd.DataFrame
    """Cells × (x, y, (z), cell_type)."""
    co_localization: pd.DataFrame
    """One row a pair of types (and library), as :func:`spanmf.gr.colocalization` returns it."""
    niche_composition: pd.DataFrame
    """Cells × (n_neighbors, niche, a share for each type)."""
    nmf_factors: pd.DataFrame
    """Cells × factors."""
    factor_types: pd.DataFrame
    """One row a factor, as :func:`spanmf.tl.annotate_factors` returns it."""
    W_transcript: np.ndarray
    """Loadings of the genes, genes × factors."""
    W_protein: np.ndarray
    """Loadings of the proteins, proteins × factors."""
    H_shared: np.ndarray
    """Shared factors, factors × cells."""
    mdata: MuData
    """Both tables with all of the above."""

    def __repr__(self) -> str:
        """A line a field: printed whole, the arrays are pages."""
        sizes = {f.name: " × ".join(f"{n:,}" for n in getattr(self, f.name).shape) for f in fields(self)[1:]}
        lines = [f"cell_types: {', '.join(self.cell_types)}", *(f"{name}: {size}" for name, size in sizes.items())]
        return "\n    ".join(["JointResult", *lines])


@doc
def run_joint(
    transcriptome: AnnData | str | Path,
    proteome: AnnData | str | Path,
    *,
    n_factors: int = 15,
    radius: float = 50.0,
    markers: Mapping[str, Sequence[str]] | pd.DataFrame | str | Path | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    tx_platform: str = "auto",
    prot_platform: str = "auto",
    align: Literal["auto", "name", "mutual_nearest", "pool", "grid"] = "auto",
    align_radius: float | None = None,
    warp: float | None = None,
    unmatched: Literal["keep", "drop"] = "keep",
    n_niches: int = 8,
    library_key: str | None = None,
    rng: int | np.random.Generator = 0,
) -> JointResult:
    r"""Find cell types that RNA and protein agree on, their niches, and who sits next to whom.

    Read (:func:`spanmf.io.read`), match cells (:func:`spanmf.pp.align_modalities`), factorise both tables
    (:func:`spanmf.tl.joint_nmf`), name factors and cells by markers (:func:`spanmf.tl.annotate_factors`,
    :func:`spanmf.tl.assign_types`), then :func:`spanmf.gr.niche_composition`, :func:`spanmf.tl.niches` and
    :func:`spanmf.gr.colocalization`. Each step can be called by itself with all its options; ``spanmf joint`` is the same in a shell.

    Parameters
    ----------
    transcriptome
        Counts of RNA: an AnnData, or a file or folder.
    proteome
        Intensities (or counts) of protein, in the same coordinate system unless its cells have the same names. Neither table
        is changed.
    n_factors
        Number of shared factors.
    radius
        Cells within this distance are neighbours, in the units of the coordinates.
    markers
        As in :func:`spanmf.tl.annotate_factors`. ``None``: :func:`spanmf.datasets.cell_markers`.
    output
        Folder for files and figures, written whole or not at all. ``None``: nothing is written.
    overwrite
        Replace earlier results in ``output`` (other files stay).
    tx_platform, prot_platform
        Platform of each, where a file or folder is given: see :func:`spanmf.io.read`.
    align
        How cells are matched: see :func:`spanmf.pp.align_modalities`. ``"pool"``: cells of the proteome beneath spots of the
        transcriptome.
    align_radius
        Its ``radius``: largest distance of a pair, radius of a spot, or side of a square.
    warp
        Distance over which a smooth displacement of the proteome varies, to be undone first. ``None``: off.
    unmatched
        ``"keep"`` cells that one table lacks (they add nothing for it and are judged by the other), or ``"drop"`` them.
    n_niches
        Number of niches.
    {library_key}
        Of the transcriptome; both tables must have it where cells are in only one of them.
    rng
        Seed or :class:`numpy.random.Generator`.

    Returns
    -------
    JointResult
        ``cell_types``, ``shared_labels``, ``co_localization``, ``niche_composition``, ``nmf_factors``, ``factor_types``,
        ``W_transcript`` (genes × k), ``W_protein`` (proteins × k), ``H_shared`` (k × cells), and ``mdata`` with all of it:
        ``obs["cell_type"]``, ``obs["cell_type_confidence"]``, ``obs["niche"]``, ``obsm["X_joint_nmf"]``,
        ``obsm["niche_composition"]``, ``obsm["spatial"]``, ``uns["colocalization"]``.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    FileExistsError
        If ``output`` holds something and ``overwrite`` is not given.
    KeyError
        If coordinates or columns are missing.
    ValueError
        If the units of the tables differ, no cell matches, values cannot be factorised, or markers match nothing.

    Examples
    --------
    >>> import spanmf as sn
    >>> tissue = sn.datasets.rna_protein_tissue(1000)
    >>> result = sn.run_joint(tissue.mod["rna"], tissue.mod["protein"], n_factors=10, radius=30)
    >>> result.W_transcript.shape, result.W_protein.shape, result.H_shared.shape
    ((300, 10), (30, 10), (10, 1000))
    >>> "plasma cell" in result.cell_types
    True
    """
    job = Job(
        transcriptome, proteome, tx_platform, prot_platform, n_factors=n_factors, radius=radius, markers=markers, align=align,
        align_radius=align_radius, warp=warp, unmatched=unmatched, n_niches=n_niches, library_key=library_key, rng=rng,
    )  # fmt: skip
    if output is not None:
        output = Path(output).expanduser()
        if output.exists() and not output.is_dir():
            msg = f"{str(output)!r} is a file: name a folder with `output`."
            raise NotADirectoryError(msg)
        if output.is_dir() and any(output.iterdir()) and not overwrite:
            msg = f"The folder {str(output)!r} is not empty: name another, or replace earlier results with `overwrite=True`."
            raise FileExistsError(msg)
    with timed("run_joint") as notes, whole_folder(output, OUTPUTS) if output else nullcontext() as folder:
        result = analyse(job, folder, _silent)
        notes.append(f"{result.mdata.n_obs} cells, {len(result.cell_types)} types")
    return result


@contextmanager
def _silent(_: str) -> Iterator[list[str]]:
    yield []


@dataclass(frozen=True, eq=False)
class Job:
    """What a run was asked for."""

    transcriptome: Any
    proteome: Any
    tx_platform: str = "auto"
    prot_platform: str = "auto"
    n_factors: int = 15
    radius: float = 50.0
    markers: Any = None
    align: str = "auto"
    align_radius: float | None = None
    warp: float | None = None
    unmatched: str = "keep"
    n_niches: int = 8
    library_key: str | None = None
    rng: Any = 0


def analyse(job: Job, folder: Path | None, stage: Callable[[str], AbstractContextManager[list[str]]]) -> JointResult:
    """All stages, each of which is told to the user; files where there is a folder for them."""
    _checks.check_range("n_factors", job.n_factors, 1, integer=True)
    _checks.check_range("radius", job.radius, 0, open_low=True)
    _checks.check_range("n_niches", job.n_niches, 2, integer=True)
    if job.align in ("pool", "grid") and job.align_radius is None:
        what = "the radius of a spot" if job.align == "pool" else "the side of a square"
        msg = f"`align={job.align!r}` needs `align_radius`: {what}, in the units of the coordinates."
        raise ValueError(msg)
    sets = _marker_sets.read(job.markers)  # a file in another layout is refused before anything else is read
    with stage("read") as notes:
        tx, prot = _table(job.transcriptome, job.tx_platform), _table(job.proteome, job.prot_platform)
        _check_markers(sets, tx, prot)
        _warn_of_doubtful(sets, tx, prot)
        notes += [f"{t.n_obs:,} cells × {t.n_vars:,} {what}" for t, what in ((tx, "genes"), (prot, "proteins"))]
    with stage("align") as notes:
        mdata = _aligned(tx, prot, job)
        found = mdata.uns["alignment"]
        notes += [f"{found['n_matched']:,} matched by {found['method']}"]
        notes += [f"{found[k]:,} in the {w} only" for k, w in (("n_only_a", "transcriptome"), ("n_only_b", "proteome"))]
    with stage("factors") as notes:
        tl.joint_nmf(mdata, job.n_factors, rng=_child(job.rng))
        notes += [f"{job.n_factors} factors", f"{mdata.uns[KEY]['n_iter']} passes"]
    with stage("types") as notes:
        factor_types = tl.annotate_factors(mdata, job.markers)
        tl.assign_types(mdata, job.markers, key_added=TYPE, rng=_child(job.rng))
        types = [str(t) for t in mdata.obs[TYPE].cat.remove_unused_categories().cat.categories]
        notes += [f"{len(types)} types", f"{int((mdata.obs[TYPE] == 'Unknown').sum()):,} cells unknown"]
    with stage("niches") as notes:
        cells = _cells(mdata, job.library_key)
        pairs = _surroundings(cells, mdata, job, notes)
    result = _result(mdata, cells, pairs, factor_types, types)
    if folder is not None:
        with stage("figures") as notes:
            notes += [", ".join(_draw(result, cells, job, folder))]
        with stage("files") as notes:
            _write(result, folder)
            _report(result, cells, job, folder)
            notes += ["tables, result.h5mu, report.html"]
    return result


def _child(rng: Any) -> Any:
    return rng if isinstance(rng, (int, np.integer)) else np.random.default_rng(rng)


def _table(source: Any, platform: str) -> AnnData:
    """The table itself, or as it is read."""
    return _data.get_table(io.read(source, platform) if isinstance(source, (str, Path)) else source)


def _check_markers(sets: _marker_sets.MarkerSets, tx: AnnData, prot: AnnData) -> None:
    """Markers must match something, which is found out before the long work."""
    n_found = _n_found(sets, [*tx.var_names, *prot.var_names])
    if n_found < 2:
        msg = (
            f"Of {len(sets.names)} types, the markers of {n_found} are among the features (such as {_checks._listed(tx.var_names, 3)} and "
            f"{_checks._listed(prot.var_names, 3)}): at least two are needed. Put symbols into `var_names`, or name markers as "
            "the features are named with `markers=`."
        )
        raise ValueError(msg)


def _n_found(sets: _marker_sets.MarkerSets, features: Sequence[str]) -> int:
    """How many types have a marker among the features."""
    index = _marker_sets.FeatureIndex.of(list(features))
    kinds = ("", *_marker_sets.KINDS)
    return sum(len(_marker_sets.find(sets.of(t, kinds), index)) > 0 for t in range(len(sets.names)))


def _warn_of_doubtful(sets: _marker_sets.MarkerSets, tx: AnnData, prot: AnnData) -> None:
    """What runs, and is hardly what was meant."""
    if prot.n_vars > tx.n_vars:
        _checks.warn(
            f"The transcriptome has {tx.n_vars} features ({_checks._listed(tx.var_names, 3)}), the proteome {prot.n_vars} "
            f"({_checks._listed(prot.var_names, 3)}): are they exchanged? RNA comes first."
        )
    if "log1p" in prot.uns:
        _checks.warn(
            "`sc.pp.log1p` was called on the proteome, by what its `uns` notes. Pass the intensities: a centred log ratio is taken of them."
        )
    for what, other, table in (("genes", "proteins", tx), ("proteins", "genes", prot)):
        if not _n_found(sets, table.var_names):
            _checks.warn(
                f"No marker is among the {what} ({_checks._listed(table.var_names, 3)}): types are named by {other} alone. "
                "Put symbols into `var_names`, or name markers as the features are named with `markers=`."
            )


def _aligned(tx: AnnData, prot: AnnData, job: Job) -> MuData:
    method = job.align
    if method == "auto":
        method = "name" if len(tx.obs_names.intersection(prot.obs_names)) else "mutual_nearest"
    if method != "name":
        check_units(tx, prot, ("the transcriptome", "the proteome"), ("tx", "prot"))
        _check_one_sample(tx, prot)
    options = {} if method == "name" else {"radius": job.align_radius, "warp": job.warp}
    try:
        mdata = pp.align_modalities(tx, prot, method=method, unmatched=job.unmatched, names=(RNA, PROTEIN), **options)
    except ValueError as error:  # in the words of this function, whose `radius` is another
        msg = f"Transcriptome a and proteome b: {str(error).replace('`radius`', '`align_radius`')}"
        raise ValueError(msg) from error
    share = mdata.uns["alignment"]["n_matched"] / min(tx.n_obs, prot.n_obs)
    if share < 0.1:
        _checks.warn(
            f"{share:.1%} of the cells were matched by {method}. If the tables are of one tissue, their frames or their names differ: "
            "look at `sn.pl.alignment(result.mdata)`."
        )
    return mdata


def _check_one_sample(tx: AnnData, prot: AnnData) -> None:
    """Samples whose coordinates begin anew must not be matched with each other."""
    for name, table in (("transcriptome", tx), ("proteome", prot)):
        if "sample" in table.obs and table.obs["sample"].nunique() > 1:
            msg = (
                f"The {name} has {table.obs['sample'].nunique()} samples, whose coordinates may begin anew. Match one at a time "
                "(`adata[adata.obs['sample'] == name].copy()`), or give cells of both tables the same names."
            )
            raise ValueError(msg)


def _cells(mdata: MuData, library_key: str | None) -> AnnData:
    """Factors of all cells with their places, for the statistics and maps."""
    keys = _keys.FactorKeys(KEY)
    W = np.asarray(mdata.obsm[keys.factors])
    cells = AnnData(W, obs=pd.DataFrame(index=mdata.obs_names), var=pd.DataFrame(index=_factor_names(W.shape[1])))
    cells.obs[TYPE] = mdata.obs[TYPE].cat.remove_unused_categories()
    places: np.ndarray | None = None
    for name in (PROTEIN, RNA):  # where a cell is in both, the transcriptome's place counts
        table = mdata.mod[name]
        if _keys.SPATIAL not in table.obsm and name == PROTEIN and _keys.SPATIAL in mdata.mod[RNA].obsm:
            continue
        own = _data.get_coordinates(table, "spatial_warped" if "spatial_warped" in table.obsm else _keys.SPATIAL)
        places = np.full((mdata.n_obs, own.shape[1]), np.nan) if places is None else places
        places[mdata.obs_names.get_indexer(table.obs_names)] = own
    if places is None or not np.isfinite(places).all():
        msg = (
            "Some cells have no place, as their table has no `obsm['spatial']`. Leave them out with `unmatched='drop'`."
        )
        raise KeyError(msg)
    cells.obsm[_keys.SPATIAL] = places
    for key in (_keys.UM_PER_UNIT, _keys.SPATIAL_UNITS):
        if key in mdata.mod[RNA].uns:
            cells.uns[key] = mdata.mod[RNA].uns[key]
    if library_key is not None:
        _checks.check_key(mdata.mod[RNA].obs, library_key, "obs")
        library = mdata.mod[RNA].obs[library_key].astype(str).reindex(mdata.obs_names)
        if library_key in mdata.mod[PROTEIN].obs:
            library = library.fillna(mdata.mod[PROTEIN].obs[library_key].astype(str).reindex(mdata.obs_names))
        cells.obs[library_key] = library
        _data.get_libraries(cells, library_key)
        cells.obs[library_key] = library.astype("category")
    return cells


def _factor_names(k: int) -> list[str]:
    return [f"factor_{i}" for i in range(k)]


def _surroundings(cells: AnnData, mdata: MuData, job: Job, notes: list[str]) -> pd.DataFrame:
    """Compositions, niches and pairs; those of one type alone are empty."""
    samples = {} if job.library_key is None else {"library_key": job.library_key}
    gr.niche_composition(cells, TYPE, radius=job.radius, key_added=COMPOSITION, **samples)
    shares = cells.obsm[COMPOSITION].dropna().to_numpy()
    n_niches = min(job.n_niches, len(np.unique(shares, axis=0)))
    if cells.obs[TYPE].nunique() < 2 or n_niches < 2:
        _checks.warn(
            f"All cells are of one type ({cells.obs[TYPE].iloc[0]!r}), so there are no pairs and no niches. Give other `markers`, or more factors."
        )
        cells.obs[NICHE] = pd.Categorical(["all"] * cells.n_obs)
        pairs = pd.DataFrame(columns=["a", "b", "library", "observed", "expected", "ratio", "z", "pval", "pval_adj"])
    else:
        tl.niches(cells, n_niches, use_rep=COMPOSITION, key_added=NICHE, rng=_child(job.rng))
        pairs = gr.colocalization(cells, TYPE, radius=job.radius, key_added=PAIRS, **samples)
        mdata.uns[NICHE], mdata.uns[PAIRS] = cells.uns[NICHE], cells.uns[PAIRS]
        far = pairs.loc[(pairs["a"] != pairs["b"]) & (pairs["library"] == "all")].nlargest(1, "ratio")
        notes += [f"{cells.obs[NICHE].nunique()} niches", f"{len(pairs)} pairs"]
        notes += [f"closest: {p.a} and {p.b} ({p.ratio:.1f} times chance)" for p in far.itertuples()]
    mdata.obsm[_keys.SPATIAL] = cells.obsm[_keys.SPATIAL]
    mdata.obsm[COMPOSITION] = cells.obsm[COMPOSITION]
    mdata.uns[COMPOSITION] = cells.uns[COMPOSITION]
    mdata.obs[NICHE] = cells.obs[NICHE]
    return pairs


def _result(
    mdata: MuData, cells: AnnData, pairs: pd.DataFrame, factor_types: pd.DataFrame, types: list[str]
) -> JointResult:
    index = cells.obs_names.rename("cell_id")
    labels = pd.DataFrame(dict(zip("xyz", cells.obsm[_keys.SPATIAL].T, strict=False)), index=index)
    labels[TYPE] = cells.obs[TYPE].astype(str).to_numpy()
    niches = cells.obsm[COMPOSITION].set_axis(cells.uns[COMPOSITION]["labels"], axis=1).set_axis(index)
    niches.insert(0, "n_neighbors", cells.obs[_keys.NicheKeys(COMPOSITION).n_neighbors].to_numpy())
    niches.insert(1, NICHE, cells.obs[NICHE].astype(str).to_numpy())
    W = np.asarray(mdata.obsm[_keys.FactorKeys(KEY).factors])
    loadings = [np.asarray(mdata.mod[m].varm[_keys.FactorKeys(KEY).loadings]) for m in (RNA, PROTEIN)]
    return JointResult(
        types, labels, pairs, niches, pd.DataFrame(W, index=index, columns=cells.var_names), factor_types, *loadings,
        np.ascontiguousarray(W.T), mdata,
    )  # fmt: skip


def _draw(result: JointResult, cells: AnnData, job: Job, folder: Path) -> list[str]:
    """Figures, as far as there is something to draw; their names."""
    samples = {} if job.library_key is None else {"library_key": job.library_key}
    rna = result.mdata.mod[RNA]
    figures: dict[str, Callable[[], Any]] = {"cell_types.png": lambda: pl.domains(cells, TYPE, **samples)}
    if len(result.co_localization):
        figures["colocalization.png"] = lambda: pl.colocalization(cells, PAIRS)
        figures["niches.png"] = lambda: pl.niches(cells, NICHE, **samples)
    if _keys.SPATIAL in rna.obsm:
        figures["factors.png"] = lambda: pl.factors(rna, KEY, **samples)
    figures["modality_loadings.png"] = lambda: pl.modality_loadings(result.mdata, KEY)
    if result.mdata.uns["alignment"]["method"] == "mutual_nearest":
        figures["alignment.png"] = lambda: pl.alignment(result.mdata)
    for name, draw in figures.items():
        save(draw(), folder / name)
    return list(figures)


def _write(result: JointResult, folder: Path) -> None:
    """Tables, arrays and the MuData."""
    result.shared_labels.to_csv(folder / "shared_labels.csv")
    result.co_localization.to_csv(folder / "co_localization.csv", index=False)
    result.niche_composition.to_csv(folder / "niche_composition.csv")
    result.nmf_factors.to_csv(folder / "nmf_factors.csv")
    result.factor_types.to_csv(folder / "factor_types.csv", index=False)
    for name in ("W_transcript", "W_protein", "H_shared"):
        np.save(folder / f"{name}.npy", getattr(result, name))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="mudata")
        result.mdata.write_h5mu(folder / "result.h5mu")


def _report(result: JointResult, cells: AnnData, job: Job, folder: Path) -> None:
    """The page: types, factors with genes and proteins, neighbours, niches; numbers and graph are of the transcriptome's cells."""
    mdata, rna = result.mdata, result.mdata.mod[RNA]
    if _keys.SPATIAL not in rna.obsm:
        return
    values, used = recorded_values(mdata, RNA, mdata.uns[KEY])
    obs = rna.obs[[]].assign(**{TYPE: mdata.obs[TYPE].reindex(rna.obs_names).cat.remove_unused_categories()})
    table = AnnData(values, obs=obs, var=pd.DataFrame(index=rna.var_names[used]))
    keys, own = _keys.FactorKeys(TYPE), _keys.FactorKeys(KEY)
    table.obsm[_keys.SPATIAL] = _data.get_coordinates(rna)
    table.obsm[keys.factors] = np.asarray(mdata.obsm[own.factors])[mdata.obs_names.get_indexer(rna.obs_names)]
    table.varm[keys.loadings] = result.W_transcript[used]
    run = mdata.uns[KEY]
    table.uns[keys.provenance] = {k: run[k] for k in ("params", "trace", "n_iter", "converged", "versions")}
    for key in (_keys.UM_PER_UNIT, _keys.SPATIAL_UNITS):
        if key in rna.uns:
            table.uns[key] = rna.uns[key]
    samples = {} if job.library_key is None else {"library_key": job.library_key}
    if samples:
        table.obs[job.library_key] = rna.obs[job.library_key]
    gr.contact_neighbors(table, **samples)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* looks like raw counts")
        subject = _report_parts.read_subject(table, [TYPE], **samples)
        parts = _report_parts.joint_parts(
            mdata,
            cells,
            result.co_localization,
            key=KEY,
            type_key=TYPE,
            niche_key=NICHE,
            pairs_key=PAIRS,
            library_key=job.library_key,
            radius=job.radius,
        )
        page = _report_parts.build(
            replace(subject, words=_report_parts.TYPES), title="Cell types by RNA and protein", more=parts
        )
    (folder / "report.html").write_text(page, encoding="utf-8", newline="\n")
