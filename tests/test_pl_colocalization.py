"""What the plots of co-localisation and niches draw."""

from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from support import small_tissue, snapshot

import spanmf as sn

mpl.use("Agg")


@pytest.fixture
def tissue() -> ad.AnnData:
    adata = small_tissue(400)
    adata.obs["type"] = np.random.default_rng(0).choice(["a", "b/c", "d, e"], 400)
    sn.gr.contact_neighbors(adata, 20, 60, library_key="sample")
    yield adata
    plt.close("all")


def test_heat_map_draws_log_ratios_and_marks_what_is_not_significant(tissue: ad.AnnData) -> None:
    table = sn.gr.colocalization(tissue, "type", library_key="sample")
    before = snapshot(tissue)
    ax = sn.pl.colocalization(tissue, labels=["a", "b/c", "d, e"])
    assert snapshot(tissue) == before
    drawn = np.asarray(ax.images[0].get_array())
    pooled = table[table["library"] == "all"].set_index(["a", "b"])
    for i, a in enumerate(["a", "b/c", "d, e"]):
        for j, b in enumerate(["a", "b/c", "d, e"]):
            row = pooled.loc[(a, b) if (a, b) in pooled.index else (b, a)]
            assert drawn[i, j] == pytest.approx(np.clip(np.log2(row["ratio"]), -3, 3))
    unsure = (pooled["pval_adj"] >= 0.05).to_numpy()
    same = np.array([a == b for a, b in pooled.index])
    assert len(ax.lines[0].get_xdata()) == unsure[same].sum() + 2 * unsure[~same].sum()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b/c", "d, e"]


def test_alike_labels_stand_side_by_side_and_values_have_directions(tissue: ad.AnnData) -> None:
    table = sn.gr.colocalization(tissue, "domain", statistic="prevalence")
    ax = sn.pl.colocalization(table, value="score")
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert sorted(names) == sorted(tissue.obs["domain"].astype(str).unique())
    score = table.set_index(["a", "b"])["score"]
    assert np.asarray(ax.images[0].get_array())[0, 1] == pytest.approx(score[(names[0], names[1])])


def test_curves(tissue: ad.AnnData) -> None:
    table = sn.gr.colocalization_by_distance(tissue, "domain", [20, 40, 60])
    a, b = table["a"].iloc[1], table["b"].iloc[1]
    ax = sn.pl.colocalization_by_distance(tissue, pairs=[(b, a)])
    line = ax.get_lines()[1]
    np.testing.assert_allclose(line.get_xdata(), [10, 30, 50])
    np.testing.assert_allclose(line.get_ydata(), table[(table["a"] == a) & (table["b"] == b)]["ratio"])
    with pytest.raises(ValueError, match="no pair"):
        sn.pl.colocalization_by_distance(tissue, pairs=[("x", "y")])


def test_niches_map_and_bars(tissue: ad.AnnData) -> None:
    sn.gr.niche_composition(tissue, "domain", radius=40)
    sn.tl.niches(tissue, 3)
    figure = sn.pl.niches(tissue, library_key="sample")
    assert len(figure.axes) == 3
    bars = figure.axes[-1].patches
    ends = {}
    for bar in bars:
        ends[round(bar.get_y(), 3)] = ends.get(round(bar.get_y(), 3), 0) + bar.get_width()
    np.testing.assert_allclose(list(ends.values()), [1, 1, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (sn.pl.colocalization, KeyError, "sn.gr.colocalization"),
        (sn.pl.colocalization_by_distance, KeyError, "colocalization_by_distance"),
        (sn.pl.niches, KeyError, "sn.tl.niches"),
    ],
)
def test_missing_results_name_the_call(tissue: ad.AnnData, call, error, match) -> None:
    with pytest.raises(error, match=match):
        call(tissue)


def test_unknown_library(tissue: ad.AnnData) -> None:
    table = sn.gr.colocalization(tissue, "type")
    with pytest.raises(ValueError, match="no library 'x'"):
        sn.pl.colocalization(table, library="x")
