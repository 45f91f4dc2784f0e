"""The picture of calibrated p-values in docs/methods.md: ``python docs/make_calibration.py`` (some minutes).

Labels of 3 to thousands of cells are dealt at random over cells half of which lie twenty times as densely as the others.
Shown is how often the randomised p of a pair falls below a level, over the pairs: it should be the level.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy.stats import norm

from spanmf.core import _colocalization as core
from spanmf.core import _graph

PATH = Path(__file__).parent / "_static" / "calibration.png"
SIZES = np.array([3, 8, 20, 50, 200, 719])
N_RUNS = 2000
LEVELS = np.logspace(-3, -0.5, 11)
FORMS = {"normal": "#C8702A", "negative binomial": "#56B4E9", "with places drawn (ours)": "#0072B2"}


def main() -> None:
    """One panel a form."""
    rejected = simulate(np.random.default_rng(0))
    fig, panels = plt.subplots(1, 3, figsize=(9, 3.1), sharey=True, layout="constrained")
    for panel, (form, color) in zip(panels, FORMS.items(), strict=True):
        share = (rejected[form][:, :, None] <= LEVELS).mean(0)  # pairs × levels
        panel.plot(LEVELS, LEVELS, color="0.6", linewidth=1)
        panel.plot(LEVELS, share.T, color=color, linewidth=0.8, alpha=0.7)
        panel.set(xscale="log", yscale="log", title=form, xlabel="level", ylim=(2e-4, 1))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of p below it, by pair")
    fig.savefig(PATH, dpi=100)
    Image.open(PATH).convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE).save(PATH, optimize=True)


def simulate(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Two-sided randomised p-values (runs × pairs) of each form."""
    A = tissue(rng)
    n, m = A.shape[0], len(SIZES)
    labels, groups, upper_half = np.repeat(np.arange(m), SIZES), np.zeros(A.shape[0], int), np.triu_indices(m)
    counts = core.pair_counts(A, labels, groups, m, 1)
    found = core.Moments(*(x[0] for x in core.moments(counts)))
    uneven = core.uneven_pairs(counts.degrees, SIZES, found)
    places = {a: core.draw_places(A, np.arange(n), int(SIZES[a]), rng) for a in {a for a, _ in uneven}}
    out: dict[str, list[np.ndarray]] = {form: [] for form in FORMS}
    for _ in range(N_RUNS):
        observed = core.moments(core.pair_counts(A, rng.permutation(labels), groups, m, 1)).observed[0]
        z = (observed - found.expected) / np.sqrt(found.variance)
        out["normal"].append(2 * norm.sf(np.abs(z))[upper_half])
        lower, upper = core.tails(observed, found.expected, found.variance)
        out["negative binomial"].append(randomised(lower, upper, rng)[upper_half])
        for a, b in uneven:
            lower[a, b], upper[a, b] = core.drawn_tails(places[a], int(SIZES[b]), observed[a, b], same=a == b)
        out["with places drawn (ours)"].append(randomised(lower, upper, rng)[upper_half])
    return {form: np.array(p) for form, p in out.items()}


def randomised(lower: np.ndarray, upper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two-sided p of a count, made continuous."""
    u = lower - np.maximum(lower + upper - 1, 0) * rng.random(lower.shape)
    return 2 * np.minimum(u, 1 - u)


def tissue(rng: np.random.Generator):
    """Half of the cells twenty times as dense as the others."""
    n = int(SIZES.sum())
    half, width = n // 2, np.sqrt(n / 2) * 10
    coords = np.concatenate([rng.random((n - half, 2)) * width, rng.random((half, 2)) * width / np.sqrt(20) + 50])
    return _graph.radius_graph(coords, np.zeros(n, np.int32), 20.0, contact_weight=1.0)[0]


if __name__ == "__main__":
    main()
