"""Joint factors: what may be given, what is written, the preprocessing against a slow one, the published form, bad input."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.decomposition import NMF
from sklearn.metrics import adjusted_rand_score
from support import changed, snapshot

import spanmf as sn
from spanmf import _mudata
from spanmf.core import _joint_layout

N = 400


@pytest.fixture(scope="module")
def complete() -> md.MuData:
    return sn.datasets.rna_protein_tissue(N, n_genes=60)


@pytest.fixture(scope="module")
def partial() -> md.MuData:
    return sn.datasets.rna_protein_tissue(N, n_genes=60, missing=0.3)


def tables(mdata: md.MuData) -> dict[str, ad.AnnData]:
    return {k: v.copy() for k, v in mdata.mod.items()}


def factors(mdata: md.MuData) -> np.ndarray:
    return mdata.obsm["X_joint_nmf"]


def joint(data, k: int = 5, **options) -> md.MuData:
    return sn.tl.joint_nmf(data, k, copy=True, **options)


def test_slots(partial: md.MuData) -> None:
    out = joint(partial, 5)
    W = factors(out)
    assert W.shape == (N, 5)
    assert W.dtype == np.float32
    assert (W >= 0).all()
    for name, table in out.mod.items():
        rows = out.obs_names.get_indexer(table.obs_names)
        np.testing.assert_array_equal(table.obsm["X_joint_nmf"], W[rows])
        assert table.varm["joint_nmf_loadings"].shape == (table.n_vars, 5)
        assert table.uns["joint_nmf"]["params"]["modality"] == name
    run = out.uns["joint_nmf"]
    assert (np.diff(run["trace"]) <= 0).all()
    assert list(run["variance_explained"].columns) == ["rna", "protein"]
    # the dominant component, by the norms over both modalities as weighted
    H = np.hstack([t.varm["joint_nmf_loadings"].T * run["scales"][n] for n, t in out.mod.items()])
    np.testing.assert_allclose(np.linalg.norm(H, axis=1), 1, rtol=1e-4)
    assert (out.obs["joint_nmf"].astype(int) == W.argmax(1)).all()
    np.testing.assert_allclose(out.mod["rna"].uns["joint_nmf"]["gram"], H @ H.T, atol=1e-5)
    assert "X_joint_nmf" not in partial.obsm


def test_a_dict_and_obsm_give_what_a_mudata_gives(complete: md.MuData) -> None:
    expected = factors(joint(complete))
    given = tables(complete)
    np.testing.assert_array_equal(factors(sn.tl.joint_nmf(given, 5)), expected)
    assert "X_joint_nmf" not in given["rna"].obsm
    rna, protein = given["rna"].copy(), given["protein"]
    rna.obsm["protein"] = pd.DataFrame(protein.X, rna.obs_names, protein.var_names)
    out = sn.tl.joint_nmf(rna, 5, obsm_key="protein")
    np.testing.assert_array_equal(factors(out), expected)
    assert list(out.mod["protein"].var_names) == list(protein.var_names)
    assert sn.tl.joint_nmf(_mudata.copy(complete), 5) is None


def test_preprocessing_is_the_slow_one(complete: md.MuData) -> None:
    """Library size, log1p, over sd; CLR; each modality of the same mean square."""
    rna, protein = (t.X.toarray() if sp.issparse(t.X) else t.X for t in complete.mod.values())
    rna, protein = rna.astype(float), protein.astype(float)
    depth = rna.sum(1, keepdims=True)
    logged = np.log1p(rna / depth * np.median(depth))
    logged /= np.where(logged.any(axis=0), logged.std(0), 1)
    ratio = np.log1p(protein / np.exp(np.log1p(protein).mean(1, keepdims=True)))
    by_hand = {"rna": complete.mod["rna"].copy(), "protein": complete.mod["protein"].copy()}
    for table, values in zip(by_hand.values(), (logged, ratio), strict=True):
        table.X = values / np.sqrt((values**2).sum(1).mean())
    a, b = joint(complete), sn.tl.joint_nmf(by_hand, 5, preprocessing="none", weights="stacked")
    ends = [out.uns["joint_nmf"]["trace"][-1] for out in (a, b)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-5)
    order = np.corrcoef(factors(a).T, factors(b).T)[:5, 5:].argmax(1)  # components of one size may change places
    np.testing.assert_allclose(factors(a), factors(b)[:, order], atol=0.05 * factors(a).max())


def test_sparse_is_dense(complete: md.MuData) -> None:
    other = tables(complete)
    other["protein"].X = sp.csc_matrix(other["protein"].X)
    other["rna"].X = other["rna"].X.toarray()
    np.testing.assert_allclose(factors(sn.tl.joint_nmf(other, 5)), factors(joint(complete)), atol=1e-5)


def test_same_seed_same_answer(partial: md.MuData) -> None:
    import numba

    threads = numba.get_num_threads()
    first = factors(joint(partial, rng=3))
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(factors(joint(partial, random_state=3)), first)
    finally:
        numba.set_num_threads(threads)


def test_rows_may_come_in_any_order(partial: md.MuData) -> None:
    given = tables(partial)
    order = np.random.default_rng(0).permutation(given["protein"].n_obs)
    shuffled = joint(_mudata.make(given | {"protein": given["protein"][order].copy()}))
    W = pd.DataFrame(factors(joint(partial)), partial.obs_names)
    np.testing.assert_allclose(factors(shuffled), W.loc[shuffled.obs_names], atol=1e-3 * W.to_numpy().max())


def test_missing_rows_follow_what_they_have(partial: md.MuData, complete: md.MuData) -> None:
    """Cells without protein still get the factors of their RNA, and the others lose little."""
    out = joint(partial, 8)
    truth = partial.mod["rna"].obs["cell_type"].to_numpy()
    there = np.isin(out.obs_names, out.mod["protein"].obs_names)
    groups = (
        pd.Series(truth).replace({"tumour": "epithelial", "CD8 T": "CD4 T", "smooth muscle": "fibroblast"}).to_numpy()
    )
    labels = out.obs["joint_nmf"].to_numpy()
    assert adjusted_rand_score(groups[~there], labels[~there]) > 0.3
    size = factors(out).sum(1)
    assert size[~there].max() < 3 * size[there].max()


def test_pad_fills_from_the_nearest_and_says_so(partial: md.MuData) -> None:
    out = joint(partial, missing="pad")
    absent = ~np.isin(out.obs_names, out.mod["protein"].obs_names)
    np.testing.assert_array_equal(out.obs["joint_nmf_padded_protein"], absent)
    assert not out.obs["joint_nmf_padded_rna"].any()
    xy = partial.mod["rna"].obsm["spatial"]
    have = np.flatnonzero(~absent)
    nearest = have[((xy[absent][:, None] - xy[have][None]) ** 2).sum(-1).argmin(1)]
    filled = tables(partial)
    X = np.zeros((N, 30), dtype=np.float32)
    X[have] = filled["protein"].X
    X[absent] = X[nearest]
    filled["protein"] = ad.AnnData(X, obs=partial.mod["rna"].obs[[]].copy(), var=filled["protein"].var)
    np.testing.assert_allclose(factors(out), factors(sn.tl.joint_nmf(filled, 5)), atol=1e-3 * factors(out).max())


def test_weights(complete: md.MuData) -> None:
    balanced = factors(joint(complete))
    np.testing.assert_array_equal(factors(joint(complete, weights={"rna": 1.0, "protein": 1})), balanced)
    heavy = joint(complete, weights={"protein": 30.0}).uns["joint_nmf"]["variance_explained"].sum()
    light = joint(complete, weights={"protein": 1 / 30}).uns["joint_nmf"]["variance_explained"].sum()
    assert heavy["protein"] > light["protein"]
    assert heavy["rna"] < light["rna"]
    stacked = joint(complete, weights="stacked").uns["joint_nmf"]["scales"]
    assert stacked == {"rna": 1, "protein": 1}


@pytest.mark.parametrize("loss", ["kl", {"rna": "kl"}])
def test_losses(partial: md.MuData, loss) -> None:
    rng = np.random.default_rng(0)
    given = tables(partial)
    given["protein"].X = rng.poisson(given["protein"].X / 5).astype(np.float32)
    run = sn.tl.joint_nmf(given, 4, loss=loss, max_iter=200, tol=1e-5).uns["joint_nmf"]
    assert run["params"]["loss"]["rna"] == "kl"
    assert run["params"]["loss"]["protein"] == ("kl" if loss == "kl" else "frobenius")
    assert (np.diff(run["trace"]) <= 0).all()


def test_kl_says_where_values_are_no_counts(complete: md.MuData) -> None:
    with pytest.warns(sn._checks.SpanmfWarning, match="'protein'.*counts"):
        sn.tl.joint_nmf(complete, 3, loss={"protein": "kl"}, tol=1e-3, copy=True)


def test_private_components_stay_private(complete: md.MuData) -> None:
    out = joint(complete, 4, private={"protein": 2})
    assert factors(out).shape == (N, 6)
    assert not out.mod["rna"].varm["joint_nmf_loadings"][:, 4:].any()
    assert out.mod["protein"].varm["joint_nmf_loadings"][:, 4:].any(axis=0).all()
    assert (out.uns["joint_nmf"]["variance_explained"]["rna"].iloc[4:] == 0).all()


@pytest.mark.parametrize("smoothing", ["refit", "diffuse", "laplacian"])
def test_smoothing(partial: md.MuData, smoothing: str) -> None:
    given = tables(partial)
    sn.gr.contact_neighbors(given["rna"], 40, 0)
    plain = sn.tl.joint_nmf(given, 5)
    smooth = sn.tl.joint_nmf(given, 5, smoothing=smoothing, tol=1e-4)
    A = given["rna"].obsp["contact_connectivities"]
    A = A[plain.obs_names.get_indexer(given["rna"].obs_names)].tocoo()

    def roughness(W: np.ndarray) -> float:
        W = W / W.std(0)
        return float(((W[A.row] - W[A.col]) ** 2).mean())

    assert roughness(factors(smooth)) < 0.7 * roughness(factors(plain))
    params = smooth.uns["joint_nmf"]["params"]
    assert params["smoothing"] == smoothing
    assert params["connectivity_key"] == "contact_connectivities"


def test_three_modalities(partial: md.MuData) -> None:
    """Each with observations of its own that lack it."""
    given = tables(partial)
    rng = np.random.default_rng(0)
    third = given["rna"][rng.random(N) < 0.6, :20].copy()
    third.var_names = [f"peak{j}" for j in range(20)]
    out = sn.tl.joint_nmf(given | {"atac": third}, 5, preprocessing={"atac": "log1p"})
    assert out.uns["joint_nmf"]["params"]["preprocessing"] == {"rna": "rna", "protein": "protein", "atac": "log1p"}
    assert out.mod["atac"].varm["joint_nmf_loadings"].shape == (20, 5)
    assert out.uns["joint_nmf"]["variance_explained"].shape == (5, 3)
    assert (out.uns["joint_nmf"]["variance_explained"].max() > 0.01).all()


def test_many_genes_are_selected(monkeypatch: pytest.MonkeyPatch, complete: md.MuData) -> None:
    monkeypatch.setattr("spanmf.tl._joint_values.N_VARIABLE", 30)
    H = joint(complete).mod["rna"].varm["joint_nmf_loadings"]
    assert H.any(axis=1).sum() <= 30
    marked = tables(complete)
    marked["rna"].var["highly_variable"] = np.arange(60) < 12
    assert sn.tl.joint_nmf(marked, 5).mod["rna"].varm["joint_nmf_loadings"][12:].sum() == 0


def test_paper_preset_is_the_published_form(complete: md.MuData) -> None:
    """log1p of each, columns side by side, NNDSVDa, one NMF: scikit-learn's."""
    X = np.hstack([t.X.toarray() if sp.issparse(t.X) else t.X for t in complete.mod.values()]).astype(float)
    peer = NMF(5, init="nndsvda", max_iter=5000, tol=1e-6, random_state=0)
    W = peer.fit_transform(np.log1p(X))
    out = joint(complete, preset="paper", tol=1e-9, max_iter=2000)
    ours = factors(out)
    H = np.hstack([t.varm["joint_nmf_loadings"].T for t in out.mod.values()])
    error = np.linalg.norm(np.log1p(X) - ours @ H)
    assert error == pytest.approx(peer.reconstruction_err_, rel=2e-3)
    r = np.corrcoef(W.T, ours.T)[:5, 5:]
    assert r.max(1).min() > 0.98
    params = out.uns["joint_nmf"]["params"]
    assert (params["preset"], params["weights"], params["missing"]) == ("paper", "stacked", "pad")


def test_domains_and_types_from_joint_factors(complete: md.MuData) -> None:
    out = joint(complete, 8)
    rna = out.mod["rna"]
    sn.tl.hsnmf(rna, n_domains=8, use_rep="X_joint_nmf", smooth=False, clustering="kmeans", key_added="types")
    # distances are those of both modalities: Z of the whole Gram matrix, not of the RNA loadings
    H = np.hstack([t.varm["joint_nmf_loadings"].T * out.uns["joint_nmf"]["scales"][n] for n, t in out.mod.items()])
    Z = sn._data.get_scaled(rna, "X_joint_nmf", "gram")
    fitted = factors(out) @ H
    for i, j in ((0, 1), (5, 40), (100, 301)):
        assert np.linalg.norm(Z[i] - Z[j]) == pytest.approx(np.linalg.norm(fitted[i] - fitted[j]), rel=1e-3)
    assert adjusted_rand_score(rna.obs["cell_type"], rna.obs["types"]) > 0.5
    sn.gr.contact_neighbors(rna)
    sn.tl.hsnmf(rna, n_domains=5, use_rep="X_joint_nmf")
    assert rna.obs["hsnmf"].nunique() == 5


def test_round_trip(tmp_path, partial: md.MuData) -> None:
    given = tables(partial)
    given["protein"].var_names = [f"a/{v}" for v in given["protein"].var_names]
    out = sn.tl.joint_nmf(given, 5, missing="pad", weights={"rna": 2.0})
    sn.tl.annotate_factors(out, {"T/NK, both": ["CD3", "KLRD1"], "B": ["MS4A1"]})
    sn.tl.assign_types(out, {"T/NK, both": ["CD3", "IL7R"], "B": ["MS4A1"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # mudata 0.3 on its own future
        out.write_h5mu(tmp_path / "x.h5mu")
        back = md.read_h5mu(tmp_path / "x.h5mu")
    np.testing.assert_array_equal(factors(back), factors(out))
    assert back.uns["joint_nmf"]["params"]["preprocessing"] == {"rna": "rna", "protein": "protein"}
    pd.testing.assert_frame_equal(
        back.uns["joint_nmf"]["variance_explained"], out.uns["joint_nmf"]["variance_explained"], check_names=False
    )
    assert set(back.obs["assign_types"]) == set(out.obs["assign_types"])
    again = sn.tl.assign_types(back, {"T/NK, both": ["CD3", "IL7R"], "B": ["MS4A1"]})
    assert list(again["cell_type"]) == list(out.uns["assign_types"]["table"]["cell_type"])


def no_overlap(t: dict) -> dict:
    t["protein"].obs_names = [f"x{i}" for i in range(t["protein"].n_obs)]
    return t


def zeros(t: dict) -> dict:
    t["protein"].X = np.zeros(t["protein"].shape, dtype=np.float32)
    return t


def negative(t: dict) -> dict:
    t["protein"].X = t["protein"].X - 30
    return t


def twice(t: dict) -> dict:
    names = list(t["rna"].obs_names)
    t["rna"].obs_names = [names[0], names[0], *names[2:]]
    return t


def unnamed(t: dict) -> dict:
    return {"rna": t["rna"], "mystery": t["protein"]}


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize(
    ("change", "options", "error", "match"),
    [
        (no_overlap, {}, ValueError, r"shares no observation.*names like.*align_modalities"),
        (zeros, {}, ValueError, "'protein' is all zero"),
        (negative, {}, ValueError, r"negative intensities.*np\.maximum\(adata\.X, 0\).*shift"),
        (twice, {}, ValueError, "not unique.*obs_names_make_unique"),
        (unnamed, {}, ValueError, r"'mystery'.*preprocessing="),
        (lambda t: {"rna": t["rna"]}, {}, ValueError, r"two modalities or more; there is 1.*tl\.nmf"),
        (lambda t: t["rna"], {}, ValueError, "obsm_key="),
        (lambda t: t["rna"], {"obsm_key": "nope"}, KeyError, "'nope' is not in `adata.obsm`"),
        (lambda t: t, {"obsm_key": "x"}, ValueError, "several tables are given"),
        (lambda t: [t["rna"]], {}, TypeError, "not list"),
        (lambda t: t, {"weights": {"prot": 2}}, ValueError, "`weights` must be among 'rna', 'protein'"),
        (lambda t: t, {"weights": {"rna": 0}}, ValueError, "weight of 'rna'"),
        (lambda t: t, {"weights": "even"}, ValueError, "`weights` must be one of"),
        (lambda t: t, {"preprocessing": {"x": "rna"}}, ValueError, "`preprocessing` must be among"),
        (lambda t: t, {"preprocessing": "scale"}, ValueError, "preprocessing of 'rna'"),
        (lambda t: t, {"loss": {"x": "kl"}}, ValueError, "`loss` must be among"),
        (lambda t: t, {"private": {"x": 1}}, ValueError, "`private` must be among"),
        (lambda t: t, {"private": -1}, ValueError, "private of 'rna'"),
        (lambda t: t, {"missing": "drop"}, ValueError, "`missing` must be one of"),
        (lambda t: t, {"smoothing": "refit"}, KeyError, "contact_neighbors"),
        (lambda t: t, {"smoothing": "laplacian", "loss": "kl"}, ValueError, "laplacian"),
        (lambda t: t, {"n_components": 0}, ValueError, "n_components"),
        (lambda t: t, {"n_components": 2.5}, TypeError, "n_components"),
        (lambda t: t, {"n_components": 500}, ValueError, "n_components"),
        (lambda t: t, {"key_added": "a/b"}, ValueError, "key_added"),
        (lambda t: t, {"preset": "best"}, ValueError, "preset"),
    ],
)
def test_bad_input(partial: md.MuData, change, options, error, match) -> None:
    given = change(tables(partial))
    rna = given["rna"] if isinstance(given, dict) else given
    before = None if isinstance(rna, list) else snapshot(rna)
    options = {"n_components": 4} | options
    with pytest.raises(error, match=match):
        sn.tl.joint_nmf(given, **options)
    assert before is None or not changed(before, snapshot(rna))


def test_pad_needs_coordinates(partial: md.MuData) -> None:
    given = tables(partial)
    for table in given.values():
        del table.obsm["spatial"]
    with pytest.raises(ValueError, match="missing='mask'"):
        sn.tl.joint_nmf(given, 4, missing="pad")


def test_max_iter_warns(complete: md.MuData) -> None:
    with pytest.warns(sn._checks.ConvergenceWarning, match="max_iter=2"):
        joint(complete, max_iter=2)


def test_absent_weight_is_small() -> None:
    assert 0 < _joint_layout.ABSENT < 0.1


@pytest.mark.real
def test_citeseq(real_data) -> None:
    adata = ad.read_h5ad(real_data / "citeseq_pbmc_10k_protein_v3.h5ad")
    out = sn.tl.joint_nmf(adata, 8, obsm_key="protein_expression", preprocessing={"protein_expression": "protein"})
    assert factors(out).shape == (200, 8)
    assert out.mod["protein_expression"].n_vars == 14
    H = out.mod["rna"].varm["joint_nmf_loadings"]
    assert 1900 < H.any(axis=1).sum() < 2100  # 2000, with ties
    sn.tl.assign_types(out)
    types = set(out.obs["assign_types"])
    assert {"B cell", "monocyte"} <= types


@pytest.mark.parametrize("function", [sn.pp.clr, sn.pp.arcsinh])
def test_intensities(complete: md.MuData, function) -> None:
    table = complete.mod["protein"].copy()
    X = table.X.astype(float)
    function(table)
    if function is sn.pp.clr:
        slow = np.log1p(X / np.exp(np.log1p(X).mean(1, keepdims=True)))
    else:
        slow = np.arcsinh(X / np.median(X, axis=0))
    np.testing.assert_allclose(table.X, slow, rtol=1e-4)
    sparse = complete.mod["protein"].copy()
    sparse.X = sp.csr_matrix(sparse.X)
    out = function(sparse, copy=True)
    assert sp.issparse(out.X)
    np.testing.assert_allclose(out.X.toarray(), slow, rtol=1e-4)
    bad = complete.mod["protein"].copy()
    bad.X[0, 0] = -1
    with pytest.raises(ValueError, match=r"1 negative intensities.*clip"):
        function(bad)


def test_arcsinh_cofactor(complete: md.MuData) -> None:
    table = complete.mod["protein"].copy()
    table.layers["raw"] = table.X.copy()
    sn.pp.arcsinh(table, 5, layer="raw")
    np.testing.assert_allclose(table.layers["raw"], np.arcsinh(table.X / 5), rtol=1e-5)
    with pytest.raises(ValueError, match="cofactor"):
        sn.pp.arcsinh(table, 0)
