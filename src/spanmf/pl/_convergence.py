"""How factorisations settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _checks, _data
from .._docs import doc
from . import _map
from ._colors import PALETTE, ink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData


@doc
def convergence(
    adata: AnnData | SpatialData,
    keys: str | Sequence[str] = "hsnmf",
    *,
    ax: Axes | None = None,
    table_key: str | None = None,
) -> Axes:
    r"""Draw how far each pass of a fit still was from the end.

    One line a run: :math:`(f_t - f_{\min}) / f_{\min}` after pass t, on a logarithmic scale, where :math:`f_{\min}` is
    the lowest objective of that run. Runs on different data, or with another loss, can be compared by shape, not by
    height. A run that reached ``max_iter`` before the stopping rule was met ends in a cross, one that converged in a dot.

    Parameters
    ----------
    {adata}
    keys
        Base name of a factorisation, or several: reads ``adata.uns[key]["trace"]``.
    ax
        Axes to draw into.
    {table_key}

    Returns
    -------
    The Axes. The table is not changed.

    Raises
    ------
    KeyError
        If there is no record under a key, or it holds no trace (as of domains on factors made elsewhere).
    ValueError
        If no key is given, or a trace is not finite.

    Examples
    --------
    >>> import scanpy as sc, spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> sn.tl.nmf(adata, 5)
    >>> ax = sn.pl.convergence(adata, "nmf")
    >>> ax.get_yscale()
    'log'
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    keys = [keys] if isinstance(keys, str) else list(keys)
    if not keys:
        msg = "`keys` is empty. Name at least one factorisation, e.g. 'hsnmf'."
        raise ValueError(msg)
    runs = [_trace(table, key) for key in keys]
    _, panels = _map.empty_axes(1, 1, width=5.6, height=3.4, ax=ax)
    panel = panels[0]
    for i, (key, (trace, converged)) in enumerate(zip(keys, runs, strict=True)):
        excess = trace / trace.min() - 1 if trace.min() > 0 else trace - trace.min()
        passes = np.arange(len(trace))  # 0: what it started from
        shown = excess > 0
        color = PALETTE[i % len(PALETTE)]
        (line,) = panel.plot(passes[shown], excess[shown], color=color, linewidth=1.6)
        end = "" if converged is None else "converged" if converged else "stopped at max_iter"
        line.set_label(f"{key}: {len(trace) - 1} passes" + (f", {end}" if end else ""))
        if shown.any():
            last = np.flatnonzero(shown)[-1]
            panel.plot(passes[last], excess[last], marker="x" if converged is False else "o", markersize=6, color=color)
    panel.set_yscale("log")
    panel.set_xlabel("pass", fontsize=9)
    panel.set_ylabel("objective above its lowest,\nas a share of it", fontsize=9)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.tick_params(labelsize=8)
    panel.grid(visible=True, axis="y", color=ink(0.12), linewidth=0.6)
    panel.grid(visible=False, axis="x")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(
        frameon=False, fontsize=8, loc="upper right" if len(keys) <= 4 else "upper left",
        bbox_to_anchor=None if len(keys) <= 4 else (1, 1),
    )  # fmt: skip
    return panel


def _trace(table: AnnData, key: str) -> tuple[np.ndarray, bool | None]:
    """Objective after each pass, and whether the run converged (None: not on record)."""
    _checks.check_key(table.uns, key, "uns", "Only what this package's `tl` functions factorised has a record.")
    record = table.uns[key]
    if not hasattr(record, "get") or record.get("trace") is None or np.asarray(record["trace"]).size == 0:
        msg = f"`adata.uns[{key!r}]` holds no objective trace: nothing was factorised under this key."
        raise KeyError(msg)
    trace = np.atleast_1d(np.asarray(record["trace"], dtype=np.float64))
    if not np.isfinite(trace).all():
        msg = f"The trace in `adata.uns[{key!r}]` holds NaN or infinite values."
        raise ValueError(msg)
    converged = record.get("converged")
    return trace, None if converged is None else bool(converged)
