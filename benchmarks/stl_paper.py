"""The tests of the STL-NMF paper, rebuilt: its form untrained, at zero weights and trained, beside plain least squares and our default.

* ``square2x2``, ``circle2x2``: the authors' own sections, with their V and B.
* ``clean5``, ``noisy5``, ``clean3``, ``noisy3``: 45 sections each on the places and (three) regions of PDAC-A, profiles from its
  reference: 15 with plain, 15 with noisy, 15 with smoothed shares; the noisy ones with N(0, 0.5) on X.
* ``real``: PDAC-A itself with all 20 types; no truth is known, the score is the mean correlation of each type's shares with the mean log
  expression of its marker genes over the spots; what it lacks to 1 stands for the error.

The error is ``‖V̂ − V‖_F / ‖V‖_F``. Weights are learned (torch is needed, once a set) on 16 sections from another seed, with the
places, regions and profiles of the set they are for, kept in ``results/``. Tables: ``SPANMF_TEST_DATA``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from common import DATA, HERE, Measurements, main, timed
from deconvolution import FIVE, _table, relative_error, shares

THREE = ("Acinar cells", "Cancer clone A", "Cancer clone B")
REGIONS = {"Duct Epithelium": "Pancreas", "Pancreatic": "Pancreas", "Stroma": "Stroma", "Cancer": "Cancer"}
N_TEST, N_TRAIN = 45, 16
TEST_SEED, TRAIN_SEED = 7000, 1


@cache
def section() -> Any:
    """PDAC-A with the three regions of the paper."""
    import pandas as pd

    adata = _table("pdac_a_st").copy()
    names = ["Pancreas", "Stroma", "Cancer"]
    adata.obs["region"] = adata.obs["region"].astype(str).map(REGIONS).astype(pd.CategoricalDtype(names))
    return adata


@cache
def profiles() -> Any:
    import pandas as pd

    return pd.read_csv(DATA / "pdac_a_reference_mean_profiles.csv", index_col=0)


def triplets(kind: str, n: int, seed: int) -> list[Any]:
    """Sections of one of the sets (to learn from, where the set is the authors' own)."""
    import spanmf as sn

    options: dict[str, Any] = {"kind": "all", "rng": seed}
    if kind in ("square2x2", "circle2x2"):
        own = own_section(kind)
        return sn.datasets.stl_nmf_triplets(n, adata=own, reference=own.varm["B"].T, **options)
    types = None if kind == "real" else FIVE if kind.endswith("5") else THREE
    noise = 0.0 if kind.startswith("clean") else 0.5
    return sn.datasets.stl_nmf_triplets(
        n, adata=section(), reference=profiles(), types=types, count_noise=noise, **options
    )


@cache
def own_section(kind: str) -> Any:
    """One of the authors' sections, its B and V as tables."""
    import pandas as pd

    adata = _table(f"stlnmf_synth_{kind}").copy()
    types = [f"type{i}" for i in range(4)]
    adata.varm["B"] = pd.DataFrame(np.asarray(adata.varm["B"]), index=adata.var_names, columns=types)
    adata.obsm["V_true"] = pd.DataFrame(np.asarray(adata.obsm["V_true"]), index=adata.obs_names, columns=types)
    return adata


def tests(kind: str) -> list[Any]:
    """What is scored."""
    if kind == "real":
        return [section()]
    return [own_section(kind)] if "2x2" in kind else triplets(kind, N_TEST, TEST_SEED)


def reference(kind: str, adata: Any) -> Any:
    return profiles() if kind == "real" else adata.varm["B"].T


def learned(kind: str, preset: str | None) -> Any:
    """Weights for a set, learned once."""
    import spanmf as sn

    kind = kind.replace("clean", "noisy")
    path = HERE / "results" / f"stl_weights-{preset or 'rescaled'}-{kind}.json"
    if not path.exists():
        weights = sn.tl.learn_stl_nmf(triplets(kind, N_TRAIN, TRAIN_SEED), preset=preset)
        weights.save(path)
    return sn.tl.StlWeights.load(path)


# --- scores -----------------------------------------------------------------------------------------------------------


@cache
def markers() -> dict[str, list[str]]:
    """Marker genes by type, under the reference's names."""
    import pandas as pd

    table = pd.read_csv(DATA / "pdac_a_card_markers.csv")
    obs = _table("pdac_a_sc_ref").obs
    names = dict(zip(obs["cell_type_card"].astype(str), obs["cell_type"].astype(str), strict=True))
    return {names[t]: list(g) for t, g in table.groupby("cell_type")["gene"] if t in names}


def marker_correlation(V: Any) -> float:
    import scanpy as sc

    adata = section().copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    found = []
    for name, genes in markers().items():
        at = np.flatnonzero(adata.var_names.isin(genes))
        if name in V and len(at) and V[name].std() > 0:
            found.append(np.corrcoef(V[name], np.asarray(adata.X[:, at].mean(1)).ravel())[0, 1])
        elif name in V:
            found.append(0.0)
    return float(np.mean(found))


def score(kind: str, adata: Any, V: Any) -> float:
    if kind == "real":
        return marker_correlation(V)
    return relative_error(np.asarray(V), adata.obsm["V_true"].to_numpy())


# --- methods ----------------------------------------------------------------------------------------------------------


def nnls(kind: str) -> Callable[[Any], Any]:
    import pandas as pd
    from scipy.optimize import nnls as solve

    def run(adata: Any) -> Any:
        table = reference(kind, adata)
        genes = adata.var_names.intersection(table.columns)
        A = table[genes].to_numpy().T
        Q, R = np.linalg.qr(A)
        V = shares(np.stack([solve(R, y)[0] for y in np.asarray(adata[:, genes].X @ Q)]))
        return pd.DataFrame(V, index=adata.obs_names, columns=table.index)

    return run


def published(weights: Callable[[str], dict[str, Any]]) -> Callable[[str], Callable[[Any], Any]]:
    def of(kind: str) -> Callable[[Any], Any]:
        import spanmf as sn

        options = weights(kind)

        def run(adata: Any) -> Any:
            sn.tl.stl_nmf(adata, reference(kind, adata), region_key="region", **options)
            return adata.obsm["stl_nmf"]

        return run

    return of


def zero(kind: str) -> dict[str, Any]:
    import spanmf as sn

    return {"weights": sn.tl.StlWeights(lambdas=(0, 0, 0))}


def default(kind: str) -> Callable[[Any], Any]:
    import squidpy as sq

    import spanmf as sn

    def run(adata: Any) -> Any:
        sq.gr.spatial_neighbors(adata, n_neighs=6, coord_type="generic")
        sn.tl.stl_nmf(adata, reference(kind, adata), region_key="region")
        return adata.obsm["stl_nmf"]

    return run


METHODS: dict[str, Callable[[str], Callable[[Any], Any]]] = {
    "NNLS": nnls,
    "paper, untrained": published(lambda kind: {"preset": "paper"}),
    "paper, weights zero": published(zero),
    "paper, trained": published(lambda kind: {"weights": learned(kind, "paper")}),
    "rescaled, trained": published(lambda kind: {"weights": learned(kind, None)}),
    "spanmf": default,
}


def measured(who: str) -> Callable[..., dict]:
    def measure(peers: list, n: int, kind: str) -> dict:
        method = METHODS[who](kind)
        sections = tests(kind)
        method(sections[0].copy())  # compiles
        runs = []
        for adata in sections:
            V, spent = timed(lambda adata=adata: method(adata))
            runs.append((score(kind, adata, V), spent))
        mean = float(np.mean([e for e, _ in runs]))
        total = {t: float(sum(s[t] for _, s in runs)) for t in ("wall_s", "cpu_s")}
        kinds = [str(a.uns["stl_nmf_triplets"]["kind"]) for a in sections if "stl_nmf_triplets" in a.uns]
        parts = {
            k: float(np.mean([e for (e, _), s in zip(runs, kinds, strict=True) if s == k])) for k in sorted(set(kinds))
        }
        shown = " ".join(f"{k} {v:.4f}" for k, v in parts.items())
        error = 1 - mean if kind == "real" else mean
        return total | {"error": error, "parts": parts, "n_sections": len(runs), "notes": f"{mean:.4f} {shown}".strip()}

    return measure


MEASUREMENTS: Measurements = {"stl_paper": {who: measured(who) for who in METHODS}}


if __name__ == "__main__":
    main(MEASUREMENTS)
