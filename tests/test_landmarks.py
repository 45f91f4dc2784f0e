"""Domains of many observations from Leiden on a sample of them."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score
from support import small_tissue, snapshot

import spanmf as sn
from spanmf.core import _landmarks, _tiles


@pytest.fixture(scope="module")
def tissue() -> ad.AnnData:
    adata = small_tissue(1500)
    sn.gr.contact_neighbors(adata, 20, 60)
    return adata


@pytest.mark.parametrize("n_axes", [3, 40])  # by a tree, and by all pairs
def test_nearest_landmarks_equal_slow_reference(n_axes: int) -> None:
    rng = np.random.default_rng(0)
    Z = rng.random((200, n_axes), dtype=np.float32)
    rows = _landmarks.sample(200, 30, rng)
    found = _landmarks.nearest(Z, rows)
    for i in range(200):
        distance = np.linalg.norm(Z[rows].astype(float) - Z[i].astype(float), axis=1)
        assert found[i].tolist() == np.argsort(distance)[: _landmarks.N_VOTES].tolist()
    assert (found[rows, 0] == np.arange(30)).all()
    assert len(np.unique(rows)) == 30


def test_a_landmark_at_the_place_of_another_stands_for_itself() -> None:
    Z = np.zeros((10, 2), dtype=np.float32)
    found = _landmarks.nearest(Z, np.array([2, 5, 7]))
    assert found.shape == (10, 3)  # of fewer landmarks than votes
    assert found[[2, 5, 7], 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("size", [None, 20])
def test_neighbours_in_space_are_represented_by_their_landmarks(size: int | None) -> None:
    rng = np.random.default_rng(0)
    described = _tiles.RadiusGraph(rng.random((150, 2)) * 100, np.zeros(150, np.int32), 8.0, 20.0, tile_size=size or 10)
    A = described.tocsr()
    rows, stand_in = np.sort(rng.choice(150, 12, replace=False)), rng.integers(0, 12, 150)
    found = _landmarks.graph_among(described if size else A, rows, stand_in).toarray()
    P = np.eye(12)[stand_in]
    expected = A.toarray()[rows] @ P
    np.fill_diagonal(expected, 0)
    assert expected.sum() > 100
    np.testing.assert_allclose(found, expected)


def test_all_observations_as_landmarks_have_the_graph_itself() -> None:
    A = sp.csr_matrix(np.roll(np.eye(9, dtype=np.float32), 1, axis=1))
    assert (_landmarks.graph_among(A, np.arange(9), np.arange(9)) != A).nnz == 0


def test_labels_are_those_of_most_of_the_nearest_and_landmarks_keep_theirs() -> None:
    codes, rows = np.array([7, 4, 4]), np.array([0, 2, 3])  # not 0, 1, …
    nearest = np.array([[0, 1, 2], [0, 1, 2], [1, 2, 0], [2, 1, 0], [1, 0, 0]])
    assert _landmarks.spread(codes, rows, nearest).tolist() == [7, 4, 4, 4, 7]


@pytest.mark.parametrize("store", [True, False])
def test_domains_of_a_sample_are_nearly_those_of_all(tissue: ad.AnnData, store: bool) -> None:
    adata = tissue.copy()
    sn.tl.hsnmf(adata, 6, resolution=0.3)
    full, written = adata.obs["hsnmf"].copy(), set(adata.obsp)
    sn.gr.contact_neighbors(adata, 20, 60, store=store)
    sn.tl.hsnmf(adata, 6, resolution=0.3, n_landmarks=500, key_added="sampled")
    assert adjusted_rand_score(full, adata.obs["sampled"]) > 0.8
    assert adjusted_rand_score(adata.obs["domain"], adata.obs["sampled"]) > 0.8
    assert adata.obs["sampled"].notna().all()
    assert not any(key.startswith("sampled") for key in adata.obsp)
    assert set(adata.obsp) == {k for k in written if store or not k.startswith("contact")}
    assert adata.uns["sampled"]["params"]["n_landmarks"] == 500
    assert "n_landmarks" not in adata.uns["hsnmf"]["params"]


def test_same_seed_same_domains_and_stored_or_described_is_the_same(tissue: ad.AnnData) -> None:
    adata = tissue.copy()
    labels = []
    for seed, store in ((0, True), (0, False), (1, True)):
        sn.gr.contact_neighbors(adata, 20, 60, store=store)
        sn.tl.hsnmf(adata, 6, n_landmarks=300, rng=seed)
        labels.append(adata.obs["hsnmf"].copy())
    assert (labels[0] == labels[1]).all()
    assert not (labels[0] == labels[2]).all()


def test_other_inputs(tissue: ad.AnnData) -> None:
    adata = tissue.copy()
    sn.tl.hsnmf(adata, 6, n_landmarks=300, n_domains=4, clustering="leiden")
    assert adata.obs["hsnmf"].nunique() == 4
    assert adata.uns["hsnmf"]["resolution"] > 0
    adata.obsp.clear()
    adata.uns.clear()
    sn.tl.hsnmf(adata, n_landmarks=300, use_rep="X_hsnmf", smooth=False, alpha=0, key_added="types")  # without space
    assert adata.obs["types"].nunique() > 1


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_landmarks": 5}, ValueError, "at least 15"),
        ({"n_landmarks": 1501}, ValueError, "at most 1500"),
        ({"n_landmarks": 100.0}, TypeError, "integer"),
        ({"n_landmarks": 100, "n_domains": 3}, ValueError, "n_landmarks"),
        ({"n_landmarks": 100, "n_domains": 101, "clustering": "leiden"}, ValueError, "at most 100"),
    ],
)
def test_bad_input(tissue: ad.AnnData, options: dict[str, Any], error: type[Exception], match: str) -> None:
    adata = tissue.copy()
    before = snapshot(adata)
    with pytest.raises(error, match=match):
        sn.tl.hsnmf(adata, 4, **options)
    assert snapshot(adata) == before
