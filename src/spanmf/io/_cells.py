"""The one reader of tables of cells (CSV, TSV, parquet): a row a cell, its id, its place, its properties and features."""

from __future__ import annotations

import gzip
import re
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .. import _checks
from ._dialects import Dialect, is_unnamed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

WHAT = "a table of cells"
CHUNK = 4_000_000  # values that are read at a time
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".parquet")
SEPARATORS = ",\t;"


@dataclass(eq=False)
class Part:
    """What was read of a table: rows are cells (features, where a table has them in its rows)."""

    ids: pd.Index
    within: np.ndarray  # image, field or region of each cell; "" without
    obs: pd.DataFrame
    places: np.ndarray  # n × 0 where they were not asked for
    X: Any
    features: list[str]
    channels: list[str]  # columns of the features


def is_table(path: Path) -> bool:
    """By its suffix."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def header(path: Path) -> list[str]:
    """Names of the columns, without blanks around them; ``x:x`` (Akoya) is ``x``."""
    with _checks.reading(path, WHAT):
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            names = pq.read_schema(path).names
        else:
            names = list(pd.read_csv(path, sep=_separator(path), nrows=0, encoding="utf-8-sig", **_UNDECODED).columns)
    return [re.sub(r"^(.+):\1$", r"\1", str(n).strip()) for n in names]


_UNDECODED = {"encoding_errors": "replace"}  # Windows programs write ² and µ in encodings of their own


def _first_lines(path: Path, n: int) -> list[str]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", errors="replace") as file:
        return [file.readline() for _ in range(n)]


def _separator(path: Path) -> str:
    line = _first_lines(path, 1)[0]
    return max(SEPARATORS, key=line.count)


def read_cells(path: Path, dialect: Dialect) -> tuple[pd.DataFrame, np.ndarray]:
    """The columns that are not the id or the place, by cell id, and the places (n × 2 or n × 3, float64)."""
    part = read_part(path, dialect, places=True)
    check_unique(part.ids, path)
    return part.obs.set_axis(part.ids), part.places


def read_part(path: Path, dialect: Dialect, *, places: bool = False, features: bool = False) -> Part:
    """Read a table by chunks; the features (dense, or CSR of counts) only where they are asked for."""
    columns = header(path)
    row_id = _column(columns, dialect.cell_id, path)
    within = _column(columns, dialect.within, path, optional=True)  # without it, ids that are there twice are refused
    position = [_column(columns, names, path) for names in dialect.position] if places else []
    known = {row_id, within, *position}
    named = dialect.features([c for c in columns if c not in known] if dialect.values else columns) if features else {}
    named = {c: name for c, name in named.items() if c not in known}
    if features and not named:
        msg = f"{str(path)!r} has no column of a feature as {dialect.title} names them; it has {_checks._listed(columns)}."
        raise ValueError(msg)
    hidden = set() if dialect.values else set(named)
    kept = [c for c in columns if places and c not in known | hidden and not is_unnamed(c)]
    kept = [c for c in kept if re.fullmatch(dialect.properties, c)]
    numbers = [*position, *named]
    ids, fields, obs, where, X = [], [], [], [], []
    n_missing: dict[str, int] = {}
    last: list[str] = []
    n = 0
    with closing(_chunks(path, columns, [row_id, within], dialect.second_header)) as chunks:
        for chunk in chunks:
            ids.append(as_text(chunk[row_id].to_numpy()))
            fields.append(as_text(chunk[within].to_numpy()) if within is not None else np.full(len(chunk), "", object))
            _check_numeric(chunk, numbers, path, n)
            missing = chunk[numbers].isna()
            for column in missing.columns[missing.any()]:
                n_missing[column] = n_missing.get(column, 0) + int(missing[column].sum())
            last = list(missing.columns[missing.iloc[-1]]) if len(missing) else last
            obs.append(chunk[kept])
            where.append(chunk[position].to_numpy(dtype=np.float64))
            values = chunk[list(named)].to_numpy(dtype=np.float32)
            X.append(sp.csr_matrix(values) if dialect.counts else values)
            n += len(chunk)
    if n == 0:
        msg = f"{str(path)!r} has a header and no cells. Is it complete?"
        raise OSError(msg)
    _check_missing(path, n_missing, last, [c for c in columns if c in numbers])
    return Part(
        pd.Index(np.concatenate(ids), dtype=object), np.concatenate(fields), _properties(obs),
        np.concatenate(where), (sp.vstack(X, format="csr") if dialect.counts else np.concatenate(X)),
        list(named.values()), list(named),
    )  # fmt: skip


def _column(columns: Sequence[str], names: Sequence[str], path: Path, *, optional: bool = False) -> str | None:
    """The first of several names that a table has."""
    found = next((name for name in names if name in columns), None)
    if found is None and not optional:
        msg = f"{str(path)!r} has no column {' or '.join(map(repr, names))}; it has {_checks._listed(columns)}."
        raise KeyError(msg)
    return found


def _chunks(path: Path, columns: list[str], text: list[str | None], second_header: str) -> Iterator[pd.DataFrame]:
    """The table in pieces of bounded size; ids as text."""
    rows = max(CHUNK // len(columns), 100)
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        with _checks.reading(path, WHAT):
            batches = (b.to_pandas(ignore_metadata=True) for b in pq.ParquetFile(path).iter_batches(rows))
    else:
        with _checks.reading(path, WHAT):
            skip = bool(second_header) and _first_lines(path, 2)[1].lstrip('"').startswith(second_header)
            batches = pd.read_csv(
                path, sep=_separator(path), names=columns, header=None, skiprows=1 + skip, chunksize=rows,
                index_col=False, dtype={c: str for c in text if c is not None}, encoding="utf-8-sig", low_memory=False,
                **_UNDECODED,
            )  # fmt: skip
    try:
        while True:
            with _checks.reading(path, WHAT):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch.set_axis(columns, axis=1)
    finally:
        batches.close()


def _check_numeric(chunk: pd.DataFrame, columns: list[str], path: Path, n_before: int) -> None:
    """Places and features must be numbers; the error names the column, the row and what stands there."""
    for column in columns:
        values = chunk[column]
        if pd.api.types.is_numeric_dtype(values):
            continue
        if values.isna().all():
            chunk[column] = values.astype(np.float64)
            continue
        wrong = pd.to_numeric(values, errors="coerce").isna() & values.notna()
        row = int(np.flatnonzero(wrong)[0])
        msg = (
            f"{str(path)!r} has {values.iloc[row]!r} in the column {column!r}, line {n_before + row + 2}, where a number "
            "is needed. Mend the file; if another platform wrote it, name that one with `platform=`."
        )
        raise ValueError(msg)


def _check_missing(path: Path, n_missing: dict[str, int], last: list[str], numbers: list[str]) -> None:
    """A last line that ends early is a truncated file; gaps elsewhere are said and stay."""
    if last and n_missing == dict.fromkeys(last, 1) and set(last) == set(numbers[-len(last) :]):
        first = numbers[-len(last)]
        msg = f"{str(path)!r} could not be read as {WHAT}: its last line ends before the column {first!r}. Is it complete?"
        raise OSError(msg)
    if n_missing:
        _checks.warn(
            f"{str(path)!r} lacks {sum(n_missing.values())} numbers in the columns {_checks._listed(n_missing, 4)}: they are NaN. "
            "Leave those cells out: `adata = adata[~np.isnan(adata.X).any(axis=1)].copy()`."
        )


def _properties(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Columns that hold something."""
    table = pd.concat(parts, ignore_index=True)
    return table.loc[:, table.notna().any()]


def join_names(parts: Iterable[Sequence[str]]) -> pd.Index:
    """Names of cells that are numbered within images: that of the image (if any) and their own."""
    return pd.Index(["_".join(filter(None, names)) for names in zip(*parts, strict=True)], dtype=object)


def match(barcodes: pd.Index, ids: pd.Index, matrix: Path, cells: Path) -> np.ndarray:
    """Row of the cells table for every cell of the matrix, −1 where it has none."""
    rows = ids.get_indexer(barcodes)
    found = int((rows >= 0).sum())
    if found == 0:
        msg = (
            f"{cells.name} and {matrix.name} in {str(cells.parent)!r} have no cell in common: their ids are "
            f"{_checks._listed(ids, 3)} and {_checks._listed(barcodes, 3)}."
        )
        raise ValueError(msg)
    if found < max(len(ids), len(barcodes)):
        _checks.warn(
            f"{cells.name} has {len(ids)} cells and {matrix.name} has {len(barcodes)}: the {found} that are in both are kept."
        )
    return rows


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
