"""Measurements of the foundation: factorisation, graphs, smoothing, neighbours, Leiden, the whole pipeline.

Called by ``run.py`` as ``python foundation.py MEASUREMENT WHO SIZE …``; prints one JSON line. What the peers before it
reached in the same run comes on standard input.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from common import HERE, Measurements, main, timed, timed_often

RANK = 10
AS_IN_TUMOUR = 32  # neighbours within 80 µm of a cell of the Xenium breast tumour; the generated tissue has some 90


# --- factorisation ----------------------------------------------------------------------------------------------------


def nmf_data(n: int, kind: str, seed: int) -> sp.csr_matrix:
    import scanpy as sc

    import spanmf as sn

    adata = sn.datasets.planted_factors(n, difficulty=kind, rng=seed)
    if kind == "easy":
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
    return adata.X


def objective(X: sp.csr_matrix, W: np.ndarray, H: np.ndarray) -> float:
    """``½‖X − WH‖²`` in float64."""
    W, H = W.astype(np.float64), H.astype(np.float64)
    cross = sum(float(((X[i : i + 50_000] @ H.T) * W[i : i + 50_000]).sum()) for i in range(0, X.shape[0], 50_000))
    square = sum(
        float(np.square(X.data[i : i + 10**7], dtype=np.float64).sum()) for i in range(0, max(X.nnz, 1), 10**7)
    )
    return 0.5 * (square - 2 * cross + float(np.vdot(W.T @ W, H @ H.T)))


def nmf_peer(peers: list, n: int, kind: str, seed: int) -> dict:
    from sklearn.decomposition import NMF

    X = nmf_data(n, kind, seed)
    model = NMF(RANK, init="nndsvda", max_iter=1000, random_state=seed)
    W, spent = timed(lambda: model.fit_transform(X))
    value = objective(X, W, model.components_)
    return spent | {"objective": value, "notes": f"{model.n_iter_} iterations, objective {value:.6g}"}


def nmf_ours(peers: list, n: int, kind: str, seed: int) -> dict:
    import anndata as ad

    import spanmf as sn

    adata = ad.AnnData(nmf_data(n, kind, seed))
    sn.tl.nmf(adata[:2000].copy(), RANK)  # compiles
    _, spent = timed(lambda: sn.tl.nmf(adata, RANK, rng=seed))
    value = objective(adata.X, adata.obsm["X_nmf"], adata.varm["nmf_loadings"].T)
    return spent | {"objective": value, "notes": f"{adata.uns['nmf']['n_iter']} iterations, objective {value:.6g}"}


# --- graph ------------------------------------------------------------------------------------------------------------


def points(n: int, density: str = "dense") -> np.ndarray:
    """Cells of a generated tissue, in the order the generator gives; ``"tumour"``: as far apart as those of the breast tumour."""
    import spanmf as sn

    return spread(np.asarray(sn.datasets.xenium_tissue(n, n_genes=20).obsm["spatial"]), density)


def spread(coords: np.ndarray, density: str) -> np.ndarray:
    """Coordinates at a density: the number of cells within a radius goes with its square."""
    if density == "dense":
        return coords
    from scipy.spatial import cKDTree

    some = np.random.default_rng(0).choice(len(coords), min(2000, len(coords)), replace=False)
    within = cKDTree(coords).query_ball_point(coords[some], 80.0, return_length=True).mean() - 1
    return coords * np.sqrt(within / AS_IN_TUMOUR)


def graph_peer(peers: list, n: int, density: str) -> dict:
    import anndata as ad
    import squidpy as sq

    adata = ad.AnnData(sp.csr_matrix((n, 1), dtype=np.float32), obsm={"spatial": points(n, density)})
    _, spent = timed(lambda: sq.gr.spatial_neighbors(adata, radius=80.0, coord_type="generic"))
    return spent | {"nnz": int(adata.obsp["spatial_connectivities"].nnz), "notes": f"+{spent['rise_gib']:.2f} GiB"}


def graph_ours(peers: list, n: int, density: str) -> dict:
    import anndata as ad

    import spanmf as sn

    adata = ad.AnnData(sp.csr_matrix((n, 1), dtype=np.float32), obsm={"spatial": points(n, density)})
    sn.gr.contact_neighbors(adata[:2000].copy(), 20.0, 80.0)
    _, spent = timed(lambda: sn.gr.contact_neighbors(adata, 20.0, 80.0))
    A = adata.obsp["contact_connectivities"]
    stored = (A.data.nbytes + A.indices.nbytes + A.indptr.nbytes) / 2**30
    return spent | {
        "nnz": int(A.nnz),
        "stored_gib": stored,
        "notes": f"{A.nnz / n:.0f} neighbours, weights {stored:.2f} GiB, with lengths +{spent['rise_gib']:.2f} GiB",
    }


# --- smoothing --------------------------------------------------------------------------------------------------------


def smoothing_data(n: int) -> tuple[sp.csr_matrix, np.ndarray]:
    from spanmf.core import _graph

    A, _ = _graph.radius_graph(points(n), np.zeros(n, dtype=np.int32), 20.0, 80.0)
    return A, np.random.default_rng(0).random((n, RANK), dtype=np.float32)


def smoothing_peer(peers: list, n: int) -> dict:
    A, W = smoothing_data(n)
    A = A + sp.eye(n, dtype=np.float32, format="csr")
    P = sp.diags(1 / np.asarray(A.sum(1)).ravel()).dot(A).astype(np.float32).tocsr()
    smooth, spent = timed_often(lambda: np.float32(0.4) * W + np.float32(0.6) * (P @ W))
    return spent | {"total": _weighed(smooth), "notes": "one step, the operator made beforehand"}


def smoothing_ours(peers: list, n: int) -> dict:
    from spanmf.core import _smooth

    A, W = smoothing_data(n)
    graph = _smooth.as_graph(A)
    _smooth.diffuse(graph, W, 0.6, 1)
    smooth, spent = timed_often(lambda: _smooth.diffuse(graph, W, 0.6, 1))
    return spent | {"total": _weighed(smooth)}


def _weighed(W: np.ndarray) -> float:
    """One number of a matrix that changes when any row does."""
    return float(np.random.default_rng(1).random(len(W)) @ W.astype(np.float64).sum(1))


# --- nearest neighbours -----------------------------------------------------------------------------------------------


def factors(n: int) -> np.ndarray:
    """Smoothed factors of a generated tissue, on the scale of distances."""
    import scanpy as sc

    import spanmf as sn
    from spanmf.core import _scale

    adata = sn.datasets.xenium_tissue(n)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sn.gr.contact_neighbors(adata, 20, 80, library_key="library")
    sn.tl.snmf(adata, RANK)
    return _scale.rescale(adata.obsm["X_snmf"], adata.varm["snmf_loadings"].T, "gram")


def knn_peer(peers: list, n: int) -> dict:
    from scipy.spatial import cKDTree

    Z = factors(n)
    (distances, _), spent = timed(lambda: cKDTree(Z).query(Z, k=15))
    return spent | {"total": float(distances.sum()), "notes": "cKDTree(Z).query(Z, k=15)"}


def knn_ours(peers: list, n: int) -> dict:
    from spanmf.core import _knn

    Z = factors(n)
    (_, distances), spent = timed(lambda: _knn.nearest(Z, 15))
    return spent | {"total": float(distances.sum(dtype=np.float64))}


# --- Leiden -----------------------------------------------------------------------------------------------------------


def hybrid(n: int, density: str) -> tuple[sp.csr_matrix, np.ndarray]:
    import spanmf as sn

    adata = _tissue(n)
    adata.obsm["spatial"] = spread(adata.obsm["spatial"], density)
    sn.gr.contact_neighbors(adata, 20, 80, library_key="library")
    sn.tl.snmf(adata, RANK)
    sn.gr.hybrid_neighbors(adata, 0.5, scale="gram")
    return adata.obsp["hybrid_connectivities"], adata.obs["domain"].cat.codes.to_numpy()


def judged_labels(A: sp.csr_matrix, labels: np.ndarray, truth: np.ndarray, gamma: float) -> dict:
    from sklearn.metrics import adjusted_rand_score

    degree = np.asarray(A.sum(1), dtype=np.float64).ravel()
    rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    inside = float(A.data[labels[rows] == labels[A.indices]].sum(dtype=np.float64)) / degree.sum()
    modularity = inside - gamma * float((np.bincount(labels, weights=degree) ** 2).sum()) / degree.sum() ** 2
    ari = float(adjusted_rand_score(truth, labels))
    return {
        "modularity": modularity,
        "ari": ari,
        "notes": f"{labels.max() + 1} domains, modularity {modularity:.4f}, ARI {ari:.3f}",
    }


def leiden_peer(peers: list, n: int, density: str) -> dict:
    import anndata as ad
    import scanpy as sc

    A, truth = hybrid(n, density)
    adata = ad.AnnData(sp.csr_matrix((n, 1), dtype=np.float32))
    _, spent = timed(
        lambda: sc.tl.leiden(adata, 0.4, adjacency=A, flavor="igraph", n_iterations=2, directed=False, random_state=0)
    )
    return spent | judged_labels(A, adata.obs["leiden"].astype(int).to_numpy(), truth, 0.4)


def leiden_ours(peers: list, n: int, density: str) -> dict:
    import networkit  # noqa: F401

    from spanmf.core import _leiden

    A, truth = hybrid(n, density)
    labels, spent = timed(lambda: _leiden.leiden(A, 0.4, flavor="networkit", seed=0))
    return spent | judged_labels(A, labels, truth, 0.4)


# --- pipeline ---------------------------------------------------------------------------------------------------------


def _tissue(n: int) -> Any:
    import scanpy as sc

    import spanmf as sn

    adata = sn.datasets.xenium_tissue(n)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    return adata


def pipeline_peer(peers: list, n: int) -> dict:
    from sklearn.metrics import adjusted_rand_score

    sys.path.insert(0, str(HERE.parent))
    from tests.reference import hsnmf_paper

    adata = _tissue(n)
    run, spent = timed(lambda: hsnmf_paper.run(adata.X, np.asarray(adata.obsm["spatial"])))
    ari = float(adjusted_rand_score(adata.obs["domain"], run.labels))
    return spent | _told(ari, run.cpu)


def pipeline_ours(peers: list, n: int) -> dict:
    from sklearn.metrics import adjusted_rand_score

    small = _tissue(1500)
    run_pipeline(small, {})  # compiles
    adata = _tissue(n)
    stages: dict[str, float] = {}
    _, spent = timed(lambda: run_pipeline(adata, stages))
    return spent | _told(float(adjusted_rand_score(adata.obs["domain"], adata.obs["hsnmf"])), stages)


def _told(ari: float, stages: dict[str, float]) -> dict:
    """The agreement with the planted domains, and the CPU seconds of the stages, the long ones in words."""
    total = sum(stages.values())
    long = ", ".join(f"{k} {v:.3g} s" for k, v in stages.items() if v > 0.05 * total)
    return {"ari": ari, "stages": {k: round(v, 2) for k, v in stages.items()}, "notes": f"ARI {ari:.3f}; {long}"}


def run_pipeline(adata: Any, stages: dict[str, float], n_landmarks: int | None = None) -> None:
    """Graph, factors, domains and the foundation's metrics, as the published form computes them; with landmarks no graph is stored."""

    import spanmf as sn

    def stage(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        start = time.process_time()
        function(*args, **kwargs)
        stages[name] = stages.get(name, 0.0) + time.process_time() - start

    stage("graph", sn.gr.contact_neighbors, adata, 20, 80, library_key="library", store=n_landmarks is None)
    stage("hsnmf", sn.tl.hsnmf, adata, RANK, n_landmarks=n_landmarks)
    m = sn.metrics
    stage("metrics", m.reconstruction_error, adata, "hsnmf")
    stage("metrics", m.explained_variance, adata, "hsnmf")
    stage("metrics", m.silhouette, adata, "hsnmf", sample_size=5000)
    stage("metrics", m.davies_bouldin, adata, "hsnmf")
    stage("metrics", m.edge_agreement, adata, "hsnmf")
    stage("metrics", m.morans_i, adata, "hsnmf")
    stage("metrics", m.chaos, adata, "hsnmf", library_key="library")


MEASUREMENTS: Measurements = {
    "nmf": {"scikit-learn cd, nndsvda": nmf_peer, "spanmf": nmf_ours},
    "graph": {"squidpy radius 80": graph_peer, "spanmf": graph_ours},
    "smoothing": {"scipy CSR @ W": smoothing_peer, "spanmf": smoothing_ours},
    "knn": {"scipy cKDTree": knn_peer, "spanmf": knn_ours},
    "leiden": {"igraph as scanpy calls it": leiden_peer, "spanmf": leiden_ours},
    "pipeline": {"published form": pipeline_peer, "spanmf": pipeline_ours},
}


if __name__ == "__main__":
    main(MEASUREMENTS)
