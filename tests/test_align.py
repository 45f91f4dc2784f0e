"""Alignment of modalities: matches, fields, pools and grids against planted truth; what apart-ness suggests."""

from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from support import snapshot

import spanmf as sn

mpl.use("Agg")


def table(xy: np.ndarray, prefix: str, p: int = 4, *, counts: bool = True, seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    X = rng.poisson(3, (len(xy), p)) if counts else rng.random((len(xy), p))
    adata = ad.AnnData(
        sp.csr_matrix(X.astype(np.float32)), obs=pd.DataFrame(index=[f"{prefix}{i}" for i in range(len(xy))])
    )
    adata.var_names = [f"{prefix}_f{i}" for i in range(p)]
    adata.obsm["spatial"] = xy
    return adata


def test_mutual_neighbours_equal_the_slow_search() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((80, 2)) * 100, rng.random((60, 2)) * 100
    mdata = sn.pp.align_modalities(table(x, "a"), table(y, "b"), radius=8)
    d = np.linalg.norm(x[:, None] - y, axis=2)
    pairs = {
        (i, j) for i in range(80) for j in range(60) if d[i, j] <= 8 and d[i].argmin() == j and d[:, j].argmin() == i
    }
    found = mdata.mod["protein"].obs["aligned_from"]
    assert {(int(n[1:]), int(f[1:])) for n, f in found.items() if n.startswith("a")} == pairs
    report = mdata.uns["alignment"]
    assert report["n_matched"] == len(pairs)
    assert report["n_only_a"] == 80 - len(pairs)
    assert report["n_only_b"] == 60 - len(pairs)
    assert mdata.n_obs == 140 - len(pairs)
    dropped = sn.pp.align_modalities(table(x, "a"), table(y, "b"), radius=8, unmatched="drop")
    assert [t.n_obs for t in dropped.mod.values()] == [len(pairs)] * 2


def right(mdata) -> float:
    protein = mdata.mod["protein"]
    matched = protein.obs_names.isin(mdata.mod["rna"].obs_names)
    return float((protein.obs_names == protein.obs["same_as"])[matched].mean())


def test_the_warp_undoes_a_smooth_displacement() -> None:
    tissue = sn.datasets.rna_protein_tissue(1500, displacement=6, rng=1)
    plain = sn.pp.align_modalities(tissue.mod["rna"], tissue.mod["protein"])
    warped = sn.pp.align_modalities(tissue.mod["rna"], tissue.mod["protein"], warp=60)
    assert right(plain) < 0.85
    assert right(warped) > 0.95
    assert warped.uns["alignment"]["n_matched"] > plain.uns["alignment"]["n_matched"]
    assert 3 < warped.uns["alignment"]["displacement_median"] < 9


def test_names_come_before_places() -> None:
    rng = np.random.default_rng(0)
    a, b = table(rng.random((20, 2)), "x"), table(rng.random((20, 2)) + 1e6, "x")
    b = b[5:].copy()
    mdata = sn.pp.align_modalities(a, b, names=("one", "two"))
    assert mdata.uns["alignment"]["method"] == "name"
    assert mdata.uns["alignment"]["n_matched"] == 15
    assert list(mdata.mod) == ["one", "two"]


@pytest.mark.parametrize("counts", [True, False])
def test_pooling_adds_up_the_cells_under_a_spot(counts: bool) -> None:
    rng = np.random.default_rng(0)
    spots = np.stack(np.meshgrid(np.arange(3), np.arange(3)), axis=-1).reshape(-1, 2) * 100.0
    cells = rng.random((400, 2)) * 260 - 30
    a, b = table(spots, "spot"), table(cells, "cell", counts=counts)
    mdata = sn.pp.align_modalities(a, b, method="pool", radius=27.5)
    pooled = mdata.mod["protein"]
    d = np.linalg.norm(cells[:, None] - spots, axis=2)
    for name in pooled.obs_names:
        under = d[:, int(name[4:])] <= 27.5
        values = b.X.toarray()[under]
        expected = values.sum(0) if counts else values.mean(0)
        np.testing.assert_allclose(pooled[name].X.toarray().ravel(), expected, rtol=1e-5)
        assert pooled.obs.loc[name, "n_pooled"] == under.sum()
    assert mdata.uns["alignment"]["n_only_b"] == (d.min(1) > 27.5).sum()


def test_grid() -> None:
    rng = np.random.default_rng(0)
    a, b = table(rng.random((300, 2)) * 100, "a"), table(rng.random((200, 2)) * 100, "b")
    mdata = sn.pp.align_modalities(a, b, method="grid", radius=20, unmatched="drop")
    assert mdata.mod["rna"].obs_names.equals(mdata.mod["protein"].obs_names)
    assert mdata.mod["rna"].obs["n_pooled"].sum() <= 300
    whole = sn.pp.align_modalities(a, b, method="grid", radius=20)
    assert whole.mod["rna"].X.sum() == pytest.approx(a.X.sum())


def test_inputs_are_left_alone_and_joint_factors_follow() -> None:
    tissue = sn.datasets.rna_protein_tissue(600, displacement=2, missing=0.2)
    a, b = tissue.mod["rna"], tissue.mod["protein"]
    before = snapshot(a), snapshot(b)
    mdata = sn.pp.align_modalities(a, b, warp=50)
    assert (snapshot(a), snapshot(b)) == before
    sn.tl.joint_nmf(mdata, 8)
    assert mdata.obsm["X_joint_nmf"].shape == (mdata.n_obs, 8)
    ax = sn.pl.alignment(mdata)
    assert len(ax.collections[0].get_segments()) == mdata.uns["alignment"]["n_matched"]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"method": "pool"}, ValueError, "needs `radius`: the radius of a spot"),
        ({"method": "pool", "radius": 5, "warp": 10}, ValueError, "does not use it"),
        ({"method": "name"}, ValueError, "No name is in both"),
        ({"radius": -1}, ValueError, "radius"),
        ({"warp": 0}, ValueError, "warp"),
        ({"names": ("a", "a")}, ValueError, "two different names"),
        ({"method": "x"}, ValueError, "mutual_nearest"),
    ],
)
def test_options_that_do_not_hold(options: dict, error, match: str) -> None:
    rng = np.random.default_rng(0)
    a, b = table(rng.random((30, 2)) * 100, "a"), table(rng.random((30, 2)) * 100, "b")
    with pytest.raises(error, match=match):
        sn.pp.align_modalities(a, b, **options)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda xy: xy * 0.2125 + [9000, 0], "times as wide as a: are they in the same units"),
        (lambda xy: xy[:, ::-1], "look swapped"),
        (lambda xy: xy + 5000, "Register the sections first"),
    ],
)
def test_places_that_do_not_meet_say_what_it_looks_like(change, match: str) -> None:
    xy = np.random.default_rng(0).random((100, 2)) * [1000, 100] + [2000, 0]
    with pytest.raises(ValueError, match=match):
        sn.pp.align_modalities(table(xy, "a"), table(np.asarray(change(xy)), "b"), radius=5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda xy: xy / 0.2125, "4.71 times as wide as a.*same units"),
        (lambda xy: xy[:, ::-1], "look swapped.*with the axes of b swapped"),
    ],
)
def test_frames_that_meet_by_chance_are_warned_of(change, match: str) -> None:
    tissue = sn.datasets.rna_protein_tissue(600, displacement=2, rng=1)
    a, b = tissue.mod["rna"], tissue.mod["protein"]
    sn.pp.align_modalities(a, b)  # without a warning, as warnings are errors here
    b.obsm["spatial"] = np.ascontiguousarray(change(b.obsm["spatial"]))
    with pytest.warns(sn._checks.SpanmfWarning, match=match):
        sn.pp.align_modalities(a, b)


def test_a_smaller_section_of_the_same_unit_is_no_reproach() -> None:
    tissue = sn.datasets.rna_protein_tissue(2000, displacement=3, rng=1)
    b = tissue.mod["protein"]
    crop = b[np.abs(b.obsm["spatial"] - np.median(b.obsm["spatial"], axis=0)).max(1) < 120].copy()
    assert sn.pp.align_modalities(tissue.mod["rna"], crop).uns["alignment"]["n_matched"] > 0.7 * crop.n_obs


def test_units_that_are_noted_and_differ() -> None:
    tissue = sn.datasets.rna_protein_tissue(300, displacement=2)
    a, b = tissue.mod["rna"], tissue.mod["protein"]
    b.uns["um_per_unit"] = 0.2125
    before = snapshot(b)
    for method in ("mutual_nearest", "pool", "grid"):
        with pytest.raises(ValueError, match=r"of 1 µm.*of 0\.2125 µm.*one frame first"):
            sn.pp.align_modalities(a, b, method=method, radius=10)
    assert snapshot(b).keys() == before.keys()


def test_a_table_without_places() -> None:
    a = table(np.random.default_rng(0).random((20, 2)), "a")
    b = a.copy()
    b.obs_names = [f"b{i}" for i in range(20)]
    del b.obsm["spatial"]
    with pytest.raises(KeyError, match="spatial"):
        sn.pp.align_modalities(a, b)
