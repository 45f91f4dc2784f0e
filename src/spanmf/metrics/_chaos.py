"""CHAOS: how compact labels are in space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _checks, _data
from .._docs import doc
from ..core import _spatial
from . import _inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from ._places import Places


@doc
def chaos(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    spatial_key: str = "spatial",
    library_key: str | Sequence[Any] | np.ndarray | None = None,
    normalized: bool | Literal["floor", "permuted"] = False,
    n_permutations: int = 10,
    preset: Literal["paper"] | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> float:
    r"""Mean distance to the nearest observation of the same label (CHAOS).

    .. math:: \mathrm{CHAOS} = \frac{1}{|S|} \sum_{i \in S} \min_{j \ne i,\; l_j = l_i} \lVert x_i - x_j \rVert

    with each axis of the coordinates x standardised to mean 0 and standard deviation 1 (within each library), as in
    SpatialPCA and SDMBench, and S the observations that share their label with at least one other of their library.

    **Range** 0 to about 4 (standard deviations); **lower is more compact**. ``normalized="floor"``: 1 and above, 1 for
    labels that never separate nearest neighbours. ``normalized="permuted"``: from about 0 to 1, 1 for labels without
    spatial order.

    **What else moves it.** It falls as :math:`1/\sqrt{n}` whatever the labels: uniform points in one cluster
    give :math:`0.5 \sqrt{12 / n}` in two dimensions. It also falls with fewer clusters (one cluster is the
    floor), and with coincident or strongly clumped cells. Compare it between labelings of the same cells only, or
    divide by a value of the same cells, so that n, density and the shape of the tissue cancel: that with all labels
    made equal (``"floor"``: how much is lost to the labels' borders), or that of the same labels permuted
    (``"permuted"``: how far from random). The first still rises with the number of clusters; the second falls with it,
    about as :math:`1/\sqrt{L}` of L equal clusters with perfect order. Smoothing lowers all of them by construction.

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
        Divide by the value that the same observations have when all labels are equal (``"floor"``, or ``True``), or
        when their labels are permuted within each library (``"permuted"``).
    n_permutations
        Number of permutations whose mean is taken (``normalized="permuted"``).
    preset
        ``"paper"``: the form of SDMBench and of the hSNMF paper. Labels of one or two observations add 0 to the
        sum and count in the number of observations, which rewards splinters; libraries are not told apart.
    {rng}
    {table_key}

    Returns
    -------
    The mean distance. An observation alone with its label in its library has no such distance and is left out of
    the mean. NaN, with a warning, where all are alone or (``normalized``) where all coincide with another.

    Raises
    ------
    KeyError
        If a column or the coordinates are not in the table.
    ValueError
        If coordinates are not finite, lengths differ, or all labels are missing; if ``preset="paper"`` is combined
        with ``normalized`` or ``library_key``.

    References
    ----------
    Shang and Zhou (2022), Nature Communications 13:7203 (SpatialPCA).
    Yuan et al. (2024), Nature Methods 21:712 (SDMBench). Mahmud et al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> in_domains = sn.metrics.chaos(adata, "domain", library_key="library", normalized="floor")
    >>> in_types = sn.metrics.chaos(adata, "cell_type", library_key="library", normalized="floor")
    >>> 1 <= in_domains < 1.5 < in_types  # domains are compact, cell types mingle
    True
    >>> sn.metrics.chaos(adata.obsm["spatial"], adata.obs["domain"]) > 0  # or arrays
    True
    """
    _checks.check_choice("normalized", normalized, (False, True, "floor", "permuted"))
    _checks.check_choice("preset", preset, (None, "paper"))
    _checks.check_range("n_permutations", n_permutations, 1, integer=True)
    if preset is not None and (normalized or library_key is not None):
        msg = "The published CHAOS (`preset='paper'`) is not normalised and knows no libraries: leave the others out."
        raise ValueError(msg)
    places, codes = _inputs.labelled_places(data, labels, spatial_key, library_key, table_key)
    if preset is not None:
        return published_chaos(places, codes)
    seeds = _data.default_rng(rng, random_state) if normalized == "permuted" else None
    return chaos_of(places, codes, normalized, n_permutations, seeds)


def chaos_of(
    places: Places,
    codes: np.ndarray,
    normalized: bool | str = False,
    n_permutations: int = 10,
    rng: np.random.Generator | None = None,
) -> float:
    """CHAOS of labels at places; NaN with a warning where there is none."""
    distance = _spatial.nearest_in_group(places.scaled, places.groups(codes))
    value = mean_distance(distance)
    if not normalized or np.isnan(value):
        return value
    if normalized == "permuted":
        return _ratio(value, float(np.mean([_permuted(places, codes, r) for r in rng.spawn(n_permutations)])))
    return over_floor(places, distance)


def mean_distance(distance: np.ndarray) -> float:
    """CHAOS from the distances to the nearest of the same label (NaN where alone)."""
    together = ~np.isnan(distance)
    if not together.any():
        _checks.warn("CHAOS is NaN: no two observations of a library share a label.")
        return float("nan")
    return float(distance[together].mean())


def over_floor(places: Places, distance: np.ndarray) -> float:
    """CHAOS divided by that of the same observations with all labels equal; at least two share a label."""
    together = ~np.isnan(distance)
    return _ratio(float(distance[together].mean()), float(places.floor[together].mean()))


def _ratio(value: float, scale: float) -> float:
    if scale == 0:
        _checks.warn("Normalised CHAOS is NaN: every observation has another at the same place.")
        return float("nan")
    return value / scale


def _permuted(places: Places, codes: np.ndarray, rng: np.random.Generator) -> float:
    """CHAOS of the labels permuted over the observations of each library."""
    shuffled = codes.copy()
    for rows in _spatial.group_rows(places.libraries):
        shuffled[rows] = rng.permutation(codes[rows])
    distance = _spatial.nearest_in_group(places.scaled, places.groups(shuffled))
    return float(distance[~np.isnan(distance)].mean())


def published_chaos(places: Places, codes: np.ndarray) -> float:
    """Labels of one or two observations add 0 to the sum, and count in the number of observations."""
    distance = _spatial.nearest_in_group(places.scaled, codes)
    return float(distance[np.bincount(codes)[codes] > 2].sum() / len(codes))
