"""Maps of the labelings of ``run.py --only real_tissues``: python benchmarks/figure_real.py TISSUE FILE [LIBRARY].

The picture of docs/evaluation.md, which ``run.py --docs`` draws, is one tile of the breast tumour by several methods. Colours follow the
labels of hSNMF by overlap.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import DATA, HERE
from PIL import Image
from real_tissues import tissue

import spanmf as sn

PICTURE = (
    "xenium_breast_tiles",
    "evaluation_breast.png",
    "bulbasaur",
)  # tissue, file and library of docs/evaluation.md
N_COLORS = 64  # of the file, to keep it small
SHOWN = {
    "nmf": "NMF, dominant component",
    "snmf refit": "SNMF, dominant component",
    "hsnmf paper": "hSNMF as published",
    "hsnmf": "hSNMF",
    "hsnmf, number given": "hSNMF, number given",
    "CellCharter": "CellCharter",
    "BANKSY 0.8": "BANKSY, λ = 0.8",
    "squidpy spatialleiden": "squidpy, SpatialLeiden",
    "noise, Leiden": "noise, treated as hSNMF",
}


def labels_of(name: str) -> dict[str, list[int]]:
    """Labels of every method that was run."""
    found: dict[str, list[int]] = {}
    for file in sorted((HERE / "results").glob(f"real_tissues-*-{name}-*.json")):
        found |= json.loads(file.read_text()).get("labels", {})
    return found


def chosen(found: dict[str, list[int]]) -> dict[str, str]:
    """The labelings to draw: of two resolutions the one whose number of domains is nearer to hSNMF's."""
    wanted = len(set(found["hsnmf, number given"]))
    out = {}
    for method, title in SHOWN.items():
        keys = [k for k in found if k == method or k.startswith(f"{method}, resolution")]
        if keys:
            out[min(keys, key=lambda k: abs(len(set(found[k])) - wanted))] = title
    if "truth" in found:
        out["truth"] = "known"
    return out


def draw_picture(folder: Path) -> None:
    """The picture of docs/evaluation.md, where its tissue and its results are at hand."""
    name, file, library = PICTURE
    if (DATA / f"{name}.h5ad").exists() and "hsnmf, number given" in labels_of(name):
        draw(name, folder / file, library)


def natural(name: str) -> tuple[int, str]:
    """Numbers by value, before words."""
    return (int(name), "") if name.isdigit() else (10**6, name)


def draw(name: str, path: Path, library: str | None = None) -> None:
    """One panel a method."""
    adata = tissue(name)
    found = labels_of(name)
    for key, labels in found.items():
        adata.obs[key] = pd.Categorical(np.asarray(labels).astype(str))
    if "truth" in adata.obs:
        found["truth"] = []
    shown = chosen({k: v or adata.obs[k].astype(str).tolist() for k, v in found.items()})
    for key in shown:
        if key != "truth":
            sn.tl.match_labels(adata, key, "truth" if "truth" in adata.obs else "hsnmf", key_added=f"shown {key}")
    columns = [key if key == "truth" else f"shown {key}" for key in shown]
    names = sorted({str(label) for key in columns for label in adata.obs[key].cat.categories}, key=natural)
    palette = dict(
        zip(names, [*plt.cm.tab20.colors[::2], *plt.cm.tab20.colors[1::2], *plt.cm.tab20b.colors], strict=False)
    )
    part = adata[adata.obs["library"] == library].copy() if library else adata
    across = 5 if len(shown) > 9 else 3
    down = -(-len(shown) // across)
    fig, axes = plt.subplots(down, across, figsize=(3.4 * across, 2.6 * down), layout="constrained", squeeze=False)
    for ax, key, title in zip(axes.flat, columns, shown.values(), strict=False):
        sn.pl.domains(part, key, ax=ax, palette=palette)
        if ax.get_legend() is not None:
            ax.get_legend().remove()
        ax.set_title(title, fontsize=9)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    fig.savefig(path, dpi=90)
    plt.close(fig)
    Image.open(path).convert("RGB").quantize(N_COLORS, Image.Quantize.FASTOCTREE).save(path, optimize=True)


if __name__ == "__main__":
    draw(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:4])
