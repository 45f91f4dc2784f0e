"""hSNMF on millions of cells: wall and CPU seconds and peak memory of every stage.

``python benchmarks/large_hsnmf.py 1000000 --full`` (both forms side by side) and
``python benchmarks/large_hsnmf.py 5000000 --landmarks 50000`` (counts made in memory, about 10 GiB);
``python benchmarks/large_hsnmf.py 100000 --agreement`` for what landmarks cost in agreement, by their number.

The tissue is :func:`spanmf.datasets.xenium_tissue`, a library for every 200,000 cells. The large form describes its
contact graph (``store=False``) and runs Leiden on landmarks; ``--full`` also runs the plain form, graph stored and
Leiden on all cells, and says how far the two agree. A stage within another (indented) is part of its time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scanpy as sc
from sklearn.metrics import adjusted_rand_score

import spanmf as sn
from spanmf.core import _landmarks, _leiden, _smooth, _snmf, _tiles
from spanmf.gr import _contact
from spanmf.tl import _fit, _hsnmf

CELLS_A_LIBRARY = 200_000
GIB = 2**30
PARTS = (
    (_contact._graph, "spacing"), (_tiles.RadiusGraph, "matrices"), (_fit, "factorise"), (_smooth, "diffuse"),
    (_snmf, "refit_h"), (_landmarks, "nearest"), (_landmarks, "graph_among"), (_landmarks, "spread"),
    (_hsnmf, "neighbours"), (_leiden, "leiden"),
)  # fmt: skip


class Clock:
    """Times and peaks of stages, in the order in which they began."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.depth = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        row: dict[str, Any] = {"stage": "  " * self.depth + name}
        self.rows.append(row)
        self.depth += 1
        wall, cpu = time.perf_counter(), _cpu_seconds()
        if self.depth == 1:
            _forget_peak()
        try:
            yield
        finally:
            self.depth -= 1
            row |= {"wall": time.perf_counter() - wall, "cpu": _cpu_seconds() - cpu, "peak_gib": _memory("VmHWM")}
            row["after_gib"] = _memory("VmRSS")
            print(
                f"{row['stage']:32} {row['wall']:8.1f} s {row['cpu']:8.1f} CPU s  peak {row['peak_gib']:5.2f} GiB, "
                f"after {row['after_gib']:5.2f}",
                flush=True,
            )

    def watch(self, owner: Any, name: str) -> None:
        """Make a function of the package a stage of its own."""
        inner: Callable[..., Any] = getattr(owner, name)

        @wraps(inner)
        def outer(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return inner(*args, **kwargs)

        setattr(owner, name, outer)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _memory(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / GIB
    return float("nan")


def _forget_peak() -> None:
    """Linux: the peak is counted from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def make(n_cells: int) -> ad.AnnData:
    """Counts and what the stages need, nothing else."""
    adata = sn.datasets.xenium_tissue(n_cells, n_libraries=max(1, n_cells // CELLS_A_LIBRARY))
    del adata.obsm["W_true"], adata.varm["H_true"]
    return adata


def run(n_cells: int, n_landmarks: int, *, full: bool) -> dict[str, Any]:
    """All stages; ``full`` for the plain form as well."""
    clock = Clock()
    for owner, name in PARTS:
        clock.watch(owner, name)
    with clock.stage("make"):
        adata = make(n_cells)
    with clock.stage("normalise"):
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
    result: dict[str, Any] = {"n_cells": n_cells, "n_landmarks": n_landmarks, "nnz": int(adata.X.nnz)}
    with clock.stage("contact_neighbors, described"):
        sn.gr.contact_neighbors(adata, library_key="library", store=False)
    with clock.stage("hsnmf, landmarks"):
        sn.tl.hsnmf(adata, 10, n_landmarks=n_landmarks, key_added="large")
    with clock.stage("morans_i"):
        result["morans_i"] = float(sn.metrics.morans_i(adata, "large")["I"].mean())
    with clock.stage("edge_agreement"):
        result["edge_agreement"] = sn.metrics.edge_agreement(adata, "large").observed
    with clock.stage("colocalization"):
        sn.gr.colocalization(adata, "cell_type", library_key="library")
    result |= {
        "n_domains": int(adata.obs["large"].nunique()),
        "ari_planted": adjusted_rand_score(adata.obs["domain"], adata.obs["large"]),
    }
    if full:
        with clock.stage("contact_neighbors, stored"):
            sn.gr.contact_neighbors(adata, library_key="library")
        with clock.stage("hsnmf, all cells"):
            sn.tl.hsnmf(adata, 10)
        result |= {
            "n_domains_full": int(adata.obs["hsnmf"].nunique()),
            "ari_planted_full": adjusted_rand_score(adata.obs["domain"], adata.obs["hsnmf"]),
            "ari_large_full": adjusted_rand_score(adata.obs["hsnmf"], adata.obs["large"]),
            "same_factors": bool(np.array_equal(adata.obsm["X_large"], adata.obsm["X_hsnmf"])),
        }
    return result | {"stages": clock.rows, "load": os.getloadavg(), "cpus": os.cpu_count()}


def agreement(n_cells: int, numbers: tuple[int, ...] = (2000, 5000, 10_000, 20_000, 50_000)) -> dict[str, Any]:
    """Adjusted Rand index of landmark runs with the full run of the same factors and with the planted domains.

    Three seeds of everything on each of two tissues; the pairs of full runs (factors and Leiden of another seed) say what
    chance alone changes.
    """
    rows = []
    for tissue in range(2):
        adata = sn.datasets.xenium_tissue(n_cells, rng=tissue)
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
        sn.gr.contact_neighbors(adata, library_key="library")
        fulls = []
        for seed in range(3):
            cpu = _cpu_seconds()
            sn.tl.hsnmf(adata, 10, rng=seed)
            full = adata.obs["hsnmf"].copy()
            rows += [("full", _score(adata, full, other), _cpu_seconds() - cpu) for other in fulls]
            fulls.append(full)
            for number in numbers:
                cpu = _cpu_seconds()
                sn.tl.hsnmf(adata, use_rep="X_hsnmf", smooth=False, n_landmarks=number, rng=seed, key_added="few")
                rows.append((number, _score(adata, adata.obs["few"], full), _cpu_seconds() - cpu))
    result = {}
    for name in dict.fromkeys(row[0] for row in rows):
        scores = np.array([[*score, cpu] for key, score, cpu in rows if key == name])
        result[str(name)] = dict(
            zip(("with_full", "with_planted", "n_domains", "cpu"), scores.mean(0).round(3).tolist(), strict=True)
        ) | {"with_full_range": [float(scores[:, 0].min().round(3)), float(scores[:, 0].max().round(3))]}
        print(name, result[str(name)], flush=True)
    return {"n_cells": n_cells, "agreement": result}


def _score(adata: ad.AnnData, labels: Any, full: Any) -> tuple[float, float, int]:
    return (
        adjusted_rand_score(full, labels),
        adjusted_rand_score(adata.obs["domain"], labels),
        int(labels.nunique()),
    )


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("n_cells", type=int)
    parser.add_argument("--landmarks", type=int, default=50_000)
    parser.add_argument("--full", action="store_true", help="the plain form as well")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    parser.add_argument("--agreement", action="store_true", help="labels by number of landmarks, nothing else")
    options = parser.parse_args()
    warnings.simplefilter("ignore", sn._checks.SpanmfWarning)  # the factors are scored on the graph that smoothed them
    if options.agreement:
        result = agreement(options.n_cells)
    else:
        result = run(options.n_cells, options.landmarks, full=options.full)
    print(json.dumps({k: v for k, v in result.items() if k != "stages"}, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
