"""NMF of tables that are larger than memory: cells × 300 genes from zarr on disk, through dask, and what that costs.

    python benchmarks/out_of_core.py make 10_000_000 cells.zarr            # generated 250,000 at a time, 1.5 GiB at most
    python benchmarks/out_of_core.py fit cells.zarr                        # wall, CPU, peak memory, passes, explained variance
    python benchmarks/out_of_core.py compare 500_000                       # blocks in memory and on disk against X in memory
    python benchmarks/out_of_core.py workers 1_000_000                     # a cluster of two workers against one

A limit of 4 GiB, page cache included (cgroup of version 1; version 2: memory.max and cgroup.procs):

    mkdir /sys/fs/cgroup/memory/four && echo 4G > /sys/fs/cgroup/memory/four/memory.limit_in_bytes
    sh -c 'echo $$ > /sys/fs/cgroup/memory/four/cgroup.procs; exec python benchmarks/out_of_core.py fit cells.zarr'

Every measurement prints a line of JSON. Times mean little beside other work: compare CPU seconds then.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PIECE = 250_000  # cells that are generated together
BLOCK = 100_000  # cells of a block
CHUNK = 1 << 20  # stored values that zarr compresses together
RANK = 10


def make(n: int, path: Path) -> None:
    """Write log-normalised cells piece by piece; no more than a piece is in memory."""
    import anndata as ad
    import scanpy as sc
    import scipy.sparse as sp
    import zarr

    import spanmf as sn

    root = zarr.open_group(path, mode="w", zarr_format=2)
    for first in range(0, n, PIECE):
        adata = sn.datasets.xenium_tissue(min(PIECE, n - first), rng=first // PIECE)
        sc.pp.normalize_total(adata, target_sum=100)
        sc.pp.log1p(adata)
        X = sp.csr_matrix(adata.X, dtype=np.float32)
        if first == 0:
            X.indptr, X.indices = X.indptr.astype(np.int64), X.indices.astype(np.int32)
            ad.io.write_elem(root, "X", X, dataset_kwargs={"chunks": (CHUNK,)})
        else:
            ad.io.sparse_dataset(root["X"]).append(X)
        print(first + adata.n_obs, flush=True)


def lazily(path: Path) -> Any:
    """The table, with X on disk."""
    import anndata as ad
    import pandas as pd
    import zarr

    element = zarr.open_group(path, mode="r")["X"]
    X = ad.experimental.read_elem_lazy(element, chunks=(BLOCK, element.attrs["shape"][1]))
    return ad.AnnData(X, obs=pd.DataFrame(index=pd.RangeIndex(X.shape[0]).astype(str)))


def cpu() -> float:
    return sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in SELF_AND_CHILDREN)


SELF_AND_CHILDREN = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def fit(adata: Any, what: str, repeats: int = 1) -> dict[str, Any]:
    """Best of some runs."""
    import spanmf as sn

    best: dict[str, Any] = {}
    for _ in range(repeats):
        wall, spent = time.perf_counter(), cpu()
        sn.tl.nmf(adata, RANK)
        row = {"wall_s": time.perf_counter() - wall, "cpu_s": cpu() - spent}
        if not best or row["cpu_s"] < best["cpu_s"]:
            best = row
    run = adata.uns["nmf"]
    row = {
        "what": what, "cells": adata.n_obs, **best, "passes": int(run["n_iter"]), "objective": float(run["trace"][-1]),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "load": os.getloadavg()[0],
    }  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def compare(n: int, folder: Path) -> None:
    """X in memory, in blocks in memory, and in blocks on disk: what the blocks cost."""
    import spanmf as sn

    path = folder / "cells.zarr"
    make(n, path)
    table = lazily(path)
    on_disk = table.X
    whole = table.copy()
    whole.X = on_disk.compute()
    sn.tl.nmf(whole[:2000].copy(), RANK)  # compiles
    rows = [fit(whole, "X in memory", 3)]
    table.X = on_disk.persist()
    rows.append(fit(table, "blocks in memory", 3))
    table.X = on_disk
    rows.append(fit(table, "blocks on disk", 3))
    for row in rows[1:]:
        over = {key: row[key] / rows[0][key] - 1 for key in ("wall_s", "cpu_s", "objective")}
        print(json.dumps({"what": row["what"], "over in memory": over}), flush=True)


def workers(n: int, folder: Path) -> None:
    """A cluster of one worker and of two, the blocks in their memory."""
    from distributed import Client, LocalCluster, wait

    path = folder / "cells.zarr"
    make(n, path)
    times = []
    for count in (1, 2):
        with LocalCluster(n_workers=count, threads_per_worker=1) as cluster, Client(cluster) as client:
            table = lazily(path)
            table.X = client.persist(table.X)
            wait(table.X)
            fit(table, "warm up")
            times.append(fit(table, f"{count} workers", 3)["wall_s"])
    print(json.dumps({"two workers over one": times[0] / times[1]}), flush=True)


def main() -> None:
    what, given = sys.argv[1:3]
    if what == "make":
        make(int(given), Path(sys.argv[3]))
    elif what == "fit":
        fit(lazily(Path(given)), "blocks on disk")
    else:
        folder = Path(tempfile.mkdtemp())
        try:
            {"compare": compare, "workers": workers}[what](int(given), folder)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
