"""The match of two modalities in space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import LineCollection

from .. import _checks, _data
from . import _map
from ._colors import ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mudata import MuData

BOTH, FIRST, SECOND = "#0072B2", "#E69F00", "#CC79A7"


def alignment(mdata: MuData, *, ax: Axes | None = None) -> Axes:
    """Draw how two modalities were matched: matched observations, those of one modality only, and the lines between.

    A matched observation is drawn where the first modality has it, with a line to where the second has it (moved by the warp,
    if there was one).

    Parameters
    ----------
    mdata
        What :func:`spanmf.pp.align_modalities` returned.
    ax
        Axes to draw into.

    Returns
    -------
    The Axes (``.figure`` is the Figure).

    Raises
    ------
    KeyError
        If the MuData was not aligned, or a modality has no coordinates.

    Examples
    --------
    >>> import spanmf as sn
    >>> tissue = sn.datasets.rna_protein_tissue(500, displacement=4)
    >>> mdata = sn.pp.align_modalities(tissue.mod["rna"], tissue.mod["protein"])
    >>> ax = sn.pl.alignment(mdata)
    >>> len(ax.collections)
    4
    """
    hint = "Run `mdata = sn.pp.align_modalities(a, b)` first."
    _checks.check_key(mdata.uns, "alignment", "uns", hint)
    first, second = list(mdata.mod.values())[:2]
    x = _data.get_coordinates(first)[:, :2]
    y = _data.get_coordinates(second, "spatial_warped" if "spatial_warped" in second.obsm else "spatial")[:, :2]
    match = second.obs_names.get_indexer(first.obs_names)
    both = match >= 0
    alone = ~second.obs_names.isin(first.obs_names)
    _, (ax,) = _map.empty_axes(1, 1, width=6.5, height=5.5, ax=ax)
    lines = np.stack([x[both], y[match[both]]], axis=1)
    ax.add_collection(LineCollection(lines, colors=[ink(0.6)], linewidths=0.6, zorder=1))
    names = list(mdata.mod)
    size = float(np.clip(2e4 / max(len(x), 1), 0.5, 12))
    for places, color, label in (
        (x[both], BOTH, f"both ({both.sum():,})"),
        (x[~both], FIRST, f"{names[0]} only ({(~both).sum():,})"),
        (y[alone], SECOND, f"{names[1]} only ({alone.sum():,})"),
    ):
        ax.scatter(*places.T, s=size, c=color, label=label, linewidths=0, rasterized=True, zorder=2)
    ax.set_aspect("equal")
    ax.invert_yaxis()
    ax.set_axis_off()
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), markerscale=max(1, 4 / size**0.5))
    return ax
