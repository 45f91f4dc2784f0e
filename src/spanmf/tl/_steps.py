"""How many times factors are smoothed where nobody says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _checks, _data, _keys
from ..core import _graph, _steps

if TYPE_CHECKING:
    from anndata import AnnData

    from ..core._tiles import AnyGraph


def check_steps(n_steps: int | str) -> None:
    """A number of smoothing steps, or ``"auto"``."""
    if isinstance(n_steps, str):
        if n_steps != "auto":
            msg = f"`n_steps` must be 'auto' or an integer of at least 0, not {n_steps!r}."
            raise ValueError(msg)
    else:
        _checks.check_range("n_steps", n_steps, 0, integer=True)


def chosen_steps(
    n_steps: int | str, table: AnnData, A: AnyGraph, graph_key: str | None, Z: np.ndarray, beta: float, *, mixture: bool
) -> int:
    """The number of steps; for ``"auto"`` the fewest that foretell a spot, where a mixture is to find domains of spots.

    Z: the factors as distances are measured, before any step.
    """
    if not isinstance(n_steps, str):
        return int(n_steps)
    return _steps.fewest_steps(A, Z, beta) if mixture and on_lattice(table, graph_key) else _steps.DEFAULT


def on_lattice(table: AnnData, graph_key: str | None) -> bool:
    """Whether a graph links spots of an array: as it was recorded, or else by the coordinates."""
    params = _data.graph_params(table, graph_key) if graph_key else {}
    if "lattice" in params:
        return bool(params["lattice"])
    spatial_key, library = str(params.get("spatial_key", _keys.SPATIAL)), params.get("library_key")
    try:  # the graph is what counts here: it may be of a table whose coordinates are of no use
        coords = _data.get_coordinates(table, spatial_key)
        codes, _ = _data.get_libraries(table, library)
    except (KeyError, TypeError, ValueError):
        return False
    return _graph.spacing(coords, codes, np.random.default_rng(0), _data.get_array_positions(table)).is_lattice
