"""Which labels lie next to which, against random labelling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .. import _checks, _data, _keys
from .._docs import doc
from .._logging import status, timed
from ..core import _colocalization as core
from ..core._fdr import benjamini_hochberg
from ..core._tiles import RadiusGraph, Ring, among
from ._surroundings import pairs, surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from ..core._tiles import AnyGraph

STATISTICS = ("join_count", "prevalence", "edge_ratio")
NULLS = ("labels", "toroidal")
POOLED = "all"
MAX_LABELS = 1000  # time grows with their square
N_PERMUTATIONS = {"labels": 0, "toroidal": 200}
LONG = 2_000_000  # edges × permutations above which a progress bar is of use


@doc
def colocalization(
    adata: AnnData | SpatialData,
    cluster_key: str,
    *,
    statistic: Literal["join_count", "prevalence", "edge_ratio"] = "join_count",
    null: Literal["labels", "toroidal"] = "labels",
    radius: float | None = None,
    connectivity_key: str | None = None,
    weighted: bool = False,
    include_self: bool = False,
    library_key: str | None = None,
    n_permutations: int | None = None,
    spatial_key: str = _keys.SPATIAL,
    preset: Literal["paper"] | None = None,
    rng: int | np.random.Generator = 0,
    key_added: str = "colocalization",
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Find which labels lie next to which, more or less often than chance has it.

    The edges :math:`E_{ab}` of the graph between labels a and b are counted and compared with their mean and variance
    when the labels are permuted over the observations of a library. Both are exact (join counts of Cliff and Ord under
    non-free sampling; see :doc:`/methods`): nothing is permuted, and a million cells with 20 labels take seconds.

    .. math:: \mathrm{ratio} = \frac{E_{ab}}{\mathbb{E}\,E_{ab}}, \qquad z = \frac{E_{ab} - \mathbb{E}\,E_{ab}}{\mathrm{sd}\,E_{ab}}

    p-values are two-sided, of a negative binomial with that mean and variance (binomial or Poisson where the variance is
    not above the mean), since counts of rare labels are far from normal. Where hubs or dense cores break even that, the
    places of the rare label are drawn 4,000 times.

    **Read the ratio first.** Random labelling is a weak null: in a tissue nearly every pair is "significant" against it,
    because labels come in patches. ``null="toroidal"`` keeps the patches and moves them against each other.

    Parameters
    ----------
    {adata}
    {cluster_key}
    statistic
        What the column ``score`` holds. ``"join_count"``: z. ``"edge_ratio"``: ratio − 1. ``"prevalence"``: the mean over
        the a of the share of b among their neighbours, :math:`(\bar s_{ab} - p_b) / \sqrt{p_b (1 - p_b)}` with :math:`p_b`
        the share of b among all; it has a direction, so that there is a row for (a, b) and one for (b, a).
    null
        ``"labels"``: labels permuted over all places. ``"toroidal"``: the map of the labels moved by random vectors on the
        torus of each library's bounding box, against itself (best for sections that fill their box).
    radius
        Neighbours are all pairs of a library within this distance, in the units of the coordinates.
    {connectivity_key}
        Not with ``radius``. A graph that is not symmetric is read as the union of its edges both ways.
    weighted
        Sum the weights of the edges instead of counting them; p-values are then normal ones.
    include_self
        Count an observation as its own neighbour (``"prevalence"`` only; the published code does).
    {library_key}
        Labels are permuted within libraries and edges between libraries are left out. There is one block of rows a
        library, and one for ``"all"``: the sums of counts, means and variances.
    n_permutations
        Number of toroidal shifts (default 200), or, with ``null="labels"``, of permutations to check the exact result by.
    {spatial_key}
    preset
        ``"paper"``: the published expectation :math:`n_a n_b / n` for ``"edge_ratio"``, which forgets how many edges there
        are, and ``include_self`` for ``"prevalence"``.
    rng
        Seed or :class:`numpy.random.Generator` of the draws.
    key_added
        Key of ``adata.uns`` to write to.
    {table_key}

    Returns
    -------
    DataFrame with one row a pair (and library): ``a``, ``b``, ``library``, ``n_a``, ``n_b``, ``observed`` (edges),
    ``expected``, ``ratio``, ``sd``, ``z``, ``pval``, ``pval_adj`` (Benjamini–Hochberg over the pairs of a library) and
    ``score``. NaN where a label is absent from a library or nothing can vary. Also written:

    ``adata.uns["colocalization"]`` : dict
        ``table``, ``params``, ``versions``.

    Raises
    ------
    KeyError
        If the labels, the graph or the coordinates are missing.
    ValueError
        If there is one label only, both ``radius`` and ``connectivity_key`` are given, or options do not go together.

    References
    ----------
    Cliff and Ord (1981), Spatial Processes: Models and Applications, ch. 2. Andersson and Nyström (2025),
    `arXiv:2506.18692 <https://arxiv.org/abs/2506.18692>`_, an analytical neighbourhood enrichment score.
    The published "Jones–Scornecchi" scores (SpatialMultiOmics) are ``"prevalence"`` in its code and ``"edge_ratio"`` in
    its text; no such statistic is found under that name.

    See Also
    --------
    squidpy.gr.nhood_enrichment : the same z by permutations.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> table = sn.gr.colocalization(adata, "cell_type", radius=30, library_key="library")
    >>> pooled = table[table["library"] == "all"].set_index(["a", "b"])
    >>> bool((pooled["observed"].sum() - pooled["expected"].sum()).round(6) == 0)  # edges are shared out, not made
    True
    """
    table = _data.get_table(adata, table_key)
    _check_options(statistic, null, preset, weighted=weighted, include_self=include_self)
    include_self = include_self or (preset == "paper" and statistic == "prevalence")
    n_permutations = _n_permutations(n_permutations, null)
    codes, names = _labels(table, cluster_key)
    libraries, library_names = _data.get_libraries(table, library_key)
    rng_ = _data.default_rng(rng)
    with timed("gr.colocalization") as notes:
        A, source = surroundings(table, radius, connectivity_key, libraries, spatial_key, weighted=weighted)
        counts = core.pair_counts(A, codes, libraries, len(names), len(library_names))
        _warn_of_crossing(counts.crossing, A, library_key)
        found = core.moments(counts)
        if n_permutations:
            coords = _data.get_coordinates(table, spatial_key) if null == "toroidal" else None
            blocks = _permuted(A, codes, libraries, found, coords, n_permutations, rng_)
        else:
            blocks = _exact(A, codes, libraries, counts, found, rng_, weighted=weighted)
        scores = _scores(statistic, preset, A, codes, libraries, counts, blocks, include_self=include_self)
        result = _tidy(blocks, scores, counts.n, names, library_names, directed=statistic == "prevalence")
        params = {
            "cluster_key": cluster_key, "statistic": statistic, "null": null, "weighted": weighted,
            "include_self": include_self, "library_key": library_key, "n_permutations": n_permutations, "preset": preset,
            "rng": rng if isinstance(rng, int) else None,
        }  # fmt: skip
        table.uns[key_added] = _data.provenance(params | source) | {"table": result}
        total = f"{counts.S0.sum() / 2:.7g} {'weight of' if weighted else ''} edges".replace("  ", " ")
        notes += [f"{len(names)} labels, {total}", f"added uns[{key_added!r}]"]
    return result.copy()


@doc
def colocalization_by_distance(
    adata: AnnData | SpatialData,
    cluster_key: str,
    radii: Sequence[float],
    *,
    library_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    key_added: str = "colocalization_by_distance",
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Co-localisation over rings of distance: one curve a pair, since one radius never fits all.

    The join counts of :func:`spanmf.gr.colocalization` on the graphs of all pairs with
    :math:`r_{m-1} < d_{ij} \le r_m` (the first ring from 0, coincident observations included). Pairs are looked for and
    counted some 65,000 observations at a time and not stored.

    Parameters
    ----------
    {adata}
    {cluster_key}
    radii
        Outer radii of the rings, increasing, in the units of the coordinates.
    {library_key}
    {spatial_key}
    key_added
        Key of ``adata.uns`` to write to.
    {table_key}

    Returns
    -------
    DataFrame as that of :func:`spanmf.gr.colocalization`, with the columns ``radius_from`` and ``radius_to``. Also
    written to ``adata.uns["colocalization_by_distance"]`` (``table``, ``params``, ``versions``). A ring without any pair
    has NaN.

    Raises
    ------
    KeyError
        If the labels or the coordinates are missing.
    ValueError
        If radii are not positive and increasing, or there is one label only.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> table = sn.gr.colocalization_by_distance(adata, "domain", [20, 40, 80], library_key="library")
    >>> same = table[(table["a"] == table["b"]) & (table["library"] == "all")]
    >>> near, far = (same.loc[same["radius_to"] == r, "ratio"].mean() for r in (20, 80))
    >>> bool(near > far > 1)  # domains are compact, and less so from afar
    True
    """
    table = _data.get_table(adata, table_key)
    radii_ = _check_radii(radii)
    codes, names = _labels(table, cluster_key)
    libraries, library_names = _data.get_libraries(table, library_key)
    rings = []
    with timed("gr.colocalization_by_distance") as notes:
        A = pairs(table, radii_[-1], libraries, spatial_key)
        starts = [0.0, *radii_[:-1]]
        cut = [Ring(A, low or -1.0, high) for low, high in zip(starts, radii_, strict=True)]  # what coincides is near
        found = core.ring_counts(A, cut, codes, libraries, len(names), len(library_names))
        for low, high, ring, counts in zip(starts, radii_, cut, found, strict=True):
            blocks = _exact(ring, codes, libraries, counts, core.moments(counts), np.random.default_rng(0))
            tidy = _tidy(blocks, [b.z for b in blocks], counts.n, names, library_names, directed=False)
            rings.append(tidy.assign(radius_from=low, radius_to=high))
        result = pd.concat(rings, ignore_index=True)
        params = {
            "cluster_key": cluster_key,
            "radii": radii_,
            "library_key": library_key,
            "spatial_key": spatial_key,
        }
        table.uns[key_added] = _data.provenance(params) | {"table": result}
        notes += [f"{len(names)} labels, {len(radii_)} rings", f"added uns[{key_added!r}]"]
    return result.copy()


class _Block:
    """Edges of every pair in one library (or all): labels × labels, with what chance has."""

    def __init__(
        self, observed: np.ndarray, expected: np.ndarray, variance: np.ndarray, lower: np.ndarray, upper: np.ndarray
    ) -> None:
        self.observed, self.expected, self.sd = observed, expected, np.sqrt(variance)
        self.ratio = np.divide(observed, expected, out=np.full(observed.shape, np.nan), where=expected > 0)
        self.z = np.divide(observed - expected, self.sd, out=np.full(observed.shape, np.nan), where=self.sd > 0)
        self.pval = np.where(self.sd > 0, core.two_sided(lower, upper), np.nan)


def _exact(
    A: AnyGraph | Ring,
    codes: np.ndarray,
    libraries: np.ndarray,
    counts: core.Counts,
    found: core.Moments,
    rng: np.random.Generator,
    *,
    weighted: bool = False,
) -> list[_Block]:
    """One block a library and, of several, one for all."""
    tails = core.normal_tails if weighted else core.tails
    blocks = []
    for g in range(len(counts.n)):
        part = core.Moments(*(x[g] for x in found))
        lower, upper = tails(*part)
        if not weighted:
            _draw_uneven(lower, upper, A, codes, libraries, counts, found, g, rng)
        blocks.append(_Block(*part, lower, upper))
    if len(blocks) > 1:
        total = core.pooled(found)
        blocks.append(_Block(*total, *tails(*total)))
    return blocks


def _draw_uneven(
    lower: np.ndarray,
    upper: np.ndarray,
    A: AnyGraph | Ring,
    codes: np.ndarray,
    libraries: np.ndarray,
    counts: core.Counts,
    found: core.Moments,
    g: int,
    rng: np.random.Generator,
) -> None:
    """Replace the tails of the pairs that uneven degrees take from the negative binomial."""
    members = np.flatnonzero((libraries == g) & (codes >= 0))
    uneven = core.uneven_pairs(counts.degrees[members], counts.n[g], core.Moments(*(x[g] for x in found)))
    if uneven and isinstance(A, RadiusGraph | Ring):  # the tiles of one library, not of all, for every label
        A, members = A.subset(members), np.arange(len(members))
    places: dict[int, core.Places] = {}
    for a, b in uneven:
        if a not in places:
            places[a] = core.draw_places(A, members, int(counts.n[g, a]), rng)
        one = core.drawn_tails(places[a], int(counts.n[g, b]), found.observed[g, a, b], same=a == b)
        lower[a, b], upper[a, b] = lower[b, a], upper[b, a] = one


def _permuted(
    A: AnyGraph,
    codes: np.ndarray,
    libraries: np.ndarray,
    found: core.Moments,
    coords: np.ndarray | None,
    n_permutations: int,
    rng: np.random.Generator,
) -> list[_Block]:
    """The same blocks by permutation of the labels, or by toroidal shifts where coordinates are given."""
    n_groups, n_labels = found.observed.shape[:2]
    drawn = np.empty((n_permutations, n_groups, n_labels, n_labels))
    with status("gr.colocalization: permutations", show=A.nnz * n_permutations > LONG):
        for g in range(n_groups):
            rows = np.flatnonzero(libraries == g)
            own = A if n_groups == 1 else among(A, rows)
            known = codes[rows]
            for m, labels in enumerate(
                _relabelled(known, None if coords is None else coords[rows], n_permutations, rng)
            ):
                drawn[m, g] = core.cross_counts(own, labels if coords is None else known, labels, n_labels)
    observed = found.observed
    if n_groups > 1:
        observed = np.concatenate([observed, observed.sum(0, keepdims=True)])
        drawn = np.concatenate([drawn, drawn.sum(1, keepdims=True)], axis=1)
    at_most, at_least = ((sign * (drawn - observed) <= 1e-9).sum(0) for sign in (1, -1))
    tails = [(x + 1) / (n_permutations + 1) for x in (at_most, at_least)]
    parts = zip(observed, drawn.mean(0), drawn.var(0, ddof=1), *tails, strict=True)
    return [_Block(*part) for part in parts]


def _relabelled(codes: np.ndarray, coords: np.ndarray | None, n: int, rng: np.random.Generator) -> Any:
    if coords is not None:
        yield from core.shifted_codes(coords, codes, rng, n)
        return
    labels, known = codes.copy(), np.flatnonzero(codes >= 0)
    for _ in range(n):
        labels[known] = rng.permutation(codes[known])
        yield labels


def _scores(
    statistic: str,
    preset: str | None,
    A: AnyGraph,
    codes: np.ndarray,
    libraries: np.ndarray,
    counts: core.Counts,
    blocks: list[_Block],
    *,
    include_self: bool,
) -> list[np.ndarray]:
    """What the column ``score`` holds, by block."""
    if statistic == "join_count":
        return [b.z for b in blocks]
    n = list(counts.n) + [counts.n.sum(0)] * (len(blocks) > 1)
    if statistic == "edge_ratio":
        if preset != "paper":
            return [b.ratio - 1 for b in blocks]
        expected = [np.outer(x, x) / max(x.sum(), 1) for x in n]
        return [
            np.divide(b.observed - e, e, out=np.full(e.shape, np.nan), where=e > 0)
            for b, e in zip(blocks, expected, strict=True)
        ]
    weights = core.neighbour_counts(A, codes, libraries, counts.n.shape[1], include_self=include_self)
    rows = [libraries == g for g in range(len(counts.n))] + [np.ones(len(codes), dtype=bool)] * (len(blocks) > 1)
    return [_prevalence(weights[r], codes[r], x) for r, x in zip(rows, n, strict=True)]


def _prevalence(weights: np.ndarray, codes: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Mean share of b among the neighbours of the a, in units of the spread of a label of that share."""
    total = weights.sum(1)
    linked = (codes >= 0) & (total > 0)
    shares = weights[linked] / total[linked, None]
    sums = np.zeros((len(n), len(n)))
    np.add.at(sums, codes[linked], shares)
    n_linked = np.bincount(codes[linked], minlength=len(n))
    mean = np.divide(sums, n_linked[:, None], out=np.full(sums.shape, np.nan), where=n_linked[:, None] > 0)
    p = n / max(n.sum(), 1)
    spread = np.sqrt(p * (1 - p))
    return np.divide(mean - p, spread, out=np.full(mean.shape, np.nan), where=spread > 0)


def _tidy(
    blocks: list[_Block],
    scores: list[np.ndarray],
    n: np.ndarray,
    names: list[str],
    library_names: list[str],
    *,
    directed: bool,
) -> pd.DataFrame:
    """One row a pair and library."""
    m = len(names)
    a, b = (x.ravel() for x in np.indices((m, m))) if directed else np.triu_indices(m)
    sizes = list(n) + [n.sum(0)] * (len(blocks) > 1)
    labels = [*library_names, POOLED] if len(blocks) > 1 else [POOLED]
    tables = []
    for block, score, size, library in zip(blocks, scores, sizes, labels, strict=True):
        present = (size[a] > 0) & (size[b] > 0)
        values = {k: np.where(present, getattr(block, k)[a, b], np.nan) for k in ("ratio", "sd", "z", "pval")}
        columns = {
            "a": np.array(names, dtype=object)[a], "b": np.array(names, dtype=object)[b], "library": library,
            "n_a": size[a], "n_b": size[b], "observed": block.observed[a, b], "expected": block.expected[a, b], **values,
        }  # fmt: skip
        frame = pd.DataFrame(columns)
        frame["pval_adj"] = np.where(present, _adjusted(block.pval, size)[a, b], np.nan)
        frame["score"] = np.where(present, score[a, b], np.nan)
        tables.append(frame)
    return pd.concat(tables, ignore_index=True)


def _adjusted(pval: np.ndarray, size: np.ndarray) -> np.ndarray:
    """p-values (labels × labels) adjusted over the pairs that are there, each counted once."""
    upper = np.triu_indices(len(size))
    there = (size[upper[0]] > 0) & (size[upper[1]] > 0)
    out = np.full(pval.shape, np.nan)
    out[upper] = benjamini_hochberg(np.where(there, pval[upper], np.nan))
    out.T[upper] = out[upper]
    return out


def _labels(table: AnnData, cluster_key: str) -> tuple[np.ndarray, list[str]]:
    codes, names = _data.get_labels(table, cluster_key)
    if len(names) < 2:
        msg = f"`adata.obs[{cluster_key!r}]` holds {len(names)} label{'s' * (len(names) != 1)}: at least two are needed to say which lie together."
        raise ValueError(msg)
    if len(names) > MAX_LABELS:
        msg = (
            f"`adata.obs[{cluster_key!r}]` holds {len(names):,} different labels, which make {len(names) * (len(names) + 1) // 2:,} pairs; "
            f"at most {MAX_LABELS:,} labels are compared. Is it a column of labels? If it holds numbers, put them into bins, e.g. "
            f"`adata.obs[{cluster_key + '_bin'!r}] = pd.cut(adata.obs[{cluster_key!r}], 5)`."
        )
        raise ValueError(msg)
    return codes, names


def _check_options(statistic: str, null: str, preset: str | None, *, weighted: bool, include_self: bool) -> None:
    _checks.check_choice("statistic", statistic, STATISTICS)
    _checks.check_choice("null", null, NULLS)
    _checks.check_choice("preset", preset, (None, "paper"))
    _checks.check_flag("weighted", weighted)
    _checks.check_flag("include_self", include_self)
    if include_self and statistic != "prevalence":
        msg = f"`include_self` is an option of `statistic='prevalence'`: {statistic!r} counts edges, and there are none from an observation to itself."
        raise ValueError(msg)
    if preset == "paper" and statistic == "join_count":
        msg = "`preset='paper'` has no join counts: choose `statistic='prevalence'` (the published code) or `'edge_ratio'` (the published text)."
        raise ValueError(msg)


def _n_permutations(n: int | None, null: str) -> int:
    if n is None:
        return N_PERMUTATIONS[null]
    _checks.check_range("n_permutations", n, 10, integer=True)
    return int(n)


def _check_radii(radii: Sequence[float]) -> list[float]:
    found = list(np.atleast_1d(np.asarray(radii, dtype=object)))
    for value in found:
        _checks.check_range("radii", value, 0, open_low=True)
    out = [float(r) for r in found]
    if not out or (np.diff(out) <= 0).any():
        msg = f"`radii` must be positive and increasing, e.g. [20, 40, 80], not {out!r}."
        raise ValueError(msg)
    return out


def _warn_of_crossing(crossing: float, A: AnyGraph, library_key: str | None) -> None:
    if crossing:
        share = crossing / (A.sum() / 2)
        _checks.warn(f"{share:.2%} of the edges join different {library_key!r}: they are left out.")
