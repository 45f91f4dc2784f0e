r"""A wanted number of domains: k-means, or a Gaussian mixture whose labels follow a Potts field on the spatial graph.

The mixture has one variance for all domains and directions, and flat weights: without the field it is a soft k-means.
With the posterior :math:`r_{ik}` in mean field,

.. math:: \log r_{ik} = -\frac{\|z_i-\mu_k\|^2}{2\sigma^2} + \beta \sum_j P_{ij} r_{jk} + \text{const},

where P is the row-normalised graph: one sparse product a step. The figures behind the constants are in
``docs/domains_evidence.md``.
"""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from . import _ops
from ._smooth import Graph, graph_product

Array = np.ndarray
N_PCS = 10  # a fixed number, so that the field weighs the same at every rank
SAMPLE = 20_000  # k-means compares its starts on this many observations
N_STARTS = 10
POTTS = 6.0  # mean ARI flat from 4 to 8, isolated labels 20 % fewer than k-means has
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
            means, variance = _gaussian(scores, R[:, :n_domains], means)
            log_r = _log_density(scores, means, variance)
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


def _gaussian(scores: Array, R: Array, means: Array) -> tuple[Array, float]:
    """Means of the domains (an empty one keeps its own) and their common variance.

    A full covariance whitens Z, noise included: mean ARI .665 over fifteen tissues against .674, worse on most spots.
    """
    size = R.sum(0, dtype=np.float64)
    sums = R.T.astype(np.float64) @ scores
    means = np.where(size[:, None] > 1e-3, sums / np.maximum(size, 1e-3)[:, None], means)
    total = np.vdot(scores, scores)
    within = total - 2 * np.vdot(sums, means) + size @ np.einsum("kd,kd->k", means, means)
    return means, float(max(within, 1e-6 * total, 1e-12) / scores.size)


def _log_density(scores: Array, means: Array, variance: float) -> Array:
    """``−‖z − μ_k‖² / 2σ²`` without the part that is common to all k (n × K, float32)."""
    return ((scores @ means.T - 0.5 * np.einsum("kd,kd->k", means, means)) / variance).astype(np.float32)
