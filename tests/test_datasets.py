"""The generators: what is planted is there, a seed fixes everything, nothing dense is made."""

from __future__ import annotations

import tracemalloc

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from scipy.spatial import ConvexHull, cKDTree
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF
from sklearn.metrics import adjusted_rand_score

import spanmf as sn
from spanmf.datasets._expression import MARKERS

GENERATORS = {
    "xenium": lambda **kw: sn.datasets.xenium_tissue(600, **{"n_genes": 60} | kw),
    "visium": lambda **kw: sn.datasets.visium_section(200, **{"n_genes": 60} | kw),
    "factors": lambda **kw: sn.datasets.planted_factors(300, 50, **kw),
}
each_generator = pytest.mark.parametrize("make", GENERATORS.values(), ids=GENERATORS)


@pytest.fixture(scope="module")
def tissue():
    return sn.datasets.xenium_tissue(6000)


@pytest.fixture(scope="module")
def section():
    return sn.datasets.visium_section(1000, n_genes=500)


def equal(a, b) -> bool:
    same_obsm = all(np.array_equal(np.asarray(a.obsm[k]), np.asarray(b.obsm[k])) for k in a.obsm)
    same_X = a.X.shape == b.X.shape and (a.X != b.X).nnz == 0
    return same_obsm and same_X and a.obs.equals(b.obs) and np.array_equal(a.varm["H_true"], b.varm["H_true"])


def contingency(adata, row: str, column: str) -> np.ndarray:
    """Shares of ``column`` in each ``row``."""
    table = adata.obs.groupby(row, observed=True)[column].value_counts(normalize=True).unstack(fill_value=0)
    return table.to_numpy()


def averaged(adata, radius: float, rep: np.ndarray) -> np.ndarray:
    """Mean over each observation and its neighbours within the radius."""
    tree = cKDTree(adata.obsm["spatial"])
    A = tree.sparse_distance_matrix(tree, radius, output_type="coo_matrix").tocsr()
    A.data[:] = 1
    A = A + sp.identity(len(rep), format="csr")
    return (A @ rep) / np.asarray(A.sum(axis=1))


def domain_ari(adata, rep: np.ndarray) -> float:
    n = adata.obs["domain"].nunique()
    return adjusted_rand_score(adata.obs["domain"], KMeans(n, n_init=4, random_state=0).fit_predict(rep))


def principal_components(adata) -> np.ndarray:
    adata = adata.copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=20)
    return adata.obsm["X_pca"]


# --- all generators -------------------------------------------------------------------------------------------------


@each_generator
def test_seed_fixes_everything(make):
    assert equal(make(rng=3), make(rng=3))
    assert equal(make(rng=3), make(rng=np.random.default_rng(3)))
    assert not equal(make(rng=3), make(rng=4))


@each_generator
def test_a_used_generator_gives_new_tissue(make):
    rng = np.random.default_rng(0)
    assert not equal(make(rng=rng), make(rng=rng))


@each_generator
def test_threads_change_nothing(make, monkeypatch):
    monkeypatch.setattr("spanmf.datasets._expression.BLOCK", 60 * 32)  # several blocks
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    many = make(rng=1)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert equal(many, make(rng=1))


@each_generator
def test_types_of_the_slots(make):
    adata = make()
    k = adata.obsm["W_true"].shape[1]
    assert sp.issparse(adata.X)
    assert adata.X.format == "csr"
    assert {a.dtype for a in (adata.X, adata.obsm["W_true"], adata.varm["H_true"])} == {np.dtype("float32")}
    assert adata.varm["H_true"].shape == (adata.n_vars, k)
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert (np.asarray(adata.X.sum(axis=1)) > 0).all()


@each_generator
@pytest.mark.parametrize("store", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning", "ignore:.*zarr v2:UserWarning")
def test_round_trip(make, store, tmp_path):
    adata = make()
    path = tmp_path / f"tissue.{store}"
    getattr(adata, f"write_{store}")(path)
    back = getattr(ad, f"read_{store}")(path)
    assert equal(adata, back)
    assert set(back.uns) == set(adata.uns)


@each_generator
def test_counts_are_poisson_around_the_planted_mean(make):
    adata = make()
    X, mean = adata.X.toarray().astype(np.float64), adata.obsm["W_true"] @ adata.varm["H_true"].T.astype(np.float64)
    np.testing.assert_array_equal(X, X.round())
    assert abs(X.sum() - mean.sum()) < 5 * np.sqrt(mean.sum())
    genes = (X.sum(axis=0) - mean.sum(axis=0)) / np.sqrt(mean.sum(axis=0))
    assert np.abs(genes).max() < 5
    seen = mean > 0.5
    dispersion = ((X - mean) ** 2 / np.where(seen, mean, 1))[seen].mean()
    assert dispersion == pytest.approx(1, abs=0.1)


@each_generator
def test_planted_factors_are_of_full_rank(make):
    adata = make()
    W, H = adata.obsm["W_true"], adata.varm["H_true"]
    assert W.min() >= 0
    assert H.min() >= 0
    assert np.linalg.matrix_rank(W) == np.linalg.matrix_rank(H) == W.shape[1]
    np.testing.assert_allclose(H.sum(axis=0), 1, rtol=1e-5)


# --- xenium_tissue --------------------------------------------------------------------------------------------------


def test_tissue_counts_look_like_xenium(tissue):
    total = np.asarray(tissue.X.sum(axis=1)).ravel()
    low = tissue.obs["low_quality"].to_numpy()
    assert tissue.shape == (6000, 300)
    assert 100 < np.median(total) < 200
    assert 0.75 < 1 - tissue.X.nnz / np.prod(tissue.shape) < 0.86
    assert np.quantile(total, 0.95) > 2.2 * np.median(total)  # skewed
    assert 0.01 < low.mean() < 0.03
    assert np.median(total[low]) < 0.2 * np.median(total[~low])


def test_tissue_spacing_is_xeniums(tissue):
    tree = cKDTree(tissue.obsm["spatial"])
    nearest = tree.query(tree.data, 2)[0][:, 1]
    within_20 = tree.query_ball_point(tree.data, 20, return_length=True) - 1
    assert nearest.min() >= 6
    assert 4.3 < within_20.mean() < 5.7
    assert tissue.uns["spatial_units"] == "um"
    assert tissue.uns["um_per_unit"] == 1


def test_libraries_lie_apart_and_are_not_rectangles(tissue):
    xy, library = tissue.obsm["spatial"], tissue.obs["library"].to_numpy()
    assert tissue.obs["library"].nunique() == 3
    for name in np.unique(library):
        own, rest = xy[library == name], xy[library != name]
        assert cKDTree(own).query(rest)[0].min() > 200
        assert ConvexHull(own).volume < 0.9 * np.prod(np.ptp(own, axis=0))
        assert len(own) > 1000


@pytest.mark.parametrize("n_libraries", [1, 7])
def test_number_of_libraries(n_libraries):
    adata = sn.datasets.xenium_tissue(50 * n_libraries, n_genes=20, n_libraries=n_libraries)
    assert adata.n_obs == 50 * n_libraries
    assert adata.obs["library"].nunique() == n_libraries
    assert adata.obsm["spatial"].min() >= 0


def test_domains_are_shared_contiguous_mixtures(tissue):
    shares = contingency(tissue, "library", "domain")
    assert shares.shape == (3, 8)
    assert (shares > 0.02).all()
    codes = tissue.obs["domain"].cat.codes.to_numpy()
    neighbours = cKDTree(tissue.obsm["spatial"]).query(tissue.obsm["spatial"], 7)[1][:, 1:]
    assert (codes[neighbours] == codes[:, None]).mean() > 0.85
    types = contingency(tissue, "domain", "cell_type")
    assert (types.max(axis=1) < 0.8).all()  # no pure type
    apart = 0.5 * np.abs(types[:, None] - types[None]).sum(axis=2)
    assert apart[~np.eye(8, dtype=bool)].min() > 0.3


def test_cell_types_can_be_told_by_their_markers(tissue):
    totals = np.asarray(tissue.X.sum(axis=1))
    rates = sp.csc_matrix(sp.diags(1 / totals.ravel()) @ tissue.X)
    for name, gene in [("B", "MS4A1"), ("fibroblast", "DCN"), ("endothelial", "PECAM1"), ("CD8 T", "CD8A")]:
        column = rates[:, tissue.var_names.get_loc(gene)].toarray().ravel()
        own = (tissue.obs["cell_type"] == name).to_numpy()
        assert column[own].mean() > 4 * column[~own].mean()


def test_main_programme_is_the_cell_type(tissue):
    names = tissue.uns["xenium_tissue"]["programmes"]
    W = tissue.obsm["W_true"]
    assert names.shape == (W.shape[1],)
    main = names[W.argmax(axis=1)]
    assert (main == tissue.obs["cell_type"].to_numpy()).mean() > 0.9
    hypoxia = W[:, list(names).index("hypoxia")] / W.sum(axis=1)
    in_tumour = (tissue.obs["domain"] == "tumour").to_numpy()
    assert hypoxia[in_tumour].mean() > 2 * hypoxia[~in_tumour].mean()


def test_domains_need_the_neighbourhood(tissue):
    rep = principal_components(tissue)
    own, around = domain_ari(tissue, rep), domain_ari(tissue, averaged(tissue, 40, rep))
    assert 0.15 < own < 0.5
    assert 0.6 < around < 0.92
    assert around > own + 0.25


@pytest.mark.parametrize(("n_domains", "n_types"), [(2, 2), (5, 4), (10, 16)])
def test_numbers_of_domains_and_types(n_domains, n_types):
    adata = sn.datasets.xenium_tissue(3000, n_genes=40, n_domains=n_domains, n_types=n_types)
    assert adata.obs["domain"].nunique() == n_domains
    assert adata.obs["cell_type"].nunique() == n_types
    assert adata.obsm["W_true"].shape[1] == n_types + 5


@pytest.mark.parametrize(("n_genes", "n_markers"), [(17, 1), (120, 5), (2000, 8)])
def test_a_panel_of_any_size_has_markers_of_every_programme(n_genes, n_markers):
    adata = sn.datasets.xenium_tissue(150, n_genes=n_genes)
    assert adata.n_vars == n_genes
    assert list(adata.var_names) == sorted(adata.var_names)
    for programme in adata.uns["xenium_tissue"]["programmes"][:-1]:
        assert len(set(MARKERS[programme].split()) & set(adata.var_names)) >= n_markers
    unnamed = adata.var_names.str.startswith("Gene")
    assert unnamed.any() == (n_genes > 150)  # there are about 140 markers


def test_depth():
    shallow, deep = (sn.datasets.xenium_tissue(600, n_genes=50, depth=d) for d in (10, 1000))
    assert np.median(shallow.X.toarray().sum(axis=1)) == pytest.approx(10, rel=0.3)
    assert np.median(deep.X.toarray().sum(axis=1)) == pytest.approx(1000, rel=0.3)


def test_nothing_dense_is_made(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    tracemalloc.start()
    adata = sn.datasets.xenium_tissue(20_000, n_genes=4000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * 4 * adata.n_obs * adata.n_vars  # half of a float32 matrix


def test_many_cells():
    adata = sn.datasets.xenium_tissue(150_000, n_genes=50)
    assert adata.shape == (150_000, 50)
    follicles = adata.obsm["spatial"][(adata.obs["domain"] == "follicle").to_numpy()]
    pairs = cKDTree(follicles).query_pairs(40, output_type="ndarray")
    graph = sp.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(follicles),) * 2)
    sizes = np.bincount(sp.csgraph.connected_components(graph, directed=False)[1])
    assert (sizes > 100).sum() > 20  # a large piece has more follicles, not larger ones


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"n_cells": 100}, ValueError, "at least 150"),
        ({"n_cells": 1e4}, TypeError, "n_cells"),
        ({"n_genes": 16}, ValueError, "at least 17"),
        ({"n_domains": 11}, ValueError, "at most 10"),
        ({"n_types": 1}, ValueError, "at least 2"),
        ({"n_libraries": 0}, ValueError, "n_libraries"),
        ({"depth": -1}, ValueError, "depth"),
        ({"rng": "seed"}, ValueError, "rng"),
    ],
)
def test_wrong_parameters(wrong, error, message):
    with pytest.raises(error, match=message):
        sn.datasets.xenium_tissue(**wrong)


# --- visium_section -------------------------------------------------------------------------------------------------


def test_spots_are_a_hexagonal_lattice(section):
    xy, obs = section.obsm["spatial"], section.obs
    tree = cKDTree(xy)
    pitch = 100 / section.uns["um_per_unit"]
    assert section.uns["spatial_units"] == "pixel"
    assert tree.query(xy, 2)[0][:, 1] == pytest.approx(pitch)
    degree = tree.query_ball_point(xy, 1.01 * pitch, return_length=True) - 1
    assert degree.max() == 6
    assert (degree == 6).mean() > 0.8
    assert ((obs["array_row"] + obs["array_col"]) % 2 == 0).all()
    np.testing.assert_allclose(np.diff(xy[:, 0]), np.diff(obs["array_col"]) * pitch / 2, atol=1e-6)


def test_section_has_an_image_that_fits(section):
    entry = section.uns["spatial"][section.obs["library"].cat.categories[0]]
    image, factors = entry["images"]["hires"], entry["scalefactors"]
    x, y = (section.obsm["spatial"] * factors["tissue_hires_scalef"]).astype(int).T
    assert image.dtype == np.uint8
    tissue = image.mean(axis=2) < 235
    assert tissue[y, x].mean() > 0.9  # spots lie on what is stained
    assert tissue.mean() < 0.8
    assert factors["spot_diameter_fullres"] * section.uns["um_per_unit"] == 65


def test_spots_are_mixtures(section):
    shares = section.obsm["proportions_true"]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert ((shares > 0).sum(axis=1) > 1).mean() > 0.9
    np.testing.assert_allclose(shares.mul(section.obs["n_cells"], axis=0) % 1 % (1 - 1e-9), 0, atol=1e-6)
    assert (shares.idxmax(axis=1) == section.obs["cell_type"].astype(str)).all()
    own = shares["B"][section.obs["domain"] == "follicle"].mean()
    assert own > 3 * shares["B"][section.obs["domain"] != "follicle"].mean()


def test_section_counts(section):
    total = np.asarray(section.X.sum(axis=1)).ravel()
    assert np.median(total) == pytest.approx(4000, rel=0.1)
    assert section.obs["domain"].nunique() == 8


def test_domains_of_a_section(section):
    rep = principal_components(section)
    own, around = domain_ari(section, rep), domain_ari(section, averaged(section, 220, rep))
    assert 0.3 < own < around < 0.95
    assert around > 0.6


@pytest.mark.filterwarnings("ignore:Calling `spatial_neighbors`:FutureWarning")
def test_squidpy_takes_the_section(section):
    import squidpy as sq

    adata = section.copy()
    sq.gr.spatial_neighbors(adata, coord_type="grid", n_neighs=6)
    assert (adata.obsp["spatial_connectivities"].sum(axis=1) == 6).mean() > 0.8


# --- planted_factors ------------------------------------------------------------------------------------------------


def test_without_noise_x_is_the_product():
    adata = sn.datasets.planted_factors(400, 90, 7, noise=False)
    np.testing.assert_allclose(adata.X.toarray(), adata.obsm["W_true"] @ adata.varm["H_true"].T, rtol=1e-5, atol=1e-6)
    singular = np.linalg.svd(adata.X.toarray().astype(np.float64), compute_uv=False)
    assert singular[6] > 1e3 * singular[7]
    assert adata.X.nnz < 0.7 * np.prod(adata.shape)


def test_easy_programmes_are_recovered_and_hard_ones_cost_more():
    n_iter = {}
    for difficulty in ("easy", "hard"):
        adata = sn.datasets.planted_factors(4000, difficulty=difficulty)
        assert adata.shape == (4000, 377)
        assert 0.65 < 1 - adata.X.nnz / np.prod(adata.shape) < 0.9
        model = NMF(10, init="nndsvda", max_iter=2000, random_state=0).fit(adata.X)
        n_iter[difficulty] = model.n_iter_
        if difficulty == "easy":
            H, planted = model.components_, adata.varm["H_true"].T
            cosine = (H / np.linalg.norm(H, axis=1, keepdims=True)) @ (
                planted / np.linalg.norm(planted, axis=1, keepdims=True)
            ).T
            assert cosine.max(axis=0).min() > 0.97
    assert n_iter["hard"] > 4 * n_iter["easy"]


def test_difficulty_is_a_preset():
    easy, hard = (sn.datasets.planted_factors(200, 60, difficulty=d) for d in ("easy", "hard"))
    assert easy.obsm["W_true"].shape[1] == 10
    assert hard.obsm["W_true"].shape[1] == 20
    assert (easy.X.data % 1 == 0).all()
    assert (hard.X.data % 1 != 0).any()
    sums = hard.X.expm1().toarray().sum(axis=1)
    np.testing.assert_allclose(sums, sums[0], rtol=1e-4)
    given = sn.datasets.planted_factors(200, 60, 6, difficulty="hard", log_normalize=False)
    assert given.uns["planted_factors"]["params"]["log_normalize"] is False
    assert given.obsm["W_true"].shape[1] == 6


def test_overlap_is_the_number_of_programmes_of_a_variable():
    for overlap in (1, 3):
        H = sn.datasets.planted_factors(100, 500, 8, overlap=overlap).varm["H_true"]
        assert (H > 0).sum(axis=1).mean() == pytest.approx(overlap, rel=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"difficulty": "medium"}, "'easy', 'hard'"),
        ({"n_components": 51}, "at most 50"),
        ({"n_components": 0}, "at least 1"),
        ({"overlap": 0.5}, "overlap"),
    ],
)
def test_wrong_factor_parameters(wrong, message):
    with pytest.raises(ValueError, match=message):
        sn.datasets.planted_factors(100, 50, **wrong)
