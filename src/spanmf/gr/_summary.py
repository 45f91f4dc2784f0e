"""What a graph looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import _dask, _data, _keys
from .._docs import doc
from ..core import _tiles

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def graph_summary(
    adata: AnnData | SpatialData,
    key: str | None = None,
    *,
    library_key: str | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Count nodes, edges, isolated and coincident observations of a graph, and describe its degrees.

    The degree of an observation is its number of neighbours (not the sum of weights). If nearly all observations are
    isolated, or have thousands of neighbours, the radii were probably not in the units of the coordinates.

    Parameters
    ----------
    {adata}
    key
        Graph in ``adata.obsp``, with or without ``_connectivities``. ``None``: ``"contact"``, else ``"spatial"``.
    {library_key}
        ``None``: the one the graph was built with, if it is recorded.
    {table_key}

    Returns
    -------
    One row a library, and a row ``"all"``: ``n_obs``, ``n_edges`` (each pair once), ``n_isolated``, ``n_coincident``
    (observations at distance 0 from another; NaN where the graph has no distances), ``n_crossing`` (edges that leave
    the library), ``degree_mean``, ``degree_q05``, ``degree_q50``, ``degree_q95``, ``degree_max``.

    Raises
    ------
    KeyError
        If there is no such graph or no such column.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sn.gr.contact_neighbors(adata, library_key="library")
    >>> int(sn.gr.graph_summary(adata).loc["all", "n_obs"])
    1000
    """
    table = _data.get_table(adata, table_key)
    A, full = _data.find_graph(table, key)
    if full in table.obsp:
        A = A.maximum(A.T).tocsr()  # a directed edge is one edge
    keys = _keys.GraphKeys(full.removesuffix(_keys.CONNECTIVITIES_SUFFIX))
    if library_key is None:
        recorded = table.uns.get(keys.neighbors, {}).get("params", {}).get("library_key")
        library_key = recorded if recorded in table.obs else None
    codes, names = _data.get_libraries(table, library_key)
    degree, crossing = _tiles.degrees(A), np.zeros(len(names), dtype=np.int64)
    for part in _tiles.parts_of(A):
        own = codes[part.ids]
        from_ = np.repeat(own, np.diff(part.A.indptr))
        crossing += np.bincount(from_, weights=from_ != own[part.A.indices], minlength=len(names)).astype(int)
    coincident = _coincident(table, A, keys)
    out = {}
    if library_key is not None:
        for (name, members), n in zip(_data.iter_libraries(codes, names), crossing, strict=True):
            out[name] = _describe(degree[members], n, n, None if coincident is None else coincident[members])
    out["all"] = _describe(degree, crossing.sum() // 2, 0, coincident)
    return pd.DataFrame.from_dict(out, orient="index")


def _describe(degree: np.ndarray, n_crossing: int, n_once: int, coincident: np.ndarray | None) -> dict[str, float]:
    """Numbers of one library; ``n_once`` of its edges are seen from one end only."""
    q05, q50, q95 = np.quantile(degree, (0.05, 0.5, 0.95))
    return {
        "n_obs": len(degree),
        "n_edges": int(degree.sum() + n_once) // 2,
        "n_isolated": int((degree == 0).sum()),
        "n_coincident": np.nan if coincident is None else int(coincident.sum()),
        "n_crossing": int(n_crossing),
        "degree_mean": float(degree.mean()),
        "degree_q05": q05,
        "degree_q50": q50,
        "degree_q95": q95,
        "degree_max": int(degree.max()),
    }


def _coincident(table: AnnData, A: _tiles.AnyGraph, keys: _keys.GraphKeys) -> np.ndarray | None:
    """Whether an observation has a neighbour at distance 0."""
    if isinstance(A, _tiles.RadiusGraph):
        return _tiles.has_coincident(A)
    if keys.distances not in table.obsp:
        return None
    D = _dask.in_memory(table.obsp[keys.distances]).tocsr()
    rows = np.repeat(np.arange(table.n_obs), np.diff(D.indptr))
    zero = (D.data == 0) & (rows != D.indices)
    return np.bincount(rows[zero], minlength=table.n_obs) > 0
