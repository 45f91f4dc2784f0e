"""The features that make a component."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import _checks, _data
from .._docs import doc

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def top_features(
    adata: AnnData | SpatialData, key: str = "hsnmf", n_features: int = 10, *, table_key: str | None = None
) -> pd.DataFrame:
    r"""List the features with the largest loadings in each component.

    Parameters
    ----------
    {adata}
    key
        Base name of the factorisation.
    n_features
        Number of features a component. Features without a loading are not listed.
    {table_key}

    Returns
    -------
    One row a component and feature, best first: ``factor`` (number of the component), ``rank`` (from 1), ``feature``,
    ``loading`` (its share of the component's loadings, :math:`H_{kj} / \sum_j H_{kj}`), ``specificity`` (share of the
    feature's scaled loadings that lie in this component, :math:`\tilde H_{kj} / \sum_l \tilde H_{lj}` with the rows of
    :math:`\tilde H` summing to one; 1 means that no other component has it).

    Raises
    ------
    KeyError
        If the table holds no such factorisation.

    Examples
    --------
    >>> import scanpy as sc, spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> sn.tl.nmf(adata, 5)
    >>> sn.tl.top_features(adata, "nmf", 3).shape
    (15, 5)
    """
    table = _data.get_table(adata, table_key)
    _, H = _data.get_factors(table, key)
    _checks.check_range("n_features", n_features, 1, integer=True)
    share, specific = _data.loading_shares(H)
    rows = []
    for factor, loadings in enumerate(share):
        best = np.argsort(-loadings, kind="stable")[:n_features]
        best = best[loadings[best] > 0]
        rows += [(factor, i + 1, table.var_names[j], loadings[j], specific[factor, j]) for i, j in enumerate(best)]
    return pd.DataFrame(rows, columns=["factor", "rank", "feature", "loading", "specificity"])
