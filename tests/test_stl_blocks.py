"""Deconvolution of a section that comes in blocks of rows: the same as in memory, and never all of it at once."""

from __future__ import annotations

import os
import signal

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from lazily import da, damaged, lazy, that_fails, with_lazy
from support import changed, snapshot, typed_cells

import spanmf as sn
from spanmf import _checks, _cluster, _dask
from spanmf.core import _blocks, _slices, _stl_calibrate, _stl_em, _stl_poisson, _stl_tune

dask = pytest.importorskip("dask")

N, P, ROWS, LEARNING = 600, 150, 130, 200
TYPES = ["Acinar", "M/TC", "T cells"]


@pytest.fixture(scope="module")
def reference():
    return sn.tl.reference_profiles(typed_cells(TYPES, p=P), "type")


@pytest.fixture(scope="module")
def section(reference):
    """Counts in X, as they are expected in ``layers["expected"]``; the second spot is empty; two genes that no reference has."""
    rng = np.random.default_rng(1)
    mean = rng.dirichlet(np.ones(3), N) @ reference.X * 3
    mean = np.hstack([mean, np.ones((N, 2))])
    mean[1] = 0
    out = ad.AnnData(sp.csr_matrix(rng.poisson(mean).astype(np.float32)))
    out.layers["expected"] = sp.csr_matrix(mean.astype(np.float32))
    out.var_names = [*reference.var_names, "Other1", "Other2"]
    out.obs["region"] = pd.Categorical(np.where(np.arange(N) < N // 2, "left", "right"))
    out.obsm["spatial"] = np.stack(np.divmod(np.arange(N), 25), 1) * 100.0
    sn.gr.contact_neighbors(out)
    return out


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_dask, "ROWS", ROWS)
    monkeypatch.setattr(_stl_poisson, "LEARNING_SPOTS", LEARNING)


def never_whole(X):
    return pytest.fail("read whole") if _dask.is_lazy(X) else X


def assert_same(a, b, rtol=1e-6):
    """Two results of the same sections, equal but for the rounding of sums."""
    assert changed_slots(a, b) == []
    for slot in ("stl_nmf", "stl_nmf_mrna", "stl_nmf_lower", "stl_nmf_upper"):
        if slot in b.obsm:
            np.testing.assert_allclose(a.obsm[slot], b.obsm[slot], atol=1e-5)
    labels, expected = (table.obs["stl_nmf"].cat for table in (a, b))
    assert list(labels.categories) == list(expected.categories)
    assert (labels.codes.to_numpy() == expected.codes.to_numpy()).all()
    np.testing.assert_allclose(a.obs["stl_nmf_deviance"], b.obs["stl_nmf_deviance"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(a.var["stl_nmf_deviance"], b.var["stl_nmf_deviance"], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(a.varm["stl_nmf_profiles"], b.varm["stl_nmf_profiles"], atol=1e-6)
    # a sum of squares is a small difference of large terms, which are added up in float32
    near = 1e-6 * b.layers["expected"].power(2).sum() if b.uns["stl_nmf"]["likelihood"] == "gaussian" else 0
    np.testing.assert_allclose(a.uns["stl_nmf"]["trace"], b.uns["stl_nmf"]["trace"], rtol=rtol, atol=near)
    for name in ("mending", "mrna"):
        np.testing.assert_allclose(a.uns["stl_nmf"][name], b.uns["stl_nmf"][name], rtol=rtol)
    for name in ("likelihood", "platform", "n_genes", "n_iter", "converged"):
        assert a.uns["stl_nmf"][name] == b.uns["stl_nmf"][name]


def changed_slots(a, b):
    slots = ("obs", "var", "obsm", "varm", "uns")
    return [slot for slot in slots if set(getattr(a, slot).keys()) != set(getattr(b, slot).keys())]


EMPTY = pytest.mark.filterwarnings("ignore:1 of 600 spots have no counts")
CASES = {
    "counts": {},
    "some genes": {"n_genes": 90},
    "expected": {"layer": "expected"},
    "least squares": {"likelihood": "gaussian", "interval": 0.9},
    "region": {"region_key": "region", "region_weight": 5.0, "graph_weight": 0},
    "factors of genes": {"platform": True, "n_genes": 90},
    "intervals": {"interval": 0.9, "cells_per_spot": (20, 60)},
}


@EMPTY
@pytest.mark.parametrize("case", CASES)
def test_same_as_in_memory(section, reference, case):
    options = CASES[case]
    whole, parts = section.copy(), with_lazy(section, ROWS, layer=options.get("layer"))
    for table in (whole, parts):
        sn.tl.stl_nmf(table, reference, **options)
    assert_same(parts, whole)
    assert case != "expected" or whole.uns["stl_nmf"]["likelihood"] == "gaussian"
    assert case != "factors of genes" or whole.uns["stl_nmf"]["platform"]


@EMPTY
def test_intervals_of_counting_alone(section, reference):
    frame = reference.to_df()
    whole, parts = section.copy(), with_lazy(section, ROWS)
    for table in (whole, parts):
        sn.tl.stl_nmf(table, frame, interval=0.9, n_genes=90)
    assert_same(parts, whole)
    assert np.isnan(parts.obsm["stl_nmf_lower"].iloc[1]).all()


@EMPTY
def test_shares_do_not_depend_on_the_blocks(section, reference):
    """What belongs to a row is worked out from it alone."""
    whole, parts = section.copy(), with_lazy(section, 37)
    for table in (whole, parts):
        sn.tl.stl_nmf(table, reference)
    np.testing.assert_array_equal(parts.obsm["stl_nmf"], whole.obsm["stl_nmf"])


@EMPTY
def test_never_more_than_the_sample_is_in_memory(section, reference, monkeypatch):
    taken, take = [], _blocks.Blocks.take
    monkeypatch.setattr(_stl_calibrate, "SPOTS", 150)
    monkeypatch.setattr(_dask, "in_memory", never_whole)
    monkeypatch.setattr(_blocks.Blocks, "take", lambda X, rows: (taken.append(len(rows)), take(X, rows))[1])
    sn.tl.stl_nmf(with_lazy(section, ROWS), reference, interval=0.9, cells_per_spot=(20, 60), graph_weight=0)
    assert taken == [LEARNING, 150]


def test_weights_are_chosen_on_some_spots_of_the_blocks(section, reference, monkeypatch):
    monkeypatch.setattr(_stl_tune, "VALUES", {"graph_weight": (3.0, 10.0, 30.0)})
    monkeypatch.setattr(_stl_tune, "SPOTS", 120)
    whole, parts = section.copy(), with_lazy(section, ROWS)
    expected = sn.tl.select_stl_weights(whole, reference)
    monkeypatch.setattr(_dask, "in_memory", never_whole)
    assert sn.tl.select_stl_weights(parts, reference) == expected
    a, b = (table.uns["select_stl_weights"]["trials"] for table in (parts, whole))
    pd.testing.assert_frame_equal(a, b, rtol=1e-5)


@EMPTY
def test_few_spots_are_taken_whole(section, reference, monkeypatch):
    monkeypatch.setattr(_stl_poisson, "LEARNING_SPOTS", N)
    whole, parts = section.copy(), with_lazy(section, ROWS)
    for table in (whole, parts):
        sn.tl.stl_nmf(table, reference)
    assert_same(parts, whole, rtol=1e-12)


@EMPTY
@pytest.mark.filterwarnings("ignore:.*zarr v2:UserWarning")
@pytest.mark.parametrize("store", ["zarr", "h5ad"])
def test_sections_read_lazily(section, reference, store, tmp_path):
    whole = section.copy()
    whole.uns["slides"] = np.array(["V1", "V2"], dtype=object)
    getattr(whole, f"write_{store}")(tmp_path / f"section.{store}")
    parts = ad.experimental.read_lazy(tmp_path / f"section.{store}")
    for table in (whole, parts):
        sn.tl.stl_nmf(table, reference, region_key="region")
    X, parts.X = parts.X, None  # as docs/large_data.md says
    parts = parts.to_memory()
    parts.X = X
    assert_same(parts, whole)
    parts.write_h5ad(tmp_path / "again.h5ad")
    assert_same(ad.read_h5ad(tmp_path / "again.h5ad"), whole)


def test_views_and_copies(section, reference):
    parts = with_lazy(section, ROWS)
    whole, view = section[:300].copy(), parts[:300]
    before = snapshot(parts)
    with pytest.warns(UserWarning, match="1 of 300 spots"):
        found, expected = (sn.tl.stl_nmf(table, reference, copy=True) for table in (view, whole))
    assert_same(found, expected)
    assert changed(before, snapshot(parts)) == []
    assert isinstance(found.X, da.Array)


@EMPTY
def test_the_published_form_reads_few_spots(section, reference, monkeypatch):
    few = section[:80].copy()
    whole, parts = few.copy(), with_lazy(few, 30)
    for table in (whole, parts):
        with pytest.warns(UserWarning, match="1 of 80 spots"):
            sn.tl.stl_nmf(table, reference, preset="paper")
    np.testing.assert_array_equal(parts.obsm["stl_nmf"], whole.obsm["stl_nmf"])
    monkeypatch.setattr(_dask, "in_memory", never_whole)
    monkeypatch.setattr("spanmf.core._stl_paper.MAX_SPOTS", 79)
    with pytest.raises(ValueError, match="for 80 spots its graph takes"):
        sn.tl.stl_nmf(parts, reference, preset="paper")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda X: damaged(X, np.nan), ValueError, "`adata.X` holds 3 NaN and 0 infinite values"),
        (lambda X: damaged(X, -1), ValueError, "`adata.X` holds 3 negative values"),
        (lambda X: X.log1p(), ValueError, "`adata.X` looks log-transformed"),
    ],
    ids=["nan", "negative", "logarithms"],
)
def test_bad_values_are_told_as_in_memory(section, reference, change, error, match):
    whole, parts = section.copy(), section.copy()
    whole.X, parts.X = change(section.X), lazy(change(section.X), ROWS)
    for table in (whole, parts):
        before = snapshot(table)
        with pytest.raises(error, match=match):
            sn.tl.stl_nmf(table, reference)
        assert changed(before, snapshot(table)) == []


FAILURE = r"Block 3 of 5 \(rows 260 to 389\) could not be worked on: OSError: the disk is gone"


def test_a_block_that_cannot_be_read_is_named(section, reference):
    table = with_lazy(section, ROWS)
    table.X = that_fails(table.X)
    before = snapshot(table)
    with pytest.raises(RuntimeError, match=FAILURE):
        sn.tl.stl_nmf(table, reference)
    assert changed(before, snapshot(table)) == []


def test_a_device_and_a_missing_graph_are_told_before_anything_is_read(section, reference, monkeypatch):
    table = with_lazy(section, ROWS)
    table.X = that_fails(table.X)
    monkeypatch.setattr(_checks, "check_device", lambda device: device)  # torch need not be here
    with pytest.raises(ValueError, match=r"`device='cuda'` needs X in memory"):
        sn.tl.stl_nmf(table, reference, device="cuda")
    del table.obsp["contact_connectivities"]
    with pytest.raises(KeyError, match="contact_neighbors"):
        sn.tl.stl_nmf(table, reference)


@EMPTY
@pytest.mark.parametrize("case", ["some genes", "least squares", "intervals"])
def test_on_a_cluster(section, reference, client, case):
    whole, parts = section.copy(), with_lazy(section, ROWS)
    for table in (whole, parts):
        sn.tl.stl_nmf(table, reference, **CASES[case])
    assert_same(parts, whole)


@EMPTY
def test_a_dead_worker_changes_nothing(section, reference, client, monkeypatch):
    whole, parts = section.copy(), with_lazy(section, ROWS)
    sn.tl.stl_nmf(whole, reference)
    passes, update = [], _cluster.Workers.update

    def killing(self, X, kernel, *rest):
        passes.append(kernel)
        if passes.count(_stl_em.improve) == 2:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        return update(self, X, kernel, *rest)

    monkeypatch.setattr(_cluster.Workers, "update", killing)
    sn.tl.stl_nmf(parts, reference)
    assert passes.count(_stl_em.improve) > 2
    assert_same(parts, whole)
    client.wait_for_workers(2)


def test_a_cluster_names_the_block_that_fails(section, reference, client):
    table = with_lazy(section, ROWS)
    table.X = that_fails(table.X)
    with pytest.raises(RuntimeError, match=FAILURE):
        sn.tl.stl_nmf(table, reference)


# --- slices of a matrix in memory -------------------------------------------------------------------------------------


@EMPTY
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("options", [{"n_genes": 90}, {"likelihood": "gaussian"}])
def test_slices_give_what_a_copy_gives(section, reference, monkeypatch, dtype, options):
    first, again = section.copy(), section.copy()
    first.X, again.X = section.X.astype(dtype), section.X.astype(dtype)
    sn.tl.stl_nmf(first, reference, **options)
    monkeypatch.setattr(_slices, "WHOLE", 100)
    monkeypatch.setattr(_slices, "VALUES", 5000)
    made = []
    monkeypatch.setattr(_slices.Slice, "load", lambda part, load=_slices.Slice.load: (made.append(part), load(part))[1])
    sn.tl.stl_nmf(again, reference, **options)
    assert_same(again, first)
    if "likelihood" not in options:  # of least squares the weight of the graph follows from a sum over all spots
        np.testing.assert_array_equal(again.obsm["stl_nmf"], first.obsm["stl_nmf"])
    assert len({part.name for part in made}) > 5


def test_slices_hold_all_rows_once_and_copy_none_as_loaded(monkeypatch):
    monkeypatch.setattr(_slices, "VALUES", 7)
    X = sp.random_array((40, 12), density=0.3, rng=0, dtype=np.float32).tocsr()
    X = sp.vstack([X[:5] * 0, X, sp.csr_matrix((3, 12), dtype=np.float32)], "csr")
    X.eliminate_zeros()
    blocks = _slices.in_slices(sp.csr_matrix(X))
    assert blocks.bounds[0] == 0
    assert blocks.bounds[-1] == 48
    assert len(blocks.sources) > 10
    parts = [source.load() for source in blocks.sources]
    assert (sp.vstack(parts) != X).nnz == 0
    assert all(np.shares_memory(part.data, blocks.sources[0].X.data) for part in parts if part.nnz)
    np.testing.assert_array_equal(
        blocks.select(np.array([3, 5])).take(np.arange(48)).as_scipy().toarray(), X[:, [3, 5]].toarray()
    )
