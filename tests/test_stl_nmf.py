"""Cell types in spots by the public calls."""

from __future__ import annotations

import tracemalloc
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from support import typed_cells

import spanmf as sn
from spanmf._reference import match_genes
from spanmf.core import _ops, _stl_poisson

TYPES = ["Acinar", "M/TC", "T cells"]


def make_section(cells: ad.AnnData, n: int = 64, seed: int = 1) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    B = sn.tl.reference_profiles(cells, "type").X
    V = rng.dirichlet(np.ones(3), n)
    section = ad.AnnData(sp.csr_matrix(rng.poisson(V @ B * 3).astype(np.float32)))
    section.var_names = cells.var_names
    section.obs["region"] = pd.Categorical(np.where(np.arange(n) < n // 2, "left", "right"))
    section.obsm["spatial"] = np.stack(np.divmod(np.arange(n), 8), 1) * 100.0
    section.obsm["truth"] = V
    sn.gr.contact_neighbors(section)
    section.obs["slide"] = pd.Categorical(np.where(np.arange(n) % 16 < 8, "a", "b"))  # every other row
    return section


@pytest.fixture
def cells() -> ad.AnnData:
    return typed_cells(TYPES)


@pytest.fixture
def section(cells: ad.AnnData) -> ad.AnnData:
    return make_section(cells)


@pytest.fixture
def reference(cells: ad.AnnData) -> ad.AnnData:
    return sn.tl.reference_profiles(cells, "type")


# --- profiles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, lambda X: X.toarray()])
def test_profiles_are_means(cells: ad.AnnData, form) -> None:
    dense = cells.X.toarray()
    cells.X = form(cells.X)
    cells.obs.loc[cells.obs_names[:3], "type"] = np.nan
    reference = sn.tl.reference_profiles(cells, "type")
    known = cells.obs["type"].notna().to_numpy()
    for k, name in enumerate(reference.obs_names):
        of_type = known & (cells.obs["type"] == name).to_numpy()
        np.testing.assert_allclose(reference.X[k], dense[of_type].mean(0))
        assert reference.obs["n_cells"].iloc[k] == of_type.sum()
    np.testing.assert_allclose(reference.obs["mrna"], reference.X.sum(1))


def test_types_with_few_cells_are_named(cells: ad.AnnData) -> None:
    keep = np.flatnonzero((cells.obs["type"] != "T cells").to_numpy() | (np.arange(cells.n_obs) < 9))
    with pytest.warns(UserWarning, match=r"T cells \(3\)"):
        sn.tl.reference_profiles(cells[keep], "type")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.X.data.__setitem__(0, -1), "negative"),
        (lambda c: setattr(c, "X", c.X.log1p()), "log-transformed"),
        (lambda c: c.obs.__setitem__("type", np.nan), "No cell has a type"),
        (lambda c: setattr(c, "X", c.X.multiply((c.obs["type"] != "Acinar").to_numpy()[:, None]).tocsr()), "zeros"),
    ],
)
def test_bad_cells(cells: ad.AnnData, change, message: str) -> None:
    change(cells)
    with pytest.raises(ValueError, match=message):
        sn.tl.reference_profiles(cells, "type")


# --- genes ------------------------------------------------------------------------------------------------------------


def test_genes_match_by_name_version_and_case_and_it_is_told() -> None:
    section = ["A", "ENSG00000000001.4", "Actb", "twice", "twice", "only"]
    with pytest.warns(UserWarning, match="gene") as told:
        columns, matched, how = match_genes(section, ["ENSG00000000001", "ACTB", "A", "twice", "other"])
    assert dict(zip(columns.tolist(), matched.tolist(), strict=True)) == {0: 2, 1: 0, 2: 1}
    assert how == {"equal": 1, "without version": 1, "without case": 1}
    text = " ".join(str(w.message) for w in told)
    assert all(
        word in text for word in ("without version", "without case", "'Actb' = 'ACTB'", "more than once", "twice")
    )


def test_a_loose_match_never_takes_one_of_several() -> None:
    with pytest.warns(UserWarning, match="more than once"):
        columns, _, _ = match_genes(["Abc", "ABC", "x"], ["abc", "x"])
    assert columns.tolist() == [2]


def test_equal_names_match_silently() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        columns, matched, _ = match_genes(["a", "b", "c"], ["c", "a", "z"])
    assert columns.tolist() == [0, 2]
    assert matched.tolist() == [1, 0]


# --- the call ---------------------------------------------------------------------------------------------------------


def rise(section: ad.AnnData, reference: ad.AnnData, **options) -> float:
    """What the call holds at its height beyond what was there, as a multiple of the stored counts."""
    small = section[:50].copy()
    sn.tl.stl_nmf(small, reference, graph_weight=0, **options)  # what is made once stays out of it
    tracemalloc.start()
    sn.tl.stl_nmf(section, reference, graph_weight=0, **options)
    height = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return height / (section.X.data.nbytes + section.X.indices.nbytes)


@pytest.mark.parametrize(
    ("dtype", "options", "copies"),
    [
        (np.float32, {}, 0.0),
        (np.float32, {"likelihood": "gaussian"}, 0.0),
        (np.float32, {"n_genes": 200}, 1.0),
        (np.int64, {}, 1 / 3),  # float32 values beside 12 bytes of value and index
        (np.int64, {"n_genes": 200}, 2 / 3),
    ],
)
def test_counts_are_copied_once_at_most(monkeypatch: pytest.MonkeyPatch, dtype, options: dict, copies: float) -> None:
    monkeypatch.setattr(_stl_poisson, "LEARNING_SPOTS", 100)
    monkeypatch.setattr(_ops, "VALUES", 1 << 14)
    monkeypatch.setattr(_ops, "COPIED_ROWS", 256)
    cells = typed_cells(TYPES, p=400)
    section = make_section(cells, n=5000)
    section.X = section.X.astype(dtype)
    section.X.data[section.X.indices == 7] = 0  # a gene that no spot has is no reason for a copy
    section.X.eliminate_zeros()
    assert rise(section, sn.tl.reference_profiles(cells, "type"), **options) < copies + 0.3


def test_what_is_written(section: ad.AnnData, reference: ad.AnnData) -> None:
    before = set(section.obs) | set(section.var)
    assert sn.tl.stl_nmf(section, reference, region_key="region", interval=0.9) is None
    names = ["Acinar", "M|TC", "T cells"]
    for slot in ("stl_nmf", "stl_nmf_mrna", "stl_nmf_lower", "stl_nmf_upper"):
        assert list(section.obsm[slot].columns) == names
        assert (section.obsm[slot].dtypes == np.float32).all()
        assert section.obsm[slot].index.equals(section.obs_names)
    V = section.obsm["stl_nmf"].to_numpy()
    np.testing.assert_allclose(V.sum(1), 1, rtol=1e-5)
    assert np.linalg.norm(V - section.obsm["truth"]) < 0.15 * np.linalg.norm(section.obsm["truth"])
    assert (section.obs["stl_nmf"].to_numpy() == np.array(names)[V.argmax(1)]).all()
    assert set(section.obs) | set(section.var) == before | {"stl_nmf", "stl_nmf_deviance"}
    assert section.varm["stl_nmf_profiles"].shape == (section.n_vars, 3)
    record = section.uns["stl_nmf"]
    assert list(record["types"]) == TYPES
    assert record["params"]["region_key"] == "region"
    assert record["params"]["connectivity_key"] == "contact_connectivities"
    assert record["converged"]


def test_a_second_run_without_intervals_takes_the_old_ones_away(section: ad.AnnData, reference: ad.AnnData) -> None:
    sn.tl.stl_nmf(section, reference, interval=0.5)
    sn.tl.stl_nmf(section, reference)
    assert "stl_nmf_lower" not in section.obsm


def test_copy_seed_and_views(section: ad.AnnData, reference: ad.AnnData) -> None:
    out = sn.tl.stl_nmf(section, reference, copy=True)
    assert "stl_nmf" not in section.obsm
    sn.tl.stl_nmf(section, reference)
    pd.testing.assert_frame_equal(section.obsm["stl_nmf"], out.obsm["stl_nmf"])
    part = sn.tl.stl_nmf(section[:32], reference, copy=True)
    assert part.obsm["stl_nmf"].shape == (32, 3)


def test_layers_and_dense_are_as_sparse(section: ad.AnnData, reference: ad.AnnData) -> None:
    section.layers["counts"] = section.X.toarray()
    sn.tl.stl_nmf(section, reference)
    sn.tl.stl_nmf(section, reference, layer="counts", key_added="dense")
    np.testing.assert_array_equal(section.obsm["stl_nmf"], section.obsm["dense"])


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_round_trip(section: ad.AnnData, reference: ad.AnnData, tmp_path: Path, store: str) -> None:
    sn.tl.stl_nmf(section, reference, interval=0.9)
    path = tmp_path / f"x.{store}"
    getattr(section, f"write_{store}")(path)
    again = getattr(ad, f"read_{store}")(path)
    np.testing.assert_array_equal(again.obsm["stl_nmf"].to_numpy(), section.obsm["stl_nmf"].to_numpy())
    assert list(again.uns["stl_nmf"]["types"]) == TYPES
    np.testing.assert_array_equal(again.uns["stl_nmf"]["trace"], section.uns["stl_nmf"]["trace"])


def test_libraries_cut_edges(section: ad.AnnData, reference: ad.AnnData) -> None:
    cut = sn.tl.stl_nmf(section, reference, library_key="slide", graph_weight=500, copy=True)
    whole = sn.tl.stl_nmf(section, reference, graph_weight=500, copy=True)
    assert np.abs(cut.obsm["stl_nmf"].to_numpy() - whole.obsm["stl_nmf"].to_numpy()).max() > 0.01
    alone = section[section.obs["slide"] == "a"].copy()
    sn.tl.stl_nmf(alone, reference, graph_weight=500, reference_weight=np.inf)
    both = sn.tl.stl_nmf(section, reference, library_key="slide", graph_weight=500, reference_weight=np.inf, copy=True)
    inside = both.obsm["stl_nmf"].loc[alone.obs_names]
    np.testing.assert_allclose(inside, alone.obsm["stl_nmf"], atol=0.02)


def test_a_data_frame_is_taken_as_it_is(section: ad.AnnData, reference: ad.AnnData) -> None:
    frame = pd.DataFrame(reference.X, index=reference.obs_names, columns=reference.var_names)
    sn.tl.stl_nmf(section, frame)
    assert len(section.uns["stl_nmf"]["mending"]) == 0


# --- bad input --------------------------------------------------------------------------------------------------------


def test_genes_disjoint_few_or_turned_round(section: ad.AnnData, reference: ad.AnnData) -> None:
    other = reference.copy()
    other.var_names = [f"ENSG{j:011d}" for j in range(other.n_vars)]
    with pytest.raises(ValueError, match=r"0 genes in common.*'Gene0'.*'ENSG00000000000'"):
        sn.tl.stl_nmf(section, other)
    with pytest.warns(UserWarning, match="only 20 genes in common"):
        sn.tl.stl_nmf(section, reference[:, :20].copy())
    frame = pd.DataFrame(reference.X, index=reference.obs_names, columns=reference.var_names)
    with pytest.raises(ValueError, match="transpose"):
        sn.tl.stl_nmf(section, frame.T)


def test_bad_references(section: ad.AnnData, cells: ad.AnnData, reference: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="reference_profiles"):
        sn.tl.stl_nmf(section, cells)
    with pytest.raises(TypeError, match="DataFrame"):
        sn.tl.stl_nmf(section, reference.X)
    negative = reference.copy()
    negative.X[0, 0] = -1
    with pytest.raises(ValueError, match="negative"):
        sn.tl.stl_nmf(section, negative)
    empty = reference.copy()
    empty.X[1] = 0
    with pytest.raises(ValueError, match="M/TC"):
        sn.tl.stl_nmf(section, empty)
    same = reference.copy()
    same.X[2] = same.X[0]
    with pytest.warns(UserWarning, match="'Acinar' and 'T cells'"):
        sn.tl.stl_nmf(section, same)
    twice = pd.DataFrame(reference.X, index=["a", "a", "b"], columns=reference.var_names)
    with pytest.raises(ValueError, match="more than once"):
        sn.tl.stl_nmf(section, twice)


def test_spots_without_counts_are_nan_and_told(section: ad.AnnData, reference: ad.AnnData) -> None:
    X = section.X.toarray()
    X[5] = 0
    section.X = sp.csr_matrix(X)
    with pytest.warns(UserWarning, match="1 of 64 spots have no counts"):
        sn.tl.stl_nmf(section, reference)
    assert section.obsm["stl_nmf"].iloc[5].isna().all()
    assert section.obs["stl_nmf"].isna().to_numpy().nonzero()[0].tolist() == [5]


def test_regions_may_be_missing_in_part_but_not_all(section: ad.AnnData, reference: ad.AnnData) -> None:
    section.obs.loc[section.obs_names[:5], "region"] = np.nan
    sn.tl.stl_nmf(section, reference, region_key="region", region_weight=10)
    assert section.obsm["stl_nmf"].notna().all(axis=None)
    section.obs["region"] = np.nan
    with pytest.raises(ValueError, match="No spot has a region"):
        sn.tl.stl_nmf(section, reference, region_key="region")
    with pytest.raises(KeyError, match="nowhere"):
        sn.tl.stl_nmf(section, reference, region_key="nowhere")


def test_one_spot_one_type_and_no_graph(section: ad.AnnData, reference: ad.AnnData) -> None:
    one = section[:1].copy()
    sn.tl.stl_nmf(one, reference)
    assert one.obsm["stl_nmf"].shape == (1, 3)
    sn.tl.stl_nmf(section, reference[:1].copy())
    np.testing.assert_allclose(section.obsm["stl_nmf"], 1)
    del section.obsp["contact_connectivities"], section.obsp["contact_distances"]
    with pytest.raises(KeyError, match="contact_neighbors"):
        sn.tl.stl_nmf(section, reference)
    sn.tl.stl_nmf(section, reference, graph_weight=0)


@pytest.mark.parametrize(
    "options",
    [
        {"likelihood": "nb"},
        {"graph_weight": -1},
        {"region_weight": np.nan},
        {"region_weight": 3.0},  # without regions
        {"reference_weight": -2},
        {"platform": "yes"},
        {"n_genes": 0},
        {"interval": 1.0},
        {"max_iter": 0},
        {"key_added": "a/b"},
    ],
)
def test_bad_options_leave_the_object_as_it_was(section: ad.AnnData, reference: ad.AnnData, options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        sn.tl.stl_nmf(section, reference, **options)
    assert "stl_nmf" not in section.obsm
    assert "stl_nmf" not in section.uns


def test_logarithms_are_refused_and_fractions_are_not(section: ad.AnnData, reference: ad.AnnData) -> None:
    section.layers["log"], section.layers["scaled"] = section.X.log1p(), section.X * 10.7
    for function in (sn.tl.stl_nmf, sn.tl.select_stl_weights):
        with pytest.raises(ValueError, match=r"layers\['log'\].*looks log-transformed"):
            function(section, reference, layer="log")
    assert not {"stl_nmf", "select_stl_weights"} & set(section.uns)
    sn.tl.stl_nmf(section, reference, layer="scaled")
    assert section.obsm["stl_nmf"].notna().all(axis=None)


def test_stopping_early_is_told(section: ad.AnnData, reference: ad.AnnData) -> None:
    with pytest.warns(UserWarning, match="max_iter=1"):
        sn.tl.stl_nmf(section, reference, max_iter=1)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::spanmf._checks.SpanmfWarning")
def test_types_lie_where_they_belong_in_pdac(real_data: Path) -> None:
    section, cells = (ad.read_h5ad(real_data / f"{f}.h5ad") for f in ("pdac_a_st", "pdac_a_sc_ref"))
    sn.gr.contact_neighbors(section)
    sn.tl.stl_nmf(section, sn.tl.reference_profiles(cells, "cell_type"), region_key="region")
    mean = section.obsm["stl_nmf"].groupby(section.obs["region"], observed=True).mean()
    assert mean["Acinar cells"].idxmax() == "Pancreatic"
    assert (mean["Cancer clone A"] + mean["Cancer clone B"]).idxmax() == "Cancer"
    ductal = mean[[c for c in mean if c.startswith("Ductal")]].sum(axis=1)
    assert ductal.idxmax() == "Duct Epithelium"
