"""The published STL-NMF, slow and literal: the paper's orientation (genes × spots), its dense J's, one loop a spot or pair.

Written from equations (1)–(6) alone; it shares no line with spanmf. The one mend is in (6), whose ``J_m J_mᵀ`` (m × m) is ``J_m Jᵀ``
(m × k).
"""

from __future__ import annotations

import numpy as np


def adjacency(xy: np.ndarray, z: np.ndarray, sigma1: float, sigma2: float) -> np.ndarray:
    m = len(xy)
    A = np.zeros((m, m))
    for i in range(m):
        for j in range(m):
            place = sum((xy[i] - xy[j]) ** 2)
            region = sum(abs(z[i] - z[j])) ** 2
            A[i, j] = np.exp(-place / sigma1**2 - region / sigma2**2)
    return A


def objective(X, B, V, A, W, lambdas, group) -> float:
    """(5), with the printed group term or the meant one (rows of zeros in W: no region)."""
    m, k = X.shape[1], B.shape[1]
    L = np.diag(A.sum(1)) - A
    J, J_m = np.ones((k, m)), np.ones((m, m))
    value = np.linalg.norm(X - B @ V) ** 2 + lambdas[0] * np.trace(V @ L @ V.T)
    value += lambdas[1] * np.linalg.norm(V.T @ J - J_m) ** 2
    if group == "printed":
        return float(value + lambdas[2] * np.linalg.norm(W @ V) ** 2)
    return float(value + lambdas[2] * sum(((V[:, i] - W[i]) ** 2).sum() for i in range(m) if W[i].any()))


def update(X, B, V, A, W, lambdas, group) -> np.ndarray:
    """(6)."""
    m, k = X.shape[1], B.shape[1]
    D, J, J_m = np.diag(A.sum(1)), np.ones((k, m)), np.ones((m, m))
    top = X.T @ B + lambdas[0] * A @ V.T + lambdas[1] * J_m @ J.T
    bottom = V.T @ B.T @ B + lambdas[0] * D @ V.T + lambdas[1] * V.T @ J @ J.T
    if group == "printed":
        bottom = bottom + lambdas[2] * V.T @ W.T @ W
    else:
        top = top + lambdas[2] * W
        bottom = bottom + lambdas[2] * V.T * W.any(1)[:, None]
    return (V.T * top / bottom).T
