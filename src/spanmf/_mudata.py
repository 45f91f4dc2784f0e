"""From several modalities to arrays over common observations."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from . import _checks, _data, _keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mudata import MuData


def as_mudata(data: MuData | Mapping[str, AnnData] | AnnData, obsm_key: str | None = None) -> tuple[MuData, bool]:
    """The MuData, or one made of a dict of tables or of a table with a modality in ``obsm``; and whether it was made."""
    from mudata import MuData

    if isinstance(data, AnnData):
        data = {"rna": data, **_from_obsm(data, obsm_key)}
    elif obsm_key is not None:
        msg = "`obsm_key` names a modality inside one AnnData; here several tables are given."
        raise ValueError(msg)
    made = not isinstance(data, MuData)
    if made:
        if not hasattr(data, "items"):
            msg = f"Expected a MuData, a dict of AnnData, or an AnnData with `obsm_key`, not {type(data).__name__}."
            raise TypeError(msg)
        tables = {str(k): _data.get_table(v) for k, v in data.items()}
    else:
        tables = {k: _data.get_table(v) for k, v in data.mod.items()}
    if len(tables) < 2:
        msg = (
            f"Joint factors need two modalities or more; there is {len(tables)} ({', '.join(tables)}). For one, use "
            "`sn.tl.nmf`; a modality in `adata.obsm` is named by `obsm_key`."
        )
        raise ValueError(msg)
    _check_overlap(tables)
    if not made:
        return data, False
    return make({k: _own(v) for k, v in tables.items()}), True


def _own(table: AnnData) -> AnnData:
    """A copy whose tables of observations and variables are in memory, as mudata needs them; X may be lazy, and is read of a backed table."""
    out = _data.target(table, copy=True)
    for axis in ("obs", "var"):
        if hasattr(getattr(out, axis), "to_memory"):  # of a table that was opened lazily
            setattr(out, axis, getattr(out, axis).to_memory())
    return out


def make(tables: Mapping[str, AnnData]) -> MuData:
    """A MuData of these tables."""
    from mudata import MuData

    with _quiet():
        return MuData(dict(tables))


def copy(mdata: MuData) -> MuData:
    """A copy in memory."""
    with _quiet():
        return mdata.copy()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of mudata 0.3 about its own future."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", module="mudata")
        yield


def _from_obsm(adata: AnnData, obsm_key: str | None) -> dict[str, AnnData]:
    if obsm_key is None:
        msg = (
            "One AnnData was given: name the `adata.obsm` entry that holds the other modality with `obsm_key=` "
            f"(`adata.obsm` holds {_checks._listed(adata.obsm)}), or give a MuData or a dict of AnnData."
        )
        raise ValueError(msg)
    _checks.check_key(adata.obsm, obsm_key, "obsm")
    values = adata.obsm[obsm_key]
    names = (
        [str(c) for c in values.columns]
        if isinstance(values, pd.DataFrame)
        else [f"{obsm_key}_{i + 1}" for i in range(values.shape[1])]
    )
    X = values.to_numpy() if isinstance(values, pd.DataFrame) else values
    other = AnnData(X.astype(np.float32), obs=adata.obs[[]].copy(), var=pd.DataFrame(index=names))
    if _keys.SPATIAL in adata.obsm:
        other.obsm[_keys.SPATIAL] = adata.obsm[_keys.SPATIAL]
    return {obsm_key: other}


def _check_overlap(tables: Mapping[str, AnnData]) -> None:
    """Every modality must share observations with another."""
    names = {k: set(v.obs_names) for k, v in tables.items()}
    for k, own in names.items():
        others = set().union(*(v for other, v in names.items() if other != k))
        if not own & others:
            example = next(iter(own), ""), next(iter(others), "")
            msg = (
                f"Modality {k!r} shares no observation with the others (names like {example[0]!r} and {example[1]!r}). "
                "Match them by their places first: `sn.pp.align_modalities(a, b, radius=...)`."
            )
            raise ValueError(msg)


def rows_of(mdata: MuData, name: str) -> np.ndarray:
    """Row of each of a modality's observations among those of the MuData."""
    return mdata.obs_names.get_indexer(mdata.mod[name].obs_names)


def spread(X: sp.csr_matrix, rows: np.ndarray, n_obs: int) -> sp.csr_matrix:
    """X with its rows at their places among ``n_obs``; the others are empty."""
    if len(rows) == n_obs and (rows == np.arange(n_obs)).all():
        return X
    counts = np.zeros(n_obs, dtype=np.int64)
    counts[rows] = np.diff(X.indptr)
    if (np.diff(rows) < 0).any():
        X = X[np.argsort(rows, kind="stable")]
    return sp.csr_matrix((X.data, X.indices, np.concatenate([[0], np.cumsum(counts)])), shape=(n_obs, X.shape[1]))


def get_graph(mdata: MuData, connectivity_key: str | None) -> tuple[sp.csr_matrix, str]:
    """A spatial graph over the MuData's observations, from itself or the first modality that has it."""
    for holder in (mdata, *mdata.mod.values()):
        try:
            key = _data.graph_key(holder, connectivity_key)
        except KeyError:
            continue
        A = _data.as_graph(holder.obsp[key])
        if holder is not mdata:
            rows = mdata.obs_names.get_indexer(holder.obs_names)
            coo = A.tocoo()
            A = sp.csr_matrix((coo.data, (rows[coo.row], rows[coo.col])), shape=(mdata.n_obs, mdata.n_obs))
        return A, key
    msg = (
        f"No graph {connectivity_key or 'contact'!r} in the MuData or any of its modalities. "
        "Call `sn.gr.contact_neighbors(mdata.mod[name])` on the modality that has the places of all observations."
    )
    raise KeyError(msg)
