"""Geometry of generated tissues: outlines, smooth random fields, curves, point patterns. Arrays only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class RandomField:
    """A smooth random function of the plane with mean 0 and variance 1: a sum of plane waves."""

    waves: np.ndarray  # 2 × m
    phases: np.ndarray  # m

    @classmethod
    def draw(cls, rng: np.random.Generator, wavelength: float, n_waves: int = 16) -> RandomField:
        """Waves of random direction, with lengths spread around ``wavelength``."""
        angle = rng.uniform(0, 2 * np.pi, n_waves)
        number = 2 * np.pi / (wavelength * rng.uniform(0.75, 1.5, n_waves))
        waves = number * np.stack([np.cos(angle), np.sin(angle)])
        return cls(waves.astype(np.float32), rng.uniform(0, 2 * np.pi, n_waves).astype(np.float32))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values at ``points`` (n × 2)."""
        points = points.astype(np.float32)
        total = np.zeros(len(points), dtype=np.float32)
        for (kx, ky), phase in zip(self.waves.T, self.phases, strict=True):  # no points × waves array
            total += np.cos(kx * points[:, 0] + ky * points[:, 1] + phase)
        return total * np.float32(np.sqrt(2 / len(self.phases)))


@dataclass(frozen=True)
class Outline:
    """A piece of tissue of about unit radius: a wavy ellipse, bent and turned."""

    stretch: float  # half axes are stretch and 1 / stretch
    bend: float
    angle: float
    amplitudes: np.ndarray
    phases: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Outline:
        """A random piece, from a round core to a bent strip."""
        return cls(
            stretch=rng.uniform(1.0, 1.5),
            bend=rng.uniform(-0.25, 0.25),
            angle=rng.uniform(-0.6, 0.6),
            amplitudes=rng.uniform(0.3, 1.0, 5) * [0.07, 0.06, 0.04, 0.03, 0.02],
            phases=rng.uniform(0, 2 * np.pi, 5),
        )

    @property
    def reach(self) -> float:
        """Half the side of a square around the origin that holds the piece with some margin."""
        return 1.4 * self.stretch + abs(self.bend) * (1.4 * self.stretch) ** 2

    def straighten(self, points: np.ndarray) -> np.ndarray:
        """Turn and unbend: the coordinates in which the anatomy is drawn, layers lying along x (areas are kept)."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        x = cos * points[:, 0] + sin * points[:, 1]
        y = cos * points[:, 1] - sin * points[:, 0]
        return np.stack([x, y - self.bend * (x**2 - self.stretch**2 / 4)], axis=1)

    def level(self, straight: np.ndarray) -> np.ndarray:
        """0 in the middle, 1 on the border, more outside."""
        x, y = straight[:, 0] / self.stretch, straight[:, 1] * self.stretch
        theta = np.arctan2(y, x)
        border = np.ones(len(x))
        for m, (amplitude, phase) in enumerate(zip(self.amplitudes, self.phases, strict=True), start=2):
            border += amplitude * np.cos(m * theta + phase)
        return np.hypot(x, y) / border


def curve(rng: np.random.Generator, start: np.ndarray, heading: float, length: float, n_points: int) -> np.ndarray:
    """Points along a smooth winding curve."""
    s = np.linspace(0, 1, n_points)
    turns = rng.normal(0, 1, 3)[:, None] * np.sin(np.pi * np.arange(1, 4)[:, None] * s + rng.uniform(0, 6, 3)[:, None])
    direction = heading + 0.5 * turns.sum(0)
    steps = np.stack([np.cos(direction), np.sin(direction)], axis=1) * (length / n_points)
    return start + np.cumsum(steps, axis=0)


def spread(rng: np.random.Generator, candidates: np.ndarray, n: int) -> np.ndarray:
    """``n`` of the candidate points, each next one as far as possible from those already taken."""
    taken = [int(rng.integers(len(candidates)))]
    nearest = np.full(len(candidates), np.inf)
    while len(taken) < min(n, len(candidates)):
        nearest = np.minimum(nearest, np.linalg.norm(candidates - candidates[taken[-1]], axis=1))
        taken.append(int(np.argmax(nearest * rng.uniform(0.6, 1, len(nearest)))))
    return candidates[taken]


def hard_core(rng: np.random.Generator, points: np.ndarray, spacing: float) -> np.ndarray:
    """Mask that leaves no two points closer than ``spacing`` (Matérn's second process).

    Every point has a random mark and stays when no point within ``spacing`` has a lower one.
    """
    pairs = cKDTree(points, balanced_tree=False).query_pairs(spacing, output_type="ndarray")
    mark = rng.permutation(len(points))
    keep = np.ones(len(points), dtype=bool)
    keep[np.where(mark[pairs[:, 0]] > mark[pairs[:, 1]], pairs[:, 0], pairs[:, 1])] = False
    return keep


def hard_core_proposals(density: np.ndarray, spacing: float) -> np.ndarray:
    """Density of points to propose so that ``density`` of them is left by :func:`hard_core`."""
    disc = np.pi * spacing**2
    return -np.log1p(-density * disc) / disc


def hexagonal_lattice(half_width: float, pitch: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of a hexagonal lattice in a square around the origin, and their (row, column) in 10x's numbering.

    Rows are ``pitch`` · √3/2 apart, columns ``pitch`` / 2; row + column is even.
    """
    n_rows, n_columns = int(half_width / (pitch * np.sqrt(0.75))), int(2 * half_width / pitch)
    row, column = np.mgrid[-n_rows : n_rows + 1, -n_columns : n_columns + 1]
    index = np.stack([row.ravel(), column.ravel()], axis=1)
    index = index[index.sum(axis=1) % 2 == 0]
    return index[:, ::-1] * [pitch / 2, pitch * np.sqrt(0.75)], index
