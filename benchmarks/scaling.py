"""Time and memory against the number of cells, 1,000 to 10 million, and the figure of docs/benchmarks.md.

    python benchmarks/run.py --only 'scaling_*' --max-n 300000

One generated tissue of 300 genes for all curves. What a stage starts from (the table, the factors, the graphs) is made by a
process of its own and kept in ``benchmarks/results/data`` (25 GB for ten million cells), so that the peak of a measuring process is
that of reading its input and of the work. Beyond three million cells the same three million come again, side by side.

The floor of the factorisation is the time in which its passes over X could be read from memory: the bytes that they touch, over the
bandwidth of a dot product of a large vector with itself, measured in the same process.
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from common import HERE, Measurements, left_out, main, peak_gib, timed, timed_often
from foundation import RANK, judged_labels, objective, run_pipeline

CACHE = HERE / "results" / "data"
PIECE = 3_000_000
BLOCK = 100_000  # cells of a block on disk
GAP = 1_000.0  # µm between pieces
RESOLUTION = 0.4


# --- what a stage starts from -----------------------------------------------------------------------------------------


def folder_of(n: int, name: str) -> Path:
    """Where it lies what a stage starts from; made by a process of its own when it is not there yet."""
    folder = CACHE / f"{name}-{n}"
    if not folder.exists():
        done = subprocess.run(
            [sys.executable, __file__, "--make", name, str(n)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            msg = f"{name} of {n:,} cells could not be made: {done.stderr[-1500:]}"
            raise RuntimeError(msg)
    return folder


def stored(n: int, name: str) -> dict[str, np.ndarray]:
    """Arrays that a stage starts from."""
    return {f.stem: np.load(f) for f in sorted(folder_of(n, name).glob("*.npy"))}


def make(name: str, n: int) -> None:
    """Write arrays as such and matrices as zarr; the folder appears when it is whole."""
    import anndata as ad
    import zarr

    final, folder = CACHE / f"{name}-{n}", CACHE / f"{name}-{n}.part"
    folder.mkdir(parents=True, exist_ok=True)
    for key, values in MAKERS[name](n).items():
        if sp.issparse(values):
            ad.io.write_elem(zarr.open_group(folder / f"{key}.zarr", mode="w"), "/", values)
        else:
            np.save(folder / f"{key}.npy", values)
    folder.rename(final)


def made_tissue(n: int) -> dict[str, np.ndarray]:
    """Log-normalised values, places, library and domain."""
    if n <= PIECE:
        return one_tissue(n)
    sizes = [min(PIECE, n - first) for first in range(0, n, PIECE)]
    known = {size: (CACHE / f"tissue-{size}").exists() for size in sizes}
    pieces = {size: stored(size, "tissue") if there else one_tissue(size) for size, there in known.items()}
    out: dict[str, list[np.ndarray]] = defaultdict(list)
    right, n_values = 0.0, 0
    for place, arrays in enumerate(pieces[size] for size in sizes):
        xy = arrays["spatial"]
        moved = {"spatial": xy + np.array([right - xy[:, 0].min(), 0]), "library": arrays["library"] + 100 * place}
        moved["indptr"] = arrays["indptr"][place > 0 :] + n_values
        right, n_values = moved["spatial"][:, 0].max() + GAP, moved["indptr"][-1]
        for key, values in (arrays | moved).items():
            out[key].append(values)
    return {key: np.concatenate(out.pop(key)) for key in list(out)}


def one_tissue(n: int) -> dict[str, np.ndarray]:
    """As it is generated; all have the same programmes, for the seed is the same."""
    import scanpy as sc

    import spanmf as sn

    adata = sn.datasets.xenium_tissue(n)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    X = sp.csr_matrix(adata.X, dtype=np.float32)
    return {
        "spatial": np.asarray(adata.obsm["spatial"]),
        "library": adata.obs["library"].cat.codes.to_numpy(dtype=np.int32),
        "domain": adata.obs["domain"].cat.codes.to_numpy(dtype=np.int32),
        "data": X.data,
        "indices": X.indices.astype(np.int32),
        "indptr": X.indptr.astype(np.int64),
    }


def made_factors(n: int) -> dict[str, np.ndarray]:
    """Smoothed factors, on the scale of distances."""
    import spanmf as sn
    from spanmf.core import _scale

    adata = tissue(n)
    sn.gr.contact_neighbors(adata, 20, 80, library_key="library", store=False)
    sn.tl.snmf(adata, RANK)
    W = adata.obsm["X_snmf"]
    return {"Z": _scale.rescale(W, adata.varm["snmf_loadings"].T, "gram")}


def made_contact(n: int) -> dict[str, np.ndarray]:
    """The merged graph."""
    import spanmf as sn

    adata = tissue(n, values=False)
    sn.gr.contact_neighbors(adata, 20, 80, library_key="library")
    return parts(adata.obsp["contact_connectivities"])


def made_hybrid(n: int) -> dict[str, np.ndarray]:
    """Half space, half neighbours in the factors."""
    import anndata as ad

    import spanmf as sn

    adata = ad.AnnData(sp.csr_matrix((n, 1), dtype=np.float32), obsm={"X_z": stored(n, "factors")["Z"]})
    adata.obsp["contact_connectivities"] = matrix(stored(n, "contact"), n)
    sn.gr.hybrid_neighbors(adata, 0.5, use_rep="X_z", scale=None, connectivity_key="contact")
    return parts(adata.obsp["hybrid_connectivities"])


MAKERS: dict[str, Callable[[int], dict[str, Any]]] = {
    "tissue": made_tissue, "factors": made_factors, "contact": made_contact, "hybrid": made_hybrid,
    "blocks": lambda n: {"X": tissue(n).X},
}  # fmt: skip


def parts(A: sp.csr_matrix) -> dict[str, np.ndarray]:
    return {"data": A.data, "indices": A.indices, "indptr": A.indptr}


def matrix(arrays: dict[str, np.ndarray], n: int, n_columns: int | None = None) -> sp.csr_matrix:
    shape = (n, n_columns or n)
    return sp.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape, copy=False)


def tissue(n: int, values: bool = True) -> Any:
    """The table, or its places alone."""
    import anndata as ad
    import pandas as pd

    arrays = stored(n, "tissue")
    X = matrix(arrays, n, int(arrays["indices"].max()) + 1) if values else sp.csr_matrix((n, 1), dtype=np.float32)
    adata = ad.AnnData(X, obsm={"spatial": arrays["spatial"]})
    for key in ("library", "domain"):
        adata.obs[key] = pd.Categorical(arrays[key])
    return adata


# --- measuring --------------------------------------------------------------------------------------------------------


def measured(function: Callable[[], Any]) -> tuple[Any, dict]:
    """Seconds and memory; several runs where one is short."""
    start = peak_gib()
    result, spent = timed_often(function)
    return result, spent | {"start_gib": start, "rise_gib": spent["peak_gib"] - start}


def bandwidth() -> float:
    """Bytes a second that one core reads: dot products of 512 MiB with themselves."""
    x = np.ones(2**27, dtype=np.float32)
    return x.nbytes / timed_often(lambda: np.dot(x, x))[1]["cpu_s"]


def counting(bytes_read: list[int]) -> None:
    """Note the bytes of X at every pass of the engine."""
    from spanmf.core import _ops

    inner = _ops.hals_pass

    def counted(X: Any, *args: Any, **kwargs: Any) -> Any:
        bytes_read.append(X.data.nbytes + X.indices.nbytes + X.indptr.nbytes)
        return inner(X, *args, **kwargs)

    _ops.hals_pass = counted


def nmf_peer(peers: list, n: int) -> dict:
    from sklearn.decomposition import NMF

    X = tissue(n).X
    model = NMF(RANK, init="nndsvda", max_iter=1000, random_state=0)
    W, spent = measured(lambda: model.fit_transform(X))
    return spent | {"objective": objective(X, W, model.components_), "notes": f"{model.n_iter_} iterations"}


def nmf_ours(peers: list, n: int) -> dict:
    import spanmf as sn

    adata = tissue(n)
    sn.tl.nmf(adata[:1000].copy(), RANK)  # compiles
    bytes_read: list[int] = []
    counting(bytes_read)

    def run() -> None:
        bytes_read.clear()
        sn.tl.nmf(adata, RANK)

    _, spent = measured(run)
    value = objective(adata.X, adata.obsm["X_nmf"], adata.varm["nmf_loadings"].T)
    speed, total = bandwidth(), float(sum(bytes_read))
    floor = {"bandwidth": speed, "bytes_read": total, "floor_s": total / speed}
    of_x = adata.X.data.nbytes + adata.X.indices.nbytes
    notes = f"{total / of_x:.1f} times X read; floor {floor['floor_s']:.3g} s at {speed / 1e9:.1f} GB/s"
    return spent | floor | {"objective": value, "notes": notes}


def nmf_blocks(peers: list, n: int) -> dict:
    """The values stay on disk and are read block by block."""
    import anndata as ad
    import zarr

    import spanmf as sn

    X = ad.experimental.read_elem_lazy(zarr.open(folder_of(n, "blocks") / "X.zarr", mode="r"), chunks=(BLOCK, -1))
    sn.tl.nmf(ad.AnnData(X[:1000]), RANK)  # compiles
    adata = ad.AnnData(X)
    _, spent = measured(lambda: sn.tl.nmf(adata, RANK))
    value = objective(tissue(n).X, np.asarray(adata.obsm["X_nmf"]), adata.varm["nmf_loadings"].T)
    return spent | {"objective": value, "notes": f"zarr on disk, blocks of {BLOCK:,}"}


def graph_peer(peers: list, n: int) -> dict:
    import squidpy as sq

    adata = tissue(n, values=False)
    options = {"radius": 80.0, "coord_type": "generic", "library_key": "library"}
    sq.gr.spatial_neighbors(adata[:1000].copy(), **options)
    _, spent = measured(lambda: sq.gr.spatial_neighbors(adata, **options))
    return spent | {"nnz": int(adata.obsp["spatial_connectivities"].nnz)}


def graph_ours(peers: list, n: int) -> dict:
    import spanmf as sn

    adata = tissue(n, values=False)
    sn.gr.contact_neighbors(adata[:1000].copy(), 20, 80, library_key="library")
    _, spent = measured(lambda: sn.gr.contact_neighbors(adata, 20, 80, library_key="library"))
    return spent | {"nnz": int(adata.obsp["contact_connectivities"].nnz)}


def weights(n: int) -> np.ndarray:
    return np.random.default_rng(0).random((n, RANK), dtype=np.float32)


def smoothing_peer(peers: list, n: int) -> dict:
    A, W = matrix(stored(n, "contact"), n) + sp.eye_array(n, dtype=np.float32, format="csr"), weights(n)
    P = (sp.diags_array(1 / np.asarray(A.sum(1)).ravel()) @ A).astype(np.float32).tocsr()
    smooth, spent = measured(lambda: np.float32(0.4) * W + np.float32(0.6) * (P @ W))
    return spent | {"total": float(smooth.sum(dtype=np.float64))}


def smoothing_ours(peers: list, n: int) -> dict:
    from spanmf.core import _smooth

    graph, W = _smooth.as_graph(matrix(stored(n, "contact"), n)), weights(n)
    _smooth.diffuse(graph, W, 0.6, 1)
    smooth, spent = measured(lambda: _smooth.diffuse(graph, W, 0.6, 1))
    return spent | {"total": float(smooth.sum(dtype=np.float64))}


def knn_peer(peers: list, n: int) -> dict:
    from scipy.spatial import cKDTree

    Z = stored(n, "factors")["Z"]
    (distances, _), spent = measured(lambda: cKDTree(Z).query(Z, k=15))
    return spent | {"total": float(distances.sum())}


def knn_ours(peers: list, n: int) -> dict:
    from spanmf.core import _knn

    Z = stored(n, "factors")["Z"]
    _knn.nearest(Z[:1000], 15)
    (_, distances), spent = measured(lambda: _knn.nearest(Z, 15))
    return spent | {"total": float(distances.sum(dtype=np.float64))}


def leiden_peer(peers: list, n: int) -> dict:
    import anndata as ad
    import scanpy as sc

    A = matrix(stored(n, "hybrid"), n)
    adata = ad.AnnData(sp.csr_matrix((n, 1), dtype=np.float32))
    options = {"flavor": "igraph", "n_iterations": 2, "directed": False, "random_state": 0}
    _, spent = measured(lambda: sc.tl.leiden(adata, RESOLUTION, adjacency=A, **options))
    return spent | judged_labels(
        A, adata.obs["leiden"].astype(int).to_numpy(), stored(n, "tissue")["domain"], RESOLUTION
    )


def leiden_ours(peers: list, n: int) -> dict:
    import networkit  # noqa: F401

    from spanmf.core import _leiden

    A = matrix(stored(n, "hybrid"), n)
    labels, spent = measured(lambda: _leiden.leiden(A, RESOLUTION, flavor="networkit", seed=0))
    return spent | judged_labels(A, labels, stored(n, "tissue")["domain"], RESOLUTION)


def pipeline_peer(peers: list, n: int) -> dict:
    from sklearn.metrics import adjusted_rand_score

    sys.path.insert(0, str(HERE.parent))
    from tests.reference import hsnmf_paper

    adata = tissue(n)
    found, spent = timed(lambda: hsnmf_paper.run(adata.X, np.asarray(adata.obsm["spatial"])))
    ari = float(adjusted_rand_score(adata.obs["domain"], found.labels))
    return spent | {"ari": ari, "notes": f"ARI {ari:.3f}"}


def pipeline_ours(n_landmarks: int | None) -> Callable[..., dict]:
    def measure(peers: list, n: int) -> dict:
        from sklearn.metrics import adjusted_rand_score

        if n_landmarks and n <= n_landmarks:
            left_out("no more cells than landmarks")
        adata = tissue(n)
        run_pipeline(adata[:1000].copy(), {}, n_landmarks and 500)  # compiles
        stages: dict[str, float] = {}
        _, spent = timed(lambda: run_pipeline(adata, stages, n_landmarks))
        ari = float(adjusted_rand_score(adata.obs["domain"], adata.obs["hsnmf"]))
        return spent | {"stages": stages, "ari": ari, "notes": f"ARI {ari:.3f}"}

    return measure


MEASUREMENTS: Measurements = {
    "scaling_nmf": {"scikit-learn cd, nndsvda": nmf_peer, "spanmf": nmf_ours, "spanmf, blocks on disk": nmf_blocks},
    "scaling_graph": {"squidpy radius 80": graph_peer, "spanmf": graph_ours},
    "scaling_smoothing": {"scipy CSR @ W": smoothing_peer, "spanmf": smoothing_ours},
    "scaling_knn": {"scipy cKDTree": knn_peer, "spanmf": knn_ours},
    "scaling_leiden": {"igraph as scanpy calls it": leiden_peer, "spanmf": leiden_ours},
    "scaling_pipeline": {
        "published form": pipeline_peer,
        "spanmf": pipeline_ours(None),
        "spanmf, 50,000 landmarks": pipeline_ours(50_000),
    },
}


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make(sys.argv[2], int(sys.argv[3]))
    else:
        main(MEASUREMENTS)
