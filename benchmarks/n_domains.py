"""How many domains? Agreement (ARI) with known domains at the number that each rule chooses.

    SPANMF_TEST_DATA=../shared/data python benchmarks/run.py --only n_domains

One measurement is a tissue, a rank and a seed; the seconds are those of `tl.select_n_domains` alone.
The same factors and the same clustering (the Potts mixture) serve all rules, so that only the number differs: that of
`tl.select_n_domains`, of the halves' plain adjusted Rand index, of BIC and ICL of the mixture, of the silhouette, and the
true one. Leiden at resolution 1, on the principal components and on the hybrid graph, chooses for itself. Real tissues
are those of domains.py; the rule was found on rank 10 and seed 0 of them and on the generated tissues of `FOUND_ON`, and
is judged on other seeds, ranks and generated tissues.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import scanpy as sc
from common import DATA, Measurements, main, timed
from domains import CASES, cells, spots
from sklearn.metrics import adjusted_rand_score, silhouette_score

import spanmf as sn
from spanmf import _data
from spanmf.core import _domains, _leiden
from spanmf.gr._hybrid import feature_graph

CANDIDATES = range(2, 13)
REAL = ("starmap", "pdac hvg", "her2 hvg", "pdac", "her2")
FOUND_ON = {f"{m.__name__} {s}": partial(m, s, k) for m in (cells, spots) for s, k in ((1, 8), (2, 6))}
FRESH = {f"{m.__name__} {s}": partial(m, s, k) for m in (cells, spots) for s, k in ((11, 5), (12, 7), (13, 9), (14, 4))}
LOADERS = {name.replace(" ", "_"): load for name, load in ({n: CASES[n] for n in REAL} | FOUND_ON | FRESH).items()}


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


def choose(peers: list, n: int, case: str, rank: int, seed: int) -> dict:
    """Number and ARI by rule, on about n observations."""
    warnings.simplefilter("ignore")
    adata = LOADERS[case](DATA)
    known = adata.obs["truth"].notna().to_numpy()
    truth = adata.obs["truth"][known].astype(str)
    library = "library" if "library" in adata.obs else None

    def ari(labels: Any) -> float:
        return adjusted_rand_score(truth, np.asarray(labels)[known])

    sn.tl.snmf(adata, rank, rng=seed)
    own = {"use_rep": "X_snmf", "smooth": False, "rng": seed}
    table, spent = timed(lambda: sn.tl.select_n_domains(adata, CANDIDATES, library_key=library, **own))
    table = table.set_index("n_domains")
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
    rules = {rule: (K, found[K]) for rule, K in chosen.items()}
    rules["best of all candidates"] = max(found.items(), key=lambda item: item[1])
    sc.pp.pca(adata, random_state=seed)
    F, _ = feature_graph(adata.obsm["X_pca"], 15)
    on_pca = _leiden.leiden(F, 1.0, flavor="igraph", seed=seed)
    sn.tl.hsnmf(adata, resolution=1.0, key_added="at", **own)
    for rule, x in (("Leiden on PCA, resolution 1", on_pca), ("Leiden, hybrid graph, resolution 1", adata.obs["at"])):
        rules[rule] = len(np.unique(x)), ari(x)
    notes = "; ".join(f"{rule}: {K}, ARI {value:.3f}" for rule, (K, value) in rules.items())
    return spent | {"rules": rules, "notes": f"{adata.n_obs:,} observations; {notes}"}


MEASUREMENTS: Measurements = {"n_domains": {"spanmf": choose}}


if __name__ == "__main__":
    main(MEASUREMENTS)
