"""Sweeps of ranks × resolutions with every metric. Called by ``run.py``.

``sweep`` is measured against the same runs one by one, ``tl.hsnmf`` and ``metrics.panel`` for each; ``sweep_alone`` at
a size where that takes too long.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from common import Measurements, main, timed

RANKS = (5, 10, 15, 20, 25)
RESOLUTIONS = (0.2, 0.4, 0.6, 0.8, 1.0)


def tissue(n: int) -> tuple[Any, dict[str, list[str]]]:
    """Cells with a graph, log-normalised, and 50 gene sets of 20 genes."""
    import scanpy as sc

    import spanmf as sn

    adata = sn.datasets.xenium_tissue(n)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sn.gr.contact_neighbors(adata, library_key="library")
    rng = np.random.default_rng(0)
    return adata, {f"set{i}": list(rng.choice(adata.var_names, 20, replace=False)) for i in range(50)}


def grid(n_ranks: int, n_resolutions: int) -> dict[str, tuple]:
    return {"n_components": RANKS[:n_ranks], "resolution": RESOLUTIONS[:n_resolutions]}


def one_by_one(peers: list, n: int, n_ranks: int, n_resolutions: int) -> dict:
    import spanmf as sn

    adata, sets = tissue(n)
    options = grid(n_ranks, n_resolutions)

    found = []

    def run() -> None:
        for k in options["n_components"]:
            for resolution in options["resolution"]:
                sn.tl.hsnmf(adata, k, resolution=resolution)
                table = sn.metrics.panel(adata, "hsnmf", library_key="library", reference_key="domain", gene_sets=sets)
                found.append(float(table.loc[table["metric"] == "ari", "value"].iloc[0]))

    warm(sn, options["n_components"])
    _, spent = timed(run)
    return spent | {
        "ari": float(np.mean(found)),
        "notes": f"{n_ranks * n_resolutions} runs, mean ARI {np.mean(found):.3f}",
    }


def sweep(peers: list, n: int, n_ranks: int, n_resolutions: int) -> dict:
    import spanmf as sn

    adata, sets = tissue(n)
    options = grid(n_ranks, n_resolutions)
    warm(sn, options["n_components"])
    stages: Counter[str] = Counter()
    watch(stages)
    table, spent = timed(
        lambda: sn.tl.sweep(adata, **options, library_key="library", reference_key="domain", gene_sets=sets)
    )
    stages["the rest"] = spent["cpu_s"] - sum(v for k, v in stages.items() if not k.startswith("metric "))
    out = spent | {"stages": {k: round(v, 1) for k, v in stages.most_common()}}
    shown = [f"{k} {v:.3g} s" for k, v in out["stages"].items() if not k.startswith("metric ")][:3]
    out["ari"] = float(table["ari"].mean())
    out["notes"] = f"{len(table)} runs, mean ARI {out['ari']:.3f}; {', '.join(shown)}"
    return out


def warm(sn: Any, ranks: tuple[int, ...]) -> None:
    """Compile what the ranks and the metrics need."""
    adata, sets = tissue(600)
    sn.tl.sweep(adata, ranks, 0.5, library_key="library", gene_sets=sets)


def watch(stages: Counter[str]) -> None:
    """Add up the CPU seconds of the stages and of each metric."""
    from spanmf.core import _leiden
    from spanmf.metrics._scorer import Scorer
    from spanmf.tl import _sweep

    def counted(name: str | Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                stages[name if isinstance(name, str) else name(*args)] += time.process_time() - start

        return call

    for attribute, name in (("raw_factors", "factors"), ("smoothed", "smoothing"), ("neighbours", "neighbours")):
        setattr(_sweep, attribute, counted(name, getattr(_sweep, attribute)))
    prepared = _leiden.prepared
    _leiden.prepared = lambda A, flavor: counted("Leiden", counted("Leiden", prepared)(A, flavor))
    Scorer.score = counted("metrics", Scorer.score)
    Scorer._lines = counted(lambda scorer, row, candidate: f"metric {next(iter(row.metrics))}", Scorer._lines)


MEASUREMENTS: Measurements = {"sweep": {"one by one": one_by_one, "spanmf": sweep}, "sweep_alone": {"spanmf": sweep}}


if __name__ == "__main__":
    main(MEASUREMENTS)
