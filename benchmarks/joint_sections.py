"""Two adjacent sections of a breast tumour, Xenium pooled under Visium spots: agreement on genes that were held out.

Half of the genes that both have are taken from the Visium modality before the fit; what the joint factors say of them (Xenium's
loadings) is held against Visium's own counts there. In-sample agreement would be inflated, and so it is beside what spots
that are matched at random reach. Called by ``run.py``.
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from common import Measurements, main, real_table, timed

import spanmf as sn

PX_PER_UM = 0.1688
RANK = 10


def pooled() -> tuple[ad.AnnData, ad.AnnData]:
    """Both sections on the spots that both have."""
    visium = ad.read_h5ad(real_table("visium_breast_crop.h5ad"))
    visium.var_names_make_unique()
    xenium = ad.read_h5ad(real_table("xenium_breast_crop.h5ad"))
    mdata = sn.pp.align_modalities(
        visium, xenium, method="pool", radius=50 * PX_PER_UM, names=("visium", "xenium"), unmatched="drop"
    )
    return mdata.mod["visium"], mdata.mod["xenium"]


def lognorm(adata: ad.AnnData) -> pd.DataFrame:
    adata = adata.copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    return adata.to_df()


def agreement(visium: ad.AnnData, xenium: ad.AnnData, held: list[str], truth: pd.DataFrame, seed: int) -> float:
    """Median over the held-out genes of the correlation of their prediction with Visium."""
    rest = visium[:, ~visium.var_names.isin(held)].copy()
    mdata = sn.tl.joint_nmf({"visium": rest, "xenium": xenium}, RANK, rng=seed)
    W = pd.DataFrame(mdata.obsm["X_joint_nmf"], index=mdata.obs_names).loc[truth.index].to_numpy()
    H = mdata.mod["xenium"][:, held].varm["joint_nmf_loadings"]
    return median_correlation(W @ H.T, truth[held].to_numpy())


def median_correlation(a: np.ndarray, b: np.ndarray) -> float:
    r = [np.corrcoef(a[:, j], b[:, j])[0, 1] for j in range(a.shape[1]) if a[:, j].std() > 0 and b[:, j].std() > 0]
    return float(np.median(r))


def held_out(peers: list, n: int, seed: int) -> dict:
    """Half of the genes that both have, by a seed; the fit and its prediction are timed."""
    visium, xenium = pooled()
    truth, direct = lognorm(visium), lognorm(xenium)
    shared = [g for g in xenium.var_names if g in visium.var_names and visium[:, g].X.sum() >= 50]
    rng = np.random.default_rng(seed)
    held = sorted(rng.choice(shared, len(shared) // 2, replace=False))
    shuffled = xenium[rng.permutation(xenium.n_obs)].copy()
    shuffled.obs_names = xenium.obs_names
    joint, spent = timed(lambda: agreement(visium, xenium, held, truth, seed))
    found = {
        "agreement": joint,
        "random_pairing": agreement(visium, shuffled, held, truth, seed),
        "own_values": median_correlation(direct.loc[truth.index, held].to_numpy(), truth[held].to_numpy()),
    }
    notes = ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in found.items())
    return spent | found | {"notes": f"{len(held)} genes held out: {notes}"}


MEASUREMENTS: Measurements = {"joint_sections": {"spanmf": held_out}}


if __name__ == "__main__":
    main(MEASUREMENTS)
