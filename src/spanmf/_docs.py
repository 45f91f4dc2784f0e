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
    "map_library_key": """\
library_key
    Column of ``adata.obs`` that tells the samples (slides, TMA cores) apart: a map each. ``None``: the one that
    :func:`spanmf.gr.contact_neighbors` was given, where its samples lie on top of each other, else one map of all.""",
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
    "marker_data": """\
data
    Annotated data matrix (a SpatialData is taken too: see ``table_key``), or X itself (n × p, sparse or dense).
    Log-normalised values are meant.""",
    "marker_options": """\
markers
    Genes by cluster: a mapping from label to names, a DataFrame with one column a cluster, or one with the columns
    ``group`` and ``names`` (:func:`scanpy.get.rank_genes_groups_df`). All that are given count. ``None``: the genes
    with the highest score of Wilcoxon's rank-sum test (corrected for ties) for the cluster against the rest, as far as
    it is above 0.
n_markers
    Number of markers a cluster (found ones).
min_cells
    Smallest cluster whose markers are looked for.
cross_fit
    Find the markers in one random half of the observations and score the other, both ways. Without it they are
    scored where they were found to be best, which flatters clusters of any kind. It does not undo that the labels
    may come from the same values.
preset
    ``"paper"``: as published. Markers are found and scored in the same observations, without correction for ties; a
    cluster of fewer than ``min_cells`` takes its most expressed genes for markers.
var_names
    Names of the columns of X. ``None``: ``adata.var_names``.
layer
    Layer to use instead of ``adata.X``.
rng
    Seed or :class:`numpy.random.Generator` of the halves.
random_state
    Alias of ``rng``, as in scanpy.""",
    "loss": """\
loss
    ``"frobenius"`` for log-normalised values, ``"kl"`` for counts.""",
    "init": """\
init
    ``"auto"``: the best of several starts on subsamples of the observations, then all of them. ``"nndsvd"``,
    ``"nndsvda"``, ``"nndsvdar"``, ``"random"``: as in scikit-learn. Or H (k × variables in use), or (W, H).""",
    "penalties": """\
alpha_W, alpha_H
    Strength of the penalties on W and H; 0 for none. ``"same"``: as ``alpha_W``, since a penalty on one of them alone
    is evaded by shrinking it and growing the other.
l1_ratio
    Share ρ of the L1 penalty, from 0 (L2 only) to 1 (L1 only: sparse factors).""",
    "stopping": """\
max_iter
    Most passes over X.
tol
    Stop when a pass lowers the objective by less than this share of it.""",
    "normalize": """\
normalize
    The values are raw counts: use ``sc.pp.normalize_total`` and ``sc.pp.log1p`` of them (the table keeps its own).""",
    "smoothing": """\
{smoothing_form}
n_steps
    Number of smoothing steps (refit, diffuse). It is chosen from the data by :func:`spanmf.tl.hsnmf` on spots only.
{laplacian_weight}""",
    "smoothing_form": """\
smoothing
    ``"refit"``: smooth W, then fit H to it again. ``"diffuse"``: smooth W only, as published. ``"laplacian"``: the
    smoothness is part of the objective.
beta
    Share β of the neighbourhood in a smoothing step, from 0 to 1 (refit, diffuse).""",
    "auto_steps": """\
n_steps
    Number of smoothing steps. ``"auto"``: 2; but for spots on a lattice, where a mixture or k-means finds a given number of domains,
    1 to 5: the fewest that foretell a spot from its surroundings within 2 % of the best (noise asks for more steps, domains of few
    spots for fewer). The number used is recorded.""",
    "laplacian_weight": """\
laplacian_weight
    Weight λ of the graph term, in units of the data term for an observation of average degree (laplacian).""",
    "rng": """\
rng
    Seed or :class:`numpy.random.Generator`. The result does not depend on the number of threads.
random_state
    Alias of ``rng``, as in scanpy.""",
    "device": """\
device
    Where the passes over X run. ``"cpu"``, or a GPU by torch (``pip install "spanmf[torch]"``): ``"cuda"``, ``"cuda:1"``, …
    The objective is the same to 1e-4 and as a rule 1e-6. ``"torch"`` is torch on the CPU, for tests: it is slower.""",
    "palette": """\
palette
    Colours of the labels: a mapping from label to colour, or a sequence. ``None``: ``adata.uns[f"{cluster_key}_colors"]``
    where it is (scanpy's convention), else colours that also the colour-blind can tell apart (as far as that goes).""",
    "map_parameters": """\
size
    Diameter of a cell in units of the coordinates. ``None``: neighbouring cells just touch (the median distance to the
    third nearest), and Visium's spots over an image have their own size.
um_per_unit
    µm in one unit of the coordinates, for the scale bar (1 for Xenium and MERSCOPE). ``None``:
    ``adata.uns["um_per_unit"]``, or Visium's scale factors; where neither is, there is no scale bar.
image
    Draw the tissue image of ``adata.uns["spatial"][library]`` underneath, where there is one.
ax
    Axes to draw into, where there is one panel.""",
}


def doc(function: F) -> F:
    """Put the shared blocks into a docstring."""
    text = inspect.cleandoc(function.__doc__ or "")
    for name, block in BLOCKS.items():
        text = re.sub(rf"^{{{name}}}$", lambda _, b=block: b, text, flags=re.MULTILINE)
    function.__doc__ = text
    return function
