"""Consensus NMF of the breast tumour's 34,451 cells, ours and cNMF's: the same counts, ranks and restarts.

Both get the counts of all 313 genes at unit variance, which is what cNMF factorises. ``SPANMF_CNMF_PYTHON`` names an
interpreter that has ``cnmf``; without it the peer is left out. Called by ``run.py``.
"""

from __future__ import annotations

import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from common import Measurements, main, peer_python, peer_script, real_table, timed

RANKS = (5, 8, 10, 12, 15)


@cache
def tissue(n: int):
    """The cells with counts (the first n), and their counts at unit variance in a layer."""
    import anndata as ad
    import scanpy as sc

    adata = ad.read_h5ad(real_table("xenium_breast_tiles.h5ad"))
    sc.pp.filter_cells(adata, min_counts=1)
    sc.pp.filter_genes(adata, min_counts=1)
    adata = adata[:n].copy()
    adata.X = sp.csr_matrix(adata.X, dtype=np.float32)
    scaled = adata.copy()
    sc.pp.scale(scaled, zero_center=False)
    adata.layers["scaled"] = sp.csr_matrix(scaled.X, dtype=np.float32)
    return adata


def objective(H: np.ndarray, n: int) -> float:
    """``½‖X − WH‖²`` with the best W for these spectra."""
    from spanmf.core import _error, _ops, _solver

    X = _ops.as_rows(tissue(n).layers["scaled"])
    return _error.objective(X, _solver.solve_w(X, H, tol=1e-6), H)


def cnmf_peer(peers: list, n: int, restarts: int, peer_restarts: int) -> dict:
    """Fewer restarts than ours are measured where cNMF takes too long; its factorisations are then scaled up."""
    import pandas as pd

    python = peer_python("SPANMF_CNMF_PYTHON", "cnmf")
    with tempfile.TemporaryDirectory() as folder:
        adata = tissue(n).copy()
        del adata.layers["scaled"]
        adata.X = adata.X.astype(np.float64)
        adata.write_h5ad(f"{folder}/counts.h5ad")
        Path(f"{folder}/genes.txt").write_text("\n".join(adata.var_names))
        out = peer_script(python, "cnmf_peer.py", f"{folder}/counts.h5ad", folder, peer_restarts, *RANKS)
        spectra = {
            k: pd.read_csv(f"{folder}/run/run.spectra.k_{k}.dt_0_5.consensus.txt", sep="\t", index_col=0) for k in RANKS
        }
    H = {k: s[tissue(n).var_names].to_numpy(np.float64) for k, s in spectra.items()}
    H = {k: h / np.linalg.norm(h, axis=1, keepdims=True) for k, h in H.items()}
    values = {k: objective(h, n) for k, h in H.items()}
    scale = {"factorise": restarts / peer_restarts}
    wall, cpu = (sum(s[i] * scale.get(name, 1) for name, s in out["seconds"].items()) for i in (0, 1))
    stages = {name: round(s[1], 1) for name, s in out["seconds"].items()}
    scaled = "" if restarts == peer_restarts else f", {peer_restarts} restarts measured and scaled to {restarts}"
    return {
        "wall_s": wall,
        "cpu_s": cpu,
        "peak_gib": out["peak_gib"],
        "stages": stages,
        "values": values,
        "objective": sum(values.values()),
        "spectra": {k: h.tolist() for k, h in H.items()},
        "notes": ", ".join(f"{name} {seconds:.3g} s" for name, seconds in stages.items()) + scaled,
    }


def cnmf_ours(peers: list, n: int, restarts: int, peer_restarts: int) -> dict:
    from scipy.optimize import linear_sum_assignment

    import spanmf as sn

    adata = tissue(n)
    sn.tl.consensus_nmf(adata[:500].copy(), 5, n_restarts=2, layer="scaled", mask_var=None)  # compiles
    start = time.perf_counter()

    def run() -> None:
        for k in RANKS:
            sn.tl.consensus_nmf(adata, k, n_restarts=restarts, layer="scaled", mask_var=None, key_added=f"c{k}")

    _, spent = timed(run)
    values = {k: objective(adata.varm[f"c{k}_loadings"].T, n) for k in RANKS}
    stable = {k: round(adata.uns[f"c{k}"]["silhouette"], 2) for k in RANKS}
    out = spent | {"values": values, "silhouette": stable, "seconds_in_all": time.perf_counter() - start}
    out |= {"objective": sum(values.values()), "notes": f"silhouette {stable}"}
    if not peers:
        return out
    peer = peers[0]
    cosine = {}
    for k in RANKS:
        C = np.array(peer["spectra"][str(k)]) @ adata.varm[f"c{k}_loadings"].astype(np.float64)
        cosine[k] = round(float(C[linear_sum_assignment(-C)].mean()), 3)
    above = {k: values[k] / peer["values"][str(k)] - 1 for k in RANKS}
    notes = (
        f"objective at a rank {min(above.values()):+.0e} to {max(above.values()):+.0e} of the peer's, "
        f"cosine of matched spectra {min(cosine.values()):.2f}–{max(cosine.values()):.2f}"
    )
    return out | {"cosine": cosine, "above_peer": above, "notes": notes}


MEASUREMENTS: Measurements = {"consensus": {"cNMF": cnmf_peer, "spanmf": cnmf_ours}}


if __name__ == "__main__":
    main(MEASUREMENTS)
