r"""A wanted number of domains: k-means, or a Gaussian mixture whose labels follow a Potts field on the spatial graph.

The mixture has one covariance for all domains and flat weights. With the posterior :math:`r_{ik}` in mean field,

.. math:: \log r_{ik} = -\tfrac12 (z_i-\mu_k)^\top\Sigma^{-1}(z_i-\mu_k) + \beta \sum_j P_{ij} r_{jk} + \text{const},

where P is the row-normalised graph: one sparse product a step.
"""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from . import _ops
from ._smooth import Graph, graph_product

Array = np.ndarray
N_PCS = 10
SAMPLE = 20_000  # k-means compares its starts on this many observations
N_STARTS = 10
POTTS = 4.0
MAX_STEPS = 100


def k_means(Z: Array, n_domains: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Labels and centres of k-means: ten starts on a subsample, the best continued on all (one thread: reproducible)."""
    n, seed = len(Z), int(rng.integers(2**31 - 1))
    with threadpool_limits(1):
        part = Z if n <= SAMPLE else Z[np.sort(rng.choice(n, SAMPLE, replace=False))]
        model = KMeans(n_domains, n_init=N_STARTS, random_state=seed).fit(part)
        if n > SAMPLE:
            model = KMeans(n_domains, init=model.cluster_centers_, n_init=1).fit(Z)
    return model.labels_.astype(np.int64), model.cluster_centers_


def potts_mixture(Z: Array, n_domains: int, graph: Graph, rng: np.random.Generator) -> Array:
    """Labels of the Potts mixture on the leading principal components of Z, started from k-means."""
    scores = principal_components(Z, N_PCS)
    labels, means = k_means(scores, n_domains, rng)
    share = np.divide(1, graph.degree, out=np.zeros_like(graph.degree), where=graph.degree > 0).astype(np.float32)
    R = _ops.pad(np.eye(n_domains, dtype=np.float32)[labels])
    with threadpool_limits(1):
        for _ in range(MAX_STEPS):
            means, precision = _tied_gaussian(scores, R[:, :n_domains], means)
            log_r = _log_density(scores, means, precision)
            log_r += POTTS * share[:, None] * graph_product(graph, R)[:, :n_domains]
            log_r -= log_r.max(1, keepdims=True)
            np.exp(log_r, out=log_r)
            log_r /= log_r.sum(1, keepdims=True)
            moved = float(np.abs(log_r - R[:, :n_domains]).mean())
            R[:, :n_domains] = log_r
            if moved < 1e-4:
                break
    return R[:, :n_domains].argmax(1)


def principal_components(Z: Array, n: int) -> Array:
    """Scores on the leading principal components, float64, signs fixed."""
    with threadpool_limits(1):
        centred = Z.astype(np.float64) - Z.mean(0, dtype=np.float64)
        _, vectors = np.linalg.eigh(centred.T @ centred)
        vectors = vectors[:, ::-1][:, :n]
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])])
        return centred @ vectors


def _tied_gaussian(scores: Array, R: Array, means: Array) -> tuple[Array, Array]:
    """Means of the domains (an empty one keeps its own) and the inverse of their common covariance."""
    size = R.sum(0, dtype=np.float64)
    sums = R.T.astype(np.float64) @ scores
    means = np.where(size[:, None] > 1e-3, sums / np.maximum(size, 1e-3)[:, None], means)
    covariance = (scores.T @ scores - means.T @ (size[:, None] * means)) / len(scores)
    ridge = 1e-6 * max(np.trace(covariance) / len(covariance), 1e-12)
    return means, np.linalg.inv(covariance + ridge * np.eye(len(covariance)))


def _log_density(scores: Array, means: Array, precision: Array) -> Array:
    """``−½ (z − μ_k)ᵀ Σ⁻¹ (z − μ_k)`` without the part that is common to all k (n × K, float32)."""
    pulled = means @ precision
    return (scores @ pulled.T - 0.5 * np.einsum("kd,kd->k", pulled, means)).astype(np.float32)
