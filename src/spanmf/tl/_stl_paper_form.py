"""From a table to the published form of STL-NMF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from .. import _checks, _data
from .._stl_weights import StlWeights
from ..core import _ops, _stl_em, _stl_model, _stl_paper

if TYPE_CHECKING:
    from anndata import AnnData

IDLE = (  # options of the better form
    "connectivity_key", "likelihood", "graph_weight", "border_weight", "region_weight", "reference_weight", "platform",
    "n_genes", "interval", "cells_per_spot", "max_iter", "tol", "device",
)  # fmt: skip


def idle(options: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Options that take no part in the published form."""
    if options.get("preset") == "paper":
        return [("`preset='paper'`", IDLE)]
    return [("`weights`", IDLE)] if options.get("weights") is not None else []


def as_weights(weights: Any) -> StlWeights:
    """``None`` is the published start; a path is read."""
    if weights is None:
        return StlWeights()
    if isinstance(weights, StlWeights):
        return weights
    if isinstance(weights, (str, bytes)) or hasattr(weights, "__fspath__"):
        return StlWeights.load(weights)
    msg = (
        f"`weights` must be what `sn.tl.learn_stl_nmf` returns, or the path of its file, not {type(weights).__name__}."
    )
    raise TypeError(msg)


def places(table: AnnData) -> np.ndarray:
    """Coordinates in pitches (median distance to the nearest)."""
    coords = _data.get_coordinates(table)
    nearest = cKDTree(coords).query(coords, 2)[0][:, 1] if len(coords) > 1 else np.ones(1)
    pitch = float(np.median(nearest[nearest > 0])) if (nearest > 0).any() else 1.0
    return coords / pitch


def check_size(n: int) -> None:
    """Refuse a dense graph of many spots."""
    if n > _stl_paper.MAX_SPOTS:
        size = _stl_paper.needed_bytes(n)
        msg = (
            f"The published form links every spot to every other: for {n:,} spots its graph takes {size:,} bytes "
            f"({size / 2**30:.1f} GiB), and it is refused above {_stl_paper.MAX_SPOTS:,}. The better form has a sparse graph: "
            "leave out `preset='paper'` and `weights`."
        )
        raise ValueError(msg)


def fit(
    table: AnnData,
    X: Any,
    columns: np.ndarray,
    B: np.ndarray,
    types: list[str],
    weights: StlWeights,
    region_key: str | None,
    library_key: str | None,
    rng: np.random.Generator,
    progress: Any,
) -> _stl_model.Fit:
    """Run the layers on the genes in common (``columns`` of X); shares of the cells are the rows of V."""
    codes, names = _data.get_labels(table, region_key) if region_key else (np.zeros(table.n_obs, np.int64), [])
    if weights.regions and not region_key:
        msg = f"The weights were learned for the regions {_checks._listed(weights.regions)}: name their column with `region_key=`."
        raise ValueError(msg)
    numbers, of_region = weights.for_section(types, names)
    if names:
        codes = np.where(codes >= 0, of_region[np.maximum(codes, 0)], -1)
    libraries, _ = _data.get_libraries(table, library_key)
    A = _stl_paper.adjacency(places(table), codes, numbers.sigmas, None if library_key is None else libraries)
    X = sp.csr_matrix(X)[:, columns]
    done = _stl_paper.fit(X, B, A, codes, numbers, rng, progress)
    rows = _ops.as_rows(X)
    depth = _ops.row_sums(rows)
    cells = np.where((depth > 0)[:, None] & (done.V.sum(1, keepdims=True) > 0), done.V, np.nan)
    sizes = B.sum(1)
    mrna = cells * sizes
    mrna /= mrna.sum(1, keepdims=True)
    profiles = B / sizes[:, None]
    spot, gene = _stl_em.deviances(rows, depth, profiles, _ops.pad(np.nan_to_num(mrna)))
    return _stl_model.Fit(
        cells=cells.astype(np.float32), mrna=mrna.astype(np.float32), trace=done.trace, mending=np.zeros(0),
        converged=True, likelihood="paper", dispersion=np.nan, genes=np.arange(B.shape[1]), platform=None,
        profiles=profiles, sizes=sizes, depth=depth, spot_deviance=spot / np.where(depth > 0, depth, np.nan), gene_deviance=gene,
    )  # fmt: skip
