"""The rows of a panel that tell of genes: markers of the clusters, and known gene sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _checks
from . import _enrichment, _marker_scores
from ._scorer import Candidate, Row, Scorer

if TYPE_CHECKING:
    from collections.abc import Sequence

RULES = _marker_scores.Rules()
N_GENES = 50  # of a cluster, for the enrichment


def _expression(scorer: Scorer, candidate: Candidate) -> _marker_scores.Expression:
    """Values with the ranks of their genes, the same for all candidates that are of one matrix."""
    recorded = None if candidate.factors is None else candidate.factors.made.get("layer")
    X = scorer.matrix(recorded if scorer.layer is None else None)
    _marker_scores.warn_if_counts(X, "The matrix")
    return scorer.cache.setdefault(("expression", id(X)), _marker_scores.Expression(X, scorer.adata.var_names))


def _labels(candidate: Candidate) -> tuple[np.ndarray, list[str]]:
    """Codes without gaps (−1: no label), and the names of the clusters that have an observation."""
    codes = np.full(len(candidate.codes), -1)
    codes[candidate.known] = candidate.compact
    there = np.unique(candidate.codes[candidate.known])
    return codes, [str(candidate.names[i]) if len(candidate.names) else str(i) for i in there]


def _marker_metrics(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    values, (codes, names) = _expression(scorer, candidate), _labels(candidate)
    markers = None if scorer.markers is None else _marker_scores.given_markers(scorer.markers, names, values.names)
    table = _marker_scores.evaluate(values, codes, names, markers, RULES, scorer.rng())
    without = _marker_scores.left_out(table)
    if (table["note"] != "").all():
        msg = f"{without}."
        raise _checks.UndefinedError(msg)
    if without:
        _checks.warn(f"{without}.")
    mean, weighted = _marker_scores.coherence(table)
    rate, n_negative = _marker_scores.exclusion(table)
    return [mean, weighted, rate, n_negative, _marker_scores.specificity(table)]


def _gene_sets(scorer: Scorer, candidate: Candidate) -> Sequence[float]:
    values, rules = _expression(scorer, candidate), _marker_scores.Rules(N_GENES, RULES.min_cells)
    return [_enrichment.evaluate(values, *_labels(candidate), scorer.gene_sets, rules).score]


MARKER_ROWS = (
    Row(
        {
            "marker_coherence": "higher",
            "marker_coherence_weighted": "higher",
            "marker_exclusion_rate": "lower",
            "n_marker_negative": "",
            "marker_specificity": "higher",
        },
        frozenset({"clusters"}),
        _marker_metrics,
    ),
    Row({"enrichment": "higher"}, frozenset({"clusters", "gene_sets"}), _gene_sets),
)
