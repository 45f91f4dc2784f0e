"""Radius graphs against all pairs, spacing, mixing."""

from __future__ import annotations

import mmap
import pickle

import numba
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist

from spanmf.core import _graph


def _points(d: int, n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    coords = rng.random((n, d)) * (120 if d == 2 else 60) - 1e4
    coords[:6] = coords[6:12]  # coincident
    coords[20] += 5000  # alone, far away
    return coords, rng.integers(0, 3, n).astype(np.int32)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize(("contact", "context"), [(8.0, 25.0), (8.0, 0.0), (8.0, 8.0)])
@pytest.mark.parametrize(("combine", "near"), [("max", 2.5), ("sum", 3.5), ("mean", 1.75)])
def test_radius_graph_is_all_pairs(d: int, contact: float, context: float, combine: str, near: float) -> None:
    coords, codes = _points(d)
    A, D = _graph.radius_graph(coords, codes, contact, context, combine=combine)
    distance = cdist(coords, coords)
    linked = (distance <= max(contact, context)) & (codes[:, None] == codes)
    np.fill_diagonal(linked, False)
    weight = np.where(distance <= contact, near if context else 2.5, 1.0) * linked
    np.testing.assert_array_equal(A.toarray(), weight.astype(np.float32))
    np.testing.assert_allclose(D.toarray(), distance * linked, atol=1e-4)
    stored = sp.csr_matrix((np.ones_like(D.data), D.indices, D.indptr), shape=D.shape).toarray()
    np.testing.assert_array_equal(stored, linked)  # the distance 0 of coincident observations is stored
    assert A.dtype == D.dtype == np.float32
    assert (A != A.T).nnz == 0
    for matrix in (A, D):
        plain = sp.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
        assert plain.has_sorted_indices
        assert plain.has_canonical_format


def test_pairs_exactly_at_the_radius_are_linked() -> None:
    coords = np.array([[0.0, 0], [3, 4], [6, 8], [0, 10.0]])
    A, D = _graph.radius_graph(coords, np.zeros(4, np.int32), 5.0, 10.0)
    assert A[0, 1] == 2.5
    assert A[0, 2] == 1.0
    assert D[0, 3] == 10.0


def test_editing_one_matrix_leaves_the_other() -> None:
    coords, codes = _points(2)
    A, D = _graph.radius_graph(coords, codes, 8.0, 25.0)
    before = A.toarray(), D.toarray()
    D.eliminate_zeros()
    np.testing.assert_array_equal(A.toarray(), before[0])
    A.data[A.data < 2] = 0
    A.eliminate_zeros()
    np.testing.assert_array_equal(D.toarray(), before[1])


@pytest.mark.skipif(not hasattr(mmap, "MAP_ANONYMOUS"), reason="this system has no such memory")
def test_large_graphs_are_ordinary_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory is had in another way; everything that is done to matrices must work on them all the same."""
    coords, codes = _points(2)
    usual = _graph.radius_graph(coords, codes, 8.0, 25.0)
    monkeypatch.setattr(_graph, "HUGE_PAGES_FROM", 1)
    large = _graph.radius_graph(coords, codes, 8.0, 25.0)
    for A, B in zip(usual, large, strict=True):
        assert type(B.data.base) is not type(A.data.base)
        np.testing.assert_array_equal(A.toarray(), B.toarray())
        np.testing.assert_array_equal(A.toarray(), pickle.loads(pickle.dumps(B)).toarray())
        np.testing.assert_array_equal((A @ A).toarray(), (B @ B).toarray())
        B.data[:5] = 0
        B.eliminate_zeros()
        assert B.nnz <= A.nnz - 5
    assert large[0].data.flags.writeable


@pytest.mark.parametrize("rings", [1, 2, 3])
@pytest.mark.parametrize("offset", [0.0, 1234.5678, -414.61])
@pytest.mark.parametrize("pitch", [8.0, 0.1, 35.0])
def test_lattices_whose_pitch_divides_the_radius(pitch: float, offset: float, rings: int) -> None:
    """Pairs at exactly the radius lie at the borders of the bins, where rounding decides."""
    x, y = (v.ravel() for v in np.meshgrid(offset + pitch * np.arange(60), offset + pitch * np.arange(60)))
    coords = np.c_[x, y]
    A, _ = _graph.radius_graph(coords, np.zeros(len(coords), np.int32), rings * pitch)
    squares = sum((c[:, None] - c[None]) ** 2 for c in (x, y))
    assert A.nnz == (squares <= (rings * pitch) ** 2).sum() - len(coords)


def test_bins_do_not_overflow_on_a_huge_extent() -> None:
    coords = np.array([[0.0, 0], [1e-6, 0], [1e12, 1e12], [1e12, 1e12 + 1e-3]])
    A, _ = _graph.radius_graph(coords, np.zeros(4, np.int32), 1e-2)
    np.testing.assert_array_equal(A.toarray() > 0, np.eye(4)[[1, 0, 3, 2]] > 0)


def test_same_graph_on_one_thread_and_two() -> None:
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    coords, codes = _points(2, 3000)
    graphs = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        graphs.append(_graph.radius_graph(coords, codes, 8.0, 25.0)[0])
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(graphs[0], part), getattr(graphs[1], part))


def test_spacing_of_cells_gives_five_neighbours() -> None:
    rng = np.random.default_rng(0)
    coords = rng.random((20_000, 2)) * 2000
    codes = (coords[:, 0] > 1000).astype(np.int32)
    space = _graph.spacing(coords, codes, rng)
    A, _ = _graph.radius_graph(coords, codes, space.contact_radius)
    assert not space.is_lattice
    assert A.nnz / 20_000 == pytest.approx(5, rel=0.1)
    assert space.context_radius == 4 * space.contact_radius


@pytest.mark.parametrize(("hexagonal", "degree"), [(True, 6), (False, 4)])
@pytest.mark.parametrize("kept", [1.0, 0.5])
def test_spacing_of_a_lattice_gives_the_first_ring(hexagonal: bool, degree: int, kept: float) -> None:
    x, y = (v.ravel().astype(float) for v in np.meshgrid(np.arange(40), np.arange(40)))
    coords = np.c_[x + 0.5 * (y % 2), y * np.sqrt(3) / 2] if hexagonal else np.c_[x, y]
    rng = np.random.default_rng(0)
    coords = 137 * coords + rng.normal(0, 1, coords.shape)
    coords = coords[rng.random(len(coords)) < kept]
    space = _graph.spacing(coords, np.zeros(len(coords), np.int32), rng)
    A, _ = _graph.radius_graph(coords, np.zeros(len(coords), np.int32), space.contact_radius, space.context_radius)
    assert space.is_lattice
    assert space.context_radius == 0
    assert np.diff(A.indptr).max() == degree


@pytest.mark.parametrize("hexagonal", [True, False])
def test_pitch_of_scattered_spots_comes_from_the_array(hexagonal: bool) -> None:
    rng = np.random.default_rng(0)
    row, column = (v.ravel() for v in np.meshgrid(np.arange(60), np.arange(60), indexing="ij"))
    positions = np.c_[row, 2 * column + row % 2] if hexagonal else np.c_[row, column]
    turn = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    scale = [np.sqrt(3) / 2, 0.5] if hexagonal else [1, 1]
    coords = 137 * (positions * scale) @ turn + rng.normal(0, 2, positions.shape)
    codes = np.repeat([0, 1], 1800)
    coords[codes == 1] += 9000
    few = rng.choice(3600, 150, replace=False)
    alone = _graph.spacing(coords[few], codes[few], rng)
    space = _graph.spacing(coords[few], codes[few], rng, positions[few])
    assert not alone.is_lattice
    assert (space.is_lattice, space.context_radius) == (True, 0)
    assert space.contact_radius == pytest.approx(1.3 * 137, rel=0.02)
    shuffled = _graph.spacing(coords[few], codes[few], rng, rng.permutation(positions[few]))  # columns of another kind
    assert shuffled == alone


def test_expected_degree_is_the_degree() -> None:
    rng = np.random.default_rng(0)
    coords = rng.random((5000, 2)) * 1000
    codes = rng.integers(0, 2, 5000).astype(np.int32)
    A, _ = _graph.radius_graph(coords, codes, 30.0)
    assert _graph.expected_degree(coords, codes, 30.0, rng) == pytest.approx(A.nnz / 5000, rel=0.15)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("directed", [False, True])
def test_mix_is_the_formula(alpha: float, directed: bool) -> None:
    S, F = (np.triu(sp.random(60, 60, 0.1, "csr", np.float32, random_state=i).toarray(), 1) for i in (1, 2))
    S, F = S + S.T, F + F.T
    if directed:
        S[:5], F[:, 7] = 0, 0
    S[3] = S[:, 3] = 0  # isolated in space
    S, F = sp.csr_matrix(S), sp.csr_matrix(F)
    order = np.concatenate([np.arange(a, b)[::-1] for a, b in zip(S.indptr[:-1], S.indptr[1:], strict=True)])
    S = sp.csr_matrix((S.data[order], S.indices[order], S.indptr), shape=S.shape)  # columns from the last to the first
    before = S.indices.copy()

    def rn(M: sp.csr_matrix) -> np.ndarray:
        dense = M.toarray().astype(float)
        return dense / np.maximum(dense.sum(1, keepdims=True), 1e-30)

    mixed = alpha * rn(S) + (1 - alpha) * rn(F)
    mixed /= np.maximum(mixed.sum(1, keepdims=True), 1e-30)
    found = _graph.mix(S, F, alpha)
    np.testing.assert_allclose(found.toarray(), (mixed + mixed.T) / 2, atol=1e-6)
    assert (found.data > 0).all()
    assert found.has_sorted_indices
    np.testing.assert_array_equal(S.indices, before)


def test_symmetry_is_seen() -> None:
    A = sp.random(80, 80, 0.1, "csr", np.float32, random_state=0)
    A = sp.csr_matrix(A + A.T)
    seen = [_graph._is_symmetric(M.indptr, M.indices, M.data) for M in _variants(A)]
    assert seen == [True, True, False, False, False]


def _variants(A: sp.csr_matrix) -> list[sp.csr_matrix]:
    """As it is; with a diagonal; with one weight changed; with one entry above, below the diagonal left out."""
    other, upper, lower = A.copy(), sp.triu(A, 1).tocsr(), sp.tril(A, -1).tocsr()
    other.data[5] += 1
    upper.data[3] = lower.data[3] = 0
    for part in (upper, lower):
        part.eliminate_zeros()
    with_diagonal = sp.csr_matrix(A + sp.eye(80, dtype=np.float32))
    found = [A, with_diagonal, other, sp.csr_matrix(upper + sp.tril(A, -1)), sp.csr_matrix(lower + sp.triu(A, 1))]
    for M in found:
        M.sort_indices()
    return found


def test_upper_edges_are_each_edge_once() -> None:
    coords, codes = _points(2)
    A, _ = _graph.radius_graph(coords, codes, 8.0, 25.0)
    i, j, w = _graph.upper_edges(A)
    assert (i < j).all()
    assert len(i) == A.nnz // 2
    assert w.sum() == pytest.approx(A.sum() / 2)
