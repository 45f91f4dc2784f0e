"""What the first two arguments of a metric stand for: a table and keys, or arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import _checks, _data
from ..core._tiles import RadiusGraph
from ._places import Places, library_codes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from ..core._tiles import AnyGraph


def is_table(data: Any) -> bool:
    """Whether ``data`` holds keys (AnnData, SpatialData) rather than being an array."""
    return hasattr(data, "obsm") or hasattr(data, "tables")


def label_codes(data: AnnData | None, labels: str | Sequence[Any] | np.ndarray, n_obs: int) -> np.ndarray:
    """Codes of the labels (int64; −1 where missing) from a column of the table or an array."""
    return named_labels(data, labels, n_obs)[0]


def named_labels(
    data: AnnData | None, labels: str | Sequence[Any] | np.ndarray, n_obs: int
) -> tuple[np.ndarray, list[str]]:
    """Codes of the labels (int64; −1 where missing), and the names of those that are in use."""
    if isinstance(labels, str):
        if data is None:
            msg = f"The labels are given as a key ({labels!r}), which needs an AnnData as the first argument."
            raise TypeError(msg)
        codes, names = _data.get_labels(data, labels)
    else:
        _checks.check_length(labels, n_obs, "`labels`")
        column = pd.Series(labels).astype("category").cat.remove_unused_categories()
        codes, names = column.cat.codes.to_numpy(), [str(c) for c in column.cat.categories]
    if not (codes >= 0).any():
        msg = "No observation has a label: all are missing (NaN)."
        raise ValueError(msg)
    return codes.astype(np.int64), names


def coordinates(data: Any, spatial_key: str, table_key: str | None) -> tuple[AnnData | None, np.ndarray]:
    """The table, if it is one, and the coordinates (n × 2 or n × 3)."""
    if is_table(data):
        adata = _data.get_table(data, table_key)
        return adata, _data.get_coordinates(adata, spatial_key)
    return None, _checks.check_coordinates(data, None, len(data))


def labelled_places(
    data: Any, labels: Any, spatial_key: str, library_key: Any, table_key: str | None
) -> tuple[Places, np.ndarray]:
    """Places of the labelled observations, and their codes."""
    adata, coords = coordinates(data, spatial_key, table_key)
    codes = label_codes(adata, labels, len(coords))
    libraries = library_codes(adata, library_key, len(coords))
    known = codes >= 0
    return Places(coords[known], libraries[known]), codes[known]


def graph(
    data: Any, connectivity_key: str | None, table_key: str | None
) -> tuple[AnnData | None, AnyGraph, str | None]:
    """The table, if it is one, the graph (CSR without a diagonal, or a described one) and its ``obsp`` key."""
    if is_table(data):
        adata = _data.get_table(data, table_key)
        A, key = _data.find_graph(adata, connectivity_key)
        return adata, A, key
    if isinstance(data, RadiusGraph):
        return None, data, None
    n = getattr(data, "shape", (None,))[0]
    _checks.check_square(data, n, "The graph")
    return None, _data.as_graph(data), None


def fitted_layer(made: Mapping[str, Any], layer: str | None) -> str | None:
    """The layer that holds what a run factorised: the one that is named, else the one that its parameters record."""
    recorded = made.get("layer")
    if not made.get("normalize"):
        return recorded if layer is None else layer
    if layer == recorded:
        msg = (
            "The factors were fitted with `normalize=True` to values that are not in the table. Name a layer that has them "
            "with `layer=` (`sc.pp.normalize_total` and `sc.pp.log1p` of the counts)."
        )
        raise _checks.UndefinedError(msg)
    return layer
