"""Colours: one per label, and maps for values."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import colormaps, rcParams
from matplotlib.colors import ListedColormap, is_color_like, to_rgb, to_rgba

from .. import _data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.colors import Colormap
    from matplotlib.typing import ColorType

# The seven hues of Okabe and Ito, then colours that were each chosen farthest (in Oklab) from all before it and from
# grey, white and black, as seen with normal, deuteranopic and protanopic vision. No eye tells the last ones apart.
PALETTE = [
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#85143D", "#291F85",
    "#006600", "#47D68F", "#FFA3FF", "#A33D8F", "#145266", "#8F7AEB", "#FF9999", "#995247", "#293D14",
    "#663DA3", "#7AA314", "#707A00", "#FFCC99", "#5C145C", "#5C8FB8", "#007A70", "#C28F66", "#7AADA3",
    "#703D00", "#CC5270", "#C2CC5C", "#CC85EB", "#CCADCC", "#851F70", "#700000", "#5C5C85", "#F5CCFF",
]  # fmt: skip
MISSING = "#BFBFBF"  # cells without a label


def label_colors(
    adata: AnnData, cluster_key: str, palette: Mapping[str, ColorType] | Sequence[ColorType] | None = None
) -> dict[str, ColorType]:
    """Colour of every category: from ``palette``, else ``uns[f"{cluster_key}_colors"]`` (scanpy's), else our own."""
    column = _data.get_column(adata, cluster_key)
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    names = [str(c) for c in (column.cat.categories if categorical else sorted(column.dropna().astype(str).unique()))]
    return colors_of(names, _data.get_colors(adata, cluster_key), palette)


def colors_of(
    names: Sequence[str],
    stored: Sequence[ColorType] = (),
    palette: Mapping[str, ColorType] | Sequence[ColorType] | None = None,
) -> dict[str, ColorType]:
    """Colour of every name: from ``palette``, else the stored ones if they are enough, else our own."""
    usable = len(stored) >= len(names) and all(is_color_like(c) for c in stored)
    own = [c for c in PALETTE if luminance(c) > 0.25] if dark_background() else PALETTE
    chosen = palette if palette is not None and not isinstance(palette, Mapping) else stored if usable else own
    colors = dict(zip(names, cycle(chosen), strict=False))
    return colors | dict(palette) if isinstance(palette, Mapping) else colors


def rgba_of_codes(codes: np.ndarray, names: Sequence[str], colors: Mapping[str, ColorType]) -> np.ndarray:
    """RGBA (n × 4) of label codes; −1 (no label) is grey."""
    return np.array([*(to_rgba(colors[name]) for name in names), to_rgba(MISSING)])[codes]


def luminance(color: ColorType) -> float:
    """How bright a colour looks, from 0 to 1."""
    return float(np.dot(to_rgb(color), (0.2126, 0.7152, 0.0722)))


def dark_background() -> bool:
    """Whether the axes are dark, as in matplotlib's style "dark_background"."""
    return luminance(rcParams["axes.facecolor"]) < 0.5


def ink(strength: float) -> ColorType:
    """A colour between the background of the axes (0) and the text (1), opaque, so that many lines do not add up."""
    text, ground = (np.array(to_rgb(rcParams[name])) for name in ("text.color", "axes.facecolor"))
    return tuple(strength * text + (1 - strength) * ground)


def value_map(cmap: str | Colormap | None) -> Colormap:
    """The colour map asked for, else one whose high end stands out from the background of the axes.

    Both ends of the default are parts of matplotlib's perceptually uniform "magma", cut so that the lowest values can
    still be told from the background.
    """
    if cmap is not None:
        return colormaps.get_cmap(cmap)
    span = (0.15, 1.0) if dark_background() else (0.97, 0.0)
    return ListedColormap(colormaps["magma"](np.linspace(*span, 256)))
