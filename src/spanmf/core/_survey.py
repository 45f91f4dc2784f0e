"""What the checks of a matrix look at: counted of its stored values at once, or block by block and then put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

Array = np.ndarray
HEAD = 100_000  # first stored values, by which counts are told from normalised values


class Values(NamedTuple):
    """What the stored values of a matrix are like."""

    dtype: np.dtype
    size: int
    low: float
    high: float
    n_nan: int
    n_infinite: int
    n_negative: int
    head: Array  # the first of them, of blocks the first of each: a copy, since a view would keep all in memory


def values_of(X: Any) -> Array:
    """The stored values of a sparse or dense matrix, as one flat array."""
    return X.data if sp.issparse(X) else np.asarray(X).ravel()


def look_at(v: Array, n_head: int = HEAD) -> Values:
    """Count what is wrong only where the extremes show that something is."""
    if v.size == 0 or v.dtype.kind not in "fiub":
        return Values(v.dtype, v.size, 0.0, 0.0, 0, 0, 0, v[:0].copy())
    low, high = v.min(), v.max()  # NaN propagates
    finite = bool(np.isfinite(low) and np.isfinite(high))
    n_nan, n_infinite = (0, 0) if finite else (int(np.isnan(v).sum()), int(np.isinf(v).sum()))
    n_negative = int((v < 0).sum()) if low < 0 else 0
    return Values(v.dtype, v.size, low, high, n_nan, n_infinite, n_negative, v[:n_head].copy())


def together(parts: Sequence[Values]) -> Values:
    """The same of all blocks."""
    wrong = [part for part in parts if part.dtype.kind not in "fiub"]
    if wrong:
        return wrong[0]
    filled = [part for part in parts if part.size]
    if not filled:
        return parts[0]
    return Values(
        filled[0].dtype,
        sum(part.size for part in filled),
        np.min([part.low for part in filled]),
        np.max([part.high for part in filled]),
        sum(part.n_nan for part in filled),
        sum(part.n_infinite for part in filled),
        sum(part.n_negative for part in filled),
        np.concatenate([part.head for part in filled]),
    )
