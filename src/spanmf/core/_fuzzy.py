r"""Weights of a graph of nearest neighbours by their distances, as UMAP makes them (McInnes et al. 2018, arXiv:1802.03426).

.. math:: p_{ij} = \exp\left(-\max(0, d_{ij} - \rho_i)/\sigma_i\right), \qquad A = P + P^\top - P \circ P^\top

with :math:`\rho_i` the distance to the nearest other place and :math:`\sigma_i` such that :math:`\sum_j p_{ij} = \log_2 k`.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numba import njit

from ._ops import cached

Array = np.ndarray
LEAST_WIDTH = 1e-3  # of σ, in mean distances: coincident points would have none
TOLERANCE, MAX_STEPS = 1e-5, 64  # of the sum of a row


def fuzzy_graph(indices: Array, distances: Array) -> sp.csr_matrix:
    """Symmetric weights (float32 CSR) from the k nearest of every point and their distances (n × k, itself first)."""
    n, k = indices.shape
    distances = np.ascontiguousarray(distances, dtype=np.float32)
    weights = _memberships(distances, float(np.log2(k)), float(distances.mean(dtype=np.float64)))
    names = np.ascontiguousarray(indices[:, 1:], dtype=np.int32).ravel()
    P = sp.csr_matrix((weights.ravel(), names, np.arange(0, n * (k - 1) + 1, k - 1, dtype=np.int32)), shape=(n, n))
    T = P.T.tocsr()
    P = T.T.tocsr()  # its indices are sorted now
    A = sp.csr_matrix(P + T - P.multiply(T))
    A.eliminate_zeros()
    return A


@njit(cache=True)
def _memberships(distances, target, mean):
    """Weight of each neighbour but the point itself; σ by bisection, as near as UMAP takes it."""
    n, k = distances.shape
    out = np.ones((n, k - 1), np.float32)
    beyond = np.empty(k - 1)
    for i in range(n):
        nearest = np.float32(0)
        for j in range(1, k):
            if distances[i, j] > 0 and (nearest == 0 or distances[i, j] < nearest):
                nearest = distances[i, j]
        own_mean = 0.0
        for j in range(1, k):
            own_mean += distances[i, j] / k
            beyond[j - 1] = max(distances[i, j] - nearest, np.float32(0))
        low, high, width = 0.0, np.inf, 1.0
        for _ in range(MAX_STEPS):
            total = 0.0
            for d in beyond:
                total += np.exp(-d / width)
            if abs(total - target) < TOLERANCE:
                break
            low, high = (low, width) if total > target else (width, high)
            width = 2 * width if high == np.inf else (low + high) / 2
        width = max(width, LEAST_WIDTH * (own_mean if nearest > 0 else mean))
        for j in range(k - 1):
            if beyond[j] > 0:
                out[i, j] = np.exp(-beyond[j] / width)
    return out


def is_compiled() -> bool:
    """Whether the kernel is compiled in this process or cached on disk by an earlier one."""
    return cached(_memberships)
