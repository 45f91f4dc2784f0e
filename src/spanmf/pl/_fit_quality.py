"""Where a deconvolution does not explain the counts: spots and genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import Normalize

from .. import _checks, _data, _keys
from .._docs import doc
from ..core import _ops
from . import _map
from ._colors import PALETTE, ink

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

MIN_COUNTS = 30  # of a gene that is named: of rarer ones the deviance is chance
N_WINDOW = 50  # spots or genes of like depth whose median is what one expects
FOLDS = 2.0  # the colours end at a quarter and at four times what one expects


@doc
def fit_quality(
    adata: AnnData | SpatialData,
    key: str = "stl_nmf",
    *,
    n_genes: int = 10,
    layer: str | None = None,
    library_key: str | None = None,
    spatial_key: str = "spatial",
    size: float | None = None,
    um_per_unit: float | None = None,
    table_key: str | None = None,
) -> Figure:
    r"""Show where a deconvolution does not explain the counts: which spots, and which genes.

    The deviance of a spot or gene is mostly a matter of its depth: counting alone gives a shallow spot a high deviance a count.
    So what is drawn is the deviance *relative to others of like depth* (the median of the 50 that are nearest in total
    counts). On the section, a spot's :math:`\log_2` of that: brown ones are explained worse than spots as deep usually are (damage,
    another chemistry, a bubble). Beside it every gene in use: its total counts, and its deviance a count. Those that lie farthest
    above genes of like abundance are named (of genes with at least 30 counts): they behave otherwise in the section than in the
    reference, or belong to a type that it lacks.

    **What it does not show.** A type that the reference lacks need not leave a brown patch: the section mends the profiles of
    the types that are there, and the most alike takes its place with hardly a larger deviance. Look at the named genes, and
    whether anybody in the reference should express them.

    Parameters
    ----------
    {adata}
    key
        Key that :func:`spanmf.tl.stl_nmf` wrote to.
    n_genes
        Number of genes to name.
    layer
        Layer of the counts. ``None``: the one that the run used, else ``adata.X``.
    {map_library_key}
    {spatial_key}
    size
        Diameter of a spot in units of the coordinates. ``None``: neighbouring spots just touch.
    um_per_unit
        µm in one unit of the coordinates, for the scale bar. ``None``: ``adata.uns["um_per_unit"]``, or Visium's scale factors.
    {table_key}

    Returns
    -------
    The Figure. The table is not changed.

    Raises
    ------
    KeyError
        If the deviances, coordinates or the library column are not there.

    Examples
    --------
    >>> import spanmf as sn
    >>> cells, section = sn.datasets.xenium_tissue(1000), sn.datasets.visium_section(200)
    >>> sn.gr.contact_neighbors(section)
    >>> sn.tl.stl_nmf(section, sn.tl.reference_profiles(cells, "cell_type"))
    >>> figure = sn.pl.fit_quality(section)
    >>> figure.axes[1].get_xlabel()
    'counts in the section'
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    _checks.check_range("n_genes", n_genes, 0, integer=True)
    name = _keys.ProportionKeys(key).deviance
    for container, where in ((table.obs, "obs"), (table.var, "var")):
        _checks.check_key(container, name, where, "Run `sn.tl.stl_nmf(adata, reference)` first.")
    spot, gene = (_data.get_column(table, name, axis).to_numpy(dtype=float) for axis in ("obs", "var"))
    used = np.isfinite(gene)
    run = table.uns.get(key)
    made = run.get("params", {}) if hasattr(run, "get") else {}
    X = _data.get_matrix(table, made.get("layer") if layer is None else layer)[0]
    rows = _ops.as_rows(X[:, used])
    depth, total = _ops.row_sums(rows), np.bincount(rows.indices, rows.data, minlength=int(used.sum()))
    sections = _map.read_sections(
        table, spatial_key=spatial_key, library_key=library_key, um_per_unit=um_per_unit, size=size, image=False
    )
    columns = min(len(sections), 2)
    n_rows = -(-len(sections) // columns)
    fig = plt.figure(figsize=(4.6 * columns + 5.6, max(4.4, 3.9 * n_rows)), layout="constrained")
    left, right = fig.subfigures(1, 2, squeeze=False, width_ratios=[4.6 * columns, 5.6])[0]
    panels = left.subplots(n_rows, columns, squeeze=False).ravel()
    for panel in panels[len(sections) :]:
        panel.remove()
    genes = right.subplots()
    _draw_spots(panels[: len(sections)], sections, np.log2(against_like(spot, depth)))
    a_count = np.divide(gene[used], total, out=np.full(len(total), np.nan), where=total > 0)
    _draw_genes(genes, table.var_names[used].to_numpy(), total, a_count, n_genes)
    return fig


def against_like(values: np.ndarray, depth: np.ndarray, n: int = N_WINDOW) -> np.ndarray:
    """Each value over the median of the ``n`` that are nearest in depth; NaN where there is none."""
    out = np.full(len(values), np.nan)
    known = np.flatnonzero(np.isfinite(values) & (values > 0) & (depth > 0))
    if known.size == 0:
        return out
    order = known[np.argsort(depth[known], kind="stable")]
    ordered = values[order]
    n = min(n, len(ordered))
    medians = np.median(np.lib.stride_tricks.sliding_window_view(ordered, n), axis=1)
    out[order] = ordered / medians[np.clip(np.arange(len(ordered)) - n // 2, 0, len(medians) - 1)]
    return out


def _draw_spots(panels: np.ndarray, sections: list[_map.Section], values: np.ndarray) -> None:
    """The spots that fit worst on top; those without counts are left out."""
    for section, panel in zip(sections, panels, strict=True):
        _map.prepare(panel, section)
        own = values[section.rows]
        order = np.argsort(own, kind="stable")[: np.isfinite(own).sum()]  # NaN is last
        cells = _map.draw_cells(panel, section, order, array=own[order], cmap="BrBG_r", norm=Normalize(-FOLDS, FOLDS))
        panel.set_title(section.name or "deviance of the spots", fontsize=10)
    bar = panels[0].figure.colorbar(cells, ax=list(panels), shrink=0.5, aspect=18, pad=0.02, ticks=[-2, -1, 0, 1, 2])
    bar.ax.set_yticklabels(["≤ ¼", "½", "1", "2", "≥ 4"], fontsize=_map.SMALL)
    bar.set_label("times that of spots of like depth", fontsize=8)
    bar.ax.tick_params(length=0, pad=2)
    bar.outline.set_visible(False)
    _map.draw_scale_bar(panels[0], sections[0])


def _draw_genes(ax: Axes, names: np.ndarray, total: np.ndarray, a_count: np.ndarray, n_named: int) -> None:
    """Abundance and deviance a count, the worst named."""
    shown = np.isfinite(a_count) & (a_count > 0)
    names, total, a_count = names[shown], total[shown], a_count[shown]
    ratio = against_like(a_count, total)
    ratio = np.where(total >= MIN_COUNTS, np.nan_to_num(ratio), 0)
    worst = np.argsort(-ratio, kind="stable")[: min(n_named, int((ratio > 0).sum()))]
    ax.scatter(total, a_count, s=7, color=ink(0.35), linewidths=0, rasterized=True)
    ax.scatter(total[worst], a_count[worst], s=16, color=PALETTE[3], linewidths=0)
    ax.set(xscale="log", yscale="log")
    ax.set_xlim(0.8 * total.min(), 6 * total.max())
    height, last = np.log10(a_count), -np.inf
    for i in worst[np.argsort(a_count[worst])]:  # the names keep apart
        last = max(height[i], last + 0.035 * np.ptp(height))
        ax.annotate(
            str(names[i]), (total[i], a_count[i]), (1.15 * total[i], 10**last), va="center", fontsize=8, fontstyle="italic",
        )  # fmt: skip
    ax.set_xlabel("counts in the section")
    ax.set_ylabel("deviance a count")
    ax.set_title(f"{len(names):,} genes", fontsize=10)
    ax.grid(visible=False)
    ax.spines[["top", "right"]].set_visible(False)
