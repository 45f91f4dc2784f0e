"""The number of threads: who may say it, and that no result depends on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import anndata as ad
import numba
import numpy as np
import pytest
import scanpy as sc
from scipy.spatial import cKDTree

import spanmf as sn
from spanmf.core import _knn, _landmarks, _threads

N_THREADS = numba.config.NUMBA_NUM_THREADS
two_threads = pytest.mark.skipif(N_THREADS < 2, reason="one thread only")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    numba.set_num_threads(N_THREADS)  # squidpy's nhood_enrichment leaves it at one
    yield
    sn.settings.n_jobs = None
    sc.settings.n_jobs = 1
    numba.set_num_threads(N_THREADS)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_by_default_numba_says_it() -> None:
    assert sn.settings.n_jobs == N_THREADS
    numba.set_num_threads(1)
    assert sn.settings.n_jobs == 1


@two_threads
def test_the_least_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "get_num_threads", lambda: 16)
    sn.settings.n_jobs = 8
    assert sn.settings.n_jobs == 8
    for theirs, expected in ((1, 8), (-1, 8), (4, 4), (12, 8)):  # 1 is scanpy's default: it tells nothing
        sc.settings.n_jobs = theirs
        assert sn.settings.n_jobs == expected
    sn.settings.n_jobs = 64
    assert sn.settings.n_jobs == 12
    sc.settings.n_jobs = 1
    assert sn.settings.n_jobs == 16
    sn.settings.n_jobs = 2
    for no_limit in (None, -1):
        sn.settings.n_jobs = no_limit
        assert sn.settings.n_jobs == 16


def test_scanpy_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "sys", SimpleNamespace(modules={}))
    assert sn.settings.n_jobs == N_THREADS


@two_threads
def test_for_a_block_only() -> None:
    sn.settings.n_jobs = 2
    with sn.settings.override(n_jobs=1):
        assert sn.settings.n_jobs == 1
    assert sn.settings.n_jobs == 2
    with pytest.raises(KeyError), sn.settings.override(n_jobs=1):
        tuple({}["no such key"])
    assert sn.settings.n_jobs == 2


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-2, ValueError), (1.5, TypeError), (True, TypeError)])
def test_no_number_of_threads(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="`n_jobs` must be"):
        sn.settings.n_jobs = value  # type: ignore[assignment]
    assert sn.settings.n_jobs == N_THREADS


@two_threads
def test_kernels_use_them_in_every_python_thread() -> None:
    """numba's own number holds for the Python thread that set it only."""
    seen = []

    def look() -> None:
        with _threads.threads_for(10**9):
            seen.append(numba.get_num_threads())

    with sn.settings.override(n_jobs=1):
        look()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    look()
    assert seen == [1, 1, N_THREADS]


def test_searches_for_landmarks_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = []

    class Tree(cKDTree):
        def query(self, *args: object, **options: object) -> object:
            workers.append(options["workers"])
            return super().query(*args, **options)

    monkeypatch.setattr(_landmarks, "cKDTree", Tree)
    with sn.settings.override(n_jobs=1):
        _landmarks.nearest(np.random.default_rng(0).random((50, 3)), np.arange(10))
    assert workers == [1]


def test_small_work_is_done_by_one() -> None:
    with _threads.threads_for(10):
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == N_THREADS


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tissue() -> ad.AnnData:
    adata = sn.datasets.xenium_tissue(1500, n_genes=60)
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sn.gr.contact_neighbors(adata, 20, 80, library_key="library")
    return adata


@pytest.fixture(scope="module")
def section() -> tuple[ad.AnnData, ad.AnnData]:
    """Spots and the profiles of their types."""
    spots = sn.datasets.visium_section(400, n_genes=120)
    sn.gr.contact_neighbors(spots)
    cells = sn.datasets.xenium_tissue(600, n_genes=120)
    cells.var_names = spots.var_names
    return spots, sn.tl.reference_profiles(cells, "cell_type")


def _written(table: ad.AnnData, key: str) -> list[np.ndarray]:
    """All numbers under a key."""
    found = [table.obsm.get(f"X_{key}"), table.varm.get(f"{key}_loadings"), table.uns[key].get("trace")]
    if key in table.obs:
        found.append(table.obs[key].cat.codes)
    if key in table.obsm:
        found.append(table.obsm[key])
    return [np.asarray(values) for values in found if values is not None]


def _fit(method: str, **options: object):
    def run(tissue: ad.AnnData) -> list[np.ndarray]:
        adata = getattr(sn.tl, method)(tissue, 5, max_iter=8, key_added="run", copy=True, **options)
        return _written(adata, "run")

    return run


def _joint(tissue: ad.AnnData) -> list[np.ndarray]:
    mdata = sn.datasets.rna_protein_tissue(500, n_genes=60, missing=0.3)
    out = sn.tl.joint_nmf(mdata, 4, max_iter=8, copy=True)
    return [out.obsm["X_joint_nmf"], *(table.varm["joint_nmf_loadings"] for table in out.mod.values())]


def _graph(tissue: ad.AnnData) -> list[np.ndarray]:
    graphs = sn.gr.contact_neighbors(tissue, 20, 80, copy=True)
    assert graphs is not None
    return [part for A in graphs for part in (A.data, A.indices, A.indptr)]


def _colocalization(tissue: ad.AnnData) -> list[np.ndarray]:
    table = sn.gr.colocalization(tissue, "cell_type", library_key="library")
    return [table.select_dtypes("number").to_numpy()]


def _nearest(tissue: ad.AnnData) -> list[np.ndarray]:
    return list(_knn.nearest(np.random.default_rng(0).random((4000, 6)), 15))


def _metrics(tissue: ad.AnnData) -> list[np.ndarray]:
    adata = tissue.copy()
    adata.obsm["X_few"] = adata.X[:, :6].toarray()
    table = sn.metrics.panel(adata, ["domain", "X_few"], library_key="library")
    return [table.select_dtypes("number").to_numpy()]


WORK = {
    "nmf": _fit("nmf"),
    "kl": _fit("nmf", loss="kl"),
    "snmf": _fit("snmf"),
    "laplacian": _fit("snmf", smoothing="laplacian"),
    "hsnmf": _fit("hsnmf"),
    "hsnmf, n_domains": _fit("hsnmf", n_domains=4),
    "joint_nmf": _joint,
    "graph": _graph,
    "colocalization": _colocalization,
    "nearest neighbours": _nearest,
    "panel": _metrics,
}


@two_threads
@pytest.mark.filterwarnings("ignore::spanmf._checks.ConvergenceWarning")  # a few passes are enough here
@pytest.mark.parametrize("work", WORK)
def test_results_do_not_depend_on_threads(tissue: ad.AnnData, work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "WORK_OF_THREADS", 0)
    runs = []
    for n in (1, 2, 2):
        with sn.settings.override(n_jobs=n):
            runs.append(WORK[work](tissue))
    for other in runs[1:]:
        for one, two in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@two_threads
@pytest.mark.filterwarnings("ignore::spanmf._checks.ConvergenceWarning")
@pytest.mark.parametrize("likelihood", ["poisson", "gaussian"])
def test_proportions_do_not_depend_on_threads(
    section: tuple[ad.AnnData, ad.AnnData], likelihood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_threads, "WORK_OF_THREADS", 0)
    runs = []
    for n in (1, 2):
        with sn.settings.override(n_jobs=n):
            runs.append(sn.tl.stl_nmf(*section, likelihood=likelihood, max_iter=5, copy=True))
    for slot in ("stl_nmf", "stl_nmf_mrna"):
        np.testing.assert_array_equal(runs[0].obsm[slot], runs[1].obsm[slot])
