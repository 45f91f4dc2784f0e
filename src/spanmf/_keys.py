"""Names of slots: the only place where they are spelled.

``key_added`` is a base name; everything a function writes is derived from it here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GraphKeys:
    """Slots of a graph with base name ``key`` (the shape scanpy and squidpy read)."""

    key: str

    @property
    def connectivities(self) -> str:
        """``obsp`` key of the edge weights."""
        return f"{self.key}_connectivities"

    @property
    def distances(self) -> str:
        """``obsp`` key of the edge lengths."""
        return f"{self.key}_distances"

    @property
    def neighbors(self) -> str:
        """``uns`` key that scanpy calls ``neighbors_key``."""
        return f"{self.key}_neighbors"


@dataclass(frozen=True)
class FactorKeys:
    """Slots of a factorisation with base name ``key``."""

    key: str

    @property
    def factors(self) -> str:
        """``obsm`` key of W (observations × components)."""
        return f"X_{self.key}"

    @property
    def loadings(self) -> str:
        """``varm`` key of Hᵀ (features × components)."""
        return f"{self.key}_loadings"

    @property
    def labels(self) -> str:
        """``obs`` key of the categorical labels."""
        return self.key

    @property
    def provenance(self) -> str:
        """``uns`` key of parameters, objective trace and versions."""
        return self.key


@dataclass(frozen=True)
class NicheKeys:
    """Slots of the composition of each observation's surroundings with base name ``key``."""

    key: str

    @property
    def shares(self) -> str:
        """``obsm`` key of the shares (observations × labels)."""
        return self.key

    @property
    def dominant(self) -> str:
        """``obs`` key of the commonest label around."""
        return self.key

    @property
    def n_neighbors(self) -> str:
        """``obs`` key of the number of labelled neighbours."""
        return f"{self.key}_n_neighbors"

    @property
    def provenance(self) -> str:
        """``uns`` key of parameters, the labels as they were, and versions."""
        return self.key


ISOLATED = "isolated"  # label of observations without neighbours


@dataclass(frozen=True)
class ProportionKeys:
    """Slots of a deconvolution with base name ``key``."""

    key: str

    @property
    def cells(self) -> str:
        """``obsm`` key of the shares of cells."""
        return self.key

    @property
    def mrna(self) -> str:
        """``obsm`` key of the shares of mRNA."""
        return f"{self.key}_mrna"

    @property
    def lower(self) -> str:
        """``obsm`` key of the lower bounds of the shares of cells."""
        return f"{self.key}_lower"

    @property
    def upper(self) -> str:
        """``obsm`` key of their upper bounds."""
        return f"{self.key}_upper"

    @property
    def profiles(self) -> str:
        """``varm`` key of the profiles as the section has mended them."""
        return f"{self.key}_profiles"

    @property
    def deviance(self) -> str:
        """``obs`` and ``var`` key of how badly a spot or a gene is fitted."""
        return f"{self.key}_deviance"


CONNECTIVITIES_SUFFIX = "_connectivities"
SPATIAL = "spatial"  # obsm key of coordinates, and squidpy's base name of a graph
ARRAY = ("array_row", "array_col")  # Space Ranger's columns of obs: where on the array a spot lies
CONTACT = "contact"
HYBRID = "hybrid"
HIGHLY_VARIABLE = "highly_variable"
UM_PER_UNIT = "um_per_unit"  # uns key of a number: µm in one unit of the coordinates
SPATIAL_UNITS = "spatial_units"  # uns key of the name of that unit
LEFT_OUT = "left_out"  # uns key: features of a file that are not genes, counted


def hybrid_of(key_added: str) -> str:
    """Base name of the hybrid graph that belongs to domains."""
    return HYBRID if key_added == "hsnmf" else f"{key_added}_{HYBRID}"


def sweep_labels(key_added: str) -> str:
    """``obsm`` key of the labels of all runs of a sweep."""
    return f"{key_added}_labels"
