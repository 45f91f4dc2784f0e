"""The command for RNA and protein together: ``spanmf joint``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._options import JOINT, UsageError, check_output, given

if TYPE_CHECKING:
    from ._joint_run import JointResult

JOINT_HELP = """\
Find cell types that RNA and protein agree on, their niches, and who sits next to whom: read both, match their cells,
factorise them jointly, name factors and cells by markers, and leave tables, figures and a report in a folder.

TX and PROT are .h5ad files, or what instruments or their software wrote (Xenium, Visium, MERSCOPE, CosMx, Stereo-seq,
CODEX, MIBI, IMC, CyCIF, inForm). TX holds counts of RNA, PROT intensities of protein: not logged, not scaled.
"""
JOINT_EPILOG = """\
matching:
  Cells of the same names are matched by name, others by their places, which must be in one coordinate system and unit
  (register the sections first): pairs that are each other's nearest. --align pool adds up the cells of PROT beneath the
  spots of TX, --align grid brings both onto squares; both need --align-radius. --warp undoes a smooth displacement that
  varies over that distance. What one table lacks is kept, and judged by the other (--unmatched drop leaves it out).

markers:
  A CSV file with the columns cell_type, marker and, if you like, kind (gene or protein), or a GMT file. Genes and proteins
  of one molecule are matched (CD8 and CD8A). Without --markers, a built-in table of common immune, stromal and epithelial
  cells is used. What no marker fits is "Unknown".

examples:
  RNA and protein of the same cells (same names)
      spanmf joint --tx rna.h5ad --prot protein.h5ad --n-factors 15 --radius 50 --markers markers.csv -o results
  neighbouring sections in one frame, a displacement that changes over 150 µm
      spanmf joint --tx xenium_outs/ --prot codex.csv --prot-platform CODEX --warp 150 -o results
  cells of CODEX beneath spots of Visium
      spanmf joint --tx visium/ --prot codex.csv --tx-platform Visium --prot-platform CODEX --align pool --align-radius 38 -o results

exit status: 0 done, 1 error, 2 wrong usage, 130 interrupted. OUT is written whole or not at all.
"""


def add_commands(commands: Any, style: dict[str, Any]) -> list[argparse.ArgumentParser]:
    """Tell the parser."""
    joint = commands.add_parser(
        "joint", help="cell types and niches by RNA and protein", description=JOINT_HELP, epilog=JOINT_EPILOG, **style
    )
    joint.set_defaults(run=run_joint)
    joint.add_argument("--tx", metavar="TX", type=Path, required=True, help="RNA: file or folder")
    joint.add_argument("--prot", metavar="PROT", type=Path, required=True, help="protein: file or folder")
    joint.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="folder for the results")
    joint.add_argument("--overwrite", action="store_true", help="replace earlier results in OUT (other files stay)")
    for title, options in JOINT.items():
        group = joint.add_argument_group(title)
        for option in options:
            option.add(group)
    return [joint]


def run_joint(args: argparse.Namespace, screen: Any) -> None:
    """``spanmf joint``."""
    options = {k: v for group in JOINT.values() for k, v in given(args, group).items()}
    if options.get("align") in ("pool", "grid") and "align_radius" not in options:
        msg = f"--align {options['align']} needs --align-radius, in units of the coordinates"
        raise UsageError(msg)
    if "warp" in options and options.get("align", "auto") not in ("auto", "mutual_nearest"):
        msg = f"--warp has no effect with --align {options['align']}"
        raise UsageError(msg)
    check_output(args.output, args.overwrite, "name another, or give --overwrite to replace earlier results")
    from ._joint_run import OUTPUTS, Job, analyse
    from .io._folder import whole_folder

    with whole_folder(args.output, OUTPUTS) as folder:
        result = analyse(Job(args.tx, args.prot, **options), folder, screen.stage)
    screen.say(describe(result))
    there = [f"  {name:<21} {text}" for name, text in OUTPUTS.items() if (args.output / name).exists()]
    screen.say("\n".join(["", f"In {args.output.resolve()}:", *there]))


def describe(result: JointResult) -> str:
    """The types with their sizes and neighbours."""
    from ._runs import in_columns

    sizes = result.shared_labels["cell_type"].value_counts()
    pairs = result.co_localization
    if len(pairs):
        pairs = pairs[(pairs["library"] == "all") & (pairs["a"] != pairs["b"]) & (pairs["ratio"] > 1)]
    near = []
    for name in sizes.index:
        own = pairs[(pairs["a"] == name) | (pairs["b"] == name)].nlargest(2, "ratio")
        others = [(p.b if p.a == name else p.a, p.ratio) for p in own.itertuples()]
        near.append(", ".join(f"{other} ({ratio:.1f})" for other, ratio in others))
    columns = {
        "type": [str(n) for n in sizes.index],
        "cells": [f"{n:,}" for n in sizes],
        "share": [f"{n / sizes.sum():.0%}" for n in sizes],
        "more often beside, times chance": near,
    }
    return "\n".join(["", *in_columns(columns)])
