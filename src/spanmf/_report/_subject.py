"""What a report is about: a table and the keys of what is in it, each read once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from scipy.optimize import linear_sum_assignment

from .. import _checks, _composition, _data, _keys, gr
from .._format import percent
from ..metrics._panel import ALL, panel
from ..metrics._scorer import run_params
from ..pl import _map
from ..pl._colors import MISSING, PALETTE, label_colors
from ._words import DOMAINS, Words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData


TEXTS = {"key": "", "library": ALL, "metric": "", "better": "", "note": ""}  # columns of the metrics, where they lack
SIZES = ("n_cells", "n_genes", "n_edges", "n_isolated", "neighbours_mean", "n_factors")  # stand elsewhere on the page
SWEEP = "sweep"  # uns key of the table of `tl.sweep`


@dataclass(frozen=True, eq=False)
class Subject:
    """A table, the key that is described in full, and those that are compared with it."""

    adata: AnnData
    key: str
    others: Sequence[str] = ()
    library_key: str | None = None
    reference_key: str | None = None
    connectivity_key: str | None = None
    spatial_key: str = _keys.SPATIAL
    um_per_unit: float | None = None
    metrics: pd.DataFrame | None = None
    sweep: pd.DataFrame | None = None
    words: Words = DOMAINS
    remarks: list[str] = field(default_factory=list)  # what the sections have to warn of

    @property
    def keys(self) -> list[str]:
        """The key described in full, then the others."""
        return [self.key, *self.others]

    @property
    def has_labels(self) -> bool:
        """Whether the key has labels."""
        return self.key in self.adata.obs

    @property
    def has_factors(self) -> bool:
        """Whether the key has factors and loadings."""
        keys = _keys.FactorKeys(self.key)
        return keys.factors in self.adata.obsm and keys.loadings in self.adata.varm

    @cached_property
    def labels(self) -> tuple[np.ndarray, list[str]]:
        """Codes (−1 where missing) and names of the domains."""
        return _data.get_labels(self.adata, self.key)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Cells of each domain."""
        codes, names = self.labels
        return np.bincount(codes[codes >= 0], minlength=len(names))

    def colors(self, key: str) -> dict[str, str]:
        """Colour of every label as ``#rrggbb``. A known label that matches a domain has that domain's colour."""
        colors = {name: to_hex(color) for name, color in label_colors(self.adata, key).items()}
        if key == self.reference_key and self.has_labels:
            colors |= self._matched_colors()
        return colors

    def _matched_colors(self) -> dict[str, str]:
        """Each known label in the colour of the domain assigned to it (one each, most cells in common), else in another."""
        (codes, names), (known, labels) = self.labels, _data.get_labels(self.adata, self.reference_key)
        common = np.zeros((len(labels), len(names)))
        both = (codes >= 0) & (known >= 0)
        np.add.at(common, (known[both], codes[both]), 1)
        own = self.colors(self.key)
        pairs = zip(*linear_sum_assignment(-common), strict=True)
        out = {labels[i]: own[names[j]] for i, j in pairs if common[i, j] > 0}
        spare = [c.lower() for c in PALETTE if c.lower() not in own.values()] or [MISSING]
        rest = [name for name in labels if name not in out]
        return out | {name: spare[i % len(spare)] for i, name in enumerate(rest)}

    @cached_property
    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """W (n × k) and H (k × p)."""
        return _data.get_factors(self.adata, self.key)

    @cached_property
    def libraries(self) -> tuple[np.ndarray, list[str]]:
        """Library code of every cell, and names."""
        return _data.get_libraries(self.adata, self.library_key)

    @cached_property
    def composition(self) -> pd.DataFrame:
        """Share of each domain in each sample (rows sum to 1; samples without a labelled cell are left out)."""
        return _composition.shares(self.adata, self.key, self.library_key).share.dropna()

    @cached_property
    def sections(self) -> list[_map.Section]:
        """Libraries as they are drawn."""
        return _map.read_sections(
            self.adata, spatial_key=self.spatial_key, library_key=self.library_key, um_per_unit=self.um_per_unit
        )

    @cached_property
    def run(self) -> Mapping[str, Any]:
        """What ``uns`` records of the run; empty where it is gone."""
        found = self.adata.uns.get(_keys.FactorKeys(self.key).provenance)
        return found if hasattr(found, "get") and hasattr(found.get("params"), "get") else {}

    @cached_property
    def graph_key(self) -> str:
        """Full ``obsp`` key of the spatial graph (stored or described): that of the run, where it is recorded and there."""
        key = self.connectivity_key or run_params(self.adata, self.key).get("connectivity_key")
        try:
            return _data.graph_key(self.adata, key)
        except KeyError:
            if self.connectivity_key:
                raise
            return _data.graph_key(self.adata)

    @property
    def graph_key_or_none(self) -> str | None:
        """The same; None where there is no graph."""
        try:
            return self.graph_key
        except KeyError:
            return None

    def recorded_library_key(self) -> str | None:
        """The library column that the graph was built with, where it is recorded and there."""
        key = self.graph_params.get("library_key") if self.graph_key_or_none else None
        return key if key in self.adata.obs and _data.get_column(self.adata, key).notna().all() else None

    @cached_property
    def graph_params(self) -> Mapping[str, Any]:
        """What ``uns`` records of the graph."""
        base = self.graph_key.removesuffix(_keys.CONNECTIVITIES_SUFFIX)
        found = self.adata.uns.get(_keys.GraphKeys(base).neighbors, {})
        params = found.get("params", {}) if hasattr(found, "get") else {}
        return params if hasattr(params, "get") else {}

    @cached_property
    def graph_summary(self) -> pd.DataFrame:
        """Nodes, edges, isolates, degrees: one row a library, and "all"."""
        return gr.graph_summary(self.adata, self.graph_key, library_key=self.library_key)

    @cached_property
    def unit(self) -> str:
        """Unit of the coordinates, with a space before it; empty where it is unknown."""
        return {"um": " µm"}.get(self.adata.uns.get(_keys.SPATIAL_UNITS), "")

    def values(self, key: str) -> dict[str, float]:
        """Pooled numbers of a key."""
        if self.metrics is None:
            return {}
        own = self.pooled(key)
        return dict(zip(own["metric"], own["value"].astype(float), strict=True))

    def pooled(self, key: str) -> pd.DataFrame:
        """Rows of the metrics of a key over all samples."""
        return self.metrics[(self.metrics["key"] == key) & (self.metrics["library"] == ALL)]


def read_subject(
    adata: AnnData,
    keys: list[str],
    *,
    library_key: str | None = None,
    reference_key: str | None = None,
    metrics: pd.DataFrame | str | Path | None = None,
    sweep: pd.DataFrame | str | Path | None = None,
    gene_sets: Any = None,
    connectivity_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    layer: str | None = None,
    um_per_unit: float | None = None,
) -> Subject:
    """Check what was asked for, and compute the metrics where they are not given."""
    check_keys(adata, keys)
    for name in (library_key, reference_key):
        if name is not None:
            _checks.check_key(adata.obs, name, "obs")
    if connectivity_key is not None:
        _data.graph_key(adata, connectivity_key)
    subject = Subject(
        adata, keys[0], keys[1:], reference_key=reference_key, connectivity_key=connectivity_key,
        spatial_key=spatial_key, um_per_unit=um_per_unit,
    )  # fmt: skip
    subject = replace(subject, library_key=library_key or subject.recorded_library_key())
    _ = subject.libraries  # without gaps
    stored = adata.uns.get(SWEEP)
    if sweep is None and hasattr(stored, "get"):
        sweep = stored.get("table")
    if sweep is not None:
        sweep = read_table(sweep, "sweep", ("key", "n_components"))
    if metrics is None:
        options = {
            "library_key": subject.library_key, "per_library": len(subject.libraries[1]) > 1,
            "connectivity_key": subject.graph_key_or_none, "spatial_key": spatial_key, "reference_key": reference_key,
            "gene_sets": gene_sets, "layer": layer or run_params(adata, keys[0]).get("layer"),
        }  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", ".* were smoothed over the graph that scores"
            )  # stands beside the numbers
            metrics = panel(adata, keys, **options)
    metrics = read_table(metrics, "metrics", ("key", "metric", "value", "better"))
    plain = {c: metrics[c].fillna("").astype(str) if c in metrics else blank for c, blank in TEXTS.items()}
    metrics = metrics.assign(**plain)
    return replace(subject, sweep=sweep, metrics=metrics[~metrics["metric"].isin(SIZES)])


def read_table(table: pd.DataFrame | str | Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """A table or the CSV file of one; it must have rows, and the columns that tell what it is."""
    if not isinstance(table, pd.DataFrame):
        _checks.check_exists(Path(table))
        with _checks.reading(Path(table), "a CSV file"):
            table = pd.read_csv(table, dtype={"key": str, "library": str, "note": str})
    lacking = [c for c in columns if c not in table]
    if lacking or not len(table):
        what = f"lacks the columns {_checks._listed(lacking)}" if lacking else "has no rows"
        msg = f"`{name}` is not a table of {name}: it {what}."
        raise ValueError(msg)
    return table


def check_keys(adata: AnnData, keys: Sequence[str]) -> None:
    """Each key, at least one, must have labels or factors in the table."""
    _checks.check_members("key", keys, keys)
    for key in keys:
        slot = _keys.FactorKeys(key).factors
        if key not in adata.obs and slot not in adata.obsm:
            hint = (
                f"Nor is {slot!r} in `adata.obsm`. Run `sn.tl.hsnmf(adata)` first, or name another result with `key=`."
            )
            _checks.check_key(adata.obs, key, "obs", hint)


def domain_features(
    adata: AnnData, key: str, codes: np.ndarray, n_domains: int, n_features: int = 5
) -> list[list[str]]:
    """Features whose share of the reconstruction WH is most above that in the whole table, by domain."""
    W, H = _data.get_factors(adata, key)
    mean = np.stack([W[codes == i].mean(0, dtype=np.float64) for i in range(n_domains)] + [W.mean(0, dtype=np.float64)])
    expected = mean @ H
    shares = expected / np.maximum(expected.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    above = shares[:-1] - shares[-1]
    order = np.argsort(-above, axis=1, kind="stable")[:, :n_features]
    return [[str(adata.var_names[j]) for j in row if above[i, j] > 0] for i, row in enumerate(order)]


def most_frequent(labels: pd.Series, known: pd.Series) -> dict[str, str]:
    """The known label that most cells of each domain have, and the share that has it."""
    there = known.notna() & labels.notna()
    counts = pd.crosstab(labels[there].astype(str), known[there].astype(str), normalize="index")
    return {str(domain): f"{row.idxmax()} ({percent(row.max())})" for domain, row in counts.iterrows()}
