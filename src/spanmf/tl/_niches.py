"""Niches: groups of observations with alike surroundings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import _checks, _data, _keys
from .._docs import doc
from .._logging import timed
from ..core import _domains
from . import _fit

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

N_NAMED = 2  # most labels in the name of a niche
NAMED_SHARE = 0.15  # share that a label has at least in a niche whose name holds it
NAMED_LIFT = 1.2  # and how much more than in all surroundings


@doc
def niches(
    adata: AnnData | SpatialData,
    n_niches: int = 8,
    *,
    use_rep: str = "niche_composition",
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    key_added: str = "niches",
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Group observations by what surrounds them, and name the groups.

    k-means (10 starts) on the square roots of the shares, :math:`\sqrt{s_{ib}}`, whose distances are those of Hellinger:
    a rare label counts for more than by the shares themselves. A niche is named after the labels that make up at least
    15 % of it and are commoner there than in all surroundings, the most enriched first.

    Parameters
    ----------
    {adata}
    n_niches
        Number of niches.
    use_rep
        Shares in ``adata.obsm`` made by :func:`spanmf.gr.niche_composition`.
    {rng}
    key_added
        Base name of the slots.
    {table_key}
    {copy}

    Returns
    -------
    The copy if ``copy``, else ``None``. Written (with the default ``key_added``):

    ``adata.obs["niches"]`` : categorical
        Niches by name, in decreasing size; ``"isolated"`` for observations without neighbours.
    ``adata.uns["niches"]`` : dict
        ``composition`` (DataFrame: mean share of each label by niche), ``labels`` (their names as they were), ``n_obs``, ``params``, ``versions``.

    Raises
    ------
    KeyError
        If there is no composition.
    ValueError
        If ``n_niches`` is below 2 or above the number of observations with neighbours.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sn.gr.niche_composition(adata, "cell_type", radius=50, library_key="library")
    >>> sn.tl.niches(adata, 4)
    >>> adata.obs["niches"].nunique()
    4
    """
    table = _data.get_table(adata, table_key)
    _checks.check_key_added(key_added)
    hint = "Run `sn.gr.niche_composition(adata, cluster_key)` first."
    _checks.check_key(table.obsm, use_rep, "obsm", hint)
    shares = pd.DataFrame(table.obsm[use_rep])
    linked = np.flatnonzero(shares.notna().all(axis=1))
    _checks.check_range("n_niches", n_niches, 2, len(linked), integer=True)
    values = shares.to_numpy(dtype=np.float64)[linked]
    if (n_distinct := len(np.unique(values, axis=0))) < n_niches:
        msg = f"There are {n_distinct} different surroundings only, so not {n_niches} niches: take a smaller `n_niches`, or a larger radius in `sn.gr.niche_composition`."
        raise ValueError(msg)
    with timed("tl.niches") as notes:
        found, _ = _domains.k_means(np.sqrt(values).astype(np.float32), n_niches, _data.default_rng(rng, random_state))
        ordered = _data.ordered_labels(found)
        overall, names = values.mean(0), _label_names(table, use_rep, shares)
        mean = np.stack([values[ordered.codes == i].mean(0) for i in range(len(ordered.categories))])
        titles = _distinct([_name(m, overall, names) for m in mean])
        isolated = len(linked) < len(shares)
        codes = np.full(len(shares), len(titles) if isolated else -1)
        codes[linked] = ordered.codes
        table = _data.target(table, copy=copy)
        table.obs[key_added] = pd.Categorical.from_codes(codes, titles + [_keys.ISOLATED] * isolated)
        composition = pd.DataFrame(mean, index=pd.Index(titles), columns=_data.storable_names(names))
        params = {
            "n_niches": n_niches,
            "use_rep": use_rep,
            "rng": _fit.seed_of(rng, random_state),
        }
        sizes = np.bincount(ordered.codes)
        table.uns[key_added] = _data.provenance(params, n_obs=sizes) | {"composition": composition, "labels": names}
        notes += [f"{len(titles)} niches", f"added obs[{key_added!r}], uns[{key_added!r}]"]
    return table if copy else None


def _label_names(table: AnnData, use_rep: str, shares: pd.DataFrame) -> list[str]:
    """The labels as they were, where the provenance has them, else the columns."""
    run = table.uns.get(_keys.NicheKeys(use_rep).provenance)
    labels = run.get("labels") if hasattr(run, "get") else None
    if labels is None or len(labels) != shares.shape[1]:
        return [str(c) for c in shares.columns]
    return [str(x) for x in labels]


def _name(share: np.ndarray, overall: np.ndarray, names: list[str]) -> str:
    """Labels that make a niche what it is; the commonest one where none stands out."""
    lift = np.divide(share, overall, out=np.zeros_like(share), where=overall > 0)
    telling = np.flatnonzero((share >= NAMED_SHARE) & (lift >= NAMED_LIFT))
    if telling.size == 0:
        return f"mixed, {names[int(share.argmax())]}"
    return " + ".join(names[i] for i in telling[np.argsort(-lift[telling], kind="stable")][:N_NAMED])


def _distinct(titles: list[str]) -> list[str]:
    """Number the titles that occur several times, larger niches first."""
    return [
        title if titles.count(title) == 1 else f"{title} ({titles[: i + 1].count(title)})"
        for i, title in enumerate(titles)
    ]
