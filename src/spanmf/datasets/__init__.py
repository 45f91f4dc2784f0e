"""Generators of tissues with planted truth. Nothing is downloaded."""

from __future__ import annotations

from ._cell_markers import cell_markers
from ._factors import planted_factors
from ._rna_protein import rna_protein_tissue
from ._stl_triplets import stl_nmf_triplets
from ._tissue import xenium_tissue
from ._visium import visium_section

__all__ = [
    "cell_markers",
    "planted_factors",
    "rna_protein_tissue",
    "stl_nmf_triplets",
    "visium_section",
    "xenium_tissue",
]
