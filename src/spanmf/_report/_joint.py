"""Parts of the page that only RNA and protein together have: loadings of both, neighbours of types, niches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import pl
from .._format import count, number, percent
from . import _figures
from ._html import esc, figure, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from ._build import Part
    from ._subject import Subject

N_PAIRS = 8  # named at each end
ALL = "all of them"  # modalities that a cell has
LESS_SURE = 0.1  # mean confidence of cells that a modality lacks, below that of the others


def joint_parts(
    mdata: MuData,
    cells: AnnData,
    pairs: pd.DataFrame,
    *,
    key: str,
    type_key: str,
    niche_key: str,
    pairs_key: str,
    library_key: str | None,
    radius: float,
) -> dict[str, Part]:
    """Parts for :func:`build`. ``cells``: all cells with types and niches; ``pairs``: what the co-localisation found within ``radius``."""

    def modalities(subject: Subject) -> str:
        subject.remarks.extend(_unsure(mdata, type_key))
        return _cells_by_modality(mdata, type_key) + _factors(mdata, key)

    def neighbours(subject: Subject) -> str:
        return _neighbours(cells, pairs, pairs_key, f"{radius:g}{subject.unit}")

    def niches(_: Subject) -> str:
        return _niches(cells, niche_key, library_key)

    parts: dict[str, Part] = {"modalities": ("RNA and protein", modalities)}
    if len(pairs):
        parts |= {"neighbours": ("Who lies next to whom", neighbours), "niches": ("Niches", niches)}
    return parts


def _groups(mdata: MuData) -> dict[str, np.ndarray]:
    """Which cells have all modalities, and which have one alone."""
    has = {name: np.isin(mdata.obs_names, m.obs_names) for name, m in mdata.mod.items()}
    return {ALL: np.all(list(has.values()), axis=0)} | {
        f"{name} only": rows & ~np.any([r for other, r in has.items() if other != name], axis=0)
        for name, rows in has.items()
    }


def _unsure(mdata: MuData, type_key: str) -> Iterator[str]:
    """Cells whose types are less sure since a modality lacks them."""
    groups, sure = _groups(mdata), mdata.obs[f"{type_key}_confidence"].to_numpy(dtype=float)
    whole = groups.pop(ALL)
    for name, rows in groups.items():
        if whole.any() and rows.any() and sure[whole].mean() - sure[rows].mean() > LESS_SURE:
            yield (
                f"{count(int(rows.sum()), 'cell')} ({percent(float(rows.mean()))}) have {name}: the mean confidence of their types is "
                f"{percent(float(sure[rows].mean()))}, of the cells with everything {percent(float(sure[whole].mean()))}. How many cells there are of "
                "types that differ only in what these lack is rough."
            )


def _cells_by_modality(mdata: MuData, type_key: str) -> str:
    """How many cells have what, and how sure their types are."""
    groups = _groups(mdata)
    sure = mdata.obs[f"{type_key}_confidence"].to_numpy(dtype=float)
    unknown = mdata.obs[type_key].astype(str).to_numpy() == "Unknown"
    rows = [
        (esc(name), f"{r.sum():,}", percent(float(sure[r].mean())), percent(float(unknown[r].mean())))
        for name, r in groups.items()
        if r.any()
    ]
    features = " and ".join(f"{count(m.n_vars, 'feature')} of {name}" for name, m in mdata.mod.items())
    text = (
        f"The factors are shared by {features}. The confidence is the probability of a cell's type among the types that were "
        "found; it is low where types differ only in what the cell lacks."
    )
    return paragraph(text) + table(
        ("cells that have", "number", "mean confidence", "type unknown"), rows, numbers=(1, 2, 3), kind="dense"
    )


def _factors(mdata: MuData, key: str) -> str:
    """Genes beside proteins, and what each factor explains of either."""
    names = mdata.uns.get("annotate_factors", {}).get("table")
    explained = mdata.uns[key]["variance_explained"]
    rows = []
    for k in range(len(explained)):
        name = "" if names is None else str(names["cell_type"].iloc[k])
        rows.append((str(k), esc(name), *(percent(float(v)) for v in explained.iloc[k])))
    head = ("factor", "named", *(f"of {m}" for m in explained.columns))
    drawn = _figures.encode(pl.modality_loadings(mdata, key), "Top genes and proteins of each factor", trim=True)
    caption = "The top genes of each factor beside its top proteins; bars: share of the factor's loadings; the darker, the more specific."
    note = (
        "Share of the variance of each modality that a factor alone explains. A factor with next to nothing in one column lives in the "
        "other modality. Factors overlap: shares do not add up."
    )
    return (
        figure(drawn, caption) + paragraph(note, "note") + table(head, rows, numbers=range(2, len(head)), kind="dense")
    )


def _neighbours(cells: AnnData, pairs: pd.DataFrame, pairs_key: str, within: str) -> str:
    """The heat map, and the pairs at either end."""
    pooled = pairs[(pairs["library"] == "all") & (pairs["a"] != pairs["b"])]
    text = (
        f"Edges (pairs of cells within {within} of each other) between two types over those expected if the types were dealt out at random over the same cells. In a tissue nearly every pair "
        "differs from chance, because types come in patches: look at the ratio first. A dot marks what is not significant."
    )
    picture = figure(_figures.encode(pl.colocalization(cells, pairs_key), "Ratios of all pairs of types", trim=True))
    near = pooled.nlargest(N_PAIRS, "ratio")
    far = pooled[pooled["ratio"] < 1].nsmallest(N_PAIRS, "ratio")
    blocks = [
        f"<div><h3>{title}</h3>{_pairs(rows)}</div>"
        for title, rows in (("More than by chance", near[near["ratio"] > 1]), ("Less than by chance", far))
        if len(rows)
    ]
    return paragraph(text) + picture + f'<div class="side">{"".join(blocks)}</div>'


def _pairs(rows: pd.DataFrame) -> str:
    shown = [
        (
            esc(f"{r.a} – {r.b}"),
            number(r.ratio),
            f"{r.observed:,.0f}",
            number(r.z),
            number(r.pval_adj) if r.pval_adj > 0 else "< 1e−300",
        )
        for r in rows.itertuples()
    ]
    return table(("pair", "ratio", "edges", "z", "p, adjusted"), shown, numbers=(1, 2, 3, 4), kind="dense")


def _niches(cells: AnnData, niche_key: str, library_key: str | None) -> str:
    """Where the niches lie, and what they are made of."""
    drawn = pl.niches(cells, niche_key, library_key=library_key)
    composition = cells.uns[niche_key]["composition"].set_axis(cells.uns[niche_key]["labels"], axis=1)
    sizes = cells.obs[niche_key].value_counts()
    rows = [
        (
            f'<span class="nowrap">{esc(name)}</span>',
            f"{sizes.get(name, 0):,}",
            percent(sizes.get(name, 0) / cells.n_obs),
            esc(", ".join(f"{label} {percent(share)}" for label, share in row.nlargest(4).items() if share > 0.02)),
        )
        for name, row in composition.iterrows()
    ]
    text = "Cells with alike surroundings, named after the types that are commoner there than elsewhere. A cell need not be of the type its niche is named after."
    return (
        paragraph(text)
        + figure(_figures.encode(drawn, "Niches, and what surrounds the cells of each", trim=True))
        + table(("niche", "cells", "share", "surroundings"), rows, numbers=(1, 2), kind="wide")
    )
