"""ASW: silhouette width of labels in space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks, _data
from .._docs import doc
from ..core import _silhouette, _spatial
from . import _inputs
from ._separation import SAMPLE_SIZE, stratified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from ._places import Places


@doc
def asw(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    spatial_key: str = "spatial",
    library_key: str | Sequence[Any] | np.ndarray | None = None,
    sample_size: int | None = SAMPLE_SIZE,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> float:
    r"""Mean silhouette width of the labels in space (ASW).

    .. math:: s_i = \frac{b_i - a_i}{\max(a_i, b_i)}

    with :math:`a_i` the mean distance in space of observation i to the others of its label and library, and :math:`b_i`
    that to the nearest other label of its library; an observation alone with its label counts 0. Libraries are scored
    each by itself, and their means are weighted by their observations.

    **Range** −1 to 1; **higher is more compact**. Labels without spatial order have about 0 or a little less.

    **What else moves it.** It rewards few, round, well separated blobs of one piece: layers, rings, and domains that come in several
    places have low or negative widths though they are right. It falls with the number of clusters, and hardly depends
    on n or density. So read it only between labelings of the same tissue.

    Parameters
    ----------
    data
        Annotated data matrix (a SpatialData is taken too: see ``table_key``), or coordinates (n × 2 or n × 3, any
        unit).
    {labels}
    {spatial_key}
    library_key
        Column of ``adata.obs`` that tells the samples (slides, TMA cores) apart, or one library an observation.
    sample_size
        With more labelled observations than this, score a random subsample of about this size, stratified by library
        and cluster and weighted by their sizes (at least two of each). ``None``: all of them, which takes n² distances.
    {rng}
    {table_key}

    Returns
    -------
    The mean over the labelled observations. Libraries with one cluster, or with as many clusters as observations, have no
    silhouette and are left out with a warning; NaN where that leaves none.

    Raises
    ------
    KeyError
        If a column or the coordinates are not in the table.
    ValueError
        If there are fewer than two clusters, as many clusters as observations, or coordinates that are not finite.

    References
    ----------
    Rousseeuw (1987), Journal of Computational and Applied Mathematics 20:53. Yuan et al. (2024), Nature Methods 21:712
    (SDMBench: all observations of one library).

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> in_domains = sn.metrics.asw(adata, "domain", library_key="library")
    >>> in_types = sn.metrics.asw(adata, "cell_type", library_key="library")
    >>> in_types < in_domains < 0  # cell types mingle; the planted domains are right, but not round
    True
    """
    if sample_size is not None:
        _checks.check_range("sample_size", sample_size, 3, integer=True)
    places, codes = _inputs.labelled_places(data, labels, spatial_key, library_key, table_key)
    codes = np.unique(codes, return_inverse=True)[1]
    _checks.check_n_clusters(int(codes.max()) + 1, len(codes))
    return asw_of(places, codes, sample_size, _data.default_rng(rng, random_state))


def asw_of(places: Places, codes: np.ndarray, sample_size: int | None, rng: np.random.Generator) -> float:
    """ASW of labels at places; NaN with a warning where no library has one."""
    groups = np.unique(places.groups(codes), return_inverse=True)[1]
    sizes = np.bincount(groups)
    whole = sample_size is None or sample_size >= len(codes)
    rows = np.arange(len(codes)) if whole else stratified(groups, sample_size, rng)
    if not whole:
        n_pairs = float((np.bincount(places.libraries[rows]).astype(float) ** 2).sum())
        _checks.check_sample(n_pairs, sample_size, int(codes.max()) + 1)
    sums, n_scored, left_out = 0.0, 0, 0
    for inside in _spatial.group_rows(places.libraries[rows]):
        members = rows[inside]
        own, local = np.unique(groups[members], return_inverse=True)
        n = int(sizes[own].sum())
        if not 2 <= len(own) < n:
            left_out += 1
            continue
        width = _silhouette.widths(places.coords[members], local)
        sums += float(np.bincount(local, width) / np.bincount(local) @ sizes[own])
        n_scored += n
    if n_scored == 0:
        _checks.warn("ASW is NaN: no library has two clusters, one of them of two observations.")
        return float("nan")
    if left_out:
        _checks.warn(
            f"ASW leaves out {left_out} librar{'y' if left_out == 1 else 'ies'} with one cluster, or with as many "
            "clusters as observations."
        )
    return sums / n_scored
