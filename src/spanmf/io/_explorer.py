"""Labels for 10x Genomics' Xenium Explorer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import _checks, _data
from .._docs import doc
from .._logging import timed
from ._folder import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


@doc
def write_xenium_explorer(
    adata: AnnData | SpatialData,
    key: str,
    path: str | Path,
    *,
    cell_id_key: str | None = None,
    palette: Mapping[str, str] | Sequence[str] | None = None,
    table_key: str | None = None,
) -> None:
    """Write domains, or any other labels, as the CSV of cell groups that Xenium Explorer imports.

    One row a labelled cell, with the columns ``cell_id``, ``group`` and, where colours are known, ``color`` (hex). In
    Xenium Explorer: Cells → Cell groups → the upload button. Cells without a label (NaN) are left out: the Explorer
    shows cells that are not in the file as unassigned. The file is there whole or not at all.

    Parameters
    ----------
    {adata}
    key
        Categorical column of ``adata.obs``.
    path
        File to write (``.csv``, or ``.csv.gz`` for a compressed one that is to be unpacked before the import). One
        that is there is replaced.
    cell_id_key
        Column of ``adata.obs`` with the cell ids of the Xenium run. ``None``: the names of the observations, as
        :func:`spanmf.io.read` gives them. The Explorer knows cells by these ids only, so that suffixes that were added
        when samples were joined have to go, and every run needs a file of its own.
    palette
        Colours of the labels: a mapping from label to colour, or a sequence in the order of the labels. ``None``:
        ``adata.uns[f"{key}_colors"]`` (scanpy's convention) where it is, else no colours, and the Explorer chooses.
    {table_key}

    Returns
    -------
    Nothing. The table is not changed.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If no cell has a label, cell ids are missing or there more than once, a colour is not one, or there are too few.
    FileNotFoundError
        If the folder is not there.

    References
    ----------
    10x Genomics, *Xenium Explorer: cell groups*,
    `10xgenomics.com/support/software/xenium-explorer <https://www.10xgenomics.com/support/software/xenium-explorer>`_.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd, spanmf as sn
    >>> adata = sn.datasets.xenium_tissue(1000)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sn.io.write_xenium_explorer(adata, "domain", f"{folder}/domains.csv")
    ...     groups = pd.read_csv(f"{folder}/domains.csv")
    >>> groups.columns.tolist()[:2], len(groups)
    (['cell_id', 'group'], 1000)
    """
    table = _data.get_table(adata, table_key, min_obs=1)
    path = Path(path).expanduser()
    _check_place(path)
    codes, names = _data.get_labels(table, key)
    ids = _cell_ids(table, cell_id_key)
    labelled = codes >= 0
    if not labelled.any():
        msg = f"No cell has a label in `adata.obs[{key!r}]`: there is nothing to write."
        raise ValueError(msg)
    groups = {"cell_id": ids[labelled], "group": np.array(names, dtype=object)[codes[labelled]]}
    colors = _colors(table, key, names, palette)
    if colors is not None:
        groups["color"] = np.array(colors, dtype=object)[codes[labelled]]
    with timed("io.write_xenium_explorer") as notes:
        with whole_file(path) as part:
            compression = "gzip" if path.suffix.lower() == ".gz" else None
            pd.DataFrame(groups).to_csv(part, index=False, compression=compression, lineterminator="\n")
        left_out = int((~labelled).sum())
        notes.append(f"{labelled.sum()} cells in {len(names)} groups, {left_out} without a label left out, {path}")


def _check_place(path: Path) -> None:
    """The folder must be there, and the path must not be one."""
    if path.is_dir():
        msg = f"{str(path)!r} is a folder. Name the file to write, e.g. {str(path / 'domains.csv')!r}."
        raise IsADirectoryError(msg)
    _checks.check_exists(path.absolute().parent)


def _cell_ids(table: AnnData, cell_id_key: str | None) -> np.ndarray:
    """The id of every cell as text, each there once."""
    where = "`adata.obs_names`"
    ids = pd.Series(table.obs_names)
    if cell_id_key is not None:
        _checks.check_key(table.obs, cell_id_key, "obs")
        where, ids = f"`adata.obs[{cell_id_key!r}]`", table.obs[cell_id_key]
    if ids.isna().any():
        msg = f"{where} is missing (NaN) for {int(ids.isna().sum())} cells, and a cell without an id cannot be written."
        raise ValueError(msg)
    if not ids.is_unique:
        again = ids[ids.duplicated()].unique()
        msg = (
            f"{where} has {len(again)} ids more than once ({_checks._listed(again, 3)}). Xenium Explorer opens one run "
            "at a time: write a file for each, e.g. of `adata[adata.obs['sample'] == 'a']`."
        )
        raise ValueError(msg)
    return ids.astype(str).to_numpy(dtype=object)


def _colors(
    table: AnnData, key: str, names: Sequence[str], palette: Mapping[str, str] | Sequence[str] | None
) -> list[str] | None:
    """Colour of each label as hex, or None where there are none."""
    from matplotlib.colors import is_color_like, to_hex

    given = palette
    if given is None:
        column = table.obs[key]
        stored = table.uns.get(f"{key}_colors")
        if stored is None:
            return None
        all_names = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else names
        given = dict(zip(map(str, all_names), stored, strict=False))
        if any(n not in given or not is_color_like(given[n]) for n in names):
            return None  # a record of other labels
    elif not hasattr(given, "items"):
        given = dict(zip(names, given, strict=False))
    missing = [n for n in names if n not in given]
    wrong = [given[n] for n in names if n in given and not is_color_like(given[n])]
    if missing or wrong:
        what = (
            f"no colour for {_checks._listed(missing)}" if missing else f"{_checks._listed(wrong)}, which is no colour"
        )
        msg = f"`palette` has {what}. Give every label of `adata.obs[{key!r}]` one, e.g. '#0072B2'."
        raise ValueError(msg)
    return [to_hex(given[n]) for n in names]
