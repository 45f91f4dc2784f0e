"""Marker genes of clusters: coherence (CMC), exclusion rate (MER) and specificity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import _checks, _data
from .._docs import doc
from . import _inputs
from ._marker_scores import (
    MarkerCoherence,
    MarkerExclusion,
    Preset,
    Rules,
    coherence,
    evaluate,
    exclusion,
    expression,
    given_markers,
    left_out,
    rules_of,
    specificity,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def marker_coherence(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    markers: Mapping[Any, Sequence[str]] | pd.DataFrame | None = None,
    n_markers: int = 5,
    min_cells: int = 100,
    cross_fit: bool = True,
    preset: Preset = None,
    var_names: Sequence[str] | None = None,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> MarkerCoherence:
    r"""Share of a cluster's marker genes that its observations express (cell-marker coherence, CMC).

    .. math:: \mathrm{CMC} = \frac1{|C|} \sum_{c \in C} \frac{1}{n_c} \sum_{i \in c} \frac{1}{|M_c|}
       \sum_{g \in M_c} [x_{ig} > 0]

    with :math:`M_c` the markers of cluster c. ``weighted`` averages over observations instead of clusters C.

    **Range** 0 to 1; **higher is more coherent**.

    **What else moves it.** Depth and abundance: a gene that is expressed everywhere is expressed in the cluster, too, so
    read it beside :func:`marker_specificity`, which takes the rest of the tissue off. Few large clusters have abundant
    markers and score high; Wilcoxon's scores grow with the cluster, which favours abundant genes there. Domains that
    are mixtures of cell types score lower than cell types, and rightly so.

    Parameters
    ----------
    {marker_data}
    {labels}
    {marker_options}
    {table_key}

    Returns
    -------
    Named tuple ``(mean, weighted)``. Clusters without markers are left out, with a warning that names them; NaN, with a
    warning, where no cluster has any. :func:`marker_table` has the values by cluster.

    Raises
    ------
    KeyError
        If the column or the layer is not in the table.
    ValueError
        If none of the markers is in the table, or values are negative or not finite.

    References
    ----------
    Mahmud et al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import scanpy as sc
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> types = sn.metrics.marker_coherence(adata, "cell_type", min_cells=20)
    >>> domains = sn.metrics.marker_coherence(adata, "domain", min_cells=20)
    >>> types.mean > domains.mean  # a domain is a mixture of types
    True
    """
    table = _table_of(
        data,
        labels,
        markers,
        rules_of(n_markers, min_cells, cross_fit, preset),
        (var_names, layer, table_key),
        _data.default_rng(rng, random_state),
    )
    return coherence(_warned(table, "The coherence of markers"))


@doc
def marker_exclusion_rate(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    markers: Mapping[Any, Sequence[str]] | pd.DataFrame | None = None,
    n_markers: int = 5,
    min_cells: int = 100,
    cross_fit: bool = True,
    preset: Preset = None,
    var_names: Sequence[str] | None = None,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> MarkerExclusion:
    r"""Share of observations that express the markers of another cluster more than those of their own (MER).

    .. math:: \mathrm{MER} = \frac1n \Big|\Big\{i : \max_{c \ne l_i} s_{ic} > s_{i l_i} + 0.02 \Big\}\Big|,
       \qquad s_{ic} = \frac{1}{|M_c|} \sum_{g \in M_c} x_{ig}

    The mean over a cluster's markers does not favour clusters with many; the published sum and its margin of 0.1 are
    the same for five markers each, and under ``preset="paper"``.

    **Range** 0 to 1; **lower is better**. Random labels of L clusters reach about 1 − 1/L.

    **What else moves it.** More clusters, more competitors. Abundant genes as markers of one cluster exclude the
    observations of all others. Shallow observations express no marker at all and are then not excluded: they are
    counted apart (``n_negative``). The margin is in units of the values (log-normalised ones are meant).

    Parameters
    ----------
    {marker_data}
    {labels}
    {marker_options}
    {table_key}

    Returns
    -------
    Named tuple ``(rate, n_negative)``: the rate among the observations whose cluster has markers, and the number of
    those that express none of them. Clusters without markers are left out, with a warning that names them;
    the rate is NaN, with a warning, where fewer than two have any.

    Raises
    ------
    KeyError
        If the column or the layer is not in the table.
    ValueError
        If none of the markers is in the table, or values are negative or not finite.

    References
    ----------
    Mahmud et al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import scanpy as sc
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> types = sn.metrics.marker_exclusion_rate(adata, "cell_type", min_cells=20)
    >>> domains = sn.metrics.marker_exclusion_rate(adata, "domain", min_cells=20)
    >>> types.rate < domains.rate  # a domain is a mixture of types
    True
    """
    table = _table_of(
        data,
        labels,
        markers,
        rules_of(n_markers, min_cells, cross_fit, preset),
        (var_names, layer, table_key),
        _data.default_rng(rng, random_state),
    )
    result = exclusion(_warned(table, "The exclusion rate of markers"))
    if np.isnan(result.rate) and (table["note"] == "").any():
        _checks.warn("The exclusion rate of markers is NaN: only one cluster has markers, so there is no other.")
    return result


@doc
def marker_specificity(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    markers: Mapping[Any, Sequence[str]] | pd.DataFrame | None = None,
    n_markers: int = 5,
    min_cells: int = 100,
    cross_fit: bool = True,
    preset: Preset = None,
    var_names: Sequence[str] | None = None,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> float:
    r"""How much more often a cluster's markers are expressed inside it than outside.

    .. math:: \frac{1}{|C|} \sum_{c \in C} \frac{1}{|M_c|} \sum_{g \in M_c}
       \left(P(x_g > 0 \mid c) - P(x_g > 0 \mid \text{not } c)\right)

    **Range** −1 to 1; **higher is more specific**, and 0 is what random labels reach with ``cross_fit=True`` (more
    without it, since the best of many genes are then scored where they were found to be best).

    **What else moves it.** Depth: deep observations express abundant genes everywhere, and the difference closes.
    Merging similar clusters raises it.

    Parameters
    ----------
    {marker_data}
    {labels}
    {marker_options}
    {table_key}

    Returns
    -------
    The mean over clusters. Clusters without markers are left out, with a warning that names them; NaN, with a warning,
    where no cluster has any, or all observations are in one.

    Raises
    ------
    KeyError
        If the column or the layer is not in the table.
    ValueError
        If none of the markers is in the table, or values are negative or not finite.

    References
    ----------
    Mahmud et al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import scanpy as sc
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> sn.metrics.marker_specificity(adata, "cell_type", min_cells=20) > 0.2
    True
    >>> known = {"a": ["EPCAM", "KRT8"], "b": ["COL1A1"]}  # or with markers that are known
    >>> labels = adata.obs["cell_type"].map(lambda x: "b" if x == "fibroblast" else "a")
    >>> -1 < sn.metrics.marker_specificity(adata, labels, markers=known) < 1
    True
    """
    table = _table_of(
        data,
        labels,
        markers,
        rules_of(n_markers, min_cells, cross_fit, preset),
        (var_names, layer, table_key),
        _data.default_rng(rng, random_state),
    )
    value = specificity(_warned(table, "The specificity of markers"))
    if np.isnan(value) and (table["note"] == "").any():
        _checks.warn("The specificity of markers is NaN: all observations are in one cluster, so there is no outside.")
    return value


@doc
def marker_table(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    markers: Mapping[Any, Sequence[str]] | pd.DataFrame | None = None,
    n_markers: int = 5,
    min_cells: int = 100,
    cross_fit: bool = True,
    preset: Preset = None,
    var_names: Sequence[str] | None = None,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Markers of every cluster, with its coherence, specificity and exclusion rate.

    What :func:`marker_coherence`, :func:`marker_specificity` and :func:`marker_exclusion_rate` average, to see which
    cluster is good and which is not.

    Parameters
    ----------
    {marker_data}
    {labels}
    {marker_options}
    {table_key}

    Returns
    -------
    DataFrame with one row a cluster and the columns ``n_obs``, ``markers`` (names, separated by commas; with
    ``cross_fit=True`` those found in either half), ``coherence``, ``specificity``, ``exclusion_rate``,
    ``n_marker_negative`` and ``note``: why a cluster has no markers and NaN for values, else empty.

    Raises
    ------
    KeyError
        If the column or the layer is not in the table.
    ValueError
        If none of the markers is in the table, or values are negative or not finite.

    Examples
    --------
    >>> import scanpy as sc
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> table = sn.metrics.marker_table(adata, "cell_type", n_markers=3)
    >>> list(table.columns)
    ['n_obs', 'markers', 'coherence', 'specificity', 'exclusion_rate', 'n_marker_negative', 'note']
    """
    return _table_of(
        data,
        labels,
        markers,
        rules_of(n_markers, min_cells, cross_fit, preset),
        (var_names, layer, table_key),
        _data.default_rng(rng, random_state),
    )


def _table_of(
    data: Any, labels: Any, markers: Any, rules: Rules, where: tuple[Any, Any, Any], rng: np.random.Generator
) -> pd.DataFrame:
    adata, values = expression(data, *where)
    codes, names = _inputs.named_labels(adata, labels, values.X.shape[0])
    known = None if markers is None else given_markers(markers, names, values.names)
    return evaluate(values, codes, names, known, rules, rng)


def _warned(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """Say which clusters are left out, or that there is no value at all."""
    found = left_out(table)
    if found:
        _checks.warn(
            f"{what} is NaN: {found}."
            if (table["note"] != "").all()
            else f"{found}: they are left out of {what.lower()}."
        )
    return table
