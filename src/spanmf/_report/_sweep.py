"""The part on a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import pl
from .._format import count, number
from . import _figures
from ._html import esc, figure, missing, paragraph, table

if TYPE_CHECKING:
    import pandas as pd

    from ._subject import Subject

SETTINGS = ("n_components", "beta", "alpha", "resolution", "n_domains", "rng", "key")
SHOWN = (
    "n_clusters",
    "chaos_normalized",
    "edge_agreement",
    "morans_i",
    "silhouette",
    "davies_bouldin",
    "explained_variance",
    "ari",
)
CAPTION = (
    "A dot is a run: its colour is the number of factors, its size the resolution. These are the published scores: Moran's I of "
    "smoothed factors is high by construction, and all of them favour few factors and few domains. Look at the maps before "
    "believing them."
)
MOST = 60  # runs that are listed


def sweep(subject: Subject) -> str:
    """Fronts and the table of runs."""
    runs = subject.sweep
    if runs is None:
        msg = "There is no sweep: `sn.tl.sweep(adata, n_components=[...], resolution=[...])` makes one, and `sweep=` takes its table."
        raise KeyError(msg)
    parts = [
        paragraph(
            f"{count(len(runs), 'run')} with other settings. A run is on the front if no other is better in one number without "
            "being worse in another: the front shows what is traded for what, and does not choose."
        )
    ]
    try:
        picture = _figures.encode(pl.pareto(runs), "Pareto fronts", trim=True)
        parts.append(figure(picture, CAPTION))
    except (KeyError, ValueError) as error:  # a table without these metrics
        parts.append(missing(error))
    return "\n".join([*parts, _runs(runs)])


def _runs(runs: pd.DataFrame) -> str:
    varied = [c for c in SETTINGS if c in runs and runs[c].nunique(dropna=False) > 1]
    columns = varied + [c for c in SHOWN if c in runs and runs[c].notna().any()]
    shown = runs.loc[:, columns].head(MOST)
    rows = [tuple(esc(v if isinstance(v, str) else number(v)) for v in row) for row in shown.itertuples(index=False)]
    head = [c.replace("_", " ") for c in columns]
    listing = table(head, rows, numbers=range(len(columns)), kind="dense")
    left = len(runs) - len(shown)
    return listing + (paragraph(f"{count(left, 'run')} more are in the table.", "note") if left > 0 else "")
