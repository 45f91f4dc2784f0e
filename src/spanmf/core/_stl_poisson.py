"""Shares of the counts by expectation–maximisation; factors of genes, and profiles mended by the section."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _ops
from ._blocks import Blocks, part_in_memory
from ._ops import TINY, Rows
from ._simd import padded
from ._stl_device import counts_on
from ._stl_em import Pass, deviances, em_pass
from ._stl_intervals import Counted, of_counts
from ._stl_model import Fit, Options, Progress, scaled_shares
from ._stl_prior import Smoother
from ._stl_reference import shrunk_sizes

Array = np.ndarray
PLATFORM_SD = 0.5  # robust sd of log(section / fit) over genes from which genes get factors of their own
PLATFORM_COUNTS = 300.0  # a gene's factor is drawn to one by so many counts
EXPRESSED = 100.0  # counts of a gene in the section from which it helps to tell whether there are such factors
MENDING_TOL = 0.03  # of the tolerance: profiles move long after the objective seems to rest
LEARNING_SPOTS = 4000  # spots that mend the profiles
OVER_RELAXATION = 1.7  # of the profiles' logarithms: halves the passes
ROUNDS = 5  # of platform factors


class Poisson:
    """Shares V (n × width) by EM for given profiles Q (k × p), and Q itself."""

    def __init__(
        self,
        X: Rows | Blocks,
        profiles: Array,
        B: Array,
        n_cells: Array | None,
        smoother: Smoother,
        options: Options,
        rng: np.random.Generator,
    ) -> None:
        n = X.shape[0]
        self.X: Any = part_in_memory(X, None) if n <= LEARNING_SPOTS else X
        self.depth, self.entropy = totals(self.X)
        self.valid = self.depth > 0
        self.P0, self.B, self.n_cells = profiles, B, n_cells
        self.k, self.p = profiles.shape
        self.smoother, self.options = smoother, options
        self.platform: Array | None = None
        self.set_platform(None)
        self.sample = np.arange(n) if n <= LEARNING_SPOTS else np.sort(rng.choice(n, LEARNING_SPOTS, replace=False))
        self.few: Any = self.X if n <= LEARNING_SPOTS else self.X.take(self.sample)
        self.few_smoother = smoother if n <= LEARNING_SPOTS else smoother.take(self.sample)
        self.few_V = self.start(self.few)
        self.trace: list[float] = []

    def set_platform(self, factors: Array | None) -> None:
        """Put factors of the genes into the reference's profiles; ``rate`` is what is left of a whole profile."""
        self.platform = factors
        E = self.P0 if factors is None else self.P0 * factors
        self.rate = E.sum(1)
        self.Q0 = E / self.rate[:, None]
        self.Q = self.Q0

    def start(self, X: Rows | Blocks) -> Array:
        """Weighted least squares, kept off the faces of the simplex, which EM cannot leave."""
        mean = np.maximum(self.Q.mean(0), 1e-12)
        W = np.zeros((X.shape[0], padded(self.k)), np.float32)
        gram = (self.Q / mean) @ self.Q.T
        _ops.hals_pass(X, _ops.pad((self.Q / mean).T), W, W, self.k, gram=gram, sweeps=12, statistics=False)
        W[:, : self.k] += np.float32(0.02 / self.k) * W.sum(1, keepdims=True) + TINY
        W /= W.sum(1, keepdims=True)
        return W

    def dispersion(self, passes: int = 5) -> float:
        """Pearson dispersion, after some passes, where more than one count is expected."""
        V = self.few_V
        for _ in range(passes):
            V = em_pass(self.few, self.Q, V, statistics=False).V
        rows = np.flatnonzero(self.valid[self.sample])[:1000]
        x = self.few.as_scipy()[rows].toarray()
        mu = self.depth[self.sample][rows, None] * (V[rows, : self.k].astype(np.float64) @ self.Q)
        seen = mu > 1
        return float(np.mean((x[seen] - mu[seen]) ** 2 / mu[seen])) if seen.any() else 1.0

    def find_platform(self) -> None:
        """Give genes factors of their own where the section as a whole departs from its fit by far."""
        wanted = self.options.platform
        if wanted is False:
            return
        total = np.bincount(self.few.indices, weights=self.few.data, minlength=self.p)
        valid = self.valid[self.sample]
        for i in range(ROUNDS):
            for _ in range(4):
                self.few_V = self.pass_over(self.few, self.few_V, self.few_smoother, valid).V
            fitted = self.depth[self.sample] @ self.few_V[:, : self.k].astype(np.float64) @ self.Q0
            if self.platform is not None:
                fitted = fitted / self.platform
            fitted *= total.sum() / fitted.sum()
            if i == 0 and wanted == "auto" and not departs(total, fitted):
                return
            self.set_platform((total + PLATFORM_COUNTS) / (fitted + PLATFORM_COUNTS))

    def pass_over(self, X: Rows, V: Array, smoother: Smoother, valid: Array, *, statistics: bool = False) -> Pass:
        """One pass of EM with the surroundings as they are now."""
        prior, weight = smoother.mean(V, valid)
        return em_pass(X, self.Q, V, prior, weight, statistics=statistics)

    def mend_profiles(self, progress: Progress | None) -> None:
        """Alternate shares and profiles on the learning spots until F settles."""
        weight = self.options.reference_weight
        if self.n_cells is None or not np.isfinite(weight):
            return
        strength = np.maximum(weight * self.B.sum(1) * self.n_cells * self.P0.sum(1), 1e-3)
        # else the type of fewest cells becomes a sink for what the reference lacks (20 % found of a type of 4 % with 6 cells)
        strength = np.maximum(strength, np.median(strength))
        valid = self.valid[self.sample]
        constant = _ops.entropy(self.few) + _depth_terms(self.depth[self.sample])
        anchor = float((strength[:, None] * self.Q0 * np.log(np.maximum(self.Q0, TINY))).sum())
        eta, best, kept = OVER_RELAXATION, np.inf, self.Q
        for i in range(self.options.max_iter):
            done = self.pass_over(self.few, self.few_V, self.few_smoother, valid, statistics=True)
            prior = anchor - float((strength[:, None] * self.Q0 * np.log(np.maximum(self.Q, TINY))).sum())
            value = constant - done.log_likelihood + done.prior + prior
            if value > best and eta > 1:  # the step was too long: back, and plain steps from here
                self.Q, eta = kept, 1.0
                continue
            self.trace.append(value)
            if progress is not None:
                progress(i + 1, value)
            gain, best = best - value, value
            self.few_V = done.V
            if abs(gain) <= MENDING_TOL * self.options.tol * abs(value):
                break
            counts = self.Q * done.sums.T
            plain = strength[:, None] * self.Q0 + counts
            plain /= plain.sum(1, keepdims=True)
            kept = plain
            longer = self.Q * (plain / np.maximum(self.Q, TINY)) ** eta if eta > 1 else plain
            self.Q = longer / longer.sum(1, keepdims=True)

    def finish(self, dispersion: float, progress: Progress | None) -> Fit:
        """Shares of all spots for the profiles as they are now."""
        X, valid = self.X, self.valid
        V = self.few_V if self.few is X else self.start(X)
        constant = self.entropy + _depth_terms(self.depth)
        there = counts_on(X, self.options.device)
        trace, converged = [], False
        for i in range(self.options.max_iter):
            done = self.pass_over(there, V, self.smoother, valid)
            V = done.V
            trace.append(constant - done.log_likelihood + done.prior)
            if progress is not None:
                progress(len(self.trace) + i + 1, trace[-1])
            if i and abs(trace[-2] - trace[-1]) <= self.options.tol * abs(trace[-1]):
                converged = True
                break
        sizes = shrunk_sizes(self.B, self.n_cells)
        mrna = scaled_shares(V[:, : self.k], 1 / self.rate, valid)
        cells = scaled_shares(V[:, : self.k], 1 / (self.rate * sizes), valid)
        spot, gene = deviances(X, self.depth, self.Q, V)
        lower = upper = None
        if self.options.level is not None:
            self.few_V = V[self.sample]
            lower, upper = self.bounds(V, max(1.0, self.dispersion(0)), self.rate * sizes, self.options.level)
        return Fit(
            cells=cells, mrna=mrna, trace=np.array(trace), mending=np.array(self.trace),
            converged=converged, likelihood="poisson", dispersion=dispersion, platform=self.platform, profiles=self.Q,
            sizes=sizes, depth=self.depth, spot_deviance=spot / np.where(valid, self.depth, np.nan), gene_deviance=gene,
            lower=lower, upper=upper,
        )  # fmt: skip

    def bounds(self, V: Array, dispersion: float, rates: Array, level: float) -> tuple[Array, Array]:
        """Lower and upper bounds of the shares of the cells."""
        prior, weight = self.smoother.mean(V, self.valid)
        known = Counted(self.Q.T.copy(), dispersion, rates, level)
        out = of_counts(self.X, known, V, self.depth, prior, weight)
        out[:, ~self.valid] = np.nan
        return out[0], out[1]


def departs(total: Array, fitted: Array) -> bool:
    """Whether the logarithms of (counts of the section / fit) of the expressed genes spread by far more than errors do."""
    expressed = (total > EXPRESSED) & (fitted > 0)
    if expressed.sum() < 50:
        return False
    log = np.log(total[expressed] / fitted[expressed])
    return bool(1.4826 * np.median(np.abs(log - np.median(log))) > PLATFORM_SD)


def totals(X: Rows | Blocks) -> tuple[Array, float]:
    """Depth of every spot, and ``Σ x log x − x``."""
    if not isinstance(X, Blocks):
        return _ops.row_sums(X), _ops.entropy(X)
    parts = X.each(totals)
    return np.concatenate([depth for depth, _ in parts]), sum(entropy for _, entropy in parts)


def _depth_terms(depth: Array) -> float:
    """What makes of the above ``Σ x log(x / N)``, which a perfect fit would reach."""
    depth = depth[depth > 0]
    return float(depth.sum()) - float((depth * np.log(depth)).sum())
