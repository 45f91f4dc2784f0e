"""Enrichment of domains in the package's own cell markers, better and published form. Called by ``run.py``.

Beside docs/evaluation.md, whose tables have no such column: marker sets of cell types are no library of pathways.
"""

from __future__ import annotations

import pandas as pd
from common import Measurements, main, timed
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


def measure(peers: list, n: int, name: str) -> dict:
    """Both forms of every method's domains; the seconds are those of the scores."""
    markers = sn.datasets.cell_markers()
    genes = markers[markers["kind"] == "gene"]
    sets = {str(k): list(v) for k, v in genes.groupby("cell_type")["marker"]}
    adata = tissue(name)
    adata.var_names = adata.var_names.str.upper()  # mouse genes are written in small letters
    for run in RUNS.values():
        run(adata)

    def scores() -> dict[str, dict[str, float]]:
        forms = {"better": None, "published": "paper"}
        return {
            key: {
                f: float(sn.metrics.enrichment(adata, key, sets, preset=p, min_cells=50)[0]) for f, p in forms.items()
            }
            for key in RUNS
        }

    found, spent = timed(scores)
    text = pd.DataFrame(found).T.round(2).to_string()
    return spent | {"enrichment": found, "text": text, "notes": f"{len(sets)} sets"}


MEASUREMENTS: Measurements = {"enrichment_real": {"spanmf": measure}}


if __name__ == "__main__":
    main(MEASUREMENTS)
