"""FlashDeconv on the arrays in a folder; run by ``deconvolution.py`` in an interpreter that has it."""

from __future__ import annotations

import json
import sys
import time
import warnings

import numpy as np
import scipy.sparse as sp
from flashdeconv import FlashDeconv

warnings.simplefilter("ignore")
folder = sys.argv[1]
X, rest = sp.load_npz(f"{folder}/X.npz"), np.load(f"{folder}/rest.npz")
few = slice(0, min(400, X.shape[0]))
FlashDeconv().fit(X[few], rest["B"], rest["coords"][few])  # compiles
wall, cpu = time.perf_counter(), time.process_time()
model = FlashDeconv().fit(X, rest["B"], rest["coords"])
spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
np.save(f"{folder}/V.npy", model.get_cell_type_proportions())
print(json.dumps(spent))
