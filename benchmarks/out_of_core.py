"""NMF of tables that are larger than memory: cells × 300 genes from zarr on disk, through dask, and what that costs.

    python benchmarks/out_of_core.py make 10_000_000 cells.zarr            # generated 250,000 at a time, 1.5 GiB at most
    python benchmarks/out_of_core.py fit cells.zarr                        # wall, CPU, peak memory, passes, explained variance
    python benchmarks/run.py --only 'out_of_core,workers'                  # blocks against X in memory, two workers against one (large.py)

A limit of 4 GiB, page cache included (cgroup of version 1; version 2: memory.max and cgroup.procs):

    mkdir /sys/fs/cgroup/memory/four && echo 4G > /sys/fs/cgroup/memory/four/memory.limit_in_bytes
    sh -c 'echo $$ > /sys/fs/cgroup/memory/four/cgroup.procs; exec python benchmarks/out_of_core.py fit cells.zarr'

``fit`` prints a line of JSON. Times mean little beside other work: compare CPU seconds then.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import peak_gib

PIECE = 250_000  # cells that are generated together
BLOCK = 100_000  # cells of a block
CHUNK = 1 << 20  # stored values that zarr compresses together
RANK = 10


def make(n: int, path: Path) -> None:
    """Write log-normalised cells piece by piece; no more than a piece is in memory."""
    import scanpy as sc
    import zarr

    import spanmf as sn

    root = zarr.open_group(path, mode="w", zarr_format=2)
    for first in range(0, n, PIECE):
        adata = sn.datasets.xenium_tissue(min(PIECE, n - first), rng=first // PIECE)
        sc.pp.normalize_total(adata, target_sum=100)
        sc.pp.log1p(adata)
        append(root, adata.X)
        print(first + adata.n_obs, flush=True)


def append(root: Any, X: Any) -> None:
    """Write rows behind those that are there, in the chunks and types of the first."""
    import anndata as ad
    import scipy.sparse as sp

    X = sp.csr_matrix(X, dtype=np.float32)
    if "X" in root:
        ad.io.sparse_dataset(root["X"]).append(X)
    else:
        X.indptr, X.indices = X.indptr.astype(np.int64), X.indices.astype(np.int32)
        ad.io.write_elem(root, "X", X, dataset_kwargs={"chunks": (CHUNK,)})


def make_hard(n: int, path: Path) -> None:
    """Write programmes that share most genes, whose fit takes many passes; all are in memory at once."""
    import anndata as ad
    import zarr
    from foundation import nmf_data

    root = zarr.open_group(path, mode="w", zarr_format=2)
    ad.io.write_elem(root, "X", nmf_data(n, "hard", 0), dataset_kwargs={"chunks": (CHUNK,)})


def lazily(path: Path) -> Any:
    """The table, with X on disk."""
    import anndata as ad
    import pandas as pd
    import zarr

    element = zarr.open_group(path, mode="r")["X"]
    X = ad.experimental.read_elem_lazy(element, chunks=(BLOCK, element.attrs["shape"][1]))
    return ad.AnnData(X, obs=pd.DataFrame(index=pd.RangeIndex(X.shape[0]).astype(str)))


def cpu(client: Any = None) -> np.ndarray:
    """CPU seconds so far: this process, and the workers of a cluster one by one."""
    return np.array([time.process_time(), *(client.run(time.process_time).values() if client else ())])


def fit(adata: Any, what: str, repeats: int = 1, client: Any = None) -> dict[str, Any]:
    """Best of some runs, by the clock where workers share the work."""
    import spanmf as sn

    best: dict[str, Any] = {}
    by = "wall_s" if client else "cpu_s"
    for _ in range(repeats):
        wall, before = time.perf_counter(), cpu(client)
        sn.tl.nmf(adata, RANK)
        wall, spent = time.perf_counter() - wall, cpu(client) - before
        row = {"wall_s": wall, "cpu_s": spent.sum(), "own_cpu_s": spent[0], "workers_cpu_s": spent[1:].tolist()}
        if not best or row[by] < best[by]:
            best = row
    run = adata.uns["nmf"]
    row = {
        "what": what, "cells": adata.n_obs, **best, "passes": int(run["n_iter"]), "objective": float(run["trace"][-1]),
        "peak_gib": peak_gib(), "load": os.getloadavg()[0],
    }  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    what, given = sys.argv[1:3]
    if what == "make":
        make(int(given), Path(sys.argv[3]))
    else:
        fit(lazily(Path(given)), "blocks on disk")


if __name__ == "__main__":
    main()
