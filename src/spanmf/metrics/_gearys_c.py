"""Geary's C of all factors, with analytic p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .. import _checks
from .._docs import doc
from ..core import _spatial
from . import _inputs
from ._autocorrelation import results, values_of, warn_if_circular, warn_if_nan

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def gearys_c(
    data: AnnData | SpatialData | sp.spmatrix | np.ndarray,
    values: str | np.ndarray | pd.DataFrame,
    *,
    connectivity_key: str | None = None,
    assumption: Literal["randomisation", "normality"] = "randomisation",
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Geary's C of every factor, with its expectation, standard deviation and p-value.

    .. math:: C_k = \frac{n - 1}{2 S_0} \frac{\sum_{ij} A_{ij} (W_{ik} - W_{jk})^2}{\sum_i (W_{ik} - \bar W_k)^2},
        \qquad S_0 = \sum_{ij} A_{ij}

    **Range** 0 upwards, 1 expected of values without spatial order; **lower is smoother in space**, so that order shows as a
    *negative* z. It does not depend on the scale of a factor.

    **What else moves it.** What moves :func:`morans_i`: smoothing over the scoring graph lowers it by construction, a wider
    radius raises it towards 1, z grows as :math:`\sqrt{n}`. Where observations have the same degree and no factor has outliers it is about
    1 − I; it weighs differences between neighbours rather than their common distance from the mean, and so depends more on
    the tails of the values. Isolated observations add nothing to the numerator and all they have to the denominator.

    Parameters
    ----------
    data
        Annotated data matrix (a SpatialData is taken too: see ``table_key``), or a graph (n × n, sparse or dense,
        non-negative weights). Self-loops do not count.
    values
        Key of the factors in ``adata.obsm`` (with or without ``X_``), or an array (n, or n × k: one column a factor,
        where :func:`scanpy.metrics.gearys_c` has one row a feature).
    {connectivity_key}
    assumption
        Variance under permuted values (``"randomisation"``) or under independent normal values (``"normality"``).
    {table_key}

    Returns
    -------
    DataFrame with one row a factor (the columns of ``values`` where it has names) and the columns ``C``,
    ``expected`` (1), ``sd``, ``z``, ``pval`` (two-sided, normal) and ``pval_adj`` (Benjamini–Hochberg). NaN, with a
    warning, for constant factors, for a graph without edges, and (all but ``C`` and ``expected``) for fewer than
    four observations.

    Raises
    ------
    KeyError
        If the factors or the graph are not in the table.
    ValueError
        If sizes differ or values are not finite.

    References
    ----------
    Geary (1954), The Incorporated Statistician 5:115. Cliff and Ord (1981), Spatial Processes: Models and Applications,
    ch. 2.

    Examples
    --------
    >>> import numpy as np
    >>> import spanmf as sn
    >>> ring = np.roll(np.eye(50), 1, axis=1) + np.roll(np.eye(50), -1, axis=1)
    >>> wave = np.sin(np.arange(50) / 50 * 2 * np.pi)
    >>> noise = np.random.default_rng(0).random(50)
    >>> table = sn.metrics.gearys_c(ring, np.column_stack([wave, noise]))
    >>> table["C"].round(2).tolist(), (table["pval_adj"] < 0.01).tolist()
    ([0.01, 1.01], [True, False])
    """
    _checks.check_choice("assumption", assumption, ("randomisation", "normality"))
    adata, A, scored_on = _inputs.graph(data, connectivity_key, table_key)
    V, names = values_of(adata, values, A.shape[0])
    warn_if_circular(adata, values, scored_on, "Geary's C is low")
    observed, expected, sd = _spatial.gearys_c(A, V, assumption)
    warn_if_nan(observed, sd, V, A, "Geary's C")
    return results("C", observed, expected, sd, names)
