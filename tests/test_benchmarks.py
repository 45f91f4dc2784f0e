"""The benchmarks do not rot: every module is imported, and what judges, tabulates and runs them is tried on made-up rows."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the benchmarks are not part of the source distribution")
ELSEWHERE = "_peer"  # scripts for other interpreters
MODULES = sorted(f.stem for f in FOLDER.glob("*.py") if not f.stem.endswith(ELSEWHERE))


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """All modules of benchmarks/, under their names for this file alone."""
    import matplotlib as mpl

    held = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    backend = mpl.get_backend()
    sys.path.insert(0, str(FOLDER))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield SimpleNamespace(**{name: import_module(name) for name in MODULES})
    sys.path.remove(str(FOLDER))
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update(held)
    mpl.use(backend)


def row(who: str, seconds: float, *sizes: int | str, **more: object) -> dict:
    measured = {"wall_s": 2 * seconds, "cpu_s": seconds, "peak_gib": 1.5, "load": 0.5, "threads": 1, "run": "now"}
    return {"measurement": "nmf", "who": who, "sizes": list(sizes), "notes": ""} | measured | more


# --- the table of groups ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(f.name for f in FOLDER.glob(f"*{ELSEWHERE}.py")))
def test_scripts_for_other_interpreters_are_python(name: str) -> None:
    assert compile((FOLDER / name).read_text(), name, "exec").co_names


def test_every_group_has_its_measurements(bench: SimpleNamespace) -> None:
    for name, group in bench.groups.GROUPS.items():
        known = list(getattr(bench, group.module).MEASUREMENTS[name])
        assert "spanmf" in known, name
        assert set(group.quick_who) <= set(known), name
        assert group.quick_who == () or "spanmf" in group.quick_who, name
        assert group.full, name
        assert all(isinstance(sizes[0], int) for sizes in (*group.quick, *group.full)), name
        assert len({len(sizes) for sizes in (*group.quick, *group.full)}) == 1, name
        if not isinstance(group.quality, str):
            peers = [who for who in known if not who.startswith("spanmf")]
            assert set(group.quality.against) <= set(peers), name
            assert peers, name


def test_every_measurement_is_in_the_table(bench: SimpleNamespace) -> None:
    found = {name for m in MODULES for name in getattr(getattr(bench, m), "MEASUREMENTS", {})}
    assert found == set(bench.groups.GROUPS)


# --- quality ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "ours", "peers", "same", "word"),
    [
        ("lower", 100.005, [100.0], True, "same"),
        ("lower", 101.0, [100.0], False, "WORSE"),
        ("lower", 99.0, [100.0], True, "better"),
        ("lower", 100.005, [100.0, 99.0], False, "WORSE"),
        ("higher", 99.0, [100.0], False, "WORSE"),
        ("higher", 101.0, [100.0, 100.5], True, "better"),
        ("equal", 99.0, [100.0], False, "WORSE"),
        ("equal", 101.0, [100.0], False, "WORSE"),
        ("equal", 100.0, [100.0], True, "same"),
        ("lower", -100.0, [-101.0], False, "WORSE"),
        ("lower", float("nan"), [100.0], False, "WORSE"),
        ("lower", 100.0, [], None, "not compared"),
        ("lower", None, [100.0], None, "not compared"),
    ],
)
def test_a_worse_result_is_not_the_same(
    bench: SimpleNamespace, better: str, ours: float | None, peers: list[float], same: bool | None, word: str
) -> None:
    rows = [row(f"peer {i}", 1.0, 10, objective=v) for i, v in enumerate(peers)]
    rows.append(row("spanmf", 1.0, 10, objective=ours))
    judged = bench.groups.judge(rows, bench.groups.Quality("objective", better, 1e-4))
    assert judged[-1]["same"] is same
    assert judged[-1]["judged"].startswith(word)
    assert all("same" not in r for r in judged[:-1])


def test_only_named_peers_count(bench: SimpleNamespace) -> None:
    rows = [row("oracle", 1.0, 10, ari=0.9), row("peer", 1.0, 10, ari=0.5), row("spanmf", 1.0, 10, ari=0.6)]
    quality = bench.groups.Quality("ari", "higher", 0.0, against=("peer",))
    assert bench.groups.judge(rows, quality)[-1]["same"] is True


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows() -> list[dict]:
    """Three seeds of a factorisation, the last of them worse than the peer; one peer is not there."""
    out = []
    for seed, (seconds, value) in enumerate([(4.0, 10.0), (6.0, 10.0), (8.0, 9.0)]):
        out.append(row("scikit-learn", seconds, 20_000, "easy", seed, objective=value))
        out.append(row("spanmf", 2.0, 20_000, "easy", seed, objective=10.0))
    absent = {
        "measurement": "nmf",
        "who": "another",
        "sizes": [20_000, "easy", 0],
        "threads": 1,
        "left_out": "no interpreter",
    }
    return [*out, absent]


def test_lines_are_over_seeds(bench: SimpleNamespace, rows: list[dict]) -> None:
    lines = {line["who"]: line for line in bench.report.lines(rows)}
    assert lines["scikit-learn"]["sizes"] == [20_000, "easy"]
    np.testing.assert_allclose(lines["scikit-learn"]["ratio_cpu"], [2, 3, 4])
    assert lines["spanmf"]["same"] == [True, True, False]
    assert lines["spanmf"]["ratio_cpu"] == []
    assert lines["another"]["notes"] == "left out: no interpreter"


def test_markdown_says_what_is_worse(bench: SimpleNamespace, rows: list[dict]) -> None:
    text = bench.report.as_markdown(bench.report.lines(rows))
    table = [line.split(" | ") for line in text.splitlines() if line.startswith("| 20,000")]
    assert len(table) == 3
    assert {len(cells) for cells in table} == {text.splitlines()[4].count(" | ") + 1}
    assert "**WORSE: 2 of 3 as good" in text
    assert "3.0 (2.0–4.0)" in text
    assert "no interpreter" in text


def test_another_run_is_said_to_be_one(bench: SimpleNamespace, rows: list[dict]) -> None:
    apart = [r | {"run": "yesterday"} if r["who"] == "scikit-learn" else r for r in rows[:2]]
    assert "not measured in the same run" in bench.report.as_markdown(bench.report.lines(apart))


def test_pages_from_files(
    bench: SimpleNamespace, rows: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.figure_real, "DATA", tmp_path)  # no picture of a real tissue
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    (docs / "_static").mkdir(parents=True)
    for r in rows:
        path = results / bench.run.file_name(r)
        path.write_text(json.dumps(r | (bench.run.machine(1) if "wall_s" in r else {})))
    (results / "weights-of-something-else.json").write_text('{"lambdas": [0]}')
    bench.report.write_pages(results, docs)
    page = (docs / "benchmarks.md").read_text()
    assert page.startswith("# Benchmarks")
    assert bench.groups.GROUPS["nmf"].title in page
    assert "**WORSE" in page
    assert [line["who"] for line in json.loads((results / "tables.json").read_text())].count("spanmf") == 1


def test_scaling_figure(bench: SimpleNamespace, tmp_path: Path) -> None:
    curves = [
        row(who, n * factor, n, measurement="scaling_nmf", **({"floor_s": n * 1e-6} if who == "spanmf" else {}))
        for who, factor in (("scikit-learn cd, nndsvda", 1e-3), ("spanmf", 1e-4))
        for n in (1_000, 10_000)
    ]
    end = {
        "measurement": "scaling_nmf",
        "who": "scikit-learn cd, nndsvda",
        "sizes": [100_000],
        "ended": "over 600 s of CPU",
    }
    found = bench.figure_scaling.by_method([*curves, end])
    assert [len(found[who]) for who in ("spanmf", "memory bandwidth", "scikit-learn cd, nndsvda")] == [2, 2, 3]
    assert bench.figure_scaling._end(found["scikit-learn cd, nndsvda"]) == "then: over 10 min"
    bench.figure_scaling.draw([*curves, end], tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 5_000


def test_scaling_tissue_of_pieces(bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.scaling, "CACHE", tmp_path)
    monkeypatch.setattr(bench.scaling, "PIECE", 400)
    bench.scaling.make("tissue", 600)
    adata = bench.scaling.tissue(600)
    assert adata.shape == (600, 300)
    assert adata.X.max() < 20  # log-normalised
    first, second = adata.obsm["spatial"][:400], adata.obsm["spatial"][400:]
    assert first[:, 0].max() < second[:, 0].min()
    assert not set(adata.obs["library"][:400]) & set(adata.obs["library"][400:])


# --- running ----------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys

from common import left_out, main


def ours(before, n):
    print("chatter")
    return {"wall_s": 2.0, "cpu_s": 1.0, "before": len(before)}


def broken(before, n):
    raise RuntimeError("broken on purpose")


def slow(before, n):
    while True:
        pass


MEASUREMENTS = {
    "made up": {
        "spanmf": ours,
        "absent": lambda before, n: left_out("no such package"),
        "broken": broken,
        "large": lambda before, n: bytearray(2 << 30),
        "slow": slow,
    }
}
if __name__ == "__main__":
    main(MEASUREMENTS)
"""


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(
    ("who", "key", "said"),
    [
        ("spanmf", "before", 1),
        ("absent", "left_out", "no such package"),
        ("broken", "failed", "broken on purpose"),
        ("large", "ended", "memory"),
        ("slow", "ended", "1 s of CPU"),
    ],
)
def test_a_measurement_and_how_it_may_end(
    bench: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
    key: str,
    said: object,
    copied: bool,
) -> None:
    (tmp_path / "made_up.py").write_text(SCRIPT)
    monkeypatch.setattr(bench.run, "HERE", tmp_path)
    monkeypatch.setattr(bench.run, "PATIENCE", 100)  # a busy machine may give little CPU in a second
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    group = bench.groups.Group("made up", "made_up", "nothing", quick=((10,),), full=((10,),), cap_s=1.0)
    got = bench.run.in_process(group, ("made up", 10), who, [row("peer", 1.0, 10)], 1, 1.0, copied=copied)
    assert said == got[key] if isinstance(said, int) else said in got[key]
    assert got["process_wall_s"] > 0


def run_with(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, out: Path, only: str = "*", **results: dict
) -> int:
    """``run.py --only graph`` where measurements give these rows."""
    monkeypatch.setattr(bench.run, "in_process", lambda group, task, who, *_, **__: results[who.split()[0]])
    monkeypatch.setattr(bench.run, "import_module", lambda name: getattr(bench, name))
    args = argparse.Namespace(quick=False, threads=1, max_gib=8.0, who=only)
    return bench.run.run([("graph", 100_000)], args, out)


@pytest.mark.parametrize(
    ("squidpy", "spanmf", "code"),
    [({"nnz": 5}, {"nnz": 5}, 0), ({"nnz": 5}, {"nnz": 4}, 3), ({"nnz": 5}, None, 1), (None, {"nnz": 4}, 1)],
)
def test_exit_code_tells(
    bench: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    squidpy: dict | None,
    spanmf: dict | None,
    code: int,
) -> None:
    seconds = {"wall_s": 1.0, "cpu_s": 1.0}
    rows = {
        who: {"failed": "Traceback"} if found is None else seconds | found
        for who, found in (("squidpy", squidpy), ("spanmf", spanmf))
    }
    assert run_with(bench, monkeypatch, tmp_path, **rows) == code
    kept = json.loads((tmp_path / "graph-100000-spanmf-1.json").read_text())
    assert {"cpu", "cores", "memory_gib", "python", "versions", "load", "command", "run"} <= set(kept)
    assert json.loads((tmp_path / "tables.json").read_text())


def test_only_some_are_run(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seconds = {"wall_s": 1.0, "cpu_s": 1.0, "nnz": 4}
    assert run_with(bench, monkeypatch, tmp_path, only="spanmf*", spanmf=seconds) == 0
    assert [f.name for f in tmp_path.glob("graph-*.json")] == ["graph-100000-spanmf-1.json"]


def test_what_is_left_out_replaces_nothing(bench: SimpleNamespace, tmp_path: Path) -> None:
    bench.run.store(row("spanmf", 1.0, 10), tmp_path)
    bench.run.store(
        {"measurement": "nmf", "who": "spanmf", "sizes": [10], "threads": 1, "left_out": "absent"}, tmp_path
    )
    assert "wall_s" in json.loads((tmp_path / "nmf-10-spanmf-1.json").read_text())


ENDED = {"measurement": "nmf", "who": "peer", "sizes": [1_000], "ended": "memory, with 8 GiB at most"}


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ([ENDED], "memory, with 8 GiB at most, at 1,000"),
        ([ENDED, row("peer", 1.0, 3_000)], "memory, with 8 GiB at most, at 1,000"),
        ([ENDED | {"sizes": [3_000]}, ENDED], "memory, with 8 GiB at most, at 1,000"),
        ([ENDED | {"who": "another"}], ""),
        ([ENDED | {"sizes": [1_000, "hard"]}], ""),
        ([ENDED | {"sizes": [10_000]}], ""),
        ([row("peer", 599.0, 1_000, rise_gib=7.9)], ""),  # nothing is foretold
        ([{"measurement": "nmf", "who": "peer", "sizes": [1_000], "left_out": "no interpreter"}], ""),
    ],
)
def test_only_what_was_tried_keeps_larger_ones_from_being_begun(
    bench: SimpleNamespace, before: list[dict], said: str
) -> None:
    assert bench.run.not_begun({"measurement": "nmf", "who": "peer", "sizes": [10_000]}, before) == said


def test_interpreters_and_tables_that_are_not_there(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    common: ModuleType = bench.common
    monkeypatch.delenv("SPANMF_NO_PYTHON", raising=False)
    with pytest.raises(SystemExit, match="left out: SPANMF_NO_PYTHON names no interpreter that has numpy"):
        common.peer_python("SPANMF_NO_PYTHON", "numpy")
    monkeypatch.setenv("SPANMF_NO_PYTHON", sys.executable)
    assert common.peer_python("SPANMF_NO_PYTHON", "numpy", "scikit-learn") == sys.executable
    with pytest.raises(SystemExit, match=r"left out: .* lacks one of numpy, no_such_package"):
        common.peer_python("SPANMF_NO_PYTHON", "numpy", "no_such_package")
    with pytest.raises(SystemExit, match=r"left out: no_such_table.h5ad is not there"):
        common.real_table("no_such_table.h5ad")


def test_short_work_is_repeated(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    took = bench.common.LONG / 20
    monkeypatch.setattr(bench.common, "timed", lambda f: (f(), {"wall_s": took, "cpu_s": took, "peak_gib": 1.0}))
    calls: list[int] = []
    result, spent = bench.common.timed_often(lambda: calls.append(1) or len(calls))
    assert result == 1
    assert len(calls) == 1 + 21
    assert spent == {"wall_s": took / 21, "cpu_s": took / 21, "peak_gib": 1.0}


def test_a_peers_script_answers_in_its_last_line_or_says_what_failed(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.common, "HERE", tmp_path)
    (tmp_path / "peer.py").write_text("import sys; print('talk'); print('{\"got\": \"' + sys.argv[1] + '\"}')")
    (tmp_path / "broken.py").write_text("raise OSError('on purpose')")
    assert bench.common.peer_script(sys.executable, "peer.py", 5) == {"got": "5"}
    with pytest.raises(SystemExit, match=r"(?s)broken\.py failed.*on purpose"):
        bench.common.peer_script(sys.executable, "broken.py")


def test_ratio_of_wall_times_where_cpu_says_nothing(bench: SimpleNamespace) -> None:
    pair = [
        row("one worker", 3.0, 10, measurement="workers"),
        row("spanmf", 2.0, 10, measurement="workers", wall_s=3.0),
    ]
    text = bench.report.as_markdown(bench.report.lines(pair))
    assert "| clock ÷ ours |" in text
    assert "| one worker | 3 | 6 | 1.5 | 2.00 |" in text
    assert "CPU ÷ ours" not in text
