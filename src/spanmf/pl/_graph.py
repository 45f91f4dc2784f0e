"""A graph of cells, seen from near."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from scipy.spatial import cKDTree

from .. import _checks, _data, _keys
from .._docs import doc
from ..core._tiles import among
from . import _map
from ._colors import ink, label_colors, rgba_of_codes
from ._domains import draw_labels, legend_beside, legend_handles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import ColorType
    from spatialdata import SpatialData

    from ..core._tiles import AnyGraph

N_CELLS = 200  # in the window that is chosen
HEAVY = {"width": 1.4, "ink": 0.8}
LIGHT = {"width": 0.6, "ink": 0.25}
CROWD = 800  # more light edges than this are drawn thinner, or they make one grey area
CONTACT_NAMES = ("contact edges", "context edges")  # heavier, lighter
OTHER_NAMES = ("heavier edges", "lighter edges")


@doc
def graph(
    adata: AnnData | SpatialData,
    connectivity_key: str | None = None,
    *,
    region: Sequence[float] | None = None,
    cluster_key: str | None = None,
    palette: Mapping[str, ColorType] | Sequence[ColorType] | None = None,
    library_key: str | None = None,
    spatial_key: str = "spatial",
    size: float | None = None,
    um_per_unit: float | None = None,
    image: bool = True,
    ax: Axes | None = None,
    table_key: str | None = None,
) -> Axes | Figure:
    """Draw a graph of cells in a small window.

    All edges between cells of the window are drawn. Those heavier than halfway between the smallest and the largest
    weight there (contact edges) are thick, the others (context edges) thin. An edge that has two weights, one each
    way, has the larger.

    The y axis points down, as in :func:`squidpy.pl.spatial_scatter`; of 3-D coordinates the first two axes are drawn.

    Parameters
    ----------
    {adata}
    {connectivity_key}
    region
        The window ``(x0, x1, y0, y1)`` in units of the coordinates. ``None``: a square of about 200 cells where the
        tissue is denser than nine tenths of it.
    cluster_key
        Categorical column of ``adata.obs`` that colours the cells (grey: no label).
    {palette}
    library_key
        Column of ``adata.obs`` that tells the samples apart: one panel with its own window each.
    {spatial_key}
    {map_parameters}
    {table_key}

    Returns
    -------
    The Axes where there is one panel, else the Figure (of both, ``.figure`` is the Figure). The table is not changed.

    Raises
    ------
    KeyError
        The graph, coordinates or a column are not there.
    ValueError
        The graph belongs to another table, ``region`` is no window or an empty one, or ``ax`` for several panels.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sn.gr.contact_neighbors(adata)
    >>> ax = sn.pl.graph(adata)
    >>> [text.get_text() for text in ax.figure.legends[0].get_texts()]
    ['contact edges (weight 2.5)', 'context edges (weight 1)']
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    A, key = _data.find_graph(table, connectivity_key)
    names = CONTACT_NAMES if key == _keys.GraphKeys(_keys.CONTACT).connectivities else OTHER_NAMES
    codes, labels = (np.full(table.n_obs, -1), []) if cluster_key is None else _data.get_labels(table, cluster_key)
    colors = {} if cluster_key is None else label_colors(table, cluster_key, palette)
    sections = _map.read_sections(
        table, spatial_key=spatial_key, library_key=library_key, um_per_unit=um_per_unit, size=size, image=image
    )
    if region is not None:
        _checks.check_region(region, np.concatenate([s.xy for s in sections]))
    zooms = [_zoom(s, region, size) for s in sections]
    zooms = [(s, z) for s, z in zip(sections, zooms, strict=True) if len(z.rows)]
    edges = [edges_between(A, zoom.rows) for _, zoom in zooms]
    weights = np.concatenate([w for *_, w in edges])
    middle = (weights.min() + weights.max()) / 2 if weights.size else 0.0

    shown = np.concatenate([zoom.rows for _, zoom in zooms])
    handles = _edge_handles(weights, middle, names)
    if cluster_key is not None:
        present = [name for i, name in enumerate(labels) if (codes[shown] == i).any()]
        handles = legend_handles(codes[shown], present, colors) + handles
    fig, panels = _map.make_panels([zoom for _, zoom in zooms], len(zooms), ax=ax)
    for (section, zoom), (i, j, w), panel in zip(zooms, edges, panels, strict=True):
        _map.prepare(panel, zoom)
        _map.draw_scale_bar(panel, zoom)
        for style, chosen in ((LIGHT, w < middle), (HEAVY, w >= middle)):
            segments = np.stack([zoom.xy[i[chosen]], zoom.xy[j[chosen]]], axis=1)
            width = style["width"] * (min(1.0, CROWD / max(len(segments), 1)) if style is LIGHT else 1.0)
            lines = LineCollection(segments, linewidths=width, colors=ink(style["ink"]), zorder=1)
            panel.add_collection(lines, autolim=False)
        draw_labels(panel, zoom, codes, rgba_of_codes(codes, labels, colors), zorder=2)
        title = f"{len(zoom.rows):,} of {len(section.rows):,} observations"
        panel.set_title(f"{section.name}: {title}" if section.name else title, fontsize=10)
    legend_beside(ax, fig, handles, title=cluster_key)
    return _map.result(fig, panels)


def _zoom(section: _map.Section, region: Sequence[float] | None, size: float | None) -> _map.Section:
    """The part of a section in the window, with cells so small that the edges between them can be seen."""
    x0, x1, y0, y1 = dense_window(section.xy) if region is None else region
    inside = ((section.xy >= (x0, y0)) & (section.xy <= (x1, y1))).all(1)
    xy = section.xy[inside]
    d = size or 0.5 * min(_map.cell_spacing(xy) if len(xy) > 1 else np.inf, section.diameter)
    window = (float(x0 - d), float(x1 + d), float(y0 - d), float(y1 + d))
    return replace(section, rows=section.rows[inside], xy=xy, window=window, diameter=d)


def dense_window(xy: np.ndarray, n_cells: int = N_CELLS, n_probes: int = 500) -> tuple[float, float, float, float]:
    """A square that holds about ``n_cells`` and is smaller than it would be at nine tenths of the cells.

    Where there are no more cells than that, the window holds all of them.
    """
    if len(xy) <= n_cells:
        (x0, y0), (x1, y1) = xy.min(0), xy.max(0)
        return float(x0), float(x1), float(y0), float(y1)
    probes = xy[:: max(1, len(xy) // n_probes)]
    half = cKDTree(xy).query(probes, k=[n_cells], p=np.inf)[0][:, 0]
    chosen = np.argsort(half, kind="stable")[len(half) // 10]
    (x, y), r = probes[chosen], half[chosen]
    return float(x - r), float(x + r), float(y - r), float(y + r)


def edges_between(A: AnyGraph, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both ends (as positions in ``rows``) and the weight of every edge between the given cells, each edge once."""
    part = among(A, rows).tocsr()
    part = sp.triu(part.maximum(part.T), k=1, format="coo")
    return part.row, part.col, part.data


def _edge_handles(weights: np.ndarray, middle: float, names: tuple[str, str]) -> list[Line2D]:
    """A line for the heavier edges and, where there are such, one for the lighter ones, with their weights."""
    handles = []
    for name, style, chosen in zip(names, (HEAVY, LIGHT), (weights >= middle, weights < middle), strict=True):
        if chosen.any():
            low, high = weights[chosen].min(), weights[chosen].max()
            weight = f"{low:.2g}" if np.isclose(low, high) else f"{low:.2g}–{high:.2g}"
            line = {"linewidth": style["width"], "color": ink(style["ink"])}
            handles.append(Line2D([], [], label=f"{name} (weight {weight})", **line))
    return handles
