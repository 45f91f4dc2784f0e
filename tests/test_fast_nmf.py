"""FAST: its objective is the slow one and never rises; planted shares; the graph helps; bad input."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment

import spanmf as sn
from spanmf.core import _fast, _ops, _smooth
from spanmf.tl._fast_nmf import to_median_depth


def planted(seed: int, depth: float) -> ad.AnnData:
    """Four types around four centres on a lattice; depths that differ from spot to spot."""
    rng = np.random.default_rng(seed)
    xy = np.stack(np.divmod(np.arange(400), 20), 1).astype(float)
    V = np.exp(-((xy[:, None] - [[4, 4], [4, 15], [15, 5], [15, 15]]) ** 2).sum(-1) / 32)
    V /= V.sum(1, keepdims=True)
    B = rng.gamma(0.4, 1, (4, 150))
    B /= B.sum(1, keepdims=True)
    X = rng.poisson(rng.lognormal(np.log(depth), 0.5, (400, 1)) * (V @ B))
    adata = ad.AnnData(sp.csr_matrix(X, dtype=np.float32), obsm={"spatial": xy, "V_true": V})
    sn.gr.contact_neighbors(adata)
    return adata


def error(adata: ad.AnnData) -> float:
    W, V = adata.obsm["X_fast_nmf"], adata.obsm["V_true"]
    i, j = linear_sum_assignment(-np.corrcoef(W.T, V.T)[:4, 4:])
    return float(np.linalg.norm(W[:, i] - V[:, j]) / np.linalg.norm(V))


@pytest.mark.parametrize("graph_weight", [0.0, 3.0])
@pytest.mark.parametrize("sum_weight", [0.0, 200.0])
def test_objective_is_the_slow_one_and_never_rises(graph_weight, sum_weight):
    adata = planted(0, 200)
    A = adata.obsp["contact_connectivities"]
    rows = _ops.as_rows(adata.X)
    H = np.random.default_rng(1).random((4, 150))
    result = _fast.fit(
        rows, H, _smooth.as_graph(A), graph_weight=graph_weight, sum_weight=sum_weight, max_iter=60, tol=1e-9
    )
    W, H = result.W.astype(float), result.H.astype(float)
    L = np.diag(np.asarray(A.sum(1)).ravel()) - A.toarray()
    slow = 0.5 * np.linalg.norm(adata.X.toarray() - W @ H) ** 2 + 0.5 * graph_weight * np.trace(W.T @ L @ W)
    slow += 0.5 * sum_weight * ((W.sum(1) - 1) ** 2).sum()
    assert result.trace[-1] == pytest.approx(slow, rel=1e-5)
    assert (np.diff(result.trace) <= 0).all()
    assert result.trace[-1] < 0.95 * result.trace[0]


def test_planted_shares_are_found_and_the_graph_helps():
    rich = planted(0, 1000)
    sn.tl.fast_nmf(rich, 4)
    assert error(rich) < 0.12
    W = rich.obsm["X_fast_nmf"]
    np.testing.assert_allclose(W.sum(1), 1, atol=1e-5)
    assert (W >= 0).all()
    errors = {weight: [] for weight in (0, 0.3)}
    for seed in range(3):
        poor = planted(seed, 100)
        for weight, found in errors.items():
            sn.tl.fast_nmf(poor, 4, graph_weight=weight)
            found.append(error(poor))
    assert np.mean(errors[0.3]) < 0.9 * np.mean(errors[0])


def test_sum_to_one_holds_before_the_rows_are_divided():
    adata = planted(0, 300)
    rows = to_median_depth(_ops.as_rows(adata.X))
    depth = _ops.row_sums(rows)
    np.testing.assert_allclose(depth, np.median(np.asarray(adata.X.sum(1))), rtol=1e-4)
    H = np.random.default_rng(0).random((4, 150))
    unit = _ops.squared_norm(rows) / 400
    off = [
        np.abs(_fast.fit(rows, H, None, graph_weight=0, sum_weight=w * unit).W.sum(1) - 1).mean() for w in (0.01, 10)
    ]
    assert off[1] < 0.1 * off[0]


def test_writes_its_slots_and_repeats(tmp_path):
    adata = planted(0, 300)
    adata.X = sp.csr_matrix(adata.X.multiply(np.arange(400)[:, None] != 7), dtype=np.float32)
    adata.X.eliminate_zeros()
    dense = adata.copy()
    dense.X = dense.X.toarray()
    first = sn.tl.fast_nmf(adata, 4, copy=True, rng=3)
    sn.tl.fast_nmf(dense, 4, rng=3)
    assert "X_fast_nmf" not in adata.obsm
    np.testing.assert_array_equal(first.obsm["X_fast_nmf"], dense.obsm["X_fast_nmf"])
    assert not first.obsm["X_fast_nmf"][7].any()
    assert first.obs["fast_nmf"].isna().sum() == 1
    assert first.varm["fast_nmf_loadings"].shape == (150, 4)
    first.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(back.obsm["X_fast_nmf"], first.obsm["X_fast_nmf"])
    assert back.uns["fast_nmf"]["params"]["connectivity_key"] == "contact_connectivities"


@pytest.mark.parametrize(
    ("options", "error_type", "match"),
    [
        ({"n_components": 0}, ValueError, "n_components"),
        ({"graph_weight": -1}, ValueError, "graph_weight"),
        ({"sum_weight": np.nan}, ValueError, "sum_weight"),
        ({"connectivity_key": "none"}, KeyError, "'none'"),
        ({"init": "best"}, ValueError, "`init` must be"),
        ({"layer": "none"}, KeyError, "layers"),
    ],
)
def test_bad_input(options, error_type, match):
    adata = planted(0, 100)
    with pytest.raises(error_type, match=match):
        sn.tl.fast_nmf(adata, **({"n_components": 3} | options))
    assert "X_fast_nmf" not in adata.obsm
    negative = adata.copy()
    negative.X.data[:3] = -1
    with pytest.raises(ValueError, match="3 negative"):
        sn.tl.fast_nmf(negative, 3)
