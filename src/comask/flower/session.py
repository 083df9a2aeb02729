"""The client side for a PyTorch loop: a round between the server's order and the reply."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flwr.app import Context, Message
from torch import nn

from comask.algorithms.base import Algorithm
from comask.errors import ConfigError, NonFiniteError
from comask.flat import FlatModel
from comask.flower.client import Received, answer, decline, receive
from comask.optim import LocalOptimizer
from comask.seeding import derive_seed
from comask.session import ClientRound


def open_round(
    message: Message,
    context: Context,
    model: nn.Module,
    algorithm: Algorithm,
    *,
    folder: Path | str | None = None,
    local_steps: int = 0,
) -> OpenRound:
    """Begin a client's round: the model holds the server's weights, and the optimiser its moments.

    ```python
    @app.train()
    def train(msg: Message, context: Context) -> Message:
        round = open_round(msg, context, model, algorithm)
        for x, y in batches:
            round.optimizer.zero_grad()
            loss(model(x), y).backward()
            round.optimizer.step()
        return round.reply(num_examples=len(data), metrics={"train-loss": ...})
    ```

    Args:
        message: From a `comask.flower.Strategy`.
        context: Flower's. `node_config["comask-folder"]` may name the folder for this node's files.
        model: The module, on the device where it is to be trained; what requires a gradient is trained.
        algorithm: The same as the server's.
        folder: Where the client keeps its residual and the last model; None: as the node's configuration says, or
            `~/.local/state/comask`.
        local_steps: Local steps of a round, the same in all of them: from it and the round's number the steps taken so
            far are counted. Needed only with `bias_correction="global"`.

    Raises:
        ConfigError: If `local_steps` is needed and not given.
        FleetError: If the message cannot be acted on; let it pass: Flower reports it, and the server sends the whole
            model next time.
        PayloadError: If the payload is damaged, or of another model.
    """
    if getattr(algorithm.local, "bias_correction", "none") == "global" and local_steps < 1:
        raise ConfigError(
            f"open_round(local_steps=...) must be at least 1 with bias_correction='global', got {local_steps!r}."
        )
    flat = FlatModel(model)
    received = receive(message, context, flat.layout, algorithm, folder)
    training = ClientRound(
        algorithm,
        flat,
        received.broadcast,
        received.memory,
        received.context,
        steps_before=(received.order.round - 1) * local_steps,
    )
    return OpenRound(received, training)


class OpenRound:
    """A client's round in progress; made by `open_round`.

    Attributes:
        number: The round's number, from 1.
        client: The client's number.
        optimizer: The optimiser that training must use: a `torch.optim.Optimizer`.
    """

    def __init__(self, received: Received, training: ClientRound) -> None:
        self._received, self._training = received, training
        self.number, self.client = received.order.round, received.order.client
        self.optimizer: LocalOptimizer = training.optimizer

    def stream_seed(self, name: str) -> int:
        """Return the seed of a named random stream of this client in this round.

        The simulator seeds `"torch"` (the global generator) and `"batches"` (the order of the samples) with it.
        """
        return derive_seed(self._received.order.seed, name, self.number, self.client)

    def reply(self, num_examples: int, metrics: Mapping[str, float] | None = None) -> Message:
        """End the round: select, encode, keep the residual for when the server has accepted the upload.

        Args:
            num_examples: Samples that this client holds: its weight.
            metrics: Numbers that the server averages, weighted by samples.

        Returns:
            The reply. If training produced NaN or infinity it holds no upload, and the server counts it.

        Raises:
            ConfigError: If `num_examples` is not a positive integer, or a metric takes its name.
        """
        try:
            done = self._training.finish()
        except NonFiniteError as error:
            return decline(self._received, str(error))
        return answer(
            self._received, done.payload, done.memory, num_examples=num_examples, metrics=metrics or {}
        )
