"""Does ``tl.select_n_components`` find a planted rank? Called by ``run.py``; one measurement is some seeds (ten).

* ``tissue``: `datasets.xenium_tissue` in space, of rank k: k − 5 cell types, four states (1–8 % of the transcripts) and the ambient
  background, 150 transcripts a cell. Below rank 7 there are no states: k − 1 types and the background, the shares of
  the states going back to the others. The background is nearly a mixture of the types, so k − 1 is what there is to see.
* ``factors``: `datasets.planted_factors` with the overlap, evenness and background of ``"hard"``: programmes that share most
  genes, several in a cell, 150 counts, no coordinates.

300 genes; library size and log1p as usual. 2 to 20 components are compared whatever the truth, all other options being the defaults
but for two runs to judge stability. Seeds 0 to 9 served to develop the selector; the figures in the docs are of seeds
100 to 109.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from common import Measurements, main, timed

RANKS = range(2, 21)


def planted(kind: str, n: int, k: int, seed: int) -> Any:
    """Counts of a planted rank."""
    import spanmf as sn

    if kind == "factors":
        return sn.datasets.planted_factors(n, 300, k, difficulty="hard", log_normalize=False, rng=seed)
    n_states = 4 if k >= 7 else 0
    adata = sn.datasets.xenium_tissue(n, n_types=k - 1 - n_states, rng=seed)
    if not n_states:
        from scipy.sparse import csr_matrix

        W, H = adata.obsm["W_true"].astype(np.float64), adata.varm["H_true"].T.astype(np.float64)
        keep = [*range(k - 1), W.shape[1] - 1]
        total = W.sum(1, keepdims=True)
        W = W[:, keep] / W[:, keep].sum(1, keepdims=True) * total
        counts = np.random.default_rng([seed, 1]).poisson(W @ (H[keep] / H[keep].sum(1, keepdims=True)))
        adata.X = csr_matrix(counts.astype(np.float32))
        adata = adata[counts.any(1)].copy()
    return adata


def select(peers: list, n: int, kind: str, k: int, first: int, loss: str, n_seeds: int) -> dict:
    import scanpy as sc

    import spanmf as sn

    found, elbows, most_stable = [], [], []
    spent = {"wall_s": 0.0, "cpu_s": 0.0}
    for seed in range(first, first + n_seeds):
        adata = planted(kind, n, k, seed)
        if loss == "frobenius":
            sc.pp.normalize_total(adata)
            sc.pp.log1p(adata)
        key = "library" if kind == "tissue" else None
        table, one = timed(
            lambda a=adata, key=key, s=seed: sn.tl.select_n_components(
                a, RANKS, loss=loss, library_key=key, n_restarts=2, rng=s
            )
        )
        spent = {name: spent[name] + one[name] for name in spent}
        found.append(table.attrs["n_components"])
        elbows.append(int(table["n_components"][table["elbow"]].item()))
        most_stable.append(int(table["n_components"][table["stability"].argmax()]))
        print(kind, k, seed, loss, found[-1], elbows[-1], most_stable[-1], file=sys.stderr, flush=True)
    off = np.abs(np.array(found) - k)
    near = {
        name: int((np.abs(np.array(v) - k) <= 1).sum()) for name, v in (("elbow", elbows), ("stability", most_stable))
    }
    return spent | {
        "found": found,
        "elbow": elbows,
        "most_stable": most_stable,
        "exact": int((off == 0).sum()),
        "one_off": int((off <= 1).sum()),
        "notes": f"right or one off in {int((off <= 1).sum())} of {n_seeds}, right in {int((off == 0).sum())}; "
        f"the elbow is right or one off in {near['elbow']}, the most stable rank in {near['stability']}",
    }


MEASUREMENTS: Measurements = {"rank_selection": {"spanmf": select}}


if __name__ == "__main__":
    main(MEASUREMENTS)
