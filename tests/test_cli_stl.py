"""``spanmf stl-nmf``: what it leaves, that it is what the functions make, and that it leaves nothing on an error."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from support import run_cli as run

import spanmf as sn
from spanmf import _cli_stl

FIGURES = {n for n in _cli_stl.OUTPUTS if n.endswith(".png")}
BASIC = ("--groupby", "cell_type")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    section = sn.datasets.visium_section(90, n_genes=200, n_types=5)
    section.obs["region"] = section.obs["domain"].astype(str)
    section.obs.loc[section.obs_names[0], "region"] = np.nan
    section.layers["raw"] = section.X.copy()
    section.layers["log"] = section.X.log1p()
    section.write_h5ad(folder / "section.h5ad")
    cells = sn.datasets.xenium_tissue(400, n_genes=200, n_types=5, n_libraries=1)
    cells.obs["cell_type"] = cells.obs["cell_type"].cat.rename_categories({"CD4 T": "CD4/T"})
    cells.layers["log"] = cells.X.log1p()
    cells.write_h5ad(folder / "cells.h5ad")
    pd.DataFrame({"cell_type": ["tumour", "B", "B"], "gene": ["EPCAM", "MS4A1", "CD79A"]}).to_csv(
        folder / "markers.csv", index=False
    )
    sn.tl.StlWeights(n_layers=5).save(folder / "w.json")
    return folder


def stl(files: Path, out: Path, *options) -> tuple[int, str, str]:
    return run("stl-nmf", files / "section.h5ad", "--reference", files / "cells.h5ad", *BASIC, "-o", out, *options)


@pytest.fixture(scope="module")
def done(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "results"
    options = (
        "--region-key",
        "region",
        "--markers",
        files / "markers.csv",
        "--interval",
        "0.8",
        "--cells-per-spot",
        "6,6",
    )
    return out, *stl(files, out, *options)


def test_a_whole_run(done) -> None:
    out, status, words, errors = done
    assert status == 0, errors
    assert {p.name for p in out.iterdir()} == set(_cli_stl.OUTPUTS)
    assert all((out / n).read_bytes().startswith(b"\x89PNG") for n in FIGURES)
    assert all(n in words for n in _cli_stl.OUTPUTS)
    assert "most in (region)" in words
    assert [p.name for p in out.parent.iterdir()] == ["results"]


def test_it_is_what_the_functions_make(done, files) -> None:
    out = done[0]
    section, cells = ad.read_h5ad(files / "section.h5ad"), ad.read_h5ad(files / "cells.h5ad")
    sn.gr.contact_neighbors(section)
    reference = sn.tl.reference_profiles(cells, "cell_type")
    sn.tl.stl_nmf(section, reference, region_key="region", interval=0.8, cells_per_spot=(6, 6))
    result = ad.read_h5ad(out / "result.h5ad")
    for slot in ("stl_nmf", "stl_nmf_mrna", "stl_nmf_lower"):
        pd.testing.assert_frame_equal(result.obsm[slot], section.obsm[slot])
    shares = pd.read_csv(out / "proportions.csv", index_col="spot_id")
    assert list(shares.columns) == ["x", "y", "largest", *reference.obs_names]
    np.testing.assert_allclose(shares["CD4/T"], section.obsm["stl_nmf"]["CD4|T"], rtol=1e-5)
    np.testing.assert_allclose(shares[["x", "y"]], section.obsm["spatial"])
    intervals = pd.read_csv(out / "intervals.csv")
    assert len(intervals) == 90 * reference.n_obs
    assert ((intervals["lower"] <= intervals["share"] + 1e-6) & (intervals["share"] <= intervals["upper"] + 1e-6)).all()
    types = pd.read_csv(out / "types.csv").set_index("cell_type")
    np.testing.assert_allclose(types["mean_share"].sum(), 1, rtol=1e-4)
    assert types["reference_cells"].to_dict() == reference.obs["n_cells"].to_dict()
    assert types["spots_where_largest"].sum() == 90
    markers = sn.metrics.marker_correlation(section, pd.read_csv(files / "markers.csv")).set_index("cell_type")
    np.testing.assert_allclose(types.loc["B", "marker_correlation"], markers.loc["B", "correlation"], rtol=1e-5)
    metrics = pd.read_csv(out / "metrics.csv").set_index("metric")["value"]
    assert metrics["n_spots"] == 90
    assert metrics["marker_correlation"] == pytest.approx(markers["correlation"].mean(), rel=1e-5)
    genes = pd.read_csv(out / "genes.csv", index_col="gene")
    assert genes.index.isin(section.var_names).all()
    np.testing.assert_allclose(genes["deviance"], section.var.loc[genes.index, "stl_nmf_deviance"], rtol=1e-5)


@pytest.mark.parametrize("how", [("--preset", "paper"), ("--weights", "w.json")])
def test_the_published_form(files, tmp_path, how) -> None:
    how = [files / h if h == "w.json" else h for h in how]
    status, _, errors = stl(files, tmp_path / "out", "--region-key", "region", *how, "--layer", "raw", "--quiet")
    assert status == 0, errors
    result = ad.read_h5ad(tmp_path / "out" / "result.h5ad")
    assert result.uns["stl_nmf"]["likelihood"] == "paper"
    assert not (tmp_path / "out" / "intervals.csv").exists()


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (("--preset", "paper", "--interval", "0.9"), 2, "--interval has no effect"),
        (("--weights", "w.json", "--n-genes", "5", "--contact-radius", "3"), 2, "--n-genes and --contact-radius have no effect"),
        (("--contact-radius", "5", "--context-radius", "2"), 2, "--context-radius"),
        (("--interval", "2"), 2, "at most 0.999"),
        (("--preset", "paper", "--reference-weight", "inf"), 2, "--reference-weight has no effect"),
        (("--reference-weight", "nan"), 2, "at least 0"),
        (("--graph-weight", "inf"), 2, "at least 0"),
        (("--region-weight", "2"), 1, "--region-key"),
        (("--cells-per-spot", "5,2"), 2, "the least and the most"),
        (("--cells-per-spot", "few"), 2, "invalid span"),
        (("--region-key", "no"), 1, "'no' is not in"),
        (("--layer", "no"), 1, "'no'"),
        (("--reference-layer", "no"), 1, "'no'"),
        (("--markers", "no.csv"), 1, "no.csv"),
        (("--weights", "no.json"), 1, "no.json"),
        (("--groupby", "no"), 1, "In the reference: 'no'"),
        (("--reference-layer", "log"), 1, "In the reference: `adata_sc.layers['log']` looks log-transformed"),
        (("--reference-layer", "log"), 1, "with --reference-layer."),
        (("--layer", "log"), 1, "with --layer."),
    ],
)  # fmt: skip
def test_errors_leave_nothing(files, tmp_path, options, status, words) -> None:
    out = tmp_path / "out"
    found, _, errors = stl(files, out, *options)
    assert found == status
    assert words in errors
    assert not out.exists()
    assert "Traceback" not in errors


def test_profiles_can_be_kept(files, tmp_path) -> None:
    status, _, errors = stl(files, tmp_path / "out", "--reference-weight", "inf", "--n-genes", "50")
    assert status == 0, errors
    result = ad.read_h5ad(tmp_path / "out" / "result.h5ad")
    assert np.isinf(result.uns["stl_nmf"]["params"]["reference_weight"])
    assert len(result.uns["stl_nmf"]["mending"]) == 0


def test_a_table_of_markers_needs_its_columns(files, tmp_path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("a,b\n1,2\n")
    status, _, errors = stl(files, tmp_path / "out", "--markers", path)
    assert status == 1
    assert "'cell_type' and 'gene'" in errors


def test_what_is_there_is_not_replaced_unasked(done, files) -> None:
    before = (done[0] / "types.csv").read_bytes()
    status, _, errors = stl(files, done[0])
    assert status == 2
    assert "--overwrite" in errors
    assert (done[0] / "types.csv").read_bytes() == before


def test_help_teaches() -> None:
    status, words, _ = run("stl-nmf", "--help")
    assert status == 0
    for part in ("raw counts", "--region-key", "--weights", "examples:", "fit_quality.png", "exit status"):
        assert part in words
    assert "stl-nmf" in run("--help")[1]
