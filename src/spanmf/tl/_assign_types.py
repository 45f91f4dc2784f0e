"""A cell type for every observation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from .. import _checks, _data
from .._docs import doc
from .._logging import timed
from ..core import _annotation
from . import _fine_clusters, _fit, _parts
from ._annotate_factors import UNKNOWN, describe, storable_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import scipy.sparse as sp
    from anndata import AnnData
    from mudata import MuData
    from spatialdata import SpatialData

METHODS = ("clusters", "dominant")
THRESHOLD = 0.2


@doc
def assign_types(
    data: MuData | AnnData | SpatialData,
    markers: Mapping[str, Sequence[str]] | pd.DataFrame | str | Path | None = None,
    *,
    key: str = "joint_nmf",
    method: Literal["clusters", "dominant"] = "clusters",
    n_clusters: int | None = None,
    threshold: float | None = None,
    use_neighbors: bool = False,
    connectivity_key: str | None = None,
    annotation_key: str = "annotate_factors",
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    key_added: str = "assign_types",
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Give every observation a cell type and say how sure it is.

    ``"clusters"``: observations that have all modalities are cut into fine clusters by k-means on :math:`W (H H^\top)^{1/2}`. The fitted
    profiles :math:`\bar w_c H` of the clusters are standardised over the clusters. A cluster takes the type with the highest correlation,
    over all markers of all types, of that profile with "is a marker of the type", a marker of s types weighing 1/s: so what other
    types' markers show counts against it. Genes weigh 1, proteins 1.5, and with m markers the correlation is multiplied by
    :math:`m / (m + 1)`. Every observation then gets the probability of each cluster by linear discriminants, summed over the clusters of
    a type. An observation without a modality is judged by what it has: discriminants on the 20 leading principal components of that,
    fitted to the complete observations (their temperature set on a half that was not fitted), so that types which only the absent
    modality tells apart share their probability, and the confidence says so.

    ``"dominant"`` (published): the type of the component with the largest :math:`W_{ik} \lVert H_k \rVert`, as
    :func:`spanmf.tl.annotate_factors` named it. Its confidence is the share of that type's components.

    Parameters
    ----------
    data
        A MuData with joint factors, or a table with those of :func:`spanmf.tl.nmf` and its like.
    markers
        As in :func:`spanmf.tl.annotate_factors`; two types or more.
    key
        Base name of the factorisation.
    method
        ``"clusters"`` or ``"dominant"``.
    n_clusters
        Number of fine clusters, several a type. ``None``: twice the components, at least 20.
    threshold
        Lowest score of a cluster's type; below it ``"Unknown"``. ``None``: 0.2.
    use_neighbors
        Let the types of an observation's neighbours in the tissue be the prior of one that lacks a modality.
    connectivity_key
        Graph of these neighbours, in the MuData or a modality.
    annotation_key
        Where :func:`spanmf.tl.annotate_factors` wrote (``"dominant"``).
    {rng}
    key_added
        Base name of what is written.
    {table_key}

    Returns
    -------
    DataFrame, one row a cluster (or factor): ``cluster``, ``cell_type``, ``score``, ``second``, ``margin``, ``p``, ``markers``, ``n_obs``. Written
    to the MuData or table (with the default ``key_added``):

    ``obs["assign_types"]`` : categorical
        The types, ``"Unknown"`` last where there is any.
    ``obs["assign_types_confidence"]`` : float32
        Probability of that type, given the clusters.
    ``obs["assign_types_cluster"]`` : categorical
        The likeliest cluster.
    ``uns["assign_types"]`` : dict
        ``table``, ``params``, ``versions``.

    Raises
    ------
    KeyError
        If factors, annotation or graph are missing.
    ValueError
        If markers name one type only or match nothing; if options do not go together.

    Examples
    --------
    >>> import spanmf as sn
    >>> mdata = sn.datasets.rna_protein_tissue(1000, missing=0.3)
    >>> sn.tl.joint_nmf(mdata, 10)
    >>> table = sn.tl.assign_types(mdata)
    >>> "plasma cell" in set(mdata.obs["assign_types"])
    True
    """
    _checks.check_choice("method", method, METHODS)
    _checks.check_key_added(key_added)
    _checks.check_flag("use_neighbors", use_neighbors)
    if n_clusters is not None:
        _checks.check_range("n_clusters", n_clusters, 2, integer=True)
    threshold = THRESHOLD if threshold is None else threshold
    _checks.check_range("threshold", threshold)
    factored = _parts.read(data, key, table_key)
    params: dict[str, Any] = {"key": key, "method": method}
    with timed("tl.assign_types") as notes:
        if method == "dominant":
            given = {
                "markers": markers is not None,
                "n_clusters": n_clusters is not None,
                "use_neighbors": use_neighbors,
                "connectivity_key": connectivity_key is not None,
            }
            _checks.check_idle('`method="dominant"`', [n for n, is_given in given.items() if is_given], given)
            table, types, shares, cluster = _dominant(factored, annotation_key)
        else:
            found = _parts.find(factored, markers)
            if len(found.names) < 2:
                msg = f"The markers that were found name one type only ({found.names[0]!r}): at least two are needed to tell types apart."
                raise ValueError(msg)
            A = _fine_clusters.neighbours(factored, use_neighbors, connectivity_key)
            stream = _data.default_rng(rng, random_state)
            table, types, shares, cluster = _by_clusters(factored, found, n_clusters, threshold, A, stream)
            params |= {
                "n_clusters": len(table), "threshold": float(threshold), "use_neighbors": use_neighbors,
                "rng": _fit.seed_of(rng, random_state),
            }  # fmt: skip
        _write(factored.holder, key_added, params, table, types, shares, cluster)
        counts = factored.holder.obs[key_added].value_counts()
        notes.append(
            f"{(counts > 0).sum()} types, {counts.get(UNKNOWN, 0)} unknown; added obs[{key_added!r}], obs['{key_added}_confidence']"
        )
    return table


def _write(
    holder: Any,
    key: str,
    params: dict[str, Any],
    table: pd.DataFrame,
    types: list[str],
    shares: np.ndarray,
    cluster: np.ndarray,
) -> None:
    record = _data.provenance(params) | {"table": storable_table(table)}
    best = shares.argmax(1)
    order = sorted(range(len(types)), key=lambda t: (types[t] == UNKNOWN, types[t]))
    rank = np.empty(len(types), dtype=int)
    rank[order] = np.arange(len(types))
    holder.obs[key] = pd.Categorical.from_codes(rank[best], categories=[types[t] for t in order])
    holder.obs[f"{key}_confidence"] = shares[np.arange(len(best)), best].astype(np.float32)
    holder.obs[f"{key}_cluster"] = pd.Categorical.from_codes(cluster, categories=[str(c) for c in range(len(table))])
    holder.uns[key] = record


def _dominant(factored: _parts.Factored, annotation_key: str) -> tuple[pd.DataFrame, list[str], np.ndarray, np.ndarray]:
    """Types of the dominant components, and the share of each type's components."""
    hint = f"Run `sn.tl.annotate_factors(data, markers, key={factored.key!r})` first, or use `method='clusters'`."
    _checks.check_key(factored.holder.uns, annotation_key, "uns", hint)
    table = pd.DataFrame(factored.holder.uns[annotation_key]["table"]).reset_index(drop=True)
    if len(table) != factored.W.shape[1]:
        msg = f"`uns[{annotation_key!r}]` names {len(table)} factors, and {factored.key!r} has {factored.W.shape[1]}: they are of two runs. {hint}"
        raise ValueError(msg)
    size = factored.W * np.sqrt(np.diag(_fine_clusters.gram(factored)))
    total = size.sum(1, keepdims=True)
    size = np.divide(size, total, out=np.full(size.shape, 1 / size.shape[1]), where=total > 0)
    names = table["cell_type"].astype(str)
    types = list(dict.fromkeys(names))
    codes = np.array([types.index(n) for n in names])
    best = size.argmax(1)
    shares = np.zeros((len(size), len(types)))
    for r, t in enumerate(codes):
        shares[:, t] += size[:, r]
    chosen = np.full(shares.shape, -1.0)  # the type of the dominant component, whatever the sums
    chosen[np.arange(len(best)), codes[best]] = shares[np.arange(len(best)), codes[best]]
    table = table.rename(columns={"factor": "cluster"})
    table["n_obs"] = np.bincount(best, minlength=len(table))
    return table, types, chosen, best


def _by_clusters(
    factored: _parts.Factored,
    found: _parts.Found,
    n_clusters: int | None,
    threshold: float,
    A: sp.csr_matrix | None,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, list[str], np.ndarray, np.ndarray]:
    """Fine clusters of the most complete observations, their types, and every observation's share in them."""
    fine = _fine_clusters.find(factored, n_clusters or _fine_clusters.usual(factored), rng)
    table, codes, types = _name_clusters(factored, found, fine.centres, threshold)
    table["n_obs"] = fine.sizes
    posterior = _fine_clusters.posterior(fine, codes, A, rng)
    return table, types, _fine_clusters.by_type(posterior, codes, len(types)), posterior.argmax(1)


def _name_clusters(
    factored: _parts.Factored, found: _parts.Found, centres: np.ndarray, threshold: float
) -> tuple[pd.DataFrame, np.ndarray, list[str]]:
    """The type of each cluster; the type's number among those that occur."""
    contrasts = [_annotation.contrast(centres @ part.H.astype(np.float64)) for part in factored.parts]
    scores = [_annotation.template_correlation(v, [row[m] for row in found.at]) for m, v in enumerate(contrasts)]
    tops = [
        [
            _annotation.top(values[c], _parts.N_TOP[part.kind])
            for part, values in zip(factored.parts, contrasts, strict=True)
        ]
        for c in range(len(centres))
    ]
    table = describe(found.combine(scores), found, tops, threshold)
    table.insert(0, "cluster", np.arange(len(table)))
    types = list(dict.fromkeys(table["cell_type"]))
    return table, np.array([types.index(t) for t in table["cell_type"]]), types
