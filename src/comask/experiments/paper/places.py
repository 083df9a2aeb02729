"""Where a run of the study is kept: a folder whose name follows from what the run is.

Studies share runs. The comparison at learning rate 1e-3 and the effect of the learning rate need the same one, and it is done
once. The name holds every setting that differs from its default, so that a listing can be read; `config.toml` inside is
what counts, and a run is refused where the two disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comask.experiments.config import SETTINGS, RunConfig

_NAMED_ELSEWHERE = (
    "algorithm",
    "dataset",
    "model",
    "partition",
    "seed",
    "density",
    "lr",
    "precision",  # one for the whole study
    "data_root",
    "rounds",
    "workers",
)


def run_path(config: RunConfig) -> Path:
    """Return a run's folder, relative to the folder of all runs.

    Args:
        config: As `comask.experiments.resolve.resolve` returns it: nothing is left open.
    """
    task = [config.dataset, str(config.model), config.partition, *_settings(config)]
    return Path("_".join(map(_plain, task)), "_".join(map(_plain, _algorithm(config))), f"seed-{config.seed}")


def _settings(config: RunConfig) -> Iterator[str]:
    for name, row in SETTINGS.items():
        value = getattr(config, name)
        if name not in _NAMED_ELSEWHERE and value != row.default:
            yield f"{name}={value}"


def _algorithm(config: RunConfig) -> Iterator[str]:
    from comask.algorithms import algorithm_options  # noqa: PLC0415

    yield config.algorithm
    defaults = algorithm_options(config.algorithm)
    own: dict[str, Any] = {"lr": config.lr, "density": config.density, **config.options}
    for name in sorted(own, key=lambda name: (name != "lr", name)):
        if own[name] is not None and (name == "lr" or own[name] != defaults.get(name)):
            yield f"{name}={own[name]}"


def _plain(part: str) -> str:
    return "".join(character if character.isalnum() or character in "-=.+" else "-" for character in part)
