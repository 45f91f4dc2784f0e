"""Which labels lie next to which: a heat map, and curves over distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from .. import _checks, _data
from .._docs import doc
from . import _map
from ._colors import PALETTE, ink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

SIGNIFICANT = 0.05
STRONGEST = 3.0  # log2 ratio at which the colours end
DIVERGING = LinearSegmentedColormap.from_list(
    "ratio", ["#5B2A00", "#C8702A", "#F0C9A4", "#F7F7F5", "#A6CBE3", "#2F86BE", "#062F57"]
)
LABELS = {"ratio": "observed / expected edges (log scale)", "z": "z of the edges", "score": "score"}
POOLED = "all"


@doc
def colocalization(
    adata: AnnData | SpatialData | pd.DataFrame,
    key: str = "colocalization",
    *,
    value: str = "ratio",
    library: str = "all",
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
    table_key: str | None = None,
) -> Axes:
    """Draw which labels lie next to which as a heat map.

    Colours show by what factor the edges between two labels are more (blue) or fewer (brown) than expected, on a log scale
    that ends at 8-fold. A dot marks pairs that are *not* significant (adjusted p of 0.05 or more): in a tissue nearly all
    are, so that the size of the effect comes first. Labels with alike neighbours stand side by side.

    Parameters
    ----------
    adata
        Annotated data matrix with the result of :func:`spanmf.gr.colocalization`, or the DataFrame that it returned.
    key
        Where the result is in ``adata.uns``.
    value
        Column to draw: ``"ratio"``, ``"z"`` or ``"score"`` (for ``statistic="prevalence"``, which has a direction: rows are a,
        columns b).
    library
        Block of rows to draw; ``"all"`` are the pooled ones.
    labels
        Labels in this order. ``None``: all, ordered by likeness.
    ax
        Axes to draw into.
    {table_key}

    Returns
    -------
    The Axes (``.figure`` is the Figure). The table is not changed.

    Raises
    ------
    KeyError
        If there is no result.
    ValueError
        If there is no such library or label.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> table = sn.gr.colocalization(adata, "cell_type", radius=30, library_key="library")
    >>> ax = sn.pl.colocalization(adata)
    >>> len(ax.get_xticklabels()) == adata.obs["cell_type"].nunique()
    True
    """
    _checks.check_choice("value", value, tuple(LABELS))
    table = _result(adata, key, table_key, "sn.gr.colocalization")
    block = _block(table, library)
    matrix, adjusted = _square(block, value), _square(block, "pval_adj")
    shown = np.log2(matrix.where(matrix > 0)) if value == "ratio" else matrix
    if value == "ratio":
        shown = shown.mask(matrix == 0, -np.inf)
    names = _order(shown) if labels is None else list(labels)
    _checks.check_members("labels", names, list(matrix.index))
    shown, adjusted = shown.loc[names, names], adjusted.loc[names, names]
    finite = np.abs(shown.to_numpy()[np.isfinite(shown)])
    limit = STRONGEST if value == "ratio" else float(finite.max(initial=1.0))

    side = 0.26 * len(names) + 1.2
    fig, (ax,) = _map.empty_axes(1, 1, width=side + 1.6, height=side + 0.6, ax=ax)
    colors = DIVERGING.with_extremes(bad=ink(0.12))
    image = ax.imshow(np.clip(shown.to_numpy(), -limit, limit), cmap=colors, vmin=-limit, vmax=limit)
    unsure = np.argwhere(adjusted.to_numpy() >= SIGNIFICANT)
    ax.plot(unsure[:, 1], unsure[:, 0], linestyle="", marker="o", markersize=2.5, color=ink(0.75), markeredgewidth=0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(np.arange(len(names)), names, fontsize=8)
        axis.set_tick_params(length=0)
    plt.setp(ax.get_xticklabels(), rotation=90)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    bar = fig.colorbar(image, ax=ax, shrink=min(1.0, 1.8 / side), aspect=14, pad=0.03)
    if value == "ratio":
        steps = np.arange(-3, 4)
        bar.set_ticks(steps, labels=[f"{2.0**s:g}" if s >= 0 else f"1/{2**-s}" for s in steps])
    bar.set_label(LABELS[value], fontsize=8)
    bar.ax.tick_params(labelsize=_map.SMALL)
    bar.outline.set_visible(False)
    if len(unsure):
        ax.set_title("dots: not significant", fontsize=8, loc="left")
    return ax


@doc
def colocalization_by_distance(
    adata: AnnData | SpatialData | pd.DataFrame,
    key: str = "colocalization_by_distance",
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    library: str = "all",
    ax: Axes | None = None,
    table_key: str | None = None,
) -> Axes:
    """Draw how co-localisation changes with distance, one curve a pair.

    Parameters
    ----------
    adata
        Annotated data matrix with the result of :func:`spanmf.gr.colocalization_by_distance`, or the DataFrame that it
        returned.
    key
        Where the result is in ``adata.uns``.
    pairs
        Pairs of labels. ``None``: the six pairs of different labels that are farthest from chance at any distance.
    library
        Block of rows to draw; ``"all"`` are the pooled ones.
    ax
        Axes to draw into.
    {table_key}

    Returns
    -------
    The Axes (``.figure`` is the Figure). The table is not changed.

    Raises
    ------
    KeyError
        If there is no result.
    ValueError
        If there is no such library or pair.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> table = sn.gr.colocalization_by_distance(adata, "domain", [20, 40, 80, 160], library_key="library")
    >>> ax = sn.pl.colocalization_by_distance(adata)
    >>> len(ax.get_lines())
    7
    """
    table = _result(adata, key, table_key, "sn.gr.colocalization_by_distance")
    _checks.check_key(dict.fromkeys(table.columns), "radius_to", "the table's columns")
    block = _block(table, library)
    block = block.assign(effect=np.abs(np.log2(block["ratio"].where(block["ratio"] > 0))))
    if pairs is None:
        far = (
            block[(block["a"] != block["b"]) & (block["expected"] >= 5)].groupby(["a", "b"], sort=False)["effect"].max()
        )
        pairs = list(far.dropna().sort_values(ascending=False).index[:6])
    _, (ax,) = _map.empty_axes(1, 1, width=5.6, height=3.4, ax=ax)
    ax.axhline(1, color=ink(0.4), linewidth=0.8)
    for color, (a, b) in zip(PALETTE, pairs, strict=False):
        curve = block[((block["a"] == a) & (block["b"] == b)) | ((block["a"] == b) & (block["b"] == a))]
        if curve.empty:
            msg = f"There is no pair {(a, b)!r}: the labels are {_checks._listed(sorted(set(block['a'])))}."
            raise ValueError(msg)
        middle = (curve["radius_from"] + curve["radius_to"]) / 2
        ax.plot(middle, curve["ratio"], marker="o", markersize=4, linewidth=1.5, color=color, label=f"{a} – {b}")
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter(lambda y, _: f"{y:g}" if y >= 1 else f"1/{1 / y:g}")
    ax.set_xlabel("distance")
    ax.set_ylabel("observed / expected pairs")
    ax.set_xlim(left=0)
    ax.grid(visible=False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def _result(adata: AnnData | SpatialData | pd.DataFrame, key: str, table_key: str | None, call: str) -> pd.DataFrame:
    if isinstance(adata, pd.DataFrame):
        return adata
    table = _data.get_table(adata, table_key, min_obs=1)
    _checks.check_key(table.uns, key, "uns", f"Run `{call}(adata, cluster_key)` first.")
    return table.uns[key]["table"]


def _block(table: pd.DataFrame, library: str) -> pd.DataFrame:
    names = [str(x) for x in table["library"].unique()]
    if library not in names:
        msg = f"There is no library {library!r} in the result: it holds {_checks._listed(names)}."
        raise ValueError(msg)
    return table[table["library"].astype(str) == library]


def _square(block: pd.DataFrame, value: str) -> pd.DataFrame:
    """Rows a, columns b; a pair that stands there once is put on both sides."""
    names = list(dict.fromkeys([*block["a"].astype(str), *block["b"].astype(str)]))
    matrix = (
        block.astype({"a": str, "b": str}).pivot(index="a", columns="b", values=value).reindex(names, columns=names)
    )
    return matrix.fillna(matrix.T)


def _order(shown: pd.DataFrame) -> list[str]:
    """Labels by average linkage of their rows."""
    if len(shown) < 3:
        return list(shown.index)
    values = np.clip(np.nan_to_num(shown.to_numpy(), nan=0.0, posinf=STRONGEST, neginf=-STRONGEST), -50, 50)
    distance = np.sqrt(((values[:, None] - values) ** 2).sum(2))
    return [shown.index[i] for i in leaves_list(linkage(squareform(distance, checks=False), "average"))]
