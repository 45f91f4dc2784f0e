"""Top features of the factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

from .. import _checks, _data
from .._docs import doc
from . import _map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData


@doc
def loadings(
    adata: AnnData | SpatialData,
    key: str = "hsnmf",
    *,
    n_features: int = 10,
    components: Sequence[int] | None = None,
    ncols: int | None = None,
    ax: Axes | None = None,
    table_key: str | None = None,
) -> Axes | Figure:
    r"""Draw the top features of every factor as bars.

    One panel a factor. The length of a bar is the feature's share of the factor's loadings,
    :math:`S_{kj} = H_{kj} / \sum_j H_{kj}`. The darker a bar, the more specific the feature,
    :math:`S_{kj} / \sum_l S_{lj}`: 1 means that no other factor has it, while features that are high everywhere stay
    pale. Neither depends on the scales of the factors.

    Parameters
    ----------
    {adata}
    key
        Base name of the factorisation: reads ``adata.varm[f"{key}_loadings"]`` and ``adata.obsm[f"X_{key}"]``.
    n_features
        Bars a factor. Features with a loading of 0 are left out.
    components
        Which components (from 0). ``None``: all.
    ncols
        Panels a row.
    ax
        Axes to draw into, where there is one panel.
    {table_key}

    Returns
    -------
    The Axes where there is one panel, else the Figure (of both, ``.figure`` is the Figure). The table is not changed.

    Raises
    ------
    KeyError
        The factorisation is not there.
    ValueError
        A component that does not exist, or ``ax`` for several panels.

    See Also
    --------
    spanmf.tl.top_features : the same numbers as a table.

    Examples
    --------
    >>> import numpy as np
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> adata.obsm["X_demo"] = np.ones((adata.n_obs, 2), dtype=np.float32)
    >>> adata.varm["demo_loadings"] = np.random.default_rng(0).random((adata.n_vars, 2), dtype=np.float32)
    >>> figure = sn.pl.loadings(adata, "demo", n_features=5)
    >>> len(figure.axes[0].patches)
    5
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    _, H = _data.get_factors(table, key)
    components = _checks.check_components(components, len(H))
    _checks.check_range("n_features", n_features, 1, integer=True)
    if ncols is not None:
        _checks.check_range("ncols", ncols, 1, integer=True)
    share, specificity = _data.loading_shares(H)
    color = ScalarMappable(
        Normalize(0, 1), LinearSegmentedColormap.from_list("specificity", ["#CFDCE8", "#0072B2", "#00293F"])
    )
    height = max(0.17 * n_features + 0.7, 2.6 if len(components) == 1 else 0)
    fig, panels = _map.empty_axes(len(components), ncols or 5, width=2.1, height=height, right=1.0, ax=ax)
    for k, panel in zip(components, panels, strict=True):
        top = np.argsort(-share[k], kind="stable")[:n_features]
        top = top[share[k, top] > 0]
        panel.barh(np.arange(len(top)), share[k, top], height=0.75, color=color.to_rgba(specificity[k, top]))
        panel.set_yticks(np.arange(len(top)), table.var_names[top], fontsize=8)
        panel.set_ylim(n_features - 0.4, -0.6)
        panel.set_title(f"factor {k}", fontsize=10)
        panel.tick_params(axis="y", length=0, pad=2)
        panel.tick_params(axis="x", labelsize=_map.SMALL)
        panel.xaxis.set_major_locator(plt.MaxNLocator(3))
        panel.grid(visible=False)  # styles such as scanpy's turn it on
        panel.spines[["top", "right", "left"]].set_visible(False)
    shrink = min(1.0, 1.6 / fig.get_size_inches()[1])
    bar = fig.colorbar(color, ax=list(panels), shrink=shrink, aspect=15, pad=0.02)
    bar.set_label("specificity", fontsize=8)
    bar.ax.tick_params(labelsize=_map.SMALL)
    bar.outline.set_visible(False)
    return _map.result(fig, panels)
