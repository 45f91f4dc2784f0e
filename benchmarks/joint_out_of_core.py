"""Joint factors of RNA and protein that are larger than memory: tables of both on disk, through dask, against the same in memory.

    python benchmarks/joint_out_of_core.py make 1_000_000 folder            # 100,000 cells at a time; 30 % lack the protein
    python benchmarks/joint_out_of_core.py fit folder memory                # or: persisted, disk

Prints a line of JSON. Times mean little beside other work: compare CPU seconds then.
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
from out_of_core import append

PIECE = 100_000  # cells that are generated together
BLOCK = 100_000  # cells of a block
RANK = 10


def make(n: int, folder: Path) -> None:
    """Write both tables piece by piece."""
    import zarr

    import spanmf as sn

    roots = {name: zarr.open_group(folder / f"{name}.zarr", mode="w", zarr_format=2) for name in ("rna", "protein")}
    names: dict[str, list[np.ndarray]] = {name: [] for name in roots}
    for first in range(0, n, PIECE):
        size = min(PIECE, n - first)
        tissue = sn.datasets.rna_protein_tissue(size, missing=0.3, rng=first // PIECE)
        for name, root in roots.items():
            table = tissue.mod[name]
            names[name].append(first + tissue.obs_names.get_indexer(table.obs_names))
            append(root, table.X)
        print(first + size, flush=True)
    for name, rows in names.items():
        np.save(folder / f"{name}.npy", np.concatenate(rows))


def tables(folder: Path, where: str) -> dict[str, Any]:
    """Both tables, with X in memory, in blocks that are, or on disk."""
    import anndata as ad
    import pandas as pd
    import zarr

    out = {}
    for name in ("rna", "protein"):
        element = zarr.open_group(folder / f"{name}.zarr", mode="r")["X"]
        X = ad.experimental.read_elem_lazy(element, chunks=(BLOCK, element.attrs["shape"][1]))
        X = {"memory": lambda X: X.compute(), "persisted": lambda X: X.persist(), "disk": lambda X: X}[where](X)
        obs = pd.DataFrame(index=pd.Index(np.load(folder / f"{name}.npy")).astype(str))
        var = pd.DataFrame(index=[f"{name}{j}" for j in range(X.shape[1])])
        out[name] = ad.AnnData(X, obs=obs, var=var)
    return out


def fit(folder: Path, where: str) -> None:
    """One run, after a small one that compiles."""
    import spanmf as sn

    given = tables(folder, where)
    sn.tl.joint_nmf({name: table[:2000].to_memory() for name, table in given.items()}, RANK, tol=1e-3)
    wall, spent = time.perf_counter(), time.process_time()
    out = sn.tl.joint_nmf(given, RANK)
    wall, spent = time.perf_counter() - wall, time.process_time() - spent
    run = out.uns["joint_nmf"]
    row = {
        "where": where, "cells": out.n_obs, "wall_s": wall, "cpu_s": spent, "passes": int(run["n_iter"]),
        "first": float(run["trace"][0]), "objective": float(run["trace"][-1]), "peak_gib": peak_gib(), "load": os.getloadavg()[0],
    }  # fmt: skip
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        fit(Path(sys.argv[2]), sys.argv[3])
