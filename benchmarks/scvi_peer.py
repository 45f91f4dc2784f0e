"""Stereoscope or DestVI on the arrays in a folder; run by ``deconvolution_deep.py`` in an interpreter that has scvi-tools.

On the 2,000 most variable genes of the cells; epochs of cells and of spots as in ``METHODS``: those that scvi-tools takes by default and in its
tutorials, but for DestVI's spots, which get 500 of 2,500. Its own time, the import apart.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings

import anndata as ad
import numpy as np
import scanpy as sc
import scipy.sparse as sp
import scvi
from scvi.external import RNAStereoscope, SpatialStereoscope
from scvi.model import CondSCVI, DestVI

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
N_GENES = 2000
SILENT = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False, "enable_checkpointing": False}


def tables(folder: str) -> tuple[ad.AnnData, ad.AnnData]:
    """Cells and spots on the variable genes of the cells."""
    types = np.load(f"{folder}/rest.npz")["types"].astype(str)
    cells = ad.AnnData(sp.load_npz(f"{folder}/cells.npz").astype(np.float32), obs={"type": types})
    spots = ad.AnnData(sp.load_npz(f"{folder}/X.npz").astype(np.float32))
    cells.obs["type"] = cells.obs["type"].astype("category")
    spots.obs["type"] = "spot"
    log = cells.copy()
    sc.pp.normalize_total(log, target_sum=1e4)
    sc.pp.log1p(log)
    sc.pp.highly_variable_genes(log, n_top_genes=min(N_GENES, log.n_vars))
    used = log.var["highly_variable"].to_numpy() & (np.asarray(spots.X.sum(0)).ravel() > 0)
    cells, spots = cells[:, used].copy(), spots[:, used].copy()
    return cells[np.asarray(cells.X.sum(1)).ravel() > 0].copy(), spots


def shares(
    of_cells: type, of_spots: type, options: dict, cells: ad.AnnData, spots: ad.AnnData, epochs: tuple[int, int]
) -> tuple[np.ndarray, list[str]]:
    """A model of the cells, then one of the spots that stands on it."""
    of_cells.setup_anndata(cells, labels_key="type")
    reference = of_cells(cells, **options)
    reference.train(max_epochs=epochs[0], **SILENT)
    of_spots.setup_anndata(spots)
    model = of_spots.from_rna_model(spots, reference)
    model.train(max_epochs=epochs[1], **SILENT)
    found = model.get_proportions()
    return found.to_numpy(), list(found.columns)


METHODS = {
    "Stereoscope": (RNAStereoscope, SpatialStereoscope, {}, (400, 2000)),
    "DestVI": (CondSCVI, DestVI, {"weight_obs": False, "prior": "mog"}, (300, 500)),
}


if __name__ == "__main__":
    folder, who = sys.argv[1:]
    cells, spots = tables(folder)
    scvi.settings.seed = 0
    of_cells, of_spots, options, epochs = METHODS[who]
    wall, cpu = time.perf_counter(), time.process_time()
    V, types = shares(of_cells, of_spots, options, cells, spots, epochs)
    spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    out = np.zeros((len(V), int(np.load(f"{folder}/rest.npz")["types"].max()) + 1))
    out[:, [int(t) for t in types]] = V
    np.save(f"{folder}/V.npy", out)
    print(json.dumps(spent))
