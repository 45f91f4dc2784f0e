"""What several tests share: a small tissue with planted truth, a snapshot that tells whether a table was touched, commands."""

from __future__ import annotations

import contextlib
import hashlib
import io
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

DENSITY = 5 / (np.pi * 20**2)  # cells per µm²: five neighbours within 20 µm, as in a Xenium section


def small_tissue(n: int = 400, n_genes: int = 60, n_domains: int = 4, *, dim: int = 2, seed: int = 0) -> ad.AnnData:
    """Log-normalised CSR float32 on a strip of tissue; square domains side by side, a programme each; two libraries.

    ``obs``: "domain", "sample" (left and right half). ``obsm``: "spatial" (µm), "W" (planted). ``varm``: "H".
    No two cells are at the same place. Raw counts are in ``layers["counts"]``.
    """
    rng = np.random.default_rng(seed)
    height = np.sqrt(n / DENSITY / n_domains)
    length = height * n_domains
    coords = rng.random((n, dim)) * np.array([length, height, 40.0][:dim])
    domain = np.minimum((coords[:, 0] / height).astype(int), n_domains - 1)
    W = rng.gamma(0.3, 0.5, (n, n_domains))
    W[np.arange(n), domain] += rng.gamma(8.0, 0.5, n)
    H = rng.gamma(0.2, 0.3, (n_domains, n_genes))
    H[np.arange(n_genes) % n_domains, np.arange(n_genes)] += rng.gamma(4.0, 0.5, n_genes)
    counts = rng.poisson(W @ H).astype(np.float32)
    counts[counts.sum(1) == 0, 0] = 1
    counts[0, counts.sum(0) == 0] = 1
    X = np.log1p(counts / counts.sum(1, keepdims=True) * np.float32(np.median(counts.sum(1))))
    return ad.AnnData(
        sp.csr_matrix(X.astype(np.float32)),
        obs=pd.DataFrame(
            {
                "domain": pd.Categorical(domain.astype(str)),
                "sample": pd.Categorical(np.where(coords[:, 0] < length / 2, "left", "right")),
            },
            index=[f"cell{i}" for i in range(n)],
        ),
        var=pd.DataFrame(index=[f"gene{j}" for j in range(n_genes)]),
        obsm={"spatial": coords, "W": W},
        varm={"H": H.T.copy()},
        layers={"counts": sp.csr_matrix(counts)},
    )


def typed_cells(types: list[str], n: int = 240, p: int = 150, seed: int = 0) -> ad.AnnData:
    """Counts of single cells, as many of each type; ``obs``: "type"."""
    rng = np.random.default_rng(seed)
    B = rng.gamma(0.5, 1, p) * np.exp(rng.normal(0, 1.2, (len(types), p))) * 3
    codes = np.arange(n) % len(types)
    cells = ad.AnnData(sp.csr_matrix(rng.poisson(B[codes]).astype(np.float32)))
    cells.var_names = [f"Gene{j}" for j in range(p)]
    cells.obs["type"] = pd.Categorical(np.array(types)[codes])
    return cells


def with_slots(adata: ad.AnnData, *, n_components: int = 4) -> ad.AnnData:
    """Add a contact graph and factors "nmf" and "snmf" by hand, in the shape that the package writes."""
    coords = adata.obsm["spatial"]
    distance = np.sqrt(((coords[:, None] - coords[None]) ** 2).sum(-1))
    linked = (distance <= 80) & ~np.eye(len(coords), dtype=bool)
    weight = np.where(distance <= 20, 2.5, 1.0) * linked
    adata.obsp["contact_connectivities"] = sp.csr_matrix(weight.astype(np.float32))
    adata.obsp["contact_distances"] = sp.csr_matrix((distance * linked).astype(np.float32))
    adata.uns["contact_neighbors"] = {
        "connectivities_key": "contact_connectivities",
        "distances_key": "contact_distances",
        "params": {"contact_radius": 20.0, "context_radius": 80.0},
    }
    rng = np.random.default_rng(1)
    for key in ("nmf", "snmf"):
        adata.obsm[f"X_{key}"] = rng.random((adata.n_obs, n_components), dtype=np.float32)
        adata.varm[f"{key}_loadings"] = rng.random((adata.n_vars, n_components), dtype=np.float32)
    return adata


def _digest(value: Any) -> Any:
    """Content, dtype and container of a value, comparable with ``==``."""
    if isinstance(value, dict) or (hasattr(value, "items") and not isinstance(value, (pd.DataFrame, pd.Series))):
        return {str(k): _digest(v) for k, v in value.items() if k is not None}  # anndata 0.13: layers[None] is X
    if isinstance(value, pd.DataFrame):
        columns = {str(c): _digest(value[c]) for c in value.columns}
        return {"index": _digest(value.index), "order": list(value.columns), "columns": columns}
    if isinstance(value, (pd.Series, pd.Index)):
        if isinstance(value.dtype, pd.CategoricalDtype):
            categories = list(value.array.categories)
            return (str(value.dtype), categories, value.array.ordered, value.array.codes.tolist())
        return (str(value.dtype), [repr(v) for v in value.tolist()])
    if sp.issparse(value):
        parts = (value.data, value.indices, value.indptr) if hasattr(value, "indptr") else (value.toarray(),)
        return (type(value).__name__, value.shape, [_digest(p) for p in parts])
    if isinstance(value, np.ndarray):
        content = repr(value.tolist()).encode() if value.dtype.kind in "OUSV" else np.ascontiguousarray(value).tobytes()
        return ("array", str(value.dtype), value.shape, hashlib.sha1(content).hexdigest())
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *[_digest(v) for v in value]]
    return repr(value)


def snapshot(adata: ad.AnnData) -> dict[str, Any]:
    """Everything a table holds, to the bit."""
    slots = ("X", "obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns")
    return {slot: _digest(getattr(adata, slot)) for slot in slots}


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Which slots differ between two snapshots, as "obsm/X_nmf"."""
    out = []
    for slot in before:
        if before[slot] == after[slot]:
            continue
        a, b = before[slot], after[slot]
        if slot in ("obs", "var") and a["index"] == b["index"]:
            a, b = a["columns"], b["columns"]
        if not (isinstance(a, dict) and isinstance(b, dict)):
            out.append(slot)
            continue
        out += [f"{slot}/{k}" for k in sorted({*a, *b}) if a.get(k) != b.get(k)]
    return out


def run_cli(*args: Any) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command."""
    from spanmf import cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([str(a) for a in args])
    return status, out.getvalue(), err.getvalue()
