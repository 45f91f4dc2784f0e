"""How a run smoothed its factors, and what smoothing alone makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _keys
from ..core import _smooth, _spatial

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from ..core._tiles import AnyGraph


class Smoothing(NamedTuple):
    """Over which graph (``obsp`` key, with or without its suffix) and, where it was by diffusion, how far."""

    connectivity_key: str
    beta: float | None = None
    n_steps: int | None = None

    def is_over(self, key: str | None) -> bool:
        """Whether ``key`` is the full ``obsp`` key of that graph."""
        names = self.connectivity_key, _keys.GraphKeys(self.connectivity_key).connectivities
        return key is not None and key in names


def run_params(adata: AnnData, key: str) -> Mapping[str, Any]:
    """Parameters recorded in ``uns[key]``; an empty mapping where they are gone."""
    run = adata.uns.get(_keys.FactorKeys(key).provenance)
    params = run.get("params") if hasattr(run, "get") else None
    return params if hasattr(params, "get") else {}


def smoothing_of(params: Mapping[str, Any]) -> Smoothing | None:
    """How a run smoothed its factors, by its recorded parameters; None where it did not."""
    if "smoothing" not in params or not params.get("smooth", True) or "connectivity_key" not in params:
        return None
    key = str(params["connectivity_key"])
    if "beta" not in params or "n_steps" not in params:
        return Smoothing(key)
    return Smoothing(key, float(params["beta"]), int(params["n_steps"]))


def smoothed_null(
    A: AnyGraph,
    smoother: AnyGraph,
    W: np.ndarray,
    *,
    beta: float,
    n_steps: int,
    n_permutations: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Moran's I on ``A`` of the rows of W (n × k) put to random positions and smoothed again (n_permutations × k)."""
    graph = _smooth.as_graph(smoother)
    W = np.ascontiguousarray(W, dtype=np.float32)
    out = np.empty((n_permutations, W.shape[1]))
    for i, generator in enumerate(rng.spawn(n_permutations)):
        again = _smooth.diffuse(graph, W[generator.permutation(len(W))], beta, n_steps)
        out[i] = _spatial.morans_i(A, again.astype(np.float64), "normality")[0]
    return out
