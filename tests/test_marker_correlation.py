"""Correlation of maps of cell types with their markers."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import pearsonr, spearmanr
from support import snapshot

import spanmf as sn
from spanmf._checks import SpanmfWarning


@pytest.fixture
def section() -> ad.AnnData:
    """Three types; genes 0–3 follow the first, 4–7 the second, 8–11 are noise; counts of varying depth."""
    rng = np.random.default_rng(0)
    V = rng.dirichlet(np.ones(3), 150)
    mean = np.concatenate([np.repeat(V[:, :2], 4, axis=1), np.full((150, 8), 0.3)], axis=1)
    counts = rng.poisson(mean * rng.lognormal(3, 1, (150, 1))).astype(np.float32)
    counts[:, -1] += 1
    adata = ad.AnnData(sp.csr_matrix(counts))
    adata.var_names = [f"g{j}" for j in range(16)]
    adata.obsm["stl_nmf"] = pd.DataFrame(V, index=adata.obs_names, columns=["A", "B", "C"])
    return adata


MARKERS = {"A": ["g0", "g1", "g2", "g3"], "B": ["g4", "g5"], "C": ["g8", "g9"]}


def slow(adata: ad.AnnData, method) -> dict[str, float]:
    X = adata.X.toarray().astype(float)
    X = np.log1p(X / X.sum(1, keepdims=True) * np.median(X.sum(1)))
    names = list(adata.var_names)
    V = adata.obsm["stl_nmf"]
    return {t: method(V[t], X[:, [names.index(g) for g in genes]].mean(1))[0] for t, genes in MARKERS.items()}


@pytest.mark.parametrize(("method", "function"), [("pearson", pearsonr), ("spearman", spearmanr)])
def test_against_scipy(section: ad.AnnData, method: str, function) -> None:
    before = snapshot(section)
    table = sn.metrics.marker_correlation(section, MARKERS, method=method).set_index("cell_type")
    assert snapshot(section) == before
    for name, value in slow(section, function).items():
        assert table.loc[name, "correlation"] == pytest.approx(
            value, abs=1e-6 if method == "pearson" else 1e-3
        )  # ties to rounding
    assert table.loc["A", "correlation"] > 0.6
    assert list(table["rank"])[:2] == [1, 1]
    assert list(table["best"])[:2] == ["A", "B"]
    assert list(table["n_found"]) == [4, 2, 2]


def test_swapped_maps_are_told(section: ad.AnnData) -> None:
    section.obsm["stl_nmf"] = section.obsm["stl_nmf"].rename(columns={"A": "B", "B": "A"})
    table = sn.metrics.marker_correlation(section, MARKERS).set_index("cell_type")
    assert table.loc["A", "correlation"] < 0
    assert table.loc["A", "best"] == "B"
    assert table.loc["A", "rank"] > 1


def test_forms_of_markers_and_containers(section: ad.AnnData) -> None:
    expected = sn.metrics.marker_correlation(section, MARKERS)
    long = [(t, g) for t, genes in MARKERS.items() for g in genes]
    wide = pd.DataFrame({t: pd.Series(genes) for t, genes in MARKERS.items()})
    for columns in (("cell_type", "gene"), ("cell_type", "marker"), ("group", "names")):
        pd.testing.assert_frame_equal(
            sn.metrics.marker_correlation(section, pd.DataFrame(long, columns=columns)), expected
        )
    pd.testing.assert_frame_equal(sn.metrics.marker_correlation(section, wide), expected)
    dense = section.copy()
    dense.X = dense.X.toarray()
    pd.testing.assert_frame_equal(sn.metrics.marker_correlation(dense, MARKERS), expected)
    section.layers["counts"] = section.X.copy()
    section.X = section.X * 0
    pd.testing.assert_frame_equal(sn.metrics.marker_correlation(section, MARKERS, layer="counts"), expected)


def test_values_that_are_no_counts_are_taken_as_they_are(section: ad.AnnData) -> None:
    expected = sn.metrics.marker_correlation(section, MARKERS)
    X = section.X.toarray().astype(float)
    section.X = np.log1p(X / X.sum(1, keepdims=True) * np.median(X.sum(1)))
    pd.testing.assert_frame_equal(sn.metrics.marker_correlation(section, MARKERS), expected, rtol=1e-5)


def test_spots_without_shares_are_left_out(section: ad.AnnData) -> None:
    section.X = sp.csr_matrix(np.log1p(section.X.toarray()) / 7)  # the median total no longer matters
    expected = sn.metrics.marker_correlation(section[5:].copy(), MARKERS)
    section.obsm["stl_nmf"].iloc[:5] = np.nan
    pd.testing.assert_frame_equal(sn.metrics.marker_correlation(section, MARKERS), expected)


def test_notes_say_why_there_is_no_value(section: ad.AnnData) -> None:
    section.obsm["stl_nmf"]["C"] = 0.0
    section.obsm["stl_nmf"]["D"] = 0.1
    X = section.X.toarray()
    X[:, 5] = 0
    section.X = X
    table = sn.metrics.marker_correlation(section, {"A": ["g0"], "B": ["g5"], "C": ["g8"]}).set_index("cell_type")
    assert table.loc["B", "note"] == "the markers do not vary"
    assert table.loc["C", "note"] == "the share does not vary"
    assert table.loc["D", "note"] == "no markers in the table"
    assert table["correlation"].isna().tolist() == [False, True, True, True]
    assert table["rank"].isna().tolist() == [False, True, True, True]


def test_missing_markers_and_types_are_told(section: ad.AnnData) -> None:
    with pytest.warns(SpanmfWarning) as told:
        table = sn.metrics.marker_correlation(section, {"A": ["g0", "no"], "X": ["g1"]}).set_index("cell_type")
    text = " ".join(str(w.message) for w in told)
    assert "'X'" in text
    assert "'no'" in text
    assert table.loc["A", ["n_markers", "n_found"]].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("args", "options", "error", "match"),
    [
        (({"X": ["g0"]},), {}, ValueError, "None of the clusters"),
        (({"A": ["x"]},), {}, ValueError, "None of the 1 markers"),
        (({"A": "g0"},), {}, TypeError, "a list of names"),
        ((MARKERS, "no"), {}, KeyError, "sn.tl.stl_nmf"),
        ((MARKERS,), {"method": "kendall"}, ValueError, "spearman"),
        ((MARKERS,), {"layer": "no"}, KeyError, "'no'"),
    ],
)
def test_bad_input(section: ad.AnnData, args, options, error, match) -> None:
    with pytest.raises(error, match=match):
        sn.metrics.marker_correlation(section, *args, **options)


def test_negative_values_are_refused(section: ad.AnnData) -> None:
    section.X = section.X - sp.csr_matrix(np.full(section.shape, 0.5))
    with pytest.raises(ValueError, match="negative"):
        sn.metrics.marker_correlation(section, MARKERS)
