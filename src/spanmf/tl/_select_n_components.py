"""How many components."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from .. import _checks, _data
from .._docs import doc
from .._logging import logger, timed
from ..core import _blocks, _consensus, _crossval, _error
from . import _fit
from ._consensus_nmf import check_restarts, run_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

UNSTABLE = 0.8  # matched cosine under which a run is not to be trusted alone


@doc
def select_n_components(
    adata: AnnData | SpatialData,
    n_components: Sequence[int] = range(2, 21),
    *,
    n_folds: int = 4,
    n_var_folds: int = 5,
    n_tiles: int = 40,
    n_restarts: int = 5,
    spatial_key: str = "spatial",
    library_key: str | None = None,
    layer: str | None = None,
    mask_var: str | np.ndarray | None = "auto",
    loss: Literal["frobenius", "kl"] = "frobenius",
    max_iter: int = 500,
    tol: float = 1e-5,
    normalize: bool = False,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
    key_added: str = "select_n_components",
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Compare numbers of components by held-out error, stability and explained variance, and suggest one.

    **Held-out error** decides. The tissue is cut into ``n_tiles`` compact tiles (random ones without coordinates), and the
    tiles are put into ``n_folds`` folds at random; the variables are put into ``n_var_folds``. For the observations I and
    the variables J of two folds (bi-cross-validation): H is fitted to all observations outside I, :math:`W_I` is solved on
    the variables outside J with :math:`H_{\bar J}` fixed, and the error is

    .. math:: \lVert X_{IJ} - W_I H_J \rVert_F^2

    (twice the divergence for ``loss="kl"``), summed over all pairs of folds and divided by the error of a model that
    knows the mean of every variable only. Nothing of the size n × p is formed. As part of the variables tells little of an
    observation, :math:`W_I` is solved under the spread that the factors had in the fit (a ridge of the residual variance on
    factors of unit mean square; under KL an L1 penalty of 1 on factors of unit size); otherwise weak components would look
    like noise. With the Frobenius loss every variable is divided by its standard deviation here, otherwise a programme of
    few or low genes would not show. Compact tiles matter since neighbouring cells share transcripts.

    Too few components leave structure unexplained, too many fit noise, so the curve has a minimum. The suggestion is the
    smallest number whose error is within one standard error of the lowest, both taken from the paired differences tile
    by tile, so that what makes a tile hard for all does not count.

    **Stability** is the mean cosine of the components of two runs from random starts on all observations, matched one to
    one. **Explained variance** is that of the best of these runs; its elbow is the point farthest above the chord of the
    curve. Both are there to be looked at: stability also is high for numbers that are too small, and an elbow
    depends on the range that is compared.

    Parameters
    ----------
    {adata}
    n_components
        Numbers to compare, at least two different ones. The lowest error must not lie at an end: the reason says so.
    n_folds
        Folds of tiles.
    n_var_folds
        Folds of variables. More leave more variables to solve W on.
    n_tiles
        Tiles of the tissue; at least one a library.
    n_restarts
        Runs for the stability, at least 2.
    spatial_key
        Key of the coordinates in ``adata.obsm`` (n × 2 or n × 3). Where it is missing the tiles are random, and the log
        says so.
    {library_key}
    {layer}
    {mask_var}
    {loss}
    {stopping}
    {normalize}
    {rng}
    key_added
        Key of the record in ``adata.uns``.
    {table_key}

    Returns
    -------
    DataFrame with a row for each number:

    ``n_components``, ``cv_error``
        Held-out error as a share of the null model's; 1 is no better than that.
    ``cv_error_sd``
        Standard deviation of ``cv_error`` over the folds of tiles.
    ``cv_excess``, ``cv_excess_se``
        ``cv_error`` above the lowest, and the standard error of that difference over the tiles.
    ``stability``, ``explained_variance``
        See above.
    ``elbow``, ``suggested``
        Marks one row each.

    ``table.attrs["n_components"]`` and ``table.attrs["reason"]`` hold the suggestion and why. Written:
    ``adata.uns[key_added]``, a dict of ``table`` (the DataFrame), ``n_components``, ``reason``, ``params`` and ``versions``.

    Raises
    ------
    KeyError
        If the layer, the mask column or the library column is missing.
    TypeError, ValueError
        If values are negative, NaN, infinite or all zero; if a parameter is out of range; if there are fewer than two
        numbers, one above min(n, p) or above the number of variables seen; if there are more folds than tiles.

    Warns
    -----
    SpanmfWarning
        If the values look like raw counts (with the Frobenius loss).

    References
    ----------
    Owen & Perry (2009), *Bi-cross-validation of the SVD and the nonnegative matrix factorization*, Annals of Applied
    Statistics 3, 564.

    See Also
    --------
    spanmf.pl.rank_selection : the table as a plot.
    spanmf.tl.consensus_nmf : factors that many runs agree on.

    Examples
    --------
    >>> import spanmf as sn
    >>> adata = sn.datasets.planted_factors(400, 40, 3)
    >>> table = sn.tl.select_n_components(adata, range(2, 5), loss="kl", n_tiles=8, n_restarts=2)
    >>> table.attrs["n_components"]
    3
    """
    table = _data.get_table(adata, table_key)
    _checks.check_key_added(key_added)
    check_restarts(n_restarts)
    mask = _data.get_mask(table, mask_var)
    n, p = table.n_obs, int(mask.sum())
    ranks = _checks.check_ranks(n_components, n, p)
    _checks.check_folds(n_folds, n_var_folds, n_tiles, n, p, ranks[-1])
    codes, names = _data.get_libraries(table, library_key)
    coords = _data.get_coordinates(table, spatial_key) if spatial_key in table.obsm else None
    with timed("tl.select_n_components") as notes:
        stream = _data.default_rng(rng, random_state)
        problem = _fit.prepare(
            table, ranks[-1], layer=layer, mask_var=mask_var, loss=loss, alpha_W=0.0, alpha_H=0.0, l1_ratio=0.0,
            init="random", max_iter=max_iter, tol=tol, normalize=normalize, preset=None, rng=stream,
        )  # fmt: skip
        problem = replace(problem, X=_blocks.part_in_memory(problem.X, None))  # a dask array is read
        if coords is None:
            logger.info("`adata.obsm` holds no %r: the tiles of the cross-validation are random", spatial_key)
            tile = _crossval.random_tiles(n, n_tiles, stream)
        else:
            tile = _crossval.spatial_tiles(coords, codes, max(n_tiles, len(names)))
        result = compare(problem, ranks, tile, n_folds, n_var_folds, n_restarts)
        params = {k: v for k, v in problem.params.items() if k not in ("n_components", "init", "preset")} | {
            "n_folds": int(n_folds),
            "n_var_folds": int(n_var_folds),
            "n_tiles": int(tile.max()) + 1,
            "n_restarts": int(n_restarts),
            "spatial_key": None if coords is None else spatial_key,
            "library_key": library_key,
            "rng": _fit.seed_of(rng, random_state),
        }
        record = _data.provenance(params, **result.attrs)
        table.uns[key_added] = record | {"table": without_notes(result)}
        notes += [f"{result.attrs['n_components']} of {ranks[0]} to {ranks[-1]}", f"added uns[{key_added!r}]"]
    return result


def without_notes(table: pd.DataFrame) -> pd.DataFrame:
    """Copy the columns only: stores do not keep ``attrs``."""
    out = table.copy()
    out.attrs = {}
    out.index = out.index.astype(str)
    return out


def compare(
    problem: _fit.Problem, ranks: list[int], tile: np.ndarray, n_folds: int, n_var_folds: int, n_restarts: int
) -> pd.DataFrame:
    """Held-out error, stability and explained variance of every rank, with the suggestion in ``attrs``."""
    X, loss = problem.X, problem.loss
    for k in {-(-k // 16): k for k in ranks}.values():
        _fit.compile_once(loss, k)
    split_rng, cv_rng = problem.rng.spawn(2)
    parts = _crossval.split(X, tile, n_folds, n_var_folds, split_rng)
    stability, explained = np.zeros(len(ranks)), np.zeros(len(ranks))
    steps = len(ranks) * (n_folds + n_restarts)
    with (
        threadpool_limits(1, "blas"),
        tqdm(total=steps, desc="tl.select_n_components", unit="fit", delay=3, leave=False) as bar,
    ):
        errors, null = _crossval.held_out_errors(
            X, ranks, parts, cv_rng, loss=loss, max_iter=problem.max_iter, tol=problem.tol, progress=bar.update
        )
        for i, k in enumerate(ranks):
            runs, best = run_all(problem, k, n_restarts, bar)
            stability[i] = _consensus.matched_cosine(runs)
            explained[i] = _error.explained(X, best.W, best.H)
    return tabulate(np.array(ranks), errors, null, parts.fold_of_tile, stability, explained)


def tabulate(
    ranks: np.ndarray,
    errors: np.ndarray,
    null: np.ndarray,
    fold_of_tile: np.ndarray,
    stability: np.ndarray,
    explained: np.ndarray,
) -> pd.DataFrame:
    """Everything in one table."""
    best, chosen, excess, spread = _crossval.paired_rule(errors)
    knee = _crossval.elbow(ranks, explained)
    folds = fold_of_tile == np.arange(fold_of_tile.max() + 1)[:, None]
    by_fold = (errors @ folds.T) / (null @ folds.T)
    position = np.arange(len(ranks))
    table = pd.DataFrame(
        {
            "n_components": ranks,
            "cv_error": errors.sum(1) / null.sum(),
            "cv_error_sd": by_fold.std(1, ddof=1),
            "cv_excess": excess / null.sum(),
            "cv_excess_se": spread / null.sum(),
            "stability": stability,
            "explained_variance": explained,
            "elbow": position == knee,
            "suggested": position == chosen,
        }
    )
    table.attrs = {"n_components": int(ranks[chosen]), "reason": reason(table, best, chosen, knee)}
    return table


def reason(table: pd.DataFrame, best: int, chosen: int, knee: int) -> str:
    """Say in words why this number."""
    ranks, row = table["n_components"], table.iloc[chosen]
    lowest = f"{ranks[chosen]} components have the lowest held-out error ({row['cv_error']:.3f} of the null model's)"
    if chosen != best:
        lowest = (
            f"{ranks[chosen]} is the smallest number of components whose held-out error ({row['cv_error']:.4f} of the null "
            f"model's) is within one standard error of the lowest ({table['cv_error'][best]:.4f}, at {ranks[best]})"
        )
    words = [lowest]
    if row["cv_error"] >= 1:
        words.append("it is no better than the null model, so there may be no structure to find")
    if best == len(table) - 1:
        words.append("the lowest error is at the largest number compared: compare larger ones too")
    elif chosen == 0 and ranks[0] > 1:
        words.append("it is the smallest number compared: compare smaller ones too")
    same = f"{row['stability']:.2f} between runs"
    words.append(
        f"its components are stable (matched cosine {same})"
        if row["stability"] >= UNSTABLE
        else f"its components differ from run to run (matched cosine {same}): use `tl.consensus_nmf`"
    )
    words.append(f"explained variance bends at {ranks[knee]}")
    return "; ".join(words) + "."
