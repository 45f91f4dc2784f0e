"""`preset="paper"` against the slow reference of the published form: step by step, each fed the reference's own input."""

from __future__ import annotations

from dataclasses import dataclass

import anndata as ad
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from reference import hsnmf_paper as paper
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score
from support import small_tissue

import spanmf as sn
from spanmf.core import _leiden

K = 4
TIGHT = 1e-8


@dataclass(frozen=True)
class Reference:
    """The reference's results, one step after the other."""

    adata: ad.AnnData
    contact: nx.Graph
    context: nx.Graph
    merged: nx.Graph
    A: sp.csr_array
    W0: np.ndarray
    H: np.ndarray
    W: np.ndarray
    feature: sp.csr_array
    mixed: sp.csr_array
    labels: np.ndarray


@pytest.fixture(scope="module")
def ref() -> Reference:
    adata = small_tissue(900, 60, K, seed=3)
    coords = adata.obsm["spatial"]
    contact = paper.radius_graph(coords, paper.CONTACT_RADIUS, paper.CONTACT_WEIGHT)
    context = paper.radius_graph(coords, paper.CONTEXT_RADIUS, paper.CONTEXT_WEIGHT)
    merged = paper.merge_graphs(contact, context)
    A = paper.adjacency(merged)
    W0, H = paper.nmf(adata.X.astype(np.float64), K, max_iter=20_000, tol=TIGHT)
    W = paper.smooth(W0, A)
    feature = paper.feature_graph(W)
    mixed = paper.mix(A, feature)
    return Reference(adata, contact, context, merged, A, W0, H, W, feature, mixed, paper.leiden(mixed))


@pytest.fixture
def fed(ref) -> ad.AnnData:
    """A table that holds what the reference made: graph, smoothed factors, loadings."""
    adata = ref.adata.copy()
    adata.obsp["contact_connectivities"] = sp.csr_matrix(ref.A, dtype=np.float32)
    adata.obsm["X_snmf"] = ref.W.astype(np.float32)
    adata.varm["snmf_loadings"] = ref.H.T.astype(np.float32)
    return adata


def symmetric(A) -> np.ndarray:
    return (A + A.T).toarray() / 2


def unit(M: np.ndarray) -> np.ndarray:
    """Columns at unit norm."""
    return M / np.linalg.norm(M, axis=0)


def matched(W: np.ndarray, W_ref: np.ndarray) -> np.ndarray:
    """Order of W's columns that fits W_ref's best."""
    return linear_sum_assignment(-(unit(W_ref).T @ unit(W)))[1]


# --- the reference itself -------------------------------------------------------------------------------------------


def test_reference_finds_the_planted_domains(ref):
    """It is worth being held against: the published form works on easy data."""
    assert adjusted_rand_score(ref.adata.obs["domain"], ref.labels) > 0.8


def test_reference_runs_as_a_whole(ref):
    result = paper.run(ref.adata.X, ref.adata.obsm["spatial"], n_components=K)
    assert (
        set(result.wall) == set(result.cpu) == {"nmf", "graph", "smooth", "feature_graph", "mix", "leiden", "metrics"}
    )
    assert result.peak_mib > 50
    assert adjusted_rand_score(result.labels, ref.labels) > 0.9
    assert result.metrics["edge_agreement_contact"] == paper.edge_agreement(ref.contact, result.labels)


# --- steps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3])
def test_graph(ref, dim):
    adata = ref.adata if dim == 2 else small_tissue(300, 5, dim=3)
    contact, context = (
        paper.radius_graph(adata.obsm["spatial"], r, w)
        for r, w in ((paper.CONTACT_RADIUS, paper.CONTACT_WEIGHT), (paper.CONTEXT_RADIUS, paper.CONTEXT_WEIGHT))
    )
    expected = paper.adjacency(paper.merge_graphs(contact, context))
    A, D = sn.gr.contact_neighbors(adata, preset="paper", copy=True)
    assert A.dtype == np.float32
    np.testing.assert_array_equal(A.toarray(), expected.toarray())
    rows, columns = expected.nonzero()
    length = np.linalg.norm(adata.obsm["spatial"][rows] - adata.obsm["spatial"][columns], axis=1)
    np.testing.assert_allclose(np.asarray(D[rows, columns]).ravel(), length, rtol=1e-6)
    assert D.nnz == expected.nnz


def test_factors(ref):
    """Matched components, unit norm, both run to 1e-8."""
    adata = sn.tl.nmf(ref.adata, K, preset="paper", max_iter=20_000, tol=TIGHT, copy=True)
    W, H = adata.obsm["X_nmf"].astype(np.float64), adata.varm["nmf_loadings"].astype(np.float64)
    order = matched(W, ref.W0)
    np.testing.assert_allclose(unit(W)[:, order], unit(ref.W0), atol=1e-3)
    np.testing.assert_allclose(unit(H)[:, order], unit(ref.H.T), atol=1e-3)


def test_factors_do_not_depend_on_the_route(ref):
    """From a random start too, the planted programmes are found: the parity is not that of one initialisation."""
    adata = sn.tl.nmf(ref.adata, K, init="random", max_iter=20_000, tol=TIGHT, rng=5, copy=True)
    W = adata.obsm["X_nmf"].astype(np.float64)
    np.testing.assert_allclose(unit(W)[:, matched(W, ref.W0)], unit(ref.W0), atol=1e-3)


def test_smoothing(ref, fed):
    """SNMF's factors are the NMF's, smoothed by the reference; H is left as it was."""
    plain = sn.tl.nmf(fed, K, preset="paper", copy=True)
    smoothed = sn.tl.snmf(fed, K, preset="paper", copy=True)
    np.testing.assert_allclose(smoothed.varm["snmf_loadings"], plain.varm["nmf_loadings"], rtol=1e-6)
    expected = paper.smooth(plain.obsm["X_nmf"].astype(np.float64), ref.A)
    np.testing.assert_allclose(smoothed.obsm["X_snmf"], expected, rtol=1e-4, atol=1e-6)


def test_hybrid_graph(ref, fed):
    """α of the spatial and 1 − α of the feature graph, by rows; ours is made symmetric."""
    A, _ = sn.gr.hybrid_neighbors(fed, 0.5, scale=None, copy=True)
    np.testing.assert_allclose(A.toarray(), symmetric(ref.mixed), atol=2e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_hybrid_graph_at_other_mixtures(ref, fed, alpha):
    fed.obsp["knn_connectivities"] = sp.csr_matrix(ref.feature)
    A, _ = sn.gr.hybrid_neighbors(fed, alpha, feature_key="knn", copy=True)
    np.testing.assert_allclose(A.toarray(), symmetric(paper.mix(ref.A, ref.feature, alpha=alpha)), atol=1e-6)


def test_hybrid_graph_of_an_isolated_cell(ref):
    """Renormalised: a cell without spatial neighbours gives all its weight to the feature graph."""
    A = ref.A.tolil()
    A[5, :] = A[:, 5] = 0
    A = sp.csr_array(A)
    adata = ref.adata.copy()
    adata.obsp["contact_connectivities"] = sp.csr_matrix(A, dtype=np.float32)
    adata.obsp["knn_connectivities"] = sp.csr_matrix(ref.feature)
    ours, _ = sn.gr.hybrid_neighbors(adata, feature_key="knn", copy=True)
    np.testing.assert_allclose(ours.toarray(), symmetric(paper.mix(A, ref.feature)), atol=1e-6)


@pytest.mark.parametrize("seed", [0, 7])
def test_labels_on_the_identical_graph(ref, seed):
    """Same graph, each edge once, same flavour, seed and iterations: the same partition, number by number."""
    A = sp.csr_matrix(symmetric(ref.mixed).astype(np.float32))
    ours = _leiden.leiden(A, 0.4, flavor="leidenalg", seed=seed)
    np.testing.assert_array_equal(ours, paper.leiden(sp.triu(A, format="csr"), seed=seed))


def test_edges_once_or_twice(ref):
    """The published script hands over each edge twice, from a graph that is not symmetric: the same modularity.

    So the labels differ no more than between two seeds of the reference.
    """
    seeds = range(5)
    theirs = [paper.leiden(ref.mixed, seed=s) for s in seeds]
    ours = [paper.leiden(sp.triu(sp.csr_array(symmetric(ref.mixed)), format="csr"), seed=s) for s in seeds]
    between = [adjusted_rand_score(theirs[i], theirs[j]) for i in seeds for j in range(i)]
    across = [adjusted_rand_score(a, b) for a in ours for b in theirs]
    assert np.mean(across) > np.mean(between) - 0.05


# --- metrics, on the reference's labels and factors -----------------------------------------------------------------


def test_metrics(ref):
    labels, coords = ref.labels, ref.adata.obsm["spatial"]
    assert min(np.bincount(labels)) > 2, "the published CHAOS counts cells of tiny clusters as 0, ours leaves them out"
    binary = {name: (paper.adjacency(g) > 0).astype(np.float32) for name, g in (("c", ref.contact), ("x", ref.context))}
    pairs = {
        "silhouette": (sn.metrics.silhouette(ref.W, labels), paper.silhouette(ref.W, labels)),
        "davies_bouldin": (sn.metrics.davies_bouldin(ref.W, labels), paper.davies_bouldin(ref.W, labels)),
        "edge_agreement_contact": (
            sn.metrics.edge_agreement(binary["c"], labels).observed,
            paper.edge_agreement(ref.contact, labels),
        ),
        "edge_agreement_context": (
            sn.metrics.edge_agreement(binary["x"], labels).observed,
            paper.edge_agreement(ref.context, labels),
        ),
        "morans_i": (sn.metrics.morans_i(ref.A, ref.W)["I"].iloc[0], paper.morans_i(ref.merged, ref.W[:, 0])),
        "chaos": (sn.metrics.chaos(coords, labels), paper.chaos(coords, labels)),
        "mse": (
            sn.metrics.reconstruction_error(ref.adata.X, (ref.W, ref.H)),
            paper.reconstruction(ref.adata.X, ref.W, ref.H)[0],
        ),
        "explained": (
            sn.metrics.explained_variance(ref.adata.X, (ref.W, ref.H)),
            paper.reconstruction(ref.adata.X, ref.W, ref.H)[1],
        ),
    }
    ours, theirs = np.array(list(pairs.values())).T
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=", ".join(pairs))


def test_silhouette_of_a_cell_alone_is_zero():
    """The reference's definition against a case done by hand: points 0, 1 in one cluster, 4 alone."""
    W, labels = np.array([[0.0], [1.0], [4.0]]), np.array([0, 0, 1])
    expected = ((4 - 1) / 4 + (3 - 1) / 3 + 0) / 3
    assert paper.silhouette(W, labels) == pytest.approx(expected)
    assert sn.metrics.silhouette(W, labels) == pytest.approx(expected)


# --- the whole ------------------------------------------------------------------------------------------------------


def test_whole_pipeline(ref):
    """From the same table, domains and smoothed factors agree with the reference's."""
    adata = ref.adata.copy()
    sn.gr.contact_neighbors(adata, preset="paper")
    sn.tl.hsnmf(adata, K, preset="paper", tol=TIGHT, max_iter=20_000)
    W = adata.obsm["X_hsnmf"].astype(np.float64)
    np.testing.assert_allclose(unit(W)[:, matched(W, ref.W)], unit(ref.W), atol=1e-3)
    seeds = [paper.leiden(ref.mixed, seed=s) for s in range(5)]
    between = [adjusted_rand_score(seeds[i], seeds[j]) for i in range(5) for j in range(i)]
    assert adjusted_rand_score(adata.obs["hsnmf"], ref.labels) >= min(between)
    run = adata.uns["hsnmf"]["params"]
    assert run["preset"] == "paper"
    assert (run["alpha"], run["beta"], run["n_steps"], run["resolution"], run["flavor"]) == (
        0.5,
        0.6,
        2,
        0.4,
        "leidenalg",
    )
