"""The published form of hSNMF, slow and straightforward: what `preset="paper"` is held against.

Mahmud et al., ISBI 2026 (arXiv:2602.02638), with the published run's settings. Each step is a function that takes what the
step before it returned, is written from the equations with the tools that the published script uses (networkx,
scikit-learn, scanpy, leidenalg), and shares no line with spanmf. Where the published form has a flaw (H is not
refitted, the mixed graph is not symmetric, the factors' scale is arbitrary) the flaw is here too.

As a peer for benchmarks::

    python tests/reference/hsnmf_paper.py tissue.h5ad --out labels.npz

prints one JSON line: wall and CPU seconds of each step, the process's peak memory, the metrics.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import warnings
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from collections.abc import Callable

CONTACT_RADIUS, CONTACT_WEIGHT = 20.0, 2.5  # µm
CONTEXT_RADIUS, CONTEXT_WEIGHT = 80.0, 1.0
SCANPY_BRUTE_FORCE = 8192  # cells from which scanpy would use pynndescent, whose release 0.7.0 fails there


# --- steps ----------------------------------------------------------------------------------------------------------


def radius_graph(coords: np.ndarray, radius: float, weight: float) -> nx.Graph:
    """Every pair of cells within the radius (itself included), with one weight. Cells at one place are linked."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(coords)))
    for i, j in cKDTree(coords).query_pairs(radius):
        graph.add_edge(i, j, weight=weight)
    return graph


def merge_graphs(contact: nx.Graph, context: nx.Graph) -> nx.Graph:
    """Union of the edges; an edge that both have keeps the larger weight."""
    merged = nx.Graph()
    merged.add_nodes_from(contact.nodes)
    for graph in (context, contact):
        for i, j, w in graph.edges(data="weight"):
            old = merged.edges[i, j]["weight"] if merged.has_edge(i, j) else 0.0
            merged.add_edge(i, j, weight=max(old, w))
    return merged


def adjacency(graph: nx.Graph) -> sp.csr_array:
    """A, symmetric (n × n)."""
    return sp.csr_array(nx.to_scipy_sparse_array(graph, nodelist=range(graph.number_of_nodes()), format="csr"))


def nmf(
    X: Any, n_components: int = 10, *, max_iter: int = 500, tol: float = 1e-4, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """W (n × k) and H (k × p) by scikit-learn's coordinate descent from NNDSVDa."""
    from sklearn.decomposition import NMF

    model = NMF(n_components, init="nndsvda", max_iter=max_iter, tol=tol, random_state=seed)
    return model.fit_transform(X), model.components_


def smooth(W: np.ndarray, A: sp.csr_array, *, beta: float = 0.6, n_steps: int = 2) -> np.ndarray:
    """W ← (1 − β) W + β P W, n_steps times, with P = (D + I)⁻¹ (A + I)."""
    with_self = sp.csr_array(A + sp.identity(A.shape[0], format="csr"))
    P = sp.diags_array(1.0 / np.asarray(with_self.sum(axis=1)).ravel()) @ with_self
    for _ in range(n_steps):
        W = (1.0 - beta) * W + beta * (P @ W)
    return W


def feature_graph(W: np.ndarray, *, n_neighbors: int = 15, seed: int = 0) -> sp.csr_array:
    """scanpy's fuzzy kNN graph on the rows of W (exact neighbours at any size)."""
    import anndata as ad
    import scanpy as sc

    table = ad.AnnData(np.zeros((len(W), 1), dtype=np.float32), obsm={"X_snmf": W})
    transformer = None
    if len(W) >= SCANPY_BRUTE_FORCE:
        from sklearn.neighbors import KNeighborsTransformer

        transformer = KNeighborsTransformer(n_neighbors=n_neighbors, algorithm="kd_tree")
    sc.pp.neighbors(table, n_neighbors=n_neighbors, use_rep="X_snmf", transformer=transformer, random_state=seed)
    return sp.csr_array(table.obsp["connectivities"])


def row_normalise(A: sp.csr_array) -> sp.csr_array:
    """Rows sum to one; empty rows stay empty."""
    total = np.asarray(A.sum(axis=1)).ravel()
    return sp.csr_array(sp.diags_array(np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0)) @ A)


def mix(A_spatial: sp.csr_array, A_feature: sp.csr_array, *, alpha: float = 0.5) -> sp.csr_array:
    """α rownorm(A_spatial) + (1 − α) rownorm(A_feature), renormalised: not symmetric."""
    return row_normalise(alpha * row_normalise(A_spatial) + (1.0 - alpha) * row_normalise(A_feature))


def leiden(A: sp.csr_array, *, resolution: float = 0.4, n_iterations: int = 2, seed: int = 0) -> np.ndarray:
    """Leiden (modularity with a resolution) by leidenalg on an undirected graph with one edge per stored entry of A."""
    import igraph
    import leidenalg

    A = sp.coo_array(A)
    rows, columns = A.coords
    graph = igraph.Graph(n=A.shape[0], edges=list(zip(rows.tolist(), columns.tolist(), strict=True)), directed=False)
    partition = leidenalg.find_partition(
        graph,
        leidenalg.RBConfigurationVertexPartition,
        weights=A.data.tolist(),
        resolution_parameter=resolution,
        n_iterations=n_iterations,
        seed=seed,
    )
    return np.asarray(partition.membership)


# --- metrics --------------------------------------------------------------------------------------------------------


def silhouette(W: np.ndarray, labels: np.ndarray, *, max_cells: int | None = None, seed: int = 0) -> float:
    """Mean of (b − a) / max(a, b); a cell alone in its cluster scores 0. At most max_cells, drawn in each cluster."""
    if max_cells is not None and len(labels) > max_cells:
        rng = np.random.default_rng(seed)
        share = max_cells / len(labels)
        members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
        keep = np.concatenate(
            [rng.choice(m, min(len(m), max(2, round(share * len(m)))), replace=False) for m in members]
        )
        W, labels = W[keep], labels[keep]
    W = np.asarray(W, dtype=np.float64)
    clusters = np.unique(labels)
    scores = np.zeros(len(labels))
    for i in range(len(labels)):
        distance = np.sqrt(((W - W[i]) ** 2).sum(axis=1))
        own = labels == labels[i]
        if own.sum() == 1:
            continue
        a = distance[own].sum() / (own.sum() - 1)
        b = min(distance[labels == c].mean() for c in clusters if c != labels[i])
        scores[i] = (b - a) / max(a, b)
    return float(scores.mean())


def davies_bouldin(W: np.ndarray, labels: np.ndarray) -> float:
    """Mean over clusters of the worst (s_i + s_j) / d_ij, s the mean distance to the centroid, d between centroids."""
    W = np.asarray(W, dtype=np.float64)
    clusters = np.unique(labels)
    centres = [W[labels == c].mean(axis=0) for c in clusters]
    spread = [np.linalg.norm(W[labels == c] - m, axis=1).mean() for c, m in zip(clusters, centres, strict=True)]
    worst = [
        max((spread[i] + spread[j]) / np.linalg.norm(centres[i] - centres[j]) for j in range(len(clusters)) if j != i)
        for i in range(len(clusters))
    ]
    return float(np.mean(worst))


def edge_agreement(graph: nx.Graph, labels: np.ndarray) -> float:
    """Share of the edges whose two ends have the same label."""
    same = [labels[i] == labels[j] for i, j in graph.edges]
    return sum(same) / len(same)


def morans_i(graph: nx.Graph, x: np.ndarray) -> float:
    """n Σ_ij w_ij z_i z_j / (Σ_ij w_ij Σ_i z_i²) over ordered pairs."""
    z = np.asarray(x, dtype=np.float64) - np.mean(x, dtype=np.float64)
    cross = total = 0.0
    for i, j, w in graph.edges(data="weight"):
        cross += 2.0 * w * z[i] * z[j]
        total += 2.0 * w
    return float(len(z) * cross / (total * (z @ z)))


def chaos(coords: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance to the nearest cell of one's own label, each axis of the coordinates standardised.

    As published: clusters of one or two cells add nothing to the sum, but count in the number of cells.
    """
    from sklearn.neighbors import NearestNeighbors

    place = (coords - coords.mean(axis=0)) / coords.std(axis=0)
    total = 0.0
    for c in np.unique(labels):
        members = place[labels == c]
        if len(members) > 2:
            total += NearestNeighbors(n_neighbors=2).fit(members).kneighbors(members)[0][:, 1].sum()
    return float(total / len(labels))


def reconstruction(X: Any, W: np.ndarray, H: np.ndarray) -> tuple[float, float]:
    """Mean squared error of WH, and the share of the variance around the genes' means that it explains (dense)."""
    dense = np.asarray(X.toarray() if sp.issparse(X) else X, dtype=np.float64)
    residual = dense - W.astype(np.float64) @ H.astype(np.float64)
    return float((residual**2).mean()), float(1.0 - (residual**2).sum() / ((dense - dense.mean(axis=0)) ** 2).sum())


# --- the whole ------------------------------------------------------------------------------------------------------


@dataclass
class PaperRun:
    """What each step returned, and what it took."""

    W: np.ndarray  # smoothed, n × k
    H: np.ndarray  # k × p
    spatial: sp.csr_array
    hybrid: sp.csr_array
    labels: np.ndarray
    metrics: dict[str, float]
    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    peak_mib: float = float("nan")  # of the process so far: measure in a fresh one


def run(
    X: Any, coords: np.ndarray, *, n_components: int = 10, resolution: float = 0.4, tol: float = 1e-4, seed: int = 0
) -> PaperRun:
    """All steps in turn on log-normalised X (n × p, sparse or dense) and coordinates in µm (n × 2 or n × 3)."""
    for package in ("igraph", "leidenalg", "scanpy", "sklearn.decomposition"):
        import_module(package)  # before the clock starts

    wall: dict[str, float] = {}
    cpu: dict[str, float] = {}

    def timed(step: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter(), time.process_time()
        result = function(*args, **kwargs)
        wall[step] = wall.get(step, 0.0) + time.perf_counter() - start[0]
        cpu[step] = cpu.get(step, 0.0) + time.process_time() - start[1]
        return result

    W0, H = timed("nmf", nmf, X, n_components, tol=tol, seed=seed)
    contact = timed("graph", radius_graph, coords, CONTACT_RADIUS, CONTACT_WEIGHT)
    context = timed("graph", radius_graph, coords, CONTEXT_RADIUS, CONTEXT_WEIGHT)
    merged = timed("graph", merge_graphs, contact, context)
    A = timed("graph", adjacency, merged)
    W = timed("smooth", smooth, W0, A)
    feature = timed("feature_graph", feature_graph, W, seed=seed)
    hybrid = timed("mix", mix, A, feature)
    labels = timed("leiden", leiden, hybrid, resolution=resolution, seed=seed)
    mse, explained = timed("metrics", reconstruction, X, W, H)
    metrics = {
        "n_domains": float(len(np.unique(labels))),
        "silhouette": timed("metrics", silhouette, W, labels, max_cells=5000, seed=seed),
        "davies_bouldin": timed("metrics", davies_bouldin, W, labels),
        "edge_agreement_contact": timed("metrics", edge_agreement, contact, labels),
        "edge_agreement_context": timed("metrics", edge_agreement, context, labels),
        "morans_i_factor_1": timed("metrics", morans_i, merged, W[:, 0]),
        "chaos": timed("metrics", chaos, coords, labels),
        "reconstruction_mse": mse,
        "explained_variance": explained,
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mib = peak / 2**20 if sys.platform == "darwin" else peak / 2**10
    return PaperRun(W, H, A, hybrid, labels, metrics, wall, cpu, peak_mib)


def main(argv: list[str] | None = None) -> None:
    """Run on an .h5ad with log-normalised X and obsm["spatial"] in µm; print times, memory and metrics as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("--out", type=Path, help=".npz for labels, W and H")
    parser.add_argument("--n-components", type=int, default=10)
    parser.add_argument("--resolution", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    import anndata as ad

    warnings.simplefilter("ignore")
    adata = ad.read_h5ad(args.input)
    result = run(
        adata.X,
        np.asarray(adata.obsm["spatial"], dtype=np.float64),
        n_components=args.n_components,
        resolution=args.resolution,
        seed=args.seed,
    )
    if args.out is not None:
        np.savez(args.out, labels=result.labels, W=result.W, H=result.H)
    report = {"wall_s": result.wall, "cpu_s": result.cpu, "peak_mib": result.peak_mib, "metrics": result.metrics}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
