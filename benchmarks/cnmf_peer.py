"""cNMF on a table of counts; run by ``consensus.py`` in an interpreter that has it.

``python cnmf_peer.py counts.h5ad FOLDER RESTARTS K …``: prepare, factorise, combine, consensus at every rank. Prints one
JSON line; the consensus spectra stay in FOLDER.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
import warnings

warnings.simplefilter("ignore")
import matplotlib as mpl  # noqa: E402

mpl.use("Agg")
from cnmf import cNMF  # noqa: E402

counts, folder, restarts, *ranks = sys.argv[1:]
model = cNMF(output_dir=folder, name="run")
seconds: dict[str, tuple[float, float]] = {}


@contextlib.contextmanager
def stage(name: str):
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    seconds[name] = (time.perf_counter() - wall, time.process_time() - cpu)


with contextlib.redirect_stdout(sys.stderr):
    with stage("prepare"):
        # 313 genes: all of them, as in ours
        genes = f"{folder}/genes.txt"
        model.prepare(counts, [int(k) for k in ranks], n_iter=int(restarts), seed=0, genes_file=genes)
    with stage("factorise"):
        model.factorize()
    with stage("consensus"):
        model.combine()
        for k in ranks:
            model.consensus(int(k), density_threshold=0.5, show_clustering=False, build_ref=False)
print(json.dumps({"seconds": seconds, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
