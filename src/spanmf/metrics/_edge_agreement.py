"""Edge agreement: the share of a graph's edges whose ends carry the same label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from .. import _checks
from .._docs import doc
from ..core import _joincount
from ..core._tiles import unweighted
from . import _inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import scipy.sparse as sp
    from anndata import AnnData
    from spatialdata import SpatialData


class EdgeAgreement(NamedTuple):
    """Share of agreeing edges, with its mean and standard deviation under random labelling."""

    observed: float
    expected: float
    sd: float
    z: float


@doc
def edge_agreement(
    data: AnnData | SpatialData | sp.spmatrix | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    *,
    connectivity_key: str | None = None,
    preset: Literal["paper"] | None = None,
    table_key: str | None = None,
) -> EdgeAgreement:
    r"""Share of the edges (by weight) whose two ends carry the same label, against random labelling.

    .. math:: \mathrm{EA} = \frac{\sum_{ij} A_{ij} [l_i = l_j]}{\sum_{ij} A_{ij}}

    The expectation and the standard deviation are exact for labels permuted over the labelled observations of the
    fixed graph (join counts of Cliff and Ord, summed over labels with their covariances): nothing is permuted.

    **Range** 0 to 1; **higher is smoother**. ``expected`` is what labels without any spatial order reach.

    **What else moves it.** Fewer and more unequal clusters raise ``observed`` and ``expected`` alike (one cluster
    gives 1 for both); a wider radius lowers it; smoothing over the same graph, or labels found by clustering that
    graph, raise it by construction. ``z`` grows as :math:`\sqrt{n}`, and in tissue nearly any labelling has a
    large one: random labelling is a weak null, so compare ``observed`` between labelings first.
    Merging contact and context edges by the larger weight adds no edge to the context graph: unweighted, the
    agreement on both is the same.

    Parameters
    ----------
    data
        Annotated data matrix (a SpatialData is taken too: see ``table_key``), or a graph (n × n, sparse or dense,
        non-negative weights). Self-loops do not count; a graph that is not symmetric is read as (A + Aᵀ)/2.
    {labels}
    {connectivity_key}
    preset
        ``"paper"``: every edge counts the same. (The paper gives it on the contact and on the context graph, as after
        ``sn.gr.contact_neighbors(adata, 20, 0, key_added="ring")`` and ``sn.gr.contact_neighbors(adata, 20, 80)``.)
    {table_key}

    Returns
    -------
    Named tuple ``(observed, expected, sd, z)``. All NaN, with a warning, where no edge joins labelled observations;
    ``z`` NaN, with a warning, where random labels cannot vary (one cluster, or all observations linked to all).

    Raises
    ------
    KeyError
        If the column or the graph is not in the table.
    ValueError
        If sizes differ, weights are negative or not finite, or all labels are missing.

    References
    ----------
    Cliff and Ord (1981), Spatial Processes: Models and Applications, ch. 2.
    Mahmud et al. (2026), arXiv:2602.02638 (hSNMF).

    Examples
    --------
    >>> import numpy as np
    >>> import spanmf as sn
    >>> ring = np.roll(np.eye(12), 1, axis=1) + np.roll(np.eye(12), -1, axis=1)
    >>> result = sn.metrics.edge_agreement(ring, list("aaaaaabbbbbb"))
    >>> [round(x, 3) for x in result]
    [0.833, 0.455, 0.144, 2.635]
    """
    _checks.check_choice("preset", preset, (None, "paper"))
    adata, A, _ = _inputs.graph(data, connectivity_key, table_key)
    if preset is not None:
        A = unweighted(A)
    codes = _inputs.label_codes(adata, labels, A.shape[0])
    sums = _joincount.edge_sums(A, codes)
    if sums.S0 == 0:
        _checks.warn("Edge agreement is NaN: the graph has no edge between two labelled observations.")
        return EdgeAgreement(*[float("nan")] * 4)
    mean, variance = _joincount.agreement_moments(sums, np.unique(codes[codes >= 0], return_counts=True)[1])
    observed, expected, sd = sums.agreeing / sums.S0, mean / sums.S0, variance**0.5 / sums.S0
    if sd == 0:
        _checks.warn("The z of edge agreement is NaN: random labels would always agree on the same number of edges.")
        return EdgeAgreement(observed, expected, sd, float("nan"))
    return EdgeAgreement(observed, expected, sd, (observed - expected) / sd)
