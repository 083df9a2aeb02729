"""May a run that has begun continue so? The checks between an existing folder and what is wanted of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comask.errors import ConfigError
from comask.experiments.config import SETTINGS, RunConfig
from comask.experiments.folder import RunFolder, read_rounds

AUTO = "auto"


def recorded_config(folder: RunFolder, flags: Mapping[str, Any]) -> RunConfig:
    """Return the configuration of an existing run, with flags that may change it applied.

    Raises:
        ConfigError: If the folder holds no run, or a flag would change the rounds that are already done.
    """
    if not folder.config.exists():
        raise ConfigError(f"{folder.path} holds no {folder.config.name}: it is not the folder of a run.")
    recorded = RunConfig.load(folder.config, {})
    changed = RunConfig.load(folder.config, flags)
    require_same(recorded, changed, folder)
    return settle(changed, recorded)


def settle(config: RunConfig, other: RunConfig) -> RunConfig:
    """Return the configuration with the device and precision that another run has settled on, where it leaves them open."""
    return replace(
        config,
        device=other.device if config.device == AUTO else config.device,
        precision=other.precision if config.precision == AUTO else config.precision,
    )


def require_same(recorded: RunConfig, wanted: RunConfig, folder: RunFolder) -> None:
    """Check that two configurations differ only where a resumed run may.

    Raises:
        ConfigError: If not; the message has the setting and both values.
    """
    for name, row in SETTINGS.items():
        before, after = getattr(recorded, name), getattr(wanted, name)
        # A run that was asked to choose has recorded its choice, and keeps it.
        if before != after and AUTO not in (before, after) and not row.may_change:
            may = ", ".join(other.flag for other in SETTINGS.values() if other.may_change)
            raise ConfigError(
                f"{row.flag} is {before!r} in {folder.config} and cannot become {after!r}; a resumed run may change {may}."
            )
    if recorded.options != wanted.options:
        raise ConfigError(
            f"Options are {dict(recorded.options)} in {folder.config} and cannot become {dict(wanted.options)}."
        )
    done = len(read_rounds(folder.rounds))
    if wanted.rounds < done:
        raise ConfigError(
            f"--rounds must be at least {done}, the rounds that {folder.path} already has, got {wanted.rounds}."
        )


def is_finished(config: RunConfig, folder: RunFolder) -> bool:
    """Tell whether all rounds of the configuration are done and summed up."""
    return (
        len(read_rounds(folder.rounds)) == config.rounds and folder.read_summary().get("status") == "finished"
    )
