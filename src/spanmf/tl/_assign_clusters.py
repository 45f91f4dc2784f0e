"""A cluster for every observation, whatever it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks, _data
from .._docs import doc
from .._logging import timed
from ..core import _annotation
from . import _fine_clusters, _fit, _parts

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from spatialdata import SpatialData


@doc
def assign_clusters(
    data: MuData | AnnData | SpatialData,
    n_clusters: int | None = None,
    *,
    key: str = "joint_nmf",
    use_neighbors: bool = False,
    connectivity_key: str | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    key_added: str = "assign_clusters",
    table_key: str | None = None,
) -> None:
    r"""Give every observation a cluster, without markers, and say how sure it is.

    Factors are parts: the dominant one need not be the type. And rows of W that lack a modality are no points of the same
    space: k-means puts them into clusters of their own. So the observations that have all modalities are cut into fine clusters
    (twice the components, at least 20) by k-means on :math:`W (H H^\top)^{1/2}`, which Ward's method merges into ``n_clusters``.
    Every observation then gets the probability of each by linear discriminants between the fine ones: by W where it is
    complete, else on the 20 leading principal components of what it has, fitted to the complete observations (temperature
    set on a half that was not fitted). What only the absent modality tells apart shares its probability, and the confidence says so.

    Parameters
    ----------
    data
        A MuData with joint factors, or a table with those of :func:`spanmf.tl.nmf` and its like.
    n_clusters
        Number of clusters. ``None``: as many as components.
    key
        Base name of the factorisation.
    use_neighbors
        Let the clusters of an observation's neighbours in the tissue be the prior of one that lacks a modality.
    connectivity_key
        Graph of these neighbours, in the MuData or a modality.
    {rng}
    key_added
        Base name of what is written.
    {table_key}

    Returns
    -------
    ``None``. Written to the MuData or table (with the default ``key_added``):

    ``obs["assign_clusters"]`` : categorical
        The likeliest cluster, ``"0"`` the largest among complete observations.
    ``obs["assign_clusters_confidence"]`` : float32
        Its probability, given the clusters.
    ``uns["assign_clusters"]`` : dict
        ``params``, ``versions``.

    Raises
    ------
    KeyError
        If factors or graph are missing.
    ValueError
        If there are fewer observations than clusters.

    See Also
    --------
    spanmf.tl.assign_types : the same with names, where there are markers.

    Examples
    --------
    >>> import spanmf as sn
    >>> mdata = sn.datasets.rna_protein_tissue(1000, missing=0.3)
    >>> sn.tl.joint_nmf(mdata, 12)
    >>> sn.tl.assign_clusters(mdata, 10)
    >>> mdata.obs["assign_clusters"].nunique()
    10
    """
    _checks.check_key_added(key_added)
    _checks.check_flag("use_neighbors", use_neighbors)
    factored = _parts.read(data, key, table_key)
    wanted = factored.W.shape[1] if n_clusters is None else n_clusters
    _checks.check_range("n_clusters", wanted, 2, integer=True)
    k = int(wanted)
    A = _fine_clusters.neighbours(factored, use_neighbors, connectivity_key)
    stream = _data.default_rng(rng, random_state)
    with timed("tl.assign_clusters") as notes:
        fine = _fine_clusters.find(factored, max(k, _fine_clusters.usual(factored)), stream)
        if len(fine.centres) < k:
            msg = (
                f"`n_clusters={k}` is more than can be found among {len(fine.rows)} complete observations: "
                f"at most {len(fine.centres)}."
            )
            raise ValueError(msg)
        codes = _annotation.merged(fine.scaled_centres, fine.sizes, k)
        posterior = _fine_clusters.posterior(fine, codes, A, stream)
        shares = _fine_clusters.by_type(posterior, codes, k)
        best = shares.argmax(1)
        params: dict[str, Any] = {
            "key": key, "n_clusters": k, "use_neighbors": use_neighbors, "rng": _fit.seed_of(rng, random_state),
        }  # fmt: skip
        holder = factored.holder
        holder.obs[key_added] = _fit.component_labels(best, k)
        holder.obs[f"{key_added}_confidence"] = shares[np.arange(len(best)), best].astype(np.float32)
        holder.uns[key_added] = _data.provenance(params)
        open_ = int((fine.pattern != fine.most).sum())
        notes.append(
            f"{k} clusters, {open_} observations by what they have; added obs[{key_added!r}], obs['{key_added}_confidence']"
        )
