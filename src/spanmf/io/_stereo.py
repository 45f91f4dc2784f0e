"""Stereo-seq: molecules by place (GEM text, GEF) as cells or square bins.

Layouts as SAW documents them: GEM is a table of gene, x, y and count (and the cell, where cells were segmented); GEF is HDF5
with the molecules in ``geneExp/bin1`` and segmented cells in ``cellBin``. x and y count DNBs.
"""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.utils import make_index_unique

from .. import _checks, _keys
from ._cells import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 2_000_000  # molecules that are read at a time
BIN = "bin100"
CELLS = "cells"
GENE, COUNT, CELL = (
    ("geneName", "geneID", "gene"),
    ("MIDCount", "MIDCounts", "UMICount", "count"),
    ("CellID", "cell", "label"),
)
LOOKS_LIKE = "a Stereo-seq file *.gem, *.gem.gz or *.gef"
Molecules = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Any]  # gene code, x, y, count, cell (or None)


def is_stereo(path: Path) -> bool:
    """By its suffix."""
    return path.is_file() and path.name.lower().endswith((".gem", ".gem.gz", ".gef"))


def read_stereo(path: Path, table_key: str | None) -> AnnData:
    """Cells where they were segmented, else square bins of 100 DNBs; ``table_key`` names ``cells`` or ``bin50`` and the like."""
    if table_key is not None and not re.fullmatch(rf"{CELLS}|bin[1-9]\d*", table_key):
        msg = f"`table_key` of a Stereo-seq file must be 'cells', or 'bin' and a number of DNBs such as 'bin50', not {table_key!r}."
        raise ValueError(msg)
    if not is_stereo(path):
        msg = f"{str(path)!r} is not {LOOKS_LIKE}. Name the file: `sn.io.read('….tissue.gem.gz')`."
        raise ValueError(msg)
    if path.suffix.lower() == ".gef":
        return _read_gef(path, table_key)
    columns, skip = _gem_header(path)
    cell = next((c for c in CELL if c in columns), None)
    key = table_key or (CELLS if cell else BIN)
    if key == CELLS and cell is None:
        _fail_without_cells(path)
    genes: dict[str, int] = {}
    chunks = _gem_chunks(path, columns, skip, cell if key == CELLS else None, genes)
    adata = _by_cell(chunks, genes) if key == CELLS else _by_bin(chunks, genes, int(key[3:]))
    return _noted(adata, key, None, path)


def _gem_header(path: Path) -> tuple[list[str], int]:
    """Columns and the number of lines up to them."""
    with _checks.reading(path, "a GEM table"), (gzip.open if path.suffix == ".gz" else open)(path, "rt") as file:
        columns, skip = [], 0
        for line in file:
            skip += 1
            if not line.startswith("#"):
                columns = line.rstrip("\n").split("\t")
                break
    missing = [names for names in (GENE, ("x",), ("y",), COUNT) if not any(n in columns for n in names)]
    if missing:
        msg = f"{str(path)!r} has no column {' or '.join(map(repr, missing[0]))}; it has {_checks._listed(columns)}."
        raise KeyError(msg)
    return columns, skip


def _gem_chunks(
    path: Path, columns: list[str], skip: int, cell: str | None, genes: dict[str, int]
) -> Iterator[Molecules]:
    gene, count = (next(n for n in names if n in columns) for names in (GENE, COUNT))
    used = [gene, "x", "y", count, *([cell] if cell else [])]
    types = {gene: str, "x": np.int64, "y": np.int64, count: np.int64} | ({cell: np.int64} if cell else {})
    how = {"sep": "\t", "names": columns, "skiprows": skip, "usecols": used, "dtype": types, "chunksize": CHUNK}
    with _checks.reading(path, "a GEM table"), pd.read_csv(path, **how) as reader:
        for chunk in reader:
            codes, names = pd.factorize(chunk[gene])
            for name in names:
                genes.setdefault(str(name), len(genes))
            code = np.array([genes[str(name)] for name in names], dtype=np.int64)[codes]
            x, y, n = (chunk[c].to_numpy() for c in ("x", "y", count))
            yield code, x, y, n, chunk[cell].to_numpy() if cell else None


def _by_bin(chunks: Iterator[Molecules], genes: dict[str, int], side: int) -> AnnData:
    """Sums over squares; the places are their centres."""
    parts = []
    for gene, x, y, n, _ in chunks:
        parts.append(_summed(np.stack([x // side, y // side, gene], axis=1), n))
    keys, n = _joined(parts, 3)
    new = np.append(True, (keys[1:, :2] != keys[:-1, :2]).any(axis=1))[: len(keys)]
    squares, row = keys[new, :2], np.cumsum(new) - 1
    X = sp.csr_matrix((n.astype(np.float32), (row, keys[:, 2])), shape=(len(squares), len(genes)))
    names = [f"{x}_{y}" for x, y in (squares * side).tolist()]
    return _table(X, names, list(genes), (squares + 0.5) * side)


def _by_cell(chunks: Iterator[Molecules], genes: dict[str, int]) -> AnnData:
    """Sums over cells; the places are the means over their molecules. Cell 0 is none."""
    parts, sums = [], []
    for gene, x, y, n, cell in chunks:
        inside = cell > 0
        gene, x, y, n, cell = (v[inside] for v in (gene, x, y, n, cell))
        parts.append(_summed(np.stack([cell, gene], axis=1), n))
        sums.append(pd.DataFrame({"n": n, "x": n * x, "y": n * y}).groupby(cell).sum())
    keys, n = _joined(parts, 2)
    if len(keys) == 0:
        return _table(sp.csr_matrix((0, len(genes))), [], list(genes), np.empty((0, 2)))
    total = pd.concat(sums).groupby(level=0).sum()
    X = sp.csr_matrix(
        (n.astype(np.float32), (total.index.get_indexer(keys[:, 0]), keys[:, 1])), shape=(len(total), len(genes))
    )
    return _table(X, [str(c) for c in total.index], list(genes), total[["x", "y"]].to_numpy() / total[["n"]].to_numpy())


def _summed(keys: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of n over equal rows of keys, which come back in order."""
    if len(keys) == 0:
        return keys, n.astype(np.float64)
    low, size = keys.min(0), np.ptp(keys, axis=0) + 1
    code = np.ravel_multi_index(tuple((keys - low).T), tuple(size))  # one number a row, which sorts fast
    order = np.argsort(code, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(code[order]) > 0))
    return keys[order[first]], np.add.reduceat(n[order].astype(np.float64), first)


def _joined(parts: list[tuple[np.ndarray, np.ndarray]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the sums of pieces (there may be none)."""
    none = np.empty((0, width), np.int64), np.empty(0)
    return _summed(*(np.concatenate(x) for x in zip(none, *parts, strict=True)))


def _read_gef(path: Path, table_key: str | None) -> AnnData:
    import h5py

    with _checks.reading(path, "a GEF file"), h5py.File(path) as file:
        key = table_key or (CELLS if "cellBin" in file else BIN)
        if (group := "cellBin" if key == CELLS else "geneExp/bin1") in file:
            adata = _gef_cells(file["cellBin"]) if key == CELLS else _gef_bins(file[group], int(key[3:]))
            return _noted(adata, key, _resolution(file, file[group], *file[group].values()), path)
    if key == CELLS:
        _fail_without_cells(path)
    msg = f"{str(path)!r} has no molecules (geneExp/bin1). Read its cells: `table_key='cells'`, or the .gef of the tissue."
    raise KeyError(msg)


def _names_of(genes: Any) -> list[str]:
    return list(as_text(genes[next(n for n in GENE if n in genes.dtype.names)]))


def _gef_cells(group: Any) -> AnnData:
    cells, genes, values = group["cell"][:], group["gene"][:], group["cellExp"][:]
    pointers = np.append(cells["offset"].astype(np.int64), len(values))
    X = sp.csr_matrix(
        (values["count"].astype(np.float32), values["geneID"].astype(np.int64), pointers),
        shape=(len(cells), len(genes)),
    )
    X.check_format(full_check=True)
    X.sum_duplicates()
    adata = _table(X, list(as_text(cells["id"])), _names_of(genes), np.stack([cells["x"], cells["y"]], axis=1))
    if "area" in cells.dtype.names:
        adata.obs["area"] = cells["area"].astype(np.float64)
    return adata


def _gef_bins(group: Any, side: int) -> AnnData:
    genes, values = group["gene"][:], group["expression"]
    start = np.append(genes["offset"].astype(np.int64), len(values))

    def chunks() -> Iterator[Molecules]:
        for first in range(0, len(values), CHUNK):
            part = values[first : first + CHUNK]
            gene = np.searchsorted(start, np.arange(first, first + len(part)), side="right") - 1
            yield gene, part["x"].astype(np.int64), part["y"].astype(np.int64), part["count"].astype(np.int64), None

    names = _names_of(genes)
    adata = _by_bin(chunks(), dict(zip(map(str, range(len(names))), range(len(names)), strict=True)), side)
    adata.var_names = make_index_unique(pd.Index(names, dtype=object))
    return adata


def _resolution(*holders: Any) -> float | None:
    """Distance of DNBs in nm, wherever the file notes it."""
    for holder in holders:
        if "resolution" in holder.attrs and (found := float(np.ravel(holder.attrs["resolution"])[0])) > 0:
            return found
    return None


def _table(X: sp.csr_matrix, names: list[str], genes: list[str], places: np.ndarray) -> AnnData:
    X.eliminate_zeros()
    var = pd.DataFrame(index=make_index_unique(pd.Index(genes, dtype=object)))
    adata = AnnData(X, obs=pd.DataFrame(index=pd.Index(names, dtype=object)), var=var)
    adata.obsm[_keys.SPATIAL] = np.asarray(places, dtype=np.float64)
    return adata


def _noted(adata: AnnData, key: str, resolution: float | None, path: Path) -> AnnData:
    if adata.n_obs == 0:
        msg = f"{str(path)!r} holds no molecule (in {key}). Is it complete?"
        raise OSError(msg)
    adata.uns[_keys.SPATIAL_UNITS] = "dnb"
    if resolution is not None:
        adata.uns[_keys.UM_PER_UNIT] = resolution / 1000
    return adata


def _fail_without_cells(path: Path) -> Any:
    msg = f"{str(path)!r} has no cells, since none were segmented. Read square bins: `table_key='bin50'`."
    raise KeyError(msg)
