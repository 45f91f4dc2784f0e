"""Reading of tissues: stored tables and the folders that instruments write; results for other programs."""

from __future__ import annotations

from ._explorer import write_xenium_explorer
from ._gmt import read_gmt
from ._read import read
from ._report import write_report
from ._to_spatialdata import to_spatialdata

__all__ = ["read", "read_gmt", "to_spatialdata", "write_report", "write_xenium_explorer"]
