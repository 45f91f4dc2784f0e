"""Marker metrics against slow references written here, against scanpy, and on planted cell types."""

from __future__ import annotations

import tracemalloc
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from scipy.stats import rankdata
from support import changed, small_tissue, snapshot, with_slots

import spanmf as sn
from spanmf._checks import SpanmfWarning
from spanmf.core import _markers

METRICS = [sn.metrics.marker_coherence, sn.metrics.marker_exclusion_rate, sn.metrics.marker_specificity]


@pytest.fixture
def adata() -> ad.AnnData:
    """Four domains of about 150 cells with a programme of 15 genes each; a column with NaN and an unused category."""
    adata = small_tissue(600)
    labels = adata.obs["domain"].astype(object)
    labels.iloc[::7] = np.nan
    adata.obs["gappy"] = pd.Categorical(labels, categories=["0", "1", "2", "3", "unused"])
    return adata


@pytest.fixture(scope="module")
def types() -> ad.AnnData:
    """A tissue with planted cell types, the same with a third of the labels exchanged, and with all of them."""
    adata = sn.datasets.xenium_tissue(3000)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    rng, truth = np.random.default_rng(0), adata.obs["cell_type"].astype(str).to_numpy()
    for name, share in (("noisy", 1 / 3), ("shuffled", 1.0)):
        labels, some = truth.copy(), rng.random(len(truth)) < share
        labels[some] = rng.permutation(labels[some])
        adata.obs[name] = pd.Categorical(labels)
    return adata


def quietly(function, *args, **kwargs):
    """Without the warnings of small clusters that are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpanmfWarning)
        return function(*args, **kwargs)


# --- Wilcoxon -------------------------------------------------------------------------------------------------------


def ranked(adata: ad.AnnData, c: str) -> pd.Series:
    """Scanpy's scores of a cluster, best gene first. (On pandas 3, `sc.get` itself warns.)"""
    result = adata.uns["rank_genes_groups"]
    return pd.Series(result["scores"][c], index=result["names"][c])


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize("tie_correct", [True, False])
def test_scores_are_those_of_scanpy(adata: ad.AnnData, make, tie_correct: bool) -> None:
    adata.X = make(adata.X.toarray())
    codes = adata.obs["domain"].cat.codes.to_numpy()
    z = _markers.wilcoxon(_markers.rank(adata.X, np.zeros(600)), codes, 4, tie_correct=tie_correct)[0]
    adata.X = sp.csr_matrix(adata.X)
    sc.tl.rank_genes_groups(adata, "domain", method="wilcoxon", tie_correct=tie_correct)
    for c in range(4):
        theirs = ranked(adata, str(c))
        np.testing.assert_allclose(z[c], theirs[adata.var_names], rtol=1e-4, atol=1e-4)  # scanpy's are float32


def slow_markers(X: np.ndarray, own: np.ndarray, n_markers: int) -> list[int]:
    z = np.zeros(X.shape[1])
    for j, column in enumerate(X.T):
        R, n, k = rankdata(column), len(own), own.sum()
        t = np.unique(column, return_counts=True)[1].astype(float)
        variance = k * (n - k) * (n + 1) / 12 * (1 - (t**3 - t).sum() / (n**3 - n))
        z[j] = (R[own].sum() - k * (n + 1) / 2) / np.sqrt(variance) if variance > 0 else 0
    return [j for j in np.argsort(-z, kind="stable")[:n_markers] if z[j] > 0]


# --- coherence, exclusion, specificity ------------------------------------------------------------------------------


def slow_scores(X: np.ndarray, labels: list, markers: list[dict[str, list[int]]], folds: np.ndarray) -> pd.DataFrame:
    """One cell at a time; ``markers`` by fold."""
    rows = {}
    for c in sorted({x for x in labels if x is not None}):
        cells = [i for i, x in enumerate(labels) if x == c]
        coherent, specific, excluded, negative = [], [], [], 0
        for i in cells:
            own = markers[folds[i]][c]
            coherent.append(np.mean([X[i, g] > 0 for g in own]))
            outside = [h for h, x in enumerate(labels) if x not in (c, None) and folds[h] == folds[i]]
            specific.append(np.mean([(X[i, g] > 0) - np.mean(X[outside, g] > 0) for g in own]))
            scores = {d: np.mean([X[i, g] for g in genes]) for d, genes in markers[folds[i]].items()}
            excluded.append(max(v for d, v in scores.items() if d != c) > scores[c] + 0.02)
            negative += scores[c] == 0
        rows[c] = [len(cells), np.mean(coherent), np.mean(specific), np.mean(excluded), negative]
    columns = ["n_obs", "coherence", "specificity", "exclusion_rate", "n_marker_negative"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def assert_same(ours: pd.DataFrame, slow: pd.DataFrame) -> None:
    assert list(ours.index) == list(slow.index)
    np.testing.assert_allclose(ours[slow.columns].to_numpy(float), slow.to_numpy(float), rtol=1e-6, atol=1e-9)


GIVEN = {"0": ["gene0", "gene4"], "1": ["gene1"], "2": ["gene2", "gene6", "gene10"], "3": ["gene3"]}


def test_given_markers_equal_slow_reference(adata: ad.AnnData) -> None:
    labels = [None if pd.isna(x) else x for x in adata.obs["gappy"]]
    columns = {c: [adata.var_names.get_loc(g) for g in genes] for c, genes in GIVEN.items()}
    slow = slow_scores(adata.X.toarray(), labels, [columns], np.zeros(600, dtype=int))
    table = sn.metrics.marker_table(adata, "gappy", markers=GIVEN)
    assert_same(table, slow)
    assert table["markers"]["2"] == "gene2, gene6, gene10"
    n = slow["n_obs"]
    coherence = sn.metrics.marker_coherence(adata, "gappy", markers=GIVEN)
    assert coherence == pytest.approx((slow["coherence"].mean(), (slow["coherence"] * n).sum() / n.sum()))
    exclusion = sn.metrics.marker_exclusion_rate(adata, "gappy", markers=GIVEN)
    assert exclusion.rate == pytest.approx((slow["exclusion_rate"] * n).sum() / n.sum())
    assert exclusion.n_negative == slow["n_marker_negative"].sum() > 0
    assert sn.metrics.marker_specificity(adata, "gappy", markers=GIVEN) == pytest.approx(slow["specificity"].mean())


@pytest.mark.parametrize("cross_fit", [True, False])
def test_found_markers_equal_slow_reference(adata: ad.AnnData, cross_fit: bool) -> None:
    labels = [None if pd.isna(x) else x for x in adata.obs["gappy"]]
    known = np.array([x is not None for x in labels])
    X, folds = adata.X.toarray(), np.zeros(600, dtype=int)
    if cross_fit:
        folds[known] = np.random.default_rng(3).permutation(known.sum()) % 2
    own = {c: np.array([x == c for x in labels]) for c in "0123"}
    markers = []
    for f in range(folds.max() + 1):
        here = known & (folds == (1 - f if cross_fit else 0))  # found in the other half
        markers.append({c: slow_markers(X[here], own[c][here], 4) for c in "0123"})
    slow = slow_scores(X, labels, markers, folds)
    assert_same(sn.metrics.marker_table(adata, "gappy", n_markers=4, min_cells=20, cross_fit=cross_fit, rng=3), slow)


def test_containers_and_arrays_agree(adata: ad.AnnData) -> None:
    tables = [sn.metrics.marker_table(adata, "gappy", min_cells=20)]
    X, labels = adata.X, adata.obs["gappy"]
    for make in (sp.csc_matrix, sp.csr_array, np.asarray):
        tables.append(sn.metrics.marker_table(make(X.toarray()), labels, min_cells=20, var_names=adata.var_names))
    twice = ad.concat([adata, adata[::-1]], index_unique="-")
    twice.obs["gappy"] = pd.Categorical([*labels, *labels[::-1]])
    view = twice[:600]
    adata.layers["other"], adata.X = X, None
    tables.append(sn.metrics.marker_table(adata, "gappy", min_cells=20, layer="other"))
    tables.append(sn.metrics.marker_table(view, "gappy", min_cells=20))
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_index_type=False)


def test_sparse_values_stay_sparse() -> None:
    """A dense copy of these values would take 128 MB."""
    rng = np.random.default_rng(0)
    X = sp.random(8000, 4000, density=0.002, format="csr", dtype=np.float32, random_state=rng)
    labels = rng.integers(0, 3, 8000)
    sn.metrics.marker_table(X[:300], labels[:300])  # compiled before it is measured
    tracemalloc.start()
    try:
        sn.metrics.marker_table(X, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16e6


def test_markers_as_scanpy_gives_them(adata: ad.AnnData) -> None:
    long = pd.DataFrame([(c, g) for c, genes in GIVEN.items() for g in genes], columns=["group", "names"])
    wide = pd.DataFrame({c: pd.Series(genes) for c, genes in GIVEN.items()})
    expected = sn.metrics.marker_table(adata, "domain", markers=GIVEN)
    for markers in (long, wide):
        pd.testing.assert_frame_equal(sn.metrics.marker_table(adata, "domain", markers=markers), expected)


def test_the_halves_are_of_the_seed(adata: ad.AnnData) -> None:
    first, again, other = (sn.metrics.marker_table(adata, "domain", min_cells=20, rng=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


# --- published form -------------------------------------------------------------------------------------------------


def test_published_form(adata: ad.AnnData) -> None:
    """Scanpy's top genes, the most expressed ones of a small cluster, sums and a margin of 0.1."""
    labels = adata.obs["domain"].astype(str).to_numpy()
    labels[:30] = "tiny"
    adata.obs["label"] = pd.Categorical(labels)
    X = adata.X.toarray()
    sc.tl.rank_genes_groups(adata, "label", method="wilcoxon")
    markers = {c: list(ranked(adata, c).index[:5]) for c in "0123"}
    markers["tiny"] = list(adata.var_names[np.argsort(-X[:30].mean(0), kind="stable")[:5]])
    columns = {c: adata.var_names.get_indexer(genes) for c, genes in markers.items()}
    sums = {c: X[:, genes].sum(1) for c, genes in columns.items()}
    excluded = [max(v[i] for d, v in sums.items() if d != c) > sums[c][i] + 0.1 for i, c in enumerate(labels)]
    coherent = {c: (X[labels == c][:, genes] > 0).mean() for c, genes in columns.items()}

    table = sn.metrics.marker_table(adata, "label", preset="paper")
    assert {c: set(names.split(", ")) for c, names in table["markers"].items()} == {
        c: set(g) for c, g in markers.items()
    }
    assert (table["note"] == "").all()
    assert sn.metrics.marker_exclusion_rate(adata, "label", preset="paper").rate == pytest.approx(np.mean(excluded))
    assert sn.metrics.marker_coherence(adata, "label", preset="paper").mean == pytest.approx(
        np.mean(list(coherent.values()))
    )
    with pytest.warns(SpanmfWarning, match="'tiny': fewer than 100 observations"):
        ours = sn.metrics.marker_coherence(adata, "label")
    assert ours.mean == pytest.approx(np.nanmean(sn.metrics.marker_table(adata, "label")["coherence"]))


# --- directions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", [None, "paper"])
def test_better_labels_score_better(types: ad.AnnData, preset) -> None:
    for metric, value, better in zip(METRICS, (lambda r: r.mean, lambda r: -r.rate, float), "abc", strict=True):
        scores = [value(quietly(metric, types, key, preset=preset)) for key in ("cell_type", "noisy", "shuffled")]
        assert scores[0] > scores[1] > scores[2], better


def test_the_planted_markers_are_found(types: ad.AnnData) -> None:
    known = {"fibroblast": {"DCN", "C3", "PDGFRA"}, "B": {"MS4A1", "CD19"}, "endothelial": {"PECAM1", "CDH5"}}
    table = sn.metrics.marker_table(types, "cell_type")
    for c, genes in known.items():
        assert genes & set(table["markers"][c].split(", "))


def test_random_labels_have_no_specificity_when_fitted_crosswise(types: ad.AnnData) -> None:
    """Markers that are scored where they were found to be best flatter even random labels."""
    rng = np.random.default_rng(0)
    crosswise, same_cells = [], []
    for seed in range(4):
        labels = rng.integers(0, 8, types.n_obs)
        crosswise.append(sn.metrics.marker_specificity(types, labels, rng=seed))
        same_cells.append(sn.metrics.marker_specificity(types, labels, cross_fit=False))
    assert abs(np.mean(crosswise)) < 0.01 < 0.03 < np.mean(same_cells)


# --- what cannot be scored ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_labels_that_have_no_value_say_why(adata: ad.AnnData, metric) -> None:
    for labels, why in ((np.zeros(600), "only one cluster|no other cluster"), (np.arange(600), "fewer than 100")):
        with pytest.warns(SpanmfWarning, match=why):
            assert np.isnan(np.atleast_1d(metric(adata, labels))[0])


def test_one_cluster_with_given_markers(adata: ad.AnnData) -> None:
    """Coherence needs no other cluster, the others do."""
    one = pd.Categorical(["0"] * 600)
    assert sn.metrics.marker_coherence(adata, one, markers={"0": ["gene0"]}).mean == pytest.approx(
        (adata[:, "gene0"].X.toarray() > 0).mean()
    )
    with pytest.warns(SpanmfWarning, match="no outside"):
        assert np.isnan(sn.metrics.marker_specificity(adata, one, markers={"0": ["gene0"]}))
    with pytest.warns(SpanmfWarning, match="only one cluster has markers"):
        assert np.isnan(sn.metrics.marker_exclusion_rate(adata, one, markers={"0": ["gene0"]}).rate)


def test_clusters_of_one_cell_stay_small(adata: ad.AnnData) -> None:
    """They are left out without a matrix of clusters × genes for them."""
    labels = adata.obs["domain"].astype(str).to_numpy()
    labels[:50] = [f"cell {i}" for i in range(50)]
    table = sn.metrics.marker_table(adata, labels, min_cells=60)
    assert list(table["note"].unique()) == ["", "fewer than 60 observations"]
    assert table["coherence"].isna().sum() == 50
    assert quietly(sn.metrics.marker_coherence, adata, labels, min_cells=60).mean > 0.5
    tiny = sn.metrics.marker_table(adata, labels, min_cells=1)  # in one half only: no markers to score it with
    assert set(tiny.loc[tiny["n_obs"] == 1, "note"]) == {"no gene is higher than in the rest"}


def test_markers_that_are_not_in_the_table_are_named(adata: ad.AnnData) -> None:
    with pytest.warns(SpanmfWarning, match=r"1 of 6 markers are not in the table \('CD3E'\)"):
        table = sn.metrics.marker_table(adata, "domain", markers=GIVEN | {"2": ["gene2", "CD3E"], "3": ["gene3"]})
    assert table["markers"]["2"] == "gene2"
    with pytest.warns(SpanmfWarning) as caught:
        value = sn.metrics.marker_coherence(adata, "domain", markers={"0": ["gene0"], "1": ["CD3E"]})
    assert value.mean == value.weighted > 0
    text = str(caught[-1].message)
    assert "'1': none of its markers is in the table" in text
    assert "'2', '3': none is given" in text


def test_raw_counts_are_told(adata: ad.AnnData) -> None:
    with pytest.warns(SpanmfWarning, match="looks like raw counts"):
        sn.metrics.marker_table(adata, "domain", layer="counts", min_cells=20)


BAD = {
    "no such gene": ({"markers": {"0": ["CD3E"]}}, ValueError, r"None of the 1 markers \('CD3E'\) is in the table"),
    "no such cluster": (
        {"markers": {"T": ["gene0"]}},
        ValueError,
        "None of the clusters of `markers` .'T'. is a label",
    ),
    "no gene": ({"markers": {"0": []}}, ValueError, "gives no gene for '0'"),
    "no cluster": ({"markers": {}}, ValueError, "`markers` is empty"),
    "one name": ({"markers": {"0": "gene0"}}, TypeError, r"e\.g\. `\['gene0'\]`"),
    "a list": ({"markers": ["gene0"]}, TypeError, "must be a mapping"),
    "no markers": ({"n_markers": 0}, ValueError, "`n_markers` must be at least 1"),
    "min_cells": ({"min_cells": 1.5}, TypeError, "`min_cells` must be an integer"),
    "cross_fit": ({"cross_fit": "no"}, TypeError, "`cross_fit` must be True or False"),
    "preset": ({"preset": "published"}, ValueError, "`preset` must be one of"),
    "layer": ({"layer": "lognorm"}, KeyError, "'lognorm' is not in `adata.layers`"),
    "names": ({"var_names": ["gene0"]}, ValueError, "has 1 entries, but there are 60 variables"),
}


@pytest.mark.parametrize("metric", [*METRICS, sn.metrics.marker_table])
@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(adata: ad.AnnData, metric, case: str) -> None:
    kwargs, error, match = BAD[case]
    before = snapshot(adata)
    with pytest.raises(error, match=match):
        metric(adata, "domain", **kwargs)
    assert changed(before, snapshot(adata)) == []


def test_bad_values(adata: ad.AnnData) -> None:
    X = adata.X.toarray()
    for bad, match in ((-1, "1 negative values"), (np.nan, "1 NaN or infinite"), (np.inf, "1 NaN or infinite")):
        wrong = X.copy()
        wrong[0, 0] = bad
        with pytest.raises(ValueError, match=match):
            sn.metrics.marker_table(wrong, adata.obs["domain"])
    with pytest.raises(TypeError, match="must be numeric"):
        sn.metrics.marker_table(X.astype(str), adata.obs["domain"])
    with pytest.raises(ValueError, match="two axes"):
        sn.metrics.marker_table(X[:, 0], adata.obs["domain"])
    with pytest.raises(ValueError, match="599 entries"):
        sn.metrics.marker_table(X, adata.obs["domain"][:599])
    with pytest.raises(TypeError, match="`var_names=`"):
        sn.metrics.marker_table(X, adata.obs["domain"], markers=GIVEN)
    with pytest.raises(TypeError, match="needs an AnnData"):
        sn.metrics.marker_table(X, "domain")
    with pytest.raises(KeyError, match=r"'region' is not in `adata\.obs`"):
        sn.metrics.marker_table(adata, "region")
    with pytest.raises(ValueError, match="all are missing"):
        sn.metrics.marker_table(adata, np.full(600, np.nan))
    adata.var_names = ["gene0", "gene0", *adata.var_names[2:]]
    assert len(sn.metrics.marker_table(adata, "domain")) == 4  # no name is looked for
    with pytest.raises(ValueError, match="variable names are not unique"):
        sn.metrics.marker_table(adata, "domain", markers=GIVEN)


# --- in the panel ---------------------------------------------------------------------------------------------------


def test_rows_of_the_panel_are_the_functions(adata: ad.AnnData) -> None:
    adata.obs["tiny"] = np.where(np.arange(600) < 9, "few", adata.obs["domain"].astype(str))
    before = snapshot(adata)
    panel = sn.metrics.panel(adata, ["domain", "gappy", "tiny"], markers=GIVEN).set_index(["key", "metric"])
    for key in ("domain", "gappy"):
        coherence = sn.metrics.marker_coherence(adata, key, markers=GIVEN)
        exclusion = sn.metrics.marker_exclusion_rate(adata, key, markers=GIVEN)
        expected = {
            "marker_coherence": coherence.mean,
            "marker_coherence_weighted": coherence.weighted,
            "marker_exclusion_rate": exclusion.rate,
            "n_marker_negative": exclusion.n_negative,
            "marker_specificity": sn.metrics.marker_specificity(adata, key, markers=GIVEN),
        }
        assert {m: panel.loc[(key, m), "value"] for m in expected} == expected
        assert (panel.loc[[(key, m) for m in expected], "note"] == "").all()
    assert "'few': none is given" in panel.loc[("tiny", "marker_coherence"), "note"]
    found = sn.metrics.panel(adata, "tiny").set_index("metric")
    assert "fewer than 100 observations" in found.loc["marker_specificity", "note"]
    assert found.loc["marker_specificity", "value"] > 0.3
    foreign = sn.metrics.panel(adata, "domain", markers={"T cell": ["gene0"]}).set_index("metric")
    assert np.isnan(foreign.loc["marker_coherence", "value"])
    assert "is a label" in foreign.loc["marker_coherence", "note"]
    assert changed(before, snapshot(adata)) == []


def test_the_panel_takes_the_matrix_of_the_run() -> None:
    """As for the reconstruction: the layer that the run records, else X, which may be counts."""
    adata = with_slots(small_tissue(600))
    adata.layers["lognorm"], adata.X = adata.X, adata.layers["counts"]
    adata.obs["snmf"] = adata.obs["plain"] = adata.obs["domain"]
    adata.uns["snmf"] = {"params": {"layer": "lognorm"}}
    panel = sn.metrics.panel(adata, ["snmf", "plain"]).set_index(["key", "metric"])
    for metric, value in (("marker_coherence", lambda r: r.mean), ("marker_exclusion_rate", lambda r: r.rate)):
        expected = value(getattr(sn.metrics, metric)(adata, "domain", layer="lognorm"))
        assert panel.loc[("snmf", metric), "value"] == pytest.approx(expected, abs=0.02)  # other halves
        assert panel.loc[("snmf", metric), "note"] == ""
        assert "raw counts" in panel.loc[("plain", metric), "note"]
