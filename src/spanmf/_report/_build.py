"""From a subject to the page."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from .. import __version__, _checks
from .._format import count, percent
from . import _figures, _html, _sections
from ._html import Section, bullets, esc, paragraph
from ._remarks import remarks
from ._sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._subject import Subject

Part = tuple[str, "Callable[[Subject], str]"]
PARTS: dict[str, Part] = {
    "domains": ("Domains", _sections.domains),
    "factors": ("Factors", _sections.factors),
    "numbers": ("Numbers", _sections.numbers),
    "graph": ("Graph of cells", _sections.graph),
    "convergence": ("Convergence", _sections.convergence),
    "sweep": ("Sweep", sweep),
    "parameters": ("How it was made", _sections.parameters),
}


def build(subject: Subject, *, title: str, date: str | None = None, more: Mapping[str, Part] | None = None) -> str:
    """The page. The same subject gives the same text. ``more``: parts of its own, which stand behind the factors."""
    first = list(PARTS)[: list(PARTS).index("factors") + 1]
    parts = {a: PARTS[a] for a in first} | dict(more or {}) | PARTS
    with _figures.plain_style(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", _checks.SpanmfWarning)
        bodies = {anchor: _part(subject, make) for anchor, (_, make) in parts.items()}
    for warning in caught:
        if not issubclass(warning.category, _checks.SpanmfWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    subject.remarks.extend(str(w.message) for w in caught if issubclass(w.category, _checks.SpanmfWarning))
    found = remarks(subject)
    sections = [Section("warnings", "Warnings", _warnings(found))]
    names = {anchor: name for anchor, (name, _) in parts.items()} | {"domains": subject.words.title}
    sections += [Section(anchor, names[anchor], body) for anchor, body in bodies.items()]
    return _html.page(title, _lead(subject, found, date), sections, f"Made by spanmf {__version__}.")


def _part(subject: Subject, make: Callable[[Subject], str]) -> str:
    """A part, or why it is missing."""
    try:
        return make(subject)
    except (KeyError, ValueError, TypeError) as error:
        return _html.missing(error)


def _warnings(found: list[str]) -> str:
    if not found:
        return paragraph("Nothing stood out. That is no proof of anything: look at the maps.")
    return paragraph("What to look at before believing the rest:") + bullets(found, "warnings")


def _lead(subject: Subject, found: list[str], date: str | None) -> str:
    """The first lines: what this is, and what came out, in words."""
    about = [count(subject.adata.n_obs, "cell"), count(subject.adata.n_vars, "gene")]
    if len(subject.libraries[1]) > 1:
        about.append(count(len(subject.libraries[1]), "sample"))
    about += [f"result “{subject.key}”"] + ([date] if date else [])
    return f'<p class="subtitle">{esc(" · ".join(about))}</p>\n<div class="summary">{_summary(subject, found)}</div>'


def _summary(subject: Subject, found: list[str]) -> str:
    what = []
    if subject.has_factors:
        what.append(
            f"described by {count(len(subject.factors[1]), 'factor')} (sets of genes that rise and fall together)"
        )
    if subject.has_labels:
        what.append(f"divided into {count(len(subject.labels[1]), subject.words.one)} ({subject.words.are})")
    lines = [f"{count(subject.adata.n_obs, 'cell')} were {' and '.join(what)}."] if what else []
    if subject.has_labels and len(subject.labels[1]) > 1:
        names, sizes = subject.labels[1], subject.sizes
        large, small = sizes.argmax(), sizes.argmin()
        total = sizes.sum()
        lines.append(
            f"The largest {subject.words.one}, {names[large]}, holds {percent(sizes[large] / total)} of the cells; the smallest, {names[small]}, "
            f"{percent(sizes[small] / total)}."
        )
    values = subject.values(subject.key)
    for metric in ("edge_agreement", "explained_variance", "ari"):
        if values.get(metric) == values.get(metric) is not None:
            lines.append(_sections.reading(metric).text(values[metric], values))
    n = len(found)
    lines.append(
        f"{count(n, 'thing')} to look at first: see Warnings." if n else "Nothing stood out that would need a warning."
    )
    caution = f"This page describes what a computation found in {subject.words.about}. It is for research: {subject.words.caution}"
    return bullets(lines) + paragraph(caution, "note")
