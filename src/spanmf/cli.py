"""The command line: arguments and the words around a run; the work is done by io, gr, tl, metrics and pl.

Only the standard library is imported before a command runs, so that ``spanmf --help`` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from . import __version__, _cli_joint, _cli_report, _cli_stl, _cli_sweep
from ._options import (
    GRAPH,
    MAPS,
    MODEL,
    READ,
    SHARED,
    UsageError,
    check_output,
    given,
    in_shell_words,
    number,
    seed,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OUTPUTS = {  # what a run leaves, in the order in which to look at it
    "report.html": "everything on one page, in words and pictures: look here first",
    "domains.png": "where the domains lie",
    "reference.png": "the known labels; one that matches a domain has its colour",
    "factors.png": "each factor on the tissue, with its top genes",
    "loadings.png": "the genes that make each factor",
    "graph.png": "which cells were taken for neighbours, in a small window",
    "domains.csv": "domain of every cell",
    "top_features.csv": "top genes of every factor, with share and specificity",
    "metrics.csv": "numbers on the graph, the domains and the fit, for all samples and for each",
    "result.h5ad": "everything, for scanpy and squidpy: adata.obs['hsnmf'], adata.obsm['X_hsnmf'], …",
}


PATIENCE = 2.0  # seconds after Ctrl-C in which another one is not heard


# --- arguments ------------------------------------------------------------------------------------------------------

HSNMF_HELP = """\
Find tissue domains: read INPUT, link cells in contact and in context, factorise, smooth, divide into domains, and
leave tables, figures and the annotated data in a folder.

INPUT is an .h5ad file, a .zarr folder (an AnnData or a SpatialData), or what an instrument or its software wrote
(Xenium, Visium, MERSCOPE, CosMx, Stereo-seq, CODEX, MIBI, IMC, CyCIF, inForm: --platform names it if need be).
"""
HSNMF_EPILOG = """\
units:
  Radii are in the units of the coordinates: µm for Xenium and MERSCOPE, often pixels elsewhere. Leave them out to
  have them chosen from the data; the radii in use are shown and stored. --preset paper alone means 20 and 80 µm.

values:
  Factors are made from log-normalised values. Give --normalize if INPUT holds raw counts (a Xenium folder does).

examples:
  a Xenium run, as the instrument left it
      spanmf hsnmf xenium_outs/ -o results --normalize
  a tissue microarray, whose cores are named in obs["core"]
      spanmf hsnmf tma.h5ad -o results --library-key core --normalize
  eight domains wanted, from a layer that is log-normalised already, compared with a pathologist's regions
      spanmf hsnmf tissue.h5ad -o results --layer logcounts --n-domains 8 --reference-key region
  the published form
      spanmf hsnmf tissue.h5ad -o results --normalize --preset paper
  some million cells: neighbours are looked for when they are needed, not stored, and Leiden runs on 50,000 of the cells
      spanmf hsnmf atlas.h5ad -o results --normalize --library-key sample --n-landmarks 50000

exit status: 0 done, 1 error, 2 wrong usage, 130 interrupted. OUT is written whole or not at all.
"""
DEMO_HELP = """\
Make a tissue like one from Xenium, with domains that are known, find as many as `spanmf hsnmf` does, and compare.
Nothing is downloaded. An earlier demo in the same folder is replaced.
"""
MAIN_EPILOG = """\
examples:
  spanmf demo                                          see it work on a generated tissue (under a minute)
  spanmf hsnmf xenium_outs/ -o results --normalize     find the domains of your own
  spanmf hsnmf --help                                  all its options, their units and defaults
  spanmf joint --tx rna.h5ad --prot prot.h5ad -o out   cell types by RNA and protein, and their neighbours
  spanmf stl-nmf section.h5ad --reference cells.h5ad --groupby cell_type -o out   cell types in spots
  spanmf sweep xenium_outs/ -o sweep --normalize       try ranks and resolutions, and score each
  spanmf report results/result.h5ad -o report.html     a page to read, print and pass on
  spanmf metrics results/result.h5ad -o metrics.csv    the numbers as a table
"""


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    style = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(
        "spanmf", description="Spatial non-negative matrix factorisation for tissues.", epilog=MAIN_EPILOG, **style
    )
    parser.add_argument("--version", action="version", version=f"spanmf {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    hsnmf = commands.add_parser(
        "hsnmf", help="find tissue domains", description=HSNMF_HELP, epilog=HSNMF_EPILOG, **style
    )
    hsnmf.set_defaults(run=run_hsnmf)
    hsnmf.add_argument("input", metavar="INPUT", type=Path, help=".h5ad file, .zarr folder or Xenium output folder")
    hsnmf.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="folder for the results")
    hsnmf.add_argument("--overwrite", action="store_true", help="replace earlier results in OUT (other files stay)")
    for title, options in (
        ("input", READ),
        ("samples and graph", SHARED + GRAPH + MAPS),
        ("factors and domains", MODEL),
    ):
        group = hsnmf.add_argument_group(title)
        for option in options:
            option.add(group)
    group.add_argument(
        "--normalize", action="store_true",
        help="the values are raw counts: normalise each cell to the median total and take log1p "
        "(kept as layer 'lognorm'; X stays as it was)",
    )  # fmt: skip
    group.add_argument("--preset", choices=("paper",), help="the published form, wherever no other option is given")
    group.add_argument(
        "--reference-key",
        metavar="NAME",
        help="column of obs with known labels to compare with: ARI, NMI, their map, domains by their names",
    )

    demo = commands.add_parser("demo", help="see it work on a generated tissue", description=DEMO_HELP, **style)
    demo.set_defaults(run=run_demo)
    demo.add_argument(
        "-o", "--output", metavar="OUT", type=Path, default=Path("spanmf_demo"),
        help="folder for the results (default: %(default)s)",
    )  # fmt: skip
    demo.add_argument(
        "--n-cells", metavar="N", type=number(150, integer=True), default=20_000,
        help="number of cells (default: %(default)s)",
    )  # fmt: skip
    demo.add_argument("--seed", metavar="N", type=seed, default=0, help="of the tissue and the run (default: 0)")

    others = [c for m in (_cli_joint, _cli_stl, _cli_sweep, _cli_report) for c in m.add_commands(commands, style)]
    for command in (hsnmf, demo, *others):
        group = command.add_argument_group("running")
        group.add_argument("--threads", metavar="N", type=whole, help="threads to use (default: all cores)")
        group.add_argument("--quiet", action="store_true", help="show warnings and errors only")
        group.add_argument("--debug", action="store_true", help="show what the package logs, and tracebacks of errors")
    return parser


def check_usage(args: argparse.Namespace) -> None:
    """What can be refused before anything is read."""
    radii = given(args, GRAPH)
    if 0 < radii.get("context_radius", 0) < radii.get("contact_radius", 0):
        msg = "--context-radius must be 0 or at least --contact-radius"
        raise UsageError(msg)
    clustering = getattr(args, "clustering", "auto")
    if clustering in ("potts", "kmeans") and not hasattr(args, "n_domains"):
        msg = f"--clustering {clustering} needs --n-domains (leiden, with --resolution, does not)"
        raise UsageError(msg)
    if hasattr(args, "n_domains"):
        leiden = clustering == "leiden" or (clustering == "auto" and args.preset == "paper")
        unused = ("resolution", *(() if leiden else ("alpha", "flavor", "n_landmarks")))
        idle = [o.flag for o in MODEL if o.name in unused and hasattr(args, o.name)]
        if idle:
            several = len(idle) > 1
            if leiden:
                how = ": searched for the wanted number, so leave it out"
            else:
                how = f" (--clustering {'potts' if clustering == 'auto' else clustering}): leave {'them' if several else 'it'} out"
                how += ", or give --clustering leiden" * (not hasattr(args, "resolution"))
            msg = f"{' and '.join(idle)} ha{'ve' if several else 's'} no effect with --n-domains{how}"
            raise UsageError(msg)


# --- commands -------------------------------------------------------------------------------------------------------


def run_hsnmf(args: argparse.Namespace, screen: Screen) -> None:
    """``spanmf hsnmf``."""
    check_usage(args)
    check_output(args.output, args.overwrite, "name another, or give --overwrite to replace earlier results")
    from . import io
    from ._runs import Job, analyse, describe
    from .io._folder import whole_folder

    job = Job(
        given(args, SHARED), given(args, GRAPH), given(args, MODEL), args.preset, args.normalize, args.reference_key,
        given(args, MAPS),
    )  # fmt: skip
    with whole_folder(args.output, OUTPUTS) as folder:
        with screen.stage("read") as notes:
            adata = io.read(args.input, **given(args, READ))
            notes += [f"{adata.n_obs:,} cells × {adata.n_vars:,} genes", f"from {str(args.input)!r}"]
        table = analyse(adata, job, folder, screen.stage)
    screen.say(describe(adata, job, table))
    screen.say(list_files(args.output))


def run_demo(args: argparse.Namespace, screen: Screen) -> None:
    """``spanmf demo``."""
    names = {p.name for p in args.output.iterdir()} if args.output.is_dir() else set()
    check_output(args.output, "result.h5ad" in names and names <= {*OUTPUTS}, "name another with -o")
    from . import datasets
    from ._runs import Job, analyse, describe
    from .io._folder import whole_folder

    with whole_folder(args.output, OUTPUTS) as folder:
        with screen.stage("tissue") as notes:
            adata = datasets.xenium_tissue(args.n_cells, rng=args.seed)
            n_domains, n_samples = (len(adata.obs[key].cat.categories) for key in ("domain", "library"))
            notes += [f"{adata.n_obs:,} cells × {adata.n_vars} genes", f"{n_samples} samples", f"{n_domains} domains"]
        model = {"n_domains": n_domains, "rng": args.seed}
        job = Job({"library_key": "library"}, model=model, normalize=True, reference_key="domain")
        table = analyse(adata, job, folder, screen.stage)
    screen.say(describe(adata, job, table))
    screen.say(list_files(args.output))
    screen.say(what_next(args.output))


# --- words ----------------------------------------------------------------------------------------------------------


def list_files(out: Path) -> str:
    """What lies where."""
    there = [f"  {name:<17} {text}" for name, text in OUTPUTS.items() if (out / name).exists()]
    return "\n".join(["", f"In {out.resolve()}:", *there])


def what_next(out: Path) -> str:
    """After the demo."""
    return dedent(f"""
        Next:
          compare domains.png with reference.png: matching domains have the same colour
          look at a factor in factors.png and at its genes in loadings.png
          go on in Python:   import anndata; adata = anndata.read_h5ad({str(out / "result.h5ad")!r})
          and with your own: spanmf hsnmf xenium_outs/ -o results --normalize      (spanmf hsnmf --help)""")


class Screen:
    """What the user sees: a line a stage on stderr, warnings, and the summary on stdout."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Part of the result."""
        if not self.quiet:
            print(text, flush=True)

    def line(self, text: str) -> None:
        """A line on stderr, in place of the running stage's where there is one."""
        print("\r\x1b[K" * self.live + text, file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[list[str]]:
        """Name a stage while it runs, and say what came of it and how long it took."""
        notes: list[str] = []
        start = time.perf_counter()
        if self.live:
            print(f"{name} …", end="", file=sys.stderr, flush=True)
        yield notes
        if not self.quiet:
            self.line(f"{name:<8} {time.perf_counter() - start:6.1f} s  {', '.join(notes)}")


# --- running --------------------------------------------------------------------------------------------------------


class LogToScreen(logging.Handler):
    """Lines of the package's logger."""

    def __init__(self, screen: Screen, level: int) -> None:
        super().__init__(level)
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        self.screen.line(f"  {record.getMessage()}")


@contextmanager
def messages(screen: Screen, *, debug: bool) -> Iterator[None]:
    """Warnings and log records as lines; those of other packages that a user cannot act on only with --debug."""
    log = logging.getLogger("spanmf")
    handler, level = LogToScreen(screen, logging.DEBUG if debug else logging.WARNING), log.level

    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        screen.line(f"spanmf: warning: {in_shell_words(' '.join(str(message).split()))}")

    with warnings.catch_warnings():
        warnings.simplefilter("default" if debug else "ignore")
        warnings.filterwarnings("default", category=UserWarning)
        warnings.showwarning = show
        log.addHandler(handler)
        log.setLevel(logging.DEBUG if debug else level)
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(level)


@contextmanager
def threads(n: int | None) -> Iterator[None]:
    """At most ``n`` threads, of this package and of the libraries beneath it."""
    if n is None:
        yield
        return
    import numba
    from threadpoolctl import threadpool_limits

    before = numba.get_num_threads()
    numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
    try:
        with threadpool_limits(n):
            yield
    finally:
        numba.set_num_threads(before)


@contextmanager
def signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run in order; impatient ones after the first do not disturb the tidying up."""
    last = float("-inf")

    def stop(number: int, _: Any) -> None:
        nonlocal last
        if time.monotonic() - last < PATIENCE:
            return
        last = time.monotonic()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():  # no other may set them
        for which in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(which) != signal.SIG_IGN:  # as in a background job, which Ctrl-C does not concern
                before[which] = signal.signal(which, stop)
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def own_process(args: argparse.Namespace) -> None:
    """Settings that only a process of our own may have: no window, no bars in a log file, no character that fails."""
    os.environ["MPLBACKEND"] = "Agg"
    if args.quiet or not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    sys.stdout.reconfigure(errors="replace")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (``None``: that of the process) and return its exit status."""
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as end:  # --help, --version, wrong usage
        return int(end.code or 0)
    if argv is None:
        own_process(args)
    screen = Screen(quiet=args.quiet)
    try:
        with signals(), messages(screen, debug=args.debug), threads(args.threads):
            args.run(args, screen)
    except KeyboardInterrupt:
        screen.line("spanmf: interrupted")
        return 130
    except SystemExit as end:
        screen.line("spanmf: terminated")
        return int(end.code or 0)
    except UsageError as error:
        screen.line(f"spanmf: error: {error}")
        return 2
    except Exception as error:
        from ._checks import cause

        if args.debug:
            screen.line(traceback.format_exc())
        screen.line(
            f"spanmf: error: {'out of memory' if isinstance(error, MemoryError) else in_shell_words(cause(error))}"
        )
        return 1
    return 0
