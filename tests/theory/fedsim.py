"""Sparse FedAdam on many small problems at once, in float64 numpy: what the bounds are measured against.

Arrays are `(batch, devices, dim)`: every batch entry is an instance of its own with its own data.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from comask.theory import (
    AdamSetting,
    PathConstants,
    ProblemConstants,
    RoundMeasures,
    measure_round,
    measure_step,
    moment_ratio,
)


class Problem(Protocol):
    shares: np.ndarray  # (batch, devices), sums to 1 over devices

    def device_grad(
        self, w
    ): ...  # (batch, devices, dim) -> gradient of each device's own function at its own weights

    def grad(self, w): ...  # (batch, points, dim) -> gradient of the mean function

    def value(self, w): ...  # (batch, points, dim) -> (batch, points), the mean function


@dataclass
class Quadratics:
    """`F_n(w) = (w - b_n)' A_n (w - b_n) / 2`."""

    hessians: np.ndarray  # (batch, devices, dim, dim), symmetric
    centres: np.ndarray  # (batch, devices, dim)
    shares: np.ndarray

    def __post_init__(self):
        self.mean_hessian = np.einsum("bn,bnij->bij", self.shares, self.hessians)
        linear = np.einsum("bn,bnij,bnj->bi", self.shares, self.hessians, self.centres)
        self.minimiser = np.linalg.solve(self.mean_hessian, linear[..., None])[..., 0]
        self.minimum = self.value(self.minimiser[:, None])[:, 0]
        eigenvalues = np.linalg.eigvalsh(self.mean_hessian)
        self.strong_convexity, self.smoothness = eigenvalues[:, 0], eigenvalues[:, -1]

    def device_smoothness(self):
        """Return a Lipschitz constant for the gradient of every device, `(batch,)`."""
        return np.linalg.norm(self.hessians, ord=2, axis=(2, 3)).max(axis=1)

    def largest_grad(self, w, half):
        """Bound every coordinate of every gradient in the box of half-width `half` around w, `(batch,)`."""
        middle = self.device_grad(np.repeat(w[:, None], self.shares.shape[1], axis=1))
        return (np.abs(middle) + half * np.abs(self.hessians).sum(axis=3)).max(axis=(1, 2))

    def device_grad(self, w):
        return np.einsum("bnij,bnj->bni", self.hessians, w - self.centres)

    def grad(self, w):
        return np.einsum("bij,bpj->bpi", self.mean_hessian, w - self.minimiser[:, None])

    def value(self, w):
        away = w[:, :, None] - self.centres[:, None]
        return 0.5 * np.einsum("bn,bpni,bnij,bpnj->bp", self.shares, away, self.hessians, away)


@dataclass
class Logistic:
    """Binary logistic regression with a ridge term: convex, gradients bounded, constants known."""

    inputs: np.ndarray  # (batch, devices, samples, dim)
    signs: np.ndarray  # (batch, devices, samples), -1 or 1
    ridge: float
    shares: np.ndarray

    def __post_init__(self):
        samples = self.inputs.shape[2]
        curvature = np.einsum("bn,bnsi,bnsj->bij", self.shares, self.inputs, self.inputs) / (4 * samples)
        self.smoothness = np.linalg.eigvalsh(curvature)[:, -1] + self.ridge
        self.strong_convexity = np.full(len(self.inputs), self.ridge)
        self.minimiser = self._minimise()
        self.minimum = self.value(self.minimiser[:, None])[:, 0]

    def _minimise(self):
        """Newton's method, each step the best of its halves."""
        w = np.zeros((len(self.inputs), 1, self.inputs.shape[3]))
        for _ in range(60):
            margin = np.einsum("bnsi,bi->bns", self.inputs, w[:, 0]) * self.signs
            curve = _sigmoid(margin) * _sigmoid(-margin) * self.shares[:, :, None] / self.inputs.shape[2]
            hessian = np.einsum("bns,bnsi,bnsj->bij", curve, self.inputs, self.inputs)
            hessian += self.ridge * np.eye(w.shape[2])
            step = np.linalg.solve(hessian, self.grad(w)[:, 0, :, None])[:, None, :, 0]
            tried = w - step * 0.5 ** np.arange(12)[:, None]
            best = self.value(tried).argmin(axis=1)
            w = tried[np.arange(len(w)), best][:, None]
        assert np.abs(self.grad(w)).max() < 1e-9
        return w[:, 0]

    def device_smoothness(self):
        """Return a Lipschitz constant for the gradient of every device, `(batch,)`."""
        curvature = np.einsum("bnsi,bnsj->bnij", self.inputs, self.inputs) / (4 * self.inputs.shape[2])
        return np.linalg.eigvalsh(curvature)[..., -1].max(axis=1) + self.ridge

    def largest_grad(self, w, half):
        """Bound every coordinate of every gradient in the box of half-width `half` around w, `(batch,)`."""
        return np.abs(self.inputs).mean(axis=2).max(axis=(1, 2)) + self.ridge * (np.abs(w).max(axis=1) + half)

    def device_grad(self, w):
        margin = np.einsum("bnsi,bni->bns", self.inputs, w) * self.signs
        return (
            np.einsum("bns,bnsi->bni", -self.signs * _sigmoid(-margin), self.inputs) / self.inputs.shape[2]
            + self.ridge * w
        )

    def grad(self, w):
        margin = np.einsum("bnsi,bpi->bpns", self.inputs, w) * self.signs[:, None]
        slope = (
            -self.signs[:, None] * _sigmoid(-margin) * (self.shares[:, None, :, None] / self.inputs.shape[2])
        )
        return np.einsum("bpns,bnsi->bpi", slope, self.inputs) + self.ridge * w

    def value(self, w):
        margin = np.einsum("bnsi,bpi->bpns", self.inputs, w) * self.signs[:, None]
        loss = np.einsum("bn,bpns->bp", self.shares, np.logaddexp(0, -margin)) / self.inputs.shape[2]
        return loss + 0.5 * self.ridge * np.square(w).sum(axis=2)


@dataclass
class Linear:
    """`F_n(w) = slopes_n . w`: no curvature at all, for instances that come close to a bound."""

    slopes: np.ndarray  # (batch, devices, dim)
    shares: np.ndarray

    def __post_init__(self):
        self.mean = np.einsum("bn,bni->bi", self.shares, self.slopes)
        self.smoothness = np.zeros(len(self.slopes))

    def device_grad(self, w):
        return np.broadcast_to(self.slopes, w.shape)

    def grad(self, w):
        return np.broadcast_to(self.mean[:, None], w.shape)

    def value(self, w):
        return np.einsum("bi,bpi->bp", self.mean, w)


@dataclass
class Run:
    """What a run went through; `r` counts rounds from 0 at the start."""

    weights: np.ndarray  # (rounds + 1, batch, dim), broadcast
    virtual: np.ndarray  # the same plus the mean residual
    server_distance: np.ndarray  # (rounds + 1, batch, 3), to centralised Adam
    device_distance: np.ndarray  # (rounds, local_steps + 1, batch, devices, 3)
    dropped: np.ndarray  # (rounds, batch, 3): norms of sum_n p_n (1 - S_n) dX_n
    stale: np.ndarray  # (rounds, batch): || M - grad F || at the virtual model, before each round
    momentum_error: np.ndarray  # (rounds, batch, 2): the left side of (30), on all and on kept positions
    residual: np.ndarray  # (batch,): largest norm of any device's residual
    grad_bound: np.ndarray  # (batch,)
    heterogeneity: np.ndarray  # (batch, devices)
    second_moment_floor: np.ndarray  # (batch,)
    captured: np.ndarray  # (batch,): least share of the energy any mask kept
    largest_step: np.ndarray  # (batch,): of |m| / sqrt(v + eps)
    largest_ratio: np.ndarray  # (batch,): of m^2 / v where v > 0
    path: list[list[PathConstants]]  # by round and step, each (batch, devices)
    rounds: list[
        tuple
    ]  # by round: changes of W, mean preconditioners, what moves, gradient: for `measures_of`

    def path_of(self, instance: int) -> PathConstants:
        """Return the constants of every step of one instance, shape `(rounds, local_steps, devices)`."""
        return PathConstants(
            **{
                field.name: np.array(
                    [[getattr(step, field.name)[instance] for step in row] for row in self.path]
                )
                for field in fields(PathConstants)
            }
        )

    def measures_of(self, instance: int, adam: AdamSetting) -> list[RoundMeasures]:
        """Return what Theorem 9 needs of every round of one instance."""
        measured = []
        for parts in self.rounds:
            *arrays, gradient, shares = (part[instance] for part in parts)
            measured.append(measure_round(*arrays, gradient=gradient, shares=shares, adam=adam))
        return measured

    def constants(self, problem: Problem, instance: int, *, floor: bool = True) -> ProblemConstants:
        """Return the constants measured on one instance, with `rms` heterogeneity."""
        grad_bound = float(self.grad_bound[instance])
        return ProblemConstants(
            dim=self.weights.shape[2],
            smoothness=float(problem.smoothness[instance]),
            grad_bound=grad_bound,
            heterogeneity=float(np.sqrt(problem.shares[instance] @ self.heterogeneity[instance] ** 2)),
            second_moment_floor=min(float(self.second_moment_floor[instance]), grad_bound**2)
            if floor
            else 0.0,
        )


def simulate(
    problem: Problem,
    adam: AdamSetting,
    start,
    *,
    rounds,
    num_kept,
    error_feedback=False,
    rule="w",
    moments=None,
    masks=None,
):
    """Run FedAdam-SSM on every instance, beside centralised Adam from the same state.

    `rule` is `w` (top-k of |dW|), `random`, or `separate` (each stream its own top-k: not a shared mask).
    `moments` gives the initial (M, V); `masks(round)` overrides the rule with `(batch, devices, dim)` booleans.
    """
    batch, dim = start.shape
    devices = problem.shares.shape[1]
    share = problem.shares[:, :, None]
    state = (
        [start.copy(), *(np.zeros_like(start) for _ in range(2))] if moments is None else [start, *moments]
    )
    reference = [x[:, None] for x in state]
    residual = np.zeros((batch, devices, dim))
    rng = np.random.default_rng(rounds * 1000 + num_kept)
    empty = np.zeros(batch)
    run = Run(
        weights=np.empty((rounds + 1, batch, dim)), virtual=np.empty((rounds + 1, batch, dim)),
        server_distance=np.zeros((rounds + 1, batch, 3)),
        device_distance=np.zeros((rounds, adam.local_steps + 1, batch, devices, 3)),
        dropped=np.empty((rounds, batch, 3)), stale=np.empty((rounds, batch)),
        momentum_error=np.empty((rounds, batch, 2)), residual=empty.copy(),
        grad_bound=empty.copy(), heterogeneity=np.zeros((batch, devices)), second_moment_floor=np.full(batch, np.inf),
        captured=np.ones(batch), largest_step=empty.copy(), largest_ratio=empty.copy(),
        path=[[None] * adam.local_steps for _ in range(rounds)], rounds=[],
    )  # fmt: skip
    run.weights[0] = run.virtual[0] = start
    for r in range(rounds):
        at_virtual = problem.grad(run.virtual[r][:, None])[:, 0]
        _raise_to(run.grad_bound, at_virtual)
        run.stale[r] = np.linalg.norm(state[1] - at_virtual, axis=1)
        local = [np.repeat(x[:, None], devices, axis=1) for x in state]
        run.device_distance[r, 0] = _distance(local, reference)
        wrong, scale = np.zeros((batch, devices, dim)), np.zeros((batch, devices, dim))
        for step in range(adam.local_steps):
            gradient = problem.device_grad(local[0])
            central = problem.grad(local[0])
            run.heterogeneity = np.maximum(run.heterogeneity, np.linalg.norm(gradient - central, axis=2))
            before = local[0], reference[0]
            local = adam_step(local, gradient, adam)
            wrong += np.square(local[1] - at_virtual[:, None]) / adam.local_steps
            scale += 1 / np.sqrt(local[2] + adam.eps) / adam.local_steps
            ahead = problem.grad(reference[0])
            reference = adam_step(reference, ahead, adam)
            run.path[r][step] = measure_step(local, reference, (gradient, central, ahead), before, adam.eps)
            for seen in (gradient, central, ahead):
                _raise_to(run.grad_bound, seen)
            for _, m, v in (local, reference):
                run.second_moment_floor = np.minimum(run.second_moment_floor, v.min(axis=(1, 2)))
                _raise_to(run.largest_step, m / np.sqrt(v + adam.eps))
                _raise_to(run.largest_ratio, np.divide(m**2, v, out=np.zeros_like(v), where=v > 0))
            run.device_distance[r, step + 1] = _distance(local, reference)
        changes = [x - old[:, None] for x, old in zip(local, state, strict=True)]
        sent = changes[0] + residual
        kept = masks(r) if masks else choose(rule, [sent, *changes[1:]], num_kept, rng)
        moving = np.ones_like(kept[0]) if error_feedback else kept[0]
        run.rounds.append((changes[0], scale, moving, at_virtual, problem.shares))
        energy, total = ((np.square(x)).sum(axis=2) for x in (sent * kept[0], sent))
        run.captured = np.minimum(
            run.captured, np.divide(energy, total, out=np.ones_like(total), where=total > 0).min(axis=1)
        )
        for part, positions in enumerate((np.ones_like(kept[0]), kept[0])):
            run.momentum_error[r, :, part] = np.sqrt((share * wrong * positions).sum(axis=(1, 2)))
        if error_feedback:
            residual = sent * ~kept[0]
            changes[0] = sent
            run.residual = np.maximum(run.residual, np.linalg.norm(residual, axis=2).max(axis=1))
        state = [old + (share * x * s).sum(axis=1) for old, x, s in zip(state, changes, kept, strict=True)]
        for stream, (x, s) in enumerate(zip(changes, kept, strict=True)):
            run.dropped[r, :, stream] = np.linalg.norm((share * x * ~s).sum(axis=1), axis=1)
        run.weights[r + 1] = state[0]
        run.virtual[r + 1] = state[0] + (share * residual).sum(axis=1)
        run.server_distance[r + 1] = _distance([x[:, None] for x in state], reference)[:, 0]
    return run


def crude_constants(problem, start, adam, *, rounds, residual_factor=0.0):
    """Return every instance's constants from the problem alone: no number is taken from a run.

    Weights stay in a box around the start: a step is at most `lr sqrt(C)`, and error feedback holds back at most
    `residual_factor` rounds' worth of steps.
    """
    batch, dim = start.shape
    step = adam.lr * np.sqrt(moment_ratio(adam.beta1, adam.beta2)) * adam.local_steps
    half = step * (rounds + residual_factor * np.sqrt(dim))
    grad_bound = problem.largest_grad(start, half)
    at_start = np.repeat(start[:, None], problem.shares.shape[1], axis=1)
    apart = np.linalg.norm(problem.device_grad(at_start) - problem.grad(start[:, None]), axis=2)
    apart += np.sqrt(dim) * half * (problem.device_smoothness() + problem.smoothness)[:, None]
    apart = np.minimum(apart, 2 * np.sqrt(dim) * grad_bound[:, None])
    delta = np.sqrt((problem.shares * apart**2).sum(axis=1))
    return [
        ProblemConstants(dim, float(problem.smoothness[i]), float(grad_bound[i]), float(delta[i]))
        for i in range(batch)
    ]


def report(title, value):
    """Show a measured looseness under `pytest -s`."""
    print(f"{title}: {value}")  # noqa: T201


def adam_step(state, gradient, adam):
    """Equation (1)."""
    w, m, v = state
    m = adam.beta1 * m + (1 - adam.beta1) * gradient
    v = adam.beta2 * v + (1 - adam.beta2) * gradient**2
    return [w - adam.lr * m / np.sqrt(v + adam.eps), m, v]


def choose(rule, streams, num_kept, rng):
    """Return one mask for each stream."""
    if rule == "separate":
        return [top_k(np.abs(x), num_kept) for x in streams]
    scores = rng.random(streams[0].shape) if rule == "random" else np.abs(streams[0])
    return [top_k(scores, num_kept)] * 3


def top_k(scores, num_kept):
    """Mark the largest entries along the last axis."""
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, np.argsort(-scores, axis=-1, kind="stable")[..., :num_kept], True, axis=-1)
    return kept


def random_quadratics(rng, *, batch, devices, dim, spread=1.0, tilt=0.3):
    """Draw instances; `spread` separates the devices' minimisers, `tilt` their curvatures."""
    root = rng.normal(size=(batch, devices, dim, dim)) * tilt + rng.normal(size=(batch, 1, dim, dim))
    hessians = root @ root.swapaxes(2, 3) / dim + 0.1 * np.eye(dim)
    centres = rng.normal(size=(batch, 1, dim)) + spread * rng.normal(size=(batch, devices, dim))
    return Quadratics(hessians, centres, random_shares(rng, batch, devices))


def random_logistic(rng, *, batch, devices, dim, samples=12, skew=1.0, ridge=0.05):
    """Draw instances; `skew` shifts each device's inputs and labels apart."""
    inputs = rng.normal(size=(batch, devices, samples, dim)) + skew * rng.normal(
        size=(batch, devices, 1, dim)
    )
    teacher = rng.normal(size=(batch, 1, 1, dim)) + skew * rng.normal(size=(batch, devices, 1, dim))
    signs = np.where(
        (inputs * teacher).sum(axis=3) + rng.logistic(size=(batch, devices, samples)) > 0, 1.0, -1.0
    )
    return Logistic(inputs, signs, ridge, random_shares(rng, batch, devices))


def random_shares(rng, batch, devices):
    return rng.dirichlet(np.full(devices, 3.0), size=batch)


def _sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def _distance(state, reference):
    return np.stack([np.linalg.norm(x - y, axis=2) for x, y in zip(state, reference, strict=True)], axis=-1)


def _raise_to(target, values):
    np.maximum(target, np.abs(values).reshape(len(values), -1).max(axis=1), out=target)
