"""Place and region: what the surroundings of a spot say of its shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from ._smooth import Graph, as_graph, graph_product
from ._stl_model import Options

Array = np.ndarray


def weaken_borders(A: sp.csr_matrix, regions: Array, factor: float) -> sp.csr_matrix:
    """A copy of a graph, its edges between different known regions times ``factor``."""
    A = A.copy()
    rows = np.repeat(regions, np.diff(A.indptr))
    columns = regions[A.indices]
    A.data[(rows != columns) & (rows >= 0) & (columns >= 0)] *= np.float32(factor)
    return A


@dataclass(frozen=True)
class Smoother:
    """What the surroundings say of a spot: mean shares of its neighbours and of its region, and their pseudo-counts."""

    graph: Graph | None
    regions: Array | None
    graph_weight: float
    region_weight: float

    @classmethod
    def of(cls, graph: Any, regions: Array | None, k: int, options: Options) -> Smoother:
        """Leave out what has no weight."""
        return cls(
            as_graph(graph) if graph is not None and options.graph_weight > 0 else None,
            regions if options.region_weight > 0 else None,
            options.graph_weight,
            options.region_weight,
        )

    def take(self, rows: Array) -> Smoother:
        """For some spots only: place is lost, so their regions (or all spots) stand in for it."""
        regions = np.zeros(len(rows), np.int64) if self.regions is None else self.regions[rows]
        total = self.graph_weight * (self.graph is not None) + self.region_weight * (self.regions is not None)
        return Smoother(None, regions, 0.0, total)

    def mean(self, V: Array, valid: Array) -> tuple[Array, Array]:
        """Prior means (n × width, rows sum to one or are zero) and pseudo-counts (n) from shares V."""
        parts: list[tuple[Array, Array]] = []
        if self.graph is not None:
            mean = graph_product(self.graph, V if valid.all() else V * valid[:, None])
            parts.append(_pseudo_counts(mean, self.graph_weight))
        if self.regions is not None and self.region_weight > 0:
            known = (self.regions >= 0) & valid
            sums = np.zeros((int(self.regions.max(initial=0)) + 1, V.shape[1]), np.float32)
            np.add.at(sums, self.regions[known], V[known])
            mean = sums[np.maximum(self.regions, 0)]
            mean[self.regions < 0] = 0
            parts.append(_pseudo_counts(mean, self.region_weight))
        if not parts:
            return np.zeros_like(V), np.zeros(len(V), np.float32)
        out, weight = parts[0]
        for more, its_weight in parts[1:]:
            out += more
            weight = weight + its_weight
        out /= np.where(weight > 0, weight, 1)[:, None]
        return out, weight


def _pseudo_counts(sums: Array, pseudo: float) -> tuple[Array, Array]:
    """Rows of ``sums``, scaled in place to add up to ``pseudo`` (empty ones stay so), and what they add up to."""
    total = sums.sum(1)
    weight = np.where(total > 0, np.float32(pseudo), np.float32(0))
    sums *= (weight / np.where(total > 0, total, 1))[:, None]
    return sums, weight
