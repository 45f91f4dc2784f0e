"""Transformations of protein intensities and tag counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _checks, _data
from .._docs import doc
from .._logging import timed
from ..core import _normalise

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def clr(
    adata: AnnData | SpatialData,
    *,
    layer: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Centred log ratio of every observation's proteins that stays non-negative.

    .. math:: x_{ij} \leftarrow \log\Big(1 + \frac{x_{ij}}{g_i}\Big), \qquad g_i = \exp\Big(\frac1p \sum_j \log(1 + x_{ij})\Big)

    It takes away how strongly a cell is stained as a whole, as :func:`scanpy.pp.normalize_total` takes away depth, without
    the negative values of the plain CLR. This is what :func:`spanmf.tl.joint_nmf` does to proteins by default.

    Parameters
    ----------
    {adata}
    {layer}
    {table_key}
    {copy}

    Returns
    -------
    The copy if ``copy``, else ``None``. ``adata.X`` (or the layer) is replaced, float32; sparse stays sparse.

    Raises
    ------
    ValueError
        If values are negative, NaN or infinite, or all zero.

    References
    ----------
    Stoeckius et al. (2017), *Nature Methods* 14, 865 (CITE-seq).

    Examples
    --------
    >>> import spanmf as sn
    >>> protein = sn.datasets.rna_protein_tissue(500).mod["protein"]
    >>> sn.pp.clr(protein)
    >>> bool(protein.X.min() >= 0)
    True
    """
    return _replace(adata, layer, table_key, "pp.clr", _normalise.clr, copy=copy)


@doc
def arcsinh(
    adata: AnnData | SpatialData,
    cofactor: float | None = None,
    *,
    layer: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Inverse hyperbolic sine of intensities, :math:`\operatorname{arsinh}(x_{ij} / c)`: linear below c, logarithmic above.

    Parameters
    ----------
    {adata}
    cofactor
        c, in the units of the intensities (5 is usual for mass cytometry, 150 for fluorescence). ``None``: the median of the
        positive values of each protein.
    {layer}
    {table_key}
    {copy}

    Returns
    -------
    The copy if ``copy``, else ``None``. ``adata.X`` (or the layer) is replaced, float32; sparse stays sparse.

    Raises
    ------
    ValueError
        If values are negative, NaN or infinite, or all zero; if ``cofactor`` is not positive.

    Examples
    --------
    >>> import spanmf as sn
    >>> protein = sn.datasets.rna_protein_tissue(500).mod["protein"]
    >>> sn.pp.arcsinh(protein)
    >>> bool(protein.X.max() < 8)
    True
    """
    if cofactor is not None:
        _checks.check_range("cofactor", cofactor, 0, open_low=True)

    def transform(X: Any) -> Any:
        return _normalise.arcsinh(X, _normalise.positive_medians(X) if cofactor is None else float(cofactor))

    return _replace(adata, layer, table_key, "pp.arcsinh", transform, copy=copy)


def _replace(
    adata: Any, layer: str | None, table_key: str | None, name: str, transform: Any, *, copy: bool
) -> AnnData | None:
    table = _data.get_table(adata, table_key, min_obs=1)
    X, where = _data.get_matrix(table, layer)
    _checks.check_intensities(X, where)
    with timed(name) as notes:
        out = transform(X)
        table = _data.target(table, copy=copy)
        if layer is None:
            table.X = out
        else:
            table.layers[layer] = out
        notes.append(f"replaced {where.strip('`')}")
    return table if copy else None
