"""The weights of a deconvolution, chosen on spots made of the reference's own cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from .. import _checks, _dask, _data, _reference
from .._docs import doc
from .._logging import logger, timed
from ..core import _stl_model, _stl_tune
from ..core._blocks import Blocks
from . import _stl_nmf

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def select_stl_weights(
    adata: AnnData | SpatialData,
    reference: AnnData,
    *,
    region_key: str | None = None,
    connectivity_key: str | None = None,
    border_weight: float = 0.3,
    cells_per_spot: tuple[int, int] = (3, 12),
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    library_key: str | None = None,
    key_added: str = "select_stl_weights",
    table_key: str | None = None,
) -> dict[str, float]:
    r"""Choose the weights of :func:`spanmf.tl.stl_nmf` on spots that are made of the reference's own cells.

    The cells of each type are parted in two. Of one half, spots are summed as the section's are, on its graph, with its depths and with the
    shares of a first fit; they are deconvolved with profiles of the other half. From the defaults of ``graph_weight``,
    ``region_weight`` and ``reference_weight`` one after the other is moved as long as the relative error of the shares, whose truth is known,
    falls by more than 1 %. What is found counts only if genes of the real section that were held out do not become less likely by it
    (by more than two standard errors over the spots); else the defaults stay.

    It is a check of the defaults rather than a step that is needed: on the benchmark sets of this package it kept them nearly always, and gained under
    1 % where it did not (:doc:`/methods`). It takes some 30 to 60 fits of up to 4,000 spots.

    What the reference lacks is not in spots that are made of it, so that a type of few cells that takes it in (a sink) is not seen here:
    ``reference_weight=np.inf``, which keeps profiles as they are, is not among the values tried. Compare the shares with it.

    Parameters
    ----------
    {adata}
    reference
        What :func:`spanmf.tl.reference_profiles` returns, with cells kept.
    region_key
        Column of ``adata.obs`` with regions (histology); ``None``: ``region_weight`` stays 0.
    {connectivity_key}
    border_weight
        Factor on edges between different regions.
    cells_per_spot
        Least and most cells in a spot that is made.
    {layer}
    {rng}
    {library_key}
    key_added
        Name of the slot.
    {table_key}

    Returns
    -------
    dict of ``graph_weight``, ``region_weight`` and ``reference_weight``, for ``sn.tl.stl_nmf(adata, reference, **weights)``, with the same ``region_key``. Written:

    ``adata.uns["select_stl_weights"]`` : dict
        ``weights``, ``best`` (the best on spots that were made), ``accepted`` (whether these are the weights), ``loss`` (of the held-out genes'
        log-likelihood by the best, in standard errors; NaN where the defaults were the best), ``trials`` (DataFrame of weights and mean ``error``), ``params``, ``versions``.

    Raises
    ------
    KeyError
        If there is no spatial graph, or a column or layer is missing.
    ValueError
        If the reference holds no cells; if values are negative, NaN, infinite or logarithms; if section and reference have too few genes in common.

    Examples
    --------
    >>> import spanmf as sn
    >>> cells, section = sn.datasets.xenium_tissue(1000), sn.datasets.visium_section(200)
    >>> sn.gr.contact_neighbors(section)
    >>> reference = sn.tl.reference_profiles(cells, "cell_type")
    >>> weights = sn.tl.select_stl_weights(section, reference)  # doctest: +SKIP
    >>> sn.tl.stl_nmf(section, reference, **weights)  # doctest: +SKIP
    """
    table = _data.get_table(adata, table_key, min_obs=2)
    _checks.check_key_added(key_added)
    _checks.check_bounds("cells_per_spot", cells_per_spot, 1)
    _checks.check_range("border_weight", border_weight, 0)
    X, name = _data.get_matrix(table, layer, lazy=True)
    X = _dask.in_blocks(X, name)
    _reference.check_section(X, name)
    profiles = _reference.as_profiles(reference)
    if profiles.cells is None:
        msg = (
            "`reference` holds no cells, of which spots could be made. Pass what `sn.tl.reference_profiles(adata_sc, groupby)` returns, "
            "with `keep_cells` above 0."
        )
        raise ValueError(msg)
    columns, matched, _ = _reference.match_genes(list(table.var_names), profiles.genes)
    _reference.check_matched(len(columns), list(table.var_names), profiles)
    B = profiles.B[:, matched]
    _reference.check_left(B, profiles.types)
    start = _stl_model.DEFAULTS
    regions = _stl_nmf._regions(table, region_key, library_key)
    A, graph_key = _stl_nmf._graph(table, connectivity_key, start.graph_weight, regions, border_weight, library_key)
    counts = _counts(X, columns)
    with (
        timed("tl.select_stl_weights") as notes,
        threadpool_limits(1, "blas"),
        tqdm(desc="tl.select_stl_weights", unit="trial", delay=3, leave=False) as bar,
    ):

        def progress(error: float) -> None:
            bar.update()
            bar.set_postfix(error=f"{error:.4f}", refresh=False)

        found = _stl_tune.tune(
            _stl_tune.Section(counts, A, regions), _stl_model.Reference(B, profiles.n_cells),
            replace(profiles.cells, X=profiles.cells.X[:, matched]), start=start, cells_per_spot=cells_per_spot,
            rng=_data.default_rng(rng, random_state), progress=progress,
        )  # fmt: skip
        params = {
            "region_key": region_key, "connectivity_key": graph_key, "border_weight": float(border_weight),
            "cells_per_spot": cells_per_spot, "layer": layer, "library_key": library_key,
        }  # fmt: skip
        trials = pd.DataFrame(
            [weights | {"error": error} for weights, error in found.trials], columns=[*found.weights, "error"]
        )
        trials.index = trials.index.astype(str)
        record = _data.provenance(
            params, weights=found.weights, best=found.best, accepted=found.accepted, loss=float(found.loss)
        )
        table.uns[key_added] = record | {"trials": trials}
        notes.append(f"{len(trials)} trials; added uns[{key_added!r}]")
    if not found.accepted:
        logger.info("held-out genes lose %.1f standard errors by the best weights: the defaults stay", found.loss)
    return found.weights


def _counts(X: Any, columns: np.ndarray) -> Any:
    """The columns in use, in blocks if X is."""
    if isinstance(X, Blocks):
        return X.select(columns)
    return sp.csr_matrix(X)[:, columns].astype(np.float32)
