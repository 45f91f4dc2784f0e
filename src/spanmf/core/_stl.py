r"""Deconvolution of spots by reference profiles: what share each cell type has of the counts of each spot.

Let :math:`x_i` be the counts of spot i (depth :math:`N_i`), :math:`q_k` the profile of type k on the genes in use (sums to
one), :math:`\pi_i` the shares of the types in the spot's counts and :math:`m_i` the mean of :math:`\pi` over the spot's
neighbours in the graph (and, if wanted, over its region).

Poisson: counts given their depth are multinomial, so that the depth drops out and the simplex is exact,

.. math:: F = \sum_i N_i\,\mathrm{KL}\Bigl(\tfrac{x_i}{N_i}\,\Big\|\,\sum_k\pi_{ik}q_k\Bigr)
          + a\sum_i\mathrm{KL}(m_i\,\|\,\pi_i) + \sum_k s_k\,\mathrm{KL}(q^0_k\,\|\,q_k),

by expectation–maximisation: with :math:`c_{ik}` the counts of spot i that fall to type k,
:math:`\pi_{ik} = (c_{ik} + a\,m_{ik}) / (N_i + a)`: the graph gives *a* pseudo-counts. The last term lets the section mend
profiles that come from few cells: :math:`q_{kj} = (s_k q^0_{kj} + c_{kj})/(s_k + c_k)`, with :math:`s_k` the counts on which the
reference profile stands (times ``reference_weight``; at least the median over the types). For fixed m no step raises F; m follows :math:`\pi` from pass to
pass, as in empirical Bayes.

Gaussian, for data whose residuals are smaller than counting would make them:
:math:`\tfrac12\|X-VB\|_F^2 + \tfrac12\sum_i w_i\|v_i - d_i m_i\|^2` by coordinate descent on the Gram matrix, with depth
:math:`d_i=\sum_k v_{ik}` and :math:`w_i = a k\,s^2/d_i^2`, :math:`s^2` the mean squared residual: without noise the graph has no say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import njit, prange
from scipy.stats import norm

from . import _ops
from ._ops import FLUSH, TINY, Rows, _flush, _sum_x_log, cached, threads_for
from ._simd import FAST, LANE, dots, gather, make_lanes, padded, scatter
from ._smooth import Graph, as_graph, graph_product

Array = np.ndarray
Progress = Callable[[int, float], None]
LIKELIHOODS = ("auto", "poisson", "gaussian")
SHRINKAGE = 100.0  # counts of the mean profile that every profile is mixed with
SIZE_VARIANCE = 0.3  # of the log mRNA content of the cells of a type: a tenfold range holds all but a few of them
UNDER_DISPERSED = 0.75  # Pearson dispersion below which residuals are too small for counts
PLATFORM_SD = 0.5  # robust sd of log(section / fit) over genes from which genes get factors of their own
PLATFORM_COUNTS = 300.0  # a gene's factor is drawn to one by so many counts
EXPRESSED = 100.0  # counts of a gene in the section from which it helps to tell whether there are such factors
MENDING_TOL = 0.03  # of the tolerance: profiles move long after the objective seems to rest
LEARNING_SPOTS = 4000  # spots that mend the profiles
FREE = 1e-3  # share above which a type counts as present, not as held at zero
APART = 128  # float32 between rows of scratch memory
LONGEST = np.float32(16)  # extrapolation of the shares, in steps of EM
OVER_RELAXATION = 1.7  # of the profiles' logarithms: halves the passes
ROUNDS = 5  # of platform factors


@dataclass(frozen=True)
class Reference:
    """Mean counts of a cell of every type (k × p) and how many cells each mean comes from (``None``: not known)."""

    B: Array
    n_cells: Array | None = None


@dataclass(frozen=True)
class Options:
    """What the user may choose."""

    likelihood: str = "auto"
    n_genes: int | None = 3000
    graph_weight: float = 10.0
    region_weight: float = 0.0
    reference_weight: float = 2.0
    platform: bool | str = "auto"
    max_iter: int = 300
    tol: float = 1e-4
    level: float | None = None  # of intervals


DEFAULTS = Options()


@dataclass(frozen=True)
class Fit:
    """The result: rows of ``cells`` and ``mrna`` sum to one, or are NaN where a spot has no counts."""

    cells: Array  # n × k, float32: shares of the cells
    mrna: Array  # n × k, float32: shares of the mRNA
    trace: Array  # F of all spots, pass by pass
    mending: Array  # F of the learning spots while the profiles were mended
    converged: bool
    likelihood: str
    dispersion: float
    genes: Array  # columns in use
    platform: Array | None  # factors of the genes in use
    profiles: Array  # k × genes in use: shares of the counts, as the section has mended them
    sizes: Array  # mRNA content of the types, as used
    spot_deviance: Array  # a count
    gene_deviance: Array
    lower: Array | None = None  # n × k, float32: bounds of ``cells``
    upper: Array | None = None
    n_iter: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_iter", len(self.trace) + len(self.mending))


def fit(
    X: Any,
    reference: Reference,
    *,
    graph: Any = None,
    regions: Array | None = None,
    options: Options = DEFAULTS,
    rng: np.random.Generator | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Deconvolve the spots of X (n × p, counts) by a reference (k × p); ``regions`` are codes, −1 where unknown."""
    rng = np.random.default_rng(0) if rng is None else rng
    X = sp.csr_matrix(X, dtype=np.float32)
    if not X.data.all():
        X = X.copy()
        X.eliminate_zeros()
    n_cells = None if reference.n_cells is None else np.asarray(reference.n_cells, dtype=np.float64)
    B = np.asarray(reference.B, dtype=np.float64)
    smoother = Smoother.of(graph, regions, len(B), options)
    likelihood, dispersion = options.likelihood, np.nan
    profiles = shrunk_profiles(B, n_cells)
    genes = informative(X, profiles, options.n_genes)
    problem = _Poisson(
        X if len(genes) == X.shape[1] else X[:, genes], profiles[:, genes], B, n_cells, smoother, options, rng
    )
    if likelihood == "auto":
        dispersion = problem.dispersion()
        likelihood = "gaussian" if dispersion < UNDER_DISPERSED else "poisson"
    if likelihood == "gaussian":
        return _gaussian(X, B, n_cells, smoother, options, dispersion, progress)
    problem.find_platform()
    problem.mend_profiles(progress)
    return problem.finish(genes, dispersion, progress)


# --- the reference ----------------------------------------------------------------------------------------------------


def shrunk_profiles(B: Array, n_cells: Array | None) -> Array:
    """Profiles (rows sum to one), each mixed with ``SHRINKAGE`` counts of the mean profile of all types."""
    size = B.sum(1)
    P = B / size[:, None]
    counts = size * (1e4 if n_cells is None else n_cells)
    mixed = P * counts[:, None] + SHRINKAGE * P.mean(0)
    return mixed / (counts + SHRINKAGE)[:, None]


def shrunk_sizes(B: Array, n_cells: Array | None) -> Array:
    """The mRNA content of the types, its logarithm drawn to the common mean where it comes from few cells."""
    size = B.sum(1)
    if n_cells is None or len(size) < 2:
        return size
    log, noise = np.log(size), SIZE_VARIANCE / n_cells
    weight = 1 / (noise + 0.1)
    mean = np.average(log, weights=weight)
    between = max(np.average((log - mean) ** 2 - noise, weights=weight), 0.02)
    return np.exp((log * between + mean * noise) / (between + noise))


def informative(X: sp.csr_matrix, profiles: Array, n_genes: int | None) -> Array:
    """Columns with the most information: variance between the types over the mean, which is the noise of a count."""
    mean = profiles.mean(0)
    score = ((profiles - mean) ** 2).sum(0) / np.maximum(mean, 1e-30) if len(profiles) > 1 else mean.copy()
    score[np.bincount(X.indices, minlength=X.shape[1]) == 0] = 0
    found = int((score > 0).sum())
    return np.sort(np.argsort(-score, kind="stable")[: found if n_genes is None else min(n_genes, found)])


# --- place and region -------------------------------------------------------------------------------------------------


def weaken_borders(A: sp.csr_matrix, regions: Array, factor: float) -> sp.csr_matrix:
    """A copy of a graph, its edges between different known regions times ``factor``."""
    A = A.copy()
    rows = np.repeat(regions, np.diff(A.indptr))
    columns = regions[A.indices]
    A.data[(rows != columns) & (rows >= 0) & (columns >= 0)] *= np.float32(factor)
    return A


@dataclass(frozen=True)
class Smoother:
    """What the surroundings say of a spot: mean shares of its neighbours and of its region, and their pseudo-counts."""

    graph: Graph | None
    regions: Array | None
    graph_weight: float
    region_weight: float

    @classmethod
    def of(cls, graph: Any, regions: Array | None, k: int, options: Options) -> Smoother:
        """Leave out what has no weight."""
        return cls(
            as_graph(graph) if graph is not None and options.graph_weight > 0 else None,
            regions if options.region_weight > 0 else None,
            options.graph_weight,
            options.region_weight,
        )

    def take(self, rows: Array) -> Smoother:
        """For some spots only: place is lost, so their regions (or all spots) stand in for it."""
        regions = np.zeros(len(rows), np.int64) if self.regions is None else self.regions[rows]
        total = self.graph_weight * (self.graph is not None) + self.region_weight * (self.regions is not None)
        return Smoother(None, regions, 0.0, total)

    def mean(self, V: Array, valid: Array) -> tuple[Array, Array]:
        """Prior means (n × width, rows sum to one or are zero) and pseudo-counts (n) from shares V."""
        out = np.zeros_like(V)
        weight = np.zeros(len(V), np.float32)
        if self.graph is not None:
            mean = graph_product(self.graph, V * valid[:, None])
            out, weight = _add_mean(out, weight, mean, self.graph_weight)
        if self.regions is not None and self.region_weight > 0:
            known = (self.regions >= 0) & valid
            sums = np.zeros((int(self.regions.max(initial=0)) + 1, V.shape[1]), np.float32)
            np.add.at(sums, self.regions[known], V[known])
            mean = np.where((self.regions >= 0)[:, None], sums[np.maximum(self.regions, 0)], np.float32(0))
            out, weight = _add_mean(out, weight, mean, self.region_weight)
        total = np.where(weight > 0, weight, 1)
        return out / total[:, None], weight


def _add_mean(out: Array, weight: Array, sums: Array, pseudo: float) -> tuple[Array, Array]:
    total = sums.sum(1)
    share = np.where(total > 0, np.float32(pseudo), np.float32(0))
    return out + sums * (share / np.where(total > 0, total, 1))[:, None], weight + share


# --- Poisson ----------------------------------------------------------------------------------------------------------


class _Poisson:
    """Shares V (n × width) by EM for given profiles Q (k × p), and Q itself."""

    def __init__(
        self,
        X: sp.csr_matrix,
        profiles: Array,
        B: Array,
        n_cells: Array | None,
        smoother: Smoother,
        options: Options,
        rng: np.random.Generator,
    ) -> None:
        self.X = _ops.as_rows(X)
        self.depth = _ops.row_sums(self.X)
        self.valid = self.depth > 0
        self.P0, self.B, self.n_cells = profiles, B, n_cells
        self.k, self.p = profiles.shape
        self.smoother, self.options = smoother, options
        self.platform: Array | None = None
        self.set_platform(None)
        n = len(self.depth)
        self.sample = np.arange(n) if n <= LEARNING_SPOTS else np.sort(rng.choice(n, LEARNING_SPOTS, replace=False))
        self.few = self.X if n <= LEARNING_SPOTS else self.X.take(self.sample)
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

    def start(self, X: Rows) -> Array:
        """Weighted least squares, kept off the faces of the simplex, which EM cannot leave."""
        mean = np.maximum(self.Q.mean(0), 1e-12)
        W = _ops.pad(np.zeros((X.shape[0], self.k), np.float32))
        gram = (self.Q / mean) @ self.Q.T
        _ops.hals_pass(X, _ops.pad((self.Q / mean).T), W, W, self.k, gram=gram, sweeps=12, statistics=False)
        W[:, : self.k] += np.float32(0.02 / self.k) * W.sum(1, keepdims=True) + TINY
        return W / W.sum(1, keepdims=True)

    def dispersion(self, passes: int = 5) -> float:
        """Pearson dispersion, after some passes, where more than one count is expected."""
        V = self.few_V
        for _ in range(passes):
            V = em_pass(self.few, self.Q, V, statistics=False).V
        rows = np.flatnonzero(self.valid[self.sample])[:1000]
        x = sp.csr_matrix((self.few.data, self.few.indices, self.few.indptr), shape=self.few.shape)[rows].toarray()
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
        constant = _depth_entropy(self.few, self.depth[self.sample])
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

    def finish(self, genes: Array, dispersion: float, progress: Progress | None) -> Fit:
        """Shares of all spots for the profiles as they are now."""
        X, valid = self.X, self.valid
        V = self.few_V if self.few is X else self.start(X)
        constant = _depth_entropy(X, self.depth)
        trace, converged = [], False
        for i in range(self.options.max_iter):
            done = self.pass_over(X, V, self.smoother, valid)
            V = done.V
            trace.append(constant - done.log_likelihood + done.prior)
            if progress is not None:
                progress(len(self.trace) + i + 1, trace[-1])
            if i and abs(trace[-2] - trace[-1]) <= self.options.tol * abs(trace[-1]):
                converged = True
                break
        sizes = shrunk_sizes(self.B, self.n_cells)
        shares = V[:, : self.k].astype(np.float64)
        shares[~valid] = np.nan
        mrna = shares / self.rate
        cells = mrna / sizes
        spot, gene = deviances(X, self.depth, self.Q, V)
        lower = upper = None
        if self.options.level is not None:
            self.few_V = V[self.sample]
            lower, upper = self.bounds(V, max(1.0, self.dispersion(0)), self.rate * sizes, self.options.level)
        return Fit(
            cells=_rows_to_one(cells), mrna=_rows_to_one(mrna), trace=np.array(trace), mending=np.array(self.trace),
            converged=converged, likelihood="poisson", dispersion=dispersion, genes=genes, platform=self.platform, profiles=self.Q,
            sizes=sizes, spot_deviance=spot / np.where(valid, self.depth, np.nan), gene_deviance=gene,
            lower=lower, upper=upper,
        )  # fmt: skip

    def bounds(self, V: Array, dispersion: float, rates: Array, level: float) -> tuple[Array, Array]:
        """Lower and upper bounds of the shares of the cells, 1,024 spots at a time."""
        prior, weight = self.smoother.mean(V, self.valid)
        out = np.full((2, len(V), self.k), np.nan, np.float32)
        for start in range(0, len(V), 1024):
            rows = slice(start, min(start + 1024, len(V)))
            depth = self.depth[rows, None]
            pseudo = (weight[rows, None] * prior[rows, : self.k]).astype(np.float64)
            v = V[rows, : self.k].astype(np.float64) * (depth + (depth == 0))
            hessian = np.zeros((len(v), self.k, self.k))
            pulled = np.zeros((len(v), self.k))
            _curvature(
                self.X.indptr[rows.start : rows.stop + 1],
                self.X.indices,
                self.X.data,
                self.Q.T.copy(),
                v,
                hessian,
                pulled,
            )
            diagonal = np.arange(self.k)
            hessian[:, diagonal, diagonal] += pseudo / np.maximum(v, 1e-6) ** 2
            gradient = np.maximum(1 - pulled, 0)
            out[:, rows] = _bounds(v, hessian, gradient, dispersion, rates, level)
        out[:, ~self.valid] = np.nan
        return out[0], out[1]


def departs(total: Array, fitted: Array) -> bool:
    """Whether the logarithms of (counts of the section / fit) of the expressed genes spread by far more than errors do."""
    expressed = (total > EXPRESSED) & (fitted > 0)
    if expressed.sum() < 50:
        return False
    log = np.log(total[expressed] / fitted[expressed])
    return bool(1.4826 * np.median(np.abs(log - np.median(log))) > PLATFORM_SD)


def _rows_to_one(V: Array) -> Array:
    return (V / V.sum(1, keepdims=True)).astype(np.float32)


def _depth_entropy(X: Rows, depth: Array) -> float:
    """``Σ x log(x / N)``: what a perfect fit would reach."""
    depth = depth[depth > 0]
    return _ops.entropy(X) + float(depth.sum()) - float((depth * np.log(depth)).sum())


@dataclass(frozen=True)
class Pass:
    """What one pass leaves: new shares, ``Σ x log(VQ)``, ``Σ a KL(m‖π)`` and ``(X / VQ)ᵀV`` (p × k)."""

    V: Array
    log_likelihood: float
    prior: float
    sums: Array


def em_pass(
    X: Rows,
    Q: Array,
    V: Array,
    prior: Array | None = None,
    weight: Array | None = None,
    *,
    statistics: bool = True,
) -> Pass:
    """Improve every row of V (n × width) for fixed Q (k × p) and prior means, then add up the statistics.

    Two steps of EM, an extrapolation and a third step (Varadhan & Roland 2008); where that falls behind, three plain steps.
    """
    n, width = V.shape
    k, p = Q.shape
    nb = _ops.n_blocks(n, p, k)
    sums = np.zeros((nb, p, k) if statistics else (nb, 0, 0))
    log_term, prior_term = np.zeros(nb), np.zeros(nb)
    none = np.zeros((0, width), np.float32)
    out = np.empty_like(V)
    longest = int(np.diff(X.indptr).max(initial=0))
    with threads_for(len(X.data)):
        _em_blocks(
            X.indptr, X.indices, X.data, _ops.pad(Q.T), none if prior is None else prior.astype(np.float32),
            none[:, 0] if weight is None else weight.astype(np.float32), V, out, k, longest, sums, log_term,
            prior_term, make_lanes(width),
        )  # fmt: skip
    return Pass(out, float(log_term.sum()), float(prior_term.sum()), sums.sum(0))


@njit(cache=True, fastmath=set(FAST), error_model="numpy")
def _em_step(v, x, column, Qt, ratio, numerator, prior, i, a, depth, lanes):
    """One step of EM of a row; ``ratio`` is left as x over the fit before the step."""
    m = len(x)
    dots(v, ratio, column, Qt, 0, m, lanes)
    for j in range(m):
        ratio[j] = x[j] / max(ratio[j], TINY)
    gather(numerator, ratio, column, Qt, 0, m, lanes)
    scale = np.float32(1) / (depth + a)
    if a > 0:
        for r in range(len(v)):
            v[r] = (v[r] * numerator[r] + a * prior[i, r]) * scale
    else:
        for r in range(len(v)):
            v[r] *= numerator[r] * scale


@njit(cache=True, fastmath=set(FAST), error_model="numpy")
def _prior_log(v, prior, i, a, k):
    """``a Σ m log v``."""
    total = 0.0
    if a > 0:
        for r in range(k):
            if prior[i, r] > 0:
                total += prior[i, r] * np.log(max(v[r], TINY))
    return a * total


@njit(cache=True, fastmath=set(FAST), error_model="numpy")
def _extrapolate(start, first, second, v):
    """Two steps of EM on, by the ratio of their lengths (SQUAREM), short of zero and back on the simplex."""
    length, bend = np.float32(0), np.float32(0)
    for r in range(len(v)):
        step = first[r] - start[r]
        turn = second[r] - first[r] - step
        length += step * step
        bend += turn * turn
    alpha = np.float32(1) if bend <= TINY else min(max(np.sqrt(length / bend), np.float32(1)), LONGEST)
    total = np.float32(0)
    for r in range(len(v)):
        step = first[r] - start[r]
        turn = second[r] - first[r] - step
        v[r] = max(start[r] + np.float32(2) * alpha * step + alpha * alpha * turn, np.float32(0.01) * second[r])
        total += v[r]
    for r in range(len(v)):
        v[r] /= total


@njit(cache=True, parallel=True, fastmath=set(FAST), error_model="numpy")
def _em_blocks(indptr, indices, data, Qt, prior, weight, V, out, k, longest, block_sums, log_term, prior_term, lanes):
    n, p, width, nb = V.shape[0], Qt.shape[0], len(lanes) * LANE, len(log_term)
    wants_sums, has_prior = block_sums.shape[1] > 0, prior.shape[0] > 0
    for b in prange(nb):
        first, last = n * b // nb, n * (b + 1) // nb
        sums = np.zeros((p if wants_sums else 0, width), np.float32)
        ratio = np.zeros(longest, np.float32)
        mantissa = np.zeros(longest, np.float32)
        # rows of one table, a fixed distance apart: side by side on the heap they would at times be taken for overlapping,
        # and a scalar loop rounds otherwise than a vector one
        work = np.zeros((5, width + APART), np.float32)
        v, numerator, start = work[0, :width], work[1, :width], work[2, :width]
        first_step, second_step = work[3, :width], work[4, :width]
        since_flush = 0
        for i in range(first, last):
            lo, hi = indptr[i], indptr[i + 1]
            m = hi - lo
            column, x = indices[lo:hi], data[lo:hi]
            a = weight[i] if has_prior else np.float32(0)
            depth = np.float32(0)
            for j in range(m):
                depth += x[j]
            v[:] = V[i]
            if depth + a > 0:
                start[:] = v
                _em_step(v, x, column, Qt, ratio, numerator, prior, i, a, depth, lanes)
                first_step[:] = v
                _em_step(v, x, column, Qt, ratio, numerator, prior, i, a, depth, lanes)
                second_step[:] = v
                for j in range(m):  # at the first step
                    ratio[j] = x[j] / max(ratio[j], TINY)
                reached = _sum_x_log(x, ratio, mantissa) + _prior_log(first_step, prior, i, a, k)
                _extrapolate(start, first_step, second_step, v)
                start[:] = v
                _em_step(v, x, column, Qt, ratio, numerator, prior, i, a, depth, lanes)
                for j in range(m):
                    ratio[j] = x[j] / max(ratio[j], TINY)
                if _sum_x_log(x, ratio, mantissa) + _prior_log(start, prior, i, a, k) < reached:
                    v[:] = second_step
                    _em_step(v, x, column, Qt, ratio, numerator, prior, i, a, depth, lanes)
            out[i] = v
            dots(v, ratio, column, Qt, 0, m, lanes)
            for j in range(m):
                ratio[j] = max(ratio[j], TINY)
            log_term[b] += _sum_x_log(x, ratio, mantissa)
            if a > 0:
                prior_term[b] -= _prior_log(v, prior, i, a, k)
                for r in range(k):
                    if prior[i, r] > 0:
                        prior_term[b] += a * prior[i, r] * np.log(prior[i, r])
            if wants_sums:
                for j in range(m):
                    ratio[j] = x[j] / ratio[j]
                scatter(v, ratio, column, sums, 0, m, lanes)
                since_flush += 1
                if since_flush >= FLUSH or i + 1 == last:
                    since_flush = 0
                    _flush(sums, block_sums[b])


def deviances(X: Rows, depth: Array, Q: Array, V: Array) -> tuple[Array, Array]:
    """Poisson deviance ``2 Σ x log(x / μ) − (x − μ)`` of every spot and of every gene."""
    spot, gene = np.zeros(X.shape[0]), np.zeros(X.shape[1])
    width = int(np.diff(X.indptr).max(initial=0))
    _deviances(
        X.indptr,
        X.indices,
        X.data,
        _ops.pad(Q.T),
        V,
        depth,
        np.empty(width, np.float32),
        spot,
        gene,
        make_lanes(V.shape[1]),
    )
    return spot, gene + 2 * (depth @ V[:, : len(Q)].astype(np.float64)) @ Q


@njit(cache=True, fastmath=set(FAST), error_model="numpy")
def _deviances(indptr, indices, data, Qt, V, depth, mean, spot, gene, lanes):
    v = np.zeros(V.shape[1], np.float32)
    for i in range(len(indptr) - 1):
        lo, hi = indptr[i], indptr[i + 1]
        v[:] = V[i]
        dots(v, mean, indices[lo:hi], Qt, 0, hi - lo, lanes)
        for j in range(hi - lo):
            x = data[lo + j]
            if x > 0:
                term = 2 * x * np.log(x / (max(mean[j], TINY) * np.float32(depth[i])))
                spot[i] += term
                gene[indices[lo + j]] += term - 2 * x


# --- intervals --------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _curvature(indptr, indices, data, Qt, V, hessian, pulled):
    """``Σ_j x q qᵀ / μ²`` and ``Σ_j x q / μ`` of every row."""
    k = V.shape[1]
    for i in range(len(V)):
        for e in range(indptr[i], indptr[i + 1]):
            q = Qt[indices[e]]
            mu = 1e-12
            for r in range(k):
                mu += V[i, r] * q[r]
            once = data[e] / mu
            for r in range(k):
                pulled[i, r] += once * q[r]
                for s in range(k):
                    hessian[i, r, s] += once / mu * q[r] * q[s]


def _bounds(V: Array, hessian: Array, gradient: Array, scale: float, rates: Array, level: float) -> tuple[Array, Array]:
    """Laplace intervals of the cells' shares from abundances V, curvature and gradient of the objective.

    Types in the free set of a spot vary together by ``scale`` × the inverse of their block of the Hessian, carried over
    to shares by the delta method; a type at zero has an exponential tail, whose rate is the gradient there.
    """
    k = V.shape[1]
    free = FREE * V.sum(1, keepdims=True) < V
    block = np.where(free[:, :, None] & free[:, None, :], hessian, 0.0)
    diagonal = np.arange(k)
    ridge = 1e-6 * np.maximum(block[:, diagonal, diagonal].max(1), 1e-12)
    block[:, diagonal, diagonal] += np.where(free, ridge[:, None], 1.0)
    covariance = scale * np.linalg.inv(block) * (free[:, :, None] & free[:, None, :])
    cells = V / rates
    total = np.maximum(cells.sum(1), 1e-300)
    shares = cells / total[:, None]
    jacobian = (np.eye(k) - shares[:, :, None]) / rates / total[:, None, None]
    sd = np.sqrt(np.maximum(np.einsum("ikr,irs,iks->ik", jacobian, covariance, jacobian, optimize=True), 0))
    half = norm.ppf(0.5 + level / 2) * sd
    tail = -np.log1p(-level) * scale / np.maximum(gradient, 1e-3 * scale) / rates / total[:, None]
    upper = shares + np.where(free, half, tail)
    lower = np.where(free, shares - half, 0)
    return np.clip(lower, 0, 1).astype(np.float32), np.clip(upper, 0, 1).astype(np.float32)


# --- Gaussian ---------------------------------------------------------------------------------------------------------


def _gaussian(
    X: sp.csr_matrix,
    B: Array,
    n_cells: Array | None,
    smoother: Smoother,
    options: Options,
    dispersion: float,
    progress: Progress | None,
) -> Fit:
    """Non-negative least squares of all spots on all genes, drawn to the surroundings as far as there is noise."""
    rows = _ops.as_rows(X)
    n, (k, p) = X.shape[0], B.shape
    depth = _ops.row_sums(rows)
    valid = depth > 0
    gram, Bt, x_norm = B @ B.T, _ops.pad(B.T), _ops.squared_norm(rows)
    V = _ops.pad(np.zeros((n, k), np.float32))
    q = np.zeros(n, np.float32)
    target = np.zeros_like(V)
    trace, converged = [], False
    for i in range(options.max_iter):
        before = V.copy()
        stats = _ops.hals_pass(rows, Bt, V, V, k, gram=gram, sweeps=12, anchor=q[:, None] * target, anchor_weight=q)
        residual = max(x_norm - 2 * np.vdot(stats.xtw, B.T) + np.vdot(stats.wtw, gram), 0.0)
        pull = (q * ((V - target) ** 2).sum(1)).sum(dtype=np.float64)
        trace.append(0.5 * float(residual + pull))
        if progress is not None:
            progress(i + 1, trace[-1])
        if np.linalg.norm(V - before) <= options.tol * np.linalg.norm(V):
            converged = True
            break
        total = V.sum(1, keepdims=True)
        mean, weight = smoother.mean(V / np.where(total > 0, total, 1), valid)
        target = (mean * total).astype(np.float32)
        noise = weight * k * residual / (n * p)
        q = np.divide(noise, total[:, 0] ** 2, out=np.zeros(n), where=total[:, 0] > 0).astype(np.float32)
    size = B.sum(1)
    cells = V[:, :k].astype(np.float64)
    cells[cells.sum(1) <= 0] = np.nan
    shares = cells * size
    shares /= shares.sum(1, keepdims=True)
    filled = np.nan_to_num(shares)
    lower = upper = None
    if options.level is not None:
        gradient = np.maximum(V[:, :k].astype(np.float64) @ gram - sp.csr_matrix(X) @ B.T, 0)
        lower, upper = _bounds(
            V[:, :k].astype(np.float64), np.broadcast_to(gram, (n, k, k)), gradient, residual / (n * p), np.ones(k),
            options.level,
        )  # fmt: skip
    spot, gene = deviances(rows, depth, B / size[:, None], _ops.pad(filled))
    return Fit(
        cells=_rows_to_one(cells), mrna=shares.astype(np.float32), trace=np.array(trace), mending=np.zeros(0),
        converged=converged, likelihood="gaussian", dispersion=dispersion, genes=np.arange(p), platform=None, profiles=B / size[:, None],
        sizes=size, spot_deviance=spot / np.where(valid, depth, np.nan), gene_deviance=gene,
        lower=lower, upper=upper,
    )  # fmt: skip


def warm_up(k: int) -> None:
    """Compile what a deconvolution into k types needs, on a few counts."""
    X = sp.csr_matrix(np.ones((2, 2), np.float32))
    graph = sp.csr_matrix(np.array([[0, 1], [1, 0]], np.float32))
    reference = Reference(np.ones((k, 2)) + np.eye(k, 2), np.ones(k))
    for likelihood in ("poisson", "gaussian"):
        fit(X, reference, graph=graph, options=Options(likelihood=likelihood, max_iter=2))


def is_compiled(k: int) -> bool:
    """Whether a deconvolution into k types runs at once: compiled here, or (up to 16 types) cached on disk."""
    kernel: Any = _em_blocks
    if any(signature[-1].count * LANE == padded(k) for signature in kernel.signatures):
        return True
    return padded(k) == LANE and cached(kernel)
