"""From AnnData and SpatialData to arrays, and back: reading of slots, library slices, writing of results."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from . import _checks, _dask, _keys
from .core import _scale, _tiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from anndata import AnnData
    from spatialdata import SpatialData

GRAPH_HINT = (
    "Call `sn.gr.contact_neighbors(adata)` or `sq.gr.spatial_neighbors(adata)` first, "
    "or name another graph of `adata.obsp` with `connectivity_key=`."
)


def get_table(data: AnnData | SpatialData, table_key: str | None = None, *, min_obs: int = 2) -> AnnData:
    """The AnnData itself, or a SpatialData's table, checked for size and unique names."""
    if hasattr(data, "tables") and not hasattr(data, "obsm"):
        data = data.tables[choose_table(data.tables, table_key)]
    elif isinstance(getattr(data, "mod", None), dict):
        msg = f"Expected one table, not a MuData: pass a modality, e.g. `mdata.mod[{next(iter(data.mod), '')!r}]`."
        raise TypeError(msg)
    elif not (hasattr(data, "obsm") and hasattr(data, "n_vars")):
        msg = f"Expected an AnnData or a SpatialData, not {type(data).__name__}."
        raise TypeError(msg)
    elif table_key is not None:
        msg = f"`table_key={table_key!r}` names a table of a SpatialData, and this is an AnnData: leave it out."
        raise ValueError(msg)
    _checks.check_table(data, min_obs=min_obs)
    return data


def choose_table(tables: Iterable[str], table_key: str | None = None) -> str:
    """The table of a SpatialData that was asked for, or its only one."""
    names = list(tables)
    if table_key is None and len(names) == 1:
        return names[0]
    if table_key not in names:
        msg = f"Name one of the SpatialData's tables with `table_key=`: it holds {_checks._listed(names)}."
        raise KeyError(msg)
    return table_key


def get_matrix(adata: AnnData, layer: str | None = None, *, lazy: bool = False) -> tuple[Any, str]:
    """``X`` or a layer as it is stored (backed ones are read), and its name for messages.

    A dask array is read too, unless ``lazy``.
    """
    if layer is None:
        X, name = adata.X, "`adata.X`"
        if X is None:
            msg = (
                f"`adata.X` is empty. Name a layer with `layer=`: `adata.layers` holds {_checks._listed(adata.layers)}."
            )
            raise KeyError(msg)
    else:
        _checks.check_key(adata.layers, layer, "layers")
        X, name = adata.layers[layer], f"`adata.layers[{layer!r}]`"
    if _dask.is_lazy(X):
        X = X if lazy else _dask.in_memory(X)
    elif hasattr(X, "to_memory"):  # backed sparse
        X = X.to_memory()
    elif type(X).__module__.partition(".")[0] in ("cupy", "cupyx"):  # a table of rapids-singlecell
        X = X.get()
    elif not sp.issparse(X):
        X = np.asarray(X)  # dense, backed dense (h5py), ArrayView
    return X, name


def get_mask(adata: AnnData, mask_var: str | np.ndarray | None) -> np.ndarray:
    """Boolean mask of the variables in use. ``"auto"``: highly variable genes where they are marked, else all."""
    if mask_var is None or (
        isinstance(mask_var, str) and mask_var == "auto" and _keys.HIGHLY_VARIABLE not in adata.var
    ):
        return np.ones(adata.n_vars, dtype=bool)
    if isinstance(mask_var, str):
        key = _keys.HIGHLY_VARIABLE if mask_var == "auto" else mask_var
        _checks.check_key(adata.var, key, "var", "`mask_var=None` uses all variables.")
        mask = adata.var[key].to_numpy()
    else:
        mask = np.asarray(mask_var)
    if mask.shape != (adata.n_vars,) or mask.dtype != bool:
        msg = f"`mask_var` must be a boolean of length {adata.n_vars}, not {mask.dtype} of shape {mask.shape}."
        raise ValueError(msg)
    if not mask.any():
        msg = "`mask_var` selects no variable. `mask_var=None` uses all variables."
        raise ValueError(msg)
    return mask


def get_coordinates(adata: AnnData, spatial_key: str = _keys.SPATIAL) -> np.ndarray:
    """Coordinates as float64 (n × 2 or n × 3)."""
    hint = "Put the coordinates of the cells there, one row a cell: `adata.obsm['spatial'] = adata.obs[['x', 'y']].to_numpy()`, or name another key with `spatial_key=`."
    _checks.check_key(adata.obsm, spatial_key, "obsm", hint)
    return _checks.check_coordinates(adata.obsm[spatial_key], spatial_key, adata.n_obs)


def get_array_positions(adata: AnnData) -> np.ndarray | None:
    """Row and column of every spot on the array (n × 2, float64), or None where they are not known."""
    if not all(key in adata.obs and pd.api.types.is_numeric_dtype(adata.obs[key].dtype) for key in _keys.ARRAY):
        return None
    positions = np.column_stack([get_column(adata, key).to_numpy(dtype=np.float64) for key in _keys.ARRAY])
    return positions if np.isfinite(positions).all() else None


def get_column(adata: AnnData, key: str, axis: Literal["obs", "var"] = "obs") -> pd.Series:
    """A column of ``obs`` or ``var``, read if the table was opened lazily."""
    table = getattr(adata, axis)[[key]]
    if isinstance(table, pd.DataFrame):
        return table[key]
    column, dtype = table.to_memory()[key], table[key].dtype
    # anndata reads the categories that occur; colours belong to all
    return column.astype(dtype) if isinstance(dtype, pd.CategoricalDtype) else column


def get_colors(adata: AnnData, key: str) -> list[Any]:
    """Colours of a column's categories as scanpy notes them in ``uns``, read if the table was opened lazily; empty without."""
    return list(_dask.in_memory(adata.uns.get(f"{key}_colors", ())))


def get_libraries(adata: AnnData, library_key: str | None) -> tuple[np.ndarray, list[str]]:
    """Library code of every observation (int32) and the library names; one unnamed library without a key."""
    if library_key is None:
        return np.zeros(adata.n_obs, dtype=np.int32), [""]
    _checks.check_key(adata.obs, library_key, "obs")
    codes, names = pd.factorize(get_column(adata, library_key), sort=True)
    if (codes < 0).any():
        msg = f"`adata.obs[{library_key!r}]` is missing (NaN) for {int((codes < 0).sum())} observations."
        raise ValueError(msg)
    return codes.astype(np.int32), [str(x) for x in names]


def get_labels(adata: AnnData, cluster_key: str) -> tuple[np.ndarray, list[str]]:
    """Codes (−1 where missing) and names of a categorical column, in the order of its categories."""
    hint = "Run `sn.tl.hsnmf(adata)` first." if cluster_key == "hsnmf" else ""
    _checks.check_key(adata.obs, cluster_key, "obs", hint)
    column = get_column(adata, cluster_key)
    if not isinstance(column.dtype, pd.CategoricalDtype):
        _checks.check_labels(column, cluster_key)
        column = column.astype("category")  # in the order of the values: 2 before 10
    column = column.cat.remove_unused_categories()
    return column.cat.codes.to_numpy(), [str(c) for c in column.cat.categories]


def graph_key(adata: AnnData, connectivity_key: str | None = None, hint: str = GRAPH_HINT) -> str:
    """Resolve a graph's full ``obsp`` key: as given, with the suffix, or ``contact`` before squidpy's ``spatial``."""
    candidates = [_keys.CONTACT, _keys.SPATIAL] if connectivity_key is None else [connectivity_key]
    for base in candidates:
        for key in (base, _keys.GraphKeys(base).connectivities):
            if key in adata.obsp:
                return key
        if _description(adata, base) is not None:
            return _keys.GraphKeys(base.removesuffix(_keys.CONNECTIVITIES_SUFFIX)).connectivities
    found = "No spatial graph" if connectivity_key is None else f"No graph {connectivity_key!r}"
    msg = f"{found} in `adata.obsp`, which holds {_checks._listed(adata.obsp)}. {hint}"
    raise KeyError(msg)


def get_graph(adata: AnnData, connectivity_key: str | None = None, hint: str = GRAPH_HINT) -> tuple[sp.csr_matrix, str]:
    """A graph of ``obsp`` as float32 CSR with sorted indices and no self-loops, and its full key.

    The stored graph is never changed: a copy is made where it has another form.
    """
    key = graph_key(adata, connectivity_key, hint)
    if key not in adata.obsp:
        params = _description(adata, key)
        _checks.fail_not_stored(key, params["contact_radius"], params["context_radius"])
    A = _dask.in_memory(adata.obsp[key])
    _checks.check_square(A, adata.n_obs, f"`adata.obsp[{key!r}]`")
    return as_graph(A), key


def find_graph(adata: AnnData, connectivity_key: str | None = None) -> tuple[_tiles.AnyGraph, str]:
    """A graph as :func:`get_graph` gives it, or one that is described in ``uns`` and made tile by tile; its full key.

    The key is the one that a stored graph of this name has.
    """
    key = graph_key(adata, connectivity_key)
    params = None if key in adata.obsp else _description(adata, key)
    if params is None:
        return get_graph(adata, key)
    codes, _ = get_libraries(adata, params.get("library_key"))
    radii = float(params["contact_radius"]), float(params["context_radius"])
    weights = {name: float(params[name]) for name in ("contact_weight", "context_weight")}
    coords = get_coordinates(adata, str(params["spatial_key"]))
    return _tiles.RadiusGraph(coords, codes, *radii, **weights, combine=str(params["combine"])), key


def graph_params(adata: AnnData, key: str) -> Mapping[str, Any]:
    """What ``uns`` records of the making of a graph, by its full ``obsp`` key; empty where nothing is."""
    run = adata.uns.get(_keys.GraphKeys(key.removesuffix(_keys.CONNECTIVITIES_SUFFIX)).neighbors)
    params = run.get("params") if hasattr(run, "get") else None
    return params if hasattr(params, "get") else {}


def _description(adata: AnnData, key: str) -> Mapping[str, Any] | None:
    """Parameters of a graph that ``gr.contact_neighbors(store=False)`` described."""
    run = adata.uns.get(_keys.GraphKeys(key.removesuffix(_keys.CONNECTIVITIES_SUFFIX)).neighbors)
    if not hasattr(run, "get") or "connectivities_key" in run:
        return None
    params = graph_params(adata, key)
    return params if params.get("method") == "radius" else None


def as_graph(A: Any) -> sp.csr_matrix:
    """Any square matrix of weights as canonical float32 CSR without a diagonal (copied only where it must be)."""
    if isinstance(A, _tiles.RadiusGraph):
        return A
    A = sp.csr_matrix(A) if not sp.issparse(A) else A.tocsr()
    if A.dtype != np.float32:
        A = A.astype(np.float32)
    if not A.has_canonical_format:
        A = A.copy()
        A.sum_duplicates()
    if A.diagonal().any():
        A = (A - sp.diags_array(A.diagonal())).tocsr()
    if not A.data.all():  # a stored zero is no edge
        A = A.copy()
        A.eliminate_zeros()
    return sp.csr_matrix(A)


def representation_key(adata: AnnData, use_rep: str) -> str:
    """Full ``obsm`` key of a representation (given with or without ``X_``)."""
    key = use_rep if use_rep in adata.obsm else f"X_{use_rep}"
    if key not in adata.obsm:
        hint = "Make it first, e.g. by `sn.tl.snmf(adata)` or `sc.pp.pca(adata)`."
        _checks.check_key(adata.obsm, use_rep, "obsm", hint)
    return key


def get_representation(adata: AnnData, use_rep: str) -> np.ndarray:
    """A dense float32 representation from ``obsm`` (given with or without ``X_``)."""
    key = representation_key(adata, use_rep)
    rep = _checks.check_representation(adata.obsm[key], f"`adata.obsm[{key!r}]`")
    return np.ascontiguousarray(rep, dtype=np.float32)


def get_scaled(adata: AnnData, use_rep: str, scale: _scale.Scale) -> np.ndarray:
    """Give a stored representation for distances: factors are rescaled, one without loadings in ``varm`` is as it is."""
    Z = get_representation(adata, use_rep)
    keys = _keys.FactorKeys(use_rep.removeprefix("X_"))
    loadings = keys.loadings
    if scale is None or loadings not in adata.varm:
        return Z
    run = adata.uns.get(keys.provenance)
    gram = run.get("gram") if hasattr(run, "get") else None  # of all modalities, where these are but one's loadings
    if scale == "gram" and gram is not None and np.shape(gram) == (Z.shape[1],) * 2:
        return _scale.by_gram(Z, gram)
    return _scale.rescale(Z, np.asarray(adata.varm[loadings]).T, scale)


def get_factors(adata: AnnData, key: str) -> tuple[np.ndarray, np.ndarray]:
    """W (n × k) and H (k × p; zero columns for variables that were masked out) of a factorisation in the table."""
    keys = _keys.FactorKeys(key if f"X_{key}" in adata.obsm else key.removeprefix("X_"))
    hint = f"Run `sn.tl.{key}(adata)` first." if key in ("nmf", "snmf", "hsnmf") else "Run `sn.tl.nmf(adata)` first."
    _checks.check_key(adata.obsm, keys.factors, "obsm", hint)
    _checks.check_key(adata.varm, keys.loadings, "varm", hint)
    W = np.ascontiguousarray(adata.obsm[keys.factors], dtype=np.float32)
    H = np.ascontiguousarray(np.asarray(adata.varm[keys.loadings], dtype=np.float32).T)
    return W, H


def loading_shares(H: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the features in each component's loadings (rows sum to 1), and of the components in each feature's.

    The second are taken of the first (columns sum to 1), so neither depends on the scales of the components. 0 where
    there is no loading.
    """
    totals = H.sum(1, keepdims=True, dtype=np.float64)
    share = np.divide(H, totals, out=np.zeros(H.shape), where=totals > 0)
    columns = share.sum(0)
    return share, np.divide(share, columns, out=np.zeros(H.shape), where=columns > 0)


def iter_libraries(codes: np.ndarray, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and row indices of each library."""
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
    for i, name in enumerate(names):
        yield name, order[bounds[i] : bounds[i + 1]]


def ordered_labels(codes: np.ndarray) -> pd.Categorical:
    """Labels "0", "1", … in decreasing size (ties: first seen first); negative codes become NaN."""
    codes = np.asarray(codes)
    known = codes >= 0
    values, first, counts = np.unique(codes[known], return_index=True, return_counts=True)
    rank = np.empty(len(values), dtype=np.int64)
    rank[np.lexsort((first, -counts))] = np.arange(len(values))
    out = np.full(len(codes), -1, dtype=np.int64)
    out[known] = rank[np.searchsorted(values, codes[known])]
    return pd.Categorical.from_codes(out, categories=[str(i) for i in range(len(values))])


def provenance(params: Mapping[str, Any], **results: Any) -> dict[str, Any]:
    """What goes into ``uns[key]``: parameters that a store can hold (None is left out), results, versions."""
    return {"params": storable(params), **storable(results), "versions": _versions()}


@cache
def _versions() -> dict[str, str]:
    """Versions of this package and those that the numbers depend on."""
    from . import __version__

    packages = ("numpy", "scipy", "numba", "scikit-learn", "scanpy", "anndata", "igraph", "leidenalg", "networkit")
    return {"spanmf": __version__} | {p: version(p) for p in packages}


def storable(values: Mapping[str, Any]) -> dict[str, Any]:
    """A nested dict that ``write_h5ad`` and ``write_zarr`` accept: no None, tuples, slices or ragged lists."""
    out: dict[str, Any] = {}
    for k, v in values.items():
        if v is None:
            continue
        if isinstance(v, dict):
            out[str(k).replace("/", "|")] = storable(v)
        elif isinstance(v, (tuple, list)):
            out[str(k).replace("/", "|")] = np.asarray(v)
        elif isinstance(v, (bool, int, float, str, np.ndarray, np.generic)):
            out[str(k).replace("/", "|")] = v
        else:
            out[str(k).replace("/", "|")] = str(v)
    return out


def storable_names(names: Iterable[Any]) -> list[str]:
    """Names of columns that a store can hold: without ``/``, and still distinct. The originals belong into ``uns``."""
    out: list[str] = []
    for name in (str(x).replace("/", "|") for x in names):
        while name in out:
            name += "_"
        out.append(name)
    return out


def write_factors(adata: AnnData, key: str, W: np.ndarray, H: np.ndarray, mask: np.ndarray) -> None:
    """Write W and Hᵀ (zero rows for masked-out variables), both float32."""
    keys = _keys.FactorKeys(key)
    loadings = np.zeros((adata.n_vars, H.shape[0]), dtype=np.float32)
    loadings[mask] = H.T
    adata.obsm[keys.factors] = W.astype(np.float32) if _dask.is_lazy(W) else np.ascontiguousarray(W, dtype=np.float32)
    adata.varm[keys.loadings] = loadings


def target(table: AnnData, *, copy: bool) -> AnnData:
    """Give the table to write to: itself, or a copy in memory."""
    if not copy:
        return table
    return table.to_memory() if table.isbacked else table.copy()


def default_rng(rng: Any, random_state: Any = None) -> np.random.Generator:
    """A Generator from ``rng`` (seed or Generator) or its scanpy alias ``random_state``."""
    seed = rng if random_state is None else random_state
    if isinstance(seed, np.random.RandomState):
        seed = seed.randint(2**31 - 1)
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        msg = f"`rng` must be a non-negative integer or a numpy Generator, not {seed!r}."
        raise ValueError(msg) from None


def get_proportions(adata: AnnData, key: str) -> tuple[np.ndarray, list[str]]:
    """Shares of types in ``obsm[key]`` (n × k, float64; rows of NaN where there are none), and the types as they were named."""
    hint = "Run `sn.tl.stl_nmf(adata, reference)` first, or name another table of shares with `key=`."
    _checks.check_key(adata.obsm, key, "obsm", hint)
    slot = _dask.in_memory(adata.obsm[key])
    if hasattr(slot, "to_memory"):  # columns of a table that was opened lazily
        slot = slot.to_memory()
    values = np.asarray(slot.toarray() if sp.issparse(slot) else slot)
    _checks.check_shares(values, f"`adata.obsm[{key!r}]`")
    columns = getattr(slot, "columns", range(values.shape[1]))
    run = adata.uns.get(
        key, adata.uns.get(key.rsplit("_", 1)[0])
    )  # of the shares, or of what belongs to them ("…_mrna")
    noted = _dask.in_memory(run.get("types")) if hasattr(run, "get") else None
    names = columns if noted is None or len(noted) != values.shape[1] else noted
    return values.astype(np.float64), [str(n) for n in names]
