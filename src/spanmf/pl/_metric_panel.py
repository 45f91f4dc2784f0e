"""Methods against metrics."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.patches import Rectangle

from .. import _checks
from .._format import number
from . import _map
from ._colors import ink, luminance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

ARROWS = {"higher": "↑", "lower": "↓", "": ""}
COLORS = LinearSegmentedColormap.from_list("better", ["#F4F1EA", "#A6CBE3", "#2F86BE", "#0B4F82"])
MARKS = "abcdefghijklmnopqrstuvwxyz"


def metric_panel(
    table: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    library: str = "all",
    ax: Axes | None = None,
) -> Axes:
    """Draw methods against metrics as a table of coloured numbers.

    One row a metric, one column a method (key). The numbers are printed. An arrow behind a metric's name says which way
    is better, and the colours of a row go from its worst value to its best, so that darker is better everywhere. They
    compare the methods under one metric only: there is no sum of a column, since metrics measure different things
    in different units and several follow each other. A metric without a better side, and a row whose values are all
    equal, have no colours. A value that could not be computed is hatched, with the reason under the table.

    Parameters
    ----------
    table
        What :func:`spanmf.metrics.panel` returns: columns ``key``, ``metric``, ``value``, ``better`` (``"higher"``,
        ``"lower"`` or ``""``), and where they are there ``library`` and ``note``.
    metrics
        Metrics to draw, in this order. ``None``: all, in the order of the table.
    keys
        Methods to draw, in this order. ``None``: all, in the order of the table.
    library
        Rows of the table to draw, where it has a column ``library``; ``"all"`` are the pooled values.
    ax
        Axes to draw into.

    Returns
    -------
    The Axes (``.figure`` is the Figure). The table is not changed.

    Raises
    ------
    KeyError
        A column is missing.
    ValueError
        There is no such metric, key or library, a value stands there twice, or ``better`` is none of the three.

    See Also
    --------
    spanmf.pl.pareto : two metrics against each other, over a sweep.

    Examples
    --------
    >>> import pandas as pd
    >>> import spanmf as sn
    >>> table = pd.DataFrame(
    ...     {
    ...         "key": ["nmf", "hsnmf"] * 2,
    ...         "metric": ["chaos"] * 2 + ["edge_agreement"] * 2,
    ...         "value": [0.012, 0.004, 0.41, 0.83],
    ...         "better": ["lower"] * 2 + ["higher"] * 2,
    ...     }
    ... )
    >>> ax = sn.pl.metric_panel(table)
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['chaos ↓', 'edge agreement ↑']
    """
    panel = read_panel(table, metrics=metrics, keys=keys, library=library)
    rows, columns = panel.values.shape
    names = [f"{m.replace('_', ' ')} {ARROWS[b]}".rstrip() for m, b in zip(panel.metrics, panel.better, strict=True)]
    width = max(0.85, 0.095 * max(map(len, panel.keys)) + 0.15) if columns <= 8 else 0.62
    left = 0.085 * max(map(len, names)) + 0.2
    if ax is None:
        size = left + width * columns, 0.3 * rows + 0.6
        _, ax = plt.subplots(figsize=size, layout="constrained")
    position = panel.position()
    for i, j in np.ndindex(rows, columns):
        _draw_cell(ax, (j, i), panel.values[i, j], position[i, j], panel.marks[i][j])
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    ax.set_yticks(np.arange(rows), names, fontsize=9)
    slanted = {"rotation": 45, "ha": "left", "rotation_mode": "anchor"} if columns > 8 else {}
    ax.set_xticks(np.arange(columns), panel.keys, fontsize=9, **slanted)
    ax.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    if panel.notes:
        wrap = int(max(50, (left + width * columns) / 0.066))
        lines = [textwrap.fill(f"{mark}  {note}", wrap) for mark, note in zip(MARKS, panel.notes, strict=False)]
        ax.annotate(
            "\n".join(lines), (0, 0), (-left * 72 + 6, -8), xycoords="axes fraction", textcoords="offset points",
            va="top", ha="left", fontsize=_map.SMALL, gid="notes",
        )  # fmt: skip
    return ax


@dataclass(frozen=True)
class Panel:
    """What is drawn: values and footnotes, metrics × keys."""

    metrics: list[str]
    keys: list[str]
    values: np.ndarray
    better: list[str]
    marks: list[list[str]]  # of the footnote, or ""
    notes: list[str]

    def position(self) -> np.ndarray:
        """From 0 (the worst value of its row) to 1 (the best); NaN where nothing can be compared."""
        out = np.full(self.values.shape, np.nan)
        for row, side, target in zip(self.values, self.better, out, strict=True):
            finite = row[np.isfinite(row)]
            if side and finite.size > 1 and np.ptp(finite) > 1e-9 * np.abs(finite).max():
                share = (row - finite.min()) / np.ptp(finite)
                target[:] = np.clip(share if side == "higher" else 1 - share, 0, 1)
        return out


def read_panel(
    table: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    library: str = "all",
) -> Panel:
    """Pivot a long table of metrics."""
    for column in ("key", "metric", "value", "better"):
        _checks.check_key(table.columns, column, "columns", "`sn.metrics.panel(adata, keys)` makes such a table.")
    table = table.assign(
        key=table["key"].astype(str),
        value=table["value"].astype(float),
        better=table["better"].fillna("").astype(str),  # a CSV file reads "" as NaN
        note=table["note"].fillna("").astype(str) if "note" in table else "",
    )
    _checks.check_members("better", table["better"], ARROWS)
    if "library" in table:
        _checks.check_members("library", [library], table["library"].astype(str).unique())
        table = table[table["library"].astype(str) == library]
    metrics = _chosen("metrics", metrics, table["metric"])
    keys = _chosen("keys", keys, table["key"])
    table = table[table["metric"].isin(metrics) & table["key"].isin(keys)]
    twice = table.duplicated(["key", "metric"])
    if twice.any():
        row = table[twice].iloc[0]
        msg = f"The table has more than one value of {row['metric']!r} for {row['key']!r}: one each is drawn."
        raise ValueError(msg)

    def pivot(column: str) -> pd.DataFrame:
        return table.pivot(index="metric", columns="key", values=column).reindex(index=metrics, columns=keys)

    notes, values = pivot("note"), pivot("value").to_numpy(dtype=float)
    notes = notes.where(notes.notna(), "not computed").to_numpy(dtype=object)
    found = list(dict.fromkeys(note for note in notes.flat if note))
    marks = dict(zip(found, MARKS, strict=False)) | {"": ""}
    side = table.groupby("metric")["better"].first()
    return Panel(
        metrics, keys, values, [side[m] for m in metrics], [[marks.get(n, "*") for n in row] for row in notes], found
    )


def _chosen(name: str, wanted: Sequence[str] | None, column: pd.Series) -> list[str]:
    there = list(dict.fromkeys(column))
    if wanted is None:
        wanted = there
    _checks.check_members(name, wanted, there)
    return list(wanted)


def _draw_cell(ax: Axes, at: tuple[int, int], value: float, position: float, mark: str) -> None:
    """One number on its colour; hatched where there is none."""
    x, y = at
    missing = np.isnan(value)
    color = to_rgba(ink(0.06)) if np.isnan(position) or missing else COLORS(position)
    style = {"hatch": "////", "edgecolor": ink(0.35), "linewidth": 0} if missing else {"linewidth": 0}
    ax.add_patch(
        Rectangle((x - 0.48, y - 0.45), 0.96, 0.9, facecolor=color, gid="missing" if missing else None, **style)
    )
    if np.isnan(position) or missing:
        text_color = plt.rcParams["text.color"]
    else:
        text_color = "white" if luminance(color[:3]) < 0.42 else "black"
    text = ("" if missing else number(value)) + (f"$^{{{mark}}}$" if mark else "")
    ax.text(x, y, text, ha="center", va="center", fontsize=8.5, color=text_color)
