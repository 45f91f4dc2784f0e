"""The engine on a GPU: a pass against the floor of the memory, and whole factorisations against scikit-learn and nmf-torch.

    python benchmarks/run.py --only 'gpu_*' --threads 16            # on torch's CPU device where there is no GPU

Only ``spanmf.core`` is used, so a machine with a GPU needs no more than torch, scipy, scikit-learn, threadpoolctl, numba and llvmlite. Matrices are
generated in blocks on the device and kept in ``benchmarks/results/data``. Where the network does not reach (a lent machine with Python 3.12,
the working tree of at most 64 MiB), take along what it lacks, once, in the folder ``.whl`` of the checkout:

    pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \\
        --platform manylinux_2_27_x86_64 -d .whl numba llvmlite
    mkdir .whl/site && unzip -q .whl/llvmlite*.whl -d .whl/site && unzip -q .whl/numba*.whl -d .whl/site && rm .whl/*.whl
    python3.12 -m pip install --no-deps --target .whl/site nmf-torch        # the peer; it has a compiled part
    tar cJf .whl/site.tar.xz -C .whl/site . && rm -r .whl/site              # 50 MB; the wheels alone would be too large

and there (with ``.whl`` carried; files come back as one archive, in the folder OUT; where a command may take ten minutes only, ``gpu_pass``,
``gpu_nmf --max-n 100000`` and ``gpu_nmf --min-n 1000000`` one by one):

    S=$(mktemp -d) && tar xJf .whl/site.tar.xz -C $S && export PYTHONPATH=$S:src OMP_WAIT_POLICY=passive
    python3 benchmarks/run.py --only 'gpu_*' --threads 16 --max-gib 1000 --out $S/results; tar czf $OUT/gpu.tar.gz -C $S/results .

Before a pass is timed, fits, smoothing and EM on the device are held against the CPU: beyond 1e-4 the measurement fails. ``tests/test_torch.py`` does
more, where anndata and scanpy are there, too.

The floor of a pass is the time in which the values and indices of X (8 bytes a value) are read once, at the bandwidth with which the device
copies a large vector. The pass reads them twice (rows, then columns) and gathers rows of W and H from the cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from common import HERE, Measurements, left_out, main, timed
from foundation import objective

CACHE = HERE / "results" / "data"
RANK = 10
PROGRAMMES = 20  # more than the rank: several minima, and many passes
COUNTS = {300: 150, 5000: 600}  # of a cell; else one in two genes
BLOCK = 1 << 16
SAME = 1e-4  # relative difference to the CPU beyond which nothing is timed
SKLEARN_VALUES = 150_000_000  # scikit-learn takes over ten minutes for more


def torch_device() -> tuple[Any, str]:
    """Torch, and the GPU or else the CPU."""
    try:
        import torch
    except ImportError:
        left_out("torch is not installed")
    return torch, "cuda" if torch.cuda.is_available() else "cpu"


# --- data -------------------------------------------------------------------------------------------------------------


def matrix(n: int, p: int) -> sp.csr_matrix:
    """Log-normalised counts of cells that mix more programmes than RANK; made by a process of its own when they are not there yet."""
    folder = CACHE / f"gpu-{n}-{p}"
    if not folder.exists():
        subprocess.run([sys.executable, __file__, "--make", str(n), str(p)], check=True)
    data, indices, indptr = (np.load(folder / f"{name}.npy") for name in ("data", "indices", "indptr"))
    return sp.csr_matrix((data, indices, indptr), shape=(n, p), copy=False)


def make(n: int, p: int) -> None:
    """Write the matrix; the folder appears when it is whole."""
    torch, device = torch_device()
    final, folder = CACHE / f"gpu-{n}-{p}", CACHE / f"gpu-{n}-{p}.{os.getpid()}"
    folder.mkdir(parents=True)
    H = np.random.default_rng(0).gamma(0.3, 1.0, (PROGRAMMES, p))
    H = torch.tensor(H / H.sum(1, keepdims=True), dtype=torch.float32, device=device)
    depth = float(COUNTS.get(p, p // 2))
    data, indices, sizes = [], [], []
    for start in range(0, n, BLOCK):
        stream = torch.Generator(device).manual_seed(start)
        m = min(BLOCK, n - start)
        W = -torch.rand((m, PROGRAMMES), generator=stream, device=device).log()
        W *= torch.rand((m, PROGRAMMES), generator=stream, device=device) < 0.3
        W[torch.arange(m), torch.randint(PROGRAMMES, (m,), generator=stream, device=device)] += 1
        X = torch.poisson(depth * (W / W.sum(1, keepdim=True)) @ H, generator=stream)
        row, column = X.nonzero(as_tuple=True)
        values = (X[row, column] * (depth / X.sum(1).clamp(min=1))[row]).log1p()
        data.append(values.cpu().numpy())
        indices.append(column.int().cpu().numpy())
        sizes.append(torch.bincount(row, minlength=m).cpu().numpy())
    np.save(folder / "data.npy", np.concatenate(data))
    np.save(folder / "indices.npy", np.concatenate(indices))
    np.save(folder / "indptr.npy", np.r_[0, np.cumsum(np.concatenate(sizes), dtype=np.int64)])
    folder.rename(final)


# --- a pass -----------------------------------------------------------------------------------------------------------


def seconds(function: Callable[[], Any], repeats: int = 10) -> float:
    """Mean of some runs in a row after two that warm up; what runs on the device is waited for at the end."""
    torch, device = torch_device()
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(2):
        function()
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    wait()
    return (time.perf_counter() - start) / repeats


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy of a large vector on the device."""
    torch, device = torch_device()
    source = torch.rand(1 << (28 if device == "cuda" else 24), device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / seconds(lambda: target.copy_(source))


def pass_here(before: list, n: int, p: int) -> dict:
    """The numba engine on the cores of this machine."""
    from spanmf.core import _ops

    X = _ops.as_rows(matrix(n, p))
    _, spent = timed(_one_pass(X, "frobenius"), 3)
    return spent | {"notes": f"{os.environ.get('NUMBA_NUM_THREADS', '?')} threads"}


def differences(device: str) -> dict[str, float]:
    """How far the device is off the CPU (relative): ends of fits from one start, smoothing, a pass of EM."""
    from spanmf.core import _ops, _smooth, _solver, _stl_device, _stl_em, _torch

    n, p, rng = 5_000, 100, np.random.default_rng(0)
    X = _ops.as_rows(matrix(n, p))
    A = sp.random(n, n, 5 / n, format="csr", dtype=np.float32, random_state=0)
    H, W = rng.random((RANK, p)), rng.random((n, RANK), dtype=np.float32)
    Q, V = H / H.sum(1, keepdims=True), _ops.pad(W / W.sum(1, keepdims=True))
    found: dict[str, list[float]] = {"frobenius": [], "kl": [], "laplacian": [], "smoothing": [], "EM": []}
    for there in (X, _torch.on_device(X, device)):
        graph = _smooth.beside(there, (A + A.T).tocsr())
        found["frobenius"].append(_solver.fit(there, H, max_iter=20, tol=0).trace[-1])
        found["kl"].append(_solver.fit(there, H, loss="kl", max_iter=20, tol=0).trace[-1])
        found["laplacian"].append(_solver.fit(there, H, graph=graph, graph_weight=0.1, max_iter=20, tol=0).trace[-1])
        found["smoothing"].append(float(np.square(_smooth.diffuse(graph, W), dtype=np.float64).sum()))
        counts = there if there is X else _stl_device.counts_on(X, device)
        found["EM"].append(_stl_em.em_pass(counts, Q, V, statistics=False).log_likelihood)
    return {name: abs(b / a - 1) for name, (a, b) in found.items()}


def pass_there(before: list, n: int, p: int) -> dict:
    """The engine on the device: a pass, its parts, and the floor."""
    from spanmf.core import _ops, _torch

    torch, device = torch_device()
    off = differences(device)
    if max(off.values()) > SAME:
        msg = f"{_name()} is off the CPU: {off}"
        raise AssertionError(msg)
    host = _ops.as_rows(matrix(n, p))
    start = time.perf_counter()
    X = _torch.on_device(host, device)
    if device == "cuda":
        torch.cuda.synchronize()
    moved = time.perf_counter() - start
    H, W = torch.rand((p, 16), device=device), torch.rand((n, 16), device=device)
    hals = _torch._Hals(np.eye(RANK) + 1, device, 4, divided=True)
    columns = [W[b.rows, :RANK].T.contiguous() for b in X.blocks]
    parts = {
        "pass": _one_pass(X, "frobenius"),
        "X H": lambda: [b.by_row @ H for b in X.blocks],
        "XᵀW": lambda: [b.by_column @ W[b.rows] for b in X.blocks],
        "HALS": lambda: [hals.improve(V.clone(), V.clone(), None) for V in columns],
        "KL pass": _one_pass(X, "kl"),
    }
    _, spent = timed(parts["pass"])
    took = {name: seconds(f) for name, f in parts.items()}
    bandwidth = copy_bandwidth()
    floor = 8 * len(host.data) / bandwidth
    words = ", ".join(f"{name} {1e3 * s:.3g} ms" for name, s in took.items())
    return spent | {
        "wall_s": took["pass"],
        "parts_s": took,
        "moved_s": moved,
        "bandwidth": bandwidth,
        "floor_s": floor,
        "device": _name(),
        "off_cpu": off,
        "notes": f"{_name()}: {words}; floor {1e3 * floor:.3g} ms at {bandwidth / 1e9:.0f} GB/s, "
        f"{floor / took['pass']:.0%} of it reached, each product {floor / took['X H']:.0%} and {floor / took['XᵀW']:.0%}; "
        f"off the CPU by {max(off.values()):.0e} at most",
    }


def _one_pass(X: Any, loss: str) -> Callable[[], Any]:
    from spanmf.core import _ops

    H = np.random.default_rng(0).random((X.shape[1], RANK))
    W = _ops.start(X, RANK, None, 1 / H.sum())
    out, padded, gram = _ops.spare(W), _ops.pad(H), H.T @ H
    if loss == "kl":
        return lambda: _ops.kl_pass(X, padded, W, out, RANK, h_sum=H.sum(0))
    return lambda: _ops.hals_pass(X, padded, W, out, RANK, gram=gram)


def _name() -> str:
    torch, device = torch_device()
    return torch.cuda.get_device_name() if device == "cuda" else "torch on the CPU"


# --- a whole factorisation --------------------------------------------------------------------------------------------


def nmf_sklearn(before: list, n: int, p: int) -> dict:
    """Coordinate descent on the cores of this machine."""
    from sklearn.decomposition import NMF

    X = matrix(n, p)
    if X.nnz > SKLEARN_VALUES:
        left_out(f"scikit-learn would take over ten minutes for {X.nnz:,} values")
    model = NMF(RANK, init="nndsvda", max_iter=1000, random_state=0)
    W, spent = timed(lambda: model.fit_transform(X))
    return spent | _reached(X, W, model.components_, f"{model.n_iter_} iterations")


def nmf_torch(before: list, n: int, p: int) -> dict:
    """nmf-torch on the same device; it takes dense matrices only."""
    torch, device = torch_device()
    try:
        from nmf import run_nmf
    except ImportError:
        left_out("nmf-torch is not installed")
    X = matrix(n, p)
    dense = torch.from_numpy(X.toarray())
    options = {"n_components": RANK, "use_gpu": device == "cuda", "tol": 1e-5, "batch_max_iter": 1000}
    run_nmf(dense[:2000], **options)
    (W, H, _), spent = timed(lambda: run_nmf(dense, **options))
    return spent | _reached(X, np.asarray(W), np.asarray(H), f"{_name()}, dense")


def nmf_here(before: list, n: int, p: int) -> dict:
    """The numba engine on the cores of this machine."""
    return _factorised(n, p, None)


def nmf_there(before: list, n: int, p: int) -> dict:
    """The engine on the device, moving X there included."""
    return _factorised(n, p, torch_device()[1])


def _factorised(n: int, p: int, device: str | None) -> dict:
    from spanmf.core import _init, _ops, _solver, _torch

    X = matrix(n, p)
    took: dict[str, float] = {}

    def stage(name: str, function: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = function()
        took[name] = time.perf_counter() - start
        return result

    def run(X: sp.csr_matrix) -> _solver.Result:
        rows = _ops.as_rows(X)
        there = rows if device is None else stage("moved", lambda: _torch.on_device(rows, device))
        W, H = stage("start", lambda: _init.initialise(there, RANK, "auto", np.random.default_rng(0)))
        return stage("fit", lambda: _solver.fit(there, H, W))

    run(X[:2000])  # compiles, and starts the device
    need = _torch.bytes_needed(X.shape[0], X.nnz, RANK) if device == "cuda" else 0
    result, spent = timed(lambda: run(X))
    words = ", ".join(f"{name} {s:.3g} s" for name, s in took.items())
    notes = f"{'numba' if device is None else _name()}: {words}, {result.n_iter} passes"
    if need:
        import torch

        notes += f", {torch.cuda.max_memory_allocated() / 2**30:.3g} GiB there ({need / 2**30:.3g} foreseen)"
    return spent | {"parts_s": took, "trace": result.trace.tolist()} | _reached(X, result.W, result.H, notes)


def _reached(X: sp.csr_matrix, W: np.ndarray, H: np.ndarray, notes: str) -> dict:
    value = objective(X, W, H)
    return {
        "objective": value,
        "nnz": int(X.nnz),
        "notes": f"{notes}; objective {value:.6g}, {X.nnz / X.shape[0]:.0f} values a cell",
    }


MEASUREMENTS: Measurements = {
    "gpu_pass": {"spanmf, CPU": pass_here, "spanmf": pass_there},
    "gpu_nmf": {"scikit-learn": nmf_sklearn, "nmf-torch": nmf_torch, "spanmf, CPU": nmf_here, "spanmf": nmf_there},
}

if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(MEASUREMENTS)
