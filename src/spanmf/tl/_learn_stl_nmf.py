"""Learning the weights of STL-NMF."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .. import _checks, _data
from .._docs import doc
from .._logging import timed
from .._stl_weights import StlWeights
from ..core import _stl_learn, _stl_paper
from . import _fit, _stl_paper_form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

PAPER = {
    "group": "printed", "n_layers": _stl_paper.LAYERS, "n_epochs": 51, "learning_rate": 0.01, "weight_decay": 0.001,
    "drop_every": 25, "patience": 51,
}  # fmt: skip
RESCALED_START = {"lambdas": (0.001, 0.01, 0.001), "sigmas": (1.0, 2.0)}  # in units of the data term, and of the pitch


@_fit.presets(PAPER)
@doc
def learn_stl_nmf(
    triplets: Sequence[AnnData],
    *,
    group: Literal["printed", "meant"] = "meant",
    n_layers: int = 200,
    n_epochs: int = 30,
    learning_rate: float = 0.1,
    weight_decay: float = 0.0,
    drop_every: int = 15,
    patience: int = 10,
    validation: float = 0.25,
    region_key: str | None = "region",
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    preset: Literal["paper"] | None = None,
    rng: int | np.random.Generator = 0,
    random_state: int | None = None,
) -> StlWeights:
    r"""Learn the weights of the published STL-NMF from sections whose composition is known, by unrolling its updates.

    The update of :class:`spanmf.tl.StlWeights`' form is a layer; ``n_layers`` of them share :math:`\lambda_1,\lambda_2,\lambda_3`,
    :math:`\sigma_1,\sigma_2` and the shares :math:`\omega_r` of the regions, which Adam moves along the gradient of
    :math:`\|\hat V - V\|_F`, one section a step. The weights that do best on held-out sections are kept.

    By default the parameters are logarithms, the λ in units of the data term, without the cut-off (a zero never recovers) and with one
    division by the sums at the end. ``preset="paper"`` has the authors' numbers: from λ = 30, 50, 30 steps of 0.01 hardly move the
    weights.

    What is learned holds for data like the sections given, and not beyond.

    Parameters
    ----------
    triplets
        Sections (X, B, V) as :func:`spanmf.datasets.stl_nmf_triplets` makes them: counts in ``X``, profiles in ``varm["B"]``, true shares
        in ``obsm["V_true"]`` (DataFrames of the same types), places in ``obsm["spatial"]``.
    group
        Group term: ``"printed"`` or as ``"meant"`` (see :class:`spanmf.tl.StlWeights`).
    n_layers
        Number of updates.
    n_epochs
        Most passes over the sections.
    learning_rate, weight_decay
        Of Adam.
    drop_every
        The rate is halved after so many epochs.
    patience
        Stop after so many epochs without a better one.
    validation
        Share of the sections that is held out (at least one, if there are two).
    region_key
        Column of ``obs`` with the regions; ``None``: there are none.
    device
        ``"auto"``: a GPU if torch has one.
    preset
        ``"paper"``: 150 layers, 51 epochs, rate 0.01 halved after 25, decay 0.001, no early stop, the group term as printed, sums and
        cut-off after every update.
    {rng}

    Returns
    -------
    StlWeights
        Plain numbers, with ``save`` and ``load``; :func:`spanmf.tl.stl_nmf` uses them without torch. On a CPU it takes minutes.

    Raises
    ------
    ImportError
        If torch is not installed.
    KeyError
        If a section lacks a slot.
    ValueError
        If the sections have different types, or more spots than a dense graph takes.

    References
    ----------
    Konkel, Zhang, Guo, Zhang: *Unrolling regularized non-negative matrix factorization for spatial transcriptomics
    deconvolution*. Gregor & LeCun (2010), *ICML* (unrolling).

    Examples
    --------
    >>> import spanmf as sn
    >>> sections = sn.datasets.stl_nmf_triplets(4)
    >>> weights = sn.tl.learn_stl_nmf(sections, n_epochs=2, n_layers=10)  # doctest: +SKIP
    >>> weights.save("weights.json")  # doctest: +SKIP
    """
    schedule = _schedule(n_epochs, learning_rate, weight_decay, drop_every, patience)
    _checks.check_range("n_layers", n_layers, 1, integer=True)
    _checks.check_choice("group", group, _stl_paper.GROUPS)
    _checks.check_range("validation", validation, 0, 0.9)
    _checks.check_choice("device", device, ("auto", "cpu", "cuda", "mps"))
    _checks.check_some(triplets, "triplets")
    read, types, regions = _read(triplets, region_key)
    where = _device(device)
    stream = _data.default_rng(rng, random_state)
    order = stream.permutation(len(read))
    n_held = 0 if len(read) == 1 or validation == 0 else max(1, round(validation * len(read)))
    held, seen = [read[i] for i in order[:n_held]], [read[i] for i in order[n_held:]]
    form: dict[str, Any] = {"group": group, "n_layers": n_layers}
    if preset is None:
        form |= RESCALED_START | {"relative": True, "normalise": False, "cutoff": 0.0}
    even = np.full((max(len(regions), 1), len(types)), 1 / len(types))
    first = _stl_paper.Weights(omega=even, **form)
    start = time.perf_counter()
    with (
        timed("tl.learn_stl_nmf") as notes,
        tqdm(total=n_epochs, desc="tl.learn_stl_nmf", unit="epoch", leave=False) as bar,
    ):

        def progress(epoch: int, training: float, validated: float) -> None:
            bar.update()
            bar.set_postfix(training=f"{training:.4f}", validation=f"{validated:.4f}")

        learned = _stl_learn.learn(seen, held, first, schedule, stream, device=where, progress=progress)
        done = learned.weights
        notes.append(
            f"{len(learned.training) - 1} epochs on {where}, error {learned.validation[learned.best_epoch]:.4f}"
        )
    return StlWeights(
        **form | {"lambdas": done.lambdas, "sigmas": done.sigmas},
        types=tuple(types),
        regions=tuple(regions),
        omega=tuple(tuple(row) for row in done.omega.tolist()) if regions else (),
        training_error=tuple(learned.training.tolist()),
        validation_error=tuple(learned.validation.tolist()),
        best_epoch=learned.best_epoch,
        seconds=time.perf_counter() - start,
    )


def _schedule(n_epochs: int, rate: float, decay: float, drop_every: int, patience: int) -> _stl_learn.Schedule:
    """Check the numbers of the descent."""
    for name, value in (("n_epochs", n_epochs), ("drop_every", drop_every), ("patience", patience)):
        _checks.check_range(name, value, 1, integer=True)
    _checks.check_range("learning_rate", rate, 0, open_low=True)
    _checks.check_range("weight_decay", decay, 0)
    return _stl_learn.Schedule(n_epochs, rate, decay, drop_every, patience=patience)


def _device(device: str) -> str:
    """The device asked for, or the best there is."""
    try:
        import torch
    except ImportError:
        _checks.fail_missing("torch", "`tl.learn_stl_nmf`", "torch")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, found in there.items() if found)
    if not there[device]:
        msg = f"torch has no device {device!r} here. Use `device='auto'`."
        raise ValueError(msg)
    return device


def _read(sections: Sequence[AnnData], region_key: str | None) -> tuple[list[_stl_learn.Triplet], list[str], list[str]]:
    """Arrays of all sections, the types, and the regions of all of them together."""
    tables = [_data.get_table(a, min_obs=2) for a in sections]
    types: list[str] | None = None
    labels = [_data.get_labels(t, region_key) if region_key else (np.zeros(t.n_obs, int), []) for t in tables]
    regions = list(dict.fromkeys(name for _, names in labels for name in names))
    out = []
    for table, (codes, names) in zip(tables, labels, strict=True):
        hint = "Sections to learn from are made by `sn.datasets.stl_nmf_triplets`."
        _checks.check_key(table.obsm, "V_true", "obsm", hint)
        _checks.check_key(table.varm, "B", "varm", hint)
        _stl_paper_form.check_size(table.n_obs)
        V, B = pd.DataFrame(table.obsm["V_true"]), pd.DataFrame(table.varm["B"])
        found = [str(c) for c in V.columns]
        types = found if types is None else types
        if found != types or [str(c) for c in B.columns] != types:
            msg = (
                f"All sections must have the same types in `obsm['V_true']` and `varm['B']`, in the same order: "
                f"{_checks._listed(types)}, not {_checks._listed(found)} and {_checks._listed(B.columns)}."
            )
            raise ValueError(msg)
        X, name = _data.get_matrix(table)
        for values, what in ((X, name), (V.to_numpy(), "`adata.obsm['V_true']`"), (B.to_numpy(), "`adata.varm['B']`")):
            _checks.check_matrix(values, what)
        if names:
            row = np.array([regions.index(r) for r in names])
            codes = np.where(codes >= 0, row[np.maximum(codes, 0)], -1)
        out.append(
            _stl_learn.Triplet(
                X, B.to_numpy(dtype=float).T, V.to_numpy(dtype=float), _stl_paper_form.places(table), codes
            )
        )
    return out, types or [], regions
