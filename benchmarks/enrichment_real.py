"""Enrichment of domains in the package's own cell markers, better and published form: ``python benchmarks/enrichment_real.py``.

Beside docs/evaluation.md, whose tables have no such column: marker sets of cell types are no library of pathways.
"""

from __future__ import annotations

import warnings

import pandas as pd
from real_tissues import RANK, RESOLUTION, tissue

import spanmf as sn

RUNS = {
    "nmf": lambda a: sn.tl.nmf(a, RANK),
    "snmf diffuse": lambda a: sn.tl.snmf(a, RANK, smoothing="diffuse", key_added="snmf diffuse"),
    "snmf refit": lambda a: sn.tl.snmf(a, RANK, key_added="snmf refit"),
    "snmf laplacian": lambda a: sn.tl.snmf(a, RANK, smoothing="laplacian", key_added="snmf laplacian"),
    "hsnmf": lambda a: sn.tl.hsnmf(a, RANK, resolution=RESOLUTION),
    "hsnmf paper": lambda a: sn.tl.hsnmf(a, RANK, resolution=RESOLUTION, preset="paper", key_added="hsnmf paper"),
}


def main() -> None:
    markers = sn.datasets.cell_markers()
    genes = markers[markers["kind"] == "gene"]
    sets = {str(k): list(v) for k, v in genes.groupby("cell_type")["marker"]}
    for name in ("xenium_breast_tiles", "starmap_v1_1020"):
        adata = tissue(name)
        adata.var_names = adata.var_names.str.upper()  # mouse genes are written in small letters
        rows = {}
        for key, run in RUNS.items():
            run(adata)
            rows[key] = {
                form: sn.metrics.enrichment(adata, key, sets, preset=form, min_cells=50)[0] for form in (None, "paper")
            }
        print(name, len(sets), "sets\n", pd.DataFrame(rows).T.set_axis(["better", "published"], axis=1).round(2))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
