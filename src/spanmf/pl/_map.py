"""Drawing on the tissue: everything that the maps of this package share.

The y axis points down, as in images and in :func:`squidpy.pl.spatial_scatter`. Of 3-D coordinates the first two axes
are drawn. Cells are discs whose diameter is given in units of the coordinates (so they keep touching when one zooms)
and are rasterised, so that a PDF of a million cells stays small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, AffineDeltaTransform
from scipy.spatial import cKDTree

from .. import _checks, _data, _keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VISIUM_SPOT_UM = 65.0  # Space Ranger's `spot_diameter_fullres` is that of a spot of 65 µm (pitch 100 µm), not of 55
MIN_DIAMETER_PT = 1.0  # a smaller disc is about a pixel or less, and fades
MAX_WIDTH, MAX_HEIGHT = 16.0, 22.0  # inches
MIN_SIDE = 1.9  # inches, of a map among many: a wider or higher figure is better than maps that show nothing
SMALL = 7.5  # font size of what is read second
IMAGE_DPI = 150  # the coarsest image that has this resolution is drawn
IMAGE_ALPHA = 0.5  # the tissue stays behind the colours of the cells


@dataclass(frozen=True)
class Section:
    """One library as it is drawn."""

    name: str
    rows: np.ndarray  # its rows in the table
    xy: np.ndarray  # n × 2
    um: float | None  # µm in a unit of the coordinates
    window: tuple[float, float, float, float]  # x0, x1, y0, y1
    diameter: float  # of a cell, in units of the coordinates
    images: list[Image]  # from coarse to fine


@dataclass(frozen=True)
class Image:
    """A picture of the tissue and where it lies, in units of the coordinates."""

    pixels: np.ndarray  # height × width, or with 3 or 4 channels
    extent: tuple[float, float, float, float]  # left, right, bottom, top
    pitch: float  # of its pixels


def read_sections(
    adata: AnnData,
    *,
    spatial_key: str = _keys.SPATIAL,
    library_key: str | None = None,
    um_per_unit: float | None = None,
    size: float | None = None,
    image: bool = True,
) -> list[Section]:
    """One section a library, all with windows of the same width and height (in µm where these are known)."""
    noted = adata.uns.get(_keys.UM_PER_UNIT)
    for what, value in (("um_per_unit", um_per_unit), ("size", size), (f"adata.uns['{_keys.UM_PER_UNIT}']", noted)):
        if value is not None:
            _checks.check_range(what, value, 0, open_low=True)
    xy = _data.get_coordinates(adata, spatial_key)[:, :2]
    if library_key is None:
        library_key = overlapping_libraries(adata, xy)
    found = []
    for name, rows in _data.iter_libraries(*_data.get_libraries(adata, library_key)):
        spacing = cell_spacing(xy[rows])
        visium = visium_entry(adata, name)
        images = images_of(visium) if image else []
        spot = spot_diameter(visium, spacing)
        um = um_per_unit or noted or um_of(visium, spot)
        diameter = size or (spot if images else None) or spacing
        found.append(Section(name, rows, xy[rows], um, (0, 0, 0, 0), diameter, images))
    units = np.array([s.um or np.nan for s in found])
    units = np.ones(len(found)) if np.isnan(units).any() else units
    # one size for all, in the common unit
    diameters = np.full(len(found), np.nanmedian([s.diameter * u for s, u in zip(found, units, strict=True)])) / units
    spans = np.array([np.ptp(s.xy, axis=0) * u for s, u in zip(found, units, strict=True)])
    half = spans.max(0) / 2 + 0.02 * spans.max() + (diameters * units).max()
    return [
        replace(s, window=_around(s.xy, half / u), diameter=float(d))
        for s, u, d in zip(found, units, diameters, strict=True)
    ]


def overlapping_libraries(adata: AnnData, xy: np.ndarray) -> str | None:
    """The libraries that the contact graph was built with, where some lie on top of each other, else None."""
    graph = adata.uns.get(_keys.GraphKeys(_keys.CONTACT).neighbors, {})
    key = graph.get("params", {}).get("library_key") if isinstance(graph, dict) else None
    if key not in adata.obs or _data.get_column(adata, key).isna().any():
        return None
    members = [xy[rows] for _, rows in _data.iter_libraries(*_data.get_libraries(adata, key))]
    low, high = np.array([m.min(0) for m in members]), np.array([m.max(0) for m in members])
    apart = ((low[:, None] > high) | (high[:, None] < low)).any(-1)
    return key if (~apart).sum() > len(members) else None


def _around(xy: np.ndarray, half: np.ndarray) -> tuple[float, float, float, float]:
    (x, y), (dx, dy) = (xy.min(0) + xy.max(0)) / 2, half
    return float(x - dx), float(x + dx), float(y - dy), float(y + dy)


def cell_spacing(xy: np.ndarray, n_probes: int = 2000) -> float:
    """Median distance to the third nearest cell: the pitch of a lattice, about 1/√density otherwise."""
    probes = xy[:: max(1, len(xy) // n_probes)]
    k = min(4, len(xy))
    spacing = float(np.median(cKDTree(xy).query(probes, k=[k])[0])) if k > 1 else 0.0
    return spacing or float(np.ptp(xy, axis=0).max() / np.sqrt(len(xy))) or 1.0


def visium_entry(adata: AnnData, library: str) -> dict[str, Any]:
    """``uns["spatial"][library]``, or its only entry where there is one unnamed library, else nothing."""
    entries = adata.uns.get(_keys.SPATIAL, {})
    if not isinstance(entries, dict):
        return {}
    if library == "" and len(entries) == 1:
        library = next(iter(entries))
    entry = entries.get(library, {})
    return entry if isinstance(entry, dict) else {}


def spot_diameter(visium: dict[str, Any], spacing: float) -> float | None:
    """Diameter of a spot. Visium's lie 1.5 diameters apart: where cells are closer, the entry is a stand-in."""
    diameter = visium.get("scalefactors", {}).get("spot_diameter_fullres")
    return float(diameter) if diameter is not None and 0 < 1.4 * diameter <= spacing else None


def um_of(visium: dict[str, Any], spot: float | None) -> float | None:
    """µm in a unit of the coordinates, from the scale factors of Visium HD or Visium; None where they do not tell."""
    noted = visium.get("scalefactors", {}).get("microns_per_pixel")
    return float(noted) if noted is not None else VISIUM_SPOT_UM / spot if spot else None


def images_of(visium: dict[str, Any]) -> list[Image]:
    """The pictures of the tissue whose scale is known, from coarse to fine."""
    found = []
    for name, picture in visium.get("images", {}).items():
        scale = visium.get("scalefactors", {}).get(f"tissue_{name}_scalef")
        if scale is not None:
            pixels = np.squeeze(picture)
            height, width = pixels.shape[:2]
            extent = (-0.5 / scale, (width - 0.5) / scale, (height - 0.5) / scale, -0.5 / scale)
            found.append(Image(pixels, extent, 1 / scale))
    return sorted(found, key=lambda image: -image.pitch)


def make_panels(
    sections: Sequence[Section], n: int, *, ncols: int | None = None, ax: Axes | None = None
) -> tuple[Figure, np.ndarray]:
    """Figure and ``n`` empty axes in the shape of the sections' window.

    The more panels, the smaller; rows are of about equal length, and no figure is wider than a page on its side.
    """
    x0, x1, y0, y1 = sections[0].window
    aspect = np.sqrt(np.clip((x1 - x0) / (y1 - y0), 0.25, 4))
    side = 5.5 if n == 1 else np.clip(8 / np.sqrt(n), 2.2, 3.6)
    width, height = side * aspect, side / aspect
    if ncols is not None:
        _checks.check_range("ncols", ncols, 1, integer=True)
    else:
        most = np.clip(MAX_WIDTH // (width + 0.35), 1, 5)
        ncols = int(np.ceil(n / np.ceil(n / most)))
    fit = min(1.0, 9 / width, MAX_WIDTH / (min(n, ncols) * width), MAX_HEIGHT / (np.ceil(n / ncols) * height))
    fit = max(fit, min(1.0, MIN_SIDE / max(width, height)))
    return empty_axes(n, ncols, width=fit * width + 0.35, height=fit * height + 0.45, ax=ax)


def empty_axes(
    n: int, ncols: int, *, width: float, height: float, right: float = 0.0, ax: Axes | None = None
) -> tuple[Figure, np.ndarray]:
    """Figure and ``n`` axes of ``width`` × ``height`` inches in rows of ``ncols``, or the one that the user gave.

    ``right``: more inches on the right.
    """
    if ax is not None:
        _checks.check_one_panel(n)
        return ax.figure, np.array([ax])
    ncols = min(n, ncols)
    nrows = -(-n // ncols)
    size = (ncols * width + right, nrows * height)
    fig, axes = plt.subplots(nrows, ncols, squeeze=False, figsize=size, layout="constrained")
    for unused in axes.flat[n:]:
        unused.remove()
    return fig, axes.flat[:n]


def prepare(ax: Axes, section: Section) -> None:
    """Window, y axis down, equal aspect, no ticks; the tissue image where there is one."""
    x0, x1, y0, y1 = section.window
    if section.images:
        wanted = (x1 - x0) / (IMAGE_DPI * ax.get_window_extent().width / ax.figure.dpi)
        image = next((i for i in section.images if i.pitch <= wanted), section.images[-1])
        ax.imshow(image.pixels, extent=image.extent, cmap="gray", alpha=IMAGE_ALPHA, zorder=0)
    ax.set(xlim=(x0, x1), ylim=(y1, y0), xticks=[], yticks=[])
    ax.set_aspect("equal")
    ax.spines[:].set_visible(False)


def draw_cells(ax: Axes, section: Section, rows: np.ndarray | slice = slice(None), **style: Any) -> PathCollection:
    """A disc a cell, in the order of ``rows`` (of the section): the last come on top."""
    x0, x1, *_ = section.window
    points_per_unit = ax.get_window_extent().width / ax.figure.dpi * 72 / (x1 - x0)
    d = max(section.diameter, MIN_DIAMETER_PT / points_per_unit)
    # where no eye can tell, an octagon takes two thirds of the time
    disc = Path.unit_regular_polygon(8) if d * points_per_unit < 3 else Path.unit_circle()
    cells = PathCollection(
        [disc.transformed(Affine2D().scale(d / 2))], offsets=section.xy[rows], offset_transform=ax.transData,
        linewidths=0, rasterized=True, **style,
    )  # fmt: skip
    cells.set_transform(AffineDeltaTransform(ax.transData))  # the disc, too, is in units of the coordinates
    cells.set_in_layout(False)  # clipped to the axes: measuring a million discs would be for nothing
    ax.add_collection(cells, autolim=False)
    return cells


def draw_scale_bar(ax: Axes, section: Section) -> None:
    """A bar of a round length, a tenth to a quarter of the panel, under its left corner. Nothing without a unit."""
    if section.um is None:
        return
    x0, x1, *_ = section.window
    length = round_length((x1 - x0) * section.um / 4)
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    place = {"transform": ax.get_xaxis_transform(), "clip_on": False}
    color = plt.rcParams["text.color"]
    ends = [x0, x0 + length / section.um]
    ax.add_line(Line2D(ends, [-0.02, -0.02], color=color, linewidth=2, solid_capstyle="butt", gid="scale bar", **place))
    ax.text(x0, -0.035, text, va="top", ha="left", fontsize=SMALL, color=color, **place)


def round_length(at_most: float) -> float:
    """The largest of 1, 2, 5 × a power of ten that is not above ``at_most``."""
    power = 10.0 ** np.floor(np.log10(at_most))
    return float(max(m for m in (1, 2, 5) if m * power <= at_most * (1 + 1e-9)) * power)


def result(fig: Figure, axes: np.ndarray) -> Axes | Figure:
    """The axes where there is one panel, else the figure."""
    return axes[0] if len(axes) == 1 else fig
