"""The page docs/evaluation.md and its figure from the JSON files of ``run.py --only real_tissues``."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pandas as pd
from evaluation_text import CLAIMS, CLAIMS_READ, FIGURE, HEAD, READING, TITLES
from sklearn.metrics import normalized_mutual_info_score

Result = dict[str, Any]
LABEL_COLUMNS = {
    "n_clusters": "domains", "ari": "ARI ↑", "nmi": "NMI ↑", "pas": "PAS ↓", "chaos_normalized": "CHAOS ÷ floor ↓",
    "chaos_over_permuted": "CHAOS ÷ permuted ↓", "asw": "ASW ↑", "edge_agreement": "edge agreement ↑",
    "edge_agreement_expected": "its expectation", "marker_coherence": "CMC ↑", "marker_exclusion_rate": "MER ↓",
    "marker_specificity": "specificity ↑", "silhouette_common": "silhouette, NMF's space ↑",
    "davies_bouldin_common": "DBI, NMF's space ↓", "library_nmi": "NMI with the tile",
}  # fmt: skip
FACTOR_COLUMNS = {
    "morans_i": "Moran's I, mean", "morans_i_null": "smoothed again at random places", "gearys_c": "Geary's C",
    "explained_variance": "explained variance ↑", "reconstruction_error": "error ↓",
}  # fmt: skip
PUBLISHED_COLUMNS = {
    "morans_i_paper": "Moran's I, first factor", "morans_i": "mean", "morans_i_null": "null",
    "chaos_paper": "CHAOS", "chaos_normalized": "÷ floor", "silhouette_paper": "silhouette, unscaled W",
    "silhouette": "on Z", "silhouette_common": "NMF's Z", "davies_bouldin_paper": "DBI, unscaled W",
    "davies_bouldin": "on Z", "davies_bouldin_common": "NMF's Z ", "marker_coherence_paper": "CMC",
    "marker_coherence": "cross-fit", "marker_exclusion_rate_paper": "MER", "marker_exclusion_rate": "cross-fit ",
}  # fmt: skip
SWEEP_COLUMNS = {
    "n_clusters": "domains", "ari": "ARI ↑", "pas": "PAS ↓", "chaos": "CHAOS ↓", "edge_agreement": "edge agreement ↑",
    "silhouette": "silhouette ↑", "davies_bouldin": "DBI ↓", "morans_i": "Moran's I", "morans_i_null": "its null",
    "marker_coherence": "CMC ↑", "marker_specificity": "specificity ↑", "explained_variance": "explained variance ↑",
}  # fmt: skip
FRONT = {"pas": "min", "marker_specificity": "max", "explained_variance": "max"}
STATEMENTS = {  # published column, direction, bound
    "Moran's I": ("morans_i_paper", ">", 0.96), "CHAOS": ("chaos_paper", "<", 0.004),
    "silhouette": ("silhouette_paper", ">", 0.12), "DBI": ("davies_bouldin_paper", "<", 1.8),
}  # fmt: skip
STATED = {
    "nmf": "NMF, dominant component", "snmf diffuse, Leiden": "SNMF as published, Leiden", "hsnmf paper": "hSNMF as published",
    "hsnmf paper, 20 and 80 µm": "the same, 20 and 80 µm", "hsnmf": "hSNMF", "noise, Leiden": "noise",
}  # fmt: skip
DOMINANT = ("nmf", "snmf diffuse", "snmf refit", "snmf laplacian")


def write_page(results: Path, docs: Path) -> None:
    """Tables of all tissues that were run, between the words of ``evaluation_text.py``."""
    tissues = {name: _of(results, name) for name in TITLES}
    tissues = {name: runs for name, runs in tissues.items() if "spanmf" in runs}
    if not tissues:
        return
    text = [HEAD.format(**_machine(tissues)), READING, FIGURE]
    for name, runs in tissues.items():
        text += _tissue(name, runs)
    text += ["## The published statements", CLAIMS.rstrip(), _claims(tissues), CLAIMS_READ.rstrip(), *_floors(tissues)]
    text += ["## The sweep", *_sweeps(tissues)]
    (docs / "evaluation.md").write_text("\n\n".join(text).rstrip() + "\n")


def _of(results: Path, name: str) -> dict[str, Result]:
    files = sorted(results.glob(f"real_tissues-*-{name}-*.json"))
    return {row["who"]: row for row in map(json.loads, (f.read_text() for f in files))}


def _machine(tissues: dict[str, dict[str, Result]]) -> dict[str, Any]:
    last = next(iter(tissues.values()))["spanmf"]
    peers: dict[str, str] = {}
    for runs in tissues.values():
        for row in runs.values():
            peers |= row.get("peer_versions", {})
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(), "memory": pages / 2**30, "cpu": last["cpu"], "python": last["python"],
        "versions": ", ".join(f"{k} {v}" for k, v in last["versions"].items()),
        "peers": ", ".join(f"{k} {v}" for k, v in sorted(peers.items())),
    }  # fmt: skip


# --- one tissue -------------------------------------------------------------------------------------------------------


def _tissue(name: str, runs: dict[str, Result]) -> list[str]:
    ours = runs["spanmf"]
    everything = pd.concat(
        [_wide(r, ours["libraries"]) for who, r in runs.items() if "scores" in r and who != "spanmf"]
        or [pd.DataFrame()]
    )
    mine = _wide(ours, ours["libraries"])
    radii = ours["radii"]
    head = (
        f"{ours['n_obs']:,} observations; contact graph of radii {radii['contact_radius']:.3g} and "
        f"{radii['context_radius']:.3g} in the units of the table; {ours['n_domains']} domains asked for where a method takes a number."
    )
    labels = _named(pd.concat([mine, everything]))
    noise = _wide(runs["floors"], ours["libraries"]) if "floors" in runs else pd.DataFrame()
    if "floors" in runs:
        mine["afresh"] = pd.Series(runs["floors"]["afresh"])
    factors = pd.concat([mine.loc[[k for k in mine.index if not k.endswith(", Leiden")]], noise])
    return [
        f"## {TITLES[name]}",
        head,
        "Labels, scored alike for all methods:",
        _table(labels, LABEL_COLUMNS),
        "Factors (the graph that scores is the one that smoothed: read Moran's I beside its null only):",
        _table(factors, FACTOR_COLUMNS),
        "Published forms, each with the better one to its right:",
        _table(_named(pd.concat([mine, noise])), PUBLISHED_COLUMNS),
        "CPU seconds: "
        + "; ".join(f"{who} {r['cpu_s']:.0f}" for who, r in runs.items() if who not in ("spanmf", "floors", "sweep"))
        + f"; all of ours with their Leiden {ours['cpu_s']:.0f}, of it hSNMF {ours['seconds']['hsnmf']:.1f}.",
    ]


def _wide(row: Result, libraries: list[int] | None = None) -> pd.DataFrame:
    table = pd.DataFrame(row["scores"])
    wide = table.pivot(index="key", columns="metric", values="value").reindex(table["key"].unique())
    if libraries is not None and len(set(libraries)) > 1:
        agreement = {key: normalized_mutual_info_score(libraries, row["labels"][key]) for key in wide.index}
        wide["library_nmi"] = pd.Series(agreement)
    return wide


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Say where labels are the dominant component."""
    return table.rename(index={key: f"{key}, dominant component" for key in DOMINANT})


def _table(table: pd.DataFrame, columns: dict[str, str]) -> str:
    there = [c for c in columns if c in table and table[c].notna().any()]
    lines = ["| | " + " | ".join(columns[c].strip() for c in there) + " |", "|---" + "|---:" * len(there) + "|"]
    for key, row in table.iterrows():
        lines.append(f"| {key} | " + " | ".join(_number(row[c], c) for c in there) + " |")
    return "\n".join(lines)


def _number(value: Any, column: str = "") -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if column in ("n_clusters", "n_marker_negative"):
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


# --- floors and sweep -------------------------------------------------------------------------------------------------


def _claims(tissues: dict[str, dict[str, Result]]) -> str:
    """The four statements of the paper, one by one."""
    lines = [
        "| tissue | | " + " | ".join(f"{name} {sign} {bound:g}" for name, (_, sign, bound) in STATEMENTS.items()) + " |"
    ]
    lines.append("|---|---" + "|---:" * len(STATEMENTS) + "|")
    for tissue, runs in tissues.items():
        table = pd.concat([_wide(runs[who]) for who in ("spanmf", "floors") if who in runs])
        for key in (k for k in STATED if k in table.index):
            cells = []
            for column, sign, bound in STATEMENTS.values():
                value = table.loc[key, column]
                holds = value > bound if sign == ">" else value < bound
                cells.append(f"{_number(value)} {'✓' if holds else '✗'}")
            lines.append(f"| {TITLES[tissue]} | {STATED[key]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _floors(tissues: dict[str, dict[str, Result]]) -> list[str]:
    text = []
    for name, runs in tissues.items():
        if "floors" not in runs:
            continue
        moran = pd.DataFrame(runs["floors"]["moran"])
        moran["row"] = (
            moran["graph"].map({"ring": "contact ring", "contact": "contact and context"}) + ": " + moran["values"]
        )
        wide = moran.pivot(index="row", columns="n_steps", values="mean").reindex(moran["row"].unique())
        wide.columns = [f"{c} steps" for c in wide.columns]
        chaos = pd.DataFrame(runs["floors"]["chaos"]).set_index("n")
        text += [
            f"**{TITLES[name]}.** Mean Moran's I by steps of the published diffusion (β = 0.6), scored on the graph that smooths:",
            _table(wide, {c: c for c in wide}),
            "Published CHAOS on thinned tissue, by number of observations:",
            _table(chaos, {c: c for c in chaos}),
        ]
    return text


def _form(row: pd.Series) -> str:
    """Which of the compared forms a run of the sweep is."""
    if row["form"] == "NMF":
        return "NMF (no smoothing, α = 0)"
    kind = "published" if "published" in row["form"] else "refit, scaled"
    return f"{'SNMF' if row['alpha'] == 0 else 'hSNMF'}, {kind}, α = {row['alpha']:g}"


def _sweeps(tissues: dict[str, dict[str, Result]]) -> list[str]:
    import spanmf as sn

    text = [
        "Ranks 5, 10, 15, 20, 25 × resolutions 0.2, 0.4, 0.6, 0.8, 1.0 of every form: median (least – greatest) of 25 runs; all on scaled factors. "
        "The last two columns count the runs on a front of all forms together: of PAS, which smoothing improves, against specificity and explained "
        "variance, which it costs; and of the paper's three objectives (Moran's I ÷ 100 CHAOS, CMC, silhouette ÷ DBI)."
    ]
    for name, runs in tissues.items():
        if "sweep" not in runs:
            continue
        table = pd.DataFrame(runs["sweep"]["runs"])
        table["what"] = table.apply(_form, axis=1)
        ours, paper = sn.metrics.pareto_front(table, FRONT), sn.metrics.pareto_front(table)
        columns = {c: h for c, h in SWEEP_COLUMNS.items() if c in table and table[c].notna().any()}
        lines = [
            "| | " + " | ".join(columns.values()) + " | on the front | on the paper's |",
            "|---" + "|---:" * (len(columns) + 2) + "|",
        ]
        for what, part in table.groupby("what", sort=False):
            cells = [
                f"{_number(part[c].median(), c)} ({_number(part[c].min(), c)} – {_number(part[c].max(), c)})"
                for c in columns
            ]
            on = [int(front.loc[part.index, "on_front"].sum()) for front in (ours, paper)]
            lines.append(f"| {what} | " + " | ".join(cells) + f" | {on[0]} | {on[1]} |")
        knees = [
            f"{row['what']}, rank {row['n_components']}, resolution {row['resolution']:g}"
            for front in (ours, paper)
            for _, row in front[front["knee"]].iterrows()
        ]
        members = [
            f"{what}: " + ", ".join(f"{r.n_components}/{r.resolution:g}" for r in part.itertuples())
            for what, part in ours[ours["on_front"]].groupby("what", sort=False)
        ]
        front_text = f"On the front (rank/resolution): {'; '.join(members)}."
        text += [
            f"**{TITLES[name]}**",
            "\n".join(lines),
            front_text,
            f"Knees: {knees[0]}; of the paper's objectives: {knees[1]}.",
        ]
        if "ari" in table:
            text.append(_agreement(table))
    return text


def _agreement(table: pd.DataFrame) -> str:
    """Which metric would have chosen a good run?"""
    metrics = {"morans_i": 1, "chaos": -1, "pas": -1, "asw": 1, "edge_agreement": 1, "silhouette": 1, "davies_bouldin": -1,
               "marker_coherence": 1, "marker_exclusion_rate": -1, "marker_specificity": 1, "explained_variance": 1}  # fmt: skip
    rank = table.rank()
    found = {m: sign * rank[m].corr(rank["ari"]) for m, sign in metrics.items() if table[m].notna().sum() > 2}
    score = {m: sign * table[m] for m, sign in metrics.items() if m in found}
    best = {m: table[v == v.max()] for m, v in score.items()}  # several where only the factors count
    lines = ["| | " + " | ".join(found) + " |", "|---" + "|---:" * len(found) + "|"]
    lines.append("| rank correlation with ARI | " + " | ".join(f"{v:+.2f}" for v in found.values()) + " |")
    lines.append(
        "| ARI of the run it likes best (mean of equals) | "
        + " | ".join(f"{b['ari'].mean():.2f}" for b in best.values())
        + " |"
    )
    lines.append("| its domains | " + " | ".join(f"{b['n_clusters'].mean():.3g}" for b in best.values()) + " |")
    return (
        f"How far each metric (turned so that more is better) agrees with the known domains over the {len(table)} runs, whose best ARI is "
        f"{table['ari'].max():.2f} and median {table['ari'].median():.2f}:\n\n" + "\n".join(lines)
    )
