"""Tangram on the arrays in a folder; run by ``deconvolution_deep.py`` in an interpreter that has tangram-sc.

On the 100 best markers of each type, as in its tutorial, in its mode for clusters (types in place of single cells are mapped, 1,000 epochs):
the other takes minutes a section.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
import tangram as tg

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
N_MARKERS, EPOCHS = 100, 1000

folder = sys.argv[1]
types = np.load(f"{folder}/rest.npz")["types"]
cells = ad.AnnData(sp.load_npz(f"{folder}/cells.npz").astype(np.float32))
spots = ad.AnnData(sp.load_npz(f"{folder}/X.npz").astype(np.float32))
cells.obs["type"] = pd.Categorical(types.astype(str))
log = cells.copy()
sc.pp.normalize_total(log)
sc.pp.log1p(log)
wall, cpu = time.perf_counter(), time.process_time()
sc.tl.rank_genes_groups(log, "type")
names = pd.DataFrame(log.uns["rank_genes_groups"]["names"]).iloc[:N_MARKERS]
tg.pp_adatas(cells, spots, genes=sorted(set(names.to_numpy().ravel())))
mapped = tg.map_cells_to_space(
    cells, spots, mode="clusters", cluster_label="type", num_epochs=EPOCHS, device="cpu", random_state=0, verbose=False
)
V = np.zeros((spots.n_obs, int(types.max()) + 1))
V[:, mapped.obs["type"].astype(int)] = np.asarray(mapped.X).T * mapped.obs["cluster_density"].to_numpy()
spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
np.save(f"{folder}/V.npy", V)
print(json.dumps(spent))
