"""The sections of ``deconvolution.py`` for peers that take minutes each: Stereoscope and DestVI (scvi-tools), and Tangram.

Of each section a patch is taken, the spots nearest to one of them; every method gets the same. These peers learn from the single cells that
the other methods' mean profiles come from (for ``paper``, of which one X is taken: all cells of the five types). Their epochs are capped for
a CPU (``scvi_peer.py``, ``tangram_peer.py`` say how).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import Measurements, main, peer_python, timed
from deconvolution import (
    FIVE,
    SETS,
    Section,
    _table,
    best_error,
    elsewhere,
    flashdeconv,
    nnls,
    nnls_reference,
    nnls_section,
    ours,
    relative_error,
)  # fmt: skip

Spent = dict[str, Any]


def patch(n: int, kind: str, seed: int) -> Section:
    """The n spots nearest to one of a section."""
    section = SETS[kind](seed)
    centre = section.coords[np.random.default_rng([seed, 5]).integers(len(section.coords))]
    near = np.sort(np.argsort(((section.coords - centre) ** 2).sum(1), kind="stable")[:n])
    return replace(
        section, X=section.X[near], V=section.V[near], coords=section.coords[near],
        regions=None if section.regions is None else section.regions[near],
    )  # fmt: skip


def reference_cells(section: Section) -> tuple[sp.csr_matrix, np.ndarray]:
    """Counts of single cells, and the code of their type."""
    if section.cells is not None:
        return section.cells
    table = _table("pdac_a_sc_ref")
    names = table.obs["cell_type"].astype(str).to_numpy()
    known = np.flatnonzero(np.isin(names, FIVE))
    return table.X[known], np.array([FIVE.index(name) for name in names[known]])


def deep(variable: str, package: str, script: str, *arguments: str) -> Callable[[Section], tuple[np.ndarray, Spent]]:
    def method(section: Section) -> tuple[np.ndarray, Spent]:
        counts, codes = reference_cells(section)
        python = peer_python(variable, package)
        return elsewhere(python, script, {"X": section.X, "cells": counts}, {"types": codes}, *arguments)

    return method


def here(method: Callable[[Section], np.ndarray]) -> Callable[[Section], tuple[np.ndarray, Spent]]:
    return lambda section: timed(lambda: method(section))


def measured(
    method: Callable[[Section], tuple[np.ndarray, Spent]], score: Callable[[np.ndarray, Section], float]
) -> Callable[..., dict]:
    def measure(peers: list, n: int, kind: str, seed: int) -> dict:
        section = patch(n, kind, seed)
        V, spent = method(section)
        error = score(V, section)
        return spent | {"error": error, "notes": f"error {error:.4f}"}

    return measure


PEERS: dict[str, Callable[[Section], tuple[np.ndarray, Spent]]] = {
    "NNLS": here(nnls),
    "NNLS, genes by the section": here(nnls_section),
    "NNLS, genes by the reference": here(nnls_reference),
    "FlashDeconv": flashdeconv,
    "Tangram": deep("SPANMF_TANGRAM_PYTHON", "tangram", "tangram_peer.py"),
    "Stereoscope": deep("SPANMF_SCVI_PYTHON", "scvi", "scvi_peer.py", "Stereoscope"),
    "DestVI": deep("SPANMF_SCVI_PYTHON", "scvi", "scvi_peer.py", "DestVI"),
}
MEASUREMENTS: Measurements = {
    "deconvolution_deep": {
        **{who: measured(method, best_error) for who, method in PEERS.items()},
        "spanmf": measured(ours, lambda V, section: relative_error(V, section.V)),
    }
}


if __name__ == "__main__":
    main(MEASUREMENTS)
