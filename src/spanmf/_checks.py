"""Checks that several functions share: what was found, what is allowed, which call to make next."""

from __future__ import annotations

import re
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import scipy.sparse as sp

from .core import _survey
from .core._blocks import Blocks
from .core._survey import values_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

MAX_FRACTIONS = 100  # different numbers, not all whole, that a column of labels may have
MAX_MEAN_DEGREE = 1000  # a graph beyond this is taken for a mistake in the radius
CHOSEN = ", or leave them out to have them chosen from the data"  # of radii that may be left out
FLOAT32_SAFE = 1e-12, 1e12  # largest value of X whose squares can be summed in float32


class SpanmfWarning(UserWarning):
    """Something about the data or the result that the user should look at."""


class ConvergenceWarning(SpanmfWarning):
    """``max_iter`` was reached before the stopping rule was met."""


class UndefinedError(ValueError):
    """A number that these labels or values do not have; the message is the reason."""


def warn(msg: str, category: type[Warning] = SpanmfWarning) -> None:
    """Warn at the user's own line."""
    depth, frame = 2, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("spanmf"):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(msg, category, stacklevel=depth)


def _listed(names: Iterable[Any], n: int = 8) -> str:
    names = [str(x) for x in names if x is not None]  # anndata 0.13 lists X among the layers as None
    more = f", … ({len(names)} in all)" if len(names) > n else ""
    return (", ".join(repr(x) for x in names[:n]) + more) if names else "nothing"


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """``value`` must be one of ``allowed``."""
    if value not in allowed:
        msg = f"`{name}` must be one of {', '.join(repr(a) for a in allowed)}, not {value!r}."
        raise ValueError(msg)


def check_members(name: str, values: Iterable[Any], allowed: Iterable[Any]) -> None:
    """Every one of ``values``, at least one, must be in ``allowed``."""
    values, allowed = list(values), list(allowed)
    unknown = [v for v in values if v not in allowed]
    if unknown or not values:
        msg = f"`{name}` must be among {_listed(allowed)}, not {_listed(unknown)}."
        raise ValueError(msg)


def check_range(
    name: str, value: Any, low: float = -np.inf, high: float = np.inf, *, integer: bool = False, open_low: bool = False
) -> None:
    """``low <= value <= high`` (``low < value`` when ``open_low``), finite, of the right type."""
    kinds = (int, np.integer) if integer else (int, float, np.integer, np.floating)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, kinds):
        msg = f"`{name}` must be {'an integer' if integer else 'a number'}, not {value!r} ({type(value).__name__})."
        raise TypeError(msg)
    if not np.isfinite(value) or value > high or value < low or (open_low and value == low):
        lower = "" if low == -np.inf else f"{'more than' if open_low else 'at least'} {low:g}"
        upper = "" if high == np.inf else f"at most {high:g}"
        msg = f"`{name}` must be {' and '.join(x for x in (lower, upper) if x) or 'finite'}, not {value!r}."
        raise ValueError(msg)


def check_bounds(name: str, value: Any, low: int) -> None:
    """Two whole numbers, the least and the most, of at least ``low``."""
    pair = list(value) if isinstance(value, (tuple, list, np.ndarray)) else []
    if len(pair) != 2 or not all(isinstance(v, (int, np.integer)) and v >= low for v in pair) or pair[0] > pair[1]:
        msg = f"`{name}` must be the least and the most, two whole numbers of at least {low}, not {value!r}."
        raise ValueError(msg)


def check_key(container: Any, key: str, where: str, hint: str = "") -> None:
    """``key`` must be in ``container`` (obs, obsm, layers, …); the error lists what is there."""
    if key not in container:
        msg = f"{key!r} is not in `adata.{where}`, which holds {_listed(container)}. {hint}".rstrip()
        raise KeyError(msg)


def check_table(adata: AnnData, *, min_obs: int = 2) -> None:
    """The table must have observations, variables and unique observation names."""
    if adata.n_obs < min_obs or adata.n_vars < 1:
        msg = (
            f"The table has {adata.n_obs} observations and {adata.n_vars} variables; "
            f"at least {min_obs} observations and 1 variable are needed."
        )
        raise ValueError(msg)
    if not adata.obs_names.is_unique:
        dup = adata.obs_names[adata.obs_names.duplicated()].unique()
        msg = f"{len(dup)} observation names are not unique ({_listed(dup, 3)}). Call `adata.obs_names_make_unique()` first."
        raise ValueError(msg)


def _slot(name: str) -> str | None:
    """Where a matrix lies, by the name that messages have for it."""
    found = re.match("`(.+?)`", name)
    return found and found[1]


def check_matrix(X: Any, name: str) -> None:
    """X must be numeric, finite and non-negative; the error names the layer and how many values are wrong."""
    v = X.survey.values if isinstance(X, Blocks) else _survey.look_at(values_of(X))
    if v.dtype.kind not in "fiub":
        msg = f"{name} must be numeric, not {v.dtype}. Convert it first, e.g. `adata.X = adata.X.astype('float32')`."
        raise TypeError(msg)
    if v.size == 0:
        msg = f"{name} is all zero: there is nothing to factorise."
        raise ValueError(msg)
    if v.n_nan or v.n_infinite:
        slot = None if isinstance(X, Blocks) else _slot(name)
        call = f", e.g. `adata = adata[:, np.isfinite(np.asarray({slot}.sum(0)).ravel())].copy()`" if slot else ""
        msg = f"{name} holds {v.n_nan} NaN and {v.n_infinite} infinite values. Remove or impute them first{call}."
        raise ValueError(msg)
    if v.n_negative:
        hint = (
            " It looks scaled (mean near 0 per gene, as after `sc.pp.scale`): pass the log-normalised values instead, "
            "kept for example in a layer before scaling (`layer='lognorm'`) or in `adata.raw.to_adata()`."
            if v.n_negative > 0.05 * v.size
            else " Set them to zero only if you know where they come from."
        )
        msg = f"{name} holds {v.n_negative} negative values (lowest {v.low:.3g}), and a non-negative factorisation needs none.{hint}"
        raise ValueError(msg)
    if v.high == 0:
        msg = f"{name} is all zero: there is nothing to factorise."
        raise ValueError(msg)
    if not FLOAT32_SAFE[0] <= float(v.high) <= FLOAT32_SAFE[1]:
        msg = (
            f"The highest value of {name} is {v.high:.3g}: sums of squares would leave the range of float32. "
            "Rescale the values first, e.g. by `sc.pp.normalize_total(adata)` and `sc.pp.log1p(adata)`."
        )
        raise ValueError(msg)


def check_labels(column: pd.Series, key: str) -> None:
    """A column of ``obs`` that is to be labels must not look measured: fractions, and many different ones."""
    if column.dtype.kind != "f":  # also that of pandas' own Float64
        return
    values = column.dropna().unique()
    if len(values) > MAX_FRACTIONS and (np.asarray(values, dtype=np.float64) % 1 != 0).any():
        msg = (
            f"`adata.obs[{key!r}]` holds {len(values):,} different numbers that are not whole: values, not labels? Put them into bins, e.g. "
            f"`adata.obs[{key + '_bin'!r}] = pd.cut(adata.obs[{key!r}], 5)`, or, if they are labels, say so: "
            f"`adata.obs[{key!r}] = adata.obs[{key!r}].astype('category')`."
        )
        raise ValueError(msg)


def check_two_axes(X: Any, name: str) -> Any:
    """A matrix of observations × variables, sparse or dense."""
    X = X if sp.issparse(X) else np.asarray(X)
    if X.ndim != 2 or 0 in X.shape:
        msg = f"{name} must have two axes (observations × variables), not shape {X.shape}."
        raise ValueError(msg)
    return X


def check_expression(X: Any, name: str) -> None:
    """Values must be numeric, finite and non-negative, so that "above 0" means expressed; all may be 0."""
    v = values_of(X)
    if v.dtype.kind not in "fiub":
        msg = f"{name} must be numeric, not {v.dtype}. Convert it first, e.g. `adata.X = adata.X.astype('float32')`."
        raise TypeError(msg)
    if v.size and not (np.isfinite(v.min()) and np.isfinite(v.max())):
        msg = f"{name} holds {int((~np.isfinite(v)).sum())} NaN or infinite values. Remove or impute them first."
        raise ValueError(msg)
    if v.size and v.min() < 0:
        msg = (
            f"{name} holds {int((v < 0).sum())} negative values (lowest {v.min():.3g}), so that 0 does not mean 'not "
            "expressed'. Use the values before scaling, e.g. a layer with `layer=`."
        )
        raise ValueError(msg)


def check_n_names(names: Any, n: int, what: str) -> None:
    """One name a variable."""
    if len(names) != n:
        msg = f"{what} has {len(names)} entries, but there are {n} variables: one each is needed."
        raise ValueError(msg)


def check_unique(names: Any, what: str) -> None:
    """Names that are looked for must be unique."""
    if not names.is_unique:
        dup = names[names.duplicated()].unique()
        msg = f"{len(dup)} {what} are not unique ({_listed(dup, 3)}). Call `adata.var_names_make_unique()` first."
        raise ValueError(msg)


def check_gene_lists(lists: Any, name: str, owner: str) -> dict[str, list[str]]:
    """A mapping from a name to at least one gene, as strings, each once; ``owner`` says whose genes they are."""
    if not hasattr(lists, "items"):
        msg = f"{name} must be a mapping from the name of a {owner} to its genes, not {type(lists).__name__}."
        raise TypeError(msg)
    out: dict[str, list[str]] = {}
    for key, genes in lists.items():
        if isinstance(genes, str) or not hasattr(genes, "__iter__"):
            msg = f"{name} gives {genes!r} for {key!r}: a list of names of genes is needed, e.g. `[{str(genes)!r}]`."
            raise TypeError(msg)
        out[str(key)] = list(dict.fromkeys(str(g) for g in genes))
        if not out[str(key)]:
            msg = f"{name} gives no gene for {key!r}: leave that {owner} out, or name its genes."
            raise ValueError(msg)
    if not out:
        msg = f"{name} is empty: at least one {owner} with its genes is needed."
        raise ValueError(msg)
    return out


def check_intensities(X: Any, name: str) -> None:
    """Check intensities as any matrix; negative ones (background subtracted) get a hint that fits them."""
    v = X.survey.values if isinstance(X, Blocks) else _survey.look_at(values_of(X))
    if v.n_negative and not v.n_nan and not v.n_infinite:
        clip = shift = ""
        if (slot := _slot(name)) and not isinstance(X, Blocks):
            sparse = sp.issparse(X)
            clip = f": `{slot} = {slot}.maximum(0)`" if sparse else f": `{slot} = np.maximum({slot}, 0)`"
            dense = ".toarray()" * sparse
            shift = f": `{slot} = {slot}{dense} - {slot}.min(axis=0){dense}`"
        msg = (
            f"{name} holds {v.n_negative} negative intensities (lowest {v.low:.4g}), and the factors are non-negative. If a background "
            f"was subtracted, clip them at 0{clip}; if values were centred or z-scored, start from the intensities as they were "
            f"measured, or shift them by the lowest of each variable{shift}."
        )
        raise ValueError(msg)
    check_matrix(X, name)


def first_values(X: Any) -> np.ndarray:
    """The first 100,000 stored values, of blocks some of each."""
    return X.survey.values.head if isinstance(X, Blocks) else values_of(X)[: _survey.HEAD]


def looks_like_counts(X: Any) -> bool:
    """Whether the values are integers and some exceed 1 (looked at on the first 100,000 stored values; of blocks on some of each)."""
    v = first_values(X)
    v = v[v != 0]
    return bool(v.size and v.max() > 1 and np.all(v == np.round(v)))


def warn_if_counts(X: Any, name: str, otherwise: str = ", or use `loss='kl'`") -> None:
    """Raw counts where log-normalised values are expected: name the two scanpy calls."""
    if looks_like_counts(X):
        warn(
            f"{name} looks like raw counts, and the Frobenius loss expects log-normalised values. Call "
            f"`sc.pp.normalize_total(adata)` and `sc.pp.log1p(adata)` first, or pass `normalize=True`{otherwise}."
        )


def check_n_components(n_components: Any, n_obs: int, n_vars: int) -> None:
    """1 <= n_components <= min(n, p)."""
    check_range("n_components", n_components, 1, integer=True)
    if n_components > min(n_obs, n_vars):
        msg = (
            f"`n_components` is {n_components}, more than min(observations, variables in use) = min({n_obs}, {n_vars}). "
            "Ask for fewer, or use more variables (`mask_var=None` uses all, as is done without `var['highly_variable']`)."
        )
        raise ValueError(msg)


def check_coordinates(coords: Any, key: str | None, n_obs: int) -> np.ndarray:
    """Coordinates as float64 (n × 2 or n × 3), finite. ``key`` names them in ``adata.obsm`` (None: a plain array)."""
    coords = np.asarray(coords)
    name = "The coordinates" if key is None else f"`adata.obsm[{key!r}]`"
    if coords.ndim != 2 or coords.shape[1] not in (2, 3):
        msg = f"{name} must have 2 or 3 columns, one per axis; the shape is {coords.shape}."
        raise ValueError(msg)
    if coords.dtype.kind not in "fiub":
        msg = f"{name} must be numeric, not {coords.dtype}."
        raise TypeError(msg)
    coords = np.ascontiguousarray(coords, dtype=np.float64)
    bad = ~np.isfinite(coords).all(1)
    if bad.any():
        where = "" if key is None else f" in {name}"
        hint = "." if key is None else f": `adata = adata[np.isfinite(adata.obsm[{key!r}]).all(1)].copy()`."
        msg = f"{int(bad.sum())} of {n_obs} observations have NaN or infinite coordinates{where}. Drop them first{hint}"
        raise ValueError(msg)
    return coords


def check_length(values: Any, n_obs: int, name: str) -> None:
    """One entry an observation."""
    if len(values) != n_obs:
        msg = f"{name} has {len(values)} entries, but there are {n_obs} observations: one each is needed."
        raise ValueError(msg)


def check_representation(rep: Any, name: str) -> np.ndarray:
    """A dense, finite matrix of numbers (n × k); a single column may be given as a vector."""
    rep = rep.toarray() if sp.issparse(rep) else np.asarray(rep)
    rep = rep[:, None] if rep.ndim == 1 else rep
    if rep.ndim != 2 or rep.shape[1] == 0:
        msg = f"{name} must have two axes (observations × components), not shape {rep.shape}."
        raise ValueError(msg)
    if rep.dtype.kind not in "fiub":
        msg = f"{name} must be numeric, not {rep.dtype}."
        raise TypeError(msg)
    if not np.isfinite(rep).all():
        msg = f"{name} holds {int((~np.isfinite(rep)).sum())} NaN or infinite values."
        raise ValueError(msg)
    return rep


def check_n_landmarks(n_landmarks: Any, n_obs: int, least: int = 1) -> None:
    """No more landmarks than observations, and as many as a landmark has neighbours."""
    check_range("n_landmarks", n_landmarks, least, integer=True)
    if n_landmarks > n_obs:
        msg = f"`n_landmarks` must be at most {n_obs}, the number of observations, not {n_landmarks}. Leave it out to use all of them."
        raise ValueError(msg)


def check_n_clusters(n_clusters: int, n_obs: int) -> None:
    """To tell clusters apart takes two of them, and fewer than there are observations."""
    if not 2 <= n_clusters < n_obs:
        msg = (
            f"The labels make {n_clusters} cluster{'s' * (n_clusters != 1)} of {n_obs} labelled observations. "
            f"At least 2 clusters are needed, and fewer than there are observations."
        )
        raise UndefinedError(msg)


def check_sample(n_pairs: float, sample_size: int, n_clusters: int) -> None:
    """A sample with two of every cluster must not grow to many times its size."""
    if n_pairs > 16 * sample_size**2:
        msg = (
            f"The labels make {n_clusters:,} clusters, too many for a sample of {sample_size:,} with two observations of each. Is it a "
            "column of labels? If so, `sample_size=None` compares all observations."
        )
        raise UndefinedError(msg)


def check_radii(contact_radius: float, context_radius: float) -> None:
    """Contact > 0, context 0 (none) or at least the contact radius."""
    check_range("contact_radius", contact_radius, 0, open_low=True)
    check_range("context_radius", context_radius, 0)
    if 0 < context_radius < contact_radius:
        msg = (
            f"`context_radius` ({context_radius:g}) is smaller than `contact_radius` ({contact_radius:g}). "
            "Give a larger one, or 0 for contact edges only."
        )
        raise ValueError(msg)


def check_square(A: Any, n: int, name: str) -> None:
    """A graph must be a sparse or dense n × n matrix of finite, non-negative weights."""
    if getattr(A, "shape", None) != (n, n):
        msg = f"{name} has shape {getattr(A, 'shape', None)}, but there are {n} observations: it belongs to another table."
        raise ValueError(msg)
    v = values_of(A)
    if v.size and not (np.isfinite(v.min()) and np.isfinite(v.max()) and v.min() >= 0):
        msg = f"{name} must hold finite, non-negative weights."
        raise ValueError(msg)


def check_components(components: Any, n_components: int) -> list[int]:
    """The components asked for (``None``: all), each of them there."""
    chosen = list(range(n_components)) if components is None else list(np.atleast_1d(components))
    if not chosen or any(k not in range(n_components) for k in chosen):
        msg = f"`components` must be numbers from 0 to {n_components - 1}, at least one, not {components!r}."
        raise ValueError(msg)
    return [int(k) for k in chosen]


def check_idle(condition: str, names: Iterable[str], given: dict[str, Any]) -> None:
    """Options that would have no effect may not be given (``None`` and ``False`` ask for nothing)."""
    idle = [name for name in names if given[name] is not None and given[name] is not False]
    if idle:
        several = len(idle) > 1
        msg = (
            f"With {condition}, {' and '.join(f'`{name}`' for name in idle)} ha{'ve' if several else 's'} no effect: "
            f"leave {'them' if several else 'it'} out, or change the other option."
        )
        raise ValueError(msg)


def check_one_panel(n: int) -> None:
    """Only a single panel can be drawn into the axes that the user gave."""
    if n != 1:
        msg = f"`ax=` takes one panel, but {n} are to be drawn. Leave `ax` out, or select one component or library."
        raise ValueError(msg)


def check_region(region: Any, coords: np.ndarray) -> None:
    """A window (x0, x1, y0, y1) of finite numbers, x0 < x1 and y0 < y1, with at least one observation in it."""
    numbers = np.asarray(region, dtype=np.float64) if np.ndim(region) == 1 else np.empty(0)
    if numbers.shape != (4,) or not np.isfinite(numbers).all() or not (numbers[::2] < numbers[1::2]).all():
        msg = f"`region` must be (x0, x1, y0, y1) with x0 < x1 and y0 < y1, not {region!r}."
        raise ValueError(msg)
    low, high = numbers[::2], numbers[1::2]
    if not ((coords >= low) & (coords <= high)).all(1).any():
        (x0, y0), (x1, y1) = coords.min(0), coords.max(0)
        msg = f"There is no cell in `region` {region!r}: x goes from {x0:g} to {x1:g}, and y from {y0:g} to {y1:g}."
        raise ValueError(msg)


def fail_one_table(path: Path, table_key: str) -> NoReturn:
    """Refuse the name of a table where there is one only."""
    msg = f"{str(path)!r} holds one table, and none is called {table_key!r}. Leave out `table_key`."
    raise KeyError(msg)


def fail_isolated(contact_radius: float, context_radius: float, nearest: float, otherwise: str = CHOSEN) -> NoReturn:
    """All observations would be isolated; ``otherwise``: what to do but give other radii, if there is anything."""
    msg = (
        f"No two observations are within {max(contact_radius, context_radius):g} of each other; the median distance to "
        f"the nearest is {nearest:.4g}. Are the radii in the units of the coordinates? Give larger ones{otherwise}."
    )
    raise ValueError(msg)


def fail_one_place(n_obs: int) -> NoReturn:
    """No radius can be read off the data."""
    msg = (
        f"All {n_obs} observations of every library are at one place, so no radius can be chosen from the data. "
        "Check the coordinates, or give `contact_radius`."
    )
    raise ValueError(msg)


def fail_too_dense(radius: float, degree: float, n_obs: int, nearest: float, otherwise: str = CHOSEN) -> NoReturn:
    """The radius would make far too many neighbours; ``otherwise`` as above."""
    msg = (
        f"A radius of {radius:g} gives about {degree:,.0f} neighbours a cell, more than {MAX_MEAN_DEGREE:,}: the graph would "
        f"take about {12 * degree * n_obs / 2**30:.1f} GiB. The median distance to the nearest neighbour is {nearest:.4g}: "
        f"are the radii in the units of the coordinates? Give smaller ones{otherwise}."
    )
    raise ValueError(msg)


def check_init(init: Any, n: int, p: int, k: int) -> tuple[np.ndarray | None, np.ndarray]:
    """A start that the user gives: H (k × p), or (W, H) with W (n × k); non-negative and finite."""
    W, H = init if isinstance(init, tuple) and len(init) == 2 else (None, init)
    for name, M, shape in (("W", W, (n, k)), ("H", H, (k, p))):
        if M is None and name == "W":
            continue
        M = np.asarray(M)
        if M.shape != shape:
            msg = (
                f"`init` gives {name} of shape {M.shape}, but {shape} is needed (components × variables in use for H)."
            )
            raise ValueError(msg)
        if not (np.isfinite(M).all() and (M >= 0).all()):
            msg = f"`init` gives {name} with negative or non-finite values."
            raise ValueError(msg)
    return W, np.asarray(H)


def fail_nothing_in_common(a: str, b: str) -> NoReturn:
    """Two columns label no observation in common."""
    msg = f"No observation has a label in both `adata.obs[{a!r}]` and `adata.obs[{b!r}]`."
    raise ValueError(msg)


def match_variables(new: Any, reference: Any, has_loadings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions, in the new table and in the reference, of the variables that both have and that have loadings."""
    for names, whose in ((new, "new"), (reference, "reference")):
        if not names.is_unique:
            dup = names[names.duplicated()].unique()
            msg = f"Variable names of the {whose} table are not unique ({_listed(dup, 3)}). Call `var_names_make_unique()` first."
            raise ValueError(msg)
    wanted = np.flatnonzero(has_loadings)
    columns = new.get_indexer(reference[wanted])
    found = columns >= 0
    if not found.any():
        msg = (
            f"The tables share none of the {len(wanted)} variables with loadings: the new one has {_listed(new, 3)}, the "
            f"reference {_listed(reference[wanted], 3)}. Are the names of one kind (symbols or Ensembl ids)?"
        )
        raise ValueError(msg)
    if not found.all():
        missing = reference[wanted[~found]]
        warn(
            f"{len(missing)} of {len(wanted)} variables with loadings are not in the new table ({_listed(missing, 3)}) and are left out."
        )
    return columns[found], wanted[found]


def cause(error: BaseException) -> str:
    """An error in one line, without the quotes that a KeyError puts around its text."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Whatever a reader stumbles over becomes one error that names the file and the cause."""
    try:
        yield
    except (MemoryError, Warning):
        raise
    except Exception as error:  # the readers of many formats raise anything
        msg = f"{str(path)!r} could not be read as {what}: {cause(error).rstrip('.')}. Is it complete?"
        raise OSError(msg) from error


def check_writable(path: Path) -> None:
    """A file can be written there: its folder exists, and it is no folder itself."""
    if path.is_dir():
        msg = f"{str(path)!r} is a folder: name a file in it."
        raise IsADirectoryError(msg)
    if not path.absolute().parent.is_dir():
        msg = f"There is no folder {str(path.absolute().parent)!r} for {path.name!r}. Make it first."
        raise FileNotFoundError(msg)


def check_exists(path: Path) -> None:
    """There must be a file or folder of this name."""
    if not path.exists():
        nearest = next(p for p in path.absolute().parents if p.exists())
        msg = f"There is no file or folder {str(path)!r}. The last part of the path that is there: {str(nearest)!r}."
        raise FileNotFoundError(msg)


def check_edges(A: Any, key: str) -> None:
    """A graph that is to smooth or to cluster needs edges."""
    if A.nnz == 0:
        msg = (
            f"`adata.obsp[{key!r}]` has no edges: all observations are isolated. Build it with a larger radius, e.g. "
            "`sn.gr.contact_neighbors(adata)`, which chooses one from the data."
        )
        raise ValueError(msg)


def fail_not_stored(key: str, contact_radius: float, context_radius: float) -> NoReturn:
    """A graph that is described is asked for as a matrix."""
    msg = (
        f"The graph {key!r} is described, not stored (`store=False`), and here its matrix is needed. Store it: "
        f"`sn.gr.contact_neighbors(adata, {contact_radius:g}, {context_radius:g}, store=True)`, with the other options of before."
    )
    raise KeyError(msg)


def check_libraries(codes: np.ndarray, names: Sequence[str], library_key: str | None) -> None:
    """Every library needs two observations to have a graph."""
    lone = [name for name, size in zip(names, np.bincount(codes, minlength=len(names)), strict=True) if size < 2]
    if lone:
        msg = (
            f"{len(lone)} librar{'y' if len(lone) == 1 else 'ies'} of `adata.obs[{library_key!r}]` ({_listed(lone, 3)}) "
            "have one observation only. Drop them first: "
            f"`adata = adata[adata.obs.groupby({library_key!r})[{library_key!r}].transform('size') > 1].copy()`."
        )
        raise ValueError(msg)


def check_same_rank(W: np.ndarray, H: np.ndarray, key: str) -> None:
    """Factors and loadings of one run have as many components."""
    if W.shape[1] != len(H):
        msg = (
            f"The factors {key!r} have {W.shape[1]} components in `adata.obsm`, and {len(H)} in `adata.varm`: they are of two "
            "runs. Run the factorisation again, or remove one of them."
        )
        raise ValueError(msg)


def check_library_names(names: Sequence[str], library_key: str | None) -> None:
    """A library must not have the name that stands for all of them."""
    if "all" in names:
        msg = (
            f"A library of `adata.obs[{library_key!r}]` is called 'all', which names all libraries together in the "
            "result. Rename it first."
        )
        raise ValueError(msg)


def check_key_added(key_added: Any) -> None:
    """A base name of slots must be a string that a store can hold."""
    if not isinstance(key_added, str) or not key_added or "/" in key_added:
        msg = (
            f"`key_added` must be a non-empty string without '/', not {key_added!r}: it names slots in .h5ad and .zarr."
        )
        raise ValueError(msg)


def fail_missing(package: str, what: str, extra: str) -> NoReturn:
    """An optional package is not installed."""
    msg = f"{what} needs {package}, which is not installed. Install it with `pip install 'spanmf[{extra}]'`."
    raise ImportError(msg)


def check_device(device: Any) -> str | None:
    """The device as torch names it, which must be there; ``None`` for the CPU without torch."""
    if device == "cpu":
        return None
    if device == "mps":
        msg = "`device='mps'`: torch has neither sparse matrices nor float64 on Apple's GPUs. Leave `device` out."
        raise ValueError(msg)
    if not isinstance(device, str) or not re.fullmatch(r"torch|cuda(:\d+)?", device):
        msg = f"`device` must be 'cpu', 'cuda', 'cuda:1' (the second GPU, and so on) or 'torch', not {device!r}."
        raise ValueError(msg)
    try:
        import torch
    except ImportError:
        fail_missing("torch", f"`device={device!r}`", "torch")
    if device == "torch":
        return "cpu"
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(device.partition(":")[2] or 0)
    if number >= n_gpus:
        found = f"finds {n_gpus} GPU{'s' if n_gpus > 1 else ''}" if n_gpus else "finds no GPU with CUDA"
        msg = f"`device={device!r}`: torch {torch.__version__} {found} here. Leave `device` out to compute on the CPU."
        raise ValueError(msg)
    return device


def check_device_memory(needed: int, left: int | None, device: str) -> None:
    """What a factorisation needs must be free on its GPU."""
    if left is not None and needed > left:
        msg = (
            f"The factorisation needs about {needed / 2**30:.3g} GiB on {device!r}, where {left / 2**30:.3g} GiB are free. "
            "Leave `device` out to compute on the CPU, use fewer variables (`mask_var=`), or free memory on the GPU."
        )
        raise MemoryError(msg)


def check_some(values: Sequence[Any], name: str) -> None:
    """At least one value."""
    if not values:
        msg = f"`{name}` is empty: give at least one."
        raise ValueError(msg)


def check_flag(name: str, value: Any) -> None:
    """A switch must be True or False."""
    if not isinstance(value, (bool, np.bool_)):
        msg = f"`{name}` must be True or False, not {value!r}."
        raise TypeError(msg)


def check_density(density: np.ndarray, threshold: float, n_components: int) -> None:
    """At least one spectrum a component must pass the filter of the consensus."""
    kept = int((density < threshold).sum())
    if kept < n_components:
        enough = np.sort(density)[n_components - 1]
        msg = (
            f"`density_threshold={threshold:g}` leaves {kept} of {len(density)} spectra, fewer than {n_components} components: "
            f"the runs do not agree so closely. The lowest threshold that leaves enough is {enough:.3g}; ask for fewer "
            "components, or more `n_restarts`."
        )
        raise ValueError(msg)


def check_ranks(n_components: Any, n_obs: int, n_vars: int) -> list[int]:
    """At least two different numbers of components, from 1 to min(n, p), in rising order."""
    if isinstance(n_components, (str, dict)) or not hasattr(n_components, "__iter__"):
        msg = f"`n_components` must be a range or a list of numbers to compare, e.g. `range(2, 21)`, not {n_components!r}."
        raise TypeError(msg)
    ranks = list(n_components)
    for k in ranks:
        check_n_components(k, n_obs, n_vars)
    ranks = sorted({int(k) for k in ranks})
    if len(ranks) < 2:
        msg = f"`n_components` must hold at least two different numbers to compare, e.g. `range(2, 21)`, not {n_components!r}."
        raise ValueError(msg)
    return ranks


def check_folds(n_folds: int, n_var_folds: int, n_tiles: int, n_obs: int, n_vars: int, most: int) -> None:
    """Folds of tiles and of variables, each at least 2, that leave room for ``most`` components."""
    check_range("n_folds", n_folds, 2, integer=True)
    check_range("n_var_folds", n_var_folds, 2, integer=True)
    check_range("n_tiles", n_tiles, 2, integer=True)
    if n_tiles > n_obs // 2:
        most_tiles = n_obs // 2
        msg = f"`n_tiles` is {n_tiles}, but {n_obs} observations make at most {most_tiles} tiles of two: pass `n_tiles={most_tiles}` or less."
        raise ValueError(msg)
    if n_folds > n_tiles:
        msg = f"`n_folds` is {n_folds}, more than the {n_tiles} tiles. Ask for fewer folds, or more tiles with `n_tiles=`."
        raise ValueError(msg)
    if n_var_folds > n_vars:
        msg = f"`n_var_folds` is {n_var_folds}, more than the {n_vars} variables in use. Ask for fewer."
        raise ValueError(msg)
    seen = n_vars - -(-n_vars // n_var_folds)
    if most > seen:
        msg = (
            f"`n_components` goes up to {most}, but with {n_var_folds} folds only {seen} of {n_vars} variables are seen while one "
            "fold is held out. Ask for fewer components, or more `n_var_folds`."
        )
        raise ValueError(msg)


def check_columns(table: Any, names: Sequence[str], hint: str) -> None:
    """A table of results must have its columns."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        msg = f"The table has no column {_listed(missing)}; it holds {_listed(table.columns)}. {hint}"
        raise KeyError(msg)


def check_shares(values: np.ndarray, name: str) -> None:
    """Shares of types: a table of non-negative numbers, with whole rows of NaN where nothing is known."""
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiub":
        msg = f"{name} must hold numbers, observations × types, not {values.dtype} of shape {values.shape}."
        raise ValueError(msg)
    missing = np.isnan(values)
    if missing.all():
        msg = f"{name} holds no share: all are NaN."
        raise ValueError(msg)
    wrong = int((missing & ~missing.all(1, keepdims=True) | (values < 0) | np.isinf(values)).sum())
    if wrong:
        msg = f"{name} holds {wrong} values that are negative, infinite, or NaN in a row with numbers: these are no shares."
        raise ValueError(msg)


def check_in_memory(X: Any, device: str) -> None:
    """What goes to a device of torch must not be a dask array."""
    if isinstance(X, Blocks) and device != "cpu":
        msg = (
            f"`device={device!r}` needs X in memory, and it is a dask array. Read it first, e.g. `adata.X = adata.X.compute()`, "
            "or leave `device` out."
        )
        raise ValueError(msg)
