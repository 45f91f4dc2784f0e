"""Shares of domains or factors by sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from .. import _checks, _composition, _data
from .._docs import doc
from . import _map
from ._colors import PALETTE, ink, label_colors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import ColorType
    from spatialdata import SpatialData

GAP = 1.0  # between conditions, in bars
MARKERS = "osD^vPX"  # of the conditions


@doc
def composition(
    adata: AnnData | SpatialData,
    key: str,
    library_key: str,
    *,
    condition_key: str | None = None,
    palette: Mapping[str, ColorType] | Sequence[ColorType] | None = None,
    ax: Axes | None = None,
    table_key: str | None = None,
) -> Axes | Figure:
    """Draw what each sample is made of, and how the conditions differ.

    One bar a sample, cut into the shares of its domains (or factors); the number of its cells is beside it. With
    conditions, samples are grouped by them, and a second panel shows every sample's share of every domain as a dot, the
    mean of each condition as a line, and the adjusted p of :func:`spanmf.tl.composition` (a dash where there is none).

    Parameters
    ----------
    {adata}
    key
        Domains (a categorical column of ``adata.obs``) or factors (a matrix in ``adata.obsm``).
    {library_key}
    condition_key
        Column of ``adata.obs`` with the condition of each sample.
    {palette}
    ax
        Axes to draw into, where there are no conditions.
    {table_key}

    Returns
    -------
    The Axes, or with conditions the Figure. The table is not changed.

    Raises
    ------
    KeyError
        If a column or matrix is missing.
    ValueError
        If a sample has two conditions, or ``ax`` is given with conditions.

    See Also
    --------
    spanmf.tl.composition : the numbers.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000, n_libraries=3)
    >>> ax = sn.pl.composition(adata, "domain", "library")
    >>> len(ax.get_yticklabels())
    3
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    found = _composition.shares(table, key, library_key, condition_key)
    if condition_key is not None and ax is not None:
        _checks.check_one_panel(2)
    colors = _colors_of(table, key, found.share.columns, palette)
    if condition_key is None:
        height = _height(len(found.share))
        columns = -(-len(colors) // int(4 * height - 2))
        width = 4.2 + _text_width(found.share.index) + columns * (0.3 + _text_width(colors))
        _, panels = _map.empty_axes(1, 1, width=width, height=height, ax=ax)
        _bars(panels[0], found, colors)
        _legend(panels[0], colors, key, columns)
        return panels[0]
    n_bars = len(found.share) + GAP * (found.condition.nunique() - 1)
    n_rows = found.share.shape[1] * (0.6 + 0.4 * found.condition.nunique())
    height = max(_height(n_bars), min(1.2 + 0.2 * n_rows, 20))
    width = 9.5 + _text_width(found.share.index) + _text_width(colors)
    fig, (left, right) = plt.subplots(1, 2, figsize=(width, height), layout="constrained")
    _bars(left, found, colors)
    _dots(right, found, _composition.compare(found), colors, condition_key)
    return fig


def _text_width(names: Iterable[str]) -> float:
    """Inches that the longest name takes, about."""
    return 0.08 * max(map(len, names))


def _height(n_bars: float) -> float:
    return float(np.clip(0.9 + 0.26 * n_bars, 2.6, 20))


def _colors_of(
    table: AnnData, key: str, names: pd.Index, palette: Mapping[str, ColorType] | Sequence[ColorType] | None
) -> dict[str, ColorType]:
    if key in table.obs:
        colors = label_colors(table, key, palette)
        return {name: colors[name] for name in names}
    chosen = palette or PALETTE
    if hasattr(chosen, "items"):
        return {name: chosen[name] for name in names}
    return {name: chosen[i % len(chosen)] for i, name in enumerate(names)}


def _bars(ax: Axes, found: _composition.Shares, colors: dict[str, ColorType]) -> None:
    """A stacked bar a sample, samples of a condition together."""
    place, order = _places(found)
    left = np.zeros(len(order))
    for name, color in colors.items():
        width = found.share[name].to_numpy()[order]
        width = np.where(np.isnan(width), 0, width)
        ax.barh(place, width, left=left, height=0.86, color=color, edgecolor=ink(0), linewidth=0.4)
        left += width
    names = found.share.index.to_numpy()[order]
    ax.set_yticks(place, names, fontsize=9 if len(order) <= 40 else 6)
    for y, n in zip(place, found.n_cells[order], strict=True):
        ax.text(
            1.01, y, f"{n:,}" if n else "none labelled", va="center", fontsize=_map.SMALL, color=ink(0.6), clip_on=False
        )
    ax.text(1.01, -0.62, "cells", fontsize=_map.SMALL, color=ink(0.6), va="bottom")
    if found.condition is not None:
        group = found.condition.cat.codes.to_numpy()[order]
        for c, name in enumerate(found.condition.cat.categories):
            ax.text(0, place[group == c].min() - 0.5, name, fontsize=9, fontweight="bold", va="bottom")
    ax.set(xlim=(0, 1), ylim=(place.max() + 0.6, -0.6 - (found.condition is not None)))
    ax.set_xlabel(f"share of {found.share.columns.name}s", fontsize=9)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=_map.SMALL)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _places(found: _composition.Shares) -> tuple[np.ndarray, np.ndarray]:
    """Where each bar lies, and which sample it is: by condition, with a gap between conditions."""
    if found.condition is None:
        return np.arange(len(found.share), dtype=float), np.arange(len(found.share))
    group = found.condition.cat.codes.to_numpy()
    order = np.argsort(group, kind="stable")
    steps = np.concatenate([[0], np.cumsum(np.diff(group[order]) != 0)])
    return np.arange(len(order)) + GAP * steps, order


def _legend(ax: Axes, colors: dict[str, ColorType], title: str, columns: int) -> None:
    """Beside the bars, right of the numbers of cells."""
    handles = [Patch(color=color, label=name) for name, color in colors.items()]
    ax.legend(
        handles=handles, title=title, loc="upper left", bbox_to_anchor=(1.12, 1.02), frameon=False, fontsize=9,
        ncols=columns, alignment="left", handlelength=1, handleheight=1,
    )  # fmt: skip


def _dots(
    ax: Axes, found: _composition.Shares, test: pd.DataFrame, colors: dict[str, ColorType], condition_key: str
) -> None:
    """Every sample's share of every domain, a line of dots a condition, and the adjusted p."""
    conditions = list(found.condition.cat.categories)
    step = 1 / (len(conditions) + 0.5)
    for i, (name, color) in enumerate(colors.items()):
        for c, condition in enumerate(conditions):
            values = found.share[name].to_numpy()[(found.condition == condition).to_numpy()]
            values = values[~np.isnan(values)]
            y = i + (c - (len(conditions) - 1) / 2) * step
            marker = MARKERS[c % len(MARKERS)]
            ax.scatter(
                values,
                np.full(len(values), y),
                s=22,
                color=[color],
                marker=marker,
                edgecolors=ink(0.8),
                linewidths=0.5,
                zorder=3,
            )
            if len(values):
                ax.plot(
                    [values.mean()] * 2, [y - 0.42 * step, y + 0.42 * step], color=ink(0.9), linewidth=1.5, zorder=2
                )
    for i, p in enumerate(test["p_adjusted"]):
        text = "–" if np.isnan(p) else f"{p:.2f}" if p >= 0.095 else f"{p:.1g}"
        ax.text(1.02, i, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8, clip_on=False)
    ax.text(1.02, -0.62, "adj. p", transform=ax.get_yaxis_transform(), va="bottom", fontsize=_map.SMALL, color=ink(0.6))
    for i in range(1, len(colors)):
        ax.axhline(i - 0.5, color=ink(0.12), linewidth=0.6, zorder=0)
    ax.set_yticks(range(len(colors)), list(colors), fontsize=9)
    for label, color in zip(ax.get_yticklabels(), colors.values(), strict=True):
        label.set_bbox({"facecolor": color, "alpha": 0.35, "edgecolor": "none", "pad": 1.5})
    ax.set_ylim(len(colors) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("share of a sample (line: mean)", fontsize=9)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=_map.SMALL)
    ax.grid(visible=False)
    ax.spines[["top", "right", "left"]].set_visible(False)
    handles = [
        plt.Line2D(
            [], [], linestyle="", marker=MARKERS[c % len(MARKERS)], color=ink(0.6), markersize=5, label=condition
        )
        for c, condition in enumerate(conditions)
    ]
    ax.legend(
        handles=handles, title=condition_key, loc="lower center", bbox_to_anchor=(0.5, 1.02), frameon=False, fontsize=9,
        ncols=min(4, len(handles)), handletextpad=0.2,
    )  # fmt: skip
