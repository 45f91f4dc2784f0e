"""Side-by-side runs of spanmf and its peers, the one entry point of the benchmarks.

    python benchmarks/run.py --quick            # every group in a small form, under five minutes
    python benchmarks/run.py --only 'nmf,joint_*'   # some groups at their full sizes; --list names them
    python benchmarks/run.py --docs             # the pages and figures of the docs from all results at hand

Every measurement runs in a process of its own (peak memory is that of the process), ours and the peers' on the same data and
number of threads in the same run, after a warm-up that compiles; in the quick form these are copies of one that has imported the packages
(so peak memory counts all of them). All must reach the same quality before times compare: a
result of ours that is worse than the best peer's says so in the table. Results go to ``benchmarks/results``: one JSON file
a measurement, and ``tables.json`` with the ratios.

Exit codes: 0; 1 where a measurement failed; 3 where one of ours was worse than the peer's. What is left out (a peer or a
table that is not there) is named with its reason and is no failure.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import common  # noqa: E402
from common import DATA, LEFT_OUT  # noqa: E402
from groups import GROUPS, Group, Row, judge  # noqa: E402
from report import as_markdown, lines, stored, write_pages, write_tables  # noqa: E402

PACKAGES = (
    "spanmf", "numpy", "scikit-learn", "scipy", "numba", "scanpy", "squidpy", "igraph", "leidenalg", "networkit", "dask",
    "torch",
)  # fmt: skip
THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
HEAVY = (
    "spanmf",
    "scanpy",
    "sklearn.decomposition",
    "sklearn.cluster",
    "umap",
    "squidpy",
    "networkit",
    "igraph",
    "dask.array",
)
FAILED, WORSE = 1, 3
PATIENCE = 8  # wall seconds for each second of CPU that a measurement may take


def main() -> int:
    """Run the chosen measurements and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every group in a small form")
    parser.add_argument("--only", default="", help="groups to run, separated by commas: 'nmf,graph,joint_*'")
    parser.add_argument(
        "--who", default="*", help="only these of each group: 'spanmf*', 'MOFA+' (default: ours and the peers)"
    )
    parser.add_argument("--list", action="store_true", help="name the groups and their sizes, and stop")
    parser.add_argument("--max-n", type=int, default=10**9, help="leave out larger sizes")
    parser.add_argument("--min-n", type=int, default=0, help="leave out smaller sizes")
    parser.add_argument("--threads", type=int, default=1, help="threads that ours and the peer may use (default: 1)")
    parser.add_argument("--max-gib", type=float, default=0.85 * memory_gib(), help="memory that a measurement may take")
    parser.add_argument("--docs", action="store_true", help="write the pages and figures of the docs from all results")
    parser.add_argument("--out", type=Path, help="folder of the results (default: benchmarks/results, results/quick)")
    args = parser.parse_args()
    patterns = args.only.split(",") if args.only else ["*"]
    only = [name for name in GROUPS if any(fnmatch(name, p) for p in patterns)]
    if unknown := [p for p in patterns if not any(fnmatch(name, p) for name in GROUPS)]:
        parser.error(f"no such group: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    out = args.out or HERE / "results" / ("quick" if args.quick and not args.docs else "")
    out.mkdir(parents=True, exist_ok=True)
    if args.docs:
        write_pages(out, HERE.parent / "docs")
        return 0
    tasks = [
        (name, *sizes)
        for name in only
        for sizes in (GROUPS[name].quick if args.quick else GROUPS[name].full)
        if args.min_n <= sizes[0] <= args.max_n
    ]
    if args.list:
        print(*(" ".join(map(str, task)) for task in tasks), sep="\n")
        return 0
    return run(tasks, args, out)


def run(tasks: list[tuple], args: argparse.Namespace, out: Path) -> int:
    """Measure, store, judge and print."""
    start, done, failures = time.perf_counter(), [], 0
    if args.quick:
        imported(args.threads)
    for task in tasks:
        print(" ".join(map(str, task)), "…", flush=True)
        group = GROUPS[task[0]]
        if missing := [name for name in group.data if not (DATA / name).exists()]:
            print(f"   {LEFT_OUT}{', '.join(missing)} (SPANMF_TEST_DATA names the folder of the real tables)")
            continue
        rows = []
        for row in measure(task, group, args, stored(out) + done):
            rows.append(row)
            store(row, out)
            failures += "failed" in row
            print(f"   {row['who']:30s} {_said(row)}", *row.get("text", "").splitlines(), sep="\n      ", flush=True)
        done += judge(rows, group.quality)
    table = lines(done)
    write_tables(table, out)
    print("\n" + as_markdown(table))
    worse = [row for row in done if row["who"] == "spanmf" and row.get("same") is False]
    for row in worse:
        print(f"WORSE THAN THE PEER: {row['measurement']} {row['sizes']}: {row['judged']}")
    spent = sum(sum(resource.getrusage(w)[:2]) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        f"{len(done)} measurements, {failures} failed, {len(worse)} worse than the peer, {time.perf_counter() - start:.0f} s, "
        f"{spent:.0f} s of CPU, load {_load()}"
    )
    return FAILED if failures else WORSE if worse else 0


def measure(task: tuple, group: Group, args: argparse.Namespace, before: list[Row]) -> Iterator[Row]:
    """Run the peers and ours, each in a fresh process, and give each as soon as it is done; the data are made there."""
    name, *sizes = task
    threads = group.threads or args.threads
    where = machine(threads) | {"run": datetime.now(UTC).isoformat(timespec="seconds")}
    known = import_module(group.module).MEASUREMENTS[name]
    rows: list[Row] = []
    chosen = group.quick_who if args.quick and group.quick_who else tuple(known)
    for who in [w for w in known if w in chosen and fnmatch(w, args.who)]:
        row = {"measurement": name, "who": who, "sizes": sizes} | where | {"load": _load()}
        if reason := not_begun(row, before):
            row["left_out"] = reason
        else:
            copied = args.quick and threads == args.threads
            row |= in_process(group, task, who, rows, threads, args.max_gib, copied=copied)
        rows.append(row)
        yield row


def in_process(
    group: Group, task: tuple, who: str, rows: list[Row], threads: int, max_gib: float, *, copied: bool = False
) -> Row:
    """One measurement, its row or why there is none; ``process_cpu_s`` counts imports and making the data as well."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    given = json.dumps([r for r in rows if "wall_s" in r])
    code, text, errors = (forked if copied else started)(group, task, who, given, threads, max_gib)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = {
        "process_cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "process_wall_s": time.perf_counter() - start,
    }
    return spent | outcome(code, text, errors, group.cap_s, max_gib)


def started(
    group: Group, task: tuple, who: str, given: str, threads: int, max_gib: float
) -> tuple[int | None, str, str]:
    """A new process: its exit code (None: out of patience), output and errors."""
    command = [sys.executable, str(HERE / f"{group.module}.py"), task[0], who, *map(str, task[1:])]
    child = subprocess.Popen(
        command, env=os.environ | dict.fromkeys(THREADS, str(threads)), text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: limit(max_gib, group.cap_s),
    )  # fmt: skip
    try:
        text, errors = child.communicate(given, timeout=PATIENCE * group.cap_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        return None, *child.communicate()
    return child.returncode, text, errors


def forked(
    group: Group, task: tuple, who: str, given: str, threads: int, max_gib: float
) -> tuple[int | None, str, str]:
    """The same in a copy of this process, which has imported what takes long (:func:`imported`)."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:

        def measured() -> None:
            os.setsid()
            limit(max_gib, group.cap_s)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdout, sys.stderr = (os.fdopen(fd, "w", closefd=False) for fd in (1, 2))
            sys.stdin, sys.argv = io.StringIO(given), [group.module, task[0], who, *map(str, task[1:])]
            common.main(import_module(group.module).MEASUREMENTS)

        child = multiprocessing.get_context("fork").Process(target=measured)
        child.start()
        child.join(PATIENCE * group.cap_s)
        code = child.exitcode
        if code is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.join()
        for file in (out, err):
            file.seek(0)
        return code, out.read(), err.read()


def imported(threads: int) -> None:
    """Import here what most measurements import: 3 s of CPU each that the quick form saves."""
    os.environ |= dict.fromkeys(THREADS, str(threads))
    warnings.simplefilter("ignore")
    for name in HEAVY:
        with suppress(ImportError):
            import_module(name)


def outcome(code: int | None, text: str, errors: str, cap_s: float, max_gib: float) -> Row:
    """What a process gave, or how it ended."""
    last = (errors.strip().splitlines() or [""])[-1]
    if code is None:
        return {"ended": f"over {PATIENCE * cap_s:.0f} s by the clock"}
    if code == 0:
        return json.loads(text.strip().splitlines()[-1])
    if LEFT_OUT in errors:
        return {"left_out": errors[errors.rindex(LEFT_OUT) + len(LEFT_OUT) :].strip()[:500]}
    if code == -signal.SIGXCPU:
        return {"ended": f"over {cap_s:.0f} s of CPU"}
    if code in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT) or "MemoryError" in last:
        return {"ended": f"memory, with {max_gib:.0f} GiB at most"}
    return {"failed": errors[-2000:] or f"exit code {code}"}


def store(row: Row, out: Path) -> None:
    """Write a row; what is left out today does not replace what was measured before."""
    file = out / file_name(row)
    if "left_out" not in row or not file.exists():
        file.write_text(json.dumps(row, indent=1))


def not_begun(row: Row, before: list[Row]) -> str:
    """Why a measurement need not be begun: a smaller one of the same kind was begun, and its limits ended it."""
    kind = (row["measurement"], row["who"], row["sizes"][1:])
    ended = [
        r for r in before
        if "ended" in r and (r["measurement"], r["who"], r["sizes"][1:]) == kind and r["sizes"][0] < row["sizes"][0]
    ]  # fmt: skip
    first = min(ended, key=lambda r: r["sizes"][0], default=None)
    return f"{first['ended']}, at {first['sizes'][0]:,}" if first else ""


def limit(max_gib: float, cap_s: float) -> None:
    """Let an allocation beyond the memory fail, so that nobody else's process is killed, and end a process that takes too long."""
    resource.setrlimit(resource.RLIMIT_DATA, (int(max_gib * 2**30),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(cap_s), int(cap_s) + 5))


def machine(threads: int) -> Row:
    """Where and with what it ran."""
    return {
        "threads": threads,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_gib(), 1),
        "python": platform.python_version(),
        "versions": {p: v for p in PACKAGES if (v := _version(p))},
        "command": " ".join(["python", "benchmarks/run.py", *sys.argv[1:]]),
    }


def memory_gib() -> float:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def file_name(row: Row) -> str:
    """Name the file of a measurement."""
    sizes = "-".join(map(str, row["sizes"]))
    return f"{row['measurement']}-{sizes}-{row['who']}-{row['threads']}.json".replace(" ", "_").replace("/", "_")


def _cpu() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
        return next(line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _load() -> float:
    return round(os.getloadavg()[0], 1)


def _said(row: Row) -> str:
    if "wall_s" in row:
        return f"{row['wall_s']:9.2f} s  {row['cpu_s']:9.2f} s CPU  {row.get('notes', '')}"
    return next(f"{k.replace('_', ' ')}: {row[k]}" for k in ("left_out", "ended", "failed") if k in row)


if __name__ == "__main__":
    sys.exit(main())
