"""Where a factorisation starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from . import _ops
from ._blocks import part_in_memory
from ._solver import begin

Array = np.ndarray


@dataclass(frozen=True)
class Level:
    """A part of the tournament of :func:`starts`, on a sample of the rows."""

    rows: int  # of the sample
    heats: tuple[tuple[int, int], ...]  # (passes that a run has made at the end of a heat, most runs that take part)
    gap: float = 0.0  # relative: minima this close to the best may change places on more rows, so they go on
    tol: float = 1e-5  # gain of a pass below which a run rests
    least: int = 0  # rows of the matrix from which the level takes part


# Hard data have several minima, and about half of the starts reach the best one in the end; easy data have one, which
# the first starts show. Fewer starts, passes or rows than these end 2e-4 and more above scikit-learn's objective at times.
# Near a saddle the gain of a pass falls to some 1e-7 and grows again: where a pass over all rows is dear, that is left behind on few.
LEVELS = (
    Level(5_000, ((8, 10), (25, 6), (40, 4)), gap=1.5e-3),
    Level(20_000, ((10, 4), (25, 2)), gap=3e-4),
    Level(20_000, ((80, 2),), gap=3e-4, tol=1e-7, least=200_000),
    Level(100_000, ((3, 2), (12, 1))),
)
SCOUTS = 3  # starts that tell whether the others are needed
SCOUT_PASSES = 12  # that they may take to settle, once one of them has after a heat
SAME_MINIMUM = 2e-5  # relative difference of the objective below which two runs count as one
OVERSAMPLED, POWER_STEPS = 10, 5  # of the singular vectors


def initialise(
    X: Any, k: int, method: str, rng: np.random.Generator, loss: str = "frobenius"
) -> tuple[Array | None, Array]:
    """Initial W (n × k; None where it is best solved from H) and H (k × p)."""
    if method == "auto":
        H = starts(X, k, rng)
        return None, np.maximum(H, 1e-2 * H.mean()) if loss == "kl" else H  # a zero is for ever under KL
    W, H = METHODS[method](X, k, rng)
    return W, H


def starts(X: Any, k: int, rng: np.random.Generator, levels: tuple[Level, ...] = LEVELS) -> Array:
    """H of the best of several random starts, compared on growing samples of the rows.

    On data with one minimum the first few starts show it, and nothing more is compared.
    """
    n, p = X.shape
    candidates = [rng.random((k, p)) for _ in range(levels[0].heats[0][1])]
    for level in (level for level in levels if n >= level.least):
        spares_passes = n >= 2 * level.rows
        if len(candidates) == 1 and not spares_passes:
            break
        part = part_in_memory(X, None if n <= level.rows else np.sort(rng.choice(n, level.rows, replace=False)))
        agreed, runs = _race(part, candidates, level.heats if spares_passes else level.heats[:1], level.tol)
        candidates = [run.state.H.T for run in _minima(runs, level.gap)]
        if agreed:
            break
    return candidates[0]


class _Run:
    """A factorisation that can go on where it stopped."""

    def __init__(self, X: Any, H: Array, tol: float) -> None:
        self.state, self.tol = begin(X, H), tol
        self.trace = [self.objective]
        self.converged = False

    @property
    def objective(self) -> float:
        """The objective after the last pass."""
        return self.state.objective

    def advance(self, n_passes: int) -> _Run:
        """Go on until ``n_passes`` are made in all, or passes no longer pay."""
        while len(self.trace) <= n_passes and not self.converged:
            self.converged = self.state.step(self.tol)
            self.trace.append(self.objective)
        return self

    def after(self, n_passes: int) -> float:
        """The objective after so many passes, or at the end where it came before."""
        return self.trace[: n_passes + 1][-1]


def _race(X: Any, candidates: list[Array], heats: tuple[tuple[int, int], ...], tol: float) -> tuple[bool, list[_Run]]:
    """Whether the first starts agreed, so that the others did not run; and the runs that are left, the best first."""
    runs = [_Run(X, H, tol) for H in candidates[:SCOUTS]]
    if len(candidates) > SCOUTS:
        settled = [run.advance(heats[0][0]).converged for run in runs]
        ends = [run.advance(SCOUT_PASSES if any(settled) else 0).objective for run in runs]
        if max(ends) <= (1 + SAME_MINIMUM) * min(ends):
            return True, sorted(runs, key=_objective)
    runs += [_Run(X, H, tol) for H in candidates[SCOUTS:]]
    made = 0
    for passes, most in heats:  # all are judged after the same number of passes
        runs = [run.advance(passes) for run in sorted(runs, key=partial(_Run.after, n_passes=made))[:most]]
        made = passes
    return False, sorted(runs, key=_objective)


def _minima(runs: list[_Run], gap: float) -> list[_Run]:
    """Of runs in order, one for each minimum that is not more than ``gap`` above the best."""
    found = runs[:1]
    for run in runs[1:]:
        if (1 + SAME_MINIMUM) * found[-1].objective < run.objective <= (1 + gap) * found[0].objective:
            found.append(run)
    return found


def _objective(run: _Run) -> float:
    return run.objective


def random(X: Any, k: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Half-normal W and H of the scale of X, as scikit-learn's ``random``."""
    scale = np.sqrt(_ops.mean(X) / k)
    return np.abs(rng.standard_normal((X.shape[0], k))) * scale, np.abs(rng.standard_normal((k, X.shape[1]))) * scale


def singular(X: Any, k: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """The k leading singular triplets by subspace iteration (Halko et al. 2011): every step reads X twice and leaves it sparse."""
    width = min(k + OVERSAMPLED, *X.shape)
    Q = _ops.product(X, rng.standard_normal((X.shape[1], width)).astype(np.float32))
    for _ in range(POWER_STEPS):
        Q = _ops.product(X, _basis(_ops.transposed_product(X, _basis(Q))))
    Q = _basis(Q)
    U, S, Vt = np.linalg.svd(_ops.transposed_product(X, Q).T.astype(np.float64), full_matrices=False)
    return (Q @ U)[:, :k], S[:k], Vt[:k]


def _basis(M: Array) -> Array:
    return np.linalg.qr(M)[0]


def nndsvd(X: Any, k: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Non-negative double SVD (Boutsidis & Gallopoulos 2008) by a randomised SVD that leaves X sparse.

    Of every singular pair the positive or the negative parts are taken, whichever carry more.
    """
    U, S, V = singular(X, k, rng)
    U[:, 0], V[0] = np.abs(U[:, 0]), np.abs(V[0])  # the leading pair has one sign
    W, H = np.zeros(U.shape), np.zeros(V.shape)
    for r in range(k):
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
