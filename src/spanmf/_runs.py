"""What the commands run: from a table to a folder of results."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from . import _checks, _data, _keys, gr, io, metrics, pl, tl
from ._report import domain_features, most_frequent
from .pl._colors import PALETTE, label_colors

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from anndata import AnnData

KEY = "hsnmf"
MATCHED = "hsnmf_matched"  # the domains by the names of the known labels
NUMBERS = ("domain", "cells", "share")  # columns of the summary that stand to the right
LOGNORM = "lognorm"  # layer of the values that are normalised on request


@dataclass
class Job:
    """What a run needs to know beside the table."""

    samples: dict[str, Any] = field(default_factory=dict)  # library_key, spatial_key
    graph: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None
    normalize: bool = False
    reference_key: str | None = None
    maps: dict[str, Any] = field(default_factory=dict)  # um_per_unit


def analyse(
    adata: AnnData, job: Job, folder: Path, stage: Callable[[str], AbstractContextManager[list[str]]]
) -> pd.DataFrame:
    """Graph, factors, domains, metrics, figures and files; each stage is told to the user. Returns the metrics."""
    with stage("values") as notes:
        layer = prepare_values(adata, job, notes)
    with stage("graph") as notes:
        # where Leiden runs on a sample, nothing needs the matrix but a device
        stored = "n_landmarks" not in job.model or job.model.get("device", "cpu") != "cpu"
        gr.contact_neighbors(adata, **job.graph, **job.samples, preset=job.preset, store=stored)
        summary = gr.graph_summary(adata).loc["all"]
        notes += describe_graph(adata, summary)
    with stage("domains") as notes:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* looks like raw counts")  # said above, in the words of the command
            tl.hsnmf(adata, **job.model | layer, preset=job.preset)
        run = adata.uns[KEY]
        params = run["params"]
        notes += [f"{run['n_domains']} domains by {params['clustering']}", f"{params['n_components']} factors"]
    with stage("metrics") as notes:
        table = measure(adata, job, layer, summary)
        if job.reference_key is not None:
            tl.match_labels(adata, KEY, job.reference_key, key_added=MATCHED)
        notes += [f"{len(table)} numbers"]
    with stage("figures") as notes:
        for name, draw in figures(adata, job).items():
            save(draw(), folder / name)
            notes.append(name)
    with stage("report") as notes:
        how = {"reference_key": job.reference_key, "metrics": table} | job.samples | job.maps | layer
        io.write_report(adata, folder / "report.html", key=KEY, **how)
        notes.append("report.html")
    with stage("files") as notes:
        domain_table(adata, job).to_csv(folder / "domains.csv")
        tl.top_features(adata, KEY, 20).to_csv(folder / "top_features.csv", index=False)
        table.to_csv(folder / "metrics.csv", index=False)
        adata.write_h5ad(folder / "result.h5ad")
        notes += ["domains.csv, top_features.csv, metrics.csv, result.h5ad"]
    return table


def prepare_values(adata: AnnData, job: Job, notes: list[str]) -> dict[str, str]:
    """Check the values and what the options name, and normalise if asked; the layer to use from now on."""
    _checks.check_table(adata)
    if "n_landmarks" in job.model:
        _checks.check_n_landmarks(job.model["n_landmarks"], adata.n_obs)
    _data.get_libraries(adata, job.samples.get("library_key"))
    if job.reference_key is not None and not _data.get_labels(adata, job.reference_key)[1]:
        msg = f"`adata.obs[{job.reference_key!r}]` has no labels to compare with: all are missing."
        raise ValueError(msg)
    layer = job.model.get("layer")
    X, name = _data.get_matrix(adata, layer)
    _checks.check_matrix(X, name)
    counts = _checks.looks_like_counts(X)
    if not job.normalize:
        notes.append(f"{layer or 'X'} as it is")
        if counts and job.model.get("loss", "frobenius") == "frobenius":
            there = f"--layer {LOGNORM}" if LOGNORM in adata.layers else "--normalize"  # of an earlier run
            _checks.warn(f"{name} looks like raw counts: give {there} (or --loss kl), or the factors follow depth.")
        return {} if layer is None else {"layer": layer}
    if LOGNORM in adata.layers:
        msg = f"There is a layer {LOGNORM!r} already: use it by `--layer {LOGNORM}` without --normalize."
        raise ValueError(msg)
    if not counts:
        _checks.warn(f"{name} does not look like raw counts: --normalize normalises it once more.")
    import scanpy as sc

    adata.layers[LOGNORM] = X.astype("float32")
    sc.pp.normalize_total(adata, layer=LOGNORM)
    known = "log1p" in adata.uns
    sc.pp.log1p(adata, layer=LOGNORM)
    if not known:
        del adata.uns["log1p"]  # scanpy takes it to be of X, which stays as it is
    notes.append(f"{layer or 'X'} normalised to the median total, log1p")
    return {"layer": LOGNORM}


def describe_graph(adata: AnnData, summary: pd.Series) -> list[str]:
    """Radii in use and what came of them."""
    params = adata.uns[_keys.GraphKeys(_keys.CONTACT).neighbors]["params"]
    unit = {"um": " µm"}.get(adata.uns.get(_keys.SPATIAL_UNITS), "")
    notes = [f"contact {params['contact_radius']:.4g}{unit}, context {params['context_radius']:.4g}{unit}"]
    notes += [f"{summary['degree_mean']:.0f} neighbours a cell"]
    return notes + [f"{int(summary['n_isolated'])} isolated"] * bool(summary["n_isolated"])


def measure(adata: AnnData, job: Job, layer: dict[str, str], summary: pd.Series) -> pd.DataFrame:
    """Sizes, then the panel of metrics: over all samples and for each."""
    sizes = {
        "n_cells": adata.n_obs,
        "n_genes": adata.n_vars,
        "n_edges": summary["n_edges"],
        "n_isolated": summary["n_isolated"],
        "neighbours_mean": summary["degree_mean"],
        "n_factors": adata.uns[KEY]["params"]["n_components"],
    }
    counted = pd.DataFrame({"metric": list(sizes), "value": [float(v) for v in sizes.values()]})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* were smoothed over the graph that scores")  # stands in the notes
        scored = metrics.panel(
            adata, KEY, **job.samples, **layer, per_library="library_key" in job.samples,
            reference_key=job.reference_key, rng=job.model.get("rng", 0),
        )  # fmt: skip
    return pd.concat([counted.assign(key=KEY, library="all", better="", note="")[scored.columns], scored])


def figures(adata: AnnData, job: Job) -> dict[str, Callable[[], Any]]:
    """What draws each figure."""
    how = job.samples | job.maps
    out = {
        "domains.png": lambda: pl.domains(adata, KEY, **how),
        "factors.png": lambda: pl.factors(adata, KEY, **how),
        "loadings.png": lambda: pl.loadings(adata, KEY),
        "graph.png": lambda: pl.graph(adata, cluster_key=KEY, **how),
    }
    if job.reference_key is not None:
        out["reference.png"] = lambda: pl.domains(
            adata, job.reference_key, palette=reference_palette(adata, job.reference_key), **how
        )
    return out


def reference_palette(adata: AnnData, reference_key: str) -> dict[str, Any]:
    """Colours of the known labels: that of the domain that matches, else one that no domain has."""
    colors = label_colors(adata, KEY)
    names = _data.get_labels(adata, reference_key)[1]
    pairs = adata.obs[[KEY, MATCHED]].dropna().drop_duplicates().astype(str).itertuples(index=False)
    palette = {name: colors[domain] for domain, name in pairs if name in names}
    spare = [c for c in PALETTE if c not in colors.values()] or PALETTE
    rest = [name for name in names if name not in palette]
    return palette | {name: spare[i % len(spare)] for i, name in enumerate(rest)}


def save(drawn: Any, path: Path) -> None:
    """Write a figure (or that of its only axes) and forget it."""
    from matplotlib import pyplot as plt

    figure = drawn.figure if hasattr(drawn, "transData") else drawn
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def domain_table(adata: AnnData, job: Job) -> pd.DataFrame:
    """One row a cell: where it lies and its domain."""
    coords = adata.obsm[job.samples.get("spatial_key", "spatial")]
    table = pd.DataFrame(dict(zip("xyz", coords.T, strict=False)), index=adata.obs_names.rename("cell_id"))
    if "library_key" in job.samples:
        table["library"] = adata.obs[job.samples["library_key"]]
    table["domain"] = adata.obs[KEY]
    return table


def describe(adata: AnnData, job: Job, table: pd.DataFrame) -> str:
    """The domains with their sizes and genes, and the numbers that matter most."""
    codes, names = _data.get_labels(adata, KEY)
    sizes = np.bincount(codes, minlength=len(names))
    columns = {
        "domain": names,
        "cells": [f"{n:,}" for n in sizes],
        "share": [f"{n / len(codes):.0%}" for n in sizes],
    }
    if job.reference_key is not None:
        best = most_frequent(adata.obs[KEY], adata.obs[job.reference_key])
        columns[f"mostly ({job.reference_key})"] = [best.get(name, "none") for name in names]
    genes = domain_features(adata, KEY, codes, len(names))
    columns["genes with a larger share there than elsewhere"] = [", ".join(row) for row in genes]
    value = table[table["library"] == "all"].set_index("metric")["value"]
    lines = [
        "", *in_columns(columns), "",
        f"neighbours in the same domain  {value['edge_agreement']:.0%} ({value['edge_agreement_expected']:.0%} by chance)",
        f"variance explained             {value['explained_variance']:.0%}",
    ]  # fmt: skip
    if "ari" in value:
        lines.append(f"agreement with known labels    ARI {value['ari']:.2f}, NMI {value['nmi']:.2f} (1 is perfect)")
    return "\n".join(lines)


def in_columns(columns: dict[str, list[str]]) -> list[str]:
    """Lines of a table; a column of numbers to the right."""
    aligned = []
    for head, values in columns.items():
        width = max(map(len, [head, *values]))
        align = str.rjust if head in NUMBERS else str.ljust
        aligned.append([align(text, width) for text in [head, *values]])
    return ["  ".join(row).rstrip() for row in zip(*aligned, strict=True)]
