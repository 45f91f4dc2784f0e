"""A Visium-like section: spots on a hexagonal lattice, each a mixture of cells, with planted truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from .. import _checks, _data, _keys
from ._anatomy import CELL_TYPES, DOMAINS, Anatomy, mixtures
from ._expression import Programmes, check_plan, draw_counts, draw_types, draw_usage, shift_mixture, type_sizes
from ._shapes import hexagonal_lattice

PITCH = 100.0  # µm between the centres of neighbouring spots
SPOT = 55.0  # µm, diameter
SPOT_IN_FILES = 65.0  # µm: what Space Ranger writes as a spot's diameter
UM_PER_PIXEL = 0.5
CELLS = 6.0  # mean number of cells in a spot where the density is that of the tissue's mean
MINGLING = 50.0  # µm (sd): how far cells cross the borders of domains
CELL_SD = 1.0  # of the logarithm of a cell's share in the counts of its spot
DEPTH_SD = 0.3  # of the logarithm
FEATURE_SIZE = 1800.0  # µm: a section of this radius has about three follicles
IMAGE_SIDE = 600  # pixels of the tissue image's longer side
STAINS = np.array(  # colour of each domain of DOMAINS in the tissue image
    [
        [236, 190, 208],
        [164, 112, 170],
        [198, 138, 184],
        [224, 140, 170],
        [112, 84, 158],
        [206, 96, 118],
        [142, 108, 176],
        [214, 158, 196],
        [246, 232, 238],
        [190, 120, 130],
    ]
)


def visium_section(
    n_spots: int = 1500,
    *,
    n_genes: int = 2000,
    n_domains: int = 8,
    n_types: int = 12,
    depth: float = 4000.0,
    rng: int | np.random.Generator = 0,
) -> AnnData:
    r"""Generate a Visium-like section: a hexagonal lattice of spots with planted domains and mixtures of cell types.

    The organ, its domains, cell types and programmes are those of :func:`~spanmf.datasets.xenium_tissue`. A spot (55 µm
    wide, 100 µm from the next) catches about six cells of very different weight, whose programmes add up to its row of :math:`W`, and

    .. math:: x_{ig} \sim \operatorname{Poisson}\Big(\sum_k W_{ik} H_{kg}\Big).

    Parameters
    ----------
    n_spots
        Number of spots under the tissue (a Visium slide of 6.5 mm has room for 4,992; more are allowed).
    n_genes
        Number of genes. Marker genes bear their names, the rest is ``Gene0001``, ….
    n_domains
        Number of domains, 2 to 10.
    n_types
        Number of cell types, 2 to 16.
    depth
        Median number of counts of a spot, about.
    rng
        Seed or :class:`numpy.random.Generator`. The result does not depend on the number of threads.

    Returns
    -------
    AnnData
        Spots × genes, with ``k = n_types + 5`` programmes:

        - ``X``: counts, CSR, float32; a spot that came out empty was drawn again
        - ``obs["library"]`` (one), ``obs["domain"]``, ``obs["cell_type"]`` (the type with most cells): categorical
        - ``obs["in_tissue"]``, ``obs["array_row"]``, ``obs["array_col"]``: int, in 10x's numbering
        - ``obs["n_cells"]``: int
        - ``obsm["spatial"]``: n × 2, float64, in full-resolution pixels of 0.5 µm
        - ``obsm["proportions_true"]``: DataFrame, shares of the spot's cells, one column a cell type
        - ``obsm["W_true"]`` (n × k, float32) and ``varm["H_true"]`` (p × k, float32): the mean of ``X`` is
          ``W_true @ H_true.T``
        - ``uns["spatial"]``: a small tissue image and scale factors, in the shape scanpy and squidpy read
        - ``uns["spatial_units"]``: ``"pixel"``; ``uns["um_per_unit"]``: 0.5
        - ``uns["visium_section"]``: ``params`` and ``programmes`` (names of the k columns)

    Raises
    ------
    TypeError, ValueError
        A parameter is of the wrong type or out of its range.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.visium_section(300, n_genes=500)
    >>> adata.shape
    (300, 500)
    >>> adata.obsm["proportions_true"].columns[:3].to_list()
    ['epithelial', 'tumour', 'fibroblast']
    """
    _checks.check_range("n_spots", n_spots, 50, integer=True)
    check_plan(n_domains, n_types, n_genes, depth)
    stream = _data.default_rng(rng)
    programmes = Programmes.draw(stream, n_types, n_genes)
    domain_names, type_names = [d.name for d in DOMAINS[:n_domains]], list(CELL_TYPES[:n_types])

    per_spot = PITCH**2 * np.sqrt(0.75)  # area, µm²
    anatomy = Anatomy(stream, n_domains, size=np.sqrt(n_spots * per_spot / np.pi) / FEATURE_SIZE)
    radius = np.sqrt(n_spots * per_spot / anatomy.area)
    xy, index = place_spots(anatomy, radius, n_spots)
    domain, density = anatomy.at(anatomy.outline.straighten(xy / radius))

    n_cells = 1 + stream.poisson(np.maximum(CELLS * density / anatomy.mean_density - 1, 0))
    spot = np.repeat(np.arange(n_spots), n_cells)
    where = xy[spot] + in_disc(stream, len(spot), SPOT / 2) + stream.normal(0, MINGLING, (len(spot), 2))
    around = anatomy.at(anatomy.outline.straighten(where / radius))[0]
    mixture = shift_mixture(stream, mixtures(n_domains, n_types))
    types = draw_types(stream, around, mixture)
    sizes = type_sizes(n_types)[types] * stream.lognormal(0, CELL_SD, len(spot))
    usage = draw_usage(stream, types, around, mixture, domain_names) * sizes[:, None]
    starts = np.cumsum(n_cells) - n_cells
    W = np.add.reduceat(usage, starts, axis=0)
    W *= (depth / np.median(W.sum(axis=1)) * stream.lognormal(0, DEPTH_SD, n_spots))[:, None]
    shares = np.bincount(spot * n_types + types, minlength=n_spots * n_types).reshape(n_spots, n_types)
    shares = shares / n_cells[:, None]

    obs = pd.DataFrame(
        {
            "library": pd.Categorical.from_codes(np.zeros(n_spots, dtype=int), ["section1"]),
            "domain": pd.Categorical.from_codes(domain, domain_names).remove_unused_categories(),
            "cell_type": pd.Categorical.from_codes(shares.argmax(axis=1), type_names).remove_unused_categories(),
            "in_tissue": np.ones(n_spots, dtype=int),
            "array_row": index[:, 0],
            "array_col": index[:, 1],
            "n_cells": n_cells,
        },
        index=[f"spot{i + 1}" for i in range(n_spots)],
    )
    W = W.astype(np.float32)
    adata = AnnData(draw_counts(stream, W, programmes.H), obs=obs, var=pd.DataFrame(index=programmes.genes))
    corner = xy.min(axis=0) - 2 * PITCH
    adata.obsm[_keys.SPATIAL] = (xy - corner) / UM_PER_PIXEL
    adata.obsm["proportions_true"] = pd.DataFrame(shares, index=obs.index, columns=type_names)
    adata.obsm["W_true"] = W
    adata.varm["H_true"] = np.ascontiguousarray(programmes.H.T)
    adata.uns["spatial_units"] = "pixel"
    adata.uns[_keys.UM_PER_UNIT] = UM_PER_PIXEL
    adata.uns[_keys.SPATIAL] = {"section1": picture(stream, anatomy, radius, corner, np.ptp(xy, axis=0) + 4 * PITCH)}
    params = {"n_spots": n_spots, "n_genes": n_genes, "n_domains": n_domains, "n_types": n_types, "depth": depth}
    adata.uns["visium_section"] = {"params": params, "programmes": np.array(programmes.names)}
    return adata


def place_spots(anatomy: Anatomy, radius: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``n`` spots of the lattice nearest to the middle of the piece, row by row, with 10x's (row, column)."""
    xy, index = hexagonal_lattice(1.2 * anatomy.outline.reach * radius, PITCH)
    level = anatomy.outline.level(anatomy.outline.straighten(xy / radius))
    inside = np.sort(np.argsort(level, kind="stable")[:n])
    xy, index = xy[inside], index[inside]
    first = index.min(axis=0)
    first[1] -= first.sum() % 2  # row + column stays even
    return xy, index - first


def in_disc(rng: np.random.Generator, n: int, radius: float) -> np.ndarray:
    """Uniform points in a disc around the origin."""
    r, angle = radius * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)


def picture(
    rng: np.random.Generator, anatomy: Anatomy, radius: float, corner: np.ndarray, extent: np.ndarray
) -> dict[str, dict]:
    """A stained image of the piece and its scale factors, as an entry of ``uns["spatial"]``."""
    step = extent.max() / IMAGE_SIDE  # µm a pixel of the image
    width, height = np.ceil(extent / step).astype(int)
    y, x = np.mgrid[:height, :width]
    points = anatomy.outline.straighten((corner + np.stack([x.ravel(), y.ravel()], axis=1) * step) / radius)
    codes, density = anatomy.at(points)
    stain = STAINS[codes] + rng.normal(0, 9, (len(codes), 1)) + rng.normal(0, 3, (len(codes), 3))
    stain[(anatomy.outline.level(points) > 1) | (density == 0)] = 244
    image = np.clip(stain, 0, 255).astype(np.uint8).reshape(height, width, 3)
    scale = float(UM_PER_PIXEL / step)
    return {
        "images": {"hires": image},
        "scalefactors": {
            "spot_diameter_fullres": SPOT_IN_FILES / UM_PER_PIXEL,
            "tissue_hires_scalef": scale,
        },
    }
