"""Tools: factors, domains, and what to do with them."""

from .._stl_weights import StlWeights
from ._annotate_factors import annotate_factors
from ._assign_clusters import assign_clusters
from ._assign_types import assign_types
from ._composition import Composition, composition
from ._consensus_nmf import consensus_nmf
from ._fast_nmf import fast_nmf
from ._hsnmf import hsnmf
from ._joint_nmf import joint_nmf
from ._learn_stl_nmf import learn_stl_nmf
from ._match_labels import match_labels
from ._niches import niches
from ._nmf import nmf
from ._project import project
from ._reference_profiles import reference_profiles
from ._select_n_components import select_n_components
from ._select_n_domains import select_n_domains
from ._select_stl_weights import select_stl_weights
from ._snmf import snmf
from ._stl_nmf import stl_nmf
from ._sweep import sweep
from ._top_features import top_features

__all__ = [
    "Composition",
    "StlWeights",
    "annotate_factors",
    "assign_clusters",
    "assign_types",
    "composition",
    "consensus_nmf",
    "fast_nmf",
    "hsnmf",
    "joint_nmf",
    "learn_stl_nmf",
    "match_labels",
    "niches",
    "nmf",
    "project",
    "reference_profiles",
    "select_n_components",
    "select_n_domains",
    "select_stl_weights",
    "snmf",
    "stl_nmf",
    "sweep",
    "top_features",
]
