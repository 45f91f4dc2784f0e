"""The command for cell types in spots: ``spanmf stl-nmf``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._options import GRAPH, MAPS, READ, SHARED, STL, UsageError, check_output, given

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

KEY = "stl_nmf"
LEVEL = 0.9  # of the intervals
OUTPUTS = {
    "proportions.png": "a pie a spot: the section as a whole",
    "dominant_type.png": "the type with the largest share, pale where that is small",
    "types.png": "a map a type",
    "fit_quality.png": "which spots and genes the reference does not explain",
    "proportions.csv": "share of the cells: a row a spot, a column a type",
    "intervals.csv": "share, lower and upper bound: a row a spot and type",
    "types.csv": "of each type: cells of the reference, mean and largest share, agreement with markers",
    "genes.csv": "deviance of every gene in use",
    "metrics.csv": "numbers on the fit",
    "result.h5ad": "everything, for scanpy and squidpy: adata.obsm['stl_nmf'], adata.obs['stl_nmf'], …",
}
STL_HELP = """\
Tell what share of the cells of every spot belongs to each cell type: read SECTION and the single cells of a reference,
average the cells of each type, link neighbouring spots, fit, and leave tables, figures and the annotated data in a folder.

SECTION is an .h5ad file, a .zarr folder (an AnnData or a SpatialData) or the output folder of an instrument, with raw
counts. The reference is an .h5ad file or a .zarr folder of single cells with raw counts, whose types are in a column of obs.
"""
STL_EPILOG = """\
values:
  Both need raw counts: a spot is a sum of cells, not of their logarithms. Counts that are kept in a layer are named by
  --layer and --reference-layer. Genes are matched by their names; what is matched otherwise is told.

reading the result:
  Shares are of cells: those of mRNA (adata.obsm['stl_nmf_mrna']) are divided by what a cell of the type contains.
  A type that the reference lacks is given to whatever is most alike, and spots need not fit worse for it: look at the
  genes that fit_quality.png names, and whether any type of the reference should express them.
  Types with few cells in the reference are the least sure: see intervals.csv and types.csv.

examples:
  a section and its reference
      spanmf stl-nmf section.h5ad --reference cells.h5ad --groupby cell_type -o results
  with the pathologist's regions (edges across their borders count less), checked against marker genes
      spanmf stl-nmf section.h5ad --reference cells.h5ad --groupby cell_type --region-key region --markers markers.csv -o results
  the published form, and with weights that were learned by sn.tl.learn_stl_nmf
      spanmf stl-nmf section.h5ad --reference cells.h5ad --groupby cell_type --region-key region --preset paper -o results
      spanmf stl-nmf section.h5ad --reference cells.h5ad --groupby cell_type --region-key region --weights w.json -o results

exit status: 0 done, 1 error, 2 wrong usage, 130 interrupted. OUT is written whole or not at all.
"""
IDLE = (  # in the published form
    "interval", "cells_per_spot", "likelihood", "graph_weight", "border_weight", "region_weight", "reference_weight", "n_genes",
)  # fmt: skip


def add_commands(commands: Any, style: dict[str, Any]) -> list[argparse.ArgumentParser]:
    """Tell the parser."""
    stl = commands.add_parser(
        "stl-nmf", help="cell types in spots, by a reference", description=STL_HELP, epilog=STL_EPILOG, **style
    )
    stl.set_defaults(run=run_stl)
    stl.add_argument("input", metavar="SECTION", type=Path, help=".h5ad file, .zarr folder or an instrument's folder")
    stl.add_argument(
        "--reference", metavar="CELLS", type=Path, required=True, help="single cells: .h5ad file or .zarr folder"
    )
    stl.add_argument(
        "--groupby", metavar="NAME", required=True, help="column of the reference's obs with the cell types"
    )
    stl.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="folder for the results")
    stl.add_argument("--overwrite", action="store_true", help="replace earlier results in OUT (other files stay)")
    groups = {"input": READ, "samples and graph": SHARED + GRAPH + MAPS} | STL
    for title, options in groups.items():
        group = stl.add_argument_group(title)
        for option in options:
            option.add(group)
        if title == "cell types":
            group.add_argument("--preset", choices=("paper",), help="the published form (up to some thousand spots)")
    return [stl]


def run_stl(args: argparse.Namespace, screen: Any) -> None:
    """``spanmf stl-nmf``."""
    published = _check_usage(args)
    from . import gr, io, tl
    from ._runs import describe_graph
    from .io._folder import whole_folder

    samples = given(args, SHARED)
    libraries = {k: v for k, v in samples.items() if k == "library_key"}
    with whole_folder(args.output, OUTPUTS) as folder:
        with screen.stage("read") as notes:
            adata = io.read(args.input, **given(args, READ))
            notes += [f"{adata.n_obs:,} spots × {adata.n_vars:,} genes", f"from {str(args.input)!r}"]
        with screen.stage("profiles") as notes:
            cells = io.read(args.reference)
            layer = getattr(args, "reference_layer", None)
            try:
                reference = tl.reference_profiles(cells, args.groupby, layer=layer)
            except (KeyError, ValueError) as error:  # which of the two tables it is, and the option of that one
                msg = f"In the reference: {error.args[0]}".replace("`layer=`", "`reference_layer=`")
                raise type(error)(msg) from error
            notes += [f"{reference.n_obs} types", f"{int(reference.obs['n_cells'].sum()):,} of {cells.n_obs:,} cells"]
        markers = _read_markers(args)
        model = given(args, STL["cell types"])
        if not published:
            model.setdefault("interval", LEVEL)
            with screen.stage("graph") as notes:
                gr.contact_neighbors(adata, **given(args, GRAPH), **samples)
                notes += describe_graph(adata, gr.graph_summary(adata).loc["all"])
        with screen.stage("shares") as notes:
            tl.stl_nmf(adata, reference, **model, **libraries, preset=args.preset)
            run = adata.uns[KEY]
            notes += [f"{reference.n_obs} types on {run['n_genes']:,} genes", f"{run['likelihood']}"]
        with screen.stage("numbers") as notes:
            types = type_table(adata, reference, markers)
            metrics = fit_numbers(adata, types)
            notes += [f"{len(metrics)} numbers"]
        with screen.stage("figures") as notes:
            notes += _draw(adata, folder, samples | given(args, MAPS))
        with screen.stage("files") as notes:
            spot_table(adata, samples).to_csv(folder / "proportions.csv")
            if f"{KEY}_lower" in adata.obsm:
                interval_table(adata).to_csv(folder / "intervals.csv", index=False)
            types.to_csv(folder / "types.csv", index=False)
            gene_table(adata).to_csv(folder / "genes.csv")
            metrics.to_csv(folder / "metrics.csv", index=False)
            adata.write_h5ad(folder / "result.h5ad")
            notes += [", ".join(sorted(p.name for p in folder.iterdir() if p.suffix != ".png"))]
    screen.say(describe(types, adata, model.get("region_key")))
    there = [f"  {name:<17} {text}" for name, text in OUTPUTS.items() if (args.output / name).exists()]
    screen.say("\n".join(["", f"In {args.output.resolve()}:", *there]))


def _check_usage(args: argparse.Namespace) -> bool:
    """What can be refused before anything is read; whether the published form is wanted."""
    published = args.preset is not None or hasattr(args, "weights")
    idle = [
        o.flag
        for o in (*STL["cell types"], *GRAPH)
        if hasattr(args, o.name) and o.name in (*IDLE, "contact_radius", "context_radius")
    ]
    if published and idle:
        msg = f"{' and '.join(idle)} ha{'ve' if len(idle) > 1 else 's'} no effect with the published form (--preset paper, --weights)"
        raise UsageError(msg)
    if 0 < getattr(args, "context_radius", 0) < getattr(args, "contact_radius", 0):
        msg = "--context-radius must be 0 or at least --contact-radius"
        raise UsageError(msg)
    check_output(args.output, args.overwrite, "name another, or give --overwrite to replace earlier results")
    return published


def _read_markers(args: argparse.Namespace) -> Any:
    """The table of markers, read before the long part."""
    path: Path | None = getattr(args, "markers", None)
    if path is None:
        return None
    import pandas as pd

    from . import _checks, io
    from .metrics._marker_scores import PAIRS

    _checks.check_exists(path)
    if ".gmt" in path.suffixes:
        return io.read_gmt(path)
    with _checks.reading(path, "a table of markers"):
        table = pd.read_csv(path, sep="\t" if ".tsv" in path.suffixes else ",")
    if not any({*pair} <= set(table) for pair in PAIRS):
        msg = f"{str(path)!r} has the columns {_checks._listed(table)}: a table of markers has 'cell_type' and 'gene'."
        raise ValueError(msg)
    return table


def type_table(adata: AnnData, reference: AnnData, markers: Any) -> pd.DataFrame:
    """A row a type, those with the largest mean share first."""
    import numpy as np
    import pandas as pd

    from . import _data, metrics

    shares, names = _data.get_proportions(adata, KEY)
    largest = adata.obs[KEY].cat.codes.to_numpy()
    table = pd.DataFrame(
        {
            "cell_type": names,
            "reference_cells": reference.obs["n_cells"].to_numpy(),
            "reference_counts": reference.obs["mrna"].to_numpy(),
            "mean_share": np.nanmean(shares, axis=0),
            "largest_share": np.nanmax(shares, axis=0),
            "spots_where_largest": np.bincount(largest[largest >= 0], minlength=len(names)),
        }
    )
    if markers is not None:
        found = metrics.marker_correlation(adata, markers, KEY, layer=adata.uns[KEY]["params"].get("layer"))
        columns = {"correlation": "marker_correlation", "rank": "marker_rank", "best": "best_map_for_markers"}
        table = table.join(found[[*columns]].rename(columns=columns))
    return table.sort_values("mean_share", ascending=False, kind="stable")


def fit_numbers(adata: AnnData, types: pd.DataFrame) -> pd.DataFrame:
    """How the fit went: a row a number."""
    import pandas as pd

    run = adata.uns[KEY]
    deviance = adata.obs[f"{KEY}_deviance"]
    numbers = {
        "n_spots": adata.n_obs, "n_spots_without_counts": int(adata.obs[KEY].isna().sum()), "n_types": len(types),
        "n_genes": run["n_genes"], "n_iter": run["n_iter"], "converged": float(run["converged"]),
        "dispersion": run["dispersion"], "platform_factors": float(run["platform"]),
        "deviance_a_count_median": deviance.median(),
    }  # fmt: skip
    if "marker_correlation" in types:
        numbers["marker_correlation"] = types["marker_correlation"].mean()
    return pd.DataFrame({"metric": list(numbers), "value": [float(v) for v in numbers.values()]})


def spot_table(adata: AnnData, samples: dict[str, str]) -> pd.DataFrame:
    """One row a spot: where it lies, its sample, the type with the largest share, and all shares."""
    import pandas as pd

    from . import _data

    shares, names = _data.get_proportions(adata, KEY)
    coords = adata.obsm[samples.get("spatial_key", "spatial")]
    table = pd.DataFrame(dict(zip("xyz", coords.T, strict=False)), index=adata.obs_names.rename("spot_id"))
    if "library_key" in samples:
        table["library"] = adata.obs[samples["library_key"]]
    table["largest"] = adata.obs[KEY].cat.rename_categories(names)
    return table.join(pd.DataFrame(shares, index=table.index, columns=names), rsuffix=" (share)")


def interval_table(adata: AnnData) -> pd.DataFrame:
    """One row a spot and type."""
    import numpy as np
    import pandas as pd

    from . import _data

    values = {
        slot: _data.get_proportions(adata, KEY + suffix)
        for slot, suffix in (("share", ""), ("lower", "_lower"), ("upper", "_upper"))
    }
    names = values["share"][1]
    table = {"spot_id": np.repeat(adata.obs_names, len(names)), "cell_type": np.tile(names, adata.n_obs)}
    return pd.DataFrame(table | {slot: shares.ravel() for slot, (shares, _) in values.items()})


def gene_table(adata: AnnData) -> pd.DataFrame:
    """Genes in use, worst first; relative: to genes of like abundance."""
    import numpy as np
    import pandas as pd

    from . import _data
    from .pl._fit_quality import against_like

    used = adata.var[f"{KEY}_deviance"].notna().to_numpy()
    X = _data.get_matrix(adata, adata.uns[KEY]["params"].get("layer"))[0]
    counts = np.asarray(X.sum(0), dtype=float).ravel()[used]
    deviance = adata.var[f"{KEY}_deviance"].to_numpy()[used]
    a_count = np.divide(deviance, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    table = pd.DataFrame(
        {"counts": counts, "deviance": deviance, "relative": against_like(a_count, counts)},
        index=adata.var_names[used].rename("gene"),
    )
    return table.sort_values("relative", ascending=False, kind="stable")


def _draw(adata: AnnData, folder: Path, how: dict[str, Any]) -> list[str]:
    """All figures; their names."""
    from . import pl
    from ._runs import save

    figures = {
        "proportions.png": lambda: pl.proportions(adata, KEY, **how),
        "dominant_type.png": lambda: pl.dominant_type(adata, KEY, **how),
        "types.png": lambda: pl.proportions(adata, KEY, kind="maps", **how),
        "fit_quality.png": lambda: pl.fit_quality(adata, KEY, **how),
    }
    for name, draw in figures.items():
        save(draw(), folder / name)
    return [*figures]


def describe(types: pd.DataFrame, adata: AnnData, region_key: str | None) -> str:
    """The types with their shares, and where they are."""
    import numpy as np

    from . import _data
    from ._runs import in_columns

    columns = {
        "type": list(types["cell_type"]),
        "cells in the reference": [f"{n:,}" for n in types["reference_cells"]],
        "mean share": [f"{x:.1%}" for x in types["mean_share"]],
        "largest in": [f"{n:,} spots" for n in types["spots_where_largest"]],
    }
    if region_key is not None:
        shares, names = _data.get_proportions(adata, KEY)
        codes, regions = _data.get_labels(adata, region_key)
        means = np.array([np.nanmean(shares[codes == r], axis=0) for r in range(len(regions))])
        top = means[:, [names.index(t) for t in types["cell_type"]]]
        columns[f"most in ({region_key})"] = [f"{regions[r]} ({top[r, k]:.0%})" for k, r in enumerate(top.argmax(0))]
    if "marker_correlation" in types:
        columns["r with markers"] = ["–" if np.isnan(r) else f"{r:.2f}" for r in types["marker_correlation"]]
    return "\n".join(["", *in_columns(columns)])
