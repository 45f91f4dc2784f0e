"""Tables that anndata or spatialdata stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from .. import _checks, _data

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

ZARR_MARKS = ("zarr.json", ".zgroup", ".zattrs")


def is_h5ad(path: Path) -> bool:
    """By its suffix."""
    return path.is_file() and path.suffix.lower() == ".h5ad"


def read_h5ad(path: Path) -> AnnData:
    """As it was stored."""
    import anndata

    with _checks.reading(path, "an .h5ad file"):
        return anndata.read_h5ad(path)


def is_zarr(path: Path) -> bool:
    """By its suffix or its metadata."""
    return path.is_dir() and (path.suffix.lower() == ".zarr" or any((path / m).is_file() for m in ZARR_MARKS))


def read_zarr(path: Path, table_key: str | None) -> AnnData:
    """An AnnData as it was stored, or a table of a SpatialData, which is an AnnData in the group ``tables``.

    Nothing else of a SpatialData is read, so that spatialdata need not be installed.
    """
    import anndata
    import zarr

    with _checks.reading(path, "a Zarr folder"):
        root = zarr.open_group(str(path), mode="r")
        tables = sorted(root["tables"].group_keys()) if "tables" in root else None
    if tables is None and table_key is not None:
        _checks.fail_one_table(path, table_key)
    where = path if tables is None else path / "tables" / _data.choose_table(tables, table_key)
    with _checks.reading(where, "an AnnData in Zarr"):
        adata = anndata.read_zarr(str(where))
        _check_sparse(adata.X)
        return adata


def _check_sparse(X: Any) -> None:
    """A chunk that got lost is read as zeros, which a sparse matrix betrays (a dense one cannot: zeros may be meant)."""
    if not sp.issparse(X):
        return
    major = X.indptr
    if (np.diff(major) < 0).any() or major[-1] != len(X.data) or len(X.indices) != len(X.data):
        msg = "the row pointers of X do not fit its values"
        raise ValueError(msg)
    first = np.repeat(np.arange(len(major) - 1), np.diff(major))[X.indices == 0]
    if (np.diff(first) == 0).any():
        msg = "several values of X claim the same place"
        raise ValueError(msg)
    X.check_format(full_check=True)
