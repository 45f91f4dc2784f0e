"""What IMC's programs write beside their tables of cells: panels, images, scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import _checks, _keys

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from ._cells import Part

SAME = 0.01  # images whose scales differ by less than this share have one


def finish_steinbock(adata: AnnData, folder: Path, values: Part) -> None:
    """The panel (panel.csv) to ``var``, the size of a pixel from images.csv."""
    del values
    panel = _read_csv(folder / "panel.csv")
    if panel is not None and {"name", "channel"} <= set(panel):
        panel = panel.drop_duplicates("name").set_index("name").reindex(adata.var_names)
        adata.var["channel"] = panel["channel"].astype(str)
    images = _read_csv(folder / "images.csv")
    if images is not None and {"width_px", "acquisition_width_um"} <= set(images):
        um = (images["acquisition_width_um"] / images["width_px"]).dropna().to_numpy()
        if len(um) and np.ptp(um) <= SAME * um.mean():
            adata.uns[_keys.UM_PER_UNIT] = float(np.median(um))


def finish_cellprofiler(adata: AnnData, folder: Path, values: Part) -> None:
    """Metals and targets of the channels (var_cell.csv, panel.csv), their scale and the names of images (Image.csv)."""
    del values
    metals = _metals(folder)
    if metals is None:
        _checks.warn(
            f"{str(folder)!r} has no var_cell.csv, which tells the metals of the channels: features are called {_checks._listed(adata.var_names, 3)}."
        )
    else:
        adata.var["metal"] = [metals.get(c, c) for c in adata.var["channel"]]
        panel = _read_csv(folder / "panel.csv")
        targets = {}
        if panel is not None and {"Metal Tag", "Target"} <= set(panel):
            targets = dict(zip(panel["Metal Tag"].astype(str), panel["Target"].astype(str), strict=True))
        adata.var_names = [targets.get(m, m) for m in adata.var["metal"]]
        adata.var_names_make_unique()
    images = _read_csv(folder / "Image.csv")
    if images is None:
        _checks.warn(
            f"{str(folder)!r} has no Image.csv, which tells the scale of intensities: they are left between 0 and 1."
        )
        return
    images = images.assign(ImageNumber=images["ImageNumber"].astype(str)).set_index("ImageNumber")
    number = adata.obs["sample"].astype(str).to_numpy()
    if "Scaling_FullStack" in images:
        adata.X = adata.X * images["Scaling_FullStack"].reindex(number).to_numpy(dtype=np.float32)[:, None]
    if "FileName_FullStack" in images:
        adata.obs["image"] = pd.Categorical(images["FileName_FullStack"].reindex(number))


def _metals(folder: Path) -> dict[str, str] | None:
    table = _read_csv(folder / "var_cell.csv")
    if table is None or not {"column_name", "channel_id"} <= set(table):
        return None
    table = table.dropna(subset="channel_id")
    return dict(zip(table["column_name"].astype(str), table["channel_id"].astype(str), strict=True))


def _read_csv(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    with _checks.reading(path, "a CSV file"):
        return pd.read_csv(path)
