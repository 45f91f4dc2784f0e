"""What is drawn: panels, places, colours, edges, legends, scale bars, images. No image is compared."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

import spanmf as sn
from spanmf.pl import _colors, _graph, _map

N, K, P = 400, 3, 6


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def adata() -> AnnData:
    """Two libraries that lie over each other, factors, loadings, labels of which some are missing, a graph."""
    rng = np.random.default_rng(0)
    out = AnnData(
        sp.csr_matrix(rng.poisson(1.0, (N, P)).astype(np.float32)),
        obs=pd.DataFrame({"library": np.where(np.arange(N) < 250, "a", "b")}, index=[f"c{i}" for i in range(N)]),
        var=pd.DataFrame(index=[f"g{j}" for j in range(P)]),
    )
    out.obsm["spatial"] = rng.random((N, 2)) * [1000, 600]
    out.obsm["X_nmf"] = rng.gamma(1.0, 1.0, (N, K)).astype(np.float32)
    out.varm["nmf_loadings"] = rng.permuted(np.tile(np.arange(P, dtype=np.float32), (K, 1)), axis=1).T
    labels = rng.choice(["x", "y", "z"], N, p=[0.6, 0.3, 0.1]).astype(object)
    labels[:7] = None
    out.obs["label"] = pd.Categorical(labels, categories=["z", "unused", "y", "x"])
    tree = cKDTree(out.obsm["spatial"])
    out.obsp["contact_connectivities"] = merged(tree, 25, 60)
    return out


def merged(tree: cKDTree, contact: float, context: float) -> sp.csr_matrix:
    def within(radius):
        i, j = tree.query_pairs(radius, output_type="ndarray").T
        half = sp.coo_matrix((np.ones(len(i), dtype=np.float32), (i, j)), shape=(tree.n, tree.n))
        return (half + half.T).tocsr()

    return (within(contact) * 2.5).maximum(within(context))


def lattice(side: int = 12, pitch: float = 137.0) -> AnnData:
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    xy = np.column_stack([x.ravel() + 0.5 * (y.ravel() % 2), y.ravel() * np.sqrt(3) / 2]) * pitch
    out = AnnData(np.ones((side**2, 2), dtype=np.float32), obs=pd.DataFrame(index=[f"s{i}" for i in range(side**2)]))
    out.obsm["spatial"] = xy
    out.obs["label"] = pd.Categorical(np.where(xy[:, 0] > xy[:, 0].mean(), "right", "left"))
    return out


def visium(entry: dict | None = None, **scalefactors) -> AnnData:
    out = lattice()
    factors = {"spot_diameter_fullres": 0.65 * 137, "tissue_hires_scalef": 0.2, "tissue_lowres_scalef": 0.05}
    images = {"hires": np.full((400, 360, 3), 0.5), "lowres": np.full((100, 90, 3), 0.5)}
    out.uns["spatial"] = {"slide": {"images": images, "scalefactors": factors | scalefactors} | (entry or {})}
    return out


def panels(drawn: Axes | Figure) -> list[Axes]:
    return [ax for ax in drawn.figure.axes if cells(ax) is not None]


def cells(ax: Axes) -> PathCollection | None:
    return next((c for c in ax.collections if isinstance(c, PathCollection)), None)


def diameter(ax: Axes) -> float:
    return np.ptp(cells(ax).get_paths()[0].vertices, axis=0).max()


def scale_bars(ax: Axes) -> list[tuple[float, str]]:
    """Length in units of the coordinates, and text."""
    bars = [line for line in ax.lines if line.get_gid() == "scale bar"]
    texts = [text.get_text() for text in ax.texts if text.get_text().endswith("m")]
    return [(np.ptp(bar.get_xdata()), text) for bar, text in zip(bars, texts, strict=True)]


def legend_texts(drawn: Axes | Figure) -> list[str]:
    return [text.get_text() for text in drawn.figure.legends[0].get_texts()]


def drawn_colors(ax: Axes) -> dict[tuple[float, float], tuple]:
    """Colour of each place."""
    found = cells(ax)
    return dict(zip(map(tuple, np.asarray(found.get_offsets())), map(tuple, found.get_facecolors()), strict=True))


# --- maps in general ------------------------------------------------------------------------------------------------


def test_y_points_down_aspect_is_equal_and_cells_are_rasterised(adata):
    ax = sn.pl.domains(adata, "label")
    assert ax.yaxis_inverted()
    assert not ax.xaxis_inverted()
    assert ax.get_aspect() == 1
    assert not len(ax.get_xticks())
    assert not len(ax.get_yticks())
    assert cells(ax).get_rasterized()


def test_all_cells_lie_in_the_window(adata):
    ax = sn.pl.domains(adata, "label")
    (x0, x1), (y1, y0) = ax.get_xlim(), ax.get_ylim()
    xy = adata.obsm["spatial"]
    assert ((xy > (x0, y0)) & (xy < (x1, y1))).all()


@pytest.mark.parametrize("n", [1, 2, 144])
def test_neighbours_on_a_lattice_just_touch(n):
    table = lattice()[:n].copy()
    d = diameter(sn.pl.domains(table, "label"))
    assert d == pytest.approx(137.0, rel=1e-5) if n > 2 else d > 0


def test_size_is_a_diameter_in_units_of_the_coordinates(adata):
    assert diameter(sn.pl.domains(adata, "label", size=33)) == pytest.approx(33, rel=1e-5)


def test_discs_are_never_smaller_than_a_point(adata):
    adata.obsm["spatial"] = np.random.default_rng(0).random((N, 2))
    ax = sn.pl.domains(adata, "label", size=1e-6)
    points_per_unit = ax.get_window_extent().width / ax.figure.dpi * 72 / np.ptp(ax.get_xlim())
    assert _map.MIN_DIAMETER_PT <= diameter(ax) * points_per_unit < 1.5 * _map.MIN_DIAMETER_PT


def test_discs_grow_when_one_zooms(adata):
    ax = sn.pl.domains(adata, "label")

    def pixels():
        transform = cells(ax).get_transform()
        return np.ptp(transform.transform(cells(ax).get_paths()[0].vertices)[:, 0])

    before = pixels()
    x0, x1 = ax.get_xlim()
    ax.set_xlim(x0, (x0 + x1) / 2)
    assert pixels() == pytest.approx(2 * before)
    assert cells(ax).get_transform().transform((0, 0)) == pytest.approx((0, 0))  # and stay where they are


def test_coincident_cells_are_drawn(adata):
    adata.obsm["spatial"] = np.repeat(adata.obsm["spatial"][:4], 100, axis=0)
    assert diameter(sn.pl.domains(adata, "label")) > 0
    adata.obsm["spatial"] = np.zeros((N, 2))
    sn.pl.domains(adata, "label").figure.canvas.draw()


def test_three_dimensions_show_the_first_two(adata):
    flat = adata.obsm["spatial"]
    adata.obsm["spatial"] = np.column_stack([flat, np.arange(N)])
    offsets = np.asarray(cells(sn.pl.domains(adata, "label")).get_offsets())
    assert {tuple(o) for o in offsets} == {tuple(o) for o in flat}


def test_libraries_have_one_scale(adata):
    adata.obsm["spatial"][adata.obs["library"] == "b"] *= 0.3
    both = panels(sn.pl.domains(adata, "label", library_key="library"))
    assert [ax.get_title() for ax in both] == ["a", "b"]
    assert np.ptp(both[0].get_xlim()) == pytest.approx(np.ptp(both[1].get_xlim()))
    assert np.ptp(both[0].get_ylim()) == pytest.approx(np.ptp(both[1].get_ylim()))
    assert diameter(both[0]) == diameter(both[1])
    for ax, name in zip(both, "ab", strict=True):
        own = adata.obsm["spatial"][adata.obs["library"] == name]
        assert {tuple(o) for o in np.asarray(cells(ax).get_offsets())} == {tuple(o) for o in own}


def test_libraries_with_other_pixels_have_one_scale_in_micrometres():
    first, second = visium(), visium()
    second.obsm["spatial"] = second.obsm["spatial"] * 2
    table = ad.concat({"slide": first, "other": second}, label="library", index_unique="-")
    entry = first.uns["spatial"]["slide"]
    coarse = {"scalefactors": {"spot_diameter_fullres": 2 * 0.65 * 137}}
    table.uns["spatial"] = {"slide": {"scalefactors": entry["scalefactors"]}, "other": coarse}
    wide = {
        ax.get_title(): np.ptp(ax.get_xlim()) for ax in panels(sn.pl.domains(table, "label", library_key="library"))
    }
    assert wide["other"] == pytest.approx(2 * wide["slide"])


@pytest.mark.parametrize(("n", "wide", "ncols"), [(10, 1.0, 5), (10, 3.5, 3), (4, 1.0, 4), (8, 1.0, 4), (3, 1.0, 3)])
def test_rows_fit_on_a_page(n, wide, ncols):
    section = _map.Section("", np.arange(1), np.zeros((1, 2)), None, (0, wide, 0, 1), 1.0, [])
    fig, axes = _map.make_panels([section], n)
    assert len(axes) == n
    assert len({ax.get_subplotspec().colspan.start for ax in axes}) == ncols
    assert fig.get_size_inches()[0] < 18


# --- scale bar ------------------------------------------------------------------------------------------------------


def test_no_scale_bar_without_a_unit(adata):
    assert scale_bars(sn.pl.domains(adata, "label")) == []


@pytest.mark.parametrize(
    ("um", "expected"), [(1.0, (200.0, "200 µm")), (0.5, (200.0, "100 µm")), (10.0, (200.0, "2 mm"))]
)
def test_scale_bar_from_the_parameter(adata, um, expected):
    assert scale_bars(sn.pl.domains(adata, "label", um_per_unit=um)) == [expected]


def test_scale_bar_from_the_note_in_uns(adata):
    adata.uns["um_per_unit"] = 0.5
    assert scale_bars(sn.pl.domains(adata, "label")) == [(200.0, "100 µm")]
    assert scale_bars(sn.pl.domains(adata, "label", um_per_unit=1.0)) == [(200.0, "200 µm")]


def test_scale_bar_stands_under_the_first_of_several_panels(adata):
    fig = sn.pl.factors(adata, "nmf", um_per_unit=1.0)
    assert [len(scale_bars(ax)) for ax in panels(fig)] == [1, 0, 0]


def test_visium_spots_are_65_um_so_the_pitch_is_100():
    ((length, text),) = scale_bars(sn.pl.domains(visium(), "label"))
    assert text == "200 µm"
    assert length == pytest.approx(2 * 137, rel=1e-6)


def test_microns_per_pixel_of_visium_hd():
    ((length, text),) = scale_bars(sn.pl.domains(visium(microns_per_pixel=0.25), "label"))
    assert length == pytest.approx(float(text.removesuffix(" µm")) / 0.25)


def test_spots_that_would_overlap_are_not_believed():
    """Some readers write a made-up spot diameter for cells."""
    ax = sn.pl.domains(visium(spot_diameter_fullres=130.0), "label")
    assert scale_bars(ax) == []
    assert diameter(ax) == pytest.approx(137.0, rel=1e-5)


@pytest.mark.parametrize(("at_most", "length"), [(1, 1), (1.9, 1), (2, 2), (4.99, 2), (750, 500), (0.03, 0.02)])
def test_round_length(at_most, length):
    assert _map.round_length(at_most) == pytest.approx(length)


# --- image ----------------------------------------------------------------------------------------------------------


def test_image_lies_where_its_scale_says():
    ax = sn.pl.domains(visium(), "label")
    (image,) = ax.images
    # pixel (0, 0) is centred on the origin, the last of 360 × 400 at 5 units a pixel on (1795, 1995)
    assert image.get_extent() == pytest.approx((-2.5, 1797.5, 1997.5, -2.5))
    assert image.get_zorder() < cells(ax).get_zorder()
    assert diameter(ax) == pytest.approx(0.65 * 137, rel=1e-5)


def test_image_can_be_left_out():
    ax = sn.pl.domains(visium(), "label", image=False)
    assert not ax.images
    assert diameter(ax) == pytest.approx(137.0, rel=1e-5)


@pytest.mark.parametrize(("inches", "rows"), [(0.5, 100), (3.0, 400), (30.0, 400)])
def test_no_finer_image_than_can_be_seen(inches, rows):
    _, ax = plt.subplots(figsize=(inches / 0.775, inches / 0.775))
    sn.pl.domains(visium(), "label", ax=ax)
    assert ax.images[0].get_array().shape[0] == rows


def test_each_library_has_its_own_image():
    table = ad.concat({"a": lattice(), "b": lattice()}, label="library", index_unique="-")
    entry = visium().uns["spatial"]["slide"]
    table.uns["spatial"] = {"b": entry}
    one, other = panels(sn.pl.domains(table, "label", library_key="library"))
    assert (len(one.images), len(other.images)) == (0, 1)
    table.uns["spatial"] = {"a": entry, "b": entry}
    assert not sn.pl.domains(table, "label").images  # whose would it be?


def test_image_with_a_grey_channel_axis():
    table = visium()
    table.uns["spatial"]["slide"]["images"] = {"lowres": np.zeros((100, 90, 1))}
    ax = sn.pl.domains(table, "label")
    assert ax.images[0].get_array().shape == (100, 90)


def test_generated_visium_section_shows_image_and_scale():
    table = sn.datasets.visium_section(200)
    ax = sn.pl.domains(table, "domain")
    assert len(ax.images) == 1
    ((length, text),) = scale_bars(ax)
    micrometres = float(text.split()[0]) * (1000 if text.endswith("mm") else 1)
    assert length * table.uns["um_per_unit"] == pytest.approx(micrometres, rel=1e-3)


# --- factors --------------------------------------------------------------------------------------------------------


def test_factors_draw_every_cell_with_high_values_on_top(adata):
    fig = sn.pl.factors(adata, "nmf")
    assert len(panels(fig)) == K
    for k, ax in enumerate(panels(fig)):
        order = np.argsort(adata.obsm["X_nmf"][:, k], kind="stable")
        np.testing.assert_array_equal(cells(ax).get_offsets(), adata.obsm["spatial"][order])
        np.testing.assert_array_equal(cells(ax).get_array(), adata.obsm["X_nmf"][order, k])


def test_factors_are_clipped_at_a_quantile_of_their_positive_values(adata):
    W = adata.obsm["X_nmf"]
    W[:395, 1] = 0.0
    W[:, 2] = 0.0
    tops = [cells(ax).norm.vmax for ax in panels(sn.pl.factors(adata, "nmf", clip=0.9))]
    assert tops == pytest.approx([np.quantile(W[:, 0], 0.9), np.quantile(W[395:, 1], 0.9), 1.0], rel=1e-5)
    assert cells(panels(sn.pl.factors(adata, "nmf", clip=1.0))[0]).norm.vmax == pytest.approx(W[:, 0].max())
    assert {cells(ax).norm.vmin for ax in panels(sn.pl.factors(adata, "nmf"))} == {0.0}


def test_colorbars_tell_whether_values_are_clipped(adata):
    def top_tick(clip):
        bar = cells(sn.pl.factors(adata, "nmf", components=[0], clip=clip)).colorbar
        return bar.ax.get_yticklabels()[-1].get_text()

    assert top_tick(0.9).startswith("≥ ")
    assert not top_tick(1.0).startswith("≥")


def test_factors_name_their_top_features(adata):
    fig = sn.pl.factors(adata, "nmf", n_features=2)
    for k, ax in enumerate(panels(fig)):
        top = adata.var_names[np.argsort(-adata.varm["nmf_loadings"][:, k])[:2]]
        assert ax.get_title() == f"factor {k}"
        assert [text.get_text() for text in ax.texts] == [", ".join(top)]
    assert not panels(sn.pl.factors(adata, "nmf", n_features=0))[0].texts
    del adata.varm["nmf_loadings"]
    assert not panels(sn.pl.factors(adata, "nmf"))[0].texts


def test_long_names_are_cut_to_the_panel(adata):
    adata.var_names = [f"a-rather-long-name-of-a-gene-{j}" for j in range(P)]
    fig = sn.pl.factors(adata, "nmf", n_features=5)
    for ax in panels(fig):
        assert 1 <= ax.texts[0].get_text().count("gene") < 5


def test_chosen_components(adata):
    fig = sn.pl.factors(adata, "nmf", components=[2, 0])
    assert [ax.get_title() for ax in panels(fig)] == ["factor 2", "factor 0"]
    assert sn.pl.factors(adata, "nmf", components=1).get_title() == "factor 1"


def test_factors_by_library_are_a_table(adata):
    grid = np.reshape(panels(sn.pl.factors(adata, "nmf", library_key="library", um_per_unit=1)), (K, 2))
    assert [ax.get_title() for ax in grid[0]] == ["a", "b"]
    assert [ax.get_ylabel().splitlines()[0] for ax in grid[:, 0]] == ["factor 0", "factor 1", "factor 2"]
    for row in grid:
        assert cells(row[0]).norm is cells(row[1]).norm
    assert [len(cells(ax).get_offsets()) for ax in grid[0]] == [250, 150]


def test_one_factor_by_library_is_named_above(adata):
    fig = sn.pl.factors(adata, "nmf", components=[1], library_key="library")
    assert fig.get_suptitle().startswith("factor 1, g")
    assert [ax.get_title() for ax in panels(fig)] == ["a", "b"]


def test_one_panel_returns_the_axes_and_takes_axes(adata):
    assert isinstance(sn.pl.factors(adata, "nmf", components=[0]), Axes)
    assert isinstance(sn.pl.factors(adata, "nmf"), Figure)
    _, ax = plt.subplots()
    assert sn.pl.factors(adata, "nmf", components=[0], ax=ax) is ax
    assert sn.pl.domains(adata, "label", ax=ax) is ax


def test_maps_of_many_libraries_stay_large_enough_to_see():
    table = ad.concat({f"core {i}": lattice() for i in range(12)}, label="core", index_unique="-")
    table.obsm["X_nmf"] = np.random.default_rng(0).random((table.n_obs, 3))
    axes = panels(sn.pl.factors(table, "nmf", library_key="core"))
    fig = axes[0].figure
    fig.canvas.draw()
    assert len(axes) == 36
    assert min(ax.get_window_extent().width / fig.dpi for ax in axes) > 1.5


def test_libraries_of_the_graph_are_maps_of_their_own_where_they_overlap():
    table = ad.concat({"a": lattice(), "b": lattice()}, label="slide", index_unique="-")
    assert len(panels(sn.pl.domains(table, "label"))) == 1
    sn.gr.contact_neighbors(table, library_key="slide")
    assert [ax.get_title() for ax in panels(sn.pl.domains(table, "label"))] == ["a", "b"]
    apart = table.copy()
    apart.obsm["spatial"][apart.obs["slide"] == "b"] += 1e5
    assert len(panels(sn.pl.domains(apart, "label"))) == 1
    del table.obs["slide"]  # recorded, but gone
    assert len(panels(sn.pl.domains(table, "label"))) == 1


def test_ncols(adata):
    axes = panels(sn.pl.factors(adata, "nmf", ncols=1))
    assert {ax.get_subplotspec().colspan.start for ax in axes} == {0}


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_high_values_stand_out_from_the_background(adata, style):
    with plt.style.context(style):
        cmap = cells(sn.pl.factors(adata, "nmf", components=[0])).get_cmap()
        low, high = (_colors.luminance(cmap(v)[:3]) for v in (0.0, 1.0))
        ground = _colors.luminance(plt.rcParams["axes.facecolor"])
    assert abs(high - ground) > 0.7
    assert 0.02 < abs(low - ground) < 0.3  # seen, but as tissue only


def test_a_colour_map_can_be_named(adata):
    assert cells(sn.pl.factors(adata, "nmf", components=[0], cmap="viridis")).get_cmap().name == "viridis"


# --- domains --------------------------------------------------------------------------------------------------------


def expected_colors(adata, colors):
    return {
        tuple(xy): to_rgba(colors.get(label, _colors.MISSING))
        for xy, label in zip(adata.obsm["spatial"], adata.obs["label"].astype(object), strict=True)
    }


def test_labels_have_the_colours_of_their_categories(adata):
    colors = dict(zip(["z", "unused", "y", "x"], _colors.PALETTE, strict=False))
    drawn = sn.pl.domains(adata, "label")
    assert drawn_colors(drawn) == expected_colors(adata, colors)
    assert legend_texts(drawn) == ["z", "y", "x", "no label"]
    marks = [to_rgba(h.get_color()) for h in drawn.figure.legends[0].legend_handles]
    assert marks == [to_rgba(c) for c in (colors["z"], colors["y"], colors["x"], _colors.MISSING)]


def test_stored_colours_are_used(adata):
    adata.uns["label_colors"] = np.array(["#010203", "red", "#040506", "blue"])
    colors = {"z": "#010203", "y": "#040506", "x": "blue"}
    assert drawn_colors(sn.pl.domains(adata, "label")) == expected_colors(adata, colors)
    assert drawn_colors(sn.pl.domains(adata, "label", palette={"y": "lime"})) == expected_colors(
        adata, colors | {"y": "lime"}
    )
    sequence = ["k", "w", "r", "g"]
    assert drawn_colors(sn.pl.domains(adata, "label", palette=sequence)) == expected_colors(
        adata, {"z": "k", "y": "r", "x": "g"}
    )


@pytest.mark.parametrize("stored", [["red"], ["red", "green", "blue", "no colour"]])
def test_stored_colours_that_do_not_fit_are_not_used(adata, stored):
    adata.uns["label_colors"] = stored
    colors = dict(zip(["z", "unused", "y", "x"], _colors.PALETTE, strict=False))
    assert drawn_colors(sn.pl.domains(adata, "label")) == expected_colors(adata, colors)


def test_rare_labels_come_last_and_missing_ones_first(adata):
    ax = sn.pl.domains(adata, "label")
    place = {tuple(xy): label for xy, label in zip(adata.obsm["spatial"], adata.obs["label"].astype(str), strict=True)}
    order = pd.unique(np.array([place[tuple(o)] for o in np.asarray(cells(ax).get_offsets())]))
    assert list(order) == ["nan", "x", "y", "z"]


@pytest.mark.parametrize("values", [np.arange(N) % 3, np.arange(N) % 3 == 0, list("ab" * (N // 2))])
def test_labels_need_not_be_categorical(adata, values):
    adata.obs["plain"] = values
    assert legend_texts(sn.pl.domains(adata, "plain")) == sorted({str(v) for v in adata.obs["plain"]})


def test_legend_and_cells_agree_for_integer_categories(adata):
    adata.obs["label"] = pd.Categorical(np.arange(N) % 12)
    drawn = sn.pl.domains(adata, "label")
    assert legend_texts(drawn) == [str(i) for i in range(12)]
    by_place = drawn_colors(drawn)
    for i in range(12):
        assert by_place[tuple(adata.obsm["spatial"][i])] == to_rgba(_colors.PALETTE[i])


@pytest.mark.parametrize("n_labels", [2, 30])
@pytest.mark.parametrize(("library_key", "own_ax"), [(None, False), ("library", False), (None, True)])
def test_legend_covers_no_panel_and_is_not_cut(adata, n_labels, library_key, own_ax):
    adata.obs["label"] = pd.Categorical([f"label number {i % n_labels}" for i in range(N)])
    ax = plt.subplots(layout="constrained", figsize=(14, 5))[1] if own_ax else None
    fig = sn.pl.domains(adata, "label", library_key=library_key, ax=ax).figure
    fig.canvas.draw()
    legend = ax.get_legend() if own_ax else fig.legends[0]
    box = legend.get_window_extent()
    assert len(legend.get_texts()) == n_labels
    assert not any(box.overlaps(panel.get_window_extent()) for panel in panels(fig))
    if not own_ax:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= fig.bbox.width
        assert box.y1 <= fig.bbox.height


def test_palette_has_no_twins_and_nothing_like_missing():
    rgb = np.array([to_rgba(c)[:3] for c in [*_colors.PALETTE, _colors.MISSING]])
    gaps = np.linalg.norm(rgb[:, None] - rgb[None], axis=2)[np.triu_indices(len(rgb), 1)]
    assert len(_colors.PALETTE) >= 30
    assert gaps.min() > 0.1


def test_more_labels_than_colours_start_again(adata):
    adata.obs["label"] = pd.Categorical([str(i % 50) for i in range(N)])
    assert len(legend_texts(sn.pl.domains(adata, "label"))) == 50


def test_dark_colours_are_left_out_on_a_dark_background(adata):
    adata.obs["label"] = pd.Categorical([str(i % 20) for i in range(N)])
    with plt.style.context("dark_background"):
        shown = set(drawn_colors(sn.pl.domains(adata, "label")).values())
    assert len(shown) == 20
    assert min(_colors.luminance(c[:3]) for c in shown) > 0.2


# --- loadings -------------------------------------------------------------------------------------------------------


def bars(ax: Axes) -> dict[str, float]:
    names = [label.get_text() for label in ax.get_yticklabels()]
    return dict(zip(names, [p.get_width() for p in ax.patches], strict=True))


def test_bars_are_the_top_loadings_best_on_top(adata):
    fig = sn.pl.loadings(adata, "nmf", n_features=4)
    shown = [ax for ax in fig.axes if ax.patches]
    assert [ax.get_title() for ax in shown] == ["factor 0", "factor 1", "factor 2"]
    for k, ax in enumerate(shown):
        loading = pd.Series(adata.varm["nmf_loadings"][:, k], adata.var_names).nlargest(4)
        assert list(bars(ax).values()) == pytest.approx(list(loading / np.arange(P).sum()))
        assert list(bars(ax)) == list(loading.index)
        assert ax.yaxis_inverted()


def test_features_without_loading_have_no_bar(adata):
    ax = sn.pl.loadings(adata, "nmf", n_features=50, components=[0])
    assert len(ax.patches) == P - 1  # one loading is 0


def test_darker_bars_are_more_specific(adata):
    H = np.array([[9, 0, 0], [8, 8, 8], [1, 9, 9], [0, 1, 0], [0, 0, 1], [0, 0, 1]], dtype=np.float32)
    adata.varm["nmf_loadings"] = H * [1, 100, 0.01]  # the scale of a factor means nothing
    ax = sn.pl.loadings(adata, "nmf", components=[0])
    shades = dict(zip(bars(ax), [_colors.luminance(p.get_facecolor()[:3]) for p in ax.patches], strict=True))
    assert shades["g0"] < shades["g1"] < shades["g2"]


@pytest.mark.parametrize("name", ["factors", "loadings", "domains", "graph"])
def test_no_grid_whatever_the_style(adata, name):
    with plt.rc_context({"axes.grid": True}):
        fig = CALLS[name](adata).figure
    lines = [line for ax in fig.axes for line in (*ax.get_xgridlines(), *ax.get_ygridlines())]
    assert not any(line.get_visible() for line in lines)


def test_bars_agree_with_the_table(adata):
    table = sn.tl.top_features(adata, "nmf", 4)
    fig = sn.pl.loadings(adata, "nmf", n_features=4)
    for k, ax in enumerate(fig.axes[:K]):
        rows = table[table["factor"] == k]
        assert list(bars(ax)) == list(rows["feature"])
        np.testing.assert_allclose(list(bars(ax).values()), rows["loading"])
        shade = fig.axes[-1]._colorbar.mappable.to_rgba(rows["specificity"])
        np.testing.assert_allclose([p.get_facecolor() for p in ax.patches], shade)


# --- graph ----------------------------------------------------------------------------------------------------------


def drawn_edges(ax: Axes) -> dict[frozenset, float]:
    """Width of every edge, by its two ends."""
    found = {}
    for lines in ax.collections:
        if isinstance(lines, LineCollection):
            for segment in lines.get_segments():
                found[frozenset(map(tuple, segment))] = lines.get_linewidths()[0]
    return found


def edges_of(adata: AnnData, rows: np.ndarray, key: str = "contact_connectivities") -> dict[frozenset, float]:
    xy, A = adata.obsm["spatial"], adata.obsp[key].toarray()
    weight = np.maximum(A, A.T)
    return {frozenset((tuple(xy[i]), tuple(xy[j]))): weight[i, j] for i in rows for j in rows if i < j and weight[i, j]}


def test_edges_in_a_region_are_those_of_the_graph(adata):
    ax = sn.pl.graph(adata, region=(200, 600, 100, 400))
    xy = adata.obsm["spatial"]
    rows = np.flatnonzero(((xy >= (200, 100)) & (xy <= (600, 400))).all(1))
    np.testing.assert_array_equal(sorted(map(tuple, cells(ax).get_offsets())), sorted(map(tuple, xy[rows])))
    expected, drawn = edges_of(adata, rows), drawn_edges(ax)
    assert drawn.keys() == expected.keys()
    contact = {e for e, w in expected.items() if w == 2.5}
    assert contact
    assert min(drawn[e] for e in contact) > 2 * max(drawn[e] for e in expected.keys() - contact)
    assert legend_texts(ax) == ["contact edges (weight 2.5)", "context edges (weight 1)"]


def test_the_chosen_window_is_dense_and_holds_150_to_300_cells():
    rng = np.random.default_rng(0)
    sparse, dense = rng.random((3000, 2)) * [1000, 1000], rng.random((3000, 2)) * [300, 300] + [3000, 500]
    xy = np.concatenate([sparse, dense])
    x0, x1, y0, y1 = _graph.dense_window(xy)
    inside = ((xy >= (x0, y0)) & (xy <= (x1, y1))).all(1)
    assert 150 <= inside.sum() <= 300
    assert inside[3000:].sum() == inside.sum()
    assert x1 - x0 == pytest.approx(y1 - y0)


def test_a_small_tissue_is_drawn_whole(adata):
    small = adata[:60].copy()
    ax = sn.pl.graph(small)
    assert len(cells(ax).get_offsets()) == 60
    assert drawn_edges(ax).keys() == edges_of(small, np.arange(60)).keys()
    assert ax.get_title() == "60 of 60 observations"


def test_cells_leave_the_edges_to_be_seen(adata):
    ax = sn.pl.graph(adata)
    assert diameter(ax) < 25  # the contact radius
    lines = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert max(c.get_zorder() for c in lines) < cells(ax).get_zorder()


def test_cells_of_a_graph_have_the_colours_of_their_labels(adata):
    ax = sn.pl.graph(adata, cluster_key="label", region=(0, 1000, 0, 600))
    colors = dict(zip(["z", "unused", "y", "x"], _colors.PALETTE, strict=False))
    assert drawn_colors(ax) == expected_colors(adata, colors)
    assert legend_texts(ax)[:4] == ["z", "y", "x", "no label"]
    plain = sn.pl.graph(adata)
    assert set(drawn_colors(plain).values()) == {to_rgba(_colors.MISSING)}


def test_the_legend_names_labels_of_the_window_only(adata):
    xy = adata.obsm["spatial"]
    adata.obs["side"] = pd.Categorical(np.where(xy[:, 0] < 500, "left", "right"))
    texts = legend_texts(sn.pl.graph(adata, cluster_key="side", region=(0, 400, 0, 600)))
    assert "left" in texts
    assert "right" not in texts


def test_a_graph_with_one_weight_has_one_kind_of_edge(adata):
    adata.obsp["spatial_connectivities"] = (adata.obsp["contact_connectivities"] > 0).astype(np.float64)
    ax = sn.pl.graph(adata, "spatial")
    assert legend_texts(ax) == ["heavier edges (weight 1)"]
    assert len(set(drawn_edges(ax).values())) == 1


def test_weights_one_way_only_count(adata):
    """A k-nearest-neighbour graph need not be symmetric."""
    rows = np.arange(60)
    small = adata[:60].copy()
    small.obsp["one_way"] = sp.tril(small.obsp["contact_connectivities"]).tocsr()
    assert drawn_edges(sn.pl.graph(small, "one_way")).keys() == edges_of(small, rows).keys()


def test_stored_zeros_are_no_edges(adata):
    small = adata[:60].copy()
    A = small.obsp["contact_connectivities"].copy()
    n_edges = A.nnz // 2
    A.data[:] = np.where(A.data == 1, 0, A.data)
    small.obsp["zeros"] = A
    assert 0 < len(drawn_edges(sn.pl.graph(small, "zeros"))) < n_edges


def test_a_graph_without_edges_shows_its_cells(adata):
    adata.obsp["none"] = sp.csr_matrix((N, N), dtype=np.float32)
    ax = sn.pl.graph(adata, "none")
    assert drawn_edges(ax) == {}
    assert len(cells(ax).get_offsets()) >= 150


def test_each_library_has_its_window(adata):
    drawn = sn.pl.graph(adata, library_key="library", um_per_unit=1)
    both = panels(drawn)
    assert [ax.get_title().partition(":")[0] for ax in both] == ["a", "b"]
    for ax, name in zip(both, "ab", strict=True):
        rows = np.flatnonzero(adata.obs["library"] == name)
        own = {tuple(xy) for xy in adata.obsm["spatial"][rows]}
        assert {tuple(o) for o in np.asarray(cells(ax).get_offsets())} <= own
        assert drawn_edges(ax).keys() <= edges_of(adata, rows).keys()
        assert len(scale_bars(ax)) == 1


# --- the table and bad input ----------------------------------------------------------------------------------------

CALLS = {
    "factors": lambda a, **kw: sn.pl.factors(a, **{"key": "nmf"} | kw),
    "loadings": lambda a, **kw: sn.pl.loadings(a, **{"key": "nmf"} | kw),
    "domains": lambda a, **kw: sn.pl.domains(a, **{"key": "label"} | kw),
    "graph": lambda a, **kw: sn.pl.graph(a, **{"cluster_key": "label"} | kw),
}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_written_and_uns_is_not_needed(adata, name):
    adata.uns.clear()
    before = adata.copy()
    CALLS[name](adata).figure.canvas.draw()
    assert set(adata.uns) == set()
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert (set(adata.obsm), set(adata.varm), set(adata.obsp)) == (set(before.obsm), set(before.varm), set(before.obsp))
    np.testing.assert_array_equal(adata.obsm["spatial"], before.obsm["spatial"])


@pytest.mark.parametrize("name", CALLS)
def test_views_and_single_cells_are_drawn(adata, name):
    for part in (adata[100:160], adata[100:101]):
        figure = CALLS[name](part).figure
        figure.canvas.draw()
        assert any(ax.has_data() for ax in figure.axes)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "match"),
    [
        ("factors", {"key": "snmf"}, KeyError, "X_nmf.*Make it first"),
        ("loadings", {"key": "snmf"}, KeyError, r"sn\.tl\.snmf"),
        ("domains", {"key": "cluster"}, KeyError, "'label'"),
        ("graph", {"cluster_key": "cluster"}, KeyError, "'label'"),
        ("graph", {"connectivity_key": "spatial"}, KeyError, "contact_neighbors"),
        ("factors", {"library_key": "slide"}, KeyError, "'library'"),
        ("domains", {"spatial_key": "X_space"}, KeyError, "'spatial'"),
        ("factors", {"components": [3]}, ValueError, "from 0 to 2"),
        ("factors", {"components": []}, ValueError, "at least one"),
        ("loadings", {"components": [-1]}, ValueError, "from 0 to 2"),
        ("loadings", {"n_features": 0}, ValueError, "n_features"),
        ("loadings", {"ncols": 0}, ValueError, "ncols"),
        ("factors", {"clip": 0}, ValueError, "clip"),
        ("factors", {"ncols": 0}, ValueError, "ncols"),
        ("domains", {"size": 0}, ValueError, "size"),
        ("domains", {"size": "big"}, TypeError, "size"),
        ("domains", {"um_per_unit": -1}, ValueError, "um_per_unit"),
        ("graph", {"region": (0, 0, 10, 10)}, ValueError, r"x0 < x1"),
        ("graph", {"region": (0, 10, 0)}, ValueError, "x0, x1, y0, y1"),
        ("graph", {"region": (5000, 6000, 0, 10)}, ValueError, "no cell.*x goes from"),
    ],
)
def test_bad_input(adata, name, arguments, error, match):
    with pytest.raises(error, match=match):
        CALLS[name](adata, **arguments)
    assert not plt.get_fignums()  # no empty figure is left behind


@pytest.mark.parametrize("name", ["factors", "loadings", "domains", "graph"])
def test_axes_take_one_panel_only(adata, name):
    _, ax = plt.subplots()
    arguments = {} if name == "loadings" else {"library_key": "library"}
    with pytest.raises(ValueError, match="one panel"):
        CALLS[name](adata, ax=ax, **arguments)


def test_a_bad_note_of_units_is_named(adata):
    adata.uns["um_per_unit"] = "µm"
    with pytest.raises(TypeError, match="um_per_unit"):
        sn.pl.domains(adata, "label")


# --- real tissue ----------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_xenium_tiles(real_data, tmp_path):
    adata = ad.read_h5ad(real_data / "xenium_breast_tiles.h5ad")
    rng = np.random.default_rng(0)
    adata.obsm["X_nmf"] = rng.random((adata.n_obs, 2), dtype=np.float32)
    fig = sn.pl.factors(adata, "nmf", library_key="tile", um_per_unit=1)
    assert sum(len(cells(ax).get_offsets()) for ax in panels(fig)) == 2 * adata.n_obs
    assert 8 < diameter(panels(fig)[0]) < 30  # µm: about a cell
    fig.savefig(tmp_path / "maps.pdf", dpi=72)
    assert (tmp_path / "maps.pdf").stat().st_size < 2e6  # rasterised
