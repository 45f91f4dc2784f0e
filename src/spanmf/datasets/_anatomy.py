"""The tissue that is planted: domains drawn by smooth fields, and the mixture of cell types in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ._shapes import Outline, RandomField, curve, spread


@dataclass(frozen=True)
class Domain:
    """A domain covers the part of the plane where its field is between two quantiles."""

    name: str
    field: str = ""
    low: float = 0.0
    high: float = 1.0
    density: float = 1.0  # cells per area, relative
    paint: int = 0  # later domains cover earlier ones


# By importance: the first n_domains of them are used.
DOMAINS = (
    Domain("stroma", density=0.8),
    Domain("tumour", "nests", 0.76, 1.0, 1.2, paint=4),
    Domain("mucosa", "depth", 0.8, 1.0, 1.1, paint=2),
    Domain("muscle", "depth", 0.0, 0.17, 0.8, paint=1),
    Domain("follicle", "follicles", 0.925, 1.0, 1.5, paint=8),
    Domain("vessel", "vessels", 0.935, 1.0, 1.0, paint=7),
    Domain("T zone", "follicles", 0.83, 0.925, 1.3, paint=6),
    Domain("margin", "nests", 0.63, 0.76, 1.0, paint=3),
    Domain("adipose", "patches", 0.88, 1.0, 0.35, paint=2),
    Domain("necrosis", "nests", 0.95, 1.0, 0.6, paint=5),
)
LUMEN = ("vessels", 0.993)  # no cells beyond this quantile of this field

# By importance: the first n_types of them are used.
CELL_TYPES = (
    "epithelial",
    "tumour",
    "fibroblast",
    "CD4 T",
    "B",
    "macrophage",
    "endothelial",
    "smooth muscle",
    "CD8 T",
    "plasma",
    "CAF",
    "dendritic",
    "pericyte",
    "mast",
    "adipocyte",
    "NK",
)

# Cells of a type per 100 cells of a domain; what is not named shares in RARE.
MIXTURES = {
    "stroma": {"fibroblast": 60, "macrophage": 9, "CD4 T": 7, "endothelial": 8, "plasma": 5, "CD8 T": 4, "mast": 3},
    "tumour": {"tumour": 70, "CAF": 8, "macrophage": 8, "CD8 T": 4, "endothelial": 3, "CD4 T": 3, "NK": 2},
    "mucosa": {"epithelial": 64, "plasma": 10, "fibroblast": 8, "CD8 T": 5, "CD4 T": 5, "macrophage": 4},
    "muscle": {"smooth muscle": 70, "fibroblast": 13, "endothelial": 6, "pericyte": 4, "macrophage": 3},
    "follicle": {"B": 70, "CD4 T": 13, "dendritic": 6, "macrophage": 5, "plasma": 3},
    "vessel": {"endothelial": 50, "smooth muscle": 18, "pericyte": 14, "fibroblast": 10, "macrophage": 4},
    "T zone": {"CD4 T": 48, "CD8 T": 20, "dendritic": 12, "B": 8, "fibroblast": 6, "macrophage": 4},
    "margin": {"CAF": 44, "macrophage": 20, "tumour": 12, "CD8 T": 10, "fibroblast": 6, "NK": 4},
    "adipose": {"adipocyte": 65, "macrophage": 12, "fibroblast": 10, "endothelial": 8},
    "necrosis": {"tumour": 35, "macrophage": 50, "CD8 T": 5},
}
RARE = 0.5


def mixtures(n_domains: int, n_types: int) -> np.ndarray:
    """Shares of the types in the domains (domains × types, rows of sum 1)."""
    rows = [[MIXTURES[d.name].get(t, 0) + RARE for t in CELL_TYPES[:n_types]] for d in DOMAINS[:n_domains]]
    return np.array(rows) / np.sum(rows, axis=1, keepdims=True)


class Anatomy:
    """Domains as a function of place, for one piece of tissue with its own outline (unit radius).

    The larger the ``size``, the more islands, follicles and vessels there are (about 3 size² follicles).
    """

    def __init__(self, rng: np.random.Generator, n_domains: int, size: float) -> None:
        size = max(0.5, size)
        self.outline = Outline.draw(rng)
        self.domains = DOMAINS[:n_domains]
        self._undulation = RandomField.draw(rng, 1.8)
        self._nests = RandomField.draw(rng, 0.65 / size)
        self._patches = RandomField.draw(rng, 1.0 / size)
        self._wobble = RandomField.draw(rng, 0.5 / size)
        points = rng.uniform(-self.outline.reach, self.outline.reach, (40_000, 2))
        points = self.outline.straighten(points)
        inside = points[self.outline.level(points) < 1]
        self.area = len(inside) / len(points) * (2 * self.outline.reach) ** 2
        depth = self._depth(inside)
        middle = inside[(np.abs(depth) < 0.45) & (self.outline.level(inside) < 0.8)]
        self._follicles = cKDTree(spread(rng, middle[:2000], max(1, round(3 * size**2))))
        starts = spread(rng, inside[:2000], max(1, round(1.5 * size)))
        headings = rng.uniform(0, 2 * np.pi, len(starts))
        vessels = [curve(rng, s, h, side * 1.5, 300) for s, h in zip(starts, headings, strict=True) for side in (1, -1)]
        self._vessels = cKDTree(np.concatenate(vessels))
        fields = self._fields(inside)
        self._limits = {
            d.name: (
                np.quantile(fields[d.field], d.low) if d.low > 0 else -np.inf,
                np.quantile(fields[d.field], d.high) if d.high < 1 else np.inf,
            )
            for d in self.domains
            if d.field
        }
        has_vessels = any(d.field == LUMEN[0] for d in self.domains)
        self._lumen = np.quantile(fields[LUMEN[0]], LUMEN[1]) if has_vessels else np.inf
        self.mean_density = float(self.at(inside)[1].mean())

    def _depth(self, points: np.ndarray) -> np.ndarray:
        return -points[:, 1] * self.outline.stretch + 0.13 * self._undulation(points)

    def _fields(self, points: np.ndarray) -> dict[str, np.ndarray]:
        depth, wobble = self._depth(points), self._wobble(points)
        to_follicle, to_vessel = self._follicles.query(points)[0], self._vessels.query(points)[0]
        return {
            "depth": depth,
            "nests": self._nests(points) + 0.25 * wobble - 2.0 * np.maximum(np.abs(depth) - 0.4, 0),
            "patches": self._patches(points) - depth,
            "follicles": -to_follicle * (1 + 0.2 * wobble),
            "vessels": -to_vessel,
        }

    def _paint(self, fields: dict[str, np.ndarray]) -> np.ndarray:
        codes = np.zeros(len(fields["depth"]), dtype=np.int8)  # the first domain is everywhere at first
        for code in sorted(range(1, len(self.domains)), key=lambda i: self.domains[i].paint):
            domain = self.domains[code]
            low, high = self._limits[domain.name]
            codes[(fields[domain.field] >= low) & (fields[domain.field] < high)] = code
        return codes

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Domain and relative density of cells (0 in the lumen of a vessel) at each point (straightened coordinates)."""
        fields = self._fields(points)
        codes = self._paint(fields)
        density = np.array([d.density for d in self.domains])[codes]
        density[fields[LUMEN[0]] > self._lumen] = 0
        return codes, density
