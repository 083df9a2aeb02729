"""Which density to choose when the upload is what is scarce: section 8 of `docs/theory.md`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from comask.errors import ConfigError
from comask.theory.constants import AdamSetting, ProblemConstants, require_non_negative, require_positive
from comask.theory.convergence import convergence_bound_nonconvex
from comask.theory.entropy import payload_floor_bits
from comask.theory.momentum import Sparsity


@dataclass(frozen=True, slots=True)
class DensityChoice:
    """One density, and what a budget buys with it.

    Attributes:
        num_kept: Positions kept, `k`.
        density: `k / d`.
        rounds: Whole rounds that the budget pays for.
        bound: `convergence_bound_nonconvex` after these rounds; smaller is better.
    """

    num_kept: int
    density: float
    rounds: int
    bound: float


def optimal_density(
    problem: ProblemConstants,
    adam: AdamSetting,
    sparsity: Sparsity,
    *,
    budget_bits: float,
    gap: float,
    bits_per_round: Callable[[int], float] | None = None,
    captured: Callable[[int], float] | None = None,
    candidates: int = 200,
) -> DensityChoice:
    """Choose the density whose convergence bound, (33) or (35), is least once one device has uploaded `budget_bits`.

    The trade: fewer positions buy more rounds, but without error feedback each round then gains less (Theorem 5), and with
    it the residual grows (Theorem 6). In the worst case the first trade never pays; it pays when the largest entries
    hold more than their share of the energy, which `captured` says. Equation (41') is the leading order with feedback. Ties
    go to the smaller density.

    Args:
        problem: The constants.
        adam: The optimiser's settings.
        sparsity: Its `density` is replaced; `captured` and `stale` belong to one density and must be None.
        budget_bits: Bits that one device may upload in all rounds together, positive.
        gap: `F(W_0) - inf F`.
        bits_per_round: Bits of one upload that keeps k positions; None means `payload_floor_bits(dim, k)`.
        captured: Share of the energy that the k largest entries hold, such as a fit of `captured_energy`; None means k / d.
        candidates: How many values of k are tried, spaced evenly in log k from 1 to d.

    Raises:
        ConfigError: If the budget does not pay for one round at any candidate, or an argument is out of range.
    """
    require_positive("budget_bits", budget_bits)
    require_non_negative("gap", gap)
    if sparsity.captured is not None or sparsity.stale is not None:
        raise ConfigError(
            "sparsity.captured and sparsity.stale must be None: they were measured at one density only."
        )
    cost = bits_per_round or (lambda num_kept: payload_floor_bits(problem.dim, num_kept))
    choices = []
    for num_kept in np.unique(np.geomspace(1, problem.dim, candidates).round().astype(int)).tolist():
        rounds = int(budget_bits / cost(num_kept))
        if rounds < 1:
            continue
        density = num_kept / problem.dim
        kept = replace(sparsity, density=density, captured=captured(num_kept) if captured else None)
        bound = convergence_bound_nonconvex(problem, adam, kept, rounds=rounds, gap=gap)
        choices.append(DensityChoice(num_kept, density, rounds, bound))
    if not choices:
        raise ConfigError(
            f"budget_bits={budget_bits} pays for no round: one upload of 1 position takes {cost(1)} bits."
        )
    return min(choices, key=lambda choice: choice.bound)
