"""Sweeps: every row is what a direct call gives, nothing is made twice, nothing is lost by an interruption."""

from __future__ import annotations

import gzip
import json
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from support import changed, small_tissue, snapshot

import spanmf as sn
from spanmf import _checks
from spanmf.core import _leiden
from spanmf.tl import _fit, _hsnmf

N, GENES = 240, 30
GRID = {"n_components": [3, 4], "beta": [0.2, 0.6], "alpha": [0.0, 0.3], "resolution": [0.3, 1.0], "rng": [0, 7]}
SMALL = {"n_components": [3, 4], "resolution": [0.3, 1.0]}
OPTIONS = {"library_key": "sample", "reference_key": "domain"}

pytestmark = pytest.mark.filterwarnings("ignore::spanmf._checks.ConvergenceWarning")


def tissue(seed: int = 0, *, counts: bool = False) -> ad.AnnData:
    adata = small_tissue(N, GENES, seed=seed)
    if counts:
        adata.X = adata.layers["counts"].copy()
    sn.gr.contact_neighbors(adata, library_key="sample")
    return adata


@pytest.fixture(scope="module")
def swept():
    """The whole grid."""
    adata = tissue()
    return adata, sn.tl.sweep(adata, **GRID, **OPTIONS, keep_labels=True, store=True)


def direct(adata, run, **options) -> ad.AnnData:
    """What hsnmf makes of a row."""
    given = {name: run[name] for name in ("beta", "alpha", "resolution")}
    return sn.tl.hsnmf(
        adata, int(run["n_components"]), rng=int(run["rng"]), **{k: v for k, v in given.items() if not pd.isna(v)},
        **options, copy=True,
    )  # fmt: skip


class Calls:
    """How often the stages run."""

    def __init__(self, monkeypatch):
        self.n = dict.fromkeys(("factorise", "feature_graph", "prepared", "leiden"), 0)
        self.stop_at = None
        for module, name in ((_fit, "factorise"), (_hsnmf, "feature_graph")):
            monkeypatch.setattr(module, name, self.counted(name, getattr(module, name)))
        prepared = _leiden.prepared

        def counted_prepared(A, flavor):
            self.n["prepared"] += 1
            return self.counted("leiden", prepared(A, flavor))

        monkeypatch.setattr(_leiden, "prepared", counted_prepared)

    def counted(self, name, function):
        def call(*args, **kwargs):
            if name == "leiden" and self.n["leiden"] == self.stop_at:
                raise KeyboardInterrupt
            self.n[name] += 1
            return function(*args, **kwargs)

        return call


@pytest.fixture
def calls(monkeypatch):
    return Calls(monkeypatch)


# --- the table ------------------------------------------------------------------------------------------------------


def test_one_row_a_run_in_the_order_of_the_grid(swept):
    _, table = swept
    expected = pd.MultiIndex.from_product(GRID.values(), names=GRID).to_frame(index=False)
    pd.testing.assert_frame_equal(table[list(GRID)], expected)
    assert list(table)[:6] == [*GRID, "key"]
    assert table["key"].is_unique
    assert table["key"][1] == "k3_b0.2_a0_r0.3_s7"
    assert table.index.tolist() == list(range(32))
    assert table["n_clusters"].dtype == np.int64
    assert {"chaos", "silhouette", "morans_i", "marker_coherence", "ari", "explained_variance"} <= {*table}


@pytest.mark.parametrize("row", [0, 7, 13, 18, 31])
def test_a_row_is_what_the_direct_call_gives(swept, row):
    adata, table = swept
    run = table.iloc[row]
    result = direct(adata, run)
    pd.testing.assert_series_equal(
        result.obs["hsnmf"], adata.obsm["sweep_labels"][run["key"]], check_names=False, check_index=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _checks.SpanmfWarning)
        panel = sn.metrics.panel(result, "hsnmf", **OPTIONS).set_index("metric")["value"]
    assert {*panel.index} <= {*table}
    np.testing.assert_allclose(run[panel.index].astype(float), panel, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "paper"},
        {"smoothing": "laplacian", "laplacian_weight": 0.5},
        {"loss": "kl", "layer": "counts"},
        {"scale": "norm", "flavor": "igraph", "n_neighbors": 8, "n_steps": 1, "init": "nndsvda"},
        {"layer": "counts", "normalize": True},
        {"mask_var": np.arange(GENES) < 20},
    ],
    ids=["paper", "laplacian", "kl", "options", "normalize", "mask"],
)
def test_options_are_those_of_hsnmf(options):
    adata = tissue()
    table = sn.tl.sweep(adata, 3, [0.4, 0.9], **options, keep_labels=True)
    for _, run in table.iterrows():
        result = direct(adata, run, **options)
        np.testing.assert_array_equal(result.obs["hsnmf"], adata.obsm["sweep_labels"][run["key"]])
    if options.get("smoothing") == "laplacian":
        assert table["beta"].isna().all()
        assert table["key"][0] == "k3_a0.1_r0.4_s0"
    if options.get("preset"):
        assert (table["alpha"] == 0.5).all()
    assert np.isfinite(table[["explained_variance", "silhouette"]]).all(axis=None)


def test_every_stage_runs_once(calls):
    """2 ranks × 2 seeds, × 2 beta, × 2 alpha, × 2 resolutions."""
    sn.tl.sweep(tissue(), **GRID)
    assert calls.n == {"factorise": 4, "feature_graph": 8, "prepared": 16, "leiden": 32}


def test_same_again_and_by_sparse_or_dense(swept):
    _, table = swept
    first = table[(table["beta"] == 0.6) & (table["alpha"] == 0.3) & (table["rng"] == 7)].reset_index(drop=True)
    for adata in (tissue(), tissue()):
        if adata.X.format == "csr":
            adata.X = adata.X.tocsc()
        again = sn.tl.sweep(adata, **SMALL, alpha=0.3, random_state=7, **OPTIONS)
        pd.testing.assert_frame_equal(again, first)
    adata.X = adata.X.toarray()
    pd.testing.assert_frame_equal(sn.tl.sweep(adata, **SMALL, alpha=0.3, rng=7, **OPTIONS), first)


def test_reasons_of_missing_metrics():
    """Of one cluster most metrics are not defined."""
    table = sn.tl.sweep(tissue(), 3, 1e-5)
    assert table["n_clusters"][0] == 1
    assert table[["chaos", "silhouette"]].isna().all(axis=None)
    assert "silhouette: " in table["note"][0]


def test_gene_sets_are_scored():
    adata = tissue()
    sets = {"one": [f"gene{i}" for i in range(0, 30, 4)], "two": [f"gene{i}" for i in range(1, 30, 4)]}
    assert "enrichment" in sn.tl.sweep(adata, 3, 0.5, gene_sets=sets)
    assert "enrichment" not in sn.tl.sweep(adata, 3, 0.5)


def test_a_packed_file_of_gene_sets(tmp_path):
    sets = {"one": [f"gene{i}" for i in range(0, 30, 4)], "two": [f"gene{i}" for i in range(1, 30, 4)]}
    gmt = tmp_path / "sets.gmt.gz"
    gmt.write_bytes(gzip.compress("".join("\t".join([k, "", *v]) + "\n" for k, v in sets.items()).encode()))
    file = tmp_path / "runs.jsonl"
    first = sn.tl.sweep(tissue(), 3, 0.5, file=file, gene_sets=gmt)
    pd.testing.assert_frame_equal(sn.tl.sweep(tissue(), 3, 0.5, file=file, gene_sets=sets), first)


@pytest.mark.parametrize("sets", [{"one": []}, {"one": ["GENE1", "GENE2", "GENE3"]}], ids=["empty", "not in the table"])
def test_gene_sets_are_checked_before_anything_is_made(tmp_path, monkeypatch, sets):
    monkeypatch.setattr("spanmf.tl._sweep.raw_factors", lambda *_: pytest.fail("factors were made first"))
    with pytest.raises(ValueError, match=r"gives no gene|None of the 1 gene sets"):
        sn.tl.sweep(tissue(), 3, 0.5, file=tmp_path / "runs.jsonl", gene_sets=sets)
    assert not (tmp_path / "runs.jsonl").exists()


# --- what is written ------------------------------------------------------------------------------------------------


def test_nothing_is_written_unasked():
    adata = tissue()
    before = snapshot(adata)
    sn.tl.sweep(adata, 3, 0.4)
    assert not changed(before, snapshot(adata))
    sn.tl.sweep(adata, 3, 0.4, store=True, keep_labels=True, key_added="grid")
    assert {*changed(before, snapshot(adata))} == {"uns/grid", "obsm/grid_labels"}


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning")
def test_round_trip(swept, tmp_path, form):
    adata, table = swept
    adata = adata.copy()
    adata.obsm["sweep_labels"] = adata.obsm["sweep_labels"].iloc[:, :3]  # a store takes its time over each column
    path = tmp_path / f"swept.{form}"
    getattr(adata, f"write_{form}")(path)
    again = getattr(ad, f"read_{form}")(path)
    stored = again.uns["sweep"]["table"].reset_index(drop=True)
    pd.testing.assert_frame_equal(stored, table, check_dtype=False)
    pd.testing.assert_frame_equal(again.obsm["sweep_labels"], adata.obsm["sweep_labels"])
    assert again.uns["sweep"]["params"]["flavor"] == "networkit"
    sn.metrics.pareto_front(stored, {"morans_i": "max", "chaos": "min"})


def test_a_view_is_taken():
    adata = tissue()
    rows = np.arange(0, N, 2)
    part = adata[rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
        table = sn.tl.sweep(part, 3, 0.5, keep_labels=True)
    pd.testing.assert_frame_equal(table, sn.tl.sweep(adata[rows].copy(), 3, 0.5))
    assert part.obsm["sweep_labels"].shape == (N // 2, 1)
    assert "sweep_labels" not in adata.obsm


# --- resuming -------------------------------------------------------------------------------------------------------


def test_an_interrupted_sweep_goes_on(tmp_path, calls):
    adata, file = tissue(), tmp_path / "runs.jsonl"
    whole = sn.tl.sweep(adata, **SMALL)
    calls.n = dict.fromkeys(calls.n, 0)
    calls.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        sn.tl.sweep(adata, **SMALL, file=file)
    assert len(file.read_text().splitlines()) == 1 + 3
    calls.stop_at = None
    pd.testing.assert_frame_equal(sn.tl.sweep(adata, **SMALL, file=file), whole)
    assert calls.n["leiden"] == 4, "a run was lost, or made again"
    assert calls.n["factorise"] == 3, "the rank that was finished is not factorised again"
    calls.n = dict.fromkeys(calls.n, 0)
    pd.testing.assert_frame_equal(sn.tl.sweep(adata, **SMALL, file=str(file)), whole)
    assert not any(calls.n.values())


def test_a_line_cut_short_is_made_again(tmp_path, calls):
    adata, file = tissue(), tmp_path / "runs.jsonl"
    whole = sn.tl.sweep(adata, **SMALL, file=file)
    content = file.read_bytes()
    file.write_bytes(content[:-40])
    calls.n = dict.fromkeys(calls.n, 0)
    pd.testing.assert_frame_equal(sn.tl.sweep(adata, **SMALL, file=file), whole)
    assert calls.n["leiden"] == 1
    assert file.read_bytes() == content


def test_a_sweep_is_extended_and_cut(tmp_path, calls):
    """Runs outside the grid stay in the file and do not come into the table."""
    adata, file = tissue(), tmp_path / "runs.jsonl"
    sn.tl.sweep(adata, **SMALL, file=file)
    calls.n = dict.fromkeys(calls.n, 0)
    table = sn.tl.sweep(adata, [4], [1.0, 0.3, 0.5], file=file)
    assert table["resolution"].tolist() == [1.0, 0.3, 0.5]
    assert calls.n["leiden"] == 1
    assert len(file.read_text().splitlines()) == 1 + 5


def test_labels_are_in_the_file_where_they_are_kept(tmp_path, calls):
    adata, file = tissue(), tmp_path / "runs.jsonl"
    sn.tl.sweep(adata, **SMALL, file=file)
    sn.tl.sweep(adata, **SMALL, file=file, keep_labels=True)
    assert calls.n["leiden"] == 8, "runs without labels are made again"
    labels = adata.obsm.pop("sweep_labels")
    table = sn.tl.sweep(adata, **SMALL, file=file, keep_labels=True)
    assert calls.n["leiden"] == 8
    pd.testing.assert_frame_equal(adata.obsm["sweep_labels"], labels)
    assert "labels" not in table


def other_values():
    adata = tissue()
    adata.X = adata.X.copy()
    adata.X.data[5] += 1
    return adata


def other_graph():
    adata = small_tissue(N, GENES)
    sn.gr.contact_neighbors(adata)
    return adata


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (lambda: tissue(1), {}, "the values"),
        (lambda: tissue()[: N - 1].copy(), {}, "the observations"),
        (other_values, {}, "another table or with other options. What differs: the values. "),
        (other_graph, {}, "the graph. "),
        (tissue, {"n_steps": 1}, r"`n_steps` \(2 there, 1 now\)"),
        (tissue, {"preset": "paper"}, r"`flavor` \('networkit' there, 'leidenalg' now\)"),
        (tissue, {"library_key": None}, "the libraries. "),
        (tissue, {"reference_key": "domain"}, "the reference labels"),
        (tissue, {"gene_sets": {"0": ["gene1", "gene2", "gene3"]}}, "the gene sets"),
        (tissue, {"mask_var": np.arange(GENES) < 20}, "the variables in use"),
    ],
    ids=["tissue", "cells", "values", "graph", "option", "preset", "library", "reference", "sets", "mask"],
)
def test_a_file_of_another_table_is_refused(tmp_path, make, options, says):
    file = tmp_path / "runs.jsonl"
    sn.tl.sweep(tissue(), 3, 0.5, file=file, library_key="sample")
    before = file.read_bytes()
    with pytest.raises(ValueError, match=says):
        sn.tl.sweep(make(), 3, 0.5, file=file, **{"library_key": "sample"} | options)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,2\n", "is not a file of a sweep"),
        ("no line end", "is not a file of a sweep"),
        (None, "Line 2 .* is damaged"),
    ],
    ids=["csv", "text", "damaged"],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, says):
    file = tmp_path / "runs.jsonl"
    sn.tl.sweep(tissue(), 3, 0.5, file=file)
    head, row = file.read_text().splitlines()
    file.write_text(f"{head}\n{row[:30]}\n{row}\n" if content is None else content)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=says):
        sn.tl.sweep(tissue(), 3, 0.5, file=file)
    assert file.read_bytes() == before


def test_an_empty_file_is_a_new_one(tmp_path):
    file = tmp_path / "runs.jsonl"
    file.touch()
    sn.tl.sweep(tissue(), 3, 0.5, file=file)
    assert [*map(bool, map(json.loads, file.read_text().splitlines()))] == [True, True]
    assert [p.name for p in tmp_path.iterdir()] == ["runs.jsonl"]


def test_no_folder_for_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        sn.tl.sweep(tissue(), 3, 0.5, file=tmp_path / "none" / "runs.jsonl")


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"n_components": []}, ValueError, "`n_components` is empty"),
        ({"resolution": []}, ValueError, "`resolution` is empty"),
        ({"resolution": [0.4, 0.2, 0.4]}, ValueError, "`resolution` has 0.4 more than once"),
        ({"n_components": [3, 3.0]}, TypeError, "`n_components` must be an integer"),
        ({"n_components": [3, 0]}, ValueError, "`n_components` must be at least 1"),
        ({"n_components": [3, GENES + 1]}, ValueError, f"`n_components` is {GENES + 1}, more than"),
        ({"resolution": 0}, ValueError, "`resolution` must be more than 0"),
        ({"alpha": [0.1, 2]}, ValueError, "`alpha` must be"),
        ({"beta": [-0.1]}, ValueError, "`beta` must be"),
        ({"rng": [0, -1]}, ValueError, "`rng` must be at least 0"),
        ({"rng": np.random.default_rng(0)}, TypeError, "`rng` must be an integer"),
        ({"random_state": [1, 1]}, ValueError, "`random_state` has 1 more than once"),
        ({"init": np.ones((3, GENES))}, TypeError, "`init` must be the name"),
        ({"flavor": "louvain"}, ValueError, "`flavor` must be one of"),
        ({"keep_labels": "yes"}, TypeError, "`keep_labels` must be True or False"),
        ({"smoothing": "laplacian", "beta": [0.1, 0.2]}, ValueError, "`beta` has no effect"),
        ({"layer": "lognorm"}, KeyError, "'lognorm' is not in"),
        ({"library_key": "core"}, KeyError, "'core' is not in"),
        ({"reference_key": "truth"}, KeyError, "'truth' is not in"),
        ({"key_added": "a/b"}, ValueError, "`key_added`"),
    ],
)
def test_bad_options_are_refused_before_any_work(options, error, says, calls, tmp_path):
    adata, file = tissue(), tmp_path / "runs.jsonl"
    before = snapshot(adata)
    with pytest.raises(error, match=says):
        sn.tl.sweep(adata, **SMALL | options, file=file, store=True)
    assert not changed(before, snapshot(adata))
    assert calls.n["factorise"] == 0
    assert not file.exists()


def test_no_graph():
    with pytest.raises(KeyError, match=r"sn\.gr\.contact_neighbors"):
        sn.tl.sweep(small_tissue(N, GENES), 3, 0.5)
