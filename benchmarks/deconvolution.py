"""Cell types in spots: our deconvolution and its peers on sections whose composition is known.

Four kinds of section, each made afresh from a seed (the real tables are read from ``SPANMF_TEST_DATA``):

* ``paper``: the STL-NMF paper's noisy sets, as its authors' script makes them. On the spots of PDAC-A the shares of five
  types are constant in each of three regions (duct and pancreas are one): a softmax of integers from −99 to 0, so that one type rules, in another
  order in every region. N(0, 0.05) is added, they are cut at zero and divided by their sum; X = VB, cut to integers, B
  the very mean profiles that the methods get. One seed makes nine X.
* ``mixes``: the cells of the PDAC-A reference are split in two by type. One half makes B; of the other, 5 to 15 cells are
  summed in every spot of PDAC-A, and each molecule is kept with the spot's efficiency, lognormal with median 0.1 and
  log-sd 0.5. Which cells: every region has its own composition (Dirichlet, 0.3 a type); it is exchanged across borders (Gaussian
  kernel of one pitch), varied within regions by a smooth field (log-sd 0.5, length 3 pitches) and by the spot itself
  (Dirichlet of concentration 20).
* ``platform``: the same, and every gene is caught with a factor of its own, lognormal(0, 0.8).
* ``starmap``: the typed cells of a STARmap section are split in two by type; one half makes B, the other is summed in square bins
  (about six cells each) of a grid with a random offset.
* ``speed``: a section of any size, 2,000 genes and 20 types, drawn from a Poisson model; times and errors.

The score is ``‖V̂ − V‖_F / ‖V‖_F`` of the cell fractions. A peer gets the best of what it returns, the same divided by and
times the types' mRNA content.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from common import Measurements, main, peer_python, peer_script, real_table, timed

FIVE = ("Acinar cells", "Cancer clone A", "Endocrine cells", "Fibroblasts", "Ductal - terminal ductal like")
PAPER_ORDER = {  # which of the five shares each type has
    "Duct Epithelium": (1, 3, 0, 4, 2),
    "Pancreatic": (1, 3, 0, 4, 2),
    "Stroma": (2, 4, 1, 3, 0),
    "Cancer": (3, 0, 4, 2, 1),
}


@dataclass(frozen=True)
class Section:
    """Counts X (spots × genes), mean counts of a cell of each type B (types × genes) and the true cell fractions V."""

    X: sp.csr_matrix
    B: np.ndarray
    n_cells: np.ndarray
    coords: np.ndarray
    regions: np.ndarray | None
    V: np.ndarray
    cells: tuple[sp.csr_matrix, np.ndarray] | None = None  # of the reference, and the code of their type


@cache
def _table(name: str) -> Any:
    import anndata as ad

    return ad.read_h5ad(real_table(f"{name}.h5ad"))


@cache
def _slide() -> tuple[np.ndarray, np.ndarray]:
    """Positions and region codes of the real PDAC-A section."""
    adata = _table("pdac_a_st")
    return np.asarray(adata.obsm["spatial"], dtype=float), adata.obs["region"].cat.codes.to_numpy()


def paper(seed: int, part: int = 0) -> Section:
    import pandas as pd

    rng = np.random.default_rng([seed, part, 1])
    coords, regions = _slide()
    names = list(_table("pdac_a_st").obs["region"].cat.categories)
    B = pd.read_csv(real_table("pdac_a_reference_mean_profiles.csv"), index_col=0).loc[list(FIVE)].to_numpy()
    counts = _table("pdac_a_sc_ref").obs["cell_type"].value_counts()[list(FIVE)].to_numpy()
    power = np.exp(-rng.integers(0, 100, len(FIVE)).astype(float))
    ruling = np.zeros((len(names), len(FIVE)))  # an unannotated spot has noise alone
    for i, order in PAPER_ORDER.items():
        ruling[names.index(i)] = (power / power.sum())[list(order)]
    V = np.maximum(ruling[regions] + rng.normal(0, 0.05, (len(regions), len(FIVE))), 0)
    V /= V.sum(1, keepdims=True) + np.exp(-10)  # as the authors do: an unannotated spot may be left with nothing
    return Section(sp.csr_matrix(np.floor(V @ B)), B, counts, coords, regions, V)


def _halves(codes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of the cells of every type (the first gets the odd one)."""
    first = np.zeros(len(codes), dtype=bool)
    for k in np.unique(codes):
        members = rng.permutation(np.flatnonzero(codes == k))
        first[members[: (len(members) + 1) // 2]] = True
    return np.flatnonzero(first), np.flatnonzero(~first)


def _profiles(X: sp.csr_matrix, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(codes)
    member = sp.csr_matrix((1 / counts[codes], (codes, np.arange(len(codes)))))
    return (member @ X).toarray(), counts


def _composition(coords: np.ndarray, regions: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Expected shares of k types in every spot (see the top of the file)."""
    squares = ((coords[:, None] - coords[None]) ** 2).sum(-1)
    pitch = np.sqrt(np.median(np.where(squares > 0, squares, np.inf).min(1)))
    exchange = np.exp(-squares / (2 * pitch**2))
    exchange /= exchange.sum(1, keepdims=True)
    mean = exchange @ rng.dirichlet(np.full(k, 0.3), regions.max() + 1)[regions]
    covariance = np.exp(-squares / (2 * (3 * pitch) ** 2)) + 1e-6 * np.eye(len(coords))
    field = np.linalg.cholesky(covariance) @ rng.normal(0, 0.5, (len(coords), k))
    mean = mean * np.exp(field)
    mean /= mean.sum(1, keepdims=True)
    return np.stack([rng.dirichlet(20 * m + 1e-9) for m in mean])


def mixes(seed: int, sd_platform: float = 0.0) -> Section:
    rng = np.random.default_rng([seed, 2])
    coords, regions = _slide()
    reference = _table("pdac_a_sc_ref")
    codes = reference.obs["cell_type"].cat.codes.to_numpy().astype(int)
    for_B, for_spots = _halves(codes, rng)
    B, n_cells = _profiles(reference.X[for_B], codes[for_B])
    shares = _composition(coords, regions, len(B), rng)
    pools = [for_spots[codes[for_spots] == k] for k in range(len(B))]
    V, rows, columns = np.zeros_like(shares), [], []
    for i, share in enumerate(shares):
        drawn = rng.multinomial(rng.integers(5, 16), share)
        V[i] = drawn / drawn.sum()
        chosen = np.concatenate([rng.choice(pools[k], size) for k, size in enumerate(drawn)])
        rows.append(np.full(len(chosen), i))
        columns.append(chosen)
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    member = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(V), reference.n_obs))
    X = (member @ reference.X).tocsr()
    efficiency = rng.lognormal(np.log(0.1), 0.5, len(V))
    gene = rng.lognormal(0, sd_platform, X.shape[1]) if sd_platform else np.ones(X.shape[1])
    keep = np.minimum(np.repeat(efficiency, np.diff(X.indptr)) * gene[X.indices], 1)
    X.data = rng.binomial(np.round(X.data).astype(int), keep).astype(float)
    X.eliminate_zeros()
    return Section(X, B, n_cells, coords, regions, V, (reference.X[for_B], codes[for_B]))


def platform(seed: int) -> Section:
    return mixes(seed, 0.8)


def starmap(seed: int) -> Section:
    rng = np.random.default_rng([seed, 3])
    adata = _table("starmap_v1_1020")
    adata = adata[adata.obs["cluster_name"].notna()]
    X, codes = adata.X.tocsr(), adata.obs["cluster_name"].cat.codes.to_numpy().astype(int)
    for_B, for_spots = _halves(codes, rng)
    B, n_cells = _profiles(X[for_B], codes[for_B])
    coords = np.asarray(adata.obsm["spatial"], dtype=float)[for_spots]
    extent = np.ptp(coords, axis=0)
    width = np.sqrt(6 * extent.prod() / len(coords))
    bins = np.floor((coords - coords.min(0)) / width + rng.random(2)).astype(int)
    places, spot = np.unique(bins, axis=0, return_inverse=True)
    spot = spot.ravel()
    member = sp.csr_matrix((np.ones(len(spot)), (spot, np.arange(len(spot)))))
    V = np.zeros((len(places), len(B)))
    np.add.at(V, (spot, codes[for_spots]), 1)
    layer = adata.obs["layer"].cat.codes.to_numpy()[for_spots]
    regions = np.array([np.bincount(layer[spot == i]).argmax() for i in range(len(places))])
    return Section(
        (member @ X[for_spots]).tocsr(), B, n_cells, places * width, regions, V / V.sum(1, keepdims=True),
        (X[for_B], codes[for_B]),
    )  # fmt: skip


def speed(seed: int, n: int = 50_000, p: int = 2000, k: int = 20) -> Section:
    """Spots on a square lattice; shares from smoothed Dirichlet patches; about 1,500 counts a spot."""
    rng = np.random.default_rng([seed, 4])
    side = int(np.ceil(np.sqrt(n)))
    coords = np.stack(np.divmod(np.arange(n), side), 1).astype(float)
    B = rng.gamma(0.3, 1, p)[None] * np.exp(rng.normal(0, 1.0, (k, p)))
    B *= (rng.lognormal(np.log(2000), 0.4, k) / B.sum(1))[:, None]
    seeds = rng.random((max(n // 400, 8), 2)) * side
    from scipy.spatial import cKDTree

    near, which = cKDTree(seeds).query(coords, 3)
    weight = np.exp(-((near / near.mean()) ** 2))
    centre = rng.dirichlet(np.full(k, 0.3), len(seeds))
    mean = np.einsum("ij,ijk->ik", weight / weight.sum(1, keepdims=True), centre[which])
    V = rng.standard_gamma(20 * mean + 1e-9)
    V /= V.sum(1, keepdims=True)
    depth = rng.lognormal(np.log(0.75), 0.4, n)
    parts = (rng.poisson(depth[i : i + 5000, None] * (V[i : i + 5000] @ B)) for i in range(0, n, 5000))
    return Section(_stacked(parts, n, p), B, np.full(k, 100), coords, None, V)


def _stacked(parts: Iterator[np.ndarray], n: int, p: int) -> sp.csr_matrix:
    """Dense blocks of rows as one sparse matrix that grows with them: memory never holds more than it and one of them."""
    data, indices = np.empty(0, np.float32), np.empty(0, np.int32)
    indptr = [np.zeros(1, np.int64)]
    for part in parts:
        rows, columns = np.nonzero(part)
        start = len(data)
        for grown, values in ((data, part[rows, columns]), (indices, columns)):
            grown.resize(start + len(rows), refcheck=False)
            grown[start:] = values
        indptr.append(start + np.cumsum(np.bincount(rows, minlength=len(part))))
    return sp.csr_matrix((data, indices, np.concatenate(indptr)), shape=(n, p), copy=False)


SETS: dict[str, Callable[..., Section]] = {
    "paper": paper, "mixes": mixes, "platform": platform, "starmap": starmap, "speed": speed,
}  # fmt: skip


# --- the score --------------------------------------------------------------------------------------------------------


def relative_error(V_hat: np.ndarray, V: np.ndarray) -> float:
    """Of the spots that hold anything; the same ones for every method."""
    held = V.sum(1) > 0
    return float(np.linalg.norm(V_hat[held] - V[held]) / np.linalg.norm(V[held]))


def shares(V: np.ndarray) -> np.ndarray:
    """Rows divided by their sums; an empty one is even."""
    total = V.sum(1, keepdims=True)
    return np.where(total > 0, V / np.where(total > 0, total, 1), 1 / V.shape[1])


def best_error(V_hat: np.ndarray, section: Section) -> float:
    """What a peer is given: the best of its output, the same by mRNA content and times it."""
    size = section.B.sum(1)
    return min(relative_error(shares(V_hat * s), section.V) for s in (1, 1 / size, size))


# --- peers ------------------------------------------------------------------------------------------------------------


def nnls(section: Section, weights: np.ndarray | None = None) -> np.ndarray:
    """Non-negative least squares spot by spot, the genes times ``weights``."""
    from scipy.optimize import nnls as solve

    weights = np.ones(section.B.shape[1]) if weights is None else weights
    A = np.ascontiguousarray((section.B * weights).T)
    Q, R = np.linalg.qr(A)  # ‖A v − y‖² = ‖R v − Qᵀy‖² + constant
    Y = (section.X @ sp.diags_array(weights)) @ Q
    return np.stack([solve(R, y)[0] for y in np.asarray(Y)])


def _inverse_root(mean: np.ndarray) -> np.ndarray:
    return np.where(mean > 0, 1 / np.sqrt(np.where(mean > 0, mean, 1)), 0)


def nnls_section(section: Section) -> np.ndarray:
    return nnls(section, _inverse_root(np.asarray(section.X.mean(0)).ravel()))


def nnls_reference(section: Section) -> np.ndarray:
    return nnls(section, _inverse_root(section.B.mean(0)))


def flashdeconv(section: Section) -> tuple[np.ndarray, dict[str, float]]:
    """FlashDeconv with its defaults, in an interpreter that has it (it pins an older numba); its own seconds, after a warm-up."""
    python = peer_python("SPANMF_FLASHDECONV_PYTHON", "flashdeconv")
    rest = {"B": section.B, "coords": section.coords}
    return elsewhere(python, "flashdeconv_peer.py", {"X": section.X}, rest)


def elsewhere(
    python: str, script: str, sparse: dict[str, sp.csr_matrix], dense: dict[str, np.ndarray], *arguments: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Shares by a peer's script in its own interpreter, which gets a folder with the arrays, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        for name, matrix in sparse.items():
            sp.save_npz(f"{folder}/{name}.npz", sp.csr_matrix(matrix))
        np.savez(f"{folder}/rest.npz", **dense)
        spent = peer_script(python, script, folder, *arguments)
        return np.load(f"{folder}/V.npy"), spent


# --- ours -------------------------------------------------------------------------------------------------------------


def tables(section: Section) -> tuple[Any, Any]:
    """The section with its graph of six neighbours, and the reference, as a user has them."""
    import anndata as ad
    import pandas as pd
    import squidpy as sq

    import spanmf as sn

    genes = [f"g{j}" for j in range(section.X.shape[1])]
    adata = ad.AnnData(section.X.astype(np.float32), obsm={"spatial": section.coords})
    adata.var_names = genes
    if section.regions is not None:
        adata.obs["region"] = pd.Categorical(section.regions.astype(str))
    sq.gr.spatial_neighbors(adata, n_neighs=6, coord_type="generic")
    if section.cells is not None:
        cells = ad.AnnData(section.cells[0], obs=pd.DataFrame({"type": pd.Categorical(section.cells[1])}))
        cells.obs_names, cells.var_names = [f"c{i}" for i in range(cells.n_obs)], genes
        return adata, sn.tl.reference_profiles(cells, "type")
    obs = pd.DataFrame({"n_cells": section.n_cells}, index=[str(k) for k in range(len(section.B))])
    return adata, ad.AnnData(section.B, obs=obs, var=pd.DataFrame(index=genes))


def ours(section: Section, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """``tl.stl_nmf`` with its defaults and the regions; the seconds are its own, after a warm-up."""
    import spanmf as sn

    adata, reference = tables(section)
    key = None if section.regions is None else "region"
    sn.tl.stl_nmf(adata[:400], reference, region_key=key, copy=True)  # compiles
    _, spent = timed(lambda: sn.tl.stl_nmf(adata, reference, region_key=key, **options))
    found = {k: adata.uns["stl_nmf"][k] for k in ("likelihood", "dispersion", "platform", "n_iter")}
    if "stl_nmf_lower" in adata.obsm:
        lower, upper = (adata.obsm[f"stl_nmf_{side}"].to_numpy() for side in ("lower", "upper"))
        inside = (lower - 1e-6 <= section.V) & (upper + 1e-6 >= section.V)
        found["coverage"] = float(inside.mean())
        found["coverage_present"] = float(inside[section.V > 0].mean())
        found["coverage_absent"] = float(inside[section.V == 0].mean())
        found["width"] = float(np.nanmean(upper - lower))
        found["width_present"] = float(np.nanmean((upper - lower)[section.V > 0]))
    return adata.obsm["stl_nmf"].to_numpy(), spent | found


# --- measurements -----------------------------------------------------------------------------------------------------

PARTS = 9  # X of the paper's kind from one seed


def sections(n: int, kind: str, seed: int) -> list[Section]:
    if kind == "paper":
        return [paper(seed, part) for part in range(PARTS)]
    return [speed(seed, n)] if kind == "speed" else [SETS[kind](seed)]


def _judged(runs: list[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    error = float(np.mean([e for e, _ in runs]))
    total = {t: float(sum(spent[t] for _, spent in runs)) for t in ("wall_s", "cpu_s")}
    return runs[0][1] | total | {"error": error, "notes": f"error {error:.4f}"}


def _timed_peer(method: Callable[[Section], np.ndarray]) -> Callable[..., dict]:
    def measure(peers: list, n: int, kind: str, seed: int) -> dict:
        runs = []
        for section in sections(n, kind, seed):
            V, spent = timed(lambda section=section: method(section))
            runs.append((best_error(V, section), spent))
        return _judged(runs)

    return measure


def flashdeconv_peer(peers: list, n: int, kind: str, seed: int) -> dict:
    runs = []
    for section in sections(n, kind, seed):
        V, spent = flashdeconv(section)
        runs.append((best_error(V, section), spent))
    return _judged(runs)


def ours_measured(peers: list, n: int, kind: str, seed: int) -> dict:
    runs = []
    for section in sections(n, kind, seed):
        V, spent = ours(section)
        runs.append((relative_error(V, section.V), spent))
    return _judged(runs)


def covered(peers: list, n: int, kind: str, seed: int, *, cells: bool = True) -> dict:
    """What 90 % intervals cover of all shares, of those above zero and of those that are zero, and how wide they are."""
    runs = []
    for section in sections(n, kind, seed):
        V, spent = ours(section if cells else replace(section, cells=None), interval=0.9)
        runs.append((relative_error(V, section.V), spent))
    row = _judged(runs)
    of = ("coverage", "coverage_present", "coverage_absent", "width", "width_present")
    row |= {name: float(np.mean([spent[name] for _, spent in runs])) for name in of}
    row["notes"] = "covered: {:.3f} of all, {:.3f} of the present, {:.3f} of the absent; width {:.3f}, {:.3f}".format(
        *(row[name] for name in of)
    )
    return row


def ours_alone(peers: list, n: int, seed: int, *, n_genes: int | None = None, on_disk: bool = False) -> dict:
    """A large section with its graph, whose counts are in memory once (or on disk): what ``tl.stl_nmf`` takes beyond them."""
    import anndata as ad
    import pandas as pd

    import spanmf as sn

    section = speed(seed, n)
    genes = pd.DataFrame(index=[f"g{j}" for j in range(section.X.shape[1])])
    reference = ad.AnnData(
        section.B,
        obs=pd.DataFrame({"n_cells": section.n_cells}, index=[str(k) for k in range(len(section.B))]),
        var=genes,
    )
    adata = ad.AnnData(section.X, var=genes, obsm={"spatial": section.coords})
    truth = section.V
    del section
    sn.gr.contact_neighbors(adata)
    sn.tl.stl_nmf(adata[:400].copy(), reference, graph_weight=0)  # compiles
    if on_disk:
        return from_disk(adata, reference, truth)
    size = sum(a.nbytes for a in (adata.X.data, adata.X.indices, adata.X.indptr)) / 2**30
    held = rss()
    _, spent = timed(lambda: sn.tl.stl_nmf(adata, reference, n_genes=n_genes))
    row = {"error": relative_error(adata.obsm["stl_nmf"].to_numpy(), truth)} | spent
    row |= {"data_gib": size, "held_gib": held, "over_gib": spent["peak_gib"] - held}
    row["notes"] = (
        f"error {row['error']:.4f}; peak {spent['peak_gib']:.2f} GiB, {row['over_gib']:.2f} over what was held before "
        f"({held:.2f}, of it counts {size:.2f}); objective {adata.uns['stl_nmf']['trace'][-1]:.10g}, "
        f"{len(adata.uns['stl_nmf']['trace'])} passes"
    )
    return row


def from_disk(adata: Any, reference: Any, V: np.ndarray) -> dict:
    """The same section from a zarr store, read in blocks of 20,000 spots; the peak is that of the call."""
    import anndata as ad
    import zarr

    import spanmf as sn

    with tempfile.TemporaryDirectory() as folder:
        adata.write_zarr(f"{folder}/section.zarr")
        adata.X = ad.experimental.read_elem_lazy(zarr.open_group(f"{folder}/section.zarr", mode="r")["X"], (20_000, -1))
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is counted from now on
        held = rss()
        _, spent = timed(lambda: sn.tl.stl_nmf(adata, reference))
    row = {"error": relative_error(adata.obsm["stl_nmf"].to_numpy(), V)} | spent
    row |= {"held_gib": held, "over_gib": spent["peak_gib"] - held}
    row["notes"] = (
        f"error {row['error']:.4f}; {row['over_gib']:.2f} GiB over what was held before ({held:.2f}); "
        f"objective {adata.uns['stl_nmf']['trace'][-1]:.10g}, {len(adata.uns['stl_nmf']['trace'])} passes"
    )
    return row


def rss() -> float:
    """Memory of this process now, in GiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


MEASUREMENTS: Measurements = {
    "deconvolution": {
        "NNLS": _timed_peer(nnls),
        "NNLS, genes by the section": _timed_peer(nnls_section),
        "NNLS, genes by the reference": _timed_peer(nnls_reference),
        "FlashDeconv": flashdeconv_peer,
        "spanmf": ours_measured,
    },
    "deconvolution_alone": {
        "spanmf": ours_alone,
        "spanmf, 1,500 of the genes": partial(ours_alone, n_genes=1500),
        "spanmf, blocks on disk": partial(ours_alone, on_disk=True),
    },
    "deconvolution_intervals": {"spanmf, counting alone": partial(covered, cells=False), "spanmf": covered},
}


if __name__ == "__main__":
    main(MEASUREMENTS)
