"""Fine clusters of the most complete observations, and the probability of each for every observation, by what it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .. import _checks, _mudata
from ..core import _annotation, _scale
from . import _fit, _joint_values, _parts

PER_COMPONENT, MIN_CLUSTERS = 2, 20
MIN_SIZE = 10  # observations a cluster, on average
N_ROUNDS = 5
OWN = 1.0  # weight of the tissue as a whole beside the neighbours, in neighbours


@dataclass(frozen=True)
class FineClusters:
    """Clusters of the observations that have the most modalities (``rows``), on :math:`W (H H^T)^{1/2}`."""

    factored: _parts.Factored
    patterns: np.ndarray  # which modalities the observations of a group have (groups × modalities)
    pattern: np.ndarray  # group of every observation
    most: int  # the group in which the clusters were found
    rows: np.ndarray
    labels: np.ndarray  # cluster of each of the rows
    centres: np.ndarray  # mean W of each cluster
    scaled_centres: np.ndarray  # the same in the space they were found in

    @property
    def sizes(self) -> np.ndarray:
        """Number of the rows in each cluster."""
        return np.bincount(self.labels)


def usual(factored: _parts.Factored) -> int:
    """Number of fine clusters where none is asked for: several a type."""
    return max(MIN_CLUSTERS, PER_COMPONENT * factored.W.shape[1])


def find(factored: _parts.Factored, n_clusters: int, rng: np.random.Generator) -> FineClusters:
    """k-means of the most complete observations into so many clusters, or fewer where there are few observations."""
    n = len(factored.W)
    has = np.stack([np.isin(np.arange(n), part.rows) for part in factored.parts], axis=1)
    patterns, pattern = np.unique(has, axis=0, return_inverse=True)
    pattern = pattern.ravel()
    most = max(range(len(patterns)), key=lambda g: (patterns[g].sum(), (pattern == g).sum()))
    rows = np.flatnonzero(pattern == most)
    wanted = min(n_clusters, max(len(rows) // MIN_SIZE, 2))
    Z = _scale.by_gram(factored.W[rows], gram(factored))
    labels = _annotation.clusters(Z, wanted, rng)
    centres, scaled = (_means(values, labels) for values in (factored.W[rows], Z))
    return FineClusters(factored, patterns, pattern, most, rows, labels, centres, scaled)


def neighbours(factored: _parts.Factored, wanted: bool, connectivity_key: str | None) -> sp.csr_matrix | None:
    """The graph for :func:`posterior`, where it was asked for."""
    given = {"use_neighbors": wanted, "connectivity_key": connectivity_key}
    if not factored.joint:
        _checks.check_idle("one modality", given, given)
    if not wanted:
        _checks.check_idle("`use_neighbors=False`", ["connectivity_key"], given)
        return None
    return _mudata.get_graph(factored.holder, connectivity_key)[0]


def gram(factored: _parts.Factored) -> np.ndarray:
    """Gram matrix of the loadings of all modalities, as they were weighted."""
    total = np.zeros((factored.W.shape[1],) * 2)
    for part in factored.parts:
        H = part.H.astype(np.float64) * _scale_of(factored, part)
        total += H @ H.T
    return total


def posterior(fine: FineClusters, codes: np.ndarray, A: sp.csr_matrix | None, rng: np.random.Generator) -> np.ndarray:
    """Probability of every cluster (n × clusters); ``codes`` is the type of each, for which it is to be right.

    Complete observations are judged by W, others by principal components of what they have, on which linear discriminants
    are fitted to the complete ones. With a graph A the types around such an observation are its prior.
    """
    factored, labels = fine.factored, fine.labels
    n, n_clusters = len(factored.W), len(fine.centres)
    log_density = np.empty((n, n_clusters))
    for g, there in enumerate(fine.patterns):
        own = np.flatnonzero(fine.pattern == g)
        if g == fine.most:
            known, asked, heat = factored.W[fine.rows], factored.W[own], 1.0
        else:
            known, asked = _scores(factored, there & fine.patterns[fine.most], fine.rows, own, rng)
            heat = _annotation.temperature(known, labels, codes, rng)
        model = _annotation.Discriminant.of(known, labels, n_clusters)
        log_density[own] = (model.log_density(asked) + model.log_sizes) / heat
    out = _annotation.softmax(log_density)
    if A is not None:
        out = _with_neighbours(out, log_density, codes, fine.sizes, A, fine.pattern != fine.most)
    return out


def by_type(posterior: np.ndarray, codes: np.ndarray, n_types: int) -> np.ndarray:
    """Probabilities of the types, from those of their clusters."""
    out = np.zeros((len(posterior), n_types))
    for c, t in enumerate(codes):
        out[:, t] += posterior[:, c]
    return out


def _means(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    sums = np.zeros((labels.max() + 1, values.shape[1]))
    np.add.at(sums, labels, values)
    return sums / np.bincount(labels)[:, None]


def _scale_of(factored: _parts.Factored, part: _parts.Part) -> float:
    scales = factored.record.get("scales", {}) if factored.joint else {}
    return float(scales.get(part.name.replace("/", "|"), 1.0))


def _scores(
    factored: _parts.Factored, there: np.ndarray, rows: np.ndarray, own: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of complete rows and of others, of the modalities that both have."""
    matrices = []
    for part, is_there in zip(factored.parts, there, strict=True):
        if is_there:
            X = _joint_values.recorded_values(factored.holder, part.name, factored.record)[0]
            if factored.record["params"]["loss"][part.name.replace("/", "|")] == "kl":
                X = _fit.log_normalised(X)
            X = X * np.float32(_scale_of(factored, part))
            matrices.append(_mudata.spread(sp.csr_matrix(X), part.rows, len(factored.W)))
    if not matrices:  # nothing in common: clusters are as likely as they are large
        return np.zeros((len(rows), 1)), np.zeros((len(own), 1))
    X = sp.hstack(matrices, format="csr", dtype=np.float32)
    axes = _annotation.principal_axes(X[rows], rng)
    return X[rows] @ axes, X[own] @ axes


def _with_neighbours(
    posterior: np.ndarray,
    log_density: np.ndarray,
    codes: np.ndarray,
    size: np.ndarray,
    A: sp.csr_matrix,
    open_: np.ndarray,
) -> np.ndarray:
    """Incomplete observations again, with the types around them as the prior in place of those of the tissue."""
    member = np.eye(codes.max() + 1)[codes]  # clusters × types
    overall = (size / size.sum()) @ member
    A = sp.csr_matrix(A)[open_]
    degree = np.asarray(A.sum(1)).ravel()[:, None]
    posterior = posterior.copy()
    for _ in range(N_ROUNDS):
        around = (A @ (posterior @ member) + OWN * overall) / (degree + OWN)
        prior = np.log(np.maximum(around / overall, 1e-12)) @ member.T
        posterior[open_] = _annotation.softmax(log_density[open_] + prior)
    return posterior
