"""Normalisation of intensities: non-negative in, non-negative out; sparse stays sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp


def clr(X: Any) -> Any:
    r"""Centred log ratio of every row that stays non-negative: :math:`\log(1 + x / g)`, :math:`g = \exp(\overline{\log(1 + x)})`."""
    if sp.issparse(X):
        X = sp.csr_matrix(X, dtype=np.float32, copy=True)
        mean = np.asarray(X.log1p().sum(1, dtype=np.float64)).ravel() / X.shape[1]
        X.data = np.log1p(X.data / np.repeat(np.exp(mean), np.diff(X.indptr))).astype(np.float32)
        return X
    X = np.asarray(X, dtype=np.float32)
    return np.log1p(X / np.exp(np.log1p(X).mean(1, keepdims=True, dtype=np.float64))).astype(np.float32)


def arcsinh(X: Any, cofactor: np.ndarray | float) -> Any:
    r""":math:`\operatorname{arsinh}(x_{ij} / c_j)`."""
    if sp.issparse(X):
        X = sp.csr_matrix(X, dtype=np.float32, copy=True)
        X.data = np.arcsinh(X.data / np.broadcast_to(cofactor, X.shape[1])[X.indices]).astype(np.float32)
        return X
    return np.arcsinh(np.asarray(X, dtype=np.float32) / cofactor).astype(np.float32)


def positive_medians(X: Any) -> np.ndarray:
    """Median of the positive values of every column; 1 where there is none (a plain median may be 0)."""
    X = sp.csc_matrix(X)
    out = np.ones(X.shape[1])
    for j in range(X.shape[1]):
        values = X.data[X.indptr[j] : X.indptr[j + 1]]
        values = values[values > 0]
        if len(values):
            out[j] = np.median(values)
    return out


def deviations(n: int, sums: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Standard deviations of columns of n rows from the sums of their values and squares; 1 of those that are constant."""
    mean = sums / n
    sd = np.sqrt(np.maximum(squares / n - mean**2, 0))
    sd[sd <= 1e-6 * np.maximum(mean, 1e-30)] = 1
    return sd


@dataclass(frozen=True)
class Steps:
    """What is done to the values of a block of rows, every row by itself; what all rows decide was found before."""

    library_size: float | None = None  # that every row is brought to
    log: bool = False
    clr: bool = False
    columns: np.ndarray | None = None  # that are in use
    factor: np.ndarray | None = None  # of each of them
    scale: float = 1.0  # of all, after that

    def __call__(self, X: Any) -> sp.csr_matrix:
        """A block as it is factorised; what was given stays as it is."""
        X = sp.csr_matrix(X, dtype=np.float32)
        if not X.has_canonical_format:
            X = X.copy()
            X.sum_duplicates()
        if self.library_size is not None:
            sizes = np.asarray(X.sum(1, dtype=np.float64)).ravel()
            share = (self.library_size / np.where(sizes > 0, sizes, 1)).astype(np.float32)
            X = _with(X, X.data * np.repeat(share, np.diff(X.indptr)))
        if self.log:
            X = _with(X, np.log1p(X.data))
        if self.clr:
            X = clr(X)
        if self.columns is not None:
            X = X[:, self.columns]
        if self.factor is not None:
            X = _with(X, X.data * self.factor.astype(np.float32)[X.indices])
        return X if self.scale == 1 else _with(X, X.data * np.float32(self.scale))


def _with(X: sp.csr_matrix, data: np.ndarray) -> sp.csr_matrix:
    """Other values at the same places."""
    return sp.csr_matrix((data, X.indices, X.indptr), shape=X.shape)
