"""What one worker does: train a client, test a slice of the test set, or time a few steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from comask.algorithms.base import Algorithm, ClientContext, Memory
from comask.data.dataset import Federation
from comask.errors import NonFiniteError
from comask.flat import FlatModel
from comask.hyperparams import SGDConfig
from comask.optim import LocalOptimizer, LocalSGD
from comask.seeding import derive_rng, derive_seed
from comask.session import ClientRound
from comask.simulation.sampling import batch_indices
from comask.wire.container import decode
from comask.wire.update import Update

ModelFactory = Callable[[], nn.Module]

PRECISIONS = ("float32", "bfloat16")
"""`bfloat16` means autocast; weights, moments, gradients and the optimiser stay float32."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainJob:
    """Train one client for one round.

    Attributes:
        round: From 1.
        client: Who.
        steps: Local steps.
        steps_before: Local steps of earlier rounds.
        memory: What the client kept.
        broadcast_start: Where this client's broadcast starts in what was published.
        broadcast_size: Its length in bytes.
        precision: One of `PRECISIONS`.
    """

    round: int
    client: int
    steps: int
    steps_before: int
    memory: Memory
    broadcast_start: int
    broadcast_size: int
    precision: str


@dataclass(frozen=True, slots=True, eq=False)
class TrainResult:
    """What a client sends back, or why it has nothing to send.

    Attributes:
        client: Who.
        payload: The upload; empty if refused.
        memory: What the client must remember once the upload is accepted.
        loss: Mean training loss over the steps.
        failure: Why there is no upload, or an empty string.
        seconds: By phase: train, mask, encode.
    """

    client: int
    payload: bytes
    memory: Memory
    loss: float
    failure: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvaluateJob:
    """Test the model on a slice of the test set."""

    start: int
    stop: int
    precision: str


@dataclass(frozen=True, slots=True)
class EvaluateResult:
    """Sums over a slice, so that slices add up exactly in any order of workers."""

    correct: int
    targets: int
    loss_sum: float


@dataclass(frozen=True, slots=True)
class ProbeJob:
    """Time training steps in each precision."""

    steps: int


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Median seconds a step, by precision."""

    seconds: dict[str, float]


Job = TrainJob | EvaluateJob | ProbeJob
Result = TrainResult | EvaluateResult | ProbeResult


class LocalTrainer:
    """One model and the data, reused for every job.

    Args:
        algorithm: What is run.
        model_factory: Makes the module; its initial values are never used.
        federation: The data and who holds what.
        seed: The run's root seed.
        batch_size: Samples a step.
        device: `"cpu"` or `"cuda"`.
        read_broadcast: Returns what the round's broadcasts have published, at least up to the byte given.
        read_model: Returns the weights and buffers to test.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        model_factory: ModelFactory,
        federation: Federation,
        *,
        seed: int,
        batch_size: int,
        device: str,
        read_broadcast: Callable[[int], memoryview | bytes],
        read_model: Callable[[], tuple[NDArray[np.float32], NDArray[np.float32]]],
    ) -> None:
        self._algorithm, self._federation, self._seed, self._batch_size = (
            algorithm,
            federation,
            seed,
            batch_size,
        )
        self._read_broadcast, self._read_model = read_broadcast, read_model
        self._device = torch.device(device)
        self._model = FlatModel(model_factory().to(self._device))
        self._broadcasts: dict[int, Update] = {}
        self._broadcast_round = 0
        dataset = federation.dataset
        if dataset.task == "image":
            mean = torch.tensor(dataset.mean, dtype=torch.float32)
            std = torch.tensor(dataset.std, dtype=torch.float32)
            self._scale = (1.0 / (255.0 * std)).view(-1, 1, 1)
            self._shift = (-mean / std).view(-1, 1, 1)
            self._image_format = self._choose_image_format()

    def run(self, job: Job) -> Result:
        """Do one job, on one torch thread whatever the caller's setting, and leave the global generator as it was."""
        with _one_thread(), torch.random.fork_rng(devices=self._cuda_devices()):
            if isinstance(job, TrainJob):
                return self._train(job)
            if isinstance(job, EvaluateJob):
                return self._evaluate(job)
            return self._probe(job)

    def _train(self, job: TrainJob) -> TrainResult:
        began = time.perf_counter()
        torch.manual_seed(derive_seed(self._seed, "torch", job.round, job.client))
        context = ClientContext(
            round=job.round,
            client=job.client,
            seed=self._seed,
            layout=self._model.layout,
            codec=self._algorithm.uplink,
        )
        client_round = ClientRound(
            self._algorithm,
            self._model,
            self._received(job),
            job.memory,
            context,
            steps_before=job.steps_before,
        )
        batches = batch_indices(
            self._federation.clients[job.client],
            batch_size=self._batch_size,
            steps=job.steps,
            rng=derive_rng(self._seed, "batches", job.round, job.client),
        )
        loss = self._steps(client_round.optimizer, batches, job.precision)
        trained = time.perf_counter()
        try:
            reply = client_round.finish()
        except NonFiniteError as error:
            return TrainResult(job.client, b"", job.memory, loss, str(error), {"train": trained - began})
        seconds = {"train": trained - began, "mask": reply.mask_seconds, "encode": reply.encode_seconds}
        return TrainResult(job.client, reply.payload, reply.memory, loss, "", seconds)

    def _steps(self, optimizer: LocalOptimizer, batches: NDArray[np.int64], precision: str) -> float:
        """Take one step for each row of `batches` and return the mean loss. One gather serves all steps."""
        dataset = self._federation.dataset
        steps, size = batches.shape
        flat = batches.reshape(-1)
        inputs = torch.split(self._inputs(dataset.train_inputs[flat]), size)
        targets = torch.split(self._targets(dataset.train_targets[flat]), size)
        self._model.module.train()
        total = torch.zeros((), device=self._device)
        for x, y in zip(inputs, targets, strict=True):
            optimizer.zero_grad()
            loss = self._loss(x, y, precision)[0]
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
        return float(total.item() / steps)

    def _loss(self, x: Tensor, y: Tensor, precision: str, reduction: str = "mean") -> tuple[Tensor, Tensor]:
        with self._autocast(precision):
            logits = self._model.module(x)
        logits = logits.float().flatten(0, -2)
        return functional.cross_entropy(logits, y.flatten(), reduction=reduction), logits

    @torch.no_grad()
    def _evaluate(self, job: EvaluateJob) -> EvaluateResult:
        params, buffers = self._read_model()
        self._model.load(params, buffers)
        self._model.module.eval()
        dataset = self._federation.dataset
        x = self._inputs(dataset.test_inputs[job.start : job.stop].copy())
        y = self._targets(dataset.test_targets[job.start : job.stop].copy())
        loss, logits = self._loss(x, y, job.precision, reduction="sum")
        correct = int((logits.argmax(1) == y.flatten()).sum())
        return EvaluateResult(correct, y.numel(), float(loss))

    def _probe(self, job: ProbeJob) -> ProbeResult:
        """Time a few steps from the initial state, the precisions in turn so that a busy machine slows both alike."""
        samples = np.arange(min(self._batch_size, len(self._federation.dataset.train_inputs)))
        optimizer = LocalSGD(self._model, SGDConfig(lr=1e-6))  # every later job loads its own weights
        times: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
        for turn in range(job.steps + 1):
            for precision in PRECISIONS:
                began = time.perf_counter()
                self._steps(optimizer, samples[None].repeat(2, axis=0), precision)
                if turn:  # the first turn warms caches up
                    times[precision].append((time.perf_counter() - began) / 2)
        return ProbeResult({precision: float(np.median(seconds)) for precision, seconds in times.items()})

    def _inputs(self, raw: NDArray[np.uint8]) -> Tensor:
        tensor = torch.from_numpy(raw).to(self._device)
        if self._federation.dataset.task == "text":
            return tensor.to(torch.int64)
        scaled = tensor.float().mul_(self._scale.to(self._device)).add_(self._shift.to(self._device))
        # not contiguous(): it returns grey images as they are, with strides that do not say channels-last
        return scaled.to(memory_format=self._image_format)

    @torch.no_grad()
    def _choose_image_format(self) -> torch.memory_format:
        """Choose channels-last, in which convolutions and above all poolings are faster, unless the model cannot do with it.

        A module that calls `x.view(...)` behind a convolution is right in PyTorch's default order alone. Two images tell.
        """
        images = torch.from_numpy(self._federation.dataset.train_inputs[:2]).to(self._device, torch.float32)
        self._model.module.eval()  # batch norm must not learn from them
        try:
            with _one_thread(), torch.random.fork_rng(devices=self._cuda_devices()):
                self._model.module(images.to(memory_format=torch.channels_last))
        except RuntimeError:
            return torch.contiguous_format
        return torch.channels_last

    def _targets(self, raw: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(raw).to(self._device, torch.int64)

    def _received(self, job: TrainJob) -> Update:
        """Decode a broadcast as a device would, but each only once a round."""
        if self._broadcast_round != job.round:
            self._broadcasts.clear()
            self._broadcast_round = job.round
        start = job.broadcast_start
        if start not in self._broadcasts:
            stop = start + job.broadcast_size
            layout = self._model.layout
            payload = memoryview(self._read_broadcast(stop))[start:stop]
            self._broadcasts[start] = decode(payload, dim=layout.dim, layout=layout)
        return self._broadcasts[start]

    def _autocast(self, precision: str) -> torch.autocast | nullcontext[None]:
        if precision == "bfloat16":
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _cuda_devices(self) -> list[torch.device]:
        return [self._device] if self._device.type == "cuda" else []


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
