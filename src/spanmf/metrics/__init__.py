"""Metrics of labels and factors, on a table and its keys or on plain arrays."""

from __future__ import annotations

from ._asw import asw
from ._chaos import chaos
from ._edge_agreement import EdgeAgreement, edge_agreement
from ._label_agreement import LabelAgreement, label_agreement
from ._morans_i import morans_i
from ._panel import panel
from ._pareto import hypervolume, pareto_front
from ._pas import pas
from ._reconstruction import explained_variance, reconstruction_error
from ._separation import davies_bouldin, silhouette

__all__ = [
    "EdgeAgreement",
    "LabelAgreement",
    "asw",
    "chaos",
    "davies_bouldin",
    "edge_agreement",
    "explained_variance",
    "hypervolume",
    "label_agreement",
    "morans_i",
    "panel",
    "pareto_front",
    "pas",
    "reconstruction_error",
    "silhouette",
]
