"""Where a factorisation starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from . import _ops, _sketch, _solver
from ._blocks import part_in_memory
from ._ops import Rows
from ._simd import LANE

Array = np.ndarray


@dataclass(frozen=True)
class Level:
    """A part of the tournament of :func:`starts`, on a sample of the rows."""

    rows: int  # of the sample
    heats: tuple[tuple[int, int], ...]  # (passes that a run has made at the end of a heat, most runs that go on)
    gap: float = 0.0  # relative: minima this close to the best may change places on more rows, so they go on
    tol: float = 1e-5  # gain of a pass below which a run rests


# Hard data have several minima, and about half of the starts reach the best one in the end; easy data have one, which
# the first starts show. A start tells which minimum it goes to after some 25 passes, not before; 5,000 rows and 20,000 tell
# minima apart to some 1e-3 and 4e-4. With fewer starts, passes or rows more of the fits end 2e-4 and more above scikit-learn's objective.
# Near a saddle the gain of a pass falls to some 1e-7 and grows again: that is best left behind here, where passes are cheap.
LEVELS = (
    Level(5_000, ((25, 7), (40, 6)), gap=2e-3),
    Level(20_000, ((8, 4),), gap=8e-4),
    Level(100_000, ((3, 1), (60, 1)), tol=1e-6),
)
N_STARTS = 12
SCOUTS = 3  # starts that tell whether the others are needed
SCOUT_PASSES = 12  # after which they have to agree
SAME_MINIMUM = 2e-5  # relative difference of the objective below which scouts are in one minimum
SAME_FIT = 1e-2  # ‖WH − W′H′‖² over ‖WH‖², below which two runs go to one minimum: 0.03 and more between two
COMPARED_ROWS = 256  # for that
ZERO = 1e-2  # of the mean loading, instead of 0: KL never leaves a zero, and HALS leaves it late
OVERSAMPLED = 10  # singular vectors beyond those that are wanted
MOST = 100 * LANE  # directions: more lanes numba does not take
RANK = 1e-5  # of the largest singular value, below which one is rounding


def initialise(
    X: Any, k: int, method: str, rng: np.random.Generator, loss: str = "frobenius"
) -> tuple[Array | None, Array]:
    """Initial W (n × k; None where it is best solved from H) and H (k × p)."""
    if method == "auto":
        H = starts(X, k, rng)
        return None, without_zeros(H) if loss == "kl" else H
    W, H = METHODS[method](X, k, rng)
    return W, H


def is_compiled(loss: str, k: int) -> bool:
    """Whether a factorisation of this loss and rank runs at once."""
    return _ops.is_compiled(loss, k) and _sketch.is_compiled()


def warm_up(loss: str, k: int) -> None:
    """Compile what a factorisation of this loss and rank needs, and its starts."""
    for name in {loss, "frobenius"}:
        _solver.warm_up(name, k)
    _sketch.warm_up(k, _width(k))


def _width(k: int) -> int:
    """Directions through which starts see X."""
    return min(2 * k + OVERSAMPLED, MOST)


def without_zeros(H: Array) -> Array:
    """Loadings of which none is zero."""
    return np.maximum(H, ZERO * H.mean())


def starts(
    X: Any, k: int, rng: np.random.Generator, levels: tuple[Level, ...] = LEVELS, n_starts: int = N_STARTS
) -> Array:
    """H of the best of several starts, compared on growing samples of the rows, seen through their leading directions.

    On data with one minimum the first few starts show it, and nothing more is compared.
    """
    n = X.shape[0]
    candidates: list[Array] = []
    for level in levels:
        part = part_in_memory(X, None if n <= level.rows else np.sort(rng.choice(n, level.rows, replace=False)))
        if not candidates:
            U, S, V = _sketch.leading(part, min(_width(k), *part.shape), rng)
            candidates = points(U, S, V.T, k, n_starts, rng)
        field = _sketch.sketch(part, V) if _sketch.pays(part, V.shape[1]) else part
        runs = [_Run(field, H, level.tol) for H in candidates]
        if len(runs) == n_starts > SCOUTS and _agree(runs[:SCOUTS]):
            return min(runs[:SCOUTS], key=_objective).H
        for passes, most in level.heats:
            runs = _minima([run.advance(passes) for run in runs], part, level.gap)[:most]
        candidates = [run.H for run in runs]
        if n <= level.rows:
            break
    return candidates[0]


def points(U: Array, S: Array, V: Array, k: int, n: int, rng: np.random.Generator) -> list[Array]:
    """Loadings to start from: those of NNDSVD, then the positive parts of random directions among the singular ones.

    NNDSVD's end in the best minimum in two cases of three; random ones in half of them, yet in others, and no random
    directions of all space are as near to a minimum. What the rank of the rows does not reach is random.
    """
    r = min(k, int(np.count_nonzero(RANK * S[0] < S)))  # none where the sampled rows are empty
    U, S, V = U[:, :r], S[:r], V[:r]
    if r == 0:
        return [rng.random((k, V.shape[1])) for _ in range(n)]
    first = without_zeros(_non_negative(U, S, V)[1])
    found = [np.vstack([first, rng.random((k - r, V.shape[1])) * first.mean()])]
    while len(found) < n:
        R = rng.standard_normal((k, r)) * S
        R[:, 0] = np.abs(R[:, 0]) * np.sign(V[0].sum())  # with the leading one, which has one sign
        H = np.maximum(R @ V, 0)
        norms = np.linalg.norm(H, axis=1, keepdims=True)
        found.append(without_zeros(H / np.where(norms > 0, norms, 1)))
    return found


class _Run:
    """A factorisation that can go on where it stopped; it begins when it is first asked to."""

    def __init__(self, X: Any, H: Array, tol: float) -> None:
        self.begin, self.tol = partial(_solver.begin, X, H), tol
        self.n_passes = 0
        self.settled = False

    @cached_property
    def state(self) -> _solver.State:
        return self.begin()

    @property
    def objective(self) -> float:
        """The objective after the last pass."""
        return self.state.objective

    @property
    def H(self) -> Array:
        """The loadings (k × p)."""
        return self.state.H.T

    def advance(self, n_passes: int) -> _Run:
        """Go on until ``n_passes`` are made in all, or passes no longer pay."""
        while self.n_passes < n_passes and not self.settled:
            self.settled = self.state.step(self.tol)
            self.n_passes += 1
        return self


def _agree(runs: list[_Run]) -> bool:
    """Whether runs come to one minimum soon."""
    ends = [run.advance(SCOUT_PASSES).objective for run in runs]
    return max(ends) <= (1 + SAME_MINIMUM) * min(ends)


def _minima(runs: list[_Run], X: Rows, gap: float) -> list[_Run]:
    """Of each minimum that runs go to, and that is not more than ``gap`` above the best, the run that is furthest; the best first."""
    compared = X.take(
        np.linspace(0, X.shape[0] - 1, min(COMPARED_ROWS, X.shape[0])).astype(np.int64)
    )  # of all sections
    runs = sorted((run for run in runs if np.isfinite(run.objective)), key=_objective)
    best = runs[0].objective
    found: list[_Run] = []
    fits: list[tuple[Array, Array]] = []
    for run in runs:
        if run.objective - best > gap * abs(best):
            break
        fit = _solver.solve_w(compared, run.H, max_iter=10), run.H
        own = _inner(fit, fit)
        if all(own - 2 * _inner(fit, other) + _inner(other, other) > SAME_FIT * own for other in fits):
            found.append(run)
            fits.append(fit)
    return found


def _inner(a: tuple[Array, Array], b: tuple[Array, Array]) -> float:
    """``⟨WH, W′H′⟩`` of two factorisations."""
    return float(np.vdot(a[0].T @ b[0], a[1] @ b[1].T))


def _objective(run: _Run) -> float:
    return run.objective


def random(X: Any, k: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Half-normal W and H of the scale of X, as scikit-learn's ``random``."""
    scale = np.sqrt(_ops.mean(X) / k)
    return np.abs(rng.standard_normal((X.shape[0], k))) * scale, np.abs(rng.standard_normal((k, X.shape[1]))) * scale


def nndsvd(X: Any, k: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Non-negative double SVD (Boutsidis & Gallopoulos 2008) by a randomised SVD that leaves X sparse.

    Of every singular pair the positive or the negative parts are taken, whichever carry more.
    """
    U, S, V = _sketch.leading(X, min(k + OVERSAMPLED, *X.shape), rng)
    return _non_negative(U[:, :k], S[:k], V[:, :k].T)


def _non_negative(U: Array, S: Array, V: Array) -> tuple[Array, Array]:
    U, V = U.copy(), V.copy()
    U[:, 0], V[0] = np.abs(U[:, 0]), np.abs(V[0])  # the leading pair has one sign
    W, H = np.zeros(U.shape), np.zeros(V.shape)
    for r in range(len(S)):
        sides = [(np.maximum(s * U[:, r], 0), np.maximum(s * V[r], 0)) for s in (1, -1)]
        weights = [np.linalg.norm(u) * np.linalg.norm(v) for u, v in sides]
        (u, v), weight = sides[int(np.argmax(weights))], max(weights)
        if weight > 0:
            W[:, r] = np.sqrt(S[r] * weight) * u / np.linalg.norm(u)
            H[r] = np.sqrt(S[r] * weight) * v / np.linalg.norm(v)
    return W, H


def nndsvda(X: Any, k: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """NNDSVD with the zeros filled by the mean of X."""
    W, H = nndsvd(X, k, rng)
    W[W == 0] = H[H == 0] = _ops.mean(X)
    return W, H


def nndsvdar(X: Any, k: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """NNDSVD with the zeros filled by small random values."""
    W, H = nndsvd(X, k, rng)
    for M in (W, H):
        M[M == 0] = np.abs(rng.standard_normal(int((M == 0).sum()))) * _ops.mean(X) / 100
    return W, H


METHODS: dict[str, Callable[[Any, int, np.random.Generator], tuple[Array, Array]]] = {
    "nndsvd": nndsvd,
    "nndsvda": nndsvda,
    "nndsvdar": nndsvdar,
    "random": random,
}
