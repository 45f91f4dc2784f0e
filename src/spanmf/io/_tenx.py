"""10x Genomics' feature-barcode matrix, in HDF5 or as a folder (MEX)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.utils import make_index_unique

from .. import _checks
from ._cells import as_text, check_unique, whole_numbers

if TYPE_CHECKING:
    from pathlib import Path


def read_matrix(path: Path) -> AnnData:
    """All features of the matrix, cells × features, CSR float32; their names are made unique.

    The file holds features × barcodes by columns, which are the rows here. Files that R wrote have indices of type
    float: they are taken where they are whole numbers.
    """
    import h5py

    with _checks.reading(path, "a 10x feature-barcode matrix"), h5py.File(path) as file:
        matrix, features = file["matrix"], file["matrix/features"]
        n_features, n_cells = whole_numbers(matrix["shape"][:])
        data = matrix["data"][:].astype(np.float32)
        pointers = whole_numbers(matrix["indices"][:]), whole_numbers(matrix["indptr"][:])
        X = sp.csr_matrix((data, *pointers), shape=(n_cells, n_features))
        X.check_format(full_check=True)
        cells = pd.Index(as_text(matrix["barcodes"][:]))
        var = pd.DataFrame(
            {"gene_ids": as_text(features["id"][:]), "feature_types": as_text(features["feature_type"][:])},
            index=make_index_unique(pd.Index(as_text(features["name"][:]))),
        )
    check_unique(cells, path)
    X.sum_duplicates()
    X.eliminate_zeros()
    return AnnData(X, obs=pd.DataFrame(index=cells), var=var)


def read_mex(folder: Path) -> AnnData:
    """The same from a folder with the matrix, features and barcodes, compressed or not."""
    files = {n: next(iter(sorted(folder.glob(f"*{n}*"))), None) for n in ("matrix.mtx", "features.tsv", "barcodes.tsv")}
    files["features.tsv"] = files["features.tsv"] or next(iter(sorted(folder.glob("*genes.tsv*"))), None)
    missing = [n for n, p in files.items() if p is None]
    if missing:
        msg = f"{str(folder)!r} lacks {' and '.join(missing)}; it holds {_checks._listed(sorted(p.name for p in folder.iterdir()))}."
        raise FileNotFoundError(msg)
    tables = {}
    for name in ("features.tsv", "barcodes.tsv"):
        with _checks.reading(files[name], "a table of a 10x matrix"):
            tables[name] = pd.read_csv(files[name], sep="\t", header=None, dtype=str)
    features, cells = tables["features.tsv"], pd.Index(tables["barcodes.tsv"][0], dtype=object)
    with _checks.reading(files["matrix.mtx"], "a 10x feature-barcode matrix"):
        table = pd.read_csv(files["matrix.mtx"], sep=r"\s+", comment="%", header=None, dtype=np.float64).to_numpy()
        (n_features, n_cells, n_values), (row, column, value) = table[0].astype(np.int64), table[1:].T
        if (n_features, n_cells, n_values) != (len(features), len(cells), len(value)):
            msg = (
                f"it says {n_features} features, {n_cells} barcodes and {n_values} values, but there are {len(features)}, {len(cells)} "
                f"and {len(value)}"
            )
            raise ValueError(msg)
        X = sp.csr_matrix(
            (value.astype(np.float32), (column.astype(np.int64) - 1, row.astype(np.int64) - 1)), (n_cells, n_features)
        )
    check_unique(cells, files["barcodes.tsv"])
    kinds = features.get(2, "Gene Expression")
    var = pd.DataFrame({"gene_ids": features[0].to_numpy(), "feature_types": kinds})
    var.index = make_index_unique(pd.Index(features[1].to_numpy(), dtype=object))
    return AnnData(X, obs=pd.DataFrame(index=cells), var=var)
