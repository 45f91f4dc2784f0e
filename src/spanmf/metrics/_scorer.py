"""What scores many labelings and factorisations of one table, and computes once what they share."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _checks, _data, _keys
from ..core import _scale
from ._enrichment import library_of
from ._places import Places, library_codes
from ._smoothing import Smoothing, run_params, smoothing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from ..core._tiles import AnyGraph


@dataclass(frozen=True, eq=False)
class Factors:
    """A representation W (n × k), its loadings H (k × p) where it has any, and what is known of its making.

    Lines that need the factors alone are kept in ``lines``, so that many labelings of the same factors share them.
    """

    W: np.ndarray
    H: np.ndarray | None = None
    smoothing: Smoothing | None = None
    scale: _scale.Scale = "gram"
    made: Mapping[str, Any] = field(default_factory=dict)  # parameters of the run, where they are known
    lines: dict[Any, list[Line]] = field(default_factory=dict)

    @cached_property
    def Z(self) -> np.ndarray:
        """The factors on a scale on which distances mean something."""
        return self.W if self.H is None else _scale.rescale(self.W, self.H, self.scale)


@dataclass(frozen=True, eq=False)
class Candidate:
    """What is scored: labels (codes −1, 0, 1, … with the names of the clusters), factors, or both."""

    codes: np.ndarray | None = None
    names: Sequence[str] = ()
    factors: Factors | None = None

    @cached_property
    def known(self) -> np.ndarray:
        """Which observations have a label."""
        return self.codes >= 0

    @cached_property
    def compact(self) -> np.ndarray:
        """Codes 0, 1, … of the labelled observations, without gaps."""
        return np.unique(self.codes[self.known], return_inverse=True)[1]

    @property
    def n_clusters(self) -> int:
        """Clusters that have an observation."""
        return int(self.compact.max()) + 1 if len(self.compact) else 0

    @property
    def has(self) -> set[str]:
        """What rows of the panel can ask for."""
        out = set()
        if self.codes is not None:
            out |= {"labels", "clusters"}
        if self.factors is not None:
            out.add("factors")
            if self.factors.H is not None:
                out.add("loadings")
        return out


class Line(NamedTuple):
    """One number: ``better`` is "higher", "lower" or ""; ``note`` the reason of a NaN, or a caveat."""

    metric: str
    value: float
    better: str
    note: str


@dataclass(frozen=True, eq=False)
class Row:
    """A metric (or several that are computed together) of a panel.

    ``metrics`` gives each name its better direction. ``needs`` names what must be there for the row to appear: of the
    candidate ``"labels"``, ``"clusters"`` (labels that make at least two clusters, fewer than observations: else NaN), ``"factors"``,
    ``"loadings"``; of the scorer ``"reference"``, ``"gene_sets"``. ``compute`` gives the numbers in the order of ``metrics``; a reason
    for none is raised as UndefinedError or warned of.
    """

    metrics: Mapping[str, str]
    needs: frozenset[str]
    compute: Callable[[Scorer, Candidate], Iterable[float]]
    caveat: Callable[[Scorer, Candidate], str] = lambda scorer, candidate: ""


class Scorer:
    """Scores candidates of one table. Graph, places, matrix and whatever depends on the table alone is made once."""

    def __init__(
        self,
        adata: AnnData,
        *,
        library_key: str | None = None,
        connectivity_key: str | None = None,
        spatial_key: str = _keys.SPATIAL,
        reference_key: str | None = None,
        markers: Mapping[str, Sequence[str]] | None = None,
        gene_sets: Mapping[str, Sequence[str]] | str | Path | None = None,
        layer: str | None = None,
        rng: int | np.random.Generator = 0,
    ) -> None:
        self.adata = adata
        self.library_key, self.connectivity_key, self.spatial_key = library_key, connectivity_key, spatial_key
        self.reference_key, self.markers = reference_key, markers
        self.layer = layer
        self.seed = int(_data.default_rng(rng).integers(2**31 - 1))  # every metric starts from it: no order matters
        self._places: dict[bytes, Places] = {}
        self._matrices: dict[str | None, Any] = {}
        self.cache: dict[Any, Any] = {}  # for what a metric needs of the table alone
        if connectivity_key is not None:
            _data.graph_key(adata, connectivity_key)
        if layer is not None:
            _checks.check_key(adata.layers, layer, "layers")
        _data.get_libraries(adata, library_key)
        if reference_key is not None:
            _data.get_labels(adata, reference_key)
        self.gene_sets = None if gene_sets is None else library_of(gene_sets, adata.var_names)

    # --- what the table holds

    @cached_property
    def _graph(self) -> tuple[AnyGraph, str]:
        with _undefined_if(KeyError, ValueError):
            return _data.find_graph(self.adata, self.connectivity_key)

    @property
    def graph(self) -> AnyGraph:
        """The graph that scores."""
        return self._graph[0]

    @property
    def graph_key(self) -> str | None:
        """Its full ``obsp`` key; None where there is no graph."""
        try:
            return _data.graph_key(self.adata, self.connectivity_key)
        except KeyError:
            return None

    def another_graph(self, key: str) -> AnyGraph | None:
        """Give the graph of this ``obsp`` key (with or without its suffix); None where it is gone."""
        try:
            return _data.find_graph(self.adata, key)[0]
        except KeyError:
            return None

    @cached_property
    def libraries(self) -> np.ndarray:
        """Library code of every observation."""
        return library_codes(self.adata, self.library_key, self.adata.n_obs)

    @cached_property
    def coordinates(self) -> np.ndarray:
        """Coordinates of every observation."""
        with _undefined_if(KeyError, ValueError, TypeError):
            return _data.get_coordinates(self.adata, self.spatial_key)

    def places(self, known: np.ndarray) -> Places:
        """Places of the labelled observations; those of the last few selections are kept."""
        key = np.packbits(known).tobytes()
        if key not in self._places:
            if len(self._places) >= 4:
                self._places.pop(next(iter(self._places)))
            self._places[key] = Places(self.coordinates[known], self.libraries[known])
        return self._places[key]

    def matrix(self, layer: str | None = None) -> Any:
        """Give the layer named here, or the one the scorer was given, or X of the table; checked once."""
        layer = self.layer if layer is None else layer
        if layer not in self._matrices:
            with _undefined_if(KeyError, ValueError, TypeError):
                X, name = _data.get_matrix(self.adata, layer)
                _checks.check_matrix(X, name)
            self._matrices[layer] = X
        return self._matrices[layer]

    @cached_property
    def reference(self) -> np.ndarray:
        """Codes of the known labels (−1 where missing)."""
        return _data.get_labels(self.adata, self.reference_key)[0].astype(np.int64)

    @property
    def has(self) -> set[str]:
        """What rows of the panel can ask for."""
        given = {"reference": self.reference_key, "gene_sets": self.gene_sets}
        return {name for name, value in given.items() if value is not None}

    def rng(self) -> np.random.Generator:
        """A generator in the same state for every metric and candidate."""
        return np.random.default_rng(self.seed)

    # --- what is scored

    def candidate(self, key: str) -> Candidate:
        """Labels in ``obs[key]``, factors in ``obsm["X_" + key]`` (or ``obsm[key]``), or both: whatever is there."""
        codes, names = None, []
        if key in self.adata.obs:
            codes, names = _data.get_labels(self.adata, key)
            codes = codes.astype(np.int64)
        factors = self._factors(key)
        if codes is None and factors is None:
            msg = (
                f"{key!r} is neither a column of `adata.obs`, which holds {_checks._listed(self.adata.obs)}, nor a "
                f"representation in `adata.obsm`, which holds {_checks._listed(self.adata.obsm)}. Run `sn.tl.hsnmf(adata)` first."
            )
            raise KeyError(msg)
        return Candidate(codes, names, factors)

    def _factors(self, key: str) -> Factors | None:
        params = run_params(self.adata, key)
        slot = next((k for k in (_keys.FactorKeys(key).factors, key) if k in self.adata.obsm), params.get("use_rep"))
        if slot not in self.adata.obsm:
            return None
        W = _data.get_representation(self.adata, slot)
        H, base = None, str(slot).removeprefix("X_")
        if _keys.FactorKeys(base).loadings in self.adata.varm:
            H = np.ascontiguousarray(np.asarray(self.adata.varm[_keys.FactorKeys(base).loadings], dtype=np.float32).T)
            _checks.check_same_rank(W, H, base)
        made = run_params(self.adata, base)
        return Factors(W, H, smoothing_of(made), made=made)

    def score(self, candidate: Candidate, rows: Sequence[Row]) -> list[Line]:
        """One line a metric that the candidate can have, in the order of the rows."""
        lines: list[Line] = []
        for row in rows:
            if not row.needs <= candidate.has | self.has:
                continue
            if row.needs <= {"factors", "loadings"} and candidate.factors is not None:
                kept = candidate.factors.lines
                if (self, row) not in kept:
                    kept[self, row] = self._lines(row, candidate)
                lines += kept[self, row]
            else:
                lines += self._lines(row, candidate)
        return lines

    def _lines(self, row: Row, candidate: Candidate) -> list[Line]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", _checks.SpanmfWarning)
            try:
                if "clusters" in row.needs:
                    _checks.check_n_clusters(candidate.n_clusters, len(candidate.compact))
                values = [float(v) for v in row.compute(self, candidate)]
                reasons = []
            except _checks.UndefinedError as reason:
                values, reasons = [np.nan] * len(row.metrics), [str(reason)]
        for w in caught:
            if issubclass(w.category, _checks.SpanmfWarning):
                reasons.append(str(w.message))
            else:
                warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
        reason, caveat = " ".join(reasons), row.caveat(self, candidate)
        concerns_all = not np.isnan(values).any()
        return [
            Line(name, v, better, reason if reason and (concerns_all or np.isnan(v)) else caveat)
            for (name, better), v in zip(row.metrics.items(), values, strict=True)
        ]


@contextmanager
def _undefined_if(*kinds: type[Exception]) -> Iterator[None]:
    """Errors of these kinds become the reason why a number is not there."""
    try:
        yield
    except kinds as error:
        raise _checks.UndefinedError(_checks.cause(error)) from error
