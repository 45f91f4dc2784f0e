"""The metrics of a panel, in its order. A new metric is a new row here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import davies_bouldin_score

from .. import _checks
from ..core import _error, _spatial
from ._asw import SAMPLE_SIZE, asw_of
from ._chaos import mean_distance, over_floor
from ._edge_agreement import edge_agreement
from ._inputs import fitted_layer
from ._label_agreement import label_agreement
from ._marker_rows import MARKER_ROWS
from ._pas import pas_of
from ._reconstruction import explained_share
from ._scorer import Candidate, Row, Scorer
from ._separation import sampled_silhouette
from ._smoothing import smoothed_null

if TYPE_CHECKING:
    from collections.abc import Sequence

NULL_PERMUTATIONS = 5  # of smoothed factors: their mean hardly varies at the size of a tissue


def _n_clusters(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    return [candidate.n_clusters]


def _chaos(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    places = scorer.places(candidate.known)
    distance = _spatial.nearest_in_group(places.scaled, places.groups(candidate.compact))
    value = mean_distance(distance)
    return [value, value if np.isnan(value) else over_floor(places, distance)]


def _pas(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    return [pas_of(scorer.places(candidate.known), candidate.compact)]


def _asw(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    return [asw_of(scorer.places(candidate.known), candidate.compact, SAMPLE_SIZE, scorer.rng())]


def _edge_agreement(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    result = edge_agreement(scorer.graph, np.where(candidate.known, candidate.codes, np.nan))
    return [result.observed, result.expected, result.z]


def _silhouette(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    return [sampled_silhouette(candidate.factors.Z[candidate.known], candidate.compact, SAMPLE_SIZE, scorer.rng())]


def _davies_bouldin(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    Z = candidate.factors.Z[candidate.known]
    if not np.ptp(Z, axis=0).any():
        msg = "Davies–Bouldin is NaN: all rows of the representation are equal."
        raise _checks.UndefinedError(msg)
    return [davies_bouldin_score(Z, candidate.compact)]


def _morans_i(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    """Mean over the factors, and what the same rows have at random positions (smoothed again if they were)."""
    A, W = scorer.graph, candidate.factors.W.astype(np.float64)
    observed, expected, _ = _spatial.morans_i(A, W, "normality")
    how = candidate.factors.smoothing
    if how is None:
        return [_mean(observed, "Moran's I"), expected]
    smoother = A if how.is_over(scorer.graph_key) else scorer.another_graph(how.connectivity_key)
    if how.beta is None or smoother is None:
        return [_mean(observed, "Moran's I"), np.nan]
    null = smoothed_null(
        A, smoother, W, beta=how.beta, n_steps=how.n_steps, n_permutations=NULL_PERMUTATIONS, rng=scorer.rng()
    )
    return [_mean(observed, "Moran's I"), _mean(null.mean(0), "Moran's I")]


def _gearys_c(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    return [_mean(_spatial.gearys_c(scorer.graph, candidate.factors.W.astype(np.float64), "normality")[0], "Geary's C")]


def _mean(values: np.ndarray, name: str) -> float:
    """Mean over the factors that are not constant."""
    there = values[~np.isnan(values)]
    if not len(there):
        msg = f"{name} is NaN: the factors are constant, or the graph has no edges."
        raise _checks.UndefinedError(msg)
    return float(there.mean())


def _circular(scorer: Scorer, candidate: Candidate) -> str:
    how = candidate.factors.smoothing
    if how is None:
        return ""
    if how.is_over(scorer.graph_key):
        return f"Smoothed over the graph {scorer.graph_key!r} that scores: high by construction, see morans_i_null."
    return f"Smoothed over {how.connectivity_key!r}: high by construction."


def _labels_by_graph(scorer: Scorer, candidate: Candidate) -> str:
    how = None if candidate.factors is None else candidate.factors.smoothing
    if how is not None and how.is_over(scorer.graph_key):
        return f"The labels come of factors that were smoothed over the graph {scorer.graph_key!r} that scores."
    return ""


def _reconstruction(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    factors = candidate.factors
    X = scorer.matrix(fitted_layer(factors.made, scorer.layer))
    if not factors.H.any():
        msg = "All loadings are zero."
        raise _checks.UndefinedError(msg)
    sums = _error.residual(X, factors.W, factors.H)
    return [sums.error / sums.n_entries, explained_share(sums)]


def _label_agreement(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    known = candidate.known & (scorer.reference >= 0)
    if not known.any():
        msg = "No observation has both a label and a reference label."
        raise _checks.UndefinedError(msg)
    result = label_agreement(candidate.codes[known], scorer.reference[known])
    return [result.ari, result.nmi, result.homogeneity, result.completeness]


_CLUSTERS, _FACTORS = frozenset({"clusters"}), frozenset({"factors"})

SPATIAL_AND_LABEL_ROWS = (
    Row({"n_clusters": ""}, frozenset({"labels"}), _n_clusters),
    Row({"chaos": "lower", "chaos_normalized": "lower"}, _CLUSTERS, _chaos),
    Row({"pas": "lower"}, _CLUSTERS, _pas),
    Row({"asw": "higher"}, _CLUSTERS, _asw),
    Row(
        {"edge_agreement": "higher", "edge_agreement_expected": "", "edge_agreement_z": "higher"},
        _CLUSTERS,
        _edge_agreement,
        _labels_by_graph,
    ),
    Row({"silhouette": "higher"}, _CLUSTERS | _FACTORS, _silhouette),
    Row({"davies_bouldin": "lower"}, _CLUSTERS | _FACTORS, _davies_bouldin),
    Row({"morans_i": "higher", "morans_i_null": ""}, _FACTORS, _morans_i, _circular),
    Row({"gearys_c": "lower"}, _FACTORS, _gearys_c, _circular),
    Row(
        {"reconstruction_error": "lower", "explained_variance": "higher"},
        frozenset({"factors", "loadings"}),
        _reconstruction,
    ),
    Row(
        {"ari": "higher", "nmi": "higher", "homogeneity": "higher", "completeness": "higher"},
        frozenset({"labels", "reference"}),
        _label_agreement,
    ),
)

ROWS: tuple[Row, ...] = (*SPATIAL_AND_LABEL_ROWS, *MARKER_ROWS)
