"""Tables larger than memory and domains from landmarks, as groups of ``run.py``; ``out_of_core.py`` and ``large_hsnmf.py`` do the work.

* ``out_of_core``: X in memory against blocks of it on disk, which must reach the same objective.
* ``workers``: a cluster of one process against one of two, the blocks in their memory; data whose fit takes many passes. Beside the ratio by
  the clock stand that of a loop that only computes (what the machine gave) and what the CPU seconds would allow on free cores: the
  client's, which nobody shares, and the busiest worker's.
* ``large_hsnmf``: every stage on a described graph with landmarks; the seconds leave out making the cells.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import Measurements, left_out, main

REPEATS = 3


def blocks(where: str) -> Callable[..., dict]:
    """The factorisation of the same cells, X held in one of three ways."""

    def measure(peers: list, n: int) -> dict:
        import out_of_core

        import spanmf as sn

        with tempfile.TemporaryDirectory() as folder:
            table = on_disk(n, Path(folder))
            if where == "in memory":
                table.X = table.X.compute()
            elif where == "blocks in memory":
                table.X = table.X.persist()
            sn.tl.nmf(table[:2000].copy(), out_of_core.RANK)  # compiles
            return row_of(out_of_core.fit(table, where, REPEATS))

    return measure


def workers(count: int) -> Callable[..., dict]:
    """The same by a cluster of processes on this machine."""

    def measure(peers: list, n: int) -> dict:
        try:
            from distributed import Client, LocalCluster, wait
        except ImportError:
            left_out("dask.distributed is not there")
        import out_of_core

        with (
            tempfile.TemporaryDirectory() as folder,
            LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            out_of_core.make_hard(n, Path(folder) / "cells.zarr")
            table = out_of_core.lazily(Path(folder) / "cells.zarr")
            table.X = client.persist(table.X)
            wait(table.X)
            out_of_core.fit(table, "compiles")
            found = row_of(out_of_core.fit(table, f"{count} workers", REPEATS, client))
            found["loop_s"] = min(loop(client) for _ in range(REPEATS))
        own, theirs = found["own_cpu_s"], found["workers_cpu_s"]
        found["notes"] += f"; CPU: client {own:.2f} s, workers {' + '.join(f'{s:.2f} s' for s in theirs)}"
        if peers:
            one = peers[0]
            found["machine_gave"] = one["loop_s"] / found["loop_s"]
            found["work_divided"] = (one["own_cpu_s"] + max(one["workers_cpu_s"])) / (own + max(theirs))
            found["notes"] += (
                f"; the machine gave {found['machine_gave']:.2f}×, the division of the work allows {found['work_divided']:.2f}×"
            )
        return found

    return measure


def loop(client: Any) -> float:
    """Seconds that two loops which only compute take on the workers."""
    start = time.perf_counter()
    client.gather(client.map(sum, [range(20_000_000)] * 2, pure=False))
    return time.perf_counter() - start


def on_disk(n: int, folder: Path) -> Any:
    """Cells in zarr, X to be read block by block."""
    import out_of_core

    out_of_core.make(n, folder / "cells.zarr")
    return out_of_core.lazily(folder / "cells.zarr")


def row_of(found: dict[str, Any]) -> dict:
    return {k: v for k, v in found.items() if k != "load"} | {"notes": f"{found['passes']} passes over the whole"}


def landmarks(peers: list, n: int, n_landmarks: int) -> dict:
    import large_hsnmf

    found = large_hsnmf.run(n, n_landmarks, full=False)
    stages = [
        s for s in found.pop("stages") if not s["stage"].startswith(" ") and s["stage"] not in ("make", "normalise")
    ]
    long = ", ".join(f"{s['stage']} {s['cpu']:.3g} s" for s in sorted(stages, key=lambda s: -s["cpu"])[:3])
    spent = {"wall_s": sum(s["wall"] for s in stages), "cpu_s": sum(s["cpu"] for s in stages)}
    peak = max(s["peak_gib"] for s in stages)
    notes = f"ARI {found['ari_planted']:.3f} with the planted domains; {long}"
    return (
        spent | {k: v for k, v in found.items() if k != "load"} | {"peak_gib": peak, "stages": stages, "notes": notes}
    )


MEASUREMENTS: Measurements = {
    "out_of_core": {
        "X in memory": blocks("in memory"),
        "spanmf, blocks in memory": blocks("blocks in memory"),
        "spanmf": blocks("blocks on disk"),
    },
    "workers": {"one worker": workers(1), "spanmf": workers(2)},
    "large_hsnmf": {"spanmf": landmarks},
}


if __name__ == "__main__":
    main(MEASUREMENTS)
