"""The command that tries many options: ``spanmf sweep``."""

from __future__ import annotations

import argparse
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._options import (
    GRAPH,
    MODEL,
    READ,
    SHARED,
    Option,
    UsageError,
    check_output,
    given,
    positive,
    seed,
    several,
    share,
    whole,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

RUNS = "runs.jsonl"
OUTPUTS = {
    "pareto.png": "the runs against each other: those on the line are not beaten",
    "sweep.csv": "every run with all its metrics, and whether it is on the front",
    "summary.txt": "the words above",
    "result.h5ad": "the table with the labels of every run: adata.obsm['sweep_labels']",
    RUNS: "the finished runs, from which --resume goes on",
}
SWEEP_HELP = """\
Find tissue domains for every combination of ranks and resolutions, score each run, and show which ones no other beats.

INPUT is an .h5ad file, a .zarr folder (an AnnData or a SpatialData), or what an instrument or its software wrote, as for
`spanmf hsnmf`. Options of the grid take several values, separated by commas.
"""
SWEEP_EPILOG = """\
after an interruption:
  Every finished run is kept in OUT/runs.jsonl. The same command with --resume makes those that are missing; with more
  values it extends the sweep. The table and all other options must be as they were.

reading the result:
  No run is the best. A run on the front of pareto.png is beaten by no other in both of the panel's scores; the knee is
  the front's most even compromise. Both scores of the published form favour few factors and few domains: look at the
  maps (spanmf hsnmf) before you believe them.

examples:
  five ranks by five resolutions
      spanmf sweep tissue.h5ad -o sweep --normalize
  a grid of your own, samples apart, with gene sets for the enrichment
      spanmf sweep tma.h5ad -o sweep --normalize --library-key core --n-components 8,12 --resolution 0.3,0.5 --gmt go.gmt
  the weight of space, for one rank, against known regions
      spanmf sweep tissue.h5ad -o sweep --n-components 10 --alpha 0,0.1,0.3 --resolution 0.4 --reference-key region
  go on where it was
      spanmf sweep tissue.h5ad -o sweep --normalize --resume

exit status: 0 done, 1 error, 2 wrong usage, 130 interrupted.
"""
GRID = (
    Option("--n-components", "5,10,15,20,25", "numbers of factors", several(whole)),
    Option("--resolution", "0.2,0.4,0.6,0.8,1", "more and smaller domains when higher", several(positive)),
    Option("--alpha", 0.1, "weight of space in the graph that Leiden divides, 0 to 1", several(share)),
    Option("--beta", 0.6, "share of the neighbourhood in a smoothing step, 0 to 1", several(share)),
    Option("--seed", 0, "seeds", several(seed), parameter="rng"),
)
FIXED = tuple(o for o in MODEL if o.flag in ("--flavor", "--smoothing", "--loss", "--layer"))
SCORES = (
    Option("--reference-key", "none", "column of obs with known labels to compare with"),
    Option("--gmt", "none", "GMT file of gene sets for the enrichment", Path, parameter="gene_sets"),
)


def add_commands(commands: Any, style: dict[str, Any]) -> list[argparse.ArgumentParser]:
    """Tell the parser."""
    sweep = commands.add_parser(
        "sweep", help="try ranks and resolutions, and score them", description=SWEEP_HELP, epilog=SWEEP_EPILOG, **style
    )
    sweep.set_defaults(run=run_sweep)
    sweep.add_argument("input", metavar="INPUT", type=Path, help=".h5ad file, .zarr folder or Xenium output folder")
    sweep.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="folder for the results")
    again = sweep.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the finished runs in OUT")
    again.add_argument("--overwrite", action="store_true", help="replace earlier results in OUT (other files stay)")
    groups = {"grid": GRID, "input": READ, "samples and graph": SHARED + GRAPH, "runs": FIXED, "scores": SCORES}
    for title, options in groups.items():
        group = sweep.add_argument_group(title)
        for option in options:
            option.add(group)
    group.add_argument("--keep-labels", action="store_true", help="leave the labels of every run, in result.h5ad")
    group.add_argument(
        "--normalize", action="store_true", help="the values are raw counts: normalise them as `hsnmf` does"
    )
    group.add_argument("--preset", choices=("paper",), help="the published form, wherever no other option is given")
    return [sweep]


def run_sweep(args: argparse.Namespace, screen: Any) -> None:
    """``spanmf sweep``."""
    _check_usage(args)
    from . import gr, io, metrics, pl, tl
    from ._runs import Job, describe_graph, prepare_values, save
    from .io._folder import whole_folder

    samples = given(args, SHARED)
    fixed = given(args, FIXED)
    job = Job(samples, given(args, GRAPH), fixed, args.preset, args.normalize, getattr(args, "reference_key", None))
    with whole_folder(args.output, {*OUTPUTS} - {RUNS}) as folder:
        with screen.stage("read") as notes:
            adata = io.read(args.input, **given(args, READ))
            notes += [f"{adata.n_obs:,} cells × {adata.n_vars:,} genes", f"from {str(args.input)!r}"]
        with screen.stage("values") as notes:
            layer = prepare_values(adata, job, notes)
        with screen.stage("graph") as notes:
            gr.contact_neighbors(adata, **job.graph, **samples, preset=args.preset)
            notes += describe_graph(adata, gr.graph_summary(adata).loc["all"])
        with _kept_runs(args, screen) as file, screen.stage("runs") as notes:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".* looks like raw counts")  # said above, in the words of the command
                table = tl.sweep(
                    adata, **given(args, GRID), **fixed | layer, **samples, **given(args, SCORES), preset=args.preset,
                    file=file, keep_labels=args.keep_labels, store=args.keep_labels,
                )  # fmt: skip
            notes += [f"{len(table)} runs"]
        with screen.stage("files") as notes:
            front = metrics.pareto_front(table)
            scores = front[["coherence", "separability"]].notna().any(axis=1)
            if (scores & front["compactness"].notna()).any():
                save(pl.pareto(table), folder / "pareto.png")
            front.to_csv(folder / "sweep.csv", index=False)
            words = describe(front, args.input)
            (folder / "summary.txt").write_text(words.strip() + "\n", encoding="utf-8")
            if args.keep_labels:
                adata.write_h5ad(folder / "result.h5ad")
            notes += [", ".join(sorted(p.name for p in folder.iterdir()))]
    screen.say(words)
    there = [f"  {name:<12} {text}" for name, text in OUTPUTS.items() if (args.output / name).exists()]
    screen.say("\n".join(["", f"In {args.output.resolve()}:", *there]))


def _check_usage(args: argparse.Namespace) -> None:
    """What can be refused before anything is read."""
    kept = (args.output / RUNS).is_file()
    if args.resume and not kept and args.output.is_dir() and any(args.output.iterdir()):
        msg = f"there are no finished runs in {str(args.output)!r} to go on from: leave out --resume, or name another folder"
        raise UsageError(msg)
    hint = "name another, or give --overwrite to replace earlier results"
    check_output(args.output, args.resume or args.overwrite, hint + (" (or --resume to go on)" if kept else ""))
    if getattr(args, "smoothing", None) == "laplacian" and hasattr(args, "beta"):
        msg = "--beta has no effect with --smoothing laplacian"
        raise UsageError(msg)


@contextmanager
def _kept_runs(args: argparse.Namespace, screen: Any) -> Iterator[Path]:
    """The file of finished runs, in OUT from the first on; if none gets finished, OUT is left as it was."""
    out, file = args.output, args.output / RUNS
    made = not out.exists()
    if not args.resume:
        file.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    before = file.is_file()
    try:
        yield file
    except BaseException:
        lines = file.read_bytes().count(b"\n") if file.is_file() else 0
        if lines > 1:
            screen.line(f"spanmf: {lines - 1} finished runs are kept in {str(file)!r}: go on with --resume")
        elif not before:
            file.unlink(missing_ok=True)
            if made:
                out.rmdir()
        raise


def describe(front: pd.DataFrame, source: Path) -> str:
    """The runs that no other beats in the three scores, and what to look at next."""
    from ._runs import in_columns
    from .metrics._pareto import has_enrichment

    best = front[front["on_front"]].sort_values("compactness", ascending=False)
    lines = ["", f"{len(front)} runs, {len(best)} of which no other beats in compactness, coherence and separability"]
    if not has_enrichment(front):
        lines.append("(coherence without enrichment: name gene sets with --gmt)")
    if best.empty:
        lines.append("No run has all three: see the column 'note' of sweep.csv.")
        return "\n".join(lines)
    varies = [n for n in ("n_components", "beta", "alpha", "resolution", "rng") if front[n].nunique() > 1]
    shown = {"n_components": "factors", "rng": "seed"}
    columns = {shown.get(n, n): [f"{v:g}" for v in best[n]] for n in varies}
    columns["domains"] = [f"{v:,}" for v in best["n_clusters"]]
    columns |= {n: [f"{v:.3g}" for v in best[n]] for n in ("compactness", "coherence", "separability")}
    if "ari" in best:
        columns["ARI"] = [f"{v:.2f}" for v in best["ari"]]
    columns[""] = ["knee" if knee else "" for knee in best["knee"]]
    knee = best[best["knee"]].iloc[0]
    named = ["n_components", "resolution", *(n for n in varies if n not in ("n_components", "resolution"))]
    flags = {o.name: o.flag for o in GRID}
    command = f"spanmf hsnmf {source} -o results " + " ".join(f"{flags[n]} {knee[n]:g}" for n in named)
    return "\n".join([*lines, "", *in_columns(columns), "", "see the knee on the tissue:", f"  {command} …"])
