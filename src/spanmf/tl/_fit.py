"""What nmf, snmf and hsnmf share: from a table to a factorisation and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from .. import _checks, _dask, _data, _keys
from .._logging import logger, status
from ..core import _init, _ops, _smooth, _solver, _torch
from ..core._blocks import Blocks, all_zero, has_values, with_factors_here

if TYPE_CHECKING:
    from anndata import AnnData

F = TypeVar("F", bound=Callable[..., Any])
LOSSES = ("frobenius", "kl")
SMOOTHINGS = ("refit", "diffuse", "laplacian")
INITS = ("auto", *_init.METHODS)
PAPER_NMF = {"init": "nndsvda", "max_iter": 500}


@dataclass(frozen=True)
class Problem:
    """A checked factorisation problem: X by rows, in blocks or on a device (variables in use), the mask of variables, and the options."""

    X: Any
    mask: np.ndarray
    n_components: int
    loss: str
    init: Any
    penalty: _solver.Penalty
    max_iter: int
    tol: float
    rng: np.random.Generator
    published: bool
    params: dict[str, Any]


def prepare(
    table: AnnData,
    n_components: int,
    *,
    layer: str | None,
    mask_var: Any,
    loss: str,
    init: Any,
    alpha_W: float,
    alpha_H: float | str,
    l1_ratio: float,
    max_iter: int,
    tol: float,
    normalize: bool,
    preset: str | None,
    rng: np.random.Generator,
    device: str = "cpu",
    edges: int = 0,
) -> Problem:
    """Check everything, then convert X and put it where the passes over it run; ``edges`` are of a graph that is to follow."""
    on = _checks.check_device(device)
    _checks.check_choice("loss", loss, LOSSES)
    alpha_H = alpha_W if alpha_H == "same" else alpha_H
    for name, value in (("alpha_W", alpha_W), ("alpha_H", alpha_H), ("tol", tol)):
        _checks.check_range(name, value, 0)
    _checks.check_range("l1_ratio", l1_ratio, 0, 1)
    _checks.check_range("max_iter", max_iter, 1, integer=True)
    mask = _data.get_mask(table, mask_var)
    n, p = table.n_obs, int(mask.sum())
    _checks.check_n_components(n_components, n, p)
    if isinstance(init, str):
        _checks.check_choice("init", init, INITS)
    else:
        init = _checks.check_init(init, n, p, n_components)
    if loss == "kl" and normalize:
        msg = "The KL loss is for counts. Leave out `normalize=True`, or use `loss='frobenius'`."
        raise ValueError(msg)
    if loss == "kl" and l1_ratio < 1 and (alpha_W or alpha_H):
        msg = "The KL loss takes L1 penalties only. Pass `l1_ratio=1`, or `loss='frobenius'`."
        raise ValueError(msg)
    stored, name = _data.get_matrix(table, layer, lazy=True)
    X = _dask.in_blocks(stored, name, mask)
    _checks.check_in_memory(X, device)
    _checks.check_matrix(X, name)
    if normalize:
        if not _checks.looks_like_counts(X):
            _checks.warn(f"`normalize=True`, but {name} does not look like raw counts: it is normalised once more.")
        X = _dask.in_blocks(log_normalised(stored), name, mask)
    elif loss == "frobenius":
        _checks.warn_if_counts(X, name)
    rows = X if isinstance(X, Blocks) else _ops.as_rows(X, mask)
    if not has_values(rows):
        _checks.check_matrix(np.zeros(1), f"{name}, on the variables in use,")
    report_empty(rows)
    return Problem(
        X=placed(rows, n_components, on, edges=edges),
        mask=mask,
        n_components=int(n_components),
        loss=loss,
        init=init,
        penalty=_solver.Penalty(  # scaled as in scikit-learn, so that weights keep their meaning on other sizes
            l1_w=alpha_W * l1_ratio * p,
            l1_h=alpha_H * l1_ratio * n,
            l2_w=alpha_W * (1 - l1_ratio) * p,
            l2_h=alpha_H * (1 - l1_ratio) * n,
        ),
        max_iter=max_iter,
        tol=tol,
        rng=rng,
        published=preset is not None,
        params={
            "n_components": int(n_components),
            "layer": layer,
            "mask_var": mask_var if isinstance(mask_var, str) else "given" if mask_var is not None else None,
            "loss": loss,
            "init": init if isinstance(init, str) else "given",
            "alpha_W": float(alpha_W),
            "alpha_H": float(alpha_H),
            "l1_ratio": float(l1_ratio),
            "max_iter": int(max_iter),
            "tol": float(tol),
            "normalize": bool(normalize),
            "preset": preset,
            "device": device,
        },
    )


def placed(X: Any, n_components: int, device: str | None, cuts: np.ndarray | None = None, *, edges: int = 0) -> Any:
    """X where the passes over it run: as it is, or on a device of torch (no block of rows goes over a cut)."""
    if device is None:
        return X
    needed = _torch.bytes_needed(X.shape[0], len(X.data), n_components, edges=edges)
    _checks.check_device_memory(needed, _torch.memory_left(device), device)
    return _torch.on_device(X, device, cuts)


def log_normalised(X: Any) -> Any:
    """``sc.pp.normalize_total`` and ``sc.pp.log1p`` of a copy; of a dask array when its blocks are read."""
    import scanpy as sc
    from anndata import AnnData

    holder = AnnData(X.astype(np.float32) if _dask.is_lazy(X) else sp.csr_matrix(X, dtype=np.float32, copy=True))
    sc.pp.normalize_total(holder)
    sc.pp.log1p(holder)
    return holder.X


def report_empty(X: Any) -> None:
    """Log how many observations and variables are all zero: they are allowed, their factors are zero."""
    cells, genes = all_zero(X)
    if cells or genes:
        logger.info(
            "%d observations and %d variables in use are all zero; their factors and loadings are 0", cells, genes
        )


def unit_loadings(problem: Problem, W: np.ndarray, H: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the rows of H unit norm, unless penalties set their scale, or the published form is asked for."""
    if problem.published or problem.penalty != _solver.NO_PENALTY:
        return W, H
    norms = np.linalg.norm(H, axis=1)
    norms[norms == 0] = 1
    return W * norms, H / norms[:, None]


def factorise(
    problem: Problem, name: str, *, graph: _smooth.Graph | None = None, graph_weight: float = 0.0
) -> _solver.Result:
    """Run the engine under a progress bar, which shows only if it takes more than a few seconds."""
    p = problem
    compile_once(p.loss, p.n_components)

    def progress(i: int, objective: float) -> None:
        bar.update()
        bar.set_postfix(objective=f"{objective:.6g}", refresh=False)

    X = p.X if graph is None else with_factors_here(p.X)  # what goes over a graph needs all rows of W
    # BLAS on one thread: its products are small here, and their last bits depend on the number of threads
    with threadpool_limits(1, "blas"), tqdm(total=p.max_iter, desc=name, unit="pass", delay=3, leave=False) as bar:
        W, H = p.init if isinstance(p.init, tuple) else _init.initialise(X, p.n_components, p.init, p.rng, p.loss)
        result = _solver.fit(
            X, H, W, loss=p.loss, penalty=p.penalty, graph=graph, graph_weight=graph_weight,
            max_iter=p.max_iter, tol=p.tol, progress=progress,
        )  # fmt: skip
    if not result.converged:
        _checks.warn(
            f"{name} stopped at max_iter={p.max_iter} before the objective settled to tol={p.tol:g}. "
            "Raise `max_iter`, or `tol` if the factors are good enough.",
            _checks.ConvergenceWarning,
        )
    return result


def compile_once(loss: str, n_components: int) -> None:
    """Name the pause of the first call on a machine: numba compiles the kernels and caches them on disk."""
    with status("spanmf: compiling kernels (once on this machine)", show=not _init.is_compiled(loss, n_components)):
        _init.warm_up(loss, n_components)


def dominant(W: np.ndarray, H: np.ndarray) -> np.ndarray:
    """Dominant component of each observation, argmax of ``W·‖H_k‖``; −1 where all are zero."""
    contribution = W * np.linalg.norm(H, axis=1)
    labels = np.array(contribution.argmax(1))
    labels[np.asarray(contribution.max(1)) <= 0] = -1
    return labels


def component_labels(codes: np.ndarray, n_components: int) -> Any:
    """Categorical of component numbers, as they stand in W's columns."""
    import pandas as pd

    used = [c for c in range(n_components) if (codes == c).any()]
    rank = np.full(n_components + 1, -1)
    rank[used] = np.arange(len(used))
    return pd.Categorical.from_codes(rank[codes], categories=[str(c) for c in used])


def by_size(W: np.ndarray, H: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components in decreasing order of what they contribute, ``ΣW_k · ‖H_k‖``."""
    share = np.asarray(W.sum(0, dtype=np.float64)) * np.linalg.norm(H, axis=1)
    order = np.argsort(-share, kind="stable")
    W = W[:, order]
    return W if _dask.is_lazy(W) else np.ascontiguousarray(W), np.ascontiguousarray(H[order])


def write(
    table: AnnData,
    key: str,
    fit: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    labels: Any,
    params: dict[str, Any],
    **results: Any,
) -> str:
    """Write W, H (on a mask of variables), labels and provenance, and name the slots."""
    keys = _keys.FactorKeys(key)
    record = _data.provenance(params, **results)  # before anything is written
    if fit is not None:
        _data.write_factors(table, key, *fit)
    table.obs[keys.labels] = labels
    table.uns[keys.provenance] = record
    added = f"obsm[{keys.factors!r}], varm[{keys.loadings!r}], " if fit is not None else ""
    return f"added {added}obs[{keys.labels!r}], uns[{keys.provenance!r}]"


def remove_factors(table: AnnData, key: str) -> None:
    """Take away the factors of an earlier run, which do not belong to the labels that are to be written."""
    keys = _keys.FactorKeys(key)
    table.obsm.pop(keys.factors, None)
    table.varm.pop(keys.loadings, None)


def solver_results(result: _solver.Result) -> dict[str, Any]:
    """What ``uns`` keeps of a run."""
    return {"trace": result.trace, "n_iter": result.n_iter, "converged": bool(result.converged)}


Idle = Callable[[dict[str, Any]], Iterable[tuple[str, tuple[str, ...]]]]


def presets(published: dict[str, Any], idle: Idle = lambda _: ()) -> Callable[[F], F]:
    """Give a function its ``preset="paper"``: the published values, where the caller does not give other ones.

    ``idle`` tells, from all options, under which condition which of them have no effect: these may not be given.
    """

    def decorate(function: F) -> F:
        defaults = {name: parameter.default for name, parameter in signature(function).parameters.items()}

        @wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            _checks.check_choice("preset", given.get("preset"), (None, "paper"))
            options = published | given if given.get("preset") else given
            named = dict(zip(defaults, args, strict=False))
            for condition, names in idle(defaults | named | options):
                _checks.check_idle(condition, [name for name in names if name in named | given], named | given)
            return function(*args, **options)

        return call

    return decorate


def idle_smoothing(options: dict[str, Any]) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Options of the smoothing that take no part."""
    if not options.get("smooth", True):
        yield "`smooth=False`", ("smoothing", "beta", "n_steps", "laplacian_weight")
    elif options["smoothing"] == "laplacian":
        yield "`smoothing='laplacian'`", ("beta", "n_steps")
    else:
        yield f"`smoothing={options['smoothing']!r}`", ("laplacian_weight",)


def seed_of(rng: Any, random_state: Any) -> int | None:
    """Give the seed, if one was given, for the record."""
    seed = rng if random_state is None else random_state
    return int(seed) if isinstance(seed, int | np.integer) else None
