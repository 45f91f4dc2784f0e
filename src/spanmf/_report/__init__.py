"""The report: what a table holds (`_subject`) → parts in words, tables and figures (`_sections`) → one HTML page (`_html`)."""

from __future__ import annotations

from ._build import build
from ._joint import joint_parts
from ._subject import Subject, domain_features, most_frequent, read_subject
from ._words import TYPES

__all__ = ["TYPES", "Subject", "build", "domain_features", "joint_parts", "most_frequent", "read_subject"]
