"""Graphs of observations, and what they look like."""

from ._contact import contact_neighbors
from ._hybrid import hybrid_neighbors
from ._summary import graph_summary

__all__ = ["contact_neighbors", "graph_summary", "hybrid_neighbors"]
