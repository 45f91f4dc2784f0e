"""Co-localisation of cell types: exact join counts against squidpy's 1,000 permutations. Called by ``run.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Measurements, main, timed, timed_often

N_TYPES = 20
N_PERMUTATIONS = 1_000


def tissue(n: int) -> Any:
    """Cells with a contact graph and 20 types in patches."""
    import pandas as pd

    import spanmf as sn

    adata = sn.datasets.xenium_tissue(n)
    sn.gr.contact_neighbors(adata, 20, 0, library_key="library")
    rng = np.random.default_rng(0)
    types = adata.obs["cell_type"].cat.codes.to_numpy() + 12 * (rng.random(n) < 0.5)
    adata.obs["type"] = pd.Categorical(np.minimum(types, N_TYPES - 1).astype(str))
    return adata


def permutations(peers: list, n: int) -> dict:
    import squidpy as sq

    adata = tissue(n)
    sq.gr.nhood_enrichment(
        adata, "type", connectivity_key="contact", n_perms=10, seed=0, n_jobs=1, show_progress_bar=False
    )
    _, spent = timed(
        lambda: sq.gr.nhood_enrichment(
            adata, "type", connectivity_key="contact", n_perms=N_PERMUTATIONS, seed=0, n_jobs=1, show_progress_bar=False
        )
    )
    z = np.asarray(adata.uns["type_nhood_enrichment"]["zscore"])
    return spent | {"correlation": 1.0, "notes": f"{N_PERMUTATIONS} permutations", "z": z.round(4).tolist()}


def exact(peers: list, n: int) -> dict:
    import spanmf as sn

    adata = tissue(n)
    sn.gr.colocalization(adata, "type", connectivity_key="contact")
    table, spent = timed_often(lambda: sn.gr.colocalization(adata, "type", connectivity_key="contact"))
    out = spent | {"notes": f"{len(table)} pairs"}
    if peers:
        names = list(adata.obs["type"].cat.categories)
        theirs = np.array(peers[0]["z"])
        pairs = [(names.index(a), names.index(b)) for a, b in zip(table["a"], table["b"], strict=True)]
        z = np.array([theirs[p] for p in pairs])
        r, off = float(np.corrcoef(z, table["z"])[0, 1]), np.abs(z - table["z"]).max()
        out["correlation"] = r
        out["notes"] += f", z against the peer's: correlation {r:.4f}, largest difference {off:.2f}"
    return out


MEASUREMENTS: Measurements = {
    "colocalization": {"squidpy.gr.nhood_enrichment": permutations, "spanmf": exact},
    "colocalization_alone": {"spanmf": exact},
}

if __name__ == "__main__":
    main(MEASUREMENTS)
