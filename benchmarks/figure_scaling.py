"""The picture docs/_static/scaling.png: CPU time and memory against cells, from the rows of the groups ``scaling_*``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from groups import Row
from matplotlib.axes import Axes
from PIL import Image

PANELS = {
    "scaling_nmf": "Factorisation, rank 10", "scaling_graph": "Merged 20/80 µm graph", "scaling_smoothing": "Smoothing, one step",
    "scaling_knn": "15 nearest neighbours", "scaling_leiden": "Leiden", "scaling_pipeline": "Whole pipeline",
}  # fmt: skip
OURS, DASK, PEER, FLOOR = "#0072B2", "#009E73", "#D55E00", "#666666"  # of Okabe and Ito
SHORT = {
    "scikit-learn cd, nndsvda": "scikit-learn", "squidpy radius 80": "squidpy", "scipy CSR @ W": "scipy",
    "scipy cKDTree": "scipy cKDTree", "igraph as scanpy calls it": "igraph (scanpy)", "spanmf, 50,000 landmarks": "landmarks",
}  # fmt: skip
SIZES = (1e3, 1e4, 1e5, 1e6, 1e7)
N_COLORS = 64  # of the file, to keep it small
APART = 0.085  # of a panel's height, between two labels


def draw(rows: list[Row], path: Path) -> None:
    """Time above, memory below, a column a stage; three stages a row."""
    fig, axes = plt.subplots(
        4, 3, figsize=(10.5, 11), sharex=True, layout="constrained", height_ratios=(1.15, 1, 1.15, 1)
    )
    for i, (name, title) in enumerate(PANELS.items()):
        above, below = axes[2 * (i // 3) : 2 * (i // 3) + 2, i % 3]
        curves = by_method([r for r in rows if r["measurement"] == name])
        below.set_ylim(0.04, 40)
        _panel(above, curves, "cpu_s", "CPU seconds, one core" if i % 3 == 0 else "")
        _panel(below, curves, "peak_gib", "peak memory, GiB" if i % 3 == 0 else "")
        above.set_title(title, fontsize=10, loc="left", fontweight="bold")
    for ax in axes[[1, 3]].flat:
        ax.set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("cells", fontsize=8)
    fig.savefig(path, dpi=100)
    plt.close(fig)
    Image.open(path).convert("RGB").quantize(N_COLORS, Image.Quantize.FASTOCTREE).save(path, optimize=True)


def by_method(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows of each method by size; the floor is a method of its own."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: r["sizes"][0]):
        found[row["who"]].append(row)
        if "floor_s" in row and row["who"] == "spanmf":
            found["memory bandwidth"].append({"sizes": row["sizes"], "cpu_s": row["floor_s"]})
    return found


def _panel(ax: Axes, curves: dict[str, list[Row]], field: str, label: str) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(700, 2.5e8)  # room for the names at the right
    ax.set_xticks(SIZES, ["1k", "10k", "100k", "1M", "10M"])
    ax.minorticks_off()
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.tick_params(labelsize=8, length=2)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_ylabel(label, fontsize=8)
    ax.yaxis.set_major_formatter("{x:g}")
    names = []
    for who, rows in curves.items():
        there = [(r["sizes"][0], r[field]) for r in rows if r.get(field)]
        if not there:
            continue
        x, y = np.array(there).T
        ax.plot(x, y, **_style(who))
        names.append((x[-1], y[-1], who, _end(rows) if field == "cpu_s" else ""))
    ax.set_ylim(*ax.get_ylim())
    _label(ax, names)


def _style(who: str) -> dict[str, Any]:
    if who == "memory bandwidth":
        return {"color": FLOOR, "linestyle": ":", "linewidth": 1.5}
    marker = {"marker": "o", "markersize": 3, "linewidth": 1.6}
    if not who.startswith("spanmf"):
        return marker | {"color": PEER, "marker": "s"}
    return marker | ({"color": OURS} if who == "spanmf" else {"color": DASK, "linestyle": "--"})


def _end(rows: list[Row]) -> str:
    """What ended the measurement after the last."""
    reason = next((str(r["ended"]) for r in rows if "ended" in r), "")
    if "memory" in reason:
        return "then: memory"
    return "then: over 10 min" if reason.startswith("over") else ""


def _label(ax: Axes, names: list[tuple[float, float, str, str]]) -> None:
    """Names at the right of the longest lines, moved apart where they would touch, and at the left of the end of shorter ones."""
    last, furthest = -np.inf, max((n[0] for n in names), default=0)
    for x, y, who, end in sorted(names, key=lambda n: n[1]):
        lines = [SHORT.get(who, who), *filter(None, [end])]
        across, up = _share(x, ax.get_xlim()), _share(y, ax.get_ylim())
        place = {"x": across - 0.03, "y": up, "ha": "right", "va": "center"}
        if x == furthest:
            room = APART / 2 * (len(lines) - 1)
            up = max(up, last + APART + room)
            last = up + room
            place = {"x": across + 0.025, "y": up, "va": "center"}
        ax.text(
            s="\n".join(lines),
            transform=ax.transAxes,
            fontsize=8,
            color=_style(who)["color"],
            linespacing=0.95,
            **place,
        )


def _share(value: float, limits: tuple[float, float]) -> float:
    """Where a value lies on a logarithmic axis, from 0 to 1."""
    low, high = np.log(limits)
    return float((np.log(value) - low) / (high - low))
