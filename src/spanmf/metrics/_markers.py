"""Marker genes of clusters: coherence (CMC), exclusion rate (MER) and specificity."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from .. import _checks, _data
from .._docs import doc
from ..core import _markers, _ops
from . import _inputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

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


@doc
def marker_coherence(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    markers: Mapping[Any, Sequence[str]] | pd.DataFrame | None = None,
    n_markers: int = 5,
    min_cells: int = 100,
    cross_fit: bool = True,
    preset: Preset = None,
    var_names: Sequence[str] | None = None,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> MarkerCoherence:
    r"""Share of a cluster's marker genes that its observations express (cell-marker coherence, CMC).

    .. math:: \mathrm{CMC} = \frac1{|C|} \sum_{c \in C} \frac{1}{n_c} \sum_{i \in c} \frac{1}{|M_c|}
       \sum_{g \in M_c} [x_{ig} > 0]

    with :math:`M_c` the markers of cluster c. ``weighted`` averages over observations instead of clusters C.

    **Range** 0 to 1; **higher is more coherent**.

    **What else moves it.** Depth and abundance: a gene that is expressed everywhere is expressed in the cluster, too, so
    read it beside :func:`marker_specificity`, which takes the rest of the tissue off. Few large clusters have abundant
    markers and score high; Wilcoxon's scores grow with the cluster, which favours abundant genes there. Domains that
    are mixtures of cell types score lower than cell types, and rightly so.

    Parameters
    ----------
    {marker_data}
    {labels}
    {marker_options}
    {table_key}

    Returns
    -------
    Named tuple ``(mean, weighted)``. Clusters without markers are left out, with a warning that names them; NaN, with a
    warning, where no cluster has any. :func:`marker_table` has the values by cluster.

    Raises
    ------
    KeyError
        If the column or the layer is not in the table.
    ValueError
        If none of the markers is in the table, or values are negative or not finite.

    References
    ----------
    Mahmud et al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import scanpy as sc
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> types = sn.metrics.marker_coherence(adata, "cell_type", min_cells=20)
    >>> domains = sn.metrics.marker_coherence(adata, "domain", min_cells=20)
    >>> types.mean > domains.mean  # a domain is a mixture of types
    True
    """
    table = _table_of(
        data,
        labels,
        markers,
        rules_of(n_markers, min_cells, cross_fit, preset),
        (var_names, layer, table_key),
        _data.default_rng(rng, random_state),
    )
    return coherence(_warned(table, "The coherence of markers"))


@doc
def marker_exclusion_rate(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    markers: Mapping[Any, Sequence[str]] | pd.DataFrame | None = None,
    n_markers: int = 5,
    min_cells: int = 100,
    cross_fit: bool = True,
    preset: Preset = None,
    var_names: Sequence[str] | None = None,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> MarkerExclusion:
    r"""Share of observations that express the markers of another cluster more than those of their own (MER).

    .. math:: \mathrm{MER} = \frac1n \Big|\Big\{i : \max_{c \ne l_i} s_{ic} > s_{i l_i} + 0.02 \Big\}\Big|,
       \qquad s_{ic} = \frac{1}{|M_c|} \sum_{g \in M_c} x_{ig}

    The mean over a cluster's markers does not favour clusters with many; the published sum and its margin of 0.1 are
    the same for five markers each, and under ``preset="paper"``.

    **Range** 0 to 1; **lower is better**. Random labels of L clusters reach about 1 − 1/L.

    **What else moves it.** More clusters, more competitors. Abundant genes as markers of one cluster exclude the
    observations of all others. Shallow observations express no marker at all and are then not excluded: they are
    counted apart (``n_negative``). The margin is in units of the values (log-normalised ones are meant).

    Parameters
    ----------
    {marker_data}
    {labels}
    {marker_options}
    {table_key}

    Returns
    -------
    Named tuple ``(rate, n_negative)``: the rate among the observations whose cluster has markers, and the number of
    those that express none of them. Clusters without markers are left out, with a warning that names them;
    the rate is NaN, with a warning, where fewer than two have any.

    Raises
    ------
    KeyError
        If the column or the layer is not in the table.
    ValueError
        If none of the markers is in the table, or values are negative or not finite.

    References
    ----------
    Mahmud et al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import scanpy as sc
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> types = sn.metrics.marker_exclusion_rate(adata, "cell_type", min_cells=20)
    >>> domains = sn.metrics.marker_exclusion_rate(adata, "domain", min_cells=20)
    >>> types.rate < domains.rate  # a domain is a mixture of types
    True
    """
    table = _table_of(
        data,
        labels,
        markers,
        rules_of(n_markers, min_cells, cross_fit, preset),
        (var_names, layer, table_key),
        _data.default_rng(rng, random_state),
    )
    result = exclusion(_warned(table, "The exclusion rate of markers"))
    if np.isnan(result.rate) and (table["note"] == "").any():
        _checks.warn("The exclusion rate of markers is NaN: only one cluster has markers, so there is no other.")
    return result


@doc
def marker_specificity(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    markers: Mapping[Any, Sequence[str]] | pd.DataFrame | None = None,
    n_markers: int = 5,
    min_cells: int = 100,
    cross_fit: bool = True,
    preset: Preset = None,
    var_names: Sequence[str] | None = None,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> float:
    r"""How much more often a cluster's markers are expressed inside it than outside.

    .. math:: \frac{1}{|C|} \sum_{c \in C} \frac{1}{|M_c|} \sum_{g \in M_c}
       \left(P(x_g > 0 \mid c) - P(x_g > 0 \mid \text{not } c)\right)

    **Range** −1 to 1; **higher is more specific**, and 0 is what random labels reach with ``cross_fit=True`` (more
    without it, since the best of many genes are then scored where they were found to be best).

    **What else moves it.** Depth: deep observations express abundant genes everywhere, and the difference closes.
    Merging similar clusters raises it.

    Parameters
    ----------
    {marker_data}
    {labels}
    {marker_options}
    {table_key}

    Returns
    -------
    The mean over clusters. Clusters without markers are left out, with a warning that names them; NaN, with a warning,
    where no cluster has any, or all observations are in one.

    Raises
    ------
    KeyError
        If the column or the layer is not in the table.
    ValueError
        If none of the markers is in the table, or values are negative or not finite.

    References
    ----------
    Mahmud et al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import scanpy as sc
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> sn.metrics.marker_specificity(adata, "cell_type", min_cells=20) > 0.2
    True
    >>> known = {"a": ["EPCAM", "KRT8"], "b": ["COL1A1"]}  # or with markers that are known
    >>> labels = adata.obs["cell_type"].map(lambda x: "b" if x == "fibroblast" else "a")
    >>> -1 < sn.metrics.marker_specificity(adata, labels, markers=known) < 1
    True
    """
    table = _table_of(
        data,
        labels,
        markers,
        rules_of(n_markers, min_cells, cross_fit, preset),
        (var_names, layer, table_key),
        _data.default_rng(rng, random_state),
    )
    value = specificity(_warned(table, "The specificity of markers"))
    if np.isnan(value) and (table["note"] == "").any():
        _checks.warn("The specificity of markers is NaN: all observations are in one cluster, so there is no outside.")
    return value


@doc
def marker_table(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    markers: Mapping[Any, Sequence[str]] | pd.DataFrame | None = None,
    n_markers: int = 5,
    min_cells: int = 100,
    cross_fit: bool = True,
    preset: Preset = None,
    var_names: Sequence[str] | None = None,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Markers of every cluster, with its coherence, specificity and exclusion rate.

    What :func:`marker_coherence`, :func:`marker_specificity` and :func:`marker_exclusion_rate` average, to see which
    cluster is good and which is not.

    Parameters
    ----------
    {marker_data}
    {labels}
    {marker_options}
    {table_key}

    Returns
    -------
    DataFrame with one row a cluster and the columns ``n_obs``, ``markers`` (names, separated by commas; with
    ``cross_fit=True`` those found in either half), ``coherence``, ``specificity``, ``exclusion_rate``,
    ``n_marker_negative`` and ``note``: why a cluster has no markers and NaN for values, else empty.

    Raises
    ------
    KeyError
        If the column or the layer is not in the table.
    ValueError
        If none of the markers is in the table, or values are negative or not finite.

    Examples
    --------
    >>> import scanpy as sc
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> table = sn.metrics.marker_table(adata, "cell_type", n_markers=3)
    >>> list(table.columns)
    ['n_obs', 'markers', 'coherence', 'specificity', 'exclusion_rate', 'n_marker_negative', 'note']
    """
    return _table_of(
        data,
        labels,
        markers,
        rules_of(n_markers, min_cells, cross_fit, preset),
        (var_names, layer, table_key),
        _data.default_rng(rng, random_state),
    )


def _table_of(
    data: Any, labels: Any, markers: Any, rules: Rules, where: tuple[Any, Any, Any], rng: np.random.Generator
) -> pd.DataFrame:
    adata, values = expression(data, *where)
    codes, names = _inputs.named_labels(adata, labels, values.X.shape[0])
    known = None if markers is None else given_markers(markers, names, values.names)
    return evaluate(values, codes, names, known, rules, rng)


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


def _warned(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """Say which clusters are left out, or that there is no value at all."""
    found = left_out(table)
    if found:
        _checks.warn(
            f"{what} is NaN: {found}."
            if (table["note"] != "").all()
            else f"{found}: they are left out of {what.lower()}."
        )
    return table
