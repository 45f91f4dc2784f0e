"""One way in: a stored table or an instrument's folder becomes an AnnData."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from .. import _checks
from .._docs import doc
from .._logging import timed
from . import _stored, _xenium

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData


@dataclass(frozen=True)
class Platform:
    """What a platform's data look like on disk, and who reads them."""

    looks_like: str  # for the error that lists what was looked for
    recognises: Callable[[Path], bool]
    read: Callable[[Path, str | None], AnnData]  # the path and the name of a table


PLATFORMS = {
    "h5ad": Platform("a file *.h5ad", _stored.is_h5ad, lambda path, _: _stored.read_h5ad(path)),
    "zarr": Platform("a Zarr folder with an AnnData or a SpatialData", _stored.is_zarr, _stored.read_zarr),
    "xenium": Platform(
        f"a Xenium output folder with {_xenium.MATRIX}", _xenium.is_xenium, lambda path, _: _xenium.read_xenium(path)
    ),
}

OTHERS = {  # platforms that others read: what tells them, and the call
    "Visium": ("*filtered_feature_bc_matrix.h5", "sq.read.visium(path)"),
    "Visium HD": ("binned_outputs", "spatialdata_io.visium_hd(path)"),
    "MERSCOPE": ("*cell_by_gene.csv", "sq.read.vizgen(path, counts_file=..., meta_file=...)"),
    "CosMx": ("*exprMat_file.csv", "sq.read.nanostring(path, counts_file=..., meta_file=...)"),
}


@doc
def read(
    path: str | Path, platform: Literal["auto", "h5ad", "zarr", "xenium"] = "auto", *, table_key: str | None = None
) -> AnnData:
    """Read a tissue: a stored AnnData or SpatialData, or a Xenium output folder.

    A stored table comes back as it was stored (of a SpatialData, only the table is read). A Xenium folder becomes a
    table of counts: through spatialdata-io, where that is installed and the bundle is whole, else from its cells table
    and its matrix, which is said in a warning and gives the same table but for the columns of ``cells.zarr.zip``.

    Parameters
    ----------
    path
        File or folder.
    platform
        ``"h5ad"``: a file of AnnData. ``"zarr"``: a Zarr folder with an AnnData or a SpatialData. ``"xenium"``: the
        output folder of a Xenium run (``cell_feature_matrix.h5`` beside ``cells.parquet`` or ``cells.csv.gz``).
        ``"auto"``: recognised by its name and content.
    {table_key}

    Returns
    -------
    AnnData
        For a Xenium folder, cells × genes:

        - ``X``: counts of the genes, CSR, float32; control probes and codewords are left out
        - ``obs``: the columns of the cells table (``cell_area``, ``nucleus_area`` in µm², ``transcript_counts``, …);
          its names are the cell ids
        - ``var``: ``gene_ids``, ``feature_types``; its names are the gene names, made unique
        - ``obsm["spatial"]``: n × 2, float64, centroids of the cells in µm
        - ``uns["spatial_units"]``: ``"um"``; ``uns["um_per_unit"]``: 1.0
        - ``uns["left_out"]``: for each other kind of feature, ``n_features`` and the sum of its ``counts``

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``path``, or a file of a Xenium folder is missing.
    OSError
        If a file is truncated or unreadable; the error names it and the cause.
    KeyError
        If a SpatialData has several tables and ``table_key`` names none of them, or a column is missing.
    ValueError
        If nothing is recognised, or the cells table and the matrix do not fit together.

    Examples
    --------
    >>> import tempfile, spanmf as sn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sn.datasets.xenium_tissue(1000).write_h5ad(f"{folder}/tissue.h5ad")
    ...     adata = sn.io.read(f"{folder}/tissue.h5ad")
    >>> adata.shape
    (1000, 300)
    """
    _checks.check_choice("platform", platform, ("auto", *PLATFORMS))
    path = Path(path).expanduser()
    _checks.check_exists(path)
    name = recognise(path) if platform == "auto" else platform
    with timed("io.read") as notes:
        adata = PLATFORMS[name].read(path, table_key)
        notes.append(f"{adata.n_obs} × {adata.n_vars} from {str(path)!r} ({name})")
    return adata


def recognise(path: Path) -> str:
    """The first platform that recognises its own."""
    for name, platform in PLATFORMS.items():
        if platform.recognises(path):
            return name
    _fail_unrecognised(path)


def _fail_unrecognised(path: Path) -> NoReturn:
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
