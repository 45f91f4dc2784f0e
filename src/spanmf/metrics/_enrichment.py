"""Enrichment of known gene sets among the genes of clusters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from .. import _checks
from .._docs import doc
from . import _inputs, _marker_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

CAP = 10.0  # of the score
MAX_PADJ = 0.05  # of a gene's own test, to be tested
GENOME = 20_000  # the published background: Enrichr's


class Enrichment(NamedTuple):
    """Median score over clusters, and the tests it comes from."""

    score: float
    table: pd.DataFrame


@doc
def enrichment(
    data: AnnData | SpatialData | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    gene_sets: Mapping[str, Sequence[str]] | str | Path,
    *,
    n_genes: int = 50,
    min_cells: int = 100,
    min_size: int = 3,
    preset: _marker_scores.Preset = None,
    var_names: Sequence[str] | None = None,
    layer: str | None = None,
    table_key: str | None = None,
) -> Enrichment:
    r"""How clearly the genes of the clusters are those of known gene sets.

    Each cluster's top genes (those significantly higher than in the rest by Wilcoxon's rank-sum test: adjusted p ≤ 0.05)
    are tested for over-representation of each set by the hypergeometric test, with the genes of the table as the
    background, through gseapy and without the network. The p-values of a cluster are adjusted (Benjamini–Hochberg) over all sets,
    those without a gene among the top included, and

    .. math:: \text{score} = \operatorname{median}_c\, \min\big(10,\; -\log_{10} \min_s p^\text{adj}_{cs}\big).

    **Range** 0 to 10; **higher is better**; above 1.3 the median cluster has a set at p < 0.05.

    **What else moves it.** The panel: of a few hundred genes chosen for their function, little can be told, and the
    score is low however good the clusters are. A larger gene set library costs by its adjustment and gains by its
    choice; ``n_genes`` moves it either way. Genes are the units of the test and are not independent: compare scores of
    the same panel and library, and read no p-value as such. (Random labels, whose top genes rise together by chance,
    reach p < 0.05 that way; here they score 0, since no gene is significantly higher in their clusters.)

    Parameters
    ----------
    {marker_data}
    {labels}
    gene_sets
        Mapping from name to genes, or a GMT file (:func:`spanmf.io.read_gmt`).
    n_genes
        Most genes of a cluster that are tested.
    min_cells
        Smallest cluster that is scored.
    min_size
        Sets with fewer genes in the table are left out.
    preset
        ``"paper"``: as published, but for its fault of counting a cluster several times: a background of 20,000 genes,
        most of which the panel cannot have measured, sets of any size, adjustment over the sets that share a gene with
        the cluster only, genes of any significance, ranks not corrected for ties, and the most expressed genes for
        clusters of fewer than ``min_cells``.
    var_names
        Names of the columns of X. ``None``: ``adata.var_names``.
    layer
        Layer to use instead of ``adata.X``.
    {table_key}

    Returns
    -------
    Named tuple ``(score, table)``. The table has one row for each cluster and set that share a gene, best first in each
    cluster: ``cluster``, ``set``, ``overlap`` (number of genes), ``n_set`` (genes of the set in the background),
    ``n_genes`` (tested genes of the cluster), ``p``, ``padj`` and ``genes`` (those shared, separated by commas). A
    cluster without significant genes, or whose genes are in no set, counts 0. Clusters of fewer than ``min_cells`` observations are left out, with a
    warning; NaN, with a warning, where none is left or there is only one.

    Raises
    ------
    ImportError
        If gseapy is not installed (``pip install 'spanmf[enrichment]'``).
    KeyError
        If the column or the layer is not in the table.
    ValueError
        If the file is not GMT, a set is empty, or no set has ``min_size`` genes in the table.

    References
    ----------
    Fang, Liu and Peltz (2023), Bioinformatics 39:btac757 (GSEApy).
    Mahmud et al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import scanpy as sc
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> sets = {"T cell": ["CD3D", "CD3E", "TRAC", "IL7R"], "stroma": ["COL1A1", "DCN", "C3", "PDGFRA"]}
    >>> result = sn.metrics.enrichment(adata, "cell_type", sets, n_genes=10, min_cells=20)
    >>> result.table.query("cluster == 'fibroblast'")["set"].iloc[0]
    'stroma'
    """
    _checks.check_range("n_genes", n_genes, 1, integer=True)
    _checks.check_range("min_size", min_size, 1, integer=True)
    rules = _marker_scores.rules_of(n_genes, min_cells, False, preset)
    adata, values = _marker_scores.expression(data, var_names, layer, table_key)
    if values.names is None:
        msg = "Gene sets are names of genes: pass the names of the columns of X as `var_names=`."
        raise TypeError(msg)
    codes, names = _inputs.named_labels(adata, labels, values.X.shape[0])
    library = library_of(gene_sets, values.names, min_size, preset)
    return evaluate(values, codes, names, library, rules)


def library_of(
    gene_sets: Any, names: pd.Index, min_size: int = 3, preset: _marker_scores.Preset = None
) -> dict[str, list[str]]:
    """The sets that are tested: their genes in the table, or all of them as published."""
    _hypergeometric_test()  # whether it is installed, before long work
    if isinstance(gene_sets, (str, Path)):
        from ..io import read_gmt

        gene_sets = read_gmt(gene_sets)
    sets = _checks.check_gene_lists(gene_sets, "`gene_sets`", "set")
    if preset == "paper":
        return sets
    _checks.check_unique(names, "variable names")
    panel = set(names)
    found = {name: [g for g in genes if g in panel] for name, genes in sets.items()}
    kept = {name: genes for name, genes in found.items() if len(genes) >= min_size}
    if not kept:
        most = max(len(genes) for genes in found.values())
        example = next(iter(sets.values()))
        msg = (
            f"None of the {len(sets)} gene sets has {min_size} genes in the table (the most is {most}). The sets have "
            f"{_checks._listed(example, 3)}, the table {_checks._listed(names, 3)}: are the names of one kind (symbols or Ensembl "
            "ids, upper or lower case)?"
        )
        raise ValueError(msg)
    return kept


def evaluate(
    values: _marker_scores.Expression,
    codes: np.ndarray,
    names: list[str],
    library: dict[str, list[str]],
    rules: _marker_scores.Rules,
) -> Enrichment:
    """Score and table for codes (−1: no label) of clusters with these names."""
    rules = replace(rules, cross_fit=False, max_padj=MAX_PADJ)
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    tried = ((sizes >= rules.min_cells) | rules.paper) & (len(names) > 1)
    _warn_left_out(names, sizes, tried, rules)
    if not tried.any():
        return Enrichment(float("nan"), _stacked([]))
    _, groups = _marker_scores.grouped(codes, tried, np.where(codes >= 0, 0, -1))
    chosen = _marker_scores.found(values, groups, _marker_scores.totals(values, groups)[0], rules)[0]
    background = GENOME if rules.paper else set(values.names)
    tables = [
        _tests(name, [str(g) for g in values.names[genes]], library, background)
        for name, genes in zip(np.array(names)[tried], chosen, strict=True)
    ]
    best = np.array([table["padj"].min() if len(table) else 1.0 for table in tables])
    score = np.minimum(CAP, -np.log10(np.maximum(best, 10.0**-CAP)))
    return Enrichment(float(np.median(score)) + 0.0, _stacked(tables))


def _hypergeometric_test() -> Callable[..., Any]:
    """One-sided test of every set that shares a gene with a query: name, p, odds ratio, overlap, size, genes shared."""
    try:
        from gseapy.stats import calc_pvalues
    except ImportError:
        _checks.fail_missing("gseapy", "The enrichment of gene sets", "enrichment")
    return calc_pvalues


def _tests(cluster: str, genes: list[str], library: dict[str, list[str]], background: int | set[str]) -> pd.DataFrame:
    """One row for each set that shares a gene with the cluster; the p-values of all others are 1."""
    test = _hypergeometric_test()
    shared = list(zip(*test(query=set(genes), gene_sets=library, background=background), strict=True))
    p = np.array([row[1] for row in shared])
    n_tests = len(shared) if isinstance(background, int) else len(library)
    padj = false_discovery_control(np.r_[p, np.ones(n_tests - len(p))])[: len(p)] if len(p) else p
    table = pd.DataFrame(
        {
            "cluster": cluster,
            "set": [row[0] for row in shared],
            "overlap": [row[3] for row in shared],
            "n_set": [row[4] for row in shared],
            "n_genes": len(genes),
            "p": p,
            "padj": padj,
            "genes": [", ".join(g for g in genes if g in row[5]) for row in shared],
        }
    )
    return table.sort_values("p", kind="stable", ignore_index=True)


def _stacked(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """All clusters below each other; the columns are there even if no row is."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else _tests("", [], {}, 0)


def _warn_left_out(names: list[str], sizes: np.ndarray, tried: np.ndarray, rules: _marker_scores.Rules) -> None:
    if tried.all():
        return
    if len(names) == 1:
        _checks.warn("The enrichment is NaN: there is only one cluster, so no gene is higher than in the rest.")
        return
    without = [name for name, has in zip(names, tried, strict=True) if not has]
    found = (
        f"{len(without)} of {len(names)} clusters ({_checks._listed(without, 4)}; {sizes[~tried].sum() / sizes.sum():.1%} of the "
        f"observations) have fewer than {rules.min_cells} observations"
    )
    _checks.warn(
        f"The enrichment is NaN: {found}." if not tried.any() else f"{found}: they are left out of the enrichment."
    )
