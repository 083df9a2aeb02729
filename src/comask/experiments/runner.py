"""One run from its configuration to its folder, started or continued."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from comask.experiments.config import RunConfig
from comask.experiments.environment import describe_environment, now
from comask.experiments.folder import RunFolder, read_rounds
from comask.experiments.resolve import algorithm_arguments, divide, resolve
from comask.experiments.resuming import is_finished
from comask.simulation.records import RoundRecord

if TYPE_CHECKING:
    from comask.algorithms import Algorithm
    from comask.data import Federation
    from comask.simulation import Simulation
    from comask.simulation.engine import Precision


@dataclass(frozen=True, slots=True)
class Session:
    """What is decided when a run starts or continues.

    Attributes:
        config: The resolved configuration, with the device and precision that were chosen.
        parameters: Number of trained parameters, `d`.
        precision_reason: Why this precision.
        workers: Worker processes; 0 trains in this one.
        done: The records of earlier sessions.
    """

    config: RunConfig
    parameters: int
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


def _unchanged(algorithm: Algorithm) -> Algorithm:
    return algorithm


def start(
    config: RunConfig,
    folder: RunFolder,
    *,
    overwrite: bool,
    command: Sequence[str],
    observer: Observer,
    adapt: Callable[[Algorithm], Algorithm] = _unchanged,
) -> None:
    """Run from round 1.

    Args:
        config: What to run; resolved here.
        folder: Where to write; made if needed.
        overwrite: Replace a run that is already there.
        command: The command line, for the summary.
        observer: Is told as rounds are done.
        adapt: Gives the algorithm that runs for the one that was configured, such as one that also measures.

    Raises:
        ComaskError: Whatever the data, the algorithm or the simulation refuses.
    """
    resolved = resolve(config)
    federation = divide(resolved)  # before the folder is touched: missing data must not cost an old run
    folder.create(resolved.to_toml(), overwrite=overwrite)
    _execute(resolved, federation, folder, command=command, observer=observer, adapt=adapt)


def resume(
    config: RunConfig,
    folder: RunFolder,
    *,
    command: Sequence[str],
    observer: Observer,
    adapt: Callable[[Algorithm], Algorithm] = _unchanged,
) -> None:
    """Continue after the last checkpoint, to the same bytes and model as an uninterrupted run; a finished run stays as it is.

    Args:
        config: As `recorded_config` returns it.
        folder: The run's folder.
        command: The command line, for the summary.
        observer: Is told as rounds are done.
        adapt: As in `start`.

    Raises:
        CheckpointError: If the checkpoint or the records are damaged.
        ComaskError: As `start`.
    """
    if is_finished(config, folder):
        return
    _execute(config, divide(config), folder, command=command, observer=observer, adapt=adapt)


def _execute(
    config: RunConfig,
    federation: Federation,
    folder: RunFolder,
    *,
    command: Sequence[str],
    observer: Observer,
    adapt: Callable[[Algorithm], Algorithm],
) -> None:
    earlier = folder.read_summary()
    with folder.locked(), _open_simulation(config, federation, folder.checkpoint, adapt) as simulation:
        done = folder.reconcile(simulation.start_round - 1, simulation.last_record)
        settled = replace(config, device=simulation.device, precision=simulation.precision)
        # Choosing again might end differently: from here on, the run is one that was told what to use.
        folder.write_config(settled.to_toml())
        session = Session(
            config=settled,
            parameters=simulation.state.model.dim,
            precision_reason=earlier["precision_reason"] if done and earlier else simulation.precision_reason,
            workers=simulation.workers,
            done=tuple(done),
        )
        sessions = [*earlier.get("sessions", ()), _describe(session, command)]
        facts = {
            "algorithm": config.algorithm,
            "seed": config.seed,
            "parameters": session.parameters,
            "device": settled.device,
            "precision": settled.precision,
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


def _open_simulation(
    config: RunConfig, federation: Federation, checkpoint: Path, adapt: Callable[[Algorithm], Algorithm]
) -> Simulation:
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
        adapt(make_algorithm(config.algorithm, **algorithm_arguments(config))),
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
        "device": session.config.device,
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
