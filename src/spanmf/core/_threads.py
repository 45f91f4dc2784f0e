"""How many threads compiled loops and tree searches may use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from numba import config, get_num_threads, set_num_threads

WORK_OF_THREADS = 300_000  # stored values from which several threads pay

n_jobs: int | None = None  # what spanmf.settings was told


def allowed() -> int:
    """Give the least of what numba, this package's settings and scanpy's were told; scanpy's default of 1 tells nothing."""
    scanpy = sys.modules.get("scanpy")
    theirs = int(scanpy.settings.n_jobs) if scanpy else 1
    limits = [get_num_threads(), n_jobs or 0, theirs if theirs > 1 else 0]
    return min(limit for limit in limits if limit > 0)


@contextmanager
def threads_for(work: int) -> Iterator[None]:
    """Run small kernels on one thread: waking and joining the others would cost more than they do."""
    with at_most(allowed() if work >= WORK_OF_THREADS else 1):
        yield


@contextmanager
def at_most(n: int) -> Iterator[None]:
    """Give numba ``n`` threads, or all where it has fewer, for a block in this Python thread; then as before."""
    before = get_num_threads()
    set_num_threads(min(n, config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        set_num_threads(before)
