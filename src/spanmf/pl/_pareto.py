"""Runs of a sweep against each other: fronts of two objectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from .. import _checks
from ..metrics import _pareto as _front
from . import _map
from ._colors import MISSING, dark_background, ink
from ._labels import label_points

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KNEE = "#D55E00"
DIAMETERS = 5.0, 12.0  # of the markers of the lowest and highest resolution, in points
AXES = {"n_components": "components", "beta": "β", "alpha": "α", "resolution": "resolution", "rng": "seed"}
WORDS = {
    "morans_i": "Moran's I", "chaos": "CHAOS", "chaos_normalized": "normalised CHAOS", "pas": "PAS", "asw": "ASW",
    "gearys_c": "Geary's C", "davies_bouldin": "Davies–Bouldin", "ari": "ARI", "nmi": "NMI",
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """Two columns, how they read on the axes, and all objectives of the front."""

    x: str
    y: str
    labels: tuple[str, str]
    objectives: dict[str, Literal["max", "min"]]


def pareto(
    table: pd.DataFrame,
    x: str | None = None,
    y: str | None = None,
    *,
    objectives: Mapping[str, Literal["max", "min"]] | None = None,
    label: Literal["front", "all"] | None = "front",
    ax: Axes | None = None,
) -> Axes | Figure:
    r"""Draw the runs of a sweep by two objectives, and the front of those that no other beats.

    By default the two plots of the published sweep: Moran's I / (100 CHAOS), how compact the domains are, against
    marker coherence × enrichment, how coherent (marker coherence alone where the table has no enrichment, as the axis
    says), and against silhouette / Davies–Bouldin, how well separated. A plot for which no run has values is left out.

    A dot is a run: its colour is the rank, its size the resolution. Runs on the front are opaque and connected (the line
    bounds what they beat), the knee of :func:`spanmf.metrics.pareto_front` has a ring. Front and knee are those of the
    panel's own two objectives, or of all ``objectives`` if these are given.

    Parameters
    ----------
    table
        One row a run, such as :func:`spanmf.tl.sweep` returns.
    x, y
        Columns to draw. ``None``: the first two ``objectives``, or else the published plots.
    objectives
        Columns and their directions. With more than two the front is that of all of them and is not connected, as it
        is no line. ``None``: ``x`` and ``y``, in the direction that is known of every metric of the sweep.
    label
        Which runs to name by what varies among them (rank / resolution): those on the ``"front"``, ``"all"``, or none.
        A name that would cover another one is left out.
    ax
        Axes to draw into, where there is one panel.

    Returns
    -------
    The Axes where there is one panel, else the Figure (of both, ``.figure`` is the Figure).

    Raises
    ------
    KeyError
        A column that is not there.
    ValueError
        One of ``x`` and ``y`` without the other; a column whose direction is not known and not given; no run with all
        objectives; ``ax`` for two panels.

    References
    ----------
    Mahmud et al. (2026), `arXiv:2602.02638 <https://arxiv.org/abs/2602.02638>`_.

    Examples
    --------
    >>> import pandas as pd
    >>> import spanmf as sn
    >>> runs = pd.DataFrame({"n_components": [5, 5, 10], "resolution": [0.2, 0.4, 0.4],
    ...                      "morans_i": [0.5, 0.7, 0.8], "chaos": [0.01, 0.02, 0.02]})
    >>> ax = sn.pl.pareto(runs, "morans_i", "chaos")
    >>> [text.get_text() for text in ax.texts]
    ['5 / 0.2', '10 / 0.4']
    """
    _checks.check_choice("label", label, ("front", "all", None))
    table, panels = _panels(table, x, y, objectives)
    if ax is not None:
        _checks.check_one_panel(len(panels))
    fronts = [_front_of(table, panel) for panel in panels]
    look = _Look.of(table)
    fig, axes = _empty(len(panels), ax)
    for panel, front, axis in zip(panels, fronts, axes, strict=True):
        _draw(axis, panel, front, look)
    _legend(axes[-1], look)
    fig.draw_without_rendering()  # the names need the final place of everything
    if ax is None:
        fig.set_layout_engine("none")
    if label is not None:
        for panel, front, axis in zip(panels, fronts, axes, strict=True):
            _name(axis, panel, front, look, label)
    return _map.result(fig, axes)


# --- what is drawn --------------------------------------------------------------------------------------------------


def _panels(
    table: pd.DataFrame, x: str | None, y: str | None, objectives: Mapping[str, Any] | None
) -> tuple[pd.DataFrame, list[Panel]]:
    if (x is None) != (y is None):
        msg = "Give both `x` and `y`, or neither."
        raise ValueError(msg)
    if x is None and objectives is None:
        table, scores = _front.with_objectives(table, None)
        others = [name for name in scores if name != _front.COMPACTNESS]
        drawable = [n for n in others if table[[_front.COMPACTNESS, n]].notna().all(axis=1).any()]
        return table, [_published(table, name) for name in drawable or others]
    if x is None:
        if len(objectives) < 2:
            msg = f"`objectives` must name at least two columns to draw, not {_checks._listed(objectives)}."
            raise ValueError(msg)
        x, y = list(objectives)[:2]
    if objectives is None:
        objectives = {name: _front.known_direction(table, name) for name in (x, y)}
    table, objectives = _front.with_objectives(table, objectives)
    for name in (x, y):
        _front.check_column(table, name)
    return table, [Panel(x, y, tuple(_axis_label(name, objectives) for name in (x, y)), objectives)]


def _published(table: pd.DataFrame, name: str) -> Panel:
    coherence = "marker coherence × enrichment" if _front.has_enrichment(table) else "marker coherence (no enrichment)"
    words = {
        _front.COMPACTNESS: "compactness: Moran's I / (100 CHAOS)",
        _front.COHERENCE: f"coherence: {coherence}",
        _front.SEPARABILITY: "separability: silhouette / Davies–Bouldin",
    }
    pair = (_front.COMPACTNESS, name)
    return Panel(*pair, tuple(f"{words[n]}  →" for n in pair), dict.fromkeys(pair, "max"))


def _axis_label(name: str, objectives: Mapping[str, str]) -> str:
    """With an arrow to where it is better."""
    words = WORDS.get(name, name.replace("_", " "))
    return {"max": f"{words}  →", "min": f"←  {words}", None: words}[objectives.get(name)]


def _front_of(table: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    front = _front.pareto_front(table, panel.objectives)
    front = front[np.isfinite(front[[panel.x, panel.y]].astype(float)).all(axis=1)].reset_index(drop=True)
    if not front["on_front"].any():
        msg = f"No row has a value for all of {_checks._listed(panel.objectives)}: there is nothing to draw."
        raise ValueError(msg)
    return front


@dataclass(frozen=True)
class _Look:
    """Colours of ranks, diameters of resolutions, and what names a run."""

    colors: dict[Any, Any]
    diameters: dict[Any, float]
    varies: list[str]

    @classmethod
    def of(cls, table: pd.DataFrame) -> _Look:
        ranks, resolutions = (
            sorted(table[name].dropna().unique()) if name in table else [] for name in ("n_components", "resolution")
        )
        span = (0.25, 0.95) if dark_background() else (0.0, 0.85)
        shades = colormaps["viridis"](np.linspace(*span, max(len(ranks), 2)))
        sizes = np.linspace(*DIAMETERS, len(resolutions)) if len(resolutions) > 1 else [np.mean(DIAMETERS)]
        varies = [name for name in AXES if name in table and table[name].nunique() > 1]
        return cls(dict(zip(ranks, shades, strict=False)), dict(zip(resolutions, sizes, strict=False)), varies)

    def color(self, run: pd.Series) -> Any:
        return self.colors.get(run.get("n_components"), MISSING)

    def diameter(self, run: pd.Series) -> float:
        return float(self.diameters.get(run.get("resolution"), np.mean(DIAMETERS)))

    def name(self, run: pd.Series) -> str:
        parts = [f"{run[name]:g}" for name in self.varies]
        return " / ".join(parts) if parts else str(run.get("key", run.name))


def _empty(n: int, ax: Axes | None) -> tuple[Figure, np.ndarray]:
    if ax is not None:
        return ax.figure, np.array([ax])
    fig, axes = plt.subplots(1, n, squeeze=False, figsize=(5.0 * n + 1.4, 4.4), layout="constrained")
    fig.get_layout_engine().set(wspace=0.06)
    return fig, axes[0]


def _draw(ax: Axes, panel: Panel, front: pd.DataFrame, look: _Look) -> None:
    stairs = _stairs(panel, front)
    if stairs is not None:
        ax.plot(*stairs.T, color=ink(0.45), linewidth=1.2, zorder=1)
    front = front.loc[sorted(front.index, key=lambda i: -look.diameter(front.loc[i]))]  # small dots on top
    for on_front, runs in front.groupby("on_front"):
        ax.scatter(
            runs[panel.x], runs[panel.y],
            s=[look.diameter(run) ** 2 for _, run in runs.iterrows()],
            c=[look.color(run) for _, run in runs.iterrows()],
            alpha=1.0 if on_front else 0.45, edgecolors=ink(0.0) if on_front else "none", linewidths=0.6,
            zorder=3 if on_front else 2,
        )  # fmt: skip
    knee = front[front["knee"]].iloc[0]
    ax.scatter(
        knee[panel.x], knee[panel.y], s=(look.diameter(knee) + 6) ** 2, facecolors="none", edgecolors=KNEE,
        linewidths=1.8, zorder=4,
    )  # fmt: skip
    ax.set_xlabel(panel.labels[0])
    ax.set_ylabel(panel.labels[1])
    ax.margins(0.1)
    ax.grid(visible=False)
    ax.spines[["top", "right"]].set_visible(False)


def _stairs(panel: Panel, front: pd.DataFrame) -> np.ndarray | None:
    """Corners of the line that bounds what a front of two objectives beats."""
    if set(panel.objectives) != {panel.x, panel.y}:
        return None
    x, y = front.loc[front["on_front"], [panel.x, panel.y]].sort_values([panel.x, panel.y]).to_numpy(dtype=float).T
    x, y = np.repeat(x, 2), np.repeat(y, 2)
    # where x is to be large, a point beats what is left of it: the line leaves it along y
    return np.column_stack([x[:-1], y[1:]] if panel.objectives[panel.x] == "max" else [x[1:], y[:-1]])


def _name(ax: Axes, panel: Panel, front: pd.DataFrame, look: _Look, which: str) -> None:
    """The knee first, then the front, then the others: who comes first gets the better place."""
    order = np.lexsort((-front[panel.y], ~front["on_front"], ~front["knee"]))
    if which == "front":
        order = order[front["on_front"].to_numpy()[order]]
    radii = np.array([look.diameter(run) / 2 for _, run in front.iterrows()]) + np.where(front["knee"], 3.5, 0.5)
    texts = [look.name(front.iloc[i]) for i in order]
    label_points(
        ax, front[[panel.x, panel.y]].to_numpy(dtype=float), radii, list(order), texts,
        path=_stairs(panel, front), fontsize=_map.SMALL,
    )  # fmt: skip


def _legend(ax: Axes, look: _Look) -> None:
    """Ranks by colour, resolutions by size, front, knee, and how a name reads."""

    def dot(text: str, color: Any, size: float) -> Line2D:
        return Line2D([], [], marker="o", linestyle="none", color=color, markeredgewidth=0, markersize=size, label=text)

    def title(text: str) -> Line2D:
        return Line2D([], [], linestyle="none", label=text)

    middle = float(np.mean(DIAMETERS))
    handles = []
    if look.colors:
        handles += [title("components"), *(dot(f"{rank:g}", color, middle) for rank, color in look.colors.items())]
    if look.diameters:
        handles += [title("resolution"), *(dot(f"{r:g}", ink(0.55), d) for r, d in look.diameters.items())]
    handles += [
        title("front"),
        Line2D([], [], color=ink(0.45), linewidth=1.2, label="not beaten"),
        Line2D([], [], marker="o", linestyle="none", markerfacecolor="none", markeredgecolor=KNEE, markeredgewidth=1.8,
               markersize=9, label="knee"),
    ]  # fmt: skip
    legend = ax.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=_map.SMALL,
        title="names: " + " / ".join(AXES[name] for name in look.varies) if look.varies else None,
        title_fontsize=_map.SMALL, alignment="left", labelspacing=0.45, borderaxespad=0,
    )  # fmt: skip
    for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
        if handle.get_marker() in ("None", "", None) and handle.get_linestyle() in ("None", "none"):
            text.set_fontweight("bold")
            text.set_x(-24)
