"""Spots summed from single cells, so that the shares of the types are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from ._stl_model import Reference

Array = np.ndarray


@dataclass(frozen=True)
class Cells:
    """Counts of single cells (m × p) and the codes of their k types; of every type there is one at least."""

    X: sp.csr_matrix
    codes: Array
    k: int

    def reference(self) -> Reference:
        """Mean counts of a cell of each type."""
        n_cells = np.bincount(self.codes, minlength=self.k)
        member = sp.csr_matrix((1 / n_cells[self.codes], (self.codes, np.arange(len(self.codes)))))
        return Reference(np.asarray((member @ self.X).todense()), n_cells)

    def with_counts(self) -> Cells | None:
        """Those that have any; ``None`` where a type is left without."""
        rows = np.flatnonzero(np.asarray(self.X.sum(1)).ravel() > 0)
        return None if len(np.unique(self.codes[rows])) < self.k else self._take(rows)

    def halves(self, rng: np.random.Generator) -> tuple[Cells, Cells]:
        """Two halves of the cells of every type; the only cell of a type is in both."""
        order = rng.permutation(len(self.codes))
        order = order[np.argsort(self.codes[order], kind="stable")]
        n_cells = np.bincount(self.codes, minlength=self.k)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(n_cells) - n_cells, n_cells)
        alone = n_cells[self.codes[order]] == 1
        first, second = (np.sort(order[(rank % 2 == side) | alone]) for side in (0, 1))
        return self._take(first), self._take(second)

    def _take(self, rows: Array) -> Cells:
        return Cells(self.X[rows], self.codes[rows], self.k)


def make_spots(
    cells: Cells,
    shares: Array,
    depth: Array,
    cells_per_spot: tuple[int, int],
    rng: np.random.Generator,
    factors: Array | None = None,
) -> tuple[sp.csr_matrix, Array]:
    """Counts of spots (n × p, float32) and the true shares of their cells.

    Every spot gets a number of cells between the two given, of types drawn by ``shares`` (n × k); of their molecules, those of each
    gene caught with its factor, so many are kept as make up ``depth`` on average. Where the cells have fewer, Poisson counts are drawn.
    """
    n = len(shares)
    shares = shares.astype(np.float64)
    drawn = rng.multinomial(
        rng.integers(cells_per_spot[0], cells_per_spot[1], n, endpoint=True), shares / shares.sum(1, keepdims=True)
    )
    rows, chosen = [], []
    for t in range(cells.k):
        rows.append(np.repeat(np.arange(n), drawn[:, t]))
        chosen.append(rng.choice(np.flatnonzero(cells.codes == t), len(rows[-1])))
    pairs = (np.concatenate(rows), np.concatenate(chosen))
    member = sp.csr_matrix((np.ones(len(pairs[0])), pairs), shape=(n, len(cells.codes)))
    X = sp.csr_matrix(member @ cells.X)
    if factors is not None:
        X.data *= factors[X.indices]
    total = np.asarray(X.sum(1)).ravel()
    kept = np.repeat(np.divide(depth, total, out=np.zeros(n), where=total > 0), np.diff(X.indptr))
    whole = (kept <= 1) & (X.data == np.round(X.data))
    X.data[whole] = rng.binomial(X.data[whole].astype(np.int64), kept[whole])
    X.data[~whole] = rng.poisson(X.data[~whole] * kept[~whole])
    X.eliminate_zeros()
    return X.astype(np.float32), drawn / drawn.sum(1, keepdims=True)
