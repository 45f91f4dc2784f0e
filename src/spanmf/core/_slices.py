"""A matrix in memory as blocks of rows, each made ready when its turn comes, so that no copy of the whole is needed.

Where some of the columns are in use, or the values are not float32, the engine's form of X is a copy. If it would be large, it is made of
a few rows at a time instead, in every pass anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from . import _ops
from ._blocks import Blocks, InProcess
from ._ops import Rows

Array = np.ndarray
WHOLE = 1 << 25  # values of a copy up to which it is made as a whole: 256 MiB, which pays from some ten passes on
VALUES = 1 << 21  # stored values of a block


@dataclass(frozen=True)
class Slice:
    """Some rows of a CSR matrix."""

    X: sp.csr_matrix
    rows: slice
    name: str

    def load(self) -> sp.csr_matrix:
        """A view of these rows."""
        indptr = self.X.indptr[self.rows.start : self.rows.stop + 1]
        own = slice(indptr[0], indptr[-1])
        part = sp.csr_matrix((len(indptr) - 1, self.X.shape[1]), dtype=self.X.dtype)
        part.data, part.indices = self.X.data[own], self.X.indices[own]
        part.indptr = (indptr - indptr[0]).astype(self.X.indices.dtype)
        return part


def usable(X: sp.csr_matrix, mask: Array) -> Rows | Blocks:
    """The columns of X in a mask as the engine takes them: X itself where it can be, a copy where that is small, or slices of rows."""
    as_it_is = mask.all() and X.data.dtype == np.float32 and X.indices.dtype == np.int32
    if as_it_is or X.nnz <= WHOLE:
        return _ops.as_rows(X, mask)
    size = sum(int(np.count_nonzero(mask[part])) for part in _ops.chunks(X.indices[: X.indptr[-1]]))
    return _ops.as_rows(X, mask) if size <= WHOLE else in_slices(X).select(mask)


def in_slices(X: sp.csr_matrix) -> Blocks:
    """Blocks of about equally many values."""
    wanted = np.searchsorted(X.indptr, np.arange(0, X.indptr[-1], VALUES))
    bounds = np.unique(np.concatenate([wanted, [0, X.shape[0]]])).astype(np.int64)
    rows = [slice(int(a), int(b)) for a, b in pairwise(bounds)]
    sources = tuple(Slice(X, own, f"Rows {own.start:,} to {own.stop - 1:,}") for own in rows)
    return Blocks(sources, bounds, X.shape[1], InProcess())
