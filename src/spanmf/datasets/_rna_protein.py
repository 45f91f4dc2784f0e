"""A tissue whose cells are measured twice: RNA and protein, with types that only one of the two tells apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.spatial import cKDTree

from .. import _checks, _data, _keys, _mudata
from ._anatomy import CELL_TYPES, DOMAINS, mixtures
from ._expression import Programmes, check_plan, draw_counts, draw_types, shift_mixture, type_sizes
from ._tissue import DEPTH_SD, place_cells

if TYPE_CHECKING:
    from mudata import MuData

N_TYPES = 10
N_DOMAINS = 6
DEPTH = 200.0  # median number of transcripts of a cell
SAME_RNA = (("epithelial", "tumour"), ("CD4 T", "CD8 T"), ("fibroblast", "smooth muscle"))  # told apart by protein only
PROTEINS = {  # protein: types that carry it; the types of a line without a protein of their own are told apart by RNA only
    "PanCK": ("epithelial", "tumour"),
    "EpCAM": ("epithelial", "tumour"),
    "Her2": ("tumour",),
    "CD45": ("CD4 T", "CD8 T", "B", "macrophage", "plasma"),
    "CD3": ("CD4 T", "CD8 T"),
    "CD4": ("CD4 T",),
    "CD8": ("CD8 T",),
    "CD20": ("B", "plasma"),
    "CD79a": ("B", "plasma"),
    "CD68": ("macrophage",),
    "CD163": ("macrophage",),
    "CD31": ("endothelial",),
    "CD34": ("endothelial", "fibroblast"),
    "Vimentin": ("fibroblast", "smooth muscle", "endothelial"),
    "SMA": ("smooth muscle",),
    "Collagen": ("fibroblast", "smooth muscle"),
    "HLA-DR": ("macrophage", "B", "plasma"),
}
FILLERS = 13  # proteins that no type carries
BACKGROUND = 20.0  # mean intensity of an antibody that does not bind
SIGNAL = 150.0  # mean intensity of one that does
STAINING_SD = 0.3  # of the logarithm of a cell's staining
SPILLOVER = 0.12  # share of a cell's signal that its nearest neighbours show
JITTER = 1.0  # µm (sd): where a cell is found in the second section
RANGE = 150.0  # µm over which the displacement of the second section changes


def rna_protein_tissue(
    n_cells: int = 5_000,
    *,
    n_genes: int = 300,
    missing: float = 0.0,
    displacement: float = 0.0,
    rng: int | np.random.Generator = 0,
) -> MuData:
    r"""Generate a tissue whose cells are measured by RNA and by protein, with planted types.

    Ten cell types live in overlapping domains. Three pairs have the same RNA (epithelial and tumour, CD4 and CD8 T cells,
    fibroblasts and smooth muscle) and are told apart by protein only; B and plasma cells have the same proteins and are
    told apart by RNA only. Counts of RNA are Poisson around lognormal depths of about 200 transcripts. Intensities of the
    30 proteins are gamma around a background that differs between antibodies, plus a signal in the types that carry them
    (seven times as strong), of which 12 % spills over to the nearest neighbours, times a cell's own staining.

    Parameters
    ----------
    n_cells
        Number of cells.
    n_genes
        Number of genes.
    missing
        Share of the cells without protein.
    displacement
        Root mean square, in µm, of a smooth field by which the second section is displaced. Above 0 the protein modality has
        cell names of its own (``obs["same_as"]`` keeps the truth): match them by
        :func:`spanmf.pp.align_modalities`.
    rng
        Seed or :class:`numpy.random.Generator`.

    Returns
    -------
    MuData
        ``mod["rna"]`` (counts, CSR, float32) and ``mod["protein"]`` (intensities, float32), each with ``obs["cell_type"]``,
        ``obs["domain"]`` and ``obsm["spatial"]`` (µm).

    Raises
    ------
    TypeError, ValueError
        A parameter is of the wrong type or out of its range.

    Examples
    --------
    >>> import spanmf as sn
    >>> mdata = sn.datasets.rna_protein_tissue(1000, missing=0.3)
    >>> mdata.mod["rna"].shape, mdata.mod["protein"].n_vars
    ((1000, 300), 30)
    """
    _checks.check_range("n_cells", n_cells, 100, integer=True)
    _checks.check_range("missing", missing, 0, 0.95)
    _checks.check_range("displacement", displacement, 0)
    check_plan(N_DOMAINS, N_TYPES, n_genes, DEPTH)
    stream = _data.default_rng(rng)
    names = list(CELL_TYPES[:N_TYPES])
    xy, domain, mingled = place_cells(stream, n_cells, N_DOMAINS)
    mixture = shift_mixture(stream, mixtures(N_DOMAINS, N_TYPES))
    types = draw_types(stream, mingled, mixture)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(types, names).remove_unused_categories(),
            "domain": pd.Categorical.from_codes(
                domain, [d.name for d in DOMAINS[:N_DOMAINS]]
            ).remove_unused_categories(),
        },
        index=[f"cell{i + 1}" for i in range(n_cells)],
    )
    modalities = {
        "rna": _table(_rna(stream, types, names, n_genes), obs, xy),
        "protein": _table(_protein(stream, types, names, xy), obs, xy),
    }
    if missing:
        keep = np.sort(stream.choice(n_cells, n_cells - round(missing * n_cells), replace=False))
        modalities["protein"] = modalities["protein"][keep].copy()
    if displacement:
        _displace(stream, modalities["protein"], displacement)
    return _mudata.make(modalities)


def _table(matrix: tuple[object, list[str]], obs: pd.DataFrame, xy: np.ndarray) -> AnnData:
    X, features = matrix
    adata = AnnData(X, obs=obs.copy(), var=pd.DataFrame(index=features))
    adata.obsm[_keys.SPATIAL] = xy.copy()
    adata.uns[_keys.SPATIAL_UNITS] = "um"
    adata.uns[_keys.UM_PER_UNIT] = 1.0
    return adata


def _rna(rng: np.random.Generator, types: np.ndarray, names: list[str], n_genes: int) -> tuple[object, list[str]]:
    """Counts: every cell by its type's programme and a little background."""
    programmes = Programmes.draw(rng, N_TYPES, n_genes)
    H = programmes.H.copy()
    for one, other in SAME_RNA:
        H[names.index(other)] = H[names.index(one)]
    size = type_sizes(N_TYPES)
    for one, other in SAME_RNA:
        size[names.index(other)] = size[names.index(one)]
    total = DEPTH * size[types] * rng.lognormal(0, DEPTH_SD, len(types))
    W = np.zeros((len(types), len(H)), dtype=np.float32)
    W[np.arange(len(types)), types] = 0.9 * total
    W[:, -1] = 0.1 * total  # the background
    return draw_counts(rng, W, H), programmes.genes


def _protein(rng: np.random.Generator, types: np.ndarray, names: list[str], xy: np.ndarray) -> tuple[object, list[str]]:
    """Intensities: background, signal, spillover of the neighbours, staining."""
    features = [*PROTEINS, *(f"Control{i + 1}" for i in range(FILLERS))]
    carries = np.zeros((N_TYPES, len(features)))
    for j, carriers in enumerate(PROTEINS.values()):
        carries[[names.index(t) for t in carriers], j] = 1
    strength = SIGNAL * rng.lognormal(0, 0.3, carries.shape)
    signal = (carries * strength)[types]
    around = cKDTree(xy).query(xy, 5)[1][:, 1:]
    signal = (1 - SPILLOVER) * signal + SPILLOVER * signal[around].mean(1)
    mean = BACKGROUND * rng.lognormal(0, 0.6, len(features)) + signal
    X = rng.gamma(4.0, mean / 4) * rng.lognormal(0, STAINING_SD, len(types))[:, None]
    return X.astype(np.float32), features


def _displace(rng: np.random.Generator, adata: AnnData, displacement: float) -> None:
    """Move the cells by a smooth random field (a few plane waves each way) and give them names of their own."""
    xy = adata.obsm[_keys.SPATIAL]
    waves = rng.normal(0, 1 / RANGE, (2, 6, 2))
    phase = rng.uniform(0, 2 * np.pi, (2, 6))
    field = np.stack([np.cos(xy @ waves[a].T + phase[a]).sum(1) for a in range(2)], axis=1)
    field *= displacement / np.sqrt((field**2).sum(1).mean())
    adata.obsm[_keys.SPATIAL] = xy + field + rng.normal(0, JITTER, xy.shape)
    adata.obs["same_as"] = adata.obs_names.to_numpy()
    adata.obs_names = [f"protein{i + 1}" for i in range(adata.n_obs)]
