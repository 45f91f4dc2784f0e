"""Tables that anndata or spatialdata stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    where = path if tables is None else path / "tables" / _data.choose_table(tables, table_key)
    with _checks.reading(where, "an AnnData in Zarr"):
        _check_chunks(zarr.open_group(str(where), mode="r"))
        return anndata.read_zarr(str(where))


def _check_chunks(table: Any) -> None:
    """A chunk that got lost would be read as zeros: count those of X."""
    import zarr

    X = table.get("X")
    arrays = [X] if isinstance(X, zarr.Array) else [] if X is None else [X[k] for k in sorted(X.array_keys())]
    lost = {a.path: a.nchunks - a.nchunks_initialized for a in arrays}
    if any(lost.values()):
        msg = "; ".join(f"{n} chunks of {name} are missing" for name, n in lost.items() if n)
        raise ValueError(msg)
