"""10x Genomics' feature-barcode matrix in HDF5."""

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
