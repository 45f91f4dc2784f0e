"""Output folders of 10x Genomics' Space Ranger (Visium): real positions, scale factors and images."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import _checks, _keys
from ._cells import check_unique
from ._tenx import read_matrix, read_mex

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

MATRICES = (
    "*filtered_feature_bc_matrix.h5",
    "*raw_feature_bc_matrix.h5",
    "filtered_feature_bc_matrix",
    "raw_feature_bc_matrix",
)
POSITIONS = ("tissue_positions.csv", "tissue_positions_list.csv", "tissue_positions.parquet")
FACTORS = "scalefactors_json.json"
IMAGES = {"hires": "tissue_hires_image.png", "lowres": "tissue_lowres_image.png"}
COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
SPOT_UM = 65.0  # the spot that `spot_diameter_fullres` is the diameter of, as 10x documents it
BELOW = ("*", "*/outs", "*/*/outs")  # where sections lie in a folder of several
GENES = "Gene Expression"
LOOKS_LIKE = f"a Space Ranger folder with spatial/ and {MATRICES[0]} or {MATRICES[2]}/ (or a folder of several)"


def is_visium(path: Path) -> bool:
    """By its matrix and its folder of positions, in itself or in folders below."""
    return path.is_dir() and bool(_sections(path))


def _sections(path: Path) -> list[Path]:
    """Folders of sections: the folder itself, its ``outs``, or several below it."""
    for folder in (path, path / "outs"):
        if _is_section(folder):
            return [folder]
    return sorted({p for pattern in BELOW for p in path.glob(pattern) if _is_section(p)})


def _is_section(path: Path) -> bool:
    return (path / "spatial").is_dir() and _matrix(path) is not None


def _matrix(path: Path) -> Path | None:
    return next((p for pattern in MATRICES for p in sorted(path.glob(pattern))), None)


def read_visium(path: Path) -> AnnData:
    """One section, or several as one table with ``obs["sample"]``."""
    if not path.is_dir():
        msg = f"{str(path)!r} is a file. Name the Space Ranger output folder that it is in."
        raise NotADirectoryError(msg)
    folders = _sections(path)
    if not folders:
        msg = (
            f"{str(path)!r} holds {_checks._listed(sorted(p.name for p in path.iterdir()))}, so it cannot be read as Visium. "
            f"Looked for {LOOKS_LIKE}."
        )
        raise FileNotFoundError(msg)
    if len(folders) == 1:
        return _read_section(folders[0], _name(folders[0]))
    import anndata

    names = [str(f.relative_to(path)).removesuffix("/outs").replace("/", "_") for f in folders]
    tables = dict(zip(names, map(_read_section, folders, names), strict=True))
    first = next(iter(tables.values()))
    for name, table in tables.items():
        if not table.var_names.equals(first.var_names):
            msg = f"The sections {names[0]!r} and {name!r} in {str(path)!r} have other genes. Read them one by one: `sn.io.read({str(folders[names.index(name)])!r})`."
            raise ValueError(msg)
        table.obs_names = [f"{barcode}_{name}" for barcode in table.obs_names]
    adata = anndata.concat(tables, label="sample", merge="same", uns_merge=None)
    adata.uns[_keys.SPATIAL] = {k: v for t in tables.values() for k, v in t.uns[_keys.SPATIAL].items()}
    adata.uns[_keys.SPATIAL_UNITS] = "pixel"
    adata.uns[_keys.LEFT_OUT] = first.uns[_keys.LEFT_OUT]
    um = [t.uns.get(_keys.UM_PER_UNIT, np.nan) for t in tables.values()]
    if np.ptp(um) <= 0.01 * np.mean(um):
        adata.uns[_keys.UM_PER_UNIT] = float(np.mean(um))
    return adata


def _name(folder: Path) -> str:
    """Name of a section: its folder's, or the one above ``outs``."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "outs" else folder.name


def _read_section(folder: Path, name: str) -> AnnData:
    matrix = _matrix(folder)
    positions = next((folder / "spatial" / p for p in POSITIONS if (folder / "spatial" / p).is_file()), None)
    if matrix is None or positions is None:
        msg = (
            f"{str(folder / 'spatial')!r} lacks {' or '.join(POSITIONS)}, so that the places of the spots are not known; it holds "
            f"{_checks._listed(sorted(p.name for p in (folder / 'spatial').iterdir()))}."
        )
        raise FileNotFoundError(msg)
    places = read_positions(positions)
    adata = _by_squidpy(folder, matrix, name)
    if adata is None:
        adata = read_matrix(matrix) if matrix.is_file() else read_mex(matrix)
        adata.uns[_keys.SPATIAL] = {name: _images(folder / "spatial")}
    adata = _placed(adata, places, matrix, positions)
    kinds = adata.var["feature_types"].to_numpy(dtype=str)
    left = {
        k: {"n_features": int((kinds == k).sum()), "counts": float(adata.X[:, kinds == k].sum())}
        for k in sorted({*kinds} - {GENES})
    }
    if GENES in kinds:
        adata = adata[:, kinds == GENES].copy()
    adata.uns[_keys.LEFT_OUT] = left
    adata.uns[_keys.SPATIAL_UNITS] = "pixel"
    factors = adata.uns[_keys.SPATIAL][name]["scalefactors"]
    um = factors.get("microns_per_pixel") or SPOT_UM / factors.get("spot_diameter_fullres", np.nan)
    if np.isfinite(um):
        adata.uns[_keys.UM_PER_UNIT] = float(um)
    return adata


def _by_squidpy(folder: Path, matrix: Path, name: str) -> AnnData | None:
    """The section as squidpy reads it, or None where it cannot."""
    if not matrix.is_file() or not all((folder / "spatial" / f).is_file() for f in (FACTORS, *IMAGES.values())):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said in our words, or not at all
            import squidpy as sq

            adata = sq.read.visium(folder, counts_file=matrix.name, library_id=name)
            adata.var_names_make_unique()
    except Exception:  # a reader of many versions of a format raises anything
        return None
    adata.X = adata.X.tocsr().astype(np.float32)
    return adata


def read_positions(path: Path) -> pd.DataFrame:
    """Place of every spot by barcode: with a header (Space Ranger 2), without (1), or in parquet (HD)."""
    with _checks.reading(path, "a table of positions"):
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, header=None, dtype=str)
            if table.iloc[0, 0] == "barcode":
                table = table[1:].set_axis(list(table.iloc[0]), axis=1)
            else:
                table = table.set_axis(list(COLUMNS), axis=1)
        table = table[list(COLUMNS)].set_index("barcode").apply(pd.to_numeric)
        if table.isna().any(axis=None):
            msg = "a line ends early"
            raise ValueError(msg)
    check_unique(table.index, path)
    return table


def _placed(adata: AnnData, places: pd.DataFrame, matrix: Path, positions: Path) -> AnnData:
    """The spots that have a place, with where they lie on the array and in the image."""
    rows = places.index.get_indexer(adata.obs_names)
    if (rows < 0).all():
        msg = (
            f"{matrix.name} and {positions.name} in {str(matrix.parent)!r} have no barcode in common (such as "
            f"{adata.obs_names[0]!r} and {places.index[0]!r}): they belong to different sections."
        )
        raise ValueError(msg)
    if (rows < 0).any():
        _checks.warn(
            f"{int((rows < 0).sum())} barcodes of {str(matrix)!r} have no place in {positions.name} and are left out."
        )
        adata, rows = adata[rows >= 0].copy(), rows[rows >= 0]
    own = places.iloc[rows]
    for column in COLUMNS[1:4]:
        adata.obs[column] = own[column].to_numpy()
    adata.obsm[_keys.SPATIAL] = own[list(COLUMNS[:3:-1])].to_numpy(dtype=np.float64)  # x is the column
    outside = int((own["in_tissue"] == 0).sum())
    if outside:
        _checks.warn(
            f"{outside} of {adata.n_obs} spots of {str(matrix)!r} lie outside the tissue. Leave them out: "
            "`adata = adata[adata.obs['in_tissue'] == 1].copy()`."
        )
    return adata


def _images(folder: Path) -> dict[str, Any]:
    """Scale factors and images, in the form that scanpy and squidpy use."""
    factors = {}
    if (folder / FACTORS).is_file():
        with _checks.reading(folder / FACTORS, "scale factors"):
            factors = json.loads((folder / FACTORS).read_text(encoding="utf-8"))
    images = {}
    for name, file in IMAGES.items():
        if (folder / file).is_file():
            from PIL import Image

            with _checks.reading(folder / file, "an image"), Image.open(folder / file) as image:
                images[name] = np.asarray(image)
    return {"images": images, "scalefactors": factors, "metadata": {}}
