r"""The one NMF engine: alternate a fused pass over X (W, by rows) with an update of H from small statistics.

Frobenius: :math:`\tfrac12\|X-WH\|_F^2 + \lambda_1^W\|W\|_1 + \lambda_1^H\|H\|_1 + \tfrac{\lambda_2^W}2\|W\|_F^2
+ \tfrac{\lambda_2^H}2\|H\|_F^2`, optionally :math:`+ \tfrac\lambda2 \operatorname{Tr}(W^\top L W)` with the rows of H held
at unit norm. Hierarchical alternating least squares (HALS), accelerated by extrapolating H (Ang & Gillis 2019); a step
that would raise the objective is undone, so that the trace never rises.

Kullback–Leibler: :math:`\sum_{ij} x\log\tfrac{x}{(WH)} - x + (WH)` with the same L1 terms, multiplicative updates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numba import njit

from . import _ops
from ._ops import FASTMATH, Rows, Statistics
from ._smooth import Graph, graph_product, pull, roughness

Array = np.ndarray
W_SWEEPS = 4  # inner rounds of HALS on a row of W: four cost hardly more than one
H_SWEEPS = 4
NOTHING = 1e-12  # of the largest ‖w‖²: what a component has by rounding, and its loadings are kept
FEATURES = 64  # whose loadings are updated together, so that they stay in the nearest cache
EXTRAPOLATION, GROWTH = 0.8, 1.1  # first share of a step of H that is added to it, and how that share grows
FIRST_SWEEPS = 12  # rounds when W starts from nothing


@dataclass(frozen=True)
class Penalty:
    """Absolute weights of the elastic net."""

    l1_w: float = 0.0
    l1_h: float = 0.0
    l2_w: float = 0.0
    l2_h: float = 0.0


NO_PENALTY = Penalty()


@dataclass(frozen=True)
class Result:
    """W (n × k) and H (k × p), both float32, the objective after every pass, and how the run ended."""

    W: Array
    H: Array
    trace: Array
    converged: bool
    n_iter: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_iter", max(len(self.trace) - 1, 0))


Progress = Callable[[int, float], None]


def fit(
    X: Any,
    H: Array,
    W: Array | None = None,
    *,
    loss: str = "frobenius",
    penalty: Penalty = NO_PENALTY,
    graph: Graph | None = None,
    graph_weight: float = 0.0,
    max_iter: int = 500,
    tol: float = 3e-6,
    progress: Progress | None = None,
) -> Result:
    """Factorise X from the loadings ``H`` (k × p) and, if given, the factors ``W`` (n × k).

    Stops when a pass lowers the objective by less than ``tol`` times its value.
    """
    state = begin(X, H, W, loss, penalty, graph, graph_weight)
    return run(state, max_iter=max_iter, tol=tol, progress=progress)


def begin(
    X: Any,
    H: Array,
    W: Array | None = None,
    loss: str = "frobenius",
    penalty: Penalty = NO_PENALTY,
    graph: Graph | None = None,
    graph_weight: float = 0.0,
) -> State:
    """The state of a factorisation after its first pass, which fits W to H where no W is given."""
    engine = _KullbackLeibler if loss == "kl" else _Laplacian if graph is not None else _Frobenius
    return engine(X, np.asarray(H, dtype=np.float64).T, W, penalty, graph, graph_weight)


class State(Protocol):
    """A factorisation under way: W as the passes over X take it, H (p × k), and a step that never raises the objective."""

    W: Any
    H: Array
    objective: float

    def step(self, tol: float) -> bool:
        """One pass over the data; True when the stopping rule is met."""


def run(state: State, *, max_iter: int, tol: float, progress: Progress | None = None) -> Result:
    """Step until the stopping rule is met."""
    trace = [state.objective]
    converged = False
    for i in range(max_iter):
        converged = state.step(tol)
        trace.append(state.objective)
        if progress is not None:
            progress(i + 1, state.objective)
        if converged:
            break
    k = state.H.shape[1]
    return Result(
        _ops.gathered(state.W, k),
        np.ascontiguousarray(state.H.T, dtype=np.float32),
        np.array(trace),
        converged,
    )


def warm_up(loss: str, k: int) -> None:
    """Compile what a factorisation of this loss and rank needs, on a matrix of one value."""
    one = Rows(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.float32), (1, 1))
    fit(one, np.ones((k, 1)), loss=loss, max_iter=1)


def solve_w(
    X: Any, H: Array, *, loss: str = "frobenius", penalty: Penalty = NO_PENALTY, max_iter: int = 200, tol: float = 1e-5
) -> Array:
    """W (n × k) for fixed H: non-negative least squares, or its KL counterpart, of every row.

    Stops when no pass moves W by more than ``tol`` of its norm.
    """
    Ht = np.asarray(H, dtype=np.float64).T
    update = _w_update(X, Ht, loss, penalty)
    W = _start(X, Ht, None, loss)
    after = _ops.spare(W)
    for _ in range(max_iter):
        update(W, after, False)
        W, after = after, W
        moved, size = _ops.squared_distance(W, after)
        if moved <= tol**2 * max(size, float(_ops.TINY)):
            break
    return _ops.gathered(W, len(H))


def _start(X: Any, Ht: Array, W: Array | None, loss: str) -> Any:
    """W as given, else zero (HALS) or a positive constant row by row (multiplicative updates)."""
    return _ops.start(X, Ht.shape[1], W, 1 / max(Ht.sum(), _ops.TINY) if loss == "kl" else None)


def _w_update(X: Any, Ht: Array, loss: str, penalty: Penalty) -> Callable[[Any, Any, bool], Statistics]:
    k = Ht.shape[1]
    padded = _ops.pad(Ht)
    if loss == "kl":
        return lambda W, out, stats: _ops.kl_pass(
            X, padded, W, out, k, h_sum=Ht.sum(0), sweeps=5, l1=penalty.l1_w, statistics=stats
        )
    gram = Ht.T @ Ht + penalty.l2_w * np.eye(k)
    return lambda W, out, stats: _ops.hals_pass(
        X, padded, W, out, k, gram=gram, sweeps=FIRST_SWEEPS, l1=penalty.l1_w, statistics=stats
    )


class _Frobenius:
    """HALS with extrapolated H. ``H`` here is p × k."""

    def __init__(self, X: Any, H: Array, W: Array | None, penalty: Penalty, graph: Graph | None, weight: float) -> None:
        self.X, self.penalty = X, penalty
        self.x_norm = _ops.squared_norm(X)
        self.k = H.shape[1]
        self.H = H
        self.W = _start(X, H, W, "frobenius")
        self.spare = _ops.spare(self.W)
        self.beta, self.beta_max = EXTRAPOLATION, 1.0
        stats = self.pass_over(H, W_SWEEPS if W is not None else FIRST_SWEEPS)
        self.H, self.objective = self.improve(stats, H)
        self.accept()
        self.extrapolated = self.H

    def pass_over(self, H: Array, sweeps: int = W_SWEEPS) -> Statistics:
        """Put the next W into ``spare``."""
        gram = H.T @ H + self.penalty.l2_w * np.eye(self.k)
        return _ops.hals_pass(
            self.X, _ops.pad(H), self.W, self.spare, self.k, gram=gram, sweeps=sweeps, l1=self.penalty.l1_w
        )

    def accept(self) -> None:
        """Make ``spare`` the present W."""
        self.W, self.spare = self.spare, self.W

    def feasible(self, H: Array) -> Array:
        """Bring an extrapolated H back to the constraints."""
        return np.maximum(H, 0)

    def improve(self, stats: Statistics, H: Array) -> tuple[Array, float]:
        """New H and the objective at (W, new H), both from the statistics."""
        H = hals_h(stats, H, l1=self.penalty.l1_h, l2=self.penalty.l2_h)
        p = self.penalty
        value = 0.5 * (self.x_norm - 2 * np.vdot(stats.xtw, H) + np.vdot(stats.wtw, H.T @ H))
        value += p.l1_w * stats.w_sum.sum() + p.l1_h * H.sum()
        value += 0.5 * (p.l2_w * np.trace(stats.wtw) + p.l2_h * np.vdot(H, H))
        return H, float(value)

    def step(self, tol: float) -> bool:
        """One pass; True when the stopping rule is met."""
        plain = self.extrapolated is self.H
        stats = self.pass_over(self.extrapolated)
        H, value = self.improve(stats, self.extrapolated)
        gain = self.objective - value
        if gain < 0:
            if plain:  # rounding is all that is left
                return True
            self.beta_max, self.beta = self.beta, self.beta / 2
            self.extrapolated = self.H
            return False
        self.accept()
        self.extrapolated = self.feasible(H + self.beta * (H - self.H))
        self.beta, self.beta_max = min(self.beta_max, GROWTH * self.beta), min(1.0, 1.01 * self.beta_max)
        self.H, self.objective = H, value
        return gain <= tol * abs(value)


def hals_h(stats: Statistics, H: Array, *, l1: float = 0.0, l2: float = 0.0, sweeps: int = H_SWEEPS) -> Array:
    """Improve H (p × k) by rounds of HALS from ``XᵀW`` and ``WᵀW``; a component without weights keeps its loadings."""
    V, B = _in_tiles(H), _in_tiles(stats.xtw - l1)
    C = stats.wtw + l2 * np.eye(H.shape[1])
    _hals_features(V, B, C, NOTHING * C.diagonal().max(), sweeps)
    return np.ascontiguousarray(V.transpose(0, 2, 1)).reshape(-1, H.shape[1])[: len(H)]


def _in_tiles(M: Array) -> Array:
    """Tiles × k × FEATURES of what is p × k: one lane a feature, zeros after the last."""
    p, k = M.shape
    out = np.zeros((-(-p // FEATURES) * FEATURES, k))
    out[:p] = M
    return np.ascontiguousarray(out.reshape(-1, FEATURES, k).transpose(0, 2, 1))


@njit(cache=True, fastmath=FASTMATH, error_model="numpy")
def _hals_features(V, B, C, least, sweeps):
    """HALS on FEATURES features at once, which do not depend on each other: B holds the right-hand sides and becomes the residual B − C V."""
    k = V.shape[1]
    step = np.zeros(FEATURES)
    for t in range(len(V)):
        v, residual = V[t], B[t]
        for r in range(k):
            for s in range(k):
                c = C[r, s]
                for j in range(FEATURES):
                    residual[r, j] -= c * v[s, j]
        for _ in range(sweeps):
            for r in range(k):
                c = C[r, r]
                if c > least:
                    for j in range(FEATURES):
                        old = v[r, j]
                        new = max(old + residual[r, j] / c, 0.0)
                        v[r, j] = new
                        step[j] = new - old
                    for s in range(k):
                        c = C[s, r]
                        for j in range(FEATURES):
                            residual[s, j] -= c * step[j]


class _Laplacian(_Frobenius):
    r"""HALS with the graph term and the rows of H at unit norm (else W could shrink and empty the penalty).

    The term is majorised at the present W by :math:`L \preceq 2D`, which leaves every row its own small problem:
    weight :math:`q_i = 2\lambda d_i` and anchor :math:`c_i = \lambda(d_i w_i + (AW)_i)`. So the objective cannot rise.
    """

    def __init__(self, X: Any, H: Array, W: Array | None, penalty: Penalty, graph: Graph | None, weight: float) -> None:
        assert graph is not None
        self.graph, self.weight = graph, weight
        norms = np.linalg.norm(H, axis=0)
        norms[norms == 0] = 1
        H = H / norms
        self.neighbours: Any = None  # A W of the present W
        super().__init__(X, H, None if W is None else W * norms, penalty, graph, weight)

    def pass_over(self, H: Array, sweeps: int = W_SWEEPS) -> Statistics:
        anchor, q = None, None
        if self.neighbours is not None:
            anchor, q = pull(self.graph, self.W, self.neighbours, self.weight)
        stats = _ops.hals_pass(
            self.X, _ops.pad(H), self.W, self.spare, self.k, gram=H.T @ H, sweeps=sweeps, anchor=anchor, anchor_weight=q
        )
        self.spare_neighbours = graph_product(self.graph, self.spare)
        return stats

    def accept(self) -> None:
        super().accept()
        self.neighbours = self.spare_neighbours

    def feasible(self, H: Array) -> Array:
        H = np.maximum(H, 0)
        norms = np.linalg.norm(H, axis=0)
        return H / np.where(norms > 0, norms, 1)

    def improve(self, stats: Statistics, H: Array) -> tuple[Array, float]:
        H = unit_norm_h(stats, H)
        value = 0.5 * (self.x_norm - 2 * np.vdot(stats.xtw, H) + np.vdot(stats.wtw, H.T @ H))
        return H, float(value + 0.5 * self.weight * roughness(self.graph, self.spare, self.spare_neighbours))


def unit_norm_h(stats: Statistics, H: Array, sweeps: int = H_SWEEPS) -> Array:
    """Improve H (p × k) with columns of unit norm: the best one is the positive part of its target, normalised."""
    H = H.copy()
    for _ in range(sweeps):
        for r in range(H.shape[1]):
            target = stats.xtw[:, r] - H @ stats.wtw[:, r] + H[:, r] * stats.wtw[r, r]
            positive = np.maximum(target, 0)
            norm = np.linalg.norm(positive)
            if norm > 0:
                H[:, r] = positive / norm
            else:
                H[:, r] = target == target.max()
                H[:, r] /= np.linalg.norm(H[:, r])
    return H


class _KullbackLeibler:
    """Multiplicative updates. The trace holds the divergence at (new W, the H it was fitted to)."""

    def __init__(self, X: Any, H: Array, W: Array | None, penalty: Penalty, graph: Graph | None, weight: float) -> None:
        self.X, self.penalty = X, penalty
        self.entropy = _ops.entropy(X)
        self.k = H.shape[1]
        self.H = H
        self.W = _start(X, H, W, "kl")
        self.spare = _ops.spare(self.W)
        self.stats, self.objective = self.pass_over(H, self.spare)
        self.W, self.spare = self.spare, self.W

    def pass_over(self, H: Array, out: Array) -> tuple[Statistics, float]:
        p = self.penalty
        stats = _ops.kl_pass(self.X, _ops.pad(H), self.W, out, self.k, h_sum=H.sum(0), l1=p.l1_w)
        value = self.entropy - stats.log_term + float(stats.w_sum @ H.sum(0))
        return stats, value + p.l1_w * float(stats.w_sum.sum()) + p.l1_h * float(H.sum())

    def step(self, tol: float) -> bool:
        total = self.stats.w_sum + self.penalty.l1_h
        H = self.H * (self.stats.xtw / np.where(total > 0, total, 1))
        stats, value = self.pass_over(H, self.spare)
        gain = self.objective - value
        if gain < 0:  # rounding is all that is left
            return True
        self.W, self.spare = self.spare, self.W
        self.stats, self.H, self.objective = stats, H, value
        return gain <= tol * abs(value)
