"""The planner: what methods and codecs cost in bytes and time, and what the bounds say of the settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from comask.errors import ConfigError, UnknownNameError
from comask.experiments.coded_sizes import predicted_bytes, size_in
from comask.experiments.plan_config import PlanConfig
from comask.experiments.timing import Work, measure_work
from comask.experiments.units import BYTES, COUNT, RATE, parse
from comask.hyperparams import AdamConfig
from comask.masks import num_kept
from comask.theory import (
    MESSAGES,
    AdamSetting,
    MomentumError,
    ProblemConstants,
    Sparsity,
    break_even_bandwidth,
    density_for_budget,
    predict_effects,
)
from comask.wire import CODECS
from comask.wire.update import MAX_DIM

BASELINE = ("fedadam", "exact")
"""The method and codec that savings and break-evens compare with: dense FedAdam in float32."""

_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Line:
    """What one method costs in one codec.

    Attributes:
        algorithm: The method's name.
        codec: The codec's name.
        num_kept: Positions that each stream keeps.
        upload_bytes: Of one client, one round.
        round_bytes: Of all clients, one round.
        upload_seconds: Time of one upload at the uplink, without the work.
        saving: The baseline's bytes over these.
        budget_density: The largest density whose upload fits the budget; None without a budget, or where nothing fits.
        work: Seconds that making and reading one upload take on this machine.
        break_even: Uplink, in bits a second, below which the bytes saved are worth more time than the work beyond the
            baseline's: 0 if no byte is saved, infinite if there is no more work. None for the baseline.
    """

    algorithm: str
    codec: str
    num_kept: int
    upload_bytes: float
    round_bytes: float
    upload_seconds: float
    saving: float
    budget_density: float | None
    work: Work
    break_even: float | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What happens to the bounds when one setting changes and the others stay.

    Attributes:
        quantity: The setting.
        value: Its other value.
        plain: Bound at it over bound at the chosen settings, without error feedback.
        fed_back: The same with error feedback.
        largest: The largest part of the error of the first moment without error feedback, in words.
    """

    quantity: str
    value: float
    plain: float
    fed_back: float
    largest: str


@dataclass(frozen=True, slots=True)
class Plan:
    """An answer.

    Attributes:
        config: The question.
        dim: Number of parameters.
        num_buffers: Numbers sent densely beside them (batch norm's statistics).
        lines: One for each method and codec.
        predictions: For the method with one shared mask.
        bounds: The bound at the chosen settings, without and with error feedback.
    """

    config: PlanConfig
    dim: int
    num_buffers: int
    lines: tuple[Line, ...]
    predictions: tuple[Prediction, ...]
    bounds: tuple[float, float]


def make_plan(config: PlanConfig, *, measure: Callable[[str, str, int, float], Work] = measure_work) -> Plan:
    """Answer a question.

    Args:
        config: The question.
        measure: From algorithm, codec, dimension and density to the work of one upload.

    Raises:
        ConfigError: If settings contradict one another, or one is out of range.
        UnknownNameError: If a model, a method, a codec or a data set does not exist.
        DataNotFoundError: If the data set that shapes the model is in none of the places looked at.
        MissingExtraError: If a model is to be built and torch is not installed.
    """
    names = _names("algorithm", config.algorithms, MESSAGES)
    codecs = _names("codec", config.codec, CODECS)
    dim, num_buffers = _shape(config)
    pairs = [(name, codec) for name in names for codec in codecs]
    work = {pair: measure(*pair, dim, config.density) for pair in dict.fromkeys([BASELINE, *pairs])}
    lines = (
        _line(config, dim, num_buffers, pair, work=work[pair], baseline=work[BASELINE]) for pair in pairs
    )
    predictions, bounds = _predict(config, dim)
    return Plan(config, dim, num_buffers, tuple(lines), predictions, bounds)


def _line(
    config: PlanConfig, dim: int, num_buffers: int, pair: tuple[str, str], *, work: Work, baseline: Work
) -> Line:
    name, codec = pair
    message = MESSAGES[name]
    cost = predicted_bytes(name, codec, dim, config.density, num_buffers=num_buffers)
    dense = predicted_bytes(*BASELINE, dim, 1.0, num_buffers=num_buffers)
    size = size_in(CODECS[codec], num_buffers=num_buffers)
    budget = None if config.budget is None else _amount(config.budget, BYTES)
    return Line(
        algorithm=name,
        codec=codec,
        num_kept=num_kept(config.density, dim) if message.masks else dim,
        upload_bytes=cost,
        round_bytes=config.clients * cost,
        upload_seconds=8 * cost / _amount(config.uplink, RATE),
        saving=dense / cost,
        budget_density=None if budget is None else density_for_budget(message, dim, budget, size=size),
        work=work,
        break_even=None
        if pair == BASELINE
        else break_even_bandwidth(dense, cost, max(0.0, work.total - baseline.total)),
    )


def _predict(config: PlanConfig, dim: int) -> tuple[tuple[Prediction, ...], tuple[float, float]]:
    problem = ProblemConstants(dim, config.smoothness, config.grad_bound, config.heterogeneity)
    local = AdamConfig(lr=config.lr)
    adam = AdamSetting(local.lr, local.beta1, local.beta2, local.eps, config.local_steps)
    steps = dict.fromkeys(max(1, round(config.local_steps * factor)) for factor in _FACTORS)
    plain, fed_back = (
        predict_effects(
            problem,
            adam,
            Sparsity(config.density, error_feedback=feedback),
            rounds=config.rounds,
            gap=config.gap,
            local_steps=steps,
            lrs=[config.lr * factor for factor in _FACTORS],
            densities=dict.fromkeys(min(1.0, config.density * factor) for factor in _FACTORS),
        )
        for feedback in (False, True)
    )
    chosen = list(steps).index(config.local_steps)
    bounds = plain[chosen].bound, fed_back[chosen].bound
    predictions = (
        Prediction(
            one.quantity, one.value, one.bound / bounds[0], other.bound / bounds[1], _largest(one.error)
        )
        for one, other in zip(plain, fed_back, strict=True)
    )
    return tuple(predictions), bounds


def _largest(error: MomentumError) -> str:
    parts = {
        "stale momentum": error.stale,
        "heterogeneity": error.heterogeneity,
        "drift of local steps": error.drift,
    }
    return max(parts, key=lambda name: parts[name])


def _names(kind: str, text: str, allowed: Mapping[str, object]) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in allowed:
            raise UnknownNameError(kind, name, allowed)
    for one, other in pairwise(sorted(names)):
        if one == other:
            raise ConfigError(f"Every {kind} may be named once, got {one!r} twice in {text!r}.")
    return tuple(names)


def _amount(text: str, units: Mapping[str, int]) -> float:
    value = parse(text, units)
    if value is None:
        raise ConfigError(
            f"An amount must be a number with one of {', '.join(filter(None, units))}, got {text!r}."
        )
    return float(value)


def _shape(config: PlanConfig) -> tuple[int, int]:
    """Return the numbers of parameters and of buffers."""
    if (config.model is None) == (config.params is None):
        raise ConfigError(
            f"One of --model and --params must be given, got --model {config.model} and --params {config.params}."
        )
    if config.model is None:
        if config.dataset is not None:
            raise ConfigError(
                f"--dataset {config.dataset} cannot be given together with --params: it shapes a model."
            )
        dim = int(_amount(str(config.params), COUNT))
        if dim > MAX_DIM:
            raise ConfigError(f"--params must be at most {MAX_DIM:,}, got {config.params}.")
        return dim, 0
    from comask.data import load_dataset  # noqa: PLC0415  # neither data nor torch is needed to plan for a number
    from comask.models import build_model  # noqa: PLC0415

    model = build_model(config.model, load_dataset(config.dataset or "fashion-mnist-mini"), seed=0)
    from comask.flat import FlatModel  # noqa: PLC0415  # after build_model, which says it when torch is missing

    flat = FlatModel(model)
    return flat.dim, math.prod(flat.buffers.shape)
