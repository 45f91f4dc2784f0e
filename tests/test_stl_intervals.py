"""Intervals of the shares of cells: calibrated on spots made of the reference's own cells."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import spanmf as sn
from spanmf.core import _stl_calibrate
from spanmf.core._stl_spots import Cells, make_spots

K, P = 4, 150
SLOTS = ("stl_nmf_lower", "stl_nmf_upper")


def draw_cells(n: int, rng: np.random.Generator, profiles: np.ndarray) -> Cells:
    """Cells that differ from the mean of their type by far more than counting does."""
    codes = np.arange(n) % K
    rates = profiles[codes] * rng.lognormal(0, 0.9, (n, P)) * rng.lognormal(0, 0.4, (n, 1))
    return Cells(sp.csr_matrix(rng.poisson(rates).astype(np.float32)), codes, K)


def simulate(seed: int, n: int = 300) -> tuple[Cells, np.ndarray, np.ndarray]:
    """Cells of a reference, counts of spots made of others, and the true shares."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.5, 3, P) * np.exp(rng.normal(0, 0.9, (K, P)))
    shares = np.repeat(rng.dirichlet(np.full(K, 0.4), n // 10), 10, axis=0)
    X, V = make_spots(draw_cells(400, rng, profiles), shares, np.full(n, 500.0), (3, 12), rng)
    return draw_cells(120, rng, profiles), X, V


def table_of(cells: Cells) -> ad.AnnData:
    adata = ad.AnnData(cells.X.copy())
    adata.obs["type"] = pd.Categorical.from_codes(cells.codes, list("abcd"))
    adata.var_names = [f"g{j}" for j in range(P)]
    return adata


@pytest.fixture(scope="module")
def simulated() -> tuple[ad.AnnData, ad.AnnData, np.ndarray]:
    """Reference, section with a graph, true shares."""
    cells, X, V = simulate(0)
    section = ad.AnnData(X, obsm={"spatial": np.stack(np.divmod(np.arange(len(V)), 10), 1) * 100.0})
    section.var_names = [f"g{j}" for j in range(P)]
    sn.gr.contact_neighbors(section)
    return sn.tl.reference_profiles(table_of(cells), "type"), section, V


def coverage(section: ad.AnnData, V: np.ndarray) -> tuple[float, float]:
    """Of the shares above zero, and of those that are zero."""
    lower, upper = (section.obsm[slot].to_numpy() for slot in SLOTS)
    inside = (lower <= V + 1e-6) & (upper >= V - 1e-6)
    return float(inside[V > 0].mean()), float(inside[V == 0].mean())


# --- spots of cells ---------------------------------------------------------------------------------------------------


def test_halves_part_every_type_and_share_its_only_cell() -> None:
    codes = np.array([0, 1, 1, 0, 0, 2, 1, 0])
    cells = Cells(sp.csr_matrix(np.arange(8.0)[:, None] + 1), codes, 3)
    first, second = cells.halves(np.random.default_rng(0))
    values = [set(half.X.toarray().ravel()) for half in (first, second)]
    assert values[0] & values[1] == {6.0}
    assert values[0] | values[1] == set(range(1, 9))
    for half in (first, second):
        assert (np.bincount(half.codes, minlength=3) >= 1).all()
        for t, mean in enumerate(half.reference().B):
            np.testing.assert_allclose(mean, half.X.toarray()[half.codes == t].mean(0))


def test_cells_without_counts_are_left_out() -> None:
    X = sp.csr_matrix(np.array([[1.0, 0], [0, 0], [0, 2], [0, 0]]))
    assert Cells(X, np.array([0, 0, 1, 1]), 2).with_counts().codes.tolist() == [0, 1]
    assert Cells(X, np.array([0, 1, 0, 1]), 2).with_counts() is None


def test_spots_hold_the_cells_that_were_drawn_and_as_many_counts_as_asked() -> None:
    rng = np.random.default_rng(1)
    cells = Cells(
        sp.csr_matrix(np.repeat(50 * np.eye(3, 5), 4, axis=0).astype(np.float32)), np.repeat(np.arange(3), 4), 3
    )
    shares = np.tile([0.5, 0.5, 0.0], (400, 1))
    X, V = make_spots(cells, shares, np.full(400, 100.0), (2, 5), rng)
    assert (V[:, 2] == 0).all()
    assert abs(V[:, 0].mean() - 0.5) < 0.05
    np.testing.assert_allclose(V.sum(1), 1)
    n_cells = np.array([next(m for m in range(2, 6) if np.allclose(v * m, np.round(v * m))) for v in V])
    assert set(n_cells) == {2, 3, 4, 5}
    assert X.sum(1).mean() == pytest.approx(100, rel=0.05)
    found = X.toarray()[:, :3] / X.toarray().sum(1, keepdims=True)
    assert np.abs(found - V).mean() < 0.05
    assert not X.toarray()[:, 3:].any()


def test_spots_deeper_than_their_cells_are_drawn_anew_and_genes_have_their_factors() -> None:
    cells = Cells(sp.csr_matrix(np.full((2, 4), 3.0, np.float32)), np.arange(2), 2)
    factors = np.array([0.0, 1.0, 1.0, 2.0])
    X, _ = make_spots(cells, np.full((300, 2), 0.5), np.full(300, 400.0), (2, 2), np.random.default_rng(0), factors)
    np.testing.assert_allclose(X.toarray().mean(0), 400 * factors / 4, rtol=0.05)


# --- the calibration --------------------------------------------------------------------------------------------------


def test_each_class_of_each_type_is_covered_as_often_as_asked() -> None:
    rng = np.random.default_rng(2)
    truth = rng.dirichlet(np.full(3, 0.6), 6000) * (rng.random((6000, 3)) < 0.7)
    depth = rng.lognormal(6, 0.5, 6000)
    noise = np.array([0.02, 0.05, 0.15])  # of the three types
    found = np.abs(truth + rng.normal(0, noise, truth.shape)).clip(0, 1).astype(np.float32)
    calibration = _stl_calibrate.from_errors(found[:3000], truth[:3000], depth[:3000], 0.8)
    lower, upper = calibration.bounds(found[3000:], depth[3000:])
    held, found = truth[3000:], found[3000:]
    assert (lower <= found).all()
    assert (found <= upper).all()
    for t in range(3):
        inside, there = (lower[:, t] <= held[:, t]) & (held[:, t] <= upper[:, t]), held[:, t] > 0
        assert 0.74 < inside[there].mean() < 0.88
        assert 0.74 < inside[~there].mean() < 0.9
    widths = (upper - lower).mean(0)
    assert widths[0] < widths[1] < widths[2]


def test_a_type_without_errors_of_its_own_borrows_those_of_all() -> None:
    rng = np.random.default_rng(3)
    truth = rng.dirichlet(np.ones(3), 500)
    truth[:, 2] = 0
    found = np.abs(truth + rng.normal(0, 0.05, truth.shape))
    depth = np.full(500, 100.0)
    calibration = _stl_calibrate.from_errors(found, truth, depth, 0.9)
    lower, upper = calibration.bounds(np.array([[0.3, 0.3, 0.3]]), depth[:1])
    np.testing.assert_allclose(lower[0, 2], lower[0, :2].mean(), atol=0.02)
    np.testing.assert_allclose(upper[0, 2], upper[0, :2].mean(), atol=0.02)


def test_patches_are_neighbours() -> None:
    n = 400
    line = sp.csr_matrix(sp.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[-1, 1]))
    valid, rng = np.flatnonzero(np.arange(n) % 50 != 7), np.random.default_rng(0)
    np.testing.assert_array_equal(_stl_calibrate.patch(line, valid, rng, n), valid)
    for graph, least in ((line, 60), (None, 0)):
        rows = _stl_calibrate.patch(graph, valid, rng, 80)
        assert len(rows) == 80
        assert (np.diff(rows) > 0).all()
        assert np.isin(rows, valid).all()
        assert (np.diff(rows) == 1).sum() >= least


# --- by the public call -----------------------------------------------------------------------------------------------


def test_intervals_cover_types_that_are_there_and_types_that_are_not(simulated) -> None:
    reference, section, V = simulated
    section = section.copy()
    sn.tl.stl_nmf(section, reference, interval=0.9)
    assert section.uns["stl_nmf"]["calibrated"]
    present, absent = coverage(section, V)
    assert 0.8 < present < 0.98
    assert absent > 0.8
    del reference.uns["cells"]  # the curvature alone knows of counting only
    sn.tl.stl_nmf(section, reference, interval=0.9)
    assert not section.uns["stl_nmf"]["calibrated"]
    assert coverage(section, V)[0] < present - 0.1


def whole_numbers(mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.floor(mean)


def whole_numbers_of_noise(mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.floor(np.maximum(mean + rng.normal(0, 0.5, mean.shape), 0))


def mean_of_four(mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(4 * mean) / 4


@pytest.mark.parametrize("made", [whole_numbers, whole_numbers_of_noise, mean_of_four])
def test_intervals_by_least_squares_need_no_cells(made) -> None:
    rng = np.random.default_rng(5)
    B = rng.gamma(0.3, 12, (K, 500)) * np.array([1.0, 0.7, 0.5, 0.3])[:, None]
    V = np.maximum(np.repeat(rng.dirichlet(np.full(K, 0.3), 8), 40, axis=0) + rng.normal(0, 0.05, (320, K)), 0)
    V /= V.sum(1, keepdims=True)
    names = [f"g{j}" for j in range(500)]
    section = ad.AnnData(sp.csr_matrix(made(V @ B, rng).astype(np.float32)), var=pd.DataFrame(index=names))
    reference = pd.DataFrame(B, index=list("abcd"), columns=names)
    sn.tl.stl_nmf(section, reference, interval=0.9, graph_weight=0)
    assert section.uns["stl_nmf"]["likelihood"] == "gaussian"
    assert section.uns["stl_nmf"]["calibrated"]
    present, absent = coverage(section, V)
    assert 0.82 < present < 0.98
    assert absent > 0.82


@pytest.fixture
def small() -> tuple[ad.AnnData, ad.AnnData]:
    cells, X, _ = simulate(1, n=40)
    section = ad.AnnData(X)
    section.var_names = [f"g{j}" for j in range(P)]
    return sn.tl.reference_profiles(table_of(cells), "type"), section


def bounds(section: ad.AnnData, reference, **options) -> np.ndarray:
    section = section.copy()
    sn.tl.stl_nmf(section, reference, interval=0.8, graph_weight=0, **options)
    return np.stack([section.obsm[slot].to_numpy() for slot in ("stl_nmf", *SLOTS)])


def test_the_same_seed_gives_the_same_intervals_and_none_changes_the_shares(small) -> None:
    reference, section = small
    first = bounds(section, reference)
    np.testing.assert_array_equal(first, bounds(section, reference))
    assert (first[1] <= first[0]).all()
    assert (first[0] <= first[2]).all()
    sn.tl.stl_nmf(section, reference, graph_weight=0)
    np.testing.assert_array_equal(first[0], section.obsm["stl_nmf"].to_numpy())


def test_fewer_cells_in_a_spot_make_wider_intervals(small) -> None:
    reference, section = small
    few, many = (bounds(section, reference, cells_per_spot=pair) for pair in ((1, 3), (40, 60)))
    assert (few[2] - few[1]).mean() > 1.2 * (many[2] - many[1]).mean()


def test_factors_of_genes_libraries_regions_and_empty_spots_take_part(small) -> None:
    reference, section = small
    section.X = sp.csr_matrix(section.X.toarray() * (np.arange(40) != 5)[:, None])
    section.obs["region"] = pd.Categorical(np.arange(40) % 2)
    with pytest.warns(UserWarning, match="no counts"):
        found = bounds(section, reference, platform=True, region_key="region", region_weight=5.0)
    assert np.isnan(found[:, 5]).all()
    assert np.isfinite(np.delete(found, 5, axis=1)).all()


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:.*zarr v2:UserWarning")
def test_cells_stay_with_the_reference(small, tmp_path: Path, store: str) -> None:
    reference, section = small
    getattr(reference, f"write_{store}")(tmp_path / f"reference.{store}")
    read = getattr(ad, f"read_{store}")(tmp_path / f"reference.{store}")
    np.testing.assert_array_equal(bounds(section, reference), bounds(section, read))


def test_cells_follow_a_reference_that_is_cut_down(small) -> None:
    reference, section = small
    genes = [f"g{j}" for j in range(P - 1, 19, -1)]  # fewer, and in another order
    part = reference[["c", "a"], genes].copy()
    section.uns.pop("stl_nmf", None)
    sn.tl.stl_nmf(section, part, interval=0.8, graph_weight=0)
    assert section.uns["stl_nmf"]["calibrated"]
    assert list(section.obsm["stl_nmf_upper"].columns) == ["c", "a"]


def test_without_cells_of_every_type_the_intervals_are_those_of_counting(small) -> None:
    reference, section = small
    frame = pd.DataFrame(reference.X, index=reference.obs_names, columns=reference.var_names)
    other = reference.copy()
    other.obs_names = ["a", "b", "c", "new"]
    for without in (frame, other):
        sn.tl.stl_nmf(section, without, interval=0.8, graph_weight=0)
        assert not section.uns["stl_nmf"]["calibrated"]


def test_as_many_cells_are_kept_as_asked() -> None:
    table = table_of(simulate(2)[0])
    assert "cells" not in sn.tl.reference_profiles(table, "type", keep_cells=0).uns
    kept = sn.tl.reference_profiles(table, "type", keep_cells=7).uns["cells"]
    assert kept["X"].shape == (28, P)
    assert pd.Series(kept["types"]).value_counts().tolist() == [7] * 4
    rows = {tuple(row) for row in table.X.toarray()}
    assert all(tuple(row) in rows for row in kept["X"].toarray())
    with pytest.raises(ValueError, match="keep_cells"):
        sn.tl.reference_profiles(table, "type", keep_cells=-1)


@pytest.mark.parametrize("pair", [(5, 2), (0, 3), (2.5, 3), 5, (1, 2, 3)])
def test_bad_numbers_of_cells(small, pair) -> None:
    reference, section = small
    with pytest.raises(ValueError, match="cells_per_spot"):
        sn.tl.stl_nmf(section, reference, interval=0.9, cells_per_spot=pair)
    assert "stl_nmf" not in section.obsm
