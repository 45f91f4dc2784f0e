"""The published form of STL-NMF: against a slow literal one, monotone where theory says so, and what may go wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from reference import stl_paper as slow

import spanmf as sn
from spanmf.core import _stl_paper

LAMBDAS = (30.0, 5.0, 300.0)


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    n, p, k = 24, 30, 3
    B = rng.gamma(0.5, 20, (k, p))
    X = sp.csr_matrix(np.floor(rng.dirichlet(np.ones(k), n) @ B))
    coords, regions = rng.uniform(0, 5, (n, 2)), rng.integers(-1, 3, n)
    omega = rng.dirichlet(np.ones(k), 3)
    return X, B, coords, regions, omega, _stl_paper.start(n, k, rng)


def onehot(regions):
    return np.where(regions[:, None] >= 0, np.eye(3)[regions], 0.0)


def test_adjacency_is_the_slow_one(problem):
    _, _, coords, regions, _, _ = problem
    A = _stl_paper.adjacency(coords, regions, (2.0, 3.0))
    np.testing.assert_allclose(A, slow.adjacency(coords, onehot(regions), 2.0, 3.0), rtol=1e-12)
    libraries = np.arange(len(coords)) % 2
    cut = _stl_paper.adjacency(coords, regions, (2.0, 3.0), libraries)
    np.testing.assert_allclose(cut, np.where(libraries[:, None] == libraries, A, 0))


@pytest.mark.parametrize("group", ["printed", "meant"])
@pytest.mark.parametrize("dense", [False, True])
def test_objective_and_update_are_the_slow_ones(problem, group, dense):
    X, B, coords, regions, omega, V = problem
    A = _stl_paper.adjacency(coords, regions, (2.0, 3.0))
    weights = _stl_paper.Weights(LAMBDAS, (2.0, 3.0), omega, group)
    terms = _stl_paper.Terms.of(X.toarray() if dense else X, B, A, regions, weights)
    W = onehot(regions) @ omega
    literal = (X.toarray().T, B.T, V.T, A, W, LAMBDAS, group)
    after, before = terms.step(V)
    assert before == pytest.approx(slow.objective(*literal), rel=1e-12)
    np.testing.assert_allclose(after, slow.update(*literal).T, rtol=1e-10)
    assert terms.objective(after) == pytest.approx(slow.objective(*literal[:2], after.T, *literal[3:]), rel=1e-12)


@pytest.mark.parametrize("group", ["printed", "meant"])
@pytest.mark.parametrize("lambdas", [(0.0, 0.0, 0.0), LAMBDAS, (3e4, 50.0, 0.0), (10.0, 0.0, 1e4)])
def test_objective_never_rises_without_sums_and_cutoff(problem, group, lambdas):
    X, B, coords, regions, omega, _ = problem
    A = _stl_paper.adjacency(coords, regions, (2.0, 3.0))
    weights = _stl_paper.Weights(lambdas, (2.0, 3.0), omega, group, n_layers=60, normalise=False, cutoff=0.0)
    trace = _stl_paper.fit(X, B, A, regions, weights, np.random.default_rng(1)).trace
    assert (np.diff(trace) <= 1e-9 * trace[:-1]).all()
    assert trace[-1] < 0.9 * trace[0]


def test_dividing_by_the_sums_voids_the_descent():
    """Fault of the published form: at another depth the objective it leaves is not the one it descends on."""
    section = sn.datasets.stl_nmf_triplets(1, kind="plain")[0]
    B, regions = section.varm["B"].to_numpy().T, section.obs["region"].cat.codes.to_numpy()
    A = _stl_paper.adjacency(section.obsm["spatial"], regions, (5.0, 5.0))
    weights = _stl_paper.Weights(n_layers=20, cutoff=0.0)
    X = section.X * 5
    trace = _stl_paper.fit(X, B, A, regions, weights, np.random.default_rng(0)).trace
    free = _stl_paper.fit(X, B, A, regions, replace(weights, normalise=False), np.random.default_rng(0)).trace
    assert trace[-1] > 2 * free[-1]
    assert (np.diff(free) <= 1e-9 * free[:-1]).all()


def test_the_two_readings_of_the_group_term_pull_opposite_ways():
    """As printed shares are pushed away from the region's, as meant towards them."""
    section = sn.datasets.stl_nmf_triplets(1)[0]
    types = tuple(section.varm["B"].columns)
    omega = ((0.96, 0.01, 0.01, 0.01, 0.01),) * 3
    mean = {}
    for group in ("printed", "meant"):
        weights = sn.tl.StlWeights(
            (0, 0, 10), group=group, relative=True, types=types, regions=("Pancreas", "Stroma", "Cancer"), omega=omega
        )
        fitted = sn.tl.stl_nmf(section, section.varm["B"].T, region_key="region", weights=weights, copy=True)
        mean[group] = fitted.obsm["stl_nmf"].iloc[:, 0].mean()
    true = section.obsm["V_true"].iloc[:, 0].mean()
    assert mean["printed"] < true < mean["meant"]


# --- the call ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def section():
    return sn.datasets.stl_nmf_triplets(1, kind="smoothed", rng=3)[0]


def error(adata, key="stl_nmf"):
    V = adata.obsm["V_true"].to_numpy()
    return np.linalg.norm(adata.obsm[key].to_numpy() - V) / np.linalg.norm(V)


def test_finds_the_planted_shares(section, tmp_path):
    adata = section.copy()
    reference = adata.varm["B"].T
    sn.tl.stl_nmf(adata, reference, region_key="region", preset="paper")
    assert error(adata) < 0.1
    np.testing.assert_allclose(adata.obsm["stl_nmf"].sum(axis=1), 1, atol=1e-5)
    assert len(adata.uns["stl_nmf"]["trace"]) == 151
    assert adata.uns["stl_nmf"]["params"] == {"region_key": "region", "preset": "paper"}
    np.testing.assert_allclose(adata.uns["stl_nmf"]["weights"]["lambdas"], [30, 50, 30])
    again = sn.tl.stl_nmf(section, reference, region_key="region", weights=sn.tl.StlWeights(), copy=True)
    pd.testing.assert_frame_equal(again.obsm["stl_nmf"], adata.obsm["stl_nmf"])
    assert "stl_nmf" not in section.obsm
    adata.write_h5ad(tmp_path / "a.h5ad")


def test_spot_without_counts_is_nan_and_spots_without_region_have_shares(section):
    adata = section.copy()
    adata.X = sp.csr_matrix(adata.X.multiply(np.arange(adata.n_obs)[:, None] != 4), dtype=np.float32)
    adata.obs.loc[adata.obs_names[:10], "region"] = np.nan
    with pytest.warns(UserWarning, match="1 of 429 spots have no counts"):
        sn.tl.stl_nmf(adata, adata.varm["B"].T, region_key="region", preset="paper")
    shares = adata.obsm["stl_nmf"]
    assert shares.index[shares.isna().all(axis=1)].tolist() == ["spot5"]
    assert shares.notna().all(axis=1).sum() == 428


def test_one_spot_and_one_type(section):
    one = section[:1].copy()
    sn.tl.stl_nmf(one, one.varm["B"].T, preset="paper")
    assert error(one) < 0.1
    single = sn.tl.stl_nmf(section, section.varm["B"].T.iloc[:1], preset="paper", copy=True)
    assert (single.obsm["stl_nmf"] == 1).all(axis=None)


def test_weights_of_types_whose_names_no_table_can_hold(section):
    B = section.varm["B"].T.iloc[:2].set_axis(["a", "M/TC"])
    learned = sn.tl.StlWeights(types=("a", "M|TC"))  # as the columns of a table with the truth have them
    adata = sn.tl.stl_nmf(section, B, weights=learned, copy=True)
    assert list(adata.uns["stl_nmf"]["types"]) == ["a", "M/TC"]


@pytest.mark.parametrize(
    ("options", "error_type", "match"),
    [
        ({"preset": "published"}, ValueError, "`preset` must be one of"),
        ({"preset": "paper", "n_genes": 100}, ValueError, "`n_genes` has no effect"),
        ({"weights": sn.tl.StlWeights(), "interval": 0.9}, ValueError, "`interval` has no effect"),
        ({"weights": 3}, TypeError, "learn_stl_nmf"),
        ({"weights": "nowhere.json"}, FileNotFoundError, "no file or folder"),
        ({"weights": sn.tl.StlWeights(types=("a", "b"))}, ValueError, "learned for the types 'a', 'b'"),
        ({"weights": sn.tl.StlWeights(regions=("x",))}, ValueError, "region_key"),
        ({"weights": sn.tl.StlWeights(regions=("x",)), "region_key": "region"}, ValueError, "'Pancreas'"),
    ],
)
def test_bad_input(section, options, error_type, match):
    adata = section.copy()
    with pytest.raises(error_type, match=match):
        sn.tl.stl_nmf(adata, adata.varm["B"].T, **options)
    assert "stl_nmf" not in adata.obsm


def test_too_many_spots_are_refused_with_their_cost(section, monkeypatch):
    monkeypatch.setattr(_stl_paper, "MAX_SPOTS", 400)
    with pytest.raises(ValueError, match=f"{2 * 8 * 429**2:,} bytes.*leave out"):
        sn.tl.stl_nmf(section, section.varm["B"].T, preset="paper", copy=True)


# --- the file of the weights ------------------------------------------------------------------------------------------

WEIGHTS = sn.tl.StlWeights(
    (0.01, 0.2, 0.03), (1.0, 2.0), "meant", True, 20, False, 0.0, ("a", "b"), ("r",), ((0.25, 0.75),), (0.2, 0.1), (0.3, 0.2), 1, 2.5
)  # fmt: skip


def test_weights_come_back_as_they_were(tmp_path):
    WEIGHTS.save(tmp_path / "w.json")
    assert sn.tl.StlWeights.load(tmp_path / "w.json") == WEIGHTS
    assert sn.tl.StlWeights.load(str(tmp_path / "w.json")) == WEIGHTS


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda text: text[: len(text) // 2], "Is it complete"),
        (lambda text: "[1]", "does not say that it holds"),
        (lambda text: json.dumps(json.loads(text) | {"format": "other"}), "does not say that it holds"),
        (lambda text: json.dumps(json.loads(text) | {"version": 99}), "version 99"),
        (lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "omega"}), "it should hold"),
        (lambda text: json.dumps(json.loads(text) | {"lambdas": [1, 2]}), "3 numbers"),
        (lambda text: json.dumps(json.loads(text) | {"omega": [[0.5]]}), "1 regions × 2 types"),
        (lambda text: json.dumps(json.loads(text) | {"sigmas": [0, 1]}), "more than 0"),
        (lambda text: json.dumps(json.loads(text) | {"n_layers": "many"}), "an integer"),
    ],
)
def test_bad_files_are_named(tmp_path, change, match):
    WEIGHTS.save(tmp_path / "w.json")
    (tmp_path / "w.json").write_text(change((tmp_path / "w.json").read_text()))
    with pytest.raises(OSError, match=match):
        sn.tl.StlWeights.load(tmp_path / "w.json")


# --- the generator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["regions", "grid"])
@pytest.mark.parametrize("n_types", [2, 3, 5])
def test_triplets_are_what_they_say(layout, n_types):
    plain, noisy, smoothed = sn.datasets.stl_nmf_triplets(3, n_types, kind="all", layout=layout, rng=1)
    for adata in (plain, noisy, smoothed):
        V, B = adata.obsm["V_true"].to_numpy(), adata.varm["B"].to_numpy()
        np.testing.assert_array_equal(adata.X.toarray(), np.floor(V @ B.T).astype(np.float32))
        np.testing.assert_allclose(V.sum(1), 1)
    by_region = plain.obsm["V_true"].groupby(plain.obs["region"].astype(str))
    assert by_region.nunique().to_numpy().max() == 1
    assert noisy.obsm["V_true"].nunique().min() > 10
    assert smoothed.obsm["V_true"].round(9).nunique().max() > len(by_region)


def test_triplets_repeat_by_seed_and_take_a_real_layout(section):
    reference = section.varm["B"].T
    options = {"adata": section, "reference": reference, "types": ["type2", "type1"], "count_noise": 0.5}
    a, b = (sn.datasets.stl_nmf_triplets(1, rng=5, **options)[0] for _ in range(2))
    assert (a.X != b.X).nnz == 0
    np.testing.assert_array_equal(a.obsm["spatial"], section.obsm["spatial"])
    assert list(a.obsm["V_true"]) == ["type2", "type1"]
    with pytest.raises(KeyError, match="type9"):
        sn.datasets.stl_nmf_triplets(1, reference=reference, types=["type9"])
    with pytest.raises(ValueError, match="give one"):
        sn.datasets.stl_nmf_triplets(1, types=["type9"])
    with pytest.raises(ValueError, match="`kind` must be"):
        sn.datasets.stl_nmf_triplets(1, kind="smooth")
