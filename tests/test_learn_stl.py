"""Learning the weights of STL-NMF: the unrolled layers are the fit's, gradient descent helps, the same seed learns the same."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import spanmf as sn
from spanmf.core import _stl_learn, _stl_paper

TORCH = "torch is an optional extra (`pip install 'spanmf[torch]'`)"


@pytest.fixture(scope="module")
def sections():
    return sn.datasets.stl_nmf_triplets(4, kind="noisy", layout="grid", n_types=3)


def arrays(section):
    B, V = section.varm["B"].to_numpy().T, section.obsm["V_true"].to_numpy()
    regions = section.obs["region"].cat.codes.to_numpy().astype(int)
    regions[:5] = -1
    return _stl_learn.Triplet(section.X, B, V, section.obsm["spatial"], regions)


@pytest.mark.parametrize("group", ["printed", "meant"])
@pytest.mark.parametrize("relative", [False, True])
def test_unrolled_layers_are_those_of_the_fit(sections, group, relative):
    pytest.importorskip("torch", reason=TORCH)
    t = arrays(sections[0])
    omega = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    numbers = {"lambdas": (0.2, 0.3, 0.1), "sigmas": (1.0, 2.0)} if relative else {}
    weights = _stl_paper.Weights(
        **numbers, omega=omega, group=group, relative=relative, n_layers=12, normalise=not relative,
        cutoff=0.0 if relative else 1e-3,
    )  # fmt: skip
    A = _stl_paper.adjacency(t.coords, t.regions, weights.sigmas)
    fitted = _stl_paper.fit(t.X, t.B, A, t.regions, weights, np.random.default_rng(3)).V
    parameters = _stl_learn._Numbers(weights, "cpu")
    unrolled = _stl_learn._Problem(t, weights, "cpu").unroll(*parameters.read(), np.random.default_rng(3))
    np.testing.assert_allclose(unrolled.detach().numpy(), fitted, atol=2e-4)
    kept = parameters.weights()
    np.testing.assert_allclose(kept.lambdas, weights.lambdas, rtol=1e-5)
    np.testing.assert_allclose(kept.sigmas, weights.sigmas, rtol=1e-5)
    np.testing.assert_allclose(kept.omega, omega, rtol=1e-4)


def test_learning_helps_repeats_and_is_used_without_torch(sections, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason=TORCH)
    options = {"n_epochs": 3, "n_layers": 40, "learning_rate": 0.3, "device": "cpu"}
    weights = sn.tl.learn_stl_nmf(sections, **options)
    again = sn.tl.learn_stl_nmf(sections, **options)
    assert weights.lambdas == again.lambdas
    assert weights.omega == again.omega
    assert weights.validation_error[weights.best_epoch] < 0.9 * weights.validation_error[0]
    assert weights.best_epoch == int(np.argmin(weights.validation_error))
    assert weights.types == ("type1", "type2", "type3")
    assert weights.regions == ("0", "1", "2", "3")
    weights.save(tmp_path / "w.json")
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it fails now
    adata = sn.datasets.stl_nmf_triplets(1, kind="noisy", layout="grid", n_types=3)[0]
    sn.tl.stl_nmf(adata, adata.varm["B"].T, region_key="region", weights=tmp_path / "w.json")
    V = adata.obsm["V_true"].to_numpy()
    error = np.linalg.norm(adata.obsm["stl_nmf"] - V) / np.linalg.norm(V)
    assert error == pytest.approx(weights.validation_error[weights.best_epoch], rel=0.5)


def test_early_stop_and_the_published_schedule(sections):
    pytest.importorskip("torch", reason=TORCH)
    stopped = sn.tl.learn_stl_nmf(sections[:2], n_epochs=20, n_layers=2, learning_rate=3.0, patience=1, device="cpu")
    assert len(stopped.validation_error) < 21
    paper = sn.tl.learn_stl_nmf(sections[:2], preset="paper", n_epochs=1, device="cpu")
    assert paper.n_layers == 150
    assert paper.group == "printed"
    assert not paper.relative
    np.testing.assert_allclose(paper.lambdas, (30, 50, 30), atol=0.1)  # a fault: they hardly move


def test_without_torch_the_extra_is_named(sections, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'spanmf\[torch\]'"):
        sn.tl.learn_stl_nmf(sections)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda s: s.obsm.pop("V_true"), KeyError, "V_true.*stl_nmf_triplets"),
        (lambda s: s.varm.pop("B"), KeyError, "'B' is not in"),
        (lambda s: s.varm.__setitem__("B", s.varm["B"].iloc[:, ::-1]), ValueError, "same types"),
        (lambda s: s.obsm["V_true"].iloc.__setitem__((0, 0), np.nan), ValueError, "NaN"),
    ],
)
def test_bad_sections(sections, change, error, match):
    bad = sections[1].copy()
    bad.obsm["V_true"] = bad.obsm["V_true"].copy()
    change(bad)
    with pytest.raises(error, match=match):
        sn.tl.learn_stl_nmf([sections[0], bad])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_epochs": 0}, "n_epochs"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"group": "x"}, "group"),
        ({"validation": 1.0}, "validation"),
    ],
)
def test_bad_options(sections, options, match):
    with pytest.raises(ValueError, match=match):
        sn.tl.learn_stl_nmf(sections, **options)
    with pytest.raises(ValueError, match="at least one"):
        sn.tl.learn_stl_nmf([])
