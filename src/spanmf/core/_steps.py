r"""How many smoothing steps suit an array of spots: as many as it takes to foretell a spot from its surroundings.

A smoother :math:`S^t` with :math:`S = (1-\beta) I + \beta P` is judged by how well it foretells each observation's own
values from those of the others,

.. math:: e_t = \sum_i \Big\lVert \frac{z_i - (S^t Z)_i}{1 - (S^t)_{ii}} \Big\rVert^2 ,

its leave-one-out error (the denominator takes out what an observation says of itself). Noise asks for more steps, domains
of few spots for fewer. The figures behind the constants are in ``docs/domains_evidence.md``.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ._domains import N_PCS, principal_components
from ._tiles import AnyGraph, RadiusGraph

Array = np.ndarray
DEFAULT = 2  # steps: for cells, whose surroundings are smoothed for what they are made of, not to foretell a cell
MOST = 5
SLACK = 0.02  # fewest steps whose error is within this share of the lowest: the curve is flat near its minimum
SAMPLE = 2_000  # observations that are foretold


def fewest_steps(A: AnyGraph, Z: Array, beta: float) -> int:
    """Fewest steps (1 to 5) that foretell the rows of Z (n × k) nearly as well as the best number of them.

    They are foretold on the principal components on which domains are found.
    """
    errors = prediction_errors(A, principal_components(Z, N_PCS), beta)
    return DEFAULT if errors is None else 1 + int(np.argmax(errors <= (1 + SLACK) * errors.min()))


def prediction_errors(A: AnyGraph, Z: Array, beta: float) -> Array | None:
    """Leave-one-out error after 1, 2, … steps, summed over a sample; None where nothing can be foretold."""
    A = A.matrices()[0] if isinstance(A, RadiusGraph) else A
    degree = np.asarray(A.sum(1, dtype=np.float64)).ravel()
    rows = np.flatnonzero(degree > 0)
    if beta == 0 or len(rows) == 0:
        return None
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLE, replace=False))
    eye = sp.identity(len(degree), format="csr")
    S = ((1 - beta) * eye + beta * sp.diags(1 / (degree + 1)) @ (A + eye)).tocsr()
    weights = S[rows]
    errors = []
    for _ in range(MOST):
        own = np.asarray(weights[np.arange(len(rows)), rows]).ravel()
        error = (Z[rows] - weights @ Z) / (1 - own)[:, None]
        errors.append(np.vdot(error, error))
        weights = weights @ S
    return np.array(errors)
