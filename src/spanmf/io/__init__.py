"""Reading of tissues: stored tables and the folders that instruments write."""

from __future__ import annotations

from ._read import read

__all__ = ["read"]
