"""From the settings that were given to the settings that a run uses: every name checked, every default filled in.

Everything that can be refused is refused here, before a run touches its folder.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comask.errors import ConfigError, UnknownNameError
from comask.experiments.config import CompareConfig, RunConfig
from comask.experiments.environment import require_packages

if TYPE_CHECKING:
    from comask.data import Dataset, Federation


def resolve(config: RunConfig) -> RunConfig:
    """Return the same run with nothing left open, as its folder's `config.toml` records it.

    `density` and `lr` stay None for an algorithm that has no such option.

    Raises:
        UnknownNameError: If the algorithm, one of its options, the data set, the partition or the model does not exist.
        ConfigError: If a value is not allowed, or the model is not for these data.
        DataNotFoundError: If the data set is in none of the places looked at.
        MissingExtraError: If torch is not installed.
    """
    require_packages(("torch",), "train")
    from comask.algorithms import make_algorithm  # noqa: PLC0415  # not needed for --help
    from comask.data import parse_partition  # noqa: PLC0415
    from comask.models import build_model, default_model  # noqa: PLC0415

    resolved = with_algorithm_options(config)
    make_algorithm(config.algorithm, **algorithm_arguments(resolved))
    parse_partition(config.partition)
    dataset = load_data(config)
    model = default_model(dataset) if config.model is None else config.model
    build_model(model, dataset, seed=config.seed)
    return replace(resolved, model=model)


def with_algorithm_options(config: RunConfig) -> RunConfig:
    """Return the same run with every option of its algorithm filled in; `density` and `lr` stay None where it has none.

    Raises:
        UnknownNameError: As `algorithm_arguments`.
        ConfigError: As `algorithm_arguments`.
    """
    arguments = algorithm_arguments(config)
    density, lr = arguments.pop("density", None), arguments.pop("lr", None)
    return replace(config, density=density, lr=lr, options=arguments)


def resolve_all(config: CompareConfig) -> list[RunConfig]:
    """Return a comparison's runs, resolved. A setting or option given to all goes to those algorithms that have it.

    Raises:
        UnknownNameError: As `resolve`, and if an option is one of none of the algorithms.
        ConfigError: As `resolve`, and if there is no algorithm at all.
        DataNotFoundError: As `resolve`.
        MissingExtraError: As `resolve`.
    """
    from comask.algorithms import ALGORITHMS, algorithm_options  # noqa: PLC0415

    names = config.names(ALGORITHMS)
    if not names:
        raise ConfigError(
            f"algorithms must name at least one of {', '.join(ALGORITHMS)}, got {config.algorithms!r}."
        )
    accepted = {name: set(algorithm_options(name)) for name in names}
    _require_options("these algorithms", _given_to_all(config.base), set.union(*accepted.values()))
    for name in config.base.options:
        if isinstance(config.base.options[name], Mapping) and name not in ALGORITHMS:
            raise UnknownNameError("algorithm in options", name, ALGORITHMS)
    return [resolve(_without_foreign(run, accepted[run.algorithm])) for run in config.runs(ALGORITHMS)]


def algorithm_arguments(config: RunConfig) -> dict[str, Any]:
    """Return every option of the run's algorithm: its defaults, those given to all, those given to it alone.

    Raises:
        UnknownNameError: If there is no such algorithm, or it has no such option.
        ConfigError: If an option's type is not that of its default.
    """
    from comask.algorithms import algorithm_options  # noqa: PLC0415

    defaults = algorithm_options(config.algorithm)
    own = config.options.get(config.algorithm, {})
    given = {**_given_to_all(config), **(own if isinstance(own, Mapping) else {})}
    _require_options(config.algorithm, given, defaults)
    return {**defaults, **{name: _typed(name, value, defaults[name]) for name, value in given.items()}}


def divide(config: RunConfig) -> Federation:
    """Load a run's data set and divide it among its clients.

    Raises:
        DataNotFoundError: If the data set is in none of the places looked at.
        ConfigError: If the data set or the partition is not allowed.
    """
    from comask.data import make_federation  # noqa: PLC0415

    return make_federation(
        load_data(config), config.partition, config.clients, seed=config.seed, min_samples=config.min_samples
    )


def load_data(config: RunConfig) -> Dataset:
    """Load a run's data set; the last one is kept, as the runs of a comparison share it."""
    return _load(config.dataset, config.data_root)


@lru_cache(maxsize=1)
def _load(name: str, root: str | None) -> Dataset:
    from comask.data import load_dataset  # noqa: PLC0415

    return load_dataset(name, root=None if root is None else Path(root))


def _given_to_all(config: RunConfig) -> dict[str, Any]:
    shortcuts = {
        name: value for name, value in (("density", config.density), ("lr", config.lr)) if value is not None
    }
    return {
        **shortcuts,
        **{name: value for name, value in config.options.items() if not isinstance(value, Mapping)},
    }


def _without_foreign(config: RunConfig, accepted: Container[str]) -> RunConfig:
    """Drop what was given to all algorithms and is no option of this one."""
    return replace(
        config,
        density=config.density if "density" in accepted else None,
        lr=config.lr if "lr" in accepted else None,
        options={
            name: value
            for name, value in config.options.items()
            if isinstance(value, Mapping) or name in accepted
        },
    )


def _require_options(owner: str, given: Iterable[str], accepted: Iterable[str]) -> None:
    for name in given:
        if name not in accepted:
            raise UnknownNameError(f"option of {owner}", name, accepted)


def _typed(name: str, value: Any, default: object) -> Any:
    """Give an option the type of its default, so that 1 works where 1.0 is meant, and a text is no number."""
    if isinstance(default, tuple):
        parts = (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )
        if isinstance(parts, list | tuple):
            return tuple(parts)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if default is not None and type(value) is not type(default):
        raise ConfigError(
            f"Option {name} must be of type {type(default).__name__} (default {default!r}), got {value!r}."
        )
    return value
