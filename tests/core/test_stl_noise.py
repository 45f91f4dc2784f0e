"""Sections made anew with the noise of a section's residuals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import nnls

from spanmf.core import _stl_noise
from spanmf.core._stl_noise import Noise, Section


def section_of(seed: int, how, scale: float = 10.0, n: int = 250) -> tuple[Section, np.ndarray]:
    """A section of three types, of which the last has few molecules, and its shares; fitted by plain least squares."""
    rng = np.random.default_rng(seed)
    B = rng.gamma(0.3, scale, (3, 400)) * np.array([[1.0], [0.6], [0.25]])
    V = rng.dirichlet(np.full(3, 0.5), n)

    def fit(X: sp.csr_matrix) -> np.ndarray:
        A = np.stack([nnls(B.T, x)[0] for x in X.toarray()])
        return A / np.maximum(A.sum(1, keepdims=True), 1e-12)

    return Section(sp.csr_matrix(np.asarray(how(V @ B), float)), B, fit), V


@pytest.mark.parametrize(
    ("how", "whole"),
    [("cut", np.floor), ("rounded", np.round), ("counted", np.random.default_rng(7).poisson), (None, np.asarray)],
)
def test_whole_numbers_were_cut_or_rounded_or_counted(how: str | None, whole, monkeypatch: pytest.MonkeyPatch) -> None:
    used, make = [], Section.make
    monkeypatch.setattr(Section, "make", lambda X, A, noise, rng: (used.append(noise), make(X, A, noise, rng))[1])
    section, _ = section_of(0, whole)
    section.errors(section.fit(section.X), np.random.default_rng(0))
    assert used[-1].whole == how
    assert len({noise.whole for noise in used}) == (1 if how is None else 3)


@pytest.mark.parametrize(("constant", "slope"), [(0.0, 0.25), (4.0, 0.0), (1.0, 0.5)])
def test_variance_is_found_again(constant: float, slope: float) -> None:
    rng = np.random.default_rng(2)
    mean = rng.gamma(0.4, 8, 60_000) + 5
    x = mean + np.sqrt(constant + slope * mean) * rng.standard_normal(mean.shape)
    noise = Noise.of(x, mean, whole=False)
    np.testing.assert_allclose(noise.constant + noise.slope * mean, constant + slope * mean, rtol=0.1)


def test_cutting_is_no_noise() -> None:
    mean = np.random.default_rng(2).gamma(0.4, 8, 60_000)
    noise = Noise.of(np.floor(mean), mean, whole=True)
    assert noise.constant + noise.slope < 0.01


def test_values_have_their_mean_and_variance_and_none_is_negative() -> None:
    mean = np.repeat([[0.0, 0.5, 3.0, 200.0]], 200_000, axis=0)
    for noise in (Noise(0.2, 0.3), Noise(0.2, 0.3, "counted")):
        x = noise.values(mean, np.random.default_rng(0))
        assert (x >= 0).all()
        assert not x[:, 0].any()
        np.testing.assert_allclose(x.mean(0), mean[0], rtol=0.02)
        more = 0 if noise.whole is None else 0.25  # at most
        assert (x.var(0) <= 1.1 * (0.2 + 0.3 * mean[0]) + more).all()
    assert (x == np.round(x)).all()
    x = Noise(0.2, 0.3).values(mean, np.random.default_rng(0))
    np.testing.assert_allclose(x.var(0)[1:], 0.2 + 0.3 * mean[0, 1:], rtol=0.1)


def test_without_values_there_is_no_noise() -> None:
    assert Noise.of(np.zeros(5), np.zeros(5), whole=True) == Noise(0.0, 0.0)


def test_made_sections_lose_what_the_section_lost() -> None:
    section, V = section_of(3, np.floor)
    shares = section.fit(section.X)
    found, truth, depth = section.errors(shares, np.random.default_rng(0))
    n = len(V)
    assert found.shape == truth.shape == (8 * n, 3)
    np.testing.assert_allclose(truth.sum(1), 1)
    np.testing.assert_allclose(depth[:n].mean(), section.X.sum() / n, rtol=0.05)
    assert np.linalg.norm(truth[:n] - V) < 0.6 * np.linalg.norm(shares - V)
    lost, made_lost = (shares - V).mean(0), (found - truth).mean(0)
    assert lost[2] < -0.02
    np.testing.assert_allclose(made_lost, lost, atol=0.4 * abs(lost).max())


def test_a_large_section_is_made_fewer_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stl_noise, "MADE", 30)
    section, _ = section_of(1, np.round, n=12)
    found, truth, depth = section.errors(section.fit(section.X), np.random.default_rng(0))
    assert len(found) == len(truth) == len(depth) == 3 * 12


def test_abundances_of_a_section_without_noise() -> None:
    rng = np.random.default_rng(4)
    B, V, depth = rng.gamma(1, 1, (3, 50)), rng.dirichlet(np.ones(3), 6), rng.gamma(2, 3, 6)
    V[2] = np.nan  # a spot without counts
    X = sp.csr_matrix(np.nan_to_num(depth[:, None] * V @ B))
    np.testing.assert_allclose(_stl_noise.abundances(X, B, V), np.nan_to_num(depth[:, None] * V), rtol=1e-6)
