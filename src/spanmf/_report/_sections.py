"""The parts of the page, from a subject. A part whose data are missing raises the error that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import pyplot as plt

from .. import _data, _keys, pl
from .._format import count, number, percent
from ..core import _tiles
from ..metrics._panel import ALL
from ..pl._colors import MISSING
from . import _figures, _html
from ._html import bar, chip, esc, figure, missing, paragraph, stacked, table
from ._readings import reading
from ._subject import Subject, domain_features, most_frequent

if TYPE_CHECKING:
    from collections.abc import Mapping

N_GENES = 8  # named beside a factor
MANY = 6  # libraries that have a column of their own in the metrics

# --- domains --------------------------------------------------------------------------------------------------------


def domains(subject: Subject) -> str:
    """Maps of the labels, what each is, and how the samples divide into them."""
    parts = [
        paragraph(subject.words.intro),
        _maps(subject, subject.key),
        f"<h3>What the {subject.words.many} are</h3>",
        _domain_table(subject),
    ]
    if subject.has_factors:
        parts.append(
            paragraph("Genes: those whose share of the expression is most above that in the whole table.", "note")
        )
    if len(subject.libraries[1]) > 1:
        parts += [f"<h3>{subject.words.title} by sample</h3>", _composition(subject)]
    for key in subject.others:
        if key in subject.adata.obs:
            parts += [f"<h3>For comparison: {esc(key)}</h3>", _maps(subject, key)]
    if subject.reference_key is not None:
        parts += [f"<h3>Known labels: {esc(subject.reference_key)}</h3>", _maps(subject, subject.reference_key)]
    return "\n".join(parts)


def _maps(subject: Subject, key: str) -> str:
    """Legend and maps of a column; a remark where there are no coordinates."""
    codes, names = _data.get_labels(subject.adata, key)
    colors = subject.colors(key)
    entries = [(name, colors[name]) for name in names] + ([("no label", MISSING)] if (codes < 0).any() else [])
    legend = "".join(f"<span>{chip(color)}{esc(name)}</span>" for name, color in entries)
    try:
        sections = subject.sections
    except (KeyError, ValueError, TypeError) as error:
        return missing(error)
    picture = _figures.label_maps(sections, codes, names, colors, f"Map of {key}")
    return f'<div class="legend">{legend}</div>' + figure(picture, _about_maps(subject), "maps")


def _about_maps(subject: Subject) -> str:
    """What all maps have in common."""
    several = " All samples have one scale." if len(subject.sections) > 1 else ""
    bar = "" if subject.sections[0].um else " No scale bar: the unit of the coordinates is not recorded."
    return f"A dot is a cell (or spot); y points down, as on the slide image.{several}{bar}"


def _domain_table(subject: Subject) -> str:
    codes, names = subject.labels
    colors = subject.colors(subject.key)
    total = max(int(subject.sizes.sum()), 1)
    columns: dict[str, list[str]] = {
        subject.words.one: [f'<span class="nowrap">{chip(colors[name])}{esc(name)}</span>' for name in names],
        "cells": [f"{n:,}" for n in subject.sizes],
        "share": [percent(n / total) for n in subject.sizes],
    }
    if len(subject.libraries[1]) > 1:
        found = [np.bincount(subject.libraries[0][codes == i]) for i in range(len(names))]
        columns["samples"] = [f"{(n > 0).sum()} of {len(subject.libraries[1])}" for n in found]
    if subject.reference_key is not None:
        best = most_frequent(*(_data.get_column(subject.adata, key) for key in (subject.key, subject.reference_key)))
        columns[f"mostly ({subject.reference_key})"] = [esc(best.get(name, "–")) for name in names]
    if subject.has_factors:
        genes = domain_features(subject.adata, subject.key, codes, len(names), 6)
        columns["genes"] = [f'<span class="genes">{esc(", ".join(row))}</span>' for row in genes]
    rows = list(zip(*columns.values(), strict=True))
    return table([*columns], rows, numbers=(1, 2), kind="wide")


def _composition(subject: Subject) -> str:
    shares = subject.composition
    colors = subject.colors(subject.key)
    cells = np.bincount(subject.libraries[0], minlength=len(subject.libraries[1]))
    size = dict(zip(subject.libraries[1], cells, strict=True))
    bars = [
        (
            f'<span class="nowrap">{esc(sample)}</span>',
            f"{size[sample]:,}",
            stacked([(name, row[name], colors[name]) for name in shares]),
        )
        for sample, row in shares.iterrows()
    ]
    out = table(("sample", "cells", f"{subject.words.many}, from the largest"), bars, numbers=(1,), kind="wide bars")
    if len(shares.columns) <= 16:
        head = ["sample", *shares.columns]
        rows = [(esc(sample), *(percent(v) if v else "0" for v in row)) for sample, row in shares.iterrows()]
        out += table(head, rows, numbers=range(1, len(head)), kind="dense")
    return out + paragraph(
        "Samples, not cells, are the units of a comparison: many cells of one patient are one patient.", "note"
    )


# --- factors --------------------------------------------------------------------------------------------------------


def factors(subject: Subject) -> str:
    """A card a factor: its map and its genes."""
    W, H = subject.factors
    intro = paragraph(
        "A factor is a set of genes that rise and fall together. The darker a cell, the more it uses the factor, from 0 to "
        "a high value of that factor: colours compare cells within a factor, not factors. Share: part of the factor's "
        "loadings that the gene has. Specific: part of the gene's loadings that lie in this factor; at 100 % no other "
        "factor has it."
    )
    share, specificity = _data.loading_shares(H)
    single = len(subject.libraries[1]) == 1
    cards = []
    for k in range(len(H)):
        genes = _gene_table(subject.adata, share[k], specificity[k])
        picture = _factor_map(subject, k, single)
        cards.append(
            f'<div class="card"><h3>Factor {k}</h3>{_strongest(subject, W[:, k])}'
            f'<div class="inside">{picture}{genes}</div></div>'
        )
    return f'{intro}<div class="cards{"" if single else " one"}">' + "\n".join(cards) + "</div>"


def _factor_map(subject: Subject, k: int, single: bool) -> str:
    try:
        sections = subject.sections
    except (KeyError, ValueError, TypeError):
        return ""  # the domains say why
    W = subject.factors[0]
    return figure(_figures.factor_maps(sections, W[:, k], 3.4 if single else 8.6, f"Map of factor {k}"))


def _gene_table(adata: Any, share: np.ndarray, specificity: np.ndarray) -> str:
    top = np.argsort(-share, kind="stable")[:N_GENES]
    top = top[share[top] > 0]
    if not top.size:
        return paragraph("No gene has a loading.", "note")
    rows = []
    for j in top:
        name = esc(adata.var_names[j])
        rows.append(
            (
                f'<span class="gene genes" title="{name}">{name}</span>',
                bar(share[j] / share[top[0]]) + f" {percent(share[j])}",
                percent(specificity[j]),
            )
        )
    return table(("gene", "share", "specific"), rows, numbers=(2,))


def _strongest(subject: Subject, values: np.ndarray) -> str:
    """The domain whose cells use a factor most."""
    mean = values.mean(dtype=np.float64)
    if not subject.has_labels or mean <= 0:
        return ""
    codes, names = subject.labels
    by_domain = np.array([values[codes == i].mean(dtype=np.float64) for i in range(len(names))])
    i = int(by_domain.argmax())
    color = subject.colors(subject.key)[names[i]]
    return f'<p class="note">most used in {subject.words.one} {chip(color)}{esc(names[i])}, {number(by_domain[i] / mean, 2)} × the mean</p>'


# --- numbers --------------------------------------------------------------------------------------------------------


def numbers(subject: Subject) -> str:
    """The metric panel in words."""
    if subject.metrics is None:
        msg = "No metric was computed."
        raise ValueError(msg)
    parts = [
        paragraph(
            "No single number says that a division is right, and they are not added up: several follow each other, and "
            "some are high by construction. Read them beside the maps. The arrow says which way is better, all else "
            "being equal; the last column says what else moves the number."
        )
    ]
    if subject.others:
        drawn = pl.metric_panel(subject.metrics[subject.metrics["library"] == ALL])
        caption = "Each row has its own colours, from its worst value (pale) to its best (dark). Grey: no better side."
        parts.append(figure(_figures.encode(drawn, "Methods against metrics", trim=True), caption))
    parts.append(_readings(subject))
    parts.append(_by_library(subject))
    return "\n".join(p for p in parts if p)


ARROWS = {"higher": "↑ higher", "lower": "↓ lower", "": "–"}


def _readings(subject: Subject) -> str:
    """One row a metric of the key: value, direction, what it says, what moves it."""
    own = subject.pooled(subject.key)
    values = subject.values(subject.key)
    rows, before = [], ""
    for row in own.itertuples(index=False):
        r = reading(row.metric)
        note = f'<br><span class="note">Note: {esc(row.note)}</span>' if row.note not in ("", before) else ""
        before = row.note
        ends = f'<br><span class="note nowrap">{esc(r.ends)}</span>' if r.ends else ""
        rows.append(
            (
                f"<strong>{esc(r.title)}</strong>",
                f"<strong>{esc(r.value(row.value))}</strong>{ends}",
                f'<span class="nowrap">{ARROWS[row.better]}</span>',
                esc(r.text(row.value, values)) + note,
                f'<span class="note">{esc(r.moved_by)}</span>',
            )
        )
    return table(
        ("number", "value", "better", "what it says", "what else moves it"), rows, numbers=(1,), kind="wide readings"
    )


def _by_library(subject: Subject) -> str:
    """The same numbers a sample: all of them where they are few, else their range."""
    own = subject.metrics[subject.metrics["key"] == subject.key]
    wide = own.pivot(index="metric", columns="library", values="value").reindex(own["metric"].unique())
    samples = [c for c in wide if c != ALL]
    if len(samples) < 2:
        return ""
    rows = []
    for metric, row in wide.iterrows():
        r, there = reading(metric), row[samples].dropna()
        if there.empty:
            continue
        head = [esc(r.title), r.value(row.get(ALL, np.nan))]
        if len(samples) <= MANY:
            rows.append((*head, *(r.value(row[s]) for s in samples)))
        else:
            low, high = there.idxmin(), there.idxmax()
            middle = r.value(there.median())
            rows.append((*head, f"{r.value(there[low])} ({esc(low)})", middle, f"{r.value(there[high])} ({esc(high)})"))
    columns = samples if len(samples) <= MANY else ["lowest (sample)", "median sample", "highest (sample)"]
    head = ["number", "all samples", *columns]
    return "<h3>By sample</h3>" + table(head, rows, numbers=range(1, len(head)), kind="dense")


# --- graph ----------------------------------------------------------------------------------------------------------

GRAPH_COLUMNS = {
    "n_obs": "cells",
    "n_edges": "pairs",
    "n_isolated": "isolated",
    "n_coincident": "on top of another",
    "n_crossing": "pairs across samples",
    "degree_mean": "neighbours (mean)",
    "degree_q05": "5 % have at most",
    "degree_q50": "half have at most",
    "degree_q95": "95 % have at most",
    "degree_max": "most neighbours",
}


def graph(subject: Subject) -> str:
    """Which cells were taken for neighbours."""
    params, summary = subject.graph_params, subject.graph_summary
    text = "Cells are linked to the cells around them. "
    if {"contact_radius", "context_radius"} <= set(params):
        contact, context = (float(params[f"{kind}_radius"]) for kind in ("contact", "context"))
        text += f"Two cells within {number(contact)}{subject.unit} of each other are in contact"
        text += f", within {number(context)}{subject.unit} in context. " if context > 0 else ". "
        text += {"data": "The radii were chosen from the spacing of the cells.", "preset": "The radii are the published ones."}.get(
            params.get("radii_from"), "The radii were given."
        )  # fmt: skip
    else:
        text += f"The table does not record how the graph {subject.graph_key} was made."
    there = [c for c in GRAPH_COLUMNS if summary[c].notna().any()]
    names = [esc("all" if name == "all" else name) for name in summary.index]
    rows = [(n, *(number(row[c]) for c in there)) for n, (_, row) in zip(names, summary.iterrows(), strict=True)]
    rows = rows[-1:] if len(rows) == 2 else rows
    listing = table(
        ["sample", *(GRAPH_COLUMNS[c] for c in there)], rows, numbers=range(1, len(there) + 1), kind="dense"
    )
    A = _data.find_graph(subject.adata, subject.graph_key)[0]
    bars = figure(_figures.degree_bars(_tiles.degrees(A), "Histogram of degrees"), "How many neighbours cells have.")
    return paragraph(text) + listing + f'<div class="side">{bars}{_window(subject)}</div>'


def _window(subject: Subject) -> str:
    """The graph in a small window, where there are coordinates."""
    try:
        _ = subject.sections
    except (KeyError, ValueError, TypeError):
        return ""
    section = max(subject.sections, key=lambda s: len(s.rows))
    adata = subject.adata[section.rows] if section.name else subject.adata
    options = {"spatial_key": subject.spatial_key, "um_per_unit": subject.um_per_unit, "image": False}
    cluster_key = subject.key if subject.has_labels else None
    palette = subject.colors(subject.key) if subject.has_labels else None
    _, ax = plt.subplots(figsize=(5.2, 3.9), layout="constrained")
    drawn = pl.graph(adata, subject.graph_key, cluster_key=cluster_key, palette=palette, ax=ax, **options)
    where = f" Sample {section.name}." if section.name else ""
    return figure(
        _figures.encode(drawn, "The graph in a small window", trim=True), f"The graph in a small window.{where}"
    )


# --- convergence ----------------------------------------------------------------------------------------------------


def convergence(subject: Subject) -> str:
    """Whether the fit came to rest."""
    run = subject.run
    if "trace" not in run:
        msg = f"`adata.uns[{_keys.FactorKeys(subject.key).provenance!r}]` holds no record of the fit."
        raise KeyError(msg)
    trace = np.asarray(run["trace"], dtype=np.float64)
    n, done = int(run.get("n_iter", len(trace))), bool(run.get("converged", False))
    words = (
        f"The fit came to rest after {count(n, 'pass', 'passes')} over the values."
        if done
        else f"The fit was stopped after {count(n, 'pass', 'passes')}, before it came to rest: more passes (`max_iter`) would "
        "change the factors somewhat."
    )
    words += " That it came to rest says nothing about whether the number of factors is right."
    if len(trace) < 2:
        return paragraph(words)
    _, ax = plt.subplots(figsize=(5.2, 2.7), layout="constrained")
    pl.convergence(subject.adata, subject.key, ax=ax).get_legend().remove()
    picture = _figures.encode(ax, "Objective after each pass")
    return paragraph(words) + figure(picture, "What the fit makes small, after each pass over the values.")


# --- how it was made ------------------------------------------------------------------------------------------------


def parameters(subject: Subject) -> str:
    """Parameters of graph and run, versions."""
    parts = [_html.pairs(_data_facts(subject))]
    blocks: dict[str, Mapping[str, Any]] = {}
    try:
        blocks[f"Graph ({subject.graph_key})"] = subject.graph_params
    except KeyError:
        subject.remarks.append("There is no spatial graph in the table.")
    if subject.run:
        blocks[f"Factors and {subject.words.many} ({subject.key})"] = subject.run["params"]
        blocks["Versions"] = subject.run.get("versions", {})
    shown = [
        f"<div><h3>{esc(title)}</h3>{_html.pairs(_plain(values))}</div>"
        for title, values in blocks.items()
        if len(values)
    ]
    parts.append(f'<div class="side">{"".join(shown)}</div>')
    if not subject.run:
        key = _keys.FactorKeys(subject.key).provenance
        parts.append(
            paragraph(f"adata.uns[{key!r}] has no record of the run: parameters and versions are unknown.", "missing")
        )
    return "\n".join(parts)


def _data_facts(subject: Subject) -> dict[str, str]:
    out = {"table": f"{count(subject.adata.n_obs, 'cell')} × {count(subject.adata.n_vars, 'gene')}"}
    if subject.library_key is not None:
        out["samples"] = f"{len(subject.libraries[1])}, by obs[{subject.library_key!r}]"
    out["coordinates"] = f"obsm[{subject.spatial_key!r}]{', in µm' if subject.unit else ''}"
    return out


def _plain(values: Mapping[str, Any]) -> dict[str, str]:
    """Names and values as text; floats without a tail of digits, nested ones with their names joined."""
    out: dict[str, str] = {}
    for name in sorted(values):  # in the order of a stored table
        value = values[name]
        if hasattr(value, "keys"):
            out |= {f"{name}.{k}": v for k, v in _plain(value).items()}
        elif isinstance(value, (float, np.floating)):
            out[str(name)] = f"{value:.6g}"
        elif isinstance(value, np.ndarray):
            text = np.array2string(value, threshold=12, precision=4)
            out[str(name)] = text if len(text) <= 120 else f"array of shape {value.shape}"
        else:
            out[str(name)] = str(value)
    return out
