r"""Sections made anew of what was found in a section, with the noise that its own residuals have.

What is fitted by least squares has less noise than counting makes: values that were generated, averaged, smoothed, cut to whole
numbers. Their residuals tell how much: about the means :math:`\mu` of a fit the variance is :math:`s^2 + \varphi\mu` (non-negative least
squares over parts of the values with equal sums of :math:`\mu`), and values are drawn from a lognormal distribution of that mean and
variance. Whole numbers were cut, rounded or counted, whichever makes sections whose genes have totals like those there are.

A cut is no noise but a bias: a type of which every gene is expected less than once leaves nothing. So the shares that were found are no
truth to make sections of; the abundances A are, from which a made section gives back those that were found,
:math:`A \leftarrow \max(A + \hat A - \hat A(A), 0)`, three times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy.optimize import nnls

Array = np.ndarray
SPOTS = 1000  # of the section, that are made anew
MADE = 3000  # spots that are made in all, or more
TIMES = (2, 8)  # each spot, at least and at most
STEPS = 3  # towards the shares that give back those that were found
ROWS = 128  # of a made section that are dense at a time
TELLING = 200  # spots whose residuals tell the noise
PARTS = 20  # of the values, by their means
ADDED: dict[str, Callable[[np.random.Generator, tuple[int, ...]], float | Array]] = {  # before whole numbers are cut
    "cut": lambda rng, shape: 0.0,
    "rounded": lambda rng, shape: 0.5,
    "counted": lambda rng, shape: rng.random(shape),  # so that the mean is kept
}


@dataclass(frozen=True)
class Noise:
    """Variance ``constant + slope · μ``; how values became whole numbers (``None``: they are not whole)."""

    constant: float
    slope: float
    whole: str | None = None

    @classmethod
    def of(cls, x: Array, mean: Array, *, whole: bool) -> Noise:
        """Variance by the residuals of values about the means of a fit."""
        used = mean > (1 if whole else 0)
        mean, residual = mean[used], (x - mean)[used]
        if not len(mean):
            return cls(0.0, 0.0)
        order = np.argsort(mean)
        reached = np.cumsum(mean[order])
        part = np.empty(len(mean), np.int64)
        part[order] = np.minimum(PARTS * reached / reached[-1], PARTS - 1)
        size = np.bincount(part)
        kept = size > 0
        size = size[kept]
        centre, first, second = (np.bincount(part, v)[kept] / size for v in (mean, residual, residual**2))
        variance = second - first**2 - (1 / 12 if whole else 0)
        weight = np.sqrt(size) / centre
        terms = np.stack([np.ones_like(centre), centre], axis=1)
        (constant, slope), _ = nnls(terms * weight[:, None], np.maximum(variance, 0) * weight)
        return cls(float(constant), float(slope))

    def values(self, mean: Array, rng: np.random.Generator) -> Array:
        """Values with these means."""
        variance = self.constant + self.slope * mean
        log_variance = np.log1p(np.divide(variance, mean**2, out=np.zeros(mean.shape), where=mean > 0))
        out = mean * np.exp(np.sqrt(log_variance) * rng.standard_normal(mean.shape) - log_variance / 2)
        return out if self.whole is None else np.floor(out + ADDED[self.whole](rng, out.shape))


@dataclass(frozen=True)
class Section:
    """Values X (n × p), profiles B (k × p), and what finds shares (n × k) in any such values."""

    X: sp.csr_matrix
    B: Array
    fit: Callable[[sp.csr_matrix], Array]

    def make(self, A: Array, noise: Noise, rng: np.random.Generator) -> sp.csr_matrix:
        """Values of spots that hold A."""
        few = (A[start : start + ROWS] for start in range(0, len(A), ROWS))
        parts = [sp.csr_matrix(noise.values(rows @ self.B, rng).astype(np.float32)) for rows in few]
        return sp.csr_matrix(sp.vstack(parts))

    def behind(self, found: Array, noise: Noise, rng: np.random.Generator) -> tuple[Array, float]:
        """Abundances from which made sections give back those that were found, and how far the genes' totals are off."""
        A = found
        for _ in range(STEPS):
            made = self.make(A, noise, rng)
            A = np.maximum(A + found - abundances(made, self.B, self.fit(made)), 0)
        made, there = (np.asarray(X.sum(0)).ravel() for X in (self.make(A, noise, rng), self.X))
        return A, float(((made - there) ** 2 / np.maximum(made + there, 1)).sum())

    def errors(self, shares: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Shares found in sections that are made like this one, of which ``shares`` were found; their truth; the spots' sums."""
        found = abundances(self.X, self.B, shares)
        few = np.sort(rng.permutation(len(found))[:TELLING])
        whole = bool((self.X.data == np.round(self.X.data)).all())
        noise = Noise.of(self.X[few].toarray().ravel(), (found[few] @ self.B).ravel(), whole=whole)
        trials = [replace(noise, whole=how) for how in (ADDED if whole else (None,))]
        behind = [self.behind(found, trial, rng) for trial in trials]
        best = int(np.argmin([apart for _, apart in behind]))
        noise, A = trials[best], behind[best][0]
        held = A.sum(1) > 0
        truth = A / np.where(held, A.sum(1), 1)[:, None]
        parts = []
        for _ in range(int(np.clip(-(-MADE // len(A)), *TIMES))):
            made = self.make(A, noise, rng)
            depth = np.asarray(made.sum(1)).ravel()
            rows = held & (depth > 0)
            parts.append((self.fit(made)[rows], truth[rows], depth[rows]))
        again, truth, depth = (np.concatenate(part) for part in zip(*parts, strict=True))
        return again, truth, depth


def abundances(X: sp.csr_matrix, B: Array, shares: Array) -> Array:
    """Shares of the cells (n × k; NaN counts as zero) times the number of cells that fits X best by least squares."""
    v = np.nan_to_num(shares).astype(np.float64)
    fitted = ((v @ (B @ B.T)) * v).sum(1)
    depth = np.divide(((X @ B.T) * v).sum(1), fitted, out=np.zeros(len(v)), where=fitted > 0)
    return np.maximum(depth, 0)[:, None] * v
