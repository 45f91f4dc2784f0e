r"""How much of the domains found in one half of a tissue the other half finds, too.

The tissue is cut into tiles, which are dealt into two halves of about equal size. Each half is clustered alone; then
every observation takes the label of the nearest centre of either half, p and q. The halves lie side by side, not among
each other: smoothing over neighbours reaches across the edges of the tiles only, while halves drawn cell by cell would
share nearly everything.

The adjusted Rand index of p and q favours few domains: two are easily found twice. So what the halves agree on is
weighed against what they do not, in bits,

.. math:: G = I(p; q) - H(p \mid q) - H(q \mid p).

Another domain pays if most of what it tells about one half's labels is found by the other half as well. The figures
behind this and the number of tiles are in ``docs/domains_evidence.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix
from threadpoolctl import threadpool_limits

from . import _domains, _smooth
from ._crossval import spatial_tiles

Array = np.ndarray
Cluster = Callable[[Array, int, _smooth.Graph, np.random.Generator], Array]
N_TILES = 50


def k_means(Z: Array, n_domains: int, _: _smooth.Graph, rng: np.random.Generator) -> Array:
    """Labels of k-means, which needs no graph."""
    return _domains.k_means(Z, n_domains, rng)[0]


CLUSTERINGS: dict[str, Cluster] = {"potts": _domains.potts_mixture, "kmeans": k_means}


def halves(coords: Array, libraries: Array, rng: np.random.Generator) -> Array:
    """Whether each observation is in the first half: tiles at a random angle, dealt until half of all is reached.

    Of 3-D coordinates the first two axes are turned.
    """
    angle = rng.uniform(0, np.pi)
    turned = coords.copy()
    turned[:, :2] @= np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    tile = spatial_tiles(turned, libraries, min(N_TILES, len(coords) // 2))
    sizes = np.bincount(tile)
    order = rng.permutation(len(sizes))
    n = int(np.abs(np.cumsum(sizes[order]) - len(coords) / 2).argmin()) + 1
    first = np.zeros(len(sizes), dtype=bool)
    first[order[: min(n, len(sizes) - 1)]] = True
    return first[tile]


def agreement(
    Z: Array, A: sp.csr_matrix, first: Array, n_domains: Sequence[int], cluster: Cluster, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Adjusted Rand index and G, for each number of domains, given which observations are in the first half."""
    scores = _domains.principal_components(Z, _domains.N_PCS)
    parts = [
        (np.ascontiguousarray(Z[m]), _smooth.as_graph(sp.csr_matrix(A[m][:, m])), scores[m]) for m in (first, ~first)
    ]
    ari, information = np.empty(len(n_domains)), np.empty(len(n_domains))
    for i, K in enumerate(n_domains):
        p, q = (nearest(scores, own, cluster(part, K, graph, rng)) for part, graph, own in parts)
        ari[i], information[i] = adjusted_rand_score(p, q), shared_information(p, q)
    return ari, information


def nearest(scores: Array, own: Array, labels: Array) -> Array:
    """Label whose centre (the mean of the rows of ``own`` with that label) is nearest to each row of ``scores``."""
    centres = np.stack([own[labels == k].mean(0) for k in np.unique(labels)])
    with threadpool_limits(1):
        return (0.5 * (centres**2).sum(1) - scores @ centres.T).argmin(1)


def shared_information(p: Array, q: Array) -> float:
    """``I(p; q) − H(p | q) − H(q | p)`` of two labelings, in bits."""
    joint = contingency_matrix(p, q) / len(p)
    both, one, other = (_entropy(x) for x in (joint, joint.sum(1), joint.sum(0)))
    mutual = one + other - both
    return mutual - (both - other) - (both - one)


def _entropy(share: Array) -> float:
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())
