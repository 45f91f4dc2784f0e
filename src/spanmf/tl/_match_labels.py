"""Give two runs' domains the same names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from .. import _checks, _data
from .._docs import doc

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def match_labels(
    adata: AnnData | SpatialData,
    cluster_key: str,
    reference_key: str,
    *,
    key_added: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Rename labels after those of another run, so that the two can be compared by name.

    The one-to-one matching with the most observations in common (Hungarian algorithm on the contingency table).
    Labels without a partner get names that the reference does not use.

    Parameters
    ----------
    {adata}
    {cluster_key}
    reference_key
        Categorical column of ``adata.obs`` whose names are taken over.
    key_added
        Column to write; ``None``: ``cluster_key`` itself is renamed.
    {table_key}
    {copy}

    Returns
    -------
    The copy if ``copy``, else ``None``. Written:

    ``adata.obs[key_added]`` : categorical
        The same groups under matched names.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If no observation has both labels.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> adata.obs["other"] = adata.obs["domain"].astype(str).str.upper().astype("category")
    >>> sn.tl.match_labels(adata, "other", "domain")
    >>> bool((adata.obs["other"].astype(str) == adata.obs["domain"].astype(str)).all())
    True
    """
    table = _data.get_table(adata, table_key)
    codes, names = _data.get_labels(table, cluster_key)
    ref_codes, ref_names = _data.get_labels(table, reference_key)
    both = (codes >= 0) & (ref_codes >= 0)
    if not both.any():
        _checks.fail_nothing_in_common(cluster_key, reference_key)
    counts = np.zeros((len(names), len(ref_names)), dtype=np.int64)
    np.add.at(counts, (codes[both], ref_codes[both]), 1)
    new = {}
    for i, j in zip(*linear_sum_assignment(-counts), strict=True):
        if counts[i, j] > 0:
            new[i] = ref_names[j]
    taken = set(ref_names)
    spare = (str(i) for i in range(len(names) + len(ref_names) + 1) if str(i) not in taken)
    for i in range(len(names)):
        if i not in new:
            new[i] = next(spare)
    order = [n for n in ref_names if n in new.values()] + [n for n in new.values() if n not in taken]
    position = {n: c for c, n in enumerate(order)}
    recode = np.array([position[new[i]] for i in range(len(names))] + [-1])
    table = _data.target(table, copy=copy)
    table.uns.pop(f"{key_added or cluster_key}_colors", None)  # of the old names
    table.obs[key_added or cluster_key] = pd.Categorical.from_codes(recode[codes], categories=order)
    return table if copy else None
