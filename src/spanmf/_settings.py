"""What holds for all calls: the number of threads, and where factors that were fitted on a cluster end."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import _checks
from .core import _threads

if TYPE_CHECKING:
    from collections.abc import Iterator


class Settings:
    """Settings of the package.

    ``n_jobs`` is the number of threads that compiled loops and tree searches use; no result depends on it. It is the least of
    what numba has (``NUMBA_NUM_THREADS``, ``numba.set_num_threads``; all cores by default), what was set here, and
    ``scanpy.settings.n_jobs`` where that is above 1, its default, which says nothing. It holds for every Python thread of
    the process. ``None`` or -1 takes back what was set here; ``override(n_jobs=…)`` sets it for a block only (and ``factors``).

    Examples
    --------
    >>> import spanmf as sn
    >>> sn.settings.n_jobs = 2
    >>> with sn.settings.override(n_jobs=1):
    ...     sn.settings.n_jobs
    1
    >>> sn.settings.n_jobs = None
    """

    _factors = "memory"

    @property
    def factors(self) -> str:
        """Where the factors W end that workers of a dask cluster hold: in the client's ``"memory"``, or as a ``"dask"`` array.

        With ``"dask"``, ``obsm["X_nmf"]`` is a dask array whose blocks stay on the workers; labels, loadings and what is
        smoothed over a graph come to the client as ever. It has no effect on fits in this process.
        """
        return self._factors

    @factors.setter
    def factors(self, factors: str) -> None:
        _checks.check_choice("factors", factors, ("memory", "dask"))
        self._factors = factors

    @property
    def n_jobs(self) -> int:
        """Threads that compiled loops and tree searches use."""
        return _threads.allowed()

    @n_jobs.setter
    def n_jobs(self, n_jobs: int | None) -> None:
        if n_jobs in (None, -1):
            _threads.n_jobs = None
            return
        _checks.check_range("n_jobs", n_jobs, 1, integer=True)
        _threads.n_jobs = int(n_jobs)

    @contextmanager
    def override(self, **values: Any) -> Iterator[None]:
        """Set ``n_jobs`` or ``factors``, or both, for a block only."""
        _checks.check_members("settings.override", values, ("n_jobs", "factors"))
        before = _threads.n_jobs, self._factors
        try:
            for name, value in values.items():
                setattr(self, name, value)
            yield
        finally:
            _threads.n_jobs, self._factors = before


settings = Settings()
