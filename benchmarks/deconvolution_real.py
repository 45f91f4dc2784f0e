"""What the deconvolution says of three real tissues: ``python benchmarks/run.py --only deconvolution_real`` prints it.

* ``lymph``: a Visium lymph node (2,000 genes drawn by chance, hardly one of those that name a follicle) and its typed reference.
  Fitted on half of the common genes, without a graph; maps are held against markers among the other half.
* ``her2st``: an ST section of a HER2-positive tumour with a pathologist's regions. The reference is made of the clusters of another
  patient's Xenium section (313 genes), named by markers.
* ``breast``: Visium beside Xenium, adjacent sections in one frame. The same clusters are reference and truth: the cells that lie
  beneath a spot. Set against that: the same truth at places that are shifted across the section.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from common import Measurements, main, real_table, timed
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score

import spanmf as sn

N_CLUSTERS = 20
NAMES = {  # a cluster has the name of the markers that are highest in it
    "tumour": ["EPCAM", "FASN", "ERBB2", "CDH1", "KRT8", "TACSTD2"],
    "myoepithelial": ["KRT14", "KRT5", "MYLK", "DST", "ACTG2"],
    "fibroblast": ["LUM", "POSTN", "CXCL12", "CCDC80", "PDGFRA"],
    "endothelial": ["VWF", "PECAM1", "KDR", "CAVIN2"],
    "T": ["CD3E", "TRAC", "IL7R", "CD3D"],
    "B": ["MS4A1", "BANK1", "CD79A"],
    "plasma": ["MZB1", "TENT5C", "SLAMF7"],
    "myeloid": ["LYZ", "CD68", "ITGAX", "FCGR3A"],
    "adipocyte": ["ADIPOQ", "LPL", "FABP4"],
}
SPOT = 27.5 / 100 * 16.88  # radius of a spot of Visium in the aligned frame (pitch 100 µm)


def lymph(weight: float) -> dict[str, Any]:
    section = ad.read_h5ad(real_table("visium_lymph_rctd.h5ad"))
    reference = sn.tl.reference_profiles(ad.read_h5ad(real_table("visium_lymph_rctd_ref.h5ad")), "cell_type")
    sn.gr.contact_neighbors(section)
    common = np.random.default_rng(0).permutation([g for g in section.var_names if g in reference.var_names])
    held_out, used = common[::2], common[1::2]
    known = reference[:, held_out].to_df()
    known = known.div(reference.obs["mrna"], axis=0) * reference.obs["mrna"].median()
    fold = known / (known.sum() - known + 0.05 * len(known)) * (len(known) - 1)
    markers = {t: fold.loc[t].nlargest(8).index.tolist() for t in fold.index}
    print(f"lymph node, {section.n_obs} spots; fitted on {len(used)} genes, markers from the {len(held_out)} others")
    fitted = section[:, used].copy()
    _, spent = timed(lambda: sn.tl.stl_nmf(fitted, reference, graph_weight=0, reference_weight=weight))
    section.obsm["stl_nmf"] = fitted.obsm["stl_nmf"]
    table = sn.metrics.marker_correlation(section, markers).set_index("cell_type")[["correlation", "rank", "best"]]
    section.obsm["X_shares"] = section.obsm["stl_nmf"].to_numpy()
    table["Moran's I, no graph in the fit"] = sn.metrics.morans_i(section, "shares").iloc[:, 0].to_numpy()
    table["mean share"] = section.obsm["stl_nmf"].mean().to_numpy()
    print(table.sort_values("correlation", ascending=False).round(2).to_string())
    print(f"mean correlation {table['correlation'].mean():.2f}")
    shares = section.obsm["stl_nmf"]
    print(
        f"B against CD4 T: r {np.corrcoef(shares['B'], shares['T_CD4'])[0, 1]:.2f}; most of B: {shares['B'].max():.2f}"
    )
    mean, b_cells = table["correlation"].mean(), table.loc["B", "correlation"]
    return spent | {"notes": f"r with held-out markers: mean {mean:.2f}, B cells {b_cells:.2f}"}


def typed_xenium() -> ad.AnnData:
    """Xenium cells with a type each: clusters (k-means on principal components), named by markers."""
    cells = ad.read_h5ad(real_table("xenium_breast_crop.h5ad"))
    sc.pp.filter_cells(cells, min_counts=20)
    work = cells.copy()
    sc.pp.normalize_total(work)
    sc.pp.log1p(work)
    sc.pp.pca(work, n_comps=30)
    clusters = KMeans(N_CLUSTERS, n_init=3, random_state=0).fit_predict(work.obsm["X_pca"])
    sc.pp.scale(work)
    score = {t: work[:, [g for g in genes if g in work.var_names]].X.mean(1) for t, genes in NAMES.items()}
    by_cluster = pd.DataFrame(score, index=work.obs_names).groupby(clusters).mean()
    cells.obs["type"] = pd.Categorical(by_cluster.idxmax(axis=1).loc[clusters].to_numpy())
    return cells


def her2st(weight: float) -> dict[str, Any]:
    section = ad.read_h5ad(real_table("her2st_H1.h5ad"))
    sn.gr.contact_neighbors(section)
    reference = sn.tl.reference_profiles(typed_xenium(), "type")
    _, spent = timed(lambda: sn.tl.stl_nmf(section, reference, reference_weight=weight))
    shares = section.obsm["stl_nmf"]
    known = section.obs["region"].notna() & (section.obs["region"] != "undetermined")
    region = section.obs["region"].astype(str)
    cancer = region.isin(["invasive cancer", "cancer in situ"])[known]
    print(
        f"her2st H1, {section.n_obs} spots, {section.uns['stl_nmf']['n_genes']} genes, {int(known.sum())} in a region"
    )
    print(shares.groupby(region).mean().T.round(2).to_string())
    auc = roc_auc_score(cancer, shares["tumour"][known])
    print(f"cancer regions against the others, AUC of the tumour share: {auc:.2f}")
    theirs = section.obsm["stereoscope_major"]["Epithelial"]
    print(f"  the same of Stereoscope's epithelial share (the authors'): {roc_auc_score(cancer, theirs[known]):.2f}")
    markers = np.asarray(section[:, [g for g in NAMES["tumour"] if g in section.var_names]].X.sum(1)).ravel()
    plain = markers / np.asarray(section.X.sum(1)).ravel()
    print(f"  of the tumour markers' share of the counts: {roc_auc_score(cancer, plain[known]):.2f}")
    print(f"  correlation with Stereoscope's: {np.corrcoef(shares['tumour'], theirs)[0, 1]:.2f}")
    theirs_auc = roc_auc_score(cancer, theirs[known])
    return spent | {"notes": f"AUC of the tumour share in the cancer regions {auc:.2f}, Stereoscope's {theirs_auc:.2f}"}


def breast(weight: float) -> dict[str, Any]:
    cells = typed_xenium()
    section = ad.read_h5ad(real_table("visium_breast_crop.h5ad"))
    reference = sn.tl.reference_profiles(cells, "type")
    sn.gr.contact_neighbors(section)
    _, spent = timed(lambda: sn.tl.stl_nmf(section, reference, reference_weight=weight))
    ours = section.obsm["stl_nmf"]
    print(
        f"breast, {section.n_obs} spots, {section.uns['stl_nmf']['n_genes']} genes; {reference.obs['n_cells'].to_dict()}"
    )
    places, spots = cells.obsm["spatial"], section.obsm["spatial"]
    types = cells.obs["type"].cat

    def beneath(shift: np.ndarray, radius: float) -> pd.DataFrame:
        found = cKDTree(places).query_ball_point(spots + shift, radius)
        counts = np.array([np.bincount(types.codes.to_numpy()[i], minlength=len(types.categories)) for i in found])
        counts = np.where(counts.sum(1, keepdims=True) >= 3, counts, np.nan)
        return pd.DataFrame(counts / counts.sum(1, keepdims=True), index=section.obs_names, columns=types.categories)

    def compare(truth: pd.DataFrame) -> tuple[float, pd.Series]:
        known = truth.notna().all(axis=1)
        v, t = ours[known], truth.loc[known, list(ours)]
        error = np.linalg.norm(v.to_numpy() - t.to_numpy()) / np.linalg.norm(t)
        return error, pd.Series({c: np.corrcoef(v[c], t[c])[0, 1] for c in ours})

    truth = beneath(np.zeros(2), SPOT)
    error, r = compare(truth)
    wide_error, wide = compare(beneath(np.zeros(2), 2 * SPOT))
    shifted = [compare(beneath(16.88 * k * np.array([np.cos(a), np.sin(a)]), SPOT)) for k in (6, 9) for a in range(6)]
    print(f"  spots with 3 cells or more beneath: {int(truth.notna().all(axis=1).sum())}")
    table = pd.DataFrame(
        {
            "mean of ours": ours.mean(), "mean beneath": truth.mean(), "r": r, "r, twice the radius": wide,
            "r, shifted": pd.concat([s for _, s in shifted], axis=1).mean(axis=1),
        }
    )  # fmt: skip
    print(table.sort_values("r", ascending=False).round(2).to_string())
    print(
        f"  relative error {error:.2f}, twice the radius {wide_error:.2f}, shifted {np.mean([e for e, _ in shifted]):.2f}"
    )
    return spent | {
        "notes": f"relative error {error:.2f}, twice the radius {wide_error:.2f}, median r {r.median():.2f}"
    }


SECTIONS: dict[str, Callable[[float], dict[str, Any]]] = {"lymph": lymph, "her2st": her2st, "breast": breast}


def measure(peers: list, n: int, section: str, weight: float | str) -> dict:
    """One tissue; ``weight`` is ``reference_weight``: profiles mended by the section (2, the default), or as they are (inf)."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        row = SECTIONS[section](float(weight))
    return row | {"text": text.getvalue()}


MEASUREMENTS: Measurements = {"deconvolution_real": {"spanmf": measure}}


if __name__ == "__main__":
    main(MEASUREMENTS)
