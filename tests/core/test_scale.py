"""Rescaled factors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from spanmf.core._scale import rescale


@pytest.fixture
def factors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((30, 4)).astype(np.float32), rng.random((4, 50)).astype(np.float32) * np.float32(
        [[1], [20], [3], [0.1]]
    )


def test_gram_distances_are_those_of_the_reconstruction(factors: tuple[np.ndarray, np.ndarray]) -> None:
    W, H = factors
    Z = rescale(W, H, "gram")
    assert Z.dtype == np.float32
    np.testing.assert_allclose(pdist(Z), pdist(W.astype(float) @ H.astype(float)), rtol=1e-4)


def test_gram_does_not_depend_on_the_scale_of_the_components(factors: tuple[np.ndarray, np.ndarray]) -> None:
    W, H = factors
    s = np.float32([2, 0.01, 100, 1])
    np.testing.assert_allclose(pdist(rescale(W / s, H * s[:, None], "gram")), pdist(rescale(W, H, "gram")), rtol=1e-3)
    np.testing.assert_allclose(rescale(W / s, H * s[:, None], "norm"), rescale(W, H, "norm"), rtol=1e-5)


def test_norm_and_none(factors: tuple[np.ndarray, np.ndarray]) -> None:
    W, H = factors
    expected = np.array([[w * np.sqrt((h.astype(float) ** 2).sum()) for w, h in zip(row, H, strict=True)] for row in W])
    np.testing.assert_allclose(rescale(W, H, "norm"), expected, rtol=1e-5)
    assert rescale(W, H, None) is W


def test_collinear_loadings_stay_finite() -> None:
    H = np.repeat(np.random.default_rng(1).random((1, 20)), 3, axis=0)  # rank 1: eigenvalues round below 0
    Z = rescale(np.eye(3), H, "gram")
    assert np.isfinite(Z).all()
    np.testing.assert_allclose(pdist(Z), 0, atol=1e-6)
