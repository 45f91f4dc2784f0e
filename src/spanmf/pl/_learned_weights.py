"""What unrolling has learned: the training curve, and what the numbers mean as a graph of spots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from scipy.spatial import cKDTree

from .. import _data
from .._docs import doc
from .._stl_weights import StlWeights
from ..core import _stl_paper
from . import _map
from ._colors import PALETTE, ink, value_map

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

MAX_DRAWN = 600  # spots of the picture of the graph: more are finer than its pixels
MAX_PITCHES = 10.0
SILENT = 1e-6  # a weight at the next spot below which the graph is switched off


@doc
def learned_weights(
    weights: StlWeights | str | Path,
    adata: AnnData | SpatialData | None = None,
    *,
    region_key: str | None = None,
    spatial_key: str = "spatial",
    table_key: str | None = None,
) -> Figure:
    r"""Draw the training curve of learned weights, and the graph that their numbers make.

    From left to right: the mean relative error of the shares on training and held-out sets, epoch by epoch, with the epoch
    that the numbers come from; the weight of a neighbour :math:`\exp(-d^2/\sigma_1^2 - \|z_i-z_j\|_1^2/\sigma_2^2)` against its
    distance in pitches of the array, within a region and across a border, with the :math:`\lambda` above it; and with
    ``adata`` the adjacency itself, spots sorted by region, so that blocks on the diagonal are regions. A curve that never
    falls, or a graph that is all diagonal (σ₁ far below 1), means that nothing was learned that a section could use.

    Parameters
    ----------
    weights
        What :func:`spanmf.tl.learn_stl_nmf` returned, or its file.
    adata
        Section to draw the adjacency of (at most 600 of its spots, evenly drawn). A SpatialData is taken too: see ``table_key``.
    region_key
        Column of ``adata.obs`` with the regions.
    {spatial_key}
    {table_key}

    Returns
    -------
    The Figure: two panels, or three with ``adata``. The table is not changed.

    Raises
    ------
    KeyError
        If the coordinates or the regions are not there.
    TypeError
        If ``weights`` are none.

    Examples
    --------
    >>> import spanmf as sn
    >>> section = sn.datasets.visium_section(200)
    >>> figure = sn.pl.learned_weights(sn.tl.StlWeights(), section, region_key="domain")
    >>> [ax.get_title() for ax in figure.axes[:3]]
    ['not trained', 'λ 30, 50, 30; σ 5, 5', '200 spots by domain']
    """
    if isinstance(weights, (str, Path)):
        weights = StlWeights.load(weights)
    if not isinstance(weights, StlWeights):
        msg = f"`weights` must be what `sn.tl.learn_stl_nmf` returns, or the path of its file, not {type(weights).__name__}."
        raise TypeError(msg)
    table = None if adata is None else _data.get_table(adata, table_key, min_obs=2)
    if table is not None:  # whatever may be missing is, before anything is drawn
        coords = _data.get_coordinates(table, spatial_key)
        codes = np.zeros(table.n_obs, np.int64) if region_key is None else _data.get_labels(table, region_key)[0]
    n = 2 if table is None else 3
    fig, axes = plt.subplots(1, n, figsize=(4.3 * n, 3.7), layout="constrained")
    _draw_training(axes[0], weights)
    _draw_kernel(axes[1], weights)
    if table is not None:
        _draw_adjacency(axes[2], weights, coords, codes.astype(np.int64), region_key)
    return fig


def _draw_training(ax: Axes, weights: StlWeights) -> None:
    """Error of training and held-out sets; epoch 0 is before the first."""
    _plain(ax)
    if not weights.training_error:
        ax.set_title("not trained", fontsize=10)
        ax.set_axis_off()
        return
    for name, values, color in (
        ("training sets", weights.training_error, PALETTE[0]), ("held-out sets", weights.validation_error, PALETTE[1]),
    ):  # fmt: skip
        ax.plot(range(len(values)), values, color=color, label=name)
    best = min(weights.best_epoch, len(weights.training_error) - 1)
    ax.axvline(best, color=ink(0.5), linewidth=0.8, linestyle="--")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("epoch")
    ax.set_ylabel("relative error of the shares")
    ax.set_title(f"epoch {best} kept", fontsize=10)
    ax.legend(frameon=False, fontsize=8)


def _draw_kernel(ax: Axes, weights: StlWeights) -> None:
    """Weight of a neighbour against its distance."""
    _plain(ax)
    place, region = weights.sigmas
    d = np.linspace(0, min(max(3 * place, 2.0), MAX_PITCHES), 300)
    weight = np.exp(-(d**2) / place**2)
    ax.plot(d, weight, color=PALETTE[0], label="same region")
    ax.plot(d, weight * np.exp(-4 / region**2), color=PALETTE[3], label="another region")
    ax.axvline(1, color=ink(0.3), linewidth=0.8)
    ax.annotate("next spot", (1, 1), (3, -2), textcoords="offset points", fontsize=_map.SMALL, va="top")
    ax.set(xlabel="distance (pitches of the array)", ylabel="weight in the graph", ylim=(0, 1.05), xlim=(0, d[-1]))
    lambdas = ", ".join(f"{x:.3g}" for x in weights.lambdas)
    off = " (graph off)" if np.exp(-1 / place**2) < SILENT else ""
    ax.set_title(f"λ {lambdas}; σ {place:.3g}, {region:.3g}{off}", fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="upper right")


def _draw_adjacency(
    ax: Axes, weights: StlWeights, coords: np.ndarray, codes: np.ndarray, region_key: str | None
) -> None:
    """The graph as a picture, spots by region and, within one, along the section's longer side."""
    nearest = cKDTree(coords).query(coords, 2)[0][:, 1]
    pitch = float(np.median(nearest[nearest > 0])) if (nearest > 0).any() else 1.0
    longer = coords[:, np.ptp(coords, axis=0).argmax()]
    order = np.lexsort((longer, codes))
    order = order[np.linspace(0, len(order) - 1, min(len(order), MAX_DRAWN)).round().astype(int)]
    A = _stl_paper.adjacency(coords[order] / pitch, codes[order], weights.sigmas)
    shown = ax.imshow(A, cmap=value_map(None), vmin=0, vmax=1, interpolation="nearest")
    borders = np.flatnonzero(np.diff(codes[order])) + 0.5
    for b in borders:
        ax.axhline(b, color=ink(0.5), linewidth=0.5)
        ax.axvline(b, color=ink(0.5), linewidth=0.5)
    ax.set(xticks=[], yticks=[])
    bar = ax.figure.colorbar(shown, ax=ax, shrink=0.5, aspect=14, pad=0.02, ticks=[0, 1])
    bar.outline.set_visible(False)
    ax.set_title(f"{len(order)} spots" + (f" by {region_key}" if region_key else ""), fontsize=10)


def _plain(ax: Axes) -> None:
    ax.grid(visible=False)
    ax.spines[["top", "right"]].set_visible(False)
