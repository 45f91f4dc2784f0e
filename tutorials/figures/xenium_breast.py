"""The picture of the breast tissue in 01_xenium_domains: python tutorials/figures/xenium_breast.py.

Reads xenium_breast_tiles.h5ad from the folder SPANMF_TEST_DATA (else ../shared/data beside the project).
"""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import scanpy as sc
from PIL import Image

import spanmf as sn

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("SPANMF_TEST_DATA", HERE.parents[2] / "shared" / "data"))
N_COLORS = 200
MARKERS = ["FOXA1", "CEACAM6", "KRT15", "POSTN", "IL7R", "MZB1"]  # the factor in which each is highest is drawn


def analyse() -> sc.AnnData:
    """From counts to domains."""
    # [start]
    adata = sn.io.read(DATA / "xenium_breast_tiles.h5ad")
    sc.pp.filter_cells(adata, min_counts=20)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sn.gr.contact_neighbors(adata, library_key="tile")
    sn.tl.hsnmf(adata, n_components=15, n_domains=8)
    top = sn.tl.top_features(adata, "hsnmf", 8)
    # [end]
    pd.set_option("display.width", 200, "display.max_colwidth", 100)
    print(f"{adata.n_obs} cells")
    print(top.groupby("factor")["feature"].agg(" ".join).to_string())
    factors = pd.DataFrame(adata.obsm["X_hsnmf"], index=adata.obs_names)
    by_domain = (factors / factors.mean()).groupby(adata.obs["hsnmf"], observed=True).mean()
    print("factors of each domain, against the mean over all cells")
    print(by_domain.round(1).to_string())
    print(adata.obs.groupby("hsnmf", observed=True)["n_counts"].agg(["size", "median"]).to_string())
    return adata


def draw(adata: sc.AnnData, path: Path) -> None:
    """Domains and six of the factors, in few colours so that the file is small."""
    fig = plt.figure(figsize=(13, 4.3), layout="constrained")
    panels = fig.subplot_mosaic("DDabc\nDDdef")
    sn.pl.domains(adata, "hsnmf", um_per_unit=1, ax=panels.pop("D"))
    loadings = adata[:, MARKERS].varm["hsnmf_loadings"] / adata.varm["hsnmf_loadings"].sum(0)
    for k, ax in zip(loadings.argmax(1), panels.values(), strict=True):
        sn.pl.factors(adata, "hsnmf", components=[k], ax=ax)
    fig.savefig(path, dpi=110)
    plt.close(fig)
    Image.open(path).convert("RGB").quantize(N_COLORS, Image.Quantize.FASTOCTREE).save(path, optimize=True)


if __name__ == "__main__":
    draw(analyse(), HERE / "xenium_breast.png")
