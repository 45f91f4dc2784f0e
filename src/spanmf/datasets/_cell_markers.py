"""Canonical markers of common cell types."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd


def cell_markers() -> pd.DataFrame:
    r"""List canonical markers of common immune, stromal, epithelial and brain cells of human and mouse.

    Compiled for this package from what textbooks and atlases agree on; every row names one of them to read about it. It is a
    start for coarse types: add, drop or replace rows for your tissue. Names are human symbols and names of antibodies;
    mouse genes are found by the same names in another case.

    Returns
    -------
    DataFrame
        One row a type and marker: ``cell_type``, ``marker``, ``kind`` (``"gene"`` or ``"protein"``), ``species``, ``source``.

    Examples
    --------
    >>> import spanmf as sn
    >>> table = sn.datasets.cell_markers()
    >>> table.query("cell_type == 'B cell' and kind == 'protein'")["marker"].tolist()
    ['CD20', 'CD19', 'CD79a', 'CD22']
    """
    with files("spanmf.datasets").joinpath("cell_markers.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)
