"""Consensus of many factorisations: filter, clusters, recovery of planted factors, what is written, bad input."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from numba import set_num_threads
from numba.core.config import NUMBA_NUM_THREADS
from scipy.optimize import linear_sum_assignment
from support import changed, small_tissue, snapshot

import spanmf as sn
from spanmf.core import _consensus, _ops, _solver


@pytest.fixture(scope="module")
def planted():
    return sn.datasets.planted_factors(600, 80, 5, rng=1)


@pytest.fixture(scope="module")
def tissue():
    return small_tissue(300, 40, 4)


def match(A, B):
    """Cosine of matched rows."""
    cosine = _consensus.unit_rows(A) @ _consensus.unit_rows(B).T
    return cosine[linear_sum_assignment(-cosine)]


def runs_of(spectra):
    n = len(spectra)
    return _consensus.Runs(_consensus.unit_rows(spectra.reshape(-1, spectra.shape[2])).reshape(spectra.shape), np.zeros(n), np.ones(n, bool))  # fmt: skip


@pytest.fixture
def noisy():
    """Ten runs of three spectra, in random order, with a little noise; the truth."""
    rng = np.random.default_rng(0)
    truth = _consensus.unit_rows(rng.gamma(0.2, 1, (3, 30)))
    spectra = np.stack([np.abs(truth[rng.permutation(3)] + rng.normal(0, 0.01, (3, 30))) for _ in range(10)])
    return spectra, truth


def test_local_density_is_the_mean_distance_to_the_nearest_others(noisy):
    S = _consensus.unit_rows(noisy[0].reshape(30, 30))
    distances = np.sort(np.linalg.norm(S[:, None] - S[None], axis=2), axis=1)[:, 1:4]
    np.testing.assert_allclose(_consensus.local_density(S, 3), distances.mean(1), atol=1e-7)


def test_empty_spectra_are_left_out():
    S = np.eye(4)
    S[2] = 0
    density = _consensus.local_density(S, 9)
    assert np.isinf(density[2])
    np.testing.assert_allclose(density[[0, 1, 3]], np.sqrt(2))
    assert np.isinf(_consensus.local_density(np.zeros((2, 3)), 1)).all()


def test_filter_removes_planted_junk_runs(noisy):
    spectra, truth = noisy
    rng = np.random.default_rng(1)
    junk = rng.permuted(np.tile(rng.gamma(0.05, 1, 30), (6, 1)), axis=1).reshape(2, 3, 30)
    runs = runs_of(np.concatenate([spectra, junk]))
    density = _consensus.densities(runs)
    agreed = _consensus.consensus(runs, density, 0.3, np.random.default_rng(0))
    np.testing.assert_array_equal(np.flatnonzero(agreed.cluster < 0), np.arange(30, 36))
    assert agreed.share_filtered == pytest.approx(6 / 36)
    assert match(agreed.H, truth).min() > 0.999
    kept_all = _consensus.consensus(runs, density, 2.0, np.random.default_rng(0))
    assert kept_all.share_filtered == 0
    assert kept_all.silhouette < agreed.silhouette


def test_consensus_is_the_median_of_the_clusters(noisy):
    runs = runs_of(noisy[0])
    agreed = _consensus.consensus(runs, _consensus.densities(runs), 0.5, np.random.default_rng(0))
    S = runs.H.reshape(30, 30)
    for c, row in enumerate(agreed.H):
        median = np.median(S[agreed.cluster == c], axis=0)
        np.testing.assert_allclose(row, median / np.linalg.norm(median), rtol=1e-6)


def test_stability_is_one_for_equal_runs_and_less_for_others(noisy):
    spectra, truth = noisy
    assert _consensus.matched_cosine(runs_of(np.stack([truth, truth[::-1]]))) == pytest.approx(1)
    other = np.random.default_rng(5).gamma(0.2, 1, (1, 3, 30))
    assert _consensus.matched_cosine(runs_of(np.concatenate([spectra[:2], other]))) < 0.9


def test_restarts_differ_in_nothing_but_their_stream(planted):
    X = _ops.as_rows(planted.X)
    streams = np.random.default_rng(0).spawn(3)
    runs, best = _consensus.restarts(X, 5, streams, max_iter=40)
    alone = _consensus.restart(X, 5, np.random.default_rng(0).spawn(3)[2], loss="frobenius", max_iter=40, tol=1e-5)
    np.testing.assert_array_equal(runs.H[2], _consensus.unit_rows(alone.H))
    assert best.trace[-1] == runs.objective.min()


def test_a_restart_on_many_rows_ends_on_all_of_them(monkeypatch, planted):
    monkeypatch.setattr(_consensus, "WARM_ROWS", 100)
    X = _ops.as_rows(planted.X)
    warm = _consensus.restart(X, 5, np.random.default_rng(0), loss="frobenius", max_iter=300, tol=1e-7)
    monkeypatch.setattr(_consensus, "WARM_ROWS", 10_000)
    cold = _consensus.restart(X, 5, np.random.default_rng(0), loss="frobenius", max_iter=300, tol=1e-7)
    assert warm.W.shape == (600, 5)
    assert warm.trace[-1] == pytest.approx(cold.trace[-1], rel=1e-2)
    assert warm.trace[0] < 0.9 * cold.trace[0]


@pytest.mark.parametrize("loss", ["frobenius", "kl"])
def test_recovers_planted_factors(planted, loss):
    adata = planted.copy()
    if loss == "frobenius":
        adata.X = np.log1p(adata.X.toarray())
    sn.tl.consensus_nmf(adata, 5, n_restarts=8, loss=loss)
    truth = adata.varm["H_true"].T.astype(float)
    if loss == "kl":
        assert match(adata.varm["consensus_nmf_loadings"].T, truth).min() > 0.97
    W, true_W = adata.obsm["X_consensus_nmf"], adata.obsm["W_true"]
    assert match(W.T.astype(float), true_W.T.astype(float)).min() > 0.9
    record = adata.uns["consensus_nmf"]
    assert record["stability"] > 0.95
    assert record["silhouette"] > 0.9
    assert record["objective"] == pytest.approx(record["run_objective"].min(), rel=0.02)
    assert record["cluster"].shape == record["density"].shape == (40,)


def test_factors_are_the_projection_on_the_consensus(tissue):
    adata = tissue.copy()
    sn.tl.consensus_nmf(adata, 4, n_restarts=4)
    H = adata.varm["consensus_nmf_loadings"].T
    np.testing.assert_allclose(np.linalg.norm(H, axis=1), 1, rtol=1e-5)
    W = _solver.solve_w(_ops.as_rows(adata.X), H)
    np.testing.assert_allclose(adata.obsm["X_consensus_nmf"], W, atol=1e-4)
    new = tissue.copy()
    sn.tl.project(new, adata, key="consensus_nmf")
    np.testing.assert_allclose(new.obsm["X_consensus_nmf"], W, atol=1e-4)
    share = adata.obsm["X_consensus_nmf"].sum(0)
    assert (np.diff(share) <= 0).all()


def test_same_seed_same_factors_on_any_threads_sparse_or_dense(tissue):
    results = []
    for X, threads in ((tissue.X, 1), (tissue.X.toarray(), NUMBA_NUM_THREADS), (sp.csc_matrix(tissue.X), 1)):
        adata = ad.AnnData(X)
        set_num_threads(threads)
        try:
            sn.tl.consensus_nmf(adata, 4, n_restarts=4, rng=3)
        finally:
            set_num_threads(NUMBA_NUM_THREADS)
        results.append(adata)
    for other in results[1:]:
        np.testing.assert_array_equal(other.obsm["X_consensus_nmf"], results[0].obsm["X_consensus_nmf"])
        np.testing.assert_array_equal(other.uns["consensus_nmf"]["density"], results[0].uns["consensus_nmf"]["density"])


def test_one_component(tissue):
    adata = tissue.copy()
    sn.tl.consensus_nmf(adata, 1, n_restarts=2)
    assert adata.obsm["X_consensus_nmf"].shape == (300, 1)
    assert np.isnan(adata.uns["consensus_nmf"]["silhouette"])
    assert adata.uns["consensus_nmf"]["stability"] == pytest.approx(1, abs=1e-3)


@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning", "ignore:.*zarr v2:UserWarning")
def test_writes_its_slots_and_they_can_be_stored(tissue, tmp_path):
    adata = tissue.copy()
    mask = np.arange(40) % 5 > 0
    before = snapshot(adata)
    out = sn.tl.consensus_nmf(adata[:200], 3, n_restarts=3, mask_var=mask, key_added="c", copy=True)
    assert changed(before, snapshot(adata)) == []
    assert set(out.uns["c"]["params"]) >= {"n_restarts", "density_threshold", "rng"}
    assert not out.varm["c_loadings"][~mask].any()
    out.write_h5ad(tmp_path / "x.h5ad")
    out.write_zarr(tmp_path / "x.zarr")
    for stored in (ad.read_h5ad(tmp_path / "x.h5ad"), ad.read_zarr(tmp_path / "x.zarr")):
        np.testing.assert_array_equal(stored.obsm["X_c"], out.obsm["X_c"])
        np.testing.assert_array_equal(stored.uns["c"]["cluster"], out.uns["c"]["cluster"])
        assert list(stored.obs["c"].cat.categories) == list(out.obs["c"].cat.categories)


def test_warns_of_runs_that_did_not_converge(tissue):
    with pytest.warns(sn._checks.ConvergenceWarning, match="3 of 3 runs"):
        sn.tl.consensus_nmf(tissue.copy(), 4, n_restarts=3, max_iter=1)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"n_components": 41}, ValueError, r"min\(300, 40\)"),
        ({"n_restarts": 1}, ValueError, "at least 2"),
        ({"n_restarts": 2.0}, TypeError, "integer"),
        ({"density_threshold": 0}, ValueError, "more than 0"),
        ({"density_threshold": 1e-9}, ValueError, "lowest threshold that leaves enough"),
        ({"layer": "nothing"}, KeyError, "nothing"),
        ({"key_added": "a/b"}, ValueError, "key_added"),
        ({"rng": "x"}, ValueError, "rng"),
    ],
)
def test_bad_input(tissue, given, error, match):
    before = snapshot(tissue)
    with pytest.raises(error, match=match):
        sn.tl.consensus_nmf(tissue, **({"n_components": 6, "n_restarts": 3} | given))
    assert changed(before, snapshot(tissue)) == []
