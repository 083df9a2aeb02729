"""The planner: what methods and codecs cost in bytes and time, and what the bounds say of the settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from comask.algorithms import ALGORITHMS
from comask.errors import ConfigError, UnknownNameError
from comask.experiments.coded_sizes import density_in_budget, predicted_bytes, value_shares
from comask.experiments.plan_config import PlanConfig
from comask.experiments.timing import Work, measure_work
from comask.experiments.units import BYTES, COUNT, RATE, parse
from comask.experiments.upload_shapes import OWN, takes_codec, upload_shapes
from comask.hyperparams import AdamConfig
from comask.theory import (
    AdamSetting,
    DensityChoice,
    MomentumError,
    ProblemConstants,
    Sparsity,
    break_even_bandwidth,
    convergence_bound_nonconvex,
    optimal_density,
    predict_effects,
)
from comask.wire import CODECS
from comask.wire.update import MAX_DIM

BASELINE = ("fedadam", "exact")
"""The method and codec that savings and break-evens compare with: dense FedAdam in float32."""

_SHAPES_A_MODEL = {"image": "fashion-mnist-mini", "text": "shakespeare"}

_CANDIDATES = 80
_FOREVER = 10**15

_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Line:
    """What one method costs in one codec.

    Attributes:
        algorithm: The method's name.
        codec: The codec's name, or `OWN`.
        num_kept: Positions that a stream keeps, in the last round.
        upload_bytes: Of one client, one round; the mean over the rounds.
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
class Advice:
    """What follows from the bounds for a choice.

    Attributes:
        density: Where the bound without error feedback is least for the bytes that the chosen settings spend in all rounds.
        density_fed_back: The same with error feedback.
        floor: The part of the bound at the chosen settings, with error feedback, that no number of rounds would remove.
        reach: Local steps of the next round that a dropped change of the first moment is worth, `sum_l beta1^l`.
    """

    density: DensityChoice
    density_fed_back: DensityChoice
    floor: float
    reach: float


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
        advice: What the bounds call for.
    """

    config: PlanConfig
    dim: int
    num_buffers: int
    lines: tuple[Line, ...]
    predictions: tuple[Prediction, ...]
    bounds: tuple[float, float]
    advice: Advice


def make_plan(config: PlanConfig, *, measure: Callable[..., Work] = measure_work) -> Plan:
    """Answer a question.

    Args:
        config: The question.
        measure: From algorithm, codec, dimension, density and `rounds=` to the work of one upload.

    Raises:
        ConfigError: If settings contradict one another, or one is out of range.
        UnknownNameError: If a model, a method, a codec or a data set does not exist.
        DataNotFoundError: If the data set that shapes the model is in none of the places looked at.
        MissingExtraError: If a model is to be built and torch is not installed.
    """
    names = _names("algorithm", config.algorithms, ALGORITHMS)
    codecs = _names("codec", config.codec, CODECS)
    dim, num_buffers = _shape(config)
    pairs = [(name, codec) for name in names for codec in (codecs if takes_codec(name) else (OWN,))]
    work = {
        pair: measure(*pair, dim, config.density, rounds=config.rounds)
        for pair in dict.fromkeys([BASELINE, *pairs])
    }
    lines = (
        _line(config, dim, num_buffers, pair, work=work[pair], baseline=work[BASELINE]) for pair in pairs
    )
    problem, adam = _bounds_start_from(config, dim)
    predictions, bounds = _predict(config, problem, adam)
    advice = _advise(config, problem, adam)
    return Plan(config, dim, num_buffers, tuple(lines), predictions, bounds, advice)


def _line(
    config: PlanConfig, dim: int, num_buffers: int, pair: tuple[str, str], *, work: Work, baseline: Work
) -> Line:
    name, codec = pair
    known: dict[str, Any] = {
        "num_buffers": num_buffers,
        "rounds": config.rounds,
        "shares": value_shares(name, codec, dim, config.density, config.rounds),
    }
    cost = predicted_bytes(name, codec, dim, config.density, **known)
    dense = predicted_bytes(*BASELINE, dim, 1.0, num_buffers=num_buffers)
    budget = None if config.budget is None else _amount(config.budget, BYTES)
    blocks = upload_shapes(name, config.rounds)[-1].blocks
    return Line(
        algorithm=name,
        codec=codec,
        num_kept=max(block.kept(dim, config.density) for block in blocks),
        upload_bytes=cost,
        round_bytes=config.clients * cost,
        upload_seconds=8 * cost / _amount(config.uplink, RATE),
        saving=dense / cost,
        budget_density=None if budget is None else density_in_budget(name, codec, dim, budget, **known),
        work=work,
        break_even=None
        if pair == BASELINE
        else break_even_bandwidth(dense, cost, max(0.0, work.total - baseline.total)),
    )


def _bounds_start_from(config: PlanConfig, dim: int) -> tuple[ProblemConstants, AdamSetting]:
    problem = ProblemConstants(dim, config.smoothness, config.grad_bound, config.heterogeneity)
    local = AdamConfig(lr=config.lr)
    return problem, AdamSetting(local.lr, local.beta1, local.beta2, local.eps, config.local_steps)


def _advise(config: PlanConfig, problem: ProblemConstants, adam: AdamSetting) -> Advice:
    def bits(kept: int) -> float:
        return 8 * predicted_bytes("fedadam-ssm", "exact", problem.dim, kept / problem.dim)

    spent = config.rounds * bits(max(1, round(config.density * problem.dim)))
    # The last rounds of the budget may be lost to whole numbers: half a round more keeps the chosen density's own rounds.
    plain, fed_back = (
        optimal_density(
            problem,
            adam,
            Sparsity(error_feedback=feedback),
            budget_bits=spent * (1 + 0.5 / config.rounds),
            gap=config.gap,
            bits_per_round=bits,
            candidates=_CANDIDATES,
        )
        for feedback in (False, True)
    )
    kept = Sparsity(config.density, error_feedback=True)
    now, after_all = (
        convergence_bound_nonconvex(problem, adam, kept, rounds=rounds, gap=config.gap)
        for rounds in (config.rounds, _FOREVER)
    )
    return Advice(
        plain, fed_back, after_all / now, sum(adam.beta1**step for step in range(1, adam.local_steps + 1))
    )


def _predict(
    config: PlanConfig, problem: ProblemConstants, adam: AdamSetting
) -> tuple[tuple[Prediction, ...], tuple[float, float]]:
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
    from comask.models import build_model, model_task  # noqa: PLC0415

    dataset = config.dataset or _SHAPES_A_MODEL[model_task(config.model)]
    model = build_model(config.model, load_dataset(dataset), seed=0)
    from comask.flat import FlatModel  # noqa: PLC0415  # after build_model, which says it when torch is missing

    flat = FlatModel(model)
    return flat.dim, math.prod(flat.buffers.shape)
