"""Results of a table back into the SpatialData that its cells come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import _checks, _data, _keys
from .._logging import timed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


def to_spatialdata(
    adata: AnnData,
    sdata: SpatialData,
    keys: str | Sequence[str] = "hsnmf",
    *,
    match_on: str | None = None,
    table_key: str | None = None,
) -> None:
    """Put domains and factors of a table into the table of a SpatialData, cell by cell.

    Cells are matched by name only, never by their order. Those of the SpatialData that ``adata`` does not have (filtered
    out, say) get no label and NaN factors; those of ``adata`` that the SpatialData does not have are left out. A warning
    counts either. The SpatialData changes in memory: store it with ``sdata.write(...)``, or the table alone with
    ``sdata.write_element``.

    Parameters
    ----------
    adata
        Annotated data matrix with the results.
    sdata
        SpatialData to write to.
    keys
        Base names of results (``"hsnmf"``: labels, factors and loadings) or plain columns of ``adata.obs``.
    match_on
        Column of the SpatialData table's ``obs`` that holds the names of ``adata``'s cells, e.g. its instance key.
        ``None``: the names of its observations.
    table_key
        The table to write to (not needed where there is one).

    Returns
    -------
    Nothing. Written to ``sdata.tables[table_key]``, for each key, of what ``adata`` has:

    ``obs[key]``
        Labels with the categories of ``adata`` (NaN for cells without), or the values of a plain column.
    ``obsm[f"X_{key}"]`` : n × k, float32
        Factors (NaN for cells without).
    ``varm[f"{key}_loadings"]`` : p × k, float32
        Loadings, where the SpatialData's table has every variable with loadings.
    ``uns[f"{key}_colors"]``
        Colours of the labels.

    Raises
    ------
    KeyError
        If neither labels nor factors are there under a key, or the table or ``match_on`` is missing.
    TypeError
        If ``sdata`` is not a SpatialData.
    ValueError
        If no cell is in both, or names are there more than once.

    Examples
    --------
    >>> import spanmf as sn
    >>> from spatialdata import SpatialData  # doctest: +SKIP
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sdata = SpatialData(tables={"table": adata.copy()})  # doctest: +SKIP
    >>> adata.obs["side"] = "left"
    >>> sn.io.to_spatialdata(adata, sdata, "side")  # doctest: +SKIP
    >>> sdata.tables["table"].obs["side"].nunique()  # doctest: +SKIP
    1
    """
    if not hasattr(sdata, "tables") or hasattr(sdata, "obsm"):
        msg = f"Expected a SpatialData to write to, not {type(sdata).__name__}."
        raise TypeError(msg)
    table = _data.get_table(sdata, table_key, min_obs=1)
    adata = _data.get_table(adata, min_obs=1)
    with timed("io.to_spatialdata") as notes:
        rows = _match(adata, table, match_on)
        slots: dict[tuple[str, str], Any] = {}
        for key in [keys] if isinstance(keys, str) else keys:
            slots |= _results(adata, table, key, rows)
        _report(adata, table, rows)
        for (where, name), value in slots.items():  # everything is made by now
            if value is None:
                getattr(table, where).pop(name, None)
            else:
                getattr(table, where)[name] = value
        written = [f"{where}[{name!r}]" for (where, name), value in slots.items() if value is not None]
        notes += [f"{int((rows >= 0).sum())} cells", ", ".join(written)]


def _match(adata: AnnData, table: AnnData, match_on: str | None) -> np.ndarray:
    """Row of ``adata`` for every row of the SpatialData's table; −1 where there is none."""
    where = "its table's `obs_names`"
    names = pd.Index(table.obs_names)
    if match_on is not None:
        _checks.check_key(table.obs, match_on, "obs")
        where, column = f"its table's `obs[{match_on!r}]`", table.obs[match_on]
        names = pd.Index(column.where(column.isna(), column.astype(str)), dtype=object)
    again = names[names.duplicated() & names.notna() & names.isin(adata.obs_names)].unique()
    if len(again):
        msg = (
            f"{len(again)} of the names are there more than once in {where} ({_checks._listed(again, 3)}), so that cells "
            "cannot be told apart. Match on names that are unique over all regions."
        )
        raise ValueError(msg)
    rows = adata.obs_names.get_indexer(names)
    if not (rows >= 0).any():
        hint = "" if match_on else " `match_on=` names a column that holds them, e.g. the instance key."
        msg = (
            f"No cell is in both: `adata` has {_checks._listed(adata.obs_names[:3])}, and {where} "
            f"{_checks._listed(names[:3])}.{hint}"
        )
        raise ValueError(msg)
    return rows


def _results(adata: AnnData, table: AnnData, key: str, rows: np.ndarray) -> dict[tuple[str, str], Any]:
    """What ``adata`` has under a key, by slot, for the rows of the other table."""
    names = _keys.FactorKeys(key)
    if key not in adata.obs and names.factors not in adata.obsm:
        msg = (
            f"There is neither `adata.obs[{key!r}]`, where there is {_checks._listed(adata.obs)}, nor "
            f"`adata.obsm[{names.factors!r}]`, where there is {_checks._listed(adata.obsm)}."
        )
        raise KeyError(msg)
    out: dict[tuple[str, str], Any] = {}
    if key in adata.obs:
        out["obs", key] = _taken(adata.obs[key], rows).set_axis(table.obs_names)
        if f"{key}_colors" in adata.uns:
            out["uns", f"{key}_colors"] = np.array(adata.uns[f"{key}_colors"])
    if names.factors in adata.obsm:
        W = np.asarray(adata.obsm[names.factors], dtype=np.float32)
        out["obsm", names.factors] = np.where((rows >= 0)[:, None], W[rows], np.float32(np.nan))
    if names.loadings in adata.varm:
        H = np.asarray(adata.varm[names.loadings], dtype=np.float32)
        used = H.any(1)
        complete = table.var_names.is_unique and adata.var_names[used].isin(table.var_names).all()
        columns = adata.var_names.get_indexer(table.var_names) if complete else np.empty(0, dtype=np.intp)
        # not complete: those of an earlier run would not belong to these factors
        out["varm", names.loadings] = np.where((columns >= 0)[:, None], H[columns], np.float32(0)) if complete else None
    return out


def _taken(column: pd.Series, rows: np.ndarray) -> pd.Series:
    """The values of some rows, missing for −1; integers and booleans stay what they are where none is missing."""
    values = column.reset_index(drop=True)
    return values.reindex(rows) if (rows < 0).any() else values.take(rows)


def _report(adata: AnnData, table: AnnData, rows: np.ndarray) -> None:
    """Count what did not match."""
    without = int((rows < 0).sum())
    unused = adata.n_obs - len(np.unique(rows[rows >= 0]))
    if without or unused:
        _checks.warn(
            f"{without} of {table.n_obs} cells of the SpatialData are not in `adata` and get no label; {unused} of "
            f"{adata.n_obs} cells of `adata` are not in the SpatialData and are left out."
        )
