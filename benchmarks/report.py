"""Tables of ratios from the rows of ``run.py``: for the terminal, as JSON, and as docs/benchmarks.md."""

from __future__ import annotations

import json
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from statistics import median, mode
from typing import Any

from groups import GROUPS, Row, compared, is_ours, judge, share

HEAD = """\
# Benchmarks

Ours and named peers on the same data in one run, each measurement in a process of its own, warmed up (compiled code is loaded, not
compiled). **CPU seconds are compared**: other work ran on the machine at times (the load when a measurement began stands beside it), and
seconds by the clock say little then; they stand in the JSON files. A ratio is the other's CPU time over that of `spanmf`; GiB is the peak
of the whole process, packages and data included. Times compare only where the result is as good: *quality* says by how much
spanmf's is off the best peer's (relative; minus is less), **WORSE** where it is worse than the tolerance above the table allows. Over seeds
it is the median (least–greatest).

```bash
python benchmarks/run.py --quick            # every group in a small form, under five minutes
python benchmarks/run.py --list             # the groups and their full sizes
python benchmarks/run.py --only nmf,graph   # some of them; prints these tables, writes JSON into benchmarks/results
python benchmarks/run.py --docs             # writes this page and its figure from all results
```

The exit code is 1 where a measurement failed and 3 where one of ours was worse than a peer's; a peer or a real table that is not there
is left out with its reason. `benchmarks/README.md` says how a group is added and where the peers' interpreters are named.

Machine: {cores} cores, {memory:.0f} GiB, {cpu}; Python {python}; {versions}. Unless it is said otherwise tissues and matrices are generated
(`spanmf.datasets`), so anybody can run this, on {threads}. The first touch of new memory is slow on this virtual machine (about 1.5 s a
GiB), which weighs on the graph of a million cells.
"""
SCALING = """\
## Time and memory against cells

![Time and memory against cells](_static/scaling.png)

`python benchmarks/run.py --only 'scaling_*'`; a generated tissue of 300 genes (beyond three million cells the same three million again, side by side), each point a
process of its own that reads its data from disk. Memory is the largest resident set of the process, the packages and the data included. Where a
curve is said to end, the next size was begun and ended by its limits, ten minutes of CPU or {limit:.0f} GiB; where nothing is said, nothing
larger was run. The floor of the factorisation is the time that its passes over X need at the bandwidth with which one core reads memory on
this machine, measured in the same process. At the largest size that both ran, and at the largest of ours:

{table}
"""
ELSEWHERE = """\
## Told elsewhere

Domains on real tissues, beside what else a user would try: [](evaluation.md). Which defaults, and how many domains:
[](domains_evidence.md). The STL-NMF paper's own tests: [](deconvolution_published.md).
"""
COLUMNS = {
    "title": "", "size": "size", "who": "", "cpu": "CPU s", "wall": "s by the clock", "gib": "GiB", "ratio": "CPU ÷ ours",
    "ratio_wall": "clock ÷ ours", "judged": "quality", "notes": "what it reached", "load": "load",
}  # fmt: skip


# --- lines of a table -------------------------------------------------------------------------------------------------


def lines(rows: list[Row]) -> list[Row]:
    """One line a method and size; over the seeds where a group has some."""
    tasks: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        tasks[row["measurement"], row["threads"], tuple(row["sizes"])].append(row)
    cells: dict[tuple, list[Row]] = defaultdict(list)
    for (name, threads, sizes), task in tasks.items():
        ours = next((r for r in task if r["who"] == "spanmf" and "wall_s" in r), None)
        for row in judge(task, GROUPS[name].quality):
            key = sizes[:-1] if GROUPS[name].seeds else sizes
            cells[name, threads, key, row["who"]].append(row | _ratio(row, ours))
    return [_line(*key, group) for key, group in cells.items()]


def _ratio(row: Row, ours: Row | None) -> Row:
    if ours is None or row["who"] == ours["who"] or "wall_s" not in row or not ours["cpu_s"]:
        return {}
    apart = {} if row.get("run") == ours.get("run") else {"apart": True}
    return {"ratio_cpu": row["cpu_s"] / ours["cpu_s"], "ratio_wall": row["wall_s"] / ours["wall_s"]} | apart


def _line(name: str, threads: int, sizes: tuple, who: str, rows: list[Row]) -> Row:
    there = [r for r in rows if "wall_s" in r]
    quality = GROUPS[name].quality
    line: Row = {"group": name, "sizes": list(sizes), "threads": threads, "who": who, "n": len(there)}
    if not there:
        reason = next(
            (f"{k.replace('_', ' ')}: {r[k]}" for r in rows for k in ("ended", "left_out", "failed") if k in r), ""
        )
        return line | {"notes": reason.splitlines()[-1] if reason else ""}
    for field in ("cpu_s", "wall_s", "peak_gib", "ratio_cpu", "ratio_wall", "load"):
        line[field] = [r[field] for r in there if field in r]
    if not isinstance(quality, str):
        line["value"] = [r[quality.field] for r in there if isinstance(r.get(quality.field), int | float)]
        line["field"] = quality.field
    line["told"] = {f: [r[f] for r in there if f in r] for f in GROUPS[name].told}
    line["same"] = [r["same"] for r in there if r.get("same") is not None]
    line["judged"] = _judged(there)
    line["notes"] = there[0].get("notes", "") if len(there) == 1 else ""
    if any("apart" in r for r in there):
        line["notes"] = "; ".join(filter(None, [line["notes"], "not measured in the same run as ours"]))
    return line


def _judged(rows: list[Row]) -> str:
    told = [r["judged"] for r in rows if r.get("judged")]
    both = [r for r in rows if r.get("same") is not None]
    if len(rows) == 1 or not both:
        return told[0] if told else ""
    worse = [r for r in both if not r["same"]]
    text = f"{len(both) - len(worse)} of {len(both)} as good"
    off = sorted(r["off"] for r in both)
    return f"{'WORSE: ' if worse else ''}{text}, {share(off[0])} to {share(off[-1])}"


def write_tables(table: list[Row], out: Path) -> None:
    """The lines as JSON."""
    (out / "tables.json").write_text(json.dumps(table, indent=1))


# --- as text ----------------------------------------------------------------------------------------------------------


def as_markdown(table: list[Row], level: int = 2) -> str:
    """One table a group."""
    text = []
    for name in dict.fromkeys(line["group"] for line in table):
        text += [f"{'#' * level} {GROUPS[name].title}", "", compared(GROUPS[name]), ""]
        text += [*_table([x for x in table if x["group"] == name]), ""]
    return "\n".join(text)


def largest(table: list[Row]) -> list[Row]:
    """The lines of each curve at the largest size that ours and the peer both ran, and ours at the largest of all."""
    out = []
    for place, name in enumerate(n for n in GROUPS if n.startswith("scaling_")):
        there = [x for x in table if x["group"] == name and x["n"]]
        common = {x["sizes"][0] for x in there if not is_ours(x)} & {
            x["sizes"][0] for x in there if x["who"] == "spanmf"
        }
        title = GROUPS[name].title.removeprefix("Scaling: ")
        last = {x["who"]: max(y["sizes"][0] for y in there if y["who"] == x["who"]) for x in there if is_ours(x)}
        shown = [x for x in there if x["sizes"][0] in (max(common, default=0), last.get(x["who"]))]
        out += [x | {"title": title, "place": place} for x in shown]
    return out


def _table(table: list[Row]) -> list[str]:
    body = [_cells(line) for line in sorted(table, key=_order)]
    used = [c for c in COLUMNS if any(row[c] for row in body)]
    if {row["who"] for row in body} == {"spanmf"}:
        used.remove("who")
    head = ["| " + " | ".join(COLUMNS[c] for c in used) + " |", "|" + "---|" * len(used)]
    return head + ["| " + " | ".join(row[c] for c in used) + " |" for row in body]


def _order(line: Row) -> tuple:
    numbers = tuple((0, s, "") if isinstance(s, int) else (1, 0, s) for s in line["sizes"])
    return (
        line.get("title", ""),
        *numbers[1:2],
        *numbers[:1],
        *numbers[2:],
        line["threads"],
        not is_ours(line),
        line["who"] != "spanmf",
    )


def _cells(line: Row) -> dict[str, str]:
    size = " ".join(f"{s:,}" if isinstance(s, int) and s > 99 else str(s) for s in line["sizes"])
    threads = "" if line["threads"] == 1 or GROUPS[line["group"]].threads else f", {line['threads']} threads"
    judged, by_wall = line.get("judged", ""), GROUPS[line["group"]].by_wall
    return {
        "title": line.get("title", ""),
        "size": size + threads,
        "who": line["who"],
        "cpu": _spread(line.get("cpu_s", [])),
        "wall": _spread(line.get("wall_s", [])) if by_wall else "",
        "gib": f"{max(line['peak_gib']):.1f}" if line.get("peak_gib") else "",
        "ratio": "" if by_wall else _spread(line.get("ratio_cpu", []), "{:.1f}"),
        "ratio_wall": _spread(line.get("ratio_wall", []), "{:.2f}") if by_wall else "",
        "judged": f"**{judged}**" if judged.startswith("WORSE") else judged,
        "notes": _notes(line),
        "load": f"{median(line['load']):.0f}" if line.get("load") else "",
    }


def _notes(line: Row) -> str:
    if line["n"] < 2:
        return str(line["notes"])
    value = f"{line['field']} {_spread(line['value'], '{:.4g}')}, " if line.get("value") else ""
    value += "".join(f"{f} {_spread(v, '{:.3g}')}, " for f, v in line.get("told", {}).items())
    return f"{value}{line['n']} seeds" + (f"; {line['notes']}" if line["notes"] else "")


def _spread(values: list[float], form: str = "{:.3g}") -> str:
    """Median, and the extremes of several."""
    if not values:
        return ""
    middle = form.format(median(values))
    return middle if len(values) == 1 else f"{middle} ({form.format(min(values))}–{form.format(max(values))})"


# --- pages ------------------------------------------------------------------------------------------------------------


def stored(results: Path) -> list[Row]:
    """All rows at hand, of groups that there are."""
    rows = [json.loads(f.read_text()) for f in sorted(results.glob("*-*.json"))]
    return [r for r in rows if isinstance(r, dict) and r.get("measurement") in GROUPS]


def write_pages(results: Path, docs: Path) -> None:
    """docs/benchmarks.md and docs/evaluation.md with their pictures, and the tables as JSON."""
    rows = stored(results)
    table = lines(rows)
    order = list(GROUPS)
    table.sort(key=lambda line: order.index(line["group"]))
    write_tables(table, results)
    shown = [
        line
        for line in table
        if GROUPS[line["group"]].page == "benchmarks.md" and not line["group"].startswith("scaling_")
    ]
    scaling = [r for r in rows if r["measurement"].startswith("scaling_")]
    if scaling:
        import_module("figure_scaling").draw(scaling, docs / "_static" / "scaling.png")
    limit = max((0.85 * r.get("memory_gib", 0) for r in scaling), default=0)
    curves = SCALING.format(table="\n".join(_table(largest(table))), limit=limit) if scaling else ""
    parts = [HEAD.format(**_machine(rows)), curves, as_markdown(shown), ELSEWHERE]
    (docs / "benchmarks.md").write_text("\n".join(filter(None, parts)).rstrip() + "\n")
    import_module("report_real").write_page(results, docs)
    import_module("figure_real").draw_picture(docs / "_static")


def _machine(rows: list[Row]) -> dict[str, Any]:
    last = max(rows, key=lambda r: r.get("run", ""))
    usual = mode(r["threads"] for r in rows)
    threads = "one thread" if usual == 1 else f"{usual} threads"
    versions = ", ".join(f"{k} {v}" for k, v in last["versions"].items())
    return last | {"memory": last.get("memory_gib", 0), "versions": versions, "threads": threads}
