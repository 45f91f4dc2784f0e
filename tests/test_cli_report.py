"""`spanmf metrics` and `spanmf report`: what they write and say, and that nothing half-written is left."""

from __future__ import annotations

import os
import re
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest
from support import run_cli as run
from support import small_tissue

import spanmf as sn
from spanmf._report import _sections

K = 3
CIRCULAR = "ignore:.* were smoothed over the graph that scores"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A table with a result, as `spanmf hsnmf` leaves it."""
    adata = small_tissue(200, 30, K)
    sn.gr.contact_neighbors(adata, library_key="sample")
    sn.tl.hsnmf(adata, K, n_domains=K)
    path = tmp_path_factory.mktemp("input") / "result.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture(autouse=True)
def no_factor_maps(monkeypatch):
    """Figures take most of the time of a small page."""
    monkeypatch.setattr(_sections, "_factor_map", lambda *_: "")


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- metrics --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(CIRCULAR)
def test_metrics_are_those_of_the_panel(source, tmp_path):
    options = (
        "--key",
        "hsnmf",
        "--key",
        "domain",
        "--library-key",
        "sample",
        "--per-library",
        "--reference-key",
        "domain",
    )
    status, words, errors = run("metrics", source, "-o", tmp_path / "metrics.csv", *options)
    assert status == 0
    table = pd.read_csv(tmp_path / "metrics.csv", keep_default_na=False, na_values={"value": [""]})
    expected = sn.metrics.panel(
        ad.read_h5ad(source), ["hsnmf", "domain"], library_key="sample", per_library=True, reference_key="domain"
    )
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    assert files(tmp_path) == ["metrics.csv"]
    assert re.search(r"^metrics +\d+\.\d s  \d+ numbers", errors, re.MULTILINE)
    assert "were smoothed over the graph that scores them" in errors
    assert str((tmp_path / "metrics.csv").resolve()) in words


@pytest.mark.filterwarnings(CIRCULAR)
def test_metrics_in_words(source, tmp_path):
    """A line a metric with its direction, a column a key; what a key does not have is a dash."""
    _, words, _ = run("metrics", source, "-o", tmp_path / "m.csv", "--key", "domain", "--key", "hsnmf")
    lines = {line.split()[0]: line.split()[1:] for line in words.splitlines() if line and "which way" not in line}
    assert lines["domain"] == ["hsnmf"]  # the head
    assert lines["n_clusters"] == ["3", "3"]
    assert lines["chaos"][0] == "↓"
    assert lines["silhouette"][:2] == ["↑", "–"]
    value = sn.metrics.edge_agreement(ad.read_h5ad(source), "domain").observed
    assert float(lines["edge_agreement"][1]) == pytest.approx(value, abs=6e-4)


@pytest.mark.filterwarnings(CIRCULAR)
def test_gene_sets_reach_the_enrichment(source, tmp_path):
    genes = ad.read_h5ad(source).var_names
    rows = ["\t".join([f"set{i}", "", *genes[i::3]]) for i in range(3)]
    (tmp_path / "sets.gmt").write_text("\n".join(rows))
    assert run("metrics", source, "-o", tmp_path / "m.csv", "--gmt", tmp_path / "sets.gmt")[0] == 0
    assert "enrichment" in set(pd.read_csv(tmp_path / "m.csv")["metric"])


# --- report ---------------------------------------------------------------------------------------------------------


def test_report_is_what_the_function_writes(source, tmp_path):
    status, words, errors = run(
        "report", source, "-o", tmp_path / "report.html", "--title", "Patient <7>", "--um-per-unit", 1
    )
    assert status == 0
    sn.io.write_report(ad.read_h5ad(source), tmp_path / "expected.html", title="Patient <7>", um_per_unit=1)
    assert (tmp_path / "report.html").read_bytes() == (tmp_path / "expected.html").read_bytes()
    assert "Patient &lt;7&gt;" in (tmp_path / "report.html").read_text()
    assert files(tmp_path) == ["expected.html", "report.html"]
    assert re.search(r"^report +\d+\.\d s  \d\.\d MB", errors, re.MULTILINE)
    assert "warning" not in errors
    assert str((tmp_path / "report.html").resolve()) in words


@pytest.mark.filterwarnings(CIRCULAR)
def test_report_of_given_numbers_and_options(source, tmp_path):
    run("metrics", source, "-o", tmp_path / "m.csv", "--key", "hsnmf", "--key", "domain")
    table = pd.read_csv(tmp_path / "m.csv")
    table.loc[table["metric"] == "chaos", "value"] = 0.98765
    table.to_csv(tmp_path / "m.csv", index=False)
    runs = pd.DataFrame(
        {"key": ["run-a", "run-b"], "n_components": [2, 3], "morans_i": [0.1, 0.2], "chaos": [0.2, 0.1]}
    )
    runs.assign(silhouette=[0.1, 0.2], davies_bouldin=1.0, marker_coherence=0.5).to_csv(tmp_path / "s.csv", index=False)
    given = {
        "--metrics": tmp_path / "m.csv", "--sweep": tmp_path / "s.csv", "--date": "a Friday", "--reference-key": "domain",
        "--library-key": "sample",
    }  # fmt: skip
    options = [x for pair in given.items() for x in pair]
    status, _, errors = run("report", source, "-o", tmp_path / "r.html", "--key", "hsnmf", "--key", "domain", *options)
    assert status == 0, errors
    page = (tmp_path / "r.html").read_text()
    for words in ("0.988", "run-b", "a Friday", "mostly (domain)", "For comparison: domain", "2 samples"):
        assert words in page


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["metrics", "report"])
@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--key", "leiden"), 1, "'leiden'"),
        (("--library-key", "slide"), 1, "'slide' is not in `adata.obs`"),
        (("--no-such-option",), 2, ""),
        (("-o", "there"), 2, "is there already: name another with -o, or give --overwrite"),
        (("-o", "."), 2, "is a folder: name a file"),
        (("-o", "nowhere/out"), 2, "there is no folder .*nowhere"),
    ],
)
def test_errors(source, tmp_path, monkeypatch, command, options, status, message):
    monkeypatch.chdir(tmp_path)
    Path("there").write_text("before")
    ended, _, errors = run(command, source, "-o", "out", *options)
    assert ended == status
    assert re.search(message, errors)
    assert files(tmp_path) == ["there"]
    assert Path("there").read_text() == "before"


def test_per_library_needs_a_library(source, tmp_path):
    status, _, errors = run("metrics", source, "-o", tmp_path / "m.csv", "--per-library")
    assert (status, files(tmp_path)) == (2, [])
    assert "--per-library needs --library-key" in errors


@pytest.mark.parametrize(
    ("text", "message"), [("metric,value\nchaos,1\n", "lacks the columns 'key', 'better'"), ("", "could not be read")]
)
def test_numbers_of_something_else(source, tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    status, _, errors = run("report", source, "-o", tmp_path / "r.html", "--metrics", tmp_path / "m.csv")
    assert (status, files(tmp_path)) == (1, ["m.csv"])
    assert message in errors


def test_overwrite_replaces_a_whole_file_or_leaves_it(source, tmp_path, monkeypatch):
    out = tmp_path / "r.html"
    out.write_text("before")
    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        status, _, errors = run("report", source, "-o", out, "--overwrite")
    assert (status, out.read_text(), files(tmp_path)) == (1, "before", ["r.html"])
    assert "disk full" in errors
    assert run("report", source, "-o", out, "--overwrite")[0] == 0
    assert out.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("command", ["metrics", "report"])
def test_help_teaches(command):
    status, words, _ = run(command, "--help")
    assert status == 0
    assert "examples:" in words
    assert f"spanmf {command} results/result.h5ad" in words
    assert "exit status" in words
    assert all(f"({x}" not in words for x in ("default: None", "default: ==SUPPRESS=="))
    assert command in run("--help")[1]
