"""Domains by other packages; run by ``real_tissues.py`` in an interpreter that has them.

``python peers_domains.py METHOD table.h5ad labels.csv N_DOMAINS``: the table holds log-normalised values, ``obsm["spatial"]``
and ``obs["library"]``. Writes one column a labeling and prints one JSON line. A method that asks for a number of domains
gets N_DOMAINS; one that runs Leiden is run at its resolution 1 and at the one of a few others that comes nearest to
N_DOMAINS. Everything by the packages' public functions, with the steps of their own introductions.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

warnings.simplefilter("ignore")
import anndata as ad  # noqa: E402
import matplotlib as mpl  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import scanpy as sc  # noqa: E402

mpl.use("Agg")
LARGE = 5000  # observations from which on Leiden is run at two resolutions only
SEED = 0
Labels = dict[str, np.ndarray]


def principal_components(adata: ad.AnnData, n_comps: int) -> None:
    """Of the 2,000 most variable genes where there are more than 3,000."""
    if adata.n_vars > 3000:
        sc.pp.highly_variable_genes(adata, n_top_genes=2000)
    sc.pp.pca(adata, n_comps=n_comps, random_state=SEED)


def neighbours(adata: ad.AnnData) -> None:
    """Scanpy's graph on the components; exact, since pynndescent 0.7 fails above 8,192 observations."""
    sc.pp.neighbors(adata, transformer="sklearn", random_state=SEED)


def triangulated(adata: ad.AnnData) -> None:
    """Delaunay neighbours within each library, the longest per cent left out."""
    import squidpy as sq

    sq.gr.spatial_neighbors(adata, coord_type="generic", delaunay=True, percentile=99, library_key="library")


def by_resolution(run: Callable[[float], np.ndarray], n: int, n_domains: int) -> Labels:
    """Labels at resolution 1, and at the one that comes nearest to the wanted number."""
    grid = (0.4, 1.0) if n >= LARGE else (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.4)
    found = {r: run(r) for r in grid}
    nearest = min(grid, key=lambda r: (abs(len(np.unique(found[r])) - n_domains), abs(r - 1)))
    out = {"resolution 1": found[1.0]}
    if nearest != 1.0:
        out[f"resolution {nearest}"] = found[nearest]
    return out


def pca_leiden(adata: ad.AnnData, n_domains: int) -> Labels:
    """No space at all: the usual clusters of cells."""
    principal_components(adata, 30)
    neighbours(adata)

    def run(resolution: float) -> np.ndarray:
        sc.tl.leiden(adata, resolution, flavor="igraph", n_iterations=2, directed=False, random_state=SEED)
        return adata.obs["leiden"].to_numpy()

    return by_resolution(run, adata.n_obs, n_domains)


def cellcharter(adata: ad.AnnData, n_domains: int) -> Labels:
    """Ten principal components (scVI's latent space has ten), three hops, Gaussian mixture."""
    import cellcharter as cc

    principal_components(adata, 10)
    triangulated(adata)
    cc.gr.aggregate_neighbors(adata, n_layers=3, use_rep="X_pca", sample_key="library")
    model = cc.tl.Cluster(n_clusters=n_domains, random_state=SEED)
    model.fit(adata, use_rep="X_cellcharter")
    return {"": np.asarray(model.predict(adata, use_rep="X_cellcharter"))}


def banksy(weight: float, adata: ad.AnnData, n_domains: int) -> Labels:
    """Fifteen neighbours, scaled Gaussian, first-order gradient; twenty components of the scaled matrix; its Leiden.

    Libraries are laid out far apart, since it takes none.
    """
    from banksy.cluster_methods import run_Leiden_partition
    from banksy.embed_banksy import generate_banksy_matrix
    from banksy.initialize_banksy import initialize_banksy
    from banksy_utils.umap_pca import pca_umap

    if adata.n_vars > 3000:
        sc.pp.highly_variable_genes(adata, n_top_genes=2000)
        adata = adata[:, adata.var["highly_variable"]].copy()
    adata = adata[:, np.asarray(adata.X.sum(0)).ravel() > 0].copy()
    sc.pp.scale(adata)
    width = np.ptp(adata.obsm["spatial"][:, 0]) * 2
    adata.obsm["apart"] = adata.obsm["spatial"] + np.outer(adata.obs["library"].cat.codes * width, [1, 0])
    adata.obs["x"], adata.obs["y"] = adata.obsm["apart"].T
    held = initialize_banksy(
        adata, ("x", "y", "apart"), num_neighbours=15, nbr_weight_decay="scaled_gaussian", max_m=1,
        plt_edge_hist=False, plt_nbr_weights=False, plt_theta=False,
    )  # fmt: skip
    held, _ = generate_banksy_matrix(adata, held, [weight], 1, verbose=False)
    pca_umap(held, pca_dims=[20], plt_remaining_var=False, add_umap=False)

    def run(resolution: float) -> np.ndarray:
        table, _ = run_Leiden_partition(held, [resolution], num_nn=50, partition_seed=SEED, match_labels=False)
        return np.asarray(table["labels"].iloc[0].dense)

    return by_resolution(run, adata.n_obs, n_domains)


def niches(flavor: str, adata: ad.AnnData, n_domains: int) -> Labels:
    """``squidpy.gr.calculate_niche`` over all libraries together."""
    import squidpy as sq

    principal_components(adata, 30)
    neighbours(adata)
    triangulated(adata)
    if flavor == "neighborhood":
        sc.tl.leiden(adata, 1.0, flavor="igraph", n_iterations=2, directed=False, random_state=SEED, key_added="type")

    def run(**options: object) -> np.ndarray:
        there = set(adata.obs)
        sq.gr.calculate_niche(adata, flavor=flavor, **options)
        (column,) = sorted(set(adata.obs) - there)
        return adata.obs.pop(column).astype(str).to_numpy()

    if flavor == "cellcharter":
        return {"": run(distance=3, aggregation="mean", n_components=n_domains, random_state=SEED)}
    options = {
        "spatialleiden": {"random_state": SEED},
        "neighborhood": {"groups": "type", "n_neighbors": 15, "distance": 3},
        "utag": {"n_neighbors": 15},
    }[flavor]
    return by_resolution(lambda r: run(resolutions=[r], **options), adata.n_obs, n_domains)


METHODS: dict[str, tuple[Callable[[ad.AnnData, int], Labels], tuple[str, ...]]] = {
    "CellCharter": (cellcharter, ("cellcharter",)),
    "BANKSY 0.8": (partial(banksy, 0.8), ("pybanksy",)),
    "squidpy spatialleiden": (partial(niches, "spatialleiden"), ("squidpy", "spatialleiden")),
    "BANKSY 0.2": (partial(banksy, 0.2), ("pybanksy",)),
    "PCA, Leiden": (pca_leiden, ("scanpy", "igraph")),
    "squidpy cellcharter": (partial(niches, "cellcharter"), ("squidpy",)),
    "squidpy utag": (partial(niches, "utag"), ("squidpy",)),
    "squidpy neighborhood": (partial(niches, "neighborhood"), ("squidpy",)),
}


def main() -> None:
    """Run one method."""
    name, table, out, n_domains = sys.argv[1:]
    adata = ad.read_h5ad(table)
    function, packages = METHODS[name]
    with contextlib.redirect_stdout(sys.stderr):
        wall, cpu = time.perf_counter(), time.process_time()
        labels = function(adata, int(n_domains))
        spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    pd.DataFrame(labels, index=adata.obs_names).to_csv(out)
    spent["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(spent | {"peer_versions": {p: version(p) for p in packages}}))


if __name__ == "__main__":
    main()
