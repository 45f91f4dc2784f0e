"""Sections whose composition is known exactly: what STL-NMF was published with, to learn from and to test on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.spatial import cKDTree

from .. import _checks, _data, _keys, _reference

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = ("plain", "noisy", "smoothed")
SHARE_NOISE = 0.05  # sd added to the shares of a noisy section
SMOOTHING = 0.5  # sd of the Gaussian, in pitches
SIDE = 16  # spots along a side of the grid
RADIUS = 11.7  # of the disc, in pitches: 429 spots
CELL_COUNTS = 2000.0  # of a cell of the generated types
THREE = (0.7, 0.15, 0.15)  # published shares of three types
# which of the shares each type has in the three regions, as published
ORDERS = {3: ((2, 1, 0), (0, 2, 1), (1, 0, 2)), 5: ((1, 3, 0, 4, 2), (2, 4, 1, 3, 0), (3, 0, 4, 2, 1))}


def stl_nmf_triplets(
    n: int = 15,
    n_types: int = 5,
    *,
    kind: Literal["plain", "noisy", "smoothed", "all"] = "noisy",
    layout: Literal["regions", "grid"] = "regions",
    count_noise: float = 0.0,
    adata: AnnData | None = None,
    region_key: str = "region",
    reference: AnnData | pd.DataFrame | None = None,
    types: Sequence[str] | None = None,
    rng: int | np.random.Generator = 0,
) -> list[AnnData]:
    r"""Generate sections (X, B, V) as the STL-NMF paper did.

    The shares V are constant in each region: a softmax of integers from −99 to 0 (three types: 0.7, 0.15, 0.15), so that as a
    rule one type has almost all, in another order in every region. They stay so (``"plain"``), get N(0, 0.05) added and
    are cut at zero (``"noisy"``), or are smoothed by a Gaussian of half a pitch (``"smoothed"``), and are divided by their sum. Then

    .. math:: X = \lfloor V B + \varepsilon \rfloor, \quad \varepsilon \sim N(0, \sigma^2)

    with σ = ``count_noise`` and negative values set to zero. There is no counting noise, the depth is the same everywhere, and B is
    known exactly: far from real data, which is why plain least squares does well here.

    Parameters
    ----------
    n
        Number of sections.
    n_types
        Number of cell types k (without ``types`` or ``reference``).
    kind
        What is done to the shares; ``"all"``: the three in turn.
    layout
        ``"regions"``: a disc of 429 spots in three regions; ``"grid"``: 16 × 16 spots in 2 × 2 squares. Not used with ``adata``.
    count_noise
        Standard deviation σ added to X before it is cut to integers (the authors' script has 0 and 0.5).
    adata
        A real section, whose places and regions are taken; spots without a region are left out.
    region_key
        Column of ``adata.obs`` with its regions.
    reference
        What :func:`spanmf.tl.reference_profiles` returns, or a DataFrame (types × genes). ``None``: 500 genes with lognormal
        profiles of about 2,000 counts.
    types
        Types of the reference to use, in this order; ``None``: all of them.
    rng
        Seed or :class:`numpy.random.Generator`.

    Returns
    -------
    list of AnnData, spots × genes, each with

    - ``X``: counts, CSR, float32
    - ``obsm["V_true"]``: DataFrame n × k, float64, the shares; rows sum to one
    - ``varm["B"]``: DataFrame p × k, float64, the profiles
    - ``obs["region"]``: categorical; ``obsm["spatial"]``: float64
    - ``uns["stl_nmf_triplets"]``: ``kind``, ``count_noise``

    Raises
    ------
    KeyError
        If ``adata`` has no such column or no coordinates, or the reference no such type.
    TypeError, ValueError
        If a parameter is of the wrong type or out of its range.

    References
    ----------
    Konkel, Zhang, Guo, Zhang: *Unrolling regularized non-negative matrix factorization for spatial transcriptomics
    deconvolution*, section 3.

    Examples
    --------
    >>> import spanmf as sn
    >>> section = sn.datasets.stl_nmf_triplets(1, kind="plain")[0]
    >>> section.shape, section.obsm["V_true"].shape
    ((429, 500), (429, 5))
    """
    _checks.check_range("n", n, 1, integer=True)
    _checks.check_range("n_types", n_types, 1, 100, integer=True)
    _checks.check_choice("kind", kind, (*KINDS, "all"))
    _checks.check_choice("layout", layout, ("regions", "grid"))
    _checks.check_range("count_noise", count_noise, 0)
    stream = _data.default_rng(rng)
    coords, regions, region_names = _layout(layout) if adata is None else _layout_of(adata, region_key)
    profiles = _profiles(stream, n_types) if reference is None and types is None else _chosen(reference, types)
    k = len(profiles)
    if k in ORDERS and len(region_names) == 3:
        orders = np.array(ORDERS[k])
    else:
        orders = np.array([stream.permutation(k) for _ in region_names])
    obs = pd.DataFrame(
        {"region": pd.Categorical.from_codes(regions, region_names)}, index=[f"spot{i + 1}" for i in range(len(coords))]
    )
    out = []
    for i in range(n):
        this = KINDS[i % 3] if kind == "all" else kind
        V = _piecewise(stream, orders)[regions]
        if this == "noisy":
            V = np.maximum(V + stream.normal(0, SHARE_NOISE, V.shape), 0)
        elif this == "smoothed":
            V = smooth(coords) @ V
        V /= V.sum(1, keepdims=True)
        X = V @ profiles.to_numpy()
        if count_noise:
            X += stream.normal(0, count_noise, X.shape)
        section = AnnData(
            sp.csr_matrix(np.floor(np.maximum(X, 0)), dtype=np.float32),
            obs=obs.copy(),
            var=pd.DataFrame(index=profiles.columns.copy()),
        )
        section.obsm[_keys.SPATIAL] = coords.copy()
        section.obsm["V_true"] = pd.DataFrame(V, index=obs.index, columns=_data.storable_names(profiles.index))
        section.varm["B"] = profiles.T.set_axis(section.obsm["V_true"].columns, axis=1)
        section.uns["stl_nmf_triplets"] = {"kind": this, "count_noise": float(count_noise)}
        out.append(section)
    return out


def _layout(layout: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Places on a square array, codes and names of the regions."""
    if layout == "grid":
        coords = np.stack(np.divmod(np.arange(SIDE**2), SIDE), 1).astype(float)
        return coords, ((coords >= SIDE / 2) @ [2, 1]).astype(int), ["0", "1", "2", "3"]
    half = int(RADIUS)
    coords = np.stack(np.meshgrid(*[np.arange(-half, half + 1.0)] * 2, indexing="ij"), -1).reshape(-1, 2)
    coords = coords[(coords**2).sum(1) <= RADIUS**2]
    inner = ((coords - [3, 0]) ** 2).sum(1) <= (RADIUS / 2) ** 2
    return coords, np.where(inner, 2, coords[:, 0] > 0), ["Pancreas", "Stroma", "Cancer"]


def _layout_of(adata: AnnData, region_key: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Those of a real section, as far as it has regions."""
    coords = _data.get_coordinates(adata)
    codes, names = _data.get_labels(adata, region_key)
    known = codes >= 0
    if not known.any():
        msg = f"No spot has a region in `adata.obs[{region_key!r}]`."
        raise ValueError(msg)
    return coords[known], codes[known].astype(int), names


def _chosen(reference: AnnData | pd.DataFrame | None, types: Sequence[str] | None) -> pd.DataFrame:
    """The profiles of the types asked for."""
    if reference is None:
        msg = "`types` names types of a `reference`: give one, or `n_types` for generated ones."
        raise ValueError(msg)
    read = _reference.as_profiles(reference)
    table = pd.DataFrame(read.B, index=read.types, columns=read.genes)
    if types is None:
        return table
    for name in types:
        _checks.check_key(table.index, name, "types of the reference")
    return table.loc[list(types)]


def _profiles(rng: np.random.Generator, k: int) -> pd.DataFrame:
    """Lognormal profiles of 500 genes."""
    B = rng.lognormal(0, 1.5, 500) * rng.lognormal(0, 1.0, (k, 500))
    B *= CELL_COUNTS / B.sum(1, keepdims=True)
    return pd.DataFrame(
        B, index=[f"type{i + 1}" for i in range(k)], columns=[f"gene{j + 1}" for j in range(B.shape[1])]
    )


def _piecewise(rng: np.random.Generator, orders: np.ndarray) -> np.ndarray:
    """Shares of the types in each region."""
    k = orders.shape[1]
    if k == 3:
        return np.array(THREE)[orders]
    power = np.exp(-rng.integers(0, 100, k).astype(float))
    return (power / power.sum())[orders]


def smooth(coords: np.ndarray) -> sp.csr_matrix:
    """Gaussian weights of the spots around each, half a pitch wide; rows sum to one."""
    tree = cKDTree(coords)
    sd = SMOOTHING * float(np.median(tree.query(coords, 2)[0][:, 1]))
    near = tree.sparse_distance_matrix(tree, 4 * sd, output_type="coo_matrix").tocsr()
    near.data = np.exp(-(near.data**2) / (2 * sd**2))
    weights = near + sp.eye_array(len(coords), format="csr")
    near_self = weights.diagonal() - 1  # whether the distance 0 to itself was stored
    weights = (weights - sp.diags_array(near_self)).tocsr()
    return sp.csr_matrix(sp.diags_array(1 / np.asarray(weights.sum(1)).ravel()) @ weights)
