"""Graphs of observations, what they look like, and who lies next to whom."""

from ._colocalization import colocalization, colocalization_by_distance
from ._contact import contact_neighbors
from ._hybrid import hybrid_neighbors
from ._niche_composition import niche_composition
from ._summary import graph_summary

__all__ = [
    "colocalization",
    "colocalization_by_distance",
    "contact_neighbors",
    "graph_summary",
    "hybrid_neighbors",
    "niche_composition",
]
