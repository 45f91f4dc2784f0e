"""A Xenium-like tissue: single cells of several samples, with planted domains, types and programmes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from .. import _checks, _data, _keys
from ._anatomy import CELL_TYPES, DOMAINS, Anatomy, mixtures
from ._expression import Programmes, check_plan, draw_counts, draw_types, draw_usage, shift_mixture, type_sizes
from ._shapes import hard_core, hard_core_proposals

if TYPE_CHECKING:
    from collections.abc import Sequence

DENSITY = 0.0044  # cells per µm² inside the tissue, so that about 5 others are within 20 µm of a cell
SPACING = 6.0  # µm, the least distance between two cells
MINGLING = 10.0  # µm (sd): how far cells cross the borders of domains
FEATURE_SIZE = 700.0  # µm: a piece of this radius has about three follicles; larger ones have more, not larger ones
TILE = 100.0  # µm: cells are numbered tile by tile
GAP = 300.0  # µm between samples
LOW_QUALITY = 0.02  # share of cells with about a tenth of the transcripts
DEPTH_SD = 0.55  # of the logarithm


def xenium_tissue(
    n_cells: int = 20_000,
    *,
    n_genes: int = 300,
    n_domains: int = 8,
    n_types: int = 12,
    n_libraries: int = 3,
    depth: float = 150.0,
    rng: int | np.random.Generator = 0,
) -> AnnData:
    r"""Generate a Xenium-like tissue with planted domains, cell types and gene programmes.

    Every sample is a piece of the same organ with its own outline: a mucosa, a muscle layer, tumour nests with a
    margin, lymphoid follicles with a T zone and vessels in a stroma. Cells keep 6 µm apart, about five others being
    within 20 µm. A domain is a mixture of cell types, so a cell's own expression tells little of its domain while its
    surroundings tell a lot. The counts of cell :math:`i` are

    .. math:: x_{ig} \sim \operatorname{Poisson}\Big(\sum_k W_{ik} H_{kg}\Big),

    where the programmes :math:`k` are one a cell type, four states (proliferation, hypoxia, interferon, stress) whose
    activity depends on the domain, and the ambient background; each row of :math:`H` sums to 1. A cell uses its type's
    programme, a little of a neighbour's (segmentation errors), the states and the background; its depth
    :math:`\sum_k W_{ik}` is lognormal, larger for large cells, and about a tenth in 2 % of the cells.

    Parameters
    ----------
    n_cells
        Number of cells in all samples together. A million takes seconds; no dense cells × genes matrix is made.
    n_genes
        Number of genes. Marker genes bear their names (``EPCAM``, ``CD3E``, ``COL1A1``, …), the rest is ``Gene001``, ….
    n_domains
        Number of domains, 2 to 10 (in this order: stroma, tumour, mucosa, muscle, follicle, vessel, T zone, margin,
        adipose, necrosis).
    n_types
        Number of cell types, 2 to 16.
    n_libraries
        Number of samples. They lie side by side, without overlap.
    depth
        Median number of transcripts of a cell, about.
    rng
        Seed or :class:`numpy.random.Generator`. The result does not depend on the number of threads.

    Returns
    -------
    AnnData
        Cells × genes, with ``k = n_types + 5`` programmes:

        - ``X``: counts, CSR, float32; a cell that came out empty was drawn again
        - ``obs["library"]``, ``obs["domain"]``, ``obs["cell_type"]``: categorical
        - ``obs["low_quality"]``: bool
        - ``obsm["spatial"]``: n × 2, float64, in µm
        - ``obsm["W_true"]`` (n × k, float32) and ``varm["H_true"]`` (p × k, float32): the mean of ``X`` is
          ``W_true @ H_true.T``
        - ``uns["spatial_units"]``: ``"um"``; ``uns["um_per_unit"]``: 1.0
        - ``uns["xenium_tissue"]``: ``params`` and ``programmes`` (names of the k columns)

    Raises
    ------
    TypeError, ValueError
        A parameter is of the wrong type or out of its range.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000, n_libraries=2)
    >>> adata.shape
    (1000, 300)
    >>> list(adata.obs["domain"].cat.categories[:3])
    ['stroma', 'tumour', 'mucosa']
    >>> adata.obsm["W_true"].shape, adata.varm["H_true"].shape
    ((1000, 17), (300, 17))
    """
    _checks.check_range("n_libraries", n_libraries, 1, integer=True)
    _checks.check_range("n_cells", n_cells, 50 * n_libraries, integer=True)
    check_plan(n_domains, n_types, n_genes, depth)
    shared, *own = _data.default_rng(rng).spawn(1 + n_libraries)
    programmes = Programmes.draw(shared, n_types, n_genes)
    mixture = mixtures(n_domains, n_types)
    domain_names = [d.name for d in DOMAINS[:n_domains]]
    sizes = shared.dirichlet(np.full(n_libraries, 30.0))
    sizes = np.diff(np.round(np.cumsum([0, *sizes]) * n_cells).astype(int))

    pieces, places = [], []
    for stream, n in zip(own, sizes, strict=True):
        xy, domain, mingled = place_cells(stream, int(n), n_domains)
        local = shift_mixture(stream, mixture)
        types = draw_types(stream, mingled, local)
        usage = draw_usage(stream, types, mingled, local, domain_names)
        low = stream.random(n) < LOW_QUALITY
        size = type_sizes(n_types)
        total = depth * (size / (local.mean(axis=0) @ size))[types] * stream.lognormal(0, DEPTH_SD, n)
        total *= stream.lognormal(0, 0.1) * np.where(low, 0.1, 1.0)
        places.append(xy)
        pieces.append((domain, types, low, usage * np.maximum(total, 2)[:, None].astype(np.float32)))
    domain, types, low, W = (np.concatenate(x) for x in zip(*pieces, strict=True))
    library = np.repeat(np.arange(n_libraries), sizes)

    names = [f"sample{i + 1}" for i in range(n_libraries)]
    obs = pd.DataFrame(
        {
            "library": pd.Categorical.from_codes(library, names),
            "domain": pd.Categorical.from_codes(domain, domain_names).remove_unused_categories(),
            "cell_type": pd.Categorical.from_codes(types, CELL_TYPES[:n_types]).remove_unused_categories(),
            "low_quality": low,
        },
        index=[f"cell{i + 1}" for i in range(n_cells)],
    )
    adata = AnnData(draw_counts(shared, W, programmes.H), obs=obs, var=pd.DataFrame(index=programmes.genes))
    adata.obsm[_keys.SPATIAL] = side_by_side(places)
    adata.obsm["W_true"] = W
    adata.varm["H_true"] = np.ascontiguousarray(programmes.H.T)
    adata.uns["spatial_units"] = "um"
    adata.uns[_keys.UM_PER_UNIT] = 1.0
    params = {
        "n_cells": n_cells, "n_genes": n_genes, "n_domains": n_domains, "n_types": n_types, "n_libraries": n_libraries,
        "depth": depth,
    }  # fmt: skip
    adata.uns["xenium_tissue"] = {"params": params, "programmes": np.array(programmes.names)}
    return adata


def place_cells(rng: np.random.Generator, n: int, n_domains: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (µm) of ``n`` cells in one piece, their domain, and the domain after mingling across borders."""
    anatomy = Anatomy(rng, n_domains, size=np.sqrt(n / (DENSITY * np.pi)) / FEATURE_SIZE)
    radius = np.sqrt(n / (DENSITY * anatomy.area))
    outline = anatomy.outline
    per_cell = DENSITY / anatomy.mean_density
    most = hard_core_proposals(per_cell * max(d.density for d in anatomy.domains), SPACING)
    margin = 1.1
    while True:
        half = outline.reach * radius
        xy = rng.uniform(-half, half, (rng.poisson(most * (2 * half) ** 2), 2))
        level = outline.level(outline.straighten(xy / radius))
        xy = xy[level < margin]
        density = anatomy.at(outline.straighten(xy / radius))[1]
        xy = xy[rng.random(len(xy)) * most < hard_core_proposals(per_cell * density, SPACING)]
        xy = xy[hard_core(rng, xy, SPACING)]
        if len(xy) >= n:
            break
        margin += 0.1
    level = outline.level(outline.straighten(xy / radius))
    xy = xy[np.argpartition(level, n - 1)[:n]]
    tile = np.floor(xy / TILE)
    xy = xy[np.lexsort((xy[:, 0], tile[:, 1], tile[:, 0]))]
    domain = anatomy.at(outline.straighten(xy / radius))[0]
    mingled = anatomy.at(outline.straighten((xy + rng.normal(0, MINGLING, xy.shape)) / radius))[0]
    return xy, domain, mingled


def side_by_side(places: Sequence[np.ndarray]) -> np.ndarray:
    """Samples in a grid with gaps, all coordinates positive."""
    columns = len(places) if len(places) <= 4 else int(np.ceil(np.sqrt(len(places))))
    width = max(np.ptp(xy, axis=0).max() for xy in places) + GAP
    corners = [np.array([i % columns, i // columns]) * width for i in range(len(places))]
    return np.concatenate([xy - xy.min(axis=0) + corner for xy, corner in zip(places, corners, strict=True)])
