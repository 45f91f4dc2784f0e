"""PAS, ASW, Geary's C, CHAOS against permuted labels, Moran's I of smoothed factors, label agreement, per library, and
the published forms: against slow references written here, and against scikit-learn, scanpy and esda."""

from __future__ import annotations

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from reference import hsnmf_paper as paper
from sklearn import metrics as sk
from support import small_tissue, snapshot, with_slots

import spanmf as sn
from spanmf._checks import SpanmfWarning
from spanmf.core import _silhouette, _smooth


@pytest.fixture
def adata() -> ad.AnnData:
    return with_slots(small_tissue(300))


def noisy(adata: ad.AnnData, share: float = 0.3, seed: int = 0) -> np.ndarray:
    """The planted domains, some of the cells moved to any of them."""
    rng = np.random.default_rng(seed)
    labels = adata.obs["domain"].astype(int).to_numpy().copy()
    moved = rng.random(len(labels)) < share
    labels[moved] = rng.integers(0, 4, moved.sum())
    return labels


# --- PAS ------------------------------------------------------------------------------------------------------------


def slow_pas(coords: np.ndarray, labels: np.ndarray, libraries: np.ndarray, k: int) -> float:
    out = []
    for i in range(len(coords)):
        mates = [j for j in range(len(coords)) if j != i and libraries[j] == libraries[i]]
        nearest = sorted(mates, key=lambda j: np.linalg.norm(coords[i] - coords[j]))[:k]
        if nearest:
            out.append(sum(labels[j] != labels[i] for j in nearest) > len(nearest) / 2)
    return float(np.mean(out))


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("k", [1, 4, 10])
def test_pas_equals_slow_reference(dim, k):
    adata = small_tissue(120, dim=dim)
    adata.obs["label"] = labels = noisy(adata)
    coords, libraries = adata.obsm["spatial"], adata.obs["sample"].astype(str).to_numpy()
    for library_key, codes in ((None, np.zeros(120)), ("sample", libraries)):
        expected = slow_pas(coords, labels, codes, k)
        assert 0 < expected < 1
        assert sn.metrics.pas(adata, "label", n_neighbors=k, library_key=library_key) == pytest.approx(expected)
        assert sn.metrics.pas(coords, labels, n_neighbors=k, library_key=codes) == pytest.approx(expected)


def test_pas_where_there_are_fewer_neighbours_than_asked():
    coords = np.array([[0.0], [1], [2], [3], [50], [51], [99]]) * [1, 0]
    labels, libraries = list("aabbabc"), np.array([0, 0, 0, 0, 1, 1, 2])
    expected = slow_pas(coords, np.array(labels), libraries, 10)
    assert expected == 1  # each of the four has two of three others against it
    assert sn.metrics.pas(coords, labels, library_key=libraries) == expected
    with pytest.warns(SpanmfWarning, match="alone in its library"):
        assert np.isnan(sn.metrics.pas(coords, labels, library_key=np.arange(7)))
    assert sn.metrics.pas(coords, ["a"] * 7) == 0


def test_pas_of_many_cells_at_one_place():
    coords = np.repeat([[0.0, 0], [9, 9]], 20, axis=0)
    assert sn.metrics.pas(coords, np.repeat([0, 1], 20)) == 0
    assert sn.metrics.pas(coords, np.arange(40)) == 1


# --- ASW and silhouette widths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_widths_equal_scikit_learn(dim):
    rng = np.random.default_rng(dim)
    Z, codes = rng.random((1200, dim)) + 1e4, rng.permutation(np.r_[np.zeros(700), np.ones(499), 2].astype(int))
    np.testing.assert_allclose(_silhouette.widths(Z, codes), sk.silhouette_samples(Z - 1e4, codes), atol=1e-8)


def test_widths_of_points_at_one_place_are_0():
    assert (_silhouette.widths(np.zeros((4, 2)), np.array([0, 0, 1, 1])) == 0).all()


def test_asw_is_scikit_learns_by_library(adata):
    adata.obs["label"] = labels = noisy(adata)
    coords = adata.obsm["spatial"]
    assert sn.metrics.asw(adata, "label") == pytest.approx(sk.silhouette_score(coords, labels))
    sides = [(adata.obs["sample"] == s).to_numpy() for s in ("left", "right")]
    expected = sum(sk.silhouette_samples(coords[s], labels[s]).sum() for s in sides) / 300
    assert sn.metrics.asw(adata, "label", library_key="sample") == pytest.approx(expected)
    assert sn.metrics.asw(coords, labels, library_key=adata.obs["sample"]) == pytest.approx(expected)


def test_asw_of_a_sample():
    adata = small_tissue(2000)
    whole = sn.metrics.asw(adata, "domain", sample_size=None)
    sampled = [sn.metrics.asw(adata, "domain", sample_size=300, rng=seed) for seed in (0, 0, 1)]
    assert sampled[0] == sampled[1] != sampled[2]
    np.testing.assert_allclose(sampled, whole, atol=0.03)
    assert sn.metrics.asw(adata, "domain", sample_size=300, random_state=1) == sampled[2]


def test_asw_leaves_out_libraries_without_a_silhouette(adata):
    labels = np.where(adata.obs["sample"] == "left", "same", adata.obs["domain"].astype(str))
    adata.obs["label"] = labels
    right = adata[adata.obs["sample"] == "right"]
    with pytest.warns(SpanmfWarning, match="leaves out 1 library"):
        found = sn.metrics.asw(adata, "label", library_key="sample")
    assert found == pytest.approx(sn.metrics.asw(right, "label"))
    with pytest.warns(SpanmfWarning, match="no library has two clusters"):
        assert np.isnan(sn.metrics.asw(adata, "sample", library_key="sample"))
    for one in (["a"] * 300, np.arange(300)):
        with pytest.raises(ValueError, match="At least 2 clusters"):
            sn.metrics.asw(adata, one)


def test_a_column_of_numbers_is_no_label():
    """Two of each of 1,000 clusters would make a sample of 100 a hundred times as much work."""
    coords, codes = np.random.default_rng(0).random((2000, 2)), np.arange(2000) % 1000
    for metric in (sn.metrics.asw, sn.metrics.silhouette):
        with pytest.raises(ValueError, match="1,000 clusters, too many for a sample of 100"):
            metric(coords, codes, sample_size=100)
        assert -1 <= metric(coords, codes, sample_size=None) < 0.1
    libraries = np.arange(2000) // 10  # many small libraries are no more work
    assert -1 <= sn.metrics.asw(coords, codes % 4, library_key=libraries, sample_size=100) < 0.1


# --- Geary's C ------------------------------------------------------------------------------------------------------


def weights(n: int = 60, *, symmetric: bool = True) -> np.ndarray:
    rng = np.random.default_rng(3)
    A = rng.random((n, n)) * (rng.random((n, n)) < 0.1)
    A = A + A.T if symmetric else A
    np.fill_diagonal(A, 0)
    return A.astype(np.float32)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("container", [sp.csr_matrix, sp.csc_array, np.asarray])
def test_gearys_c_equals_brute_force_and_scanpy(container, symmetric):
    A, V = weights(symmetric=symmetric), np.random.default_rng(0).gamma(1.0, size=(60, 3))
    table = sn.metrics.gearys_c(container(A), V)
    for k in range(3):
        differences = sum(A[i, j] * (V[i, k] - V[j, k]) ** 2 for i in range(60) for j in range(60))
        brute = 59 * differences / (2 * A.sum(dtype=np.float64) * ((V[:, k] - V[:, k].mean()) ** 2).sum())
        assert table["C"][k] == pytest.approx(brute, rel=1e-6)
    theirs = sc.metrics.gearys_c(sp.csr_matrix(A.astype(np.float64)), V.T.copy())
    np.testing.assert_allclose(table["C"], theirs, rtol=1e-6)


def test_gearys_c_p_values_against_permutations():
    A, V = weights(), np.random.default_rng(0).gamma(0.5, size=(60, 2))
    table = sn.metrics.gearys_c(A, V)
    rng = np.random.default_rng(1)
    null = np.array([sn.metrics.gearys_c(A, V[rng.permutation(60)])["C"] for _ in range(600)])
    np.testing.assert_allclose(null.mean(0), table["expected"], atol=0.02)
    np.testing.assert_allclose(null.std(0), table["sd"], rtol=0.1)
    np.testing.assert_allclose(table["z"], (table["C"] - 1) / table["sd"])
    normal = np.array([sn.metrics.gearys_c(A, rng.normal(size=60))["C"][0] for _ in range(600)])
    assert normal.std() == pytest.approx(sn.metrics.gearys_c(A, V, assumption="normality")["sd"][0], rel=0.1)


def test_autocorrelation_equals_esda():
    import esda
    import libpysal

    A, v = weights(), np.random.default_rng(0).gamma(0.5, size=60)
    w = libpysal.weights.WSP(sp.csr_matrix(A.astype(np.float64))).to_W(silence_warnings=True)
    geary, moran = esda.Geary(v, w, transformation="O", permutations=0), esda.Moran(v, w, "O", permutations=0)
    for assumption, suffix in (("randomisation", "rand"), ("normality", "norm")):
        ours = sn.metrics.gearys_c(A, v, assumption=assumption).iloc[0]
        np.testing.assert_allclose([ours["C"], ours["z"]], [geary.C, getattr(geary, f"z_{suffix}")], rtol=1e-5)
        ours = sn.metrics.morans_i(A, v, assumption=assumption).iloc[0]
        np.testing.assert_allclose([ours["I"], ours["z"]], [moran.I, getattr(moran, f"z_{suffix}")], rtol=1e-5)


def test_gearys_c_nan_has_a_reason(adata):
    V = np.column_stack([adata.obsm["X_nmf"][:, 0], np.ones(300)])
    with pytest.warns(SpanmfWarning, match=r"constant factors \(column 1\)"):
        table = sn.metrics.gearys_c(adata.obsp["contact_connectivities"], V)
    assert table.loc[1].drop("expected").isna().all()
    assert table.loc[0].notna().all()
    with pytest.warns(SpanmfWarning, match="no edges"):
        assert sn.metrics.gearys_c(sp.csr_matrix((300, 300)), V)["C"].isna().all()
    with pytest.warns(SpanmfWarning, match="too few"):
        assert np.isnan(sn.metrics.gearys_c(1 - np.eye(3), [0.0, 1, 3])["pval"][0])
    adata.uns["snmf"] = {"params": {"smoothing": "refit", "connectivity_key": "contact_connectivities"}}
    with pytest.warns(SpanmfWarning, match="low by construction"):
        sn.metrics.gearys_c(adata, "snmf")


# --- Moran's I of smoothed factors ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def field() -> SimpleNamespace:
    """1,500 cells with a graph; values without order, and the planted ones, both smoothed by 0.6 in two steps."""
    adata = small_tissue(1500)
    sn.gr.contact_neighbors(adata, 20, 80)
    A = adata.obsp["contact_connectivities"]
    graph = _smooth.as_graph(A)

    def smoothed(W: np.ndarray) -> np.ndarray:
        return _smooth.diffuse(graph, W.astype(np.float32), 0.6, 2)

    noise = np.random.default_rng(0).gamma(0.5, size=(1500, 40))
    planted = noise[:, :1] + 0.8 * (adata.obs[["domain"]] == "1").to_numpy()
    return SimpleNamespace(adata=adata, A=A, noise=smoothed(noise), planted=smoothed(planted))


SMOOTHED = {"assumption": "smoothed", "beta": 0.6, "n_steps": 2}


def test_smoothed_noise_is_significant_only_against_the_wrong_null(field):
    wrong = sn.metrics.morans_i(field.A, field.noise)
    assert (wrong["z"] > 20).all()
    table = sn.metrics.morans_i(field.A, field.noise, **SMOOTHED)
    assert (table["expected"] > 0.1).all()
    assert abs(table["z"].mean()) < 0.5
    assert 0.7 < table["z"].std() < 1.35
    assert (table["pval"] < 0.05).mean() <= 0.15
    assert (table["pval_adj"] > 0.01).all()


def test_planted_domains_stand_out_of_smoothed_noise(field):
    table = sn.metrics.morans_i(field.A, field.planted, **SMOOTHED)
    assert table["z"][0] > 5
    assert table["pval"][0] < 1e-6
    assert table["I"][0] == sn.metrics.morans_i(field.A, field.planted)["I"][0]


def test_the_null_is_the_rows_smoothed_again(field):
    """Against a plain loop: dense P, the public Moran's I, other permutations."""
    A = field.A.toarray().astype(np.float64)
    P = (A + np.eye(1500)) / (A.sum(1) + 1)[:, None]
    step = 0.4 * np.eye(1500) + 0.6 * P
    W, rng = field.noise[:, :3].astype(np.float64), np.random.default_rng(9)
    null = [sn.metrics.morans_i(field.A, step @ (step @ W[rng.permutation(1500)]))["I"] for _ in range(40)]
    table = sn.metrics.morans_i(field.A, W, **SMOOTHED)
    np.testing.assert_allclose(table["expected"], np.mean(null, axis=0), atol=4 * table["sd"].max() / np.sqrt(40))
    np.testing.assert_allclose(table["sd"], np.std(null, axis=0), rtol=0.4)


def test_the_null_follows_what_the_run_records(field):
    adata = field.adata.copy()
    adata.obsm["X_snmf"] = field.noise
    adata.uns["snmf"] = {
        "params": {"smoothing": "refit", "beta": 0.6, "n_steps": 2, "connectivity_key": "contact_connectivities"}
    }
    by_key = sn.metrics.morans_i(adata, "snmf", assumption="smoothed", n_permutations=5)
    pd.testing.assert_frame_equal(by_key, sn.metrics.morans_i(field.A, field.noise, **SMOOTHED, n_permutations=5))
    sn.gr.contact_neighbors(adata, 20, 0, key_added="ring")
    elsewhere = sn.metrics.morans_i(adata, "snmf", connectivity_key="ring", assumption="smoothed", n_permutations=20)
    assert (elsewhere["expected"] > by_key["expected"]).all(), "the graph that scores is not the one that smooths"
    assert abs(elsewhere["z"].mean()) < 0.7
    once = sn.metrics.morans_i(adata, "snmf", assumption="smoothed", n_steps=1, n_permutations=5)
    assert (once["expected"] < by_key["expected"]).all()


def test_the_null_needs_to_know_the_smoothing(adata):
    with pytest.raises(ValueError, match="`beta` and `n_steps`"):
        sn.metrics.morans_i(adata, "nmf", assumption="smoothed")
    adata.uns["snmf"] = {"params": {"smoothing": "laplacian", "connectivity_key": "contact_connectivities"}}
    with pytest.raises(ValueError, match="laplacian"):
        sn.metrics.morans_i(adata, "snmf", assumption="smoothed")
    with pytest.raises(ValueError, match="`beta` must be"):
        sn.metrics.morans_i(adata, "nmf", assumption="smoothed", beta=2, n_steps=1)
    with pytest.raises(ValueError, match="`n_permutations`"):
        sn.metrics.morans_i(adata, "nmf", **SMOOTHED, n_permutations=1)


def test_same_seed_same_null(adata):
    tables = [sn.metrics.morans_i(adata, "nmf", **SMOOTHED, n_permutations=3, rng=s) for s in (0, 0, 1)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert (tables[0]["expected"] != tables[2]["expected"]).all()


# --- CHAOS against permuted labels ----------------------------------------------------------------------------------


def test_chaos_against_permuted_labels(adata):
    options = {"library_key": "sample", "normalized": "permuted"}
    labels = adata.obs["domain"].astype(str).to_numpy()
    rng = np.random.default_rng(5)
    permuted = []
    for _ in range(30):
        shuffled = labels.copy()
        for side in ("left", "right"):
            here = np.flatnonzero(adata.obs["sample"] == side)
            shuffled[here] = labels[rng.permutation(here)]
        permuted.append(sn.metrics.chaos(adata, shuffled, library_key="sample"))
    expected = sn.metrics.chaos(adata, "domain", library_key="sample") / np.mean(permuted)
    assert sn.metrics.chaos(adata, "domain", **options) == pytest.approx(expected, rel=0.03)
    assert sn.metrics.chaos(adata, "domain", **options) == sn.metrics.chaos(adata, "domain", **options, rng=0)
    assert sn.metrics.chaos(adata, "domain", **options) != sn.metrics.chaos(adata, "domain", **options, rng=1)
    assert sn.metrics.chaos(adata, "domain", normalized="floor") == sn.metrics.chaos(adata, "domain", normalized=True)


def test_chaos_of_random_labels_is_1_and_of_order_below():
    adata = small_tissue(3000)
    rng = np.random.default_rng(0)
    for n_labels in (3, 12):
        values = sn.metrics.chaos(adata, rng.integers(0, n_labels, 3000), normalized="permuted")
        assert values == pytest.approx(1, abs=0.03)
    assert sn.metrics.chaos(adata, "domain", normalized="permuted") == pytest.approx(0.5, abs=0.05)  # 1 / √4


# --- published forms ------------------------------------------------------------------------------------------------


def test_published_chaos_counts_splinters_as_0(adata):
    labels = adata.obs["domain"].astype(int).to_numpy().copy()
    labels[[0, 1, 2]] = 7, 8, 8
    coords = adata.obsm["spatial"]
    assert sn.metrics.chaos(adata, labels, preset="paper") == pytest.approx(paper.chaos(coords, labels))
    assert sn.metrics.chaos(coords, labels, preset="paper") < sn.metrics.chaos(coords, labels)
    for options in ({"library_key": "sample"}, {"normalized": "floor"}):
        with pytest.raises(ValueError, match="published CHAOS"):
            sn.metrics.chaos(adata, "domain", preset="paper", **options)


def test_published_separation_is_on_unscaled_factors(adata):
    W, labels = adata.obsm["X_nmf"], adata.obs["domain"].astype(int).to_numpy()
    options = {"use_rep": "nmf", "preset": "paper"}
    assert sn.metrics.silhouette(adata, "domain", **options) == pytest.approx(paper.silhouette(W, labels), rel=1e-5)
    found = sn.metrics.davies_bouldin(adata, "domain", **options)
    assert found == pytest.approx(paper.davies_bouldin(W, labels), rel=1e-5)
    assert found != sn.metrics.davies_bouldin(adata, "domain", use_rep="nmf")


def test_published_separation_of_a_sample(monkeypatch):
    rng = np.random.default_rng(0)
    codes = rng.choice(3, 5000, p=[0.6, 0.39, 0.01])
    Z = rng.normal(size=(5000, 2)) + codes[:, None]
    monkeypatch.setattr("spanmf.metrics._separation.SAMPLE_SIZE", 1000)
    found = [sn.metrics.davies_bouldin(Z, codes, preset="paper", rng=s) for s in (0, 0, 1)]
    whole = sk.davies_bouldin_score(Z, codes)
    assert found[0] == found[1] != found[2]
    np.testing.assert_allclose(found, whole, rtol=0.2)
    assert sn.metrics.davies_bouldin(Z, codes) == pytest.approx(whole)
    sampled = sn.metrics.silhouette(Z, codes, preset="paper", sample_size=1000)
    assert sampled == pytest.approx(sk.silhouette_score(Z, codes), abs=0.03)


def test_published_edge_agreement_counts_edges(adata):
    labels = noisy(adata)
    binary = (adata.obsp["contact_connectivities"] > 0).astype(np.float32)
    assert sn.metrics.edge_agreement(adata, labels, preset="paper") == sn.metrics.edge_agreement(binary, labels)
    assert sn.metrics.edge_agreement(adata, labels) != sn.metrics.edge_agreement(binary, labels)
    sn.gr.contact_neighbors(adata, 20, 0, key_added="ring")
    graph = paper.radius_graph(adata.obsm["spatial"], 20.0, 2.5)
    graph.remove_edges_from([(i, i) for i in graph])
    found = sn.metrics.edge_agreement(adata, labels, connectivity_key="ring", preset="paper").observed
    assert found == pytest.approx(paper.edge_agreement(graph, labels))


def test_published_morans_i_is_of_the_first_factor_on_the_smoothing_graph(adata):
    sn.gr.contact_neighbors(adata, 20, 80, key_added="other")
    sn.tl.snmf(adata, 4, connectivity_key="other")
    adata.obsp["contact_connectivities"] = adata.obsp["contact_connectivities"][::-1, ::-1].tocsr()
    table = sn.metrics.morans_i(adata, "snmf", preset="paper")
    assert len(table) == 1
    expected = sn.metrics.morans_i(adata.obsp["other_connectivities"], adata.obsm["X_snmf"])
    pd.testing.assert_frame_equal(table.drop(columns="pval_adj"), expected.iloc[:1].drop(columns="pval_adj"))


@pytest.mark.parametrize("name", ["chaos", "silhouette", "davies_bouldin", "edge_agreement"])
def test_presets_are_checked(adata, name):
    with pytest.raises(ValueError, match="`preset` must be one of None, 'paper'"):
        getattr(sn.metrics, name)(adata, "domain", preset="papre")


# --- label agreement ------------------------------------------------------------------------------------------------


def test_label_agreement_is_scikit_learns(adata):
    known = adata.obs["domain"].astype(str).to_numpy()
    adata.obs["found"] = found = np.array(list("wxyz"))[noisy(adata)]
    result = sn.metrics.label_agreement(adata, "found", "domain")
    assert result.ari == pytest.approx(sk.adjusted_rand_score(known, found))
    assert result.nmi == pytest.approx(sk.normalized_mutual_info_score(known, found))
    assert result.homogeneity == pytest.approx(sk.homogeneity_score(known, found))
    assert result.completeness == pytest.approx(sk.completeness_score(known, found))
    assert result.homogeneity != result.completeness
    assert result == sn.metrics.label_agreement(found, known) == sn.metrics.label_agreement(list(found), list(known))
    assert (result.n_compared, result.n_left_out) == (300, 0)


def test_label_agreement_leaves_out_what_lacks_a_label(adata):
    adata.obs["partly"] = adata.obs["domain"].where(np.arange(300) % 3 > 0)
    adata.obs["found"] = pd.Series(noisy(adata), adata.obs_names).where(np.arange(300) % 2 > 0)
    result = sn.metrics.label_agreement(adata, "found", "partly")
    both = adata[adata.obs["partly"].notna() & adata.obs["found"].notna()]
    assert (result.n_compared, result.n_left_out) == (both.n_obs, 300 - both.n_obs) == (100, 200)
    assert result[:4] == pytest.approx(sn.metrics.label_agreement(both, "found", "partly")[:4])


def test_label_agreement_refuses(adata):
    adata.obs["late"] = adata.obs["domain"].where(np.arange(300) > 200)
    adata.obs["early"] = adata.obs["domain"].where(np.arange(300) < 100)
    with pytest.raises(ValueError, match="both a label and a known one"):
        sn.metrics.label_agreement(adata, "late", "early")
    with pytest.raises(TypeError, match="Name the known labels"):
        sn.metrics.label_agreement(adata, "domain")
    with pytest.raises(TypeError, match="Three arguments"):
        sn.metrics.label_agreement([0, 1], [0, 1], [0, 1])
    with pytest.raises(ValueError, match="2 entries"):
        sn.metrics.label_agreement([0, 1, 1], [0, 1])
    with pytest.raises(KeyError, match="nothing"):
        sn.metrics.label_agreement(adata, "domain", "nothing")


# --- per library ----------------------------------------------------------------------------------------------------

METRICS = {
    "pas": ("domain", {}),
    "edge_agreement": ("domain", {}),
    "silhouette": ("domain", {"use_rep": "nmf"}),
    "explained_variance": ("nmf", {}),
    "morans_i": ("nmf", {}),
    "label_agreement": ("domain", {"reference": "noisy"}),
}


@pytest.mark.parametrize("name", METRICS)
def test_per_library_is_every_library_by_itself(adata, name):
    adata.obs["noisy"] = noisy(adata)
    metric, (key, options) = getattr(sn.metrics, name), METRICS[name]
    before = snapshot(adata)
    table = sn.metrics.per_library(metric, adata, key, library_key="sample", **options)
    assert snapshot(adata) == before
    assert list(table.index.get_level_values("library").unique()) == ["left", "right", "all"]
    whole = {"library_key": "sample"} if name == "pas" else {}
    for library in ("left", "right", "all"):
        part = adata if library == "all" else adata[adata.obs["sample"] == library].copy()
        expected = metric(part, key, **options, **(whole if library == "all" else {}))
        found = table.loc[library]
        if isinstance(expected, pd.DataFrame):
            pd.testing.assert_frame_equal(found, expected)
        else:
            expected = expected._asdict() if hasattr(expected, "_asdict") else {name: expected}
            assert dict(found) == pytest.approx(expected)


def test_per_library_names_the_library_without_a_value(adata):
    adata.obs["core"] = np.where(np.arange(300) == 7, "lone", adata.obs["sample"].astype(str))
    with pytest.warns(SpanmfWarning, match=r"Library 'lone': silhouette is NaN\. .* 1 observations") as caught:
        table = sn.metrics.per_library(sn.metrics.silhouette, adata, "domain", library_key="core", use_rep="nmf")
    assert sum(issubclass(w.category, SpanmfWarning) for w in caught) == 1
    assert table["silhouette"].isna().tolist() == [False, True, False, False]
    adata.obs["same"] = np.where(adata.obs["sample"] == "left", "a", adata.obs["domain"].astype(str))
    with pytest.warns(SpanmfWarning, match="Library 'left': The z of edge agreement is NaN"):
        table = sn.metrics.per_library(sn.metrics.edge_agreement, adata, "same", library_key="sample")
    assert np.isnan(table.loc["left", "z"])
    with pytest.warns(SpanmfWarning, match=r"'lone': morans_i is NaN"):
        table = sn.metrics.per_library(sn.metrics.morans_i, adata, "nmf", library_key="core")
    assert table.loc["lone"].isna().all(axis=None)
    assert table.loc["right"].notna().all(axis=None)


def test_per_library_refuses(adata):
    adata.obs["core"] = np.where(np.arange(300) < 100, "all", "b")
    with pytest.raises(ValueError, match="called 'all'"):
        sn.metrics.per_library(sn.metrics.pas, adata, "domain", library_key="core")
    with pytest.raises(ValueError, match="called 'all'"):
        sn.metrics.panel(adata, "domain", library_key="core", per_library=True)
    with pytest.raises(TypeError, match="must name a slot"):
        sn.metrics.per_library(sn.metrics.pas, adata, adata.obs["domain"], library_key="sample")
    with pytest.raises(KeyError, match="nothing"):
        sn.metrics.per_library(sn.metrics.pas, adata, "nothing", library_key="sample")
    adata.obs["one"] = "a"
    with pytest.raises(ValueError, match="make 1 cluster"):
        sn.metrics.per_library(sn.metrics.asw, adata, "one", library_key="sample")


# --- what all of them share -----------------------------------------------------------------------------------------

OF_LABELS = {"pas": sn.metrics.pas, "asw": sn.metrics.asw}


@pytest.mark.parametrize("name", OF_LABELS)
def test_unlabelled_observations_and_views(adata, name):
    metric, known = OF_LABELS[name], np.arange(300) % 5 > 0
    adata.obs["partly"] = adata.obs["domain"].where(known).cat.add_categories("unused")
    assert metric(adata, "partly") == pytest.approx(metric(adata[known], "domain"))
    assert metric(adata[::2], "domain") == metric(adata[::2].copy(), "domain")
    bundle = SimpleNamespace(tables={"table": adata})
    assert metric(bundle, "domain") == metric(adata, "domain")
    for bad, match in ((np.zeros(299), "299 entries"), (np.full(300, np.nan), "No observation has a label")):
        with pytest.raises(ValueError, match=match):
            metric(adata, bad)
    with pytest.raises(KeyError, match="where"):
        metric(adata, "domain", spatial_key="where")
    with pytest.raises(TypeError, match="needs an AnnData"):
        metric(adata.obsm["spatial"], "domain")


def test_bad_options(adata):
    with pytest.raises(ValueError, match="`n_neighbors` must be at least 1"):
        sn.metrics.pas(adata, "domain", n_neighbors=0)
    with pytest.raises(ValueError, match="`sample_size` must be at least 3"):
        sn.metrics.asw(adata, "domain", sample_size=2)
    with pytest.raises(ValueError, match="`normalized` must be one of"):
        sn.metrics.chaos(adata, "domain", normalized="flor")
    with pytest.raises(ValueError, match="`assumption` must be one of"):
        sn.metrics.gearys_c(adata, "nmf", assumption="smoothed")
