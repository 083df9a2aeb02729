"""What a choice of density, local steps and learning rate costs in bytes and is worth by the bounds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from comask.errors import UnknownNameError
from comask.theory.constants import AdamSetting, ProblemConstants, require_count, require_positive
from comask.theory.convergence import convergence_bound_nonconvex
from comask.theory.momentum import MomentumError, Sparsity, momentum_error
from comask.theory.sizes import (
    MESSAGES,
    VALUE_BITS,
    Message,
    SizeOf,
    break_even_bandwidth,
    density_for_budget,
    kept_positions,
    upload_bytes,
)

Quantity = Literal["local_steps", "lr", "density"]


@dataclass(frozen=True, slots=True)
class PlanRow:
    """What one method costs with one codec.

    Attributes:
        name: The method.
        codec: The codec preset.
        message: The shape of its upload.
        num_kept: Positions kept in each stream.
        upload_bytes: One device, one round.
        round_bytes: All devices, one round.
        upload_seconds: Time of one upload at the given uplink, without the time to make it.
        saving: Bytes of dense FedAdam's upload over this one's.
        budget_density: The largest density whose upload fits the budget; None if there is no budget or nothing fits.
        break_even: Uplink in bits a second below which it beats dense FedAdam; None if its time is not known.
    """

    name: str
    codec: str
    message: Message
    num_kept: int
    upload_bytes: float
    round_bytes: float
    upload_seconds: float
    saving: float
    budget_density: float | None
    break_even: float | None


@dataclass(frozen=True, slots=True)
class Effect:
    """What the non-convex bound becomes when one quantity takes another value.

    Attributes:
        quantity: What is varied.
        value: Its value.
        bound: `convergence_bound_nonconvex`.
        optimisation: `gap / (lr L R)`, the first part of (32), which more rounds make small.
        error: What separates the devices' direction from the gradient: the rest of the bound comes from it.
    """

    quantity: Quantity
    value: float
    bound: float
    optimisation: float
    error: MomentumError


def plan(
    dim: int,
    *,
    density: float,
    uplink: float,
    clients: int = 1,
    messages: Mapping[str, Message] = MESSAGES,
    codecs: Iterable[str] = ("exact",),
    budget: float | None = None,
    seconds: Mapping[tuple[str, str], float] | None = None,
    size: SizeOf = upload_bytes,
) -> tuple[PlanRow, ...]:
    """Compare methods by what a round costs: equations (46) to (48).

    Args:
        dim: Number of weights.
        density: Kept fraction of the sparse methods, in (0, 1].
        uplink: Bits a second that a device can send, positive.
        clients: Devices that take part in a round.
        messages: The methods' uploads by name.
        codecs: Names out of `VALUE_BITS`, whose width replaces the messages' own.
        budget: Bytes that one upload may have; None if there is no limit.
        seconds: Measured time by method and codec that making and reading one upload takes beyond a dense one; pairs
            without an entry get no break-even.
        size: Bytes of an upload: the formula, or measurements.

    Returns:
        One row for each method and codec, in their order, codecs varying fastest.

    Raises:
        ConfigError: If a number is out of range.
        UnknownNameError: If a codec is not in `VALUE_BITS`, or `seconds` names a method that is not in `messages`.
    """
    num_kept = kept_positions(dim, density)
    require_positive("uplink", uplink)
    require_count("clients", clients)
    times, names = seconds or {}, tuple(codecs)
    for kind, name, known in (
        *(("codec", codec, VALUE_BITS) for codec in names),
        *(("method", name, messages) for name, _ in times),
    ):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    dense = size(MESSAGES["fedadam"], dim, dim)
    rows = []
    for name, codec in itertools.product(messages, names):
        message = replace(messages[name], value_bits=VALUE_BITS[codec])
        cost = size(message, dim, num_kept)
        time = times.get((name, codec))
        rows.append(
            PlanRow(
                name=name,
                codec=codec,
                message=message,
                num_kept=dim if message.masks == 0 else num_kept,
                upload_bytes=cost,
                round_bytes=clients * cost,
                upload_seconds=8 * cost / uplink,
                saving=dense / cost,
                budget_density=None
                if budget is None
                else density_for_budget(message, dim, budget, size=size),
                break_even=None if time is None else break_even_bandwidth(dense, cost, time),
            )
        )
    return tuple(rows)


def predict_effects(
    problem: ProblemConstants,
    adam: AdamSetting,
    sparsity: Sparsity,
    *,
    rounds: int,
    gap: float,
    local_steps: Iterable[int] = (),
    lrs: Iterable[float] = (),
    densities: Iterable[float] = (),
) -> tuple[Effect, ...]:
    """Vary local steps, learning rate and density one at a time, the others as given: Theorems 5 and 6, (33) and (35).

    Args:
        problem: The constants.
        adam: The optimiser's settings.
        sparsity: What is kept. `captured` and `stale`, measured at one density, are dropped where the density varies.
        rounds: Rounds, the same for all.
        gap: `F(W_0) - inf F`.
        local_steps: Values of L to try.
        lrs: Learning rates to try.
        densities: Densities to try.
    """
    unmeasured = replace(sparsity, captured=None, stale=None)
    settings: list[tuple[Quantity, float, AdamSetting, Sparsity]] = [
        *(("local_steps", steps, replace(adam, local_steps=steps), sparsity) for steps in local_steps),
        *(("lr", lr, replace(adam, lr=lr), sparsity) for lr in lrs),
        *(("density", density, adam, replace(unmeasured, density=density)) for density in densities),
    ]
    return tuple(
        Effect(
            quantity,
            value,
            convergence_bound_nonconvex(problem, setting, kept, rounds=rounds, gap=gap),
            gap / (setting.lr * setting.local_steps * rounds),
            momentum_error(problem, setting, kept),
        )
        for quantity, value, setting, kept in settings
    )
