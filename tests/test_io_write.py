"""Writing for other programs: groups for Xenium Explorer, results back into a SpatialData."""

from __future__ import annotations

import os
import types

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from support import changed, small_tissue, snapshot

import spanmf as sn
from spanmf._checks import SpanmfWarning
from spanmf.io._folder import whole_file

N = 60


@pytest.fixture
def tissue() -> ad.AnnData:
    out = small_tissue(N, 12)
    out.obs_names = [f"aaa{chr(97 + i // 26)}{chr(97 + i % 26)}-1" for i in range(N)]  # as Xenium writes them
    out.obs["domain"] = out.obs["domain"].cat.rename_categories({"0": "tumour, invasive", "1": 'the "edge"'})
    out.obs.loc[out.obs_names[:3], "domain"] = np.nan
    return out


# --- Xenium Explorer ------------------------------------------------------------------------------------------------


def test_groups_come_back(tissue, tmp_path):
    before = snapshot(tissue)
    assert sn.io.write_xenium_explorer(tissue, "domain", tmp_path / "groups.csv") is None
    found = pd.read_csv(tmp_path / "groups.csv", index_col="cell_id", dtype=str)
    assert found.columns.tolist() == ["group"]
    expected = tissue.obs["domain"].dropna().astype(str)
    assert found.index.tolist() == expected.index.tolist()  # those without a label are left out
    assert found["group"].tolist() == expected.tolist()
    assert changed(before, snapshot(tissue)) == []
    assert os.listdir(tmp_path) == ["groups.csv"]


def test_header_is_as_the_explorer_wants_it(tissue, tmp_path):
    sn.io.write_xenium_explorer(tissue, "domain", tmp_path / "g.csv", palette=["red", "#00FF00", (0, 0, 1), "0.5"])
    lines = (tmp_path / "g.csv").read_bytes().split(b"\n")
    assert lines[0] == b"cell_id,group,color"
    assert lines[-1] == b""
    assert not any(line.endswith(b"\r") for line in lines)


def test_colours_follow_the_labels(tissue, tmp_path):
    names = tissue.obs["domain"].cat.categories
    tissue.uns["domain_colors"] = ["#0072b2", "#e69f00", "#009e73", "#d55e00"]
    stored = dict(zip(names, tissue.uns["domain_colors"], strict=True))
    sn.io.write_xenium_explorer(tissue, "domain", tmp_path / "stored.csv")
    table = pd.read_csv(tmp_path / "stored.csv")
    assert (table["color"] == table["group"].map(stored)).all()
    given = dict.fromkeys(names, "black") | {names[0]: "tab:blue"}
    sn.io.write_xenium_explorer(tissue, "domain", tmp_path / "given.csv", palette=given)
    table = pd.read_csv(tmp_path / "given.csv")
    assert (table["color"] == np.where(table["group"] == names[0], "#1f77b4", "#000000")).all()


def test_stored_colours_stay_with_their_labels_where_a_category_is_unused(tissue, tmp_path):
    names = list(tissue.obs["domain"].cat.categories)
    tissue.uns["domain_colors"] = ["#0072b2", "#e69f00", "#009e73", "#d55e00"]
    part = tissue[tissue.obs["domain"] != names[0]].copy()
    part.obs["domain"] = pd.Categorical(part.obs["domain"].astype(object), categories=names)
    part.uns["domain_colors"] = tissue.uns["domain_colors"]
    sn.io.write_xenium_explorer(part, "domain", tmp_path / "g.csv")
    table = pd.read_csv(tmp_path / "g.csv")
    assert names[0] not in set(table["group"])
    assert (table["color"] == table["group"].map(dict(zip(names, part.uns["domain_colors"], strict=True)))).all()


def test_colours_of_other_labels_are_not_used(tissue, tmp_path):
    tissue.uns["domain_colors"] = ["#0072b2"]
    sn.io.write_xenium_explorer(tissue, "domain", tmp_path / "g.csv")
    assert pd.read_csv(tmp_path / "g.csv").columns.tolist() == ["cell_id", "group"]


def test_ids_of_a_column_and_a_compressed_file(tissue, tmp_path):
    tissue.obs["xenium_id"] = np.arange(N)  # early runs number their cells
    sn.io.write_xenium_explorer(tissue, "domain", tmp_path / "g.csv.gz", cell_id_key="xenium_id")
    assert (tmp_path / "g.csv.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert pd.read_csv(tmp_path / "g.csv.gz")["cell_id"].tolist() == list(range(3, N))


BAD = {
    "no such key": ({"key": "nothing"}, KeyError, "nothing"),
    "all missing": ({"key": "empty"}, ValueError, "nothing to write"),
    "ids twice": ({"cell_id_key": "twice"}, ValueError, "more than once"),
    "ids missing": ({"cell_id_key": "holes"}, ValueError, r"missing \(NaN\) for 57 cells"),
    "no such ids": ({"cell_id_key": "nowhere"}, KeyError, "nowhere"),
    "too few colours": ({"palette": ["red"]}, ValueError, "no colour for"),
    "no colour": ({"palette": ["red", "blue", "green", "loud"]}, ValueError, "'loud', which is no colour"),
    "no such folder": ({"path": "none/g.csv"}, FileNotFoundError, "none"),
    "a folder": ({"path": "."}, IsADirectoryError, "is a folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_leaves_what_was_there(tissue, tmp_path, case):
    options, error, match = BAD[case]
    tissue.obs["empty"] = pd.Categorical([None] * N, categories=["x"])
    tissue.obs["twice"] = "cell"
    tissue.obs["holes"] = [*"abc", *[None] * (N - 3)]
    (tmp_path / "g.csv").write_text("old")
    options = {"key": "domain", "path": "g.csv"} | options
    options["path"] = tmp_path / options["path"]
    with pytest.raises(error, match=match):
        sn.io.write_xenium_explorer(tissue, **options)
    assert os.listdir(tmp_path) == ["g.csv"]
    assert (tmp_path / "g.csv").read_text() == "old"


def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    (tmp_path / "f.csv").write_text("old")

    def interrupted():
        with whole_file(tmp_path / "f.csv") as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == ["f.csv"]
    assert (tmp_path / "f.csv").read_text() == "old"
    with whole_file(tmp_path / "f.csv") as part:
        part.write_text("new")
    assert (tmp_path / "f.csv").read_text() == "new"
    assert os.listdir(tmp_path) == ["f.csv"]


# --- back into a SpatialData ----------------------------------------------------------------------------------------


@pytest.fixture
def result(tissue) -> ad.AnnData:
    """Domains and factors on a part of the cells, in another order."""
    rng = np.random.default_rng(0)
    out = tissue[rng.permutation(N)[:50]].copy()
    out.obs["hsnmf"] = pd.Categorical(rng.choice(["0", "1", "2"], 50), categories=["0", "1", "2"])
    out.uns["hsnmf_colors"] = ["#0072b2", "#e69f00", "#009e73"]
    out.obsm["X_hsnmf"] = rng.random((50, 3), dtype=np.float32)
    out.varm["hsnmf_loadings"] = rng.random((12, 3), dtype=np.float32)
    return out


def stand_in(table: ad.AnnData, **more: ad.AnnData) -> types.SimpleNamespace:
    """What is read of a SpatialData: its tables."""
    return types.SimpleNamespace(tables={"table": table, **more})


@pytest.mark.filterwarnings("ignore")  # spatialdata's own, on import
def test_real_spatialdata_keeps_the_results_on_disk(tissue, result, tmp_path):
    spatialdata = pytest.importorskip(
        "spatialdata", reason="spatialdata (the extra) is not installed", exc_type=ImportError
    )
    sdata = spatialdata.SpatialData(tables={"table": spatialdata.models.TableModel.parse(tissue.copy())})
    sn.io.to_spatialdata(result, sdata)
    sdata.write(tmp_path / "s.zarr")
    table = spatialdata.read_zarr(tmp_path / "s.zarr").tables["table"]
    check(table, result)
    back = sn.io.read(tmp_path / "s.zarr")
    assert back.obs["hsnmf"].notna().sum() == 50


def check(table: ad.AnnData, result: ad.AnnData) -> None:
    """Every cell has what it has in the result, and no other cell has anything."""
    here = table.obs_names.isin(result.obs_names)
    order = table.obs_names[here]
    assert table.obs["hsnmf"][here].astype(str).tolist() == result.obs["hsnmf"][order].astype(str).tolist()
    assert table.obs["hsnmf"][~here].isna().all()
    assert table.obs["hsnmf"].cat.categories.tolist() == ["0", "1", "2"]
    W = table.obsm["X_hsnmf"]
    assert W.dtype == np.float32
    np.testing.assert_array_equal(W[here], result[order].obsm["X_hsnmf"])
    assert np.isnan(W[~here]).all()
    np.testing.assert_array_equal(table.varm["hsnmf_loadings"], result.varm["hsnmf_loadings"])
    assert list(table.uns["hsnmf_colors"]) == list(result.uns["hsnmf_colors"])


def test_cells_are_matched_by_name(tissue, result):
    before = snapshot(result)
    with pytest.warns(SpanmfWarning, match="10 of 60 cells of the SpatialData are not in `adata`"):
        sn.io.to_spatialdata(result, stand_in(tissue))
    check(tissue, result)
    assert changed(before, snapshot(result)) == []


def test_cells_are_matched_by_a_column(tissue, result):
    tissue.obs["cell_id"] = tissue.obs_names
    expected = tissue.copy()
    tissue.obs_names = [str(i) for i in range(N)]
    with pytest.warns(SpanmfWarning):
        sn.io.to_spatialdata(result, stand_in(tissue), match_on="cell_id")
    tissue.obs_names = expected.obs_names
    check(tissue, result)


def test_instances_that_are_numbers_match_names_that_are_text(tissue, result):
    tissue.obs["instance_id"] = np.arange(N)
    names = pd.Series([str(i) for i in range(N)], index=tissue.obs_names)
    result.obs_names = names[result.obs_names].to_numpy()
    with pytest.warns(SpanmfWarning):
        sn.io.to_spatialdata(result, stand_in(tissue), match_on="instance_id")
    tissue.obs_names = names.to_numpy()
    check(tissue, result)


def test_plain_columns_keep_their_kind(tissue):
    result = tissue[::-1].copy()
    result.obs["area"] = np.arange(N)[::-1]
    result.obs["good"] = result.obs["area"] > 5
    sn.io.to_spatialdata(result, stand_in(tissue), ["area", "good"])
    assert tissue.obs["area"].tolist() == list(range(N))
    assert tissue.obs["area"].dtype.kind == "i"
    assert tissue.obs["good"].dtype == bool


def test_loadings_of_other_genes_are_left_out(tissue, result):
    tissue.varm["hsnmf_loadings"] = np.ones((12, 3), dtype=np.float32)  # of an earlier run
    part = tissue[:, :8].copy()
    with pytest.warns(SpanmfWarning):
        sn.io.to_spatialdata(result, stand_in(part))
    assert "X_hsnmf" in part.obsm
    assert "hsnmf_loadings" not in part.varm
    extra = ad.AnnData(np.ones((N, 2), np.float32), obs=tissue.obs[[]], var=pd.DataFrame(index=["new0", "new1"]))
    more = ad.concat([tissue[:, ::-1], extra], axis=1)
    with pytest.warns(SpanmfWarning):
        sn.io.to_spatialdata(result, stand_in(more))
    np.testing.assert_array_equal(more.varm["hsnmf_loadings"][:12], result.varm["hsnmf_loadings"][::-1])
    assert not more.varm["hsnmf_loadings"][12:].any()


BAD_TARGETS = {
    "not a SpatialData": (lambda t: t, {}, TypeError, "SpatialData"),
    "no such key": (stand_in, {"keys": ["domain", "snmf"]}, KeyError, "snmf"),
    "no such column": (stand_in, {"match_on": "instance_id"}, KeyError, "instance_id"),
    "several tables": (lambda t: stand_in(t, other=t), {}, KeyError, "table_key"),
    "nothing in common": (stand_in, {"match_on": "area"}, ValueError, "No cell is in both"),
    "instances of two regions": (stand_in, {"match_on": "twice"}, ValueError, "more than once"),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_bad_target_is_named_and_left_alone(tissue, result, case):
    make, options, error, match = BAD_TARGETS[case]
    tissue.obs["area"] = 1.5
    tissue.obs["twice"] = np.repeat(result.obs_names[:30], 2).to_numpy()
    before = snapshot(tissue)
    with pytest.raises(error, match=match):
        sn.io.to_spatialdata(result, make(tissue), **options)
    assert changed(before, snapshot(tissue)) == []
