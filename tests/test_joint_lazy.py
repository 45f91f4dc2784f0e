"""Joint factors of modalities that are dask arrays: those of the matrices in memory, block by block, on any scheduler."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pytest
import scipy.sparse as sp
from lazily import da, lazy, that_fails
from support import changed, snapshot

import spanmf as sn
from spanmf import _dask, _mudata, _side_by_side
from spanmf.core import _graph, _joint, _joint_start, _ops
from spanmf.core._joint_layout import moments
from spanmf.tl import _joint_nmf, _joint_values

N = 600
ROWS = {"rna": 130, "protein": 90}  # of a block: not the same, and the last is a short one


@pytest.fixture(scope="module")
def partial() -> md.MuData:
    out = sn.datasets.rna_protein_tissue(N, n_genes=40, missing=0.3)
    protein = out.mod["protein"]
    protein.layers["counts"] = np.random.default_rng(0).poisson(protein.X / 5).astype(np.float32)
    return out


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dask, "ROWS", 100)


def tables(mdata: md.MuData, lazily: tuple[str, ...] = (), *, counts: bool = False) -> dict[str, ad.AnnData]:
    out = {name: table.copy() for name, table in mdata.mod.items()}
    if counts:
        out["protein"].X = out["protein"].layers["counts"].copy()
    for name in lazily:
        out[name].X = lazy(out[name].X, ROWS[name])
    return out


BOTH = ("rna", "protein")
LOSSES = [("frobenius", "frobenius"), ("kl", "kl"), ("kl", "frobenius")]


def layouts(mdata: md.MuData, losses: tuple[str, str], private: int = 0) -> list:
    """In memory, and in blocks."""
    out = []
    for lazily in ((), BOTH):
        made, _ = _mudata.as_mudata(tables(mdata, lazily, counts=True))
        loss = dict(zip(made.mod, losses, strict=True))
        order = _joint_values.order_of(made)
        values = {n: _joint_values.read(made, n, n, loss[n]) for n in made.mod}
        modalities = _joint_nmf._modalities(values, loss, {"rna": 0, "protein": private}, "balanced")
        out.append(_joint_values.laid_out(modalities, list(values.values()), 4 + private, order))
    return out


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("private", [0, 1])
def test_same_passes_from_the_same_start(partial, losses, missing, private) -> None:
    mdata = (
        partial
        if missing
        else _mudata.make(
            {n: t[t.obs_names.isin(partial.mod["protein"].obs_names)].copy() for n, t in partial.mod.items()}
        )
    )
    whole, blocks = layouts(mdata, losses, private)
    H = np.random.default_rng(0).random((4 + private, whole.X.shape[1])) * 0.1
    a, b = (_joint.fit(layout, H, max_iter=15, tol=0) for layout in (whole, blocks))
    np.testing.assert_allclose(a.trace, b.trace, rtol=5e-6)
    np.testing.assert_allclose(a.W, b.W, atol=1e-3 * a.W.max())
    refitted = [_joint.refit_h(layout, a.W, a.H) for layout in (whole, blocks)]
    np.testing.assert_allclose(*refitted, atol=1e-4 * refitted[0].max())
    shares = [_joint.variance_explained(layout, a.W, a.H) for layout in (whole, blocks)]
    np.testing.assert_allclose(*shares, rtol=1e-4)


@pytest.mark.parametrize("losses", LOSSES)
def test_what_is_known_before_is_what_the_blocks_hold(partial, losses) -> None:
    _, blocks = layouts(partial, losses)
    held = moments(blocks.X)
    np.testing.assert_allclose(blocks.moments.sums, held.sums, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(blocks.moments.squares, held.squares, rtol=1e-5, atol=1e-8)
    assert _ops.squared_norm(blocks.X) == pytest.approx(blocks.X.survey.squared_norm, rel=1e-6)


def test_same_passes_with_a_graph(partial) -> None:
    whole, blocks = layouts(partial, LOSSES[0])
    A, _ = _graph.radius_graph(partial.mod["rna"].obsm["spatial"], np.zeros(N, np.int32), 30.0)
    H = np.random.default_rng(0).random((4, whole.X.shape[1]))
    a, b = (_joint.fit(x, H, graph=A, graph_weight=0.05, max_iter=10, tol=0) for x in (whole, blocks))
    np.testing.assert_allclose(a.trace, b.trace, rtol=5e-6)
    np.testing.assert_allclose(a.W, b.W, atol=1e-3 * a.W.max())


def test_starts_see_the_same_sample(partial, monkeypatch) -> None:
    monkeypatch.setattr(_joint_start, "START_ROWS", 150)
    a, b = (_joint_start.start(x, 4, np.random.default_rng(0)) for x in layouts(partial, LOSSES[0]))
    np.testing.assert_allclose(a, b, atol=1e-6 * a.max())


def assert_same(lazily: md.MuData, in_memory: md.MuData) -> None:
    a, b = (x.uns["joint_nmf"] for x in (lazily, in_memory))
    np.testing.assert_allclose(a["trace"], b["trace"], rtol=2e-5)  # 1e-6 of ½‖X‖²
    assert a["params"] == b["params"]
    np.testing.assert_allclose(list(a["scales"].values()), list(b["scales"].values()), rtol=1e-6)
    W = in_memory.obsm["X_joint_nmf"]
    np.testing.assert_allclose(lazily.obsm["X_joint_nmf"], W, atol=1e-3 * W.max())
    for name, table in lazily.mod.items():
        H = in_memory.mod[name].varm["joint_nmf_loadings"]
        np.testing.assert_allclose(table.varm["joint_nmf_loadings"], H, atol=1e-3 * H.max())
        own = np.asarray(lazily.obsm["X_joint_nmf"])[_mudata.rows_of(lazily, name)]
        np.testing.assert_array_equal(table.obsm["X_joint_nmf"], own)
    assert (lazily.obs["joint_nmf"] == in_memory.obs["joint_nmf"]).mean() > 0.995
    np.testing.assert_allclose(a["variance_explained"], b["variance_explained"], atol=1e-4)


def joint(given: dict[str, ad.AnnData], **options) -> md.MuData:
    """Few passes from one start: rounding decides between starts that are as good, and grows on the plateau before the end."""
    return sn.tl.joint_nmf(given, 4, **({"tol": 3e-3, "init": "nndsvda"} | options))


CASES = {
    "default": {},
    "stacked": {"weights": "stacked"},
    "weights": {"weights": {"rna": 2.0}},
    "private": {"private": {"protein": 1}},
    "kl": {"loss": "kl"},
    "mixed": {"loss": {"rna": "kl"}},
    "log1p": {"preprocessing": "log1p"},
    "none": {"preprocessing": "none"},
    "refit": {"smoothing": "refit"},
    "laplacian": {"smoothing": "laplacian"},
}


@pytest.mark.parametrize("case", CASES)
def test_same_as_in_memory(partial, case) -> None:
    options = CASES[case]
    counts = "loss" in options
    given = tables(partial, counts=counts), tables(partial, BOTH, counts=counts)
    for t in given:
        if "smoothing" in options:
            sn.gr.contact_neighbors(t["rna"], 30, 0)
    whole, lazily = (joint(t, **options) for t in given)
    assert_same(lazily, whole)
    assert isinstance(lazily.mod["rna"].X, da.Array)


@pytest.mark.parametrize("lazily", [("rna",), ("protein",)])
def test_one_in_memory_in_any_order(partial, lazily) -> None:
    given = tables(partial)
    (other,) = set(BOTH) - set(lazily)
    order = np.random.default_rng(1).permutation(given[other].n_obs)
    given[other] = given[other][order].copy()
    whole = joint(given)
    given[lazily[0]].X = lazy(given[lazily[0]].X, 130)
    assert_same(joint(given), whole)


def test_dense_blocks_are_sparse_blocks(partial) -> None:
    given = tables(partial, ("rna",))
    given["protein"].X = da.from_array(np.asarray(partial.mod["protein"].X), chunks=(90, -1))
    assert_same(joint(given), joint(tables(partial)))


def test_each_has_observations_that_the_other_lacks(partial) -> None:
    given = tables(partial)
    given["rna"] = given["rna"][np.random.default_rng(2).random(N) < 0.7].copy()
    whole = joint(given)
    for name in BOTH:
        given[name].X = lazy(given[name].X, ROWS[name])
    assert_same(joint(given), whole)


def test_the_order_that_all_keep() -> None:
    """The base's, and the others' own after what they follow."""
    rows = [np.array([0, 1, 2, 3]), np.array([4, 1, 5, 6, 3, 7])]
    assert _side_by_side.common_order(rows, 8, 0).tolist() == [4, 0, 1, 5, 6, 2, 3, 7]
    assert _side_by_side.common_order(rows, 8, 1).tolist() == [0, 4, 1, 2, 5, 6, 3, 7]


def test_genes_are_selected_from_the_blocks(partial, monkeypatch) -> None:
    monkeypatch.setattr(_joint_values, "N_VARIABLE", 20)
    whole, lazily = (sn.tl.joint_nmf(tables(partial, names), 3) for names in ((), BOTH))
    used = [x.mod["rna"].varm["joint_nmf_loadings"].any(axis=1) for x in (whole, lazily)]
    np.testing.assert_array_equal(*used)
    assert 15 < used[0].sum() <= 20
    marked = tables(partial, BOTH)
    marked["rna"].var["highly_variable"] = np.arange(40) < 12
    assert not sn.tl.joint_nmf(marked, 3).mod["rna"].varm["joint_nmf_loadings"][12:].any()


def test_nothing_dense_and_nothing_whole(partial, monkeypatch) -> None:
    """No more than the rows of a block and of the samples are loaded at a time."""
    monkeypatch.setattr(_joint_start, "START_ROWS", 50)
    seen = []
    load = _side_by_side.Source.load
    monkeypatch.setattr(_side_by_side.Source, "load", lambda self: seen.append(load(self)) or seen[-1])
    joint(tables(partial, BOTH))
    assert all(sp.issparse(X) for X in seen)
    assert max(X.shape[0] for X in seen) == 130
    assert {X.shape[0] for X in seen} == {130, 80}


# --- stores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["h5mu", "zarr"])
def test_round_trip(partial, tmp_path, monkeypatch, store) -> None:
    out = joint(tables(partial, BOTH))
    path = tmp_path / f"x.{store}"
    monkeypatch.setattr("warnings.warn", lambda *_, **__: None)  # mudata 0.3 on its own future
    getattr(out, f"write_{store}")(path)
    back = getattr(md, f"read_{store}")(path)
    np.testing.assert_array_equal(back.obsm["X_joint_nmf"], out.obsm["X_joint_nmf"])
    assert (back.mod["rna"].X != partial.mod["rna"].X).nnz == 0


@pytest.mark.filterwarnings("ignore:.*zarr v2:UserWarning")
def test_tables_read_lazily(partial, tmp_path) -> None:
    whole = tables(partial)
    lazily = {}
    for name, table in whole.items():
        table.write_zarr(tmp_path / f"{name}.zarr")
        lazily[name] = ad.experimental.read_lazy(tmp_path / f"{name}.zarr")
    assert_same(joint(lazily), joint(whole))


def test_backed_tables(partial, tmp_path) -> None:
    whole = tables(partial)
    whole["rna"].write_h5ad(tmp_path / "rna.h5ad")
    backed = ad.read_h5ad(tmp_path / "rna.h5ad", backed="r")
    assert_same(joint(whole | {"rna": backed}), joint(whole))
    assert backed.isbacked
    assert "X_joint_nmf" not in backed.obsm
    backed.file.close()


def test_views(partial) -> None:
    whole, lazily = (tables(partial, names) for names in ((), BOTH))
    rows = np.arange(N) % 3 > 0
    a, b = (joint(t | {"rna": t["rna"][rows]}) for t in (whole, lazily))
    assert_same(b, a)


# --- what can go wrong ------------------------------------------------------------------------------------------------


def negative(t: dict) -> dict:
    X = np.array(t["protein"].X.compute().toarray())
    X[300] = -1
    t["protein"].X = lazy(X, 90)
    return t


def shuffled(t: dict) -> dict:
    order = np.random.default_rng(0).permutation(420)
    t["protein"] = t["protein"][order].copy()
    return t


def by_column(t: dict) -> dict:
    t["rna"].X = t["rna"].X.rechunk((130, 20))
    return t


@pytest.mark.parametrize(
    ("change", "options", "error", "match"),
    [
        (negative, {}, ValueError, r"mod\['protein'\].X` holds 30 negative intensities"),
        (shuffled, {}, ValueError, r"'protein' has its observations in another order.*mod\['protein'\].X.compute\(\)"),
        (by_column, {}, ValueError, r"2 blocks across.*mdata.mod\['rna'\].X.rechunk"),
        (lambda t: t, {"missing": "pad"}, ValueError, r"X of 'protein' is a dask array.*missing='mask'"),
        (lambda t: t, {"device": "torch"}, ValueError, r"needs X in memory.*mod\['rna'\].X.compute\(\)"),
    ],
)
def test_bad_input(partial, change, options, error, match) -> None:
    if "device" in options:
        pytest.importorskip("torch")
    given = change(tables(partial, BOTH))
    before = {name: snapshot(table) for name, table in given.items()}
    with pytest.raises(error, match=match):
        joint(given, **options)
    for name, table in given.items():
        assert not changed(before[name], snapshot(table))


def test_a_block_that_fails_is_named(partial) -> None:
    mdata = _mudata.make(tables(partial, BOTH))
    mdata.mod["protein"].X = that_fails(mdata.mod["protein"].X)
    with pytest.raises(
        RuntimeError, match=r"Block 3 of 5 \(rows 180 to 269\) of modality 'protein' .*the disk is gone"
    ):
        sn.tl.joint_nmf(mdata, 4)
    assert "X_joint_nmf" not in mdata.obsm
    assert "joint_nmf" not in mdata.uns


# --- a cluster --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["default", "mixed", "refit"])
def test_cluster_gives_what_is_in_memory(partial, client, case) -> None:
    options = CASES[case]
    given = [tables(partial, names, counts="loss" in options) for names in ((), BOTH)]
    for t in given:
        if "smoothing" in options:
            sn.gr.contact_neighbors(t["rna"], 30, 0)
    assert_same(*(joint(t, **options) for t in given[::-1]))


def test_cluster_with_data_that_are_there_and_one_modality_here(partial, client) -> None:
    whole, given = tables(partial), tables(partial, ("rna",))
    given["rna"].X = client.persist(given["rna"].X)
    assert_same(joint(given), joint(whole))


def test_cluster_names_the_block_that_fails(partial, client) -> None:
    given = tables(partial, BOTH)
    given["protein"].X = that_fails(given["protein"].X)
    with pytest.raises(RuntimeError, match=r"Block 3 of 5 .* of modality 'protein' .*the disk is gone"):
        joint(given)


def test_factors_can_stay_on_the_cluster(partial, client) -> None:
    here = joint(tables(partial))
    with sn.settings.override(factors="dask"):
        there = joint(tables(partial, BOTH))
    assert isinstance(there.obsm["X_joint_nmf"], da.Array)
    assert isinstance(there.mod["protein"].obsm["X_joint_nmf"], da.Array)
    for holder in (there, *there.mod.values()):
        holder.obsm["X_joint_nmf"] = holder.obsm["X_joint_nmf"].compute()
    assert_same(there, here)
