"""The reference: profiles and mRNA content of the types from few cells, and the genes that tell types apart."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
SHRINKAGE = 100.0  # counts of the mean profile that every profile is mixed with
SIZE_VARIANCE = 0.3  # of the log mRNA content of the cells of a type: a tenfold range holds all but a few of them


def shrunk_profiles(B: Array, n_cells: Array | None) -> Array:
    """Profiles (rows sum to one), each mixed with ``SHRINKAGE`` counts of the mean profile of all types."""
    size = B.sum(1)
    P = B / size[:, None]
    counts = size * (1e4 if n_cells is None else n_cells)
    mixed = P * counts[:, None] + SHRINKAGE * P.mean(0)
    return mixed / (counts + SHRINKAGE)[:, None]


def shrunk_sizes(B: Array, n_cells: Array | None) -> Array:
    """The mRNA content of the types, its logarithm drawn to the common mean where it comes from few cells."""
    size = B.sum(1)
    if n_cells is None or len(size) < 2:
        return size
    log, noise = np.log(size), SIZE_VARIANCE / n_cells
    weight = 1 / (noise + 0.1)
    mean = np.average(log, weights=weight)
    between = max(np.average((log - mean) ** 2 - noise, weights=weight), 0.02)
    return np.exp((log * between + mean * noise) / (between + noise))


def informative(seen: Array, profiles: Array, n_genes: int | None) -> Array:
    """Genes with the most information among those ``seen``: variance between the types over the mean, which is the noise of a count."""
    mean = profiles.mean(0)
    score = ((profiles - mean) ** 2).sum(0) / np.maximum(mean, 1e-30) if len(profiles) > 1 else mean.copy()
    score[~seen] = 0
    found = int((score > 0).sum())
    return np.sort(np.argsort(-score, kind="stable")[: found if n_genes is None else min(n_genes, found)])
