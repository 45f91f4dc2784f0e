"""Co-localisation and niches on tables: against slow counting, squidpy and permutations; bad input; storage."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import squidpy as sq
from support import small_tissue, snapshot

import spanmf as sn
from spanmf._checks import SpanmfWarning


@pytest.fixture
def tissue() -> ad.AnnData:
    adata = small_tissue(400)
    types = np.random.default_rng(1).choice(["T", "B/plasma", "fibro, myo", "rare"], 400, p=[0.5, 0.3, 0.18, 0.02])
    adata.obs["cell_type"] = pd.Categorical(types)
    sn.gr.contact_neighbors(adata, 20, 60, library_key="sample")
    return adata


def matrix(table: pd.DataFrame, value: str, library: str = "all") -> pd.DataFrame:
    part = table[table["library"] == library]
    return part.pivot(index="a", columns="b", values=value)


def test_counts_equal_counting_by_hand(tissue: ad.AnnData) -> None:
    table = sn.gr.colocalization(tissue, "domain", radius=30)
    coords, labels = tissue.obsm["spatial"], tissue.obs["domain"].astype(str).to_numpy()
    near = np.linalg.norm(coords[:, None] - coords, axis=2) <= 30
    i, j = np.nonzero(np.triu(near, 1))
    for row in table.itertuples():
        pair = (labels[i] == row.a) & (labels[j] == row.b) | (labels[i] == row.b) & (labels[j] == row.a)
        assert row.observed == pair.sum()
    assert table["expected"].sum() == pytest.approx(table["observed"].sum())
    same = table["a"] == table["b"]
    assert (table.loc[same, "ratio"] > 1.5).all()
    assert (table.loc[same, "pval_adj"] < 1e-6).all()
    assert len(table) == 4 * 5 / 2


def test_z_agrees_with_squidpy(tissue: ad.AnnData) -> None:
    table = sn.gr.colocalization(tissue, "cell_type", connectivity_key="contact")
    sq.gr.nhood_enrichment(
        tissue, "cell_type", connectivity_key="contact", n_perms=1000, seed=0, show_progress_bar=False, n_jobs=1
    )
    theirs = tissue.uns["cell_type_nhood_enrichment"]["zscore"]
    z = matrix(table, "z").to_numpy()
    upper = np.triu_indices(4)
    assert np.abs(z[upper] - theirs[upper]).max() < 0.35  # of 1,000 permutations
    assert np.corrcoef(z[upper], theirs[upper])[0, 1] > 0.97


def test_permutations_agree_with_the_exact_result(tissue: ad.AnnData) -> None:
    exact = sn.gr.colocalization(tissue, "cell_type", library_key="sample")
    drawn = sn.gr.colocalization(tissue, "cell_type", library_key="sample", n_permutations=600)
    assert (exact["library"].unique() == ["left", "right", "all"]).all()
    assert (np.abs(exact["expected"] - drawn["expected"]) < 5 * exact["sd"] / np.sqrt(600)).all()
    np.testing.assert_allclose(exact["sd"], drawn["sd"], rtol=0.2)
    common = exact["expected"] > 30
    assert np.abs(exact["pval"] - drawn["pval"])[common].max() < 0.1


def test_libraries_add_up_and_edges_between_them_are_left_out(tissue: ad.AnnData) -> None:
    sn.gr.contact_neighbors(tissue, 20, 60, key_added="whole")
    with pytest.warns(SpanmfWarning, match="join different 'sample'"):
        table = sn.gr.colocalization(tissue, "cell_type", connectivity_key="whole", library_key="sample")
    by = {k: matrix(table, k, "left") + matrix(table, k, "right") for k in ("observed", "expected")}
    for k, total in by.items():
        np.testing.assert_allclose(matrix(table, k), total)
    alone = sn.gr.colocalization(tissue[tissue.obs["sample"] == "left"].copy(), "cell_type", radius=60)
    np.testing.assert_allclose(matrix(table, "z", "left"), matrix(alone, "z"), rtol=1e-9)


def test_prevalence_has_a_direction(tissue: ad.AnnData) -> None:
    table = sn.gr.colocalization(tissue, "cell_type", radius=40, statistic="prevalence")
    assert len(table) == 16
    coords, labels = tissue.obsm["spatial"], tissue.obs["cell_type"].astype(str).to_numpy()
    near = (np.linalg.norm(coords[:, None] - coords, axis=2) <= 40) & ~np.eye(400, dtype=bool)
    for a, b in (("T", "rare"), ("rare", "T"), ("T", "T")):
        share = [(labels[near[i]] == b).mean() for i in np.flatnonzero(labels == a) if near[i].any()]
        p = (labels == b).mean()
        assert matrix(table, "score").loc[a, b] == pytest.approx((np.mean(share) - p) / np.sqrt(p * (1 - p)))
    itself = sn.gr.colocalization(tissue, "cell_type", radius=40, statistic="prevalence", preset="paper")
    diagonal = (itself["a"] == itself["b"]).to_numpy()
    assert (itself["score"] > table["score"])[diagonal].all()


def test_the_published_edge_ratio_measures_the_mean_degree(tissue: ad.AnnData) -> None:
    ours = sn.gr.colocalization(tissue, "cell_type", radius=40, statistic="edge_ratio")
    np.testing.assert_allclose(ours["score"], ours["ratio"] - 1)
    near, far = (
        sn.gr.colocalization(tissue, "cell_type", radius=r, statistic="edge_ratio", preset="paper")["score"].mean()
        for r in (20, 60)
    )
    assert far > 4 * near > 0  # random labels, yet "attraction" that grows with the radius


def test_toroidal_shifts_are_the_stricter_null() -> None:
    tissue = small_tissue(1500)
    exact = sn.gr.colocalization(tissue, "domain", radius=30)
    moved = sn.gr.colocalization(tissue, "domain", radius=30, null="toroidal", n_permutations=60)
    assert (moved["sd"] > 2 * exact["sd"]).all()
    again = sn.gr.colocalization(tissue, "domain", radius=30, null="toroidal", n_permutations=60)
    pd.testing.assert_frame_equal(moved, again)


def test_weights_count_when_asked(tissue: ad.AnnData) -> None:
    plain = sn.gr.colocalization(tissue, "cell_type")
    weighted = sn.gr.colocalization(tissue, "cell_type", weighted=True)
    assert (weighted["observed"] > plain["observed"]).all()
    assert np.corrcoef(plain["z"], weighted["z"])[0, 1] > 0.7


def test_distance_rings_share_out_the_pairs(tissue: ad.AnnData) -> None:
    rings = sn.gr.colocalization_by_distance(tissue, "domain", [20, 40, 60], library_key="sample")
    whole = sn.gr.colocalization(tissue, "domain", radius=60, library_key="sample")
    keys = ["library", "a", "b"]
    total = rings.groupby(keys)["observed"].sum()
    np.testing.assert_allclose(total.loc[list(whole[keys].itertuples(index=False))], whole["observed"])
    assert set(rings["radius_from"]) == {0, 20, 40}


def test_composition_equals_counting_by_hand(tissue: ad.AnnData) -> None:
    tissue.obs.loc[tissue.obs_names[:20], "cell_type"] = np.nan
    tissue.obsm["spatial"][7] += 10_000
    shares = sn.gr.niche_composition(tissue, "cell_type", radius=40, copy=True)
    coords, labels = tissue.obsm["spatial"], tissue.obs["cell_type"]
    near = (np.linalg.norm(coords[:, None] - coords, axis=2) <= 40) & ~np.eye(400, dtype=bool)
    for i in (0, 3, 100, 399):
        expected = labels[near[i]].value_counts(normalize=True)
        np.testing.assert_allclose(shares.iloc[i], expected[shares.columns], rtol=1e-6)
    assert shares.iloc[7].isna().all()
    sn.gr.niche_composition(tissue, "cell_type", radius=40)
    assert tissue.obs["niche_composition"].iloc[7] == "isolated"
    assert tissue.obs["niche_composition_n_neighbors"].iloc[7] == 0


def test_niches_find_planted_surroundings_and_are_named_after_them(tissue: ad.AnnData) -> None:
    sn.gr.niche_composition(tissue, "domain", radius=40)
    sn.tl.niches(tissue, 4)
    both = pd.crosstab(tissue.obs["niches"], tissue.obs["domain"])
    assert both.max(axis=1).sum() / 400 > 0.85
    assert {str(both.loc[n].idxmax()) == str(n).split(" + ")[0] for n in both.index} == {True}
    assert (tissue.obs["niches"].value_counts(sort=False).diff().dropna() <= 0).all()


@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning", "ignore:.*zarr v2:UserWarning")
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_results_survive_storage(tissue: ad.AnnData, tmp_path, form: str) -> None:
    table = sn.gr.colocalization(tissue, "cell_type", library_key="sample")
    sn.gr.colocalization_by_distance(tissue, "cell_type", [20, 40])
    sn.gr.niche_composition(tissue, "cell_type")
    sn.tl.niches(tissue, 3)
    path = tmp_path / f"t.{form}"
    getattr(tissue, f"write_{form}")(path)
    back = getattr(ad, f"read_{form}")(path)
    read = back.uns["colocalization"]["table"].reset_index(drop=True)
    assert (read["a"].astype(str) == table["a"]).all()
    np.testing.assert_allclose(read["z"], table["z"])
    assert back.obsm["niche_composition"].columns.tolist() == ["B|plasma", "T", "fibro, myo", "rare"]
    for key in ("niche_composition", "niches"):
        assert back.uns[key]["labels"].tolist() == ["B/plasma", "T", "fibro, myo", "rare"]
    legends = [t.get_text() for ax in sn.pl.niches(back).axes if ax.get_legend() for t in ax.get_legend().get_texts()]
    assert "B/plasma" in legends


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda a: sn.gr.colocalization(a, "nothing"), KeyError, "nothing"),
        (lambda a: sn.gr.colocalization(a, "one"), ValueError, "holds 1 label: at least two"),
        (lambda a: sn.gr.colocalization(a, "domain", radius=-1), ValueError, "radius"),
        (lambda a: sn.gr.colocalization(a, "domain", radius=1e-6), ValueError, "no neighbour|isolated|No "),
        (lambda a: sn.gr.colocalization(a, "domain", radius=9, connectivity_key="contact"), ValueError, "not both"),
        (lambda a: sn.gr.colocalization(a, "domain", preset="paper"), ValueError, "prevalence"),
        (lambda a: sn.gr.colocalization(a, "domain", include_self=True), ValueError, "prevalence"),
        (lambda a: sn.gr.colocalization(a, "domain", connectivity_key="x"), KeyError, "No graph 'x'"),
        (lambda a: sn.gr.colocalization_by_distance(a, "domain", [40, 20]), ValueError, "increasing"),
        (lambda a: sn.gr.colocalization_by_distance(a, "domain", []), ValueError, "increasing"),
        (lambda a: sn.gr.colocalization_by_distance(a, "domain", ["a", 20]), TypeError, "`radii` must be a number"),
        (lambda a: sn.gr.colocalization_by_distance(a, "domain", -5), ValueError, "`radii` must be more than 0"),
        (lambda a: sn.gr.colocalization_by_distance(a, "domain", [1e-5, 1e-4]), ValueError, r"Give larger ones\.$"),
        (lambda a: sn.gr.colocalization(a, "measured"), ValueError, "holds 400 different numbers that are not whole"),
        (
            lambda a: sn.gr.colocalization_by_distance(a, "measured", [10, 20]),
            ValueError,
            r"pd\.cut.*astype\('category'\)",
        ),
        (lambda a: sn.gr.niche_composition(a, "measured", radius=20), ValueError, "'measured'"),
        (lambda a: sn.tl.niches(a, 3), KeyError, "niche_composition"),
        (lambda a: sn.gr.niche_composition(a, "domain", radius=np.nan), ValueError, "radius"),
    ],
)
def test_bad_input_is_named_and_leaves_the_table_alone(tissue: ad.AnnData, call, error, match) -> None:
    tissue.obs["one"] = pd.Categorical(["x"] * 400)
    tissue.obs["measured"] = np.linspace(0, 1, 400)
    before = snapshot(tissue)
    with pytest.raises(error, match=match):
        call(tissue)
    assert snapshot(tissue) == before


def test_columns_of_numbers_are_labels_where_they_can_be(tissue: ad.AnnData) -> None:
    """Whole numbers with gaps are floats; a few doses are fractions; and the user has the last word."""
    codes = tissue.obs["domain"].cat.codes.to_numpy()
    expected = sn.gr.colocalization(tissue, "domain")["observed"]
    for column in (codes, codes.astype(float), codes / 4, pd.array(codes / 4, dtype="Float64")):
        tissue.obs["number"] = column
        np.testing.assert_array_equal(np.sort(sn.gr.colocalization(tissue, "number")["observed"]), np.sort(expected))
    tissue.obs["number"] = np.arange(400) / 7
    with pytest.raises(ValueError, match="400 different"):
        sn.gr.niche_composition(tissue, "number", radius=20)
    tissue.obs["number"] = tissue.obs["number"].astype("category")
    sn.gr.niche_composition(tissue, "number", radius=20)


def test_pairs_of_too_many_labels(tissue: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spanmf.gr._colocalization.MAX_LABELS", 300)
    for column in (np.arange(400), tissue.obs_names):
        tissue.obs["each"] = column
        with pytest.raises(ValueError, match=r"400 different labels, which make 80,200 pairs; at most 300.*pd\.cut"):
            sn.gr.colocalization(tissue, "each")


def test_too_many_niches(tissue: ad.AnnData) -> None:
    sn.gr.niche_composition(tissue, "domain", radius=15)
    with pytest.raises(ValueError, match="different surroundings"):
        sn.tl.niches(tissue, 300)
