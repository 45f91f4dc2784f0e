"""The table of the hSNMF paper on real tissues: our methods, the baselines a user would try, and what noise reaches.

    python benchmarks/run.py --only real_tissues     # then --docs: writes docs/evaluation.md

``SPANMF_TEST_DATA`` names the folder of the tissues (else ../shared/data beside the project); without it nothing is run.
``SPANMF_PEERS_PYTHON`` names an interpreter with cellcharter, pybanksy, squidpy and spatialleiden (``peers_domains.py``);
a peer it lacks is left out. Called by ``run.py``; every labeling is scored by ``metrics.panel`` on one graph a tissue.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from common import HERE, Measurements, left_out, main, peer_python, real_table, timed
from peers_domains import METHODS

import spanmf as sn
from spanmf.core import _ops, _smooth, _solver

RANK, RESOLUTION = 10, 0.4
TISSUES = {  # label, library, only the 2,000 most variable genes
    "xenium_breast_tiles": (None, "tile", False),
    "starmap_v1_1020": ("layer", None, False),
    "her2st_H1": ("region", None, True),
    "pdac_a_st": ("region", None, True),
}
UNLABELLED = ("unannotated", "undetermined")
RANKS, RESOLUTIONS = (5, 10, 15, 20, 25), (0.2, 0.4, 0.6, 0.8, 1.0)
Records = list[dict[str, Any]]


def tissue(name: str) -> ad.AnnData:
    """Log-normalised values of the observations with counts, the contact graph, the known labels in obs["truth"]."""
    path = real_table(f"{name}.h5ad")
    label, library, select = TISSUES[name]
    adata = ad.read_h5ad(path)
    sc.pp.filter_cells(adata, min_counts=1)
    adata.X = sp.csr_matrix(adata.X, dtype=np.float32)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    if select:
        sc.pp.highly_variable_genes(adata, n_top_genes=2000)
    adata.obs["library"] = adata.obs[library].astype("category") if library else pd.Categorical(["all"] * adata.n_obs)
    if label:
        truth = adata.obs[label].astype(str)
        adata.obs["truth"] = truth.where(~truth.isin(UNLABELLED)).astype("category")
    sn.gr.contact_neighbors(adata, library_key="library")
    radius = adata.uns["contact_neighbors"]["params"]["contact_radius"]
    sn.gr.contact_neighbors(adata, radius, 0, library_key="library", key_added="ring")
    return adata


def true_number(adata: ad.AnnData) -> int | None:
    """How many domains are known."""
    return int(adata.obs["truth"].nunique()) if "truth" in adata.obs else None


# --- scores -----------------------------------------------------------------------------------------------------------


def scored(adata: ad.AnnData, keys: list[str]) -> Records:
    """The panel, and beside it the published forms and the separation in one space for all (factors of plain NMF)."""
    reference = "truth" if "truth" in adata.obs else None
    table = sn.metrics.panel(
        adata, keys, library_key="library", connectivity_key="contact", reference_key=reference
    )  # fmt: skip
    rows = table[["key", "metric", "value"]].to_dict("records")
    for key in keys:
        further = published(adata, key) | in_one_space(adata, key)
        rows += [{"key": key, "metric": name, "value": value} for name, value in further.items()]
    return [row | {"value": None if np.isnan(row["value"]) else float(row["value"])} for row in rows]


def published(adata: ad.AnnData, key: str) -> dict[str, float]:
    """The forms of the paper (``preset="paper"``)."""
    m, paper = sn.metrics, {"preset": "paper"}
    if adata.obs[key].nunique() < 2:
        return {}
    out = {
        "chaos_paper": m.chaos(adata, key, **paper),
        "edge_agreement_ring_paper": m.edge_agreement(adata, key, connectivity_key="ring", **paper).observed,
        "edge_agreement_paper": m.edge_agreement(adata, key, connectivity_key="contact", **paper).observed,
        "marker_coherence_paper": m.marker_coherence(adata, key, **paper).mean,
        "marker_exclusion_rate_paper": m.marker_exclusion_rate(adata, key, **paper).rate,
    }
    if f"X_{key}" in adata.obsm:
        out |= {
            "morans_i_paper": m.morans_i(adata, key, **paper)["I"].iloc[0],
            "silhouette_paper": m.silhouette(adata, key, **paper),
            "davies_bouldin_paper": m.davies_bouldin(adata, key, **paper),
        }
    return out


def in_one_space(adata: ad.AnnData, key: str) -> dict[str, float]:
    """Separation of the labels in the factors of plain NMF: each method's own space cannot be compared with another's."""
    if adata.obs[key].nunique() < 2:
        return {}
    return {
        "silhouette_common": sn.metrics.silhouette(adata, key, use_rep="X_nmf"),
        "davies_bouldin_common": sn.metrics.davies_bouldin(adata, key, use_rep="X_nmf"),
        "chaos_over_permuted": sn.metrics.chaos(
            adata, key, library_key="library", normalized="permuted", n_permutations=2
        ),
    }


def codes(adata: ad.AnnData, keys: list[str]) -> dict[str, list[int]]:
    """Labels as numbers, for the maps."""
    return {key: adata.obs[key].astype("category").cat.codes.tolist() for key in keys}


# --- ours -------------------------------------------------------------------------------------------------------------


def add_leiden(adata: ad.AnnData, key: str, **options: Any) -> str:
    """Domains of factors that are there, by Leiden on their own neighbours (and, with alpha, in space)."""
    new = f"{key}, Leiden"
    options = {"alpha": 0.0, "resolution": RESOLUTION} | options
    if "n_domains" in options:
        del options["resolution"]
    sn.tl.hsnmf(adata, use_rep=f"X_{key}", smooth=False, key_added=new, **options)
    adata.obsm[f"X_{new}"], adata.varm[f"{new}_loadings"] = adata.obsm[f"X_{key}"], adata.varm[f"{key}_loadings"]
    adata.uns[new] = adata.uns[key]
    return new


def add_null(adata: ad.AnnData, n_domains: int) -> str:
    """Rows of NMF's factors put to random places, smoothed and clustered as published: all space in it is the method's."""
    key = "noise"
    sn.tl.snmf(adata, RANK, smoothing="diffuse", key_added=key)
    W = np.ascontiguousarray(adata.obsm["X_nmf"][np.random.default_rng(0).permutation(adata.n_obs)])
    graph = _smooth.as_graph(adata.obsp["contact_connectivities"])
    adata.obsm[f"X_{key}"] = _smooth.diffuse(graph, W, 0.6, 2)
    return add_leiden(adata, key, alpha=0.5, clustering="leiden", n_domains=n_domains)


def ours(peers: list, n: int, name: str) -> dict:
    """NMF, three SNMF, hSNMF better and published: each by its dominant component and by Leiden where it has none."""
    adata = tissue(name)
    seconds: dict[str, float] = {}

    def run(key: str, function: Callable[..., None], **options: Any) -> str:
        start = time.process_time()
        function(adata, RANK, key_added=key, **options)
        seconds[key] = round(time.process_time() - start, 2)
        return key

    def methods() -> list[str]:
        keys = [run("nmf", sn.tl.nmf)]
        keys += [run(f"snmf {s}", sn.tl.snmf, smoothing=s) for s in ("diffuse", "refit", "laplacian")]
        keys += [add_leiden(adata, key) for key in tuple(keys)]
        keys.append(run("hsnmf", sn.tl.hsnmf))
        keys.append(run("hsnmf paper", sn.tl.hsnmf, preset="paper"))
        wanted = true_number(adata) or int(adata.obs["hsnmf"].nunique())
        keys.append(run("hsnmf, number given", sn.tl.hsnmf, n_domains=wanted))
        if name.startswith("xenium"):
            sn.gr.contact_neighbors(adata, preset="paper", library_key="library", key_added="published")
            key = run("hsnmf paper, 20 and 80 µm", sn.tl.hsnmf, preset="paper", connectivity_key="published")
            keys.append(key)
        return keys

    keys, spent = timed(methods)
    found = {key: int(adata.obs[key].nunique()) for key in keys}
    return spent | {
        "scores": scored(adata, keys),
        "labels": codes(adata, keys),
        "seconds": seconds,
        "n_domains": true_number(adata) or found["hsnmf"],
        "n_obs": adata.n_obs,
        "libraries": adata.obs["library"].cat.codes.tolist(),
        "radii": {k: adata.uns["contact_neighbors"]["params"][k] for k in ("contact_radius", "context_radius")},
        "notes": f"domains found: {found}",
    }


# --- peers ------------------------------------------------------------------------------------------------------------


def peer(method: str, rows: list, n: int, name: str) -> dict:
    """One method of ``peers_domains.py``, scored like ours."""
    python = peer_python("SPANMF_PEERS_PYTHON", *METHODS[method][1])
    adata = tissue(name)
    wanted = next(r["n_domains"] for r in rows if "n_domains" in r)
    with tempfile.TemporaryDirectory() as folder:
        given = ad.AnnData(adata.X, adata.obs[["library"]], adata.var[[]], obsm={"spatial": adata.obsm["spatial"]})
        given.write_h5ad(f"{folder}/table.h5ad")
        command = [
            python,
            HERE / "peers_domains.py",
            method,
            f"{folder}/table.h5ad",
            f"{folder}/labels.csv",
            wanted,
        ]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode:
            left_out(f"{method}\n{done.stderr[-1500:]}")
        spent = json.loads(done.stdout.strip().splitlines()[-1])
        labels = pd.read_csv(f"{folder}/labels.csv", index_col=0, dtype=str, keep_default_na=False)
    keys = []
    for column in labels:
        key = method if column.startswith("Unnamed") or not column else f"{method}, {column}"
        adata.obs[key] = pd.Categorical(labels[column].to_numpy())
        keys.append(key)
    sn.tl.nmf(adata, RANK)
    found = {key: int(adata.obs[key].nunique()) for key in keys}
    return spent | {"scores": scored(adata, keys), "labels": codes(adata, keys), "notes": f"domains found: {found}"}


# --- what smoothing and size alone reach ----------------------------------------------------------------------------------


def floors(rows: list, n: int, name: str) -> dict:
    """Moran's I by steps of smoothing, CHAOS by size, and noise that went the way of hSNMF."""
    adata = tissue(name)
    sn.tl.nmf(adata, RANK)
    sn.tl.hsnmf(adata, RANK)
    out, spent = timed(lambda: {"moran": moran_floors(adata), "chaos": chaos_floors(adata)})
    out["afresh"] = afresh(adata)
    key = add_null(adata, next(r["n_domains"] for r in rows if "n_domains" in r))
    out |= {"scores": scored(adata, [key]), "labels": codes(adata, [key])}
    return spent | out | {"notes": f"domains of noise: {adata.obs[key].nunique()}"}


def moran_floors(adata: ad.AnnData) -> Records:
    """Mean and first factor's Moran's I of real factors, of permuted rows and of noise, by graph and steps."""
    rng = np.random.default_rng(0)
    W = adata.obsm["X_nmf"]
    inputs = {
        "factors of NMF": W,
        "the same, rows permuted": W[rng.permutation(len(W))],
        "uniform noise": rng.random(W.shape, dtype=np.float32),
    }
    records = []
    for graph in ("ring", "contact"):
        A = adata.obsp[f"{graph}_connectivities"]
        smoother = _smooth.as_graph(A)
        for what, values in inputs.items():
            for n_steps in (0, 1, 2, 4, 8, 16):
                smooth = _smooth.diffuse(smoother, np.ascontiguousarray(values), 0.6, n_steps)
                I = sn.metrics.morans_i(A, smooth)["I"]  # noqa: E741
                records.append({"graph": graph, "values": what, "n_steps": n_steps, "mean": float(I.mean()),
                                "first": float(I.iloc[0]), "max": float(I.max())})  # fmt: skip
    return records


def afresh(adata: ad.AnnData) -> dict[str, float]:
    """Mean Moran's I of every form's components where nothing is smoothed: W solved anew from X with H as it is."""
    used = adata.var["highly_variable"].to_numpy() if "highly_variable" in adata.var else np.ones(adata.n_vars, bool)
    X = _ops.as_rows(adata.X, used)
    for smoothing in ("diffuse", "refit", "laplacian"):
        sn.tl.snmf(adata, RANK, smoothing=smoothing, key_added=f"snmf {smoothing}")
    out = {}
    for key in ("nmf", "snmf diffuse", "snmf refit", "snmf laplacian"):
        W = _solver.solve_w(X, np.ascontiguousarray(adata.varm[f"{key}_loadings"].T[:, used]), tol=1e-6)
        out[key] = float(sn.metrics.morans_i(adata.obsp["contact_connectivities"], W)["I"].mean())
    return out


def chaos_floors(adata: ad.AnnData) -> Records:
    """Published CHAOS of one label for all, of ten labels at random and of hSNMF's, on thinned tissue."""
    rng = np.random.default_rng(0)
    xy, domains = adata.obsm["spatial"], adata.obs["hsnmf"].astype(str).to_numpy()
    records = []
    for size in (500, 1500, 5000, 15_000, 10**9):
        rows = np.arange(len(xy)) if size > len(xy) else rng.choice(len(xy), size, replace=False)
        part = ad.AnnData(np.zeros((len(rows), 1), np.float32), obsm={"spatial": xy[rows]})
        labels = {
            "one": np.zeros(len(rows)),
            "ten at random": rng.integers(10, size=len(rows)),
            "hsnmf": domains[rows],
            "hsnmf permuted": rng.permutation(domains[rows]),
        }
        values = {k: float(sn.metrics.chaos(part, v, preset="paper")) for k, v in labels.items()}
        records.append({"n": len(rows)} | values)
        if size > len(xy):
            break
    return records


# --- sweep ------------------------------------------------------------------------------------------------------------

LARGE = 10_000  # fewer runs above
SWEEPS: dict[str, dict[str, Any]] = {
    "NMF": {"beta": 0.0, "alpha": 0.0},
    "SNMF and hSNMF as published": {"preset": "paper", "flavor": "networkit", "alpha": [0.0, 0.5]},
    "SNMF and hSNMF": {"alpha": [0.0, 0.1, 0.5]},
}


def sweep(rows: list, n: int, name: str) -> dict:
    """Five ranks and five resolutions of each form."""
    adata = tissue(name)
    reference = "truth" if "truth" in adata.obs else None
    (HERE / "results").mkdir(exist_ok=True)

    def run() -> pd.DataFrame:
        parts = []
        for i, (form, options) in enumerate(SWEEPS.items()):
            if n > LARGE and form == "SNMF and hSNMF":
                options = options | {"alpha": 0.1}
            file = HERE / "results" / f"sweep-{name}-{i}.jsonl"
            part = sn.tl.sweep(
                adata, RANKS, RESOLUTIONS, library_key="library", connectivity_key="contact", reference_key=reference,
                file=file, **options,
            )  # fmt: skip
            parts.append(part.assign(form=form))
        return pd.concat(parts, ignore_index=True)

    table, spent = timed(run)
    runs = json.loads(table.drop(columns="note").to_json(orient="records"))
    return spent | {"runs": runs, "notes": f"{len(table)} runs"}


MEASUREMENTS: Measurements = {
    "real_tissues": {"spanmf": ours, "floors": floors}
    | {method: partial(peer, method) for method in METHODS}
    | {"sweep": sweep}
}


if __name__ == "__main__":
    main(MEASUREMENTS)
