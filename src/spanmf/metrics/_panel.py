"""One table of all metrics for several labelings and representations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from .. import _checks, _data
from .._docs import doc
from ._per_library import ALL
from ._rows import ROWS
from ._scorer import Line, Scorer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from anndata import AnnData
    from spatialdata import SpatialData

COLUMNS = ["key", "library", "metric", "value", "better", "note"]


@doc
def panel(
    adata: AnnData | SpatialData,
    keys: str | Sequence[str],
    *,
    library_key: str | None = None,
    per_library: bool = False,
    connectivity_key: str | None = None,
    spatial_key: str = "spatial",
    reference_key: str | None = None,
    markers: Mapping[str, Sequence[str]] | None = None,
    gene_sets: Mapping[str, Sequence[str]] | str | Path | None = None,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""All metrics of several labelings or representations, in one tidy table.

    A key that names a run of ``tl`` has labels (``obs[key]``), factors (``obsm["X_" + key]``) and loadings
    (``varm[key + "_loadings"]``); a plain column has labels only, a plain representation (``"X_pca"``) values only.
    Whatever is there is scored. What depends on the table alone (graph, neighbours, floors) is computed once.

    **Range**, direction and what else moves each number are on the page of the function of the same name. Numbers of one column
    of this table can be compared with each other, since they are of the same cells; they cannot with those of another tissue.

    Parameters
    ----------
    {adata}
    keys
        One name, or several.
    {library_key}
    per_library
        Add the values of every library, each scored by itself.
    {connectivity_key}
    {spatial_key}
    reference_key
        Column of ``adata.obs`` with known labels.
    markers
        Marker genes of each cluster, by its name. ``None``: those found in the table, for clusters of 100 observations or
        more (:func:`marker_coherence` and its like take ``min_cells`` for smaller ones).
    gene_sets
        Gene sets for the enrichment: a mapping from name to genes, or a GMT file.
    layer
        Matrix for the reconstruction and the markers. ``None``: the layer that a run records, else ``adata.X``.
    {rng}
    {table_key}

    Returns
    -------
    DataFrame with one row a key, library and metric, and the columns

    ``key``, ``library`` : str
        The name, and the library (``"all"`` for all observations together).
    ``metric`` : str
        ``n_clusters``, ``chaos``, ``chaos_normalized``, ``pas``, ``asw``, ``edge_agreement`` with ``_expected`` and ``_z``,
        ``silhouette``, ``davies_bouldin``, ``morans_i`` (mean over the factors) with ``_null`` (what its rows have at random
        positions, smoothed again if they were smoothed), ``gearys_c``, ``reconstruction_error``, ``explained_variance``,
        ``marker_coherence`` and ``marker_coherence_weighted``, ``marker_exclusion_rate``, ``n_marker_negative``,
        ``marker_specificity``; with ``reference_key``: ``ari``, ``nmi``, ``homogeneity``, ``completeness``; with
        ``gene_sets``: ``enrichment``.
    ``value`` : float64
        NaN where the metric is not defined: for labels of one cluster or of as many clusters as observations, without a graph,
        and so on.
    ``better`` : str
        ``"higher"``, ``"lower"``, or ``""`` where neither is.
    ``note`` : str
        Why a value is NaN, or what to mind; else empty.

    One warning names the keys whose factors were smoothed over the graph that scores them.

    Raises
    ------
    KeyError
        If a key is neither a column nor a representation, or another slot that was named is not there.
    ValueError
        If there are no keys; if ``per_library`` lacks ``library_key``; if factors and loadings of a key are of two runs.

    References
    ----------
    Mahmud et al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sn.gr.contact_neighbors(adata, library_key="library")
    >>> table = sn.metrics.panel(adata, ["domain", "cell_type"], library_key="library")
    >>> wide = table.pivot(index="metric", columns="key", values="value")
    >>> bool(wide.loc["pas", "domain"] < wide.loc["pas", "cell_type"])
    True
    """
    adata = _data.get_table(adata, table_key)
    keys = [keys] if isinstance(keys, str) else list(dict.fromkeys(keys))
    _checks.check_some(keys, "keys")
    options = {
        "library_key": library_key,
        "connectivity_key": connectivity_key,
        "spatial_key": spatial_key,
        "reference_key": reference_key,
        "markers": markers,
        "gene_sets": gene_sets,
        "layer": layer,
        "rng": int(_data.default_rng(rng, random_state).integers(2**31 - 1)),
    }
    codes, names = _data.get_libraries(adata, library_key)
    if per_library:
        _check_per_library(library_key, names)
    lines, circular = _scored(adata, keys, options)
    scored = {ALL: lines}
    if per_library:
        for name, rows in _data.iter_libraries(codes, names):
            scored[name] = _scored(adata[rows], keys, options)[0]
    if circular:
        _checks.warn(
            f"The factors of {_checks._listed(circular)} were smoothed over the graph that scores them: Moran's I, Geary's C and "
            "edge agreement are good by construction. Compare Moran's I with morans_i_null, or score `sn.tl.nmf`."
        )
    records = [(key, library, *line) for library, by_key in scored.items() for key in keys for line in by_key[key]]
    return pd.DataFrame(records, columns=COLUMNS)


def _scored(adata: AnnData, keys: list[str], options: dict) -> tuple[dict[str, list[Line]], list[str]]:
    """Lines of every key, and the keys whose factors were smoothed over the scoring graph."""
    scorer = Scorer(adata, **options)
    candidates = {key: scorer.candidate(key) for key in keys}  # what is not there is said before long work
    hows = {key: c.factors.smoothing for key, c in candidates.items() if c.factors is not None}
    circular = [key for key, how in hows.items() if how is not None and how.is_over(scorer.graph_key)]
    return {key: scorer.score(c, ROWS) for key, c in candidates.items()}, circular


def _check_per_library(library_key: str | None, names: list[str]) -> None:
    if library_key is None:
        msg = "`per_library=True` needs `library_key`, the column of `adata.obs` that tells the libraries apart."
        raise ValueError(msg)
    _checks.check_library_names(names, library_key)
