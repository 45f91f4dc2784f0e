"""Metrics of labels and factors, on a table and its keys or on plain arrays."""

from __future__ import annotations

from ._chaos import chaos
from ._edge_agreement import EdgeAgreement, edge_agreement
from ._morans_i import morans_i
from ._reconstruction import explained_variance, reconstruction_error
from ._separation import davies_bouldin, silhouette

__all__ = [
    "EdgeAgreement",
    "chaos",
    "davies_bouldin",
    "edge_agreement",
    "explained_variance",
    "morans_i",
    "reconstruction_error",
    "silhouette",
]
