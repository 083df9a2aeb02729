"""The simulator: every round is what a real fleet would do, made on one machine.

Broadcasts and uploads are encoded and decoded by the wire codec, and training, mask and aggregation are the functions
that any other transport calls. Randomness is a function of the seed and of names (round, client), never of order, and
uploads are added in the order of the cohort: so the same seed gives the same bytes for any number of workers, and a run
that was killed and resumed gives the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

import numpy as np

from comask.algorithms.base import Algorithm, Memory, ServerState
from comask.data.dataset import Federation
from comask.errors import CheckpointError, ConfigError
from comask.flat import FlatModel
from comask.simulation.checkpoint import Checkpoint, CheckpointFolder, describe
from comask.simulation.local import PRECISIONS, ModelFactory, ProbeJob, ProbeResult
from comask.simulation.records import RoundRecord
from comask.simulation.round import RoundSetup, run_round
from comask.simulation.settings import Settings, choose_device, choose_workers
from comask.simulation.workers import Executor, InProcess, TrainerSettings, WorkerPool
from comask.state import ModelState

Precision = Literal["auto", "float32", "bfloat16"]

_PROBE_STEPS = 7
_WORTHWHILE = 1.15
"""bfloat16 must be this much faster before `precision="auto"` gives up float32's digits."""


def simulate(
    algorithm: Algorithm,
    federation: Federation,
    model: ModelFactory,
    *,
    rounds: int,
    seed: int,
    local_steps: int = 30,
    local_epochs: float | None = None,
    batch_size: int = 32,
    cohort_fraction: float = 1.0,
    dropout: float = 0.0,
    eval_every: int = 1,
    min_samples: int = 1,
    workers: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    checkpoint: Path | str | None = None,
    resume: bool = False,
) -> Simulation:
    """Simulate federated training; iterate over the result for a `RoundRecord` a round.

    Args:
        algorithm: What to run, from `comask.algorithms.make_algorithm`.
        federation: The data and who holds what.
        model: Makes the module, initialised; called here and once in every worker, so it must be picklable unless
            `workers=0`. The first call's values are the initial model.
        rounds: Rounds in all, including those before a resume.
        seed: Root of every random choice.
        local_steps: Optimiser steps of each client in each round.
        local_epochs: Passes over the client's data in place of `local_steps`; may be a fraction.
        batch_size: Samples a step; a client with fewer uses all of them in every step.
        cohort_fraction: Fraction of the clients in each round's cohort, in (0, 1].
        dropout: Probability that a client of the cohort never answers, in [0, 1].
        eval_every: Test after every so many rounds, and after the last; 0: never.
        min_samples: Clients with fewer samples never take part; see `Simulation.excluded`.
        workers: Worker processes; None: one a core (none on a GPU), 0: this process.
        device: `"cpu"`, `"cuda"` or `"auto"` (a GPU if there is one).
        precision: `"float32"`, `"bfloat16"`, or `"auto"`: whichever a short measurement shows to be worth it; the
            choice is in `Simulation.precision`, its reason in `Simulation.precision_reason`.
        checkpoint: Folder for a checkpoint after every round; None: no checkpoints.
        resume: Continue from the checkpoint if there is one.

    Returns:
        A `Simulation`: an iterator and a context manager.

    Raises:
        ConfigError: If an argument is not allowed.
        CheckpointError: If the folder holds a checkpoint and `resume` is not set, or it belongs to another run.
    """
    settings = Settings(
        rounds, seed, local_steps, local_epochs, batch_size, cohort_fraction, dropout, eval_every, min_samples
    )
    folder = None if checkpoint is None else CheckpointFolder(Path(checkpoint))
    return Simulation(
        algorithm,
        federation,
        model,
        settings,
        workers=workers,
        device=device,
        precision=precision,
        folder=folder,
        resume=resume,
    )


class Simulation(Iterator[RoundRecord]):
    """A run in progress; made by `simulate`.

    Attributes:
        state: The server's state after the last completed round.
        start_round: The first round that this object will run: 1, or later after a resume.
        last_record: The record of the last completed round, also after a resume; None before the first.
        excluded: Clients that never take part because they hold too few samples.
        device: The device in use.
        workers: The number of worker processes; 0: this process.
        precision: The precision in use.
        precision_reason: Why.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        federation: Federation,
        model: ModelFactory,
        settings: Settings,
        *,
        workers: int | None,
        device: str,
        precision: Precision,
        folder: CheckpointFolder | None,
        resume: bool,
    ) -> None:
        if precision not in ("auto", *PRECISIONS):
            raise ConfigError(
                f"precision must be 'auto', {', '.join(map(repr, PRECISIONS))}, got {precision!r}."
            )
        self.device = choose_device(device)
        self.workers = choose_workers(workers, self.device)
        self._settings, self._folder = settings, folder
        sizes = tuple(len(samples) for samples in federation.clients)
        self.excluded = tuple(c for c, size in enumerate(sizes) if size < settings.min_samples)
        eligible = tuple(c for c, size in enumerate(sizes) if size >= settings.min_samples)
        if not eligible:
            raise ConfigError(
                f"No client holds min_samples={settings.min_samples} samples; the largest has {max(sizes)}."
            )
        flat = FlatModel(model())
        self.state: ServerState = algorithm.server.init(flat.params_array(), flat.buffers_array())
        self.last_record: RoundRecord | None = None
        self._memories: dict[int, Memory] = {}
        self._identity = _identity(algorithm, federation, flat, settings)
        recorded = self._load_checkpoint(resume, precision)
        self.start_round = self.state.round + 1
        trainer = TrainerSettings(algorithm, model, settings.seed, settings.batch_size, self.device)
        self._executor: Executor = (
            WorkerPool(
                trainer, federation, count=self.workers, dim=flat.dim, num_buffers=flat.buffers.numel()
            )
            if self.workers
            else InProcess(trainer, federation)
        )
        try:
            self.precision, self.precision_reason = self._choose_precision(precision, recorded, federation)
        except BaseException:
            self.close()
            raise
        self._setup = RoundSetup(
            algorithm=algorithm,
            settings=settings,
            layout=flat.layout,
            num_samples=sizes,
            eligible=eligible,
            num_test=len(federation.dataset.test_inputs),
            executor=self._executor,
            precision=self.precision,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers. The results stay readable."""
        self._executor.close()

    @property
    def model(self) -> ModelState:
        """The model and its moments after the last completed round."""
        return self.state.model

    def __next__(self) -> RoundRecord:
        """Run one round. Its checkpoint is on disk before its record is returned."""
        if self.state.round >= self._settings.rounds:
            self.close()
            raise StopIteration
        outcome = run_round(self._setup, self.state, self._memories)
        self.state, self.last_record = outcome.state, outcome.record
        self._memories.update(outcome.memories)
        if self._folder is not None:
            checkpoint = Checkpoint(
                self.state, self._memories, outcome.record, self._identity, self.precision
            )
            self._folder.save(checkpoint, outcome.memories)
        return outcome.record

    def _load_checkpoint(self, resume: bool, precision: Precision) -> str | None:
        """Continue from the checkpoint if there is one; return the precision it was made with."""
        if self._folder is None or not self._folder.exists():
            return None
        if not resume:
            raise CheckpointError(
                f"{self._folder.path} already holds a checkpoint; resume it, or choose another folder."
            )
        found = self._folder.load()
        for what, here in self._identity.items():
            if found.identity.get(what) != here:
                raise CheckpointError(
                    f"The checkpoint in {self._folder.path} belongs to another run: "
                    f"its {what} is {found.identity.get(what)!r}, this run's is {here!r}."
                )
        if precision not in ("auto", found.precision):
            raise CheckpointError(
                f"The run was started in {found.precision} and cannot continue with precision={precision!r}."
            )
        fresh, saved = self.state.model, found.state.model
        if (saved.streams.shape, saved.buffers.shape) != (fresh.streams.shape, fresh.buffers.shape):
            raise CheckpointError(
                f"The checkpoint's streams have shape {saved.streams.shape}, this run's {fresh.streams.shape}."
            )
        self.state, self._memories, self.last_record = found.state, dict(found.memories), found.record
        return found.precision

    def _choose_precision(
        self, precision: Precision, recorded: str | None, federation: Federation
    ) -> tuple[str, str]:
        if recorded is not None:
            return recorded, "as in the checkpoint"
        if precision != "auto":
            return precision, "as asked"
        if federation.dataset.task != "image":
            return "float32", "bfloat16 is tried on image models only"
        ((_, result),) = self._executor.run([ProbeJob(_PROBE_STEPS)])
        seconds = cast("ProbeResult", result).seconds
        low, high = seconds["bfloat16"], seconds["float32"]
        chosen = "bfloat16" if high >= _WORTHWHILE * low else "float32"
        return (
            chosen,
            f"measured: a step takes {low * 1e3:.2f} ms in bfloat16, {high * 1e3:.2f} ms in float32",
        )


def _identity(
    algorithm: Algorithm, federation: Federation, flat: FlatModel, settings: Settings
) -> Mapping[str, Any]:
    """Say what must be equal for a checkpoint to belong to a run. The number of rounds may grow, so it is left out."""
    clients = hashlib.sha256()
    for samples in federation.clients:
        clients.update(len(samples).to_bytes(8, "little"))
        clients.update(np.ascontiguousarray(samples, "<i8").tobytes())
    return {
        "algorithm": describe(algorithm),
        "settings": describe(replace(settings, rounds=1, eval_every=1)),
        "dataset": federation.dataset.name,
        "clients": clients.hexdigest(),
        "layout": flat.layout.fingerprint.hex(),
    }
