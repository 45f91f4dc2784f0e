"""Agreement of labels with known ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.metrics import (
    adjusted_rand_score,
    completeness_score,
    homogeneity_score,
    normalized_mutual_info_score,
)

from .. import _data
from .._docs import doc
from . import _inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


class LabelAgreement(NamedTuple):
    """Agreement of two labelings, over the observations that have both labels."""

    ari: float
    nmi: float
    homogeneity: float
    completeness: float
    n_compared: int
    n_left_out: int


@doc
def label_agreement(
    data: AnnData | SpatialData | Sequence[Any] | np.ndarray,
    labels: str | Sequence[Any] | np.ndarray,
    reference: str | Sequence[Any] | np.ndarray | None = None,
    *,
    table_key: str | None = None,
) -> LabelAgreement:
    r"""Agreement of labels with known ones: ARI, NMI, homogeneity and completeness.

    * ``ari``: the adjusted Rand index, the share of pairs of observations on which both agree, so scaled that labels at
      random have 0 on average.
    * ``homogeneity``: :math:`1 - H(\text{reference} \mid \text{labels}) / H(\text{reference})`, whether a cluster holds one known
      label only; ``completeness``: the same with the roles exchanged, whether a known label lies in one cluster; ``nmi``: their
      harmonic mean.

    **Range** ARI about −0.5 to 1, the others 0 to 1; **higher is closer**, 1 for equal partitions. The names of the labels
    do not matter.

    **What else moves it.** Only the ARI is adjusted for chance: homogeneity rises with every further cluster, completeness
    falls, and NMI rises with both numbers of clusters, even at random. The ARI counts pairs, so that large domains decide it. All
    of them depend on which observations have a known label.

    Parameters
    ----------
    data
        Annotated data matrix (a SpatialData is taken too: see ``table_key``) with both columns; or the labels
        themselves, and the known ones as the second argument.
    labels
        Categorical column of ``adata.obs``, or one label an observation.
    reference
        The known labels: a column or one label an observation. (Not given where ``data`` are the labels.)
    {table_key}

    Returns
    -------
    Named tuple ``(ari, nmi, homogeneity, completeness, n_compared, n_left_out)``: the observations that lack one of the two
    labels (NaN) are left out, and counted in the last.

    Raises
    ------
    KeyError
        If a column is not in the table.
    ValueError
        If lengths differ, or no observation has both labels.

    References
    ----------
    Hubert and Arabie (1985), Journal of Classification 2:193 (ARI). Rosenberg and Hirschberg (2007), EMNLP-CoNLL
    (homogeneity, completeness).

    Examples
    --------
    >>> import spanmf as sn
    >>> result = sn.metrics.label_agreement(["0", "0", "1", "1", None], ["a", "a", "b", "c", "c"])
    >>> [round(x, 2) for x in result]
    [0.57, 0.8, 0.67, 1.0, 4, 1]
    """
    if _inputs.is_table(data):
        if reference is None:
            msg = "Name the known labels: `label_agreement(adata, 'hsnmf', 'layer')`."
            raise TypeError(msg)
        adata = _data.get_table(data, table_key)
        ours, known = (_inputs.label_codes(adata, x, adata.n_obs) for x in (labels, reference))
    elif reference is not None:
        msg = "Three arguments are for a table and two of its columns. Of arrays, pass the labels and the known ones only."
        raise TypeError(msg)
    else:
        ours = _inputs.label_codes(None, data, len(data))
        known = _inputs.label_codes(None, labels, len(data))
    both = (ours >= 0) & (known >= 0)
    if not both.any():
        msg = "No observation has both a label and a known one."
        raise ValueError(msg)
    truth, found = known[both], ours[both]
    return LabelAgreement(
        float(adjusted_rand_score(truth, found)),
        float(normalized_mutual_info_score(truth, found)),
        float(homogeneity_score(truth, found)),
        float(completeness_score(truth, found)),
        int(both.sum()),
        int((~both).sum()),
    )
