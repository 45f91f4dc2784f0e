"""Preprocessing of modalities, and their alignment in space."""

from ._align import align_modalities
from ._intensities import arcsinh, clr

__all__ = ["align_modalities", "arcsinh", "clr"]
