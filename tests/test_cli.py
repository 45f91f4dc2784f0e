"""The command line: what a run leaves, what it says, how it ends, and that it leaves nothing when it fails."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numba
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score
from support import changed, small_tissue, snapshot
from support import run_cli as run

import spanmf as sn
from spanmf import _options, _runs, cli
from spanmf.io import _folder

N, K = 240, 4
ALWAYS = {*cli.OUTPUTS} - {"reference.png"}
QUICK = ("--n-components", str(K), "--n-domains", str(K))
PNG = b"\x89PNG"
MARKERS = {
    "marker_coherence", "marker_coherence_weighted", "marker_exclusion_rate", "n_marker_negative", "marker_specificity",
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("input") / "tissue.h5ad"
    small_tissue(N, 40, K).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def done(source, tmp_path_factory):
    """A whole run, and its words."""
    out = tmp_path_factory.mktemp("run") / "new" / "results"
    given = ("--layer", "counts", "--normalize", "--library-key", "sample", "--reference-key", "domain", "--seed", "3")
    return out, *run("hsnmf", source, "-o", out, *QUICK, *given)


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take most of the time of a small run, in files and in the report."""
    monkeypatch.setattr(_runs, "figures", lambda *_: {})
    monkeypatch.setattr(sn.io, "write_report", lambda _, path, **__: path.write_text("page"))


def pooled(folder: Path) -> pd.Series:
    """Numbers over all samples, by the name of the metric."""
    table = pd.read_csv(folder / "metrics.csv")
    return table[table["library"] == "all"].set_index("metric")["value"]


def contents(folder: Path) -> dict[str, bytes]:
    """All files, hidden ones included."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- what a run leaves ----------------------------------------------------------------------------------------------


def test_run_succeeds(done):
    out, status, _, errors = done
    assert status == 0
    assert {p.name for p in out.iterdir()} == {*cli.OUTPUTS}
    assert [p.name for p in out.parent.parent.iterdir()] == ["new"], "something was left beside"
    assert all((out / name).read_bytes().startswith(PNG) for name in cli.OUTPUTS if name.endswith("png"))
    assert "warning" not in errors


def test_result_is_the_input_and_the_slots(done, source):
    before, after = ad.read_h5ad(source), ad.read_h5ad(done[0] / "result.h5ad")
    assert {*changed(snapshot(before), snapshot(after))} == {
        "obs/hsnmf",
        "obs/hsnmf_matched",
        "obsm/X_hsnmf",
        "varm/hsnmf_loadings",
        "layers/lognorm",
        "obsp/contact_connectivities",
        "obsp/contact_distances",
        "uns/contact_neighbors",
        "uns/hsnmf",
    }


def test_run_is_what_the_functions_make(done, source):
    import scanpy as sc

    adata = ad.read_h5ad(source)
    adata.X = adata.layers["counts"].copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sn.gr.contact_neighbors(adata, library_key="sample")
    sn.tl.hsnmf(adata, K, n_domains=K, rng=3)
    result = ad.read_h5ad(done[0] / "result.h5ad")
    np.testing.assert_array_equal(result.obs["hsnmf"], adata.obs["hsnmf"])
    np.testing.assert_allclose(result.obsm["X_hsnmf"], adata.obsm["X_hsnmf"], rtol=1e-5)
    np.testing.assert_allclose(result.layers["lognorm"].toarray(), adata.X.toarray(), rtol=1e-6)
    table = pooled(done[0])
    expected = {
        "n_cells": N,
        "n_genes": 40,
        "n_clusters": K,
        "n_factors": K,
        "n_edges": adata.obsp["contact_connectivities"].nnz / 2,
        "edge_agreement": sn.metrics.edge_agreement(adata, "hsnmf").observed,
        "chaos": sn.metrics.chaos(adata, "hsnmf", library_key="sample"),
        "silhouette": sn.metrics.silhouette(adata, "hsnmf"),
        "davies_bouldin": sn.metrics.davies_bouldin(adata, "hsnmf"),
        "explained_variance": sn.metrics.explained_variance(adata, "hsnmf"),
        "ari": adjusted_rand_score(adata.obs["domain"], adata.obs["hsnmf"]),
    }
    assert table[[*expected]].to_dict() == pytest.approx(expected, rel=1e-4)
    assert table["ari"] > 0.6
    assert {*table[table.isna()].index} <= MARKERS  # clusters of less than 100 cells have none


def test_tables(done):
    result = ad.read_h5ad(done[0] / "result.h5ad")
    cells = pd.read_csv(done[0] / "domains.csv", dtype={"domain": str})
    assert list(cells) == ["cell_id", "x", "y", "library", "domain"]
    assert cells["cell_id"].tolist() == result.obs_names.tolist()
    np.testing.assert_allclose(cells[["x", "y"]], result.obsm["spatial"])
    assert cells["domain"].tolist() == result.obs["hsnmf"].tolist()
    assert cells["library"].tolist() == result.obs["sample"].tolist()
    pd.testing.assert_frame_equal(
        pd.read_csv(done[0] / "top_features.csv"), sn.tl.top_features(result, "hsnmf", 20), check_dtype=False
    )


def test_words_of_a_run(done):
    out, _, words, errors = done
    stages = re.findall(r"^(\w+) +\d+\.\d s  \S", errors, re.MULTILINE)
    assert stages == ["read", "values", "graph", "domains", "metrics", "figures", "report", "files"]
    result = ad.read_h5ad(out / "result.h5ad")
    sizes = result.obs["hsnmf"].value_counts()
    rows = re.findall(r"^ +(\d) +(\d+) +(\d+)%  (\d) \((\d+) %\) +(gene\d+, )", words, re.MULTILINE)
    assert [(name, int(n)) for name, n, *_ in rows] == list(sizes.items())
    for name, _, _, known, share, _ in rows:
        counts = result.obs.loc[result.obs["hsnmf"] == name, "domain"].value_counts(normalize=True)
        assert (known, int(share)) == (counts.index[0], round(100 * counts.iloc[0]))
    assert str(out.resolve()) in words
    assert all(name in words for name in cli.OUTPUTS)


def test_genes_of_a_domain_have_a_larger_share_there():
    adata = small_tissue(60, 8, 2)
    adata.obs["hsnmf"] = pd.Categorical(adata.obs["domain"])
    adata.obsm["X_hsnmf"] = np.eye(2, dtype=np.float32)[adata.obs["domain"].cat.codes] * [[1, 100]]
    H = np.full((2, 8), 0.1, dtype=np.float32)
    H[0, 3], H[1, 5] = 1, 1
    adata.varm["hsnmf_loadings"] = H.T
    genes = _runs.domain_features(adata, "hsnmf", adata.obs["domain"].cat.codes.to_numpy(), 2)
    assert [g[0] for g in genes] == ["gene3", "gene5"]


def test_colours_of_known_labels():
    """Where a known label matches a domain it has its colour; no other label has the colour of a domain."""
    adata = small_tissue(60, 8, 3)
    adata.obs["hsnmf"] = adata.obs["domain"].cat.rename_categories({"0": "1", "1": "0", "2": "2"})
    adata.obs["known"] = adata.obs["domain"].cat.rename_categories({"0": "a", "1": "b", "2": "c"})
    adata.obs["known"] = adata.obs["known"].cat.add_categories("d")
    adata.obs.iloc[0, list(adata.obs).index("known")] = "d"
    sn.tl.match_labels(adata, "hsnmf", "known", key_added="hsnmf_matched")
    own = dict(zip(adata.obs["hsnmf"].cat.categories, _runs.PALETTE, strict=False))
    palette = _runs.reference_palette(adata, "known")
    assert {k: palette[k] for k in "abc"} == {"a": own["1"], "b": own["0"], "c": own["2"]}
    assert palette["d"] not in own.values()


@pytest.mark.usefixtures("no_figures")
def test_without_reference_and_libraries(source, tmp_path):
    status, words, _ = run("hsnmf", source, "-o", tmp_path / "out", *QUICK)
    assert status == 0
    assert list(pd.read_csv(tmp_path / "out" / "domains.csv")) == ["cell_id", "x", "y", "domain"]
    result = ad.read_h5ad(tmp_path / "out" / "result.h5ad")
    assert "lognorm" not in result.layers
    assert "hsnmf_matched" not in result.obs
    assert "ari" not in pd.read_csv(tmp_path / "out" / "metrics.csv")["metric"].tolist()
    assert "known labels" not in words


@pytest.mark.usefixtures("no_figures")
def test_one_domain(source, tmp_path):
    """Numbers that need two domains are missing, the rest is there."""
    status, *_ = run("hsnmf", source, "-o", tmp_path / "out", "--n-components", K, "--resolution", 0.0001)
    table = pooled(tmp_path / "out")
    assert status == 0
    assert table["n_clusters"] == 1
    assert {"silhouette", "davies_bouldin"} <= {*table[table.isna()].index}
    assert table[["n_cells", "morans_i", "explained_variance"]].notna().all()


@pytest.mark.usefixtures("no_figures")
def test_options_arrive(source, tmp_path):
    options = {
        "contact_radius": ("--contact-radius", 25.0),
        "context_radius": ("--context-radius", 60.0),
        "spatial_key": ("--spatial-key", "elsewhere"),
    }
    adata = ad.read_h5ad(source)
    adata.obsm["elsewhere"] = adata.obsm.pop("spatial")
    adata.write_h5ad(tmp_path / "moved.h5ad")
    model = {"alpha": 0.7, "beta": 0.3, "flavor": "igraph", "smoothing": "diffuse", "resolution": 0.9}
    args = [x for flag, value in options.values() for x in (flag, value)]
    args += [x for name, value in model.items() for x in (f"--{name}", value)]
    status, *_ = run("hsnmf", tmp_path / "moved.h5ad", "-o", tmp_path / "out", "--n-components", 3, *args)
    assert status == 0
    uns = ad.read_h5ad(tmp_path / "out" / "result.h5ad").uns
    graph, run_ = uns["contact_neighbors"]["params"], uns["hsnmf"]["params"]
    assert {k: graph[k] for k in options} == {k: v for k, (_, v) in options.items()}
    assert {k: run_[k] for k in model} == model
    assert run_["n_components"] == 3


def test_landmarks_need_no_stored_graph(source, tmp_path):
    options = ("--n-components", K, "--n-landmarks", 150, "--seed", 3)
    status, _, errors = run("hsnmf", source, "-o", tmp_path / "out", *options)
    assert status == 0
    assert "neighbours a cell" in errors
    found, expected = ad.read_h5ad(tmp_path / "out" / "result.h5ad"), ad.read_h5ad(source)
    assert not found.obsp
    sn.gr.contact_neighbors(expected, store=False)
    sn.tl.hsnmf(expected, K, n_landmarks=150, rng=3)
    assert (found.obs["hsnmf"] == expected.obs["hsnmf"]).all()
    status, _, errors = run("hsnmf", source, "-o", tmp_path / "more", "--n-landmarks", 10**6)
    assert status == 1
    assert "--n-landmarks must be at most" in errors
    assert "Leave it out" in errors
    assert "values" not in errors  # the next stage
    assert not (tmp_path / "more").exists()


@pytest.mark.usefixtures("no_figures")
def test_landmarks_on_a_device_have_a_stored_graph(source, tmp_path):
    pytest.importorskip("torch")
    options = ("--n-components", K, "--n-landmarks", 150, "--device", "torch")
    status, _, errors = run("hsnmf", source, "-o", tmp_path / "out", *options)
    assert status == 0, errors
    assert "contact_connectivities" in ad.read_h5ad(tmp_path / "out" / "result.h5ad").obsp


@pytest.mark.usefixtures("no_figures")
def test_preset_goes_to_graph_and_domains(source, tmp_path):
    status, *_ = run("hsnmf", source, "-o", tmp_path / "out", "--n-components", K, "--preset", "paper")
    assert status == 0
    uns = ad.read_h5ad(tmp_path / "out" / "result.h5ad").uns
    graph, model = uns["contact_neighbors"]["params"], uns["hsnmf"]["params"]
    assert (graph["contact_radius"], graph["context_radius"]) == (20, 80)
    assert (model["smoothing"], model["flavor"], model["alpha"]) == ("diffuse", "leidenalg", 0.5)


@pytest.mark.usefixtures("no_figures")
@pytest.mark.filterwarnings("ignore:.*zarr:UserWarning")
def test_zarr_input(source, tmp_path):
    ad.read_h5ad(source).write_zarr(tmp_path / "tissue.zarr")
    assert run("hsnmf", tmp_path / "tissue.zarr", "-o", tmp_path / "out", *QUICK)[0] == 0


@pytest.mark.real
@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("vendor/xenium_breast_rebuilt", (), "cells.zarr.zip"),
        ("starmap_v1_1020.h5ad", ("--reference-key", "layer"), "contact 3"),
    ],
)
def test_real_input(real_data, tmp_path, name, options, says):
    status, words, errors = run(
        "hsnmf", real_data / name, "-o", tmp_path / "out", "--n-domains", 7, "--normalize", *options
    )
    assert status == 0
    assert says in errors
    assert not options or float(re.search(r"ARI (\d\.\d+)", words)[1]) > 0.4


# --- counts ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("options", "warned"),
    [
        (("--layer", "counts"), "raw counts: give --normalize"),
        (("--layer", "counts", "--loss", "kl"), None),
        (("--layer", "counts", "--normalize"), None),
        (("--normalize",), "does not look like raw counts"),
        ((), None),
    ],
    ids=["counts", "counts-kl", "counts-normalized", "lognorm-normalized", "lognorm"],
)
def test_counts_and_values(source, tmp_path, options, warned):
    status, _, errors = run("hsnmf", source, "-o", tmp_path / "out", *QUICK, *options)
    found = [line for line in errors.splitlines() if line.startswith("spanmf: warning: ")]
    assert status == 0
    assert len(found) == (warned is not None), found
    assert warned is None or warned in found[0]


@pytest.mark.usefixtures("no_figures")
def test_counts_beside_normalised_values(source, tmp_path):
    """What an earlier run left: the warning names the layer, since --normalize would be refused."""
    adata = ad.read_h5ad(source)
    adata.layers["lognorm"] = adata.X.copy()
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert (
        "give --layer lognorm"
        in run("hsnmf", tmp_path / "a.h5ad", "-o", tmp_path / "out", *QUICK, "--layer", "counts")[2]
    )


def test_normalising_does_not_replace_a_layer(source, tmp_path):
    adata = ad.read_h5ad(source)
    adata.layers["lognorm"] = adata.X.copy()
    adata.write_h5ad(tmp_path / "a.h5ad")
    status, _, errors = run("hsnmf", tmp_path / "a.h5ad", "-o", tmp_path / "out", "--layer", "counts", "--normalize")
    assert status == 1
    assert "--layer lognorm" in errors


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--layer", "nope"), "'nope' is not in `adata.layers`"),
        (("--library-key", "nope"), "'nope' is not in `adata.obs`, which holds 'domain', 'sample'"),
        (("--reference-key", "nope"), "'nope' is not in `adata.obs`"),
        (("--spatial-key", "nope"), "'nope' is not in `adata.obsm`"),
        (("--n-components", "41"), "--n-components is 41"),
        (("--contact-radius", "1e-6", "--context-radius", "0"), "No two observations are within"),
        (("--platform", "xenium"), "is a file. Name the Xenium output folder"),
    ],
)
def test_error_is_one_line(source, tmp_path, args, says):
    status, words, errors = run("hsnmf", source, "-o", tmp_path / "out", *args)
    assert status == 1
    assert errors.splitlines()[-1].startswith("spanmf: error: ")
    assert says in errors.splitlines()[-1]
    assert sum("error" in line for line in errors.splitlines()) == 1
    assert "Traceback" not in errors
    assert words == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["missing", "cut", "all-missing-reference", "duplicated"])
def test_bad_input(source, tmp_path, damage):
    (tmp_path / "work").mkdir()
    path = tmp_path / "bad.h5ad"
    if damage == "cut":
        path.write_bytes(source.read_bytes()[:20_000])
    elif damage != "missing":
        adata = ad.read_h5ad(source)
        adata.obs["empty"] = pd.Categorical([None] * N)
        adata.obs_names = [f"c{i // 2 if damage == 'duplicated' else i}" for i in range(N)]
        with warnings.catch_warnings(action="ignore"):
            adata.write_h5ad(path)
    reference = ("--reference-key", "empty") if damage == "all-missing-reference" else ()
    status, _, errors = run("hsnmf", path, "-o", tmp_path / "work" / "out", *reference)
    assert status == 1
    says = {"missing": "no file", "cut": "bad.h5ad", "all-missing-reference": "'empty'", "duplicated": "not unique"}
    assert says[damage] in errors.splitlines()[-1]
    assert list((tmp_path / "work").iterdir()) == []


def test_debug_shows_the_traceback_and_the_log(source, tmp_path):
    status, _, errors = run("hsnmf", source, "-o", tmp_path / "out", "--layer", "nope", "--debug")
    assert status == 1
    assert "Traceback (most recent call last)" in errors
    assert "io.read: 240 × 40" in errors


def test_out_of_memory(source, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(sn.tl, "hsnmf", fail)
    status, _, errors = run("hsnmf", source, "-o", tmp_path / "out")
    assert (status, errors.splitlines()[-1]) == (1, "spanmf: error: out of memory")


# --- usage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_reading(monkeypatch):
    """Nothing may be read before the usage is checked."""

    def fail(*_, **__):
        raise AssertionError("something was read")

    monkeypatch.setattr(sn.io, "read", fail)


@pytest.mark.usefixtures("no_reading")
@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "COMMAND"),
        (("cluster",), "cluster"),
        (("hsnmf", "a.h5ad"), "-o"),
        (("hsnmf", "-o", "out"), "INPUT"),
        (("hsnmf", "a.h5ad", "-o", "out", "--alpha", "1.5"), "--alpha: 1.5 must be at least 0 and at most 1"),
        (("hsnmf", "a.h5ad", "-o", "out", "--beta", "nan"), "--beta"),
        (("hsnmf", "a.h5ad", "-o", "out", "--resolution", "0"), "more than 0"),
        (("hsnmf", "a.h5ad", "-o", "out", "--contact-radius", "-3"), "more than 0"),
        (("hsnmf", "a.h5ad", "-o", "out", "--contact-radius", "inf"), "--contact-radius"),
        (("hsnmf", "a.h5ad", "-o", "out", "--n-components", "0"), "at least 1"),
        (("hsnmf", "a.h5ad", "-o", "out", "--n-components", "2.5"), "invalid integer value: '2.5'"),
        (("hsnmf", "a.h5ad", "-o", "out", "--n-domains", "1"), "at least 2"),
        (("hsnmf", "a.h5ad", "-o", "out", "--seed", "-1"), "at least 0"),
        (("hsnmf", "a.h5ad", "-o", "out", "--threads", "0"), "at least 1"),
        (("hsnmf", "a.h5ad", "-o", "out", "--flavor", "louvain"), "networkit"),
        (("hsnmf", "a.h5ad", "-o", "out", "--platform", "nanopore"), "xenium"),
        (("hsnmf", "a.h5ad", "-o", "out", "--clustering", "potts"), "--clustering potts needs --n-domains"),
        (("hsnmf", "a.h5ad", "-o", "out", "--contact-radius", "20", "--context-radius", "10"), "--context-radius"),
        (
            ("hsnmf", "a.h5ad", "-o", "out", "--n-domains", "5", "--alpha", "0.2"),
            "--alpha has no effect with --n-domains",
        ),
        (
            ("hsnmf", "a.h5ad", "-o", "out", "--n-domains", "5", "--n-landmarks", "100"),
            "--n-landmarks has no effect with --n-domains (--clustering potts): leave it out, or give --clustering leiden",
        ),
        (
            ("hsnmf", "a.h5ad", "-o", "out", "--n-domains", "5", "--clustering", "leiden", "--resolution", "1"),
            "--resolution has no effect with --n-domains: searched",
        ),
        (("demo", "--n-cells", "10"), "at least 150"),
    ],
)
def test_wrong_usage(args, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, errors = run(*args)
    assert status == 2
    assert says in errors.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_reading")
@pytest.mark.parametrize("command", ["hsnmf", "demo"])
@pytest.mark.parametrize("there", ["file", "folder"])
def test_output_that_is_there(source, tmp_path, there, command):
    out = tmp_path / "out"
    if there == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    status, _, errors = run(command, *[source][: command == "hsnmf"], "-o", out)
    assert status == 2
    assert errors.startswith("spanmf: error: ")
    assert ("is a file" if there == "file" else "is not empty") in errors
    assert ("--overwrite" in errors) == (command == "hsnmf" and there == "folder")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("Pass `library_key='core'` to keep them apart.", "Pass --library-key core to keep them apart."),
        ("`normalize=True`, or use `loss='kl'`.", "--normalize, or use --loss kl."),
        ("`rng` must be, `layer=`: `adata.X`, `mask_var=None`", "--seed must be, --layer: `adata.X`, `mask_var=None`"),
        (
            "X looks like raw counts. Call `sc.pp.normalize_total(adata)` and `sc.pp.log1p(adata)` first, or pass "
            "`normalize=True`, or use `loss='kl'`.",
            "X looks like raw counts. Pass --normalize, or use --loss kl.",
        ),
        ("It did not settle. Raise `max_iter`, or `tol`.", "It did not settle. In Python: Raise `max_iter`, or `tol`."),
        (
            "2 names are not unique ('a'). Call `adata.obs_names_make_unique()` first. More follows.",
            "2 names are not unique ('a'). In Python: Call `adata.obs_names_make_unique()` first. More follows.",
        ),
        ("Run `sn.tl.hsnmf(adata, 10)` or `sn.tl.stl_nmf`.", "Run `spanmf hsnmf` or `spanmf stl-nmf`."),
        ("'x' is not in `adata.obs`, which holds 'y'.", "'x' is not in `adata.obs`, which holds 'y'."),
    ],
)
def test_messages_speak_as_the_shell_does(python, shell):
    assert _options.in_shell_words(python) == shell


def test_the_warning_of_raw_counts_is_in_shell_words():
    """The sentence that the shell replaces is the one that the package says."""
    with pytest.warns(sn._checks.SpanmfWarning) as caught:
        sn._checks.warn_if_counts(np.array([[3.0, 0], [1, 7]]), "`adata.X`")
    shell = _options.in_shell_words(str(caught[0].message))
    assert "--normalize" in shell
    assert "sc.pp" not in shell


def test_a_warning_names_the_flag(source, tmp_path):
    adata = ad.read_h5ad(source)[::2].copy()
    again = adata.copy()
    again.obs_names = again.obs_names + "-b"
    both = ad.concat({"a": adata, "b": again}, label="core")  # on top of each other
    both.write_h5ad(tmp_path / "both.h5ad")
    status, _, errors = run("hsnmf", tmp_path / "both.h5ad", "-o", tmp_path / "out", "--n-components", 2)
    assert status == 0
    assert "Pass --library-key core" in errors


def test_defaults_in_the_help_are_those_of_the_functions():
    """And every option is a parameter of its function."""
    functions = {
        cli.READ: sn.io.read,
        cli.MAPS: sn.pl.factors,
        cli.GRAPH: sn.gr.contact_neighbors,
        cli.MODEL: sn.tl.hsnmf,
    }
    for options, function in [*functions.items(), (cli.SHARED, sn.gr.contact_neighbors)]:
        parameters = inspect.signature(function).parameters
        for option in options:
            actual = parameters[option.name].default
            assert option.default == actual or (isinstance(option.default, str) and actual is None), option.flag


def test_choices_are_those_of_the_functions():
    """The parser offers all that a function takes, and nothing else."""
    functions = {"platform": sn.io.read} | dict.fromkeys(("clustering", "flavor", "smoothing", "loss"), sn.tl.hsnmf)
    for option in (*cli.READ, *cli.MODEL):
        if option.choices is not None:
            annotation = inspect.signature(functions[option.name]).parameters[option.name].annotation
            assert list(option.choices) == re.findall(r"['\"](\w+)['\"]", annotation)


@pytest.mark.parametrize("command", [(), ("hsnmf",), ("demo",)])
def test_help(command):
    status, text, _ = run(*command, "--help")
    assert status == 0
    assert len(text) > 400
    if command == ("hsnmf",):
        options = (*cli.READ, *cli.SHARED, *cli.GRAPH, *cli.MAPS, *cli.MODEL)
        assert all(o.flag in text and f"(default: {o.default})"[:15] in text for o in options)
        assert all(word in text for word in ("examples:", "units:", "µm", "exit status", "--normalize"))


def test_version():
    assert run("--version") == (0, f"spanmf {sn.__version__}\n", "")


# --- nothing half-written -------------------------------------------------------------------------------------------


def fail_in(monkeypatch, where: str, error: type[BaseException]) -> None:
    """Let a stage of the run fail."""

    def fail(*_, **__):
        raise error

    def half_written(self, path, **__):
        Path(path).write_bytes(b"half")
        raise error

    targets = {
        "read": (sn.io, "read", fail),
        "graph": (sn.gr, "contact_neighbors", fail),
        "domains": (sn.tl, "hsnmf", fail),
        "metrics": (sn.metrics, "panel", fail),
        "figures": (sn.pl, "factors", fail),
        "report": (sn.io, "write_report", fail),
        "files": (ad.AnnData, "write_h5ad", half_written),
    }
    monkeypatch.setattr(*targets[where])


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, 130), (RuntimeError, 1)])
@pytest.mark.parametrize("where", ["read", "graph", "domains", "metrics", "figures", "report", "files"])
@pytest.mark.parametrize("there", [False, True], ids=["new", "overwrite"])
def test_nothing_is_left_of_a_broken_run(source, tmp_path, monkeypatch, where, error, status, there):
    out = tmp_path / "a" / "out"
    if there:
        out.mkdir(parents=True)
        for name in ("domains.csv", "result.h5ad", "notes.txt"):
            (out / name).write_text("before")
    if where in ("report", "files"):
        monkeypatch.setattr(_runs, "figures", lambda *_: {})
        monkeypatch.setattr(sn.io, "write_report", lambda *_, **__: None)
    before = contents(tmp_path), sorted(tmp_path.rglob("*"))
    fail_in(monkeypatch, where, error)
    ended, words, errors = run("hsnmf", source, "-o", out, *QUICK, "--overwrite")
    assert ended == status
    assert words == ""
    assert ("spanmf: interrupted" in errors) == (status == 130)
    assert (contents(tmp_path), sorted(tmp_path.rglob("*"))) == before


@pytest.mark.usefixtures("no_figures")
def test_overwrite_replaces_results_and_keeps_other_files(source, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "reference.png").write_text("of an earlier run")
    (tmp_path / "domains.csv").write_text("of an earlier run")
    assert run("hsnmf", source, "-o", tmp_path, *QUICK, "--overwrite")[0] == 0
    assert {p.name for p in tmp_path.iterdir()} == {n for n in ALWAYS if not n.endswith("png")} | {"notes.txt"}
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert "earlier" not in (tmp_path / "domains.csv").read_text()


@pytest.mark.usefixtures("no_figures")
def test_output_may_be_an_empty_folder(source, tmp_path, monkeypatch):
    """Also the one we are in."""
    monkeypatch.chdir(tmp_path)
    assert run("hsnmf", source, "-o", ".", *QUICK)[0] == 0
    assert {p.name for p in Path().iterdir()} == {n for n in ALWAYS if not n.endswith("png")}


@pytest.mark.parametrize("nth", range(5))
def test_exchange_of_files_is_undone(tmp_path, monkeypatch, nth):
    """Whenever it is interrupted: two old files move out and three new ones in."""
    for name in ("a", "b", "mine"):
        (tmp_path / name).write_text("old")
    before, moved, replace = contents(tmp_path), [], os.replace

    def interrupted(source, target):
        if len(moved) == nth:
            moved.append(None)
            raise KeyboardInterrupt
        moved.append(target)
        replace(source, target)

    monkeypatch.setattr(_folder.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), _folder.whole_folder(tmp_path, ["a"]) as folder:  # noqa: PT012
        for name in ("b", "c", "d"):
            (folder / name).write_text("new")
    assert contents(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []


def test_new_folder_has_the_usual_mode(tmp_path):
    (tmp_path / "usual").mkdir()
    with _folder.whole_folder(tmp_path / "x" / "y") as folder:
        (folder / "a").write_text("new")
    assert (tmp_path / "x" / "y").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert contents(tmp_path) == {"x/y/a": b"new"}


# --- the demo -------------------------------------------------------------------------------------------------------


def test_demo(tmp_path):
    out = tmp_path / "demo"
    status, words, errors = run("demo", "-o", out, "--n-cells", "1500")
    assert (status, {p.name for p in out.iterdir()}) == (0, {*cli.OUTPUTS})
    result = ad.read_h5ad(out / "result.h5ad")
    table = pooled(out)
    assert result.n_obs == table["n_cells"] == 1500
    assert table["ari"] == pytest.approx(adjusted_rand_score(result.obs["domain"], result.obs["hsnmf"]))
    assert table["ari"] > 0.3
    assert result.obs["library"].nunique() == 3
    assert "Next:" in words
    assert str(out.resolve()) in words
    assert "warning" not in errors


@pytest.mark.usefixtures("no_figures")
def test_demo_replaces_an_earlier_one_but_nothing_else(tmp_path):
    args = ("demo", "-o", tmp_path / "demo", "--n-cells", "600", "--seed")
    assert run(*args, 0)[0] == 0
    first = contents(tmp_path)
    assert run(*args, 1)[0] == 0
    second = contents(tmp_path)
    assert first.keys() == second.keys()
    assert first["demo/domains.csv"] != second["demo/domains.csv"]
    (tmp_path / "demo" / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    assert run(*args, 2)[0] == 2
    assert contents(tmp_path) == before


# --- the process ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_figures")
def test_quiet(source, tmp_path):
    assert run("hsnmf", source, "-o", tmp_path / "a", *QUICK, "--quiet") == (0, "", "")
    status, words, errors = run("hsnmf", source, "-o", tmp_path / "b", *QUICK, "--layer", "counts", "--quiet")
    assert (status, words) == (0, "")
    assert re.fullmatch(r"spanmf: warning: .*raw counts.*\n", errors)


class Terminal(io.StringIO):
    """A stderr that a person looks at."""

    def isatty(self) -> bool:
        return True


def test_running_stage_is_shown_on_a_terminal():
    terminal = Terminal()
    with contextlib.redirect_stderr(terminal):
        screen = cli.Screen()
        with screen.stage("graph") as notes:
            assert terminal.getvalue() == "graph …"
            screen.line("spanmf: warning: look")
            notes.append("5 edges")
    seen = [line.rpartition("\x1b[K")[2] for line in terminal.getvalue().split("\n")]
    assert seen[0] == "spanmf: warning: look"
    assert re.fullmatch(r"graph +0\.0 s  5 edges", seen[1])


@pytest.mark.usefixtures("no_figures")
def test_threads(source, tmp_path, monkeypatch):
    before, seen, hsnmf = numba.get_num_threads(), [], sn.tl.hsnmf

    def watched(*args, **kwargs):
        seen.append(numba.get_num_threads())
        return hsnmf(*args, **kwargs)

    monkeypatch.setattr(sn.tl, "hsnmf", watched)
    labels = []
    for n in (1, 64):
        assert run("hsnmf", source, "-o", tmp_path / str(n), *QUICK, "--threads", n)[0] == 0
        labels.append((tmp_path / str(n) / "domains.csv").read_bytes())
        assert numba.get_num_threads() == before
    assert seen == [1, numba.config.NUMBA_NUM_THREADS]
    assert labels[0] == labels[1]


def test_a_run_leaves_the_process_as_it_was(source, tmp_path):
    log = logging.getLogger("spanmf")
    state = lambda: (  # noqa: E731
        log.level, list(log.handlers), list(warnings.filters), warnings.showwarning,
        signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), dict(os.environ),
    )  # fmt: skip
    before = state()
    run("hsnmf", source, "-o", tmp_path / "out", "--layer", "nope", "--debug")
    assert state() == before


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C counts, also where the tests run in the background, whose processes ignore it from birth."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_one_ctrl_c_is_enough():
    """A second one, right after, does not break the tidying up; the handlers are put back."""
    before = signal.getsignal(signal.SIGINT)
    tidied = []
    with pytest.raises(KeyboardInterrupt), cli.signals():  # noqa: PT012
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            tidied.append(True)
    assert tidied
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_in_another_thread():
    """Where handlers cannot be set."""
    import threading

    done = []

    def work():
        with cli.signals():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


@pytest.mark.skipif(os.name == "nt", reason="signals to another process are POSIX's")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("which", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_process_that_is_stopped_leaves_nothing(tmp_path, which, status):
    process = subprocess.Popen(
        [sys.executable, "-m", "spanmf", "demo", "--n-cells", "3000"], cwd=tmp_path, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    first = process.stderr.readline()
    hidden = [p.name for p in tmp_path.iterdir()]
    process.send_signal(which)
    words, errors = process.communicate(timeout=60)
    assert first.startswith("tissue")
    assert re.fullmatch(r"\.spanmf_demo-\w+\.part", hidden[0])
    assert (process.returncode, words) == (status, "")
    assert errors.splitlines()[-1] == {130: "spanmf: interrupted", 143: "spanmf: terminated"}[status]
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_process(source, tmp_path):
    """From start to end in a process of its own, which needs no display."""
    done = subprocess.run(
        [sys.executable, "-m", "spanmf", "hsnmf", source, "-o", "out", "--n-components", str(K)], cwd=tmp_path,
        capture_output=True, env={k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "DISPLAY")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == ALWAYS
    assert b"domain" in done.stdout
    assert b"\r" not in done.stderr, "no progress bar in a log file"


@pytest.mark.parametrize("code", ["import spanmf.cli", "from spanmf.cli import main; main(['hsnmf', '--help'])"])
def test_help_is_quick(code):
    """Nothing beyond the standard library is imported before a command runs."""
    code += "; import sys; print(sorted({'numpy', 'scanpy', 'anndata', 'numba', 'matplotlib'} & {*sys.modules}))"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.perf_counter() - start < 5  # 0.2 s on an idle machine


def test_entry_point():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"]["spanmf"] == "spanmf.cli:main"
