"""From plain data to HTML: every text is escaped here, and only here.

A fragment is a ``str`` that holds markup; what comes from the user reaches it through :func:`esc`.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from .. import _checks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def esc(text: Any) -> str:
    """Any text as it shall be read."""
    return escape(str(text), quote=True)


@dataclass(frozen=True)
class Picture:
    """A PNG, and its size on the page in CSS pixels."""

    png: bytes
    width: int
    height: int
    alt: str

    def html(self) -> str:
        """The image itself, within the page."""
        data = b64encode(self.png).decode("ascii")
        return f'<img src="data:image/png;base64,{data}" width="{self.width}" height="{self.height}" alt="{esc(self.alt)}">'


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    anchor: str
    title: str
    body: str


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_class(kind)}>{esc(text)}</p>"


def figure(picture: Picture, caption: str = "", kind: str = "") -> str:
    """A picture and what it shows."""
    below = f"<figcaption>{esc(caption)}</figcaption>" if caption else ""
    return f"<figure{_class(kind)}>{picture.html()}{below}</figure>"


def missing(error: Exception) -> str:
    """A paragraph instead of what cannot be shown."""
    return paragraph(f"Not shown. {_checks.cause(error)}", "missing")


def bullets(items: Iterable[str], kind: str = "") -> str:
    """A list of plain texts."""
    return f"<ul{_class(kind)}>" + "".join(f"<li>{esc(item)}</li>" for item in items) + "</ul>"


def chip(color: str) -> str:
    """A dot in a colour (``#rrggbb``)."""
    return f'<span class="chip" style="background:{esc(color)}"></span>'


def bar(share: float, color: str = "var(--accent)") -> str:
    """A horizontal bar for a share from 0 to 1."""
    width = 100 * min(max(share, 0.0), 1.0)
    return f'<span class="bar"><span style="width:{width:.1f}%;background:{esc(color)}"></span></span>'


def stacked(shares: Sequence[tuple[str, float, str]]) -> str:
    """One bar of several shares (name, share, colour) that sum to 1."""
    parts = "".join(
        f'<span style="width:{100 * share:.2f}%;background:{esc(color)}" title="{esc(name)}: {100 * share:.1f} %"></span>'
        for name, share, color in shares
        if share > 0
    )
    return f'<span class="stacked">{parts}</span>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = (), kind: str = "") -> str:
    """A table of fragments; columns in ``numbers`` stand to the right. ``head`` is plain text."""
    align = [' class="num"' if j in numbers else "" for j in range(len(head))]
    top = "".join(f"<th{a}>{esc(text)}</th>" for a, text in zip(align, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{a}>{cell}</td>" for a, cell in zip(align, row, strict=True)) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table{_class(kind)}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def pairs(values: Mapping[str, Any]) -> str:
    """Names and values, side by side."""
    return table(("", ""), [(esc(k), esc(v)) for k, v in values.items()], kind="pairs")


def page(title: str, lead: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page. ``lead`` and the bodies are fragments, the rest is plain text."""
    style = (files(__package__) / "report.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{s.anchor}">{esc(s.title)}</a>' for s in sections)
    parts = "\n".join(f'<section id="{s.anchor}"><h2>{esc(s.title)}</h2>\n{s.body}\n</section>' for s in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{esc(title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<main>
<header>
<h1>{esc(title)}</h1>
{lead}
</header>
<nav>{links}</nav>
{parts}
<footer>{esc(footer)}</footer>
</main>
</body>
</html>
"""


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
