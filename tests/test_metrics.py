"""Metrics against slow references written here, and against scikit-learn and scanpy where they have them."""

from __future__ import annotations

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from sklearn.metrics import davies_bouldin_score, r2_score, silhouette_score
from support import small_tissue, snapshot, with_slots

import spanmf as sn
from spanmf._checks import SpanmfWarning


@pytest.fixture
def adata() -> ad.AnnData:
    return with_slots(small_tissue(300))


def missing(labels: pd.Series, every: int = 5) -> pd.Series:
    labels = labels.astype(object).copy()
    labels.iloc[::every] = np.nan
    return labels


# --- CHAOS ----------------------------------------------------------------------------------------------------------


def slow_nearest(coords: np.ndarray, labels: np.ndarray, libraries: np.ndarray) -> np.ndarray:
    """Distance of each cell to the nearest of its label and library, NaN where there is none."""
    xy, found = np.zeros(coords.shape), np.full(len(coords), np.nan)
    for lib in np.unique(libraries):
        here = libraries == lib
        xy[here] = (coords[here] - coords[here].mean(0)) / coords[here].std(0)
    for i in range(len(xy)):
        mates = (labels == labels[i]) & (libraries == libraries[i])
        mates[i] = False
        if mates.any():
            found[i] = min(np.linalg.norm(xy[i] - xy[j]) for j in np.flatnonzero(mates))
    return found


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("library_key", [None, "sample"])
def test_chaos_equals_slow_reference(dim: int, library_key: str | None) -> None:
    adata = small_tissue(200, dim=dim)
    coords = adata.obsm["spatial"]
    coords[3] = coords[4]  # coincident
    labels = adata.obs["domain"].astype(str).to_numpy()
    labels[10] = "alone"
    adata.obs["label"] = labels
    libraries = adata.obs["sample"].astype(str).to_numpy() if library_key else np.zeros(200)
    slow, floor = slow_nearest(coords, labels, libraries), slow_nearest(coords, np.zeros(200), libraries)
    together = ~np.isnan(slow)
    assert together.sum() == 199
    expected = {False: slow[together].mean(), True: slow[together].mean() / floor[together].mean()}
    for normalized, value in expected.items():
        for data, own, where in ((adata, "label", library_key), (coords, labels, libraries if library_key else None)):
            ours = sn.metrics.chaos(data, own, library_key=where, normalized=normalized)
            assert ours == pytest.approx(value, rel=1e-12)


def test_chaos_of_uniform_points_is_what_theory_says() -> None:
    xy = np.random.default_rng(0).random((20_000, 2))
    assert sn.metrics.chaos(xy, np.zeros(20_000)) == pytest.approx(0.5 * np.sqrt(12 / 20_000), rel=0.02)
    assert sn.metrics.chaos(xy, np.zeros(20_000), normalized=True) == 1


def test_normalised_chaos_cancels_n_and_unit() -> None:
    rng = np.random.default_rng(1)
    values = []
    for n in (1_000, 16_000):
        xy = rng.random((n, 2)) * [3, 700]
        values.append([sn.metrics.chaos(xy, rng.integers(0, 4, n), normalized=flag) for flag in (False, True)])
    (plain, normalised), (plain_16, normalised_16) = values
    assert plain / plain_16 == pytest.approx(4, rel=0.1)
    assert normalised == pytest.approx(2, rel=0.1)  # a quarter of the cells: twice as far
    assert normalised_16 == pytest.approx(2, rel=0.05)


def test_chaos_does_not_look_across_libraries() -> None:
    xy = np.array([[0.0, 0], [9, 9], [4, 3], [0, 0], [9, 9], [4, 5]])
    labels, libraries = list("abcabc"), [0, 0, 0, 1, 1, 1]
    assert sn.metrics.chaos(xy, labels) < 0.3
    with pytest.warns(SpanmfWarning, match="no two observations of a library share a label"):
        assert np.isnan(sn.metrics.chaos(xy, labels, library_key=libraries))


def test_normalised_chaos_without_a_floor_is_nan() -> None:
    xy = np.repeat([[0.0, 0], [1, 1]], 2, axis=0)
    with pytest.warns(SpanmfWarning, match="same place"):
        assert np.isnan(sn.metrics.chaos(xy, [0, 1, 1, 0], normalized=True))


# --- edge agreement -------------------------------------------------------------------------------------------------


def test_edge_agreement_against_permutations(adata: ad.AnnData) -> None:
    A = adata.obsp["contact_connectivities"].toarray().astype(float)
    labels = adata.obs["domain"].to_numpy()
    rng = np.random.default_rng(0)
    result = sn.metrics.edge_agreement(adata, "domain")
    shares = []
    for _ in range(500):
        shuffled = rng.permutation(labels.astype(int))
        shares.append((A * (shuffled[:, None] == shuffled)).sum() / A.sum())
    assert result.observed == pytest.approx((A * (labels[:, None] == labels)).sum() / A.sum())
    assert result.expected == pytest.approx(np.mean(shares), abs=4 * result.sd / np.sqrt(500))
    assert result.sd == pytest.approx(np.std(shares), rel=0.15)
    assert result.z == pytest.approx((result.observed - result.expected) / result.sd)
    assert result.z > 50


@pytest.mark.parametrize(
    "container", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.coo_matrix, sp.csr_matrix.toarray]
)
def test_edge_agreement_of_any_graph(adata: ad.AnnData, container: type) -> None:
    A = adata.obsp["contact_connectivities"]
    expected = sn.metrics.edge_agreement(adata, "domain", connectivity_key="contact")
    assert sn.metrics.edge_agreement(container(A), adata.obs["domain"]) == pytest.approx(expected)
    looped = sp.csr_matrix(A + sp.eye(adata.n_obs, dtype=np.float32))
    assert sn.metrics.edge_agreement(looped, adata.obs["domain"]) == pytest.approx(expected)


def test_edge_agreement_that_cannot_vary_has_no_z(adata: ad.AnnData) -> None:
    with pytest.warns(SpanmfWarning, match="random labels would always agree"):
        result = sn.metrics.edge_agreement(adata, np.zeros(adata.n_obs))
    assert result[:3] == (1, 1, 0)
    assert np.isnan(result.z)


def test_edge_agreement_without_edges_is_nan(adata: ad.AnnData) -> None:
    n = adata.n_obs
    with pytest.warns(SpanmfWarning, match="no edge between two labelled"):
        assert np.isnan(sn.metrics.edge_agreement(sp.csr_matrix((n, n)), adata.obs["domain"])).all()


# --- Moran's I ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["nmf", "X_nmf"])
def test_morans_i_equals_scanpy(adata: ad.AnnData, key: str) -> None:
    table = sn.metrics.morans_i(adata, key)
    graph = adata.obsp["contact_connectivities"]
    np.testing.assert_allclose(table["I"], sc.metrics.morans_i(graph, adata.obsm["X_nmf"].T), rtol=1e-5)
    assert list(table.index) == [0, 1, 2, 3]
    assert table.index.name == "factor"
    pd.testing.assert_frame_equal(table, sn.metrics.morans_i(graph, adata.obsm["X_nmf"]))


def test_morans_i_p_values(adata: ad.AnnData) -> None:
    graph, rng = adata.obsp["contact_connectivities"], np.random.default_rng(0)
    noise = pd.DataFrame(rng.gamma(0.5, size=(adata.n_obs, 2000))).add_prefix("noise")
    table = sn.metrics.morans_i(graph, noise)
    assert list(table.index) == list(noise.columns)
    assert table["z"].mean() == pytest.approx(0, abs=0.1)
    assert table["z"].std() == pytest.approx(1, abs=0.06)
    assert (table["pval"] < 0.05).mean() == pytest.approx(0.05, abs=0.025)
    m = len(table)
    slow = [
        min(1, min(m * q / sum(table["pval"] <= q) for q in table["pval"] if q >= p)) for p in table["pval"].iloc[:5]
    ]
    np.testing.assert_allclose(table["pval_adj"].iloc[:5], slow, rtol=1e-9)
    structured = sn.metrics.morans_i(graph, adata.obsm["W"])
    assert (structured["pval_adj"] < 1e-10).all()


def test_morans_i_of_a_vector_and_both_assumptions(adata: ad.AnnData) -> None:
    graph, v = adata.obsp["contact_connectivities"], adata.obsm["W"][:, 0]
    permuted = sn.metrics.morans_i(graph, v)
    normal = sn.metrics.morans_i(graph, v, assumption="normality")
    assert permuted.shape == (1, 6)
    assert permuted["I"].item() == normal["I"].item()
    assert permuted["sd"].item() == pytest.approx(normal["sd"].item(), rel=0.05)
    assert permuted["sd"].item() != normal["sd"].item()
    with pytest.raises(ValueError, match="`assumption` must be one of"):
        sn.metrics.morans_i(graph, v, assumption="permutation")


def test_morans_i_nan_has_a_reason(adata: ad.AnnData) -> None:
    graph, V = adata.obsp["contact_connectivities"], adata.obsm["X_nmf"].copy()
    V[:, 2] = np.float32(0.1)
    with pytest.warns(SpanmfWarning, match=r"constant factors \(column 2\)"):
        table = sn.metrics.morans_i(graph, V)
    assert table[["I", "sd", "z", "pval", "pval_adj"]].isna().sum(axis=1).tolist() == [0, 0, 5, 0]
    with pytest.warns(SpanmfWarning, match="no edges"):
        assert sn.metrics.morans_i(sp.csr_matrix(graph.shape), V)["I"].isna().all()
    with pytest.warns(SpanmfWarning, match="3 observations are too few"):
        few = sn.metrics.morans_i(np.ones((3, 3)), [1.0, 2, 4])
    assert few["I"].item() == pytest.approx(few["expected"].item())
    assert few["z"].isna().all()


@pytest.mark.parametrize("recorded", ["contact", "contact_connectivities"])
def test_morans_i_warns_on_the_graph_that_smoothed(adata: ad.AnnData, recorded: str) -> None:
    adata.uns["snmf"] = {"params": {"smoothing": "refit", "connectivity_key": recorded}}
    adata.obsp["other_connectivities"] = adata.obsp["contact_connectivities"]
    for key in ("snmf", "X_snmf"):
        with pytest.warns(SpanmfWarning, match="high by construction"):
            sn.metrics.morans_i(adata, key)
    sn.metrics.morans_i(adata, "snmf", connectivity_key="other")  # an error if it warns
    sn.metrics.morans_i(adata, "nmf")
    adata.uns["snmf"]["params"]["smooth"] = False
    sn.metrics.morans_i(adata, "snmf")
    adata.uns["snmf"] = {"params": {"n_neighbors": 15}, "connectivities_key": "x"}  # sc.pp.neighbors(key_added="snmf")
    sn.metrics.morans_i(adata, "snmf")


# --- silhouette and Davies–Bouldin ----------------------------------------------------------------------------------


def root_of_gram(H: np.ndarray) -> np.ndarray:
    """(HHᵀ)^½ by singular values, where the package takes eigenvectors."""
    left, values, _ = np.linalg.svd(H.astype(float), full_matrices=False)
    return left @ np.diag(values) @ left.T


@pytest.mark.parametrize("scale", ["gram", "norm", None])
def test_separation_equals_sklearn_on_rescaled_factors(adata: ad.AnnData, scale: str | None) -> None:
    W, H = adata.obsm["X_nmf"].astype(float), adata.varm["nmf_loadings"].T.astype(float)
    H = H * np.array([[1], [30], [2], [0.1]])
    adata.varm["nmf_loadings"] = H.T.astype(np.float32)
    Z = {"gram": W @ root_of_gram(H), "norm": W * np.linalg.norm(H, axis=1), None: W}[scale]
    codes = adata.obs["domain"]
    ours = sn.metrics.silhouette(adata, "domain", use_rep="nmf", scale=scale)
    assert ours == pytest.approx(silhouette_score(Z, codes), abs=1e-5)
    ours = sn.metrics.davies_bouldin(adata, "domain", use_rep="X_nmf", scale=scale)
    assert ours == pytest.approx(davies_bouldin_score(Z, codes), rel=1e-4)


def test_separation_finds_the_factors_of_the_labels(adata: ad.AnnData) -> None:
    adata.obs["nmf"] = adata.obs["domain"]
    for metric in (sn.metrics.silhouette, sn.metrics.davies_bouldin):
        assert metric(adata, "nmf") == metric(adata, "domain", use_rep="nmf")
        with pytest.raises(KeyError, match=r"use_rep=.*X_nmf"):
            metric(adata, "domain")


def test_separation_of_other_representations_and_arrays_is_unscaled(adata: ad.AnnData) -> None:
    labels = adata.obs["domain"]
    adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(adata.n_obs, 3)).astype(np.float32)
    for metric, peer in (
        (sn.metrics.silhouette, silhouette_score),
        (sn.metrics.davies_bouldin, davies_bouldin_score),
    ):
        expected = pytest.approx(peer(adata.obsm["X_pca"], labels), rel=1e-5)
        assert metric(adata, "domain", use_rep="X_pca") == expected
        assert metric(adata.obsm["X_pca"], labels) == expected


def slow_silhouette(Z: np.ndarray, labels: np.ndarray) -> float:
    widths = []
    for i in range(len(Z)):
        distance = {
            c: [np.linalg.norm(Z[i] - Z[j]) for j in range(len(Z)) if j != i and labels[j] == c] for c in set(labels)
        }
        own = distance.pop(labels[i])
        a, b = (np.mean(own) if own else np.nan), min(np.mean(d) for d in distance.values())
        widths.append((b - a) / max(a, b) if own else 0.0)
    return float(np.mean(widths))


def test_separation_equals_slow_reference() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2, 3], [20, 15, 10, 1])
    Z = rng.normal(size=(46, 3)) + labels[:, None]
    assert sn.metrics.silhouette(Z, labels) == pytest.approx(slow_silhouette(Z, labels), rel=1e-9)
    centre = [Z[labels == c].mean(0) for c in range(4)]
    spread = [np.mean([np.linalg.norm(z - centre[c]) for z in Z[labels == c]]) for c in range(4)]
    worst = [
        max((spread[a] + spread[b]) / np.linalg.norm(centre[a] - centre[b]) for b in range(4) if b != a)
        for a in range(4)
    ]
    assert sn.metrics.davies_bouldin(Z, labels) == pytest.approx(np.mean(worst), rel=1e-9)


def test_silhouette_of_a_sample() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice(5, size=6000, p=[0.6, 0.3, 0.09, 0.0098, 0.0002])
    labels[:3] = 4
    Z = rng.normal(size=(6000, 4)) + labels[:, None]
    whole = sn.metrics.silhouette(Z, labels, sample_size=None)
    sampled = [sn.metrics.silhouette(Z, labels, sample_size=1500, rng=seed) for seed in range(8)]
    assert len(set(sampled)) == 8
    assert sampled[0] == sn.metrics.silhouette(Z, labels, sample_size=1500, random_state=0)
    np.testing.assert_allclose(sampled, whole, atol=0.03)
    assert np.mean(sampled) == pytest.approx(whole, abs=0.01)
    with pytest.raises(ValueError, match="`sample_size` must be at least 3"):
        sn.metrics.silhouette(Z, labels, sample_size=2)


def test_stratified_sample_keeps_every_cluster() -> None:
    from spanmf.metrics._separation import stratified

    codes = np.repeat([0, 1, 2, 3], [9000, 990, 9, 1])
    rows = stratified(np.random.default_rng(0).permutation(codes), 1000, np.random.default_rng(1))
    assert len(rows) == len(set(rows))
    rows = stratified(codes, 1000, np.random.default_rng(1))
    assert np.bincount(codes[rows]).tolist() == [900, 99, 2, 1]
    assert not np.array_equal(rows, stratified(codes, 1000, np.random.default_rng(2)))


def test_separation_of_a_constant_is_nan(adata: ad.AnnData) -> None:
    for metric in (sn.metrics.silhouette, sn.metrics.davies_bouldin):
        with pytest.warns(SpanmfWarning, match="all rows of the representation are equal"):
            assert np.isnan(metric(np.ones((adata.n_obs, 3)), adata.obs["domain"]))


@pytest.mark.parametrize("metric", [sn.metrics.silhouette, sn.metrics.davies_bouldin])
def test_separation_needs_clusters(metric: object, adata: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="1 cluster of 300"):
        metric(adata.obsm["X_nmf"], np.zeros(300))
    with pytest.raises(ValueError, match="300 clusters of 300"):
        metric(adata.obsm["X_nmf"], np.arange(300))
    with pytest.raises(ValueError, match="`scale` must be one of"):
        metric(adata, "domain", use_rep="nmf", scale="l2")


# --- reconstruction -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array])
def test_reconstruction_equals_dense(adata: ad.AnnData, container: type) -> None:
    loadings = adata.varm["nmf_loadings"].copy()
    loadings[::4] = 0  # masked out of the fit
    adata.varm["nmf_loadings"] = loadings
    dense = adata.X.toarray().astype(float)
    adata.X = container(adata.X.toarray())
    used = np.arange(adata.n_vars) % 4 != 0
    WH = adata.obsm["X_nmf"].astype(float) @ loadings.T.astype(float)
    mse = ((dense - WH)[:, used] ** 2).mean()
    r2 = r2_score(dense[:, used], WH[:, used], multioutput="variance_weighted")
    assert sn.metrics.reconstruction_error(adata, "nmf") == pytest.approx(mse, rel=1e-6)
    assert sn.metrics.explained_variance(adata, "nmf") == pytest.approx(r2, rel=1e-6)
    pair = (adata.obsm["X_nmf"], loadings.T)
    assert sn.metrics.reconstruction_error(adata.X, pair) == sn.metrics.reconstruction_error(adata, "nmf")
    assert sn.metrics.explained_variance(adata, pair) == sn.metrics.explained_variance(adata, "nmf")


def test_reconstruction_of_a_layer_and_of_a_backed_table(adata: ad.AnnData, tmp_path: object) -> None:
    expected = sn.metrics.reconstruction_error(adata, "nmf")
    adata.layers["lognorm"] = adata.X.copy()
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert sn.metrics.reconstruction_error(backed, "nmf") == expected
    backed.file.close()
    adata.X = adata.layers["counts"]
    assert sn.metrics.reconstruction_error(adata, "nmf", layer="lognorm") == expected
    assert sn.metrics.reconstruction_error(adata, "nmf") != expected


def test_planted_factors_explain_and_means_do_not(adata: ad.AnnData) -> None:
    W, H = adata.obsm["W"], adata.varm["H"].T
    assert sn.metrics.explained_variance(W @ H, (W, H)) == pytest.approx(1)
    means = np.asarray(adata.X.mean(0)).reshape(1, -1)
    assert sn.metrics.explained_variance(adata.X, (np.ones((300, 1)), means)) == pytest.approx(0, abs=1e-6)
    assert sn.metrics.explained_variance(adata.X, (np.ones((300, 1)), 3 * means)) < 0


def test_variance_of_constants_cannot_be_explained() -> None:
    with pytest.warns(SpanmfWarning, match="every variable is constant"):
        assert np.isnan(sn.metrics.explained_variance(np.full((5, 3), 2.0), (np.ones((5, 1)), np.ones((1, 3)))))


def test_reconstruction_refuses_what_does_not_fit(adata: ad.AnnData) -> None:
    W, H = adata.obsm["X_nmf"], adata.varm["nmf_loadings"].T
    with pytest.raises(ValueError, match="does not have the shape"):
        sn.metrics.reconstruction_error(adata.X[:10], (W, H))
    with pytest.raises(ValueError, match="All loadings are zero"):
        sn.metrics.reconstruction_error(adata, (W, 0 * H))
    with pytest.raises(ValueError, match="negative"):
        sn.metrics.reconstruction_error(adata.X - 1.0 * sp.csr_matrix(np.ones(adata.shape)), (W, H))
    with pytest.raises(KeyError, match="X_none"):
        sn.metrics.reconstruction_error(adata, "none")
    with pytest.raises(KeyError, match="lognorm"):
        sn.metrics.explained_variance(adata, "nmf", layer="lognorm")


# --- what all of them share -----------------------------------------------------------------------------------------

OF_LABELS = {
    "chaos": (lambda a, **kw: sn.metrics.chaos(a, kw.get("labels", "domain")), lambda a: a.obsm["spatial"]),
    "edge_agreement": (
        lambda a, **kw: sn.metrics.edge_agreement(a, kw.get("labels", "domain")),
        lambda a: a.obsp["contact_connectivities"],
    ),
    "silhouette": (
        lambda a, **kw: sn.metrics.silhouette(a, kw.get("labels", "domain"), use_rep="nmf", scale=None),
        lambda a: a.obsm["X_nmf"],
    ),
    "davies_bouldin": (
        lambda a, **kw: sn.metrics.davies_bouldin(a, kw.get("labels", "domain"), use_rep="nmf", scale=None),
        lambda a: a.obsm["X_nmf"],
    ),
}


@pytest.mark.parametrize("name", OF_LABELS)
def test_unlabelled_observations_are_as_if_not_there(adata: ad.AnnData, name: str) -> None:
    metric, array = OF_LABELS[name]
    labels = missing(adata.obs["domain"])
    known = labels.notna().to_numpy()
    adata.obs["partly"] = pd.Categorical(labels, categories=["unused", *adata.obs["domain"].cat.categories])
    without = metric(adata[known].copy())
    assert np.all(np.isfinite(without))
    assert metric(adata, labels="partly") == pytest.approx(without, rel=1e-6)
    for given in (labels, list(labels), adata.obs["partly"].array):
        assert getattr(sn.metrics, name)(array(adata), given) == pytest.approx(without, rel=1e-6)


@pytest.mark.parametrize("name", OF_LABELS)
def test_labels_may_have_any_names(adata: ad.AnnData, name: str) -> None:
    _, array = OF_LABELS[name]
    metric, domain = getattr(sn.metrics, name), adata.obs["domain"].astype(int).to_numpy()
    expected = metric(array(adata), domain)
    for renamed in (domain * 7 - 3, domain + 0.5, np.array(["d", "a", "z", "b"])[domain]):
        assert metric(array(adata), renamed) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", OF_LABELS)
def test_bad_labels(adata: ad.AnnData, name: str) -> None:
    metric, array = OF_LABELS[name]
    with pytest.raises(KeyError, match=r"'nothing' is not in `adata.obs`.*domain"):
        metric(adata, labels="nothing")
    with pytest.raises(ValueError, match=r"`labels` has 299 entries, but there are 300 observations"):
        metric(adata, labels=np.zeros(299))
    with pytest.raises(ValueError, match="No observation has a label"):
        metric(adata, labels=np.full(300, np.nan))
    with pytest.raises(TypeError, match="needs an AnnData"):
        getattr(sn.metrics, name)(array(adata), "domain")


@pytest.mark.parametrize("name", OF_LABELS)
def test_views_are_taken(adata: ad.AnnData, name: str) -> None:
    metric, _ = OF_LABELS[name]
    view = adata[::2, ::2]
    assert view.is_view
    assert metric(view) == metric(view.copy())
    assert view.is_view
    assert sn.metrics.reconstruction_error(view, "nmf") == sn.metrics.reconstruction_error(view.copy(), "nmf")
    pd.testing.assert_frame_equal(sn.metrics.morans_i(view, "nmf"), sn.metrics.morans_i(view.copy(), "nmf"))


def test_nothing_is_written(adata: ad.AnnData) -> None:
    before = snapshot(adata)
    for metric, _ in OF_LABELS.values():
        metric(adata)
    sn.metrics.morans_i(adata, "nmf")
    sn.metrics.explained_variance(adata, "nmf")
    assert snapshot(adata) == before


def test_bad_graphs(adata: ad.AnnData) -> None:
    for metric in (
        lambda A: sn.metrics.morans_i(A, adata.obsm["X_nmf"]),
        lambda A: sn.metrics.edge_agreement(A, ["a"]),
    ):
        with pytest.raises(ValueError, match="belongs to another table"):
            metric(sp.csr_matrix((300, 299)))
        with pytest.raises(ValueError, match="non-negative weights"):
            metric(-np.eye(300))
        with pytest.raises(ValueError, match="299 observations"):
            metric(sp.csr_matrix((299, 299)))
    del adata.obsp["contact_connectivities"]
    for metric in (
        lambda: sn.metrics.morans_i(adata, "nmf"),
        lambda: sn.metrics.edge_agreement(adata, "domain"),
    ):
        with pytest.raises(KeyError, match=r"contact_neighbors\(adata\).*sq.gr.spatial_neighbors"):
            metric()


def test_bad_values_and_coordinates(adata: ad.AnnData) -> None:
    graph, V = adata.obsp["contact_connectivities"], adata.obsm["X_nmf"].copy()
    with pytest.raises(TypeError, match="needs an AnnData"):
        sn.metrics.morans_i(graph, "nmf")
    V[5, 1] = np.nan
    with pytest.raises(ValueError, match="1 NaN or infinite"):
        sn.metrics.morans_i(graph, V)
    with pytest.raises(ValueError, match="1 of 300 observations have NaN"):
        sn.metrics.chaos(V[:, :2], np.zeros(300))
    with pytest.raises(ValueError, match="2 or 3 columns"):
        sn.metrics.chaos(V, np.zeros(300))
    with pytest.raises(KeyError, match=r"'where' is not in `adata\.obsm`"):
        sn.metrics.chaos(adata, "domain", spatial_key="where")
    with pytest.raises(TypeError, match="needs an AnnData"):
        sn.metrics.chaos(adata.obsm["spatial"], adata.obs["domain"], library_key="sample")
    with pytest.raises(ValueError, match="`library_key` is missing"):
        sn.metrics.chaos(adata.obsm["spatial"], adata.obs["domain"], library_key=missing(adata.obs["sample"]))


def test_spatialdata_like_object_is_taken(adata: ad.AnnData) -> None:
    bundle = SimpleNamespace(tables={"table": adata})
    adata.obs["nmf"] = adata.obs["domain"]
    for name in OF_LABELS:
        assert getattr(sn.metrics, name)(bundle, "nmf") == getattr(sn.metrics, name)(adata, "nmf", table_key=None)
    assert sn.metrics.explained_variance(bundle, "nmf") == sn.metrics.explained_variance(adata, "nmf")
    with pytest.raises(KeyError, match="tables"):
        sn.metrics.morans_i(bundle, "nmf", table_key="other")
