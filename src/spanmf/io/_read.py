"""One way in: a stored table or an instrument's folder becomes an AnnData."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from .. import _checks, _platforms
from .._docs import doc
from .._logging import timed
from . import _stereo, _stored, _visium, _xenium
from ._cells import header, is_table
from ._dialects import DIALECTS
from ._tables import is_dialect, read_tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData


@dataclass(frozen=True)
class Platform:
    """What a platform's data look like on disk, and who reads them."""

    looks_like: str  # for the error that lists what was looked for
    recognises: Callable[[Path], bool]
    read: Callable[[Path, str | None], AnnData]  # the path and the name of a table
    name: str = ""  # for `platform=`, where several forms belong to one


def _of_tables(name: str) -> Platform:
    return Platform(
        DIALECTS[name].looks_like, lambda path: is_dialect(path, name), lambda path, _: read_tables(path, name),
        "imc" if name in IMC else name,
    )  # fmt: skip


IMC = ("steinbock", "cellprofiler")
PLATFORMS = {
    "h5ad": Platform("a file *.h5ad", _stored.is_h5ad, lambda path, _: _stored.read_h5ad(path)),
    "zarr": Platform("a Zarr folder with an AnnData or a SpatialData", _stored.is_zarr, _stored.read_zarr),
    "xenium": Platform(
        f"a Xenium output folder with {_xenium.MATRIX}", _xenium.is_xenium, lambda path, _: _xenium.read_xenium(path)
    ),
    "visium": Platform(_visium.LOOKS_LIKE, _visium.is_visium, lambda path, _: _visium.read_visium(path)),
    "stereoseq": Platform(_stereo.LOOKS_LIKE, _stereo.is_stereo, _stereo.read_stereo),
    **{name: _of_tables(name) for name in DIALECTS},
}

OF_SEVERAL_TABLES = ("zarr", "stereoseq")
OTHERS = {  # platforms that others read: what tells them, and the call
    "Visium HD": ("binned_outputs", "spatialdata_io.visium_hd(path)"),
    "CODEX (FCS)": ("*.fcs", "spatialdata_io.codex(path)"),
}


@doc
def read(
    path: str | Path,
    platform: Literal[
        "auto",
        "h5ad",
        "zarr",
        "xenium",
        "visium",
        "merscope",
        "cosmx",
        "stereoseq",
        "starmap",
        "codex",
        "mibi",
        "imc",
        "cycif",
        "inform",
    ] = "auto",
    *,
    table_key: str | None = None,
) -> AnnData:
    """Read a tissue: a stored table, or what an instrument or its software left.

    A stored table comes back as it was stored (of a SpatialData, only the table is read). All others become a table of counts
    or intensities with the places that the files give; none are made up. :doc:`/platforms` lists the files that are read of
    each platform, the unit of their places, and whether that was tested on files of the vendor.

    Xenium goes through spatialdata-io where that is installed and the bundle is whole, Visium through squidpy where the folder
    is; else their files are read here. Tables of cells (CSV, TSV, parquet) all go through one reader, by chunks.

    Parameters
    ----------
    path
        File or folder. A folder of several sections or images gives one table with ``obs["sample"]``.
    platform
        ``"auto"``: recognised by names and headers; the log says which. Case, spaces and hyphens do not matter, and
        ``"merfish"``, ``"nanostring"``, ``"mcmicro"``, ``"steinbock"``, ``"cellprofiler"``, ``"phenocycler"`` are understood.
    table_key
        Of a SpatialData: the table to use (not needed when it has one). Of Stereo-seq: ``"cells"``, or square bins of so many
        DNBs such as ``"bin50"``; ``None``: cells where they were segmented, else ``"bin100"``.

    Returns
    -------
    AnnData
        - ``X``: counts (CSR) or intensities (dense), float32; features that are controls are left out
        - ``obs``: the other columns of the cells table (areas, phenotypes, …); its names are the cell ids, after those of the
          images in which they are numbered. ``obs["sample"]``: section, image or region, whose coordinates begin anew: give
          it as ``library_key``
        - ``var``: its names are those of genes or markers, made unique; ``gene_ids`` and ``feature_types``, or ``channel``,
          where they are known
        - ``obsm["spatial"]``: n × 2 (or 3), float64
        - ``uns["spatial_units"]``: ``"um"``, ``"pixel"``, ``"dnb"`` or ``"unknown"``; ``uns["um_per_unit"]`` only where the files
          or the platform's documentation say it
        - ``uns["left_out"]``: for each other kind of feature, ``n_features`` and the sum of its ``counts``
        - ``uns["spatial"]``: images and scale factors of Visium, as scanpy has them

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``path``, or a file that belongs to it is missing.
    OSError
        If a file is truncated or unreadable; the error names it and the cause.
    KeyError
        If ``table_key`` names nothing that is there, or a column is missing.
    ValueError
        If nothing is recognised; if ids are there twice, tables do not fit together, or a column of numbers holds text.

    Examples
    --------
    >>> import tempfile, spanmf as sn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sn.datasets.xenium_tissue(1000).write_h5ad(f"{folder}/tissue.h5ad")
    ...     adata = sn.io.read(f"{folder}/tissue.h5ad")
    >>> adata.shape
    (1000, 300)
    """
    platform = _platforms.canonical(platform)
    _checks.check_choice("platform", platform, _platforms.NAMES)
    path = Path(path).expanduser()
    _checks.check_exists(path)
    name = recognise(path) if platform == "auto" else _form(path, platform)
    if table_key is not None and name not in OF_SEVERAL_TABLES:
        _checks.fail_one_table(path, table_key)
    with timed("io.read") as notes:
        adata = PLATFORMS[name].read(path, table_key)
        how = ", recognised by its files and their headers" if platform == "auto" else ""
        notes.append(f"{adata.n_obs} × {adata.n_vars} from {str(path)!r} ({name}{how})")
    return adata


def _form(path: Path, platform: str) -> str:
    """The form of a platform that several programs write for."""
    forms = [name for name, p in PLATFORMS.items() if (p.name or name) == platform]
    return next((name for name in forms if PLATFORMS[name].recognises(path)), forms[0])


def recognise(path: Path) -> str:
    """The first platform that recognises its own."""
    for name, platform in PLATFORMS.items():
        if platform.recognises(path):
            return name
    _fail_unrecognised(path)


def _fail_unrecognised(path: Path) -> NoReturn:
    for table in [path] if path.is_file() else path.iterdir():
        if is_table(table):
            header(table)  # one that cannot be read at all says so itself
    looked_for = "; ".join(p.looks_like for p in PLATFORMS.values())
    if path.is_dir():
        found = _checks._listed(sorted(p.name for p in path.iterdir()))
        what = f"The folder {str(path)!r} holds {found}"
    else:
        what = f"{str(path)!r} is a file of another kind"
    msg = f"{what}, which is not recognised. Looked for: {looked_for}. `platform=` names one that goes unrecognised."
    for platform, (pattern, reader) in OTHERS.items():
        if path.is_dir() and any(path.glob(pattern)):
            msg = (
                f"{what}, which looks like {platform}. Read it with `adata = {reader}`, and pass that on "
                "(or store it: `adata.write_h5ad(...)`)."
            )
    raise ValueError(msg)
