"""Tools: factors, domains, and what to do with them."""

from ._hsnmf import hsnmf
from ._match_labels import match_labels
from ._niches import niches
from ._nmf import nmf
from ._project import project
from ._snmf import snmf
from ._sweep import sweep
from ._top_features import top_features

__all__ = ["hsnmf", "match_labels", "niches", "nmf", "project", "snmf", "sweep", "top_features"]
