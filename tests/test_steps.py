"""The number of smoothing steps: by prediction on arrays of spots, two on cells."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from support import small_tissue, with_slots

import spanmf as sn
from spanmf.core import _scale, _steps, _tiles
from spanmf.tl._steps import on_lattice

SIDE = 24


def grid(side: int = SIDE) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)


def ring(coords: np.ndarray) -> sp.csr_matrix:
    """Weighted edges of neighbouring places; the last place is isolated."""
    distance = np.abs(coords[:, None] - coords[None]).sum(-1)
    A = np.where(distance == 1, 2.5, 0.0)
    A[-1] = A[:, -1] = 0
    return sp.csr_matrix(A.astype(np.float32))


def planted(width: int, noise: float, seed: int = 0) -> np.ndarray:
    """Three levels in stripes of a width, in two columns, under noise."""
    stripe = (grid()[:, 0] // width).astype(int) % 3
    levels = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return levels[stripe] + np.random.default_rng(seed).normal(0, noise, (SIDE**2, 2))


@pytest.fixture(scope="module")
def section() -> ad.AnnData:
    """Spots on a lattice, log-normalised, with their ring."""
    adata = sn.datasets.visium_section(250, n_genes=120, n_domains=4, rng=1)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sn.gr.contact_neighbors(adata)
    return adata


def slow_errors(A: sp.csr_matrix, Z: np.ndarray, beta: float) -> list[float]:
    """Every observation foretold by the mean of the others, with the weights that the smoother gives to them."""
    A = A.toarray().astype(float)
    P = (A + np.eye(len(A))) / (A.sum(1, keepdims=True) + 1)
    errors = []
    for n_steps in range(1, _steps.MOST + 1):
        S = np.linalg.matrix_power((1 - beta) * np.eye(len(A)) + beta * P, n_steps)
        total = 0.0
        for i in np.flatnonzero(A.sum(1)):
            others = S[i].copy()
            others[i] = 0
            total += ((Z[i] - others @ Z / others.sum()) ** 2).sum()
        errors.append(total)
    return errors


@pytest.mark.parametrize("beta", [0.2, 0.6, 1.0])
def test_errors_are_those_of_leaving_each_out(beta):
    A, Z = ring(grid()), planted(6, 0.5)
    np.testing.assert_allclose(_steps.prediction_errors(A, Z, beta), slow_errors(A, Z, beta), rtol=1e-6)


def test_a_sample_is_enough(monkeypatch):
    A, Z = ring(grid()), planted(6, 0.5)
    whole = _steps.prediction_errors(A, Z, 0.6)
    monkeypatch.setattr(_steps, "SAMPLE", 300)
    part = _steps.prediction_errors(A, Z, 0.6)
    np.testing.assert_allclose(part / part[0], whole / whole[0], rtol=0.05)
    np.testing.assert_array_equal(part, _steps.prediction_errors(A, Z, 0.6))


def test_a_described_graph_gives_the_same():
    coords, Z = grid(), planted(6, 0.5)
    described = _tiles.RadiusGraph(coords, np.zeros(len(coords), np.int32), 1.3, 0.0, 2.5, 1.0, "max")
    np.testing.assert_allclose(
        _steps.prediction_errors(described, Z, 0.6), _steps.prediction_errors(described.matrices()[0], Z, 0.6)
    )


def test_noise_asks_for_more_steps_and_small_domains_for_fewer():
    A = ring(grid())
    wide, noisy = planted(8, 0.3), planted(8, 1.5)
    narrow = planted(2, 0.3)
    steps = [_steps.fewest_steps(A, Z, 0.6) for Z in (narrow, wide, noisy)]
    assert steps == sorted(steps)
    assert steps[0] == 1
    assert steps[2] > steps[1]


def test_where_nothing_can_be_foretold():
    n = len(grid())
    assert _steps.fewest_steps(sp.csr_matrix((n, n), dtype=np.float32), planted(6, 0.5), 0.6) == _steps.DEFAULT
    assert _steps.fewest_steps(ring(grid()), planted(6, 0.5), 0.0) == _steps.DEFAULT


# --- the functions ----------------------------------------------------------------------------------------------------


def steps_of(adata: ad.AnnData, key: str = "hsnmf") -> int:
    return int(adata.uns[key]["params"]["n_steps"])


def test_cells_are_smoothed_twice():
    adata = with_slots(small_tissue(120, 30))
    sn.gr.contact_neighbors(adata)
    for n_steps in ("auto", 2):
        sn.tl.hsnmf(adata, 4, n_domains=3, n_steps=n_steps, key_added=f"by {n_steps}")
    assert steps_of(adata, "by auto") == 2
    np.testing.assert_array_equal(adata.obsm["X_by auto"], adata.obsm["X_by 2"])


@pytest.fixture
def three_are_best(monkeypatch):
    monkeypatch.setattr(_steps, "prediction_errors", lambda *_: np.array([2.0, 1.5, 1.01, 1.0, 1.5]))


@pytest.mark.usefixtures("three_are_best")
def test_spots_are_smoothed_as_the_errors_say(section):
    auto = sn.tl.hsnmf(section, 4, n_domains=3, copy=True)
    given = sn.tl.hsnmf(section, 4, n_domains=3, n_steps=3, copy=True)
    assert steps_of(auto) == 3
    np.testing.assert_array_equal(auto.obsm["X_hsnmf"], given.obsm["X_hsnmf"])
    assert (auto.obs["hsnmf"] == given.obs["hsnmf"]).all()


@pytest.mark.usefixtures("three_are_best")
def test_it_is_said_how_many_steps_were_made_and_who_chose_them(section, caplog):
    adata = section.copy()
    with caplog.at_level("INFO", "spanmf"):
        for options, note in (
            ({}, "smoothed in 3 steps (n_steps='auto')"),
            ({"n_steps": 1}, "smoothed in 1 step,"),
            ({"preset": "paper"}, "smoothed in 2 steps,"),
        ):
            caplog.clear()
            sn.tl.hsnmf(adata, 4, n_domains=3, **options)
            assert note in caplog.text
            assert adata.uns["hsnmf"]["n_steps_chosen"] is (not options)
        caplog.clear()
        sn.tl.hsnmf(adata, 4, n_domains=3, smooth=False)
    assert "smoothed" not in caplog.text
    assert "n_steps_chosen" not in adata.uns["hsnmf"]


@pytest.mark.usefixtures("three_are_best")
@pytest.mark.parametrize(
    "options",
    [{}, {"n_domains": 3, "clustering": "leiden"}, {"preset": "paper"}, {"n_domains": 3, "preset": "paper"}],
    ids=["number not given", "leiden", "paper", "paper with a number"],
)
def test_leiden_and_the_published_form_keep_two_steps(section, options):
    assert steps_of(sn.tl.hsnmf(section, 4, copy=True, **options)) == 2


@pytest.mark.usefixtures("three_are_best")
def test_the_number_is_chosen_for_kmeans_and_other_representations(section):
    adata = section.copy()
    sn.tl.nmf(adata, 4)
    sn.tl.hsnmf(adata, 4, n_domains=3, clustering="kmeans")
    sn.tl.hsnmf(adata, use_rep="X_nmf", n_domains=3, key_added="of_nmf")
    sn.tl.select_n_domains(adata, [2, 3], n_components=4, n_splits=2)
    sn.tl.select_n_domains(adata, [2, 3], use_rep="X_nmf", n_splits=2, key_added="rep")
    assert [steps_of(adata, key) for key in ("hsnmf", "of_nmf", "select_n_domains", "rep")] == [3] * 4


@pytest.mark.parametrize("scale", ["gram", "norm"])
def test_the_number_is_sought_where_distances_are_measured(section, monkeypatch, scale):
    adata, seen = section.copy(), []
    monkeypatch.setattr(_steps, "fewest_steps", lambda A, Z, beta: seen.append(Z) or 2)
    sn.tl.nmf(adata, 4)
    Z = _scale.rescale(adata.obsm["X_nmf"], adata.varm["nmf_loadings"].T, scale)
    sn.tl.hsnmf(adata, 4, n_domains=3, scale=scale)
    sn.tl.hsnmf(adata, use_rep="X_nmf", n_domains=3, scale=scale)
    sn.tl.select_n_domains(adata, [2, 3], n_components=4, n_splits=2, scale=scale)
    assert len(seen) == 3
    for each in seen:  # but for a rotation
        np.testing.assert_allclose(each @ each.T, Z @ Z.T, rtol=1e-3)


def test_no_number_is_sought_where_none_is_used(section, monkeypatch):
    monkeypatch.setattr(_steps, "prediction_errors", None)  # a call would fail
    for options in ({"smoothing": "laplacian", "tol": 1e-3}, {"smooth": False}, {"n_steps": 1}):
        out = sn.tl.hsnmf(section, 4, n_domains=3, copy=True, **options)
        assert out.uns["hsnmf"]["params"].get("n_steps") == options.get("n_steps")
    adata = section.copy()
    sn.tl.select_n_domains(adata, [2, 3], n_components=4, n_splits=2, smooth=False)
    assert "n_steps" not in adata.uns["select_n_domains"]["params"]


def test_lattices_are_known_by_record_or_by_place(section):
    assert on_lattice(section, "contact_connectivities")
    foreign = section.copy()
    del foreign.uns["contact_neighbors"]  # as of a graph of another package
    assert on_lattice(foreign, "contact_connectivities")
    foreign.obsm["spatial"] = np.random.default_rng(0).random((foreign.n_obs, 2))
    del foreign.obs["array_row"]
    assert not on_lattice(foreign, "contact_connectivities")
    foreign.obsm["spatial"][0] = np.nan
    assert not on_lattice(foreign, "contact_connectivities")
    del foreign.obsm["spatial"]
    assert not on_lattice(foreign, "contact_connectivities")
    assert steps_of(sn.tl.hsnmf(foreign, 4, n_domains=3, copy=True)) == 2
