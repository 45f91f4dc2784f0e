"""How samples are made up of domains or factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from .. import _checks, _composition, _data
from .._docs import doc
from .._logging import timed

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


class Composition(NamedTuple):
    """Shares by sample, and the test between conditions (``None`` without conditions).

    Parameters
    ----------
    shares
        One row a sample and domain.
    test
        One row a domain.

    Returns
    -------
    The two tables.

    Examples
    --------
    >>> import spanmf as sn
    >>> shares, test = sn.tl.composition(sn.datasets.xenium_tissue(1000), "domain", "library")
    >>> test is None
    True
    """

    shares: pd.DataFrame
    test: pd.DataFrame | None


@doc
def composition(
    adata: AnnData | SpatialData,
    key: str,
    library_key: str,
    *,
    condition_key: str | None = None,
    key_added: str | None = None,
    table_key: str | None = None,
) -> Composition:
    r"""Compare what samples are made of: the share of each domain, or of each factor, by sample and condition.

    The units of the test are the samples. Cells of one sample resemble each other, so that a test that counts cells (χ²
    of domain × condition) calls nearly every domain different between any two groups of samples.

    With :math:`y = \arcsin\sqrt{\text{share}}` of each sample, every domain is tested by Welch's analysis of variance
    (for two conditions: the square of Welch's t), which allows conditions to differ in spread. p is adjusted over the
    domains by Benjamini and Hochberg. Shares of a sample sum to 1, so that where one domain grows, others shrink: read
    the test as "the share differs", not as "there are more such cells". With three samples a condition only large
    differences can be found.

    Parameters
    ----------
    {adata}
    key
        Domains: a categorical column of ``adata.obs`` (cells without a label are left out). Or factors: a matrix in
        ``adata.obsm``, with or without ``X_``, whose share is that of what is reconstructed,
        :math:`\sum_i W_{ik} \sum_j H_{kj}`, where loadings are in ``adata.varm``, else :math:`\sum_i W_{ik}`. A name
        that is in both means the domains; ``"X_hsnmf"`` is the factors.
    {library_key}
    condition_key
        Column of ``adata.obs`` with the condition of each sample.
    key_added
        ``uns`` key. ``None``: ``f"{key}_composition"``.
    {table_key}

    Returns
    -------
    Composition
        ``shares``: ``library``, ``condition`` (if given), ``domain`` or ``factor``, ``n_cells`` of the sample (labelled
        ones), ``share``. ``test`` (``None`` without conditions), one row a domain: ``share_<condition>`` (means over
        samples), ``difference`` (second condition less the first, where there are two), ``F``, ``df`` (of the
        denominator), ``p``, ``p_adjusted``, and ``note``, which says why there is no p where it is NaN: fewer than two
        samples in a condition, or no variation within one.

    Both tables are written to ``adata.uns[key_added]``, with ``|`` for the ``/`` that a condition may have in its name
    and no column of a stored table can.

    Raises
    ------
    KeyError
        If a column or matrix is missing.
    ValueError
        If a sample has two conditions, a condition or sample is missing (NaN), or factors are negative.

    References
    ----------
    Welch (1951), *Biometrika* 38, 330. Phipson et al. (2022), *Bioinformatics* 38, 4720 (transformed shares).

    See Also
    --------
    spanmf.pl.composition : the same as a picture.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(2000, n_libraries=4)
    >>> adata.obs["treated"] = adata.obs["library"].isin(adata.obs["library"].unique()[:2]).map({True: "yes", False: "no"})
    >>> shares, test = sn.tl.composition(adata, "domain", "library", condition_key="treated")
    >>> test.columns.tolist()[:4]
    ['domain', 'share_no', 'share_yes', 'difference']
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    key_added = f"{key}_composition" if key_added is None else key_added
    _checks.check_key_added(key_added)
    with timed("tl.composition") as notes:
        found = _composition.shares(table, key, library_key, condition_key)
        shares = tidy(found)
        test = None if condition_key is None else _composition.compare(found)
        params = {"key": key, "library_key": library_key, "condition_key": condition_key}
        record = _data.provenance(params) | {"shares": shares}
        if test is not None:
            record["test"] = test.set_axis(_data.storable_names(test.columns), axis=1)
        table.uns[key_added] = record
        notes.append(
            f"{found.share.shape[1]} {found.share.columns.name}s in {len(found.share)} samples, uns[{key_added!r}]"
        )
    return Composition(shares.copy(), None if test is None else test.copy())


def tidy(found: _composition.Shares) -> pd.DataFrame:
    """One row a sample and domain."""
    n, k = found.share.shape
    libraries, domains = found.share.index, found.share.columns
    columns = {"library": np.repeat(libraries.to_numpy(), k)}
    if found.condition is not None:
        columns["condition"] = np.repeat(found.condition.astype(str).to_numpy(), k)
    columns |= {
        domains.name: np.tile(domains.to_numpy(), n),
        "n_cells": np.repeat(found.n_cells, k),
        "share": found.share.to_numpy().ravel(),
    }
    return pd.DataFrame(columns)
