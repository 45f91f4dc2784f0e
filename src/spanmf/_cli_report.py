"""The commands that judge and show a finished result: ``spanmf metrics`` and ``spanmf report``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._options import MAPS, READ, SHARED, Option, UsageError, given

METRICS_HELP = """\
Score labels and factors that INPUT holds, and write one table of numbers: a row a key, sample and metric.

INPUT is an .h5ad file or a .zarr folder, such as the result.h5ad of `spanmf hsnmf`. A key is the name of a result
("hsnmf", "nmf"), of a column of obs ("leiden") or of a representation in obsm ("X_pca"): whatever is there is scored.
"""
METRICS_EPILOG = """\
the table:
  key, library ("all": all samples together), metric, value, better ("higher", "lower" or empty), note (why there is
  no value, or what to mind). Numbers compare labels of the same cells, never two tissues; Moran's I of factors that
  were smoothed over the same graph is high by construction and stands beside what smoothing alone gives.

examples:
  the numbers of a result, each sample by itself as well
      spanmf metrics results/result.h5ad -o metrics.csv --library-key sample --per-library
  three ways of finding domains, against a pathologist's regions
      spanmf metrics tissue.h5ad -o metrics.csv --key hsnmf --key nmf --key leiden --reference-key region
  do the marker genes of the domains belong to known gene sets?
      spanmf metrics results/result.h5ad -o metrics.csv --gmt hallmark.gmt

exit status: 0 done, 1 error, 2 wrong usage, 130 interrupted. The table is written whole or not at all.
"""
REPORT_HELP = """\
Make one page of a result to read, print and pass on: maps, genes, samples, numbers in plain words, warnings.

INPUT is an .h5ad file or a .zarr folder, such as the result.h5ad of `spanmf hsnmf`. The page needs no network and
holds all its figures.
"""
REPORT_EPILOG = """\
examples:
  the result of `spanmf hsnmf`
      spanmf report results/result.h5ad -o report.html
  with another result beside it, known regions, and a heading
      spanmf report tissue.h5ad -o report.html --key hsnmf --key leiden --reference-key region --title "Patient 7"
  numbers that are there already, and a sweep
      spanmf report results/result.h5ad -o report.html --metrics metrics.csv --sweep sweep.csv

exit status: 0 done, 1 error, 2 wrong usage, 130 interrupted. The page is written whole or not at all.
"""
JUDGED = (
    Option("--reference-key", "none", "column of obs with known labels to compare with"),
    Option("--connectivity-key", "that of the run, else contact, else spatial", "spatial graph in obsp"),
    Option("--layer", "that of the run, else X", "layer with the values that were factorised"),
    Option("--gmt", "none", "GMT file of gene sets for the enrichment", Path, parameter="gene_sets"),
)
SHOWN = (
    Option("--metrics", "computed", "table that `spanmf metrics` wrote", Path),
    Option("--sweep", "that of the table, if any", "table that `spanmf sweep` wrote", Path),
    Option("--title", "Tissue domains", "heading of the page"),
    Option("--date", "none", "text under the heading, such as a date"),
)
SAMPLES = (
    Option("--library-key", "that of the graph", "column of obs that tells the samples (slides, TMA cores) apart"),
    *(o for o in SHARED if o.flag != "--library-key"),
)
READ_STORED = tuple(o for o in READ if o.flag != "--platform")


def add_commands(commands: Any, style: dict[str, Any]) -> list[argparse.ArgumentParser]:
    """Tell the parser of both."""
    metrics = commands.add_parser(
        "metrics", help="score labels and factors", description=METRICS_HELP, epilog=METRICS_EPILOG, **style
    )
    metrics.set_defaults(run=run_metrics)
    _add_files(metrics, "metrics.csv", "CSV file for the numbers")
    groups = {"input": READ_STORED, "samples and graph": SHARED, "what to compare with": JUDGED}
    _add_options(metrics, groups)
    metrics.add_argument(
        "--per-library", action="store_true", help="score each sample by itself, too (needs --library-key)"
    )
    report = commands.add_parser(
        "report", help="make a page of a result to read and print", description=REPORT_HELP, epilog=REPORT_EPILOG,
        **style,
    )  # fmt: skip
    report.set_defaults(run=run_report)
    _add_files(report, "report.html", "HTML file for the page")
    groups |= {"samples and graph": SAMPLES + MAPS, "what to show": SHOWN}
    _add_options(report, groups)
    return [metrics, report]


def _add_files(command: argparse.ArgumentParser, out: str, what: str) -> None:
    command.add_argument("input", metavar="INPUT", type=Path, help=".h5ad file or .zarr folder")
    command.add_argument(
        "-o", "--output", metavar="OUT", type=Path, default=Path(out), help=f"{what} (default: %(default)s)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    command.add_argument(
        "--key", metavar="NAME", action="append", dest="keys",
        help="result to score; may be given several times (default: hsnmf)",
    )  # fmt: skip


def _add_options(command: argparse.ArgumentParser, groups: dict[str, tuple[Option, ...]]) -> None:
    for title, options in groups.items():
        group = command.add_argument_group(title)
        for option in options:
            option.add(group)


def run_metrics(args: argparse.Namespace, screen: Any) -> None:
    """``spanmf metrics``."""
    _check_file(args)
    if args.per_library and not hasattr(args, "library_key"):
        msg = "--per-library needs --library-key, the column of obs that tells the samples apart"
        raise UsageError(msg)
    from .io._folder import whole_file
    from .metrics import panel

    with whole_file(args.output) as part:
        adata = _read(args, screen)
        with screen.stage("metrics") as notes:
            table = panel(adata, args.keys or ["hsnmf"], per_library=args.per_library, **given(args, SHARED + JUDGED))
            table.to_csv(part, index=False)
            notes += [f"{len(table)} numbers", f"{int(table['value'].isna().sum())} not defined (the notes say why)"]
    screen.say(_pooled(table))
    screen.say(f"\nIn {args.output.resolve()}")


def run_report(args: argparse.Namespace, screen: Any) -> None:
    """``spanmf report``."""
    _check_file(args)
    from .io import write_report

    adata = _read(args, screen)
    with screen.stage("report") as notes:
        write_report(adata, args.output, key=args.keys or ["hsnmf"], **given(args, SHARED + MAPS + JUDGED + SHOWN))
        notes.append(f"{args.output.stat().st_size / 1e6:.1f} MB")
    screen.say(f"Open it in a browser: {args.output.resolve()}")


def _check_file(args: argparse.Namespace) -> None:
    """OUT must be a file that is new, or may be replaced, in a folder that is there."""
    out: Path = args.output
    if out.is_dir():
        msg = f"{str(out)!r} is a folder: name a file with -o"
        raise UsageError(msg)
    if out.exists() and not args.overwrite:
        msg = f"{str(out)!r} is there already: name another with -o, or give --overwrite to replace it"
        raise UsageError(msg)
    if not out.absolute().parent.is_dir():
        msg = f"there is no folder {str(out.absolute().parent)!r} for {out.name!r}: make it first"
        raise UsageError(msg)


def _read(args: argparse.Namespace, screen: Any) -> Any:
    from . import io

    with screen.stage("read") as notes:
        adata = io.read(args.input, **given(args, READ_STORED))
        notes += [f"{adata.n_obs:,} cells × {adata.n_vars:,} genes", f"from {str(args.input)!r}"]
    return adata


def _pooled(table: Any) -> str:
    """The numbers over all samples: a line a metric, a column a key."""
    from ._format import number

    pooled = table[table["library"] == "all"]
    arrows = {"higher": " ↑", "lower": " ↓", "": ""}
    wide = pooled.pivot(index="metric", columns="key", values="value").reindex(
        index=pooled["metric"].unique(), columns=pooled["key"].unique()
    )
    better = pooled.drop_duplicates("metric").set_index("metric")["better"]
    names = [f"{metric}{arrows[better[metric]]}" for metric in wide.index]
    columns = [["", *names], *([key, *map(number, wide[key])] for key in wide)]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for first, *rest in zip(*columns, strict=True):
        numbers = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
    return "\n".join(
        [
            "",
            *lines,
            "",
            "↑ ↓ which way is better, all else being equal; – undefined (a note in the table says why), or not for such a key",
        ]
    )
