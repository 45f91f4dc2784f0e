"""The panel: one table of all metrics; every number is that of the public function, and a NaN has its reason."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from support import small_tissue, snapshot

import spanmf as sn
from spanmf._checks import SpanmfWarning
from spanmf.metrics._rows import ROWS, SPATIAL_AND_LABEL_ROWS
from spanmf.metrics._scorer import Scorer

COLUMNS = ["key", "library", "metric", "value", "better", "note"]
OF_LABELS = ["n_clusters", "chaos", "chaos_normalized", "pas", "asw", "edge_agreement", "edge_agreement_expected"]
OF_LABELS += ["edge_agreement_z"]
OF_FACTORS = ["morans_i", "morans_i_null", "gearys_c"]
OF_LOADINGS = ["reconstruction_error", "explained_variance"]
OF_REFERENCE = ["ari", "nmi", "homogeneity", "completeness"]
OWN = {name for row in SPATIAL_AND_LABEL_ROWS for name in row.metrics}


@pytest.fixture(scope="module")
def tissue() -> ad.AnnData:
    adata = small_tissue(300, 40)
    sn.gr.contact_neighbors(adata, 20, 80, library_key="sample")
    sn.tl.nmf(adata, 4)
    sn.tl.snmf(adata, 4)
    adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    return adata


@pytest.fixture
def adata(tissue) -> ad.AnnData:
    return tissue.copy()


def panel(adata: ad.AnnData, keys: str | list[str], **options) -> pd.DataFrame:
    """Only what this file is about: spatial, label and factor metrics."""
    table = sn.metrics.panel(adata, keys, **options)
    return table[table["metric"].isin(OWN)].reset_index(drop=True)


def values(table: pd.DataFrame, key: str, library: str = "all") -> pd.Series:
    here = table[(table["key"] == key) & (table["library"] == library)]
    return here.set_index("metric")["value"]


def test_every_number_is_that_of_the_public_function(adata):
    where = {"library_key": "sample"}
    table = panel(adata, "nmf", **where, reference_key="domain")
    found = values(table, "nmf")
    edges, agreement = sn.metrics.edge_agreement(adata, "nmf"), sn.metrics.label_agreement(adata, "nmf", "domain")
    expected = {
        "n_clusters": adata.obs["nmf"].nunique(),
        "chaos": sn.metrics.chaos(adata, "nmf", **where),
        "chaos_normalized": sn.metrics.chaos(adata, "nmf", **where, normalized="floor"),
        "pas": sn.metrics.pas(adata, "nmf", **where),
        "asw": sn.metrics.asw(adata, "nmf", **where),
        "edge_agreement": edges.observed,
        "edge_agreement_expected": edges.expected,
        "edge_agreement_z": edges.z,
        "silhouette": sn.metrics.silhouette(adata, "nmf"),
        "davies_bouldin": sn.metrics.davies_bouldin(adata, "nmf"),
        "morans_i": sn.metrics.morans_i(adata, "nmf")["I"].mean(),
        "morans_i_null": -1 / 299,
        "gearys_c": sn.metrics.gearys_c(adata, "nmf")["C"].mean(),
        "reconstruction_error": sn.metrics.reconstruction_error(adata, "nmf"),
        "explained_variance": sn.metrics.explained_variance(adata, "nmf"),
        **agreement._asdict(),
    }
    del expected["n_compared"], expected["n_left_out"]
    assert list(found.index) == list(expected)
    np.testing.assert_allclose(found, list(expected.values()), rtol=1e-9)
    assert (table["note"] == "").all()


def test_shape_and_directions(adata):
    table = panel(adata, ["nmf", "domain", "X_pca"], library_key="sample", per_library=True)
    assert list(table.columns) == COLUMNS
    assert set(table["library"]) == {"all", "left", "right"}
    assert not table.duplicated(["key", "library", "metric"]).any()
    assert table["value"].dtype == np.float64
    assert set(table["better"]) == {"higher", "lower", ""}
    better = table.groupby("metric")["better"].unique().map(tuple)
    assert better["chaos"] == better["pas"] == better["davies_bouldin"] == better["gearys_c"] == ("lower",)
    assert better["asw"] == better["edge_agreement"] == better["morans_i"] == ("higher",)
    assert better["n_clusters"] == better["edge_agreement_expected"] == ("",)


def test_whatever_is_there_is_scored(adata):
    table = panel(adata, ["nmf", "X_nmf", "X_pca", "domain"], reference_key="domain")
    by_key = {key: list(own["metric"]) for key, own in table.groupby("key", sort=False)}
    separation = ["silhouette", "davies_bouldin"]
    assert by_key["nmf"] == OF_LABELS + separation + OF_FACTORS + OF_LOADINGS + OF_REFERENCE
    assert by_key["X_nmf"] == OF_FACTORS + OF_LOADINGS
    assert by_key["X_pca"] == OF_FACTORS
    assert by_key["domain"] == OF_LABELS + OF_REFERENCE


def test_directions_are_the_known_ones():
    assert {d for row in ROWS for d in row.metrics.values()} <= {"higher", "lower", ""}
    names = [name for row in ROWS for name in row.metrics]
    assert len(names) == len(set(names))


def test_libraries_are_scored_each_by_itself(adata):
    table = panel(adata, "nmf", library_key="sample", per_library=True)
    for name in ("left", "right"):
        alone = adata[adata.obs["sample"] == name].copy()
        pd.testing.assert_series_equal(values(table, "nmf", name), values(panel(alone, "nmf"), "nmf"), rtol=1e-6)


def test_one_warning_on_the_graph_that_smoothed(adata):
    sn.tl.snmf(adata, 4, smoothing="laplacian", key_added="lap")
    with pytest.warns(
        SpanmfWarning, match=r"factors of 'snmf', 'lap' were smoothed over the graph that scores"
    ) as caught:
        table = panel(adata, ["nmf", "snmf", "lap"], library_key="sample", per_library=True)
    assert sum(issubclass(w.category, SpanmfWarning) for w in caught) == 1
    notes = table[table["metric"].isin(["morans_i", "gearys_c"])].groupby("key")["note"].unique()
    assert list(notes["nmf"]) == [""]
    assert "high by construction" in notes["snmf"][0]
    found = values(table, "snmf")
    assert found["morans_i_null"] > 0.1 > values(table, "nmf")["morans_i_null"]
    assert np.isnan(values(table, "lap")["morans_i_null"]), "there is no operator to repeat"


def test_smoothed_over_another_graph_needs_no_warning_but_a_note(adata):
    sn.gr.contact_neighbors(adata, 20, 0, library_key="sample", key_added="ring")
    table = panel(adata, "snmf", connectivity_key="ring")
    assert "Smoothed over 'contact_connectivities'" in table.set_index("metric")["note"]["morans_i"]
    assert values(table, "snmf")["morans_i_null"] > 0.05


UNDEFINED = set(OF_LABELS[1:]) | {"silhouette", "davies_bouldin"}


@pytest.mark.parametrize(
    ("labels", "reason", "n_clusters"),
    [
        (["a"] * 300, "make 1 cluster of 300", 1),
        ([str(i) for i in range(300)], "make 300 clusters of 300", 300),
        ([None] * 300, "make 0 clusters of 0", 0),
    ],
    ids=["one", "all alone", "none"],
)
def test_labels_that_have_no_score(adata, labels, reason, n_clusters):
    adata.obs["nmf"] = pd.Categorical(labels)
    table = panel(adata, "nmf").set_index("metric")
    assert set(table.index[table["value"].isna()]) == UNDEFINED
    assert table.loc[list(UNDEFINED), "note"].str.contains(reason).all()
    assert table.loc["n_clusters", "value"] == n_clusters


def test_clusters_of_one_cell_are_scored(adata):
    labels = adata.obs["domain"].astype(str).to_numpy().copy()
    labels[[3, 150]] = "x", "y"
    adata.obs["splinters"] = pd.Categorical(labels, categories=["unused", *np.unique(labels)])
    table = panel(adata, "splinters")
    assert table["value"].notna().all()
    assert values(table, "splinters")["n_clusters"] == 6


def test_unlabelled_observations_are_as_if_not_there(adata):
    known = np.arange(300) % 5 > 0
    adata.obs["partly"] = adata.obs["domain"].where(known)
    without = values(panel(adata[known].copy(), "domain"), "domain")
    pd.testing.assert_series_equal(values(panel(adata, "partly"), "partly"), without, rtol=1e-6)


def test_what_the_table_lacks_is_said(adata):
    del adata.obsp["contact_connectivities"]
    table = panel(adata, "nmf").set_index("metric")
    assert set(table.index[table["value"].isna()]) == {*OF_LABELS[5:], *OF_FACTORS}
    assert "sn.gr.contact_neighbors" in table.loc["morans_i", "note"]
    del adata.obsm["spatial"]
    adata.X[0, 0] = -1
    table = panel(adata, "nmf").set_index("metric")
    assert "obsm" in table.loc["pas", "note"]
    assert "1 negative" in table.loc["explained_variance", "note"]
    assert table["value"].notna().sum() == 3


def test_factors_of_values_that_are_not_stored(adata):
    adata.X = adata.layers["counts"]
    sn.tl.nmf(adata, 4, normalize=True)
    table = panel(adata, "nmf").set_index("metric")
    assert np.isnan(table.loc["explained_variance", "value"])
    assert "normalize=True" in table.loc["explained_variance", "note"]
    for metric in (sn.metrics.explained_variance, sn.metrics.reconstruction_error):
        with pytest.raises(ValueError, match="normalize=True"):
            metric(adata, "nmf")
    adata.layers["lognorm"] = adata.X.copy()
    sc.pp.normalize_total(adata, layer="lognorm")
    sc.pp.log1p(adata, layer="lognorm")
    assert values(panel(adata, "nmf", layer="lognorm"), "nmf")["explained_variance"] > 0.2


def test_a_run_names_its_layer_and_its_representation(adata):
    adata.layers["lognorm"] = adata.X
    adata.X = adata.layers["counts"]
    sn.tl.nmf(adata, 4, layer="lognorm")
    expected = sn.metrics.explained_variance(adata, "nmf", layer="lognorm")
    assert values(panel(adata, "nmf"), "nmf")["explained_variance"] == expected
    assert sn.metrics.explained_variance(adata, "nmf") == expected
    assert sn.metrics.explained_variance(adata, "nmf", layer="counts") != expected
    sn.tl.hsnmf(adata, use_rep="X_pca", n_domains=3)
    found = values(panel(adata, "hsnmf"), "hsnmf")
    assert found["silhouette"] == pytest.approx(sn.metrics.silhouette(adata, "hsnmf", use_rep="X_pca"))


def test_a_scorer_computes_what_labelings_share_once(adata, monkeypatch):
    scorer = Scorer(adata, library_key="sample")
    first, second = scorer.candidate("nmf"), scorer.candidate("domain")
    alone = {key: Scorer(adata, library_key="sample").score(scorer.candidate(key), ROWS) for key in ("nmf", "domain")}
    assert scorer.score(first, ROWS) == alone["nmf"]
    for name in ("neighbours_in_group", "standardise", "morans_i", "gearys_c"):
        monkeypatch.setattr(f"spanmf.core._spatial.{name}", None)
    monkeypatch.setattr("spanmf.core._error.residual", None)
    assert scorer.score(second, ROWS) == alone["domain"]
    assert scorer.score(first, ROWS) == alone["nmf"]


def test_same_seed_same_table_and_nothing_is_written(adata):
    before = snapshot(adata)
    tables = [sn.metrics.panel(adata, ["nmf", "domain"], rng=3) for _ in range(2)]
    pd.testing.assert_frame_equal(*tables)
    assert snapshot(adata) == before
    reversed_ = sn.metrics.panel(adata, ["domain", "nmf"], rng=3)
    pd.testing.assert_series_equal(values(tables[0], "domain"), values(reversed_, "domain"))


def test_views_and_what_is_not_there(adata):
    view = adata[::2]
    pd.testing.assert_frame_equal(panel(view, "nmf"), panel(view.copy(), "nmf"))
    for options, match in [
        ({"keys": ["nmf", "nothing"]}, "'nothing' is neither a column of `adata.obs`"),
        ({"keys": "nmf", "connectivity_key": "ring"}, "No graph 'ring'"),
        ({"keys": "nmf", "reference_key": "layer"}, "'layer' is not in"),
        ({"keys": "nmf", "layer": "lognorm"}, "'lognorm' is not in"),
        ({"keys": "nmf", "library_key": "core"}, "'core' is not in"),
    ]:
        with pytest.raises(KeyError, match=match):
            sn.metrics.panel(adata, **options)
    with pytest.raises(ValueError, match="`keys` is empty"):
        sn.metrics.panel(adata, [])
    pd.testing.assert_frame_equal(panel(adata, ["nmf", "nmf"]), panel(adata, "nmf"))
    with pytest.raises(ValueError, match="needs `library_key`"):
        sn.metrics.panel(adata, "nmf", per_library=True)


def test_factors_and_loadings_of_two_runs(adata):
    adata.obsm["X_nmf"] = adata.obsm["X_nmf"][:, :3]
    with pytest.raises(ValueError, match=r"'nmf' have 3 components in `adata.obsm`, and 4"):
        sn.metrics.panel(adata, "nmf")


def test_a_library_that_cannot_be_scored(adata):
    adata.obs["core"] = pd.Categorical(np.where(np.arange(300) == 0, "lone", adata.obs["sample"].astype(str)))
    table = panel(adata, "nmf", library_key="core", per_library=True)
    lone = table[table["library"] == "lone"].set_index("metric")
    assert lone.loc[["pas", "asw", "silhouette"], "value"].isna().all()
    assert lone.loc[["pas", "asw", "silhouette"], "note"].str.contains("1 cluster of 1 labelled").all()
    assert lone.loc["morans_i", "note"] != ""
