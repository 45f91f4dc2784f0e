"""GMT files, and the enrichment of gene sets against hypergeometric tests counted out here."""

from __future__ import annotations

import gzip
import sys
from math import comb
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.stats import norm
from support import changed, small_tissue, snapshot

import spanmf as sn
from spanmf._checks import SpanmfWarning

GMT = "T_CELL\tof the blood\tCD3E\tCD8A\nB_CELL\t\tMS4A1\tCD19\tMS4A1\nT_CELL\tagain\tCD8A\tCD4\n\n"
SETS = {"T_CELL": ["CD3E", "CD8A", "CD4"], "B_CELL": ["MS4A1", "CD19"]}


@pytest.fixture
def adata() -> ad.AnnData:
    """Four domains of about 150 cells; gene j belongs to the programme of domain j % 4."""
    return small_tissue(600)


@pytest.fixture
def library() -> dict[str, list[str]]:
    """A set for each programme with a gene of another and one that is not in the table, and 20 sets at random."""
    rng = np.random.default_rng(0)
    sets = {f"programme {k}": [*(f"gene{j}" for j in range(k, 40, 4)), f"gene{(k + 1) % 4}", "CD3E"] for k in range(4)}
    for i in range(20):
        sets[f"random {i}"] = [f"gene{j}" for j in rng.choice(60, 8, replace=False)]
    return sets


# --- GMT ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [Path.write_bytes, lambda path, b: path.write_bytes(gzip.compress(b))])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_gmt(tmp_path: Path, write, end: str) -> None:
    write(tmp_path / "sets.gmt", GMT.replace("\n", end).encode())
    assert sn.io.read_gmt(tmp_path / "sets.gmt") == SETS
    assert list(sn.io.read_gmt(str(tmp_path / "sets.gmt"))) == list(SETS)


def test_gmt_of_enrichr(tmp_path: Path) -> None:
    """Weights behind the genes, and a tab at the end of the line."""
    (tmp_path / "sets.gmt").write_text("T_CELL\t\tCD3E,1.0\tCD8A,0.5\t\n", encoding="utf-8-sig")
    assert sn.io.read_gmt(tmp_path / "sets.gmt") == {"T_CELL": ["CD3E", "CD8A"]}


CUT = {
    "no gene": (GMT.encode() + b"NK_CELL\tof the blood", r"Line 5 .*'NK_CELL\\tof the blood' is not a name"),
    "no description": (b"T_CELL\t\tCD3E\nNK", "Line 2 .*'NK' is not a name"),
    "no name": (b"\t\tCD3E\n", "Line 1 "),
    "a table": (b"set,gene\nT_CELL,CD3E\n", "Line 1 .*'set,gene' is not a name, a description and at least one gene"),
    "bytes": (b"T_CELL\t\tCD3E\n\x89PNG\0\0", "Line 2 .*bytes that are not text"),
    "latin": (b"T_CELL\t\tCD3E\nna\xefve\t\tCD4\n", "Line 2 .*bytes that are not text"),
    "gzip cut": (gzip.compress(GMT.encode() * 50)[:-12], "Line [0-9]+ .*the compressed file breaks off or is damaged"),
    "gzip damaged": (gzip.compress(GMT.encode())[:-8] + b"damaged!", "Line [0-9]+ .*the compressed file"),
    "empty": (b"", "has no gene set: it is empty"),
    "blank": (b"\n\n", "has no gene set: it is empty"),
}


@pytest.mark.parametrize("case", CUT)
def test_files_that_are_not_gmt(tmp_path: Path, adata: ad.AnnData, case: str) -> None:
    content, match = CUT[case]
    (tmp_path / "sets.gmt").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        sn.io.read_gmt(tmp_path / "sets.gmt")
    with pytest.raises(ValueError, match=match):
        sn.metrics.enrichment(adata, "domain", tmp_path / "sets.gmt")


def test_a_cut_that_may_be_none_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "sets.gmt").write_text("T_CELL\t\tCD3E\tCD")
    with pytest.warns(SpanmfWarning, match="Line 1 .*has no end of line.*'T_CELL' misses genes"):
        assert sn.io.read_gmt(tmp_path / "sets.gmt") == {"T_CELL": ["CD3E", "CD"]}


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        sn.io.read_gmt(tmp_path / "no.gmt")


# --- the tests ------------------------------------------------------------------------------------------------------


def slow_p(overlap: int, n_set: int, n_query: int, n: int) -> float:
    """Share of the ways to draw the query that have at least this overlap."""
    ways = sum(comb(n_set, k) * comb(n - n_set, n_query - k) for k in range(overlap, min(n_set, n_query) + 1))
    return ways / comb(n, n_query)


def slow_bh(p: list[float]) -> list[float]:
    return [min(1.0, *(q * len(p) / sum(x <= q for x in p) for q in p if q >= own)) for own in p]


def slow_enrichment(queries: dict[str, set], sets: dict[str, set], n: int, *, only_hits: bool = False):
    rows, best = {}, {}
    for c, query in queries.items():
        p = {s: slow_p(len(query & genes), len(genes), len(query), n) for s, genes in sets.items()}
        hits = [s for s in sets if query & sets[s]]
        tested = hits if only_hits else list(sets)
        padj = dict(zip(tested, slow_bh([p[s] for s in tested]), strict=True))
        rows |= {(c, s): (len(query & sets[s]), len(sets[s]), len(query), p[s], padj[s]) for s in hits}
        best[c] = min(padj.values(), default=1.0)
    return rows, np.median([min(10.0, -np.log10(q)) for q in best.values()])


def same(result: sn.metrics.Enrichment, slow) -> None:
    rows, score = slow
    table = result.table.set_index(["cluster", "set"])
    assert set(table.index) == set(rows)
    columns = ["overlap", "n_set", "n_genes", "p", "padj"]
    expected = pd.DataFrame.from_dict(rows, orient="index", columns=columns).set_axis(pd.MultiIndex.from_tuples(rows))
    np.testing.assert_allclose(table.loc[expected.index, columns].to_numpy(float), expected.to_numpy(float), rtol=1e-8)
    assert result.score == pytest.approx(score)


def queries_of(adata: ad.AnnData, key: str, n: int, **kwargs) -> dict[str, set]:
    """The genes that are tested are the markers of clusters, found in all cells."""
    table = sn.metrics.marker_table(adata, key, n_markers=n, cross_fit=False, **kwargs)
    return {c: set(genes.split(", ")) for c, genes in table["markers"].items() if genes}


def test_equals_counted_out_tests(adata: ad.AnnData, library: dict[str, list[str]]) -> None:
    panel = set(adata.var_names)
    sets = {s: set(genes) & panel for s, genes in library.items()}
    result = sn.metrics.enrichment(adata, "domain", library | {"small": ["gene0", "gene1"]}, n_genes=12)
    same(result, slow_enrichment(queries_of(adata, "domain", 12), sets, 60))
    with_small = sn.metrics.enrichment(adata, "domain", library | {"small": ["gene0", "gene1"]}, n_genes=12, min_size=2)
    same(with_small, slow_enrichment(queries_of(adata, "domain", 12), sets | {"small": {"gene0", "gene1"}}, 60))
    first = result.table.iloc[0]
    assert set(first["genes"].split(", ")) <= set(library[first["set"]])
    assert first["overlap"] == len(first["genes"].split(", "))


def test_published_form(adata: ad.AnnData, library: dict[str, list[str]]) -> None:
    """A background of 20,000 genes, adjustment over the sets that share a gene, small clusters by expression."""
    labels = adata.obs["domain"].astype(str).to_numpy()
    labels[:30] = "tiny"
    adata.obs["label"] = pd.Categorical(labels)
    sets = {s: set(genes) for s, genes in library.items()} | {"small": {"gene0"}}
    queries = queries_of(adata, "label", 12, preset="paper")
    assert len(queries) == 5
    result = sn.metrics.enrichment(adata, "label", sets, n_genes=12, preset="paper")
    same(result, slow_enrichment(queries, sets, 20_000, only_hits=True))
    with pytest.warns(SpanmfWarning, match="1 of 5 clusters .'tiny'; 5.0% of the observations. have fewer than 100"):
        ours = sn.metrics.enrichment(adata, "label", sets, n_genes=12)
    assert "tiny" not in set(ours.table["cluster"])
    assert result.score > ours.score  # the panel was chosen for its function: its genes are in sets


def test_planted_programmes_are_found(adata: ad.AnnData, library: dict[str, list[str]]) -> None:
    result = sn.metrics.enrichment(adata, "domain", library, n_genes=15)
    best = result.table.groupby("cluster").first()
    assert list(best["set"]) == [f"programme {c}" for c in best.index]
    assert (best["padj"] < 0.01).all()


def test_random_labels_have_no_enrichment(adata: ad.AnnData, library: dict[str, list[str]]) -> None:
    """Their top genes rise together by chance, but none significantly; the published form falls for it."""
    rng, ours, published = np.random.default_rng(0), [], []
    for _ in range(4):
        labels = rng.permutation(adata.obs["domain"])
        ours.append(sn.metrics.enrichment(adata, labels, library, n_genes=15).score)
        published.append(sn.metrics.enrichment(adata, labels, library, n_genes=15, preset="paper").score)
    assert max(ours) < 0.5
    assert min(published) > 1.3


def test_only_significant_genes_are_tested(adata: ad.AnnData, library: dict[str, list[str]]) -> None:
    table = sn.metrics.enrichment(adata, "domain", library, n_genes=60).table
    sc.tl.rank_genes_groups(adata, "domain", method="wilcoxon", tie_correct=True)
    for c in "0123":
        z = adata.uns["rank_genes_groups"]["scores"][c]
        n = sum(q <= 0.05 and x > 0 for q, x in zip(slow_bh(list(norm.sf(z))), z, strict=True))
        assert 5 < n < 55
        assert set(table.loc[table["cluster"] == c, "n_genes"]) == {n}


def test_inputs_agree(adata: ad.AnnData, library: dict[str, list[str]], tmp_path: Path) -> None:
    lines = "".join("\t".join([name, "", *genes]) + "\n" for name, genes in library.items())
    (tmp_path / "sets.gmt").write_text(lines)
    before = snapshot(adata)
    results = [
        sn.metrics.enrichment(adata, "domain", library),
        sn.metrics.enrichment(adata, "domain", tmp_path / "sets.gmt"),
        sn.metrics.enrichment(adata, "domain", str(tmp_path / "sets.gmt")),
        sn.metrics.enrichment(adata.X.toarray(), adata.obs["domain"], library, var_names=adata.var_names),
    ]
    for result in results:
        pd.testing.assert_frame_equal(result.table, results[0].table)
        assert result.score == results[0].score
    panel = sn.metrics.panel(adata, "domain", gene_sets=tmp_path / "sets.gmt").set_index("metric")
    assert panel.loc["enrichment", "value"] == results[0].score
    assert "enrichment" not in set(sn.metrics.panel(adata, "domain")["metric"])
    assert changed(before, snapshot(adata)) == []


def test_by_library(adata: ad.AnnData, library: dict[str, list[str]]) -> None:
    adata.obs["core"] = np.where(np.arange(600) % 2, "odd", "even")
    options = {"library_key": "core", "gene_sets": library, "min_cells": 20}
    both = sn.metrics.per_library(sn.metrics.enrichment, adata, "domain", **options)
    for name, rows in (("odd", adata[1::2]), ("even", adata[::2]), ("all", adata)):
        assert both.loc[name, "score"] == sn.metrics.enrichment(rows, "domain", library, min_cells=20).score
    markers = sn.metrics.per_library(sn.metrics.marker_coherence, adata, "domain", library_key="core", min_cells=20)
    assert list(markers.loc["all"]) == list(sn.metrics.marker_coherence(adata, "domain", min_cells=20))


def test_case_of_names_is_kept(adata: ad.AnnData) -> None:
    """Names that differ by case are not the same gene, whatever the case of the library."""
    result = sn.metrics.enrichment(adata, "domain", {"lower": ["gene0", "gene1", "gene2"], "upper": ["GENE0"] * 5})
    assert set(result.table["set"]) == {"lower"}


def test_what_cannot_be_tested(adata: ad.AnnData, library: dict[str, list[str]]) -> None:
    columns = list(sn.metrics.enrichment(adata, "domain", library).table)
    for labels, why in ((np.zeros(600), "only one cluster"), (np.arange(600), "600 of 600 clusters .*fewer than 100")):
        with pytest.warns(SpanmfWarning, match=why):
            result = sn.metrics.enrichment(adata, labels, library)
        assert np.isnan(result.score)
        assert list(result.table) == columns
        assert len(result.table) == 0
    nothing = {"others": [f"gene{j}" for j in range(57, 60)]}
    result = sn.metrics.enrichment(adata, "domain", nothing, n_genes=1)
    assert result.score == 0
    assert len(result.table) == 0
    labels = adata.obs["domain"].astype(object)
    labels.iloc[::7] = np.nan
    known = labels.notna().to_numpy()
    gappy = sn.metrics.enrichment(adata, pd.Categorical(labels, categories=[*"0123", "unused"]), library)
    pd.testing.assert_frame_equal(gappy.table, sn.metrics.enrichment(adata[known], "domain", library).table)


BAD = {
    "strangers": (
        {"gene_sets": {"T cell": ["CD3E", "CD3D", "CD4"]}},
        ValueError,
        "None of the 1 gene sets has 3 genes",
    ),
    "an empty set": ({"gene_sets": {"T cell": []}}, ValueError, "gives no gene for 'T cell'"),
    "no set": ({"gene_sets": {}}, ValueError, "`gene_sets` is empty"),
    "one name": ({"gene_sets": {"T cell": "gene0"}}, TypeError, "a list of names of genes is needed"),
    "a list": ({"gene_sets": ["gene0"]}, TypeError, "must be a mapping from the name of a set to its genes, not list"),
    "n_genes": ({"n_genes": 0}, ValueError, "`n_genes` must be at least 1"),
    "min_size": ({"min_size": 0}, ValueError, "`min_size` must be at least 1"),
    "preset": ({"preset": "enrichr"}, ValueError, "`preset` must be one of"),
    "labels": ({"labels": "region"}, KeyError, r"'region' is not in `adata\.obs`"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(adata: ad.AnnData, library: dict[str, list[str]], case: str) -> None:
    kwargs, error, match = BAD[case]
    with pytest.raises(error, match=match):
        sn.metrics.enrichment(adata, **{"labels": "domain", "gene_sets": library} | kwargs)
    with pytest.raises(TypeError, match="`var_names=`"):
        sn.metrics.enrichment(adata.X, adata.obs["domain"], library)


def test_without_gseapy_the_extra_is_named(adata: ad.AnnData, library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gseapy.stats", None)
    with pytest.raises(ImportError, match=r"pip install 'spanmf\[enrichment\]'"):
        sn.metrics.enrichment(adata, "domain", library)
