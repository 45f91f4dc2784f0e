"""CHAOS: how compact labels are in space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import _checks, _data
from .._docs import doc
from ..core import _spatial
from . import _inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def chaos(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    spatial_key: str = "spatial",
    library_key: str | Sequence[Any] | np.ndarray | None = None,
    normalized: bool = False,
    table_key: str | None = None,
) -> float:
    r"""Mean distance to the nearest observation of the same label (CHAOS).

    .. math:: \mathrm{CHAOS} = \frac{1}{|S|} \sum_{i \in S} \min_{j \ne i,\; l_j = l_i} \lVert x_i - x_j \rVert

    with each axis of the coordinates x standardised to mean 0 and standard deviation 1 (within each library), as in
    SpatialPCA and SDMBench, and S the observations that share their label with at least one other of their library.

    **Range** 0 to about 4 (standard deviations); **lower is more compact**. ``normalized=True``: 1 and above, 1 for
    labels that never separate nearest neighbours.

    **What else moves it.** It falls as :math:`1/\sqrt{n}` whatever the labels: uniform points in one cluster
    give :math:`0.5 \sqrt{12 / n}` in two dimensions. It also falls with fewer clusters (one cluster is the
    floor), and with coincident or strongly clumped cells. Compare it between labelings of the same cells only, or use
    ``normalized=True``, which divides by the value of the same cells with all labels made equal, so that n, density
    and the shape of the tissue cancel. Smoothing lowers it by construction.

    Parameters
    ----------
    data
        Annotated data matrix (a SpatialData is taken too: see ``table_key``), or coordinates (n × 2 or n × 3, any
        unit).
    {labels}
    {spatial_key}
    library_key
        Column of ``adata.obs`` that tells the samples (slides, TMA cores) apart, or one library an observation.
        Neighbours are looked for within a library only; the mean is over the observations of all of them.
    normalized
        Divide by the value that the same observations have when all labels are equal.
    {table_key}

    Returns
    -------
    The mean distance. An observation alone with its label in its library has no such distance and is left out of
    the mean; SDMBench's code counts it (and labels of two cells) as 0, which rewards splinters. NaN, with a warning,
    where all are alone or (``normalized``) where all coincide with another.

    Raises
    ------
    KeyError
        If a column or the coordinates are not in the table.
    ValueError
        If coordinates are not finite, lengths differ, or all labels are missing.

    References
    ----------
    Shang and Zhou (2022), Nature Communications 13:7203 (SpatialPCA).
    Yuan et al. (2024), Nature Methods 21:712 (SDMBench).

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> in_domains = sn.metrics.chaos(adata, "domain", library_key="library", normalized=True)
    >>> in_types = sn.metrics.chaos(adata, "cell_type", library_key="library", normalized=True)
    >>> 1 <= in_domains < 1.5 < in_types  # domains are compact, cell types mingle
    True
    >>> sn.metrics.chaos(adata.obsm["spatial"], adata.obs["domain"]) > 0  # or arrays
    True
    """
    adata, coords = _inputs.coordinates(data, spatial_key, table_key)
    codes = _inputs.label_codes(adata, labels, len(coords))
    libraries = _libraries(adata, library_key, len(coords))
    known = codes >= 0
    codes, libraries = codes[known], libraries[known]
    scaled = _spatial.standardise(coords[known], libraries)

    distance = _spatial.nearest_in_group(scaled, codes * (libraries.max() + 1) + libraries)
    together = ~np.isnan(distance)
    if not together.any():
        _checks.warn("CHAOS is NaN: no two observations of a library share a label.")
        return float("nan")
    value = float(distance[together].mean())
    if not normalized:
        return value
    floor = float(_spatial.nearest_in_group(scaled, libraries)[together].mean())
    if floor == 0:
        _checks.warn("Normalised CHAOS is NaN: every observation has another at the same place.")
        return float("nan")
    return value / floor


def _libraries(adata: AnnData | None, library_key: Any, n_obs: int) -> np.ndarray:
    if isinstance(library_key, str) and adata is None:
        msg = f"The libraries are given as a key ({library_key!r}), which needs an AnnData as the first argument."
        raise TypeError(msg)
    if adata is not None and (library_key is None or isinstance(library_key, str)):
        return _data.get_libraries(adata, library_key)[0].astype(np.int64)
    if library_key is None:
        return np.zeros(n_obs, dtype=np.int64)
    _checks.check_length(library_key, n_obs, "`library_key`")
    codes = pd.factorize(pd.Series(library_key))[0].astype(np.int64)
    if (codes < 0).any():
        msg = f"`library_key` is missing (NaN) for {int((codes < 0).sum())} observations."
        raise ValueError(msg)
    return codes
