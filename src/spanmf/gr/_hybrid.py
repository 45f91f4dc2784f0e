"""Graph of neighbours in space and in expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import scipy.sparse as sp

from .. import _checks, _data, _keys
from .._docs import doc
from .._logging import status, timed
from ..core import _fuzzy, _graph, _knn

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from spatialdata import SpatialData

LARGE = 50_000  # observations from which the search takes more than a few seconds
FEATURE_HINT = "Call `sc.pp.neighbors(adata)` first, or leave out `feature_key` to use the nearest in `use_rep`."


@doc
def hybrid_neighbors(
    adata: AnnData | SpatialData,
    alpha: float = 0.5,
    *,
    connectivity_key: str | None = None,
    use_rep: str = "X_snmf",
    feature_key: str | None = None,
    scale: Literal["gram", "norm"] | None = "gram",
    n_neighbors: int = 15,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
    key_added: str = _keys.HYBRID,
    copy: bool = False,
) -> tuple[sp.csr_matrix, sp.csr_matrix] | None:
    r"""Mix a spatial graph S with a feature graph F.

    With :math:`\mathrm{rn}(\cdot)` dividing each row by its sum,

    .. math:: M = \mathrm{rn}(\alpha\,\mathrm{rn}(S) + (1-\alpha)\,\mathrm{rn}(F)), \qquad A = (M + M^\top)/2 .

    F is scanpy's graph of the ``n_neighbors`` nearest observations in a representation (exact search, UMAP weights: McInnes
    et al. 2018), or
    any graph of ``adata.obsp``.

    Parameters
    ----------
    {adata}
    alpha
        Weight of space, from 0 (expression only) to 1 (space only).
    {connectivity_key}
    use_rep
        Representation in ``adata.obsm`` whose nearest neighbours make F.
    feature_key
        Existing feature graph in ``adata.obsp`` to use as F instead (with or without ``_connectivities``; scanpy's own
        is ``"connectivities"``).
    scale
        Scale of factors for distances: ``"gram"`` or ``"norm"`` (see :func:`spanmf.tl.hsnmf`). A representation without
        loadings in ``adata.varm``, and any with ``None``, is taken as it is. Without meaning beside ``feature_key``.
    n_neighbors
        Number of nearest neighbours, the observation itself counted, as in scanpy.
    {rng}
    {table_key}
    key_added
        Base name of the slots.
    copy
        Return the two matrices instead of writing them.

    Returns
    -------
    Connectivities and distances if ``copy``, else ``None`` and (with the default ``key_added``):

    ``adata.obsp["hybrid_connectivities"]`` : :class:`scipy.sparse.csr_matrix`, n × n, float32
        The mixed graph, symmetric.
    ``adata.obsp["hybrid_distances"]`` : :class:`scipy.sparse.csr_matrix`, n × n, float32
        Distances to the nearest neighbours in the representation (those of the feature graph's own where
        ``feature_key`` names one; else the mixed graph's ``1 − weight``).
    ``adata.uns["hybrid_neighbors"]`` : dict
        ``connectivities_key``, ``distances_key``, ``params``: what ``sc.tl.leiden(neighbors_key=...)`` and
        ``sc.tl.umap(neighbors_key=...)`` read.

    Raises
    ------
    KeyError
        If the spatial graph, the feature graph or the representation is missing.
    ValueError
        If ``alpha`` is not in [0, 1], or a graph has another size.

    References
    ----------
    Mahmud et al. (2026), *hSNMF*, `arXiv:2602.02638 <https://arxiv.org/abs/2602.02638>`_. There the mixed graph is not
    symmetric though it is clustered as undirected; here it is.

    Examples
    --------
    >>> import scanpy as sc, spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> sn.gr.contact_neighbors(adata, library_key="library")
    >>> sn.tl.snmf(adata, 5)
    >>> sn.gr.hybrid_neighbors(adata, 0.3)
    >>> sc.tl.leiden(adata, neighbors_key="hybrid_neighbors", flavor="igraph", n_iterations=2)
    """
    table = _data.get_table(adata, table_key)
    _checks.check_range("alpha", alpha, 0, 1)
    _checks.check_choice("scale", scale, (None, "gram", "norm"))
    _checks.check_range("n_neighbors", n_neighbors, 2, integer=True)
    _data.default_rng(rng, random_state)  # a check: an exact search draws nothing
    _checks.check_key_added(key_added)
    S, spatial = _data.get_graph(table, connectivity_key)
    _checks.check_edges(S, spatial)
    keys = _keys.GraphKeys(key_added)
    with timed("gr.hybrid_neighbors") as notes:
        if feature_key is None:
            F, D = feature_graph(_data.get_scaled(table, use_rep, scale), n_neighbors)
            made = {
                "use_rep": _data.representation_key(table, use_rep),
                "scale": scale,
                "n_neighbors": int(n_neighbors),
                "method": "umap",
            }
            made["rng"] = rng if isinstance(rng, int) else None
        else:
            F, found = _data.get_graph(table, feature_key, FEATURE_HINT)
            D = _distances_of(table, found)
            made = {"feature_key": found, "method": "given"}
        A = _graph.mix(S, F, alpha)
        if D is None:
            D = A.copy()
            D.data = 1 - D.data
        if copy:
            return A, D
        write_hybrid(table, keys, A, D, {"alpha": float(alpha), "connectivity_key": spatial, **made})
        notes += [f"{A.nnz // 2} edges", f"added obsp[{keys.connectivities!r}], uns[{keys.neighbors!r}]"]
    return None


def _distances_of(table: AnnData, connectivities: str) -> sp.csr_matrix | None:
    """Copy the distances that stand beside a feature graph, if there are any."""
    key = connectivities.removesuffix("connectivities") + "distances"
    return table.obsp[key].copy() if key in table.obsp else None


def feature_graph(Z: np.ndarray, n_neighbors: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """UMAP's weights of the nearest neighbours of the rows of Z, as ``sc.pp.neighbors`` gives them, and their distances."""
    n, k = len(Z), min(n_neighbors, len(Z))
    with status("spanmf: nearest neighbours", show=n >= LARGE or not _fuzzy.is_compiled()):
        indices, distances = _knn.nearest(Z, k)
        D = sp.csr_matrix((distances.ravel(), indices.ravel(), range(0, n * k + 1, k)), shape=(n, n))
        return _fuzzy.fuzzy_graph(indices, distances), D


def write_hybrid(
    table: AnnData, keys: _keys.GraphKeys, A: sp.csr_matrix, D: sp.csr_matrix, params: dict[str, Any]
) -> None:
    """Write a mixed graph in the shape that scanpy reads."""
    table.obsp[keys.connectivities] = A
    table.obsp[keys.distances] = D
    table.uns[keys.neighbors] = {
        "connectivities_key": keys.connectivities,
        "distances_key": keys.distances,
        "params": _data.storable(params),
    }
