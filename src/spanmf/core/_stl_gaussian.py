"""Non-negative least squares of all spots, drawn to their surroundings as far as there is noise."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from . import _ops, _stl_intervals
from ._stl_em import deviances
from ._stl_model import Fit, Options, Progress, rows_to_one
from ._stl_prior import Smoother

Array = np.ndarray


def fit_gaussian(
    X: sp.csr_matrix,
    B: Array,
    n_cells: Array | None,
    smoother: Smoother,
    options: Options,
    dispersion: float,
    progress: Progress | None,
) -> Fit:
    """Non-negative least squares of all spots on all genes, drawn to the surroundings as far as there is noise."""
    rows = _ops.as_rows(X)
    n, (k, p) = X.shape[0], B.shape
    depth = _ops.row_sums(rows)
    valid = depth > 0
    gram, Bt, x_norm = B @ B.T, _ops.pad(B.T), _ops.squared_norm(rows)
    V = _ops.pad(np.zeros((n, k), np.float32))
    q = np.zeros(n, np.float32)
    target = np.zeros_like(V)
    trace, converged = [], False
    for i in range(options.max_iter):
        before = V.copy()
        stats = _ops.hals_pass(rows, Bt, V, V, k, gram=gram, sweeps=12, anchor=q[:, None] * target, anchor_weight=q)
        residual = max(x_norm - 2 * np.vdot(stats.xtw, B.T) + np.vdot(stats.wtw, gram), 0.0)
        pull = (q * ((V - target) ** 2).sum(1)).sum(dtype=np.float64)
        trace.append(0.5 * float(residual + pull))
        if progress is not None:
            progress(i + 1, trace[-1])
        if np.linalg.norm(V - before) <= options.tol * np.linalg.norm(V):
            converged = True
            break
        total = V.sum(1, keepdims=True)
        mean, weight = smoother.mean(V / np.where(total > 0, total, 1), valid)
        target = (mean * total).astype(np.float32)
        noise = weight * k * residual / (n * p)
        q = np.divide(noise, total[:, 0] ** 2, out=np.zeros(n), where=total[:, 0] > 0).astype(np.float32)
    size = B.sum(1)
    cells = V[:, :k].astype(np.float64)
    cells[cells.sum(1) <= 0] = np.nan
    shares = cells * size
    shares /= shares.sum(1, keepdims=True)
    filled = np.nan_to_num(shares)
    lower = upper = None
    if options.level is not None:
        gradient = np.maximum(V[:, :k].astype(np.float64) @ gram - sp.csr_matrix(X) @ B.T, 0)
        lower, upper = _stl_intervals.bounds(
            V[:, :k].astype(np.float64), np.broadcast_to(gram, (n, k, k)), gradient, residual / (n * p), np.ones(k),
            options.level,
        )  # fmt: skip
    spot, gene = deviances(rows, depth, B / size[:, None], _ops.pad(filled))
    return Fit(
        cells=rows_to_one(cells), mrna=shares.astype(np.float32), trace=np.array(trace), mending=np.zeros(0),
        converged=converged, likelihood="gaussian", dispersion=dispersion, genes=np.arange(p), platform=None, profiles=B / size[:, None],
        sizes=size, spot_deviance=spot / np.where(valid, depth, np.nan), gene_deviance=gene,
        lower=lower, upper=upper,
    )  # fmt: skip
