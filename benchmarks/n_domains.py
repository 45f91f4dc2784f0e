"""How many domains? Agreement (ARI) with known domains at the number that each rule chooses.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/n_domains.py --data ../shared/data --out n_domains.csv

The same factors and the same clustering (the Potts mixture) serve all rules, so that only the number differs: that of
`tl.select_n_domains`, of the halves' plain adjusted Rand index, of BIC and ICL of the mixture, of the silhouette, and the
true one. Leiden at resolution 1, on the principal components and on the hybrid graph, chooses for itself. Real tissues
are those of domains.py; the rule was found on rank 10 and seed 0 of them and on the generated tissues of `FOUND_ON`, and
is judged on other seeds, ranks and generated tissues. Half an hour on one core.
"""

from __future__ import annotations

import argparse
import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scanpy as sc
from domains import CASES, cells, markdown, spots
from sklearn.metrics import adjusted_rand_score, silhouette_score

import spanmf as sn
from spanmf import _data
from spanmf.core import _domains, _leiden
from spanmf.gr._hybrid import feature_graph

CANDIDATES = range(2, 13)
REAL = ("starmap", "pdac hvg", "her2 hvg", "pdac", "her2")
FOUND_ON = {f"{m.__name__} {s}": partial(m, s, k) for m in (cells, spots) for s, k in ((1, 8), (2, 6))}
FRESH = {f"{m.__name__} {s}": partial(m, s, k) for m in (cells, spots) for s, k in ((11, 5), (12, 7), (13, 9), (14, 4))}
LOADERS = {name: CASES[name] for name in REAL} | FOUND_ON | FRESH


def mixture_criteria(Z: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """BIC and ICL of a mixture with one variance, and the silhouette: the higher the better."""
    S = _domains.principal_components(Z, _domains.N_PCS)
    (n, d), K = S.shape, len(np.unique(labels))
    codes = np.unique(labels, return_inverse=True)[1]
    means = np.stack([S[codes == k].mean(0) for k in range(K)])
    variance = ((S - means[codes]) ** 2).sum() / S.size
    log_p = -((S[:, None] - means) ** 2).sum(-1) / (2 * variance) - d / 2 * np.log(2 * np.pi * variance)
    log_p += np.log(np.bincount(codes) / n)
    top = log_p.max(1, keepdims=True)
    total = top + np.log(np.exp(log_p - top).sum(1, keepdims=True))
    share = np.exp(log_p - total)
    entropy = -(share * np.log(np.maximum(share, 1e-300))).sum()
    bic = 2 * total.sum() - K * (d + 1) * np.log(n)
    return {"BIC": bic, "ICL": bic - 2 * entropy, "silhouette": silhouette_score(S, codes)}


def run_case(case: str, rank: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Number and ARI by rule."""
    warnings.simplefilter("ignore")
    adata = LOADERS[case](folder)
    known = adata.obs["truth"].notna().to_numpy()
    truth = adata.obs["truth"][known].astype(str)
    library = "library" if "library" in adata.obs else None

    def ari(labels: Any) -> float:
        return adjusted_rand_score(truth, np.asarray(labels)[known])

    sn.tl.snmf(adata, rank, rng=seed)
    own = {"use_rep": "X_snmf", "smooth": False, "rng": seed}
    table = sn.tl.select_n_domains(adata, CANDIDATES, library_key=library, **own).set_index("n_domains")
    Z = _data.get_scaled(adata, "X_snmf", "gram")
    labels, criteria = {}, {}
    for K in CANDIDATES:
        sn.tl.hsnmf(adata, n_domains=K, key_added="at", **own)
        labels[K] = adata.obs["at"].to_numpy()
        criteria[K] = mixture_criteria(Z, labels[K])
    found = {K: ari(x) for K, x in labels.items()}
    chosen = {
        "true number": truth.nunique(),
        "select_n_domains": int(table["information"].idxmax()),
        "ARI of the halves": int(table["stability"].idxmax()),
    } | {name: int(k) for name, k in pd.DataFrame(criteria).T.idxmax().items()}
    rows = [{"rule": rule, "n": K, "ari": found[K]} for rule, K in chosen.items()]
    rows.append({"rule": "best of all candidates", "n": max(found, key=found.get), "ari": max(found.values())})
    sc.pp.pca(adata, random_state=seed)
    F, _ = feature_graph(adata.obsm["X_pca"], 15, np.random.default_rng(seed))
    on_pca = _leiden.leiden(F, 1.0, flavor="igraph", seed=seed)
    sn.tl.hsnmf(adata, resolution=1.0, key_added="at", **own)
    for rule, x in (("Leiden on PCA, resolution 1", on_pca), ("Leiden, hybrid graph, resolution 1", adata.obs["at"])):
        rows.append({"rule": rule, "n": len(np.unique(x)), "ari": ari(x)})
    return [{"tissue": case, "rank": rank, "seed": seed, "true": truth.nunique()} | row for row in rows]


def main() -> None:
    """Run, store and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SPANMF_TEST_DATA", "../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("n_domains.csv"))
    parser.add_argument("--cases", nargs="*", default=[*REAL, *FRESH], choices=list(LOADERS))
    parser.add_argument("--ranks", nargs="*", type=int, default=[10, 15])
    parser.add_argument("--seeds", nargs="*", type=int, default=[7, 8])
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in args.seeds:
        for rank in args.ranks:
            for case in args.cases:
                rows += run_case(case, rank, seed, args.data)
                pd.DataFrame(rows).to_csv(args.out, index=False)
                print(f"done: {case}, rank {rank}, seed {seed}", flush=True)
    print_tables(pd.DataFrame(rows))


def print_tables(rows: pd.DataFrame) -> None:
    """Mean ARI and mean number by rule and tissue."""
    rows["off"] = (rows["n"] - rows["true"]).abs()
    for score in ("ari", "n", "off"):
        mean = rows.groupby(["rule", "tissue"], sort=False)[score].mean().unstack()
        mean["mean"] = mean.mean(axis=1)
        print(f"\n{score}\n\n{markdown(mean)}")


if __name__ == "__main__":
    main()
