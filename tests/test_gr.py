"""Graphs on tables: what is chosen, written, refused and warned of."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from scipy.spatial import cKDTree
from support import small_tissue

import spanmf as sn
from spanmf._checks import SpanmfWarning


def _table(coords: np.ndarray, **obs: list) -> ad.AnnData:
    n = len(coords)
    return ad.AnnData(
        sp.csr_matrix(np.ones((n, 2), np.float32)),
        obs=pd.DataFrame(obs, index=[str(i) for i in range(n)]),
        obsm={"spatial": np.asarray(coords)},
    )


def test_radii_come_from_the_data_and_are_recorded() -> None:
    adata = small_tissue(800)
    sn.gr.contact_neighbors(adata)
    params = adata.uns["contact_neighbors"]["params"]
    assert params["radii_from"] == "data"
    assert params["context_radius"] == pytest.approx(4 * params["contact_radius"])
    near = adata.obsp["contact_distances"].data <= params["contact_radius"]
    assert near.sum() / 800 == pytest.approx(5, rel=0.15)
    nearest = cKDTree(adata.obsm["spatial"]).query(adata.obsm["spatial"], 2)[0][:, 1]
    assert params["median_nearest_distance"] == pytest.approx(np.median(nearest), rel=0.1)


def test_spots_get_their_first_ring_and_no_context() -> None:
    adata = sn.datasets.visium_section(400)
    sn.gr.contact_neighbors(adata)
    assert adata.uns["contact_neighbors"]["params"]["context_radius"] == 0
    assert np.diff(adata.obsp["contact_connectivities"].indptr).max() == 6
    assert set(adata.obsp["contact_connectivities"].data) == {np.float32(2.5)}


def test_scattered_spots_are_told_by_their_place_on_the_array() -> None:
    adata = sn.datasets.visium_section(400)
    pitch = np.median(cKDTree(adata.obsm["spatial"]).query(adata.obsm["spatial"], 2)[0][:, 1])
    few = adata[np.random.default_rng(0).choice(400, 30, replace=False)].copy()
    with pytest.warns(SpanmfWarning, match="few spots of the array are left"):
        sn.gr.contact_neighbors(few)
    params = few.uns["contact_neighbors"]["params"]
    assert params["contact_radius"] == pytest.approx(1.3 * pitch, rel=0.02)
    assert (params["context_radius"], params["radii_from"]) == (0, "data")
    few.obs["array_row"] = few.obs["array_row"].astype(str)  # of no use: taken for cells
    sn.gr.contact_neighbors(few)
    assert few.uns["contact_neighbors"]["params"]["context_radius"] > 0


@pytest.mark.real
def test_spots_of_a_thinned_visium_section(real_data) -> None:
    """A hundred spots of a whole section, as squidpy ships them: three quarters have no neighbour left."""
    folder = real_data / "vendor" / "visium_squidpy"
    if not folder.exists():
        pytest.skip("the data hold no vendor/visium_squidpy")
    columns = ["barcode", "in_tissue", "array_row", "array_col", "y", "x"]
    spots = pd.read_csv(folder / "spatial" / "tissue_positions_list.csv", names=columns, index_col=0)
    spots = spots[spots["in_tissue"] == 1].iloc[:100]
    adata = ad.AnnData(np.ones((len(spots), 1)), obs=spots, obsm={"spatial": spots[["x", "y"]].to_numpy()})
    with pytest.warns(SpanmfWarning, match="few spots of the array"):
        sn.gr.contact_neighbors(adata)
    assert adata.uns["contact_neighbors"]["params"]["contact_radius"] == pytest.approx(1.3 * 137.7, rel=0.01)


def test_paper_preset_is_20_and_80_unless_given() -> None:
    adata = small_tissue()
    sn.gr.contact_neighbors(adata, preset="paper")
    params = adata.uns["contact_neighbors"]["params"]
    assert (params["contact_radius"], params["context_radius"]) == (20, 80)
    sn.gr.contact_neighbors(adata, 15, preset="paper")
    params = adata.uns["contact_neighbors"]["params"]
    assert (params["contact_radius"], params["context_radius"]) == (15, 80)


def test_a_given_context_alone_rules_the_contact() -> None:
    adata = small_tissue()
    sn.gr.contact_neighbors(adata, context_radius=8)
    assert adata.uns["contact_neighbors"]["params"]["contact_radius"] == 2


def test_libraries_are_never_linked() -> None:
    adata = small_tissue()
    sn.gr.contact_neighbors(adata, 20, 80)
    joined = adata.obsp["contact_connectivities"].tocoo()
    sample = adata.obs["sample"].to_numpy()
    assert (sample[joined.row] != sample[joined.col]).any()
    sn.gr.contact_neighbors(adata, 20, 80, library_key="sample")
    cut = adata.obsp["contact_connectivities"].tocoo()
    assert (sample[cut.row] == sample[cut.col]).all()
    assert cut.nnz == (sample[joined.row] == sample[joined.col]).sum()


def test_copy_returns_both_and_writes_nothing() -> None:
    adata = small_tissue()
    A, D = sn.gr.contact_neighbors(adata, 20, 80, copy=True)
    assert not adata.obsp
    assert not adata.uns
    sn.gr.contact_neighbors(adata, 20, 80, key_added="mine")
    assert (adata.obsp["mine_connectivities"] != A).nnz == 0
    assert (adata.obsp["mine_distances"] != D).nnz == 0
    assert adata.uns["mine_neighbors"]["connectivities_key"] == "mine_connectivities"


def test_wrong_units_are_warned_of_with_the_distance() -> None:
    adata = small_tissue()
    nearest = cKDTree(adata.obsm["spatial"]).query(adata.obsm["spatial"], 2)[0][:, 1]
    with pytest.warns(SpanmfWarning, match="have no neighbour.*units.*median distance"):
        sn.gr.contact_neighbors(adata, float(np.quantile(nearest, 0.1)), 0)


def test_slides_on_top_of_each_other_are_warned_of() -> None:
    one = small_tissue(300)
    coords = np.tile(one.obsm["spatial"], (2, 1))
    adata = _table(coords, sample_id=["a"] * 300 + ["b"] * 300)
    with pytest.warns(SpanmfWarning, match="library_key='sample_id'"):
        sn.gr.contact_neighbors(adata)
    sn.gr.contact_neighbors(adata, library_key="sample_id")  # no warning


def test_summary_counts_by_hand() -> None:
    coords = np.array([[0, 0], [0, 0], [3, 0], [100, 0], [200, 0], [203, 0], [204, 0.0]])
    adata = _table(coords, lib=list("aaaaabb"))
    sn.gr.contact_neighbors(adata, 4, 0)
    summary = sn.gr.graph_summary(adata, library_key="lib")
    assert summary.index.tolist() == ["a", "b", "all"]
    assert summary["n_obs"].tolist() == [5, 2, 7]
    assert summary["n_edges"].tolist() == [5, 3, 6]  # two of them cross
    assert summary["n_crossing"].tolist() == [2, 2, 2]
    assert summary["n_isolated"].tolist() == [1, 0, 1]
    assert summary["n_coincident"].tolist() == [2, 0, 2]
    assert summary.loc["all", "degree_mean"] == pytest.approx(12 / 7)
    assert summary.loc["all", "degree_max"] == 2
    adata.obsp["bare"] = adata.obsp["contact_connectivities"]
    assert np.isnan(sn.gr.graph_summary(adata, "bare").loc["all", "n_coincident"])


def test_summary_remembers_the_libraries_of_the_graph() -> None:
    adata = small_tissue()
    sn.gr.contact_neighbors(adata, library_key="sample")
    assert sn.gr.graph_summary(adata).index.tolist() == ["left", "right", "all"]


@pytest.fixture
def with_factors() -> ad.AnnData:
    adata = small_tissue()
    sn.gr.contact_neighbors(adata, 20, 80)
    sn.tl.snmf(adata, 4)
    return adata


def _row_normalised(A: sp.csr_matrix) -> np.ndarray:
    dense = A.toarray().astype(float)
    return dense / np.maximum(dense.sum(1, keepdims=True), 1e-30)


def test_hybrid_is_the_formula_on_scanpys_graph(with_factors: ad.AnnData) -> None:
    adata = with_factors
    sc.pp.neighbors(adata, 10, use_rep="X_snmf", key_added="scanpy")
    sn.gr.hybrid_neighbors(adata, 0.3, n_neighbors=10, scale=None)
    S, F = (_row_normalised(adata.obsp[k]) for k in ("contact_connectivities", "scanpy_connectivities"))
    mixed = 0.3 * S + 0.7 * F
    np.testing.assert_allclose(adata.obsp["hybrid_connectivities"].toarray(), (mixed + mixed.T) / 2, atol=2e-3)
    sn.gr.hybrid_neighbors(adata, 0.3, feature_key="scanpy", key_added="given")
    np.testing.assert_allclose(adata.obsp["given_connectivities"].toarray(), (mixed + mixed.T) / 2, atol=1e-6)


def test_hybrid_takes_any_graph_and_scale(with_factors: ad.AnnData) -> None:
    adata = with_factors
    adata.obsp["mine"] = sp.csc_matrix(adata.obsp["contact_connectivities"] + sp.eye(adata.n_obs))
    A, _ = sn.gr.hybrid_neighbors(adata, 0.5, connectivity_key="mine", scale="gram", copy=True)
    B, _ = sn.gr.hybrid_neighbors(adata, 0.5, scale="gram", copy=True)
    assert abs(A - B).max() < 1e-6  # a self-loop is not an edge
    C, _ = sn.gr.hybrid_neighbors(adata, 0.5, scale=None, copy=True)
    assert abs(A - C).max() > 0.01
    assert (A != A.T).nnz == 0
    assert adata.obsp["mine"].diagonal().all()  # the stored graph is as it was


def test_exact_neighbours_equal_brute_force() -> None:
    from scipy.spatial.distance import cdist

    from spanmf.core._knn import nearest

    rng = np.random.default_rng(0)
    Z = rng.random((500, 6)).astype(np.float32)
    Z[:20] = Z[20:40]  # coincident pairs
    Z[100:130] = Z[100]  # more coincident points than neighbours
    indices, distances = nearest(Z, 15)
    expected = np.sort(cdist(Z, Z), axis=1)[:, :15]
    np.testing.assert_allclose(distances, expected, atol=1e-6)
    np.testing.assert_array_equal(indices[:, 0], np.arange(500))
    np.testing.assert_allclose(np.linalg.norm(Z[indices] - Z[:, None], axis=2), expected, atol=1e-6)
    assert all(len(set(row)) == 15 for row in indices.tolist())


def test_a_given_feature_graph_is_copied_and_recorded_as_such(with_factors: ad.AnnData) -> None:
    adata = with_factors
    sc.pp.neighbors(adata, 10, use_rep="X_snmf")
    sn.gr.hybrid_neighbors(adata, 0.3, feature_key="connectivities")
    assert adata.obsp["hybrid_distances"] is not adata.obsp["distances"]
    assert abs(adata.obsp["hybrid_distances"] - adata.obsp["distances"]).max() == 0
    params = adata.uns["hybrid_neighbors"]["params"]
    assert params["feature_key"] == "connectivities"
    assert not {"n_neighbors", "scale", "use_rep"} & set(params)
    adata.obsp["bare"] = adata.obsp["connectivities"]
    A, D = sn.gr.hybrid_neighbors(adata, 0.3, feature_key="bare", copy=True)
    np.testing.assert_allclose(D.data, 1 - A.data)


def test_summary_of_a_directed_graph_counts_each_pair_once() -> None:
    adata = _table(np.array([[0.0, 0], [1, 0], [2, 0], [9, 9]]))
    adata.obsp["directed"] = sp.csr_matrix(np.diag([1.0, 1, 0], 1))
    summary = sn.gr.graph_summary(adata, "directed").loc["all"]
    assert (summary["n_edges"], summary["n_isolated"]) == (2, 1)


def test_a_stored_zero_is_no_edge(with_factors: ad.AnnData) -> None:
    adata = with_factors
    A = adata.obsp["contact_connectivities"]
    before = sn.gr.graph_summary(adata).loc["all", "n_edges"]
    A.data[A.data < 2] = 0
    near = sn.gr.graph_summary(adata).loc["all", "n_edges"]
    assert 0 < near < before
    A.data[:] = 0
    with pytest.raises(ValueError, match="no edges"):
        sn.tl.snmf(adata, 4)
