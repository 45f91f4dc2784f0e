"""Weights of the deconvolution, chosen on spots made of the reference's own cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from support import typed_cells

import spanmf as sn
from spanmf.core import _stl_tune
from spanmf.core._stl_model import DEFAULTS, Reference
from spanmf.core._stl_spots import Cells

NAMES = ["reference_weight", "graph_weight", "region_weight"]


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return typed_cells(["a", "b", "c"], 90, 120)


@pytest.fixture
def section(cells: ad.AnnData) -> ad.AnnData:
    """Two halves of even composition, of so few counts that the neighbours say more than the spot."""
    rng = np.random.default_rng(1)
    shares = np.array([[0.8, 0.15, 0.05], [0.1, 0.2, 0.7]])[np.arange(64) // 32]
    mean = shares @ np.stack([np.asarray(cells[cells.obs["type"] == t].X.mean(0)).ravel() for t in "abc"])
    section = ad.AnnData(sp.csr_matrix(rng.poisson(40 * mean / mean.sum(1, keepdims=True)).astype(np.float32)))
    section.var_names = cells.var_names
    section.obsm["spatial"] = np.stack(np.divmod(np.arange(64), 8), 1) * 100.0
    section.obs["region"] = pd.Categorical(np.where(np.arange(64) < 32, "left", "right"))
    sn.gr.contact_neighbors(section)
    return section


def as_arrays(cells: ad.AnnData, section: ad.AnnData) -> tuple[_stl_tune.Section, Reference, Cells]:
    own = Cells(sp.csr_matrix(cells.X), cells.obs["type"].cat.codes.to_numpy().astype(int), 3)
    graph = sp.csr_matrix(section.obsp["contact_connectivities"])
    return _stl_tune.Section(sp.csr_matrix(section.X), graph), own.reference(), own


def test_descent_finds_the_lowest_point_one_weight_at_a_time() -> None:
    target = {"reference_weight": 8.0, "graph_weight": 0.0, "region_weight": 0.0}

    def error(weights: dict[str, float]) -> float:
        rank = {name: list(values) for name, values in _stl_tune.VALUES.items()}
        return 1 + sum(abs(rank[n].index(weights[n]) - rank[n].index(target[n])) for n in weights)

    begin = _stl_tune.weights_of(DEFAULTS)
    assert _stl_tune.descend(begin, list(target), error) == target
    assert _stl_tune.descend(begin, ["graph_weight"], error) == begin | {"graph_weight": 0.0}


def test_descent_ignores_small_gains() -> None:
    begin = _stl_tune.weights_of(DEFAULTS)
    assert _stl_tune.descend(begin, NAMES, lambda weights: 1 - 1e-4 * weights["graph_weight"]) == begin


def test_log_likelihood_of_held_out_genes_equals_the_slow_one() -> None:
    rng = np.random.default_rng(0)
    X, cells, profiles = rng.poisson(2.0, (5, 7)), rng.dirichlet(np.ones(3), 5), rng.gamma(1, 1, (3, 7))
    expected = [
        sum(x * np.log(mu / sum(v @ profiles)) for x, mu in zip(row, v @ profiles, strict=True) if x)
        for row, v in zip(X, cells, strict=True)
    ]
    np.testing.assert_allclose(_stl_tune.log_likelihood(sp.csr_matrix(X), cells, profiles), expected)


def test_held_out_genes_tell_a_reference_that_was_spoilt(cells: ad.AnnData, section: ad.AnnData) -> None:
    part, reference, _ = as_arrays(cells, section)
    drowned = replace(DEFAULTS, graph_weight=1e5, likelihood="poisson", platform=False)  # all spots the same
    before = replace(drowned, graph_weight=10.0)
    assert _stl_tune.held_out_loss(part, reference, before, drowned, np.random.default_rng(0)) > 0
    assert _stl_tune.held_out_loss(part, reference, before, before, np.random.default_rng(0)) == 0


@pytest.mark.parametrize(("loss", "accepted"), [(1.0, True), (3.0, False)])
def test_what_is_best_counts_only_if_held_out_genes_agree(
    cells: ad.AnnData, section: ad.AnnData, loss: float, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stl_tune, "held_out_loss", lambda *_: loss)
    monkeypatch.setattr(_stl_tune, "descend", lambda begin, *_: begin | {"graph_weight": 30.0})
    found = _stl_tune.tune(
        *as_arrays(cells, section),
        start=DEFAULTS,
        cells_per_spot=(3, 6),
        rng=np.random.default_rng(0),
    )
    assert found.accepted is accepted
    assert found.weights["graph_weight"] == (30.0 if accepted else 10.0)


def test_call(cells: ad.AnnData, section: ad.AnnData, tmp_path: Path) -> None:
    reference = sn.tl.reference_profiles(cells, "type")
    weights = sn.tl.select_stl_weights(section, reference, region_key="region", cells_per_spot=(3, 6))
    record = section.uns["select_stl_weights"]
    trials = record["trials"]
    begin = trials.query("reference_weight == 2 and graph_weight == 10 and region_weight == 0")["error"].item()
    best = trials[np.all([trials[n] == record["best"][n] for n in NAMES], axis=0)]["error"].item()
    assert list(weights) == NAMES
    assert best <= begin
    assert weights == (record["best"] if record["accepted"] else {**_stl_tune.weights_of(DEFAULTS)})
    assert sn.tl.select_stl_weights(section, reference, region_key="region", cells_per_spot=(3, 6)) == weights
    sn.tl.stl_nmf(section, reference, region_key="region", **weights)
    section.write_h5ad(tmp_path / "section.h5ad")
    stored = ad.read_h5ad(tmp_path / "section.h5ad").uns["select_stl_weights"]
    pd.testing.assert_frame_equal(stored["trials"], trials, check_names=False)


def test_sparse_equals_dense(cells: ad.AnnData, section: ad.AnnData) -> None:
    reference = sn.tl.reference_profiles(cells, "type")
    dense = section.copy()
    dense.X = section.X.toarray()
    assert sn.tl.select_stl_weights(dense, reference) == sn.tl.select_stl_weights(section, reference)
    pd.testing.assert_frame_equal(*(a.uns["select_stl_weights"]["trials"] for a in (dense, section)))


def test_least_squares_leaves_nothing_to_choose(cells: ad.AnnData, section: ad.AnnData) -> None:
    reference = sn.tl.reference_profiles(cells, "type")
    section.X = np.floor(20 * reference.X[np.arange(64) % 3]).astype(np.float32)  # no noise of counting
    weights = sn.tl.select_stl_weights(section, reference)
    assert weights == _stl_tune.weights_of(DEFAULTS)
    assert section.uns["select_stl_weights"]["trials"].empty


def test_bad_input_leaves_the_table_as_it_was(cells: ad.AnnData, section: ad.AnnData) -> None:
    reference = sn.tl.reference_profiles(cells, "type")
    before = set(section.uns)
    with pytest.raises(ValueError, match=r"(?s)holds no cells.*keep_cells"):
        sn.tl.select_stl_weights(section, sn.tl.reference_profiles(cells, "type", keep_cells=0))
    with pytest.raises(ValueError, match="cells_per_spot"):
        sn.tl.select_stl_weights(section, reference, cells_per_spot=(5, 2))
    with pytest.raises(KeyError, match="nowhere"):
        sn.tl.select_stl_weights(section, reference, region_key="nowhere")
    section.X.data[0] = -1
    with pytest.raises(ValueError, match="negative"):
        sn.tl.select_stl_weights(section, reference)
    assert set(section.uns) == before
