"""Maps of the factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import Normalize

from .. import _checks, _data, _keys
from .._docs import doc
from . import _map
from ._colors import value_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from spatialdata import SpatialData


@doc
def factors(
    adata: AnnData | SpatialData,
    key: str = "hsnmf",
    *,
    components: Sequence[int] | None = None,
    n_features: int = 3,
    clip: float = 0.99,
    cmap: str | Colormap | None = None,
    ncols: int | None = None,
    library_key: str | None = None,
    spatial_key: str = "spatial",
    size: float | None = None,
    um_per_unit: float | None = None,
    image: bool = True,
    ax: Axes | None = None,
    table_key: str | None = None,
) -> Axes | Figure:
    r"""Map every factor on the tissue.

    One panel a factor (and a library): cell :math:`i` has the colour of :math:`W_{ik}`, from 0 to a high quantile of
    that factor's own positive values. Factors differ in scale, so colours compare cells, not factors. Libraries
    share the colours of a factor and the scale of length. Cells with high values are drawn last.

    The y axis points down, as in :func:`squidpy.pl.spatial_scatter`; of 3-D coordinates the first two axes are drawn.

    Parameters
    ----------
    {adata}
    key
        Base name of the factorisation: maps ``adata.obsm[f"X_{key}"]``.
    components
        Which components (columns of W, from 0). ``None``: all.
    n_features
        Number of top features of ``adata.varm[f"{key}_loadings"]`` named beside a factor, where there are loadings.
    clip
        Quantile of a factor's positive values from which on the colour no longer changes (1: nothing is clipped).
    cmap
        Colour map. ``None``: matplotlib's "magma", turned so that high values stand out from the background.
    ncols
        Panels a row, where there is one library or one component (else a row is a component, a column a library).
    {map_library_key}
    {spatial_key}
    {map_parameters}
    {table_key}

    Returns
    -------
    The Axes where there is one panel, else the Figure (of both, ``.figure`` is the Figure). The table is not changed.

    Raises
    ------
    KeyError
        Factors, coordinates or the library column are not there.
    ValueError
        A component that does not exist, or ``ax`` for several panels.

    See Also
    --------
    spanmf.pl.loadings : the top features of each factor.

    Examples
    --------
    >>> import numpy as np
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> adata.obsm["X_demo"] = np.random.default_rng(0).random((adata.n_obs, 4), dtype=np.float32)
    >>> figure = sn.pl.factors(adata, "demo")
    >>> [ax.get_title() for ax in figure.axes[:4]]
    ['factor 0', 'factor 1', 'factor 2', 'factor 3']
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    keys = _keys.FactorKeys(key)
    W = _data.get_representation(table, keys.factors)
    components = _checks.check_components(components, W.shape[1])
    _checks.check_range("clip", clip, 0, 1, open_low=True)
    _checks.check_range("n_features", n_features, 0, integer=True)
    sections = _map.read_sections(
        table, spatial_key=spatial_key, library_key=library_key, um_per_unit=um_per_unit, size=size, image=image
    )
    table_like = len(components) > 1 and len(sections) > 1  # a row a component, a column a library
    n = len(components) * len(sections)
    fig, panels = _map.make_panels(sections, n, ncols=len(sections) if table_like else ncols, ax=ax)
    grid = panels.reshape(len(components), len(sections))
    for k, row in zip(components, grid, strict=True):
        name, features = f"factor {k}", _top_names(table, keys, k, n_features)
        cells = draw_factor(row, sections, W[:, k], Normalize(0, top_of_scale(W[:, k], clip)), value_map(cmap))
        small_colorbar(cells, row[-1], clipped=W[:, k].max() > cells.norm.vmax)
        if len(sections) == 1:
            _title(row[0], name, features)
        elif table_like:
            row[0].set_ylabel("\n".join([name, *features]), rotation=0, ha="right", va="center", fontsize=9)
        else:
            fig.suptitle(", ".join([name, *features]), fontsize=10)
    if len(sections) > 1:
        for section, panel in zip(sections, grid[0], strict=True):
            panel.set_title(section.name, fontsize=10)
    _map.draw_scale_bar(panels[0], sections[0])
    return _map.result(fig, panels)


def draw_factor(
    row: np.ndarray, sections: Sequence[_map.Section], values: np.ndarray, norm: Normalize, cmap: Colormap
) -> ScalarMappable:
    """One factor, a section an axes, high values on top."""
    for section, panel in zip(sections, row, strict=True):
        _map.prepare(panel, section)
        own = values[section.rows]
        order = np.argsort(own, kind="stable")
        cells = _map.draw_cells(panel, section, order, array=own[order], cmap=cmap, norm=norm)
    return cells


def top_of_scale(values: np.ndarray, clip: float) -> float:
    """Quantile of the positive values: a factor that is on in few cells is not washed out by its zeros."""
    positive = values[values > 0]
    return float(np.quantile(positive, clip)) if positive.size else 1.0


def _top_names(adata: AnnData, keys: _keys.FactorKeys, k: int, n: int) -> list[str]:
    if keys.loadings not in adata.varm:
        return []
    loadings = np.asarray(adata.varm[keys.loadings])[:, k]
    order = np.argsort(-loadings, kind="stable")[:n]
    return [str(adata.var_names[j]) for j in order if loadings[j] > 0]


def _title(ax: Axes, name: str, features: list[str]) -> None:
    ax.set_title(name, fontsize=10, pad=16 if features else 4)
    if features:
        text = ax.annotate(
            _fitting(ax, features), (0.5, 1), (0, 4), xycoords="axes fraction", textcoords="offset points",
            ha="center", va="bottom", fontsize=_map.SMALL, fontstyle="italic",
        )  # fmt: skip
        text.set_in_layout(False)  # it may be a little wider than the map, and must not narrow it


def _fitting(ax: Axes, features: list[str]) -> str:
    """As many of the names as are about as wide as the panel, at least one."""
    room = ax.get_window_extent().width / ax.figure.dpi * 72 / (0.55 * _map.SMALL)
    texts = [", ".join(features[: n + 1]) for n in range(len(features))]
    return [texts[0], *(t for t in texts[1:] if len(t) <= room)][-1]


def small_colorbar(cells: ScalarMappable, ax: Axes, clipped: bool) -> None:
    """A short bar beside an axes, from 0 to the top of the colours."""
    high = cells.norm.vmax
    bar = ax.figure.colorbar(cells, ax=ax, shrink=0.4, aspect=12, pad=0.02, ticks=[0, high])
    bar.ax.set_yticklabels(["0", f"{'≥ ' if clipped else ''}{high:.2g}"], fontsize=_map.SMALL)
    bar.ax.tick_params(length=0, pad=2)
    bar.outline.set_visible(False)
