"""Which defaults should `tl.hsnmf` have? Agreement (ARI) with known domains on labelled and on generated tissues.

    python benchmarks/run.py --only domains   # one measurement a tissue, about 20 minutes on two cores
    python benchmarks/domains.py              # prints the tables by tissue that docs/domains_evidence.md sums up

Unlabelled observations ("unannotated", "undetermined") take part in the fit and are left out of the score and of
the number of domains.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from common import DATA, HERE, Measurements, left_out, main, timed
from scipy.spatial import cKDTree
from sklearn.metrics import adjusted_rand_score

import spanmf as sn
from spanmf.core import _domains, _graph, _init, _leiden, _ops, _scale, _smooth, _snmf, _solver
from spanmf.gr._hybrid import feature_graph

RANKS, SEEDS, LEIDEN_SEEDS = (10, 12, 15, 20), range(5), range(2)
ALPHAS, RESOLUTIONS = (0.0, 0.1, 0.2, 0.3, 0.5), (0.2, 0.4, 0.6, 0.8, 1.0)
STEPS = ((1, "refit"), (2, "refit"), (2, "raw"), (3, "refit"), (4, "refit"))
UNLABELLED = ("unannotated", "undetermined")


def log_normalised(adata: ad.AnnData, label: str, n_top_genes: int | None = None) -> ad.AnnData:
    """Table with the known domains in obs["truth"] (NaN where unlabelled) and its contact graph."""
    sc.pp.filter_cells(adata, min_counts=1)
    truth = adata.obs[label].astype(str)
    adata.obs["truth"] = truth.where(~truth.isin(UNLABELLED))
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    if n_top_genes:
        sc.pp.highly_variable_genes(adata, n_top_genes=n_top_genes)
    sn.gr.contact_neighbors(adata, library_key="library" if "library" in adata.obs else None)
    return adata


def real(name: str, label: str, n_top_genes: int | None, folder: Path) -> ad.AnnData:
    """One of the labelled tissues."""
    path = folder / f"{name}.h5ad"
    if not path.exists():
        left_out(f"{path.name} is not there; SPANMF_TEST_DATA names the folder of the real tables")
    return log_normalised(ad.read_h5ad(path), label, n_top_genes)


def cells(seed: int, n_domains: int, _: Path) -> ad.AnnData:
    """Generate cells with planted domains."""
    return log_normalised(sn.datasets.xenium_tissue(4000, n_domains=n_domains, n_libraries=2, rng=seed), "domain")


def spots(seed: int, n_domains: int, _: Path) -> ad.AnnData:
    """Generate spots with planted domains."""
    return log_normalised(sn.datasets.visium_section(700, n_domains=n_domains, rng=seed), "domain")


CASES: dict[str, Callable[[Path], ad.AnnData]] = {
    "pdac": partial(real, "pdac_a_st", "region", None),
    "her2": partial(real, "her2st_H1", "region", None),
    "starmap": partial(real, "starmap_v1_1020", "layer", None),
    "pdac hvg": partial(real, "pdac_a_st", "region", 2000),
    "her2 hvg": partial(real, "her2st_H1", "region", 2000),
} | {
    f"{make.__name__} {s}": partial(make, s, k)
    for make in (cells, spots)
    for s, k in ((1, 8), (2, 6), (3, 5), (4, 7), (5, 9))  # 4 and 5 were run once, after the choice
}


@dataclass
class Tissue:
    """What all variants of a tissue share."""

    adata: ad.AnnData
    A: sp.csr_matrix
    graph: _smooth.Graph
    X: _ops.Rows
    truth: np.ndarray
    labelled: np.ndarray
    near: np.ndarray  # the ten nearest of every observation

    @classmethod
    def of(cls, adata: ad.AnnData) -> Tissue:
        A = sp.csr_matrix(adata.obsp["contact_connectivities"])
        mask = adata.var["highly_variable"].to_numpy() if "highly_variable" in adata.var else None
        labelled = adata.obs["truth"].notna().to_numpy()
        xy = adata.obsm["spatial"]
        return cls(
            adata, A, _smooth.as_graph(A), _ops.as_rows(adata.X, mask), adata.obs["truth"].astype(str).to_numpy(),
            labelled, cKDTree(xy).query(xy, 11)[1][:, 1:],
        )  # fmt: skip

    @property
    def n_domains(self) -> int:
        return len(np.unique(self.truth[self.labelled]))

    def scores(self, labels: np.ndarray) -> dict[str, float]:
        """ARI where labelled, share of observations most of whose ten nearest are labelled otherwise, number found."""
        labels = np.asarray(labels)
        astray = (labels[self.near] != labels[:, None]).mean(1) > 0.5
        return {
            "ari": adjusted_rand_score(self.truth[self.labelled], labels[self.labelled]),
            "pas": float(astray.mean()),
            "found": len(np.unique(labels)),
        }


Row = dict[str, Any]
one_variance = _domains._gaussian


def tied(scores: np.ndarray, R: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and the inverse of one full covariance, in place of one variance."""
    means, _ = one_variance(scores, R, means)
    covariance = (scores.T @ scores - means.T @ (R.sum(0)[:, None] * means)) / len(scores)
    return means, np.linalg.inv(covariance + 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))


def mahalanobis(scores: np.ndarray, means: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """−½ (z − μ)ᵀ Σ⁻¹ (z − μ) up to a constant."""
    pulled = means @ precision
    return (scores @ pulled.T - 0.5 * (pulled * means).sum(1)).astype(np.float32)


def mixture(Z: np.ndarray, K: int, graph: _smooth.Graph, rng: np.random.Generator, **changes: Any) -> np.ndarray:
    """The Potts mixture with parts of it replaced."""
    with patch.multiple(_domains, **changes):
        return _domains.potts_mixture(Z, K, graph, rng)


def k_means(Z: np.ndarray, K: int, graph: _smooth.Graph, rng: np.random.Generator) -> np.ndarray:
    """k-means alone."""
    return _domains.k_means(Z, K, rng)[0]


CLUSTERINGS: dict[str, Callable[..., np.ndarray]] = {
    "k-means": k_means,
    "one variance, β = 4": partial(mixture, POTTS=4.0),
    "one variance, β = 6": partial(mixture, POTTS=6.0),
    "one variance, β = 8": partial(mixture, POTTS=8.0),
    "full covariance, β = 4": partial(mixture, POTTS=4.0, _gaussian=tied, _log_density=mahalanobis),
}


def known_number(t: Tissue, Z: dict[tuple[int, str], np.ndarray], seed: int) -> Iterator[Row]:
    """The number of domains given: kinds of clustering at the default smoothing, smoothings at two clusterings."""
    for name, cluster in CLUSTERINGS.items():
        labels = cluster(Z[2, "refit"], t.n_domains, t.graph, np.random.default_rng(seed))
        yield {"table": "clustering", "variant": name} | t.scores(labels)
    for (n_steps, h), z in Z.items():
        for name in ("k-means", "one variance, β = 6"):
            labels = CLUSTERINGS[name](z, t.n_domains, t.graph, np.random.default_rng(seed))
            yield {"table": "smoothing", "variant": f"{n_steps} steps, {h} H, {name}"} | t.scores(labels)


def unknown_number(t: Tissue, Z: np.ndarray, seed: int) -> Iterator[Row]:
    """Leiden on the hybrid graph, at given resolutions and searched for the true number."""
    F, _ = feature_graph(Z, 15)
    for alpha in ALPHAS:
        M = _graph.mix(t.A, F, alpha)
        run = _leiden.prepared(M, "networkit")
        for resolution in RESOLUTIONS:
            yield {"table": "leiden", "variant": f"{alpha} / {resolution}"} | t.scores(run(resolution, seed))
        labels = _leiden.search_resolution(M, t.n_domains, flavor="networkit", seed=seed)[0]
        yield {"table": "leiden", "variant": f"{alpha} / searched"} | t.scores(labels)


def other_methods(t: Tissue, W: np.ndarray, H: np.ndarray, rank: int, seed: int) -> Iterator[Row]:
    """NMF, the forms of SNMF, the published hSNMF, and Leiden on principal components."""

    def row(name: str, labels: Any) -> Row:
        return {"table": "methods", "variant": name} | t.scores(labels)

    def argmax(W: np.ndarray, H: np.ndarray) -> np.ndarray:
        return (W * np.linalg.norm(H, axis=1)).argmax(1)

    rng = np.random.default_rng
    yield row("NMF, largest component", argmax(W, H))
    yield row("NMF, k-means", k_means(_scale.rescale(W, H), t.n_domains, t.graph, rng(seed)))
    smooth = _smooth.diffuse(t.graph, W)
    yield row("SNMF diffuse (paper), largest component", argmax(smooth, H))
    yield row("SNMF refit, largest component", argmax(smooth, _snmf.refit_h(t.X, smooth, H)))
    laplacian = sn.tl.snmf(t.adata, rank, smoothing="laplacian", rng=seed, copy=True)
    W, H = laplacian.obsm["X_snmf"], laplacian.varm["snmf_loadings"].T
    yield row("SNMF laplacian, largest component", argmax(W, H))
    yield row("SNMF laplacian, k-means", k_means(_scale.rescale(W, H), t.n_domains, t.graph, rng(seed)))
    paper = sn.tl.hsnmf(t.adata, rank, preset="paper", rng=seed, copy=True)
    yield row("hSNMF as published (preset)", paper.obs["hsnmf"].cat.codes)
    if rank == RANKS[0]:
        sc.pp.pca(t.adata, random_state=seed)
        F, _ = feature_graph(t.adata.obsm["X_pca"], 15)
        yield row("PCA, Leiden, resolution 1", _leiden.leiden(F, 1.0, flavor="igraph", seed=seed))
        searched = _leiden.search_resolution(F, t.n_domains, flavor="igraph", seed=seed)[0]
        yield row("PCA, Leiden, true number searched", searched)


def run_case(case: str, ranks: tuple[int, ...], seeds: range) -> list[Row]:
    """All rows of one tissue; every factorisation serves all variants."""
    t = Tissue.of(CASES[case](DATA))
    rows: list[Row] = []
    for rank in ranks:
        for seed in seeds:
            W0, H0 = _init.initialise(t.X, rank, "auto", np.random.default_rng(seed))
            fit = _solver.fit(t.X, H0, W0)
            Z = {}
            for n_steps, h in STEPS:
                W = _smooth.diffuse(t.graph, fit.W, n_steps=n_steps)
                Z[n_steps, h] = _scale.rescale(W, _snmf.refit_h(t.X, W, fit.H) if h == "refit" else fit.H)
            found = [*known_number(t, Z, seed)]
            if seed in LEIDEN_SEEDS:
                found += unknown_number(t, Z[2, "refit"], seed)
            if case.split()[0] in ("starmap", "pdac", "her2"):
                found += other_methods(t, fit.W, fit.H, rank, seed)
            rows += [{"tissue": case, "rank": rank, "seed": seed} | row for row in found]
    return rows


def markdown(table: pd.DataFrame) -> str:
    """Pipes, three decimals; the first column names the variant."""
    head = ["", *map(str, table.columns)]
    body = [[str(i), *("–" if np.isnan(v) else f"{v:.3f}".lstrip("0") for v in r)] for i, r in table.iterrows()]
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *body])


def tables(rows: pd.DataFrame) -> Iterator[str]:
    """The tables of the report: means over ranks and seeds."""
    order = [c for c in CASES if c in set(rows.tissue)]
    for name, part in rows.groupby("table", sort=False):
        for score in ("ari", "found") if name == "leiden" else ("ari", "pas"):
            mean = part.groupby(["variant", "tissue"], sort=False)[score].mean().unstack()
            mean = mean[[c for c in order if c in mean]]
            mean["mean"] = mean.mean(axis=1)
            yield f"\n{name}: {score}\n\n{markdown(mean)}"


def measure(peers: list, n: int, case: str, n_ranks: int, n_seeds: int) -> dict:
    """All variants on one tissue, for the first of the ranks and seeds."""
    rows, spent = timed(lambda: run_case(case.replace("_", " "), RANKS[:n_ranks], range(n_seeds)))
    default = [r["ari"] for r in rows if r["table"] == "clustering" and r["variant"] == "one variance, β = 6"]
    return spent | {"rows": rows, "notes": f"mean ARI {np.mean(default):.3f}, the number given"}


def print_tables() -> None:
    """Of all results at hand."""
    files = sorted((HERE / "results").glob("domains-*.json"))
    for text in tables(pd.DataFrame([row for f in files for row in json.loads(f.read_text()).get("rows", [])])):
        print(text)


MEASUREMENTS: Measurements = {"domains": {"spanmf": measure}}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:]:
        main(MEASUREMENTS)
    else:
        print_tables()
