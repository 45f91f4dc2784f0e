"""Bring modalities of neighbouring sections, or of other units, onto common observations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.spatial import cKDTree

from .. import _checks, _data, _keys, _mudata
from .._docs import doc
from .._logging import timed
from ..core import _align, _graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

METHODS = ("auto", "name", "mutual_nearest", "pool", "grid")
UNMATCHED = ("keep", "drop")
AGGREGATES = ("auto", "sum", "mean")
SEEN = 5_000  # observations that a look at the frames takes
SWAP_GAIN = 0.6  # axes look swapped where the median distance to the nearest falls below this share of itself


@doc
def align_modalities(
    a: AnnData,
    b: AnnData,
    *,
    radius: float | None = None,
    method: Literal["auto", "name", "mutual_nearest", "pool", "grid"] = "auto",
    unmatched: Literal["keep", "drop"] = "keep",
    warp: float | None = None,
    aggregate: Literal["auto", "sum", "mean"] = "auto",
    names: Sequence[str] = ("rna", "protein"),
    spatial_key: str = _keys.SPATIAL,
) -> MuData:
    r"""Match the observations of two modalities by their names or their places.

    - ``"name"``: observations of the same name.
    - ``"mutual_nearest"``: cells to cells, pairs that are each other's nearest within ``radius``.
    - ``"pool"``: the cells of b beneath each spot of a: those within ``radius`` of its centre, each under its nearest spot, are
      added up or averaged.
    - ``"grid"``: both onto a common square grid with sides of ``radius``.

    A wrong match is worse than none: at a displacement of a third of the distance between cells, a fifth of the pairs are
    wrong, and joint factors fall below those of RNA alone. A tighter radius does not help; ``warp`` does.

    Parameters
    ----------
    a
        Annotated data matrix that the other is matched to.
    b
        Annotated data matrix in the same coordinate system and units. Neither is changed.
    radius
        Largest distance of a pair (radius of a spot, side of a grid's square), in the units of the coordinates. ``None``: for
        ``"mutual_nearest"`` the median distance to the nearest neighbour in a; the other methods need it.
    method
        ``"auto"``: ``"name"`` where names are shared, else ``"mutual_nearest"``.
    unmatched
        ``"keep"`` observations that one modality lacks (:func:`spanmf.tl.joint_nmf` masks or pads them), or ``"drop"`` them.
    warp
        Fit a smooth field to the offsets of mutual neighbours first, and move b by it: the distance over which the field
        varies, in the units of the coordinates (several times that between cells). ``None``: off. Only with
        ``"mutual_nearest"``.
    aggregate
        How observations of a spot or square come together: ``"sum"`` or ``"mean"``. ``"auto"``: sum of counts, mean of others.
    names
        Names of the two modalities.
    {spatial_key}

    Returns
    -------
    MuData with the two modalities (copies). Unmatched observations of b are named ``f"{{names[1]}}:{{name}}"`` where a has that
    name. Where matched by place, matched observations of b take the names of a, and ``obs["aligned_from"]`` keeps their own.

    ``mdata.uns["alignment"]`` : dict
        ``method``, ``radius``, ``n_matched``, ``n_only_a``, ``n_only_b``, ``distance_median``, ``distance_q95``, and with
        ``warp`` ``displacement_median``.
    ``mod[names[1]].obsm["spatial_warped"]`` : n × 2
        Moved places, with ``warp``.
    ``mod[names[1]].obs["alignment_distance"]`` : float
        Distance of each observation of b to its match; NaN without one (``"mutual_nearest"``).

    Raises
    ------
    KeyError
        If coordinates are missing.
    ValueError
        If nothing matches (the distances and what they suggest are named), if the units that both tables note
        (``uns["um_per_unit"]``) differ, or if a radius is needed.

    Warns
    -----
    SpanmfWarning
        If axes look swapped or scaled although something matches.

    Examples
    --------
    >>> import spanmf as sn
    >>> tissue = sn.datasets.rna_protein_tissue(1000, displacement=3)
    >>> mdata = sn.pp.align_modalities(tissue.mod["rna"], tissue.mod["protein"], warp=50)
    >>> bool(mdata.uns["alignment"]["n_matched"] > 800)
    True
    """
    _checks.check_choice("method", method, METHODS)
    _checks.check_choice("unmatched", unmatched, UNMATCHED)
    _checks.check_choice("aggregate", aggregate, AGGREGATES)
    if len(names) != 2 or names[0] == names[1]:
        msg = f"`names` must be two different names, not {list(names)!r}."
        raise ValueError(msg)
    a, b = _data.get_table(a), _data.get_table(b)
    shared = a.obs_names.intersection(b.obs_names)
    if method == "auto":
        method = "name" if len(shared) else "mutual_nearest"
    if warp is not None:
        _checks.check_range("warp", warp, 0, open_low=True)
        if method != "mutual_nearest":
            msg = (
                f"`warp` moves cells before they are matched by `method='mutual_nearest'`; {method!r} does not use it."
            )
            raise ValueError(msg)
    if radius is None and method in ("pool", "grid"):
        msg = f"`method={method!r}` needs `radius`: {'the radius of a spot' if method == 'pool' else 'the side of a square'}, in the units of the coordinates."
        raise ValueError(msg)
    if radius is not None:
        _checks.check_range("radius", radius, 0, open_low=True)
    with timed("pp.align_modalities") as notes:
        if method == "name":
            first, second, report = _by_name(a, b, len(shared), unmatched)
        else:
            places = _data.get_coordinates(a, spatial_key), _data.get_coordinates(b, spatial_key)
            if places[0].shape[1] != places[1].shape[1]:
                msg = f"`a` has coordinates of {places[0].shape[1]} axes and `b` of {places[1].shape[1]}: align them on the same ones."
                raise ValueError(msg)
            check_units(a, b)
            if method == "mutual_nearest":
                first, second, report = _by_place(a, b, *places, radius, warp, unmatched, str(names[1]))
            elif method == "pool":
                first, second, report = _pooled(a, b, *places, float(radius or 0), aggregate, unmatched, spatial_key)
            else:
                first, second, report = _gridded(a, b, *places, float(radius or 0), aggregate, unmatched, spatial_key)
            _warn_of_frames(*places, method)
        mdata = _mudata.make({str(names[0]): first, str(names[1]): second})
        mdata.uns["alignment"] = _data.storable({"method": method, "radius": radius, "warp": warp, **report})
        notes.append(f"{report['n_matched']} matched, {report['n_only_a']} in a only, {report['n_only_b']} in b only")
    return mdata


Parts = tuple[AnnData, AnnData, dict[str, float]]


def _by_name(a: AnnData, b: AnnData, n_shared: int, unmatched: str) -> Parts:
    if n_shared == 0:
        msg = f"No name is in both tables (names like {a.obs_names[0]!r} and {b.obs_names[0]!r}). Match by place: `method='mutual_nearest'`."
        raise ValueError(msg)
    report = {"n_matched": n_shared, "n_only_a": a.n_obs - n_shared, "n_only_b": b.n_obs - n_shared}
    if unmatched == "drop":
        keep = a.obs_names[a.obs_names.isin(b.obs_names)]
        return a[keep].copy(), b[keep].copy(), report
    return a.copy(), b.copy(), report


def _by_place(
    a: AnnData,
    b: AnnData,
    x: np.ndarray,
    y: np.ndarray,
    radius: float | None,
    warp: float | None,
    unmatched: str,
    name: str,
) -> Parts:
    spacing = _spacing(x)
    radius = spacing if radius is None else float(radius)
    field = np.zeros_like(y) if warp is None else _align.warp(x, y, radius, float(warp))
    i, j, distance = _align.mutual_nearest(x, y + field, radius)
    if len(i) == 0:
        _fail_apart(x, y, radius)
    report = {
        "n_matched": len(i), "n_only_a": a.n_obs - len(i), "n_only_b": b.n_obs - len(i), "radius": radius,
        "distance_median": float(np.median(distance)), "distance_q95": float(np.quantile(distance, 0.95)),
    }  # fmt: skip
    first, second = a.copy(), b.copy()
    labels = second.obs_names.to_numpy(dtype=object).copy()
    taken = np.isin(labels, a.obs_names.to_numpy())
    labels[taken] = [f"{name}:{x}" for x in labels[taken]]
    labels[j] = a.obs_names.to_numpy()[i]
    second.obs["aligned_from"] = b.obs_names.to_numpy()
    second.obs["alignment_distance"] = np.nan
    second.obs.iloc[j, second.obs.columns.get_loc("alignment_distance")] = distance
    second.obs_names = labels
    if warp is not None:
        second.obsm["spatial_warped"] = y + field
        report["displacement_median"] = float(np.median(np.sqrt((field**2).sum(1))))
    if unmatched == "drop":
        return first[i].copy(), second[j].copy(), report
    return first, second, report


def _pooled(
    a: AnnData,
    b: AnnData,
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
    aggregate: str,
    unmatched: str,
    spatial_key: str,
) -> Parts:
    distance, spot = cKDTree(x).query(y)
    under = distance <= radius
    if not under.any():
        _fail_apart(x, y, radius)
    second = _aggregated(b, np.where(under, spot, -1), a.n_obs, a.obs_names.to_numpy(), x, aggregate, spatial_key)
    report = {
        "n_matched": second.n_obs, "n_only_a": a.n_obs - second.n_obs, "n_only_b": int((~under).sum()),
        "distance_median": float(np.median(distance[under])),
    }  # fmt: skip
    first = a[second.obs_names].copy() if unmatched == "drop" else a.copy()
    return first, second, report


def _gridded(
    a: AnnData,
    b: AnnData,
    x: np.ndarray,
    y: np.ndarray,
    side: float,
    aggregate: str,
    unmatched: str,
    spatial_key: str,
) -> Parts:
    low = np.minimum(x.min(0), y.min(0))
    cells = [np.floor((p - low) / side).astype(np.int64) for p in (x, y)]
    squares, index = np.unique(np.concatenate(cells), axis=0, return_inverse=True)
    index = index.ravel()
    labels = np.array(["square_" + "_".join(map(str, s)) for s in squares], dtype=object)
    centres = low + (squares + 0.5) * side
    parts = [
        _aggregated(t, k, len(squares), labels, centres, aggregate, spatial_key)
        for t, k in ((a, index[: len(x)]), (b, index[len(x) :]))
    ]
    both = parts[0].obs_names.intersection(parts[1].obs_names)
    if len(both) == 0:
        _fail_apart(x, y, side)
    report = {"n_matched": len(both), "n_only_a": parts[0].n_obs - len(both), "n_only_b": parts[1].n_obs - len(both)}
    if unmatched == "drop":
        parts = [p[both].copy() for p in parts]
    return parts[0], parts[1], report


def _aggregated(
    table: AnnData,
    group: np.ndarray,
    n_groups: int,
    labels: np.ndarray,
    centres: np.ndarray,
    aggregate: str,
    spatial_key: str,
) -> AnnData:
    """Sums or means of the observations of each group (−1: none); groups without any are left out."""
    X, _ = _data.get_matrix(table)
    rows = np.flatnonzero(group >= 0)
    n = np.bincount(group[rows], minlength=n_groups)
    S = sp.csr_matrix((np.ones(len(rows), np.float32), (group[rows], rows)), shape=(n_groups, table.n_obs))
    total = S @ X
    if aggregate == "mean" or (aggregate == "auto" and not _checks.looks_like_counts(X)):
        scale = np.divide(1, n, out=np.zeros(n_groups), where=n > 0).astype(np.float32)
        total = sp.diags(scale) @ total if sp.issparse(total) else total * scale[:, None]
    used = np.flatnonzero(n)
    total = sp.csr_matrix(total)[used] if sp.issparse(total) else np.asarray(total)[used]
    obs = pd.DataFrame({"n_pooled": n[used]}, index=labels[used])
    out = AnnData(total.astype(np.float32), obs=obs, var=table.var.copy())
    out.obsm[spatial_key] = centres[used]
    for key in (_keys.UM_PER_UNIT, _keys.SPATIAL_UNITS):
        if key in table.uns:
            out.uns[key] = table.uns[key]
    return out


def check_units(
    a: AnnData, b: AnnData, names: tuple[str, str] = ("a", "b"), call: tuple[str, str] = ("a", "b")
) -> None:
    """Places are compared only in one unit, as far as the tables note theirs. ``call``: what they are called in the advice."""
    um = [t.uns.get(_keys.UM_PER_UNIT) for t in (a, b)]
    unit = [t.uns.get(_keys.SPATIAL_UNITS, "unknown") for t in (a, b)]
    differ = not np.isclose(*um, rtol=0.01) if None not in um else "unknown" not in unit and unit[0] != unit[1]
    if differ:
        said = [f"{u}" + ("" if m is None else f" of {m:.4g} µm") for u, m in zip(unit, um, strict=True)]
        one, other = call
        msg = (
            f"The places of {names[0]} are in units of {said[0]}, those of {names[1]} in {said[1]}. Bring them to one "
            f"frame first, then say so: `{other}.obsm['spatial'] = {other}.obsm['spatial'] * factor; {other}.uns['um_per_unit'] = "
            f"{one}.uns['um_per_unit']; {other}.uns['spatial_units'] = {one}.uns['spatial_units']`."
        )
        raise ValueError(msg)


def _warn_of_frames(x: np.ndarray, y: np.ndarray, method: str) -> None:
    """Cells that fill the same field match by chance even where the frames differ: say what the places suggest."""
    extents = [np.ptp(p, axis=0) for p in (x, y)]
    ratio = extents[1] / np.maximum(extents[0], 1e-12)
    if method == "mutual_nearest" and ((ratio > 1.5).all() or (ratio < 1 / 1.5).all()):
        wide, apart = float(np.median(ratio)), _spacing(y) / max(_spacing(x), 1e-12)
        if 0.7 < apart / wide < 1 / 0.7:
            _checks.warn(
                f"b is {wide:.3g} times as wide as a, and its places lie {apart:.3g} times as far apart: are they in the same units? "
                "Matches may be chance. Multiply one of them."
            )
    if x.shape[1] != 2:
        return
    swapped = y[:, ::-1]
    boxes = np.allclose(extents[0], np.ptp(swapped, axis=0), rtol=0.05) and not np.allclose(*extents, rtol=0.15)
    seen = np.arange(len(y)) if len(y) <= SEEN else np.random.default_rng(0).choice(len(y), SEEN, replace=False)
    tree = cKDTree(x)
    as_is, other = (float(np.median(tree.query(p[seen])[0])) for p in (y, swapped))
    if boxes or other < SWAP_GAIN * as_is:
        _checks.warn(
            f"The axes of one of them look swapped (median distance to the nearest {as_is:.3g} as they are, {other:.3g} with the axes of b "
            "swapped). Matches may be chance. `b.obsm['spatial'] = b.obsm['spatial'][:, ::-1]`."
        )


def _spacing(x: np.ndarray) -> float:
    return float(_graph.spacing(x, np.zeros(len(x), dtype=np.int32), np.random.default_rng(0)).nearest)


def _fail_apart(x: np.ndarray, y: np.ndarray, radius: float) -> None:
    """Say how far apart the places are, and what this looks like."""
    distance = cKDTree(x).query(y)[0]
    extents = [np.ptp(p, axis=0) for p in (x, y)]
    ratio = float(np.median(extents[1] / np.maximum(extents[0], 1e-12)))
    boxes = [f"{p.min(0).round(1).tolist()} to {p.max(0).round(1).tolist()}" for p in (x, y)]
    swapped = np.allclose(extents[0], extents[1][::-1], rtol=0.05) and not np.allclose(*extents, rtol=0.05)
    hint = (
        "The axes of one of them look swapped: `b.obsm['spatial'] = b.obsm['spatial'][:, ::-1]`."
        if swapped
        else f"b is {ratio:.3g} times as wide as a: are they in the same units? Multiply one of them."
        if not 0.5 < ratio < 2
        else "Register the sections first, or give a larger `radius`."
    )
    msg = (
        f"No observation of b lies within {radius:.4g} of one of a (the nearest at {distance.min():.4g}, the median at "
        f"{np.median(distance):.4g}). a spans {boxes[0]}, b {boxes[1]}. {hint}"
    )
    raise ValueError(msg)
