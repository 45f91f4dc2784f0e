"""The graph on which neighbours are counted: one of the table, or all pairs within a radius."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks, _data, _keys
from ..core import _graph
from ..core._tiles import RadiusGraph, unweighted

if TYPE_CHECKING:
    from anndata import AnnData

    from ..core._tiles import AnyGraph


def surroundings(
    table: AnnData,
    radius: float | None,
    connectivity_key: str | None,
    libraries: np.ndarray,
    spatial_key: str,
    *,
    weighted: bool = False,
) -> tuple[AnyGraph, dict[str, Any]]:
    """Symmetric graph without self-loops (every edge 1 unless ``weighted``), and what it was made from."""
    if radius is None:
        A, key = _data.find_graph(table, connectivity_key)
        _checks.check_edges(A, key)
        if key in table.obsp and not _is_ours(table, key):
            A = _graph.symmetrised(A)
        return (A if weighted else unweighted(A)), {"connectivity_key": key}
    if connectivity_key is not None:
        msg = "Give `radius` or `connectivity_key`, not both: each says who is a neighbour."
        raise ValueError(msg)
    return pairs(table, radius, libraries, spatial_key), {"radius": float(radius), "spatial_key": spatial_key}


def pairs(table: AnnData, radius: float, libraries: np.ndarray, spatial_key: str) -> RadiusGraph:
    """All pairs of a library within a radius (each 1), of which there are some and not far too many."""
    _checks.check_range("radius", radius, 0, open_low=True)
    coords = _data.get_coordinates(table, spatial_key)
    rng = np.random.default_rng(0)
    degree = _graph.expected_degree(coords, libraries, radius, rng)
    if degree > _checks.MAX_MEAN_DEGREE:
        _checks.fail_too_dense(radius, degree, len(coords), _graph.spacing(coords, libraries, rng).nearest, "")
    A = RadiusGraph(coords, libraries, float(radius), contact_weight=1.0)
    if degree == 0 and A.nnz == 0:  # none in the sample, and none at all
        _checks.fail_isolated(radius, 0.0, _graph.spacing(coords, libraries, rng).nearest, "")
    return A


def _is_ours(table: AnnData, key: str) -> bool:
    """Whether the graph was made by ``gr.contact_neighbors``, which is symmetric."""
    run = table.uns.get(_keys.GraphKeys(key.removesuffix(_keys.CONNECTIVITIES_SUFFIX)).neighbors)
    params = run.get("params") if hasattr(run, "get") else None
    return hasattr(params, "get") and params.get("method") == "radius" and "contact_radius" in params
