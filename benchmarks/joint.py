"""Joint factors of RNA and protein: the seed's small benchmark, a hard tissue, speed, and a real CITE-seq table.

* ``joint_seed``: SpatialMultiOmics' own benchmark (200 cells, four types), as its text has it and as its code has it; accuracy over
  seeds. The peer is the published form by scikit-learn.
* ``joint_types``: 20,000 cells of ``sn.datasets.rna_protein_tissue``, ten types, 20 factors. The peers' representations, and ours in ``spanmf,
  k-means``, are clustered by the same k-means (ten clusters, ten starts) of all cells; scikit-learn and MOFA+ get our preprocessing.
  ``spanmf`` is ``tl.assign_clusters`` (ten), ``spanmf, markers`` ``tl.assign_types`` with the markers that the generator planted. The
  published form and ``spanmf, dominant`` take the largest of ten factors. The oracle knows every type's mean (nearest mean in the
  preprocessed values that a cell has).
* ``joint_speed``: 100,000 cells × (400 genes + 40 proteins).
* ``joint_citeseq``: CD4 and CD8 T cells told apart without CD3, CD4 and CD8 proteins.

``SPANMF_MOFA_PYTHON`` names an interpreter that has ``mofapy2``; without it MOFA+ is left out. Called by ``run.py``.
"""

from __future__ import annotations

import tempfile
import time
from functools import cache

import numpy as np
import scipy.sparse as sp
from common import Measurements, main, peer_python, peer_script, real_table, timed

RANK = 12  # of the run that is timed
TYPES_RANK = 20  # twice the types; chosen, like all that is ours, on seeds below 100
PANEL = [
    "CD3",
    "CD4",
    "CD8a",
    "CD14",
    "CD15",
    "CD16",
    "CD56",
    "CD19",
    "CD25",
    "CD45RA",
    "CD45RO",
    "PD-1",
    "TIGIT",
    "CD127",
]  # 10x's order; the table has no names


# --- scores -----------------------------------------------------------------------------------------------------------


def accuracy(labels: np.ndarray, truth: np.ndarray) -> float:
    """Share of right labels after the best one-to-one renaming."""
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((labels.max() + 1, truth.max() + 1))
    np.add.at(table, (labels, truth), 1)
    return float(table[linear_sum_assignment(-table)].sum() / len(truth))


def scores(labels: np.ndarray, truth: np.ndarray, has: np.ndarray) -> dict:
    from sklearn.metrics import adjusted_rand_score

    out = {"ari": float(adjusted_rand_score(truth, labels)), "accuracy": accuracy(labels, truth)}
    notes = f"ARI {out['ari']:.3f}, accuracy {out['accuracy']:.3f}"
    if not has.all():
        notes += f" ({accuracy(labels[~has], truth[~has]):.3f} of cells without protein)"
    return out | {"notes": notes}


def clustered(Z: np.ndarray) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(10, n_init=10, random_state=0).fit_predict(Z)


# --- the seed's benchmark ---------------------------------------------------------------------------------------------


def seed_data(form: str, seed: int):
    """200 cells, 500 genes, 10 proteins, four types with four marker genes and two marker proteins each."""
    import anndata as ad

    rng = np.random.default_rng(seed)
    types = np.arange(200) % 4
    genes, proteins = (np.arange(500) // 4)[None] == types[:, None], (np.arange(10) // 2)[None] == types[:, None]
    if form == "text":
        rna = rng.negative_binomial(2, 2 / 7, genes.shape) + np.where(genes, rng.poisson(50, genes.shape), 0)
        protein = np.maximum(rng.normal(2, 0.5, proteins.shape), 0) + np.where(
            proteins, rng.poisson(4, proteins.shape), 0
        )
    else:
        rna, protein = (rng.exponential(np.where(m, a, b)) for m, a, b in ((genes, 5.0, 0.5), (proteins, 10.0, 1.0)))
    names = [f"cell{i}" for i in range(200)]
    out = {}
    for name, X in (("rna", rna), ("protein", protein)):
        out[name] = ad.AnnData(X.astype(np.float32))
        out[name].obs_names = names
    return out, types


def seed_ours(peers: list, n: int, form: str, n_seeds: int) -> dict:
    import spanmf as sn

    # the code's values are on a linear scale and no counts, which "rna" takes for log-normalised: as they are, then
    options = {"preprocessing": "none"} if form == "code" else {}

    def labels(data):
        return sn.tl.joint_nmf(data, 4, **options).obs["joint_nmf"].astype(int).to_numpy()

    labels(seed_data(form, 0)[0])  # compiles
    return _over_seeds(labels, form, n_seeds)


def seed_published(peers: list, n: int, form: str, n_seeds: int) -> dict:
    from sklearn.decomposition import NMF

    def labels(data):
        X = np.log1p(np.hstack([t.X for t in data.values()]))
        return NMF(4, init="nndsvda", max_iter=500, random_state=0).fit_transform(X).argmax(1)

    return _over_seeds(labels, form, n_seeds)


def _over_seeds(labels, form: str, n_seeds: int) -> dict:
    found, spent = [], []
    for seed in range(n_seeds):
        data, types = seed_data(form, seed)
        got, seconds = timed(lambda d=data: labels(d))
        found.append(accuracy(got, types))
        spent.append(seconds)
    mean = {k: float(np.mean([s[k] for s in spent])) for k in ("wall_s", "cpu_s")}
    return mean | {
        "accuracy": found,
        "mean_accuracy": float(np.mean(found)),
        "notes": f"accuracy {np.mean(found):.3f} (lowest {np.min(found):.3f}) over {n_seeds} seeds",
    }


# --- the hard tissue --------------------------------------------------------------------------------------------------


@cache
def tissue(n: int, percent: int, seed: int, n_genes: int = 300):
    import spanmf as sn

    mdata = sn.datasets.rna_protein_tissue(n, n_genes=n_genes, missing=percent / 100, rng=seed)
    truth = mdata.mod["rna"].obs["cell_type"].cat.codes.to_numpy().astype(int)
    return mdata, truth, np.isin(mdata.obs_names, mdata.mod["protein"].obs_names)


@cache
def panel_of_40(n: int, n_genes: int):
    """The tissue of the run that is timed: ten antibodies more, which bind nothing."""
    import anndata as ad

    import spanmf as sn

    mdata = tissue(n, 0, 0, n_genes)[0]
    protein = mdata.mod["protein"]
    rng = np.random.default_rng(0)
    more = ad.AnnData(rng.gamma(4.0, 5.0, (n, 10)).astype(np.float32), obs=protein.obs[[]].copy())
    more.var_names = [f"Extra{i + 1}" for i in range(10)]
    wide = ad.concat([protein, more], axis=1, merge="first")
    wide.obsm["spatial"] = protein.obsm["spatial"]
    return sn._mudata.make({"rna": mdata.mod["rna"], "protein": wide})


def modality(mdata, name: str) -> sp.csr_matrix:
    """One modality as ours factorises it."""
    from spanmf.tl import _joint_values

    return sp.csr_matrix(_joint_values.read(mdata, name, name, "frobenius").part.X)


def preprocessed(mdata, n: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """Our preprocessing, both of unit mean square; protein rows that are missing are NaN."""
    from spanmf import _mudata

    rna, protein = (
        X / np.sqrt(X.multiply(X).sum() / X.shape[0]) for X in (modality(mdata, "rna"), modality(mdata, "protein"))
    )
    rows = _mudata.rows_of(mdata, "protein")
    spread = _mudata.spread(sp.csr_matrix(protein), rows, n).toarray()
    spread[~np.isin(np.arange(n), rows)] = np.nan
    return sp.csr_matrix(rna), spread


@cache
def values(n: int, percent: int, seed: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """The tissue's preprocessed values."""
    return preprocessed(tissue(n, percent, seed)[0], n)


def padded(n: int, percent: int, seed: int) -> sp.csr_matrix:
    """Both side by side, missing protein from the nearest cell that has it."""
    from scipy.spatial import cKDTree

    mdata, _, has = tissue(n, percent, seed)
    rna, protein = values(n, percent, seed)
    protein = protein.copy()
    xy = mdata.mod["rna"].obsm["spatial"]
    have = np.flatnonzero(has)
    if not has.all():
        protein[~has] = protein[have[cKDTree(xy[have]).query(xy[~has])[1]]]
    return sp.hstack([rna, sp.csr_matrix(protein)], format="csr", dtype=np.float32)


def planted_markers() -> dict:
    from spanmf.datasets._anatomy import CELL_TYPES
    from spanmf.datasets._expression import MARKERS
    from spanmf.datasets._rna_protein import N_TYPES, PROTEINS, SAME_RNA

    same = {b: a for a, b in SAME_RNA}
    return {
        t: {
            "gene": MARKERS[same.get(t, t)].split(),
            "protein": [p for p, carriers in PROTEINS.items() if t in carriers],
        }
        for t in CELL_TYPES[:N_TYPES]
    }


def types_of(kind: str):
    """One method as a measurement."""

    def run(peers: list, n: int, percent: int, seed: int) -> dict:
        mdata, truth, has = tissue(n, percent, seed)
        small = tissue(500, percent, 0)[0].copy()
        METHODS[kind](small, 500, percent, 0)  # compiles
        values(n, percent, seed)
        labels, spent = timed(lambda: METHODS[kind](mdata, n, percent, seed))
        return spent | scores(labels, truth, has)

    return run


def _representation(**options):
    def run(mdata, n, percent, seed) -> np.ndarray:
        import spanmf as sn
        from spanmf.core import _scale

        sn.tl.joint_nmf(mdata, TYPES_RANK, **options)
        return clustered(_scale.by_gram(mdata.obsm["X_joint_nmf"], mdata.mod["rna"].uns["joint_nmf"]["gram"]))

    return run


def _factorised(mdata, neighbors: bool) -> None:
    import spanmf as sn

    sn.tl.joint_nmf(mdata, TYPES_RANK)
    if neighbors:
        sn.gr.contact_neighbors(mdata.mod["rna"])


def _clusters(neighbors: bool):
    def run(mdata, n, percent, seed) -> np.ndarray:
        import spanmf as sn

        _factorised(mdata, neighbors)
        sn.tl.assign_clusters(mdata, 10, use_neighbors=neighbors)
        return mdata.obs["assign_clusters"].cat.codes.to_numpy().astype(int)

    return run


def _assigned(neighbors: bool):
    def run(mdata, n, percent, seed) -> np.ndarray:
        import spanmf as sn

        _factorised(mdata, neighbors)
        sn.tl.assign_types(mdata, planted_markers(), use_neighbors=neighbors)
        names = list(mdata.mod["rna"].obs["cell_type"].cat.categories)
        return np.array([names.index(t) if t in names else len(names) for t in mdata.obs["assign_types"].astype(str)])

    return run


def _dominant(mdata, n, percent, seed) -> np.ndarray:
    import spanmf as sn

    sn.tl.joint_nmf(mdata, 10)
    return mdata.obs["joint_nmf"].astype(int).to_numpy()


def _published(mdata, n, percent, seed) -> np.ndarray:
    import spanmf as sn

    sn.tl.joint_nmf(mdata, 10, preset="paper")
    return mdata.obsm["X_joint_nmf"].argmax(1)


def _alone(name: str):
    def run(mdata, n, percent, seed) -> np.ndarray:
        import anndata as ad

        import spanmf as sn

        X = values(n, percent, seed)[0] if name == "rna" else np.nan_to_num(values(n, percent, seed)[1])
        adata = ad.AnnData(sp.csr_matrix(X))
        sn.tl.nmf(adata, TYPES_RANK)
        return clustered(sn._data.get_scaled(adata, "X_nmf", "gram"))

    return run


def _sklearn(mdata, n, percent, seed) -> np.ndarray:
    from sklearn.decomposition import NMF

    from spanmf.core import _scale

    model = NMF(TYPES_RANK, init="nndsvda", max_iter=1000, random_state=0)
    W = model.fit_transform(padded(n, percent, seed))
    return clustered(_scale.rescale(W, model.components_))


def mofa(views: dict[str, np.ndarray], k: int, seed: int = 0) -> tuple[np.ndarray, dict]:
    python = peer_python("SPANMF_MOFA_PYTHON", "mofapy2")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/views.npz", **views)
        spent = peer_script(python, "mofa_peer.py", folder, k, seed)
        return np.load(f"{folder}/Z.npy"), spent


def mofa_types(peers: list, n: int, percent: int, seed: int) -> dict:
    _, truth, has = tissue(n, percent, seed)
    rna, protein = values(n, percent, seed)
    Z, spent = mofa({"rna": rna.toarray(), "protein": protein}, TYPES_RANK)
    return spent | scores(clustered(Z), truth, has)


def oracle(peers: list, n: int, percent: int, seed: int) -> dict:
    _, truth, has = tissue(n, percent, seed)
    rna, protein = values(n, percent, seed)
    rna = rna.toarray()
    means = [np.stack([X[(truth == t) & has].mean(0) for t in range(10)]) for X in (rna, np.nan_to_num(protein))]
    start = time.perf_counter()
    distance = ((rna[:, None] - means[0][None]) ** 2).sum(-1)
    distance[has] += ((protein[has][:, None] - means[1][None]) ** 2).sum(-1)
    seconds = time.perf_counter() - start
    return {"wall_s": seconds, "cpu_s": seconds} | scores(distance.argmin(1), truth, has)


METHODS = {
    "joint": _clusters(False), "neighbours": _clusters(True), "k-means": _representation(), "stacked": _representation(weights="stacked", missing="pad"),
    "markers": _assigned(False), "markers, neighbours": _assigned(True), "dominant": _dominant, "published": _published, "rna": _alone("rna"), "protein": _alone("protein"), "sklearn": _sklearn,
}  # fmt: skip


# --- speed ------------------------------------------------------------------------------------------------------------


def speed_sklearn(peers: list, n: int, n_genes: int) -> dict:
    from foundation import objective
    from sklearn.decomposition import NMF

    X = sp.hstack(
        [sp.csr_matrix(part) for part in preprocessed(panel_of_40(n, n_genes), n)], format="csr", dtype=np.float32
    )
    model = NMF(RANK, init="nndsvda", max_iter=1000, random_state=0)
    W, spent = timed(lambda: model.fit_transform(X))
    value = objective(X, W, model.components_)
    return spent | {"objective": value, "notes": f"{model.n_iter_} iterations, objective {value:.6g}"}


def speed_ours(peers: list, n: int, n_genes: int) -> dict:
    import spanmf as sn

    sn.tl.joint_nmf(tissue(500, 0, 0)[0].copy(), RANK)
    mdata = panel_of_40(n, n_genes)
    _, spent = timed(lambda: sn.tl.joint_nmf(mdata, RANK))
    value = float(mdata.uns["joint_nmf"]["trace"][-1])
    return spent | {"objective": value, "notes": f"preprocessing included, objective {value:.6g}"}


def speed_mofa(peers: list, n: int, n_genes: int) -> dict:
    rna, protein = preprocessed(panel_of_40(n, n_genes), n)
    _, spent = mofa({"rna": rna.toarray(), "protein": protein}, RANK)
    return spent | {"notes": "fast convergence mode"}


# --- a real table -----------------------------------------------------------------------------------------------------


def citeseq(peers: list, n: int, n_seeds: int) -> dict:
    """AUC of CD4 against CD8 T cells (gated on protein) by cross-validated discriminants on the factors, over seeds."""
    import anndata as ad
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    import spanmf as sn

    adata = ad.read_h5ad(real_table("citeseq_pbmc_10k_protein_v3.h5ad"))
    table = adata.obsm["protein_expression"]
    gate = {p: PANEL.index(p) for p in ("CD3", "CD4", "CD8a")}
    X = np.log1p(np.asarray(table, dtype=float))
    cd3, cd4, cd8 = (X[:, gate[p]] for p in ("CD3", "CD4", "CD8a"))
    t_cell = cd3 > (cd3.min() + cd3.max()) / 2
    keep = t_cell & (np.abs(cd4 - cd8) > 1)
    truth = (cd4 > cd8)[keep]
    rest = [i for i in range(len(PANEL)) if i not in gate.values()]
    protein = ad.AnnData(np.asarray(table, dtype=np.float32)[:, rest], obs=adata.obs[[]].copy())
    rna = adata.copy()
    del rna.obsm["protein_expression"]
    found: dict[str, list[float]] = {"RNA": [], "the other proteins": [], "joint": []}
    start, cpu = time.perf_counter(), time.process_time()
    for seed in range(n_seeds):
        joint = sn.tl.joint_nmf({"rna": rna, "protein": protein}, 10, rng=seed)
        own = {}
        for name in ("rna", "protein"):
            own[name] = ad.AnnData(modality(joint, name))
            sn.tl.nmf(own[name], 10, rng=seed)
        factors = (own["rna"].obsm["X_nmf"], own["protein"].obsm["X_nmf"], joint.obsm["X_joint_nmf"])
        for name, W in zip(found, factors, strict=True):
            score = cross_val_predict(LinearDiscriminantAnalysis(), W[keep], truth, cv=5, method="decision_function")
            found[name].append(float(roc_auc_score(truth, score)))
    spent = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
    text = ", ".join(f"AUC of {k} {np.mean(v):.3f} ± {np.std(v):.3f}" for k, v in found.items())
    return spent | {"auc": found, "notes": f"{text}; {truth.sum()} CD4 and {(~truth).sum()} CD8 T cells"}


MEASUREMENTS: Measurements = {
    "joint_seed": {"published form, scikit-learn": seed_published, "spanmf": seed_ours},
    "joint_types": {
        "oracle": oracle,
        "published form": types_of("published"),
        "RNA alone": types_of("rna"),
        "protein alone": types_of("protein"),
        "stacked": types_of("stacked"),
        "scikit-learn NMF": types_of("sklearn"),
        "MOFA+": mofa_types,
        "spanmf, dominant": types_of("dominant"),
        "spanmf, k-means": types_of("k-means"),
        "spanmf": types_of("joint"),
        "spanmf, neighbours": types_of("neighbours"),
        "spanmf, markers": types_of("markers"),
        "spanmf, markers and neighbours": types_of("markers, neighbours"),
    },
    "joint_speed": {"scikit-learn NMF": speed_sklearn, "MOFA+": speed_mofa, "spanmf": speed_ours},
    "joint_citeseq": {"spanmf": citeseq},
}


if __name__ == "__main__":
    main(MEASUREMENTS)
