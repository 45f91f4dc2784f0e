"""Factors of a MuData or of one table, and the loadings of each of its modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _checks, _data, _keys, _marker_sets, _mudata
from ..core import _annotation
from ._joint_values import PROTEIN_NAMES, RNA_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

WEIGHTS = {"gene": 1.0, "protein": 1.5, "": 1.0}  # of a kind's score, as published
N_TOP = {"gene": 10, "protein": 5, "": 10}
SOUGHT = {"gene": ("", "gene"), "protein": ("", "protein"), "": ("", "gene", "protein")}


@dataclass(frozen=True)
class Part:
    """One modality: its table, loadings (K × p), which observations it has, and whether its features are genes or proteins."""

    name: str
    table: AnnData
    H: np.ndarray
    rows: np.ndarray
    kind: str


@dataclass(frozen=True)
class Factored:
    """W of all observations, the modalities, and what the run left in ``uns``."""

    holder: Any
    key: str
    W: np.ndarray
    parts: list[Part]
    record: dict[str, Any]

    @property
    def joint(self) -> bool:
        """Whether there are several modalities, in a MuData."""
        return not hasattr(self.holder, "varm") or hasattr(self.holder, "mod")


def read(data: Any, key: str, table_key: str | None) -> Factored:
    """Factors of a MuData (shared) or of an AnnData or SpatialData."""
    if not isinstance(getattr(data, "mod", None), dict):
        table = _data.get_table(data, table_key)
        W, H = _data.get_factors(table, key)
        _checks.check_same_rank(W, H, key)
        return Factored(table, key, W, [Part("", table, H, np.arange(table.n_obs), "")], dict(table.uns.get(key, {})))
    keys = _keys.FactorKeys(key)
    hint = "Run `sn.tl.joint_nmf(mdata)` first, or pass one modality."
    _checks.check_key(data.obsm, keys.factors, "obsm", hint)
    W = np.asarray(data.obsm[keys.factors], dtype=np.float32)
    record = dict(data.uns.get(keys.provenance, {}))
    kinds = record.get("params", {}).get("preprocessing", {})
    parts = []
    for name, table in data.mod.items():
        _checks.check_key(table.varm, keys.loadings, f"varm of modality {name!r}", hint)
        H = np.asarray(table.varm[keys.loadings], dtype=np.float32).T
        _checks.check_same_rank(W, H, key)
        kind = _kind(name, kinds.get(name.replace("/", "|"), ""))
        parts.append(Part(name, table, H, _mudata.rows_of(data, name), kind))
    return Factored(data, key, W, parts, record)


def _kind(name: str, preprocessing: str) -> str:
    word = name.lower().replace("_", " ")
    if preprocessing == "protein" or word in PROTEIN_NAMES:
        return "protein"
    return "gene" if preprocessing == "rna" or word in RNA_NAMES else ""


@dataclass(frozen=True)
class Found:
    """Positions of each type's markers among the features of each modality."""

    names: list[str]
    at: list[list[np.ndarray]]  # types × modalities
    given: np.ndarray  # how many markers were given for each type and modality
    parts: list[Part]

    def n_found(self) -> np.ndarray:
        """How many features of each modality are markers of a type (modalities × types)."""
        return np.array([[len(a) for a in row] for row in self.at]).T

    def combine(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Scores of each modality (rows × types) to one, by weight, over those that have a marker of the type.

        With m markers a score counts m / (m + 1): one marker alone does not name a type as several do.
        """
        m = self.n_found()[:, None]
        weights = np.where(m > 0, np.array([WEIGHTS[p.kind] for p in self.parts])[:, None, None], 0)
        total = (weights * m / (m + 1) * np.stack(scores)).sum(0)
        return np.asarray(total / weights.sum(0))

    def chance(self, t: int, tops: list[np.ndarray]) -> tuple[float, list[str]]:
        """Chance of that many markers of a type among the top features, and which they are."""
        hits = [np.intersect1d(a, top) for a, top in zip(self.at[t], tops, strict=True)]
        p = _annotation.chance(
            [len(h) for h in hits], [len(a) for a in self.at[t]], [len(x) for x in tops],
            [part.table.n_vars for part in self.parts],
        )  # fmt: skip
        return p, [str(part.table.var_names[j]) for part, h in zip(self.parts, hits, strict=True) for j in h]


def find(factored: Factored, markers: Any) -> Found:
    """Look for the markers among the features in use of every modality; at least one must be there."""
    sets = _marker_sets.read(markers)
    indices = [_marker_sets.FeatureIndex.of(part.table.var_names) for part in factored.parts]
    used = [part.H.any(axis=0) for part in factored.parts]
    names, at, given = [], [], []
    for t, name in enumerate(sets.names):
        lists = [sets.of(t, SOUGHT[part.kind]) for part in factored.parts]
        row = [_marker_sets.find(x, index) for x, index in zip(lists, indices, strict=True)]
        row = [a[use[a]] for a, use in zip(row, used, strict=True)]
        if any(len(a) for a in row):
            names.append(name)
            at.append(row)
            given.append([len(x) for x in lists])
    if not names:
        examples = [m for members in sets.members for group in members.values() for m in group][:5]
        features = [str(x) for part in factored.parts for x in part.table.var_names[:3]]
        msg = (
            f"None of the markers ({_checks._listed(examples)}, …) is among the features in use ({_checks._listed(features)}, …). "
            "Are the features named by symbols? Put them into `var_names`, or name markers as the features are named."
        )
        raise ValueError(msg)
    return Found(names, at, np.array(given), factored.parts)
