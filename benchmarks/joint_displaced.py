"""What misregistration costs joint factors: ``joint_displaced``, ten types of a generated tissue whose second section is displaced.

The protein section has cell names of its own and is displaced by a smooth field (root mean square in µm; and 1 µm of noise a
cell, unless it is not displaced at all); cells lie about 10 µm apart. Pairs are mutual nearest neighbours, after a smooth warp
or without; RNA cells without a pair are judged by RNA. Every RNA cell is scored. Called by ``run.py``.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from common import Measurements, main, timed
from joint import TYPES_RANK, clustered, modality, scores

WARP = 60.0  # µm; chosen on seeds below 100


@cache
def sections(n: int, um: int, seed: int):
    """The two sections, true types of the RNA cells, and the name of each RNA cell in the protein section."""
    import spanmf as sn

    mdata = sn.datasets.rna_protein_tissue(n, displacement=float(um), rng=seed)
    rna, protein = mdata.mod["rna"].copy(), mdata.mod["protein"].copy()
    if not um:
        protein.obs["same_as"] = protein.obs_names.to_numpy()
        protein.obs_names = [f"protein{i + 1}" for i in range(n)]
    return rna, protein, rna.obs["cell_type"].cat.codes.to_numpy().astype(int)


def joint(warp: float | None):
    """Matched, factorised and clustered."""

    def run(peers: list, n: int, um: int, seed: int) -> dict:
        _joint(*sections(500, um, 0)[:2], warp)  # compiles
        rna, protein, truth = sections(n, um, seed)
        (labels, right), spent = timed(lambda: _joint(rna, protein, warp))
        return spent | _scored(labels, truth, f"{right:.0%} of the pairs right")

    return run


def _joint(rna, protein, warp: float | None) -> tuple[np.ndarray, float]:
    import spanmf as sn

    mdata = sn.pp.align_modalities(rna, protein, warp=warp)
    sn.tl.joint_nmf(mdata, TYPES_RANK)
    sn.tl.assign_clusters(mdata, 10)
    found = mdata.mod["protein"].obs
    matched = found["alignment_distance"].notna()
    labels = mdata.obs["assign_clusters"].cat.codes[mdata.obs_names.get_indexer(rna.obs_names)]
    return labels.to_numpy().astype(int), float((found.index == found["same_as"])[matched].mean())


def rna_alone(peers: list, n: int, um: int, seed: int) -> dict:
    """The same cells without the other section."""
    import spanmf as sn

    rna, _, truth = sections(n, um, seed)
    import anndata as ad

    def labels(table) -> np.ndarray:
        pair = {"rna": table, "protein": table}
        own = ad.AnnData(modality(sn._mudata.make(pair), "rna"))
        sn.tl.nmf(own, TYPES_RANK)
        return clustered(sn._data.get_scaled(own, "X_nmf", "gram"))

    labels(sections(500, um, 0)[0])
    found, spent = timed(lambda: labels(rna))
    return spent | _scored(found, truth, "")


def _scored(labels: np.ndarray, truth: np.ndarray, more: str) -> dict:
    out = scores(labels, truth, np.ones(len(truth), dtype=bool))
    return out | {"notes": ", ".join(filter(None, [out["notes"], more]))}


MEASUREMENTS: Measurements = {
    "joint_displaced": {"RNA alone": rna_alone, "spanmf, nearest": joint(None), "spanmf": joint(WARP)}
}


if __name__ == "__main__":
    main(MEASUREMENTS)
