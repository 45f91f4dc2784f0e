r"""Spatial NMF: factors that vary smoothly over a graph.

* diffuse: :math:`W \leftarrow (1-\beta)W + \beta P W` after the fit, a few times, with :math:`P = (D+I)^{-1}(A+I)`;
* refit: the same, then H fitted to the smoothed W;
* laplacian: :math:`\tfrac12\|X-WH\|_F^2 + \tfrac\lambda2 \operatorname{Tr}(W^\top L W)`, :math:`\|H_k\|=1`, in the fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from . import _ops, _solver
from ._smooth import Graph

Array = np.ndarray
REFIT_SWEEPS = 100
REFIT_PASSES = 20  # of multiplicative updates, for KL


def refit_h(
    X: Any, W: Array, H: Array, loss: str = "frobenius", penalty: _solver.Penalty = _solver.NO_PENALTY
) -> Array:
    """H (k × p) that fits X best for the given W (n × k)."""
    with threadpool_limits(1, "blas"):  # the last bits depend on the number of threads
        return _refitted(X, W, H, loss, penalty)


def _refitted(X: Any, W: Array, H: Array, loss: str, penalty: _solver.Penalty) -> Array:
    k = W.shape[1]
    padded, Ht = _ops.start(X, k, W), np.asarray(H, dtype=np.float64).T
    if loss == "kl":
        Ht = np.maximum(Ht, 1e-6 * Ht.mean())
        for _ in range(REFIT_PASSES):
            stats = _ops.kl_pass(X, _ops.pad(Ht), padded, padded, k, h_sum=Ht.sum(0), sweeps=0)
            Ht = Ht * stats.xtw / np.maximum(stats.w_sum + penalty.l1_h, _ops.TINY)
    else:
        stats = _ops.hals_pass(X, _ops.pad(Ht), padded, padded, k, gram=Ht.T @ Ht, sweeps=0)
        Ht = _solver.hals_h(stats, Ht, l1=penalty.l1_h, l2=penalty.l2_h, sweeps=REFIT_SWEEPS)
    return np.ascontiguousarray(Ht.T, dtype=np.float32)


def relative_weight(graph: Graph, weight: float) -> float:
    """λ for a weight that is relative to the data term of an observation of average degree."""
    mean = float(graph.degree.mean())
    return weight / mean if mean > 0 else 0.0
