"""Parameter descriptions that several docstrings share.

``@doc`` puts a block where a docstring says ``{name}`` on a line of its own. It replaces these names only, so that
the braces of LaTeX are left alone.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., object]")

BLOCKS = {
    "adata": """\
adata
    Annotated data matrix (observations × variables). A SpatialData is taken too: see ``table_key``.""",
    "table_key": """\
table_key
    The table to use when a SpatialData is given (not needed when it has one table).""",
    "copy": """\
copy
    Work on a copy of the table and return it, leaving the given one untouched.""",
    "layer": """\
layer
    Layer to use instead of ``adata.X``.""",
    "mask_var": """\
mask_var
    Variables to use: a boolean column of ``adata.var``, a boolean array, or ``None`` for all.
    ``"auto"`` uses ``adata.var["highly_variable"]`` where it is present, else all.""",
    "spatial_key": """\
spatial_key
    Key of the coordinates in ``adata.obsm`` (n × 2 or n × 3).""",
    "library_key": """\
library_key
    Column of ``adata.obs`` that tells the samples (slides, TMA cores) apart.""",
    "connectivity_key": """\
connectivity_key
    Graph in ``adata.obsp``, with or without ``_connectivities``. ``None``: ``"contact"`` if it is there
    (:func:`spanmf.gr.contact_neighbors`), else squidpy's ``"spatial"``.""",
    "cluster_key": """\
cluster_key
    Categorical column of ``adata.obs``. Observations without a label (NaN) are left out.""",
    "labels": """\
labels
    Categorical column of ``adata.obs``, or one label an observation. Observations without a label (NaN) are left out
    as if they were not there.""",
    "rng": """\
rng
    Seed or :class:`numpy.random.Generator`. The result does not depend on the number of threads.
random_state
    Alias of ``rng``, as in scanpy.""",
}


def doc(function: F) -> F:
    """Put the shared blocks into a docstring."""
    text = inspect.cleandoc(function.__doc__ or "")
    for name, block in BLOCKS.items():
        text = re.sub(rf"^{{{name}}}$", lambda _, b=block: b, text, flags=re.MULTILINE)
    function.__doc__ = text
    return function
