"""Mean profiles of cell types from single cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .. import _checks, _data, _reference
from .._docs import doc
from .._logging import timed

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def reference_profiles(
    adata_sc: AnnData | SpatialData,
    groupby: str,
    *,
    keep_cells: int = 100,
    layer: str | None = None,
    table_key: str | None = None,
) -> AnnData:
    r"""Average the counts of the cells of each type, :math:`B_{kj} = \frac1{n_k}\sum_{i\in k} x_{ij}`.

    Raw counts are needed: B then says both what a type expresses and how much mRNA a cell of it has, by which shares of mRNA become
    shares of cells, and n_k tells how sure the profile is.

    Parameters
    ----------
    adata_sc
        Single cells (cells × genes), raw counts.
    groupby
        Column of ``adata_sc.obs`` with the cell types. Cells without a type (NaN) are left out.
    keep_cells
        Cells of each type to keep in ``uns["cells"]`` at most, on which :func:`spanmf.tl.stl_nmf` calibrates its intervals; 0 keeps none.
    {layer}
    {table_key}

    Returns
    -------
    AnnData of types × genes: ``X`` mean counts of a cell (float64), ``obs["n_cells"]`` and ``obs["mrna"]``, the mean counts
    of a cell in all; ``uns["cells"]`` is a dict of ``X`` (cells × genes, float32 CSR), ``types`` and ``genes``. ``adata_sc`` is not changed.

    Raises
    ------
    KeyError
        If the column or the layer is missing.
    ValueError
        If values are negative or look log-transformed; if no cell has a type; if the cells of a type have no counts.

    Warns
    -----
    SpanmfWarning
        If types have fewer than ten cells (they are named), or if values are fractions.

    Examples
    --------
    >>> import spanmf as sn
    >>> cells = sn.datasets.xenium_tissue(1000)
    >>> reference = sn.tl.reference_profiles(cells, "cell_type")
    >>> reference.n_obs == cells.obs["cell_type"].nunique()
    True
    """
    from anndata import AnnData

    table = _data.get_table(adata_sc, table_key, min_obs=1)
    _checks.check_range("keep_cells", keep_cells, 0, integer=True)
    codes, types = _data.get_labels(table, groupby)
    if not types:
        msg = f"No cell has a type in `adata_sc.obs[{groupby!r}]`."
        raise ValueError(msg)
    X, name = _data.get_matrix(table, layer)
    _reference.check_cells(X, name.replace("adata", "adata_sc"), table.uns if layer is None else {})
    with timed("tl.reference_profiles") as notes:
        known = np.flatnonzero(codes >= 0)
        n_cells = np.bincount(codes[known], minlength=len(types))
        member = sp.csr_matrix((1 / n_cells[codes[known]], (codes[known], known)), shape=(len(types), table.n_obs))
        product = member @ (X.astype(np.float64) if sp.issparse(X) else np.asarray(X, dtype=np.float64))
        B = product.toarray() if sp.issparse(product) else np.asarray(product)
        obs = pd.DataFrame(
            {_reference.N_CELLS: n_cells, _reference.MRNA: B.sum(1)}, index=pd.Index(types, dtype=object)
        )
        reference = AnnData(B, obs=obs, var=pd.DataFrame(index=table.var_names.copy()))
        if keep_cells:
            reference.uns[_reference.CELLS] = _reference.keep_cells(X, codes, types, table.var_names, keep_cells)
        _reference.check_left(B, types)
        _reference.warn_of_few_cells(types, n_cells)
        notes.append(f"{len(types)} types of {len(known)} cells ({table.n_obs - len(known)} without a type)")
    return reference
