"""The number of domains: halves that share no tile, information by hand, planted numbers, records, bad input."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.spatial import cKDTree
from sklearn.metrics import adjusted_rand_score
from support import changed, small_tissue, snapshot

import spanmf as sn
from spanmf.core import _domains, _smooth, _stability

FAST = {"n_components": 5, "n_splits": 2}


def linked(adata: ad.AnnData) -> ad.AnnData:
    sn.gr.contact_neighbors(adata, library_key="sample")
    return adata


@pytest.fixture(scope="module")
def made() -> ad.AnnData:
    return linked(small_tissue(300, 40))


@pytest.fixture
def tissue(made) -> ad.AnnData:
    return made.copy()


# --- the halves -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3])
def test_halves_are_equal_and_lie_side_by_side(dim):
    rng = np.random.default_rng(0)
    coords = rng.random((2000, dim)) * [1000, 300, 50][:dim]
    library = (coords[:, 0] > 600).astype(int)
    before = coords.copy()
    first = _stability.halves(coords, library, rng)
    assert abs(first.mean() - 0.5) < 0.03
    nearest = cKDTree(coords).query(coords, 2)[1][:, 1]
    assert (first == first[nearest]).mean() > 0.75  # one half of all, if they were dealt cell by cell
    np.testing.assert_array_equal(coords, before)
    assert (first != _stability.halves(coords, library, rng)).mean() > 0.2  # another split is another one


def test_halves_of_very_few_observations_both_have_some():
    rng = np.random.default_rng(0)
    for n in (4, 5, 9):
        first = _stability.halves(rng.random((n, 2)), np.zeros(n, dtype=int), rng)
        assert 0 < first.sum() < n


# --- the information ------------------------------------------------------------------------------------------------


def slow_information(p, q) -> float:
    """I − H(p | q) − H(q | p), cell by cell, in bits."""
    n, total = len(p), 0.0
    for a, b in zip(p, q, strict=True):
        both, one, other = np.mean((p == a) & (q == b)), np.mean(p == a), np.mean(q == b)
        total += np.log2(both / (one * other)) + np.log2(both / other) + np.log2(both / one)
    return total / n


def test_information_against_a_slow_form():
    rng = np.random.default_rng(1)
    p = rng.integers(0, 4, 300)
    q = np.where(rng.random(300) < 0.7, p, rng.integers(0, 5, 300))
    assert _stability.shared_information(p, q) == pytest.approx(slow_information(p, q))


def test_information_pays_for_what_both_find_and_is_charged_for_what_one_finds():
    p = np.repeat(np.arange(4), 100)
    assert _stability.shared_information(p, p) == pytest.approx(2)  # two bits, nothing lost
    assert _stability.shared_information(p, p[::-1]) == pytest.approx(2)  # names do not matter
    coarse = p // 2
    assert _stability.shared_information(coarse, coarse) == pytest.approx(1)
    rng = np.random.default_rng(0)
    noise = [p * 2 + rng.integers(0, 2, 400) for _ in range(2)]  # each half splits every domain as it likes
    assert _stability.shared_information(*noise) == pytest.approx(0, abs=0.1)
    assert _stability.shared_information(p, rng.permutation(p)) < -3


def test_agreement_against_a_slow_form():
    """Clustered alone, carried over by nearest centres, compared on all."""
    adata = linked(small_tissue(200, 30))
    Z, A = adata.obsm["W"].astype(np.float32), adata.obsp["contact_connectivities"].tocsr()
    first = np.arange(200) % 40 < 20
    ari, information = _stability.agreement(Z, A, first, [3], _domains.potts_mixture, np.random.default_rng(0))
    rng, labelings = np.random.default_rng(0), []
    for half in (first, ~first):
        own = _domains.potts_mixture(Z[half], 3, _smooth.as_graph(A[half][:, half]), rng)
        centres = np.array([Z[half][own == k].mean(0) for k in range(3)], dtype=float)
        labelings.append(np.array([((centres - z) ** 2).sum(1).argmin() for z in Z.astype(float)]))
    assert ari[0] == pytest.approx(adjusted_rand_score(*labelings))
    assert information[0] == pytest.approx(slow_information(*labelings))


# --- the choice -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_a_planted_number_is_found(seed):
    """Domains that come back many times, so that each half has them all."""
    rng = np.random.default_rng(seed)
    xy = rng.random((900, 2)) * 600
    domain = (xy // 100).astype(int) @ [1, 2] % 4
    rates = 0.3 + 3 * np.eye(4).repeat(8, axis=1)
    adata = ad.AnnData(rng.poisson(rates[domain]).astype(np.float32), obsm={"spatial": xy})
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sn.gr.contact_neighbors(adata, 25, 0)
    table = sn.tl.select_n_domains(adata, range(2, 8), n_components=6, n_splits=3, rng=seed)
    assert table.loc[table["suggested"], "n_domains"].tolist() == [4]


def test_table_and_record(tissue, tmp_path):
    before = snapshot(tissue)
    table = sn.tl.select_n_domains(tissue, [5, 2, 3], library_key="sample", **FAST)
    assert changed(before, snapshot(tissue)) == ["uns/select_n_domains"]
    record = tissue.uns["select_n_domains"]
    assert table["n_domains"].tolist() == [2, 3, 5]
    assert record["information"].shape == record["stability"].shape == (2, 3)
    np.testing.assert_allclose(table["information"], record["information"].mean(0))
    np.testing.assert_allclose(table["stability_sd"], record["stability"].std(0, ddof=1))
    best = table["information"].idxmax()
    assert table.index[table["suggested"]].tolist() == [best]
    assert record["n_domains"] == table.loc[best, "n_domains"]
    assert record["reason"].startswith(f"{record['n_domains']} domains")
    tissue.write_h5ad(tmp_path / "a.h5ad")
    stored = ad.read_h5ad(tmp_path / "a.h5ad").uns["select_n_domains"]
    np.testing.assert_allclose(stored["table"]["information"], table["information"])
    assert stored["params"]["n_splits"] == 2


def test_same_seed_same_table_and_sparse_as_dense(tissue):
    options = {"n_domains": [3, 7], "library_key": "sample", **FAST}
    one = sn.tl.select_n_domains(tissue, **options)
    dense = tissue.copy()
    dense.X = dense.X.toarray()
    pd.testing.assert_frame_equal(one, sn.tl.select_n_domains(tissue, **options))
    pd.testing.assert_frame_equal(one, sn.tl.select_n_domains(dense, **options), atol=1e-6)
    other = sn.tl.select_n_domains(tissue, **options, rng=1)
    assert not np.allclose(one["stability"], other["stability"])


def test_given_factors_are_used_as_they_are(tissue):
    options = {"n_domains": [3, 7], "n_splits": 2, "smooth": False, "scale": None}
    tissue.obsm["X_planted"] = tissue.obsm["W"]
    table = sn.tl.select_n_domains(tissue, use_rep="planted", **options)
    Z, A = tissue.obsm["W"].astype(np.float32), tissue.obsp["contact_connectivities"].tocsr()
    expected = []
    for rng in np.random.default_rng(0).spawn(2):
        first = _stability.halves(tissue.obsm["spatial"], np.zeros(tissue.n_obs), rng)
        expected.append(_stability.agreement(Z, A, first, [3, 7], _domains.potts_mixture, rng)[0])
    np.testing.assert_allclose(table["stability"], np.mean(expected, axis=0))
    smoothed = sn.tl.select_n_domains(tissue, use_rep="planted", **(options | {"smooth": True}))
    assert not np.allclose(smoothed["stability"], table["stability"])
    k_means = sn.tl.select_n_domains(tissue, use_rep="planted", clustering="kmeans", **options)
    assert not np.allclose(k_means["stability"], table["stability"])


def test_the_reason_says_what_to_mind():
    def reason(information, sd=0.0):
        table = pd.DataFrame({"n_domains": [2, 3, 4], "information": information, "information_sd": sd, "n_splits": 4})
        table["suggested"] = table["information"] == max(information)
        return sn.tl._select_n_domains._suggest(table)[1]

    assert "larger" not in reason([0.1, 1.0, 0.5])
    assert "it is the largest candidate" in reason([0.1, 0.5, 1.0])
    assert "within one standard error of it: 4" in reason([0.1, 1.0, 0.9], 0.4)
    assert "not above 0" in reason([-1.0, -0.5, -2.0])


BAD = {
    "none": ({"n_domains": []}, ValueError, "empty"),
    "one domain": ({"n_domains": [1, 2]}, ValueError, "at least 2"),
    "not an integer": ({"n_domains": [2.5]}, TypeError, "integer"),
    "twice": ({"n_domains": [2, 2]}, ValueError, "more than once"),
    "every cell its own": ({"n_domains": [2, 300]}, ValueError, "more than 75"),
    "one split": ({"n_splits": 1}, ValueError, "n_splits"),
    "no such clustering": ({"clustering": "leiden"}, ValueError, "clustering"),
    "no graph": ({"connectivity_key": "nothing"}, KeyError, "No graph 'nothing'"),
    "no coordinates": ({"spatial_key": "xy"}, KeyError, "xy"),
    "no libraries": ({"library_key": "slide"}, KeyError, "slide"),
    "no such representation": ({"use_rep": "X_none"}, KeyError, "X_none"),
    "too many components": ({"n_components": 41}, ValueError, "n_components"),
    "key with a slash": ({"key_added": "a/b"}, ValueError, "key_added"),
    "a negative value": ({"layer": "negative"}, ValueError, "negative"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_is_written(tissue, case):
    options, error, match = BAD[case]
    tissue.layers["negative"] = -tissue.X
    before = snapshot(tissue)
    with pytest.raises(error, match=match):
        sn.tl.select_n_domains(tissue, **({"n_domains": [2, 3]} | FAST | options))
    assert changed(before, snapshot(tissue)) == []
