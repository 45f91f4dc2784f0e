"""Top features of every modality of joint factors, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

from .. import _checks, _data, _keys
from .._docs import doc
from . import _map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from mudata import MuData

HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
ROW, HEAD, WIDTH = 0.17, 0.75, 1.75  # inches: a bar, what a factor needs beside its bars, a panel


@doc
def modality_loadings(
    mdata: MuData,
    key: str = "joint_nmf",
    *,
    n_features: int = 8,
    components: Sequence[int] | None = None,
    annotation_key: str | None = "annotate_factors",
    ncols: int = 3,
) -> Figure:
    r"""Draw the top genes of every joint factor beside its top proteins.

    A block a factor, a panel a modality. The length of a bar is the feature's share of the factor's loadings in that modality; the
    darker it is, the more specific the feature (see :func:`spanmf.pl.loadings`).

    Parameters
    ----------
    mdata
        A MuData with joint factors.
    key
        Base name of the factorisation.
    n_features
        Bars a panel. Features with a loading of 0 are left out.
    components
        Which components (from 0). ``None``: all.
    annotation_key
        ``mdata.uns`` key of :func:`spanmf.tl.annotate_factors`, whose names go into the titles where it is. ``None``: numbers only.
    ncols
        Factors a row.

    Returns
    -------
    The Figure. The MuData is not changed.

    Raises
    ------
    KeyError
        If the MuData holds no such factors.
    ValueError
        A component that does not exist.

    Examples
    --------
    >>> import spanmf as sn
    >>> mdata = sn.datasets.rna_protein_tissue(500)
    >>> sn.tl.joint_nmf(mdata, 4)
    >>> figure = sn.pl.modality_loadings(mdata, n_features=5)
    >>> len(figure.axes)
    8
    """
    keys = _keys.FactorKeys(key)
    if not isinstance(getattr(mdata, "mod", None), dict):
        msg = f"Expected a MuData with joint factors, not {type(mdata).__name__}. For one table use `sn.pl.loadings`."
        raise TypeError(msg)
    for name, table in mdata.mod.items():
        _checks.check_key(
            table.varm, keys.loadings, f"varm of modality {name!r}", "Run `sn.tl.joint_nmf(mdata)` first."
        )
    _checks.check_range("n_features", n_features, 1, integer=True)
    _checks.check_range("ncols", ncols, 1, integer=True)
    loadings = {n: np.asarray(t.varm[keys.loadings], dtype=np.float64).T for n, t in mdata.mod.items()}
    components = _checks.check_components(components, len(next(iter(loadings.values()))))
    titles = _titles(mdata, annotation_key, components)
    n_mod, ncols = len(loadings), min(ncols, len(components))
    nrows = -(-len(components) // ncols)
    fig = plt.figure(figsize=(ncols * n_mod * WIDTH, nrows * (ROW * n_features + HEAD)), layout="constrained")
    blocks = np.atleast_1d(fig.subfigures(nrows, ncols, squeeze=False)).ravel()
    shares = {n: _data.loading_shares(H) for n, H in loadings.items()}
    for block, k, title in zip(blocks, components, titles, strict=False):
        block.suptitle(title, fontsize=10)
        panels = block.subplots(1, n_mod, squeeze=False)[0]
        for panel, (name, (share, specificity)), hue in zip(panels, shares.items(), _hues(n_mod), strict=True):
            top = np.argsort(-share[k], kind="stable")[:n_features]
            top = top[share[k, top] > 0]
            panel.barh(np.arange(len(top)), share[k, top], height=0.75, color=_color(hue).to_rgba(specificity[k, top]))
            panel.set_yticks(np.arange(len(top)), mdata.mod[name].var_names[top], fontsize=8)
            panel.set_ylim(n_features - 0.4, -0.6)
            panel.set_title(name, fontsize=8, color=hue)
            panel.tick_params(axis="y", length=0, pad=2)
            panel.tick_params(axis="x", labelsize=_map.SMALL)
            panel.xaxis.set_major_locator(plt.MaxNLocator(2))
            panel.grid(visible=False)
            panel.spines[["top", "right", "left"]].set_visible(False)
    return fig


def _titles(mdata: MuData, annotation_key: str | None, components: Sequence[int]) -> list[str]:
    """Number of each factor, and its type where it was named and belongs to as many factors."""
    table = mdata.uns.get(annotation_key, {}).get("table") if annotation_key else None
    if table is None or max(components) >= len(table):
        return [f"factor {k}" for k in components]
    names = table["cell_type"].astype(str).tolist()
    return [f"factor {k}: {names[k]}" for k in components]


def _hues(n: int) -> list[str]:
    return [HUES[i % len(HUES)] for i in range(n)]


def _color(hue: str) -> ScalarMappable:
    return ScalarMappable(Normalize(0, 1), LinearSegmentedColormap.from_list("specificity", ["#DDDDDD", hue]))
