"""spanmf: spatial non-negative matrix factorisation for tissues.

Namespaces follow scanpy and squidpy: :mod:`~spanmf.gr` (graphs), :mod:`~spanmf.pp` (preprocessing), :mod:`~spanmf.tl`
(tools), :mod:`~spanmf.metrics`, :mod:`~spanmf.pl` (plots), :mod:`~spanmf.io`, :mod:`~spanmf.datasets`. Each is imported
on first use. :func:`~spanmf.run_joint` is a whole analysis of RNA and protein in one call, and
:data:`~spanmf.settings` holds the number of threads.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import datasets, gr, io, metrics, pl, pp, tl
    from ._joint_run import JointResult, run_joint
    from ._settings import settings

__all__ = ["JointResult", "datasets", "gr", "io", "metrics", "pl", "pp", "run_joint", "settings", "tl"]
_WHERE = {"JointResult": "._joint_run", "run_joint": "._joint_run", "settings": "._settings"}  # what is no namespace

try:
    __version__ = version("spanmf")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name], __name__), name)
    if name in __all__:
        return import_module(f".{name}", __name__)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
