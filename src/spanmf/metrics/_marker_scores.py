"""How markers of clusters are found and scored: one table of clusters that every metric of markers is read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from .. import _checks, _data
from ..core import _markers, _ops
from . import _inputs

if TYPE_CHECKING:
    from anndata import AnnData

MARGIN = 0.02  # of the mean of a cluster's markers: 0.1 of the sum of five, as published
PUBLISHED_MARGIN = 0.1
# columns of tables of markers; the first are those of scanpy
PAIRS = (("group", "names"), ("cell_type", "gene"), ("cell_type", "marker"))

Preset = Literal["paper"] | None


class MarkerCoherence(NamedTuple):
    """Cell-marker coherence, averaged over clusters and over observations."""

    mean: float
    weighted: float


class MarkerExclusion(NamedTuple):
    """Marker exclusion rate, and the number of observations without any marker of their own cluster."""

    rate: float
    n_negative: int


@dataclass(frozen=True, eq=False)
class Expression:
    """Values of a table; what the labels do not change is computed once for many labelings."""

    X: Any
    names: pd.Index | None = None
    _ranks: dict[bytes, _markers.Ranks] = field(default_factory=dict)

    @cached_property
    def rows(self) -> _ops.Rows:
        """X by rows, in float32."""
        return _ops.as_rows(self.X)

    def ranks(self, folds: np.ndarray) -> _markers.Ranks:
        """Ranks of each gene in each fold; kept where all observations have one (labels with NaN may all differ)."""
        key = folds.astype(np.int8).tobytes()
        if key in self._ranks:
            return self._ranks[key]
        ranked = _markers.rank(self.X, folds)
        if (folds >= 0).all():
            self._ranks[key] = ranked
        return ranked


@dataclass(frozen=True)
class Rules:
    """How markers are found and counted."""

    n_markers: int = 5
    min_cells: int = 100
    cross_fit: bool = True
    paper: bool = False
    max_padj: float = 1.0  # of a gene's own test (one-sided, Benjamini–Hochberg over the genes)


def rules_of(n_markers: int, min_cells: int, cross_fit: bool, preset: Preset) -> Rules:
    """The rules, checked; the published form finds markers in the observations that it scores."""
    _checks.check_range("n_markers", n_markers, 1, integer=True)
    _checks.check_range("min_cells", min_cells, 1, integer=True)
    _checks.check_flag("cross_fit", cross_fit)
    _checks.check_choice("preset", preset, (None, "paper"))
    paper = preset == "paper"
    return Rules(n_markers, min_cells, cross_fit and not paper, paper)


def expression(
    data: Any, var_names: Any = None, layer: str | None = None, table_key: str | None = None
) -> tuple[AnnData | None, Expression]:
    """The table, if it is one, and its values, checked."""
    if _inputs.is_table(data):
        adata = _data.get_table(data, table_key)
        X, name = _data.get_matrix(adata, layer)
        names = adata.var_names if var_names is None else pd.Index(var_names)
    else:
        adata, X, name = None, _checks.check_two_axes(data, "X"), "X"
        names = None if var_names is None else pd.Index(var_names)
    _checks.check_expression(X, name)
    if names is not None:
        _checks.check_n_names(names, X.shape[1], "`var_names`")
    warn_if_counts(X, name)
    return adata, Expression(X, names)


def warn_if_counts(X: Any, name: str) -> None:
    """Of raw counts, deep observations express everything more."""
    if _checks.looks_like_counts(X):
        _checks.warn(
            f"{name} looks like raw counts: the depth of the observations, too, then makes markers. Call "
            "`sc.pp.normalize_total(adata)` and `sc.pp.log1p(adata)` first."
        )


def given_markers(markers: Any, labels: list[str], names: pd.Index | None) -> dict[str, np.ndarray]:
    """Columns of the markers of each cluster that has any in the table, by name."""
    lists = _checks.check_gene_lists(marker_lists(markers), "`markers`", "cluster")
    if names is None:
        msg = "`markers` are names of genes: pass the names of the columns of X as `var_names=`."
        raise TypeError(msg)
    _checks.check_unique(names, "variable names")
    if not set(lists) & set(labels):
        msg = (
            f"None of the clusters of `markers` ({_checks._listed(lists)}) is a label: the labels are "
            f"{_checks._listed(labels)}."
        )
        raise _checks.UndefinedError(msg)
    lists = {c: genes for c, genes in lists.items() if c in set(labels)}
    found = {c: names.get_indexer(pd.Index(genes)) for c, genes in lists.items()}
    wanted = list(dict.fromkeys(g for genes in lists.values() for g in genes))
    missing = [g for g in wanted if g not in names]
    if len(missing) == len(wanted):
        msg = (
            f"None of the {len(wanted)} markers ({_checks._listed(wanted, 3)}) is in the table, which has "
            f"{_checks._listed(names, 3)}. Are the names of one kind (symbols or Ensembl ids, upper or lower case)?"
        )
        raise ValueError(msg)
    if missing:
        _checks.warn(
            f"{len(missing)} of {len(wanted)} markers are not in the table ({_checks._listed(missing, 5)}) and are left out."
        )
    return {c: columns[columns >= 0] for c, columns in found.items()}


def marker_lists(markers: Any) -> Any:
    """A DataFrame of markers as a dict: one column a cluster, or a column of clusters and one of genes."""
    if not isinstance(markers, pd.DataFrame):
        return markers
    for cluster, gene in PAIRS:
        if {cluster, gene} <= set(markers.columns):
            return {c: list(own[gene]) for c, own in markers.groupby(cluster, observed=True, sort=False)}
    return {c: list(markers[c].dropna()) for c in markers.columns}


@dataclass(frozen=True, eq=False)
class Groups:
    """Group and fold of every observation (−1: no label), and the number of observations by fold and group."""

    group: np.ndarray
    folds: np.ndarray
    shape: tuple[int, int]

    @cached_property
    def both(self) -> np.ndarray:
        """One code for each pair of fold and group."""
        return np.where(self.group < 0, -1, self.folds * self.shape[1] + self.group)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Number of observations: folds × groups × 1."""
        return np.bincount(self.both[self.both >= 0], minlength=np.prod(self.shape)).reshape(*self.shape, 1)


def evaluate(
    values: Expression,
    codes: np.ndarray,
    names: list[str],
    markers: dict[str, np.ndarray] | None,
    rules: Rules,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The table of :func:`marker_table`, for codes (−1: no label) of clusters with these names."""
    known = codes >= 0
    sizes = np.bincount(codes[known], minlength=len(names))
    if markers is None:
        tried = (sizes >= rules.min_cells) | rules.paper
    else:
        tried = np.array([c in markers and len(markers[c]) > 0 for c in names])
    folds = np.where(known, 0, -1)
    if markers is None and rules.cross_fit:
        folds[known] = rng.permutation(int(known.sum())) % 2
    place, groups = grouped(codes, tried, folds)

    sums, expressing = totals(values, groups)
    if markers is None:
        chosen = found(values, groups, sums, rules)
    else:
        chosen = [[markers[c] for c, has in zip(names, tried, strict=True) if has]]
    weights = _weights(chosen, groups, values.X.shape[1])
    scores = _shares(expressing, groups, weights) | _exclusions(values, groups, weights, rules)

    has = weights.any((0, 2))[place]
    table = pd.DataFrame({"n_obs": sizes}, index=pd.Index(names, name="cluster"))
    table["markers"] = [_names(values, chosen, place[c]) if has[c] else "" for c in range(len(names))]
    for column, by_group in scores.items():
        table[column] = np.where(has, by_group[place], np.nan)
    table["n_marker_negative"] = table["n_marker_negative"].fillna(0).astype(np.int64)
    table["note"] = [
        "" if has[c] else _reason(names[c], sizes[c], len(names), markers, rules) for c in range(len(names))
    ]
    return table


def grouped(codes: np.ndarray, tried: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, Groups]:
    """Give each of the clusters that are tried a group, and the others one: "each cell a cluster" must stay small."""
    place = np.where(tried, np.cumsum(tried) - 1, tried.sum())
    return place, Groups(np.where(codes < 0, -1, place[codes]), folds, (int(folds.max()) + 1, int(tried.sum()) + 1))


def totals(values: Expression, groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values and number of observations that express the gene: folds × groups × genes."""
    sums, expressing = _markers.totals(values.rows, groups.both, int(np.prod(groups.shape)))
    return sums.reshape(*groups.shape, -1), expressing.reshape(*groups.shape, -1)


def found(values: Expression, groups: Groups, sums: np.ndarray, rules: Rules) -> list[list[np.ndarray]]:
    """Markers by fold and group: the genes with the highest Wilcoxon scores in the other fold, or in the only one.

    The published form takes the most expressed genes of clusters that are too small, and negative scores as well.
    """
    z = _markers.wilcoxon(values.ranks(groups.folds), groups.group, groups.shape[1], tie_correct=not rules.paper)
    small = groups.sizes.sum(0) < rules.min_cells
    score = np.where(small, sums / np.maximum(groups.sizes, 1), z) if rules.paper else z
    if not rules.paper:
        padj = false_discovery_control(ndtr(-np.nan_to_num(z)), axis=2)
        score = np.where((z > 0) & (padj <= rules.max_padj), z, -np.inf)
    score = np.where(np.isnan(score), -np.inf, score)
    best = np.argsort(-score, axis=2, kind="stable")[::-1, :-1, : rules.n_markers]
    return [
        [genes[np.isfinite(score[-1 - f, c, genes])] for c, genes in enumerate(by_group)]
        for f, by_group in enumerate(best)
    ]


def _weights(chosen: list[list[np.ndarray]], groups: Groups, n_genes: int) -> np.ndarray:
    """Weights that make the mean over a group's markers: folds × groups × genes; 0 unless all folds have markers."""
    weights = np.zeros((*groups.shape, n_genes))
    for c, lists in enumerate(zip(*chosen, strict=True)):
        for f, genes in enumerate(lists):
            if all(map(len, lists)):
                weights[f, c, genes] = 1 / len(genes)
    return weights


def _shares(expressing: np.ndarray, groups: Groups, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Coherence and specificity by group, averaged over the observations of the folds."""
    rest = groups.sizes.sum(1, keepdims=True) - groups.sizes
    inside = expressing / np.maximum(groups.sizes, 1)
    outside = (expressing.sum(1, keepdims=True) - expressing) / np.where(rest > 0, rest, np.nan)
    share = (groups.sizes / np.maximum(groups.sizes.sum(0), 1))[:, :, 0]
    return {
        "coherence": ((weights * inside).sum(2) * share).sum(0),
        "specificity": ((weights * (inside - outside)).sum(2) * share).sum(0),
    }


def _exclusions(values: Expression, groups: Groups, weights: np.ndarray, rules: Rules) -> dict[str, np.ndarray]:
    """Rate of observations with a higher score for another group, and number without any marker, by group."""
    margin = MARGIN
    if rules.paper:
        weights, margin = (weights > 0).astype(np.float64), PUBLISHED_MARGIN
    own, other = _markers.own_and_best_other(values.rows, groups.group, groups.folds, weights)
    scored, compared = ~np.isnan(own), ~np.isnan(own) & ~np.isnan(other)

    def count(which: np.ndarray) -> np.ndarray:
        return np.bincount(groups.group[which], minlength=groups.shape[1]).astype(np.float64)

    excluded, n = count(compared & (other > own + margin)), count(compared)
    return {
        "exclusion_rate": np.divide(excluded, n, out=np.full(len(n), np.nan), where=n > 0),
        "n_marker_negative": count(scored & (own == 0)),
    }


def _names(values: Expression, chosen: list[list[np.ndarray]], group: int) -> str:
    genes = dict.fromkeys(g for lists in chosen for g in lists[group])
    return ", ".join(str(g if values.names is None else values.names[g]) for g in genes)


def _reason(name: str, n_obs: int, n_clusters: int, given: dict[str, np.ndarray] | None, rules: Rules) -> str:
    """Why a cluster has no markers."""
    if given is not None:
        return "none of its markers is in the table" if name in given else "none is given"
    if n_obs < rules.min_cells and not rules.paper:
        return f"fewer than {rules.min_cells} observations"
    return "there is no other cluster" if n_clusters == 1 else "no gene is higher than in the rest"


def coherence(table: pd.DataFrame) -> MarkerCoherence:
    """Mean over the clusters that have markers, and over their observations."""
    own = table[table["coherence"].notna()]
    weighted = float(np.average(own["coherence"], weights=own["n_obs"])) if len(own) else float("nan")
    return MarkerCoherence(float(own["coherence"].mean()), weighted)


def specificity(table: pd.DataFrame) -> float:
    """Mean over the clusters that have markers."""
    return float(table["specificity"].mean())


def exclusion(table: pd.DataFrame) -> MarkerExclusion:
    """Rate over the observations whose cluster has markers, and number without any."""
    own = table[table["exclusion_rate"].notna()]
    rate = float(np.average(own["exclusion_rate"], weights=own["n_obs"])) if len(own) else float("nan")
    return MarkerExclusion(rate, int(table["n_marker_negative"].sum()))


def left_out(table: pd.DataFrame) -> str:
    """Which clusters have no markers, why, and how many observations they hold; empty where all have some."""
    without = table[table["note"] != ""]
    if not len(without):
        return ""
    share = without["n_obs"].sum() / table["n_obs"].sum()
    reasons = "; ".join(
        f"{_checks._listed(own.index, 4)}: {reason}" for reason, own in without.groupby("note", sort=False)
    )
    return f"{len(without)} of {len(table)} clusters ({share:.1%} of the observations) have no markers ({reasons})"
