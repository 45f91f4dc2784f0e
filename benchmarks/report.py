"""The page docs/benchmarks.md from the JSON files of ``run.py``."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

HEAD = """\
# Benchmarks

Ours and a named peer on the same data in one run, each in a process of its own, on {threads} thread, warmed up. A ratio
is the peer's time over ours. Made by

```bash
python benchmarks/run.py          # --quick for small sizes; --threads 2
python benchmarks/run.py --docs   # writes this page
```

Machine: {cores} cores, {memory:.0f} GiB, {cpu}; Python {python}; {versions}. Tissues and matrices are generated
(`spanmf.datasets`), so anybody can run this. Other work ran on the machine at times, which makes single times uncertain
by some ten per cent and more; ratios of CPU time suffer less than those of wall time. The first touch of new memory is slow on
this virtual machine (about 1.5 s a GiB), which weighs on the graph of a million cells.
"""
TITLES = {
    "nmf": "Factorisation, rank 10, to the peer's final objective",
    "graph": "Merged 20/80 µm graph",
    "smoothing": "One smoothing step of 10 factors",
    "knn": "Exact 15 nearest neighbours on 10 factors",
    "leiden": "Leiden on the hybrid graph, building the library's graph included",
    "pipeline": "Graph, factors, domains and metrics",
    "pipeline_alone": "The same, where the published form does not run",
    "sweep": "Sweep of ranks × resolutions with all metrics, against the same runs one by one",
    "sweep_alone": "Sweep of ranks × resolutions with all metrics, by itself",
    "consensus": "Consensus NMF of the breast tumour's 34,451 cells: ranks 5, 8, 10, 12, 15, restarts of each (ours, the peer's)",
    "colocalization": "Co-localisation of 20 types on the contact graph, against permutations",
    "colocalization_alone": "The same, exact only",
    "rank_selection": "Planted ranks found: cells, kind of data, planted rank, first of ten seeds, loss",
    "n_domains": "Number of domains by rule, with the agreement (ARI) that it reaches: observations, tissue, rank, seed",
    "joint_seed": "Joint factors: SpatialMultiOmics' own benchmark (form, seeds; seconds of one run)",
    "joint_types": "Joint factors: ten types of a generated tissue (cells, per cent without protein, seed)",
    "joint_speed": "Joint factors: cells × genes and 30 proteins, rank 12",
    "joint_citeseq": "Joint factors: CD4 and CD8 T cells of a CITE-seq table, without the proteins that gate them",
}


def write_page(results: Path, page: Path) -> None:
    """Put all results into one page."""
    groups: dict[str, dict[tuple, list[dict]]] = defaultdict(lambda: defaultdict(list))
    rows = [json.loads(f.read_text()) for f in sorted(results.glob("*.json"))]
    rows = [r for r in rows if r.get("threads") == 1]  # else learned weights lie there
    for row in rows:
        groups[row["measurement"]][tuple(row["sizes"])].append(row)
    text = [HEAD.format(**_machine(rows))]
    for name, title in TITLES.items():
        table = _table(groups[name]) if name in groups else []
        if len(table) > 2:  # more than its head
            text += ["", f"## {title}", "", *table]
    page.write_text("\n".join(text) + "\n")


def _table(runs: dict[tuple, list[dict]]) -> list[str]:
    out = ["| size | peer | peer: s (CPU) | spanmf: s (CPU) | ratio (CPU) | |", "|---|---|---|---|---|---|"]
    for sizes, rows in sorted(runs.items(), key=lambda item: tuple(map(str, item[0][1:2])) + tuple(item[0][:1])):
        ours = next((r for r in rows if r["who"] == "spanmf"), None)
        peer = next((r for r in rows if r["who"] != "spanmf"), None)
        if ours is None:
            continue
        size = " ".join(f"{s:,}" if isinstance(s, int) and s > 99 else str(s) for s in sizes)
        note = re.sub(r"^[\d.]+×( \(CPU\))?(, )?", "", ours["notes"])
        if peer is None:
            out.append(f"| {size} | – | – | {_seconds(ours)} | – | {note} |")
            continue
        if "objective" not in peer and peer["notes"]:
            note = "; ".join(filter(None, [note, f"peer: {peer['notes']}"]))
        ratio = f"{peer['wall_s'] / ours['wall_s']:.1f} ({peer['cpu_s'] / ours['cpu_s']:.1f})"
        out.append(f"| {size} | {peer['who']} | {_seconds(peer)} | {_seconds(ours)} | {ratio} | {note} |")
    return out


def _seconds(row: dict) -> str:
    return f"{row['wall_s']:.3g} ({row['cpu_s']:.3g})"


def _machine(rows: list[dict]) -> dict:
    import os

    last = rows[-1]
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = ", ".join(f"{k} {v}" for k, v in last["versions"].items())
    return last | {"cores": os.cpu_count(), "memory": pages / 2**30, "versions": versions, "threads": "one"}
