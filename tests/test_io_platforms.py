"""Reading of platforms: files as vendors wrote them, files written here to a documented layout, and broken ones."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
from itertools import pairwise
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from support import changed, snapshot

import spanmf as sn
from spanmf import _platforms
from spanmf._checks import SpanmfWarning
from spanmf.io import _cells, _read, _visium

N = 40
CPOUT = Path("vendor/imc_cellprofiler_steinbock/inst/extdata/mockData/cpout")
STEINBOCK = CPOUT.parent / "steinbock"
VISIUM_TWO = "vendor/visium_spatialexperiment/10xVisium"
RNG_SEED = 3

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*outside the tissue:spanmf._checks.SpanmfWarning"),
    pytest.mark.filterwarnings("ignore:.*have no place in:spanmf._checks.SpanmfWarning"),
]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(RNG_SEED)


def says(adata: ad.AnnData) -> tuple[str, float | None]:
    return adata.uns["spatial_units"], adata.uns.get("um_per_unit")


# --- files of vendors -----------------------------------------------------------------------------------------------

VENDOR = {  # folder: platform, shape, unit, µm in a unit
    "CosMx_small": ("cosmx", (9, 8), "pixel", None),
    "MERSCOPE_small": ("merscope", (8, 9), "um", 1.0),
    "STARmapPLUS_small": ("starmap", (9, 8), "unknown", None),
    "mcmicro": ("cycif", (11201, 12), "pixel", None),
    "inform_phenoptr": ("inform", (619, 5), "pixel", None),
    "visium_squidpy": ("visium", (100, 100), "pixel", 65 / 89.42751063343188),
    "visium_seurat": ("visium", (2695, 100), "pixel", 65 / 89.47248494250101),
    "visium_spatialexperiment": ("visium", (99, 50), "pixel", 65 / 89.44476048022638),
}


@pytest.mark.real
@pytest.mark.parametrize("folder", VENDOR)
def test_vendor_folder(real_data, folder, tmp_path, caplog):
    """Recognised, the same by name, said in the log, storable."""
    name, shape, unit, um = VENDOR[folder]
    path = real_data / "vendor" / folder
    with caplog.at_level(logging.INFO, "spanmf"):
        adata = sn.io.read(path)
    assert f"({name}, recognised by" in caplog.text
    assert adata.shape == shape
    assert says(adata) == (unit, pytest.approx(um) if um else None)
    assert adata.obsm["spatial"].dtype == np.float64
    assert np.isfinite(adata.obsm["spatial"]).all()
    assert adata.X.dtype == np.float32
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert sp.issparse(adata.X) == (name not in ("cycif", "inform"))
    if folder != "visium_spatialexperiment":
        assert changed(snapshot(adata), snapshot(sn.io.read(path, name.upper()))) == []
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert (again.X != adata.X).sum() == 0
    np.testing.assert_array_equal(again.obsm["spatial"], adata.obsm["spatial"])


@pytest.mark.real
def test_cosmx_values_and_places_are_joined_by_field_and_cell(real_data):
    adata = sn.io.read(real_data / "vendor/CosMx_small")
    counts = pd.read_csv(real_data / "vendor/CosMx_small/lung_p9s1_exprMat_file.csv")
    cells = pd.read_csv(real_data / "vendor/CosMx_small/lung_p9s1_metadata_file.csv")
    assert adata.obs_names.tolist() == [f"{f}_{c}" for f, c in counts[["fov", "cell_ID"]].to_numpy()]
    np.testing.assert_array_equal(adata.X.toarray(), counts.iloc[:, 2:])
    np.testing.assert_array_equal(adata.obsm["spatial"], cells[["CenterX_global_px", "CenterY_global_px"]])
    assert "sample" not in adata.obs, "the fields of one slide are in one frame"
    assert set(adata.obs["fov"]) == {"10"}


@pytest.mark.real
def test_merscope_tables_in_another_order(real_data):
    """The unnamed id column of the metadata was called X by R; its first cell is the last of the counts."""
    adata = sn.io.read(real_data / "vendor/MERSCOPE_small")
    cells = pd.read_csv(real_data / "vendor/MERSCOPE_small/ovarian_p2s2_cell_metadata.csv", index_col=0)
    own = cells.loc[adata.obs_names.astype(int)]
    np.testing.assert_array_equal(adata.obsm["spatial"], own[["center_x", "center_y"]])
    np.testing.assert_array_equal(adata.obs["volume"], own["volume"])
    assert adata.obs_names[-1] == "88869"


@pytest.mark.real
def test_starmap_is_turned_and_its_types_row_left_out(real_data):
    adata = sn.io.read(real_data / "vendor/STARmapPLUS_small")
    genes = pd.read_csv(real_data / "vendor/STARmapPLUS_small/mockraw_expression_pd.csv", index_col=0)
    np.testing.assert_array_equal(adata.X.toarray(), genes[adata.obs_names].to_numpy().T)
    assert adata.var_names.tolist() == genes.index.tolist()
    assert adata.obsm["spatial"].shape == (9, 3)
    np.testing.assert_allclose(adata.obsm["spatial"][0], [227.015748031496, 1388.71653543307, 10.5354330708661])


@pytest.mark.real
def test_cycif_markers_stand_between_id_and_place(real_data):
    adata = sn.io.read(real_data / "vendor/mcmicro/exemplar-001--unmicst_cell.csv")
    table = pd.read_csv(real_data / "vendor/mcmicro/exemplar-001--unmicst_cell.csv")
    np.testing.assert_allclose(adata[:, "ELANE"].X.ravel(), table["ELANE"], rtol=1e-6)
    np.testing.assert_array_equal(adata.obsm["spatial"], table[["X_centroid", "Y_centroid"]])
    assert adata.obs.columns[0] == "Area"


@pytest.mark.real
def test_inform_merge_file_and_one_image(real_data):
    folder = real_data / "vendor/inform_phenoptr"
    adata, one = sn.io.read(folder), sn.io.read(folder / "FIHC4__0929309_HP_IM3_2_cell_seg_data.txt")
    assert adata.obs["sample"].nunique() == 4
    assert adata.var_names.tolist() == ["Alexa 594", "Cy3", "Cy5", "DAPI", "FITC"]
    assert one.obs_names[0] == "FIHC4__0929309_HP_IM3_2.im3_1"
    np.testing.assert_allclose(one.X[0], [3.031, 5.193, 3.707, 28.499, 1.197], rtol=1e-6)
    np.testing.assert_array_equal(one.obsm["spatial"][0], [268, 6])


@pytest.mark.real
def test_imc_by_steinbock_and_by_cellprofiler(real_data):
    """The same mock images by two programs: channels agree in name and in level; scales come from the files."""
    a, b = sn.io.read(real_data / STEINBOCK), sn.io.read(real_data / CPOUT, "IMC")
    assert (a.shape, b.shape) == ((404, 5), (239, 5))
    assert a.var_names.tolist() == b.var_names.tolist() == ["Ag107", "Cytokeratin 5", "Laminin", "YBX1", "H3K27Ac"]
    assert a.var["channel"].tolist() == b.var["metal"].tolist()
    assert a.obs["sample"].nunique() == 15
    assert (says(a), says(b)) == (("pixel", 1.0), ("pixel", None))
    ratio = b.X.mean(0) / a.X.mean(0)
    assert ((ratio > 0.5) & (ratio < 1.5)).all(), "counts, not shares of 65535"
    props = pd.read_csv(real_data / STEINBOCK / "regionprops/20210305_NE_mockData1_001.csv")
    np.testing.assert_array_equal(a.obsm["spatial"][0], props.loc[0, ["centroid-1", "centroid-0"]])
    assert b.obs["image"].iloc[0] == "20210305_NE_mockData1_s0_a1_ac_full.tiff"


@pytest.mark.real
def test_imc_without_its_companions(real_data, tmp_path):
    shutil.copy(real_data / CPOUT / "cell.csv", tmp_path)
    with pytest.warns(SpanmfWarning) as warned:
        adata = sn.io.read(tmp_path)
    assert {"var_cell.csv", "Image.csv"} <= {
        w for x in warned for w in ("var_cell.csv", "Image.csv") if w in str(x.message)
    }
    assert adata.var_names.tolist() == ["c1", "c2", "c3", "c4", "c5"]
    shutil.copytree(real_data / STEINBOCK / "regionprops", tmp_path / "s/regionprops")
    with pytest.raises(FileNotFoundError, match=r"lacks intensities/\*\.csv.*IMC \(steinbock\)"):
        sn.io.read(tmp_path / "s")


@pytest.mark.real
@pytest.mark.parametrize("folder", ["visium_squidpy", "visium_seurat"])
def test_visium_by_squidpy_and_by_its_files_is_the_same(real_data, folder, monkeypatch):
    path = real_data / "vendor" / folder
    first = sn.io.read(path)
    monkeypatch.setattr(_visium, "_by_squidpy", lambda *_: None)
    second = sn.io.read(path)
    assert (first.X != second.X).nnz == 0
    np.testing.assert_array_equal(first.obsm["spatial"], second.obsm["spatial"])
    pd.testing.assert_frame_equal(first.obs, second.obs, check_index_type=False, check_dtype=False)
    assert first.var["gene_ids"].tolist() == second.var["gene_ids"].tolist()
    a, b = first.uns["spatial"][folder], second.uns["spatial"][folder]
    assert a["scalefactors"] == b["scalefactors"]
    for size in ("hires", "lowres"):
        np.testing.assert_allclose(a["images"][size], b["images"][size])
    positions = pd.read_csv(path / "spatial/tissue_positions_list.csv", header=None, index_col=0)
    np.testing.assert_array_equal(first.obsm["spatial"], positions.loc[first.obs_names, [5, 4]])


@pytest.mark.real
def test_visium_two_sections_of_uncompressed_mex(real_data):
    with pytest.warns(SpanmfWarning, match="1 barcodes of .*section2.* have no place"):
        adata = sn.io.read(real_data / VISIUM_TWO)
    assert adata.obs["sample"].value_counts().to_dict() == {"section1": 50, "section2": 49}
    assert set(adata.uns["spatial"]) == {"section1", "section2"}
    assert adata.obs_names[0] == "AAACAACGAATAGTTC-1_section1"
    with pytest.warns(SpanmfWarning, match=r"28 of 50 spots .* outside the tissue.*in_tissue"):
        one = sn.io.read(real_data / VISIUM_TWO / "section1")
    assert one.obs["in_tissue"].sum() == 22
    assert (adata.X[:50] != one.X).nnz == 0


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "platform", "message"),
    [
        ("mcmicro", "inform", r"lacks \*merge_cell_seg_data.txt.*looks like CyCIF.*'cycif'"),
        ("MERSCOPE_small", "cosmx", r"lacks \*metadata_file\*.*looks like MERSCOPE.*'merscope'"),
        ("visium_squidpy", "codex", r"lacks \*compensated"),
        ("mcmicro", "visium", r"cannot be read as Visium.*spatial/"),
    ],
)
def test_another_platform_was_named(real_data, folder, platform, message):
    with pytest.raises(FileNotFoundError, match=message):
        sn.io.read(real_data / "vendor" / folder, platform)


# --- documented layouts ---------------------------------------------------------------------------------------------


def write_codex(path: Path, rng: np.random.Generator, header: str = "plain") -> pd.DataFrame:
    """The table of the CODEX Processor: ids within regions, x and y in pixels, a column a cycle and channel."""
    table = pd.DataFrame({
        "cell_id": [*range(N // 2), *range(N // 2)], "region": np.repeat([1, 2], N // 2), "tile_num": 1,
        "x": rng.integers(0, 1000, N), "y": rng.integers(0, 1000, N), "z": 5, "size": rng.integers(50, 200, N),
        "cyc001_ch001:DAPI": rng.random(N), "cyc002_ch002:CD4": rng.random(N), "cyc002_ch003:Ki67": rng.random(N),
        "cyc003_ch002:blank": rng.random(N),
    })  # fmt: skip
    named = table if header == "plain" else table.rename(columns=lambda c: c if c.startswith("cyc") else f"{c}:{c}")
    named.to_csv(path, index=False)
    return table


@pytest.mark.parametrize("header", ["plain", "doubled"])
def test_codex(tmp_path, rng, header):
    table = write_codex(tmp_path / "reg_compensated.csv", rng, header)
    adata = sn.io.read(tmp_path)
    assert adata.var_names.tolist() == ["DAPI", "CD4", "Ki67"]
    assert adata.var["channel"].iloc[1] == "cyc002_ch002:CD4"
    np.testing.assert_allclose(adata[:, "CD4"].X.ravel(), table["cyc002_ch002:CD4"], rtol=1e-6)
    np.testing.assert_array_equal(adata.obsm["spatial"], table[["x", "y"]])
    assert adata.obs["sample"].tolist() == table["region"].astype(str).tolist()
    assert adata.obs_names[0] == "1_0"
    assert adata.uns["left_out"]["controls"] == {"n_features": 1}
    assert says(adata) == ("pixel", None)
    assert {"size", "z"} <= set(adata.obs)


def mibi_table(rng: np.random.Generator) -> pd.DataFrame:
    """The cell table of ark: channels between cell_size and label, then properties and the field."""
    return pd.DataFrame({
        "cell_size": rng.integers(50, 200, N), "CD3": rng.random(N), "CD20": rng.random(N), "label": [*range(1, 21), *range(1, 21)],
        "area": rng.integers(50, 200, N), "eccentricity": rng.random(N), "centroid-0": rng.random(N) * 1024,
        "centroid-1": rng.random(N) * 1024, "fov": np.repeat(["fov0", "fov1"], 20),
    })  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet", "tsv"])
def test_mibi_in_any_kind_of_table(tmp_path, rng, suffix, monkeypatch):
    monkeypatch.setattr(_cells, "CHUNK", 900)  # several pieces
    table, path = mibi_table(rng), tmp_path / f"cell_table_size_normalized.{suffix}"
    if suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    adata = sn.io.read(path)
    assert adata.var_names.tolist() == ["CD3", "CD20"]
    np.testing.assert_allclose(adata.X, table[["CD3", "CD20"]], rtol=1e-6)
    np.testing.assert_allclose(adata.obsm["spatial"], table[["centroid-1", "centroid-0"]])
    assert adata.obs_names[20] == "fov1_1"
    assert adata.obs["sample"].nunique() == 2
    np.testing.assert_array_equal(adata.obs["area"], table["area"])


def test_several_tables_of_one_platform(tmp_path, rng):
    """Each file is a sample; other markers are refused."""
    tables = {}
    for name in ("core1", "core2"):
        tables[name] = pd.DataFrame({"CellID": range(1, 6), "DNA": rng.random(5), "CD8": rng.random(5), "X_centroid": rng.random(5), "Y_centroid": rng.random(5)})  # fmt: skip
        tables[name].to_csv(tmp_path / f"{name}_cell.csv", index=False)
    adata = sn.io.read(tmp_path)
    assert adata.obs["sample"].value_counts().to_dict() == {"core1_cell": 5, "core2_cell": 5}
    np.testing.assert_allclose(adata.X, np.concatenate([t[["DNA", "CD8"]] for t in tables.values()]), rtol=1e-6)
    tables["core2"].rename(columns={"CD8": "CD4"}).to_csv(tmp_path / "core2_cell.csv", index=False)
    with pytest.raises(ValueError, match=r"core1_cell.csv and core2_cell.csv .*differ in the features 'CD4', 'CD8'"):
        sn.io.read(tmp_path)


def test_inform_in_micrometres(tmp_path, rng):
    columns = ["Sample Name", "Cell ID", "Cell X Position", "Cell Y Position", "Entire Cell Area (square microns)"]
    table = pd.DataFrame(rng.random((5, 5)), columns=columns).assign(**{"Sample Name": "a.im3", "Cell ID": range(5)})
    table["Entire Cell CD8 (Opal 570) Mean (Normalized Counts, Total Weighting)"] = rng.random(5)
    table.to_csv(tmp_path / "a_cell_seg_data.txt", sep="\t", index=False, encoding="latin-1")
    adata = sn.io.read(tmp_path)
    assert says(adata) == ("um", 1.0)
    assert adata.var_names.tolist() == ["CD8 (Opal 570)"]


def write_cosmx(folder: Path, rng: np.random.Generator) -> pd.DataFrame:
    counts = pd.DataFrame(rng.poisson(1, (N, 3)), columns=["CD4", "EPCAM", "NegPrb1"])
    counts.insert(0, "cell_ID", np.arange(N) % 20)
    counts.insert(0, "fov", np.arange(N) // 20)
    cells = counts[["fov", "cell_ID"]][counts["cell_ID"] > 0].assign(
        Area=100.0, CenterX_global_px=1.0, CenterY_global_px=2.0
    )
    cells["Area.um2"] = cells["Area"] * 0.12028**2
    counts.to_csv(folder / "s_exprMat_file.csv", index=False)
    cells.to_csv(folder / "s_metadata_file.csv", index=False)
    return counts


def test_cosmx_molecules_outside_cells_controls_and_scale(tmp_path, rng):
    """Cell 0 of each field is what lies in no cell; areas in both units say how long a pixel is."""
    counts = write_cosmx(tmp_path, rng)
    with pytest.warns(SpanmfWarning, match="the 38 that are in both are kept"):
        adata = sn.io.read(tmp_path)
    assert adata.var_names.tolist() == ["CD4", "EPCAM"]
    kept = counts[counts["cell_ID"] > 0]
    np.testing.assert_array_equal(adata.X.toarray(), kept[["CD4", "EPCAM"]])
    assert adata.uns["left_out"]["controls"] == {"n_features": 1, "counts": float(kept["NegPrb1"].sum())}
    assert says(adata) == ("pixel", pytest.approx(0.12028))
    assert changed(snapshot(adata), snapshot(read_quietly(tmp_path / "s_exprMat_file.csv"))) == []
    assert changed(snapshot(adata), snapshot(read_quietly(tmp_path / "s_metadata_file.csv"))) == []


@pytest.mark.filterwarnings("ignore::spanmf._checks.SpanmfWarning")
def read_quietly(path: Path) -> ad.AnnData:
    with pytest.warns(SpanmfWarning):
        return sn.io.read(path)


def molecules(rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame({
        "geneID": rng.choice(["Actb", "Gad1", "Mbp"], 400), "x": rng.integers(0, 300, 400), "y": rng.integers(0, 300, 400),
        "MIDCount": rng.integers(1, 4, 400), "CellID": rng.integers(0, 12, 400),
    })  # fmt: skip


def summed(table: pd.DataFrame, keys: list) -> pd.DataFrame:
    return table.pivot_table(index=keys, columns="geneID", values="MIDCount", aggfunc="sum", fill_value=0)


@pytest.mark.parametrize("packed", [True, False])
def test_stereoseq_gem(tmp_path, rng, packed, monkeypatch):
    monkeypatch.setattr("spanmf.io._stereo.CHUNK", 150)
    table, path = molecules(rng), tmp_path / ("a.gem.gz" if packed else "a.gem")
    with (gzip.open if packed else open)(path, "wt") as file:
        file.write("#FileFormat=GEMv0.1\n#BinSize=1\n")
        table.to_csv(file, sep="\t", index=False)
    cells = sn.io.read(path)
    expected = summed(table[table["CellID"] > 0], ["CellID"])
    assert cells.obs_names.tolist() == expected.index.astype(str).tolist()
    np.testing.assert_array_equal(cells[:, expected.columns].X.toarray(), expected)
    one = table[table["CellID"] == expected.index[0]]
    np.testing.assert_allclose(cells.obsm["spatial"][0], [np.average(one[a], weights=one["MIDCount"]) for a in "xy"])
    bins = sn.io.read(path, "Stereo-seq", table_key="bin50")
    expected = summed(table.assign(bx=table["x"] // 50, by=table["y"] // 50), ["bx", "by"])
    np.testing.assert_array_equal(bins[:, expected.columns].X.toarray(), expected)
    np.testing.assert_array_equal(bins.obsm["spatial"], np.array(expected.index.tolist()) * 50 + 25)
    assert says(bins) == ("dnb", None)
    with pytest.raises(ValueError, match=r"'cells', or 'bin'.*'bin50', not 'square'"):
        sn.io.read(path, table_key="square")


def write_gef(path: Path, table: pd.DataFrame, *, cells: bool) -> None:
    """GEF: molecules sorted by gene in geneExp/bin1, segmented cells in cellBin."""
    table = table.sort_values("geneID", kind="stable")
    genes, first, n = np.unique(table["geneID"], return_index=True, return_counts=True)
    with h5py.File(path, "w") as file:
        if cells:
            inside = table[table["CellID"] > 0].groupby(["CellID", "geneID"])["MIDCount"].sum().reset_index()
            ids, start = np.unique(inside["CellID"], return_index=True)
            rows = [(i, 10 * i, 20 * i, s, 7) for i, s in zip(ids, start, strict=True)]
            kinds = [(k, "<i4") for k in ("id", "x", "y", "offset", "area")]
            file["cellBin/cell"] = np.array(rows, dtype=kinds)
            code = np.searchsorted(genes, inside["geneID"])
            pairs = list(zip(code, inside["MIDCount"], strict=True))
            file["cellBin/cellExp"] = np.array(pairs, dtype=[("geneID", "<u4"), ("count", "<u2")])
            file["cellBin/gene"] = np.array([(g.encode(),) for g in genes], dtype=[("geneName", "S32")])
        else:
            rows = list(table[["x", "y", "MIDCount"]].itertuples(index=False, name=None))
            values = file.create_dataset(
                "geneExp/bin1/expression", data=np.array(rows, dtype=[("x", "<i4"), ("y", "<i4"), ("count", "<u2")])
            )
            values.attrs["resolution"] = np.array([500], dtype=np.uint32)
            named = [(g.encode(), s, k) for g, s, k in zip(genes, first, n, strict=True)]
            file["geneExp/bin1/gene"] = np.array(named, dtype=[("gene", "S32"), ("offset", "<u4"), ("count", "<u4")])


def test_stereoseq_gef(tmp_path, rng):
    table = molecules(rng)
    write_gef(tmp_path / "bins.gef", table, cells=False)
    write_gef(tmp_path / "cells.gef", table, cells=True)
    bins = sn.io.read(tmp_path / "bins.gef")
    expected = summed(table.assign(bx=table["x"] // 100, by=table["y"] // 100), ["bx", "by"])
    np.testing.assert_array_equal(bins[:, expected.columns].X.toarray(), expected)
    assert says(bins) == ("dnb", 0.5)
    cells = sn.io.read(tmp_path / "cells.gef")
    expected = summed(table[table["CellID"] > 0], ["CellID"])
    np.testing.assert_array_equal(cells[:, expected.columns].X.toarray(), expected)
    np.testing.assert_array_equal(cells.obsm["spatial"], expected.index.to_numpy()[:, None] * [[10, 20]])
    with pytest.raises(KeyError, match=r"has no cells.*bin50"):
        sn.io.read(tmp_path / "bins.gef", table_key="cells")
    with pytest.raises(KeyError, match=r"no molecules.*table_key='cells'"):
        sn.io.read(tmp_path / "cells.gef", table_key="bin100")


def write_visium(
    folder: Path, rng: np.random.Generator, *, index_type: type = np.int64, positions: str = "tissue_positions.csv"
) -> pd.DataFrame:
    """Space Ranger 2: positions with a header; a protein beside the genes."""
    (folder / "spatial").mkdir(parents=True)
    names = [f"ACGT{i}-1" for i in range(N)]
    columns = sp.csc_matrix(rng.poisson(1, (3, N)))
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        for key, value in (("data", columns.data), ("indices", columns.indices.astype(index_type)), ("indptr", columns.indptr.astype(index_type)), ("shape", np.array(columns.shape))):  # fmt: skip
            file[f"matrix/{key}"] = value
        file["matrix/barcodes"] = np.array(names, dtype="S")
        kinds = ["Gene Expression", "Gene Expression", "Antibody Capture"]
        for key, value in (("id", ["E1", "E2", "P1"]), ("name", ["CD4", "KRT5", "CD4"]), ("feature_type", kinds), ("genome", ["g"] * 3)):  # fmt: skip
            file[f"matrix/features/{key}"] = np.array(value, dtype="S")
        file["matrix/features/_all_tag_keys"] = np.array(["genome"], dtype="S")
    table = pd.DataFrame({
        "barcode": names, "in_tissue": 1, "array_row": range(N), "array_col": range(N),
        "pxl_row_in_fullres": rng.integers(0, 999, N), "pxl_col_in_fullres": rng.integers(0, 999, N),
    })  # fmt: skip
    table.sample(frac=1, random_state=0).to_csv(
        folder / "spatial" / positions, index=False, header="_list" not in positions
    )
    (folder / "spatial/scalefactors_json.json").write_text(json.dumps({"spot_diameter_fullres": 130.0}))
    return table


@pytest.mark.parametrize("index_type", [np.int64, np.float64])
@pytest.mark.parametrize("positions", ["tissue_positions.csv", "tissue_positions_list.csv"])
def test_visium_of_any_version(tmp_path, rng, index_type, positions):
    table = write_visium(tmp_path / "outs", rng, index_type=index_type, positions=positions)
    for path in (tmp_path, tmp_path / "outs"):
        adata = sn.io.read(path)
        assert adata.shape == (N, 2)
        np.testing.assert_array_equal(adata.obsm["spatial"], table[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
        np.testing.assert_array_equal(adata.obs["array_col"], table["array_col"])
        assert says(adata) == ("pixel", 0.5)
        assert adata.uns["left_out"]["Antibody Capture"]["n_features"] == 1
        assert list(adata.uns["spatial"]) == [tmp_path.name]


def test_visium_without_places_makes_none_up(tmp_path, rng):
    write_visium(tmp_path, rng)
    (tmp_path / "spatial/tissue_positions.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks tissue_positions.csv.*places of the spots are not known"):
        sn.io.read(tmp_path)


def test_visium_positions_of_another_section(tmp_path, rng):
    table = write_visium(tmp_path, rng)
    table.assign(barcode=[f"TTTT{i}-1" for i in range(N)]).to_csv(
        tmp_path / "spatial/tissue_positions.csv", index=False
    )
    with pytest.raises(ValueError, match=r"no barcode in common.*ACGT0-1.*TTTT0-1.*different sections"):
        sn.io.read(tmp_path)


# --- what cannot be read --------------------------------------------------------------------------------------------


def test_cut_table(tmp_path, rng):
    """Wherever a table ends, its rest is not made up; a last number that was cut cannot be told."""
    path = tmp_path / "cell_table.csv"
    mibi_table(rng).to_csv(path, index=False)
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + ",".join(lines[-1].split(",")[:2]))
    with pytest.raises(
        OSError, match=r"cell_table.csv' could not be read.*last line ends before the column 'CD20'.*complete"
    ):
        sn.io.read(path)
    path.write_text(lines[0])
    with pytest.raises(OSError, match="a header and no cells"):
        sn.io.read(path)
    packed = gzip.compress(text.encode())
    (tmp_path / "b").mkdir()
    for share in (0.02, 0.5, 0.99):
        (tmp_path / "b/cell_table.csv.gz").write_bytes(packed[: int(share * len(packed))])
        with pytest.raises(OSError, match=r"cell_table.csv.gz' could not be read as a table of cells: .*complete"):
            sn.io.read(tmp_path / "b")


def test_gaps_are_said(tmp_path, rng):
    table = mibi_table(rng)
    table.loc[3, "CD20"] = np.nan
    table.to_csv(tmp_path / "cell_table.csv", index=False)
    with pytest.warns(SpanmfWarning, match=r"lacks 1 numbers in the columns 'CD20'.*isnan"):
        adata = sn.io.read(tmp_path)
    assert np.isnan(adata.X).sum() == 1


@pytest.mark.parametrize("column", ["CD20", "centroid-0"])
def test_text_among_numbers(tmp_path, rng, column):
    table = mibi_table(rng).astype({column: object})
    table.loc[7, column] = "high"
    table.to_csv(tmp_path / "cell_table.csv", index=False)
    with pytest.raises(ValueError, match=rf"has 'high' in the column '{column}', line 9.*platform="):
        sn.io.read(tmp_path)


def test_ids_more_than_once(tmp_path, rng):
    table = mibi_table(rng)
    table["label"] = [1, *range(1, N)]
    table.to_csv(tmp_path / "cell_table.csv", index=False)
    with pytest.raises(ValueError, match=r"cell_table.csv' has 1 cell ids more than once \('fov0_1'\)"):
        sn.io.read(tmp_path)


@pytest.mark.parametrize("lost", ["s_exprMat_file.csv", "s_metadata_file.csv"])
def test_companion_is_missing(tmp_path, rng, lost):
    write_cosmx(tmp_path, rng)
    (tmp_path / lost).unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks \*{lost[2:-4]}\*.*CosMx.*holds"):
        sn.io.read(tmp_path)


def test_several_runs_in_a_folder(tmp_path, rng):
    counts = write_cosmx(tmp_path, rng)
    for name in ("exprMat_file", "metadata_file"):
        shutil.copy(tmp_path / f"s_{name}.csv", tmp_path / f"t_{name}.csv")
    with pytest.raises(ValueError, match=r"several runs.*Name one of the files"):
        sn.io.read(tmp_path)
    assert read_quietly(tmp_path / "t_exprMat_file.csv").n_obs == (counts["cell_ID"] > 0).sum()


def test_tables_of_different_runs(tmp_path, rng):
    write_cosmx(tmp_path, rng)
    path = tmp_path / "s_metadata_file.csv"
    pd.read_csv(path).assign(fov=lambda t: t["fov"] + 98).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"no cell in common.*'98_1'.*'0_0'"):
        sn.io.read(tmp_path)


@pytest.mark.real
def test_cut_mex(real_data, tmp_path):
    shutil.copytree(real_data / VISIUM_TWO / "section1/outs", tmp_path / "outs")
    file = tmp_path / "outs/raw_feature_bc_matrix/matrix.mtx"
    file.chmod(0o644)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-5]))
    with pytest.raises(OSError, match=r"matrix.mtx' could not be read .*338 values, but there are .*333"):
        sn.io.read(tmp_path)


def test_gem_that_is_cut_or_another_table(tmp_path, rng):
    (tmp_path / "a.gem").write_text("gene\tposition\n")
    with pytest.raises(KeyError, match="no column 'x'; it has 'gene', 'position'"):
        sn.io.read(tmp_path / "a.gem")
    molecules(rng).to_csv(tmp_path / "b.gem", sep="\t", index=False)
    lines = (tmp_path / "b.gem").read_text().splitlines()
    (tmp_path / "b.gem").write_text("\n".join(lines[:-1]) + "\nActb\t1")
    with pytest.raises(OSError, match=r"b.gem' could not be read as a GEM table"):
        sn.io.read(tmp_path / "b.gem")
    for text in ("", "Actb\t1\t1\t1\t0\n"):  # no molecule at all, or none in a cell
        (tmp_path / "d.gem").write_text("geneID\tx\ty\tMIDCount\tCellID\n" + text)
        with pytest.raises(OSError, match=r"d.gem' holds no molecule \(in cells\)"):
            sn.io.read(tmp_path / "d.gem")
    (tmp_path / "c.gef").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(OSError, match=r"c.gef' could not be read as a GEF file"):
        sn.io.read(tmp_path / "c.gef")


# --- the names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Visium", "visium"),
        ("CODEX", "codex"),
        ("Stereo-seq", "stereoseq"),
        ("MERFISH", "merscope"),
        ("CyCIF", "cycif"),
    ],
)
def test_names_as_people_write_them(given, name):
    assert _platforms.canonical(given) == name


def test_every_platform_has_a_reader_and_every_reader_a_name():
    assert {p.name or name for name, p in _read.PLATFORMS.items()} == set(_platforms.NAMES) - {"auto"}
    assert set(_platforms.ALIASES.values()) <= set(_platforms.NAMES)


def test_docs_list_every_platform():
    text = (Path(__file__).resolve().parents[1] / "docs/platforms.md").read_text()
    assert [n for n in _platforms.NAMES if n != "auto" and f'`"{n}"`' not in text] == []


def test_chunks_are_bounded(tmp_path, rng, monkeypatch):
    """A table is never parsed at once."""
    monkeypatch.setattr(_cells, "CHUNK", 1000)
    write_cosmx(tmp_path, np.random.default_rng(0))
    seen = []
    numeric = _cells._check_numeric
    monkeypatch.setattr(_cells, "_check_numeric", lambda chunk, *a: (seen.append(len(chunk)), numeric(chunk, *a)))
    table = mibi_table(rng)
    pd.concat([table.assign(fov=f"f{i}") for i in range(10)]).drop_duplicates(["fov", "label"]).to_csv(
        tmp_path / "cell_table.csv", index=False
    )
    sn.io.read(tmp_path / "cell_table.csv")
    assert len(seen) > 1
    assert all(a >= b for a, b in pairwise(seen))
