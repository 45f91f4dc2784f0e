"""Side-by-side runs of spanmf and its peers: ``python benchmarks/run.py --quick`` or ``--help``.

Every measurement runs in a process of its own (peak memory is that of the process), ours and the peer's on the same
data and number of threads in the same run, after a warm-up that compiles. Ratios are peer over ours, of wall time;
CPU time is given beside it. Results go to ``benchmarks/results/*.json`` and, with ``--docs``, into ``docs/benchmarks.md``
and ``docs/evaluation.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ("spanmf", "scikit-learn", "scipy", "numba", "scanpy", "squidpy", "igraph", "leidenalg", "networkit")
SCRIPTS = {
    "consensus": "consensus",
    "rank_selection": "rank_selection",
    "n_domains": "n_domains",
    "sweep": "evaluation",
    "sweep_alone": "evaluation",
    "real_tissues": "real_tissues",
    "deconvolution": "deconvolution",
    "stl_paper": "stl_paper",
    "colocalization": "colocalization",
    "colocalization_alone": "colocalization",
    **dict.fromkeys(("joint_seed", "joint_types", "joint_speed", "joint_citeseq"), "joint"),
}  # else foundation.py

QUICK = [
    *(("nmf", 20_000, kind, seed) for kind in ("easy", "hard") for seed in (0,)),
    ("graph", 100_000),
    ("smoothing", 100_000),
    ("knn", 100_000),
    ("leiden", 20_000),
    ("pipeline", 20_000),
    ("sweep", 5_000, 2, 3),
    ("real_tissues", 428, "pdac_a_st"),
    ("colocalization", 20_000),
]
FULL = [
    *(("nmf", 100_000, kind, seed) for kind in ("easy", "hard") for seed in range(5)),
    *(("nmf", 500_000, "hard", seed) for seed in range(3)),
    ("graph", 100_000),
    ("graph", 1_000_000),
    ("smoothing", 100_000),
    ("smoothing", 1_000_000),
    ("knn", 100_000),
    ("knn", 1_000_000),
    ("leiden", 100_000),
    ("leiden", 1_000_000),
    ("pipeline", 20_000),
    ("pipeline", 100_000),
    ("pipeline_alone", 1_000_000),
    *(
        ("n_domains", n, case, rank, 7)
        for rank in (10, 15)
        for n, cases in {
            428: ("pdac", "pdac_hvg"),
            613: ("her2", "her2_hvg"),
            700: ("spots_11", "spots_12", "spots_13", "spots_14"),
            1_549: ("starmap",),
            4_000: ("cells_11", "cells_12", "cells_13", "cells_14"),
        }.items()
        for case in cases
    ),
    ("sweep", 20_000, 5, 5),
    ("sweep_alone", 100_000, 5, 5),
    ("consensus", 34_451, 20, 20),
    ("colocalization", 100_000),
    ("colocalization_alone", 1_000_000),
    *(("rank_selection", 10_000, kind, k, 100, "frobenius") for kind in ("tissue", "factors") for k in (5, 10, 15)),
    ("real_tissues", 428, "pdac_a_st"),
    ("real_tissues", 613, "her2st_H1"),
    ("real_tissues", 1_549, "starmap_v1_1020"),
    ("real_tissues", 34_451, "xenium_breast_tiles"),
    *(
        ("deconvolution", 428, kind, seed)
        for kind, n_seeds in (("mixes", 10), ("platform", 10), ("starmap", 10), ("paper", 5))
        for seed in range(2000, 2000 + n_seeds)  # those below 1000 chose the defaults
    ),
    ("deconvolution", 50_000, "speed", 2000),
    *(
        ("stl_paper", n, kind)
        for n, kind in (
            (256, "square2x2"),
            (195, "circle2x2"),
            (428, "clean3"),
            (428, "noisy3"),
            (428, "clean5"),
            (428, "noisy5"),
            (428, "real"),
        )
    ),
    *(("joint_seed", 200, form, 20) for form in ("text", "code")),
    *(
        ("joint_types", 20_000, percent, seed) for percent in (0, 30) for seed in (100, 101, 102)
    ),  # 0 and 1 chose the defaults
    ("joint_speed", 100_000, 400),
    ("joint_citeseq", 200),
]


def main() -> None:
    """Run the chosen measurements and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, under five minutes")
    parser.add_argument("--only", default="", help="measurements to run, separated by commas: nmf,graph,…")
    parser.add_argument("--max-n", type=int, default=10**9, help="leave out larger sizes")
    parser.add_argument("--min-n", type=int, default=0, help="leave out smaller sizes")
    parser.add_argument("--threads", type=int, default=1, help="threads that ours and the peer may use (default: 1)")
    parser.add_argument(
        "--docs", action="store_true", help="write docs/benchmarks.md and docs/evaluation.md from all results at hand"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    only = set(filter(None, args.only.split(",")))
    tasks = [
        t for t in (QUICK if args.quick else FULL) if (not only or t[0] in only) and args.min_n <= t[1] <= args.max_n
    ]
    for task in [] if args.docs else tasks:
        print(" ".join(map(str, task)), "…", flush=True)
        for row in measure(task, args.threads):
            name = "-".join(map(str, task)) + f"-{row['who']}-{args.threads}.json".replace(" ", "_")
            (args.out / name).write_text(json.dumps(row | machine(args.threads), indent=1))
            print(f"   {row['who']:28s} {row['wall_s']:9.2f} s  {row['cpu_s']:9.2f} s CPU  {row['notes']}", flush=True)
    if args.docs:
        from report import write_page

        write_page(args.out, HERE.parent / "docs" / "benchmarks.md")
        from report_real import write_page as write_evaluation

        write_evaluation(args.out, HERE.parent / "docs")


def measure(task: tuple, threads: int) -> Iterator[dict]:
    """Run ours and the peers, each in a fresh process, and give each as soon as it is done; the data are made there."""
    sys.path.insert(0, str(HERE))
    script = SCRIPTS.get(task[0], "foundation")
    rows: list[dict] = []
    for who in import_module(script).MEASUREMENTS[task[0]]:
        env = os.environ | {
            k: str(threads) for k in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        }
        command = [sys.executable, str(HERE / f"{script}.py"), task[0], who, *map(str, task[1:])]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, input=json.dumps(rows))
        if done.returncode:
            print(f"   {who}: exit {done.returncode} (-9: killed, for memory most likely)\n{done.stderr[-2000:]}")
            continue
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        yield rows[-1]


def machine(threads: int) -> dict:
    """Where and with what it ran."""
    return {
        "threads": threads,
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {p: version(p) for p in PACKAGES},
    }


if __name__ == "__main__":
    main()
