"""Moran's I of all factors, with analytic p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy.special import ndtr

from .. import _checks, _data, _keys
from .._docs import doc
from ..core import _spatial
from . import _inputs

if TYPE_CHECKING:
    import scipy.sparse as sp
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def morans_i(
    data: AnnData | SpatialData | sp.spmatrix | np.ndarray,
    values: str | np.ndarray | pd.DataFrame,
    *,
    connectivity_key: str | None = None,
    assumption: Literal["randomisation", "normality"] = "randomisation",
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Moran's I of every factor, with its expectation, standard deviation and p-value.

    .. math:: I_k = \frac{n}{S_0} \frac{z_k^\top A z_k}{z_k^\top z_k}, \qquad z_k = W_k - \bar W_k, \quad S_0 = \sum_{ij} A_{ij}

    **Range** about −1 to 1, :math:`-1/(n-1)` expected of values without spatial order; **higher is smoother in
    space**. It does not depend on the scale of a factor.

    **What else moves it.** On a graph that smoothed the factors it is **circular**: the diffusion of the hSNMF paper
    lifts pure noise from 0.00 to 0.17 and an I of 0.20 to 0.88, and another radius does not cure it. The p-values hold
    for factors that were *not* smoothed; a warning says so where the table records that the scoring graph smoothed
    them. A wider radius lowers I. z grows as :math:`\sqrt{n}`, so that at the size of a tissue any structure is
    significant: read I first. Isolated observations count in n and add nothing.

    Parameters
    ----------
    data
        Annotated data matrix (a SpatialData is taken too: see ``table_key``), or a graph (n × n, sparse or dense,
        non-negative weights). Self-loops do not count.
    values
        Key of the factors in ``adata.obsm`` (with or without ``X_``), or an array (n, or n × k: one column a factor,
        where :func:`scanpy.metrics.morans_i` has one row a feature).
    {connectivity_key}
    assumption
        Variance under permuted values (``"randomisation"``) or under independent normal values (``"normality"``).
    {table_key}

    Returns
    -------
    DataFrame with one row a factor (the columns of ``values`` where it has names) and the columns ``I``,
    ``expected``, ``sd``, ``z``, ``pval`` (two-sided, normal) and ``pval_adj`` (Benjamini–Hochberg). NaN, with a
    warning, for constant factors, for a graph without edges, and (all but ``I`` and ``expected``) for fewer than
    four observations.

    Raises
    ------
    KeyError
        If the factors or the graph are not in the table.
    ValueError
        If sizes differ or values are not finite.

    References
    ----------
    Moran (1950), Biometrika 37:17. Cliff and Ord (1981), Spatial Processes: Models and Applications, ch. 2.

    Examples
    --------
    >>> import numpy as np
    >>> import spanmf as sn
    >>> ring = np.roll(np.eye(50), 1, axis=1) + np.roll(np.eye(50), -1, axis=1)
    >>> wave = np.sin(np.arange(50) / 50 * 2 * np.pi)
    >>> noise = np.random.default_rng(0).random(50)
    >>> table = sn.metrics.morans_i(ring, np.column_stack([wave, noise]))
    >>> table["I"].round(2).tolist(), (table["pval_adj"] < 0.01).tolist()
    ([0.99, -0.03], [True, False])
    """
    _checks.check_choice("assumption", assumption, ("randomisation", "normality"))
    adata, A, scored_on = _inputs.graph(data, connectivity_key, table_key)
    V, names = _values(adata, values, A.shape[0])
    if adata is not None and isinstance(values, str):
        _warn_if_circular(adata, values.removeprefix("X_"), scored_on)

    observed, expected, sd = _spatial.morans_i(A, V, assumption)
    _warn_if_nan(observed, sd, V, A)
    z = np.divide(observed - expected, sd, out=np.full(len(sd), np.nan), where=sd > 0)
    pval = 2 * ndtr(-np.abs(z))
    columns = {"I": observed, "expected": expected, "sd": sd, "z": z, "pval": pval, "pval_adj": _adjusted(pval)}
    return pd.DataFrame(columns, index=names)


def _values(adata: AnnData | None, values: Any, n_obs: int) -> tuple[np.ndarray, pd.Index]:
    """Values as a new float64 array (n × k) and the names of its columns."""
    if not isinstance(values, str):
        V = _checks.check_representation(values, "`values`")
        _checks.check_length(V, n_obs, "`values`")
    elif adata is None:
        msg = f"The values are given as a key ({values!r}), which needs an AnnData as the first argument."
        raise TypeError(msg)
    else:
        V = _data.get_representation(adata, values)
    names = values.columns if isinstance(values, pd.DataFrame) else pd.RangeIndex(V.shape[1])
    return np.ascontiguousarray(V, dtype=np.float64), names.rename("factor")


def _warn_if_circular(adata: AnnData, key: str, scored_on: str | None) -> None:
    """The run that made the factors may have smoothed them over the very graph they are scored on."""
    run = adata.uns.get(_keys.FactorKeys(key).provenance)
    params = run.get("params") if hasattr(run, "get") else None
    if not hasattr(params, "get") or "smoothing" not in params or not params.get("smooth", True):
        return
    smoothed_on = params.get("connectivity_key")
    if scored_on is not None and scored_on in (smoothed_on, _keys.GraphKeys(str(smoothed_on)).connectivities):
        _checks.warn(
            f"The factors {key!r} were smoothed over the graph {scored_on!r} that scores them: Moran's I is high by "
            "construction and its p-values do not hold. Score factors that were not smoothed (`sn.tl.nmf`)."
        )


def _warn_if_nan(observed: np.ndarray, sd: np.ndarray, V: np.ndarray, A: sp.csr_matrix) -> None:
    if not A.data.any():
        _checks.warn("Moran's I is NaN: the graph has no edges.")
        return
    constant = np.flatnonzero(np.ptp(V, axis=0) == 0)
    if constant.size:
        _checks.warn(f"Moran's I is NaN for constant factors (column {', '.join(map(str, constant))}).")
    if (np.isnan(sd) & ~np.isnan(observed)).any():
        _checks.warn(f"Moran's I has no p-value: {len(V)} observations are too few.")


def _adjusted(pval: np.ndarray) -> np.ndarray:
    """Benjamini–Hochberg over the p-values that are there."""
    out = np.full(len(pval), np.nan)
    known = np.flatnonzero(~np.isnan(pval))
    if known.size == 0:
        return out
    order = known[np.argsort(pval[known])[::-1]]  # largest first
    ranks = np.arange(len(order), 0, -1)
    out[order] = np.minimum(1, np.minimum.accumulate(pval[order] * len(order) / ranks))
    return out
