"""Any metric, library by library."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import _checks, _data
from .._docs import doc

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from spatialdata import SpatialData

ALL = "all"  # the name of all observations together among the libraries


@doc
def per_library(
    metric: Callable[..., Any],
    adata: AnnData | SpatialData,
    key: str,
    *,
    library_key: str,
    table_key: str | None = None,
    **kwargs: Any,
) -> pd.DataFrame:
    """Any metric of every library (sample, slide, TMA core) by itself, and of all together.

    Each library is scored as a table of its own: its observations, and the part of the graph among them.

    The value of all observations is not the mean of the libraries' values: it is what the metric gives for the whole table
    (with ``library_key`` passed on to a metric that has one).

    Parameters
    ----------
    metric
        A function of this namespace, such as :func:`spanmf.metrics.pas`, or one that takes a table and a key and
        returns a number, a named tuple or a DataFrame.
    {adata}
    key
        The metric's second argument: name of the labels, the representation or the factorisation.
    {library_key}
    {table_key}
    **kwargs
        Passed on to the metric.

    Returns
    -------
    DataFrame with one row a library, in their order, and the last row ``"all"``. The columns are the fields of the metric's result, or
    one with the metric's name for a single number. For a metric that returns a DataFrame, its rows are the second level of the
    index. NaN, with a warning that names the library, where a library has no value (one cluster, one observation).

    Raises
    ------
    KeyError
        If a slot that is named is not in the table.
    ValueError
        If the metric cannot be computed of the whole table, or a library is called ``"all"``.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sn.metrics.per_library(sn.metrics.pas, adata, "domain", library_key="library").index.tolist()
    ['sample1', 'sample2', 'sample3', 'all']
    """
    table = _data.get_table(adata, table_key)
    if not isinstance(key, str):
        msg = f"`key` must name a slot of the table, so that every library's part of it can be taken, not {type(key).__name__}."
        raise TypeError(msg)
    codes, names = _data.get_libraries(table, library_key)
    _checks.check_library_names(names, library_key)
    takes_libraries = "library_key" in inspect.signature(metric).parameters
    column = getattr(metric, "__name__", "value")
    whole = _as_frame(metric(table, key, **kwargs, **({"library_key": library_key} if takes_libraries else {})), column)
    parts = {}
    for name, rows in _data.iter_libraries(codes, names):
        try:
            parts[name] = _as_frame(_named(name, metric, table[rows], key, **kwargs), column)
        except ValueError as reason:  # such as a single observation or cluster; the whole table has none of it
            _checks.warn(f"Library {name!r}: {column} is NaN. {reason}")
            parts[name] = pd.DataFrame(np.nan, index=whole.index, columns=whole.columns)
    out = pd.concat([*parts.values(), whole], keys=[*names, ALL], names=["library"])
    return out.droplevel(1) if whole.index.name is None and len(whole) == 1 else out


def _named(name: str, metric: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a metric, with the name of the library before its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", _checks.SpanmfWarning)
        result = metric(*args, **kwargs)
    for w in caught:
        if issubclass(w.category, _checks.SpanmfWarning):
            _checks.warn(f"Library {name!r}: {w.message}", w.category)
        else:
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    return result


def _as_frame(result: Any, column: str) -> pd.DataFrame:
    if isinstance(result, pd.DataFrame):
        return result
    fields = result._asdict() if hasattr(result, "_asdict") else {column: result}
    return pd.DataFrame([fields])
