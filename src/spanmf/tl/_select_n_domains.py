"""The number of domains of a tissue."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from tqdm.auto import tqdm

from .. import _checks, _data
from .._docs import doc
from .._logging import timed
from ..core import _scale, _smooth, _stability
from . import _fit
from ._snmf import raw_factors, smoothed
from ._steps import check_steps, chosen_steps

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def select_n_domains(
    adata: AnnData | SpatialData,
    n_domains: Sequence[int] = range(2, 13),
    *,
    n_components: int = 10,
    n_splits: int = 12,
    clustering: Literal["potts", "kmeans"] = "potts",
    smooth: bool = True,
    beta: float = 0.6,
    n_steps: int | Literal["auto"] = "auto",
    scale: Literal["gram", "norm"] | None = "gram",
    use_rep: str | None = None,
    connectivity_key: str | None = None,
    spatial_key: str = "spatial",
    library_key: str | None = None,
    layer: str | None = None,
    mask_var: str | np.ndarray | None = "auto",
    loss: Literal["frobenius", "kl"] = "frobenius",
    normalize: bool = False,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    key_added: str = "select_n_domains",
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Choose the number of domains by how well one half of the tissue finds the domains of the other.

    The factors are made once, as in :func:`spanmf.tl.hsnmf`. Then, ``n_splits`` times, the tissue is cut into about 50
    tiles at a random angle, which are dealt into two halves. For every candidate number, each half is clustered alone,
    and all cells take the label of the nearest centre of either half: labels p and q. What both halves find is weighed
    against what only one of them finds, in bits:

    .. math:: G = I(p; q) - H(p \mid q) - H(q \mid p).

    The suggestion is the number with the highest mean G. The adjusted Rand index of p and q is reported, too, but its
    maximum is often at two domains, which any gradient gives twice.

    On labelled tissues the domains at the suggested number come close to those at the true one
    (:doc:`/domains_evidence`); the number itself may be off by two or so, since a tissue rarely has one right number.
    Look at the curve (:func:`spanmf.pl.domain_selection`): where it is flat, other numbers are as good.

    Parameters
    ----------
    {adata}
    n_domains
        Candidate numbers, 2 or more each.
    n_components
        Number of components k, from 1 to min(n, p).
    n_splits
        Number of splits, at least 2. Time grows with it and with the candidates; on a few hundred cells or spots more
        splits steady the suggestion.
    clustering
        How domains are made, as in :func:`spanmf.tl.hsnmf`.
    smooth
        ``False`` leaves W as it is.
    beta
        Share β of the neighbourhood in a smoothing step, from 0 to 1.
    {auto_steps}
    scale
        Scale of the factors for distances, as in :func:`spanmf.tl.hsnmf`.
    use_rep
        Representation in ``adata.obsm`` to use in place of a factorisation, e.g. ``"X_snmf"``. It is smoothed unless
        ``smooth=False``, and rescaled if its loadings are in ``adata.varm``.
    {connectivity_key}
    {spatial_key}
    {library_key}
    {layer}
    {mask_var}
    {loss}
    {normalize}
    {rng}
    key_added
        ``uns`` key.
    {table_key}

    Returns
    -------
    pandas.DataFrame
        One row a candidate: ``n_domains``, ``information`` (mean of G over the splits, bits) and ``information_sd``,
        ``stability`` (mean adjusted Rand index of the halves) and ``stability_sd``, ``n_splits``, ``suggested``.

    Written: ``adata.uns[key_added]`` with ``table``, ``n_domains`` (the suggestion), ``reason``, ``information`` and
    ``stability`` (splits × candidates), ``params``, ``versions``.

    Raises
    ------
    KeyError
        If there is no spatial graph, or coordinates, a layer, representation or column is missing.
    ValueError
        If candidates are below 2, there more than once, or too many for half of the observations; or values cannot be
        factorised.

    References
    ----------
    Lange et al. (2004), *Neural Comput.* 16, 1299 (stability of halves). Meilă (2007), *J. Multivar. Anal.* 98, 873
    (variation of information).

    See Also
    --------
    spanmf.tl.select_n_components : the number of factors.
    spanmf.pl.domain_selection : the curve.

    Examples
    --------
    >>> import scanpy as sc, spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> sc.pp.normalize_total(adata); sc.pp.log1p(adata)
    >>> sn.gr.contact_neighbors(adata, library_key="library")
    >>> table = sn.tl.select_n_domains(adata, [3, 5], n_splits=2, library_key="library")
    >>> table["n_domains"].tolist(), int(table["suggested"].sum())
    ([3, 5], 1)
    """
    table = _data.get_table(adata, table_key)
    _checks.check_key_added(key_added)
    _checks.check_flag("smooth", smooth)
    _checks.check_choice("clustering", clustering, tuple(_stability.CLUSTERINGS))
    _checks.check_choice("scale", scale, ("gram", "norm", None))
    _checks.check_range("beta", beta, 0, 1)
    check_steps(n_steps)
    _checks.check_range("n_splits", n_splits, 2, integer=True)
    candidates = _candidates(n_domains, table.n_obs)
    coords = _data.get_coordinates(table, spatial_key)
    libraries, _ = _data.get_libraries(table, library_key)
    A, graph_key = _data.get_graph(table, connectivity_key)
    _checks.check_edges(A, graph_key)
    rng_ = _data.default_rng(rng, random_state)
    params: dict[str, Any] = {
        "connectivity_key": graph_key, "smooth": smooth, "beta": beta, "scale": scale,
        "clustering": clustering, "n_splits": int(n_splits), "library_key": library_key,
        "rng": _fit.seed_of(rng, random_state),
    }  # fmt: skip
    with timed("tl.select_n_domains") as notes:
        choose = partial(chosen_steps, n_steps, table, A, graph_key, beta=beta, mixture=True)
        if use_rep is None:
            problem = _fit.prepare(
                table, n_components, layer=layer, mask_var=mask_var, loss=loss, init="auto", alpha_W=0.0,
                alpha_H="same", l1_ratio=0.0, max_iter=500, tol=3e-6, normalize=normalize, preset=None, rng=rng_,
            )  # fmt: skip
            kind = "refit" if smooth else "diffuse"
            _, W, H = raw_factors(problem, A, "tl.select_n_domains", kind, 0.0)
            steps = choose(_scale.rescale(np.asarray(W), H, scale)) if smooth else 0
            W, H = smoothed(problem, A, W, H, kind, beta=beta, n_steps=steps)
            Z = _scale.rescale(W, H, scale)
            params |= problem.params
        else:
            Z = _data.get_scaled(table, use_rep, scale)
            steps = choose(Z) if smooth else 0
            Z = _smooth.diffuse(_smooth.as_graph(A), Z, beta, steps)
            params |= {"use_rep": use_rep}
        params |= {"n_steps": steps} if smooth else {}
        ari, information = _over_splits(Z, A, coords, libraries, candidates, clustering, int(n_splits), rng_)
        out = _table(candidates, ari, information)
        suggestion, reason = _suggest(out)
        record = _data.provenance(params, n_domains=suggestion, reason=reason, information=information, stability=ari)
        table.uns[key_added] = record | {"table": out.copy()}
        notes += [reason, f"uns[{key_added!r}]"]
    return out


def _candidates(n_domains: Any, n_obs: int) -> list[int]:
    """The candidate numbers in rising order, each of them possible in half of the observations."""
    found = list(np.atleast_1d(np.asarray(n_domains, dtype=object)))
    most = n_obs // 4
    if not found:
        msg = "`n_domains` is empty. Give the candidate numbers, e.g. `range(2, 13)`."
        raise ValueError(msg)
    for value in found:
        _checks.check_range("n_domains", value, 2, integer=True)
    if len(set(found)) < len(found):
        msg = f"`n_domains` names a number more than once: {_checks._listed(sorted(found))}."
        raise ValueError(msg)
    if max(found) > most:
        msg = (
            f"`n_domains` goes up to {max(found)}, but half of {n_obs} observations cannot be told apart into more than "
            f"{most} domains of two or more."
        )
        raise ValueError(msg)
    return sorted(int(value) for value in found)


def _over_splits(
    Z: np.ndarray,
    A: sp.csr_matrix,
    coords: np.ndarray,
    libraries: np.ndarray,
    candidates: list[int],
    clustering: str,
    n_splits: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted Rand index and G of every split and candidate."""
    found = []
    for own in tqdm(rng.spawn(n_splits), desc="tl.select_n_domains", unit="split", delay=3, leave=False):
        first = _stability.halves(coords, libraries, own)
        found.append(_stability.agreement(Z, A, first, candidates, _stability.CLUSTERINGS[clustering], own))
    return np.stack([ari for ari, _ in found]), np.stack([information for _, information in found])


def _table(candidates: list[int], ari: np.ndarray, information: np.ndarray) -> pd.DataFrame:
    mean = information.mean(0)
    return pd.DataFrame(
        {
            "n_domains": candidates,
            "information": mean,
            "information_sd": information.std(0, ddof=1),
            "stability": ari.mean(0),
            "stability_sd": ari.std(0, ddof=1),
            "n_splits": len(ari),
            "suggested": np.arange(len(candidates)) == int(mean.argmax()),
        }
    )


def _suggest(table: pd.DataFrame) -> tuple[int, str]:
    """Number of domains with the most shared information, and why, with what to mind."""
    best = table[table["suggested"]].iloc[0]
    number = int(best["n_domains"])
    error = table["information_sd"] / np.sqrt(table["n_splits"])
    near = table.loc[table["information"] >= best["information"] - error[table["suggested"]].iloc[0], "n_domains"]
    others = [str(k) for k in near if k != number]
    reason = (
        f"{number} domains: halves share the most information beyond what only one has ({best['information']:.2f} bits)"
    )
    if others:
        reason += f"; within one standard error of it: {', '.join(others)}"
    if len(table) > 1 and number == table["n_domains"].max():
        reason += "; it is the largest candidate: try larger ones"
    if best["information"] <= 0:
        reason += "; not above 0, so that no number is found reliably in both halves"
    return number, reason
