"""The algorithms, by name, and how to make one from plain options.

Adding one touches three places: its file, one row of `ALGORITHMS`, one line of the changelog. Tests, documentation,
command-line choices and benchmarks read the table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from comask.algorithms.base import (
    Algorithm,
    ClientContext,
    ClientRule,
    Memory,
    ServerRule,
    ServerState,
    Upload,
)
from comask.algorithms.ce_fedavg import ce_fedavg
from comask.algorithms.comask import comask
from comask.algorithms.efficient_adam import efficient_adam
from comask.algorithms.fairness_top import fairness_top
from comask.algorithms.fedadam import fedadam
from comask.algorithms.fedadam_ssm import fedadam_ssm
from comask.algorithms.fedadam_top import fedadam_top
from comask.algorithms.fedadamw import fedadamw
from comask.algorithms.fedavg import fedavg, fedsgd
from comask.algorithms.fedavg_8bit import fedavg_8bit
from comask.algorithms.fedcams import fedcams
from comask.algorithms.fedopt_adam import fedopt_adam
from comask.algorithms.one_bit_adam import one_bit_adam
from comask.algorithms.sparse_loco import sparse_loco
from comask.algorithms.stc import stc
from comask.algorithms.zero_one_adam import zero_one_adam
from comask.errors import UnknownNameError

ALGORITHMS: Mapping[str, Callable[..., Algorithm]] = MappingProxyType(
    {
        "fedadam": fedadam,
        "fedadam-top": fedadam_top,
        "fedadam-ssm": fedadam_ssm,
        "fedadam-ssm-m": partial(fedadam_ssm, mask="m", name="fedadam-ssm-m"),
        "fedadam-ssm-v": partial(fedadam_ssm, mask="v", name="fedadam-ssm-v"),
        "fairness-top": fairness_top,
        "fedavg": fedavg,
        "fedsgd": fedsgd,
        "fedavg-8bit": fedavg_8bit,
        "fedopt-adam": fedopt_adam,
        "fedcams": fedcams,
        "fedadamw": fedadamw,
        "ce-fedavg": ce_fedavg,
        "one-bit-adam": one_bit_adam,
        "zero-one-adam": zero_one_adam,
        "efficient-adam": efficient_adam,
        "stc": stc,
        "sparse-loco": sparse_loco,
        "comask": comask,
    }
)
"""Factories: each takes the local optimiser's settings and its own options by keyword, and returns an `Algorithm`."""

_FIXED_BY_ROW = "name"


def factory(name: str) -> Callable[..., Algorithm]:
    """Return a row of the table.

    Raises:
        UnknownNameError: If there is no algorithm of that name.
    """
    if name not in ALGORITHMS:
        raise UnknownNameError("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


def algorithm_options(name: str) -> Mapping[str, Any]:
    """Return the options of an algorithm and their defaults: its own, and those of its local optimiser, side by side."""
    make = factory(name)
    fixed = set(make.keywords) if isinstance(make, partial) else set()
    options: dict[str, Any] = {}
    for parameter in inspect.signature(make).parameters.values():
        if parameter.name == "local":
            options |= {f.name: getattr(parameter.default, f.name) for f in fields(parameter.default)}
        elif parameter.name != _FIXED_BY_ROW and parameter.name not in fixed:
            options[parameter.name] = parameter.default
    return MappingProxyType(options)


def make_algorithm(name: str, **options: Any) -> Algorithm:
    """Make an algorithm from plain options, such as `make_algorithm("fedadam-ssm", density=0.01, lr=3e-4)`.

    Args:
        name: A row of `ALGORITHMS`.
        **options: Any of `algorithm_options(name)`.

    Raises:
        UnknownNameError: If the algorithm or an option does not exist.
        ConfigError: If a value is not allowed.
    """
    make = factory(name)
    allowed = algorithm_options(name)
    for option in options:
        if option not in allowed:
            raise UnknownNameError(f"option of {name}", option, allowed)
    local = inspect.signature(make).parameters["local"].default
    names = {f.name for f in fields(local)}
    local = replace(local, **{key: value for key, value in options.items() if key in names})
    return make(local, **{key: value for key, value in options.items() if key not in names})


def summary(name: str) -> str:
    """Return the first sentence of an algorithm's documentation: what it sends, and its bits."""
    make = factory(name)
    function = make.func if isinstance(make, partial) else make
    first = (inspect.getdoc(function) or "").splitlines()[0]
    fixed = (
        {k: v for k, v in make.keywords.items() if k != _FIXED_BY_ROW} if isinstance(make, partial) else {}
    )
    return first + "".join(f" With {key}={value!r}." for key, value in fixed.items())


def source(name: str) -> str:
    """Return where an algorithm comes from: the documentation of its file after the first line."""
    make = factory(name)
    function = make.func if isinstance(make, partial) else make
    return "\n".join((inspect.getdoc(inspect.getmodule(function)) or "").splitlines()[1:]).strip()


__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "ClientContext",
    "ClientRule",
    "Memory",
    "ServerRule",
    "ServerState",
    "Upload",
    "algorithm_options",
    "factory",
    "make_algorithm",
    "source",
    "summary",
]
