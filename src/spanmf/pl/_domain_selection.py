"""The curve behind a suggested number of domains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _checks
from . import _map
from ._colors import PALETTE, ink

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = ("n_domains", "information", "information_sd", "stability", "n_splits", "suggested")


def domain_selection(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how reliably halves of a tissue find each number of domains, with the suggestion marked.

    The line is the information that both halves share beyond what only one of them has (bits), with its standard error
    over the splits. The paler line is the adjusted Rand index of the halves, on an axis of its own at the right; it
    favours few domains and is not what the suggestion follows.

    Parameters
    ----------
    table
        What :func:`spanmf.tl.select_n_domains` returns, or ``adata.uns["select_n_domains"]["table"]``.
    ax
        Axes to draw into.

    Returns
    -------
    The Axes of the information. The table is not changed.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If the table is empty.

    Examples
    --------
    >>> import pandas as pd, spanmf as sn
    >>> table = pd.DataFrame({"n_domains": [2, 3, 4], "information": [0.2, 1.1, 0.8], "information_sd": 0.1,
    ...     "stability": [0.7, 0.8, 0.6], "stability_sd": 0.1, "n_splits": 8, "suggested": [False, True, False]})
    >>> ax = sn.pl.domain_selection(table)
    >>> ax.get_xlabel()
    'number of domains'
    """
    _checks.check_columns(table, COLUMNS, "Pass what `sn.tl.select_n_domains` returned.")
    if len(table) == 0:
        msg = "The table is empty: there is no candidate to draw."
        raise ValueError(msg)
    _, panels = _map.empty_axes(1, 1, width=5.8, height=3.6, ax=ax)
    panel, K = panels[0], table["n_domains"].to_numpy()
    right = panel.twinx()
    right.plot(
        K, table["stability"], color=ink(0.35), linewidth=1, marker=".", markersize=5, label="adjusted Rand index"
    )
    right.set_ylim(min(0, float(table["stability"].min())), 1.02)
    right.set_ylabel("adjusted Rand index of the halves", fontsize=8, color=ink(0.5))
    right.tick_params(labelsize=8, labelcolor=ink(0.5), color=ink(0.35))
    error = table["information_sd"] / np.sqrt(table["n_splits"])
    panel.errorbar(
        K, table["information"], yerr=error, color=PALETTE[0], linewidth=1.8, marker="o", markersize=5, capsize=2,
        elinewidth=1, label="shared information",
    )  # fmt: skip
    panel.axhline(0, color=ink(0.3), linewidth=0.8)
    for number, value in table.loc[table["suggested"].astype(bool), ["n_domains", "information"]].to_numpy():
        panel.axvline(number, color=PALETTE[3], linewidth=1, linestyle="--", zorder=0)
        panel.plot(
            number, value, marker="o", markersize=11, markerfacecolor="none", color=PALETTE[3], markeredgewidth=1.8
        )
        panel.annotate(
            f"suggested: {number:.0f}", (number, 1.01), xycoords=("data", "axes fraction"), ha="center", va="bottom",
            fontsize=9, color=PALETTE[3],
        )  # fmt: skip
    panel.set_zorder(right.get_zorder() + 1)
    panel.patch.set_visible(False)
    if len(K) <= 20:
        panel.set_xticks(K)
    panel.set_xlabel("number of domains", fontsize=9)
    panel.set_ylabel("bits that halves share,\nless what only one has", fontsize=9, color=PALETTE[0])
    panel.tick_params(labelsize=8)
    for axes in (panel, right):
        axes.grid(visible=False)
        axes.spines["top"].set_visible(False)
    return panel
