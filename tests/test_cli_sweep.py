"""``spanmf sweep``: what it leaves, that it goes on where it was, and that it leaves nothing when nothing was finished."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import pandas as pd
import pytest
from support import run_cli as run
from support import small_tissue

import spanmf as sn
from spanmf import _cli_sweep
from spanmf.core import _leiden

GRID = ("--n-components", "3,4", "--resolution", "0.3,0.8")
ALWAYS = {"pareto.png", "sweep.csv", "summary.txt", "runs.jsonl"}

pytestmark = pytest.mark.filterwarnings("ignore::spanmf._checks.ConvergenceWarning")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("input") / "tissue.h5ad"
    small_tissue(800, 30).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def done(source, tmp_path_factory):
    """A whole sweep, and its words."""
    out = tmp_path_factory.mktemp("run") / "new" / "sweep"
    gmt = out.parent.parent / "sets.gmt"
    gmt.write_text("".join(f"set{i}\t\t" + "\t".join(f"gene{j}" for j in range(i, 30, 4)) + "\n" for i in range(4)))
    given = ("--layer", "counts", "--normalize", "--library-key", "sample", "--reference-key", "domain", "--gmt", gmt)
    return out, *run("sweep", source, "-o", out, *GRID, *given, "--seed", "0,3", "--keep-labels")


@pytest.fixture
def stop(monkeypatch):
    """Interrupt before the n-th run of Leiden, or let it fail."""
    prepared = _leiden.prepared

    def at(n: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        left = iter(range(n))

        def stopping(A, flavor):
            go = prepared(A, flavor)

            def run_or_stop(*args):
                if next(left, None) is None:
                    raise error
                return go(*args)

            return run_or_stop

        monkeypatch.setattr(_leiden, "prepared", stopping if n < 100 else prepared)

    return at


def test_a_whole_sweep(done, source):
    out, status, words, errors = done
    assert status == 0
    assert {p.name for p in out.iterdir()} == ALWAYS | {"result.h5ad"}
    assert {p.name for p in out.parent.parent.iterdir()} == {"new", "sets.gmt"}, "something was left beside"
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "summary.txt").read_text(encoding="utf-8").strip() in words
    assert all(name in words for name in ALWAYS)
    assert "--normalize" not in errors
    table = pd.read_csv(out / "sweep.csv")
    assert len(table) == 8
    front = sn.metrics.pareto_front(table)
    pd.testing.assert_frame_equal(front, table)
    knee = table[table["knee"]].iloc[0]
    assert f"--n-components {knee['n_components']} --resolution {knee['resolution']:g}" in words
    assert f"8 runs, {table['on_front'].sum()} of which" in words


def test_it_is_what_the_function_makes(done, source):
    import scanpy as sc

    adata = ad.read_h5ad(source)
    adata.X = adata.layers["counts"].copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sn.gr.contact_neighbors(adata, library_key="sample")
    table = sn.tl.sweep(
        adata, [3, 4], [0.3, 0.8], rng=[0, 3], library_key="sample", reference_key="domain", keep_labels=True,
        gene_sets=done[0].parent.parent / "sets.gmt",
    )  # fmt: skip
    written = pd.read_csv(done[0] / "sweep.csv")[list(table)]
    written["note"] = written["note"].astype(object).fillna("")
    pd.testing.assert_frame_equal(written, table, check_dtype=False, rtol=1e-4)
    result = ad.read_h5ad(done[0] / "result.h5ad")
    pd.testing.assert_frame_equal(result.obsm["sweep_labels"], adata.obsm["sweep_labels"])


def test_counts_are_warned_of_once(source, tmp_path):
    errors = run("sweep", source, "-o", tmp_path / "sweep", *GRID, "--layer", "counts")[2]
    found = [line for line in errors.splitlines() if "raw counts" in line]
    assert len(found) == 1
    assert "give --normalize" in found[0]


def test_resume_after_an_interruption(source, tmp_path, stop):
    out = tmp_path / "sweep"
    stop(2)
    status, _, errors = run("sweep", source, "-o", out, *GRID)
    assert status == 130
    assert [p.name for p in out.iterdir()] == ["runs.jsonl"]
    assert [p.name for p in tmp_path.iterdir()] == ["sweep"]
    assert "2 finished runs are kept" in errors
    assert "--resume" in errors
    kept = (out / "runs.jsonl").read_bytes()
    status, _, errors = run("sweep", source, "-o", out, *GRID)
    assert status == 2
    assert "or --resume to go on" in errors
    stop(2)  # two are missing
    assert run("sweep", source, "-o", out, *GRID, "--resume")[0] == 0
    assert {p.name for p in out.iterdir()} == ALWAYS
    assert (out / "runs.jsonl").read_bytes().startswith(kept)
    assert len(pd.read_csv(out / "sweep.csv")) == 4
    stop(1)
    grown = ("--n-components", "4", "--resolution", "0.3,0.5")
    assert run("sweep", source, "-o", out, *grown, "--resume")[0] == 0
    assert pd.read_csv(out / "sweep.csv")["resolution"].tolist() == [0.3, 0.5]


def test_resume_with_other_options_is_refused(source, tmp_path):
    out = tmp_path / "sweep"
    assert run("sweep", source, "-o", out, "--n-components", 3, "--resolution", 0.5)[0] == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    status, _, errors = run(
        "sweep", source, "-o", out, "--n-components", 3, "--resolution", 0.5, "--resume", "--flavor", "igraph"
    )
    assert status == 1
    assert "('networkit' there, 'igraph' now)" in errors
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty-folder"])
def test_nothing_is_left_when_no_run_was_finished(source, tmp_path, stop, there):
    out = tmp_path / "sweep"
    if there:
        out.mkdir()
    stop(0, RuntimeError)
    assert run("sweep", source, "-o", out, *GRID)[0] == 1
    assert [p.name for p in tmp_path.iterdir()] == (["sweep"] if there else [])
    assert not there or not any(out.iterdir())


def test_overwrite(source, tmp_path):
    out = tmp_path / "sweep"
    out.mkdir()
    (out / "mine.txt").write_text("stays")
    (out / "runs.jsonl").write_text("of another tissue\n")
    command = ("sweep", source, "-o", out, "--n-components", 3, "--resolution", 0.5)
    assert run(*command)[0] == 2
    assert run(*command, "--overwrite")[0] == 0
    assert {p.name for p in out.iterdir()} == ALWAYS | {"mine.txt"}


def test_no_run_has_all_scores(source, tmp_path):
    """One domain everywhere: a table and words, no picture."""
    out = tmp_path / "sweep"
    status, words, _ = run("sweep", source, "-o", out, "--n-components", 3, "--resolution", 0.00001)
    assert status == 0
    assert {p.name for p in out.iterdir()} == ALWAYS - {"pareto.png"}
    assert "No run has all three" in words
    assert "silhouette: " in pd.read_csv(out / "sweep.csv")["note"][0]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--n-components", "3,x"), "x"),
        (("--n-components", ""), "n-components"),
        (("--n-components", "3,0"), "0 must be at least 1"),
        (("--resolution", "0.5,0.50"), "0.5,0.50 has a value more than once"),
        (("--alpha", "0.1,1.5"), "1.5 must be at least 0 and at most 1"),
        (("--smoothing", "laplacian", "--beta", "0.5"), "--beta has no effect"),
        (("--resume", "--overwrite"), "not allowed with"),
    ],
)
def test_wrong_usage(source, tmp_path, args, says):
    status, _, errors = run("sweep", source, "-o", tmp_path / "out", *args)
    assert status == 2
    assert says in errors
    assert not any(tmp_path.iterdir())


def test_nothing_to_resume(source, tmp_path):
    (tmp_path / "mine.txt").touch()
    status, _, errors = run("sweep", source, "-o", tmp_path, "--resume")
    assert status == 2
    assert "no finished runs" in errors
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_options_are_those_of_the_function():
    import inspect

    parameters = inspect.signature(sn.tl.sweep).parameters
    for option in _cli_sweep.GRID + _cli_sweep.FIXED + _cli_sweep.SCORES:
        default = parameters[option.name].default
        if isinstance(default, tuple):
            assert [float(x) for x in option.default.split(",")] == list(default)
        elif option.default in ("none", "X"):
            assert default is None
        else:
            assert option.default == default
