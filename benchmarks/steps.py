"""How many smoothing steps on spots? Agreement (ARI) with known domains after 2 and 3 steps, and after as many as are chosen.

    python benchmarks/run.py --only steps     # one measurement a section, about 10 minutes on two cores
    python benchmarks/steps.py                # prints the table of docs/domains_evidence.md

Beside the sections of ``domains.py``: cells of STARmap and of generated tissues counted into the places of a square or hexagonal
array (each with the domain of most of its cells), and a Visium section whose "domains" are only the largest of nine topics.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from common import DATA, HERE, Measurements, main, real_table, timed
from domains import CASES, RANKS, Tissue, log_normalised, markdown

import spanmf as sn
from spanmf.core import _domains, _init, _scale, _smooth, _snmf, _solver, _steps

BETA = 0.6


def array_places(xy: np.ndarray, pitch: float, *, hexagonal: bool) -> np.ndarray:
    """The nearest place of an array (n × 2)."""
    if not hexagonal:
        return (np.floor(xy / pitch) + 0.5) * pitch
    height = pitch * np.sqrt(0.75)
    row = np.round(xy[:, 1] / height) + np.array([[-1], [0], [1]])
    shift = (row % 2) * pitch / 2
    places = np.stack([np.round((xy[:, 0] - shift) / pitch) * pitch + shift, row * height], axis=-1)
    return places[np.linalg.norm(places - xy, axis=-1).argmin(0), np.arange(len(xy))]


def binned(cells: ad.AnnData, label: str, pitch: float, *, hexagonal: bool, fewest: int = 1) -> ad.AnnData:
    """Spots that hold the counts of the cells nearest to them, with the commonest label of these."""
    xy = np.asarray(cells.obsm["spatial"], dtype=float)
    places, spot = np.unique(
        array_places(xy - xy.min(0), pitch, hexagonal=hexagonal).round(6), axis=0, return_inverse=True
    )
    n, spot = len(places), spot.ravel()
    member = sp.csr_matrix((np.ones(len(spot)), (spot, np.arange(len(spot)))), shape=(n, len(spot)))
    counts = pd.crosstab(spot, cells.obs[label].astype(str).to_numpy())
    obs = pd.DataFrame({"domain": counts.idxmax(axis=1).to_numpy()}, index=[f"spot{i}" for i in range(n)])
    out = ad.AnnData(sp.csr_matrix(member @ cells.X, dtype=np.float32), obs, cells.var[[]], obsm={"spatial": places})
    return log_normalised(out[counts.sum(axis=1).to_numpy() >= fewest].copy(), "domain")


def binned_starmap(pitch: float, hexagonal: bool, _: Path) -> ad.AnnData:
    """About five cells of the cortex a spot."""
    return binned(ad.read_h5ad(real_table("starmap_v1_1020.h5ad")), "layer", pitch, hexagonal=hexagonal)


def binned_tissue(seed: int, n_domains: int, pitch: float, hexagonal: bool, n_cells: int, _: Path) -> ad.AnnData:
    """Many cells of a generated tissue a spot."""
    cells = sn.datasets.xenium_tissue(n_cells, n_domains=n_domains, n_libraries=1, rng=seed)
    return binned(cells, "domain", pitch, hexagonal=hexagonal, fewest=3)


def section(seed: int, n_domains: int, n_spots: int, depth: float, _: Path) -> ad.AnnData:
    """Generated spots of another number, number of domains and depth."""
    spots = sn.datasets.visium_section(n_spots, n_domains=n_domains, depth=depth, rng=seed)
    return log_normalised(spots, "domain")


def grid(name: str, _: Path) -> ad.AnnData:
    """One of the STL-NMF authors' sections."""
    adata = ad.read_h5ad(real_table(f"stlnmf_synth_{name}2x2.h5ad"))
    adata.X = sp.csr_matrix(adata.X, dtype=np.float32)
    return log_normalised(adata, "region")


def breast(_: Path) -> ad.AnnData:
    """Visium, with the largest topic of STdeconvolve in place of domains."""
    adata = ad.read_h5ad(real_table("visium_breast_crop.h5ad"))
    (topics,) = (value for key, value in adata.obsm.items() if key.startswith("STdeconvolve"))
    adata.obs["topic"] = np.asarray(topics).argmax(1).astype(str)
    return log_normalised(adata, "topic", 2000)


EXPLORED = {
    name: CASES[name] for name in ("pdac", "pdac hvg", "her2", "her2 hvg", *(f"spots {s}" for s in range(1, 6)))
} | {
    "circle": partial(grid, "circle"),
    "square": partial(grid, "square"),
    "bins 1": partial(binned_tissue, 1, 8, 80.0, False, 8_000),
    "bins 2": partial(binned_tissue, 2, 6, 80.0, False, 8_000),
    "bins 3": partial(binned_tissue, 3, 5, 80.0, True, 8_000),
}
JUDGED: dict[str, Callable[[Path], ad.AnnData]] = {  # once, after the rule was chosen
    "spots 31": partial(section, 31, 4, 500, 4000.0),
    "spots 32": partial(section, 32, 6, 1500, 4000.0),
    "spots 33": partial(section, 33, 8, 900, 2000.0),
    "spots 34": partial(section, 34, 9, 2000, 4000.0),
    "starmap square": partial(binned_starmap, 550.0, False),
    "starmap hexagonal": partial(binned_starmap, 600.0, True),
    "bins 31": partial(binned_tissue, 31, 5, 70.0, False, 8_000),
    "bins 32": partial(binned_tissue, 32, 4, 100.0, True, 12_000),
    "bins 33": partial(binned_tissue, 33, 6, 50.0, False, 6_000),
    "breast": breast,
}


def run_case(case: str, ranks: tuple[int, ...], seeds: range) -> list[dict[str, Any]]:
    """ARI by number of steps."""
    t = Tissue.of((EXPLORED | JUDGED)[case](DATA))
    rows = []
    for rank in ranks:
        for seed in seeds:
            W0, H0 = _init.initialise(t.X, rank, "auto", np.random.default_rng(seed))
            fit = _solver.fit(t.X, H0, W0)
            chosen = _steps.fewest_steps(t.A, _scale.rescale(fit.W, fit.H), BETA)
            scores = {}
            for n_steps in sorted({2, 3, chosen}):
                W = _smooth.diffuse(t.graph, fit.W, BETA, n_steps)
                Z = _scale.rescale(W, _snmf.refit_h(t.X, W, fit.H))
                labels = _domains.potts_mixture(Z, t.n_domains, t.graph, np.random.default_rng(seed))
                scores[n_steps] = t.scores(labels) | {"steps": n_steps}
            for name, n_steps in (("2 steps", 2), ("3 steps", 3), ("chosen", chosen)):
                rows.append({"tissue": case, "rank": rank, "seed": seed, "variant": name} | scores[n_steps])
    return rows


def measure(peers: list, n: int, case: str, n_seeds: int) -> dict:
    """All numbers of steps on one section."""
    name = case.replace("_", " ")
    ranks = RANKS if name in EXPLORED else (10, 15, 20)
    rows, spent = timed(lambda: run_case(name, ranks, range(n_seeds)))
    mean = pd.DataFrame(rows).groupby("variant", sort=False)["ari"].mean()
    return spent | {"rows": rows, "notes": ", ".join(f"{name}: ARI {ari:.3f}" for name, ari in mean.items())}


def print_table() -> None:
    """Means over ranks and seeds, of all results at hand."""
    files = (HERE / "results").glob("steps-*.json")
    rows = pd.DataFrame([row for f in files for row in json.loads(f.read_text()).get("rows", [])])
    for score in ("ari", "pas", "steps"):
        mean = rows.groupby(["tissue", "variant"], sort=False)[score].mean().unstack()
        print(f"\n{score}\n\n{markdown(mean.reindex([c for c in (*EXPLORED, *JUDGED) if c in mean.index]))}")


MEASUREMENTS: Measurements = {"steps": {"spanmf": measure}}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:]:
        main(MEASUREMENTS)
    else:
        print_table()
