r"""Rank sums of every gene for every cluster, and sums of marker genes in every observation.

Ranks do not depend on the labels: :func:`rank` sorts each gene once, and :func:`wilcoxon` is one pass over the stored
values a labelling. Zeros of a gene share one rank, so ranks are stored relative to it, for the non-zeros only:

.. math:: U_{cg} - \mathrm{E}\,U_{cg} = \sum_{i \in c} d_{ig} - \frac{n_c}{n} \sum_i d_{ig},
   \qquad d_{ig} = R_{ig} - R_g(0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import njit, prange

from . import _ops

Array = np.ndarray
ROWS_A_TASK = 4096


@dataclass(frozen=True)
class Ranks:
    """Ranks of each gene among the observations of a fold, by columns (the pattern of a CSC matrix).

    ``ranks`` (float32, exact below 8 million observations) are relative to the rank of a zero. ``ties`` (folds × genes)
    is 1 − Σ(t³ − t)/(n³ − n) over the runs of t equal values. ``folds``: one an observation, −1 for none.
    """

    indptr: Array
    indices: Array
    ranks: Array
    ties: Array
    folds: Array


def rank(X: Any, folds: Array) -> Ranks:
    """Rank the values of each gene (column of X, sparse or dense), in each fold by itself. Average ranks for ties."""
    X = sp.csc_matrix(X)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    folds = np.ascontiguousarray(folds, dtype=np.int64)
    sizes = np.bincount(folds[folds >= 0])
    ranks = np.zeros(X.nnz, dtype=np.float32)
    ties = np.ones((X.shape[1], len(sizes)))
    with _ops.threads_for(X.nnz):
        _rank_columns(X.indptr, X.indices, X.data, folds, sizes, ranks, ties)
    return Ranks(X.indptr, X.indices, ranks, ties.T.copy(), folds)


@njit(cache=True, parallel=True)
def _rank_columns(indptr, indices, data, folds, sizes, ranks, ties):
    for j in prange(len(indptr) - 1):
        lo, hi = indptr[j], indptr[j + 1]
        order = np.argsort(data[lo:hi])
        for f in range(len(sizes)):
            negative, stored = 0, 0
            for e in range(lo, hi):
                if folds[indices[e]] == f and data[e] != 0:
                    stored += 1
                    negative += data[e] < 0
            n, zeros = float(sizes[f]), float(sizes[f] - stored)
            tied = zeros**3 - zeros
            before, start = 0, 0
            while start < hi - lo:
                value, stop, count = data[lo + order[start]], start, 0
                while stop < hi - lo and data[lo + order[stop]] == value:
                    count += folds[indices[lo + order[stop]]] == f
                    stop += 1
                if value != 0 and count > 0:
                    place = before + (count + 1) / 2 - negative - (zeros + 1) / 2
                    if value > 0:
                        place += zeros
                    for s in range(start, stop):
                        e = lo + order[s]
                        if folds[indices[e]] == f:
                            ranks[e] = place
                    before += count
                    tied += float(count) ** 3 - count
                start = stop
            if n > 1:
                ties[j, f] = 1 - tied / (n**3 - n)


def wilcoxon(ranked: Ranks, codes: Array, n_groups: int, *, tie_correct: bool = True) -> Array:
    """Score (z) of the rank-sum test of each group against all others: folds × groups × genes.

    ``codes`` are −1 where ``ranked.folds`` are. 0 for a gene that is constant; NaN for a group that is empty or all.
    """
    n_folds, p = ranked.ties.shape
    group = np.where(codes < 0, -1, ranked.folds * n_groups + codes)
    sums = np.zeros((p, n_folds * n_groups))
    with _ops.threads_for(len(ranked.ranks)):
        _sum_columns(ranked.indptr, ranked.indices, ranked.ranks, group, sums)
    sums = sums.reshape(p, n_folds, n_groups).transpose(1, 2, 0)
    own = np.bincount(group[group >= 0], minlength=n_folds * n_groups).reshape(n_folds, n_groups, 1).astype(np.float64)
    n = own.sum(1, keepdims=True)
    above = sums - own / np.maximum(n, 1) * sums.sum(1, keepdims=True)
    variance = own * (n - own) * (n + 1) / 12 * (ranked.ties[:, None, :] if tie_correct else 1.0)
    z = np.divide(above, np.sqrt(variance), out=np.zeros(above.shape), where=variance > 0)
    return np.where((own > 0) & (own < n), z, np.nan)


@njit(cache=True, parallel=True)
def _sum_columns(indptr, indices, ranks, group, sums):
    for j in prange(len(indptr) - 1):
        for e in range(indptr[j], indptr[j + 1]):
            c = group[indices[e]]
            if c >= 0:
                sums[j, c] += ranks[e]


def totals(X: _ops.Rows, group: Array, n_groups: int) -> tuple[Array, Array]:
    """Sum of the values, and number of observations that express the gene, of each group: groups × genes."""
    sums, expressing = np.zeros((n_groups, X.shape[1])), np.zeros((n_groups, X.shape[1]), dtype=np.int64)
    _total_rows(X.indptr, X.indices, X.data, group, sums, expressing)
    return sums, expressing


@njit(cache=True)
def _total_rows(indptr, indices, data, group, sums, expressing):
    for i in range(len(group)):
        c = group[i]
        if c >= 0:
            for e in range(indptr[i], indptr[i + 1]):
                sums[c, indices[e]] += data[e]
                expressing[c, indices[e]] += data[e] > 0


def own_and_best_other(X: _ops.Rows, codes: Array, folds: Array, weights: Array) -> tuple[Array, Array]:
    """Score of each observation for its own group, and the highest for another group.

    ``weights`` (folds × groups × genes) give the score of a group as a weighted sum of its markers (weights above 0).
    NaN where the observation has no group, its group no marker (own), or no other group has one (other).
    """
    n_folds, n_groups, p = weights.shape
    by_gene = sp.csr_matrix(weights.transpose(0, 2, 1).reshape(n_folds * p, n_groups))
    has = (weights > 0).any(2)
    own, other = np.full(len(codes), np.nan), np.full(len(codes), np.nan)
    with _ops.threads_for(len(X.data)):
        _own_and_best(
            X.indptr, X.indices, X.data, codes, folds, p, by_gene.indptr, by_gene.indices, by_gene.data, has, own, other
        )
    return own, other


@njit(cache=True, parallel=True)
def _own_and_best(indptr, indices, data, codes, folds, p, ptr, groups, weights, has, own, other):
    n = len(codes)
    for task in prange((n + ROWS_A_TASK - 1) // ROWS_A_TASK):
        score = np.empty(has.shape[1])
        for i in range(task * ROWS_A_TASK, min((task + 1) * ROWS_A_TASK, n)):
            if codes[i] < 0:
                continue
            score[:] = 0
            for e in range(indptr[i], indptr[i + 1]):
                gene = folds[i] * p + indices[e]
                for q in range(ptr[gene], ptr[gene + 1]):
                    score[groups[q]] += data[e] * weights[q]
            for c in range(len(score)):
                if not has[folds[i], c]:
                    continue
                if c == codes[i]:
                    own[i] = score[c]
                elif not other[i] >= score[c]:  # NaN at first
                    other[i] = score[c]
