"""The picture of the README and of the first page: python docs/make_figures.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import scanpy as sc
from PIL import Image

import spanmf as sn

PATH = Path(__file__).parent / "_static" / "overview.png"
N_COLORS = 200  # of the file, to keep it small
COMPONENTS = [0, 3, 4, 5]


def main() -> None:
    """Planted domains, those found, and four factors."""
    adata = sn.datasets.xenium_tissue(6_000, n_libraries=1, rng=1)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sn.gr.contact_neighbors(adata)
    sn.tl.hsnmf(adata, 12, n_domains=8)
    sn.tl.match_labels(adata, "hsnmf", "domain", key_added="found")

    fig = plt.figure(figsize=(12, 4.2), layout="constrained")
    panels = fig.subplot_mosaic("PPFFab\nPPFFcd")
    for name, key, title in (("P", "domain", "planted domains"), ("F", "found", "domains found by hSNMF")):
        sn.pl.domains(adata, key, ax=panels[name])
        panels[name].set_title(title)
    panels["P"].get_legend().remove()
    panels["F"].get_legend().set_title(None)
    for name, k in zip("abcd", COMPONENTS, strict=True):
        sn.pl.factors(adata, "hsnmf", components=[k], ax=panels[name])
    fig.savefig(PATH, dpi=100)
    Image.open(PATH).convert("RGB").quantize(N_COLORS, Image.Quantize.FASTOCTREE).save(PATH, optimize=True)


if __name__ == "__main__":
    main()
