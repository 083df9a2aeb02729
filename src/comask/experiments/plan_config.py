"""What `comask plan` is asked: one frozen value, its flags made from the same declarations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from comask.experiments.settings import Setting, at_least, positive, setting, settings_of, share, text
from comask.experiments.units import BYTES, COUNT, RATE, amount_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """A question to the planner. The attributes are described where they are declared (`PLAN_SETTINGS`).

    The defaults of the problem's constants are of the order measured on the CNN and Fashion-MNIST.
    """

    model: str | None = setting(
        None,
        "Model by name, whose parameters and buffers are counted.",
        text("a model's name"),
        fallback="none; give this or --params",
    )
    dataset: str | None = setting(
        None,
        "Data set that shapes the model.",
        text("a data set's name"),
        fallback="fashion-mnist-mini; for text models shakespeare",
    )
    params: str | None = setting(
        None,
        "Number of parameters, such as 11.2M.",
        amount_of("a whole number of at least 1, such as 215370 or 11.2M", COUNT, whole=True),
        fallback="the model's",
    )
    clients: int = setting(20, "Clients that upload in a round.", at_least(1))
    density: float = setting(0.05, "Kept fraction k/d of the sparse methods.", share(zero=False, one=True))
    local_steps: int = setting(30, "Local steps of a client in a round.", at_least(1))
    lr: float = setting(1e-3, "Learning rate of the local steps.", positive())
    uplink: str = setting(
        "1Mbit/s", "What a client can send in a second.", amount_of("a rate such as 1Mbit/s", RATE)
    )
    budget: str | None = setting(
        None, "Bytes that one upload may have.", amount_of("a size such as 100kB", BYTES), fallback="no limit"
    )
    algorithms: str = setting(
        "fedadam,fedadam-top,fedadam-ssm,comask,fedavg",
        "Methods to compare, separated by commas.",
        text("algorithms' names separated by commas"),
    )
    codec: str = setting(
        "exact,half,compact,extreme",
        "Presets of the codec, separated by commas.",
        text("codecs' names separated by commas"),
    )
    rounds: int = setting(40, "Rounds, for the bounds and for methods with a warm-up.", at_least(1))
    smoothness: float = setting(30.0, "Lipschitz constant of the gradient, for the bounds.", positive())
    grad_bound: float = setting(
        8.0, "Bound on every coordinate of every gradient, for the bounds.", positive()
    )
    heterogeneity: float = setting(
        30.0, "Distance between a client's gradient and the global one, for the bounds.", positive()
    )
    gap: float = setting(2.3, "Loss at the start minus the least loss, for the bounds.", positive())


PLAN_SETTINGS: Mapping[str, Setting] = settings_of(PlanConfig)
"""Every setting of the planner, by name."""
