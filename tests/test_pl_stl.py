"""What the plots of cell types in spots draw."""

from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from support import snapshot

import spanmf as sn
from spanmf.pl._fit_quality import against_like
from spanmf.pl._proportions import dominant, largest, wedges, with_other

mpl.use("Agg")


@pytest.fixture
def section() -> ad.AnnData:
    """200 spots of 20 types, some of them rare; spot 3 is without counts."""
    adata = sn.datasets.visium_section(200, n_genes=200)
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.r_[np.full(5, 1.0), np.full(15, 0.05)], 200)
    shares[3] = np.nan
    names = [f"type {k}" for k in range(18)] + ["a|b", "zero"]
    shares[:, -1] = np.where(np.isnan(shares[:, -1]), np.nan, 0)
    shares /= shares.sum(1, keepdims=True)
    adata.obsm["stl_nmf"] = pd.DataFrame(shares.astype(np.float32), index=adata.obs_names, columns=names)
    adata.uns["stl_nmf"] = {"types": np.array([*names[:18], "a/b", "zero"], dtype=object)}
    yield adata
    plt.close("all")


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    adata = sn.datasets.visium_section(200, n_genes=200)
    cells = sn.datasets.xenium_tissue(800, n_genes=200, n_libraries=1)
    sn.gr.contact_neighbors(adata)
    sn.tl.stl_nmf(adata, sn.tl.reference_profiles(cells, "cell_type"))
    return adata


def legend(drawn) -> list[str]:
    return [t.get_text() for t in drawn.figure.legends[0].get_texts()]


def pies(ax) -> list[PolyCollection]:
    return [c for c in ax.collections if c.get_gid() == "pies"]


def area(corners: np.ndarray) -> float:
    x, y = corners[:, 0], corners[:, 1]
    return 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def test_pies_have_the_areas_of_the_shares(section: ad.AnnData) -> None:
    before = snapshot(section)
    ax = sn.pl.proportions(section)
    assert snapshot(section) == before
    names = legend(ax)
    assert len(names) == 14
    assert names[-2:] == ["other", "no counts"]
    colors = [h.get_markerfacecolor() for h in ax.figure.legends[0].legend_handles]
    drawn = np.zeros((200, 13))
    xy = section.obsm["spatial"]
    radius = None
    for collection in pies(ax):
        for path, color in zip(collection.get_paths(), collection.get_facecolors(), strict=True):
            corners = path.vertices[: len(path.vertices) - 1]
            i = np.abs(xy - corners[0]).sum(1).argmin()
            np.testing.assert_allclose(corners[0], xy[i])
            part = next(j for j, c in enumerate(colors[:13]) if np.allclose(mpl.colors.to_rgba(c), color))
            radius = np.linalg.norm(corners[1] - corners[0])
            drawn[i, part] += area(corners) / (np.pi * radius**2)
    parts, labels = with_other(section.obsm["stl_nmf"].to_numpy(float), list(section.uns["stl_nmf"]["types"]), largest(
        section.obsm["stl_nmf"].to_numpy(float), 12))  # fmt: skip
    assert labels == names[:-1]
    assert drawn[3].sum() == 0, "a spot without counts has no pie"
    known = np.arange(200) != 3
    np.testing.assert_allclose(drawn[known], parts[known], atol=0.02)
    np.testing.assert_allclose(parts[known].sum(1), 1)


def test_wedges_go_clockwise_from_twelve() -> None:
    quarter, rest = wedges(np.zeros((2, 2)), 1.0, np.array([0, np.pi / 2]), np.array([np.pi / 2, 2 * np.pi]))
    np.testing.assert_allclose(quarter[1], [0, -1], atol=1e-12)  # up, where y points down
    np.testing.assert_allclose(quarter[-1], [1, 0], atol=1e-12)
    np.testing.assert_allclose(rest[-1], [0, -1], atol=1e-12)
    assert len(rest) > len(quarter)


def test_a_local_type_is_told_before_one_that_is_a_little_everywhere() -> None:
    shares = np.full((100, 4), 0.05)
    shares[:, 0] = 0.85
    shares[:5] = [0.1, 0.0, 0.9, 0.0]
    assert largest(shares, 2) == [0, 2]
    assert largest(shares, 3) == [0, 1, 2, 3], "one type alone is no 'other'"


def test_chosen_types_and_a_palette(section: ad.AnnData) -> None:
    ax = sn.pl.proportions(section, types=["a/b", "type 1"], palette={"type 1": "red"})
    assert legend(ax) == ["type 1", "a/b", "other", "no counts"]
    assert ax.figure.legends[0].legend_handles[0].get_markerfacecolor() == "red"
    every = [f"type {k}" for k in range(18)] + ["a/b", "zero"]
    assert legend(sn.pl.proportions(section, types=every)) == [*every, "no counts"]


def test_maps_draw_every_type(section: ad.AnnData) -> None:
    figure = sn.pl.proportions(section, kind="maps")
    titles = [ax.get_title() for ax in figure.axes[:20]]
    assert titles == [f"type {k}" for k in range(18)] + ["a/b", "zero"]
    values = figure.axes[0].collections[0].get_array()
    assert len(values) == 199, "a spot without counts is left out"
    np.testing.assert_allclose(np.sort(values), np.sort(section.obsm["stl_nmf"]["type 0"].dropna()))
    section.obs["half"] = np.where(section.obsm["spatial"][:, 0] < 2500, "left", "right")
    figure = sn.pl.proportions(section, kind="maps", types=["type 0", "type 1"], library_key="half")
    assert [ax.get_ylabel() for ax in figure.axes[:4]] == ["type 0", "", "type 1", ""]
    assert [ax.get_title() for ax in figure.axes[:2]] == ["left", "right"]


def test_the_dominant_type_and_its_share(section: ad.AnnData) -> None:
    shares = section.obsm["stl_nmf"].to_numpy(float)
    top, codes = dominant(shares)
    assert codes[3] == -1
    np.testing.assert_array_equal(codes[:3], shares[:3].argmax(1))
    ax = sn.pl.dominant_type(section)
    names = legend(ax)
    counts = [int(n.rsplit("(", 1)[1].rstrip(")")) for n in names if "(" in n]
    assert sum(counts) == 200
    assert "no counts (1)" in names
    assert not any(n.startswith("zero") for n in names), "a type that is the largest nowhere"
    cells = ax.collections[0]
    offsets, colors = np.asarray(cells.get_offsets()), cells.get_facecolors()
    strongest = int(np.nanargmax(top))
    drawn = colors[np.abs(offsets - section.obsm["spatial"][strongest]).sum(1).argmin()]
    plain = sn.pl.dominant_type(section, shade=False)
    full = plain.collections[0]
    same = full.get_facecolors()[
        np.abs(np.asarray(full.get_offsets()) - section.obsm["spatial"][strongest]).sum(1).argmin()
    ]
    np.testing.assert_allclose(drawn[:3], top[strongest] * same[:3] + (1 - top[strongest]), atol=0.16)
    assert "share 30%" in names
    assert "share 30%" not in legend(plain)


def test_colours_agree_between_plots(fitted: ad.AnnData) -> None:
    a, b = sn.pl.proportions(fitted, n_types=12), sn.pl.dominant_type(fitted)
    of = {h.get_label(): h.get_markerfacecolor() for h in a.figure.legends[0].legend_handles}
    shown = {h.get_label().rsplit(" (", 1)[0]: h.get_markerfacecolor() for h in b.figure.legends[0].legend_handles}
    common = set(of) & set(shown)
    assert len(common) > 2
    assert all(of[name] == shown[name] for name in common)


def test_4000_spots_and_20_types_are_drawn_whole() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    xy = np.stack(np.divmod(np.arange(n), 64), 1).astype(float)
    adata = ad.AnnData(np.ones((n, 1), np.float32), obsm={"spatial": xy, "s": rng.dirichlet(np.full(20, 0.2), n)})
    ax = sn.pl.proportions(adata, "s")
    parts, _ = with_other(adata.obsm["s"], [""] * 20, largest(adata.obsm["s"], 12))
    assert sum(len(c.get_paths()) for c in pies(ax)) == (parts > 1e-3).sum()
    assert all(c.get_rasterized() for c in pies(ax))
    plt.close("all")


def test_pies_too_small_to_see_are_told() -> None:
    xy = np.random.default_rng(0).random((30_000, 2)) * 1000
    shares = np.random.default_rng(1).dirichlet(np.ones(3), len(xy))
    adata = ad.AnnData(np.ones((len(xy), 1), np.float32), obsm={"spatial": xy, "s": shares})
    with pytest.warns(sn._checks.SpanmfWarning, match="too small"):
        sn.pl.proportions(adata, "s", types=["0"])
    plt.close("all")


def test_depth_is_taken_off_the_deviance() -> None:
    depth = np.exp(np.random.default_rng(0).normal(6, 1, 400))
    values = 100 / depth
    values[7] *= 3
    ratio = against_like(values, depth)
    assert ratio[7] == pytest.approx(3, rel=0.4)
    assert np.abs(np.log2(np.delete(ratio, 7))).mean() < 0.2
    values[5] = np.nan
    assert np.isnan(against_like(values, depth)[5])
    assert np.isnan(against_like(np.full(4, np.nan), np.ones(4))).all()
    np.testing.assert_allclose(against_like(np.array([2.0]), np.array([5.0])), 1)


def test_fit_quality_draws_spots_and_names_bad_genes(fitted: ad.AnnData) -> None:
    adata = fitted.copy()
    used = np.flatnonzero(adata.var["stl_nmf_deviance"].notna())
    total = np.asarray(adata.X.sum(0)).ravel()
    bad = used[np.argsort(-total[used])[5]]
    adata.var.iloc[bad, adata.var.columns.get_loc("stl_nmf_deviance")] *= 50
    figure = sn.pl.fit_quality(adata, n_genes=3)
    named = [t.get_text() for t in figure.axes[1].texts]
    assert len(named) == 3
    assert adata.var_names[bad] in named
    assert len(figure.axes[0].collections[0].get_array()) == 200
    adata.uns.clear()
    assert len(sn.pl.fit_quality(adata, n_genes=0).axes[1].texts) == 0
    adata.obs["half"] = np.where(np.arange(200) < 100, "a", "b")
    axes = sn.pl.fit_quality(adata, library_key="half").axes
    assert [ax.get_title() for ax in axes[:2]] == ["a", "b"]
    assert axes[2].get_xlabel() == "counts in the section"
    plt.close("all")


def test_learned_weights(section: ad.AnnData, tmp_path) -> None:
    regions = tuple(section.obs["domain"].cat.categories)
    weights = sn.tl.StlWeights(
        lambdas=(1, 2, 3), sigmas=(0.1, 4), training_error=(0.4, 0.2, 0.1), validation_error=(0.4, 0.25, 0.3), best_epoch=1,
        types=("a",), regions=regions, omega=tuple((1.0,) for _ in regions),
    )  # fmt: skip
    figure = sn.pl.learned_weights(weights)
    assert len(figure.axes) == 2
    training, held_out, best = figure.axes[0].lines
    np.testing.assert_allclose(training.get_ydata(), weights.training_error)
    np.testing.assert_allclose(held_out.get_ydata(), weights.validation_error)
    assert best.get_xdata()[0] == 1
    assert "graph off" in figure.axes[1].get_title()
    weights.save(tmp_path / "w.json")
    before = snapshot(section)
    figure = sn.pl.learned_weights(tmp_path / "w.json", section, region_key="domain")
    assert snapshot(section) == before
    A = np.asarray(figure.axes[2].images[0].get_array())
    assert A.shape == (200, 200)
    np.testing.assert_allclose(np.diag(A), 1)
    np.testing.assert_allclose(A, A.T)
    untrained = sn.pl.learned_weights(sn.tl.StlWeights(), section, region_key="domain")
    A = np.asarray(untrained.axes[2].images[0].get_array())
    codes = np.sort(section.obs["domain"].cat.codes.to_numpy())
    same = codes[:, None] == codes
    assert A[same].mean() > A[~same].mean()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda a: sn.pl.proportions(a, "none"), KeyError, "sn.tl.stl_nmf"),
        (lambda a: sn.pl.dominant_type(a, "none"), KeyError, "sn.tl.stl_nmf"),
        (sn.pl.fit_quality, KeyError, "sn.tl.stl_nmf"),
        (lambda a: sn.pl.proportions(a, types=["x"]), ValueError, "'type 0'"),
        (lambda a: sn.pl.proportions(a, kind="cakes"), ValueError, "pies"),
        (lambda a: sn.pl.proportions(a, n_types=0), ValueError, "n_types"),
        (lambda a: sn.pl.learned_weights(3), TypeError, "learn_stl_nmf"),
        (lambda a: sn.pl.learned_weights(sn.tl.StlWeights(), a, region_key="x"), KeyError, "'x'"),
    ],
)
def test_bad_input(section: ad.AnnData, call, error, match) -> None:
    with pytest.raises(error, match=match):
        call(section)
    assert not plt.get_fignums(), "a figure was left open"


@pytest.mark.parametrize("value", [-0.1, np.inf])
def test_what_is_no_share_is_refused(section: ad.AnnData, value: float) -> None:
    section.obsm["stl_nmf"].iloc[5, 2] = value
    with pytest.raises(ValueError, match="1 values that are negative"):
        sn.pl.proportions(section)
    section.obsm["stl_nmf"].iloc[5, 2] = np.nan
    with pytest.raises(ValueError, match="NaN in a row with numbers"):
        sn.pl.dominant_type(section)
    section.obsm["stl_nmf"][:] = np.nan
    with pytest.raises(ValueError, match="all are NaN"):
        sn.pl.proportions(section)


@pytest.mark.filterwarnings("ignore:.*zarr v2:UserWarning")
@pytest.mark.parametrize("store", ["zarr", "h5ad"])
@pytest.mark.parametrize("fitted_before", [True, False])
def test_tables_read_lazily(fitted: ad.AnnData, tmp_path, store: str, fitted_before: bool) -> None:
    pytest.importorskip("xarray")
    whole = fitted.copy()
    types = list(whole.obs["stl_nmf"].cat.categories)
    whole.uns["stl_nmf_colors"] = np.array([f"#0000{k:02x}" for k in range(len(types))], dtype=object)
    stored = whole.copy()
    written = [("obsm", "stl_nmf"), ("uns", "stl_nmf"), ("obs", "stl_nmf"), ("obs", "stl_nmf_deviance"), ("var", "stl_nmf_deviance")]  # fmt: skip
    for slot, name in () if fitted_before else written:
        del getattr(stored, slot)[name]
    getattr(stored, f"write_{store}")(tmp_path / f"section.{store}")
    lazily = ad.experimental.read_lazy(tmp_path / f"section.{store}")
    for slot, name in () if fitted_before else written:
        getattr(lazily, slot)[name] = getattr(whole, slot)[name]
    drawn = []
    for table in (whole, lazily):
        axes = sn.pl.proportions(table), sn.pl.dominant_type(table)
        handles = [h.get_markerfacecolor() for ax in axes for h in ax.figure.legends[0].legend_handles]
        fit = sn.pl.fit_quality(table)
        points = [c.get_offsets().data for panel in fit.axes[:2] for c in panel.collections]
        named = [t.get_text() for t in fit.axes[1].texts]
        drawn.append(([*map(legend, axes), list(map(mpl.colors.to_rgba, handles)), named], points))
    assert drawn[1][0] == drawn[0][0]
    for a, b in zip(drawn[1][1], drawn[0][1], strict=True):
        np.testing.assert_array_equal(a, b)
    plt.close("all")


def test_round_trip_and_view(section: ad.AnnData, tmp_path) -> None:
    section.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert legend(sn.pl.proportions(again)) == legend(sn.pl.proportions(section))
    assert "no counts" not in legend(sn.pl.proportions(section[10:60]))
