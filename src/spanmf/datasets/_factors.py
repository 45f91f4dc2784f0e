"""Low-rank matrices with known factors, for tests and benchmarks of the factorisation alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from .. import _checks, _data
from ._expression import BLOCK, draw_counts


@dataclass(frozen=True)
class Difficulty:
    """What makes a factorisation easy or hard."""

    n_components: int
    overlap: float  # programmes a gene belongs to, on average
    evenness: float  # concentration of the programmes' shares in an observation: small means one of them rules
    background: float  # share of every programme that is the same in all
    log_normalize: bool


DIFFICULTIES = {
    "easy": Difficulty(n_components=10, overlap=2.0, evenness=0.1, background=0.0, log_normalize=False),
    "hard": Difficulty(n_components=20, overlap=6.0, evenness=0.2, background=0.3, log_normalize=True),
}
DEPTH = 150.0  # median of the rows' sums
DEPTH_SD = 0.5  # of the logarithm
GENE_SD = 1.3  # of the logarithm of a gene's weight in a programme


def planted_factors(
    n_obs: int = 20_000,
    n_vars: int = 377,
    n_components: int | None = None,
    *,
    difficulty: str = "easy",
    overlap: float | None = None,
    noise: bool = True,
    log_normalize: bool | None = None,
    rng: int | np.random.Generator = 0,
) -> AnnData:
    r"""Generate a sparse non-negative matrix of known rank and factors.

    .. math:: X \sim \operatorname{Poisson}(W H)

    or, without noise, :math:`X = W H` exactly. A row of :math:`H` (sum 1) is a programme with lognormal weights on its
    own random set of variables; a row of :math:`W` is a lognormal depth (median 150) times Dirichlet shares of the
    programmes.

    Parameters
    ----------
    n_obs
        Number of observations n.
    n_vars
        Number of variables p.
    n_components
        Number of programmes k. ``None``: 10 (easy) or 20 (hard).
    difficulty
        ``"easy"``: 10 well separated programmes, one of which rules in each observation; counts. ``"hard"``: 20
        programmes, several in each observation, that share most of their variables and a background; log-normalised
        (counts divided by their row sum, times the median row sum, ``log1p``). The parameters below override this.
    overlap
        Number of programmes that a variable belongs to, on average (``None``: 2 easy, 6 hard). With 1 no variable is shared.
    noise
        Draw Poisson counts around :math:`W H`. ``False``: :math:`X = W H`, stored sparse.
    log_normalize
        Log-normalise X, which then is of low rank only roughly. ``None``: as the difficulty says, and never without
        noise.
    rng
        Seed or :class:`numpy.random.Generator`. The result does not depend on the number of threads.

    Returns
    -------
    AnnData
        - ``X``: n × p, CSR, float32; with noise, a row that came out empty was drawn again
        - ``obs["component"]``: categorical, the programme with the largest share ("0", "1", …)
        - ``obsm["W_true"]`` (n × k, float32) and ``varm["H_true"]`` (p × k, float32): the mean of the counts is
          ``W_true @ H_true.T``
        - ``uns["planted_factors"]``: ``params``, with the values that ``None`` stood for

    Raises
    ------
    TypeError, ValueError
        A parameter is of the wrong type or out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> import spanmf as sn
    >>> adata = sn.datasets.planted_factors(200, 60, 4, noise=False)
    >>> int(np.linalg.matrix_rank(adata.X.toarray(), tol=1e-2))
    4
    """
    _checks.check_choice("difficulty", difficulty, list(DIFFICULTIES))
    preset = DIFFICULTIES[difficulty]
    k = preset.n_components if n_components is None else n_components
    overlap = preset.overlap if overlap is None else overlap
    log_normalize = preset.log_normalize and noise if log_normalize is None else log_normalize
    _checks.check_range("n_obs", n_obs, 2, integer=True)
    _checks.check_range("n_vars", n_vars, 2, integer=True)
    _checks.check_range("n_components", k, 1, min(n_obs, n_vars), integer=True)
    _checks.check_range("overlap", overlap, 1)
    stream = _data.default_rng(rng)
    H = draw_programmes(stream, k, n_vars, overlap, preset.background)
    W = draw_shares(stream, n_obs, k, preset.evenness)
    W *= np.float32(DEPTH) * stream.lognormal(0, DEPTH_SD, (n_obs, 1)).astype(np.float32)
    X = draw_counts(stream, W, H) if noise else product(W, H)
    if log_normalize:
        log_normalized(X)
    names = [str(i) for i in range(k)]
    obs = pd.DataFrame(
        {"component": pd.Categorical.from_codes(W.argmax(axis=1), names)}, index=[f"obs{i}" for i in range(n_obs)]
    )
    adata = AnnData(X, obs=obs, var=pd.DataFrame(index=[f"var{j}" for j in range(n_vars)]))
    adata.obsm["W_true"] = W
    adata.varm["H_true"] = np.ascontiguousarray(H.T)
    params = {"difficulty": difficulty, "n_components": k, "overlap": overlap, "noise": noise}
    adata.uns["planted_factors"] = {"params": {**params, "log_normalize": bool(log_normalize)}}
    return adata


def draw_programmes(rng: np.random.Generator, k: int, n_vars: int, overlap: float, background: float) -> np.ndarray:
    """Programmes with lognormal weights on random sets of variables (k × n_vars, float32, rows of sum 1).

    Every variable has one programme of its own, in turn, and is in each other one with the probability that gives
    ``overlap`` programmes a variable.
    """
    member = np.arange(n_vars) % k == np.arange(k)[:, None]
    member |= rng.random(member.shape) < (overlap - 1) / max(1, k - 1)
    H = member * rng.lognormal(0, GENE_SD, member.shape)
    H /= H.sum(axis=1, keepdims=True)
    common = rng.lognormal(0, GENE_SD, n_vars)
    return ((1 - background) * H + background * common / common.sum()).astype(np.float32)


def draw_shares(rng: np.random.Generator, n: int, k: int, evenness: float) -> np.ndarray:
    """Dirichlet shares of k programmes (n × k, float32); those under 1 % are set to zero."""
    shares = rng.dirichlet(np.full(k, evenness), n).astype(np.float32)
    shares[shares < 0.01] = 0
    return shares / shares.sum(axis=1, keepdims=True)


def product(W: np.ndarray, H: np.ndarray) -> sp.csr_matrix:
    """``W @ H`` as CSR, dense only in blocks of rows."""
    rows = max(1, BLOCK // H.shape[1])
    return sp.vstack([sp.csr_matrix(W[i : i + rows] @ H) for i in range(0, len(W), rows)], format="csr")


def log_normalized(X: sp.csr_matrix) -> None:
    """Rows to the median row sum, then log1p, in place."""
    total = np.asarray(X.sum(axis=1)).ravel()
    X.data *= np.repeat((np.median(total) / total).astype(np.float32), np.diff(X.indptr))
    np.log1p(X.data, out=X.data)
