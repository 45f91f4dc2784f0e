r"""Learning the numbers of STL-NMF by unrolling: layers of its update that share their weights, and gradient descent.

Two parameterisations. ``paper``: λ and σ as they are, the rows of ω divided by their sums, weight decay; from λ = 30, 50, 30 a rate of
0.01 hardly moves them. ``rescaled``: logarithms of λ in units of the data term, of σ, and of ω. So a step is a change by a
factor, whatever the depth of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from . import _stl_paper
from ._stl_paper import Weights

Array = np.ndarray
Progress = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Triplet:
    """What one section gives to learn from; ``coords`` in pitches, ``regions`` codes, V the true shares (n × k)."""

    X: Any
    B: Array
    V: Array
    coords: Array
    regions: Array


@dataclass(frozen=True)
class Schedule:
    """How the descent runs: ``rate`` is multiplied by ``drop`` every ``drop_every`` epochs."""

    n_epochs: int = 51
    rate: float = 0.01
    decay: float = 0.001
    drop_every: int = 25
    drop: float = 0.5
    patience: int = 51


@dataclass(frozen=True)
class Learned:
    """The best weights, and the mean relative error of training and held-out triplets before the first epoch and after each."""

    weights: Weights
    training: Array
    validation: Array
    best_epoch: int


def learn(
    training: Sequence[Triplet],
    validation: Sequence[Triplet],
    first: Weights,
    schedule: Schedule,
    rng: np.random.Generator,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Learned:
    """Descend from ``first`` (its ω must be given), one triplet a step, and keep what does best on the held-out ones."""
    import torch

    numbers = _Numbers(first, device)
    optimiser = torch.optim.Adam(numbers.tensors, lr=schedule.rate, weight_decay=schedule.decay)
    steps = torch.optim.lr_scheduler.StepLR(optimiser, schedule.drop_every, schedule.drop)
    problems = [_Problem(t, first, device) for t in training]
    held_out = [_Problem(t, first, device) for t in validation] or problems

    def error(some: Sequence[_Problem], seed: int) -> float:
        starts = np.random.default_rng(seed)
        with torch.no_grad():
            return float(np.mean([float(p.loss(numbers, starts) / p.V.norm()) for p in some]))

    seed = int(rng.integers(2**31))
    curves = [(error(problems, seed), error(held_out, seed))]
    best, best_epoch = numbers.weights(), 0
    for epoch in range(1, schedule.n_epochs + 1):
        seen = []
        for i in rng.permutation(len(problems)):
            optimiser.zero_grad()
            loss = problems[i].loss(numbers, rng)
            loss.backward()
            if all(torch.isfinite(t.grad).all() for t in numbers.tensors if t.grad is not None):
                optimiser.step()
            seen.append(float(loss.detach() / problems[i].V.norm()))
        steps.step()
        curves.append((float(np.mean(seen)), error(held_out, seed)))
        if progress is not None:
            progress(epoch, *curves[-1])
        lowest = min(value for _, value in curves[:-1])
        if curves[-1][1] < lowest:
            best, best_epoch = numbers.weights(), epoch
        elif epoch - best_epoch >= schedule.patience:
            break
    done = np.array(curves)
    return Learned(best, done[:, 0], done[:, 1], best_epoch)


class _Numbers:
    """The weights as tensors to descend on."""

    def __init__(self, first: Weights, device: str) -> None:
        import torch

        self.first = first
        values = [np.asarray(v, dtype=np.float64) for v in (first.lambdas, first.sigmas, first.omega)]
        if first.relative:
            values = [np.log(np.maximum(v, 1e-6)) for v in values]
        self.tensors = [torch.tensor(v, dtype=torch.float32, device=device, requires_grad=True) for v in values]

    def read(self) -> tuple[Any, Any, Any]:
        """λ, σ, ω."""
        import torch

        lambdas, sigmas, omega = self.tensors
        if self.first.relative:
            return lambdas.exp(), sigmas.exp(), torch.softmax(omega, 1)
        omega = omega.clamp(min=1e-6)
        return lambdas.clamp(min=0), sigmas, omega / omega.sum(1, keepdim=True)

    def weights(self) -> Weights:
        """As plain numbers."""
        lambdas, sigmas, omega = (v.detach().cpu().double().numpy() for v in self.read())
        return replace(self.first, lambdas=tuple(lambdas.tolist()), sigmas=tuple(np.abs(sigmas).tolist()), omega=omega)


class _Problem:
    """One triplet on the device, in units of the data term, and the unrolled layers on it."""

    def __init__(self, t: Triplet, form: Weights, device: str) -> None:
        import torch

        def tensor(a: Array) -> Any:
            return torch.tensor(np.asarray(a), dtype=torch.float32, device=device)

        gram = t.B @ t.B.T
        self.form, self.n, self.k = form, t.X.shape[0], len(t.B)
        self.scale = float(np.trace(gram)) / self.k
        self.cross, self.gram = tensor(np.asarray(t.X @ t.B.T) / self.scale), tensor(gram / self.scale)
        self.V = tensor(t.V)
        self.place = tensor(cdist(t.coords, t.coords, "sqeuclidean"))
        self.region = tensor(_stl_paper.region_distance(t.regions) ** 2)
        self.known = tensor((t.regions >= 0)[:, None])
        self.codes = torch.tensor(np.maximum(t.regions, 0), dtype=torch.long, device=device)

    def loss(self, numbers: _Numbers, rng: np.random.Generator) -> Any:
        """``‖V̂ − V‖_F``."""
        return (self.unroll(*numbers.read(), rng) - self.V).norm()

    def unroll(self, lambdas: Any, sigmas: Any, omega: Any, rng: np.random.Generator) -> Any:
        """The layers of :func:`spanmf.core._stl_paper.fit`."""
        import torch

        A = torch.exp(-self.place / sigmas[0] ** 2 - self.region / sigmas[1] ** 2)
        degree = A.sum(1, keepdim=True)
        if self.form.relative:
            graph, total, group = lambdas[0] / degree.mean(), lambdas[1], lambdas[2]
        else:
            graph, total, group = lambdas[0] / self.scale, lambdas[1] * self.n / self.scale, lambdas[2] / self.scale
        rows = omega[self.codes] * self.known
        target, gram, own, A = self.cross + total, self.gram + total, graph * degree, graph * A
        if self.form.group == "meant":
            target, own = target + group * rows, own + group * self.known
        else:
            gram = gram + group * rows.T @ rows
        first = _stl_paper.start(self.n, self.k, rng)
        V = torch.tensor(first, dtype=torch.float32, device=self.V.device)
        for _ in range(self.form.n_layers):
            V = V * ((target + A @ V) / (V @ gram + own * V).clamp(min=_stl_paper.TINY))
            if self.form.cutoff > 0:
                V = torch.where(self.form.cutoff > V, torch.zeros_like(V), V)
            if self.form.normalise:
                V = V / V.sum(1, keepdim=True).clamp(min=_stl_paper.TINY)
        return V / V.sum(1, keepdim=True).clamp(min=_stl_paper.TINY)
