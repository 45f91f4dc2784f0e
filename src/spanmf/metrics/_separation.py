"""Silhouette and Davies–Bouldin: how well clusters separate in the space of the factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.metrics import davies_bouldin_score

from .. import _checks, _data, _keys
from .._docs import doc
from ..core import _scale, _silhouette
from . import _inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

SAMPLE_SIZE = 10_000  # as published


@doc
def silhouette(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    use_rep: str | None = None,
    scale: _scale.Scale = "gram",
    sample_size: int | None = SAMPLE_SIZE,
    preset: Literal["paper"] | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> float:
    r"""Mean silhouette width of the clusters in the space of the factors.

    .. math:: s_i = \frac{b_i - a_i}{\max(a_i, b_i)}

    with :math:`a_i` the mean distance of observation i to its own cluster and :math:`b_i` that to the nearest other
    one; observations alone in their cluster count 0. Distances are Euclidean on the rescaled factors (``scale``).

    **Range** −1 to 1; **higher is better separated**, 0 is overlapping, below 0 closer to another cluster.

    **What else moves it.** It prefers few, round, equally wide clusters, falls with the number of components, and
    changes with the scale of the factors: on unscaled ones the components with small loadings dominate. Smoothing
    raises it. It says nothing of space, and chose the number of domains badly on labelled tissues.

    Parameters
    ----------
    data
        Annotated data matrix (a SpatialData is taken too: see ``table_key``), or an array (n × k) that is used as it
        is.
    {labels}
    use_rep
        Representation in ``adata.obsm``, with or without ``X_``. ``None``: the factors written under the same key as
        the labels (``obsm["X_hsnmf"]`` for ``"hsnmf"``).
    scale
        ``"gram"``: :math:`Z = W (H H^\top)^{1/2}`, in which distances are those between reconstructions; ``"norm"``:
        :math:`W_k \lVert H_k \rVert`; ``None``: as it is. Only factorisations have loadings H: any other
        representation (``"X_pca"``) is used as it is.
    sample_size
        With more labelled observations than this, score a random subsample of about this size, stratified by cluster
        and weighted by the clusters' sizes (at least two of each cluster). ``None``: all of them, which takes
        n² distances.
    preset
        ``"paper"``: on unscaled factors (``scale=None``), and the plain mean over the subsample.
    {rng}
    {table_key}

    Returns
    -------
    The mean over all labelled observations. NaN, with a warning, if all rows of the representation are equal.

    Raises
    ------
    KeyError
        If the column or the representation is not in the table.
    ValueError
        If there are fewer than two clusters, as many clusters as observations, or values that are not finite.

    References
    ----------
    Rousseeuw (1987), Journal of Computational and Applied Mathematics 20:53. Mahmud et al. (2026), arXiv:2602.02638
    (hSNMF).

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> types = sn.metrics.silhouette(adata, "cell_type", use_rep="W_true")
    >>> domains = sn.metrics.silhouette(adata, "domain", use_rep="W_true")
    >>> types > 0.2 > domains  # a cell's own programmes tell its type, not its domain
    True
    """
    if sample_size is not None:
        _checks.check_range("sample_size", sample_size, 3, integer=True)
    _checks.check_choice("preset", preset, (None, "paper"))
    Z, codes = _factors(data, labels, use_rep, None if preset else scale, table_key)
    return sampled_silhouette(Z, codes, sample_size, _data.default_rng(rng, random_state), weighted=preset is None)


def sampled_silhouette(
    Z: np.ndarray, codes: np.ndarray, sample_size: int | None, rng: np.random.Generator, *, weighted: bool = True
) -> float:
    """Mean silhouette width of clusters 0, 1, … in Z, from a stratified sample; NaN with a warning for a constant Z."""
    if _is_constant(Z, "The silhouette"):
        return float("nan")
    sizes = np.bincount(codes)
    if sample_size is not None and sample_size < len(codes):
        rows = stratified(codes, sample_size, rng)
        _checks.check_sample(len(rows) ** 2, sample_size, len(sizes))
        Z, codes = Z[rows], codes[rows]
    s = _silhouette.widths(Z, codes)
    if not weighted:
        return float(s.mean())
    return float(np.bincount(codes, s) / np.bincount(codes) @ sizes / sizes.sum())


@doc
def davies_bouldin(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    use_rep: str | None = None,
    scale: _scale.Scale = "gram",
    preset: Literal["paper"] | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> float:
    r"""Davies–Bouldin index of the clusters in the space of the factors.

    .. math:: \mathrm{DBI} = \frac{1}{L} \sum_a \max_{b \ne a} \frac{S_a + S_b}{\lVert c_a - c_b \rVert}

    with :math:`c_a` the centroid of cluster a and :math:`S_a` the mean distance of its observations to it. All labelled
    observations are used: it takes n × k operations.

    **Range** 0 upwards; **lower is better separated**.

    **What else moves it.** Every cluster counts the same whatever its size, so one pair of small overlapping clusters
    raises it; it changes with the scale of the factors, rises with the number of components, and falls with smoothing.

    Parameters
    ----------
    data
        Annotated data matrix (a SpatialData is taken too: see ``table_key``), or an array (n × k) that is used as it
        is.
    {labels}
    use_rep
        Representation in ``adata.obsm``, with or without ``X_``. ``None``: the factors written under the same key as
        the labels (``obsm["X_hsnmf"]`` for ``"hsnmf"``).
    scale
        How factors are rescaled by their loadings, see :func:`silhouette`.
    preset
        ``"paper"``: on unscaled factors (``scale=None``), and with more than 10,000 labelled observations on a random
        subsample of about that size, stratified by cluster.
    {rng}
    {table_key}

    Returns
    -------
    The index. NaN, with a warning, if all rows of the representation are equal.

    Raises
    ------
    KeyError
        If the column or the representation is not in the table.
    ValueError
        If there are fewer than two clusters, as many clusters as observations, or values that are not finite.

    References
    ----------
    Davies and Bouldin (1979), IEEE Transactions on Pattern Analysis and Machine Intelligence 1:224. Mahmud
    et al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> types = sn.metrics.davies_bouldin(adata, "cell_type", use_rep="W_true")
    >>> domains = sn.metrics.davies_bouldin(adata, "domain", use_rep="W_true")
    >>> types < 2 < domains  # a cell's own programmes tell its type, not its domain
    True
    """
    _checks.check_choice("preset", preset, (None, "paper"))
    Z, codes = _factors(data, labels, use_rep, None if preset else scale, table_key)
    if preset and len(codes) > SAMPLE_SIZE:
        rows = stratified(codes, SAMPLE_SIZE, _data.default_rng(rng, random_state))
        Z, codes = Z[rows], codes[rows]
    return float("nan") if _is_constant(Z, "Davies–Bouldin") else float(davies_bouldin_score(Z, codes))


def stratified(codes: np.ndarray, sample_size: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted rows of a sample in which every cluster keeps its share, and at least two (or its one) observations."""
    sizes = np.bincount(codes)
    quota = np.maximum(np.rint(sizes * (sample_size / len(codes))).astype(np.int64), np.minimum(sizes, 2))
    shuffled = rng.permutation(len(codes))
    shuffled = shuffled[np.argsort(codes[shuffled], kind="stable")]  # by cluster, in random order
    starts = np.cumsum(sizes) - sizes
    place = np.arange(len(codes)) - np.repeat(starts, sizes)
    return np.sort(shuffled[place < np.repeat(quota, sizes)])


def _factors(
    data: Any, labels: Any, use_rep: str | None, scale: _scale.Scale, table_key: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rescaled factors and codes 0, 1, … of the labelled observations."""
    _checks.check_choice("scale", scale, ("gram", "norm", None))
    if _inputs.is_table(data):
        adata = _data.get_table(data, table_key)
        Z = _data.get_scaled(adata, _default_rep(adata, labels) if use_rep is None else use_rep, scale)
    else:
        adata, Z = None, _checks.check_representation(data, "The representation")
    codes = _inputs.label_codes(adata, labels, len(Z))
    known = codes >= 0
    values, codes = np.unique(codes[known], return_inverse=True)
    _checks.check_n_clusters(len(values), len(codes))
    return Z[known], codes


def _default_rep(adata: AnnData, labels: Any) -> str:
    if isinstance(labels, str) and _keys.FactorKeys(labels).factors in adata.obsm:
        return labels
    msg = f"Name the representation with `use_rep=`: `adata.obsm` holds {_checks._listed(adata.obsm)}."
    raise KeyError(msg)


def _is_constant(Z: np.ndarray, name: str) -> bool:
    constant = bool((np.ptp(Z, axis=0) == 0).all())
    if constant:
        _checks.warn(f"{name} is NaN: all rows of the representation are equal.")
    return constant
