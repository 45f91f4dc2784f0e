"""Metrics of labels and factors, on a table and its keys or on plain arrays."""

from __future__ import annotations

from ._asw import asw
from ._chaos import chaos
from ._edge_agreement import EdgeAgreement, edge_agreement
from ._enrichment import Enrichment, enrichment
from ._gearys_c import gearys_c
from ._label_agreement import LabelAgreement, label_agreement
from ._marker_correlation import marker_correlation
from ._markers import (
    MarkerCoherence,
    MarkerExclusion,
    marker_coherence,
    marker_exclusion_rate,
    marker_specificity,
    marker_table,
)
from ._morans_i import morans_i
from ._panel import panel
from ._pareto import hypervolume, pareto_front
from ._pas import pas
from ._per_library import per_library
from ._reconstruction import explained_variance, reconstruction_error
from ._separation import davies_bouldin, silhouette

__all__ = [
    "EdgeAgreement",
    "Enrichment",
    "LabelAgreement",
    "MarkerCoherence",
    "MarkerExclusion",
    "asw",
    "chaos",
    "davies_bouldin",
    "edge_agreement",
    "enrichment",
    "explained_variance",
    "gearys_c",
    "hypervolume",
    "label_agreement",
    "marker_coherence",
    "marker_correlation",
    "marker_exclusion_rate",
    "marker_specificity",
    "marker_table",
    "morans_i",
    "panel",
    "pareto_front",
    "pas",
    "per_library",
    "reconstruction_error",
    "silhouette",
]
