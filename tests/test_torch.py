"""`device=`: the engine through torch, on the CPU always where torch is installed, on a GPU where there is one."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from support import changed, run_cli, small_tissue, snapshot, with_slots

import spanmf as sn
from spanmf import _checks, _data
from spanmf.core import _error, _joint_layout, _ops, _smooth, _snmf, _solver, _stl_device, _stl_em, _torch

TORCH = "torch is an optional extra (`pip install 'spanmf[torch]'`)"


def devices() -> list[str]:
    """The CPU by torch, and a GPU where there is one."""
    if find_spec("torch") is None:
        return ["torch"]
    import torch

    return ["torch", "cuda"] if torch.cuda.is_available() else ["torch"]


@pytest.fixture(params=devices())
def device(request) -> str:
    pytest.importorskip("torch", reason=TORCH)
    return request.param


@pytest.fixture
def on(device, monkeypatch) -> str:
    """The device as torch names it, with blocks so small that a test has several."""
    monkeypatch.setattr(_torch, "BLOCK_ROWS", 150)
    monkeypatch.setattr(_torch, "BLOCK_VALUES", 2000)
    return "cpu" if device == "torch" else device


@pytest.fixture(scope="module")
def tissue() -> ad.AnnData:
    adata = small_tissue(500, 60)
    sn.gr.contact_neighbors(adata)
    return adata


def rows_of(adata: ad.AnnData, layer: str | None = None) -> _ops.Rows:
    return _ops.as_rows(adata.X if layer is None else adata.layers[layer])


# --- a pass over X ----------------------------------------------------------------------------------------------------


def test_blocks_cover_the_rows_and_respect_their_bounds(monkeypatch):
    X = _ops.as_rows(sp.random(1000, 30, 0.3, random_state=0, dtype=np.float32, format="csr"))
    monkeypatch.setattr(_torch, "BLOCK_ROWS", 210)
    monkeypatch.setattr(_torch, "BLOCK_VALUES", 1000)
    cuts = np.array([0, 17, 400, 1000])
    bounds = list(_torch._block_bounds(X, cuts))
    assert [a for a, _ in bounds] == [0, *(b for _, b in bounds[:-1])]
    assert bounds[-1][1] == 1000
    assert set(cuts[1:]) <= {b for _, b in bounds}
    assert all(0 < b - a <= 210 and X.indptr[b] - X.indptr[a] <= 1000 for a, b in bounds)
    monkeypatch.setattr(_torch, "BLOCK_VALUES", 1)  # less than a row
    assert len(list(_torch._block_bounds(X, None))) == 1000


def test_sums_and_products_are_those_of_the_dense_matrix(on, tissue):
    X = rows_of(tissue, "counts")
    dense = X.as_scipy().toarray().astype(np.float64)
    there = _torch.on_device(X, on)
    assert len(there.blocks) > 3
    assert _ops.squared_norm(there) == pytest.approx((dense**2).sum(), rel=1e-9)
    some = dense[dense > 0]
    assert _ops.entropy(there) == pytest.approx((some * np.log(some) - some).sum(), rel=1e-9)
    rng = np.random.default_rng(0)
    H, W = rng.random((60, 3), dtype=np.float32), rng.random((500, 3), dtype=np.float32)
    np.testing.assert_allclose(_ops.product(there, H), dense @ H, rtol=1e-5)
    np.testing.assert_allclose(_ops.transposed_product(there, W), dense.T @ W, rtol=1e-5)
    assert _torch.on_device(there, on) is there


@pytest.mark.parametrize("with_anchor", [False, True])
def test_a_hals_pass_is_the_one_written_out(on, tissue, with_anchor):
    X, k, l1, sweeps = rows_of(tissue), 4, 0.05, 3
    dense, rng = X.as_scipy().toarray().astype(np.float64), np.random.default_rng(1)
    H, W = rng.random((60, k)), rng.random((500, k))
    H[:, 2] = 0  # its weights stay
    gram = H.T @ H
    c, q = (rng.random((500, k)), rng.random(500)) if with_anchor else (np.zeros((500, k)), np.zeros(500))
    wanted = W.copy()
    for _ in range(sweeps):
        for r in (0, 1, 3):
            slope = dense @ H[:, r] - l1 + c[:, r] - wanted @ gram[:, r] - q * wanted[:, r]
            wanted[:, r] = np.maximum(wanted[:, r] + slope / (gram[r, r] + q), 0)
    there = _torch.on_device(X, on)
    before = _ops.start(there, k, W)
    after = _ops.spare(before)
    anchors = {}
    if with_anchor:
        anchors = {"anchor": _ops.start(there, k, c), "anchor_weight": _torch._tensor(q, on)}
    stats = _ops.hals_pass(there, _ops.pad(H), before, after, k, gram=gram, sweeps=sweeps, l1=l1, **anchors)
    found = _ops.gathered(after, k)
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-5)
    np.testing.assert_array_equal(_ops.gathered(before, k), W.astype(np.float32))
    np.testing.assert_allclose(stats.xtw, dense.T @ found, rtol=1e-5)
    np.testing.assert_allclose(stats.wtw, found.astype(np.float64).T @ found, rtol=1e-6)
    np.testing.assert_allclose(stats.w_sum, found.sum(0), rtol=1e-5)
    moved, size = _ops.squared_distance(after, before)
    assert moved == pytest.approx(((found - W) ** 2).sum(), rel=1e-4)
    assert size == pytest.approx((found**2).sum(), rel=1e-5)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_pass_leaves_the_w_that_it_started_from(on, tissue, rows, monkeypatch):
    """A step may be undone; and whether W still moves is seen by comparing the two."""
    monkeypatch.setattr(_torch, "BLOCK_ROWS", rows)
    X, rng = rows_of(tissue).part(0, 5), np.random.default_rng(0)
    H, W = rng.random((60, 3)), rng.random((5, 3), dtype=np.float32)
    there = _torch.on_device(X, on)
    before = _ops.start(there, 3, W)
    _ops.hals_pass(there, _ops.pad(H), before, _ops.spare(before), 3, gram=H.T @ H)
    np.testing.assert_array_equal(_ops.gathered(before, 3), W)
    np.testing.assert_allclose(_solver.solve_w(there, H.T), _solver.solve_w(X, H.T), atol=1e-4)


def test_a_kl_pass_is_the_one_written_out(on, tissue):
    X, k, l1, sweeps = rows_of(tissue, "counts"), 4, 0.3, 2
    dense, rng = X.as_scipy().toarray().astype(np.float64), np.random.default_rng(2)
    H, W = rng.random((60, k)), rng.random((500, k))
    wanted = W.copy()
    for _ in range(sweeps):
        wanted *= (dense / (wanted @ H.T)) @ H / (H.sum(0) + l1)
    there = _torch.on_device(X, on)
    before = _ops.start(there, k, W)
    after = _ops.spare(before)
    stats = _ops.kl_pass(there, _ops.pad(H), before, after, k, h_sum=H.sum(0), sweeps=sweeps, l1=l1)
    np.testing.assert_allclose(_ops.gathered(after, k), wanted, rtol=1e-4)
    np.testing.assert_allclose(stats.xtw, (dense / (wanted @ H.T)).T @ wanted, rtol=1e-4)
    assert stats.log_term == pytest.approx((dense * np.log(wanted @ H.T)).sum(), rel=1e-6)
    none = _ops.kl_pass(there, _ops.pad(H), after, after, k, h_sum=H.sum(0), sweeps=0, statistics=False)
    assert none.xtw.size == 0
    assert none.log_term == pytest.approx(stats.log_term, rel=1e-6)


@pytest.mark.parametrize("with_prior", [False, True])
def test_a_pass_of_em_is_that_of_the_cpu(on, with_prior):
    rng, n, k, p = np.random.default_rng(8), 500, 4, 60
    Q = rng.dirichlet(np.full(p, 0.3), k)
    counts = rng.poisson(rng.dirichlet(np.ones(k), n) @ Q * rng.integers(20, 400, n)[:, None]).astype(np.float32)
    counts[3] = 0
    X = _ops.as_rows(sp.csr_matrix(counts))
    assert _stl_device.counts_on(X, None) is X
    there, V = _torch.on_device(X, on), _ops.pad(np.full((n, k), 1 / k))
    prior, weight = (_ops.pad(rng.dirichlet(np.ones(k), n)), rng.random(n) * 20) if with_prior else (None, None)
    if with_prior:
        weight[[3, 5]] = 0
    last = -np.inf
    for _ in range(4):
        here, found = _stl_em.em_pass(X, Q, V, prior, weight), _stl_em.em_pass(there, Q, V, prior, weight)
        assert found.log_likelihood == pytest.approx(here.log_likelihood, rel=1e-7)
        assert found.prior == pytest.approx(here.prior, rel=1e-5, abs=1e-3)
        np.testing.assert_allclose(found.V, here.V, atol=1e-3)
        np.testing.assert_allclose(found.sums, here.sums, rtol=1e-2)
        assert found.log_likelihood - found.prior >= last
        last, V = found.log_likelihood - found.prior - 1e-3, found.V
    np.testing.assert_array_equal(found.V[3], here.V[3])


# --- a whole fit, from the same start ---------------------------------------------------------------------------------

FITS = {
    "frobenius": {},
    "penalties": {"penalty": _solver.Penalty(0.5, 0.5, 1.0, 1.0)},
    "kl": {"loss": "kl", "max_iter": 40},
    "kl, penalties": {"loss": "kl", "max_iter": 40, "penalty": _solver.Penalty(l1_w=0.5, l1_h=0.5)},
    "laplacian": {"graph_weight": 0.5, "max_iter": 40},
}


@pytest.mark.parametrize("name", FITS)
def test_fits_go_the_way_of_the_cpu(on, tissue, name):
    options = FITS[name]
    X = rows_of(tissue, "counts" if "kl" in name else None)
    H = np.random.default_rng(3).random((5, 60))
    there = _torch.on_device(X, on)
    graphs = [_smooth.beside(M, tissue.obsp["contact_connectivities"]) if "lap" in name else None for M in (X, there)]
    here, found, again = (
        _solver.fit(M, H, graph=g, **options) for M, g in ((X, graphs[0]), (there, graphs[1]), (there, graphs[1]))
    )
    m = min(len(here.trace), len(found.trace), 12)
    np.testing.assert_allclose(found.trace[:m], here.trace[:m], rtol=2e-6)
    assert found.trace[-1] == pytest.approx(here.trace[-1], rel=1e-4)
    assert (np.diff(found.trace) <= 0).all()
    if on == "cpu":
        np.testing.assert_array_equal(again.W, found.W)
    else:  # cuSPARSE adds up in any order
        assert again.trace[-1] == pytest.approx(found.trace[-1], rel=1e-5)
    assert _error.objective(there, found.W, found.H, options.get("loss", "frobenius")) == pytest.approx(
        _error.objective(X, found.W, found.H, options.get("loss", "frobenius")), rel=1e-6
    )


@pytest.mark.parametrize("loss", ["frobenius", "kl"])
def test_w_and_h_alone_are_those_of_the_cpu(on, tissue, loss):
    X = rows_of(tissue, "counts" if loss == "kl" else None)
    there, rng = _torch.on_device(X, on), np.random.default_rng(4)
    H, W = rng.random((4, 60)), rng.random((500, 4)).astype(np.float32)
    expected = _solver.solve_w(X, H, loss=loss)
    np.testing.assert_allclose(_solver.solve_w(there, H, loss=loss), expected, atol=1e-3 * expected.max())
    expected = _snmf.refit_h(X, W, H, loss)
    np.testing.assert_allclose(_snmf.refit_h(there, W, H, loss), expected, atol=1e-4 * expected.max())


def test_smoothing_is_that_of_the_cpu(on, tissue):
    X, A = rows_of(tissue), tissue.obsp["contact_connectivities"].copy()
    A.data *= np.random.default_rng(5).random(len(A.data), dtype=np.float32)  # rows and columns differ
    W = np.random.default_rng(6).random((500, 5), dtype=np.float32)
    there = _smooth.beside(_torch.on_device(X, on), A)
    np.testing.assert_allclose(
        _smooth.diffuse(there, W, 0.6, 3), _smooth.diffuse(_smooth.as_graph(A), W, 0.6, 3), rtol=1e-5, atol=1e-6
    )


def test_rows_without_values_and_one_row(on):
    X = sp.csr_matrix(np.array([[0, 0, 0], [1, 0, 2], [0, 0, 0]], dtype=np.float32))
    for part in (X, X[:1], X[1:2]):
        rows = _ops.as_rows(part)
        for loss in ("frobenius", "kl"):
            H = np.ones((2, 3)) * [[1], [2]]
            found = _solver.solve_w(_torch.on_device(rows, on), H, loss=loss)
            np.testing.assert_allclose(found, _solver.solve_w(rows, H, loss=loss), atol=1e-5)


# --- public functions -------------------------------------------------------------------------------------------------


def objective(adata: ad.AnnData, key: str, layer: str | None = None, loss: str = "frobenius") -> float:
    return _error.objective(rows_of(adata, layer), adata.obsm[f"X_{key}"], adata.varm[f"{key}_loadings"].T, loss)


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_nmf(device, tissue, form):
    given = tissue.copy()
    given.X = {"csr": given.X, "csc": given.X.tocsc(), "dense": given.X.toarray()}[form]
    here, there = sn.tl.nmf(tissue, 4, copy=True), sn.tl.nmf(given, 4, device=device, copy=True)
    assert objective(there, "nmf") == pytest.approx(objective(here, "nmf"), rel=1e-4)
    assert there.uns["nmf"]["params"]["device"] == device
    assert here.uns["nmf"]["params"]["device"] == "cpu"
    assert isinstance(there.obsm["X_nmf"], np.ndarray)
    assert there.obsm["X_nmf"].dtype == np.float32


@pytest.mark.parametrize("init", ["nndsvda", "random"])
def test_every_start(device, tissue, init):
    here, there = (sn.tl.nmf(tissue, 4, init=init, device=d, copy=True) for d in ("cpu", device))
    assert objective(there, "nmf") == pytest.approx(objective(here, "nmf"), rel=1e-4)


def test_counts(device, tissue):
    options = {"layer": "counts", "loss": "kl", "max_iter": 300, "tol": 1e-5, "copy": True}
    here, there = (sn.tl.nmf(tissue, 4, device=d, **options) for d in ("cpu", device))
    assert objective(there, "nmf", "counts", "kl") == pytest.approx(objective(here, "nmf", "counts", "kl"), rel=1e-4)


@pytest.mark.parametrize("smoothing", ["refit", "diffuse", "laplacian"])
def test_snmf(device, tissue, smoothing):
    here, there = (sn.tl.snmf(tissue, 4, smoothing=smoothing, device=d, copy=True) for d in ("cpu", device))
    assert there.uns["snmf"]["trace"][-1] == pytest.approx(here.uns["snmf"]["trace"][-1], rel=1e-4)
    scale = here.obsm["X_snmf"].max()
    np.testing.assert_allclose(there.obsm["X_snmf"], here.obsm["X_snmf"], atol=0.02 * scale)
    np.testing.assert_allclose(there.varm["snmf_loadings"], here.varm["snmf_loadings"], atol=0.02)


def test_hsnmf(device, tissue):
    here, there = (sn.tl.hsnmf(tissue, 4, n_domains=4, device=d, copy=True) for d in ("cpu", device))
    assert (here.obs["hsnmf"] == there.obs["hsnmf"]).mean() > 0.99
    with pytest.raises(ValueError, match="no effect"):
        sn.tl.hsnmf(here, n_domains=4, use_rep="X_hsnmf", device=device)


def test_project(device, tissue):
    reference, new = tissue[:300].copy(), tissue[300:].copy()
    sn.tl.nmf(reference, 4)
    here, there = (sn.tl.project(new, reference, device=d, copy=True) for d in ("cpu", device))
    np.testing.assert_allclose(there.obsm["X_nmf"], here.obsm["X_nmf"], atol=1e-3 * here.obsm["X_nmf"].max())
    assert there.uns["nmf"]["params"]["device"] == device


@pytest.mark.parametrize(
    "options",
    [{}, {"private": 1}, {"smoothing": "refit"}, {"smoothing": "laplacian"}, {"loss": "kl", "missing": "pad"}],
    ids=lambda o: "-".join(o) or "plain",
)
@pytest.mark.filterwarnings("ignore:.*does not look like counts")
def test_joint_nmf(device, options):
    mdata = sn.datasets.rna_protein_tissue(600, missing=0.3)
    if "smoothing" in options:
        sn.gr.contact_neighbors(mdata.mod["rna"])
    common = {"tol": 1e-5, "max_iter": 2000, "copy": True}
    here, there = (sn.tl.joint_nmf(mdata, 5, device=d, **options, **common) for d in ("cpu", device))
    assert there.uns["joint_nmf"]["trace"][-1] == pytest.approx(here.uns["joint_nmf"]["trace"][-1], rel=1e-4)
    assert (here.obs["joint_nmf"].astype(str) == there.obs["joint_nmf"].astype(str)).mean() > 0.97


@pytest.mark.parametrize("weight", [0.0, 10.0])
def test_stl_nmf(device, weight):
    cells, section = sn.datasets.xenium_tissue(800), sn.datasets.visium_section(150)
    sn.gr.contact_neighbors(section)
    reference = sn.tl.reference_profiles(cells, "cell_type")
    options = {"graph_weight": weight, "copy": True}
    here, there = (sn.tl.stl_nmf(section, reference, device=d, **options) for d in ("cpu", device))
    traces = [x.uns["stl_nmf"]["trace"] for x in (here, there)]
    assert traces[1][-1] == pytest.approx(traces[0][-1], rel=1e-4)
    np.testing.assert_allclose(there.obsm["stl_nmf"], here.obsm["stl_nmf"], atol=0.02)
    assert there.uns["stl_nmf"]["params"]["device"] == device
    with pytest.raises(ValueError, match="CPU only"):
        sn.tl.stl_nmf(section, reference, device=device, likelihood="gaussian")
    with pytest.raises(ValueError, match="no effect"):
        sn.tl.stl_nmf(section, reference, device=device, preset="paper")


def test_values_without_noise_are_fitted_on_the_cpu(device):
    cells = sn.datasets.xenium_tissue(800)
    reference = sn.tl.reference_profiles(cells, "cell_type")
    shares = np.random.default_rng(9).dirichlet(np.ones(reference.n_obs), 60)
    means = sp.csr_matrix(np.round(50 * shares @ reference.to_df().to_numpy()).astype(np.float32))
    section = ad.AnnData(means, var=reference.var[[]].copy())
    with pytest.warns(UserWarning, match="fitted by least squares, on the CPU"):
        sn.tl.stl_nmf(section, reference, device=device, graph_weight=0)
    assert section.uns["stl_nmf"]["likelihood"] == "gaussian"


def test_groups_of_a_joint_fit_have_blocks_of_their_own(on):
    rng = np.random.default_rng(7)
    X = sp.random(400, 20, 0.5, random_state=7, dtype=np.float32, format="csr")
    there = np.ones(400, dtype=bool)
    lacks = there.copy()
    lacks[rng.permutation(400)[:130]] = False
    holes = sp.csr_matrix(X.multiply(lacks[:, None]))
    layout = _joint_layout.lay_out([_joint_layout.Modality(X, there), _joint_layout.Modality(holes, lacks)], 3)
    placed = _torch.on_device(layout.X, on, layout.bounds)
    for a, b in zip(layout.bounds[:-1], layout.bounds[1:], strict=True):
        part = placed.part(int(a), int(b))
        M = np.eye(40, dtype=np.float32)
        np.testing.assert_array_equal(_ops.product(part, M), layout.X.as_scipy()[a:b].toarray())


# --- what can go wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("gpu", ValueError, "'cpu', 'cuda', 'cuda:1'"),
        ("cuda:x", ValueError, "'cpu', 'cuda', 'cuda:1'"),
        (0, ValueError, "must be 'cpu'"),
        (None, ValueError, "must be 'cpu'"),
        ("mps", ValueError, "sparse matrices"),
    ],
)
def test_other_devices_are_refused(tissue, given, error, words):
    before = snapshot(tissue)
    for call in (sn.tl.nmf, sn.tl.snmf, sn.tl.hsnmf):
        with pytest.raises(error, match=words):
            call(tissue, 4, device=given)
    assert not changed(before, snapshot(tissue))


def test_in_a_shell_a_device_is_checked_before_anything_is_read():
    code, _, errors = run_cli("hsnmf", "no.h5ad", "--device", "tpu")
    assert code == 2
    assert "--device must be 'cpu', 'cuda'" in errors


def test_without_torch_the_extra_is_named(tissue, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"device='cuda'.*pip install 'spanmf\[torch\]'"):
        sn.tl.nmf(tissue, 4, device="cuda")


def test_without_a_gpu_the_error_says_so(tissue, monkeypatch):
    torch = pytest.importorskip("torch", reason=TORCH)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="finds no GPU with CUDA here"):
        sn.tl.nmf(tissue, 4, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="finds 1 GPU here"):
        sn.tl.nmf(tissue, 4, device="cuda:1")
    assert _checks.check_device("cuda:0") == "cuda:0"


def test_too_little_memory_is_told_before_anything_is_moved(device, tissue, monkeypatch):
    monkeypatch.setattr(_torch, "memory_left", lambda _: 1000)
    monkeypatch.setattr(_torch, "on_device", None)
    before = snapshot(tissue)
    with pytest.raises(MemoryError, match=r"needs about .* GiB on .* where 9.31e-07 GiB are free"):
        sn.tl.nmf(tissue, 4, device=device)
    assert not changed(before, snapshot(tissue))


def test_what_is_needed_covers_what_lies_there(on, tissue):
    X = rows_of(tissue)
    there = _torch.on_device(X, on)
    parts = [
        t
        for b in there.blocks
        for m in (b.by_row, b.by_column)
        for t in (m.crow_indices(), m.col_indices(), m.values())
    ]
    W = _ops.start(there, 4)
    lies = sum(t.numel() * t.element_size() for t in [*parts, W, _ops.spare(W)])
    needed = _torch.bytes_needed(500, len(X.data), 4)
    assert 0.4 * needed < lies < needed
    graph = _torch.graph_beside(there, tissue.obsp["contact_connectivities"])
    pattern = graph.on_device.blocks
    assert all(b.by_column is None for b in pattern)
    parts = [t for b in pattern for t in (b.by_row.crow_indices(), b.by_row.col_indices(), b.by_row.values())]
    lies += sum(t.numel() * t.element_size() for t in [*parts, graph.degrees, _ops.spare(W), _ops.spare(W)])
    edges = tissue.obsp["contact_connectivities"].nnz
    needed = _torch.bytes_needed(500, len(X.data), 4, edges=edges)
    assert needed - 8 * edges > _torch.bytes_needed(500, len(X.data), 4)
    assert 0.4 * needed < lies < needed


def test_a_graph_is_counted_with_what_it_needs(device, tissue, monkeypatch):
    mdata = sn.datasets.rna_protein_tissue(300, n_genes=40)
    sn.gr.contact_neighbors(mdata["rna"])
    mdata.obsp["contact_connectivities"] = mdata["rna"].obsp["contact_connectivities"]
    asked = []

    class Enough(Exception):
        pass

    def bytes_needed(*args, edges=0, **options):
        asked.append(edges)
        raise Enough

    monkeypatch.setattr(_torch, "bytes_needed", bytes_needed)
    calls = (
        lambda: sn.tl.nmf(tissue, 4, device=device),
        lambda: sn.tl.snmf(tissue, 4, device=device),
        lambda: sn.tl.hsnmf(tissue, 4, n_domains=3, device=device),
        lambda: sn.tl.hsnmf(tissue, 4, n_domains=3, smooth=False, device=device),
        lambda: sn.tl.joint_nmf(mdata, 4, smoothing="refit", device=device),
    )
    for call in calls:
        with pytest.raises(Enough):
            call()
    edges, theirs = (t.obsp["contact_connectivities"].nnz for t in (tissue, mdata))
    assert asked == [0, edges, edges, 0, theirs]


def test_a_described_graph_is_refused(device):
    adata = small_tissue(300, 40)
    sn.gr.contact_neighbors(adata, store=False)
    with pytest.raises(KeyError, match="store=True"):
        sn.tl.snmf(adata, 4, device=device)


def test_a_table_of_rapids_singlecell_is_fetched():
    X = sp.random(5, 4, 0.5, format="csr", dtype=np.float32, random_state=0)

    class Fake:
        def get(self):
            return X

    Fake.__module__ = "cupyx.scipy.sparse._csr"
    found, _ = _data.get_matrix(SimpleNamespace(X=Fake()))
    assert found is X


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning", "ignore:.*zarr v2:UserWarning")
def test_round_trip(device, tissue, tmp_path, kind):
    adata = with_slots(tissue.copy())
    sn.tl.nmf(adata, 4, device=device)
    getattr(adata, f"write_{kind}")(tmp_path / f"x.{kind}")
    back = getattr(ad, f"read_{kind}")(tmp_path / f"x.{kind}")
    np.testing.assert_array_equal(back.obsm["X_nmf"], adata.obsm["X_nmf"])
    assert back.uns["nmf"]["params"]["device"] == device
