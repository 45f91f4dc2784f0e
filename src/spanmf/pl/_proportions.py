"""Cell types in spots on the section: pies, a map a type, and the type with the largest share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.lines import Line2D

from .. import _checks, _data
from .._docs import doc
from . import _map
from ._colors import MISSING, colors_of, ink, value_map
from ._domains import legend_beside
from ._factors import draw_factor, small_colorbar, top_of_scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.typing import ColorType
    from spatialdata import SpatialData

KINDS = ("pies", "maps")
OTHER, EMPTY = "other", "no counts"
ARC = 40  # corners of a whole circle
SMALL_PIE_PT = 2.5  # below this diameter no eye sees wedges
THIN = 1e-3  # share below which a wedge is left out
PALE = 0.15  # strength of the colour of a spot in which all types are alike


@doc
def proportions(
    adata: AnnData | SpatialData,
    key: str = "stl_nmf",
    *,
    kind: Literal["pies", "maps"] = "pies",
    types: Sequence[str] | None = None,
    n_types: int = 12,
    clip: float = 0.99,
    palette: Mapping[str, ColorType] | Sequence[ColorType] | None = None,
    cmap: str | Colormap | None = None,
    ncols: int | None = None,
    library_key: str | None = None,
    spatial_key: str = "spatial",
    size: float | None = None,
    um_per_unit: float | None = None,
    image: bool = True,
    ax: Axes | None = None,
    table_key: str | None = None,
) -> Axes | Figure:
    r"""Draw the shares of the cell types on the section: a pie a spot, or a map a type.

    Pies show a section as a whole: a wedge's angle is the type's share, from 12 o'clock on, clockwise, the types in the order
    of the legend. At most ``n_types`` are told apart; the rest are one wedge, "other". Those with the largest mean
    *squared* share are, so that a type which fills a few spots comes before one that is a little everywhere.

    Maps show a type as it is: from 0 to a high quantile of its own positive shares, so their colours compare spots, not
    types; the number at each bar says how much its type's darkest colour is.

    Spots without shares (NaN) are empty rings in pies, and are left out of maps.

    Parameters
    ----------
    {adata}
    key
        Shares in ``adata.obsm`` (observations × types): what :func:`spanmf.tl.stl_nmf` wrote, or any other table of shares.
    kind
        ``"pies"`` or ``"maps"``.
    types
        Types to tell apart (pies) or to draw (maps). ``None``: chosen by their shares (pies) or all (maps).
    n_types
        Most types that pies tell apart, where ``types`` does not say.
    clip
        Quantile of a type's positive shares from which on the colour no longer changes (maps).
    palette
        Colours of the types: a mapping from type to colour, or a sequence. ``None``: those of ``adata.obs[key]``, where it is
        (see :func:`spanmf.pl.dominant_type`), else our own.
    cmap
        Colour map of the maps. ``None``: as in :func:`spanmf.pl.factors`.
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
        If shares, coordinates or the library column are not there.
    ValueError
        If the slot holds no shares, for a type that is not there, or for ``ax`` and several panels.

    Warns
    -----
    SpanmfWarning
        If the pies are too small to be seen: draw maps, or part of the section.

    See Also
    --------
    spanmf.pl.dominant_type : one colour a spot.

    Examples
    --------
    >>> import spanmf as sn
    >>> section = sn.datasets.visium_section(200)
    >>> ax = sn.pl.proportions(section, "proportions_true", n_types=5)
    >>> [text.get_text() for text in ax.figure.legends[0].get_texts()][-1]
    'other'
    >>> figure = sn.pl.proportions(section, "proportions_true", kind="maps", types=["tumour", "B"])
    >>> [panel.get_title() for panel in figure.axes[:2]]
    ['tumour', 'B']
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    shares, names = _data.get_proportions(table, key)
    _checks.check_choice("kind", kind, KINDS)
    _checks.check_range("n_types", n_types, 1, integer=True)
    _checks.check_range("clip", clip, 0, 1, open_low=True)
    if types is not None:
        _checks.check_members("types", types, names)
    sections = _map.read_sections(
        table, spatial_key=spatial_key, library_key=library_key, um_per_unit=um_per_unit, size=size, image=image
    )
    if kind == "maps":
        chosen = range(len(names)) if types is None else [names.index(t) for t in types]
        return _maps(sections, shares, names, list(chosen), clip, value_map(cmap), ncols, ax)
    told = largest(shares, n_types) if types is None else sorted(names.index(t) for t in types)
    parts, labels = with_other(shares, names, told)
    colors = type_colors(table, key, names, palette) | {OTHER: MISSING}
    fig, panels = _map.make_panels(sections, len(sections), ncols=ncols, ax=ax)
    rgba = [to_rgba(colors[name]) for name in labels]
    for section, panel in zip(sections, panels, strict=True):
        _map.prepare(panel, section)
        draw_pies(panel, section, parts, rgba)
        if section.name:
            panel.set_title(section.name, fontsize=10)
    _map.draw_scale_bar(panels[0], sections[0])
    _warn_if_small(panels[0], sections[0])
    handles = [dot(name, colors[name]) for name in labels]
    if np.isnan(shares).any():
        handles.append(dot(EMPTY, "none", edge=ink(0.4)))
    legend_beside(ax, fig, handles, title="shares")
    return _map.result(fig, panels)


@doc
def dominant_type(
    adata: AnnData | SpatialData,
    key: str = "stl_nmf",
    *,
    shade: bool = True,
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
    """Map the cell type with the largest share of every spot, the paler the smaller that share.

    A spot of a Visium array holds several types, and the largest share may be small: a pale spot is a mixture, whose colour means little.
    The legend names the types that are the largest somewhere, with the number of such spots.

    Parameters
    ----------
    {adata}
    key
        Shares in ``adata.obsm`` (observations × types), as :func:`spanmf.tl.stl_nmf` writes them.
    shade
        Make mixed spots pale.
    palette
        Colours of the types: a mapping from type to colour, or a sequence. ``None``: ``adata.uns[f"{key}_colors"]`` where it
        is (scanpy's convention), else our own.
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
        If shares, coordinates or the library column are not there.
    ValueError
        If the slot holds no shares, or for ``ax`` and several panels.

    Examples
    --------
    >>> import spanmf as sn
    >>> section = sn.datasets.visium_section(200)
    >>> ax = sn.pl.dominant_type(section, "proportions_true")
    >>> ax.figure.legends[0].get_texts()[0].get_text().startswith("epithelial (")
    True
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    shares, names = _data.get_proportions(table, key)
    colors = type_colors(table, key, names, palette)
    sections = _map.read_sections(
        table, spatial_key=spatial_key, library_key=library_key, um_per_unit=um_per_unit, size=size, image=image
    )
    largest_share, codes = dominant(shares)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    strength = PALE + (1 - PALE) * np.clip(largest_share, 0, 1) if shade else np.ones(len(codes))
    strength = np.where(codes < 0, 1, strength)
    ground = np.array(to_rgba(plt.rcParams["axes.facecolor"]))
    plain = np.array([*(to_rgba(colors[name]) for name in names), to_rgba(MISSING)])[codes]
    rgba = strength[:, None] * plain + (1 - strength[:, None]) * ground
    fig, panels = _map.make_panels(sections, len(sections), ncols=ncols, ax=ax)
    for section, panel in zip(sections, panels, strict=True):
        _map.prepare(panel, section)
        order = np.argsort(strength[section.rows], kind="stable")
        _map.draw_cells(panel, section, order, facecolors=rgba[section.rows[order]])
        if section.name:
            panel.set_title(section.name, fontsize=10)
    _map.draw_scale_bar(panels[0], sections[0])
    handles = [dot(f"{name} ({n:,})", colors[name]) for name, n in zip(names, counts, strict=True) if n]
    if (codes < 0).any():
        handles.append(dot(f"{EMPTY} ({(codes < 0).sum():,})", MISSING))
    if shade:
        handles += [dot(f"share {x:.0%}", ink(0.75 * (PALE + (1 - PALE) * x))) for x in (1.0, 0.3)]
    legend_beside(ax, fig, handles, title="largest share (spots)")
    return _map.result(fig, panels)


def largest(shares: np.ndarray, n: int) -> list[int]:
    """The types with the largest mean squared share, in the order of the columns; one too many is no "other"."""
    mean = np.nanmean(shares**2, axis=0)
    n = shares.shape[1] if shares.shape[1] <= n + 1 else n
    return sorted(np.argsort(-mean, kind="stable")[:n].tolist())


def with_other(shares: np.ndarray, names: list[str], told: Sequence[int]) -> tuple[np.ndarray, list[str]]:
    """Shares of the types that are told apart and of the rest together; rows sum to one."""
    rest = np.setdiff1d(np.arange(len(names)), told)
    columns = [shares[:, list(told)]] + ([shares[:, rest].sum(1, keepdims=True)] if rest.size else [])
    parts = np.concatenate(columns, axis=1)
    total = parts.sum(1, keepdims=True)
    parts = np.divide(parts, total, out=np.full(parts.shape, np.nan), where=total > 0)
    return parts, [names[k] for k in told] + [OTHER] * bool(rest.size)


def type_colors(
    table: AnnData, key: str, names: list[str], palette: Mapping[str, ColorType] | Sequence[ColorType] | None
) -> dict[str, ColorType]:
    """Colours of the types: those of the label of the dominant type, where it has just these categories."""
    column = _data.get_column(table, key) if key in table.obs else None
    same = isinstance(getattr(column, "dtype", None), pd.CategoricalDtype) and len(column.cat.categories) == len(names)
    return colors_of(names, _data.get_colors(table, key) if same else (), palette)


def dominant(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest share of every spot and the type it belongs to (−1 where there are none)."""
    filled = np.nan_to_num(shares, nan=0.0)
    total = filled.sum(1)
    codes = np.where(total > 0, filled.argmax(1), -1)
    return np.divide(filled.max(1), total, out=np.zeros(len(total)), where=total > 0), codes


def draw_pies(ax: Axes, section: _map.Section, parts: np.ndarray, rgba: Sequence[Any]) -> None:
    """A pie a spot, in units of the coordinates: wedges from 12 o'clock, clockwise (y points down)."""
    own = parts[section.rows]
    known = ~np.isnan(own[:, 0])
    radius = 0.48 * section.diameter
    end = 2 * np.pi * np.cumsum(own[known], axis=1)
    begin = np.concatenate([np.zeros((known.sum(), 1)), end[:, :-1]], axis=1)
    spot, part = np.nonzero(own[known] > THIN)
    colors = np.array(rgba)[part]
    corners = wedges(section.xy[known][spot], radius, begin[spot, part], end[spot, part])
    n_corners = np.array([len(c) for c in corners])
    for n in np.unique(n_corners):
        rows = np.flatnonzero(n_corners == n)
        pies = PolyCollection(
            [corners[i] for i in rows], facecolors=colors[rows], edgecolors="face", linewidths=0.1,
            rasterized=True, gid="pies",
        )  # fmt: skip
        pies.set_in_layout(False)
        ax.add_collection(pies, autolim=False)
    if not known.all():
        rings = _map.draw_cells(ax, section, np.flatnonzero(~known), facecolors="none", edgecolors=[ink(0.4)])
        rings.set_linewidth(0.6)


def wedges(centre: np.ndarray, radius: float, begin: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
    """Corners of each wedge: the centre, then the arc, with as many points as its angle needs."""
    steps = 2 ** np.ceil(np.log2(np.maximum((end - begin) / (2 * np.pi) * ARC, 1))).astype(int)
    out: list[np.ndarray] = [np.empty(0)] * len(centre)
    for n in np.unique(steps):
        rows = np.flatnonzero(steps == n)
        angle = begin[rows, None] + (end - begin)[rows, None] * np.linspace(0, 1, n + 1)
        arc = centre[rows, None] + radius * np.stack([np.sin(angle), -np.cos(angle)], axis=-1)
        for i, corners in zip(rows, np.concatenate([centre[rows, None], arc], axis=1), strict=True):
            out[i] = corners
    return out


def dot(label: str, color: Any, edge: Any = None) -> Line2D:
    """An entry of a legend."""
    return Line2D(
        [], [], linestyle="", marker="o", markersize=7, markerfacecolor=color, markeredgecolor=edge or color,
        markeredgewidth=0 if edge is None else 0.8, label=label,
    )  # fmt: skip


def _maps(
    sections: list[_map.Section], shares: np.ndarray, names: list[str], chosen: list[int], clip: float, cmap: Colormap,
    ncols: int | None, ax: Axes | None,
) -> Axes | Figure:  # fmt: skip
    """A panel a type and library."""
    table_like = len(chosen) > 1 and len(sections) > 1  # a row a type, a column a library
    fig, panels = _map.make_panels(
        sections, len(chosen) * len(sections), ncols=len(sections) if table_like else ncols, ax=ax
    )
    known = [_known(section, shares) for section in sections]
    for k, row in zip(chosen, panels.reshape(len(chosen), len(sections)), strict=True):
        values = np.nan_to_num(shares[:, k])
        cells = draw_factor(row, known, values, Normalize(0, top_of_scale(values, clip)), cmap)
        small_colorbar(cells, row[-1], clipped=values.max() > cells.norm.vmax)
        if table_like:
            row[0].set_ylabel(names[k], rotation=0, ha="right", va="center", fontsize=9)
        else:
            row[0].set_title(names[k], fontsize=9 if len(names[k]) < 26 else 7)
    if len(sections) > 1:
        for section, panel in zip(sections, panels, strict=False):
            panel.set_title(section.name, fontsize=10)
        if not table_like:
            fig.suptitle(names[chosen[0]], fontsize=10)
    _map.draw_scale_bar(panels[0], sections[0])
    return _map.result(fig, panels)


def _known(section: _map.Section, shares: np.ndarray) -> _map.Section:
    """The spots of a section that have shares."""
    known = ~np.isnan(shares[section.rows, 0])
    return replace(section, rows=section.rows[known], xy=section.xy[known])


def _warn_if_small(ax: Axes, section: _map.Section) -> None:
    x0, x1, *_ = section.window
    points = section.diameter * ax.get_window_extent().width / ax.figure.dpi * 72 / (x1 - x0)
    if points < SMALL_PIE_PT:
        _checks.warn(
            f"The pies are {points:.1f} points wide, too small for wedges to be seen: draw `kind='maps'`, "
            "`sn.pl.dominant_type`, or a part of the section."
        )
