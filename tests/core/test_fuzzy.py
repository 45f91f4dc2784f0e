"""Weights of the graph of nearest neighbours, against scanpy's (UMAP's)."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from sklearn.neighbors import KNeighborsTransformer

from spanmf.core import _fuzzy, _knn

rng = np.random.default_rng(0)
COINCIDENT = rng.random((300, 4))
COINCIDENT[:40], COINCIDENT[50:55] = COINCIDENT[0], COINCIDENT[50]
POINTS = {
    "uniform": rng.random((400, 3)),
    "heavy tails": np.exp(3 * rng.standard_normal((400, 5))),
    "coincident": COINCIDENT,
    "lattice": rng.integers(0, 4, (300, 3)),
    "one place": np.ones((30, 3)),
    "few": rng.random((5, 3)),
    "many dimensions": rng.random((200, _knn.MAX_DIMENSIONS + 5)),
}


class Given(KNeighborsTransformer):
    """Our nearest neighbours for scanpy, so that ties fall alike."""

    def fit_transform(self, X: np.ndarray, y: None = None) -> sp.csr_matrix:
        n, k = len(X), self.n_neighbors
        indices, distances = _knn.nearest(X, k)
        return sp.csr_matrix((distances.ravel(), indices.ravel(), range(0, n * k + 1, k)), shape=(n, n))


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("k", [2, 5, 15])
def test_weights_are_those_of_scanpy(name: str, k: int) -> None:
    Z = POINTS[name].astype(np.float32)
    k = min(k, len(Z))
    A = _fuzzy.fuzzy_graph(*_knn.nearest(Z, k))
    holder = ad.AnnData(np.zeros((len(Z), 1), np.float32), obsm={"Z": Z})
    sc.pp.neighbors(holder, n_neighbors=k, use_rep="Z", transformer=Given(n_neighbors=k))
    expected = sp.csr_matrix(holder.obsp["connectivities"])
    assert A.dtype == np.float32
    assert A.nnz == expected.nnz
    np.testing.assert_allclose(A.toarray(), expected.toarray(), atol=1e-6)
    assert abs(A - A.T).max() < 1e-6


def test_tree_and_pairs_find_the_same_neighbours() -> None:
    Z = np.random.default_rng(1).random((300, 8)).astype(np.float32)
    for by_tree, by_pairs in zip(_knn._by_tree(Z, 10), _knn._by_pairs(Z, 10), strict=True):
        np.testing.assert_allclose(by_tree, by_pairs, atol=1e-5)


@pytest.mark.parametrize("find", [_knn._by_tree, _knn._by_pairs])
def test_a_point_is_its_own_first_neighbour(find) -> None:
    indices, distances = find(COINCIDENT, 6)
    np.testing.assert_array_equal(indices[:, 0], np.arange(len(COINCIDENT)))
    assert (distances[:, 0] == 0).all()
