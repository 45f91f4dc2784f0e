"""PAS: the share of observations whose neighbours carry other labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks
from .._docs import doc
from ..core import _spatial
from . import _inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from ._places import Places

N_NEIGHBORS = 10  # as published


@doc
def pas(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    n_neighbors: int = N_NEIGHBORS,
    spatial_key: str = "spatial",
    library_key: str | Sequence[Any] | np.ndarray | None = None,
    table_key: str | None = None,
) -> float:
    r"""Share of observations whose neighbours mostly carry another label (PAS, percentage of abnormal spots).

    .. math:: \mathrm{PAS} = \frac{1}{|S|} \sum_{i \in S} \Big[ \sum_{j \in N_i} [l_j \ne l_i] > \tfrac12 |N_i| \Big]

    with :math:`N_i` the ``n_neighbors`` nearest labelled observations of the same library, whatever their distance, and
    S the observations that have any.

    **Range** 0 to 1; **lower is smoother**. One cluster has 0; labels without spatial order have nearly 1, unless one
    of them is in the majority.

    **What else moves it.** Fewer and larger clusters lower it, since only borders count: it prefers the coarsest
    labels. With more cells in the same domains it falls as :math:`1/\sqrt{n}`, since a smaller share of them lies within
    ``n_neighbors`` cells of a border; it is high on thin layers, whose cells have most neighbours outside however right
    the labels are. Any smoothing lowers it. On a lattice of spots it is arbitrary which of
    the equally distant ones are among the nearest.

    Parameters
    ----------
    data
        Annotated data matrix (a SpatialData is taken too: see ``table_key``), or coordinates (n × 2 or n × 3, any
        unit).
    {labels}
    n_neighbors
        Number of neighbours asked. In a library with fewer other observations, all of them are.
    {spatial_key}
    library_key
        Column of ``adata.obs`` that tells the samples (slides, TMA cores) apart, or one library an observation.
        Neighbours are looked for within a library only; the share is over the observations of all of them.
    {table_key}

    Returns
    -------
    The share. An observation alone in its library has no neighbours and is left out. NaN, with a warning, where all
    are alone.

    Raises
    ------
    KeyError
        If a column or the coordinates are not in the table.
    ValueError
        If coordinates are not finite, lengths differ, or all labels are missing.

    References
    ----------
    Shang and Zhou (2022), Nature Communications 13:7203 (SpatialPCA). Yuan et al. (2024), Nature Methods 21:712
    (SDMBench). For one library the number is theirs.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> in_domains = sn.metrics.pas(adata, "domain", library_key="library")
    >>> in_types = sn.metrics.pas(adata, "cell_type", library_key="library")
    >>> in_domains < 0.3 < 0.6 < in_types  # domains are compact, cell types mingle
    True
    """
    _checks.check_range("n_neighbors", n_neighbors, 1, integer=True)
    places, codes = _inputs.labelled_places(data, labels, spatial_key, library_key, table_key)
    return pas_of(places, codes, int(n_neighbors))


def pas_of(places: Places, codes: np.ndarray, n_neighbors: int = N_NEIGHBORS) -> float:
    """PAS of labels at places; NaN with a warning where no library has two observations."""
    n_neighbors = min(n_neighbors, len(codes))
    outnumbered = _spatial.outnumbered(places.neighbours(n_neighbors), codes)
    asked = outnumbered >= 0
    if not asked.any():
        _checks.warn("PAS is NaN: every labelled observation is alone in its library.")
        return float("nan")
    return float(np.mean(outnumbered[asked], dtype=np.float64))
