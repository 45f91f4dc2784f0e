"""Pareto front, knee and hypervolume of a table of runs."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from .. import _checks
from ..core import _pareto
from ._rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping

Objectives = dict[str, Literal["max", "min"]]
# the scores of the published sweep
COMPACTNESS, COHERENCE, SEPARABILITY = "compactness", "coherence", "separability"


def pareto_front(table: pd.DataFrame, objectives: Mapping[str, Literal["max", "min"]] | None = None) -> pd.DataFrame:
    r"""Mark the rows of a table that no other row beats in everything.

    A row dominates another if it is at least as good in every objective and better in one. The first front is what
    nothing dominates; the second what nothing dominates once the first is taken away, and so on. Equal rows are on the
    same front.

    The **knee** is the row of the first front nearest to the ideal, which is best in everything: with each objective
    :math:`f_j` (turned so that more is better) scaled by the front's own extremes,

    .. math:: \arg\min_{i \in \text{front}} \sum_j \left(
        \frac{\max f_j - f_{ij}}{\max f_j - \min f_j} \right)^2 .

    It is a compromise between the objectives as they were chosen, no proof of anything: a front says which runs are
    *not* worth a look.

    Parameters
    ----------
    table
        One row a run, e.g. of :func:`spanmf.tl.sweep`. It is not changed.
    objectives
        Columns and their directions, any number of them: ``{"morans_i": "max", "chaos": "min"}``. ``None``: the three
        of the published sweep, which are added as columns, all to be large: ``compactness`` = Moran's I / (100 CHAOS),
        ``coherence`` = marker coherence × enrichment (without enrichment in the table, marker coherence) and
        ``separability`` = silhouette / Davies–Bouldin.

    Returns
    -------
    A copy of the table with the columns

    ``on_front`` : bool
        Whether nothing dominates the row.
    ``knee`` : bool
        The one row described above (of equally near ones the first).
    ``front`` : int
        Number of the row's front from 1; 0 for rows that lack an objective (NaN or infinite), which are on no front
        and counted in a warning.

    Raises
    ------
    KeyError
        If an objective is not a column.
    ValueError
        If there are no rows or no objectives, or a direction is neither ``"max"`` nor ``"min"``.
    TypeError
        If a column does not hold numbers.

    References
    ----------
    Zeleny (1974), *Comput. Oper. Res.* 1, 479 (the point nearest to the ideal). Mahmud et al. (2026),
    `arXiv:2602.02638 <https://arxiv.org/abs/2602.02638>`_ (the three objectives).

    Examples
    --------
    >>> import pandas as pd
    >>> import spanmf as sn
    >>> runs = pd.DataFrame({"morans_i": [0.2, 0.5, 0.6, 0.4], "chaos": [0.01, 0.012, 0.03, 0.02]})
    >>> sn.metrics.pareto_front(runs, {"morans_i": "max", "chaos": "min"})[["on_front", "knee", "front"]]
       on_front   knee  front
    0      True  False      1
    1      True   True      1
    2      True  False      1
    3     False  False      2
    """
    table, objectives = with_objectives(table, objectives)
    values = oriented(table, objectives)
    complete = report_incomplete(values)
    constant = [name for name in objectives if complete.sum() > 1 and np.ptp(values.loc[complete, name]) == 0]
    if constant:
        _checks.warn(f"{_checks._listed(constant)} is the same in every row and tells none apart.")
    front = np.zeros(len(table), dtype=np.int64)
    points = values.to_numpy()
    front[complete] = _pareto.front_ranks(points[complete])
    knee = np.zeros(len(table), dtype=bool)
    first = np.flatnonzero(front == 1)
    if first.size:
        knee[first[_pareto.nearest_to_ideal(points[first])]] = True
    return table.assign(on_front=front == 1, knee=knee, front=front)


def hypervolume(
    table: pd.DataFrame,
    objectives: Mapping[str, Literal["max", "min"]] | None = None,
    *,
    reference: Mapping[str, tuple[float, float]] | None = None,
) -> float:
    r"""How much of the space of objectives the runs of a table cover: one number for a whole front.

    Each objective is scaled from its worst value (0) to its best (1), and the result is the exact volume of what lies
    below at least one run,

    .. math:: \operatorname{vol} \bigcup_i \prod_j [0, u_{ij}], \qquad
        u_{ij} = \frac{f_{ij} - \text{worst}_j}{\text{best}_j - \text{worst}_j} .

    **Range** 0 to 1; **higher is better**: 1 means that one run is best in everything.

    **What else moves it.** The scale. By default it is the table's own, so that numbers of different tables cannot be
    compared: give them the same ``reference``. More objectives lower it, more runs can only raise it (with a fixed
    reference).

    Parameters
    ----------
    table
        One row a run. Rows that lack an objective (NaN or infinite) are left out, and counted in a warning.
    objectives
        Columns and their directions, as for :func:`pareto_front`.
    reference
        ``(worst, best)`` of every objective, in its own units: ``{"chaos": (0.05, 0.0), "morans_i": (0.0, 1.0)}``. A
        run that is not above the worst in everything adds nothing; one above the best counts for more than 1.
        ``None``: the worst and best of the table.

    Returns
    -------
    The volume; NaN, with a warning, where no row has all objectives.

    Raises
    ------
    KeyError
        If an objective is not a column, or has no reference.
    ValueError
        If there are no rows or no objectives; if an objective is constant, so that there is nothing to scale by; if a
        reference contradicts a direction.
    TypeError
        If a column does not hold numbers.

    References
    ----------
    Zitzler and Thiele (1999), *IEEE Trans. Evol. Comput.* 3, 257. While, Bradstreet and Barone (2012), *IEEE Trans.
    Evol. Comput.* 16, 86 (exclusive volumes).

    Examples
    --------
    >>> import pandas as pd
    >>> import spanmf as sn
    >>> runs = pd.DataFrame({"morans_i": [0.25, 0.5], "chaos": [0.01, 0.03]})
    >>> sn.metrics.hypervolume(
    ...     runs, {"morans_i": "max", "chaos": "min"}, reference={"morans_i": (0, 1), "chaos": (0.04, 0)}
    ... )
    0.25
    """
    table, objectives = with_objectives(table, objectives)
    values = oriented(table, objectives)
    complete = report_incomplete(values)
    if not complete.any():
        return float("nan")
    values = values[complete]
    if reference is None:
        bounds = {name: (values[name].min(), values[name].max()) for name in objectives}
        constant = [name for name, (worst, best) in bounds.items() if worst == best]
        if constant:
            msg = (
                f"{_checks._listed(constant)} is the same in all {len(values)} rows: there is nothing to scale it by. "
                "Leave it out, or give `reference={name: (worst, best)}`."
            )
            raise ValueError(msg)
    else:
        bounds = _given_bounds(reference, objectives)
    scaled = [(values[name] - worst) / (best - worst) for name, (worst, best) in bounds.items()]
    return _pareto.hypervolume(np.column_stack(scaled))


def _given_bounds(
    reference: Mapping[str, tuple[float, float]], objectives: Objectives
) -> dict[str, tuple[float, float]]:
    """Worst and best of every objective, turned as the values are."""
    out = {}
    for name, direction in objectives.items():
        if name not in reference:
            msg = f"`reference` names {_checks._listed(reference)}, and not the objective {name!r}."
            raise KeyError(msg)
        if np.shape(reference[name]) != (2,):
            msg = f"`reference[{name!r}]` must be (worst, best), not {reference[name]!r}."
            raise ValueError(msg)
        sign = 1 if direction == "max" else -1
        worst, best = (sign * float(v) for v in reference[name])
        if not worst < best or not np.isfinite([worst, best]).all():
            msg = f"`reference[{name!r}]` must be (worst, best); {reference[name]!r} is not, as {name!r} is to be {direction}."
            raise ValueError(msg)
        out[name] = (worst, best)
    return out


# --- what pl.pareto uses too ----------------------------------------------------------------------------------------


def with_objectives(
    table: pd.DataFrame, objectives: Mapping[str, Literal["max", "min"]] | None
) -> tuple[pd.DataFrame, Objectives]:
    """Checked table and objectives; the published ones, added to the table, where none are given."""
    if not isinstance(table, pd.DataFrame):
        msg = f"`table` must be a DataFrame with one row a run, such as `sn.tl.sweep` returns, not {type(table).__name__}."
        raise TypeError(msg)
    if len(table) == 0:
        msg = "The table has no rows: there is nothing to compare."
        raise ValueError(msg)
    if objectives is None:
        scores = published_scores(table)
        return table.assign(**scores), dict.fromkeys(scores, "max")
    if not hasattr(objectives, "items"):
        msg = f"`objectives` must be a mapping from column to 'max' or 'min', not {objectives!r}."
        raise TypeError(msg)
    if not objectives:
        msg = "`objectives` is empty: name at least one column, e.g. {'morans_i': 'max', 'chaos': 'min'}."
        raise ValueError(msg)
    for name, direction in objectives.items():
        _checks.check_choice(f"objectives[{name!r}]", direction, ("max", "min"))
        check_column(table, name)
    return table, dict(objectives)


def check_column(table: pd.DataFrame, name: str) -> None:
    """A column of numbers; an error suggests the nearest name."""
    if name not in table:
        near = get_close_matches(str(name), [str(c) for c in table], 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        msg = f"{name!r} is not a column of the table, which holds {_checks._listed(table, 40)}.{hint}"
        raise KeyError(msg)
    if not pd.api.types.is_numeric_dtype(table[name]) or pd.api.types.is_bool_dtype(table[name]):
        msg = f"Column {name!r} must hold numbers, not {table[name].dtype}."
        raise TypeError(msg)


def known_direction(table: pd.DataFrame, name: str) -> Literal["max", "min"]:
    """Which way a metric of the panel, or a published score, is better."""
    check_column(table, name)
    better = {metric: way for row in ROWS for metric, way in row.metrics.items()}
    better |= dict.fromkeys((COMPACTNESS, COHERENCE, SEPARABILITY), "higher")
    if better.get(name, "") == "":
        msg = f"Which way is {name!r} better? Say so: `objectives={{{name!r}: 'max'}}` or `'min'`."
        raise ValueError(msg)
    return "max" if better[name] == "higher" else "min"


def published_scores(table: pd.DataFrame) -> dict[str, pd.Series]:
    """The three scores of the published sweep, all to be large; NaN where a part is missing or a divisor is 0."""
    parts = ("morans_i", "chaos", "marker_coherence", "silhouette", "davies_bouldin")
    for name in parts:
        check_column(table, name)
    moran, chaos, coherence, silhouette, dbi = (table[name].astype(float) for name in parts)
    if has_enrichment(table):
        coherence = coherence * table["enrichment"].astype(float)
    scores = {COMPACTNESS: moran / (100 * chaos), COHERENCE: coherence, SEPARABILITY: silhouette / dbi}
    return {name: values.where(np.isfinite(values)) for name, values in scores.items()}


def has_enrichment(table: pd.DataFrame) -> bool:
    """Whether gene sets were scored."""
    return "enrichment" in table and bool(table["enrichment"].notna().any())


def oriented(table: pd.DataFrame, objectives: Objectives) -> pd.DataFrame:
    """Objectives as float64, all to be large."""
    return pd.DataFrame(
        {
            name: table[name].to_numpy(dtype=np.float64, na_value=np.nan) * (1 if to == "max" else -1)
            for name, to in objectives.items()
        },
        index=table.index,
    )


def report_incomplete(values: pd.DataFrame) -> np.ndarray:
    """Which rows have all objectives; the others are counted in a warning."""
    finite = np.isfinite(values)
    complete = finite.all(axis=1).to_numpy()
    if not complete.all():
        lacking = [name for name in values if not finite[name].all()]
        _checks.warn(
            f"{int((~complete).sum())} of {len(values)} rows are left out: {_checks._listed(lacking)} is missing or "
            "infinite there."
        )
    return complete
