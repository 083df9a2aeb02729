"""Where jobs run: in this process, or in persistent worker processes that share the data."""

from __future__ import annotations

import ctypes
import multiprocessing as mp
import os
import pickle  # only to tell early that an object cannot travel to a worker; nothing is ever loaded from disk or network
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.base import Algorithm
from comask.data.dataset import Dataset, Federation
from comask.errors import ConfigError, WorkerError
from comask.simulation.local import Job, LocalTrainer, ModelFactory, Result, TrainResult
from comask.simulation.shared import SharedArray, SharedBuffer

_STOP_SECONDS = 5.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """What every worker needs beside the data."""

    algorithm: Algorithm
    model_factory: ModelFactory
    seed: int
    batch_size: int
    device: str


class Executor(Protocol):
    """Runs jobs; what is published is what the jobs read."""

    def publish_broadcast(self, payload: bytes) -> None:
        """Set the payload that `TrainJob`s decode."""
        ...

    def publish_model(self, params: NDArray[np.float32], buffers: NDArray[np.float32]) -> None:
        """Set the model that `EvaluateJob`s test."""
        ...

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[int, Result]]:
        """Run the jobs and yield `(number of the job, result)` as they end."""
        ...

    def close(self) -> None:
        """Free what is held."""
        ...


class InProcess:
    """Runs jobs one after the other in this process."""

    def __init__(self, settings: TrainerSettings, federation: Federation) -> None:
        self._broadcast = b""
        self._model = (np.empty(0, np.float32), np.empty(0, np.float32))
        self._trainer = _make_trainer(
            settings, federation, lambda _size: self._broadcast, lambda: self._model
        )

    def publish_broadcast(self, payload: bytes) -> None:
        """Set the payload that `TrainJob`s decode."""
        self._broadcast = payload

    def publish_model(self, params: NDArray[np.float32], buffers: NDArray[np.float32]) -> None:
        """Set the model that `EvaluateJob`s test."""
        self._model = (params, buffers)

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[int, Result]]:
        """Run the jobs in order."""
        for number, job in enumerate(jobs):
            yield number, self._trainer.run(job)

    def close(self) -> None:
        """Nothing is held."""


class WorkerPool:
    """Runs jobs in worker processes, each with one torch thread and the data mapped, not copied.

    Args:
        settings: What to run; must be picklable, since workers are started afresh (not forked: a fork of a process that
            has used threads may hang).
        federation: The data; copied once into shared memory.
        count: How many workers.
        dim: Number of trained parameters.
        num_buffers: Number of floating-point buffers.

    Raises:
        ConfigError: If the model factory or the algorithm cannot be sent to another process.
    """

    def __init__(
        self, settings: TrainerSettings, federation: Federation, *, count: int, dim: int, num_buffers: int
    ) -> None:
        _require_picklable(settings)
        self._data = _SharedFederation(federation)
        self._broadcast = SharedBuffer()
        self._model = _SharedModel(dim, num_buffers)
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        self._outboxes: list[SharedBuffer] = []
        context = mp.get_context("spawn")
        for number in range(count):
            ours, theirs = context.Pipe()
            outbox = SharedBuffer()
            process = context.Process(
                target=_work,
                args=(theirs, settings, _Mapped(self._data, self._broadcast, self._model, outbox)),
                name=f"comask-worker-{number}",
                daemon=True,
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)
            self._outboxes.append(outbox)

    def publish_broadcast(self, payload: bytes) -> None:
        """Set the payload that `TrainJob`s decode."""
        self._broadcast.write(payload)

    def publish_model(self, params: NDArray[np.float32], buffers: NDArray[np.float32]) -> None:
        """Set the model that `EvaluateJob`s test."""
        self._model.write(params, buffers)

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[int, Result]]:
        """Hand each free worker the next job and yield results as they come.

        Raises:
            WorkerError: If a worker raised or died.
        """
        waiting = deque(enumerate(jobs))
        busy: dict[Connection, int] = {}
        free = list(self._pipes)
        try:
            while waiting or busy:
                while free and waiting:
                    number, job = waiting.popleft()
                    pipe = free.pop(0)
                    self._send(pipe, job)
                    busy[pipe] = number
                for ready in wait(list(busy)):
                    pipe = cast("Connection", ready)
                    result = self._receive(pipe)
                    free.append(pipe)
                    yield busy.pop(pipe), result
        except GeneratorExit:
            for pipe in busy:  # the caller stopped in the middle: leave no answer behind for the next run
                self._receive(pipe)
            raise

    def close(self) -> None:
        """Stop the workers: politely, then not."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(_STOP_SECONDS)
            if process.is_alive():
                process.terminate()
                process.join()
        self._data.close()
        self._model.close()
        for buffer in (self._broadcast, *self._outboxes):
            buffer.close()
        self._pipes, self._processes, self._outboxes = [], [], []

    def _send(self, pipe: Connection, job: Job) -> None:
        try:
            pipe.send(job)
        except OSError:
            self._report_death(pipe)

    def _receive(self, pipe: Connection) -> Result:
        try:
            answer = pipe.recv()
        except (EOFError, OSError):
            self._report_death(pipe)
        if isinstance(answer, str):
            raise WorkerError(f"A simulation worker raised:\n{answer}")
        result, size = cast("tuple[Result, int]", answer)
        if isinstance(result, TrainResult) and size:
            outbox = self._outboxes[self._pipes.index(pipe)]
            result = replace(result, payload=bytes(outbox.view(size)))
        return result

    def _report_death(self, pipe: Connection) -> None:
        process = self._processes[self._pipes.index(pipe)]
        process.join(_STOP_SECONDS)
        raise WorkerError(
            f"The worker process {process.name} ended with exit code {process.exitcode} before it answered. "
            "If this is a script of your own, start the simulation under `if __name__ == '__main__':`; "
            "out of memory is another common cause. `workers=0` runs everything in one process."
        )


class _SharedFederation:
    """A federation whose arrays live in shared memory; sent to each worker once."""

    def __init__(self, federation: Federation) -> None:
        dataset = federation.dataset
        empty = np.empty(0, np.uint8)
        self._arrays = {
            name: SharedArray(getattr(dataset, name))
            for name in ("train_inputs", "train_targets", "test_inputs", "test_targets")
        }
        self._bare = replace(
            dataset,
            train_inputs=empty,
            train_targets=empty,
            test_inputs=empty,
            test_targets=empty,
            groups=None,
        )
        self._clients, self._partition = federation.clients, federation.partition

    def open(self) -> Federation:
        arrays = {name: shared.array() for name, shared in self._arrays.items()}
        dataset: Dataset = replace(self._bare, **cast("Any", arrays))
        return Federation(dataset, self._clients, self._partition)

    def close(self) -> None:
        for shared in self._arrays.values():
            shared.close()


class _SharedModel:
    """Weights and buffers, one after the other."""

    def __init__(self, dim: int, num_buffers: int) -> None:
        self._dim, self._total = dim, dim + num_buffers
        self._buffer = SharedBuffer(4 * self._total)

    def write(self, params: NDArray[np.float32], buffers: NDArray[np.float32]) -> None:
        whole = self._whole()
        whole[: self._dim] = params
        whole[self._dim :] = buffers

    def read(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        whole = self._whole()
        return whole[: self._dim], whole[self._dim :]

    def close(self) -> None:
        self._buffer.close()

    def _whole(self) -> NDArray[np.float32]:
        return np.frombuffer(self._buffer.view(4 * self._total), np.float32)


@dataclass(frozen=True, slots=True)
class _Mapped:
    """The memory that a worker shares with its parent; the outbox is its own, the rest is everybody's."""

    data: _SharedFederation
    broadcast: SharedBuffer
    model: _SharedModel
    outbox: SharedBuffer


def _work(
    pipe: Connection,
    settings: TrainerSettings,
    shared: _Mapped,
) -> None:
    """A worker's life: jobs in, results out, until the pipe closes (which it does when the parent dies, too)."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent decides what it means
    _keep_freed_memory()
    try:
        trainer = _make_trainer(settings, shared.data.open(), shared.broadcast.view, shared.model.read)
        while True:
            job = pipe.recv()
            result = trainer.run(job)
            size = 0
            if isinstance(result, TrainResult):
                size = shared.outbox.write(result.payload)
                result = replace(result, payload=b"")
            pipe.send((result, size))
    except (EOFError, BrokenPipeError):
        os._exit(
            0
        )  # there is nothing to save, and taking torch down in order costs the parent a second or more
    except BaseException:  # noqa: BLE001 -- whatever it was, the parent shall see it and decide
        try:
            pipe.send(traceback.format_exc())
        except OSError:
            return


def _make_trainer(
    settings: TrainerSettings,
    federation: Federation,
    read_broadcast: Callable[[int], memoryview | bytes],
    read_model: Callable[[], tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> LocalTrainer:
    return LocalTrainer(
        settings.algorithm,
        settings.model_factory,
        federation,
        seed=settings.seed,
        batch_size=settings.batch_size,
        device=settings.device,
        read_broadcast=read_broadcast,
        read_model=read_model,
    )


def _require_picklable(settings: TrainerSettings) -> None:
    for what, value in (("model", settings.model_factory), ("algorithm", settings.algorithm)):
        try:
            pickle.dumps(value)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"simulate({what}=...) must be picklable to reach worker processes (a module-level function or a "
                f"functools.partial of one, not a lambda), got {value!r}: {error}. workers=0 has no such limit."
            ) from error


def _keep_freed_memory() -> None:
    """Tell glibc to keep what training frees: otherwise every step gives its activations back and faults them in anew."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc accepts
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def default_workers() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
