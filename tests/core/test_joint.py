"""The joint engine: the objective it reports is the slow one and never rises; masks; private components; the graph term."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import minimize, nnls

from spanmf.core import _graph, _joint, _joint_layout, _joint_start

N, K = 300, 3


def planted(seed: int = 0, missing: float = 0.0) -> list[_joint_layout.Modality]:
    rng = np.random.default_rng(seed)
    W = rng.gamma(0.5, 1, (N, K))
    H = [rng.gamma(0.4, 1, (K, p)) for p in (30, 8)]
    present = rng.random(N) >= missing
    noise = rng.gamma(20, 1 / 20, (N, 8))
    second = sp.csr_matrix((W @ H[1] * noise * present[:, None]).astype(np.float32))
    return [
        _joint_layout.Modality(sp.csr_matrix(rng.poisson(3 * W @ H[0]).astype(np.float32)), np.ones(N, dtype=bool)),
        _joint_layout.Modality(second, present, weight=2.0),
    ]


def slow_objective(
    modalities: list[_joint_layout.Modality], layout: _joint_layout.Layout, W: np.ndarray, H: np.ndarray
) -> float:
    value = 0.0
    for m, columns in zip(modalities, layout.columns, strict=True):
        X, M = m.X.toarray() * m.present[:, None] * m.scale, W.astype(float) @ H[:, columns]
        share = np.where(m.present, 1, _joint_layout.ABSENT)[:, None]
        if m.loss == "kl":
            terms = np.where(X > 0, X * np.log(np.maximum(X, 1e-30) / np.maximum(M, 1e-20)), 0) - X + M
        else:
            terms = (X - M) ** 2 / 2
        value += (share * terms).sum()
    return value


def replace(modalities: list[_joint_layout.Modality], **values: tuple) -> list[_joint_layout.Modality]:
    return [
        _joint_layout.Modality(**(m.__dict__ | {k: v[i] for k, v in values.items()})) for i, m in enumerate(modalities)
    ]


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("losses", [("frobenius", "frobenius"), ("kl", "kl"), ("kl", "frobenius")])
@pytest.mark.parametrize("private", [(0, 0), (1, 0), (1, 2)])
def test_objective_is_the_slow_one_and_never_rises(missing: float, losses: tuple, private: tuple) -> None:
    modalities = replace(planted(missing=missing), loss=losses, private=private)
    k = K + sum(private)
    layout = _joint_layout.lay_out(modalities, k)
    H = np.random.default_rng(0).random((k, layout.X.shape[1])) * layout.X.data.mean()
    result = _joint.fit(layout, H, max_iter=60, tol=1e-7)
    assert result.trace[-1] == pytest.approx(slow_objective(modalities, layout, result.W, result.H), rel=1e-5)
    assert (np.diff(result.trace) <= 0).all()
    assert result.trace[-1] < 0.8 * result.trace[0]
    for m, columns in enumerate(layout.columns):
        others = np.setdiff1d(np.arange(k), layout.components[m])
        assert not result.H[others][:, columns].any()


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_start_is_the_best_of_several(missing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A component without loadings stays empty: such a start ends higher, and is not the one that is taken."""
    layout = _joint_layout.lay_out(planted(missing=missing), K)
    good = _joint_start.cluster_means(layout, K, np.random.default_rng(0))[0]
    poor = good * (np.arange(K) > 1)[:, None]
    ends = [_joint.fit(layout, H, max_iter=200).trace[-1] for H in (poor, good)]
    assert ends[1] < 0.95 * ends[0]
    monkeypatch.setattr(_joint_start, "cluster_means", lambda *_: [poor, poor, good, poor])
    raced = _joint.fit(layout, _joint_start.start(layout, K, np.random.default_rng(0)), max_iter=200)
    assert raced.trace[-1] == pytest.approx(ends[1], rel=1e-3)


def test_missing_rows_are_zeros_of_little_weight() -> None:
    """At a minimum, W of a row is its least squares against what it has, and a little against zeros for the rest."""
    modalities = planted(missing=0.4)
    layout = _joint_layout.lay_out(modalities, K)
    H0 = _joint_start.start(layout, K, np.random.default_rng(0))
    result = _joint.fit(layout, H0, max_iter=400, tol=1e-10)
    share = np.sqrt(_joint_layout.ABSENT)
    absent = np.flatnonzero(~modalities[1].present)
    A = np.hstack([result.H[:, layout.columns[0]], share * result.H[:, layout.columns[1]]]).astype(float).T
    Y = np.hstack([modalities[0].X.toarray()[absent], np.zeros((len(absent), 8))])
    slow = np.array([nnls(A, y)[0] for y in Y])
    np.testing.assert_allclose(result.W[absent], slow, atol=2e-3 * slow.max())


def test_no_factor_explodes_where_its_modality_is_missing() -> None:
    """A component that only the missing modality shows has no bound in the others' noise."""
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=N)
    first = rng.poisson(1.0, (N, 20))
    second = 5 * np.eye(3)[kind][:, np.arange(6) % 3] * rng.gamma(20, 1 / 20, (N, 6))
    present = rng.random(N) > 0.3
    parts = [sp.csr_matrix(x.astype(np.float32)) for x in (first, second * present[:, None])]
    modalities = [_joint_layout.Modality(parts[0], np.ones(N, dtype=bool)), _joint_layout.Modality(parts[1], present)]
    layout = _joint_layout.lay_out(modalities, 6)
    result = _joint.fit(layout, _joint_start.start(layout, 6, rng), max_iter=300, tol=1e-9)
    size = np.linalg.norm(result.W @ result.H, axis=1)
    assert size[~present].max() < 2 * size[present].max()


def test_planted_factors_come_back() -> None:
    rng = np.random.default_rng(3)
    W, H = rng.gamma(0.3, 1, (N, K)), rng.gamma(0.3, 1, (K, 40))
    X = sp.csr_matrix((W @ H).astype(np.float32))
    present = rng.random(N) > 0.3
    second = sp.csr_matrix(X[:, 25:].multiply(present[:, None]).astype(np.float32))
    modalities = [
        _joint_layout.Modality(X[:, :25].tocsr(), np.ones(N, dtype=bool)),
        _joint_layout.Modality(second, present),
    ]
    layout = _joint_layout.lay_out(modalities, K)
    found = _joint.fit(layout, _joint_start.start(layout, K, rng), max_iter=3000, tol=1e-12).W
    r = np.corrcoef(W.T, found.T)[:K, K:]
    assert r.max(1).min() > 0.995


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_graph_term(missing: float) -> None:
    rng = np.random.default_rng(0)
    A, _ = _graph.radius_graph(rng.random((N, 2)) * 100, np.zeros(N, np.int32), 10.0)
    modalities, weight = planted(missing=missing), 0.3
    layout = _joint_layout.lay_out(modalities, K)
    H0 = _joint_start.start(layout, K, rng)
    result = _joint.fit(layout, H0, graph=A, graph_weight=weight, max_iter=80, tol=1e-7)
    L = np.diag(np.asarray(A.sum(1)).ravel()) - A.toarray()
    W = result.W.astype(float)
    slow = slow_objective(modalities, layout, result.W, result.H) + weight / 2 * np.trace(W.T @ L @ W)
    assert result.trace[-1] == pytest.approx(slow, rel=1e-5)
    assert (np.diff(result.trace) <= 0).all()
    np.testing.assert_allclose(np.linalg.norm(result.H, axis=1), 1, rtol=1e-5)


def test_the_step_on_the_sphere_is_the_minimum() -> None:
    rng = np.random.default_rng(0)
    target, curvature = rng.normal(size=8), np.repeat([1.0, 3.0], 4)
    h = _joint._on_sphere(target, curvature, np.ones(8))

    def value(x: np.ndarray) -> float:
        x = np.abs(x) / np.linalg.norm(x)
        return float(0.5 * (curvature * x * x).sum() - target @ x)

    best = min(minimize(value, rng.random(8), method="Nelder-Mead", options={"maxiter": 20_000}).fun for _ in range(4))
    assert value(h) <= best + 1e-4
    assert (h >= 0).all()
    assert (_joint._on_sphere(-np.ones(8), curvature, h) == h).all()


def test_refit_is_least_squares_over_the_rows_that_are_there() -> None:
    modalities = planted(missing=0.3)
    layout = _joint_layout.lay_out(modalities, K)
    W = np.random.default_rng(1).random((N, K)).astype(np.float32)
    H = _joint.refit_h(layout, W, np.ones((K, 38)))
    m = modalities[1]
    y = m.X.toarray()[m.present] * m.scale
    for j in range(8):
        np.testing.assert_allclose(H[:, 30 + j], nnls(W[m.present], y[:, j])[0], atol=1e-3 * y.max())


def test_variance_explained() -> None:
    rng = np.random.default_rng(0)
    X, W, H = rng.random((50, 6)), rng.random((50, 3)), rng.random((3, 6))
    H[2] = 0
    centred, slow = X - X.mean(0), []
    for r in range(3):
        design = np.stack([np.ones(50), W[:, r]], axis=1)
        residual = X - design @ np.linalg.lstsq(design, X, rcond=None)[0]
        slow.append(1 - (residual**2).sum() / (centred**2).sum() if r < 2 else 0)
    modality = _joint_layout.Modality(sp.csr_matrix(X), np.ones(50, dtype=bool), weight=3.0)
    found = _joint.variance_explained(_joint_layout.lay_out([modality], 3), W, H)
    np.testing.assert_allclose(found[:, 0], slow, rtol=1e-6)
