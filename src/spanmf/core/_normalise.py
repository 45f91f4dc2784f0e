"""Normalisation of intensities: non-negative in, non-negative out; sparse stays sparse."""

from __future__ import annotations

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


def over_sd(X: Any) -> sp.csr_matrix:
    """Columns divided by their standard deviations, not centred; constant columns stay as they are."""
    X = sp.csr_matrix(X, dtype=np.float32, copy=True)
    n = X.shape[0]
    mean = np.bincount(X.indices, X.data, X.shape[1]) / n
    variance = np.bincount(X.indices, X.data.astype(np.float64) ** 2, X.shape[1]) / n - mean**2
    sd = np.sqrt(np.maximum(variance, 0))
    sd[sd <= 1e-6 * np.maximum(mean, 1e-30)] = 1
    X.data /= sd[X.indices].astype(np.float32)
    return X
