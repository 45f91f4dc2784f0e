"""Non-negative least squares of all spots, drawn to their surroundings as far as there is noise."""

from __future__ import annotations

import numpy as np

from . import _ops
from ._blocks import Blocks
from ._ops import Rows
from ._simd import padded
from ._stl_em import deviances
from ._stl_model import Fit, Options, Progress, scaled_shares
from ._stl_prior import Smoother

Array = np.ndarray


def fit_gaussian(
    X: Rows | Blocks,
    B: Array,
    n_genes: int,
    smoother: Smoother,
    options: Options,
    dispersion: float,
    progress: Progress | None,
) -> Fit:
    """Non-negative least squares of all spots on all genes, drawn to the surroundings as far as there is noise.

    X may have columns beyond the ``n_genes`` in use, without values and without profile.
    """
    n, k = X.shape[0], len(B)
    depth = _ops.row_sums(X)
    valid = depth > 0
    gram, Bt, x_norm = B @ B.T, _ops.pad(B.T), _ops.squared_norm(X)
    V = np.zeros((n, padded(k)), np.float32)
    q = np.zeros(n, np.float32)
    target = np.zeros_like(V)
    trace, converged = [], False
    for i in range(options.max_iter):
        before = V.copy()
        stats = _ops.hals_pass(X, Bt, V, V, k, gram=gram, sweeps=12, anchor=q[:, None] * target, anchor_weight=q)
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
        noise = weight * k * residual / (n * n_genes)
        q = np.divide(noise, total[:, 0] ** 2, out=np.zeros(n), where=total[:, 0] > 0).astype(np.float32)
    size = B.sum(1)
    found = V.sum(1) > 0
    cells, mrna = (scaled_shares(V[:, :k], factors, found) for factors in (np.ones(k), size))
    spot, gene = deviances(X, depth, B / size[:, None], _ops.pad(np.nan_to_num(mrna)))
    return Fit(
        cells=cells, mrna=mrna, trace=np.array(trace), mending=np.zeros(0),
        converged=converged, likelihood="gaussian", dispersion=dispersion, platform=None, profiles=B / size[:, None],
        sizes=size, depth=depth, spot_deviance=spot / np.where(valid, depth, np.nan), gene_deviance=gene,
    )  # fmt: skip
