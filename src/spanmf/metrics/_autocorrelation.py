"""What Moran's I and Geary's C share: values to score, warnings, the table of results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import ndtr

from .. import _checks, _data
from ..core._fdr import benjamini_hochberg
from ._smoothing import run_params, smoothing_of

if TYPE_CHECKING:
    from anndata import AnnData

    from ..core._tiles import AnyGraph


def values_of(adata: AnnData | None, values: Any, n_obs: int) -> tuple[np.ndarray, pd.Index]:
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


def warn_if_circular(adata: AnnData | None, values: Any, scored_on: str | None, what: str) -> None:
    """The run that made the factors may have smoothed them over the very graph they are scored on."""
    if adata is None or not isinstance(values, str):
        return
    key = values.removeprefix("X_")
    how = smoothing_of(run_params(adata, key))
    if how is not None and how.is_over(scored_on):
        _checks.warn(
            f"The factors {key!r} were smoothed over the graph {scored_on!r} that scores them: {what} by "
            "construction and its p-values do not hold. Score factors that were not smoothed (`sn.tl.nmf`), or compare "
            "with `morans_i(..., assumption='smoothed')`."
        )


def warn_if_nan(observed: np.ndarray, sd: np.ndarray, V: np.ndarray, A: AnyGraph, name: str) -> None:
    """Say why a number is not there."""
    if np.isnan(observed).all() and A.nnz == 0:
        _checks.warn(f"{name} is NaN: the graph has no edges.")
        return
    constant = np.flatnonzero(np.ptp(V, axis=0) == 0)
    if constant.size:
        _checks.warn(f"{name} is NaN for constant factors (column {', '.join(map(str, constant))}).")
    if (np.isnan(sd) & ~np.isnan(observed)).any():
        _checks.warn(f"{name} has no p-value: {len(V)} observations are too few.")


def results(name: str, observed: np.ndarray, expected: Any, sd: np.ndarray, factors: pd.Index) -> pd.DataFrame:
    """One row a factor, with z, its two-sided normal p-value, and that adjusted over the factors."""
    z = np.divide(observed - expected, sd, out=np.full(len(sd), np.nan), where=sd > 0)
    pval = 2 * ndtr(-np.abs(z))
    columns = {name: observed, "expected": expected, "sd": sd, "z": z, "pval": pval}
    return pd.DataFrame(columns | {"pval_adj": benjamini_hochberg(pval)}, index=factors)
