"""Matrices as dask arrays, for tests of what takes them block by block; the cluster is a fixture of ``conftest.py``."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

da = pytest.importorskip("dask.array")

ROWS = 700  # of a block


def lazy(X, rows=ROWS):
    return da.from_array(sp.csr_matrix(X), chunks=(rows, X.shape[1]), asarray=False)


def with_lazy(adata, rows=ROWS, layer=None):
    out = adata.copy()
    if layer is None:
        out.X = lazy(adata.X, rows)
    else:
        out.layers[layer] = lazy(adata.layers[layer], rows)
    return out


def damaged(X, value):
    """The last three stored values are others."""
    X = X.copy()
    X.data[-3:] = value
    return X


def that_fails(X):
    """The third block cannot be read. The function is local, so that it travels to workers, who cannot import this module."""

    def at_the_end(block, block_info=None):
        if block_info and block_info[0]["chunk-location"][0] == 2:
            raise OSError("the disk is gone")
        return block

    return X.map_blocks(at_the_end, dtype=np.float32, meta=X._meta)
