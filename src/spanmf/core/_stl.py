r"""Deconvolution of spots by reference profiles: what share each cell type has of the counts of each spot.

Let :math:`x_i` be the counts of spot i (depth :math:`N_i`), :math:`q_k` the profile of type k on the genes in use (sums to
one), :math:`\pi_i` the shares of the types in the spot's counts and :math:`m_i` the mean of :math:`\pi` over the spot's
neighbours in the graph (and, if wanted, over its region).

Poisson: counts given their depth are multinomial, so that the depth drops out and the simplex is exact,

.. math:: F = \sum_i N_i\,\mathrm{KL}\Bigl(\tfrac{x_i}{N_i}\,\Big\|\,\sum_k\pi_{ik}q_k\Bigr)
          + a\sum_i\mathrm{KL}(m_i\,\|\,\pi_i) + \sum_k s_k\,\mathrm{KL}(q^0_k\,\|\,q_k),

by expectation–maximisation: with :math:`c_{ik}` the counts of spot i that fall to type k,
:math:`\pi_{ik} = (c_{ik} + a\,m_{ik}) / (N_i + a)`: the graph gives *a* pseudo-counts. The last term lets the section mend
profiles that come from few cells: :math:`q_{kj} = (s_k q^0_{kj} + c_{kj})/(s_k + c_k)`, with :math:`s_k` the counts on which the
reference profile stands (times ``reference_weight``; at least the median over the types). For fixed m no step raises F; m follows :math:`\pi` from pass to
pass, as in empirical Bayes.

Gaussian, for data whose residuals are smaller than counting would make them:
:math:`\tfrac12\|X-VB\|_F^2 + \tfrac12\sum_i w_i\|v_i - d_i m_i\|^2` by coordinate descent on the Gram matrix, with depth
:math:`d_i=\sum_k v_{ik}` and :math:`w_i = a k\,s^2/d_i^2`, :math:`s^2` the mean squared residual: without noise the graph has no say.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from . import _ops
from ._blocks import Blocks
from ._ops import Rows
from ._slices import usable
from ._stl_gaussian import fit_gaussian
from ._stl_model import DEFAULTS, Fit, Options, Progress, Reference
from ._stl_poisson import Poisson
from ._stl_prior import Smoother
from ._stl_reference import informative, shrunk_profiles

Array = np.ndarray
UNDER_DISPERSED = 0.75  # Pearson dispersion below which residuals are too small for counts


def fit(
    X: Any,
    reference: Reference,
    *,
    columns: Array | None = None,
    graph: Any = None,
    regions: Array | None = None,
    options: Options = DEFAULTS,
    rng: np.random.Generator | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Deconvolve the spots of X (counts) by a reference (k × p); ``regions`` are codes, −1 where unknown.

    X may be in blocks of rows, which are read in every pass. ``columns`` (ascending) are those of X that belong to the p genes of the
    reference (``None``: all). Of a matrix in memory at most one copy is made, of the genes in use; none where all of a float32 CSR matrix
    are, and none that is large: slices of it take its place.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    if not isinstance(X, Blocks):
        X = X.tocsr() if sp.issparse(X) else sp.csr_matrix(X)
    columns = np.arange(X.shape[1]) if columns is None else columns
    n_cells = None if reference.n_cells is None else np.asarray(reference.n_cells, dtype=np.float64)
    B = np.asarray(reference.B, dtype=np.float64)
    smoother = Smoother.of(graph, regions, len(B), options)
    profiles = shrunk_profiles(B, n_cells)
    seen = seen_in(X)

    def by_squares(dispersion: float) -> Fit:
        rows, places = _of_columns(X, seen, columns, None)
        done = fit_gaussian(rows, _spread(B, places, rows), len(places), smoother, options, dispersion, progress)
        return done.on(np.arange(len(columns)), places)

    if options.likelihood == "gaussian":
        return by_squares(np.nan)
    genes = informative(seen[columns], profiles, options.n_genes)
    rows, places = _of_columns(X, seen, columns[genes], options.device)
    problem = Poisson(rows, _spread(profiles[:, genes], places, rows), B, n_cells, smoother, options, rng)
    dispersion = problem.dispersion() if options.likelihood == "auto" else np.nan
    if dispersion < UNDER_DISPERSED:
        del problem, rows  # they may hold a copy of X, and here is another
        return by_squares(dispersion)
    problem.find_platform()
    problem.mend_profiles(progress)
    return problem.finish(dispersion, progress).on(genes, places)


def seen_in(X: Any) -> Array:
    """Columns with a value above 0."""
    if isinstance(X, Blocks) and X.survey.values.low > 0:  # what is stored is above 0: no further reading
        return X.survey.seen
    return np.asarray(_ops.column_sums(X) > 0)


def _of_columns(X: Any, seen: Array, columns: Array, device: str | None) -> tuple[Rows | Blocks, Array]:
    """X for the fit, and where ``columns`` are in it: X itself where nothing was seen of all others, else these alone."""
    mask = np.zeros(X.shape[1], dtype=bool)
    mask[columns] = True
    if not seen[~mask].any():
        mask[:] = True
    places = columns if mask.all() else np.arange(len(columns))
    if isinstance(X, Blocks):
        return X.select(mask), places
    return (usable(X, mask) if device is None else _ops.as_rows(X, mask)), places  # what goes to a device is whole


def _spread(M: Array, places: Array, X: Rows | Blocks) -> Array:
    """The columns of M at their places among those of X; zero elsewhere."""
    out = np.zeros((len(M), X.shape[1]))
    out[:, places] = M
    return out


def warm_up(k: int) -> None:
    """Compile what a deconvolution into k types needs, on a few counts."""
    X = sp.csr_matrix(np.ones((2, 2), np.float32))
    graph = sp.csr_matrix(np.array([[0, 1], [1, 0]], np.float32))
    reference = Reference(np.ones((k, 2)) + np.eye(k, 2), np.ones(k))
    for likelihood in ("poisson", "gaussian"):
        fit(X, reference, graph=graph, options=Options(likelihood=likelihood, max_iter=2))
