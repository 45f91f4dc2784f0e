"""What the tables of cells of each platform look like: one entry a platform, no code."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Features = Callable[[Sequence[str]], dict[str, str]]  # the columns that hold features, and the features' names
Names = tuple[str, ...]  # of a column, in the order in which they are looked for


def rest(columns: Sequence[str]) -> dict[str, str]:
    """All columns (of a table that has nothing but ids beside them)."""
    return {c: c for c in columns if not is_unnamed(c)}


def between(first: str, last: str) -> Features:
    """The columns between two others."""

    def features(columns: Sequence[str]) -> dict[str, str]:
        if first not in columns or last not in columns:
            return {}
        return {c: c for c in columns[columns.index(first) + 1 : columns.index(last)]}

    return features


def matching(*patterns: str) -> Features:
    """The columns that any of these describes, each by its first group."""

    def features(columns: Sequence[str]) -> dict[str, str]:
        found = ((c, next((m for p in patterns if (m := re.fullmatch(p, c))), None)) for c in columns)
        return {c: m[1].strip() for c, m in found if m}

    return features


def is_unnamed(column: str) -> bool:
    """A column without a name (row numbers that R or pandas wrote)."""
    return column == "" or column.startswith(("Unnamed: ", "__index_level_"))


@dataclass(frozen=True)
class Dialect:
    """Which tables a platform writes, and which of their columns mean what.

    Ids are text. Where cells are numbered within images, fields or regions, the name of a cell is that of the image and
    its own, with ``_`` between.
    """

    cells: Names  # names of the table with the places, the first that is there counts
    cell_id: Names
    position: tuple[Names, ...]  # x, y (and z)
    title: str = ""  # for people
    values: Names = ()  # names of the table with the features, where that is another one
    within: Names = ()  # column of the image, field or region in which cells are numbered
    samples: bool = True  # whether these (or the files) are samples, whose coordinates begin anew
    per_file: bool = False  # whether cells are numbered within files
    features: Features = rest
    features_in_rows: bool = False  # the table with the features is features × cells
    controls: str = r"(?!)"  # features that are none, by name
    properties: str = ".*"  # columns of the cells to keep
    second_header: str = ""  # first entry of a second line of headers
    counts: bool = False
    unit: str = "pixel"
    um_per_unit: float | None = None
    um_if: str = r"(?!)"  # columns that show that lengths were exported in µm
    areas: tuple[str, str] | None = None  # columns of the same area in µm² and in squares of the unit

    @property
    def looks_like(self) -> str:
        """For the error that lists what was looked for."""
        return f"{self.title}: " + " with ".join(" or ".join(names) for names in (self.cells, self.values) if names)

    @property
    def columns(self) -> str:
        """The columns that its table of cells must have."""
        return ", ".join(" or ".join(map(repr, names)) for names in (self.cell_id, *self.position))


XENIUM = Dialect(
    cells=("cells.parquet", "cells.csv.gz", "cells.csv"),
    cell_id=("cell_id",),
    position=(("x_centroid",), ("y_centroid",)),
    unit="um",
    um_per_unit=1.0,
)

DIALECTS = {
    "merscope": Dialect(
        title="MERSCOPE or MERFISH",
        cells=("*cell_metadata*",),
        values=("*cell_by_gene*",),
        cell_id=("EntityID", "cell", "X", "Unnamed: 0"),
        position=(("center_x",), ("center_y",)),
        controls=r"(?i)blank[-_ ]?\d*",
        counts=True,
        unit="um",
        um_per_unit=1.0,
    ),
    "cosmx": Dialect(
        title="CosMx",
        cells=("*metadata_file*",),
        values=("*exprMat_file*",),
        within=("fov",),
        samples=False,
        cell_id=("cell_ID",),
        position=(("CenterX_global_px",), ("CenterY_global_px",)),
        controls=r"(?i)(negprb|negative|systemcontrol|falsecode).*",
        counts=True,
        areas=("Area.um2", "Area"),
    ),
    "starmap": Dialect(
        title="STARmap PLUS",
        cells=("*spatial.csv*",),
        values=("*expression_pd.csv*",),
        cell_id=("NAME", "GENE"),
        position=(("X",), ("Y",), ("Z",)),
        features_in_rows=True,
        second_header="TYPE",
        counts=True,
        unit="unknown",
    ),
    "codex": Dialect(
        title="CODEX Processor",
        cells=("*compensated.csv*",),
        within=("region", "Region", "reg"),
        cell_id=("cell_id", "CellID", "EventID"),
        position=(("x", "X"), ("y", "Y")),
        features=matching(r"(?i:cyc)_?\d+_(?i:ch)_?\d+:(.+)", r"(.+):(?i:cyc)_?\d+_(?i:ch)_?\d+"),
        controls=r"(?i)(blank|empty).*",
    ),
    "mibi": Dialect(
        title="MIBI (cell table of ark)",
        cells=("cell_table*",),
        within=("fov",),
        cell_id=("label",),
        position=(("centroid-1",), ("centroid-0",)),
        features=between("cell_size", "label"),
    ),
    "steinbock": Dialect(
        title="IMC (steinbock)",
        cells=("regionprops/*.csv",),
        values=("intensities/*.csv",),
        per_file=True,
        cell_id=("Object",),
        position=(("centroid-1",), ("centroid-0",)),
    ),
    "cellprofiler": Dialect(
        title="IMC (CellProfiler)",
        cells=("cell.csv",),
        within=("ImageNumber",),
        cell_id=("ObjectNumber",),
        position=(("AreaShape_Center_X", "Location_Center_X"), ("AreaShape_Center_Y", "Location_Center_Y")),
        features=matching(r"Intensity_MeanIntensity_FullStack_(c\d+)"),
        properties="AreaShape_.*|Neighbors_.*",
    ),
    "cycif": Dialect(
        title="CyCIF (MCMICRO)",
        cells=("*_cell*.csv",),
        cell_id=("CellID",),
        position=(("X_centroid",), ("Y_centroid",)),
        features=between("CellID", "X_centroid"),
    ),
    "inform": Dialect(
        title="inForm",
        cells=("*merge_cell_seg_data.txt", "*cell_seg_data.txt"),
        within=("Sample Name",),
        cell_id=("Cell ID",),
        position=(("Cell X Position",), ("Cell Y Position",)),
        features=matching(r"Entire Cell (.+) Mean \(.*\)", r"Entire Cell (.+) Mean"),
        properties=r"(?!(Entire Cell|Nucleus|Cytoplasm|Membrane) .+ (Mean|Min|Max|Std Dev|Total)\b|inForm ).*",
        um_if=r".*\(square microns\)",
    ),
}
