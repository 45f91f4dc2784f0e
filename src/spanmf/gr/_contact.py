"""Graph of cells in contact and in context."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .. import _checks, _data, _keys
from .._docs import doc
from .._logging import logger, status, timed
from ..core import _graph, _tiles

if TYPE_CHECKING:
    import scipy.sparse as sp
    from anndata import AnnData
    from spatialdata import SpatialData

LIKE_LIBRARIES = ("library", "sample", "slide", "batch", "core", "section", "tile")  # names of columns, also with "_id"
PAPER = {"contact_radius": 20.0, "context_radius": 80.0}
MIXED_LIBRARIES = 0.2  # share of contact edges between samples above which slides are said to overlap


@doc
def contact_neighbors(
    adata: AnnData | SpatialData,
    contact_radius: float | None = None,
    context_radius: float | None = None,
    *,
    contact_weight: float = 2.5,
    context_weight: float = 1.0,
    combine: Literal["max", "sum", "mean"] = "max",
    spatial_key: str = _keys.SPATIAL,
    library_key: str | None = None,
    preset: Literal["paper"] | None = None,
    table_key: str | None = None,
    key_added: str = _keys.CONTACT,
    store: bool = True,
    copy: bool = False,
) -> tuple[sp.csr_matrix, sp.csr_matrix] | None:
    r"""Link cells in contact and cells in each other's context.

    Observations at a distance :math:`d_{ij} \le r_\mathrm{contact}` are in contact and weigh ``contact_weight``; those
    at :math:`d_{ij} \le r_\mathrm{context}` weigh ``context_weight``; a pair that is both weighs

    .. math:: A_{ij} = \max(w_\mathrm{contact}, w_\mathrm{context}) = 2.5 \quad\text{by default.}

    The graph is exact, symmetric and without self-loops. Observations at the same place (distance 0) are linked.

    Parameters
    ----------
    {adata}
    contact_radius
        Radius of contact, in the units of the coordinates. ``None``: from the data. For cells, the radius within which
        the mean number of neighbours is 5 (about 20 µm on a Xenium slide); for spots on a lattice, the first ring. A
        lattice is told by its regular distances, or by ``adata.obs["array_row"]`` and ``["array_col"]`` (Space Ranger's).
    context_radius
        Radius of the context, at least ``contact_radius``; 0 for contact only. ``None``: four times the contact radius
        for cells, 0 for a lattice.
    contact_weight
        Weight of a contact edge.
    context_weight
        Weight of a context edge.
    combine
        Weight of a pair within both radii: the larger of the two, their sum or their mean.
    {spatial_key}
    {library_key}
        Observations of different samples are never linked.
    preset
        ``"paper"``: 20 and 80, as published for coordinates in µm, where a radius is not given.
    {table_key}
    key_added
        Base name of the slots.
    store
        ``False`` writes no matrix but only what the graph is. What smooths over it or counts its edges (:func:`spanmf.tl.snmf`,
        :func:`spanmf.tl.hsnmf`, Moran's I, Geary's C, edge agreement, co-localisation, niches, the summary) then makes it anew from
        the coordinates, some 65,000 observations at a time, with the same result: the memory of a tile in place of 16 bytes an edge,
        for one search of the neighbours in every pass. See :doc:`/large_data`.
    copy
        Return the two matrices instead of writing them, as squidpy does.

    Returns
    -------
    Connectivities and distances if ``copy``, else ``None`` and (with the default ``key_added``):

    ``adata.obsp["contact_connectivities"]`` : :class:`scipy.sparse.csr_matrix`, n × n, float32
        Weights of the edges.
    ``adata.obsp["contact_distances"]`` : :class:`scipy.sparse.csr_matrix`, n × n, float32
        Lengths of the edges, in the units of the coordinates; 0 is stored for coincident observations.
    ``adata.uns["contact_neighbors"]`` : dict
        ``connectivities_key``, ``distances_key`` and ``params`` with the radii that were used (``params`` alone, and nothing in
        ``obsp``, with ``store=False``).

    Raises
    ------
    KeyError
        If the coordinates or the library column are missing.
    ValueError
        If coordinates are not finite or not 2-D or 3-D, if a radius is not positive or the context is smaller than the
        contact, if ``store=False`` is given with ``copy``, if all observations would be isolated, if a library has one observation only, or if the mean number of neighbours would exceed 1,000.

    References
    ----------
    Mahmud et al. (2026), *hSNMF*, `arXiv:2602.02638 <https://arxiv.org/abs/2602.02638>`_.

    See Also
    --------
    spanmf.gr.graph_summary : degrees, isolated and coincident observations.
    squidpy.gr.spatial_neighbors : other graphs, which every function of this package takes as well.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sn.gr.contact_neighbors(adata, 20, 80, library_key="library")
    >>> adata.obsp["contact_connectivities"].shape
    (1000, 1000)
    """
    table = _data.get_table(adata, table_key)
    _checks.check_choice("combine", combine, _graph.COMBINE)
    _checks.check_choice("preset", preset, (None, "paper"))
    _checks.check_flag("store", store)
    if copy and not store:
        msg = "`copy=True` returns the matrices, which `store=False` does not make: leave out one of the two."
        raise ValueError(msg)
    _checks.check_range("contact_weight", contact_weight, 0, open_low=True)
    _checks.check_range("context_weight", context_weight, 0, open_low=True)
    coords = _data.get_coordinates(table, spatial_key)
    codes, names = _data.get_libraries(table, library_key)
    _checks.check_libraries(codes, names, library_key)
    _checks.check_key_added(key_added)
    positions = _data.get_array_positions(table)
    contact, context, source, space = _radii(coords, codes, positions, contact_radius, context_radius, preset)
    _forecast(coords, codes, max(contact, context), space)
    with timed("gr.contact_neighbors") as notes:
        with status("spanmf: compiling kernels (once on this machine)", show=not _graph.is_compiled()):
            graph = _tiles.RadiusGraph(coords, codes, contact, context, contact_weight, context_weight, combine)
            A, D = graph.matrices() if store else (graph, None)
            n_stored = A.nnz
        if n_stored == 0:
            _checks.fail_isolated(contact, context, space.nearest)
        _warn_suspect(table, A, D, contact, library_key, space, source)
        if copy:
            return A, D
        keys = _keys.GraphKeys(key_added)
        slots = {}
        if store:
            slots = {"connectivities_key": keys.connectivities, "distances_key": keys.distances}
            table.obsp[keys.connectivities] = A
            table.obsp[keys.distances] = D
        else:
            for key in (keys.connectivities, keys.distances):  # of an earlier graph of this name
                table.obsp.pop(key, None)
        params: dict[str, Any] = {
            "contact_radius": contact,
            "context_radius": context,
            "radii_from": source,
            "contact_weight": float(contact_weight),
            "context_weight": float(context_weight),
            "combine": combine,
            "spatial_key": spatial_key,
            "library_key": library_key,
            "preset": preset,
            "median_nearest_distance": space.nearest,
            "lattice": space.is_lattice,
            "method": "radius",
        }
        table.uns[keys.neighbors] = slots | {"params": _data.storable(params)}
        added = [f"obsp[{key!r}]" for key in slots.values()] + [f"uns[{keys.neighbors!r}]"]
        notes += [
            f"contact {contact:.4g}, context {context:.4g} (from the {source})",
            f"{len(names)} librar{'y' if len(names) == 1 else 'ies'}",
            f"{n_stored // 2} edges, {n_stored / len(coords):.1f} neighbours a cell",
            f"added {', '.join(added)}",
        ]
    return None


def _radii(
    coords: np.ndarray,
    codes: np.ndarray,
    positions: np.ndarray | None,
    contact: float | None,
    context: float | None,
    preset: str | None,
) -> tuple[float, float, str, _graph.Spacing]:
    """Both radii, where they come from, and the spacing of the data."""
    for name, value in (("contact_radius", contact), ("context_radius", context)):
        if value is not None:
            _checks.check_range(name, value, 0, open_low=name == "contact_radius")
    space = _graph.spacing(coords, codes, np.random.default_rng(0), positions)
    source = "call"
    if preset == "paper":
        source = "preset" if contact is None and context is None else source
        contact = PAPER["contact_radius"] if contact is None else contact
        context = max(PAPER["context_radius"], contact) if context is None else context
    if contact is None:
        if space.contact_radius == 0:
            _checks.fail_one_place(len(coords))
        source, contact = "data", space.contact_radius
        if context is not None and 0 < context < contact:  # the given context rules
            contact = context / _graph.CONTEXT_FACTOR
    if context is None:
        context = 0.0 if space.is_lattice else _graph.CONTEXT_FACTOR * contact
    _checks.check_radii(contact, context)
    return float(contact), float(context), source, space


def _forecast(coords: np.ndarray, codes: np.ndarray, radius: float, space: _graph.Spacing) -> None:
    """Refuse a radius that would make far too many neighbours, before the graph is built."""
    if _graph.degree_at(radius, space, coords.shape[1]) < _checks.MAX_MEAN_DEGREE / 2:
        return
    degree = _graph.expected_degree(coords, codes, radius, np.random.default_rng(0))
    if degree > _checks.MAX_MEAN_DEGREE:
        _checks.fail_too_dense(radius, degree, len(coords), space.nearest)


def _warn_suspect(
    table: AnnData,
    A: _tiles.AnyGraph,
    D: sp.csr_matrix | None,
    contact_radius: float,
    library_key: str | None,
    space: _graph.Spacing,
    source: str,
) -> None:
    """Warn of what looks like a mix-up of units, and of slides that lie on top of each other."""
    isolated = int((_tiles.degrees(A) == 0).sum())
    if isolated > table.n_obs / 2:
        why = (
            "few spots of the array are left"
            if source == "data" and space.is_lattice
            else "are the radii in the units of the coordinates?"
        )
        _checks.warn(
            f"{isolated} of {table.n_obs} observations have no neighbour within {contact_radius:.4g}: {why} "
            f"(the median distance to the nearest neighbour is {space.nearest:.4g})."
        )
    elif isolated:
        logger.info("%d of %d observations are isolated; they stay, and are not smoothed", isolated, table.n_obs)
    columns = [c for c in table.obs.columns if str(c).lower().removesuffix("_id") in LIKE_LIBRARIES]
    if library_key is not None or not columns:
        return
    i, j = _some_contacts(A, D, contact_radius)
    if len(i) == 0:
        return
    for column in columns:
        codes = pd.factorize(_data.get_column(table, column))[0]
        share = float((codes[i] != codes[j]).mean())
        if share > MIXED_LIBRARIES:
            _checks.warn(
                f"{share:.0%} of the contact edges join different values of `adata.obs[{column!r}]`: slides seem to "
                f"lie on top of each other. Pass `library_key={column!r}` to keep them apart."
            )


def _some_contacts(A: _tiles.AnyGraph, D: sp.csr_matrix | None, contact_radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the contact edges of a sample of observations."""
    n = A.shape[0]
    rows = np.random.default_rng(0).integers(n, size=min(n, 2000))
    if D is None:
        D = _tiles.rows_of(replace(A, context_radius=0.0), rows)  # whose weights may be longer than the radius
        D.data[:] = 0
    sample = D[rows].tocoo()
    near = sample.data <= contact_radius
    return rows[sample.row[near]], sample.col[near]
