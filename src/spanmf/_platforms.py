"""Names of the platforms that `io.read` knows, for Python and the shell."""

from __future__ import annotations

import re

NAMES = (
    "auto", "h5ad", "zarr", "xenium", "visium", "merscope", "cosmx", "stereoseq", "starmap", "codex", "mibi", "imc",
    "cycif", "inform",
)  # fmt: skip
ALIASES = {
    "merfish": "merscope", "vizgen": "merscope", "nanostring": "cosmx", "starmapplus": "starmap", "phenocycler": "codex",
    "steinbock": "imc", "cellprofiler": "imc", "mcmicro": "cycif", "spaceranger": "visium",
}  # fmt: skip


def canonical(name: str) -> str:
    """A platform's name as the package spells it; case, spaces and hyphens do not matter."""
    plain = re.sub(r"[\s_.+-]", "", str(name)).lower()
    return ALIASES.get(plain, plain)
