"""Folders and files of tables of cells: which platform wrote them, and all of their tables as one AnnData."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.utils import make_index_unique

from .. import _checks, _data, _keys
from . import _imc
from ._cells import Part, check_unique, header, is_table, join_names, match, read_part
from ._dialects import DIALECTS, Dialect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SNIFFED = 50  # tables of a folder whose headers are looked at
COMPANIONS: dict[str, Callable[[AnnData, Path, Part], None]] = {
    "steinbock": _imc.finish_steinbock,
    "cellprofiler": _imc.finish_cellprofiler,
}
SAMPLE = "sample"  # column of obs


@dataclass(frozen=True)
class Tables:
    """Files of a platform."""

    folder: Path
    cells: list[Path]
    values: list[Path]


def is_dialect(path: Path, name: str) -> bool:
    """By the headers of its tables; a table with the features alone by its name."""
    found = find(path, DIALECTS[name])
    return bool(found.cells or found.values)


def find(path: Path, dialect: Dialect) -> Tables:
    """Tables of a platform in a folder, or the file and those beside it that belong to it."""
    folder = path if path.is_dir() else path.parent
    cells = _named(folder, dialect.cells, lambda p: _fits(p, dialect))
    values = _named(folder, dialect.values, lambda _: True)
    if path.is_file():
        if path in values:  # the run that it belongs to is the text before what the platform calls it
            cells = [p for p in cells if _run(p, dialect.cells) == _run(path, dialect.values)]
            return Tables(folder, cells, [path])
        if not _fits(path, dialect):
            return Tables(folder, [], [])
        values = [p for p in values if _run(p, dialect.values) == _run(path, dialect.cells)]
        return Tables(folder, [path], values)
    if not cells and not dialect.values:
        tables = sorted(p for p in folder.iterdir() if is_table(p))[:SNIFFED]
        cells = [p for p in tables if _fits(p, dialect)]
    return Tables(folder, cells, values)


def _named(folder: Path, names: Sequence[str], fits: Callable[[Path], bool]) -> list[Path]:
    """Files of the first of several names that any file has."""
    for name in names:
        found = [p for p in sorted(folder.glob(name)) if is_table(p) and fits(p)]
        if found:
            return found
    return []


def _run(path: Path, names: Sequence[str]) -> str:
    """Text before what the platform calls a file."""
    core = names[0].strip("*").rpartition("/")[2].strip("*")
    return path.name.partition(core)[0] if core and core in path.name else path.name


def _fits(path: Path, dialect: Dialect) -> bool:
    """Whether a table has the columns with the ids and the places, and features where they stand there, too."""
    try:
        columns = header(path)
    except (OSError, ValueError):
        return False
    there = all(any(n in columns for n in names) for names in (dialect.cell_id, *dialect.position))
    return there and (bool(dialect.values) or bool(dialect.features(columns)))


def read_tables(path: Path, name: str) -> AnnData:
    """All tables of a platform as one AnnData."""
    dialect = DIALECTS[name]
    found = find(path, dialect)
    _check_found(path, found, dialect)
    cells = _read(found.cells, dialect, places=True, features=not dialect.values)
    names = join_names([cells.within, cells.ids])
    check_unique(names, found.cells[0])
    if dialect.values:
        values = _read(found.values, dialect, features=True)
        if dialect.features_in_rows:
            values = replace(values, X=values.X.T.tocsr(), ids=pd.Index(values.features), features=list(values.ids))
            values = replace(values, within=np.full(len(values.ids), "", object), channels=values.features)
        own = join_names([values.within, values.ids])
        check_unique(own, found.values[0])
        rows = match(own, names, found.values[0], found.cells[0])
        X, order = values.X[rows >= 0], rows[rows >= 0]
    else:
        values, X, order = cells, cells.X, np.arange(len(names))
    obs = cells.obs.iloc[order].set_axis(names[order])
    obs.columns = _data.storable_names(obs.columns)
    adata = _assemble(X, obs, values, dialect)
    adata.obsm[_keys.SPATIAL] = cells.places[order]
    if dialect.samples and any(cells.within):
        adata.obs[SAMPLE] = pd.Categorical(cells.within[order])
    elif any(cells.within):
        adata.obs[dialect.within[0]] = pd.Categorical(cells.within[order])
    _note_units(adata, cells.obs, found.cells[0], dialect)
    if name in COMPANIONS:
        COMPANIONS[name](adata, found.folder, values)
    return adata


def _read(paths: list[Path], dialect: Dialect, *, places: bool = False, features: bool = False) -> Part:
    """One table, or several under each other; cells of several files are named after theirs."""
    parts = [read_part(p, dialect, places=places, features=features) for p in paths]
    if len(parts) == 1 and not dialect.per_file:
        return parts[0]
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        if part.features != first.features:
            differ = sorted({*part.features} ^ {*first.features}) or part.features
            msg = (
                f"{paths[0].name} and {path.name} in {str(path.parent)!r} differ in the features {_checks._listed(differ, 4)}, or in "
                "their order. Read them one by one: `sn.io.read(file)`."
            )
            raise ValueError(msg)
    if dialect.per_file or not any(any(p.within) for p in parts):
        fields = [np.full(len(p.ids), _stem(path), object) for path, p in zip(paths, parts, strict=True)]
    else:
        fields = [p.within for p in parts]
    Xs = [p.X for p in parts]
    return Part(
        pd.Index(np.concatenate([p.ids for p in parts]), dtype=object), np.concatenate(fields),
        pd.concat([p.obs for p in parts], ignore_index=True), np.concatenate([p.places for p in parts]),
        sp.vstack(Xs, format="csr") if sp.issparse(first.X) else np.concatenate(Xs), first.features, first.channels,
    )  # fmt: skip


def _stem(path: Path) -> str:
    return re.sub(r"(\.(csv|tsv|txt|parquet|gz))+$", "", path.name)


def _assemble(X: Any, obs: pd.DataFrame, values: Part, dialect: Dialect) -> AnnData:
    """Features by name, without controls, which are counted."""
    control = np.array([bool(re.fullmatch(dialect.controls, f)) for f in values.features])
    names = make_index_unique(pd.Index([f for f, c in zip(values.features, control, strict=True) if not c]))
    var = pd.DataFrame(index=names.astype(object))
    if values.channels != values.features:
        var["channel"] = [c for c, left in zip(values.channels, control, strict=True) if not left]
    adata = AnnData(X[:, ~control], obs=obs, var=var)
    if control.any():
        left = {"n_features": int(control.sum())} | ({"counts": float(X[:, control].sum())} if dialect.counts else {})
        adata.uns[_keys.LEFT_OUT] = {"controls": left}
    return adata


def _note_units(adata: AnnData, obs: pd.DataFrame, path: Path, dialect: Dialect) -> None:
    """What the platform, or the file itself, says of the unit of the places."""
    in_um = any(re.fullmatch(dialect.um_if, c) for c in header(path))
    adata.uns[_keys.SPATIAL_UNITS] = "um" if in_um else dialect.unit
    um = 1.0 if in_um else dialect.um_per_unit
    if um is None and dialect.areas and all(c in obs for c in dialect.areas):
        um = float(np.sqrt(np.median(obs[dialect.areas[0]] / obs[dialect.areas[1]])))
    if um is not None:
        adata.uns[_keys.UM_PER_UNIT] = um


def _check_found(path: Path, found: Tables, dialect: Dialect) -> None:
    """All tables of a platform must be there, and of one run."""
    missing = [
        " or ".join(names)
        for names, files in ((dialect.cells, found.cells), (dialect.values, found.values))
        if names and not files
    ]
    if missing:
        holds = _checks._listed(sorted(p.name for p in found.folder.iterdir()))
        other = next((n for n in DIALECTS if is_dialect(path, n) and DIALECTS[n] is not dialect), None)
        hint = (
            ""
            if other is None or found.cells or found.values
            else f" It looks like {DIALECTS[other].title}: `sn.io.read(path, {other!r})`."
        )
        msg = (
            f"{str(path)!r} lacks {' and '.join(missing)}, so it cannot be read as {dialect.title}; {str(found.folder)!r} holds "
            f"{holds}. Looked for {dialect.looks_like}, where the cells have the columns {dialect.columns}.{hint}"
        )
        raise FileNotFoundError(msg)
    if dialect.values and not dialect.per_file and max(len(found.cells), len(found.values)) > 1:
        names = [p.name for p in (*found.cells, *found.values)]
        msg = f"{str(found.folder)!r} holds several runs ({_checks._listed(names)}). Name one of the files: `sn.io.read({str(found.cells[0])!r})`."
        raise ValueError(msg)
