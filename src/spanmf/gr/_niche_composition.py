"""What labels surround each observation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import _checks, _data, _keys
from .._docs import doc
from .._logging import timed
from ..core import _colocalization as core
from ._surroundings import surroundings

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def niche_composition(
    adata: AnnData | SpatialData,
    cluster_key: str,
    *,
    radius: float | None = None,
    connectivity_key: str | None = None,
    include_self: bool = False,
    library_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    key_added: str = "niche_composition",
    table_key: str | None = None,
    copy: bool = False,
) -> pd.DataFrame | None:
    r"""Share of each label among the neighbours of each observation.

    .. math:: s_{ib} = \frac{\sum_j A_{ij} [l_j = b]}{\sum_j A_{ij} [l_j \text{ known}]}

    with every neighbour counted once, whatever the weight of its edge.

    Parameters
    ----------
    {adata}
    {cluster_key}
        They have neighbours, but are none.
    radius
        Neighbours are all within this distance, in the units of the coordinates (50 µm is usual).
    {connectivity_key}
        Not with ``radius``.
    include_self
        Count the observation itself among its neighbours.
    {library_key}
        Neighbours are of the same library.
    {spatial_key}
    key_added
        Base name of the slots.
    {table_key}
    copy
        Return the shares instead of writing them, as squidpy does.

    Returns
    -------
    The shares (DataFrame, observations × labels) if ``copy``, else ``None`` and (with the default ``key_added``):

    ``adata.obsm["niche_composition"]`` : DataFrame, n × labels, float32
        Shares, which sum to one; NaN for observations without neighbours.
    ``adata.obs["niche_composition"]`` : categorical
        The commonest label around; ``"isolated"`` without neighbours (ties: the first in the order of the labels).
    ``adata.obs["niche_composition_n_neighbors"]`` : int
        Number of labelled neighbours.
    ``adata.uns["niche_composition"]`` : dict
        ``params``, ``versions``.

    Raises
    ------
    KeyError
        If the labels, the graph or the coordinates are missing.
    ValueError
        If both ``radius`` and ``connectivity_key`` are given, or the radius links nobody.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sn.gr.niche_composition(adata, "cell_type", radius=50, library_key="library")
    >>> bool((adata.obsm["niche_composition"].sum(axis=1).dropna().round(5) == 1).all())
    True
    """
    table = _data.get_table(adata, table_key)
    _checks.check_flag("include_self", include_self)
    _checks.check_key_added(key_added)
    codes, names = _data.get_labels(table, cluster_key)
    libraries, _ = _data.get_libraries(table, library_key)
    with timed("gr.niche_composition") as notes:
        A, source = surroundings(table, radius, connectivity_key, libraries, spatial_key)
        counts = core.neighbour_counts(A, codes, libraries, len(names), include_self=include_self)
        total = counts.sum(1)
        linked = total > 0
        shares = np.divide(counts, total[:, None], out=np.full(counts.shape, np.nan), where=linked[:, None])
        frame = pd.DataFrame(shares.astype(np.float32), index=table.obs_names, columns=names)
        if copy:
            return frame
        keys = _keys.NicheKeys(key_added)
        table.obsm[keys.shares] = frame.set_axis(_data.storable_names(names), axis=1)
        isolated = _data.storable_names([*names, _keys.ISOLATED])[-1]  # a label may be called so
        dominant = np.where(linked, counts.argmax(1), len(names))
        table.obs[keys.dominant] = pd.Categorical.from_codes(dominant, [*names, isolated])
        table.obs[keys.n_neighbors] = total.astype(np.int64)
        params = {"cluster_key": cluster_key, "library_key": library_key, "include_self": include_self}
        table.uns[keys.provenance] = _data.provenance(params | source, labels=names)
        notes += [
            f"{int((~linked).sum())} isolated",
            f"added obsm[{keys.shares!r}], obs[{keys.dominant!r}], obs[{keys.n_neighbors!r}], uns[{keys.provenance!r}]",
        ]
    return None
