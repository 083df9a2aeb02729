"""One run from its configuration to its folder, started or continued."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from comask.errors import ConfigError
from comask.experiments.config import SETTINGS, RunConfig
from comask.experiments.environment import describe_environment, now
from comask.experiments.folder import RunFolder, read_rounds
from comask.experiments.resolve import algorithm_arguments, divide, resolve
from comask.simulation.records import RoundRecord

if TYPE_CHECKING:
    from comask.data import Federation
    from comask.simulation import Simulation
    from comask.simulation.engine import Precision


@dataclass(frozen=True, slots=True)
class Session:
    """What is decided when a run starts or continues.

    Attributes:
        config: The resolved configuration.
        folder: Where it is written.
        parameters: Number of trained parameters, `d`.
        device: Where it trains.
        precision: The arithmetic chosen.
        precision_reason: Why.
        workers: Worker processes; 0 trains in this one.
        done: The records of earlier sessions.
    """

    config: RunConfig
    folder: Path
    parameters: int
    device: str
    precision: str
    precision_reason: str
    workers: int
    done: tuple[RoundRecord, ...]


class Observer(Protocol):
    """Who is told while a run goes on."""

    def started(self, session: Session) -> None:
        """Called once, before the first round of this session."""
        ...

    def recorded(self, record: RoundRecord) -> None:
        """Called after each round, when its record is on disk."""
        ...


def start(
    config: RunConfig, folder: RunFolder, *, overwrite: bool, command: Sequence[str], observer: Observer
) -> None:
    """Run from round 1.

    Args:
        config: What to run; resolved here.
        folder: Where to write; made if needed.
        overwrite: Replace a run that is already there.
        command: The command line, for the summary.
        observer: Is told as rounds are done.

    Raises:
        ComaskError: Whatever the data, the algorithm or the simulation refuses.
    """
    resolved = resolve(config)
    federation = divide(resolved)  # before the folder is touched: missing data must not cost an old run
    folder.create(resolved.to_toml(), overwrite=overwrite)
    _execute(resolved, federation, folder, command, observer)


def resume(config: RunConfig, folder: RunFolder, *, command: Sequence[str], observer: Observer) -> None:
    """Continue after the last checkpoint, to the same bytes and model as an uninterrupted run; a finished run stays as it is.

    Args:
        config: As `recorded_config` returned it, possibly with more rounds or other settings that may change.
        folder: The run's folder.
        command: The command line, for the summary.
        observer: Is told as rounds are done.

    Raises:
        CheckpointError: If the checkpoint or the records are damaged.
        ComaskError: As `start`.
    """
    if is_finished(config, folder):
        return
    with folder.locked():
        folder.write_config(config.to_toml())
    _execute(config, divide(config), folder, command, observer)


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
    return changed


def require_same(recorded: RunConfig, wanted: RunConfig, folder: RunFolder) -> None:
    """Check that two configurations differ only where a resumed run may.

    Raises:
        ConfigError: If not; the message has the setting and both values.
    """
    for name, row in SETTINGS.items():
        before, after = getattr(recorded, name), getattr(wanted, name)
        if before != after and not row.may_change:
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


def _execute(
    config: RunConfig, federation: Federation, folder: RunFolder, command: Sequence[str], observer: Observer
) -> None:
    earlier = folder.read_summary()
    # A resumed run keeps the arithmetic it began with: measuring again might choose another.
    pinned = replace(
        config,
        device=earlier.get("device", config.device),
        precision=earlier.get("precision", config.precision),
    )
    with folder.locked(), _open_simulation(pinned, federation, folder.checkpoint) as simulation:
        done = folder.reconcile(simulation.start_round - 1, simulation.last_record)
        session = Session(
            config=config,
            folder=folder.path,
            parameters=simulation.state.model.dim,
            device=str(simulation.device),
            precision=simulation.precision,
            precision_reason=earlier["precision_reason"] if done and earlier else simulation.precision_reason,
            workers=simulation.workers,
            done=tuple(done),
        )
        sessions = [*earlier.get("sessions", ()), _describe(session, command)]
        facts = {
            "algorithm": config.algorithm,
            "seed": config.seed,
            "parameters": session.parameters,
            "device": session.device,
            "precision": session.precision,
            "precision_reason": session.precision_reason,
            "data_note": federation.dataset.note,
        }
        status = "failed"
        folder.write_summary({"status": "running", **facts, **totals(done), "sessions": sessions})
        try:
            observer.started(session)
            for record in simulation:
                folder.append(record)
                observer.recorded(record)
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            records = read_rounds(folder.rounds)
            folder.write_summary({"status": status, **facts, **totals(records), "sessions": sessions})


def _open_simulation(config: RunConfig, federation: Federation, checkpoint: Path) -> Simulation:
    from comask.algorithms import make_algorithm  # noqa: PLC0415
    from comask.models import build_model  # noqa: PLC0415
    from comask.simulation import simulate  # noqa: PLC0415

    data = federation.dataset
    # A model needs the data's shape only, and its factory travels to every worker.
    shape = replace(
        data,
        train_inputs=data.train_inputs[:1],
        train_targets=data.train_targets[:1],
        test_inputs=data.test_inputs[:1],
        test_targets=data.test_targets[:1],
        groups=None,
    )
    return simulate(
        make_algorithm(config.algorithm, **algorithm_arguments(config)),
        federation,
        partial(build_model, str(config.model), shape, seed=config.seed),
        rounds=config.rounds,
        seed=config.seed,
        local_steps=config.local_steps,
        local_epochs=config.local_epochs,
        batch_size=config.batch_size,
        cohort_fraction=config.cohort_fraction,
        dropout=config.dropout,
        workers=config.workers,
        device=config.device,
        precision=cast("Precision", config.precision),
        checkpoint=checkpoint,
        resume=True,
        eval_every=config.eval_every,
    )


def _describe(session: Session, command: Sequence[str]) -> dict[str, Any]:
    return {
        "started": now(),
        "first_round": len(session.done) + 1,
        "command": shlex.join(command),
        "device": session.device,
        "workers": session.workers,
        "environment": describe_environment(),
    }


def totals(records: Sequence[RoundRecord]) -> dict[str, Any]:
    """Sum up the records of a run, for `summary.json`."""
    evaluated = [record for record in records if record.test_accuracy is not None]
    reasons = Counter(refusal.reason for record in records for refusal in record.refused)
    sums = (
        "uplink_bytes",
        "downlink_bytes",
        "paper_bits",
        "mask_bytes",
        "value_bytes",
        "buffer_bytes",
        "overhead_bytes",
    )
    return {
        "rounds": len(records),
        "test_accuracy": evaluated[-1].test_accuracy if evaluated else None,
        "test_loss": evaluated[-1].test_loss if evaluated else None,
        "best_test_accuracy": max((record.test_accuracy or 0.0 for record in evaluated), default=None),
        **{name: sum(getattr(record, name) for record in records) for name in sums},
        "dropped": sum(len(record.dropped) for record in records),
        "refused": dict(sorted(reasons.items())),
        "seconds": round(sum(record.seconds.get("wall", 0.0) for record in records), 3),
    }
