"""Plots. Every function returns the Axes where it drew one panel, else the Figure; nothing is shown or saved unasked.

``.figure.savefig(path)`` works on both. In a notebook end the line with ``;`` where a Figure is returned, or it is
displayed twice.
"""

from __future__ import annotations

from ._alignment import alignment
from ._colocalization import colocalization, colocalization_by_distance
from ._composition import composition
from ._convergence import convergence
from ._domain_selection import domain_selection
from ._domains import domains
from ._factors import factors
from ._fit_quality import fit_quality
from ._graph import graph
from ._learned_weights import learned_weights
from ._loadings import loadings
from ._metric_panel import metric_panel
from ._modality_loadings import modality_loadings
from ._niches import niches
from ._pareto import pareto
from ._proportions import dominant_type, proportions
from ._rank_selection import rank_selection

__all__ = [
    "alignment",
    "colocalization",
    "colocalization_by_distance",
    "composition",
    "convergence",
    "domain_selection",
    "domains",
    "dominant_type",
    "factors",
    "fit_quality",
    "graph",
    "learned_weights",
    "loadings",
    "metric_panel",
    "modality_loadings",
    "niches",
    "pareto",
    "proportions",
    "rank_selection",
]
