"""What a deconvolution is given, what the user may choose, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

Array = np.ndarray
Progress = Callable[[int, float], None]
ROWS = 1 << 16  # dealt with at a time
LIKELIHOODS = ("auto", "poisson", "gaussian")


@dataclass(frozen=True)
class Reference:
    """Mean counts of a cell of every type (k × p) and how many cells each mean comes from (``None``: not known)."""

    B: Array
    n_cells: Array | None = None


@dataclass(frozen=True)
class Options:
    """What the user may choose."""

    likelihood: str = "auto"
    n_genes: int | None = 3000
    graph_weight: float = 10.0
    region_weight: float = 0.0
    reference_weight: float = 2.0
    platform: bool | str = "auto"
    max_iter: int = 300
    tol: float = 1e-4
    level: float | None = None  # of intervals
    device: str | None = None  # of torch, for the passes over all spots


DEFAULTS = Options()


@dataclass(frozen=True)
class Fit:
    """The result: rows of ``cells`` and ``mrna`` sum to one, or are NaN where a spot has no counts."""

    cells: Array  # n × k, float32: shares of the cells
    mrna: Array  # n × k, float32: shares of the mRNA
    trace: Array  # F of all spots, pass by pass
    mending: Array  # F of the learning spots while the profiles were mended
    converged: bool
    likelihood: str
    dispersion: float
    platform: Array | None  # factors of the genes in use
    profiles: Array  # k × genes in use: shares of the counts, as the section has mended them
    sizes: Array  # mRNA content of the types, as used
    depth: Array  # counts of the spots on the genes in use
    spot_deviance: Array  # a count
    gene_deviance: Array  # of the genes in use
    genes: Array = field(default_factory=lambda: np.zeros(0, np.int64))  # which those are, of the reference's
    lower: Array | None = None  # n × k, float32: bounds of ``cells``
    upper: Array | None = None
    calibrated: bool = False  # whether the bounds were calibrated on spots made of cells
    n_iter: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_iter", len(self.trace) + len(self.mending))

    def on(self, genes: Array, places: Array) -> Fit:
        """The same, with what is told of genes cut down to those in use, which lie at ``places``."""
        return replace(
            self,
            genes=genes,
            platform=None if self.platform is None else self.platform[places],
            profiles=self.profiles[:, places],
            gene_deviance=self.gene_deviance[places],
        )


def scaled_shares(V: Array, factors: Array, valid: Array) -> Array:
    """Rows of V times ``factors`` and divided by their sums, float32; NaN where not ``valid``."""
    out = np.empty(V.shape, np.float32)
    for start in range(0, len(V), ROWS):
        rows = slice(start, start + ROWS)
        part = np.where(valid[rows, None], V[rows] * factors, np.nan)
        out[rows] = part / part.sum(1, keepdims=True)
    return out
