"""Shares by sample, and a test whose units are the samples: by hand, by scipy, and under the null."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, ttest_ind
from support import changed, snapshot

import spanmf as sn
from spanmf import _composition

SIZES = (200, 150, 120, 260, 90, 180)
BASE = np.array([0.4, 0.25, 0.15, 0.12, 0.08])


def table_of(counts: np.ndarray, conditions: list[str]) -> ad.AnnData:
    """One cell a count; rows of ``counts`` are samples."""
    n, k = counts.shape
    sample = np.repeat(np.arange(n), counts.sum(1))
    domain = np.concatenate([np.repeat(np.arange(k), row) for row in counts])
    obs = pd.DataFrame(
        {
            "sample": [f"s{i}" for i in sample],
            "domain": pd.Categorical.from_codes(domain, [f"d{j}" for j in range(k)]),
            "condition": np.array(conditions)[sample],
        },
        index=[f"c{i}" for i in range(len(sample))],
    )
    return ad.AnnData(np.ones((len(obs), 2), dtype=np.float32), obs=obs)


def drawn(rng: np.random.Generator, sizes=SIZES, spread: float = 12.0) -> np.ndarray:
    """Counts of samples whose shares differ from each other, about one mean."""
    return np.stack([rng.multinomial(n, rng.dirichlet(BASE * spread)) for n in sizes])


@pytest.fixture
def adata() -> ad.AnnData:
    out = table_of(drawn(np.random.default_rng(0)), ["a", "b"] * 3)
    rng = np.random.default_rng(1)
    out.obsm["X_nmf"] = rng.gamma(1, 1, (out.n_obs, 3)).astype(np.float32)
    out.varm["nmf_loadings"] = rng.random((2, 3), dtype=np.float32)
    return out


def test_shares_are_those_of_a_cross_table(adata):
    adata.obs.loc[adata.obs_names[:5], "domain"] = np.nan
    shares, test = sn.tl.composition(adata, "domain", "sample")
    expected = pd.crosstab(adata.obs["sample"], adata.obs["domain"], normalize="index")
    found = shares.pivot(index="library", columns="domain", values="share")
    assert found.index.tolist() == expected.index.tolist()
    assert found.columns.tolist() == expected.columns.tolist()
    np.testing.assert_allclose(found, expected)
    labelled = adata.obs.dropna(subset="domain").groupby("sample").size()
    assert (shares.groupby("library")["n_cells"].first() == labelled).all()
    assert test is None


@pytest.mark.parametrize("key", ["nmf", "X_nmf"])
def test_shares_of_factors_are_of_the_reconstruction(adata, key):
    shares, _ = sn.tl.composition(adata, key, "sample")
    W, H = adata.obsm["X_nmf"].astype(float), adata.varm["nmf_loadings"].T.astype(float)
    for name in adata.obs["sample"].unique():
        rows = (adata.obs["sample"] == name).to_numpy()
        part = np.array([np.outer(W[rows, k], H[k]).sum() for k in range(3)])
        np.testing.assert_allclose(shares.loc[shares["library"] == name, "share"], part / part.sum(), rtol=1e-5)


def test_factors_without_loadings_are_summed(adata):
    del adata.varm["nmf_loadings"]
    shares, _ = sn.tl.composition(adata, "X_nmf", "sample")
    rows = (adata.obs["sample"] == "s0").to_numpy()
    part = adata.obsm["X_nmf"][rows].sum(0)
    np.testing.assert_allclose(shares.loc[shares["library"] == "s0", "share"], part / part.sum(), rtol=1e-5)


def test_two_conditions_are_tested_by_welch(adata):
    shares, test = sn.tl.composition(adata, "domain", "sample", condition_key="condition")
    wide = shares.pivot(index=["library", "condition"], columns="domain", values="share")
    a, b = (wide.xs(c, level="condition") for c in "ab")
    expected = [ttest_ind(*(np.arcsin(np.sqrt(x[d])) for x in (a, b)), equal_var=False) for d in wide]
    np.testing.assert_allclose(test["p"], [e.pvalue for e in expected], rtol=1e-9)
    np.testing.assert_allclose(test["F"], [e.statistic**2 for e in expected], rtol=1e-9)
    np.testing.assert_allclose(test["difference"], (b.mean() - a.mean()).to_numpy(), rtol=1e-9)
    order = np.argsort(test["p"].to_numpy())
    slow, least = np.empty(len(order)), 1.0  # Benjamini and Hochberg, from the largest p down
    for rank in range(len(order), 0, -1):
        least = min(least, test["p"].iloc[order[rank - 1]] * len(order) / rank)
        slow[order[rank - 1]] = least
    np.testing.assert_allclose(test["p_adjusted"], slow, rtol=1e-9)


def test_three_conditions_against_a_slow_form():
    rng = np.random.default_rng(3)
    values = [rng.normal(m, s, n) for m, s, n in ((0, 1, 5), (0.5, 3, 4), (2, 0.7, 7))]
    found = _composition._welch(values, ["a", "b", "c"])
    w = [len(v) / v.var(ddof=1) for v in values]
    grand = sum(wi * v.mean() for wi, v in zip(w, values, strict=True)) / sum(w)
    between = sum(wi * (v.mean() - grand) ** 2 for wi, v in zip(w, values, strict=True)) / 2
    rest = sum((1 - wi / sum(w)) ** 2 / (len(v) - 1) for wi, v in zip(w, values, strict=True))
    assert found["F"] == pytest.approx(between / (1 + 2 * 1 / 8 * rest))
    assert found["df"] == pytest.approx(8 / (3 * rest))
    assert 0 < found["p"] < 1


@pytest.mark.parametrize("sizes", [(3, 3), (5, 8), (4, 4, 4)], ids=str)
def test_p_is_calibrated_where_samples_vary_and_a_count_of_cells_is_not(sizes):
    rng = np.random.default_rng(sum(sizes))
    condition = pd.Series(pd.Categorical(np.repeat([f"c{i}" for i in range(len(sizes))], sizes)))
    by_sample, by_cell = [], []
    for _ in range(150):
        counts = drawn(rng, rng.integers(300, 3000, sum(sizes)))
        n = counts.sum(1)
        share = pd.DataFrame(counts / n[:, None])
        by_sample.append(_composition.compare(_composition.Shares(share, n, condition))["p"].to_numpy())
        pooled = np.stack([counts[(condition == c).to_numpy()].sum(0) for c in condition.cat.categories])
        by_cell.append(chi2_contingency(pooled)[1])
    rejected = (np.array(by_sample) < 0.05).mean()
    assert 0.02 < rejected < 0.075  # the level is .05; 750 p, five by five dependent
    assert (np.array(by_sample) < 0.5).mean() == pytest.approx(0.5, abs=0.09)
    assert (np.array(by_cell) < 0.05).mean() > 0.95


def test_a_planted_difference_is_found():
    rng = np.random.default_rng(5)
    counts = np.stack(
        [
            rng.multinomial(2000, rng.dirichlet(80 * p))
            for p in [BASE] * 5 + [np.array([0.2, 0.25, 0.35, 0.12, 0.08])] * 5
        ]
    )
    _, test = sn.tl.composition(
        table_of(counts, ["before"] * 5 + ["after"] * 5), "domain", "sample", condition_key="condition"
    )
    test = test.set_index("domain")
    assert (test.loc[["d0", "d2"], "p_adjusted"] < 0.01).all()
    assert (test.loc[["d1", "d3", "d4"], "p_adjusted"] > 0.05).all()
    # categories of a plain column are in alphabetical order: "after" comes first
    assert test.loc["d2", "difference"] == pytest.approx(test.loc["d2", "share_before"] - test.loc["d2", "share_after"])
    assert test.loc["d2", "difference"] < 0


@pytest.mark.parametrize(
    ("conditions", "note"),
    [
        (["a"] * 6, "one condition only"),
        (["a"] * 5 + ["b"], "fewer than 2 samples in b"),
        (["a", "b", "c", "d", "e", "f"], "fewer than 2 samples in a, b, c, d, e, f"),
    ],
)
def test_no_p_without_samples_to_compare(conditions, note):
    _, test = sn.tl.composition(
        table_of(drawn(np.random.default_rng(0)), conditions), "domain", "sample", condition_key="condition"
    )
    assert test["p"].isna().all()
    assert test["p_adjusted"].isna().all()
    assert (test["note"] == note).all()


def test_no_p_without_variation():
    counts = np.array([[50, 50], [50, 50], [20, 80], [70, 30]])
    _, test = sn.tl.composition(table_of(counts, ["a", "a", "b", "b"]), "domain", "sample", condition_key="condition")
    assert test["p"].isna().all()
    assert (test["note"] == "no variation between the samples of a").all()


def test_a_sample_without_labels_has_no_share_and_no_part_in_the_test(adata):
    whole = sn.tl.composition(adata[adata.obs["sample"] != "s1"].copy(), "domain", "sample", condition_key="condition")
    adata.obs.loc[adata.obs["sample"] == "s1", "domain"] = np.nan
    shares, test = sn.tl.composition(adata, "domain", "sample", condition_key="condition")
    empty = shares[shares["library"] == "s1"]
    assert empty["share"].isna().all()
    assert (empty["n_cells"] == 0).all()
    np.testing.assert_allclose(test["p"], whole.test["p"])


def test_unused_categories_are_no_domains(adata):
    adata.obs["domain"] = adata.obs["domain"].cat.add_categories("never")
    shares, test = sn.tl.composition(adata, "domain", "sample", condition_key="condition")
    assert "never" not in set(shares["domain"]) | set(test["domain"])


def test_one_domain_only_is_no_difference(adata):
    adata.obs["one"] = "x"
    shares, test = sn.tl.composition(adata, "one", "sample", condition_key="condition")
    assert (shares["share"] == 1).all()
    assert test["p"].isna().all()
    assert test["note"].str.startswith("no variation").all()


def test_writes_only_its_record_and_the_record_can_be_stored(adata, tmp_path):
    before = snapshot(adata)
    result = sn.tl.composition(adata, "domain", "sample", condition_key="condition")
    assert changed(before, snapshot(adata)) == ["uns/domain_composition"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    stored = ad.read_h5ad(tmp_path / "a.h5ad").uns["domain_composition"]
    np.testing.assert_allclose(stored["test"]["p"], result.test["p"])
    assert stored["shares"]["library"].tolist() == result.shares["library"].tolist()
    assert stored["params"]["condition_key"] == "condition"


@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning")
def test_a_condition_may_have_any_name(adata, tmp_path):
    adata.obs["condition"] = adata.obs["condition"].map({"a": "HER2+/-", "b": "HER2-"})
    result = sn.tl.composition(adata, "domain", "sample", condition_key="condition")
    assert {"share_HER2+/-", "share_HER2-"} <= set(result.test)
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for stored in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        np.testing.assert_allclose(
            stored.uns["domain_composition"]["test"]["share_HER2+|-"], result.test["share_HER2+/-"]
        )


def test_a_view_gives_the_same(adata):
    rows = adata.obs["sample"] != "s5"
    view, copy = adata[rows], adata[rows].copy()
    with pytest.warns(ad.ImplicitModificationWarning):
        shares = sn.tl.composition(view, "domain", "sample").shares
    pd.testing.assert_frame_equal(shares, sn.tl.composition(copy, "domain", "sample").shares)


BAD = {
    "no such key": ({"key": "nothing"}, KeyError, "neither in `adata.obs`"),
    "no such library": ({"library_key": "slide"}, KeyError, "slide"),
    "no such condition": ({"condition_key": "arm"}, KeyError, "arm"),
    "library missing": ({"library_key": "holes"}, ValueError, "missing"),
    "condition missing": ({"condition_key": "holes"}, ValueError, "missing .NaN. in sample 's0'"),
    "two conditions": ({"condition_key": "parts"}, ValueError, "more than one value .*sample 's0' has 'x', 'y'"),
    "no labels": ({"key": "empty"}, ValueError, "No cell has a label"),
    "negative factors": ({"key": "X_pca"}, ValueError, "negative"),
    "key with a slash": ({"key_added": "a/b"}, ValueError, "key_added"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_is_written(adata, case):
    options, error, match = BAD[case]
    adata.obs["holes"] = adata.obs["condition"].where(np.arange(adata.n_obs) > 3)
    adata.obs["parts"] = np.where(np.arange(adata.n_obs) < 9, "x", "y")
    adata.obs["empty"] = pd.Categorical([None] * adata.n_obs, categories=["x"])
    adata.obsm["X_pca"] = -np.ones((adata.n_obs, 2))
    before = snapshot(adata)
    with pytest.raises(error, match=match):
        sn.tl.composition(adata, **({"key": "domain", "library_key": "sample"} | options))
    assert changed(before, snapshot(adata)) == []
