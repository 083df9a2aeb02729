"""How far a device's model can drift from centralised Adam: Theorems 1 and 2 of `docs/theory.md`.

Distances are Euclidean and come in threes: of the weights, of the first moment, of the second moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError
from comask.theory.constants import (
    AdamSetting,
    ProblemConstants,
    require_count,
    require_density,
    require_non_negative,
    step_bound,
    step_sensitivity,
)


@dataclass(frozen=True, slots=True, eq=False)
class DivergenceBound:
    """Bounds on the distance to centralised Adam after the same number of steps.

    Attributes:
        server: Shape `(rounds + 1, 3)`: the state broadcast after each round, from round 0.
        device: Shape `(rounds, local_steps + 1, 3)`: a device's state after each local step of each round.
    """

    server: NDArray[np.float64]
    device: NDArray[np.float64]


def transition(
    problem: ProblemConstants, adam: AdamSetting
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `T` of shape `(3, 3)` and `tau` of shape `(3,)`: one local step maps distances x to at most `T x + tau * delta`.

    Theorem 1, equations (11) and (12).
    """
    in_m, in_v = step_sensitivity(problem, adam)
    fresh = np.array([1 - adam.beta1, 2 * problem.grad_bound * (1 - adam.beta2)])
    kept = np.diag([adam.beta1, adam.beta2])
    step = adam.lr * np.array([in_m, in_v])
    matrix = np.empty((3, 3))
    matrix[1:, 0], matrix[1:, 1:] = problem.smoothness * fresh, kept
    matrix[0, 0], matrix[0, 1:] = 1 + step @ matrix[1:, 0], step @ kept
    return matrix, np.concatenate([[step @ fresh], fresh])


def sparsification_bound(problem: ProblemConstants, adam: AdamSetting, density: float) -> NDArray[np.float64]:
    """Return what any mask of the given density can drop from dW, dM and dV in one round, shape `(3,)`: Lemma 3, (16).

    Args:
        problem: The constants.
        adam: The optimiser's settings.
        density: Kept fraction `k / d`, in (0, 1].
    """
    require_density("density", density)
    grad, steps = problem.grad_bound, adam.local_steps
    change = [
        adam.lr * steps * step_bound(problem, adam),
        2 * grad * (1 - adam.beta1**steps),
        grad**2 * (1 - adam.beta2**steps),
    ]
    return math.sqrt((1 - density) * problem.dim) * np.array(change)


def divergence_bound(
    problem: ProblemConstants,
    adam: AdamSetting,
    *,
    rounds: int,
    sparsification: NDArray[np.float64],
    device_heterogeneity: float | None = None,
    residual: float | None = None,
) -> DivergenceBound:
    """Bound the distance between FedAdam-SSM and centralised Adam that starts from the same state.

    Theorem 2, equations (13) to (15), with error feedback (14'). The linear recursion is cut at what the bounded steps
    allow (equation (17)), so the bound never grows faster than linearly in the number of steps.

    Args:
        problem: The constants; they must hold for both runs.
        adam: The optimiser's settings.
        rounds: Rounds, `R`.
        sparsification: Shape `(3,)` or `(rounds, 3)`: bounds on the norms of `sum_n p_n (1 - S_n) dX_n` for W, M and
            V, a priori from `sparsification_bound` or measured.
        device_heterogeneity: `delta_n` of the device followed in `device`; None means the problem's.
        residual: With error feedback on the weights, a bound on the norm of the devices' mean residual after every
            round, a priori from `residual_bound` or measured. It counts once, and what the masks drop from W no longer
            counts: `sparsification[..., 0]` is not used. None means that there is no error feedback.

    Raises:
        ConfigError: If `sparsification` has another shape or a negative entry, or a number is out of range.
    """
    require_count("rounds", rounds)
    own = problem.heterogeneity if device_heterogeneity is None else device_heterogeneity
    require_non_negative("device_heterogeneity", own)
    errors = np.asarray(sparsification, np.float64)
    if errors.shape not in {(3,), (rounds, 3)} or not (errors >= 0).all():
        raise ConfigError(
            f"sparsification must hold non-negative numbers in shape (3,) or ({rounds}, 3), got shape {errors.shape} "
            f"with minimum {errors.min(initial=np.inf)}."
        )
    errors = np.array(np.broadcast_to(errors, (rounds, 3)))
    start = 0.0 if residual is None else residual
    require_non_negative("residual", start)
    if residual is not None:
        errors[:, 0] = 0.0
    matrix, source = transition(problem, adam)
    pace = 2 * adam.lr * step_bound(problem, adam) * math.sqrt(problem.dim)
    limit = np.array([0.0, 2 * problem.grad_bound, problem.grad_bound**2]) * math.sqrt(problem.dim)

    steps = adam.local_steps
    server, device = np.zeros((rounds + 1, 3)), np.empty((rounds, steps + 1, 3))
    server[0, 0] = start
    for r in range(rounds):
        mean = device[r, 0] = server[r]
        for step in range(steps):
            limit[0] = pace * (r * steps + step + 1) + start
            mean = np.minimum(matrix @ mean + source * problem.heterogeneity, limit)
            device[r, step + 1] = np.minimum(matrix @ device[r, step] + source * own, limit)
        server[r + 1] = np.minimum(mean + errors[r], limit)
    return DivergenceBound(server, device)
