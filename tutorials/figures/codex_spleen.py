"""Draws codex_spleen_niches.png from the real spleen: ``python tutorials/figures/codex_spleen.py codex_spleen_a.h5ad``."""

from __future__ import annotations

import sys
from pathlib import Path

import anndata as ad
import matplotlib as mpl
from PIL import Image

import spanmf as sn

mpl.use("Agg")
adata = ad.read_h5ad(sys.argv[1])
adata.uns["um_per_unit"] = 1.0
table = sn.gr.colocalization(adata, "cell_type", radius=50)
print(table.sort_values("ratio")[["a", "b", "ratio", "z"]].iloc[[0, 1, -4, -3, -2, -1]])
sn.gr.niche_composition(adata, "cell_type", radius=50)
sn.tl.niches(adata, 8)
path = Path(__file__).with_name("codex_spleen_niches.png")
sn.pl.niches(adata).savefig(path, dpi=90, bbox_inches="tight")
Image.open(path).convert("RGB").quantize(128, method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
