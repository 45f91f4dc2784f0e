"""Which cell type a factor is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .. import _checks, _data
from .._docs import doc
from .._logging import timed
from ..core import _annotation
from . import _fit, _joint_values, _parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData
    from spatialdata import SpatialData

UNKNOWN = "Unknown"
METHODS = ("overlap", "correlation")
RANKINGS = ("specificity", "loading")
THRESHOLDS = {"overlap": 0.2, "correlation": 0.2}
PAPER = {"method": "overlap", "rank_by": "loading", "threshold": 0.0}


@_fit.presets(PAPER)
@doc
def annotate_factors(
    data: MuData | AnnData | SpatialData,
    markers: Mapping[str, Sequence[str]] | pd.DataFrame | str | Path | None = None,
    *,
    key: str = "joint_nmf",
    method: Literal["overlap", "correlation"] = "overlap",
    rank_by: Literal["specificity", "loading"] = "specificity",
    n_genes: int = 10,
    n_proteins: int = 5,
    threshold: float | None = None,
    preset: Literal["paper"] | None = None,
    key_added: str = "annotate_factors",
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Name the cell type of every factor by known markers.

    * ``"overlap"``: with :math:`f_g, f_p` the shares of a type's marker genes and proteins among the factor's top 10 genes and top 5
      proteins, the score is :math:`(1.0 f_g + 1.5 f_p) / 2.5`.
    * ``"correlation"``: Pearson's correlation of the factor over the observations with the mean of the type's markers
      (each standardised), genes and proteins combined with the same weights.

    Only markers that were measured count; with m of them a share or correlation is multiplied by :math:`m / (m + 1)`, so that one marker
    alone does not name a type as several do, and a type with markers of one kind is scored on that kind. A factor takes the type with the highest score, ``"Unknown"`` below the threshold. Two factors may be of one type.

    Parameters
    ----------
    data
        A MuData with joint factors, or a table with those of :func:`spanmf.tl.nmf` and its like.
    markers
        A mapping from type to names (or to ``{"gene": [...], "protein": [...]}``); a table with the columns ``cell_type``, ``marker``
        and, if you like, ``kind`` (``"gene"``, ``"protein"``); a file of such a table (.csv, .tsv) or of gene sets (.gmt). ``None``:
        :func:`spanmf.datasets.cell_markers`. Genes and proteins of one molecule are matched (CD8 and CD8A, PanCK and the
        keratins), in any case; without a ``kind`` a marker counts in both.
    key
        Base name of the factorisation.
    method
        ``"overlap"`` or ``"correlation"``.
    rank_by
        What the top features are: ``"loading"`` as published, or ``"specificity"``, the loading (as a share of the factor's) times the
        share of the feature that this factor has, so that features that are high everywhere do not fill the list.
    n_genes, n_proteins
        How many top features of a factor (of one table: ``n_genes``).
    threshold
        Lowest score of a name. ``None``: 0.2.
    preset
        ``"paper"``: overlap by loadings, without a threshold; markers that were not measured count as not found.
    key_added
        ``uns`` key of the result.
    {table_key}

    Returns
    -------
    DataFrame, one row a factor: ``factor``, ``cell_type``, ``score``, ``second`` (the next best type), ``margin`` (of the score to it),
    ``p`` (chance of at least as many markers of the type in random lists of that length), ``markers`` (those found in the lists).
    Also in ``uns[key_added]["table"]``, with ``params``.

    Raises
    ------
    KeyError
        If there is no such factorisation.
    ValueError
        If no marker is among the features, or the markers are in another layout.

    References
    ----------
    SpatialMultiOmics (both rules).

    Examples
    --------
    >>> import spanmf as sn
    >>> mdata = sn.datasets.rna_protein_tissue(1000)
    >>> sn.tl.joint_nmf(mdata, 10)
    >>> table = sn.tl.annotate_factors(mdata)
    >>> "plasma cell" in set(table["cell_type"])
    True
    """
    _checks.check_choice("method", method, METHODS)
    _checks.check_choice("rank_by", rank_by, RANKINGS)
    _checks.check_range("n_genes", n_genes, 1, integer=True)
    _checks.check_range("n_proteins", n_proteins, 1, integer=True)
    _checks.check_key_added(key_added)
    threshold = THRESHOLDS[method] if threshold is None else threshold
    _checks.check_range("threshold", threshold)
    factored = _parts.read(data, key, table_key)
    found = _parts.find(factored, markers)
    with timed("tl.annotate_factors") as notes:
        sizes = [n_proteins if part.kind == "protein" else n_genes for part in factored.parts]
        tops = [_tops(part.H, size, rank_by) for part, size in zip(factored.parts, sizes, strict=True)]
        if method == "overlap":
            scores = _overlap(found, tops, published=preset is not None)
        else:
            scores = _correlation(factored, found)
        table = describe(scores, found, [list(x) for x in zip(*tops, strict=True)], threshold)
        table.insert(0, "factor", np.arange(len(table)))
        params = {
            "key": key, "method": method, "rank_by": rank_by, "n_genes": n_genes, "n_proteins": n_proteins,
            "threshold": float(threshold), "preset": preset,
        }  # fmt: skip
        factored.holder.uns[key_added] = _data.provenance(params) | {"table": storable_table(table)}
        known = table.loc[table["cell_type"] != UNKNOWN, "cell_type"]
        notes.append(f"{known.nunique()} types in {len(known)} of {len(table)} factors; added uns[{key_added!r}]")
    return table


def describe(scores: np.ndarray, found: _parts.Found, tops: list[list[np.ndarray]], threshold: float) -> pd.DataFrame:
    """One row a factor or cluster: its type, how sure that is, and the markers in its top features."""
    first, second, margin = _annotation.best_two(scores)
    rows = []
    for r, (a, b) in enumerate(zip(first, second, strict=True)):
        score = scores[r, a] if a >= 0 else np.nan
        p, hits = found.chance(a, tops[r]) if a >= 0 else (1.0, [])
        named = a >= 0 and score >= threshold and score > 0
        rows.append(
            (
                found.names[a] if named else UNKNOWN, float(score), found.names[b] if b >= 0 else "", float(margin[r]), p,
                ", ".join(dict.fromkeys(hits)),
            )
        )  # fmt: skip
    return pd.DataFrame(rows, columns=["cell_type", "score", "second", "margin", "p", "markers"])


def storable_table(table: pd.DataFrame) -> pd.DataFrame:
    """A copy whose index and strings every store takes."""
    out = table.copy()
    out.index = out.index.astype(str)
    return out


def _tops(H: np.ndarray, n: int, rank_by: str) -> list[np.ndarray]:
    share, specific = _data.loading_shares(H)
    return [_annotation.top(row, n) for row in (share * specific if rank_by == "specificity" else share)]


def _overlap(found: _parts.Found, tops: list[list[np.ndarray]], *, published: bool) -> np.ndarray:
    """Share of each type's markers among the top features (factors × types)."""
    hits = [
        np.array([[np.isin(row[m], top).sum() for row in found.at] for top in lists], dtype=float)
        for m, lists in enumerate(tops)
    ]
    if not published:
        return found.combine([h / np.maximum(n, 1) for h, n in zip(hits, found.n_found(), strict=True)])
    weights = np.array([_parts.WEIGHTS[part.kind] for part in found.parts])
    shares = [w * h / np.maximum(n, 1) for w, h, n in zip(weights, hits, found.given.T, strict=True)]
    return np.asarray(sum(shares) / weights.sum())


def _correlation(factored: _parts.Factored, found: _parts.Found) -> np.ndarray:
    """Correlation of each factor with the mean of each type's standardised markers (factors × types)."""
    scores = []
    for m, part in enumerate(factored.parts):
        X, mask = (
            _joint_values.recorded_values(factored.holder, part.name, factored.record)
            if factored.joint
            else _plain(part)
        )
        position = np.cumsum(mask) - 1
        W = factored.W[part.rows]
        score = np.zeros((W.shape[1], len(found.names)))
        for t, row in enumerate(found.at):
            if len(at := row[m][mask[row[m]]]):
                values = X[:, position[at]].toarray().astype(np.float64)
                sd = values.std(0)
                mean = ((values - values.mean(0)) / np.where(sd > 0, sd, 1)).mean(1)
                score[:, t] = _pearson(W, mean)
        scores.append(score)
    return found.combine(scores)


def _plain(part: _parts.Part) -> tuple[sp.csc_matrix, np.ndarray]:
    X, name = _data.get_matrix(part.table)
    _checks.check_expression(X, name)
    return sp.csc_matrix(X), np.ones(part.table.n_vars, dtype=bool)


def _pearson(W: np.ndarray, y: Any) -> np.ndarray:
    A = W.astype(np.float64) - W.mean(0, dtype=np.float64)
    y = y - y.mean()
    size = np.sqrt((A**2).sum(0) * (y @ y))
    return np.divide(y @ A, size, out=np.zeros(W.shape[1]), where=size > 0)
