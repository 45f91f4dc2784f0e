"""How many components, as a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from .. import _checks
from . import _map
from ._colors import PALETTE, ink

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("n_components", "cv_error", "cv_error_sd", "cv_excess_se", "stability", "explained_variance", "elbow", "suggested")  # fmt: skip


def rank_selection(table: pd.DataFrame) -> Figure:
    r"""Draw held-out error, stability and explained variance over the number of components.

    Three panels on one axis. The vertical line is the suggestion. Top: held-out error with, as bars, the standard error
    of its difference from the lowest (which is what decides) and, as a band, its standard deviation over the folds of tiles
    (how much parts of the tissue differ). Bottom: explained variance, its elbow ringed.

    Parameters
    ----------
    table
        What :func:`spanmf.tl.select_n_components` returned, or ``adata.uns["select_n_components"]["table"]``.

    Returns
    -------
    The Figure, with three axes.

    Raises
    ------
    KeyError
        A column is missing.

    See Also
    --------
    spanmf.tl.select_n_components : makes the table, and says in words why it suggests what it does.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.planted_factors(400, 40, 3)
    >>> table = sn.tl.select_n_components(adata, range(2, 5), loss="kl", n_tiles=8, n_restarts=2)
    >>> figure = sn.pl.rank_selection(table)
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['held-out error', 'stability', 'explained variance']
    """
    _checks.check_columns(table, COLUMNS, "Pass what `sn.tl.select_n_components` returned.")
    table = table.sort_values("n_components")
    ranks = table["n_components"].to_numpy()
    fig, axes = plt.subplots(3, 1, sharex=True, figsize=(5.0, 5.6), height_ratios=(3, 2, 2), layout="constrained")
    chosen = int(ranks[table["suggested"].to_numpy(dtype=bool)][0])
    for ax, color in zip(axes, PALETTE, strict=False):
        ax.axvline(chosen, color=ink(0.45), linewidth=1.2, linestyle=(0, (4, 2)), gid="suggestion", zorder=0)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(visible=False)
        ax.tick_params(labelsize=8.5)
        ax.yaxis.set_major_locator(MaxNLocator(5 if ax is axes[0] else 3))
        ax.set_prop_cycle(color=[color])
    _draw_error(axes[0], ranks, table)
    axes[0].set_title(f"suggested: {chosen} components", fontsize=10.5)
    axes[1].plot(ranks, table["stability"], marker="o", markersize=4)
    axes[1].set_ylim(min(0.5, float(table["stability"].min()) - 0.05), 1.03)
    axes[1].set_ylabel("stability", fontsize=9.5)
    explained = table["explained_variance"].to_numpy()
    axes[2].plot(ranks, explained, marker="o", markersize=4)
    knee = table["elbow"].to_numpy(dtype=bool)
    ring = {"s": 90, "facecolor": "none", "edgecolor": ink(0.8), "linewidth": 1.2, "zorder": 3}
    axes[2].scatter(ranks[knee], explained[knee], gid="elbow", **ring)
    axes[2].annotate(
        "elbow",
        (ranks[knee][0], explained[knee][0]),
        (7, -9),
        textcoords="offset points",
        va="top",
        fontsize=_map.SMALL + 1,
    )
    axes[2].set_ylabel("explained variance", fontsize=9.5)
    axes[2].set_xlabel("number of components", fontsize=9.5)
    axes[2].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    fig.align_ylabels(axes)
    return fig


def _draw_error(ax: Axes, ranks: np.ndarray, table: pd.DataFrame) -> None:
    """Error, the standard error of its difference from the lowest, and its spread over the folds."""
    error, spread = table["cv_error"].to_numpy(), table["cv_error_sd"].to_numpy()
    ax.fill_between(ranks, error - spread, error + spread, alpha=0.15, linewidth=0, label="sd over the folds of tiles")
    label = "standard error of the difference from the lowest"
    ax.errorbar(ranks, error, table["cv_excess_se"], marker="o", markersize=4, capsize=2.5, label=label)
    legend = ax.legend(fontsize=_map.SMALL, loc="best", edgecolor="none", framealpha=1, borderpad=0.2)
    legend.get_frame().set_facecolor(ax.get_facecolor())  # the line of the suggestion passes behind it
    ax.set_ylabel("held-out error", fontsize=9.5)
