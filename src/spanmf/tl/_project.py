"""Factors of new cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _checks, _dask, _data
from .._docs import doc
from .._logging import timed
from ..core import _ops, _solver
from ..core._blocks import Blocks
from . import _fit

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def project(
    adata_query: AnnData | SpatialData,
    adata_ref: AnnData | SpatialData,
    *,
    key: str = "nmf",
    layer: str | None = None,
    normalize: bool = False,
    device: str = "cpu",
    key_added: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Express new cells in known components.

    With the loadings H of the reference fixed, solves for every new cell

    .. math:: w_i = \arg\min_{w \ge 0} \tfrac12 \lVert x_i - w H \rVert^2

    (or the KL divergence, where the reference was fitted with it). Nothing is smoothed: build a graph and call
    :func:`spanmf.tl.hsnmf` with ``use_rep=`` for that.

    Parameters
    ----------
    adata_query
        Table with the new cells (a SpatialData is taken too: see ``table_key``).
    adata_ref
        Table that holds the factorisation.
    key
        Base name of the factorisation in ``adata_ref``.
    {layer}
    {normalize}
    {device}
    key_added
        Base name of the slots; ``None``: ``key``.
    {table_key}
    {copy}

    Returns
    -------
    The copy if ``copy``, else ``None``. Written (with the default ``key``):

    ``adata_query.obsm["X_nmf"]`` : n × k, float32
        Factors of the new cells, in the components of the reference.
    ``adata_query.varm["nmf_loadings"]`` : p × k, float32
        The reference's loadings for the variables of this table; zero rows for those it does not know.
    ``adata_query.obs["nmf"]`` : categorical
        Dominant component.
    ``adata_query.uns["nmf"]`` : dict
        ``params`` and ``versions``.

    Raises
    ------
    KeyError
        If the reference holds no such factorisation.
    ValueError
        If the tables share no variable with loadings, or variable names are not unique; if there is no such device.
    ImportError
        If the device needs torch, and torch is not installed.
    MemoryError
        If the device has too little memory: what is needed, and what is free.

    Warns
    -----
    SpanmfWarning
        If variables with loadings are missing in the new table: they are left out.

    Examples
    --------
    >>> import scanpy as sc, spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> ref, new = adata[:800].copy(), adata[800:].copy()
    >>> sn.tl.nmf(ref, 5)
    >>> sn.tl.project(new, ref)
    >>> new.obsm["X_nmf"].shape
    (200, 5)
    """
    table = _data.get_table(adata_query, table_key, min_obs=1)
    reference = _data.get_table(adata_ref)
    _checks.check_key_added(key_added or key)
    on = _checks.check_device(device)
    _, H = _data.get_factors(reference, key)
    columns, loaded = _checks.match_variables(table.var_names, reference.var_names, (H > 0).any(0))
    stored, name = _data.get_matrix(table, layer, lazy=True)
    X = _dask.in_blocks(stored, name, columns)
    _checks.check_in_memory(X, device)
    _checks.check_matrix(X, name)
    loss = reference.uns.get(key, {}).get("params", {}).get("loss", "frobenius")
    with timed("tl.project") as notes:
        if normalize:
            X = _dask.in_blocks(_fit.log_normalised(stored), name, columns)
        elif loss == "frobenius":
            _checks.warn_if_counts(X, name, " (the components are those of a Frobenius fit)")
        _fit.compile_once(loss, len(H))
        rows = _fit.placed(X if isinstance(X, Blocks) else _ops.as_rows(X[:, columns]), len(H), on)
        W = _solver.solve_w(rows, H[:, loaded], loss=loss)
        mask = np.zeros(table.n_vars, dtype=bool)
        mask[columns] = True
        full = np.zeros((len(H), table.n_vars), dtype=np.float32)
        full[:, columns] = H[:, loaded]
        table = _data.target(table, copy=copy)
        labels = _fit.component_labels(_fit.dominant(W, H[:, loaded]), len(H))
        params = {"projected_from": key, "loss": loss, "layer": layer, "normalize": normalize, "device": device}
        notes.append(_fit.write(table, key_added or key, (W, full[:, mask], mask), labels, params))
    return table if copy else None
