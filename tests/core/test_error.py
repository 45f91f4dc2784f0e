"""Sums of squares without WH, for every container."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp

from spanmf.core import _error

CONTAINERS = [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.csc_array, sp.coo_matrix]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("container", CONTAINERS)
def test_residual_equals_dense(container: Callable, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_error, "BLOCK", 7)  # several blocks, the last one shorter
    rng = np.random.default_rng(0)
    X = rng.poisson(0.7, (40, 23)).astype(dtype)
    W, H = rng.random((40, 3)).astype(np.float32), rng.random((3, 23)).astype(np.float32)
    H[:, [2, 9, 22]] = 0  # not used in the fit
    used = np.setdiff1d(np.arange(23), [2, 9, 22])
    dense = X[:, used].astype(float)
    result = _error.residual(container(X), W, H)
    assert result.error == pytest.approx(((dense - W.astype(float) @ H[:, used]) ** 2).sum(), rel=1e-10)
    assert result.total == pytest.approx(((dense - dense.mean(0)) ** 2).sum(), rel=1e-10)
    assert result.n_entries == 40 * 20


def test_exact_fit_is_not_negative() -> None:
    rng = np.random.default_rng(1)
    W, H = rng.random((200, 5)), rng.random((5, 60))
    result = _error.residual(W @ H, W, H)
    assert 0 <= result.error < 1e-9 * result.total
