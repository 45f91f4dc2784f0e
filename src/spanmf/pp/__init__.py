"""Preprocessing of modalities, and their alignment in space."""

from ._intensities import arcsinh, clr

__all__ = ["arcsinh", "clr"]
