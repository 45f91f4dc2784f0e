"""Where observations lie, and what the metrics of labels in space need of that alone: computed once for many labelings."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import _checks, _data
from ..core import _spatial

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, eq=False)
class Places:
    """Coordinates (n × 2 or n × 3) and library codes of the observations in question."""

    coords: np.ndarray
    libraries: np.ndarray
    _neighbours: dict[int, np.ndarray] = field(default_factory=dict)

    @cached_property
    def scaled(self) -> np.ndarray:
        """Coordinates with each axis standardised within its library."""
        return _spatial.standardise(self.coords, self.libraries)

    @cached_property
    def floor(self) -> np.ndarray:
        """Distance to the nearest observation of the library, whatever its label, in ``scaled``; NaN where alone."""
        return _spatial.nearest_in_group(self.scaled, self.libraries)

    def neighbours(self, k: int) -> np.ndarray:
        """Rows of the k nearest of the library (n × k, int32; −1 where there are fewer)."""
        if k not in self._neighbours:
            self._neighbours[k] = _spatial.neighbours_in_group(self.coords, self.libraries, k)
        return self._neighbours[k]

    def groups(self, codes: np.ndarray) -> np.ndarray:
        """One code for each pair of label and library."""
        return codes * (self.libraries.max() + 1) + self.libraries


def library_codes(adata: AnnData | None, library_key: Any, n_obs: int) -> np.ndarray:
    """Library code of every observation (int64) from a column of the table, an array, or None for one library."""
    if isinstance(library_key, str) and adata is None:
        msg = f"The libraries are given as a key ({library_key!r}), which needs an AnnData as the first argument."
        raise TypeError(msg)
    if adata is not None and (library_key is None or isinstance(library_key, str)):
        return _data.get_libraries(adata, library_key)[0].astype(np.int64)
    if library_key is None:
        return np.zeros(n_obs, dtype=np.int64)
    _checks.check_length(library_key, n_obs, "`library_key`")
    codes = pd.factorize(pd.Series(library_key))[0].astype(np.int64)
    if (codes < 0).any():
        msg = f"`library_key` is missing (NaN) for {int((codes < 0).sum())} observations."
        raise ValueError(msg)
    return codes
