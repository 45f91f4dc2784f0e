"""Our graphs and factors in scanpy and squidpy, theirs in ours; the same labels on any number of threads."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numba
import numpy as np
import pytest
import scanpy as sc
import squidpy as sq
from sklearn.metrics import adjusted_rand_score
from support import changed, small_tissue, snapshot
from threadpoolctl import threadpool_limits

import spanmf as sn

K = 4


@pytest.fixture(scope="module")
def made() -> ad.AnnData:
    adata = small_tissue(400, 40, K)
    sn.gr.contact_neighbors(adata, 20, 80)
    sn.tl.snmf(adata, K)
    sn.tl.hsnmf(adata, K, clustering="leiden", alpha=0.5)
    return adata


@pytest.fixture
def adata(made) -> ad.AnnData:
    return made.copy()


# --- ours in theirs -------------------------------------------------------------------------------------------------


def test_nhood_enrichment(adata):
    """Each domain is enriched beside itself."""
    sq.gr.nhood_enrichment(adata, "domain", connectivity_key="contact", n_perms=50, seed=0, show_progress_bar=False)
    z = adata.uns["domain_nhood_enrichment"]["zscore"]
    assert (np.diag(z) > 5).all()
    assert (z.argmax(1) == np.arange(K)).all()


@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.sort_values")  # squidpy on pandas 3
def test_spatial_autocorr(adata):
    """squidpy's Moran's I and Geary's C on our graph are ours."""
    adata.X = adata.X.toarray()
    genes = list(adata.var_names[:5])
    key = "contact_connectivities"  # here squidpy wants the whole name
    sq.gr.spatial_autocorr(adata, connectivity_key=key, mode="moran", genes=genes, n_perms=None)
    theirs = adata.uns["moranI"].loc[genes, "I"].to_numpy()
    A = adata.obsp["contact_connectivities"]
    rows = A.multiply(1 / np.maximum(A.sum(1), 1e-12)).tocsr()
    ours = sn.metrics.morans_i(rows, adata[:, genes].X)["I"].to_numpy()
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    sq.gr.spatial_autocorr(adata, connectivity_key=key, mode="geary", genes=genes, n_perms=None)
    theirs = adata.uns["gearyC"].loc[genes, "C"].to_numpy()
    np.testing.assert_allclose(theirs, sn.metrics.gearys_c(rows, adata[:, genes].X)["C"], atol=1e-5)


@pytest.mark.parametrize("neighbors_key", ["contact_neighbors", "hybrid_neighbors"])
def test_leiden_of_scanpy(adata, neighbors_key):
    sc.tl.leiden(adata, neighbors_key=neighbors_key, flavor="igraph", n_iterations=2, directed=False, random_state=0)
    assert adjusted_rand_score(adata.obs["leiden"], adata.obs["domain"]) > 0.1


@pytest.mark.filterwarnings("ignore:The set_bad function:PendingDeprecationWarning")  # scanpy
def test_embedding_plot(adata):
    """``basis="snmf"`` finds ``X_snmf``; the domains are its colours."""
    axes = sc.pl.embedding(adata, basis="snmf", color=["hsnmf", "gene0"], show=False)
    assert len(axes) == 2
    assert axes[0].collections[0].get_offsets().shape == (400, 2)
    plt.close("all")


@pytest.mark.filterwarnings("ignore:n_jobs value:UserWarning")
def test_umap_of_scanpy(adata):
    sc.tl.umap(adata, neighbors_key="hybrid_neighbors", maxiter=5, random_state=0)
    assert adata.obsm["X_umap"].shape == (400, 2)
    assert np.isfinite(adata.obsm["X_umap"]).all()


def test_rank_genes_of_domains(adata):
    sc.tl.rank_genes_groups(adata, "hsnmf", method="t-test", n_genes=3)
    assert set(adata.uns["rank_genes_groups"]["names"].dtype.names) == set(adata.obs["hsnmf"].cat.categories)


# --- theirs in ours -------------------------------------------------------------------------------------------------

OLD_NAME = "ignore:Calling `spatial_neighbors` is deprecated:FutureWarning"  # squidpy 1.8: by its builders' names


@pytest.mark.parametrize(
    "kw",
    [
        {"delaunay": True, "coord_type": "generic"},
        {"n_neighs": 8, "coord_type": "generic"},
        {"radius": 30.0, "coord_type": "generic"},
    ],
    ids=["delaunay", "knn", "radius"],
)
@pytest.mark.filterwarnings(OLD_NAME)
def test_hsnmf_after_squidpy_alone(kw):
    adata = small_tissue(400, 40, K)
    sq.gr.spatial_neighbors(adata, **kw)
    theirs = adata.obsp["spatial_connectivities"].copy()
    sn.tl.hsnmf(adata)
    assert adata.obsm["X_hsnmf"].shape == (400, 10)
    assert adata.obs["hsnmf"].notna().all()
    assert adata.uns["hsnmf"]["params"]["connectivity_key"] == "spatial_connectivities"
    assert (adata.obsp["spatial_connectivities"] != theirs).nnz == 0, "the stored graph was edited"


@pytest.mark.filterwarnings(OLD_NAME)
def test_laplacian_on_a_graph_that_is_not_symmetric(adata):
    """squidpy's kNN graph counts a neighbour that does not count back: the objective falls all the same."""
    sq.gr.spatial_neighbors(adata, n_neighs=6, coord_type="generic")
    A = adata.obsp["spatial_connectivities"]
    assert (A != A.T).nnz > 0
    sn.tl.snmf(adata, K, smoothing="laplacian", laplacian_weight=3.0, connectivity_key="spatial")
    trace = adata.uns["snmf"]["trace"]
    assert len(trace) > 3
    assert (np.diff(trace) <= 1e-9 * trace[0]).all()


@pytest.mark.filterwarnings(OLD_NAME)
def test_squidpys_graph_is_known_by_either_name(adata):
    sq.gr.spatial_neighbors(adata, n_neighs=6, coord_type="generic")
    for key in ("spatial", "spatial_connectivities"):
        sn.tl.snmf(adata, K, connectivity_key=key, key_added=key)
    np.testing.assert_array_equal(adata.obsm["X_spatial"], adata.obsm["X_spatial_connectivities"])
    assert not np.array_equal(adata.obsm["X_spatial"], adata.obsm["X_snmf"]), "the contact graph was used"


@pytest.mark.filterwarnings(OLD_NAME)
def test_ours_comes_before_squidpys(adata):
    """With both there, ``connectivity_key=None`` means the contact graph."""
    sq.gr.spatial_neighbors(adata, n_neighs=6, coord_type="generic")
    sn.tl.snmf(adata, K, key_added="again")
    np.testing.assert_array_equal(adata.obsm["X_again"], adata.obsm["X_snmf"])


def test_scanpys_feature_graph(adata):
    """An existing kNN graph, under scanpy's name, instead of one made on the factors."""
    sc.pp.neighbors(adata, use_rep="W", n_neighbors=10)
    A, _ = sn.gr.hybrid_neighbors(adata, 0.0, feature_key="connectivities", copy=True)
    theirs = adata.obsp["connectivities"]
    assert ((A > 0) != (theirs > 0)).nnz == 0


def test_provenance_may_be_replaced(adata):
    """``sc.pp.neighbors(key_added="snmf")`` overwrites ``uns["snmf"]``: factors and metrics do without it."""
    sc.pp.neighbors(adata, use_rep="X_snmf", key_added="snmf")
    assert "trace" not in adata.uns["snmf"]
    assert len(sn.tl.top_features(adata, "snmf", 3)) == 3 * K
    assert np.isfinite(sn.metrics.morans_i(adata, "snmf")["I"]).all()


# --- determinism ----------------------------------------------------------------------------------------------------


def test_any_number_of_threads():
    """Same seed: the same labels, and the same factors to the bit, on 1 and on 2 threads (ours and BLAS's)."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("numba was started with one thread")
    adata = small_tissue(9000, 20, K)  # more than one block of rows
    runs = []
    before = numba.get_num_threads()
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            with threadpool_limits(threads):
                sn.gr.contact_neighbors(adata, 20, 30)
                sn.tl.hsnmf(adata, K, clustering="leiden", alpha=0.5, rng=3)
                sn.tl.hsnmf(adata, K, n_domains=K, rng=3, key_added="potts")
                sn.tl.nmf(adata, K, loss="kl", layer="counts", max_iter=5, tol=0.1, rng=3)
            runs.append(snapshot(adata))
    finally:
        numba.set_num_threads(before)
    assert changed(*runs) == []


@pytest.mark.parametrize("flavor", ["networkit", "igraph", "leidenalg"])
def test_same_seed_same_labels(adata, flavor):
    """Also through the alias ``random_state``, and with numpy's own seed changed in between."""
    runs = []
    for kw in ({"rng": 5}, {"random_state": 5}, {"rng": np.random.default_rng(5)}):
        np.random.seed(len(runs))  # noqa: NPY002 (what a user's script may do)
        out = sn.tl.hsnmf(adata, K, clustering="leiden", flavor=flavor, copy=True, **kw)
        runs.append(list(out.obs["hsnmf"]))
    assert runs[0] == runs[1]
    assert adjusted_rand_score(runs[0], runs[2]) > 0.5


def test_global_state_is_put_back(adata):
    """networkit's thread count and numpy's global generator are the user's."""
    import networkit as nk

    nk.setNumberOfThreads(2)
    np.random.seed(11)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    sn.tl.hsnmf(adata, K, clustering="leiden", flavor="networkit")
    assert nk.getMaxNumberOfThreads() == 2
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
