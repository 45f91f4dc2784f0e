"""Graphs of observations in space: radius edges, weights of contact and context, row normalisation, mixing."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numba import njit, prange
from scipy.spatial import cKDTree

from ._ops import cached
from ._threads import threads_for

Array = np.ndarray
SAMPLE = 2_000  # observations from which densities are estimated
NEAREST = 34  # neighbours of each that are looked at
CELLS_CONTACT_DEGREE = 5.0  # mean number of neighbours within the contact radius of cells
CONTEXT_FACTOR = 4.0  # context radius over contact radius
FIRST_RING = 1.3  # first ring of a lattice, in units of its pitch: beyond 1, short of √2 and √3
LATTICE_SPREAD = 0.15  # 5 % quantile to median of nearest-neighbour distances: 0–10 % on lattices, 34–48 % on cells
LATTICE_MISFIT = 0.25  # most that spots of an array may be off their places, in units of the pitch
COMBINE = ("max", "sum", "mean")
BLOCKS = 256  # shares of the bins that threads take one by one
HUGE_PAGES_FROM = 1 << 22  # bytes from which numpy asks for huge pages


@dataclass(frozen=True)
class Spacing:
    """How densely observations lie: median distance to the nearest other place, and radii that fit it."""

    nearest: float
    is_lattice: bool
    five: float  # radius with five neighbours on average
    contact_radius: float
    context_radius: float


def spacing(coords: Array, codes: Array, rng: np.random.Generator, positions: Array | None = None) -> Spacing:
    """Estimate the spacing from a sample of each library, leaving coincident points aside.

    ``positions``: row and column of every spot on its array, where there is one; so a lattice is recognised of which
    few spots are left.
    """
    nearest, pooled, n_sampled = [np.zeros(0)], [np.zeros(0)], 0
    for library in np.unique(codes):
        points = coords[codes == library]
        share = max(2, round(SAMPLE * len(points) / len(coords)))
        sample = points if len(points) <= share else points[rng.choice(len(points), share, replace=False)]
        tree = cKDTree(points, balanced_tree=False, compact_nodes=False)  # cheap to build; few points are asked for
        distances = tree.query(sample, k=min(len(points), NEAREST))[0]
        if (distances[:, -1] == 0).any():  # too many at one place
            places = np.unique(points, axis=0)
            distances = cKDTree(places).query(sample, k=min(len(places), NEAREST))[0]
        if distances.ndim < 2 or not (distances > 0).any():
            continue
        distances[distances == 0] = np.inf
        nearest.append(distances.min(1))
        pooled.append(distances[np.isfinite(distances)])
        n_sampled += len(sample)
    first, ranked = np.concatenate(nearest), np.sort(np.concatenate(pooled))
    if len(ranked) == 0:
        return Spacing(0.0, False, 0.0, 0.0, 0.0)
    low, middle = np.quantile(first, (0.05, 0.5))  # the upper half is left out: a lattice may have holes
    five = float(ranked[min(int(CELLS_CONTACT_DEGREE * n_sampled), len(ranked) - 1)])
    pitch = None if positions is None else lattice_pitch(coords, codes, positions)
    if pitch is None and middle - low < LATTICE_SPREAD * middle:
        pitch = float(middle)
    if pitch is not None:
        return Spacing(float(middle), True, five, FIRST_RING * pitch, 0.0)
    return Spacing(float(middle), False, five, five, CONTEXT_FACTOR * five)


def lattice_pitch(coords: Array, codes: Array, positions: Array) -> float | None:
    """Distance between neighbouring spots whose row and column on the array are known; None where these do not fit.

    Places are a linear map of rows and columns (a library each), found by least squares. Spots whose row and column
    are both even or both odd (Visium's hexagons) have their neighbours two columns, or a row and a column, away.
    """
    even = np.array([len(np.unique(positions[codes == c].sum(1) % 2)) == 1 for c in np.unique(codes)])
    steps = np.array([[0, 2], [1, 1], [1, -1]] if even.all() else [[0, 1], [1, 0]])
    pitches = []
    for library in np.unique(codes):
        own, places = positions[codes == library], coords[codes == library]
        own, places = own - own.mean(0), places - places.mean(0)
        if len(own) < 4 or np.linalg.matrix_rank(own) < 2:
            continue
        to_place = np.linalg.lstsq(own, places)[0]
        pitch = float(np.linalg.norm(steps @ to_place, axis=1).min())
        misfit = np.linalg.norm(own @ to_place - places, axis=1)
        if not pitch > 0 or np.quantile(misfit, 0.95) > LATTICE_MISFIT * pitch:
            return None
        pitches.append(pitch)
    return float(np.median(pitches)) if pitches else None


def degree_at(radius: float, space: Spacing, n_axes: int) -> float:
    """Mean number of neighbours within a radius in the middle of a wide tissue of this spacing."""
    return CELLS_CONTACT_DEGREE * (radius / space.five) ** n_axes if space.five > 0 else 0.0


def expected_degree(coords: Array, codes: Array, radius: float, rng: np.random.Generator) -> float:
    """Mean number of neighbours within ``radius``, from a sample: a forecast before the graph is built."""
    total, n_sampled = 0, 0
    for library in np.unique(codes):
        points = coords[codes == library]
        share = max(1, round(200 * len(points) / len(coords)))
        sample = points if len(points) <= share else points[rng.choice(len(points), share, replace=False)]
        counts = cKDTree(points).query_ball_point(sample, radius, return_length=True)
        total, n_sampled = total + int(np.sum(counts)) - len(sample), n_sampled + len(sample)
    return total / max(n_sampled, 1)


def radius_graph(
    coords: Array,
    codes: Array,
    contact_radius: float,
    context_radius: float = 0.0,
    *,
    contact_weight: float = 2.5,
    context_weight: float = 1.0,
    combine: str = "max",
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    r"""Weights and lengths of all pairs within the context radius (the contact radius where there is no context).

    A pair within the contact radius weighs the ``combine`` of both weights, a pair beyond it the context weight. Exact
    (``d <= radius`` in float64); pairs of different libraries are not linked; an observation is not linked to itself,
    but coincident ones are linked, with the stored distance 0. Both matrices are float32 CSR with sorted indices.

    Points are put into square bins as wide as the radius and sorted by library and bin, so that the candidates of a
    bin are three (in 3-D nine) contiguous runs, which are copied and sorted once for all points of the bin.
    """
    n = len(coords)
    radius = max(contact_radius, context_radius)
    weights = {"max": max(contact_weight, context_weight), "sum": contact_weight + context_weight}
    near = weights.get(combine, (contact_weight + context_weight) / 2) if context_radius else contact_weight
    keys, strides = _bin_keys(coords, codes, radius)
    order = np.argsort(keys, kind="stable")
    places = np.zeros((3, n))
    places[: coords.shape[1]] = coords[order].T
    bins, starts = np.unique(keys[order], return_index=True)
    starts = np.append(starts, n)
    runs = _runs(bins, starts, strides)
    most = int((runs[:, :, 1] - runs[:, :, 0]).sum(1).max(initial=0))  # candidates of a bin
    grid = (places, order.astype(np.int32), starts, runs, most)
    degree = np.zeros(n, dtype=np.int64)
    with threads_for(50 * n):
        _count(*grid, radius**2, degree)
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(degree, out=indptr[1:])
    nnz = int(indptr[-1])
    # nothing is shared: who edits one of the two must not change the other
    indices, also = _small_pages(nnz, np.int32), _small_pages(nnz, np.int32)
    data, lengths = _small_pages(nnz, np.float32), _small_pages(nnz, np.float32)
    with threads_for(50 * n):
        _fill(
            *grid, radius**2, contact_radius**2, np.float32(near), np.float32(context_weight),
            indptr, indices, also, data, lengths,
        )  # fmt: skip
    if nnz < 2**31 - 1:
        indptr = indptr.astype(np.int32)
    return _csr(data, indices, indptr, n), _csr(lengths, also, indptr.copy(), n)


def _small_pages(n: int, dtype: Any) -> Array:
    """As ``np.empty``, but not in the huge pages that numpy asks for.

    A virtual machine that hands freed memory back to its host takes three times as long to touch huge pages first, and
    that is most of the time a large graph takes; elsewhere the two are alike.
    """
    n_bytes = n * np.dtype(dtype).itemsize
    if n_bytes < HUGE_PAGES_FROM or not hasattr(mmap, "MAP_ANONYMOUS"):
        return np.empty(n, dtype=dtype)
    memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype=dtype)


def _csr(data: Array, indices: Array, indptr: Array, n: int) -> sp.csr_matrix:
    A = sp.csr_matrix((n, n), dtype=data.dtype)
    A.data, A.indices, A.indptr = data, indices, indptr
    A.has_sorted_indices = True
    A.has_canonical_format = True
    return A


def _bin_keys(coords: Array, codes: Array, radius: float) -> tuple[Array, Array]:
    """One int64 per point that numbers its bin, and the steps of the key along each axis (last axis: 1).

    Bins are as wide as the radius, or wider where the extent is so large that keys would overflow.
    """
    low, high = coords.min(0), coords.max(0)
    n_libraries = int(codes.max()) + 1
    most = int((2.0**60 / n_libraries) ** (1 / coords.shape[1])) - 4
    width = max(radius * (1 + 1e-6), float((high - low).max()) / most)  # rounding must not part a pair by two bins
    cells = np.floor((coords - low) / width).astype(np.int64) + 1  # an empty border on either side
    counts = cells.max(0) + 2
    strides = np.ones(coords.shape[1], dtype=np.int64)
    for axis in range(coords.shape[1] - 2, -1, -1):
        strides[axis] = strides[axis + 1] * counts[axis + 1]
    keys = codes.astype(np.int64) * (strides[0] * counts[0]) + cells @ strides
    return keys, strides


def _runs(bins: Array, starts: Array, strides: Array) -> Array:
    """For each bin the (first, last) points of its neighbouring bins: one contiguous run a combination of outer axes."""
    offsets = np.array(np.meshgrid(*[[-1, 0, 1]] * (len(strides) - 1), indexing="ij")).reshape(len(strides) - 1, -1)
    out = np.empty((len(bins), offsets.shape[1], 2), dtype=np.int64)
    for i, shift in enumerate(strides[:-1] @ offsets):
        out[:, i, 0] = starts[np.searchsorted(bins, bins + shift - 1, side="left")]
        out[:, i, 1] = starts[np.searchsorted(bins, bins + shift + 1, side="right")]
    return out


@njit(cache=True)
def _gather(places, order, runs, b, near, names):
    """Copy the places and names of the candidates of bin ``b`` side by side: the loops over them become vectors."""
    m = 0
    for run in range(runs.shape[1]):
        for j in range(runs[b, run, 0], runs[b, run, 1]):
            for axis in range(3):
                near[axis, m] = places[axis, j]
            names[m] = order[j]
            m += 1
    return m


@njit(cache=True)
def _sort(near, names, m, sorted_near, sorted_names):
    """Put candidates in order of their names by counting, a plain vector loop: all rows of the bin are then sorted."""
    for e in range(m):
        rank = np.int32(0)
        for f in range(m):
            rank += np.int32(names[f] < names[e])
        for axis in range(3):
            sorted_near[axis, rank] = near[axis, e]
        sorted_names[rank] = names[e]


@njit(cache=True, parallel=True)
def _count(places, order, starts, runs, most, r2, degree):
    n_bins = len(starts) - 1
    for block in prange(BLOCKS):
        near = np.empty((3, most))
        names = np.empty(most, dtype=np.int32)
        for b in range(n_bins * block // BLOCKS, n_bins * (block + 1) // BLOCKS):
            m = _gather(places, order, runs, b, near, names)
            xs, ys, zs = near[0], near[1], near[2]
            for i in range(starts[b], starts[b + 1]):
                x, y, z = places[0, i], places[1, i], places[2, i]
                found = -1  # itself
                for j in range(m):
                    dx, dy, dz = xs[j] - x, ys[j] - y, zs[j] - z
                    found += dx * dx + dy * dy + dz * dz <= r2
                degree[order[i]] = found


@njit(cache=True, parallel=True)
def _fill(places, order, starts, runs, most, r2, contact2, weight, far, indptr, indices, also, data, lengths):
    n_bins = len(starts) - 1
    for block in prange(BLOCKS):
        unsorted, near = np.empty((3, most)), np.empty((3, most))
        unsorted_names, names = np.empty(most, dtype=np.int32), np.empty(most, dtype=np.int32)
        squares, kept = np.empty(most), np.empty(most)
        found = np.empty(most, dtype=np.int32)
        for b in range(n_bins * block // BLOCKS, n_bins * (block + 1) // BLOCKS):
            m = _gather(places, order, runs, b, unsorted, unsorted_names)
            _sort(unsorted, unsorted_names, m, near, names)
            xs, ys, zs = near[0], near[1], near[2]
            for i in range(starts[b], starts[b + 1]):
                x, y, z, own = places[0, i], places[1, i], places[2, i], order[i]
                for j in range(m):
                    dx, dy, dz = xs[j] - x, ys[j] - y, zs[j] - z
                    squares[j] = dx * dx + dy * dy + dz * dz
                n_found = 0
                for j in range(m):  # written always, kept only if the count moves on: no branch to mispredict
                    kept[n_found] = squares[j]
                    found[n_found] = names[j]
                    n_found += (squares[j] <= r2) & (names[j] != own)
                first = indptr[own]
                for e in range(n_found):
                    indices[first + e] = found[e]
                    also[first + e] = found[e]
                for e in range(n_found):
                    lengths[first + e] = np.sqrt(kept[e])
                    data[first + e] = weight if kept[e] <= contact2 else far


def symmetrised(A: sp.csr_matrix) -> sp.csr_matrix:
    """``(A + Aᵀ)/2``."""
    out = A + A.T.tocsr()
    out.data *= np.float32(0.5)
    out.sort_indices()
    return out


def mix(spatial: sp.csr_matrix, feature: sp.csr_matrix, alpha: float) -> sp.csr_matrix:
    r"""Symmetrised :math:`\mathrm{rownorm}(\alpha\,\mathrm{rownorm}(S) + (1-\alpha)\,\mathrm{rownorm}(F))`.

    The outer normalisation matters to observations without neighbours in one of the two only. Both are of the rows, so
    that each part is :math:`(DA + A^\top D)/2` with a diagonal D of its own.
    """
    parts, weights = (spatial, feature), (alpha, 1 - alpha)
    sums = [np.asarray(A.sum(1, dtype=np.float64)).ravel() for A in parts]
    total = sum(weight * (own > 0) for weight, own in zip(weights, sums, strict=True))
    scales = [np.where((own > 0) & (total > 0), weight, 0) for weight, own in zip(weights, sums, strict=True)]
    halves = [
        _scaled(A, scale / np.where(scale > 0, own * total, 1))
        for A, scale, own in zip(parts, scales, sums, strict=True)
    ]
    mixed = (halves[0] + halves[1]).tocsr()  # leaves out the zeros of α = 0 or 1
    mixed.sort_indices()
    return mixed


def _scaled(A: sp.csr_matrix, d: Array) -> sp.csr_matrix:
    """``(DA + AᵀD)/2`` with D = diag(d)."""
    A = sp.csr_matrix(A, dtype=np.float32)
    if not A.has_canonical_format:
        A = A.copy()
        A.sum_duplicates()
    if not _is_symmetric(A.indptr, A.indices, A.data):
        return symmetrised(sp.csr_matrix(sp.diags_array(d.astype(np.float32)) @ A))
    return sp.csr_matrix((_times_both(A.indptr, A.indices, A.data, d), A.indices, A.indptr), shape=A.shape)


@njit(cache=True)
def _is_symmetric(indptr, indices, data):
    """Of sorted rows: going down, what is left of the diagonal of the rows below comes up in its order, and all of it."""
    seen = indptr[:-1].copy()
    for i in range(len(seen)):
        if seen[i] < indptr[i + 1] and indices[seen[i]] < i:
            return False
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if j > i:
                at = seen[j]
                if at == indptr[j + 1] or indices[at] != i or data[at] != data[e]:
                    return False
                seen[j] += 1
    return True


@njit(cache=True)
def _times_both(indptr, indices, data, d):
    out = np.empty(len(data), np.float32)
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            out[e] = data[e] * 0.5 * (d[i] + d[indices[e]])
    return out


def upper_edges(A: sp.csr_matrix) -> tuple[Array, Array, Array]:
    """Every undirected edge of a symmetric graph once: rows, columns, weights."""
    upper = sp.triu(A, k=1, format="coo")
    return upper.row, upper.col, upper.data


def degrees(A: Any) -> Array:
    """Count the neighbours of every observation."""
    return np.diff(A.indptr)


def is_compiled() -> bool:
    """Whether the kernels are compiled in this process or cached on disk by an earlier one."""
    return cached(_fill)
