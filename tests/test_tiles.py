"""Graphs that are described and not stored: the same edges, and the same results, as the stored ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from support import changed, small_tissue, snapshot

import spanmf as sn
from spanmf import _report
from spanmf._report import _sections
from spanmf.core import _colocalization, _graph, _smooth, _tiles

RADII = {"contact_radius": 20.0, "context_radius": 45.0}


def places(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates and library codes of odd tissues."""
    rng = np.random.default_rng(0)
    n = 600
    xy = rng.random((n, 2)) * 400
    one = np.zeros(n, dtype=np.int32)
    lattice = np.stack(np.meshgrid(np.arange(30.0), np.arange(20.0)), -1).reshape(-1, 2) * 20
    return {
        "random": (xy, one),
        "far from the origin": (xy + 1e7, one),
        "lattice": (lattice, one),
        "libraries on top of each other": (xy, rng.integers(0, 3, n).astype(np.int32)),
        "libraries of one and two": (xy, np.minimum(np.arange(n), 3).astype(np.int32)),
        "coincident": (np.repeat(xy[:15], 40, axis=0), one),
        "one line": (xy * [1, 0], one),
        "3-D": (rng.random((n, 3)) * [200, 200, 60], one),
    }[kind]


KINDS = (
    "random", "far from the origin", "lattice", "libraries on top of each other", "libraries of one and two",
    "coincident", "one line", "3-D",
)  # fmt: skip


@pytest.mark.parametrize("size", [7, 64, 10_000])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_hold_every_row_of_the_whole_graph_once(kind: str, size: int) -> None:
    coords, codes = places(kind)
    tiled = _tiles.RadiusGraph(coords, codes, **RADII, tile_size=size)
    A, D = _graph.radius_graph(coords, codes, **RADII)
    assert A.nnz > 100
    seen = np.zeros(len(coords), dtype=int)
    for part in tiled.parts(lengths=True):
        ids = np.arange(len(coords))[part.ids]
        rows = ids[part.own]
        assert len(rows) <= size
        assert (np.diff(ids) > 0).all()
        seen[rows] += 1
        for whole, own in ((A[rows], part.A[part.own]), (D[rows], part.D[part.own])):
            np.testing.assert_array_equal(own.data, whole.data)
            np.testing.assert_array_equal(ids[own.indices], whole.indices)
        assert part.A.nnz == own.nnz  # nothing in the rows of the halo
    assert (seen == 1).all()
    assert tiled.nnz == A.nnz
    np.testing.assert_array_equal(_tiles.degrees(tiled), np.diff(A.indptr))
    np.testing.assert_allclose(tiled.row_sums, np.asarray(A.sum(1)).ravel())


def test_rows_and_subsets_are_those_of_the_whole_graph() -> None:
    coords, codes = places("libraries on top of each other")
    tiled = _tiles.RadiusGraph(coords, codes, **RADII, tile_size=50)
    A = tiled.tocsr()
    rows = np.array([3, 77, 400, 599])
    assert (_tiles.rows_of(tiled, rows)[rows] != A[rows]).nnz == 0
    assert _tiles.rows_of(A, rows) is A
    among = _tiles.among(tiled, np.arange(100, 300))
    assert (among.tocsr() != _tiles.among(A, np.arange(100, 300))).nnz == 0
    assert set(_tiles.unweighted(tiled).tocsr().data) == {1.0}


@pytest.mark.parametrize("size", [16, 100])
def test_products_and_steps_are_those_of_the_whole_graph_to_the_bit(size: int) -> None:
    coords, codes = places("random")
    tiled = _tiles.RadiusGraph(coords, codes, **RADII, tile_size=size)
    stored, described = _smooth.as_graph(tiled.tocsr()), _smooth.as_graph(tiled)
    W = np.random.default_rng(1).random((len(coords), 16), dtype=np.float32)
    np.testing.assert_array_equal(described.degree, stored.degree)
    np.testing.assert_array_equal(_smooth.graph_product(described, W), _smooth.graph_product(stored, W))
    np.testing.assert_array_equal(_smooth.diffuse(described, W[:, :5]), _smooth.diffuse(stored, W[:, :5]))


# --- tables ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 60 observations, so that a small table has several."""
    defaults = _tiles.RadiusGraph.__init__.__defaults__
    smaller = tuple(60 if value == _tiles.TILE else value for value in defaults)
    assert smaller != defaults
    monkeypatch.setattr(_tiles.RadiusGraph.__init__, "__defaults__", smaller)


def both(**options: Any) -> tuple[ad.AnnData, ad.AnnData]:
    """A table with the graph in it, and one that describes it."""
    stored = small_tissue(500)
    stored.obs["label"] = stored.obs["domain"].astype(str) + np.where(np.arange(500) % 3, "a", "b")
    described = stored.copy()
    sn.gr.contact_neighbors(stored, 20, 50, **options)
    sn.gr.contact_neighbors(described, 20, 50, **options, store=False)
    assert not described.obsp
    return stored, described


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("smoothing", ["refit", "diffuse", "laplacian"])
@pytest.mark.parametrize("library_key", [None, "sample"])
def test_snmf_is_the_same_to_the_bit(smoothing: str, library_key: str | None) -> None:
    tables = both(library_key=library_key)
    for table in tables:
        sn.tl.snmf(table, 4, smoothing=smoothing)
    np.testing.assert_array_equal(*(table.obsm["X_snmf"] for table in tables))
    np.testing.assert_array_equal(*(table.varm["snmf_loadings"] for table in tables))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("options", [{"n_domains": 4}, {"n_domains": 4, "clustering": "kmeans"}, {"alpha": 0.0}])
def test_hsnmf_is_the_same(options: dict[str, Any]) -> None:
    tables = both()
    for table in tables:
        sn.tl.hsnmf(table, 4, **options)
    assert tables[0].obs["hsnmf"].nunique() > 1
    assert (tables[0].obs["hsnmf"] == tables[1].obs["hsnmf"]).all()


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.filterwarnings("ignore:.*were smoothed over:spanmf._checks.SpanmfWarning")
def test_metrics_are_the_same() -> None:
    tables = both()
    for table in tables:
        sn.tl.snmf(table, 4)
    scores = [
        [
            sn.metrics.morans_i(table, "snmf"),
            sn.metrics.morans_i(table, "snmf", assumption="smoothed", n_permutations=5),
            sn.metrics.gearys_c(table, "snmf"),
            sn.metrics.panel(table, ["domain", "snmf"]).pivot(index="metric", columns="key", values="value"),
            sn.metrics.per_library(sn.metrics.edge_agreement, table, "domain", library_key="sample"),
        ]
        for table in tables
    ]
    for stored, described in zip(*scores, strict=True):
        np.testing.assert_allclose(described, stored, rtol=1e-9)  # sums over tiles are rounded in another order
    for preset in (None, "paper"):
        values = [sn.metrics.edge_agreement(table, "label", preset=preset) for table in tables]
        assert values[0] == values[1]  # these sums are exact


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weighted": True},
        {"statistic": "prevalence", "include_self": True},
        {"library_key": "sample", "n_permutations": 10},
        {"library_key": "sample", "null": "toroidal", "n_permutations": 10},
    ],
)
def test_colocalization_is_the_same(options: dict[str, Any]) -> None:
    tables = both(library_key="sample")
    results = [sn.gr.colocalization(table, "label", **options) for table in tables]
    assert results[0]["observed"].sum() > 100
    assert results[0].equals(results[1])


@pytest.mark.usefixtures("small_tiles")
def test_places_of_rare_labels_are_drawn_from_the_same_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    tables, drawn = both(), []
    draw = _colocalization.draw_places
    monkeypatch.setattr(_colocalization, "draw_places", lambda *args: drawn.append(args[2]) or draw(*args))
    rng = np.random.default_rng(0)
    dense = rng.random((500, 2)) * 300
    dense[:60] = dense[0] + rng.random((60, 2)) * 5  # a core of high degree
    label = np.where(np.arange(500) % 50 == 1, "rare", "common")
    results = []
    for table, store in zip(tables, (True, False), strict=True):
        table.obsm["spatial"], table.obs["label"] = dense, label
        del table.obs["sample"]
        sn.gr.contact_neighbors(table, 20, 0, store=store)
        results.append(sn.gr.colocalization(table, "label"))
    assert len(drawn) >= 2
    assert results[0].equals(results[1])


@pytest.mark.usefixtures("small_tiles")
def test_places_of_a_rare_label_are_looked_for_in_its_library_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, sizes = np.random.default_rng(0), []
    adata = small_tissue(600)
    adata.obsm["spatial"] = rng.random((600, 2)) * 300
    adata.obs["sample"] = np.repeat(["a", "b", "c"], 200)
    for core in (0, 200, 400):
        adata.obsm["spatial"][core : core + 40] = adata.obsm["spatial"][core] + rng.random((40, 2)) * 5
    adata.obs["label"] = np.where(np.arange(600) % 50 == 1, "rare", "common")
    draw = _colocalization.draw_places
    monkeypatch.setattr(_colocalization, "draw_places", lambda *args: sizes.append(args[0].shape[0]) or draw(*args))
    tiled = sn.gr.colocalization(adata, "label", radius=20, library_key="sample")
    assert len(sizes) >= 3
    assert set(sizes) == {200}
    sn.gr.contact_neighbors(adata, 20, 0, library_key="sample")
    stored = sn.gr.colocalization(adata, "label", library_key="sample")
    assert set(sizes) == {200, 600}
    assert tiled.equals(stored)


def rings(dense: bool) -> pd.DataFrame:
    """Co-localisation by distance, of an even tissue in two samples or of one with a dense core and a rare label."""
    adata = small_tissue(500)
    adata.obsm["spatial"][7] = adata.obsm["spatial"][3]  # at the same place
    if not dense:
        return sn.gr.colocalization_by_distance(adata, "domain", [15, 40, 60], library_key="sample")
    rng = np.random.default_rng(0)
    adata.obsm["spatial"] = rng.random((500, 2)) * 300
    adata.obsm["spatial"][:60] = adata.obsm["spatial"][0] + rng.random((60, 2)) * 5
    adata.obs["label"] = np.where(np.arange(500) % 50 == 1, "rare", "common")
    return sn.gr.colocalization_by_distance(adata, "label", [15, 40])


@pytest.mark.parametrize("dense", [False, True])
def test_rings_of_distance_are_counted_tile_by_tile(dense: bool, request: pytest.FixtureRequest, monkeypatch) -> None:
    whole, made, draws = rings(dense), [], []
    request.getfixturevalue("small_tiles")
    edges, draw = _tiles.RadiusGraph._edges, _colocalization.draw_places
    monkeypatch.setattr(_tiles.RadiusGraph, "_edges", lambda A, ids: made.append(len(ids)) or edges(A, ids))
    monkeypatch.setattr(_colocalization, "draw_places", lambda *args: draws.append(args[2]) or draw(*args))
    assert rings(dense).equals(whole)
    assert max(made) < 500  # never all at once
    assert bool(draws) == dense
    if not dense:
        adata = small_tissue(500)
        adata.obsm["spatial"][7] = adata.obsm["spatial"][3]
        xy, of = adata.obsm["spatial"], adata.obs["domain"].to_numpy()
        d = np.sqrt(((xy[:, None] - xy[None]) ** 2).sum(-1))
        d[(adata.obs["sample"].to_numpy()[:, None] != adata.obs["sample"].to_numpy()) | np.eye(500, dtype=bool)] = (
            np.inf
        )
        for row in whole[whole["library"] == "all"].itertuples():
            near = (d <= row.radius_to) & ((d > row.radius_from) | (row.radius_from == 0))
            count = near[np.ix_(of == row.a, of == row.b)].sum()
            assert row.observed == count / (1 + (row.a == row.b))


@pytest.mark.usefixtures("small_tiles")
def test_niches_and_summary_are_the_same() -> None:
    tables = both(library_key="sample")
    for options in ({}, {"library_key": "sample", "include_self": True}):
        shares = [sn.gr.niche_composition(t, "label", connectivity_key="contact", copy=True, **options) for t in tables]
        assert shares[0].equals(shares[1])
    for table in tables:
        table.obsm["spatial"] = np.round(table.obsm["spatial"] / 10) * 10  # some coincide
    sn.gr.contact_neighbors(tables[0], 20, 50)
    sn.gr.contact_neighbors(tables[1], 20, 50, store=False)
    summaries = [sn.gr.graph_summary(table, library_key="sample") for table in tables]
    assert summaries[0].loc["all", ["n_coincident", "n_crossing"]].min() > 0
    assert summaries[0].equals(summaries[1])


@pytest.mark.usefixtures("small_tiles")
def test_a_radius_is_counted_in_tiles_too() -> None:
    adata = small_tissue(500)
    sn.gr.contact_neighbors(adata, 40, 0, contact_weight=1)
    stored = sn.gr.colocalization(adata, "domain")
    assert sn.gr.colocalization(adata, "domain", radius=40).equals(stored)


@pytest.mark.usefixtures("small_tiles")
def test_a_described_graph_is_drawn() -> None:
    drawn = []
    for table in both():
        ax = sn.pl.graph(table)
        drawn.append([segment for lines in ax.collections[:2] for segment in lines.get_segments()])
        plt.close("all")
    assert len(drawn[0]) > 100
    np.testing.assert_array_equal(*drawn)


def test_a_report_shows_a_described_graph() -> None:
    texts = []
    for table in both(key_added="near"):
        sn.tl.hsnmf(table, 3, n_domains=3, connectivity_key="near")
        texts.append(_sections.graph(_report.Subject(table, "hsnmf", [])))
    assert texts[0] == texts[1]  # pictures too
    assert "within 20" in texts[0]


# --- what is written, read and refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning", "ignore:.*zarr v2:UserWarning")
def test_the_description_survives_a_store(tmp_path: Path, store: str) -> None:
    stored, described = both(library_key="sample")
    path = tmp_path / f"table.{store}"
    getattr(described, f"write_{store}")(path)
    again = getattr(ad, f"read_{store}")(path)
    assert sn.metrics.edge_agreement(again, "domain") == sn.metrics.edge_agreement(stored, "domain")
    part = again[:300]  # a view takes its part of the graph along
    assert sn.metrics.edge_agreement(part, "domain") == sn.metrics.edge_agreement(stored[:300], "domain")


def test_describing_replaces_a_stored_graph_of_that_name_and_nothing_else() -> None:
    adata = small_tissue(200)
    sn.gr.contact_neighbors(adata, 20, 50)
    sn.gr.contact_neighbors(adata, 20, 50, key_added="other")
    before = snapshot(adata)
    sn.gr.contact_neighbors(adata, 20, 50, store=False)
    after = snapshot(adata)
    assert changed(before, after) == [
        "obsp/contact_connectivities", "obsp/contact_distances", "uns/contact_neighbors",
    ]  # fmt: skip
    assert list(adata.uns["contact_neighbors"]) == ["params"]
    sn.gr.contact_neighbors(adata, 20, 50)
    assert snapshot(adata) == before


def test_a_described_contact_graph_comes_before_squidpys_and_a_name_may_have_its_suffix() -> None:
    stored, described = both()
    described.obsp["spatial_connectivities"] = stored.obsp["contact_connectivities"][::-1]
    value = sn.metrics.edge_agreement(stored, "domain")
    for key in (None, "contact", "contact_connectivities"):
        assert sn.metrics.edge_agreement(described, "domain", connectivity_key=key) == value


@pytest.mark.parametrize(
    "call",
    [
        lambda adata: sn.gr.hybrid_neighbors(adata, use_rep="W"),
        lambda adata: sn.tl.hsnmf(adata, 4),
        lambda adata: sn.tl.hsnmf(adata, 4, n_domains=3, clustering="leiden"),
        lambda adata: sn.tl.select_n_domains(adata, [2, 3], n_components=3),
    ],
)
def test_what_needs_the_matrix_says_so_and_writes_nothing(call: Any) -> None:
    _, adata = both()
    before = snapshot(adata)
    with pytest.raises(KeyError, match=r"described, not stored.*contact_neighbors\(adata, 20, 50, store=True\)"):
        call(adata)
    assert snapshot(adata) == before


def test_bad_input() -> None:
    adata = small_tissue(200)
    before = snapshot(adata)
    with pytest.raises(ValueError, match="leave out one"):
        sn.gr.contact_neighbors(adata, 20, 50, store=False, copy=True)
    with pytest.raises(ValueError, match="No two observations are within"):
        sn.gr.contact_neighbors(adata, 1e-9, 0, store=False)
    with pytest.raises(TypeError):
        sn.gr.contact_neighbors(adata, 20, 50, store="no")
    assert snapshot(adata) == before
    sn.gr.contact_neighbors(adata, 20, 50, library_key="sample", store=False)
    del adata.obs["sample"]
    with pytest.raises(KeyError, match="sample"):
        sn.tl.snmf(adata, 4)


@pytest.mark.usefixtures("small_tiles")
def test_overlapping_slides_are_warned_of_without_a_matrix() -> None:
    adata = small_tissue(300)
    adata.obs["slide"] = np.arange(300) % 2
    with pytest.warns(UserWarning, match="slides seem to"):
        sn.gr.contact_neighbors(adata, 20, 50, store=False)


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning", "ignore:.*zarr v2:UserWarning")
def test_a_table_read_lazily_has_the_graph_of_the_table(tmp_path: Path, store: bool) -> None:
    pytest.importorskip("xarray")
    adata = small_tissue(300)
    adata.obs["slide"] = np.arange(300) % 2
    rows, columns = np.divmod(np.arange(300), 20)
    adata.obs["array_row"], adata.obs["array_col"] = rows, columns
    adata.obsm["spatial"] = np.column_stack([columns, rows]) * 10.0
    adata.write_zarr(tmp_path / "table.zarr")
    lazily = ad.experimental.read_lazy(tmp_path / "table.zarr")
    for table in (adata, lazily):
        with pytest.warns(UserWarning, match="slides seem to"):
            sn.gr.contact_neighbors(table, store=store)
    radii = [table.uns["contact_neighbors"]["params"]["contact_radius"] for table in (adata, lazily)]
    assert radii[0] == radii[1] == pytest.approx(13)  # that of an array
    assert sn.metrics.morans_i(lazily, adata.obsm["W"]).equals(sn.metrics.morans_i(adata, adata.obsm["W"]))
