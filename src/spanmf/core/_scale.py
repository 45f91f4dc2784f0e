"""Rescaling of factors, so that distances between observations mean something."""

from __future__ import annotations

from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

Scale = Literal["gram", "norm"] | None


def rescale(W: np.ndarray, H: np.ndarray, scale: Scale = "gram") -> np.ndarray:
    r"""Z (n × k, dtype of ``W``) from W (n × k) and H (k × p).

    The scale of each component is arbitrary in ``WH``, so distances between rows of W mean nothing.

    * ``"gram"``: :math:`Z = W (H H^\top)^{1/2}`. Distances between rows of Z are those between rows of WH. Z may be
      negative: it serves for distances and is never stored as factors.
    * ``"norm"``: :math:`Z_{ik} = W_{ik} \lVert H_k \rVert`, which forgets that components overlap.
    * ``None``: W as it is.
    """
    if scale is None:
        return W
    H = np.asarray(H, dtype=np.float64)
    if scale == "norm":
        return W * np.linalg.norm(H, axis=1).astype(W.dtype)
    return by_gram(W, H @ H.T)


def by_gram(W: np.ndarray, G: np.ndarray) -> np.ndarray:
    r""":math:`W G^{1/2}` for a Gram matrix of loadings (k × k)."""
    with threadpool_limits(1, "blas"):  # the last bits depend on the number of threads
        values, vectors = np.linalg.eigh(np.asarray(G, dtype=np.float64))
        root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        return np.ascontiguousarray(W @ root.astype(W.dtype))
