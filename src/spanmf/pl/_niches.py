"""Niches on the tissue, and what they are made of."""

from __future__ import annotations

from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from .. import _checks, _data, _keys
from .._docs import doc
from . import _map
from ._colors import MISSING, PALETTE, label_colors, rgba_of_codes
from ._domains import draw_labels, legend_handles

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

SMALL_SHARE = 0.02  # labels below this share in all niches are drawn together


@doc
def niches(
    adata: AnnData | SpatialData,
    key: str = "niches",
    *,
    library_key: str | None = None,
    spatial_key: str = "spatial",
    size: float | None = None,
    um_per_unit: float | None = None,
    table_key: str | None = None,
) -> Figure:
    """Map the niches and draw what surrounds the cells of each.

    The maps are those of :func:`spanmf.pl.domains`. Under them is one bar a niche, cut into the mean shares of the labels
    around its cells. Labels below 2 % in every niche are drawn as "other".

    Parameters
    ----------
    {adata}
    key
        Key that :func:`spanmf.tl.niches` wrote to.
    {map_library_key}
    {spatial_key}
    size
        Diameter of a cell in units of the coordinates. ``None``: neighbouring cells just touch.
    um_per_unit
        µm in one unit of the coordinates, for the scale bar. ``None``: ``adata.uns["um_per_unit"]``.
    {table_key}

    Returns
    -------
    The Figure. The table is not changed.

    Raises
    ------
    KeyError
        If there are no niches, coordinates or library column.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000, n_libraries=1)
    >>> sn.gr.niche_composition(adata, "cell_type", radius=50)
    >>> sn.tl.niches(adata, 4)
    >>> figure = sn.pl.niches(adata)
    >>> len(figure.axes)
    2
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    hint = "Run `sn.tl.niches(adata)` first."
    _checks.check_key(table.uns, key, "uns", hint)
    codes, names = _data.get_labels(table, key)
    composition = table.uns[key]["composition"]
    composition = composition.set_axis([str(x) for x in table.uns[key].get("labels", composition.columns)], axis=1)
    colors = label_colors(table, key) | {_keys.ISOLATED: MISSING}
    sections = _map.read_sections(
        table, spatial_key=spatial_key, library_key=library_key, um_per_unit=um_per_unit, size=size, image=False
    )
    columns = min(len(sections), 3)
    rows = -(-len(sections) // columns)
    height = 0.34 * len(composition) + 1.1
    fig = plt.figure(figsize=(4.2 * columns + 3.0, 3.8 * rows + height), layout="constrained")
    above, below = fig.subfigures(2, 1, height_ratios=[3.8 * rows, height])
    panels = above.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(sections) :]:
        panel.remove()
    for section, panel in zip(sections, panels, strict=False):
        _map.prepare(panel, section)
        draw_labels(panel, section, codes, rgba_of_codes(codes, names, colors))
        if section.name:
            panel.set_title(section.name, fontsize=10)
    _map.draw_scale_bar(panels[0], sections[0])
    above.legend(
        handles=legend_handles(codes, names, colors), loc="outside right upper", frameon=False, fontsize=8, title=key
    )
    _bars(below.subplots(), composition)
    return fig


def _bars(ax: plt.Axes, composition: pd.DataFrame) -> None:
    """Stacked mean shares, one bar a niche."""
    shares = composition.to_numpy(dtype=float)
    large = shares.max(0) >= SMALL_SHARE
    parts = [(str(c), shares[:, j]) for j, c in enumerate(composition.columns) if large[j]]
    if not large.all():
        parts.append(("other", shares[:, ~large].sum(1)))
    colors = [*islice(cycle(PALETTE), int(large.sum())), MISSING][: len(parts)]
    left, y = np.zeros(len(shares)), np.arange(len(shares))
    for color, (_, width) in zip(colors, parts, strict=True):
        ax.barh(y, width, left=left, height=0.8, color=color)
        left += width
    ax.set_yticks(y, [str(n) for n in composition.index], fontsize=8)
    ax.set_ylim(len(shares) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.set_xlabel("mean share of the neighbours", fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=_map.SMALL)
    ax.grid(visible=False)
    ax.spines[["top", "right", "left"]].set_visible(False)
    handles = [Patch(color=color, label=name) for color, (name, _) in zip(colors, parts, strict=True)]
    columns = 1 + len(handles) // 9
    ax.legend(handles=handles, frameon=False, fontsize=7, ncols=columns, loc="upper left", bbox_to_anchor=(1, 1.05))
