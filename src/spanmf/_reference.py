"""Reference profiles of cell types: checks, and matching of their genes to those of a section."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from . import _checks
from .core._stl_reference import shrunk_profiles
from .core._stl_spots import Cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FEW_CELLS = 10  # below which a mean profile is a rough guess
FEW_GENES = 100
SAME = 0.999  # correlation of two profiles beyond which nothing tells their types apart
LOG_MAX = 20.0  # log1p of more than any count
N_CELLS, MRNA, CELLS = "n_cells", "mrna", "cells"
ENSEMBL = re.compile(r"^(ENS[A-Z]*\d{6,})\.\d+$")


@dataclass(frozen=True)
class Profiles:
    """Mean counts of a cell (k × p), the names of types and genes, cells by type (``None``: not known), and some of these."""

    B: np.ndarray
    types: list[str]
    genes: list[str]
    n_cells: np.ndarray | None
    cells: Cells | None = None  # some that the means come from


def as_profiles(reference: Any) -> Profiles:
    """Read what :func:`spanmf.tl.reference_profiles` returns, or a DataFrame (types × genes)."""
    if isinstance(reference, pd.DataFrame):
        B, types, genes, n_cells = reference.to_numpy(), reference.index, reference.columns, None
    elif hasattr(reference, "obs") and hasattr(reference, "var_names"):
        if N_CELLS not in reference.obs:
            msg = (
                f"`reference` has no `obs[{N_CELLS!r}]`: it looks like cells, not like profiles. "
                "Call `sn.tl.reference_profiles(adata_sc, groupby)` and pass its result."
            )
            raise ValueError(msg)
        X = reference.X
        B = X.toarray() if sp.issparse(X) else np.asarray(X)
        types, genes, n_cells = reference.obs_names, reference.var_names, reference.obs[N_CELLS].to_numpy(dtype=float)
    else:
        msg = (
            "`reference` must be the result of `sn.tl.reference_profiles` or a DataFrame (types × genes), "
            f"not {type(reference).__name__}."
        )
        raise TypeError(msg)
    _checks.check_matrix(B, "The reference")
    names = [str(t) for t in types]
    if len(set(names)) < len(names):
        twice = sorted({t for t in names if names.count(t) > 1})
        msg = f"Types of the reference are there more than once: {_checks._listed(twice)}."
        raise ValueError(msg)
    genes = [str(g) for g in genes]
    stored = getattr(reference, "uns", {}).get(CELLS)
    return Profiles(np.asarray(B, dtype=np.float64), names, genes, n_cells, _kept(stored, names, genes))


def keep_cells(X: Any, codes: np.ndarray, types: Sequence[str], genes: Sequence[str], n: int) -> dict[str, Any]:
    """What ``uns`` holds of the cells behind a reference: at most n of each type, spread over the table, with their names."""
    members = (np.flatnonzero(codes == t) for t in range(len(types)))
    rows = np.sort(np.concatenate([m[np.linspace(0, len(m) - 1, min(n, len(m))).astype(int)] for m in members]))
    names = np.array(list(types), dtype=object)
    return {
        "X": sp.csr_matrix(X[rows], dtype=np.float32),
        "types": names[codes[rows]],
        "genes": np.array(list(genes), dtype=object),
    }


def _kept(stored: Any, types: list[str], genes: list[str]) -> Cells | None:
    """The cells kept with a reference, on its genes and types as they are now; ``None`` where they do not stand for all of these."""
    if not hasattr(stored, "get") or not all(name in stored for name in ("X", "types", "genes")):
        return None
    codes = pd.Index(types).get_indexer([str(t) for t in stored["types"]])
    columns = pd.Index([str(g) for g in stored["genes"]])
    columns = (
        columns.get_indexer(genes) if columns.is_unique else np.arange(len(genes)) if list(columns) == genes else None
    )
    if columns is None or (columns < 0).any() or len(np.unique(codes[codes >= 0])) < len(types):
        return None
    return Cells(sp.csr_matrix(stored["X"])[codes >= 0][:, columns], codes[codes >= 0], len(types))


def warn_of_few_cells(types: Sequence[str], n_cells: np.ndarray) -> None:
    """Name the types whose mean profile is a rough guess."""
    few = [f"{t} ({int(n)})" for t, n in zip(types, n_cells, strict=True) if n < FEW_CELLS]
    if few:
        _checks.warn(
            f"{len(few)} of {len(types)} types have fewer than {FEW_CELLS} cells: {', '.join(few[:8])}. Their profiles are "
            "rough; the deconvolution lets the section mend them, and its shares of these types are the least sure."
        )


def warn_of_same(types: Sequence[str], B: np.ndarray) -> None:
    """Name pairs of types that no count tells apart."""
    R = np.corrcoef(shrunk_profiles(B, None)) if len(B) > 1 else np.eye(1)
    pairs = [
        f"{types[i]!r} and {types[j]!r}" for i, j in zip(*np.triu_indices(len(B), 1), strict=True) if R[i, j] > SAME
    ]
    if pairs:
        _checks.warn(
            f"{len(pairs)} pairs of types have almost the same profile ({'; '.join(pairs[:4])}): only the sum of their "
            "shares means anything. Merge them before `sn.tl.reference_profiles`."
        )


def check_cells(X: Any, name: str, uns: Any) -> None:
    """Cells of a reference must be counts: their depth says how sure a mean is, and logarithms do not add up."""
    _checks.check_matrix(X, name)
    values = _checks.first_values(X)
    if not (values != np.round(values)).any():
        return
    _refuse_logarithms(values, name, noted="log1p" in uns)
    _checks.warn(f"{name} holds fractions: it is taken for counts of another scale, but counts say more.")


def check_section(X: Any, name: str) -> None:
    """Spots may hold fractions (sums that were scaled, or made without noise), but no logarithms."""
    _checks.check_matrix(X, name)
    values = _checks.first_values(X)
    if (values != np.round(values)).any():
        _refuse_logarithms(values, name, noted=False)


def _refuse_logarithms(values: np.ndarray, name: str, *, noted: bool) -> None:
    if noted or values.max() < LOG_MAX:
        msg = (
            f"{name} looks log-transformed, and counts are needed: what a spot holds is a sum of cells, not of their "
            "logarithms. Name the layer of counts with `layer=`."
        )
        raise ValueError(msg)


def match_genes(section: Sequence[str], reference: Sequence[str]) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Columns of section and reference that are the same gene, and how they were matched.

    Names that are equal come first; then Ensembl ids without their version; then names without regard to case. A looser match
    counts only where it is the only one on both sides. What was matched loosely or left out as ambiguous is told.
    """
    pairs: dict[int, int] = {}
    counts: dict[str, int] = {}
    rules: list[tuple[str, Callable[[str], str]]] = [
        ("equal", str),
        ("without version", lambda g: ENSEMBL.sub(r"\1", g)),
        ("without case", lambda g: ENSEMBL.sub(r"\1", g).upper()),
    ]
    ambiguous: list[str] = []
    for rule, key in rules:
        taken = set(pairs.values())
        left = _by_key(((i, g) for i, g in enumerate(section) if i not in pairs), key)
        right = _by_key(((i, g) for i, g in enumerate(reference) if i not in taken), key)
        both = [k for k in left if k in right]
        found = {left[k][0]: right[k][0] for k in both if len(left[k]) == len(right[k]) == 1}
        ambiguous += [k for k in both if not len(left[k]) == len(right[k]) == 1]
        if found and rule != "equal":
            shown = ", ".join(f"{section[i]!r} = {reference[j]!r}" for i, j in list(found.items())[:3])
            _checks.warn(f"{len(found)} genes of section and reference were matched {rule} of their names: {shown}.")
        pairs |= found
        counts[rule] = len(found)
    if ambiguous:
        names = sorted(set(ambiguous))
        _checks.warn(
            f"{len(names)} gene names are there more than once and were left out ({_checks._listed(names, 3)}). "
            "Sum or rename them to use them."
        )
    ordered = sorted(pairs.items())
    columns = np.array([i for i, _ in ordered], dtype=np.int64)
    return columns, np.array([j for _, j in ordered], dtype=np.int64), counts


def _by_key(names: Iterable[tuple[int, str]], key: Callable[[str], str]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for i, name in names:
        out.setdefault(key(name), []).append(i)
    return out


def check_matched(n: int, section: Sequence[str], profiles: Profiles) -> None:
    """Enough genes must be common to both."""
    examples = f"section {_checks._listed(section, 3)}; reference {_checks._listed(profiles.genes, 3)}"
    if n < max(len(profiles.types), 2):
        turned = len(set(section) & set(profiles.types))
        hint = (
            " The types' names are genes of the section: transpose the DataFrame (types × genes)."
            if turned > n
            else " Bring both to the same kind of name (symbols or Ensembl ids)."
        )
        msg = f"Section and reference have {n} genes in common, too few for {len(profiles.types)} types: {examples}.{hint}"
        raise ValueError(msg)
    if n < FEW_GENES:
        _checks.warn(f"Section and reference have only {n} genes in common: {examples}.")


def check_left(B: np.ndarray, types: Sequence[str]) -> None:
    """Every type needs counts on the genes that are common to both."""
    empty = [t for t, total in zip(types, B.sum(1), strict=True) if total <= 0]
    if empty:
        msg = f"{len(empty)} types have a profile of zeros on the genes in use: {_checks._listed(empty)}. Drop them first."
        raise ValueError(msg)


def storable_names(types: Sequence[str]) -> list[str]:
    """Names of columns that a store can hold: no ``/``."""
    names = [t.replace("/", "|") for t in types]
    return list(types) if len(set(names)) < len(names) else names
