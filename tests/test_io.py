"""Reading: what was stored comes back, a Xenium folder becomes a table, and a broken file is named with the cause."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import types
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from support import changed, small_tissue, snapshot

import spanmf as sn
from spanmf._checks import SpanmfWarning
from spanmf.io._read import PLATFORMS

N = 60
KINDS = ["Gene Expression"] * 4 + ["Negative Control Probe", "Unassigned Codeword"]
NAMES = ["EPCAM", "CD3E", "CD3E", "COL1A1", "NegControlProbe_1", "UnassignedCodeword_1"]
ALONE = "ignore:.* was read from:spanmf._checks.SpanmfWarning"
pytestmark = pytest.mark.filterwarnings("ignore:.*zarr:UserWarning", "ignore:.*zarr v2:UserWarning")


@pytest.fixture
def tissue() -> ad.AnnData:
    return small_tissue(N, 12)


# --- a Xenium folder ------------------------------------------------------------------------------------------------


def counts(n: int = N) -> np.ndarray:
    return np.random.default_rng(0).poisson(1.0, (n, len(KINDS))).astype(np.int32)


def write_matrix(path, X: np.ndarray, barcodes, *, index_type=np.int64, kinds=KINDS) -> None:
    """A feature-barcode matrix as 10x lays it out: features × barcodes by columns."""
    columns = sp.csc_matrix(X.T)
    with h5py.File(path, "w") as file:
        file["matrix/data"] = columns.data
        file["matrix/indices"] = columns.indices.astype(index_type)
        file["matrix/indptr"] = columns.indptr.astype(index_type)
        file["matrix/shape"] = np.array(columns.shape, dtype=index_type)
        file["matrix/barcodes"] = np.array(barcodes, dtype="S")
        for name, values in {
            "id": [f"ENSG{i}" for i in range(len(kinds))],
            "name": NAMES,
            "feature_type": kinds,
            "genome": ["GRCh38"] * len(kinds),
        }.items():
            file[f"matrix/features/{name}"] = np.array(values, dtype="S")
        file["matrix/features/_all_tag_keys"] = np.array(["genome"], dtype="S")


def cells_table(ids) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = len(ids)
    return pd.DataFrame(
        {
            "cell_id": ids,
            "x_centroid": rng.random(n) * 500,
            "y_centroid": rng.random(n) * 500,
            "transcript_counts": rng.integers(0, 100, n),
            "cell_area": rng.random(n) * 100,
            "nucleus_area": rng.random(n) * 30,
        }
    )


@pytest.fixture
def bundle(tmp_path):
    """A Xenium folder without cells.zarr.zip: the cells are in another order in the table than in the matrix."""
    folder = tmp_path / "outs"
    folder.mkdir()
    ids = [f"aaaa{i:04d}-1" for i in range(N)]
    write_matrix(folder / "cell_feature_matrix.h5", counts(), ids)
    cells_table(ids).sample(frac=1, random_state=0).to_parquet(folder / "cells.parquet", index=False)
    return folder


def check_xenium(adata: ad.AnnData, X: np.ndarray, cells: pd.DataFrame) -> None:
    """The table is what the folder holds."""
    assert isinstance(adata.X, sp.csr_matrix)
    assert adata.X.dtype == np.float32
    assert np.array_equal(adata.X.toarray(), X[:, :4])
    assert adata.obs_names.tolist() == [str(i) for i in cells["cell_id"]]
    assert adata.obsm["spatial"].dtype == np.float64
    np.testing.assert_allclose(adata.obsm["spatial"], cells[["x_centroid", "y_centroid"]])
    for column in ("transcript_counts", "cell_area", "nucleus_area"):
        np.testing.assert_allclose(adata.obs[column], cells[column])
    assert not {"cell_id", "region", "x_centroid"} & {*adata.obs.columns}
    assert adata.var_names.tolist() == ["EPCAM", "CD3E", "CD3E-1", "COL1A1"]
    assert adata.var["gene_ids"].tolist() == ["ENSG0", "ENSG1", "ENSG2", "ENSG3"]
    assert (adata.uns["spatial_units"], adata.uns["um_per_unit"]) == ("um", 1.0)
    left_out = {kind: (v["n_features"], v["counts"]) for kind, v in adata.uns["left_out"].items()}
    assert left_out == {"Negative Control Probe": (1, X[:, 4].sum()), "Unassigned Codeword": (1, X[:, 5].sum())}


def test_xenium_from_cells_table_and_matrix(bundle):
    with pytest.warns(SpanmfWarning, match=r"read from cells.parquet and cell_feature_matrix.h5.*cells.zarr.zip"):
        adata = sn.io.read(bundle)
    check_xenium(adata, counts(), cells_table([f"aaaa{i:04d}-1" for i in range(N)]))


@pytest.mark.filterwarnings(ALONE)
def test_xenium_survives_both_stores(bundle, tmp_path):
    adata = sn.io.read(bundle)
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for name in ("a.h5ad", "a.zarr"):
        again = sn.io.read(tmp_path / name)
        check_xenium(again, counts(), cells_table([f"aaaa{i:04d}-1" for i in range(N)]))


@pytest.mark.filterwarnings(ALONE)
@pytest.mark.parametrize("index_type", [np.int32, np.int64, np.float64])
@pytest.mark.parametrize("ids", ["text", "bytes", "integers"])
def test_xenium_ids_and_index_types(tmp_path, ids, index_type):
    """Old runs number the cells, parquet may hold bytes, and R writes indices as type float."""
    names = {"text": [f"c{i}" for i in range(N)], "bytes": [f"c{i}".encode() for i in range(N)], "integers": range(N)}
    write_matrix(
        tmp_path / "cell_feature_matrix.h5",
        counts(),
        [f"c{i}" if ids != "integers" else i for i in range(N)],
        index_type=index_type,
    )
    cells = cells_table(list(names[ids]))
    cells.to_parquet(tmp_path / "cells.parquet", index=False)
    cells["cell_id"] = [i.decode() if isinstance(i, bytes) else i for i in cells["cell_id"]]
    check_xenium(sn.io.read(str(tmp_path)), counts(), cells)


@pytest.mark.filterwarnings(ALONE)
def test_xenium_csv_with_an_unnamed_first_column(tmp_path):
    cells = cells_table(list(range(1, N + 1)))
    cells.to_csv(tmp_path / "cells.csv.gz")
    write_matrix(tmp_path / "cell_feature_matrix.h5", counts(), cells["cell_id"], index_type=np.float64)
    adata = sn.io.read(tmp_path)
    check_xenium(adata, counts(), cells)
    assert [c for c in adata.obs if "Unnamed" in c] == []


@pytest.mark.filterwarnings(ALONE)
def test_xenium_keeps_the_cells_that_both_files_have(bundle):
    cells = pd.read_parquet(bundle / "cells.parquet").sort_values("cell_id")
    cells[5:].to_parquet(bundle / "cells.parquet", index=False)
    with pytest.warns(SpanmfWarning, match="has 55 cells and cell_feature_matrix.h5 has 60: the 55"):
        adata = sn.io.read(bundle)
    check_xenium(adata, counts()[5:], cells[5:])


# --- a full Xenium bundle, through spatialdata-io -------------------------------------------------------------------


def make_full(folder) -> None:
    """The rest of what spatialdata-io wants to see, in the form of early runs."""
    import zarr

    pd.read_parquet(folder / "cells.parquet").sort_values("cell_id").to_parquet(folder / "cells.parquet", index=False)
    (folder / "experiment.xenium").write_text(json.dumps({"analysis_sw_version": "xenium-1.0.2", "pixel_size": 0.2125}))
    with zarr.storage.ZipStore(folder / "cells.zarr.zip", mode="w") as store:
        zarr.group(store=store)


@pytest.mark.filterwarnings("ignore")
def test_full_bundle_through_spatialdata_io(bundle):
    """The real reader, where it is installed, makes the same table as the files alone."""
    pytest.importorskip("spatialdata_io", reason="spatialdata-io (the extra `spatialdata`) is not installed")
    make_full(bundle)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpanmfWarning)  # it does not fall back
        adata = sn.io.read(bundle)
    check_xenium(adata, counts(), cells_table([f"aaaa{i:04d}-1" for i in range(N)]))


@pytest.fixture
def stand_in(monkeypatch):
    """A module in spatialdata-io's place, whose reader a test can set."""
    module = types.ModuleType("spatialdata_io")
    monkeypatch.setitem(sys.modules, "spatialdata_io", module)
    return module


def test_full_bundle_is_asked_of_spatialdata_io(bundle, stand_in):
    """Only the table is asked for, with all features; its extra columns stay, its links to shapes go."""
    make_full(bundle)
    cells = cells_table([f"aaaa{i:04d}-1" for i in range(N)])
    asked = {}

    def xenium(path, **options):
        asked.update(options, path=path)
        obs = cells.drop(columns=["x_centroid", "y_centroid"]).set_axis(cells["cell_id"].tolist())
        obs["region"], obs["z_level"] = "cell_labels", 1.0
        var = pd.DataFrame({"gene_ids": [f"ENSG{i}" for i in range(6)], "feature_types": KINDS}, index=NAMES)
        with warnings.catch_warnings(action="ignore"):
            table = ad.AnnData(sp.csc_matrix(counts()), obs=obs, var=var)
        table.obsm["spatial"] = cells[["x_centroid", "y_centroid"]].to_numpy()
        table.uns["spatialdata_attrs"] = {"region": "cell_labels"}
        return types.SimpleNamespace(tables={"table": table})

    stand_in.xenium = xenium
    adata = sn.io.read(bundle)
    check_xenium(adata, counts(), cells)
    assert adata.obs["z_level"].eq(1).all()
    assert "spatialdata_attrs" not in adata.uns
    assert asked.pop("path") == bundle
    assert {k for k, v in asked.items() if v} == {"cells_table"}
    assert asked["gex_only"] is False


def test_full_bundle_that_spatialdata_io_cannot_read(bundle, stand_in):
    make_full(bundle)

    def xenium(path, **options):
        raise AssertionError("polygon_sets found\nbut version is 1.0")

    stand_in.xenium = xenium
    with pytest.warns(SpanmfWarning, match="AssertionError: polygon_sets found but version is 1.0"):
        adata = sn.io.read(bundle)
    check_xenium(adata, counts(), cells_table([f"aaaa{i:04d}-1" for i in range(N)]))


def test_full_bundle_without_the_extra(bundle, monkeypatch):
    make_full(bundle)
    monkeypatch.setitem(sys.modules, "spatialdata_io", None)
    with pytest.warns(SpanmfWarning, match=r"spanmf\[spatialdata\]"):
        adata = sn.io.read(bundle)
    assert adata.n_obs == N


# --- real Xenium folders --------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.filterwarnings(ALONE)
def test_real_xenium_folder(real_data):
    adata = sn.io.read(real_data / "vendor" / "xenium_breast_rebuilt")
    stored = ad.read_h5ad(real_data / "xenium_breast_tiles.h5ad")
    assert adata.shape == (3893, 313)
    assert adata.X.sum() == adata.obs["transcript_counts"].sum()
    tile = stored[stored.obs["cell_id"].astype(str).isin(adata.obs_names)]
    tile = tile[tile.obs["tile"] == "pikachu"]
    assert tile.n_obs == adata.n_obs
    again = adata[tile.obs["cell_id"].astype(str), tile.var_names]
    assert (again.X != tile.X).nnz == 0
    np.testing.assert_allclose(np.ptp(again.obsm["spatial"], axis=0), np.ptp(tile.obsm["spatial"], axis=0), rtol=1e-5)


@pytest.mark.real
@pytest.mark.filterwarnings(ALONE)
def test_real_xenium_folder_that_r_wrote(real_data):
    adata = sn.io.read(real_data / "vendor" / "Xenium_small")
    assert adata.shape == (6, 4)
    assert adata.obs_names.tolist() == ["1", "2", "3", "4", "5", "6"]
    assert adata.X.sum() == 21
    assert adata.obs.columns[0] == "transcript_counts"


@pytest.mark.real
@pytest.mark.parametrize(("folder", "found"), [("xenium_cells_only", "WT_cells.csv.gz"), ("xenium_manifest", "breast")])
def test_real_folder_without_a_matrix(real_data, folder, found):
    with pytest.raises(ValueError, match=rf"{found}.*Looked for: .*h5ad.*Zarr.*cell_feature_matrix.h5"):
        sn.io.read(real_data / "vendor" / folder)
    with pytest.raises(FileNotFoundError, match=rf"lacks .*cell_feature_matrix.h5.*{found}"):
        sn.io.read(real_data / "vendor" / folder, "xenium")


# --- stored tables --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_stored_table_comes_back(tissue, tmp_path, suffix):
    path = tmp_path / f"tissue.{suffix}"
    getattr(tissue, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    assert changed(snapshot(again), snapshot(sn.io.read(path))) == []
    assert changed(snapshot(again), snapshot(sn.io.read(path, suffix))) == []


def test_zarr_is_recognised_by_its_content(tissue, tmp_path):
    tissue.write_zarr(tmp_path / "no_suffix")
    assert sn.io.read(tmp_path / "no_suffix").shape == tissue.shape


def spatialdata_store(path, **tables) -> None:
    """What a SpatialData leaves on disk: a group with a table each in the group "tables"."""
    import zarr

    for name, table in tables.items():
        table.write_zarr(path / "tables" / name)
    version = zarr.open_group(str(path / "tables" / name), mode="r").metadata.zarr_format
    zarr.open_group(str(path), mode="a", zarr_format=version).attrs["spatialdata_attrs"] = {"version": "0.2"}
    zarr.open_group(str(path / "tables"), mode="a", zarr_format=version)


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_no_table_can_be_named_where_there_is_one(tissue, tmp_path, form):
    path = tmp_path / f"tissue.{form}"
    getattr(tissue, f"write_{form}")(path)
    with pytest.raises(KeyError, match=rf"tissue\.{form}.* holds one table.*'cells'.*`table_key`"):
        sn.io.read(path, table_key="cells")


def test_table_of_a_spatialdata_store(tissue, tmp_path, monkeypatch):
    """Without spatialdata."""
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    path = tmp_path / "sdata.zarr"
    spatialdata_store(path, table=tissue)
    assert changed(snapshot(tissue), snapshot(sn.io.read(path))) == []
    assert sn.io.read(path, table_key="table").shape == tissue.shape
    spatialdata_store(path, table=tissue, other=tissue[:10].copy())
    assert sn.io.read(path, table_key="other").n_obs == 10
    for wrong in (None, "bins"):
        with pytest.raises(KeyError, match=r"table_key=.*'other', 'table'"):
            sn.io.read(path, table_key=wrong)


@pytest.mark.filterwarnings("ignore")
def test_real_spatialdata_store(tissue, tmp_path):
    sd = pytest.importorskip("spatialdata", reason="spatialdata is not installed")
    sd.SpatialData(tables={"cells": tissue}).write(tmp_path / "sdata.zarr")
    again = sn.io.read(tmp_path / "sdata.zarr")
    assert (again.X != tissue.X).nnz == 0
    np.testing.assert_array_equal(again.obsm["spatial"], tissue.obsm["spatial"])


# --- what cannot be read --------------------------------------------------------------------------------------------


def cut(path, share: float = 0.6) -> None:
    """Leave the first part of a file only."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def test_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"nowhere.*tissue.h5ad.*{tmp_path.name}"):
        sn.io.read(tmp_path / "nowhere" / "tissue.h5ad")


def test_empty_folder_lists_what_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"holds nothing.*Looked for") as error:
        sn.io.read(tmp_path)
    assert all(p.looks_like in str(error.value) for p in PLATFORMS.values())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("binned_outputs", r"looks like Visium HD.*spatialdata_io\.visium_hd"),
        ("reg001.fcs", r"CODEX.*spatialdata_io\.codex"),
    ],
)
def test_folder_of_a_platform_that_others_read(tmp_path, name, says):
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=says):
        sn.io.read(tmp_path)


def test_file_of_another_kind(tmp_path):
    (tmp_path / "tissue.xlsx").write_text("no table")
    with pytest.raises(ValueError, match=r"tissue.xlsx.*not recognised.*\*\.h5ad"):
        sn.io.read(tmp_path / "tissue.xlsx")


def test_unknown_platform(tmp_path):
    with pytest.raises(ValueError, match=r"platform.*'auto', 'h5ad', 'zarr', 'xenium'"):
        sn.io.read(tmp_path, "nanopore")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.6, 0.99])
def test_truncated_h5ad(tissue, tmp_path, share):
    path = tmp_path / "cut.h5ad"
    tissue.write_h5ad(path)
    cut(path, share)
    with pytest.raises(OSError, match=r"cut.h5ad' could not be read as an .h5ad file: \S.*complete\?"):
        sn.io.read(path)


@pytest.mark.filterwarnings("ignore:Element '/signal' was written without encoding metadata")
def test_hdf5_of_another_kind(tmp_path):
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["signal"] = np.arange(5)
    with pytest.raises(OSError, match=r"other.h5ad' could not be read"):
        sn.io.read(tmp_path / "other.h5ad")


def chunk_files(path, name: str) -> list:
    """Files of an array that are not its metadata."""
    return [f for f in (path / name).rglob("*") if f.is_file() and not f.name.startswith((".z", "zarr.json"))]


@pytest.mark.parametrize(
    ("array", "damage"),
    [("X/data", "cut"), ("X/indices", "cut"), ("X/indptr", "cut"), ("X/indices", "lost"), ("X/indptr", "lost")],
)
def test_damaged_zarr(tissue, tmp_path, array, damage):
    """zarr reads a chunk that is not there as zeros (lost values cannot be told from stored zeros).

    Nothing of a cut chunk is left: its decompressor may read past the end of a longer piece and find the rest in memory.
    """
    path = tmp_path / "cut.zarr"
    tissue.write_zarr(path)
    file = chunk_files(path, array)[0]
    cut(file, 0) if damage == "cut" else file.unlink()
    with pytest.raises(OSError, match=r"cut.zarr' could not be read as an AnnData in Zarr"):
        sn.io.read(path)


def test_zarr_without_the_chunks_that_are_all_zero(tissue, tmp_path):
    """zarr does not write them: a dense X with an empty block, a sparse one whose first cells are empty."""
    X = tissue.X.toarray()
    X[:30] = 0
    for name, form in (("dense", np.asarray), ("sparse", sp.csr_matrix)):
        tissue.X = form(X)
        tissue.write_zarr(tmp_path / f"{name}.zarr", chunks=(10, 5) if name == "dense" else None)
        back = sn.io.read(tmp_path / f"{name}.zarr").X
        np.testing.assert_array_equal(back if name == "dense" else back.toarray(), X)


def test_zarr_of_another_kind(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(OSError, match=r"empty.zarr' could not be read"):
        sn.io.read(tmp_path / "empty.zarr")


@pytest.mark.parametrize("name", ["cells.parquet", "cells.csv.gz", "cell_feature_matrix.h5"])
def test_truncated_file_of_a_xenium_folder(bundle, name):
    if name == "cells.csv.gz":
        cells = pd.read_parquet(bundle / "cells.parquet")
        (bundle / "cells.parquet").unlink()
        with gzip.open(bundle / name, "wt") as file:
            cells.to_csv(file, index=False)
    cut(bundle / name)
    with pytest.raises(OSError, match=rf"outs/{name}' could not be read as .*: \S"):
        sn.io.read(bundle)


@pytest.mark.filterwarnings(ALONE)
def test_truncated_zarr_of_a_xenium_folder_is_not_needed(bundle):
    make_full(bundle)
    cut(bundle / "cells.zarr.zip", 0.3)
    assert sn.io.read(bundle).n_obs == N


@pytest.mark.parametrize("name", ["cells.parquet", "cell_feature_matrix.h5"])
def test_xenium_folder_without_a_file(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks .*{name}.*it holds"):
        sn.io.read(bundle, "xenium")


def test_file_of_a_xenium_folder(bundle):
    with pytest.raises(NotADirectoryError, match=r"cells.parquet' is a file.*folder"):
        sn.io.read(bundle / "cells.parquet", "xenium")


def test_cells_table_without_a_column(bundle):
    pd.read_parquet(bundle / "cells.parquet").rename(columns={"x_centroid": "x"}).to_parquet(bundle / "cells.parquet")
    with pytest.raises(KeyError, match="no column 'x_centroid'; it has 'cell_id', 'x'"):
        sn.io.read(bundle)


@pytest.mark.parametrize("file", ["cells.parquet", "cell_feature_matrix.h5"])
def test_cell_ids_more_than_once(bundle, file):
    if file == "cells.parquet":
        cells = pd.read_parquet(bundle / file)
        pd.concat([cells, cells[:2]]).to_parquet(bundle / file)
    else:
        write_matrix(bundle / file, counts(), [f"aaaa{max(i, 2):04d}-1" for i in range(N)])
    with pytest.raises(ValueError, match=rf"{file}' has [12] cell ids more than once"):
        sn.io.read(bundle)


def test_cells_and_matrix_of_different_runs(bundle):
    write_matrix(bundle / "cell_feature_matrix.h5", counts(), [f"other{i}" for i in range(N)])
    with pytest.raises(ValueError, match=r"no cell in common.*'aaaa.*'other0'"):
        sn.io.read(bundle)


@pytest.mark.parametrize(
    ("part", "value"), [("indices", 1000), ("indices", 0.5), ("indptr", 5)], ids=["beyond", "no-integer", "pointer"]
)
def test_inconsistent_matrix(bundle, part, value):
    with h5py.File(bundle / "cell_feature_matrix.h5", "r+") as file:
        values = file[f"matrix/{part}"][:].astype(np.float64)
        values[-1] = value
        del file[f"matrix/{part}"]
        file[f"matrix/{part}"] = values
    with pytest.raises(OSError, match=r"cell_feature_matrix.h5' could not be read"):
        sn.io.read(bundle)


def test_nothing_is_written(tissue, tmp_path):
    path = tmp_path / "a"
    tissue.write_zarr(path / "tissue.zarr")
    tissue.write_h5ad(path / "tissue.h5ad")
    shutil.copytree(path, tmp_path / "b")
    sn.io.read(path / "tissue.zarr")
    sn.io.read(path / "tissue.h5ad")
    files = [
        {f.relative_to(d): f.is_file() and f.read_bytes() for d in [p] for f in p.rglob("*")}
        for p in (path, tmp_path / "b")
    ]
    assert files[0] == files[1]
