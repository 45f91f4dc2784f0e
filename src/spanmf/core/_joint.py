r"""Several matrices that share the observations' factors, each with rows that may be missing.

.. math:: \sum_m \omega_m \, D_m(M_m \circ X_m, \; M_m \circ W H_m) \;\bigl(+ \tfrac\lambda2 \operatorname{Tr}(W^\top L W),
   \; \lVert H_k \rVert = 1 \bigr)

with :math:`M_m` the rows that modality m has. Under the Frobenius loss :math:`\sqrt{\omega_m} X_m` are put side by side and
the engine of :mod:`._solver` runs on that one matrix: observations with the same modalities form a group, which has its own
Gram matrix :math:`\sum_{m \in g} H_m H_m^\top`, and :math:`H_m` is updated from the statistics of the groups that have m.
Under Kullback–Leibler the weight multiplies the matrix itself.

Missing rows count as zeros with the weight :data:`ABSENT`. Without that a component that the modalities at hand hardly show has no
bound in such rows: its W explodes (a thousandfold on generated tissues), and with it every distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from . import _ops, _snmf, _solver
from ._ops import Rows
from ._smooth import Graph, beside, graph_product, pull, roughness

Array = np.ndarray
START_ROWS = 10_000  # complete observations that k-means sees
START_RUNS = 3  # of k-means, for each start
HEATS = ((12, 8), (40, 3))  # passes that a start has made at the end of a heat, most starts that take part
START_PCS = 20
START_FLOOR = 1e-2  # of the mean, so that no loading starts at a zero it could not leave
MIXED_SWEEPS = 2
ABSENT = 0.02  # at 0.1 components begin to serve the missing rows; at 0.005 types are told apart no better


@dataclass(frozen=True)
class Modality:
    """One matrix (n × p_m, all rows there; missing ones empty), which rows it has, and its share in the objective."""

    X: sp.csr_matrix
    present: Array
    weight: float = 1.0
    loss: str = "frobenius"
    private: int = 0

    @property
    def scale(self) -> float:
        """What the matrix is multiplied by so that its loss is weighted."""
        return self.weight if self.loss == "kl" else float(np.sqrt(self.weight))


@dataclass(frozen=True)
class Layout:
    """The matrices side by side, rows sorted by which modalities they have."""

    X: Rows  # n × P
    order: Array  # row of X -> observation
    bounds: Array  # first and last row of each group
    has: Array  # groups × modalities
    columns: list[slice]  # features of each modality
    components: list[Array]  # components that each modality may load on
    losses: list[str]

    @property
    def differs(self) -> bool:
        """Whether losses differ between modalities, or KL has missing rows or private components."""
        return len(set(self.losses)) > 1 or (self.losses[0] == "kl" and not self.complete)

    @property
    def complete(self) -> bool:
        """Whether every row has every modality, and every modality every component."""
        k = len(set(np.concatenate(self.components)))
        return len(self.has) == 1 and all(len(c) == k for c in self.components)

    def take(self, rows: Array) -> Layout:
        """Copy some rows of X (ascending)."""
        return replace(self, X=self.X.take(rows), order=np.arange(len(rows)), bounds=np.searchsorted(rows, self.bounds))

    def rows(self, g: int) -> Rows:
        """One group of rows (a view)."""
        return self.X.part(int(self.bounds[g]), int(self.bounds[g + 1]))

    def groups_of(self, m: int) -> list[int]:
        """Groups whose observations have modality m."""
        return [g for g in range(len(self.has)) if self.has[g, m]]


def lay_out(modalities: Sequence[Modality], n_components: int) -> Layout:
    """Scale the matrices, put them side by side and sort their rows into groups."""
    present = np.stack([m.present for m in modalities], axis=1)
    patterns, group = np.unique(present, axis=0, return_inverse=True)
    patterns, group = patterns[::-1], len(patterns) - 1 - group.ravel()  # complete observations first
    order = np.argsort(group, kind="stable")
    parts = []
    for m in modalities:
        scaled = sp.csr_matrix((m.X.data * np.float32(m.scale), m.X.indices, m.X.indptr), shape=m.X.shape)
        parts.append(scaled)
    X = sp.hstack(parts, format="csr", dtype=np.float32)
    if len(patterns) > 1:
        X = X[order]
    ends = np.cumsum([m.X.shape[1] for m in modalities])
    n_private = [m.private for m in modalities]
    shared = n_components - sum(n_private)
    first = shared + np.concatenate([[0], np.cumsum(n_private)]).astype(int)
    return Layout(
        _ops.as_rows(X),
        order,
        np.concatenate([[0], np.cumsum(np.bincount(group, minlength=len(patterns)))]),
        patterns,
        [slice(int(e) - m.X.shape[1], int(e)) for e, m in zip(ends, modalities, strict=True)],
        [np.concatenate([np.arange(shared), np.arange(a, a + q)]) for a, q in zip(first[:-1], n_private, strict=True)],
        [m.loss for m in modalities],
    )


def fit(
    layout: Layout,
    H: Array,
    *,
    graph: sp.csr_matrix | None = None,
    graph_weight: float = 0.0,
    max_iter: int = 500,
    tol: float = 3e-6,
    progress: _solver.Progress | None = None,
) -> _solver.Result:
    """Factorise from loadings H (k × P, of the scaled matrices). W comes back in the order of the observations."""
    if graph is not None and not layout.complete:
        graph = graph[layout.order][:, layout.order]
    own = None if graph is None else beside(layout.X, graph)
    state = _begin(layout, _allowed(layout, np.asarray(H, dtype=np.float64).T), own, graph_weight)
    result = _solver.run(state, max_iter=max_iter, tol=tol, progress=progress)
    W = np.empty_like(result.W)
    W[layout.order] = result.W
    return _solver.Result(W, result.H, result.trace, result.converged)


def _begin(layout: Layout, H: Array, graph: Graph | None = None, weight: float = 0.0) -> _solver.State:
    """The state of a factorisation after its first pass, from loadings H (P × k)."""
    if layout.differs:
        return _Mixed(layout, H)
    if layout.complete:
        return _solver.begin(layout.X, H.T, loss=layout.losses[0], graph=graph, graph_weight=weight)
    return _Masked(layout, H, graph, weight)


def start(layout: Layout, n_components: int, rng: np.random.Generator) -> Array:
    """Loadings (k × P) of the best of several starts, compared on a sample of the observations.

    With more components than types the starts end in minima whose objectives differ by some 0.3 %.
    """
    starts = _cluster_means(layout, n_components, rng)
    n = layout.X.shape[0]
    part = layout if n <= START_ROWS else layout.take(np.sort(rng.choice(n, START_ROWS, replace=False)))
    runs = [_begin(part, _allowed(part, H.T)) for H in starts]
    made = 0
    for passes, most in HEATS:
        runs = sorted(runs, key=_objective)[:most]
        for run in runs:
            for _ in range(passes - made):
                run.step(0.0)
        made = passes
    return min(runs, key=_objective).H.T


def _objective(run: _solver.State) -> float:
    return run.objective


def _cluster_means(layout: Layout, n_components: int, rng: np.random.Generator) -> list[Array]:
    """Loadings from k-means clusters of observations with the most modalities: their means; what they do not show is random.

    Clusters are found on the leading principal components: on the features themselves noise hides rare clusters, and
    the fit ends at a higher objective.
    """
    k, X = _n_shared(layout), layout.X.as_scipy()
    mean = max(float(X.sum()) / (X.shape[0] * X.shape[1]), float(_ops.TINY))
    starts = [rng.random((n_components, X.shape[1])) * mean for _ in range(HEATS[0][1])]
    first = np.arange(layout.bounds[1])  # complete observations, or else those with the most modalities
    rows = first if len(first) <= START_ROWS else np.sort(rng.choice(first, START_ROWS, replace=False))
    if 1 <= k < len(rows):
        seen = np.zeros(X.shape[1], dtype=bool)
        for m, columns in enumerate(layout.columns):
            seen[columns] = layout.has[0, m]
        dense = X[rows].toarray()[:, seen]
        for H, labels in zip(starts, _clusterings(dense, k, len(starts), rng), strict=True):
            for r in range(k):
                H[r, seen] = dense[labels == r].mean(0) + START_FLOOR * mean
    return starts


def _clusterings(dense: Array, k: int, n: int, rng: np.random.Generator) -> list[Array]:
    """Labels of k-means on the leading principal components, from several seeds."""
    seeds = [int(rng.integers(2**31 - 1)) for _ in range(n)]
    n_pcs = min(START_PCS, min(dense.shape) - 1)
    with threadpool_limits(1):
        U, S, _ = randomized_svd(dense - dense.mean(0), max(n_pcs, 1), random_state=seeds[0])
        return [KMeans(k, n_init=START_RUNS, random_state=seed).fit(U * S).labels_ for seed in seeds]


def _n_shared(layout: Layout) -> int:
    """Components that all modalities may load on."""
    common = set(layout.components[0].tolist())
    for c in layout.components[1:]:
        common &= set(c.tolist())
    return len(common)


def _allowed(layout: Layout, H: Array) -> Array:
    """H (P × k) without loadings on other modalities' private components."""
    out = np.zeros(H.shape)
    for columns, components in zip(layout.columns, layout.components, strict=True):
        out[columns, components] = H[columns, components]
    return out


@dataclass(frozen=True)
class _Sums:
    """``XᵀW`` (P × k), and of each modality ``WᵀW`` over the rows that have it (and a little of the others)."""

    xtw: Array
    wtw: list[Array]


class _Masked(_solver._Frobenius):
    """HALS as in the plain engine, a Gram matrix a group; with a graph, rows of H at unit norm."""

    def __init__(self, layout: Layout, H: Array, graph: Graph | None, weight: float) -> None:
        self.layout, self.graph, self.weight = layout, graph, weight
        self.neighbours: Array | None = None
        if graph is not None:
            H = _unit(H)
        super().__init__(layout.X, H, None, _solver.NO_PENALTY, graph, weight)

    def pass_over(self, H: Array, sweeps: int = _solver.W_SWEEPS) -> _Sums:  # type: ignore[override]
        layout, padded = self.layout, _ops.pad(H)
        grams = [H[c].T @ H[c] for c in layout.columns]
        xtw, wtw = np.zeros(H.shape), [np.zeros((self.k, self.k)) for _ in layout.columns]
        anchor, q = self._anchor()
        for g, has in enumerate(layout.has):
            own = slice(layout.bounds[g], layout.bounds[g + 1])
            stats = _ops.hals_pass(
                layout.rows(g), padded, self.W[own], self.spare[own], self.k,
                gram=sum((G * (1 if h else ABSENT) for G, h in zip(grams, has, strict=True)), np.zeros((self.k, self.k))), sweeps=sweeps,
                anchor=None if anchor is None else anchor[own], anchor_weight=None if q is None else q[own],
            )  # fmt: skip
            xtw += stats.xtw
            for m, there in enumerate(has):
                wtw[m] += stats.wtw * (1 if there else ABSENT)
        if self.graph is not None:
            self.spare_neighbours = graph_product(self.graph, self.spare)
        return _Sums(xtw, wtw)

    def _anchor(self) -> tuple[Array | None, Array | None]:
        """What the graph term adds to every row's problem (see ``_solver._Laplacian``)."""
        if self.graph is None or self.neighbours is None:
            return None, None
        return pull(self.graph, self.W, self.neighbours, self.weight)

    def accept(self) -> None:
        super().accept()
        if self.graph is not None:
            self.neighbours = self.spare_neighbours

    def feasible(self, H: Array) -> Array:
        H = np.maximum(H, 0)
        return H if self.graph is None else _unit(H)

    def improve(self, stats: _Sums, H: Array) -> tuple[Array, float]:  # type: ignore[override]
        H = self._unit_norm_h(stats, H) if self.graph is not None else self._hals_h(stats, H)
        value = self.x_norm - 2 * np.vdot(stats.xtw, H)
        for C, columns in zip(stats.wtw, self.layout.columns, strict=True):
            value += np.vdot(C, H[columns].T @ H[columns])
        if self.graph is not None:
            value += self.weight * roughness(self.graph, self.spare, self.spare_neighbours)
        return H, float(value / 2)

    def _hals_h(self, stats: _Sums, H: Array) -> Array:
        out = np.zeros(H.shape)
        for C, columns, c in zip(stats.wtw, self.layout.columns, self.layout.components, strict=True):
            own = _ops.Statistics(stats.xtw[columns][:, c], C[np.ix_(c, c)], C[0])
            out[columns, c] = _solver.hals_h(own, H[columns][:, c])
        return out

    def _unit_norm_h(self, stats: _Sums, H: Array) -> Array:
        """Best column of H by column, under its norm of one: the positive part of its target over (WᵀW)_rr + μ."""
        H, layout = H.copy(), self.layout
        for _ in range(_solver.H_SWEEPS):
            for r in range(self.k):
                target, curvature = np.zeros(len(H)), np.zeros(len(H))
                for C, columns, c in zip(stats.wtw, layout.columns, layout.components, strict=True):
                    if r in c:
                        target[columns] = stats.xtw[columns, r] - H[columns] @ C[:, r] + H[columns, r] * C[r, r]
                        curvature[columns] = C[r, r]
                H[:, r] = _on_sphere(target, curvature, H[:, r])
        return H


def _unit(H: Array) -> Array:
    norms = np.linalg.norm(H, axis=0)
    return H / np.where(norms > 0, norms, 1)


def _on_sphere(target: Array, curvature: Array, before: Array) -> Array:
    """Minimise ½ Σ c_j h_j² − Σ t_j h_j over h ≥ 0 of unit norm; as before where no target is positive."""
    positive = np.maximum(target, 0)
    if not positive.any():
        return before
    steps, which = np.unique(curvature, return_inverse=True)
    mass = np.bincount(which.ravel(), positive**2)
    steps, mass = steps[mass > 0], mass[mass > 0]
    low, high = -steps[0], np.sqrt(mass.sum()) - steps[0]  # Σ mass / (c + μ)² falls from ∞ past 1 in between
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if (mass / (steps + middle) ** 2).sum() > 1 else (low, middle)
    h = positive / np.where(positive > 0, curvature + high, 1)
    return h / np.linalg.norm(h)


class _Mixed:
    r"""Losses that differ between modalities (or KL with missing rows).

    At the present W every KL term is majorised by :math:`\sum_r h_r w_r - a_r \log w_r`, with :math:`a_r` the numerator of
    the multiplicative update; with the Gram matrix G and the products b of the Frobenius terms, a coordinate's minimum is the
    positive root of :math:`G_{rr} w^2 - (b_r - \sum_{s \ne r} G_{rs} w_s - h_r) w - a_r = 0`. So the objective cannot rise.
    """

    def __init__(self, layout: Layout, H: Array) -> None:
        self.layout, self.k = layout, H.shape[1]
        self.H = _allowed(layout, np.maximum(H, START_FLOOR * H.mean()))
        sparse = layout.X.as_scipy()
        self.parts = [sparse[:, c].tocsr() for c in layout.columns]
        self.rows = [_ops.as_rows(X) for X in self.parts]
        self.constant = sum(
            _ops.entropy(X) if loss == "kl" else 0.5 * _ops.squared_norm(X)
            for X, loss in zip(self.rows, layout.losses, strict=True)
        )
        totals = np.asarray(sparse.sum(1)).ravel()
        self.W = _ops.pad(
            np.repeat((totals / max(self.H.sum(), _ops.TINY))[:, None], self.k, axis=1).astype(np.float32)
        )
        self.objective = self._evaluate()
        self.step(0.0)

    def step(self, tol: float) -> bool:
        before = self.W, self.H
        self._improve_h()
        for _ in range(MIXED_SWEEPS):
            self._improve_w()
        value = self._evaluate()
        gain = self.objective - value
        if gain < 0:  # rounding is all that is left
            self.W, self.H = before
            return True
        self.objective = value
        return gain <= tol * abs(value)

    def _evaluate(self) -> float:
        """Objective at (W, H), keeping what H is improved from."""
        value, self.sums = self.constant, []
        for m, (X, loss, columns) in enumerate(zip(self.rows, self.layout.losses, self.layout.columns, strict=True)):
            H, W = self.H[columns], self.W[:, : self.k].astype(np.float64)
            share = self._shares(m)
            if loss == "kl":
                s = _ops.kl_pass(X, _ops.pad(H), self.W, self.W, self.k, h_sum=H.sum(0), sweeps=0)
                w_sum = share @ W
                value += float(w_sum @ H.sum(0)) - s.log_term
                self.sums.append((s.xtw, w_sum))
            else:
                xtw, wtw = self.parts[m].T @ W, (W * share[:, None]).T @ W
                value += 0.5 * float(np.vdot(wtw, H.T @ H)) - float(np.vdot(xtw, H))
                self.sums.append((xtw, wtw))
        return float(value)

    def _shares(self, m: int) -> Array:
        """Weight of every row in modality m."""
        return np.repeat(np.where(self.layout.has[:, m], 1.0, ABSENT), np.diff(self.layout.bounds))

    def _improve_h(self) -> None:
        H = np.zeros(self.H.shape)
        for (xtw, total), loss, columns, c in zip(
            self.sums, self.layout.losses, self.layout.columns, self.layout.components, strict=True
        ):
            if loss == "kl":
                H[columns, c] = (self.H[columns] * (xtw / np.where(total > 0, total, 1)))[:, c]
            else:
                own = _ops.Statistics(xtw[:, c], total[np.ix_(c, c)], total[0])
                H[columns, c] = _solver.hals_h(own, self.H[columns][:, c])
        self.H = H

    def _improve_w(self) -> None:
        n, k = len(self.W), self.k
        a, b = np.zeros((n, k)), np.zeros((n, k))
        for X, rows, loss, columns in zip(self.parts, self.rows, self.layout.losses, self.layout.columns, strict=True):
            H = self.H[columns]
            if loss == "kl":
                moved = np.empty_like(self.W)
                _ops.kl_pass(rows, _ops.pad(H), self.W, moved, k, h_sum=H.sum(0), sweeps=1, statistics=False)
                a += moved[:, :k].astype(np.float64) * H.sum(0)
            else:
                b += X @ H
        W = self.W[:, :k].astype(np.float64)
        for g, has in enumerate(self.layout.has):
            own = slice(self.layout.bounds[g], self.layout.bounds[g + 1])
            G, h = np.zeros((k, k)), np.zeros(k)
            for loss, columns, there in zip(self.layout.losses, self.layout.columns, has, strict=True):
                weight = 1.0 if there else ABSENT
                if loss == "kl":
                    h += weight * self.H[columns].sum(0)
                else:
                    G += weight * (self.H[columns].T @ self.H[columns])
            _positive_roots(W[own], a[own], b[own], G, h)
        self.W = _ops.pad(W.astype(np.float32))


def _positive_roots(W: Array, a: Array, b: Array, G: Array, h: Array) -> None:
    """Coordinate by coordinate, in place."""
    for r in range(W.shape[1]):
        d = b[:, r] - W @ G[:, r] + W[:, r] * G[r, r] - h[r]
        if G[r, r] > 0:
            W[:, r] = (d + np.sqrt(d * d + 4 * G[r, r] * a[:, r])) / (2 * G[r, r])
        elif h[r] > 0:
            W[:, r] = a[:, r] / h[r]


def refit_h(layout: Layout, W: Array, H: Array) -> Array:
    """H (k × P) that fits the scaled matrices best for the given W (n × k), each over the rows that have it."""
    X = layout.X.as_scipy()
    W, out = W[layout.order], np.zeros(H.shape, dtype=np.float32)
    for m, (columns, c, loss) in enumerate(zip(layout.columns, layout.components, layout.losses, strict=True)):
        own = np.concatenate([np.arange(layout.bounds[g], layout.bounds[g + 1]) for g in layout.groups_of(m)])
        part = _ops.beside(layout.X, _ops.as_rows(X[own][:, columns]))
        out[c, columns] = _snmf.refit_h(part, np.ascontiguousarray(W[own][:, c]), H[c, columns], loss)
    return out


def variance_explained(X: sp.csr_matrix, W: Array, H: Array) -> Array:
    r"""Share of the variance of X (rows that are there) that each component's activity explains alone.

    :math:`\lVert X_c^\top w_c \rVert^2 / (\lVert w_c \rVert^2 \lVert X_c \rVert^2)`, both centred by column: the share of a regression of every
    feature on that component. 0 where the component has no loadings. Components overlap: the shares do not add up.
    """
    n = X.shape[0]
    W = np.asarray(W, dtype=np.float64)
    squares = float(np.vdot(X.data.astype(np.float64), X.data))
    mean = np.asarray(X.mean(0, dtype=np.float64)).ravel()
    total = squares - n * float(mean @ mean)
    if total <= 0:
        return np.full(len(H), np.nan)
    centred = W - W.mean(0)
    size = (centred**2).sum(0)
    cross = (np.asarray(X.T @ centred) ** 2).sum(0)
    return np.divide(cross, size * total, out=np.zeros(len(H)), where=(size > 0) & H.any(axis=1))
