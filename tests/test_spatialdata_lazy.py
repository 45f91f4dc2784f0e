"""The table of a stored SpatialData opened lazily, alone and within a SpatialData, as docs/large_data.md says."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from support import small_tissue

import spanmf as sn
from spanmf import _dask

da = pytest.importorskip("dask.array")
sd = pytest.importorskip("spatialdata", reason="spatialdata is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of spatialdata and of its readers

OTHERS = ("images", "labels", "points", "shapes")


@pytest.fixture
def store(tmp_path):
    """A stored SpatialData of cells (shapes) with their table; X holds counts."""
    from spatialdata.models import ShapesModel, TableModel

    tissue = small_tissue(1500, 40)
    tissue.X = tissue.layers["counts"].copy()
    tissue.obs["region"], tissue.obs["number"] = "cells", np.arange(tissue.n_obs)
    tissue.obs["region"] = tissue.obs["region"].astype("category")
    cells = ShapesModel.parse(tissue.obsm["spatial"], geometry=0, radius=5.0, index=tissue.obs["number"])
    table = TableModel.parse(tissue, region="cells", region_key="region", instance_key="number")
    sd.SpatialData(shapes={"cells": cells}, tables={"table": table}).write(tmp_path / "tissue.zarr")
    return tmp_path / "tissue.zarr"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_dask, "ROWS", 400)


def domains(data, table):
    """The same analysis of whatever holds the table."""
    sc.pp.normalize_total(table)
    sc.pp.log1p(table)
    sn.gr.contact_neighbors(data, library_key="sample")
    sn.tl.hsnmf(data, 4, n_domains=4)
    return np.asarray(table.obs["hsnmf"]).astype(str)


@pytest.fixture
def expected(store):
    whole = sd.read_zarr(store)
    return domains(whole, whole.tables["table"])


def test_the_table_alone(store, expected):
    table = ad.experimental.read_lazy(store / "tables" / "table")
    assert (domains(table, table) == expected).mean() > 0.99
    assert isinstance(table.X, da.Array)
    table.obs, table.var = table.obs.to_memory(), table.var.to_memory()
    sdata = sd.read_zarr(store)
    sn.io.to_spatialdata(table, sdata, "hsnmf")
    assert (np.asarray(sdata.tables["table"].obs["hsnmf"]).astype(str) == expected).mean() > 0.99


def test_within_a_spatialdata(store, expected, tmp_path):
    sdata = sd.read_zarr(store, selection=OTHERS)
    table = ad.experimental.read_lazy(store / "tables" / "table")
    table.obs, table.var = table.obs.to_memory(), table.var.to_memory()
    sdata.tables["table"] = table
    found = domains(sdata, table)
    assert (found == expected).mean() > 0.99
    assert isinstance(sdata.tables["table"].X, da.Array)
    sdata.write(tmp_path / "again.zarr")
    again = sd.read_zarr(tmp_path / "again.zarr").tables["table"]
    assert (np.asarray(again.obs["hsnmf"]).astype(str) == found).all()
    np.testing.assert_array_equal(again.obsm["X_hsnmf"], table.obsm["X_hsnmf"])


def test_cell_types_in_spots(store):
    tables = [sd.read_zarr(store).tables["table"], ad.experimental.read_lazy(store / "tables" / "table")]
    cells = small_tissue(600, 40, seed=1)
    cells.X = cells.layers["counts"]
    reference = sn.tl.reference_profiles(cells, "domain")
    for table in tables:
        sn.gr.contact_neighbors(table)
        sn.tl.stl_nmf(table, reference)
    np.testing.assert_allclose(tables[1].obsm["stl_nmf"], tables[0].obsm["stl_nmf"], atol=1e-5)
