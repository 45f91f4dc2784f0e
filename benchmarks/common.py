"""What every benchmark uses: one measurement in this process, its seconds and memory, what is left out and why."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("SPANMF_TEST_DATA", HERE.parents[1] / "shared" / "data"))
LEFT_OUT = "left out: "
LONG = 0.5  # seconds
IS_THERE = """
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
sys.exit(any(not find_spec(p) and not [*distributions(name=p)] for p in sys.argv[1:]))
"""

Measurements = dict[str, dict[str, Callable[..., dict]]]


def left_out(reason: str) -> NoReturn:
    """End this process; ``run.py`` shows the reason and does not count it as a failure."""
    sys.exit(f"{LEFT_OUT}{reason}")


def peer_python(variable: str, *packages: str) -> str:
    """Return the interpreter that an environment variable names, for a peer that cannot live beside us; else left out."""
    python = os.environ.get(variable, "")
    wanted = ", ".join(packages)
    if not python:
        left_out(f"{variable} names no interpreter that has {wanted}")
    done = subprocess.run([python, "-c", IS_THERE, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        left_out(f"{python} ({variable}) lacks one of {wanted}")
    return python


def peer_script(python: str, script: str, *arguments: Any) -> dict[str, Any]:
    """Run a script of this folder in a peer's interpreter; what it says in the last line it prints."""
    command = [python, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{script} failed in {python}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def real_table(name: str) -> Path:
    """Path of a real table; else left out."""
    path = DATA / name
    if not path.exists():
        left_out(f"{name} is not there; SPANMF_TEST_DATA names the folder of the real tables")
    return path


def timed(function: Callable[[], Any], repeats: int = 1) -> tuple[Any, dict[str, float]]:
    """Result and the best of some runs: wall and CPU seconds, and how much the peak memory rose."""
    best: dict[str, float] = {}
    before = peak_gib()
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        if not best or spent["wall_s"] < best["wall_s"]:
            best = spent
    return result, best | {"rise_gib": peak_gib() - before, "peak_gib": peak_gib()}


def timed_often(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """As ``timed``; what is short runs until it has taken long enough for a clock that ticks every 10 ms, and counts as the mean."""
    result, spent = timed(function)
    if spent["wall_s"] > LONG:
        return result, spent
    n = min(int(LONG / max(spent["wall_s"], 1e-5)) + 1, 1000)
    _, total = timed(lambda: [function() for _ in range(n)][-1])
    return result, total | {key: total[key] / n for key in ("wall_s", "cpu_s")}


def peak_gib() -> float:
    """Largest resident memory of this process so far.

    Linux adds to ``ru_maxrss`` what the process that started this one held; ``VmHWM`` is this program's alone.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**20
    except (OSError, StopIteration):
        unit = 2**30 if sys.platform == "darwin" else 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main(measurements: Measurements) -> None:
    """One measurement, named by the arguments, as one JSON line; what the peers before it gave is on standard input."""
    warnings.simplefilter("ignore")
    measurement, who, *sizes = sys.argv[1:]
    arguments = [int(s) if s.isdigit() else s for s in sizes]
    before = json.loads(sys.stdin.read() or "[]")
    row = measurements[measurement][who](before, *arguments)
    print(json.dumps({"measurement": measurement, "who": who, "sizes": arguments} | row, default=str))
