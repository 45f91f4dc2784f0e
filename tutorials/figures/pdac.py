"""The picture of the pancreas in 03_cell_types_in_spots, and its numbers: python tutorials/figures/pdac.py.

Reads pdac_a_st.h5ad, pdac_a_sc_ref.h5ad and pdac_a_card_markers.csv from the folder SPANMF_TEST_DATA (else ../shared/data
beside the project).
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from PIL import Image

import spanmf as sn
from spanmf.pl._fit_quality import against_like

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("SPANMF_TEST_DATA", HERE.parents[2] / "shared" / "data"))
N_COLORS = 160
SHOWN = ["Acinar cells", "Ductal - CRISP3 high/centroacinar like", "Cancer clone A", "Cancer clone B"]


def analyse() -> ad.AnnData:
    """From counts to shares; the numbers of the page."""
    section, cells = ad.read_h5ad(DATA / "pdac_a_st.h5ad"), ad.read_h5ad(DATA / "pdac_a_sc_ref.h5ad")
    section.uns["um_per_unit"] = 200.0
    sn.gr.contact_neighbors(section)
    reference = sn.tl.reference_profiles(cells, "cell_type")
    sn.tl.stl_nmf(section, reference, region_key="region", reference_weight=np.inf, interval=0.9)
    shares = section.obsm["stl_nmf"].set_axis(section.uns["stl_nmf"]["types"], axis=1)
    by_region = shares.groupby(section.obs["region"], observed=True).mean().T
    by_region["width of the interval"] = (
        (section.obsm["stl_nmf_upper"] - section.obsm["stl_nmf_lower"]).median().to_numpy()
    )
    print(by_region.round(3).to_string())
    names = dict(zip(cells.obs["cell_type_card"].astype(str), cells.obs["cell_type"].astype(str), strict=True))
    markers = pd.read_csv(DATA / "pdac_a_card_markers.csv")
    markers["cell_type"] = markers["cell_type"].map(names)
    scored = sn.metrics.marker_correlation(section, markers)
    print(scored.round(2).to_string())
    print(
        f"mean correlation {scored['correlation'].mean():.3f}; own map best for {int((scored['rank'] == 1).sum())} of 20"
    )
    mended = section.copy()
    sn.tl.stl_nmf(mended, reference, region_key="region", reference_weight=2)
    again = sn.metrics.marker_correlation(mended, markers)["correlation"].mean()
    fibroblasts = [float(s.obsm["stl_nmf"]["Fibroblasts"].mean()) for s in (section, mended)]
    print(
        f"profiles mended: mean correlation {again:.3f}; fibroblasts (5 cells) {fibroblasts[1]:.2f}, else {fibroblasts[0]:.2f}"
    )
    print("without regions:")
    plain = section.copy()
    sn.tl.stl_nmf(plain, reference, reference_weight=np.inf)
    change = np.abs(plain.obsm["stl_nmf"].to_numpy() - section.obsm["stl_nmf"].to_numpy()).mean()
    again = sn.metrics.marker_correlation(plain, markers)["correlation"].mean()
    print(f"  mean change of a share {change:.4f}, mean correlation {again:.3f}")
    paper = section.copy()
    sn.tl.stl_nmf(paper, reference, region_key="region", preset="paper")
    print(f"published form, untrained: {sn.metrics.marker_correlation(paper, markers)['correlation'].mean():.3f}")
    known = sn.tl.reference_profiles(cells[~cells.obs["cell_type"].str.startswith("Cancer")].copy(), "cell_type")
    without = section.copy()
    sn.tl.stl_nmf(without, known, region_key="region", reference_weight=np.inf)
    gone = without.obsm["stl_nmf"].groupby(section.obs["region"], observed=True).mean().T
    gain = gone["Cancer"] - by_region["Cancer"].set_axis(section.obsm["stl_nmf"].columns)
    print("without the cancer clones in the reference, the cancer region gains most of:")
    print(gain.nlargest(4).round(2).to_string())
    for name, fitted in (("whole", section), ("without", without)):
        used = fitted.var["stl_nmf_deviance"].notna().to_numpy()
        depth, counts = (np.asarray(fitted[:, used].X.sum(axis)).ravel() for axis in (1, 0))
        of_spots = pd.Series(against_like(fitted.obs["stl_nmf_deviance"].to_numpy(), depth), index=fitted.obs["region"])
        of_genes = against_like(fitted.var["stl_nmf_deviance"].to_numpy()[used] / np.maximum(counts, 1), counts)
        worst = pd.Series(of_genes, index=fitted.var_names[used])[counts >= 30].nlargest(5)
        total = (fitted.obs["stl_nmf_deviance"] * depth).sum() / depth.sum()
        print(
            f"reference {name}: deviance a count {total:.3f}; relative, of the cancer region {of_spots['Cancer'].median():.2f}; worst genes {', '.join(worst.index)}"
        )
    return section


def draw(section: ad.AnnData, path: Path) -> None:
    """Regions, pies and four types, in few colours so that the file is small."""
    fig = plt.figure(figsize=(14, 6.2), layout="constrained")
    panels = fig.subplot_mosaic("RPab\nRPcd", width_ratios=[1.25, 1.45, 1, 1])
    sn.pl.domains(section, "region", ax=panels["R"])
    sn.pl.proportions(section, n_types=9, ax=panels["P"])
    for panel in (panels["R"], panels["P"]):
        old = panel.get_legend()
        labels = [t.get_text() for t in old.get_texts()]
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.08), "frameon": False, "fontsize": 8}
        panel.legend(old.legend_handles, labels, ncols=2, **place)
    for name, letter in zip(SHOWN, "abcd", strict=True):
        sn.pl.proportions(section, kind="maps", types=[name], ax=panels[letter])
    fig.savefig(path, dpi=85)
    plt.close(fig)
    Image.open(path).convert("RGB").quantize(N_COLORS, Image.Quantize.FASTOCTREE).save(path, optimize=True)


if __name__ == "__main__":
    mpl.use("Agg")
    warnings.filterwarnings("ignore", ".*fewer than 10 cells")
    draw(analyse(), HERE / "pdac.png")
