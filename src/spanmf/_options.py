"""Options that several commands share, and what each of them checks before anything is read."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _platforms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

METAVARS = {
    "str": "NAME", "device": "NAME", "integer": "N", "number": "X", "Path": "FILE", "span": "N,N", "integers": "N,…", "numbers": "X,…",
}  # fmt: skip


class UsageError(Exception):
    """The command cannot be carried out as it was given."""


@dataclass(frozen=True)
class Option:
    """A parameter of a function of the package. What is not given is not passed on."""

    flag: str
    default: Any  # of the function; text where it comes from the data
    help: str
    kind: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    parameter: str = ""  # where it has another name than the flag

    @property
    def name(self) -> str:
        """Name of the function's parameter."""
        return self.parameter or self.flag.lstrip("-").replace("-", "_")

    def add(self, group: Any) -> None:
        """Tell the parser."""
        choices = "{" + ",".join(self.choices) + "}" if self.choices else None
        group.add_argument(
            self.flag, dest=self.name, type=self.kind, choices=self.choices, default=argparse.SUPPRESS,
            metavar=choices or METAVARS[self.kind.__name__],
            help=f"{self.help} (default: {self.default})",
        )  # fmt: skip


def number(
    low: float, high: float = float("inf"), *, integer: bool = False, open_low: bool = False, infinite: bool = False
) -> Callable:
    """A converter for argparse that knows the range; ``infinite``: and takes ``inf``."""

    def convert(text: str) -> float:
        value = int(text) if integer else float(text)
        if (
            not (low < value if open_low else low <= value)
            or not value <= high
            or (value == float("inf") and not infinite)
        ):
            least = f"more than {low:g}" if open_low else f"at least {low:g}"
            most = "" if high == float("inf") else f" and at most {high:g}"
            msg = f"{text} must be {least}{most}"
            raise argparse.ArgumentTypeError(msg)
        return value

    convert.__name__ = "integer" if integer else "number"  # argparse names it: "invalid integer value: 'x'"
    return convert


def several(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """A converter for values that are separated by commas, each of them there once."""

    def convert(text: str) -> list[Any]:
        values = [kind(part) for part in text.split(",")]
        if len(set(values)) < len(values):
            msg = f"{text} has a value more than once"
            raise argparse.ArgumentTypeError(msg)
        return values

    convert.__name__ = f"{kind.__name__}s"
    return convert


def span(text: str) -> tuple[int, int]:
    """The least and the most, two whole numbers of at least one."""
    values = tuple(int(part) for part in text.split(","))
    if len(values) != 2 or not 1 <= values[0] <= values[1]:
        msg = f"{text} must be the least and the most, as in 3,12"
        raise argparse.ArgumentTypeError(msg)
    return values[0], values[1]


def device(text: str) -> str:
    """A device that is there."""
    from . import _checks  # numpy and numba, only where a device is named

    try:
        _checks.check_device(text)
    except (ValueError, ImportError) as error:
        raise argparse.ArgumentTypeError(in_shell_words(str(error))) from error
    return text


positive, share = number(0, open_low=True), number(0, 1)
whole, seed = number(1, integer=True), number(0, integer=True)

READ = (
    Option("--platform", "auto", "what INPUT is", choices=_platforms.NAMES, kind=_platforms.canonical),
    Option("--table-key", "its only one", "table of a SpatialData"),
)
GRAPH = (
    Option("--contact-radius", "from the data: 5 neighbours on average", "cells this close touch", positive),
    Option("--context-radius", "4 × the contact radius; 0 for spots", "cells this close are context", number(0)),
)
SHARED = (  # of the graph and the maps
    Option("--library-key", "one sample", "column of obs that tells the samples (slides, TMA cores) apart"),
    Option("--spatial-key", "spatial", "key of the coordinates in obsm"),
)
MAPS = (Option("--um-per-unit", "from the data", "µm in one unit of the coordinates, for the scale bar", positive),)
MODEL = (
    Option("--n-components", 10, "number of factors", whole),
    Option("--n-domains", "open", "number of domains, if it is known", number(2, integer=True)),
    Option("--resolution", 0.4, "more and smaller domains when higher, where their number is open", positive),
    Option("--alpha", 0.1, "weight of space in the graph that Leiden divides, 0 to 1", share),
    Option(
        "--clustering", "auto", "auto: potts with --n-domains, else leiden",
        choices=("auto", "potts", "kmeans", "leiden"),
    ),
    Option("--flavor", "networkit", "library that runs Leiden", choices=("networkit", "igraph", "leidenalg")),
    Option(
        "--n-landmarks", "all cells", "for very many cells: divide so many of them, and place the others by the nearest",
        number(2, integer=True),
    ),
    Option("--smoothing", "refit", "how factors are smoothed", choices=("refit", "diffuse", "laplacian")),
    Option("--beta", 0.6, "share of the neighbourhood in a smoothing step, 0 to 1", share),
    Option("--loss", "frobenius", "frobenius for log-normalised values, kl for counts", choices=("frobenius", "kl")),
    Option("--layer", "X", "layer of the table to use"),
    Option("--seed", 0, "seed; the result does not depend on the number of threads", seed, parameter="rng"),
    Option("--device", "cpu", "where the passes over X run: cuda (cuda:1, …) for a GPU", device),
)  # fmt: skip

JOINT = {
    "input": (
        Option("--tx-platform", "auto", "what TX is", _platforms.canonical, choices=_platforms.NAMES),
        Option("--prot-platform", "auto", "what PROT is", _platforms.canonical, choices=_platforms.NAMES),
    ),
    "matching": (
        Option(
            "--align", "auto", "auto: by name, else by place",
            choices=("auto", "name", "mutual_nearest", "pool", "grid"),
        ),
        Option(
            "--align-radius", "from the data", "largest distance of a pair, radius of a spot or side of a square",
            positive,
        ),
        Option("--warp", "off", "undo a displacement that varies over this distance", positive),
        Option("--unmatched", "keep", "cells that one table lacks", choices=("keep", "drop")),
        Option("--library-key", "one sample", "column of obs of TX that tells the samples apart"),
    ),
    "factors, types and niches": (
        Option("--n-factors", 15, "number of shared factors", whole),
        Option("--markers", "built-in", "table of markers (.csv, .tsv) or gene sets (.gmt)", Path),
        Option("--radius", 50.0, "cells this close are neighbours, in units of the coordinates", positive),
        Option("--n-niches", 8, "number of niches", number(2, integer=True)),
        Option("--seed", 0, "seed; the result does not depend on the number of threads", seed, parameter="rng"),
    ),
}  # fmt: skip
STL = {
    "reference": (Option("--reference-layer", "X", "layer of the reference with its counts"),),
    "cell types": (
        Option("--region-key", "none", "column of obs with regions (histology): edges across their borders count less"),
        Option("--layer", "X", "layer of the section with its counts"),
        Option("--n-genes", 3000, "genes to use, those that tell the types apart best", whole),
        Option(
            "--likelihood", "auto", "auto: gaussian for values with less noise than counting has",
            choices=("auto", "poisson", "gaussian"),
        ),
        Option("--graph-weight", 10.0, "pseudo-counts of the neighbours' mean; 0: spots by themselves", number(0)),
        Option("--border-weight", 0.3, "factor on edges between different regions", number(0)),
        Option("--region-weight", 0.0, "pseudo-counts of the region's mean (needs --region-key)", number(0)),
        Option("--reference-weight", 2.0, "weight of the reference's molecules against the section's; inf: profiles stay as they are", number(0, infinite=True)),
        Option("--interval", 0.9, "level of the intervals", number(0.01, 0.999)),
        Option("--cells-per-spot", (3, 12), "least and most cells in a spot, by which the intervals are calibrated", span),
        Option("--weights", "none", "learned weights of the published form (.json)", Path),
        Option("--seed", 0, "seed; the result does not depend on the number of threads", seed, parameter="rng"),
        Option("--device", "cpu", "where the passes over the counts run: cuda (cuda:1, …) for a GPU", device),
    ),
    "checks": (
        Option("--markers", "none", "table of markers (.csv, .tsv: cell_type, gene) or gene sets (.gmt)", Path),
    ),
}  # fmt: skip


def given(args: argparse.Namespace, options: Sequence[Option]) -> dict[str, Any]:
    """Parameters of a function that the user set."""
    return {o.name: getattr(args, o.name) for o in options if hasattr(args, o.name)}


FLAGS = {
    o.name: o.flag for o in (*READ, *GRAPH, *SHARED, *MAPS, *MODEL, *sum(JOINT.values(), ()), *sum(STL.values(), ()))
} | {
    "normalize": "--normalize",
    "preset": "--preset",
    "groupby": "--groupby",
}
IN_PYTHON = re.compile(rf"`({'|'.join(FLAGS)})(?:=('[^']*'|[\w.]*))?`")


NORMALISED = (
    "Call `sc.pp.normalize_total(adata)` and `sc.pp.log1p(adata)` first, or pass `normalize=True`",
    "Pass --normalize",
)
COMMANDS = {
    "sn.tl.hsnmf": "spanmf hsnmf",
    "sn.tl.stl_nmf": "spanmf stl-nmf",
    "sn.tl.sweep": "spanmf sweep",
    "sn.run_joint": "spanmf joint",
    "sn.metrics.panel": "spanmf metrics",
}
CALL = re.compile(rf"`({'|'.join(map(re.escape, COMMANDS))})(?:\([^`]*\))?`")
ONLY_IN_PYTHON = re.compile(
    r"`[^`]*(?:\(| = )[^`]*`|`s[cn]\.[^`]*`|`(?:max_iter|tol)`"
)  # a call, an assignment, no option


def in_shell_words(text: str) -> str:
    """A message of the package with the parameters and functions that it names as a shell knows them.

    A sentence whose advice is Python only says so.
    """

    def flag(found: re.Match[str]) -> str:
        value = (found[2] or "").strip("'")
        return FLAGS[found[1]] + (f" {value}" if value and value != "True" else "")

    text = IN_PYTHON.sub(flag, text.replace(*NORMALISED))
    text = CALL.sub(lambda found: f"`{COMMANDS[found[1]]}`", text)
    sentences = re.split(r"(?<=\.) (?=[A-Z`])", text)
    return " ".join(f"In Python: {s}" if ONLY_IN_PYTHON.search(s) else s for s in sentences)


def check_output(out: Path, overwrite: bool, hint: str) -> None:
    """OUT must be a folder that is new or empty, or whose results may be replaced."""
    if out.exists() and not out.is_dir():
        msg = f"{str(out)!r} is a file: name a folder with -o"
        raise UsageError(msg)
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        msg = f"the folder {str(out)!r} is not empty: {hint}"
        raise UsageError(msg)
