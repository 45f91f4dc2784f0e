"""Generators of tissues with planted truth. Nothing is downloaded."""

from __future__ import annotations

from ._factors import planted_factors
from ._rna_protein import rna_protein_tissue
from ._tissue import xenium_tissue
from ._visium import visium_section

__all__ = ["planted_factors", "rna_protein_tissue", "visium_section", "xenium_tissue"]
