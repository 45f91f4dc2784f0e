"""How far WH is from X, without ever forming WH."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from . import _ops
from ._blocks import Blocks

BLOCK = 16_384  # rows at a time: bounds the float64 copies


class Residual(NamedTuple):
    """Sums of squares over the observations and the variables in use."""

    error: float  # ‖X − WH‖²
    total: float  # ‖X − column means‖²
    n_entries: int


def residual(X: Any, W: np.ndarray, H: np.ndarray) -> Residual:
    r"""Sums of squares of X − WH (n × p) and of X about its column means, over the variables with a non-zero loading.

    .. math:: \lVert X - WH \rVert^2 = \lVert X \rVert^2 - 2 \langle X H^\top, W \rangle + \langle W^\top W, H H^\top \rangle

    in float64. X may be dense or sparse (CSC is read by its columns), or in blocks of rows.
    """
    used = H.any(axis=0)
    parts = X.each(_of_block, X.cut(W), [H] * len(X.sources)) if isinstance(X, Blocks) else [_products(X, W, H)]
    cross, squares, sums = (sum(values) for values in zip(*parts, strict=True))
    W, H = np.asarray(W, dtype=np.float64), np.asarray(H, dtype=np.float64)
    norm = squares[used].sum()
    error = norm - 2 * cross + np.vdot(W.T @ W, H @ H.T)
    total = norm - (sums[used] ** 2).sum() / X.shape[0]
    return Residual(max(float(error), 0.0), max(float(total), 0.0), X.shape[0] * int(used.sum()))


def _of_block(X: _ops.Rows, W: np.ndarray, H: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    return _products(X.as_scipy(), W, H)


def _products(X: Any, W: np.ndarray, H: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """``⟨X Hᵀ, W⟩``, and of every column the sum of squares and the sum."""
    p = X.shape[1]
    W, H = np.asarray(W, dtype=np.float64), np.asarray(H, dtype=np.float64)
    by_column = sp.issparse(X) and X.format == "csc"
    left, right = (H.T, W.T) if by_column else (W, H)
    squares, sums, cross = np.zeros(p), np.zeros(p), 0.0
    for rows, block in _blocks(X.T if by_column else X):
        cross += float(np.vdot(block @ right.T, left[rows]))
        axis, at = (1, rows) if by_column else (0, slice(None))
        squares[at] += _sums(block.multiply(block) if sp.issparse(block) else block * block, axis)
        sums[at] += _sums(block, axis)
    return cross, squares, sums


def _blocks(X: Any) -> Any:
    """Slices of rows in float64; one block for anything that is neither dense nor CSR."""
    if sp.issparse(X):
        X = X.tocsr()
    for start in range(0, X.shape[0], BLOCK):
        rows = slice(start, min(start + BLOCK, X.shape[0]))
        yield rows, X[rows].astype(np.float64)


def _sums(block: Any, axis: int) -> np.ndarray:
    return np.asarray(block.sum(axis=axis)).ravel()


def objective(X: Any, W: np.ndarray, H: np.ndarray, loss: str = "frobenius") -> float:
    """``½‖X − WH‖²``, or the KL divergence, at given W (n × k) and H (k × p): one pass over X."""
    k = len(H)
    W, Ht = _ops.start(X, k, W), np.asarray(H, dtype=np.float64).T
    if loss == "kl":
        stats = _ops.kl_pass(X, _ops.pad(Ht), W, W, k, h_sum=Ht.sum(0), sweeps=0, statistics=False)
        return _ops.entropy(X) - stats.log_term + float(stats.w_sum @ Ht.sum(0))
    gram = Ht.T @ Ht
    stats = _ops.hals_pass(X, _ops.pad(Ht), W, W, k, gram=gram, sweeps=0)
    return float(0.5 * (_ops.squared_norm(X) - 2 * np.vdot(stats.xtw, Ht) + np.vdot(stats.wtw, gram)))


def explained(X: Any, W: np.ndarray, H: np.ndarray) -> float:
    """Share of the squares of X about its column means that WH explains; NaN where X is constant."""
    sums = _ops.column_sums(X)
    total = _ops.squared_norm(X) - float(np.vdot(sums, sums)) / X.shape[0]
    return 1 - 2 * objective(X, W, H) / total if total > 0 else float("nan")
