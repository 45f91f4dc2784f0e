"""The table of cells that an instrument writes: one row a cell, with its place and its properties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import _checks

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Dialect:
    """Which columns of a platform's cells table mean what."""

    cell_id: str
    position: tuple[str, ...]
    um_per_unit: float  # of the position


DIALECTS = {"xenium": Dialect(cell_id="cell_id", position=("x_centroid", "y_centroid"), um_per_unit=1.0)}


def read_cells(path: Path, dialect: Dialect) -> tuple[pd.DataFrame, np.ndarray]:
    """The columns that are not the id or the place, by cell id, and the places (n × 2 or n × 3, float64).

    A column without a name (row numbers that R wrote) is dropped.
    """
    with _checks.reading(path, "a table of cells"):
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype={dialect.cell_id: str})
    missing = [c for c in (dialect.cell_id, *dialect.position) if c not in table]
    if missing:
        msg = f"{str(path)!r} has no column {_checks._listed(missing)}; it has {_checks._listed(table.columns)}."
        raise KeyError(msg)
    with _checks.reading(path, "a table of cells"):
        places = table[list(dialect.position)].to_numpy(dtype=np.float64)
        names = pd.Index(as_text(table[dialect.cell_id].to_numpy()))
    check_unique(names, path)
    unnamed = [c for c in table if str(c) == "" or str(c).startswith("Unnamed: ")]
    return table.drop(columns=[dialect.cell_id, *dialect.position, *unnamed]).set_axis(names), places


def check_unique(ids: pd.Index, path: Path) -> None:
    """A cell id must be there once."""
    if not ids.is_unique:
        again = ids[ids.duplicated()].unique()
        msg = f"{str(path)!r} has {len(again)} cell ids more than once ({_checks._listed(again, 3)})."
        raise ValueError(msg)


def as_text(ids: np.ndarray) -> np.ndarray:
    """Ids as str, whether they were written as text, bytes, integers or (by R) whole numbers of type float."""
    return np.array([i.decode() if isinstance(i, bytes) else str(i) for i in whole_numbers(ids).tolist()], dtype=object)


def whole_numbers(values: np.ndarray) -> np.ndarray:
    """Integers that were written as type float; anything else as it is."""
    if values.dtype.kind != "f":
        return values
    if not (values == np.round(values)).all():
        msg = "ids or indices are not whole numbers"
        raise ValueError(msg)
    return values.astype(np.int64)
