r"""Which type a component or a cluster is, by markers; and which cluster an observation belongs to, by what it has.

Observations are told apart by linear discriminants: with the means :math:`\mu_c` of the clusters, their common covariance
:math:`\Sigma` and sizes :math:`\pi_c`,

.. math:: p(c \mid w) \propto \pi_c \exp\bigl(-\tfrac12 (w - \mu_c)^\top \Sigma^{-1} (w - \mu_c)\bigr).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.stats import hypergeom
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from . import _domains

Array = np.ndarray
RIDGE = 1e-3  # share of the mean variance that is added to the covariance
TEMPERATURES = np.geomspace(0.5, 8, 33)
N_PCS = 20
PCS_ROWS = 20_000  # observations that the principal components are found on
FLOOR = 0.2  # of the median standard deviation of the features: what hardly varies is not blown up


def top(values: Array, n: int) -> Array:
    """Positions of the n largest positive values, best first."""
    order = np.argsort(-values, kind="stable")[:n]
    return order[values[order] > 0]


def chance(found: Sequence[int], n_markers: Sequence[int], n_top: Sequence[int], n_features: Sequence[int]) -> float:
    """Probability of at least as many markers in random lists, one list a kind of feature (hypergeometric, summed)."""
    pmf = np.ones(1)
    for markers, drawn, size in zip(n_markers, n_top, n_features, strict=True):
        pmf = np.convolve(pmf, hypergeom.pmf(np.arange(min(markers, drawn) + 1), size, markers, drawn))
    return float(min(pmf[sum(found) :].sum(), 1.0))


def contrast(profiles: Array) -> Array:
    """Profiles (rows × features) standardised over the rows; what hardly varies stays near 0."""
    profiles = np.asarray(profiles, dtype=np.float64)
    sd = profiles.std(0)
    floor = FLOOR * np.median(sd[sd > 0]) if (sd > 0).any() else 1.0
    return (profiles - profiles.mean(0)) / np.maximum(sd, floor)


def template_correlation(values: Array, at: Sequence[Array]) -> Array:
    """Correlation of every row, over all markers, with the indicator of each type's markers (rows × types).

    A marker of s types weighs 1 / s. A type without markers gets 0.
    """
    markers, sharing = np.unique(np.concatenate([*at, np.zeros(0, dtype=np.int64)]), return_counts=True)
    if not len(markers):
        return np.zeros((len(values), len(at)))
    weight = (1 / sharing) / (1 / sharing).sum()
    template = np.array([np.isin(markers, a) for a in at], dtype=float)
    V, T = values[:, markers], template
    V, T = V - (V @ weight)[:, None], T - (T @ weight)[:, None]
    size = np.sqrt(np.outer((V**2) @ weight, (T**2) @ weight))
    return np.divide((V * weight) @ T.T, size, out=np.zeros(size.shape), where=size > 1e-12)


def best_two(scores: Array) -> tuple[Array, Array, Array]:
    """Best column of every row (−1 where none is finite), the second, and the difference of their scores."""
    finite = np.where(np.isfinite(scores), scores, -np.inf)
    order = np.argsort(-finite, axis=1, kind="stable")
    rows = np.arange(len(scores))
    first, second = order[:, 0], order[:, 1] if scores.shape[1] > 1 else np.full(len(scores), -1)
    a, b = finite[rows, first], np.where(second >= 0, finite[rows, second], -np.inf)
    first, second = np.where(np.isfinite(a), first, -1), np.where(np.isfinite(b), second, -1)
    margin = np.subtract(a, b, out=np.full(len(scores), np.nan), where=np.isfinite(a) & np.isfinite(b))
    return first, second, margin


@dataclass(frozen=True)
class Discriminant:
    """Means (clusters × dimensions) and sizes of clusters, and the root of their common precision."""

    means: Array
    log_sizes: Array
    root: Array  # Σ^(−½)

    @classmethod
    def of(cls, W: Array, labels: Array, n_clusters: int) -> Discriminant:
        """Fit it to observations whose cluster is known (every cluster has one)."""
        W = np.asarray(W, dtype=np.float64)
        size = np.bincount(labels, minlength=n_clusters).astype(float)
        means = np.zeros((n_clusters, W.shape[1]))
        np.add.at(means, labels, W)
        means /= size[:, None]
        centred = W - means[labels]
        with threadpool_limits(1, "blas"):
            covariance = centred.T @ centred / len(W)
            scale = max(float(np.trace(covariance)) / len(covariance), 1e-30)
            values, vectors = np.linalg.eigh(covariance + RIDGE * scale * np.eye(len(covariance)))
        return cls(means, np.log(size / size.sum()), vectors / np.sqrt(values))

    def log_density(self, W: Array) -> Array:
        """``log p(w | c)`` up to what is common to all clusters (n × clusters)."""
        with threadpool_limits(1, "blas"):
            A, B = np.asarray(W, dtype=np.float64) @ self.root, self.means @ self.root
            return A @ B.T - 0.5 * (B**2).sum(1)

    def posterior(self, W: Array, log_prior: Array | None = None) -> Array:
        """Probability of every cluster; the prior (clusters, or n × clusters) is their size where none is given."""
        return softmax(self.log_density(W) + (self.log_sizes if log_prior is None else log_prior))


def temperature(W: Array, labels: Array, types: Array, rng: np.random.Generator) -> float:
    """What the logits are to be divided by so that probabilities of types are right on the half that was not fitted.

    ``types`` is the type of every cluster. Normal clusters of one covariance are an idealisation, as a rule too sure.
    """
    half = rng.random(len(W)) < 0.5
    known = np.unique(labels[half])
    test = ~half & np.isin(labels, known)
    if len(known) < 2 or test.sum() < 2:
        return 1.0
    position = np.searchsorted(known, labels[half])
    model = Discriminant.of(W[half], position, len(known))
    logits = model.log_density(W[test]) + model.log_sizes
    right = types[known][None] == types[labels[test]][:, None]
    loss = [-np.log(np.maximum((softmax(logits / t) * right).sum(1), 1e-12)).mean() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(loss))])


def softmax(logits: Array) -> Array:
    """Rows that sum to one."""
    out = np.exp(logits - logits.max(1, keepdims=True))
    return out / out.sum(1, keepdims=True)


def clusters(Z: Array, n_clusters: int, rng: np.random.Generator) -> Array:
    """Labels of k-means without gaps."""
    labels = _domains.k_means(Z, n_clusters, rng)[0]
    return np.unique(labels, return_inverse=True)[1].ravel()


def merged(centres: Array, sizes: Array, n_clusters: int) -> Array:
    """Ward's method on clusters: of each, its number among ``n_clusters`` larger ones, by size."""
    centres, sizes = np.array(centres, dtype=np.float64), np.array(sizes, dtype=np.float64)
    member = np.arange(len(centres))
    left = list(range(len(centres)))
    while len(left) > n_clusters:
        C, n = centres[left], sizes[left]
        squares = (C**2).sum(1)
        cost = np.outer(n, n) / (n[:, None] + n) * (squares[:, None] + squares - 2 * C @ C.T)
        cost[np.tril_indices(len(left))] = np.inf
        a, b = (left[i] for i in np.unravel_index(int(cost.argmin()), cost.shape))
        centres[a] = (sizes[a] * centres[a] + sizes[b] * centres[b]) / (sizes[a] + sizes[b])
        sizes[a] += sizes[b]
        member[member == b] = a
        left.remove(b)
    rank = np.empty(len(centres), dtype=np.int64)
    rank[sorted(left, key=lambda c: -sizes[c])] = np.arange(len(left))
    return rank[member]


def principal_axes(X: sp.csr_matrix, rng: np.random.Generator) -> Array:
    """Leading right singular vectors of X (features × at most 20), found on a sample of its rows."""
    rows = np.arange(X.shape[0])
    if len(rows) > PCS_ROWS:
        rows = np.sort(rng.choice(rows, PCS_ROWS, replace=False))
    n = max(min(N_PCS, min(len(rows), X.shape[1]) - 1), 1)
    with threadpool_limits(1):
        return np.asarray(randomized_svd(X[rows], n, random_state=int(rng.integers(2**31 - 1)))[2].T)
