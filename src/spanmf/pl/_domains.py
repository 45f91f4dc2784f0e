"""Maps of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from .. import _data
from .._docs import doc
from . import _map
from ._colors import MISSING, label_colors, rgba_of_codes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import ColorType
    from spatialdata import SpatialData


@doc
def domains(
    adata: AnnData | SpatialData,
    key: str = "hsnmf",
    *,
    palette: Mapping[str, ColorType] | Sequence[ColorType] | None = None,
    ncols: int | None = None,
    library_key: str | None = None,
    spatial_key: str = "spatial",
    size: float | None = None,
    um_per_unit: float | None = None,
    image: bool = True,
    ax: Axes | None = None,
    table_key: str | None = None,
) -> Axes | Figure:
    """Map tissue domains, or any other labels of the cells.

    One panel a library, with one legend beside the maps. Cells without a label are grey and lie below; the labels
    with the fewest cells are drawn last.

    The y axis points down, as in :func:`squidpy.pl.spatial_scatter`; of 3-D coordinates the first two axes are drawn.

    Parameters
    ----------
    {adata}
    key
        Categorical column of ``adata.obs``.
    {palette}
    ncols
        Panels a row.
    {map_library_key}
    {spatial_key}
    {map_parameters}
    {table_key}

    Returns
    -------
    The Axes where there is one panel, else the Figure (of both, ``.figure`` is the Figure). The table is not changed.

    Raises
    ------
    KeyError
        Labels, coordinates or the library column are not there.
    ValueError
        ``ax`` for several panels.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> adata.obs["side"] = ["left" if x < 500 else "right" for x in adata.obsm["spatial"][:, 0]]
    >>> ax = sn.pl.domains(adata, "side")
    >>> [text.get_text() for text in ax.figure.legends[0].get_texts()]
    ['left', 'right']
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    codes, names = _data.get_labels(table, key)
    colors = label_colors(table, key, palette)
    sections = _map.read_sections(
        table, spatial_key=spatial_key, library_key=library_key, um_per_unit=um_per_unit, size=size, image=image
    )
    handles = legend_handles(codes, names, colors)
    fig, panels = _map.make_panels(sections, len(sections), ncols=ncols, ax=ax)
    for section, panel in zip(sections, panels, strict=True):
        _map.prepare(panel, section)
        draw_labels(panel, section, codes, rgba_of_codes(codes, names, colors))
        if section.name:
            panel.set_title(section.name, fontsize=10)
    _map.draw_scale_bar(panels[0], sections[0])
    legend_beside(ax, fig, handles, title=key)
    return _map.result(fig, panels)


def draw_labels(ax: Axes, section: _map.Section, codes: np.ndarray, rgba: np.ndarray, **style: Any) -> None:
    """Cells of a section in the colours of their labels: those without one first, then by falling size of the label."""
    sizes = np.bincount(codes[codes >= 0], minlength=1)
    own = codes[section.rows]
    order = np.lexsort((own, np.where(own < 0, -np.inf, -sizes[own].astype(float))))
    _map.draw_cells(ax, section, order, facecolors=rgba[section.rows[order]], **style)


def legend_handles(codes: np.ndarray, names: Sequence[str], colors: Mapping[str, ColorType]) -> list[Line2D]:
    """A dot a label, and one for cells without a label where there are such."""
    entries = [(name, colors[name]) for name in names] + ([("no label", MISSING)] if (codes < 0).any() else [])
    return [
        Line2D([], [], linestyle="", marker="o", markersize=7, markeredgewidth=0, color=color, label=name)
        for name, color in entries
    ]


def legend_beside(ax: Axes | None, fig: Figure, handles: Sequence[Line2D], title: str | None) -> None:
    """A legend that covers nothing: right of all panels, or of the axes that the user gave."""
    if not handles:
        return
    rows = int(max(4, fig.get_size_inches()[1] / 0.2 - 2))
    columns = -(-len(handles) // rows)
    style = {
        "handles": handles, "title": title, "frameon": False, "fontsize": 9, "ncols": columns,
        "handletextpad": 0.3, "alignment": "left", "columnspacing": 0.8, "borderaxespad": 0.3,
    }  # fmt: skip
    if ax is not None:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), **style)
        return
    width, height = fig.get_size_inches()
    fig.set_size_inches(width + 0.3 + columns * (0.35 + 0.085 * max(len(h.get_label()) for h in handles)), height)
    fig.legend(loc="outside right upper", **style)
