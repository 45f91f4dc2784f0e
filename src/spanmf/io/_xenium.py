"""The output folder of 10x Genomics' Xenium."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from .. import _checks, _keys
from ._cells import match, read_cells
from ._dialects import XENIUM
from ._tenx import read_matrix

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

MANIFEST = "experiment.xenium"
MATRIX = "cell_feature_matrix.h5"
CELLS = XENIUM.cells
ZARR = "cells.zarr.zip"
BUNDLE = (MANIFEST, MATRIX, CELLS[0], ZARR)  # without one of these, spatialdata-io stops
GENES = "Gene Expression"


def is_xenium(path: Path) -> bool:
    """By its matrix or its manifest."""
    return path.is_dir() and any((path / name).is_file() for name in (MATRIX, MANIFEST))


def read_xenium(path: Path) -> AnnData:
    """Counts of the genes, and the cells' places in µm."""
    if not path.is_dir():
        msg = f"{str(path)!r} is a file. Name the Xenium output folder that it is in."
        raise NotADirectoryError(msg)
    table, why_not = _by_spatialdata_io(path)
    if table is None:
        table = _by_files(path, why_not)
    return _genes_only(table)


def _by_spatialdata_io(path: Path) -> tuple[AnnData | None, str]:
    """The table that spatialdata-io makes, or why there is none."""
    missing = [name for name in BUNDLE if not (path / name).is_file()]
    if missing:
        return None, f"spatialdata-io does not read it without {' and '.join(missing)}"
    try:
        from spatialdata_io import xenium
    except ImportError:
        return None, "spatialdata-io is not installed (`pip install 'spanmf[spatialdata]'`)"
    parts = (
        "cells_boundaries", "nucleus_boundaries", "cells_as_circles", "cells_labels", "nucleus_labels", "transcripts",
        "morphology_mip", "morphology_focus", "aligned_images",
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Variable names are not unique")  # they are made unique below
            sdata = xenium(path, cells_table=True, gex_only=False, **dict.fromkeys(parts, False))
    except Exception as error:  # a reader of many versions of a format raises anything
        return None, f"spatialdata-io could not read it ({type(error).__name__}: {_checks.cause(error)})"
    table = next(iter(sdata.tables.values()))
    table.uns.clear()  # what links it to shapes and images that were not read
    table.obs = table.obs.drop(columns=["region", *XENIUM.cell_id], errors="ignore")
    return table, ""


def _by_files(path: Path, why: str) -> AnnData:
    """The cells table and the matrix, matched by cell id."""
    cells = next((path / name for name in CELLS if (path / name).is_file()), None)
    missing = [" or ".join(CELLS)] * (cells is None) + [MATRIX] * (not (path / MATRIX).is_file())
    if cells is None or missing:
        msg = (
            f"{str(path)!r} lacks {' and '.join(missing)}, so it cannot be read as a Xenium output folder; "
            f"it holds {_checks._listed(sorted(p.name for p in path.iterdir()))}."
        )
        raise FileNotFoundError(msg)
    obs, places = read_cells(cells, XENIUM)
    table = read_matrix(path / MATRIX)
    rows = match(table.obs_names, obs.index, path / MATRIX, cells)
    table = table[rows >= 0]
    rows = rows[rows >= 0]
    table.obs = obs.iloc[rows]
    table.obsm[_keys.SPATIAL] = places[rows]
    _checks.warn(f"{str(path)!r} was read from {cells.name} and {MATRIX} alone: {why}.")
    return table


def _genes_only(table: AnnData) -> AnnData:
    """Leave out controls and other kinds of features, count them, and note the units."""
    table.var_names_make_unique()
    kinds = table.var["feature_types"].to_numpy(dtype=str)
    left_out = {
        kind: {"n_features": int((kinds == kind).sum()), "counts": float(table.X[:, kinds == kind].sum())}
        for kind in sorted({*kinds} - {GENES})
    }
    adata = table[:, kinds == GENES].copy()
    adata.X = sp.csr_matrix(adata.X, dtype=np.float32)
    adata.obsm[_keys.SPATIAL] = np.asarray(adata.obsm[_keys.SPATIAL], dtype=np.float64)
    adata.uns[_keys.SPATIAL_UNITS] = "um"
    adata.uns[_keys.UM_PER_UNIT] = XENIUM.um_per_unit
    adata.uns[_keys.LEFT_OUT] = left_out
    return adata
