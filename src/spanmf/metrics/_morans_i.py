"""Moran's I of all factors, with analytic p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .. import _checks, _data
from .._docs import doc
from ..core import _spatial
from . import _inputs
from ._autocorrelation import results, values_of, warn_if_circular, warn_if_nan
from ._smoothing import run_params, smoothed_null, smoothing_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp
    from anndata import AnnData
    from spatialdata import SpatialData

    from ..core._tiles import AnyGraph
    from ._smoothing import Smoothing


@doc
def morans_i(
    data: AnnData | SpatialData | sp.spmatrix | np.ndarray,
    values: str | np.ndarray | pd.DataFrame,
    *,
    connectivity_key: str | None = None,
    assumption: Literal["randomisation", "normality", "smoothed"] = "randomisation",
    beta: float | None = None,
    n_steps: int | None = None,
    n_permutations: int = 100,
    preset: Literal["paper"] | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Moran's I of every factor, with its expectation, standard deviation and p-value.

    .. math:: I_k = \frac{n}{S_0} \frac{z_k^\top A z_k}{z_k^\top z_k}, \qquad z_k = W_k - \bar W_k, \quad S_0 = \sum_{ij} A_{ij}

    **Range** about −1 to 1, :math:`-1/(n-1)` expected of values without spatial order; **higher is smoother in
    space**. It does not depend on the scale of a factor.

    **What else moves it.** On a graph that smoothed the factors it is **circular**: the diffusion of the hSNMF paper
    lifts pure noise from 0.00 to 0.17 and an I of 0.20 to 0.88, and another radius does not cure it. The p-values hold
    for factors that were *not* smoothed; a warning says so where the table records that the scoring graph smoothed
    them. Smoothed ones can be held against smoothed noise only (``assumption="smoothed"``): ``expected`` is then what
    the same values have without any order of their own. A wider radius lowers I. z grows as :math:`\sqrt{n}`, so that at the size of a tissue any structure is
    significant: read I first. Isolated observations count in n and add nothing.

    Parameters
    ----------
    data
        Annotated data matrix (a SpatialData is taken too: see ``table_key``), or a graph (n × n, sparse or dense,
        non-negative weights). Self-loops do not count.
    values
        Key of the factors in ``adata.obsm`` (with or without ``X_``), or an array (n, or n × k: one column a factor,
        where :func:`scanpy.metrics.morans_i` has one row a feature).
    {connectivity_key}
    assumption
        What ``expected`` and ``sd`` are of: permuted values (``"randomisation"``) or independent normal values
        (``"normality"``), both exact; or, for factors that were smoothed, rows put to random positions and smoothed again over
        the same graph (``"smoothed"``), by permutations.
    beta, n_steps
        How the values were smoothed, :math:`W \leftarrow (1-\beta) W + \beta P W` (``"smoothed"`` only). ``None``: what the
        run records. An array is smoothed again over the graph that scores it.
    n_permutations
        Number of permutations (``"smoothed"`` only). The mean and the sd of I are taken from them, and z and p from these.
    preset
        ``"paper"``: the first factor only, on the graph that smoothed the factors, and without the warning.
    {rng}
    {table_key}

    Returns
    -------
    DataFrame with one row a factor (the columns of ``values`` where it has names) and the columns ``I``,
    ``expected``, ``sd``, ``z``, ``pval`` (two-sided, normal) and ``pval_adj`` (Benjamini–Hochberg). NaN, with a
    warning, for constant factors, for a graph without edges, and (all but ``I`` and ``expected``) for fewer than
    four observations.

    Raises
    ------
    KeyError
        If the factors or the graph are not in the table.
    ValueError
        If sizes differ or values are not finite; if ``"smoothed"`` lacks ``beta`` and ``n_steps``.

    References
    ----------
    Moran (1950), Biometrika 37:17. Cliff and Ord (1981), Spatial Processes: Models and Applications, ch. 2. Mahmud et
    al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import numpy as np
    >>> import spanmf as sn
    >>> ring = np.roll(np.eye(50), 1, axis=1) + np.roll(np.eye(50), -1, axis=1)
    >>> wave = np.sin(np.arange(50) / 50 * 2 * np.pi)
    >>> noise = np.random.default_rng(0).random(50)
    >>> table = sn.metrics.morans_i(ring, np.column_stack([wave, noise]))
    >>> table["I"].round(2).tolist(), (table["pval_adj"] < 0.01).tolist()
    ([0.99, -0.03], [True, False])
    """
    _checks.check_choice("assumption", assumption, ("randomisation", "normality", "smoothed"))
    _checks.check_choice("preset", preset, (None, "paper"))
    _checks.check_range("n_permutations", n_permutations, 2, integer=True)
    adata = _data.get_table(data, table_key) if _inputs.is_table(data) else None
    how = (
        smoothing_of(run_params(adata, values.removeprefix("X_")))
        if adata is not None and isinstance(values, str)
        else None
    )
    if preset is not None and connectivity_key is None and how is not None:
        connectivity_key = how.connectivity_key
    adata, A, scored_on = _inputs.graph(data, connectivity_key, table_key)
    V, names = values_of(adata, values, A.shape[0])
    if preset is not None:
        V, names = V[:, :1], names[:1]

    if assumption == "smoothed":
        smoother, beta, n_steps = _smoother(adata, A, scored_on, how, beta, n_steps)
        observed = _spatial.morans_i(A, V, "normality")[0]
        null = smoothed_null(
            A, smoother, V, beta=beta, n_steps=n_steps, n_permutations=n_permutations,
            rng=_data.default_rng(rng, random_state),
        )  # fmt: skip
        expected, sd = null.mean(0), null.std(0, ddof=1)
    else:
        if preset is None:
            warn_if_circular(adata, values, scored_on, "Moran's I is high")
        observed, expected, sd = _spatial.morans_i(A, V, assumption)
    warn_if_nan(observed, sd, V, A, "Moran's I")
    return results("I", observed, expected, sd, names)


def _smoother(
    adata: AnnData | None,
    A: AnyGraph,
    scored_on: str | None,
    how: Smoothing | None,
    beta: float | None,
    n_steps: int | None,
) -> tuple[AnyGraph, float, int]:
    """Graph, share and steps of the smoothing that is to be repeated: as given, else as the run records them."""
    beta = how.beta if beta is None and how is not None else beta
    n_steps = how.n_steps if n_steps is None and how is not None else n_steps
    if beta is None or n_steps is None:
        msg = (
            "The table does not say by which `beta` and `n_steps` these values were smoothed: give both. Factors smoothed inside "
            "the fit (`smoothing='laplacian'`) have none; for values that were not smoothed use `assumption='randomisation'`."
        )
        raise ValueError(msg)
    _checks.check_range("beta", beta, 0, 1)
    _checks.check_range("n_steps", n_steps, 0, integer=True)
    if how is None or how.is_over(scored_on):
        return A, beta, n_steps
    return _data.find_graph(adata, how.connectivity_key)[0], beta, n_steps
