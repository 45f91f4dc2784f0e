"""What joint factors are fitted to: how each modality is preprocessed, in memory or block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from .. import _checks, _dask, _data, _keys, _mudata, _side_by_side
from .._side_by_side import Part
from ..core import _normalise, _ops
from ..core._blocks import Blocks
from ..core._joint_layout import Layout, Modality, Moments, added, beside, lay_out, moments
from ..core._normalise import Steps

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

PREPROCESSING = ("rna", "protein", "log1p", "none")
N_VARIABLE = 2000  # genes kept where none are marked as highly variable and there are more
RNA_NAMES = ("rna", "gex", "gene expression", "transcriptome", "tx", "xenium", "merfish", "visium", "atac")
PROTEIN_NAMES = (
    "protein",
    "prot",
    "adt",
    "antibody capture",
    "protein expression",
    "proteome",
    "codex",
    "mibi",
    "imc",
    "cycif",
)


@dataclass(frozen=True)
class Values:
    """One modality as it is factorised, before its weight."""

    part: Part  # its rows are those among all observations
    mask: np.ndarray  # of its variables, those in use
    moments: Moments
    present: np.ndarray  # of all observations, those that it has


def order_of(mdata: MuData) -> np.ndarray | None:
    """The observations as they are read in blocks, an order that is every modality's; None where all is in memory."""
    matrices = [table.X for table in mdata.mod.values()]
    if not any(_dask.is_lazy(X) for X in matrices):
        return None
    rows = [_mudata.rows_of(mdata, name) for name in mdata.mod]
    order = _side_by_side.common_order(rows, mdata.n_obs, _side_by_side.largest(matrices))
    place = np.argsort(order)
    for (name, table), own in zip(mdata.mod.items(), rows, strict=True):
        if _dask.is_lazy(table.X):
            _side_by_side.check_order(name, place[own])
    return order


def check_lazy(mdata: MuData, missing: str, device: str) -> None:
    """What cannot be done block by block, before anything is read."""
    for name, table in mdata.mod.items():
        if not _dask.is_lazy(table.X):
            continue
        read = f"Read it first, e.g. `mdata.mod[{name!r}].X = mdata.mod[{name!r}].X.compute()`"
        if device != "cpu":
            msg = f"`device={device!r}` needs X in memory, and that of modality {name!r} is a dask array. {read}, or leave `device` out."
            raise ValueError(msg)
        if missing == "pad" and table.n_obs < mdata.n_obs:
            msg = (
                f"`missing='pad'` takes rows from all over a modality, and X of {name!r} is a dask array. {read}, or use "
                "`missing='mask'`."
            )
            raise ValueError(msg)


def read(mdata: MuData, name: str, kind: str, loss: str, *, lazy: bool = True) -> Values:
    """Check the values of a modality and preprocess them: now, or (of a dask array) when its blocks are read.

    What single rows do not tell (library size, selected genes, deviations) is found before, of blocks in passes over them.
    """
    table = mdata.mod[name]
    stored, where = _data.get_matrix(table, lazy=lazy)
    where = f"{where} of modality {name!r}"
    X = stored
    if _dask.is_lazy(stored):
        where = f"`mdata.mod[{name!r}].X`"
        X = _dask.as_blocks(stored, where, f" of modality {name!r}")
    (_checks.check_intensities if kind == "protein" else _checks.check_matrix)(X, where)
    counts = _checks.looks_like_counts(X)
    if loss == "kl" and not counts:
        _checks.warn(f"{where} does not look like counts, which `loss='kl'` is for.")
    kind = kind if loss == "frobenius" else "none"
    X, steps = _now(X, _first_steps(X, table, kind, counts))
    mask = np.ones(table.n_vars, dtype=bool)
    if kind == "rna" or (kind == "log1p" and table.n_vars > N_VARIABLE):
        mask = _variable(table, _stepped(stored, steps) if isinstance(X, Blocks) else X)
        X, steps = _now(X, replace(steps, columns=None if mask.all() else np.flatnonzero(mask)))
    found = _moments(X, steps)
    if kind == "rna":
        factor = 1 / _normalise.deviations(table.n_obs, *found)
        X, steps = _now(X, replace(steps, factor=factor))
        found = Moments(found.sums * factor, found.squares * factor**2)
    rows = _mudata.rows_of(mdata, name)
    return Values(
        Part(name, stored if isinstance(X, Blocks) else X, rows, steps, int(mask.sum())),
        mask,
        found,
        np.isin(np.arange(mdata.n_obs), rows),
    )


def _now(X: Any, steps: Steps) -> tuple[Any, Steps]:
    """Take the steps at once where X is in memory; of blocks they are taken whenever one is loaded."""
    return (X, steps) if isinstance(X, Blocks) else (steps(X), Steps())


def _first_steps(X: Any, table: AnnData, kind: str, counts: bool) -> Steps:
    """What is done to the rows, each by itself."""
    if kind == "rna" and counts:
        totals = _ops.row_sums(X if isinstance(X, Blocks) else _ops.as_rows(X))
        return Steps(library_size=float(np.median(totals[totals > 0])), log=True)
    if kind == "log1p":
        return Steps(log="log1p" not in table.uns)  # scanpy notes there that it was done
    return Steps(clr=kind == "protein")


def _stepped(stored: Any, steps: Steps) -> Any:
    """The dask array after the steps."""
    return stored.map_blocks(steps, dtype=np.float32, meta=sp.csr_matrix((0, 0), dtype=np.float32))


def _moments(X: Any, steps: Steps) -> Moments:
    """Sums of columns after the steps."""
    if isinstance(X, Blocks):
        return added(X.each(partial(_moments_of_rows, steps=steps)))
    return moments(_ops.as_rows(X))


def _moments_of_rows(X: _ops.Rows, steps: Steps) -> Moments:
    return moments(_ops.as_rows(steps(X.as_scipy())))


def filled(values: Values, source: np.ndarray) -> Values:
    """Give every observation the values of another one (in memory)."""
    row = np.zeros(len(source), dtype=np.int64)
    row[values.part.rows] = np.arange(len(values.part.rows))
    X = values.part.X[row[source]]
    part = replace(values.part, X=X, rows=np.arange(len(source)))
    return replace(values, part=part, moments=_moments(X, Steps()), present=np.ones(len(source), dtype=bool))


def laid_out(modalities: list[Modality], values: list[Values], n_components: int, order: np.ndarray | None) -> Layout:
    """Weight the modalities and put them side by side, in memory or (with an order of the observations) in blocks."""
    n = len(modalities[0].present)
    if order is None:
        return lay_out([replace(m, X=_mudata.spread(m.X.X, m.X.rows, n)) for m in modalities], n_components)
    place = np.argsort(order)
    parts = [m.X.scaled(m.scale).sorted_by(place[m.X.rows]) for m in modalities]
    known = beside([v.moments for v in values], [m.scale for m in modalities])
    norm = float(known.squares.sum())
    return lay_out(modalities, n_components, replace(_side_by_side.as_blocks(parts, n), norm=norm), order, known)


def kinds_of(mdata: MuData, preprocessing: Any) -> dict[str, str]:
    """How each modality is preprocessed."""
    given = preprocessing if isinstance(preprocessing, Mapping) else dict.fromkeys(mdata.mod, preprocessing)
    _checks.check_members("preprocessing", given, list(mdata.mod))
    out = {}
    for name, table in mdata.mod.items():
        kind = given.get(name, "auto")
        _checks.check_choice(f"preprocessing of {name!r}", kind, ("auto", *PREPROCESSING))
        out[name] = _kind_of(name, table) if kind == "auto" else kind
    return out


def _kind_of(name: str, table: AnnData) -> str:
    words = [name.lower().replace("_", " ")]
    if "feature_types" in table.var:
        words += [str(x).lower() for x in table.var["feature_types"].unique()]
    for kind, known in (("protein", PROTEIN_NAMES), ("rna", RNA_NAMES)):
        if any(w in known for w in words):
            return kind
    msg = (
        f"It cannot be told from the name {name!r} how to preprocess this modality: say so, e.g. "
        f"`preprocessing={{{name!r}: 'rna'}}` (one of {', '.join(PREPROCESSING)})."
    )
    raise ValueError(msg)


def recorded_values(mdata: MuData, name: str, record: Mapping[str, Any]) -> tuple[sp.csr_matrix, np.ndarray]:
    """Preprocessed values of a modality again, as a recorded run had them."""
    params = record.get("params", {})
    stored = name.replace("/", "|")
    if stored not in params.get("preprocessing", {}) or stored not in params.get("loss", {}):
        msg = f"What `sn.tl.joint_nmf` recorded of modality {name!r} is gone from `mdata.uns`. Run it again."
        raise KeyError(msg)
    values = read(mdata, name, str(params["preprocessing"][stored]), str(params["loss"][stored]), lazy=False)
    return values.part.X, values.mask


def _variable(table: AnnData, logged: Any) -> np.ndarray:
    """Genes marked as highly variable, or the most variable ones where there are many."""
    if _keys.HIGHLY_VARIABLE in table.var or table.n_vars <= N_VARIABLE:
        return _data.get_mask(table, "auto")
    import scanpy as sc
    from anndata import AnnData

    holder = AnnData(logged)
    sc.pp.highly_variable_genes(holder, n_top_genes=N_VARIABLE)
    return holder.var["highly_variable"].to_numpy()
