"""Whether maps of cell types follow their marker genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.stats import rankdata

from .. import _checks, _data
from .._docs import doc
from ._marker_scores import given_markers, marker_lists

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

METHODS = ("pearson", "spearman")


@doc
def marker_correlation(
    adata: AnnData | SpatialData,
    markers: Mapping[str, Sequence[str]] | pd.DataFrame,
    key: str = "stl_nmf",
    *,
    method: Literal["pearson", "spearman"] = "pearson",
    layer: str | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Correlate the map of each cell type with the expression of its marker genes.

    For type k with markers :math:`M_k` found in the table,

    .. math:: r_k = \operatorname{cor}_i\Bigl(v_{ik},\; \tfrac1{|M_k|}\sum_{g \in M_k} x_{ig}\Bigr)

    over the spots that have shares. It is the published check of deconvolution on tissue whose truth nobody knows.

    **Range** −1 to 1; **higher is better**. ``rank`` says how many maps follow these markers as well as the type's own
    or better, itself counted: 1 is what one wants, and where it is not, ``best`` names the map that follows them most.

    **What else moves it.** Markers that the reference was deconvolved by: the check is then circular, and only says that
    the fit used them. Markers that several types share favour none of them (see ``rank``). A type that is almost absent has noise
    for a map, and its correlation is near 0 whatever the method. Neighbouring spots are alike, so that a p-value of
    r would mean nothing, and none is given.

    Parameters
    ----------
    {adata}
    markers
        Genes by type: a mapping from type to names, or a DataFrame with the columns ``cell_type`` and ``gene`` (or ``marker``),
        ``group`` and ``names`` (:func:`scanpy.get.rank_genes_groups_df`), or one column a type. The names of the types must be
        those of the shares.
    key
        Shares in ``adata.obsm`` (observations × types).
    method
        ``"pearson"`` as published, or ``"spearman"``, of the ranks.
    layer
        Layer to use instead of ``adata.X``. Raw counts (which :func:`spanmf.tl.stl_nmf` needs) are log-normalised first, to the median
        total, or the depth of the spots would be what correlates; other values are used as they are.
    {table_key}

    Returns
    -------
    DataFrame with one row a type: ``cell_type``, ``n_markers`` (given), ``n_found`` (of them in the table), ``correlation``,
    ``rank``, ``best``, and ``note``: why there is no value, else "".

    Raises
    ------
    KeyError
        If the shares or the layer are not there.
    ValueError
        If no type has markers, no marker is in the table, or values are negative or not finite.

    Warns
    -----
    SpanmfWarning
        If markers are not in the table, or name types that have no share.

    Examples
    --------
    >>> import spanmf as sn
    >>> section = sn.datasets.visium_section(300)
    >>> markers = {"tumour": ["EPCAM", "KRT8"], "B": ["MS4A1", "CD79A"]}
    >>> table = sn.metrics.marker_correlation(section, markers, "proportions_true").set_index("cell_type")
    >>> bool(table.loc["B", "correlation"] > 0.5), int(table.loc["B", "rank"])
    (True, 1)
    """
    table = _data.get_table(adata, table_key)
    _checks.check_choice("method", method, METHODS)
    shares, names = _data.get_proportions(table, key)
    X, name = _data.get_matrix(table, layer)
    _checks.check_expression(X, name)
    columns = given_markers(markers, names, table.var_names)
    given = _n_given(markers)
    unknown = [c for c in given if c not in names]
    if unknown:
        _checks.warn(
            f"Markers are given for {len(unknown)} types that have no share ({_checks._listed(unknown)}) and are left "
            f"out; the shares are of {_checks._listed(names)}."
        )
    known = ~np.isnan(shares[:, 0])
    maps = _standardised(shares[known], method)
    expression = _log_normalised(X)[known]
    rows = []
    for k, cell_type in enumerate(names):
        own = columns.get(cell_type, np.empty(0, np.int64))
        row = {"cell_type": cell_type, "n_markers": given.get(cell_type, 0), "n_found": len(own)}
        rows.append(row | _compare(maps, k, expression[:, own], names, method))
    return pd.DataFrame(rows)


def _n_given(markers: Any) -> dict[str, int]:
    return {
        name: len(genes) for name, genes in _checks.check_gene_lists(marker_lists(markers), "`markers`", "type").items()
    }


def _log_normalised(X: Any) -> sp.csc_matrix:
    """Counts divided by their spot's total, times the median total, log1p; other values as they are."""
    X = sp.csr_matrix(X, dtype=np.float64)
    if _checks.looks_like_counts(X):
        total = np.asarray(X.sum(1)).ravel()
        scale = np.divide(np.median(total[total > 0]), total, out=np.zeros(len(total)), where=total > 0)
        X = (sp.diags_array(scale) @ X).log1p()
    return sp.csc_matrix(X)


def _standardised(values: np.ndarray, method: str) -> np.ndarray:
    """Columns of mean 0 and norm 1; NaN where a column does not vary."""
    values = rankdata(values, axis=0) if method == "spearman" else values
    centred = values - values.mean(0)
    norm = np.linalg.norm(centred, axis=0)
    return np.divide(centred, norm, out=np.full(values.shape, np.nan), where=norm > 1e-12 * np.abs(values).max(0))


def _compare(maps: np.ndarray, k: int, expression: sp.csc_matrix, names: list[str], method: str) -> dict[str, Any]:
    """Correlation of the type's own map with its markers, and how the other maps do."""
    nothing = {"correlation": np.nan, "rank": pd.NA, "best": ""}
    if expression.shape[1] == 0:
        return nothing | {"note": "no markers in the table"}
    mean = _standardised(np.asarray(expression.mean(1)).reshape(-1, 1), method)[:, 0]
    if np.isnan(mean).any():
        return nothing | {"note": "the markers do not vary"}
    r = mean @ np.nan_to_num(maps)
    r[np.isnan(maps[0])] = np.nan
    if np.isnan(r[k]):
        return nothing | {
            "best": names[int(np.nanargmax(r))] if np.isfinite(r).any() else "",
            "note": "the share does not vary",
        }
    return {"correlation": float(r[k]), "rank": int((r >= r[k]).sum()), "best": names[int(np.nanargmax(r))], "note": ""}
