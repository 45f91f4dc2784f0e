"""Clusters of observations that lack a modality: no worse than the truth allows, confidence that holds, bad input."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.cluster.hierarchy import cut_tree, linkage
from sklearn.metrics import adjusted_rand_score
from support import changed, small_tissue, snapshot

import spanmf as sn
from spanmf import _mudata
from spanmf.core import _annotation
from spanmf.datasets._rna_protein import SAME_RNA


@pytest.fixture(scope="module")
def partial() -> md.MuData:
    mdata = sn.datasets.rna_protein_tissue(3000, missing=0.3, rng=1)
    sn.tl.joint_nmf(mdata, 12)
    return mdata


def truth_of(mdata: md.MuData) -> np.ndarray:
    return mdata.mod["rna"].obs["cell_type"].astype(str).to_numpy()


def has_protein(mdata: md.MuData) -> np.ndarray:
    return np.isin(mdata.obs_names, mdata.mod["protein"].obs_names)


def renamed(mdata: md.MuData, key: str) -> np.ndarray:
    """Each cluster by its most frequent type."""
    table = pd.crosstab(mdata.obs[key].to_numpy(), truth_of(mdata))
    return mdata.obs[key].map(table.idxmax(axis=1)).astype(str).to_numpy()


def test_what_rna_shows_is_told_apart_and_the_rest_is_said_to_be_unsure(partial: md.MuData) -> None:
    sn.tl.assign_clusters(partial, 10)
    truth, there = truth_of(partial), has_protein(partial)
    found, sure = renamed(partial, "assign_clusters"), partial.obs["assign_clusters_confidence"].to_numpy()
    assert adjusted_rand_score(truth[there], found[there]) > 0.85
    pair = {b: a for a, b in SAME_RNA}
    alike = np.isin(truth, [*pair, *pair.values()])
    by_rna = [np.array([pair.get(t, t) for t in x]) for x in (truth, found)]
    assert (by_rna[0] == by_rna[1])[~there].mean() > 0.93  # RNA knows the pair, not which of the two
    assert sure[~there & alike].mean() < 0.8
    assert sure[~there & ~alike].mean() > 0.9
    right = found == truth
    assert abs(sure[~there].mean() - right[~there].mean()) < 0.08
    everything = adjusted_rand_score(truth, found)
    assert everything > adjusted_rand_score(truth, partial.obs["joint_nmf"])


def test_neighbours_help_what_is_missing_and_touch_nothing_else(partial: md.MuData) -> None:
    mdata = _mudata.copy(partial)
    sn.gr.contact_neighbors(mdata.mod["rna"])
    there, right = has_protein(mdata), {}
    for use in (False, True):
        sn.tl.assign_clusters(mdata, 10, use_neighbors=use)
        right[use] = renamed(mdata, "assign_clusters") == truth_of(mdata)
    assert right[True][~there].mean() > right[False][~there].mean() + 0.08
    assert (right[True] == right[False])[there].all()


def test_merging_is_wards() -> None:
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(30, 4))
    ours = _annotation.merged(Z, np.ones(30), 5)
    theirs = cut_tree(linkage(Z, "ward"), 5).ravel()
    assert adjusted_rand_score(ours, theirs) == 1
    assert (np.diff(np.bincount(ours)) <= 0).all()
    # a cluster of m observations counts as m observations at its centre
    repeats = rng.integers(1, 6, 12)
    ours = _annotation.merged(Z[:12], repeats, 4)
    tied = cut_tree(linkage(np.repeat(Z[:12], repeats, axis=0), "ward"), 4).ravel()
    assert adjusted_rand_score(np.repeat(ours, repeats), tied) == 1


def test_either_modality_may_be_the_missing_one() -> None:
    whole = sn.datasets.rna_protein_tissue(2000, rng=3)
    rna, protein = whole.mod["rna"][300:].copy(), whole.mod["protein"][:-300].copy()
    mdata = sn.tl.joint_nmf({"rna": rna, "protein": protein}, 12)
    sn.tl.assign_clusters(mdata, 10)
    truth = whole.mod["rna"].obs["cell_type"].astype(str).reindex(mdata.obs_names).to_numpy()
    lacks = {m: ~np.isin(mdata.obs_names, mdata.mod[m].obs_names) for m in mdata.mod}
    found = mdata.obs["assign_clusters"].to_numpy()
    table = pd.crosstab(found, truth)
    named = mdata.obs["assign_clusters"].map(table.idxmax(axis=1)).astype(str).to_numpy()
    same = {"B": "plasma"}  # proteins do not tell these apart
    for m in ("rna", "protein"):
        pair = same if m == "rna" else dict(SAME_RNA)
        joined = [np.array([pair.get(t, t) for t in x]) for x in (truth, named)]
        assert (joined[0] == joined[1])[lacks[m]].mean() > 0.85


def test_one_table_and_the_usual_number() -> None:
    adata = small_tissue(300)
    sn.tl.nmf(adata, 4)
    assert sn.tl.assign_clusters(adata, key="nmf") is None
    assert adata.obs["assign_clusters"].nunique() == 4
    assert adata.obs["assign_clusters_confidence"].between(0, 1).all()


@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning")
def test_same_seed_same_clusters_and_they_are_stored(partial: md.MuData, tmp_path) -> None:
    for key in ("a", "b"):
        sn.tl.assign_clusters(partial, 8, rng=5, key_added=key)
    assert (partial.obs["a"] == partial.obs["b"]).all()
    assert (partial.obs["a_confidence"] == partial.obs["b_confidence"]).all()
    assert partial.uns["a"]["params"]["n_clusters"] == 8
    adata = small_tissue(200)
    sn.tl.nmf(adata, 4)
    sn.tl.assign_clusters(adata, 3, key="nmf")
    for suffix, write, read in (("h5ad", "write_h5ad", ad.read_h5ad), ("zarr", "write_zarr", ad.read_zarr)):
        getattr(adata, write)(tmp_path / f"x.{suffix}")
        again = read(tmp_path / f"x.{suffix}")
        assert list(again.obs["assign_clusters"]) == list(adata.obs["assign_clusters"])
        assert again.uns["assign_clusters"]["params"]["key"] == "nmf"


def test_sparse_and_dense_are_the_same(partial: md.MuData) -> None:
    dense = _mudata.copy(partial)
    dense.mod["rna"].X = dense.mod["rna"].X.toarray()
    dense.mod["protein"].X = sp.csr_matrix(dense.mod["protein"].X)
    for mdata in (dense, partial):
        sn.tl.assign_clusters(mdata, 10)
    assert (dense.obs["assign_clusters"] == partial.obs["assign_clusters"]).all()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_clusters": 1}, ValueError, "n_clusters"),
        ({"n_clusters": 2.5}, TypeError, "n_clusters"),
        ({"n_clusters": 90}, ValueError, "more than can be found among 100"),
        ({"key": "gone"}, KeyError, "gone"),
        ({"use_neighbors": True}, ValueError, "one modality.*no effect"),
        ({"connectivity_key": "contact"}, ValueError, "one modality.*no effect"),
        ({"key_added": "a/b"}, ValueError, "key_added"),
    ],
)
def test_bad_input(options: dict, error: type, match: str) -> None:
    adata = small_tissue(100)
    sn.tl.nmf(adata, 4)
    before = snapshot(adata)
    with pytest.raises(error, match=match):
        sn.tl.assign_clusters(adata, **({"key": "nmf"} | options))
    assert not changed(before, snapshot(adata))


def test_a_graph_without_neighbours_asked_for(partial: md.MuData) -> None:
    with pytest.raises(ValueError, match=r"use_neighbors=False.*no effect"):
        sn.tl.assign_clusters(partial, connectivity_key="contact")
    with pytest.raises(KeyError, match="contact"):
        sn.tl.assign_clusters(partial, use_neighbors=True)
