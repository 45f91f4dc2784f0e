"""Results survive files; containers, dtypes, views and copies change nothing."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from support import changed, small_tissue, snapshot

import spanmf as sn

K = 4
CONTAINERS = {
    "csr_matrix": sp.csr_matrix,
    "csc_matrix": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "dense": lambda X: X.toarray(),
    "fortran": lambda X: np.asfortranarray(X.toarray()),
}
NMF = ["obs/nmf", "obsm/X_nmf", "uns/nmf", "varm/nmf_loadings"]


@pytest.fixture(scope="module")
def tissue() -> ad.AnnData:
    adata = small_tissue(300, 40, K)
    adata.var["highly_variable"] = np.arange(40) % 5 > 0
    sn.gr.contact_neighbors(adata, 20, 80, library_key="sample")
    return adata


@pytest.fixture(scope="module")
def done(tissue) -> ad.AnnData:
    adata = tissue.copy()
    sn.tl.nmf(adata, K)
    for smoothing in ("refit", "diffuse", "laplacian"):
        sn.tl.snmf(adata, K, smoothing=smoothing, key_added=f"snmf_{smoothing}")
    sn.tl.snmf(adata, K)
    sn.gr.hybrid_neighbors(adata)
    sn.tl.hsnmf(adata, K)
    sn.tl.hsnmf(adata, K, n_domains=K, key_added="potts")
    sn.tl.hsnmf(adata, K, preset="paper", key_added="paper")
    sn.tl.project(adata[:50].copy(), adata, key="nmf")
    return adata


# --- files ----------------------------------------------------------------------------------------------------------


def same(a, b) -> bool:
    """Equal values of nested dicts, arrays, and scalars (a store may turn numbers into numpy's)."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning", "ignore:.*zarr v2:UserWarning")
def test_file(done, store, tmp_path):
    path = tmp_path / f"tissue.{store}"
    getattr(done, f"write_{store}")(path)
    back = getattr(ad, f"read_{store}")(path)
    for slot in ("obsm", "varm", "obsp"):
        for key, value in getattr(done, slot).items():
            other = getattr(back, slot)[key]
            assert other.dtype == value.dtype, key
            np.testing.assert_array_equal(*(v.toarray() if sp.issparse(v) else v for v in (value, other)), err_msg=key)
    for key in ("nmf", "snmf", "hsnmf", "potts", "paper"):
        pd.testing.assert_series_equal(done.obs[key], back.obs[key])
        assert same(done.uns[key], back.uns[key]), key
    assert same(done.uns["contact_neighbors"], back.uns["contact_neighbors"])
    assert same(done.uns["hybrid_neighbors"], back.uns["hybrid_neighbors"])


def test_provenance(done):
    for key, n in (("nmf", K), ("snmf", K), ("hsnmf", K)):
        run = done.uns[key]
        assert run["params"]["n_components"] == n
        assert run["versions"]["spanmf"] == sn.__version__
        assert run["n_iter"] >= 1
        assert isinstance(run["converged"], (bool, np.bool_))
        trace = np.asarray(run["trace"])
        assert trace.dtype == np.float64
        assert len(trace) > 1
        assert (np.diff(trace) <= 1e-9 * trace[0]).all(), "the objective rises"


def test_a_file_takes_the_next_step(done, tmp_path):
    """What was read back goes on as what was written: the graph and the factors are found again."""
    done.write_h5ad(tmp_path / "tissue.h5ad")
    back = ad.read_h5ad(tmp_path / "tissue.h5ad")
    for adata in (done.copy(), back):
        sn.tl.hsnmf(adata, K, key_added="again")
        assert list(adata.obs["again"]) == list(done.obs["hsnmf"])
    pd.testing.assert_frame_equal(sn.tl.top_features(back, "hsnmf"), sn.tl.top_features(done, "hsnmf"))


# --- slots ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["nmf", "snmf", "snmf_refit", "snmf_diffuse", "snmf_laplacian", "hsnmf", "potts", "paper"]
)
def test_slots(done, key):
    W, H = done.obsm[f"X_{key}"], done.varm[f"{key}_loadings"]
    assert (W.shape, H.shape) == ((300, K), (40, K))
    assert (W.dtype, H.dtype) == (np.float32, np.float32)
    assert isinstance(W, np.ndarray)
    assert isinstance(H, np.ndarray)
    assert W.min() >= 0
    assert H.min() >= 0
    masked_out = ~done.var["highly_variable"].to_numpy()
    assert (H[masked_out] == 0).all()
    assert (H[~masked_out].sum(1) > 0).mean() > 0.9
    labels = done.obs[key]
    assert isinstance(labels.dtype, pd.CategoricalDtype)
    if key.startswith(("nmf", "snmf")):
        dominant = (W * np.linalg.norm(H, axis=0)).argmax(1)
        assert list(labels) == [str(k) for k in dominant], "the number of the component, as its column in W"
    else:
        assert list(labels.cat.categories) == [str(i) for i in range(len(labels.cat.categories))]
        assert labels.value_counts(sort=False).is_monotonic_decreasing


def test_only_its_own_slots(tissue):
    for function, kw, slots in (
        (sn.tl.nmf, {}, NMF),
        (sn.tl.snmf, {"key_added": "mine"}, ["obs/mine", "obsm/X_mine", "uns/mine", "varm/mine_loadings"]),
    ):
        adata = tissue.copy()
        before = snapshot(adata)
        assert function(adata, K, **kw) is None
        assert sorted(changed(before, snapshot(adata))) == sorted(slots)


def test_hsnmf_slots(tissue):
    adata = tissue.copy()
    before = snapshot(adata)
    sn.tl.hsnmf(adata, K, clustering="leiden", alpha=0.5)
    new = set(changed(before, snapshot(adata)))
    assert new >= {"obs/hsnmf", "obsm/X_hsnmf", "uns/hsnmf", "varm/hsnmf_loadings", "obsp/hybrid_connectivities"}
    assert {s for s in new if "hsnmf" not in s} <= {
        "obsp/hybrid_connectivities",
        "obsp/hybrid_distances",
        "uns/hybrid_neighbors",
    }


# --- copies, views, backed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nmf", "snmf", "hsnmf"])
def test_copy(tissue, name):
    before = snapshot(tissue)
    out = getattr(sn.tl, name)(tissue, K, copy=True)
    assert changed(before, snapshot(tissue)) == []
    inplace = tissue.copy()
    assert getattr(sn.tl, name)(inplace, K) is None
    np.testing.assert_array_equal(out.obsm[f"X_{name}"], inplace.obsm[f"X_{name}"])
    assert list(out.obs[name]) == list(inplace.obs[name])


def test_copy_of_a_graph(tissue):
    """In gr, as in squidpy, ``copy=True`` returns the two matrices."""
    before = snapshot(tissue)
    A, D = sn.gr.contact_neighbors(tissue, 20, 80, library_key="sample", copy=True)
    hybrid, _ = sn.gr.hybrid_neighbors(tissue, use_rep="W", copy=True)
    assert changed(before, snapshot(tissue)) == []
    np.testing.assert_array_equal(A.toarray(), tissue.obsp["contact_connectivities"].toarray())
    np.testing.assert_array_equal(D.toarray(), tissue.obsp["contact_distances"].toarray())
    np.testing.assert_array_equal(hybrid.toarray(), hybrid.T.toarray())


@pytest.mark.filterwarnings("ignore:Setting element:UserWarning", "ignore:Trying to modify attribute")
@pytest.mark.parametrize("name", ["nmf", "snmf", "hsnmf"])
def test_view(tissue, name):
    """A view becomes an actual table, as in scanpy, and the table behind it stays."""
    before = snapshot(tissue)
    view = tissue[tissue.obs["sample"] == "left"]
    alone = view.copy()
    getattr(sn.tl, name)(view, K)
    getattr(sn.tl, name)(alone, K)
    assert not view.is_view
    np.testing.assert_array_equal(view.obsm[f"X_{name}"], alone.obsm[f"X_{name}"])
    assert list(view.obs[name]) == list(alone.obs[name])
    assert changed(before, snapshot(tissue)) == []


@pytest.mark.filterwarnings("ignore:Setting element:UserWarning", "ignore:Trying to modify attribute")
def test_graph_of_a_view(tissue):
    view = tissue[tissue.obs["sample"] == "left"]
    alone = view.copy()
    for adata in (view, alone):
        sn.gr.contact_neighbors(adata, 20, 80)
    np.testing.assert_array_equal(*(a.obsp["contact_connectivities"].toarray() for a in (view, alone)))


@pytest.mark.parametrize("container", ["csr_matrix", "csc_matrix", "dense"])
@pytest.mark.parametrize("name", ["nmf", "hsnmf"])
def test_backed(tissue, container, name, tmp_path):
    adata = tissue.copy()
    adata.X = CONTAINERS[container](adata.X)
    adata.write_h5ad(tmp_path / "tissue.h5ad")
    backed = ad.read_h5ad(tmp_path / "tissue.h5ad", backed="r")
    getattr(sn.tl, name)(backed, K)
    getattr(sn.tl, name)(adata, K)
    np.testing.assert_array_equal(backed.obsm[f"X_{name}"], adata.obsm[f"X_{name}"])
    assert list(backed.obs[name]) == list(adata.obs[name])
    assert backed.isbacked
    backed.file.close()


# --- containers and dtypes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", list(CONTAINERS)[1:])
@pytest.mark.parametrize("name", ["nmf", "snmf", "hsnmf"])
def test_container(tissue, container, name):
    adata = tissue.copy()
    adata.X = CONTAINERS[container](adata.X)
    kind = type(adata.X)
    getattr(sn.tl, name)(adata, K, init="nndsvda")
    plain = getattr(sn.tl, name)(tissue, K, init="nndsvda", copy=True)
    assert type(adata.X) is kind
    np.testing.assert_allclose(adata.obsm[f"X_{name}"], plain.obsm[f"X_{name}"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(adata.varm[f"{name}_loadings"], plain.varm[f"{name}_loadings"], rtol=1e-4, atol=1e-5)
    assert list(adata.obs[name]) == list(plain.obs[name])


@pytest.mark.parametrize("loss", ["frobenius", "kl"])
@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8, bool])
def test_dtype(tissue, loss, dtype):
    """Any numbers, computed in float32: equal to what their float32 copy gives, and the input keeps its dtype."""
    values = tissue.layers["counts"].toarray().clip(0, 1 if dtype is bool else 100).astype(dtype)
    adata = tissue.copy()
    # sparse float16 does not exist
    adata.layers["any"] = values if dtype is np.float16 else sp.csr_matrix(values)
    adata.layers["f4"] = sp.csr_matrix(values.astype(np.float32))
    kw = {"loss": loss, "normalize": loss == "frobenius" and dtype is not bool, "init": "nndsvda"}
    sn.tl.nmf(adata, K, layer="any", key_added="any", **kw)
    sn.tl.nmf(adata, K, layer="f4", key_added="f4", **kw)
    assert adata.layers["any"].dtype == dtype
    np.testing.assert_allclose(adata.obsm["X_any"], adata.obsm["X_f4"], rtol=1e-4, atol=1e-5)


def test_unsorted_indices(tissue):
    """A CSR matrix with unsorted indices and stored zeros is the same matrix."""
    adata = tissue.copy()
    X = adata.X.tocsr()
    X.data[::7] = 0
    clean = adata.copy()
    clean.X = X.copy()
    clean.X.eliminate_zeros()
    for i in range(X.shape[0]):
        row = slice(X.indptr[i], X.indptr[i + 1])
        X.indices[row], X.data[row] = X.indices[row][::-1].copy(), X.data[row][::-1].copy()
    X.has_sorted_indices = False
    adata.X = X
    before = snapshot(adata)
    sn.tl.nmf(adata, K, init="nndsvda")
    sn.tl.nmf(clean, K, init="nndsvda")
    assert sorted(changed(before, snapshot(adata))) == NMF
    np.testing.assert_allclose(adata.obsm["X_nmf"], clean.obsm["X_nmf"], rtol=1e-4, atol=1e-5)


# --- SpatialData ----------------------------------------------------------------------------------------------------


def test_spatialdata(tissue):
    """Taken wherever an AnnData is; the results stand in its table."""
    spatialdata = pytest.importorskip("spatialdata", reason="the extra spanmf[spatialdata] is not installed")
    plain = tissue.copy()
    sdata = spatialdata.SpatialData(tables={"table": small_tissue(300, 40, K)})
    sn.gr.contact_neighbors(sdata, 20, 80, library_key="sample")
    sn.tl.hsnmf(sdata, K, mask_var=None)
    sn.tl.hsnmf(plain, K, mask_var=None)
    np.testing.assert_array_equal(sdata["table"].obsm["X_hsnmf"], plain.obsm["X_hsnmf"])
    assert list(sdata["table"].obs["hsnmf"]) == list(plain.obs["hsnmf"])


def test_spatialdata_with_two_tables(tissue):
    spatialdata = pytest.importorskip("spatialdata", reason="the extra spanmf[spatialdata] is not installed")
    sdata = spatialdata.SpatialData(tables={"cells": tissue.copy(), "nuclei": tissue[:50].copy()})
    with pytest.raises(KeyError, match=r"table_key.*cells.*nuclei"):
        sn.tl.nmf(sdata, K)
    sn.tl.nmf(sdata, K, table_key="nuclei")
    assert "X_nmf" in sdata["nuclei"].obsm
    assert "X_nmf" not in sdata["cells"].obsm
