"""X as a dask array: the same factors as in memory, on any scheduler, also when a worker dies; clear errors."""

from __future__ import annotations

import gc
import os
import signal
import time

import anndata as ad
import numba
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from lazily import ROWS, damaged, lazy, that_fails, with_lazy
from matplotlib import pyplot as plt
from support import small_tissue

import spanmf as sn
from spanmf import _checks, _cluster, _dask
from spanmf.core import _blocks, _ops, _survey

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")

N = 3000


@pytest.fixture(scope="module")
def tissue():
    adata = small_tissue(N, 40)
    sn.gr.contact_neighbors(adata)
    return adata


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_dask, "ROWS", ROWS)  # else a small table is one block


def assert_same(lazily, in_memory, key, tol=3e-6):
    """The same minimum; what rounding of float32 sums decides is whether a last step below ``tol`` is made."""
    a, b = (x.uns[key]["trace"][-1] for x in (lazily, in_memory))
    assert abs(a / b - 1) < tol
    W = in_memory.obsm[f"X_{key}"]
    np.testing.assert_allclose(lazily.obsm[f"X_{key}"], W, atol=2e-3 * W.max())
    np.testing.assert_allclose(lazily.varm[f"{key}_loadings"], in_memory.varm[f"{key}_loadings"], atol=2e-3)
    assert (np.asarray(lazily.obs[key]).astype(str) == np.asarray(in_memory.obs[key]).astype(str)).mean() > 0.99


def assert_alike(a, b, key):
    """The same passes; the last bits may differ between processes, whose arrays lie elsewhere in memory."""
    assert len(a.uns[key]["trace"]) == len(b.uns[key]["trace"])
    np.testing.assert_allclose(a.uns[key]["trace"], b.uns[key]["trace"], rtol=1e-6)
    W = np.asarray(a.obsm[f"X_{key}"])
    np.testing.assert_allclose(W, b.obsm[f"X_{key}"], atol=1e-3 * W.max())


CALLS = {
    "nmf": (sn.tl.nmf, "nmf", {}),
    "kl": (sn.tl.nmf, "nmf", {"loss": "kl", "layer": "counts", "max_iter": 1000}),
    "normalised": (sn.tl.nmf, "nmf", {"layer": "counts", "normalize": True}),
    "masked": (sn.tl.nmf, "nmf", {"mask_var": np.arange(40) % 3 > 0}),
    "penalties": (sn.tl.nmf, "nmf", {"alpha_W": 1e-3, "l1_ratio": 0.5}),
    "nndsvda": (sn.tl.nmf, "nmf", {"init": "nndsvda", "max_iter": 1000}),
    "random": (sn.tl.nmf, "nmf", {"init": "random", "max_iter": 1000, "tol": 1e-5}),
    "paper": (sn.tl.nmf, "nmf", {"preset": "paper", "max_iter": 1000}),
    "refit": (sn.tl.snmf, "snmf", {}),
    "laplacian": (sn.tl.snmf, "snmf", {"smoothing": "laplacian"}),
    "domains": (sn.tl.hsnmf, "hsnmf", {"n_domains": 4}),
}


@pytest.mark.parametrize("case", CALLS)
def test_same_as_in_memory(tissue, case):
    function, key, options = CALLS[case]
    whole, parts = tissue.copy(), with_lazy(tissue, layer=options.get("layer"))
    function(whole, 4, **options)
    function(parts, 4, **options)
    assert_same(parts, whole, key)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_schedulers_give_the_same(tissue, scheduler):
    first, again = with_lazy(tissue), with_lazy(tissue)
    sn.tl.nmf(first, 4)
    with dask.config.set(scheduler=scheduler, num_workers=3):
        sn.tl.nmf(again, 4)
    assert_alike(first, again, "nmf")


@pytest.mark.parametrize("rows", [N, 1, 999])
def test_blocks_of_any_size(tissue, rows):
    table = tissue[:40].copy() if rows == 1 else tissue
    whole, parts = table.copy(), with_lazy(table, rows)
    sn.tl.nmf(whole, 3)
    sn.tl.nmf(parts, 3)
    assert_same(parts, whole, "nmf")


def test_small_blocks_are_joined_and_empty_ones_left_out(tissue):
    X = da.concatenate([lazy(tissue.X[:0], 1), lazy(tissue.X, 100), lazy(tissue.X[:0], 1)])
    blocks = _dask.as_blocks(X, "X")
    assert np.diff(blocks.bounds).tolist() == [700, 700, 700, 700, 200]
    assert (blocks.take(np.arange(N)).as_scipy() != tissue.X).nnz == 0
    rows = np.array([0, 3, 699, 700, 2999])
    assert (blocks.take(rows).as_scipy() != tissue.X[rows]).nnz == 0


def test_dense_blocks_and_other_types(tissue):
    whole = tissue.copy()
    sn.tl.nmf(whole, 4)
    for X in (
        da.from_array(tissue.X.toarray(), chunks=(ROWS, -1)),
        lazy(tissue.X).map_blocks(sp.csc_matrix),
        lazy(tissue.X).map_blocks(sp.csr_array),
        lazy(tissue.X.astype(np.float64)),
        da.from_array(tissue.X.toarray(), chunks=(ROWS, -1)).persist(),
    ):
        parts = tissue.copy()
        parts.X = X
        sn.tl.nmf(parts, 4)
        assert_same(parts, whole, "nmf")


@pytest.mark.parametrize("first", ["sparse", "dense"])
def test_dense_and_sparse_blocks_side_by_side(tissue, first):
    X = tissue.X[:400]
    parts = [lazy(X[:200], 100), da.from_array(X[200:].toarray(), chunks=(100, -1))]
    if first == "dense":
        parts = [da.from_array(X[:200].toarray(), chunks=(100, -1)), lazy(X[200:], 100)]
    blocks = _dask.as_blocks(da.concatenate(parts), "X")
    assert len(blocks.sources) == 1
    assert (blocks.take(np.arange(400)).as_scipy() != X).nnz == 0


@pytest.mark.parametrize(("cut", "came"), [(np.s_[:-1], r"\d99, 40"), (np.s_[:, :-1], r"\d00, 39")])
def test_blocks_of_another_shape_than_announced_are_refused(tissue, cut, came):
    table = with_lazy(tissue)
    table.X = table.X.map_blocks(lambda block: block[cut], dtype=np.float32, meta=table.X._meta)
    words = rf"Block . of 5 .* a block of shape \({came}\) came, and \(\d00, 40\) was announced"
    with pytest.raises(RuntimeError, match=words):
        sn.tl.nmf(table, 4)


def test_threads_are_as_before(tissue):
    before = numba.get_num_threads()
    with sn.settings.override(n_jobs=1), dask.config.set(scheduler="synchronous"):  # blocks are read in this thread
        sn.metrics.reconstruction_error(lazy(tissue.X), (np.ones((N, 2)), np.ones((2, 40))))
    assert numba.get_num_threads() == before


def test_what_counts_are_told_by_comes_from_all_blocks_and_does_not_grow_with_them(tissue, monkeypatch):
    monkeypatch.setattr(_dask, "ROWS", 1)
    monkeypatch.setattr(_survey, "HEAD", 100)
    counts = sp.vstack([sp.csr_matrix((1, 40), dtype=np.float32), tissue.layers["counts"][:199]], "csr")
    blocks = _dask.as_blocks(lazy(counts, 1), "X")
    head = blocks.survey.values.head
    assert 100 < len(head) <= 200
    assert head.base is None  # a view would keep a block in memory
    assert _checks.looks_like_counts(blocks)


def test_what_the_engine_asks_of_blocks(tissue):
    rng = np.random.default_rng(0)
    X, blocks = tissue.layers["counts"], _dask.as_blocks(lazy(tissue.layers["counts"]), "X")
    dense = X.toarray().astype(np.float64)
    columns = np.array([5, 0, 17])
    part = blocks.select(columns)
    assert blocks.shape == X.shape
    assert part.shape == (N, 3)
    np.testing.assert_allclose(_ops.squared_norm(blocks), (dense**2).sum())
    np.testing.assert_allclose(_ops.squared_norm(part), (dense[:, columns] ** 2).sum())
    np.testing.assert_allclose(_ops.column_sums(part), dense[:, columns].sum(0))
    np.testing.assert_allclose(_ops.row_sums(part), dense[:, columns].sum(1))
    np.testing.assert_allclose(_ops.entropy(blocks), _ops.entropy(_ops.as_rows(X)))
    M, V = rng.random((3, 2)), rng.random((N, 2))
    np.testing.assert_allclose(_ops.product(part, M), dense[:, columns] @ M)
    np.testing.assert_allclose(_ops.transposed_product(part, V), dense[:, columns].T @ V)
    assert _blocks.all_zero(part) == ((dense[:, columns].sum(1) == 0).sum(), 0)
    assert blocks.survey.values.head.base is None  # a view would keep a block in memory


@pytest.mark.filterwarnings("ignore:.*zarr v2:UserWarning")
@pytest.mark.parametrize("store", ["zarr", "h5ad"])
def test_tables_read_lazily(tissue, store, tmp_path):
    whole = tissue.copy()
    path = tmp_path / f"tissue.{store}"
    getattr(whole, f"write_{store}")(path)
    parts = ad.experimental.read_lazy(path)
    assert isinstance(parts.X, da.Array)
    for table in (whole, parts):
        sn.tl.nmf(table, 4)
        sn.tl.snmf(table, 4)
    assert_same(parts, whole, "nmf")
    assert_same(parts, whole, "snmf")
    for table in (whole, parts):
        sn.tl.hsnmf(table, use_rep="X_snmf", n_domains=4)
        assert sn.metrics.chaos(table, "domain", library_key="sample") > 0
    assert (parts.obs["hsnmf"].to_numpy() == whole.obs["hsnmf"].to_numpy()).mean() > 0.99
    loaded = parts.to_memory()
    np.testing.assert_array_equal(loaded.obsm["X_nmf"], parts.obsm["X_nmf"])
    loaded.write_h5ad(tmp_path / "again.h5ad")


@pytest.mark.filterwarnings("ignore:.*zarr v2:UserWarning", "ignore:The factors of 'hsnmf' were smoothed")
def test_tables_read_lazily_are_drawn_reported_and_written(tissue, tmp_path):
    whole = tissue[:500].copy()
    sn.gr.contact_neighbors(whole, library_key="sample")
    sn.tl.hsnmf(whole, 4, n_domains=4)
    whole.write_zarr(tmp_path / "tissue.zarr")
    parts = ad.experimental.read_lazy(tmp_path / "tissue.zarr")
    pages = []
    for table in (whole, parts):
        sn.pl.domains(table, "hsnmf")
        sn.pl.graph(table, cluster_key="hsnmf")
        plt.close("all")
        sn.io.write_report(table, tmp_path / "report.html", key="hsnmf", reference_key="domain")
        pages.append((tmp_path / "report.html").read_text(encoding="utf-8"))
    missing = [page.count("Not shown") for page in pages]
    assert missing[0] == missing[1]
    parts.obs, parts.var = parts.obs.to_memory(), parts.var.to_memory()  # as docs/large_data.md says
    parts.write_h5ad(tmp_path / "result.h5ad")


def test_tables_normalised_lazily(tissue):
    whole, parts = tissue.copy(), tissue.copy()
    whole.X, parts.X = tissue.layers["counts"].copy(), lazy(tissue.layers["counts"])
    for table in (whole, parts):
        sc.pp.normalize_total(table)
        sc.pp.log1p(table)
        sn.tl.nmf(table, 4)
    assert isinstance(parts.X, da.Array)
    assert_same(parts, whole, "nmf")


def test_project(tissue):
    reference, new = tissue[:1000].copy(), tissue[1000:].copy()
    sn.tl.nmf(reference, 4)
    new = new[:, np.r_[20:40, 5:20]].copy()  # other order, some missing
    parts = with_lazy(new)
    for table in (new, parts):
        with pytest.warns(UserWarning, match="5 of 40 variables"):
            sn.tl.project(table, reference)
    np.testing.assert_allclose(parts.obsm["X_nmf"], new.obsm["X_nmf"], atol=1e-4)
    counts = new.layers["counts"]
    new.X, parts.X = counts.copy(), lazy(counts)
    for table in (new, parts):
        with pytest.warns(UserWarning, match="5 of 40 variables"):
            sn.tl.project(table, reference, normalize=True)
    np.testing.assert_allclose(parts.obsm["X_nmf"], new.obsm["X_nmf"], atol=1e-4)


def test_metrics(tissue):
    whole = tissue.copy()
    sn.tl.nmf(whole, 4, mask_var=np.arange(40) > 3)
    parts = with_lazy(whole)
    factors = whole.obsm["X_nmf"], whole.varm["nmf_loadings"].T
    for metric in (sn.metrics.reconstruction_error, sn.metrics.explained_variance):
        expected = metric(whole, "nmf")
        assert metric(parts, "nmf") == pytest.approx(expected, rel=1e-9)
        assert metric(lazy(whole.X), factors) == pytest.approx(expected, rel=1e-9)


def test_functions_that_need_the_whole_read_it(tissue):
    parts, whole = with_lazy(tissue), tissue.copy()
    for table in (parts, whole):
        table.obs["nmf"] = table.obs["domain"]
    a, b = (sn.metrics.marker_coherence(t, "domain") for t in (parts, whole))
    np.testing.assert_allclose(a, b)


def test_ranks_and_consensus_read_it(tissue):
    found = []
    for table in (with_lazy(tissue, layer="counts"), tissue.copy()):
        options = {"layer": "counts", "normalize": True, "mask_var": np.arange(40) % 3 > 0, "n_restarts": 2}
        ranks = sn.tl.select_n_components(table, [2, 3], n_folds=2, n_var_folds=2, **options)
        sn.tl.consensus_nmf(table, 3, **options)
        found.append((ranks["cv_error"].to_numpy(), table.obsm["X_consensus_nmf"]))
    for lazily, in_memory in zip(*found, strict=True):
        np.testing.assert_allclose(lazily, in_memory, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        (lambda X: lazy(damaged(X, np.nan)), ValueError, "`adata.X` holds 3 NaN and 0 infinite values"),
        (lambda X: lazy(damaged(X, -1)), ValueError, "`adata.X` holds 3 negative values"),
        (lambda X: lazy(X * 0), ValueError, "all zero"),
        (lambda X: lazy(X).rechunk((ROWS, 20)), ValueError, r"2 blocks across.*rechunk\({1: -1}\)"),
        (lambda X: da.from_array(X.toarray().astype(str), chunks=(ROWS, -1)), TypeError, "must be numeric"),
    ],
    ids=["nan", "negative", "zero", "columns", "text"],
)
def test_bad_input(tissue, X, error, match):
    table = with_lazy(tissue)
    table.X = X(tissue.X)
    with pytest.raises(error, match=match):
        sn.tl.nmf(table, 4)
    assert "X_nmf" not in table.obsm


def test_blocks_of_unknown_sizes_are_refused(tissue):
    X = lazy(tissue.X)
    X = X[X.map_blocks(lambda block: np.ones(block.shape[0], bool), drop_axis=1, dtype=bool)]
    factors = np.ones((N, 2)), np.ones((2, 40))
    with pytest.raises(ValueError, match=r"X = X.compute_chunk_sizes\(\)"):
        sn.metrics.reconstruction_error(X, factors)
    assert sn.metrics.reconstruction_error(X.compute_chunk_sizes(), factors) > 0


def test_counts_are_noticed(tissue):
    table = with_lazy(tissue)
    table.X = table.layers["counts"] = lazy(tissue.layers["counts"])
    with pytest.warns(UserWarning, match="looks like raw counts"):
        sn.tl.nmf(table, 4)


def test_schedulers_that_cannot_share_factors_are_refused(tissue):
    with dask.config.set(scheduler="processes"), pytest.raises(ValueError, match=r"distributed.Client\(n_workers=2\)"):
        sn.tl.nmf(with_lazy(tissue), 4)


FAILURE = r"Block 3 of 5 \(rows 1,400 to 2,099\) could not be worked on: OSError: the disk is gone"


def test_a_block_that_cannot_be_read_is_named(tissue):
    table = with_lazy(tissue)
    table.X = that_fails(table.X)
    with pytest.raises(RuntimeError, match=FAILURE):
        sn.tl.nmf(table, 4)
    assert "X_nmf" not in table.obsm


def test_a_device_is_refused_before_anything_is_read(tissue, monkeypatch):
    table = with_lazy(tissue)
    table.X = that_fails(table.X)
    reference = tissue.copy()
    sn.tl.nmf(reference, 3)
    monkeypatch.setattr(_checks, "check_device", lambda device: device)  # torch need not be here
    for call in (lambda: sn.tl.nmf(table, 4, device="cuda"), lambda: sn.tl.project(table, reference, device="cuda")):
        with pytest.raises(ValueError, match=r"`device='cuda'` needs X in memory.*X.compute\(\)"):
            call()


def test_the_layer_that_is_cut_by_columns_is_named(tissue):
    table = with_lazy(tissue)
    table.layers["log"] = lazy(tissue.X).rechunk((ROWS, 20))
    with pytest.raises(ValueError, match=r"adata.layers\['log'\] = adata.layers\['log'\].rechunk\({1: -1}\)"):
        sn.tl.nmf(table, 4, layer="log")


def test_nothing_is_refused(tissue):
    with pytest.raises(ValueError, match=r"X must have two axes .* not shape \(0, 40\)"):
        sn.metrics.reconstruction_error(lazy(tissue.X)[:0], (np.ones((0, 2)), np.ones((2, 40))))


def test_few_rows_a_block_are_mentioned(tissue, caplog):
    _dask.as_blocks(lazy(tissue.X, 20), "`adata.X`")
    assert "150 blocks of about 20 rows" in caplog.text


@pytest.mark.parametrize("case", ["nmf", "kl", "nndsvda", "laplacian"])
def test_cluster_gives_what_threads_give(tissue, client, case):
    function, key, options = CALLS[case]
    here, there = (with_lazy(tissue, layer=options.get("layer")) for _ in range(2))
    with dask.config.set(scheduler="threads"):
        function(here, 4, **options)
    function(there, 4, **options)
    assert_alike(here, there, key)


@pytest.mark.parametrize("smoothing", ["refit", "laplacian"])
def test_large_factors_travel_without_warnings(tissue, client, monkeypatch, smoothing):
    """Any warning is an error here, and dask's says to send less."""
    monkeypatch.setattr(_cluster, "LINEAGE", 1)
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "40kB"}):
        assert tissue.n_obs * 16 * 4 > 40_000
        sn.tl.snmf(with_lazy(tissue), 4, smoothing=smoothing)


def test_workers_use_the_threads_that_they_have(client):
    def look():
        return numba.get_num_threads()

    before = set(client.run(look).values())
    (now,) = client.gather(_cluster._send(client, "look", _cluster._on_block, [lambda source: look()], [None], [[]]))
    assert now == 1  # of the two workers with one thread each, whatever the machine has
    assert set(client.run(look).values()) == before


def test_cluster_takes_data_that_are_already_there(tissue, client, monkeypatch):
    here, there = with_lazy(tissue), with_lazy(tissue)
    with dask.config.set(scheduler="threads"):
        sn.tl.nmf(here, 4)
    there.X = client.persist(there.X)
    sn.tl.nmf(there, 4)
    assert_alike(here, there, "nmf")
    monkeypatch.setattr(_cluster, "LIGHT", 100)  # any data are too much to send in every pass
    there.X = lazy(tissue.X)
    sn.tl.nmf(there, 4)
    assert_alike(here, there, "nmf")


@pytest.mark.parametrize("lineage", [25, 2])
def test_a_dead_worker_changes_nothing(tissue, client, monkeypatch, lineage):
    """W is made again by the steps that made it, or from the values that the scheduler knows since the last renewal."""
    options = {"init": "nndsvda", "tol": 0, "max_iter": 8}
    here, there = with_lazy(tissue), with_lazy(tissue)
    with dask.config.set(scheduler="threads"), pytest.warns(UserWarning, match="max_iter"):
        sn.tl.nmf(here, 4, **options)
    monkeypatch.setattr(_cluster, "LINEAGE", lineage)
    passes, update, renewals = [], _cluster.Workers.update, []

    def killing(self, X, kernel, Ht, W, *rest):
        passes.append(W.age)
        if len(passes) == 4:
            victims = client.run(os.getpid)
            os.kill(next(iter(victims.values())), signal.SIGKILL)
        return update(self, X, kernel, Ht, W, *rest)

    monkeypatch.setattr(_cluster.Workers, "update", killing)
    monkeypatch.setattr(_cluster, "renew", lambda W, renew=_cluster.renew: (renewals.append(W.age), renew(W)))
    with pytest.warns(UserWarning, match="max_iter"):
        sn.tl.nmf(there, 4, **options)
    assert len(passes) == 9
    assert renewals == ([2] * 3 if lineage == 2 else [])
    assert_alike(here, there, "nmf")
    client.wait_for_workers(2)


def test_a_cluster_without_workers_is_not_waited_for_for_ever(tissue, monkeypatch, caplog):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(_cluster, "PATIENCE", 0.5)
    monkeypatch.setattr(_cluster, "LOOK", 0.1)
    table = with_lazy(tissue)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        distributed.Client(empty, set_as_default=False) as client,
        client.as_current(),
        pytest.raises(RuntimeError, match=r"no workers for 0.5 s.*client.wait_for_workers\(1\)"),
    ):
        sn.tl.nmf(table, 4)
    assert "the cluster has no workers" in caplog.text
    assert "X_nmf" not in table.obsm


def test_cluster_names_the_block_that_fails(tissue, client):
    table = with_lazy(tissue)
    table.X = that_fails(table.X)
    with pytest.raises(RuntimeError, match=FAILURE):
        sn.tl.nmf(table, 4)


def test_cluster_forgets(tissue, client):
    """Nothing stays on the workers once the factors are here."""
    sn.tl.nmf(with_lazy(tissue), 4)
    for _ in range(100):
        gc.collect()  # errors of earlier tests hold what they were raised from
        left = [key for keys in client.has_what().values() for key in keys if str(key).startswith("spanmf")]
        if not left:
            break
        time.sleep(0.1)
    assert left == []


def test_project_and_metrics_on_a_cluster(tissue, client):
    reference = tissue[:1000].copy()
    sn.tl.nmf(reference, 4)
    here, there = with_lazy(tissue), with_lazy(tissue)
    with dask.config.set(scheduler="threads"):
        sn.tl.project(here, reference)
        error = sn.metrics.reconstruction_error(here, "nmf")
    sn.tl.project(there, reference)
    np.testing.assert_allclose(here.obsm["X_nmf"], there.obsm["X_nmf"], atol=1e-4)
    assert sn.metrics.reconstruction_error(there, "nmf") == pytest.approx(error, rel=1e-6)


def test_factors_can_stay_on_the_cluster(tissue, client):
    here, there = with_lazy(tissue), with_lazy(tissue)
    sn.tl.nmf(here, 4)
    with sn.settings.override(factors="dask"):
        sn.tl.nmf(there, 4)
        sn.tl.snmf(there, 4)
    assert sn.settings.factors == "memory"
    assert isinstance(there.obsm["X_nmf"], da.Array)
    assert len(there.obsm["X_nmf"].chunks[0]) == 5
    assert isinstance(there.obsm["X_snmf"], np.ndarray)
    np.testing.assert_allclose(there.obsm["X_nmf"].compute(), here.obsm["X_nmf"], atol=1e-3)
    assert (there.obs["nmf"] == here.obs["nmf"]).all()
    error = sn.metrics.reconstruction_error(here, "nmf")
    assert sn.metrics.reconstruction_error(there, "nmf") == pytest.approx(error, rel=1e-6)
    with pytest.raises(ValueError, match="`factors` must be one of 'memory', 'dask'"):
        sn.settings.factors = "elsewhere"
    with pytest.raises(ValueError, match="among 'n_jobs', 'factors', not 'n_job'"), sn.settings.override(n_job=1):
        pass


def test_joint_nmf_and_stl_nmf_read_what_is_lazy():
    tables = dict(sn.datasets.rna_protein_tissue(600, rng=0).mod)
    parts = {name: with_lazy(table) for name, table in tables.items()}
    whole, lazily = (sn.tl.joint_nmf(t, 5) for t in (tables, parts))
    np.testing.assert_allclose(lazily.obsm["X_joint_nmf"], whole.obsm["X_joint_nmf"], atol=1e-4)
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.5, 4, (3, 150)) + 0.1
    spots = ad.AnnData(sp.csr_matrix(rng.poisson(rng.dirichlet(np.ones(3), 100) @ profiles).astype(np.float32)))
    cells = ad.AnnData(sp.csr_matrix(rng.poisson(np.repeat(profiles, 60, 0)).astype(np.float32)))
    cells.obs["type"] = np.repeat(["a", "b", "c"], 60)
    cells.obs["type"] = cells.obs["type"].astype("category")
    reference = sn.tl.reference_profiles(with_lazy(cells), "type")
    whole, lazily = spots, with_lazy(spots)
    for table in (whole, lazily):
        sn.tl.stl_nmf(table, reference, graph_weight=0)
    np.testing.assert_allclose(lazily.obsm["stl_nmf"], whole.obsm["stl_nmf"], atol=1e-6)
