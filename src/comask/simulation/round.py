"""One round: broadcast, train, upload, decode, aggregate, test."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from comask.algorithms.base import Algorithm, Memory, ServerState, Upload
from comask.cohort import sample_cohort
from comask.errors import PayloadError, RefusedUpdateError
from comask.simulation.local import EvaluateJob, EvaluateResult, TrainJob, TrainResult
from comask.simulation.records import PHASES, Refusal, RoundRecord
from comask.simulation.sampling import drops_out
from comask.simulation.settings import Settings
from comask.simulation.workers import Executor
from comask.wire.container import decode, encode, inspect
from comask.wire.update import ParamLayout

_EVALUATION_SLICE = 500
"""Test samples a job. Fixed, so that the sums do not depend on the number of workers."""


@dataclass(frozen=True, slots=True, eq=False)
class RoundSetup:
    """What stays the same from round to round.

    Attributes:
        algorithm: What is run.
        settings: The run's numbers.
        layout: The model's layout.
        num_samples: Samples of each client.
        eligible: Clients that may be chosen.
        num_test: Size of the test set.
        executor: Where jobs run.
        precision: Of training and testing.
    """

    algorithm: Algorithm
    settings: Settings
    layout: ParamLayout
    num_samples: tuple[int, ...]
    eligible: tuple[int, ...]
    num_test: int
    executor: Executor
    precision: str


@dataclass(frozen=True, slots=True, eq=False)
class RoundOutcome:
    """What a round leaves behind.

    Attributes:
        state: The server's next state.
        memories: The memories of the clients whose upload was added.
        record: The round's record.
    """

    state: ServerState
    memories: Mapping[int, Memory]
    record: RoundRecord


def run_round(setup: RoundSetup, state: ServerState, memories: Mapping[int, Memory]) -> RoundOutcome:
    """Run the round after `state.round`.

    Args:
        setup: What stays the same.
        state: The server's state.
        memories: What clients kept; those absent kept nothing.

    Returns:
        The next state, the memories that changed, and the record.
    """
    return _Round(setup, state, memories).run()


class _Round:
    """A round in the making: its counters, and the order in which things happen."""

    def __init__(self, setup: RoundSetup, state: ServerState, memories: Mapping[int, Memory]) -> None:
        self._setup, self._state, self._memories = setup, state, memories
        self._number = state.round + 1
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._bytes = dict.fromkeys(("mask", "value", "buffer", "overhead", "total"), 0)
        self._accepted: dict[int, Memory] = {}
        self._refused: list[Refusal] = []
        self._places: dict[int, tuple[int, int]] = {}  # of each client's broadcast: first byte and length
        self._num_uploads = 0
        self._loss_sum, self._loss_weight = 0.0, 0.0

    def run(self) -> RoundOutcome:
        setup, began = self._setup, time.perf_counter()
        seed = setup.settings.seed
        cohort = sample_cohort(
            setup.eligible, setup.settings.cohort_fraction, seed=seed, round_number=self._number
        )
        dropped = tuple(
            c for c in cohort if drops_out(c, setup.settings.dropout, seed=seed, round_number=self._number)
        )
        self._broadcast(cohort)
        state = self._aggregate([c for c in cohort if c not in dropped])
        test_loss, test_accuracy = (
            self._evaluate(state) if setup.settings.evaluates(self._number) else (None, None)
        )
        self._seconds["wall"] = time.perf_counter() - began
        record = RoundRecord(
            round=self._number,
            cohort=cohort,
            participants=tuple(self._accepted),
            dropped=dropped,
            refused=tuple(self._refused),
            uplink_bytes=self._bytes["total"],
            downlink_bytes=sum(size for _, size in self._places.values()),
            paper_bits=self._num_uploads * setup.algorithm.paper_bits(setup.layout.dim, self._number),
            mask_bytes=self._bytes["mask"],
            value_bytes=self._bytes["value"],
            buffer_bytes=self._bytes["buffer"],
            overhead_bytes=self._bytes["overhead"],
            train_loss=self._loss_sum / self._loss_weight if self._loss_weight else None,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            seconds=self._seconds,
        )
        return RoundOutcome(state, self._accepted, record)

    def _broadcast(self, cohort: tuple[int, ...]) -> None:
        """Publish the broadcast, and the increment where there is one; note who gets which. What nobody gets is not made."""
        algorithm, layout = self._setup.algorithm, self._setup.layout
        began = time.perf_counter()
        rule = algorithm.increment
        increment = None if rule is None else rule.message(self._state)
        short, whole = b"", b""
        up_to_date: set[int] = set()
        if rule is not None and increment is not None:
            up_to_date = {c for c in cohort if rule.applies(self._memories.get(c, {}), self._number)}
            short = encode(increment, rule.codec, layout=layout) if up_to_date else b""
        if up_to_date != set(cohort):
            whole = encode(algorithm.server.broadcast(self._state), algorithm.downlink, layout=layout)
        self._seconds["encode"] += time.perf_counter() - began
        self._setup.executor.publish_broadcast(short + whole)
        for client in cohort:
            self._places[client] = (0, len(short)) if client in up_to_date else (len(short), len(whole))

    def _aggregate(self, clients: list[int]) -> ServerState:
        """Let the server rule pull the uploads; what it spends beyond waiting for them is aggregation."""
        began = time.perf_counter()
        outside = 0.0

        def uploads() -> Iterator[Upload]:
            nonlocal outside
            left = time.perf_counter()
            for result in self._train(clients):
                upload = self._receive(result)
                if upload is not None:
                    outside += time.perf_counter() - left
                    yield upload
                    left = time.perf_counter()
            outside += time.perf_counter() - left

        state = self._setup.algorithm.server.aggregate(self._state, uploads())
        self._seconds["aggregate"] += time.perf_counter() - began - outside
        return state

    def _train(self, clients: list[int]) -> Iterator[TrainResult]:
        """Train the clients, longest first so that no worker is left with a long one, and yield in cohort order."""
        settings = self._setup.settings
        jobs = {
            client: TrainJob(
                round=self._number,
                client=client,
                steps=settings.steps_for(self._setup.num_samples[client]),
                steps_before=(self._number - 1) * settings.local_steps,
                memory=self._memories.get(client, {}),
                broadcast_start=self._places[client][0],
                broadcast_size=self._places[client][1],
                precision=self._setup.precision,
            )
            for client in clients
        }
        longest_first = sorted(jobs.values(), key=lambda job: -job.steps)
        arrived: dict[int, TrainResult] = {}
        waiting = iter(clients)
        expected = next(waiting, None)
        for _, result in self._setup.executor.run(longest_first):
            trained = cast("TrainResult", result)
            arrived[trained.client] = trained
            while expected in arrived:
                yield arrived.pop(expected)
                expected = next(waiting, None)

    def _receive(self, result: TrainResult) -> Upload | None:
        """Decode and check one upload as a server would; count it; None if it is refused."""
        for phase, seconds in result.seconds.items():
            self._seconds[phase] += seconds
        if result.failure:
            self._refused.append(Refusal(result.client, "non-finite", result.failure))
            return None
        began = time.perf_counter()
        self._count(result.payload)
        try:
            layout = self._setup.layout
            update = decode(result.payload, dim=layout.dim, layout=layout)
            self._setup.algorithm.server.check(self._state, update)
        except PayloadError as error:
            self._refused.append(Refusal(result.client, "payload", str(error)))
            return None
        except RefusedUpdateError as error:
            self._refused.append(Refusal(result.client, error.reason, str(error)))
            return None
        finally:
            self._seconds["decode"] += time.perf_counter() - began
        weight = float(self._setup.num_samples[result.client])
        self._accepted[result.client] = result.memory
        self._loss_sum += weight * result.loss
        self._loss_weight += weight
        return Upload(result.client, weight, update)

    def _count(self, payload: bytes) -> None:
        info = inspect(payload)
        self._num_uploads += 1
        self._bytes["total"] += len(payload)
        self._bytes["mask"] += info.mask_bytes
        self._bytes["value"] += info.value_bytes
        self._bytes["buffer"] += info.buffer_bytes
        self._bytes["overhead"] += info.overhead_bytes

    def _evaluate(self, state: ServerState) -> tuple[float, float]:
        began = time.perf_counter()
        setup = self._setup
        setup.executor.publish_model(state.model.params, state.model.buffers)
        starts = range(0, setup.num_test, _EVALUATION_SLICE)
        jobs = [
            EvaluateJob(start, min(start + _EVALUATION_SLICE, setup.num_test), setup.precision)
            for start in starts
        ]
        found = dict(setup.executor.run(jobs))
        slices = [cast("EvaluateResult", found[number]) for number in range(len(jobs))]
        targets = sum(part.targets for part in slices)
        loss = sum(part.loss_sum for part in slices) / targets
        accuracy = sum(part.correct for part in slices) / targets
        self._seconds["evaluate"] += time.perf_counter() - began
        return loss, accuracy
