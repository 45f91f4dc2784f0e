"""What a second thread is worth: the fused pass, one smoothing step, the contact graph.

One thread and all take turns in one process and the best of each counts. A busy machine has no second core to give, so two
more numbers stand beside the ratio: that of a loop that only computes, taken at the same time (what the machine gave), and
the CPU of one thread over that of the busiest of several (what the division of the work allows). Called by ``run.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import main
from foundation import RANK, nmf_data, points, smoothing_data
from numba import config, njit, prange

import spanmf as sn

TURNS = 7
LASTS = 0.2  # seconds of a turn at least: what is short runs several times, since the threads' CPU is counted at the clock's ticks


def _pass(n: int) -> Callable[[], None]:
    from spanmf.core import _ops

    X = _ops.as_rows(nmf_data(n, "easy", 0))
    Ht = np.random.default_rng(0).random((X.shape[1], RANK))
    W, out = (np.ones((n, _ops.padded(RANK)), dtype=np.float32) for _ in range(2))
    return lambda: _ops.hals_pass(X, _ops.pad(Ht), W, out, RANK, gram=Ht.T @ Ht)


def _smoothing(n: int) -> Callable[[], None]:
    from spanmf.core import _smooth

    A, W = smoothing_data(n)
    graph = _smooth.as_graph(A)
    return lambda: _smooth.diffuse(graph, W, 0.6, 1)


def _graph(n: int) -> Callable[[], None]:
    from spanmf.core import _graph

    coords, codes = points(n), np.zeros(n, dtype=np.int32)
    return lambda: _graph.radius_graph(coords, codes, 20.0, 80.0)


WORK = {"pass": _pass, "smoothing": _smoothing, "graph": _graph}


@njit(parallel=True)
def _compute(n_parts: int, n: int) -> float:
    total = 0.0
    for i in prange(n_parts):
        x = 0.5 / (i + 1)
        for _ in range(n):
            x = 3.9 * x * (1 - x)
        total += x
    return total


def _cpu_of_threads() -> dict[str, float]:
    """CPU seconds of every thread of this process (Linux; elsewhere empty)."""
    tasks = Path("/proc/self/task")
    return (
        {t.name: int((t / "schedstat").read_text().split()[0]) / 1e9 for t in tasks.iterdir()} if tasks.exists() else {}
    )


def _once(work: Callable[[], object], n_threads: int, repeats: int) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds of the process, CPU seconds of its busiest thread; the mean of the repeats."""
    with sn.settings.override(n_jobs=n_threads):
        before, wall, cpu = _cpu_of_threads(), time.perf_counter(), time.process_time()
        for _ in range(repeats):
            work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    spent = [s - before.get(thread, 0.0) for thread, s in _cpu_of_threads().items()]
    return wall / repeats, cpu / repeats, max(spent, default=np.nan) / repeats


def _turns(work: Callable[[], object], n_threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Best of each column of :func:`_once` with one thread and with several, taken in turns."""
    work()
    repeats = max(1, round(LASTS / _once(work, 1, 1)[0]))
    runs = np.array([[_once(work, n, repeats) for n in (1, n_threads)] for _ in range(TURNS)])
    return runs[:, 0].min(0), runs[:, 1].min(0)


def threads(peers: list, n: int, what: str) -> dict:
    from spanmf.core import _threads

    n_threads = config.NUMBA_NUM_THREADS
    work = WORK[what](n)

    def machine() -> None:
        with _threads.threads_for(10**9):
            _compute(64, 500_000)

    given = np.divide(*(t[0] for t in _turns(machine, n_threads)))
    one, several = _turns(work, n_threads)
    ratio, divided = one[0] / several[0], one[1] / several[2]
    return {
        "wall_s": several[0],
        "cpu_s": several[1],
        "one_thread_s": one[0],
        "ratio_of_threads": ratio,
        "machine_gave": given,
        "work_divided": divided,
        "notes": f"{ratio:.2f}× one thread ({one[0]:.3f} s); the machine gave {given:.2f}×, the division of the work allows {divided:.2f}×",
    }


MEASUREMENTS = {"threads": {"spanmf": threads}}

if __name__ == "__main__":
    main(MEASUREMENTS)
