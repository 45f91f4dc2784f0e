"""What in a result should be looked at before it is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _checks, _data, _keys
from .._format import count, number, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._subject import Subject

ISOLATED = 0.02  # share of cells without neighbours
CROWDED = 300  # neighbours of a cell
SMALL_DOMAIN = 0.005  # share of the cells
ONE_SAMPLE = 0.95  # share of a domain, or of a factor, in one sample
ONE_GENE = 0.5  # share of a factor's loadings
SILENT = 0.01  # share of cells whose factors are all zero


def remarks(subject: Subject) -> list[str]:
    """All of them, in the order in which to look."""
    found: list[str] = []
    for part in (_graph, _labels, _factors, _samples, _record):
        try:
            found += part(subject)
        except (KeyError, ValueError, TypeError):  # its section says what is missing
            continue
    return list(dict.fromkeys([*found, *subject.remarks]))


def _graph(subject: Subject) -> Iterator[str]:
    everything = subject.graph_summary.loc["all"]
    n, isolated = int(everything["n_obs"]), int(everything["n_isolated"])
    if isolated > ISOLATED * n:
        yield (
            f"{count(isolated, 'cell')} ({percent(isolated / n)}) have no neighbour, so nothing was smoothed there. Are the radii "
            "in the units of the coordinates?"
        )
    if everything["degree_mean"] > CROWDED:
        yield (
            f"A cell has {number(everything['degree_mean'])} neighbours on average: smoothing over so many blurs small structures."
        )
    if everything["n_crossing"]:
        yield (
            f"{count(everything['n_crossing'], 'pair')} of neighbours lie in different samples: the graph was made without "
            f"`library_key={subject.library_key!r}`."
        )
    if everything["n_coincident"] > ISOLATED * n:
        yield f"{count(everything['n_coincident'], 'cell')} lie exactly where another one lies: check the segmentation."


def _labels(subject: Subject) -> Iterator[str]:
    if not subject.has_labels:
        return
    codes, names = subject.labels
    lost = int((codes < 0).sum())
    if lost:
        yield f"{count(lost, 'cell')} ({percent(lost / len(codes))}) have no label and are left out of the numbers."
    if len(names) == 1:
        yield subject.words.only_one
    small = [name for name, n in zip(names, subject.sizes, strict=True) if 0 < n <= SMALL_DOMAIN * len(codes)]
    if small:
        yield (
            f"{_list(subject.words.one.capitalize(), small)} {'holds' if len(small) == 1 else 'hold'} at most {percent(SMALL_DOMAIN)} of the cells"
            f"{'' if len(small) == 1 else ' each'}: a rare structure, or a splinter."
        )


def _factors(subject: Subject) -> Iterator[str]:
    if not subject.has_factors:
        return
    W, H = subject.factors
    silent = int((~W.any(1)).sum())
    if silent > SILENT * len(W):
        yield f"{count(silent, 'cell')} ({percent(silent / len(W))}) use no factor at all: are they empty, or filtered badly?"
    empty = [str(k) for k in range(len(H)) if not (W[:, k].any() and H[k].any())]
    if empty:
        yield f"{_list('Factor', empty)} {'is' if len(empty) == 1 else 'are'} empty: fewer factors would do."
    share = _data.loading_shares(H)[0]
    for k in np.flatnonzero(share.max(1) > ONE_GENE):
        j = int(share[k].argmax())
        yield f"Factor {k} is little more than one gene: {subject.adata.var_names[j]} has {percent(share[k, j])} of its loadings."


def _samples(subject: Subject) -> Iterator[str]:
    libraries, samples = subject.libraries
    if len(samples) < 2:
        return
    weight = np.bincount(libraries) / len(libraries)
    if subject.has_labels:
        codes, names = subject.labels
        for i, name in enumerate(names):
            own = np.bincount(libraries[codes == i], minlength=len(samples)) / max((codes == i).sum(), 1)
            if own.max() > ONE_SAMPLE > weight[own.argmax()]:
                yield (
                    f"{subject.words.one.capitalize()} {name} lies almost wholly ({percent(own.max())}) in sample {samples[own.argmax()]}: a structure that the "
                    "others lack, or a difference between the samples themselves (batch)."
                )
        alone = [str(sample) for sample, row in subject.composition.iterrows() if row.max() > ONE_SAMPLE]
        if alone and len(names) > 1:
            yield f"{_list('Sample', alone)} {'is' if len(alone) == 1 else 'are'} almost wholly one {subject.words.one}."
    if subject.has_factors:
        W = subject.factors[0]
        for k in range(W.shape[1]):
            use = np.bincount(libraries, W[:, k], minlength=len(samples))
            if use.sum() > 0 and use.max() / use.sum() > ONE_SAMPLE > weight[use.argmax()]:
                yield f"Factor {k} is used almost wholly in sample {samples[use.argmax()]}."


def _record(subject: Subject) -> Iterator[str]:
    run = subject.run
    if not run:
        key = _keys.FactorKeys(subject.key).provenance
        yield f"The table has no record of the run (`adata.uns[{key!r}]`): its parameters and versions are unknown."
    elif "converged" in run and not bool(run["converged"]):
        yield f"The fit had not come to rest after {count(int(run['n_iter']), 'pass', 'passes')}: try a higher `max_iter`."


def _list(what: str, names: list[str]) -> str:
    return f"{what}{'s' * (len(names) > 1)} {_checks._listed(names).replace(chr(39), '')}"
