"""The numbers of STL-NMF's published form, learned or not, and their file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import _checks
from ._reference import storable_names
from .core import _stl_paper

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT, VERSION = "spanmf STL-NMF weights", 1


@dataclass(frozen=True)
class StlWeights:
    """Numbers of the published STL-NMF: the weights of its terms, its distances, its regions' shares, its layers.

    As they are, those from which the authors' training starts. :func:`spanmf.tl.learn_stl_nmf` learns others;
    :func:`spanmf.tl.stl_nmf` uses them (``weights=``).

    Parameters
    ----------
    lambdas
        Weights of graph, sum-to-one and group term.
    sigmas
        Widths of place (in pitches of the array) and of region (the distance between two regions is 2) in the graph.
    group
        Group term: ``"printed"``, one k × k matrix for all spots; ``"meant"``, each spot's distance from its region's shares.
    relative
        The weights are in units of the data term, so that they mean the same at any depth and size.
    n_layers
        Number of updates.
    normalise
        Divide by the sums after every update, and not only after the last.
    cutoff
        Values below it are set to zero after every update; 0: none.
    types
        Cell types that the weights were learned for, in the order of ``omega``'s columns; empty: any.
    regions
        Regions that they were learned for, in the order of ``omega``'s rows; empty: any.
    omega
        Shares of the types in each region; empty: all the same.
    training_error, validation_error
        Mean relative error of V, before the first epoch and after each.
    best_epoch
        The epoch that the numbers come from.
    seconds
        How long learning took.

    Examples
    --------
    >>> import spanmf as sn
    >>> sn.tl.StlWeights(lambdas=(0, 0, 0), cutoff=0).sigmas
    (5.0, 5.0)
    """

    lambdas: tuple[float, float, float] = _stl_paper.LAMBDAS
    sigmas: tuple[float, float] = _stl_paper.SIGMAS
    group: Literal["printed", "meant"] = "printed"
    relative: bool = False
    n_layers: int = _stl_paper.LAYERS
    normalise: bool = True
    cutoff: float = _stl_paper.CUTOFF
    types: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    omega: tuple[tuple[float, ...], ...] = ()
    training_error: tuple[float, ...] = ()
    validation_error: tuple[float, ...] = ()
    best_epoch: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for name, values, size in (("lambdas", self.lambdas, 3), ("sigmas", self.sigmas, 2)):
            if len(values) != size:
                msg = f"`{name}` must be {size} numbers, not {values!r}."
                raise ValueError(msg)
            for value in values:
                _checks.check_range(name, value, 0, open_low=name == "sigmas")
        _checks.check_choice("group", self.group, _stl_paper.GROUPS)
        _checks.check_range("n_layers", self.n_layers, 1, integer=True)
        _checks.check_range("cutoff", self.cutoff, 0, 0.5)
        for name in ("relative", "normalise"):
            _checks.check_flag(name, getattr(self, name))
        shape = np.shape(self.omega) if self.omega else (0, 0)
        omega = np.asarray(self.omega, dtype=float)
        if self.omega and (
            shape != (len(self.regions), len(self.types)) or not np.isfinite(omega).all() or omega.min() < 0
        ):
            msg = (
                f"`omega` must be {len(self.regions)} regions × {len(self.types)} types of non-negative numbers, one row a "
                f"region of `regions` and one column a type of `types`, not of shape {shape}."
            )
            raise ValueError(msg)

    def save(self, path: str | Path) -> None:
        """Write the numbers as JSON."""
        path = Path(path)
        _checks.check_writable(path)
        path.write_text(json.dumps({"format": FORMAT, "version": VERSION} | asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> StlWeights:
        """Read what :meth:`save` wrote; torch is not needed."""
        path = Path(path)
        _checks.check_exists(path)
        with _checks.reading(path, FORMAT):
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
                msg = f"it does not say that it holds {FORMAT}"
                raise ValueError(msg)
            if (version := found.pop("version", None)) != VERSION:
                msg = f"it is of version {version!r}, and this spanmf reads version {VERSION}: learn the weights again"
                raise ValueError(msg)
            names = {f.name for f in fields(cls)}
            if names != set(found):
                msg = f"it should hold {_checks._listed(sorted(names), 20)}, and holds {_checks._listed(sorted(found), 20)}"
                raise ValueError(msg)
            return cls(**{name: _frozen(value) for name, value in found.items()})

    def for_section(self, types: Sequence[str], regions: Sequence[str]) -> tuple[_stl_paper.Weights, np.ndarray]:
        """The numbers for the core, and the row of ω of each of the section's regions."""
        if self.types and storable_names(self.types) != storable_names(types):  # a table's columns have ``|`` for ``/``
            msg = (
                f"The weights were learned for the types {_checks._listed(self.types, 20)}, in this order; the reference has "
                f"{_checks._listed(types, 20)}. Learn them for these by `sn.tl.learn_stl_nmf`, or reorder the reference."
            )
            raise ValueError(msg)
        rows = np.arange(len(regions))
        if self.regions:
            unknown = [r for r in regions if r not in self.regions]
            if unknown:
                msg = (
                    f"The weights were learned for the regions {_checks._listed(self.regions)}; the section has "
                    f"{_checks._listed(unknown)} besides. Rename them, or set them to NaN (no region)."
                )
                raise ValueError(msg)
            rows = np.array([self.regions.index(r) for r in regions], dtype=np.int64)
        weights = _stl_paper.Weights(
            self.lambdas, self.sigmas, np.array(self.omega) if self.omega else None, self.group, self.relative,
            self.n_layers, self.normalise, self.cutoff,
        )  # fmt: skip
        return weights, rows


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
