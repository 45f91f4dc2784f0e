"""Tools on tables: what is computed, written and recorded."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score
from support import small_tissue

import spanmf as sn
from spanmf._checks import ConvergenceWarning, SpanmfWarning


@pytest.fixture
def tissue() -> ad.AnnData:
    adata = small_tissue(600)
    sn.gr.contact_neighbors(adata, 20, 80)
    return adata


def _argmax(adata: ad.AnnData, key: str) -> np.ndarray:
    return (adata.obsm[f"X_{key}"] * np.linalg.norm(adata.varm[f"{key}_loadings"], axis=0)).argmax(1).astype(str)


@pytest.mark.parametrize("tool", [sn.tl.nmf, sn.tl.snmf])
def test_labels_are_the_dominant_components_and_components_are_ordered(tissue: ad.AnnData, tool: object) -> None:
    tool(tissue, 5)
    key = tool.__name__
    assert (tissue.obs[key].astype(str) == _argmax(tissue, key)).all()
    assert tissue.obsm[f"X_{key}"].dtype == np.float32
    if key == "nmf":
        share = tissue.obsm["X_nmf"].sum(0) * np.linalg.norm(tissue.varm["nmf_loadings"], axis=0)
        assert (np.diff(share) <= 0).all()


def test_planted_factors_come_back(tissue: ad.AnnData) -> None:
    sn.tl.nmf(tissue, 4, layer="counts", loss="kl")
    found, planted = tissue.varm["nmf_loadings"], tissue.varm["H"]
    cosine = (found / np.linalg.norm(found, axis=0)).T @ (planted / np.linalg.norm(planted, axis=0))
    assert cosine.max(0).min() > 0.95


def test_trace_falls_and_provenance_is_complete(tissue: ad.AnnData) -> None:
    sn.tl.snmf(tissue, 4, rng=7)
    record = tissue.uns["snmf"]
    assert (np.diff(record["trace"]) <= 0).all()
    assert record["n_iter"] == len(record["trace"]) - 1
    assert record["params"]["smoothing"] == "refit"
    assert record["params"]["connectivity_key"] == "contact_connectivities"
    assert record["params"]["rng"] == 7
    assert record["versions"]["numpy"] == np.__version__


def test_masked_variables_have_zero_loadings_and_do_not_matter(tissue: ad.AnnData) -> None:
    mask = np.arange(tissue.n_vars) % 2 == 0
    tissue.var["highly_variable"] = mask
    sn.tl.nmf(tissue, 4)
    assert not tissue.varm["nmf_loadings"][~mask].any()
    subset = tissue[:, mask].copy()
    sn.tl.nmf(subset, 4, mask_var=None)
    np.testing.assert_array_equal(subset.obsm["X_nmf"], tissue.obsm["X_nmf"])
    sn.tl.nmf(tissue, 4, mask_var=mask, key_added="given")
    np.testing.assert_array_equal(tissue.obsm["X_given"], tissue.obsm["X_nmf"])
    sn.tl.nmf(tissue, 4, mask_var=None, key_added="all")
    assert tissue.varm["all_loadings"][~mask].any()


def test_normalize_is_scanpys_two_calls(tissue: ad.AnnData) -> None:
    sn.tl.nmf(tissue, 4, layer="counts", normalize=True, key_added="a")
    by_hand = tissue.copy()
    by_hand.X = tissue.layers["counts"].copy()
    sc.pp.normalize_total(by_hand)
    sc.pp.log1p(by_hand)
    sn.tl.nmf(by_hand, 4, key_added="a")
    np.testing.assert_array_equal(tissue.obsm["X_a"], by_hand.obsm["X_a"])
    np.testing.assert_array_equal(tissue.layers["counts"].data, np.round(tissue.layers["counts"].data))


def test_raw_counts_are_warned_of_with_the_two_calls(tissue: ad.AnnData) -> None:
    with pytest.warns(SpanmfWarning, match=r"sc\.pp\.normalize_total\(adata\).*sc\.pp\.log1p\(adata\)"):
        sn.tl.nmf(tissue, 4, layer="counts")


def test_stopping_early_is_warned_of(tissue: ad.AnnData) -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        sn.tl.nmf(tissue, 4, init="random", max_iter=2, tol=0)
    assert not tissue.uns["nmf"]["converged"]


def test_seed_and_its_alias(tissue: ad.AnnData) -> None:
    runs = [
        sn.tl.nmf(tissue, 6, init="random", copy=True, **kw).obsm["X_nmf"]
        for kw in ({"rng": 3}, {"random_state": 3}, {"rng": np.random.default_rng(3)}, {"rng": 4})
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])
    assert np.abs(runs[0] - runs[3]).max() > 1e-3


def test_given_start(tissue: ad.AnnData) -> None:
    sn.tl.nmf(tissue, 4, max_iter=2000, tol=1e-8)
    W, H = tissue.obsm["X_nmf"], tissue.varm["nmf_loadings"].T
    sn.tl.nmf(tissue, 4, init=(W, H), key_added="again")
    assert tissue.uns["again"]["trace"][0] <= tissue.uns["nmf"]["trace"][-1] * (1 + 1e-5)
    with pytest.raises(ValueError, match="shape"):
        sn.tl.nmf(tissue, 4, init=H[:3])
    with pytest.raises(ValueError, match="negative"):
        sn.tl.nmf(tissue, 4, init=-H)


def test_l1_makes_factors_sparse(tissue: ad.AnnData) -> None:
    sn.tl.nmf(tissue, 4)
    sn.tl.nmf(tissue, 4, alpha_W=0.02, l1_ratio=1.0, key_added="sparse")
    assert (tissue.obsm["X_sparse"] == 0).mean() > (tissue.obsm["X_nmf"] == 0).mean() + 0.05


def test_refit_fits_better_than_diffuse_and_laplacian_is_smooth(tissue: ad.AnnData) -> None:
    error, rough = {}, {}
    A = tissue.obsp["contact_connectivities"]
    L = sp.diags_array(np.asarray(A.sum(1)).ravel()) - A
    sn.tl.nmf(tissue, 4)
    for kind in ("diffuse", "refit", "laplacian"):
        sn.tl.snmf(tissue, 4, smoothing=kind, key_added=kind)
    for key in ("nmf", "diffuse", "refit", "laplacian"):
        error[key] = sn.metrics.reconstruction_error(tissue, key)
        W = tissue.obsm[f"X_{key}"]
        rough[key] = float((W * (L @ W)).sum() / (W**2).sum())
    assert error["nmf"] < error["refit"] < error["diffuse"]
    assert max(rough["diffuse"], rough["refit"], rough["laplacian"]) < rough["nmf"]


def test_what_has_no_meaning_together_is_refused(tissue: ad.AnnData) -> None:
    for options in ({"loss": "kl"}, {"alpha_W": 0.1}, {"alpha_H": 0.1}):
        with pytest.raises(ValueError, match="laplacian"):
            sn.tl.snmf(tissue, 4, smoothing="laplacian", layer="counts", **options)
    with pytest.raises(ValueError, match="l1_ratio=1"):
        sn.tl.nmf(tissue, 4, loss="kl", layer="counts", alpha_W=0.1)
    with pytest.raises(ValueError, match="n_domains"):
        sn.tl.hsnmf(tissue, 4, clustering="potts")


@pytest.mark.parametrize("clustering", ["auto", "potts", "kmeans", "leiden"])
def test_wanted_number_of_domains(tissue: ad.AnnData, clustering: str) -> None:
    sn.tl.hsnmf(tissue, 4, n_domains=4, clustering=clustering)
    assert tissue.obs["hsnmf"].cat.categories.tolist() == ["0", "1", "2", "3"]
    assert (np.diff(tissue.obs["hsnmf"].value_counts(sort=False)) <= 0).all()
    assert adjusted_rand_score(tissue.obs["domain"], tissue.obs["hsnmf"]) > 0.7
    assert ("hybrid_connectivities" in tissue.obsp) == (clustering == "leiden")
    if clustering == "leiden":
        assert tissue.uns["hsnmf"]["resolution"] > 0


@pytest.mark.parametrize("flavor", ["networkit", "igraph", "leidenalg"])
def test_leiden_flavours_find_the_domains_and_repeat(tissue: ad.AnnData, flavor: str) -> None:
    sn.tl.hsnmf(tissue, 4, resolution=0.4, flavor=flavor)
    first = tissue.obs["hsnmf"].copy()
    sn.tl.hsnmf(tissue, 4, resolution=0.4, flavor=flavor)
    assert (first == tissue.obs["hsnmf"]).all()
    assert adjusted_rand_score(tissue.obs["domain"], first) > 0.5


def test_networkit_keeps_the_users_threads_stream_and_plots(tissue: ad.AnnData) -> None:
    import matplotlib as mpl
    import networkit as nk

    settings = dict(mpl.rcParams)
    graph = nk.Graph(1000)

    def stream() -> list[int]:
        nk.setSeed(5, False)
        sn.tl.hsnmf(tissue, 4)
        return nk.graphtools.randomNodes(graph, 5)

    threads = nk.getMaxNumberOfThreads()
    assert stream() == stream()  # a seeded session stays reproducible across our call
    assert nk.getMaxNumberOfThreads() == threads
    assert dict(mpl.rcParams) == settings


def test_domains_on_any_representation(tissue: ad.AnnData) -> None:
    sc.pp.pca(tissue, n_comps=5)
    sn.tl.hsnmf(tissue, use_rep="X_pca", n_domains=4)
    assert adjusted_rand_score(tissue.obs["domain"], tissue.obs["hsnmf"]) > 0.7
    assert "X_hsnmf" not in tissue.obsm
    assert tissue.uns["hsnmf"]["params"]["use_rep"] == "X_pca"


def test_domains_on_stored_factors_equal_those_of_the_call(tissue: ad.AnnData) -> None:
    sn.tl.nmf(tissue, 4)
    sn.tl.hsnmf(tissue, 4, n_domains=4, smoothing="diffuse")
    direct = tissue.obs["hsnmf"].copy()
    sn.tl.hsnmf(tissue, use_rep="nmf", n_domains=4)
    assert adjusted_rand_score(direct, tissue.obs["hsnmf"]) > 0.95


def test_smooth_false_leaves_the_factors(tissue: ad.AnnData) -> None:
    sn.tl.nmf(tissue, 4)
    sn.tl.hsnmf(tissue, 4, smooth=False)
    np.testing.assert_allclose(tissue.obsm["X_hsnmf"], tissue.obsm["X_nmf"], rtol=1e-6)
    assert "smoothing" not in tissue.uns["hsnmf"]["params"]


def test_scale_changes_distances_not_factors(tissue: ad.AnnData) -> None:
    runs = [sn.tl.hsnmf(tissue, 6, resolution=1.5, scale=scale, copy=True) for scale in ("gram", "norm", None)]
    for other in runs[1:]:
        np.testing.assert_array_equal(runs[0].obsm["X_hsnmf"], other.obsm["X_hsnmf"])
        assert abs(runs[0].obsp["hybrid_connectivities"] - other.obsp["hybrid_connectivities"]).max() > 1e-3
    assert "hsnmf" not in tissue.obs


def test_isolated_cells_stay_and_are_labelled(tissue: ad.AnnData) -> None:
    coords = tissue.obsm["spatial"].copy()
    coords[0] += 1e5
    tissue.obsm["spatial"] = coords
    sn.gr.contact_neighbors(tissue, 20, 80)
    sn.tl.nmf(tissue, 4)
    sn.tl.snmf(tissue, 4, smoothing="diffuse")
    np.testing.assert_allclose(tissue.obsm["X_snmf"][0], tissue.obsm["X_nmf"][0], rtol=1e-5)
    for options in ({}, {"n_domains": 4}):
        sn.tl.hsnmf(tissue, 4, **options)
        assert tissue.obs["hsnmf"].notna().all()


def test_empty_cells_and_genes_are_allowed_and_reported(tissue: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    X = tissue.X.tolil()
    X[3], X[:, 5] = 0, 0
    tissue.X = sp.csr_matrix(X)
    with caplog.at_level(logging.INFO, "spanmf"):
        sn.tl.nmf(tissue, 4)
    assert "1 observations and 1 variables in use are all zero" in caplog.text
    assert not tissue.obsm["X_nmf"][3].any()
    assert not tissue.varm["nmf_loadings"][5].any()
    assert tissue.obs["nmf"].isna().tolist() == [i == 3 for i in range(600)]


def test_project_gives_the_references_factors(tissue: ad.AnnData) -> None:
    sn.tl.nmf(tissue, 4, max_iter=3000, tol=1e-9)
    new = tissue[:, ::-1].copy()  # other order of genes
    for slot in (new.obsm, new.varm, new.uns):
        slot.clear()
    sn.tl.project(new, tissue)
    np.testing.assert_allclose(new.obsm["X_nmf"], tissue.obsm["X_nmf"], atol=5e-3 * tissue.obsm["X_nmf"].max())
    np.testing.assert_allclose(new.varm["nmf_loadings"], tissue.varm["nmf_loadings"][::-1])
    fewer = tissue[:, 5:].copy()
    with pytest.warns(SpanmfWarning, match="not in the new table"):
        sn.tl.project(fewer, tissue, key_added="p")
    assert fewer.obsm["X_p"].shape == (600, 4)
    fewer.var_names = [f"other{i}" for i in range(fewer.n_vars)]
    with pytest.raises(ValueError, match="share none"):
        sn.tl.project(fewer, tissue)


def test_project_one_cell(tissue: ad.AnnData) -> None:
    sn.tl.nmf(tissue, 4)
    one = tissue[:1].copy()
    sn.tl.project(one, tissue)
    assert one.obsm["X_nmf"].shape == (1, 4)


def test_top_features_by_hand(tissue: ad.AnnData) -> None:
    tissue.varm["hand_loadings"] = np.zeros((tissue.n_vars, 2), np.float32)
    tissue.varm["hand_loadings"][[3, 1, 7], 0] = [6, 3, 1]
    tissue.varm["hand_loadings"][[3], 1] = 2
    tissue.obsm["X_hand"] = np.ones((600, 2), np.float32)
    table = sn.tl.top_features(tissue, "hand", 2)
    assert table["feature"].tolist() == ["gene3", "gene1", "gene3"]
    assert table["factor"].tolist() == [0, 0, 1]
    assert table["rank"].tolist() == [1, 2, 1]
    np.testing.assert_allclose(table["loading"], [0.6, 0.3, 1.0])
    np.testing.assert_allclose(table["specificity"], [0.6 / 1.6, 1, 1 / 1.6])


def test_match_labels_undoes_a_permutation_and_names_the_rest(tissue: ad.AnnData) -> None:
    truth = tissue.obs["domain"].astype(str)
    tissue.obs["shuffled"] = truth.map({"0": "c", "1": "a", "2": "d", "3": "b"}).astype("category")
    out = sn.tl.match_labels(tissue, "shuffled", "domain", copy=True)
    assert (out.obs["shuffled"].astype(str) == truth).all()
    assert tissue.obs["shuffled"].cat.categories.tolist() == ["a", "b", "c", "d"]
    split = truth.where(np.arange(600) % 3 > 0, "x" + truth)
    split[:5] = np.nan
    tissue.obs["split"] = split
    sn.tl.match_labels(tissue, "split", "domain", key_added="matched")
    matched = tissue.obs["matched"]
    assert len(matched.cat.categories) == 8
    assert set(truth) <= set(matched.cat.categories)
    assert matched.isna().sum() == 5
    big = (np.arange(600) % 3 > 0) & matched.notna().to_numpy()
    assert (matched[big].astype(str) == truth[big]).all()


def test_preset_takes_the_published_values_where_nothing_is_given(tissue: ad.AnnData) -> None:
    sn.tl.hsnmf(tissue, 4, preset="paper")
    params = tissue.uns["hsnmf"]["params"]
    expected = {
        "init": "nndsvda", "max_iter": 500, "smoothing": "diffuse", "beta": 0.6, "n_steps": 2, "alpha": 0.5,
        "n_neighbors": 15, "resolution": 0.4, "flavor": "leidenalg", "clustering": "leiden",
    }  # fmt: skip
    assert {k: params[k] for k in expected} == expected
    assert "scale" not in params
    sn.tl.hsnmf(tissue, 4, preset="paper", resolution=0.9, smoothing="laplacian")
    params = tissue.uns["hsnmf"]["params"]
    assert (params["resolution"], params["smoothing"]) == (0.9, "laplacian")
    same = {"smoothing": "refit", "scale": "gram", "alpha": 0.1, "flavor": "networkit", "init": "auto"}
    sn.tl.hsnmf(tissue, 4, preset="paper", **same)  # the defaults, but asked for
    params = tissue.uns["hsnmf"]["params"]
    assert {k: params[k] for k in same} == same
    with pytest.raises(ValueError, match="preset"):
        sn.tl.hsnmf(tissue, 4, preset="published")


def test_domains_on_a_representation_leave_no_factors_of_another_run(tissue: ad.AnnData) -> None:
    sc.pp.pca(tissue, n_comps=5)
    sn.tl.hsnmf(tissue, 4)
    sn.tl.hsnmf(tissue, use_rep="X_pca", n_domains=4)
    assert "X_hsnmf" not in tissue.obsm
    assert "hsnmf_loadings" not in tissue.varm
    sn.tl.hsnmf(tissue, 4)
    W = tissue.obsm["X_hsnmf"].copy()
    sn.tl.hsnmf(tissue, use_rep="X_hsnmf", smooth=False, n_domains=4)  # its own factors, which stay
    np.testing.assert_array_equal(tissue.obsm["X_hsnmf"], W)
    for options in ({"layer": "counts"}, {"normalize": True}, {"loss": "kl"}, {"smoothing": "laplacian"}):
        with pytest.raises(ValueError, match="use_rep"):
            sn.tl.hsnmf(tissue, use_rep="X_pca", **options)


def test_hybrid_graph_is_named_after_its_domains(tissue: ad.AnnData) -> None:
    sn.tl.hsnmf(tissue, 4)
    first = tissue.obsp["hybrid_connectivities"].copy()
    sn.tl.hsnmf(tissue, 4, alpha=0.9, key_added="other")
    assert abs(tissue.obsp["hybrid_connectivities"] - first).max() == 0
    assert "other_hybrid_neighbors" in tissue.uns


def test_laplacian_takes_a_directed_graph_as_undirected(tissue: ad.AnnData) -> None:
    from sklearn.neighbors import kneighbors_graph

    A = kneighbors_graph(tissue.obsm["spatial"], 6)
    tissue.obsp["directed"], tissue.obsp["undirected"] = A, (A + A.T) / 2
    runs = [
        sn.tl.snmf(tissue, 4, smoothing="laplacian", connectivity_key=k, copy=True) for k in ("directed", "undirected")
    ]
    np.testing.assert_array_equal(runs[0].obsm["X_snmf"], runs[1].obsm["X_snmf"])


def test_duplicate_entries_are_summed(tissue: ad.AnnData) -> None:
    split = tissue.copy()
    X = split.X
    split.X = sp.csr_matrix((np.repeat(X.data / 2, 2), np.repeat(X.indices, 2), X.indptr * 2), shape=X.shape)
    sn.tl.nmf(tissue, 4)
    sn.tl.nmf(split, 4)
    np.testing.assert_allclose(split.obsm["X_nmf"], tissue.obsm["X_nmf"], rtol=1e-5, atol=1e-6)
    assert split.X.nnz == 2 * X.nnz  # the table's own matrix is as it was


def test_copy_of_a_backed_table_is_in_memory(tissue: ad.AnnData, tmp_path: object) -> None:
    tissue.write_h5ad(tmp_path / "t.h5ad")
    backed = ad.read_h5ad(tmp_path / "t.h5ad", backed="r")
    out = sn.tl.nmf(backed, 4, copy=True)
    sn.tl.nmf(tissue, 4)
    np.testing.assert_array_equal(out.obsm["X_nmf"], tissue.obsm["X_nmf"])
    assert not out.isbacked
    assert "X_nmf" not in backed.obsm
    backed.file.close()


def test_many_components_and_domains() -> None:
    """Numba takes tuples of at most 100 into a parallel loop."""
    wide = small_tissue(300, n_genes=130)
    sn.gr.contact_neighbors(wide, 20, 80)
    sn.tl.hsnmf(wide, 120, n_domains=110, tol=0.01)
    assert wide.obsm["X_hsnmf"].shape == (300, 120)


def test_cell_types_without_space_need_no_graph() -> None:
    adata = small_tissue(300)
    sn.tl.hsnmf(adata, 4, smooth=False, alpha=0)
    sn.tl.hsnmf(adata, 4, smooth=False, n_domains=4, clustering="kmeans", key_added="k")
    assert adata.obs["k"].nunique() == 4
    with pytest.raises(KeyError, match="spatial graph"):
        sn.tl.hsnmf(adata, 4, smooth=False)


def test_umap_on_the_hybrid_graph_adds_nothing_else(tissue: ad.AnnData) -> None:
    sn.tl.hsnmf(tissue, 4)
    before = set(tissue.obsm)
    sc.tl.umap(tissue, neighbors_key="hybrid_neighbors")
    assert set(tissue.obsm) - before == {"X_umap"}
