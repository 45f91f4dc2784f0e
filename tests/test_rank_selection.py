"""Held-out error against a slow dense reference, planted ranks, the rule, what is written, bad input."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib import pyplot as plt
from scipy.optimize import nnls
from support import changed, small_tissue, snapshot

import spanmf as sn
from spanmf.core import _crossval, _error, _ops
from spanmf.tl import _select_n_components

FAST = {"n_tiles": 12, "n_folds": 3, "n_var_folds": 3, "n_restarts": 2}


@pytest.fixture(scope="module")
def tissue():
    return small_tissue(400, 60, 4)


@pytest.fixture(scope="module")
def table(tissue):
    return sn.tl.select_n_components(tissue, [2, 3, 4, 5, 6], **FAST)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(0.3, 1, (60, 3)) @ rng.gamma(0.3, 8, (3, 20))).astype(np.float32)
    X[0] = 1  # no empty variable
    return _ops.as_rows(sp.csr_matrix(X))


def dense(X):
    return sp.csr_matrix((X.data, X.indices, X.indptr), shape=X.shape).toarray().astype(np.float64)


# --- held-out error -----------------------------------------------------------------------------------------------------


def reference_errors(X, ranks, parts, fits, loss):
    """From the fits of every fold and rank, all dense: W row by row, and the prediction as a matrix."""
    X = X if loss == "kl" else _crossval.unit_variance(X)
    full = dense(X)
    errors, null = np.zeros((len(ranks), len(parts.fold_of_tile))), np.zeros(len(parts.fold_of_tile))
    for fold in range(parts.n_folds):
        held = parts.fold_of_tile[parts.tile] == fold
        train, mean = full[~held], full[~held].mean(0)
        models = [None]
        for fit in fits[fold * len(ranks) :][: len(ranks)]:
            W, H = fit.W.astype(float), fit.H.astype(float)
            size = (W**2).mean(0) / W.mean(0) if loss == "kl" else np.sqrt((W**2).mean(0))
            models.append((H * size[:, None], ((train - W @ H) ** 2).mean()))
        for i, model in enumerate(models):
            for j in range(parts.n_var_folds):
                hidden = parts.var_fold == j
                for row in np.flatnonzero(held):
                    predicted = predict(full[row], model, hidden, mean, loss)
                    target = errors[i - 1] if model else null
                    target[parts.tile[row]] += deviation(full[row, hidden], predicted, loss)
    return errors, null


def predict(x, model, hidden, mean, loss):
    if model is None:
        return mean[hidden] * (x[~hidden].sum() / mean[~hidden].sum() if loss == "kl" else 1)
    H, noise = model
    known = H[:, ~hidden]
    if loss == "frobenius":
        ridge = np.vstack([known.T, np.sqrt(noise) * np.eye(len(H))])
        return nnls(ridge, np.r_[x[~hidden], np.zeros(len(H))])[0] @ H[:, hidden]
    w = np.full(len(H), x[~hidden].sum() / known.sum())
    for _ in range(600):
        w *= (known @ (x[~hidden] / np.maximum(w @ known, 1e-20))) / (known.sum(1) + 1)
    profile = mean[hidden] / mean.sum()
    return (1 - _crossval.FLOOR) * w @ H[:, hidden] + _crossval.FLOOR * (w @ H.sum(1)) * profile


def deviation(x, mu, loss):
    if loss == "frobenius":
        return ((x - mu) ** 2).sum()
    log = np.where(x > 0, x * np.log(np.where(x > 0, x, 1) / np.maximum(mu, 1e-20)), 0)
    return 2 * (log - x + mu).sum()


def recorded_fits(monkeypatch):
    """The fits of the cross-validation, in order, as they are made."""
    fits = []
    original = _crossval.Predictor.of

    def record(fitted, *args):
        fits.append(fitted)
        return original(fitted, *args)

    monkeypatch.setattr(_crossval.Predictor, "of", record)
    return fits


@pytest.mark.parametrize("loss", ["frobenius", "kl"])
def test_held_out_error_is_that_of_a_dense_reference(rows, loss, monkeypatch):
    monkeypatch.setattr(_crossval, "SOLVED", 1e-9)
    parts = _crossval.split(rows, np.arange(60) % 6, 3, 3, np.random.default_rng(1))
    fits = recorded_fits(monkeypatch)
    got = _crossval.held_out_errors(rows, [2, 3], parts, np.random.default_rng(2), loss=loss, max_iter=30)
    assert [fit.W.shape for fit in fits] == [(40, 2), (40, 3)] * 3  # to the observations outside the fold alone
    expected = reference_errors(rows, [2, 3], parts, fits, loss)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-5)
    np.testing.assert_allclose(got[0], expected[0], rtol=2e-3)


@pytest.mark.parametrize("loss", ["frobenius", "kl"])
def test_objective_is_that_of_the_dense_product(rows, loss):
    rng = np.random.default_rng(3)
    W, H, X = rng.random((60, 3)), rng.random((3, 20)), dense(rows)
    half = 0.5 * deviation(X, W @ H, loss)
    assert _error.objective(rows, W, H, loss) == pytest.approx(half, rel=1e-5)


def test_held_out_values_do_not_take_part(rows, monkeypatch):
    """Other values in the held-out tiles change the error there, and the fits behind it not at all."""
    parts = _crossval.split(rows, np.arange(60) % 6, 3, 2, np.random.default_rng(1))
    held = np.flatnonzero(parts.fold_of_tile[parts.tile] == 0)
    fits = recorded_fits(monkeypatch)
    other = dense(rows)
    other[held] = other[held][:, ::-1]
    for X in (rows, _ops.as_rows(sp.csr_matrix(other))):
        _crossval.held_out_errors(X, [2], parts, np.random.default_rng(2), loss="kl", max_iter=5)
    np.testing.assert_array_equal(fits[0].H, fits[3].H)
    assert not np.array_equal(fits[1].H, fits[4].H)


def test_variables_have_unit_variance(rows):
    np.testing.assert_allclose(dense(_crossval.unit_variance(rows)).std(0), 1, rtol=1e-5)
    constant = _ops.as_rows(np.full((4, 2), 3.0, dtype=np.float32))
    np.testing.assert_array_equal(dense(_crossval.unit_variance(constant)), 3)


def test_tiles_are_compact_and_within_a_library():
    rng = np.random.default_rng(0)
    coords, libraries = rng.random((1000, 2)) * [4, 1], np.repeat([0, 1], [700, 300])
    tile = _crossval.spatial_tiles(coords, libraries, 20)
    sizes = np.bincount(tile)
    assert len(sizes) == 20
    assert sizes.max() <= 2 * sizes.min() + 2
    for t in range(20):
        assert len(set(libraries[tile == t])) == 1
    spread = np.array([coords[tile == t].std(0).prod() for t in range(20)])
    assert spread.max() < 0.3 * coords.std(0).prod()


def test_one_library_one_tile_at_least():
    tile = _crossval.spatial_tiles(np.zeros((9, 2)), np.repeat([0, 1, 2], 3), 3)
    np.testing.assert_array_equal(np.bincount(tile), [3, 3, 3])


def test_folds_of_variables_share_high_and_low(rows):
    parts = _crossval.split(rows, np.arange(60) % 6, 3, 4, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(parts.var_fold), 5)
    order = np.argsort(-dense(rows).sum(0), kind="stable")
    assert sorted(parts.var_fold[order[:4]]) == [0, 1, 2, 3]


# --- the rule -----------------------------------------------------------------------------------------------------------


def test_rule_takes_the_smallest_within_one_standard_error():
    level = np.array([0.0, 100, 200, 300])  # what tiles differ by does not count
    errors = np.array([5, 0.1, 0, 0.2])[:, None] + level + 0.2 * np.array([[1], [-1], [0], [1]]) * [1, -1, 1, -1]
    best, chosen, excess, spread = _crossval.paired_rule(errors)
    assert (best, chosen) == (2, 1)
    difference = errors - errors[2]
    np.testing.assert_allclose(excess, difference.sum(1))
    np.testing.assert_allclose(spread, 2 * difference.std(1, ddof=1))


def test_elbow_is_where_the_curve_bends():
    assert _crossval.elbow(np.arange(2, 8), np.array([0, 0.4, 0.8, 0.85, 0.9, 0.95])) == 2
    assert _crossval.elbow(np.array([2, 3]), np.array([0.5, 0.5])) == 0


def tabulated(errors):
    ranks = np.arange(2, 2 + len(errors))
    n = errors.shape[1]
    return _select_n_components.tabulate(
        ranks, errors, np.full(n, 10.0), np.arange(n) % 2, np.full(len(ranks), 0.5), np.arange(len(ranks)) / 10
    )


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        ([9, 6, 3], "compare larger"),
        ([3, 6, 9], "compare smaller"),
        ([13, 12, 14], "no better than the null"),
        ([9, 6, 8], "differ from run to run"),
    ],
)
def test_reason_says_what_to_look_at(curve, words):
    rng = np.random.default_rng(0)
    table = tabulated(np.array(curve)[:, None] + 0.01 * rng.random((3, 6)))
    assert words in table.attrs["reason"]
    assert str(table.attrs["n_components"]) in table.attrs["reason"]


# --- the public function ------------------------------------------------------------------------------------------------


def test_finds_the_planted_number(table):
    assert table.attrs["n_components"] == 4
    assert table["n_components"][table["suggested"]].item() == 4
    assert table["stability"][2] > 0.99
    assert table["explained_variance"].is_monotonic_increasing
    assert (table["cv_error"] < 1).all()


@pytest.mark.parametrize("k", [3, 6])
def test_finds_the_planted_number_of_counts(k):
    adata = sn.datasets.planted_factors(500, 60, k, rng=k)
    table = sn.tl.select_n_components(adata, range(k - 1, k + 3), loss="kl", **FAST)
    assert table.attrs["n_components"] == k


def test_explained_variance_is_the_metric(tissue, table):
    adata = tissue.copy()
    sn.tl.nmf(adata, 4, tol=1e-7)
    assert table["explained_variance"][2] == pytest.approx(sn.metrics.explained_variance(adata, "nmf"), abs=1e-3)


def test_same_seed_same_table_sparse_or_dense(tissue, table):
    for X in (tissue.X.toarray(), sp.csc_matrix(tissue.X)):
        other = ad.AnnData(X, obsm={"spatial": tissue.obsm["spatial"]})
        again = sn.tl.select_n_components(other, [6, 5, 4, 3, 2, 2], **FAST)
        pd.testing.assert_frame_equal(again, table)
    changed_seed = sn.tl.select_n_components(other, [2, 3, 4, 5, 6], rng=1, **FAST)
    assert not np.allclose(changed_seed["cv_error"], table["cv_error"], rtol=1e-9)


@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning", "ignore:.*zarr v2:UserWarning")
def test_writes_one_slot_that_can_be_stored(tissue, table, tmp_path):
    adata = tissue.copy()
    before = snapshot(adata)
    got = sn.tl.select_n_components(adata, [2, 3, 4, 5, 6], library_key="sample", key_added="ranks", **FAST)
    assert changed(before, snapshot(adata)) == ["uns/ranks"]
    adata.write_h5ad(tmp_path / "x.h5ad")
    adata.write_zarr(tmp_path / "x.zarr")
    for stored in (ad.read_h5ad(tmp_path / "x.h5ad"), ad.read_zarr(tmp_path / "x.zarr")):
        record = stored.uns["ranks"]
        pd.testing.assert_frame_equal(record["table"].reset_index(drop=True), got, check_dtype=False)
        assert record["n_components"] == 4
        assert record["reason"] == got.attrs["reason"]
        assert record["params"]["n_tiles"] == 12


def test_random_tiles_without_coordinates(tissue, caplog):
    caplog.set_level("INFO", logger="spanmf")
    table = sn.tl.select_n_components(ad.AnnData(tissue.X), [3, 4, 5], **FAST)
    assert table.attrs["n_components"] == 4
    assert "random" in caplog.text


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"n_components": [4]}, ValueError, "at least two"),
        ({"n_components": [4, 4]}, ValueError, "at least two"),
        ({"n_components": 4}, TypeError, "range"),
        ({"n_components": [2, 61]}, ValueError, r"min\(400, 60\)"),
        ({"n_components": [0, 3]}, ValueError, "at least 1"),
        ({"n_components": [2, 2.5]}, TypeError, "integer"),
        ({"n_components": [2, 41], "n_var_folds": 3}, ValueError, "only 40 of 60"),
        ({"n_folds": 13}, ValueError, "more than the 12 tiles"),
        ({"n_folds": 1}, ValueError, "at least 2"),
        ({"n_var_folds": 61}, ValueError, "more than the 60 variables"),
        ({"n_tiles": 201}, ValueError, "at most 200"),
        ({"n_restarts": 1}, ValueError, "at least 2"),
        ({"library_key": "nothing"}, KeyError, "nothing"),
        ({"layer": "nothing"}, KeyError, "nothing"),
        ({"loss": "l1"}, ValueError, "frobenius"),
    ],
)
def test_bad_input(tissue, given, error, match):
    before = snapshot(tissue)
    with pytest.raises(error, match=match):
        sn.tl.select_n_components(tissue, **({"n_components": [2, 3]} | FAST | given))
    assert changed(before, snapshot(tissue)) == []


# --- plot ---------------------------------------------------------------------------------------------------------------


def test_plot_shows_the_table(table):
    figure = sn.pl.rank_selection(table.sample(frac=1, random_state=0))
    try:
        error, stability, explained = figure.axes
        np.testing.assert_allclose(stability.lines[1].get_ydata(), table["stability"])
        np.testing.assert_allclose(explained.lines[1].get_xdata(), table["n_components"])
        np.testing.assert_allclose(error.containers[0].lines[0].get_ydata(), table["cv_error"])
        for ax in figure.axes:
            assert [set(line.get_xdata()) for line in ax.lines if line.get_gid() == "suggestion"] == [{4}]
        (ring,) = [c for c in explained.collections if c.get_gid() == "elbow"]
        assert ring.get_offsets()[0, 0] == table["n_components"][table["elbow"]].item()
        assert "4 components" in error.get_title()
    finally:
        plt.close(figure)


def test_plot_names_what_is_missing(table):
    with pytest.raises(KeyError, match="stability"):
        sn.pl.rank_selection(table.drop(columns="stability"))
