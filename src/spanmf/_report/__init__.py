"""The report: what a table holds (`_subject`) → parts in words, tables and figures (`_sections`) → one HTML page (`_html`)."""

from __future__ import annotations

from ._build import build
from ._subject import Subject, domain_features, most_frequent, read_subject

__all__ = ["Subject", "build", "domain_features", "most_frequent", "read_subject"]
