"""How well WH reproduces X."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _checks, _dask, _data
from .._docs import doc
from ..core import _error
from . import _inputs
from ._smoothing import run_params

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def reconstruction_error(
    data: AnnData | SpatialData | Any,
    factors: str | tuple[np.ndarray, np.ndarray],
    *,
    layer: str | None = None,
    table_key: str | None = None,
) -> float:
    r"""Mean squared error of the factorisation, over all entries of the matrix.

    .. math:: \mathrm{MSE} = \frac{1}{n p} \lVert X - W H \rVert_F^2

    in float64 and without forming WH. The p variables are those with a non-zero loading, so that genes masked out of
    the fit do not count.

    **Range** 0 upwards, in squared units of X; **lower is closer**.

    **What else moves it.** It falls with the number of components and depends on the normalisation and on which genes
    are used (sparse, lowly expressed genes lower it): compare it on the same matrix only. W that was smoothed after
    the fit while H was not refitted has a large one by construction: that is the published form, the error of what
    ``sn.tl.snmf(adata, preset="paper")`` or ``sn.tl.hsnmf(adata, preset="paper")`` leave in the table.

    Parameters
    ----------
    data
        Annotated data matrix (a SpatialData is taken too: see ``table_key``), or X itself (n × p, sparse or dense).
        It must be what was factorised: the same layer, normalised in the same way.
    factors
        Key of a factorisation in the table (``obsm["X_" + key]`` and ``varm[key + "_loadings"]``), or the pair of
        arrays W (n × k) and H (k × p).
    layer
        Layer to compare with. ``None``: the one that the run records, else ``adata.X``.
    {table_key}

    Returns
    -------
    The mean squared error.

    Raises
    ------
    KeyError
        If the layer or the factors are not in the table.
    ValueError
        If shapes differ, no loading differs from zero, X holds negative, NaN or infinite values, or the values that were
        factorised are not in the table (``normalize=True``).

    References
    ----------
    Mahmud et al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> planted = (adata.obsm["W_true"], adata.varm["H_true"].T)
    >>> 0 < sn.metrics.reconstruction_error(adata, planted) < 1
    True
    """
    sums = _residual(data, factors, layer, table_key)
    return sums.error / sums.n_entries


@doc
def explained_variance(
    data: AnnData | SpatialData | Any,
    factors: str | tuple[np.ndarray, np.ndarray],
    *,
    layer: str | None = None,
    table_key: str | None = None,
) -> float:
    r"""Share of the variance about the variables' means that the factorisation explains.

    .. math:: R^2 = 1 - \frac{\lVert X - W H \rVert_F^2}{\lVert X - 1 \bar x^\top \rVert_F^2}

    with :math:`\bar x` the mean of every variable, over the variables with a non-zero loading, in float64 and without
    forming WH. This is scikit-learn's ``r2_score(X, WH, multioutput="variance_weighted")``.

    **Range** below 0 (worse than the mean of each variable) to 1; **higher is better**.

    **What else moves it.** It rises with the number of components; sequencing noise bounds it well below 1 in sparse
    data (0.167 in the hSNMF paper), the more so with more lowly expressed genes. Smoothed W explains less.

    Parameters
    ----------
    data
        Annotated data matrix (a SpatialData is taken too: see ``table_key``), or X itself (n × p, sparse or dense).
        It must be what was factorised: the same layer, normalised in the same way.
    factors
        Key of a factorisation in the table (``obsm["X_" + key]`` and ``varm[key + "_loadings"]``), or the pair of
        arrays W (n × k) and H (k × p).
    layer
        Layer to compare with. ``None``: the one that the run records, else ``adata.X``.
    {table_key}

    Returns
    -------
    The explained share. NaN, with a warning, if every variable is constant.

    Raises
    ------
    KeyError
        If the layer or the factors are not in the table.
    ValueError
        If shapes differ, no loading differs from zero, X holds negative, NaN or infinite values, or the values that were
        factorised are not in the table (``normalize=True``).

    References
    ----------
    Mahmud et al. (2026), arXiv:2602.02638 (hSNMF), which does not say about which mean its variance is taken.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> planted = (adata.obsm["W_true"], adata.varm["H_true"].T)
    >>> 0.5 < sn.metrics.explained_variance(adata, planted) < 1  # the rest is counting noise
    True
    """
    return explained_share(_residual(data, factors, layer, table_key))


def explained_share(sums: _error.Residual) -> float:
    """Share of the variance that is explained; NaN with a warning where there is none."""
    if sums.total <= 1e-12 * sums.n_entries:
        _checks.warn("Explained variance is NaN: every variable is constant.")
        return float("nan")
    return 1 - sums.error / sums.total


def _residual(data: Any, factors: Any, layer: str | None, table_key: str | None) -> _error.Residual:
    if _inputs.is_table(data):
        adata = _data.get_table(data, table_key)
        if isinstance(factors, str):
            W, H = _data.get_factors(adata, factors)
            layer = _inputs.fitted_layer(run_params(adata, factors.removeprefix("X_")), layer)
        else:
            W, H = factors
        X, name = _data.get_matrix(adata, layer, lazy=True)
    elif isinstance(factors, str):
        msg = f"The factors are given as a key ({factors!r}), which needs an AnnData as the first argument."
        raise TypeError(msg)
    else:
        X, name, (W, H) = data, "X", factors
    X = _dask.in_blocks(X, name)
    _checks.check_matrix(X, name)
    W = _checks.check_representation(W, "W")
    H = _checks.check_representation(H, "H")
    if X.shape != (len(W), H.shape[1]) or W.shape[1] != len(H):
        msg = f"W {W.shape} times H {H.shape} does not have the shape of {name} {X.shape}."
        raise ValueError(msg)
    if not H.any():
        msg = "All loadings are zero: there is nothing to compare."
        raise ValueError(msg)
    return _error.residual(X, W, H)
