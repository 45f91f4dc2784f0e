"""Figures of the page: drawn at the size at which they are read, kept as PNG in as few bytes as do."""

from __future__ import annotations

from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import Normalize
from PIL import Image

from ..pl import _map
from ..pl._colors import ink, rgba_of_codes, value_map
from ..pl._domains import draw_labels
from ..pl._factors import draw_factor, small_colorbar, top_of_scale
from ._html import Picture

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import ColorType

CSS_DPI = 96  # CSS pixels in an inch
DPI = 144  # of the stored pictures: sharp on a dense screen and on paper
PAGE = 11.3  # inches across the page's column
TALLEST = 8.5  # inches that fit on a printed page
CLIP = 0.99  # quantile of a factor's positive values at which its colours end


@contextmanager
def plain_style() -> Iterator[None]:
    """The same look whatever the user's settings are; nothing is shown on the way, and no figure is left open."""
    before = set(plt.get_fignums())
    with mpl.rc_context(), plt.ioff():
        mpl.rcdefaults()
        mpl.rcParams["figure.dpi"] = DPI
        try:
            yield
        finally:
            for left in set(plt.get_fignums()) - before:
                plt.close(left)


def encode(drawn: Figure | Axes, alt: str, *, trim: bool = False) -> Picture:
    """A figure (or that of its only axes) as a PNG of at most 256 colours; the figure is closed.

    ``trim``: the picture is what is drawn, which may be more or less than the figure's area (this draws it twice).
    """
    fig = drawn.figure if hasattr(drawn, "transData") else drawn
    area = {"bbox_inches": "tight", "pad_inches": 0.04} if trim else {}
    raw, out = BytesIO(), BytesIO()
    try:
        fig.savefig(raw, format="png", dpi=DPI, facecolor="white", pil_kwargs={"compress_level": 1}, **area)
    finally:
        plt.close(fig)
    picture = Image.open(raw).convert("RGB")
    # of the fast ways this keeps the colours of a legend best, and white white
    picture.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(out, format="PNG", compress_level=7)
    width, height = (round(side * CSS_DPI / DPI) for side in picture.size)
    return Picture(out.getvalue(), width, height, alt)


def panel_grid(
    sections: Sequence[_map.Section], width: float, *, most: float, tallest: float
) -> tuple[int, float, float]:
    """Columns, and width and height of a panel in inches, for one map a section within ``width`` × ``tallest``.

    Of all numbers of columns, that with the largest panels, none more than ``most`` wide.
    """
    x0, x1, y0, y1 = sections[0].window
    aspect = float(np.clip((x1 - x0) / (y1 - y0), 0.2, 5))
    best = (1, 0.0, 0.0)
    for ncols in range(1, min(len(sections), 8) + 1):
        rows = -(-len(sections) // ncols)
        wide = min(most, width / ncols - 0.1, aspect * (tallest / rows - 0.3))
        wide = max(wide, 0.9)
        if wide > best[1] + 1e-9:
            best = (ncols, wide, wide / aspect)
    return best


def label_maps(
    sections: Sequence[_map.Section], codes: np.ndarray, names: Sequence[str], colors: Mapping[str, ColorType], alt: str
) -> Picture:
    """A map a library, without a legend."""
    ncols, width, height = panel_grid(sections, PAGE, most=6.5, tallest=TALLEST)
    fig, axes = _map.empty_axes(len(sections), ncols, width=width + 0.1, height=height + 0.3)
    rgba = rgba_of_codes(codes, names, colors)
    for section, ax in zip(sections, axes, strict=True):
        _map.prepare(ax, section)
        draw_labels(ax, section, codes, rgba)
        ax.set_title(section.name, fontsize=10)
    _map.draw_scale_bar(axes[0], sections[0])
    return encode(fig, alt)


def factor_maps(sections: Sequence[_map.Section], values: np.ndarray, width: float, alt: str) -> Picture:
    """One factor, a map a library, within ``width`` inches."""
    ncols, wide, height = panel_grid(sections, width - 0.5, most=3.2, tallest=3.2 if len(sections) <= 8 else 5.0)
    fig, axes = _map.empty_axes(len(sections), ncols, width=wide + 0.1, height=height + 0.25, right=0.5)
    norm = Normalize(0, top_of_scale(values, CLIP))
    cells = draw_factor(axes, sections, values, norm, value_map(None))
    for section, ax in zip(sections, axes, strict=True):
        ax.set_title(section.name, fontsize=8)
    small_colorbar(cells, axes[min(ncols, len(axes)) - 1], clipped=bool(values.max() > norm.vmax))
    _map.draw_scale_bar(axes[0], sections[0])
    return encode(fig, alt)


def degree_bars(degree: np.ndarray, alt: str) -> Picture:
    """How many neighbours cells have."""
    fig, ax = plt.subplots(figsize=(4.6, 2.4), layout="constrained")
    top = int(np.quantile(degree, 0.995)) + 1
    step = max(1, -(-top // 40))
    edges = np.arange(0, top + 2 * step, step) - 0.5
    ax.hist(np.minimum(degree, edges[-1] - 0.5), edges, color="#7A99B0")
    ax.axvline(degree.mean(), color=ink(1.0), linewidth=1)
    ax.annotate(
        f"mean {degree.mean():.1f}", (degree.mean(), 1), (4, -3), xycoords=("data", "axes fraction"),
        textcoords="offset points", va="top", fontsize=8,
    )  # fmt: skip
    ax.set(xlabel="neighbours of a cell", ylabel="cells")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.yaxis.set_major_formatter("{x:,.0f}")
    return encode(fig, alt)
