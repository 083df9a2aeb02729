"""Replies in, uploads out: everything that comes from a client is checked here, and what is refused is counted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from flwr.app import Message

from comask.algorithms.base import Algorithm, ServerState, Upload
from comask.errors import ComaskError, PayloadError, RefusedUpdateError
from comask.flower.messages import METRICS, RECEIPT, Receipt, read_payload
from comask.flower.metrics import WeightedMetrics, num_examples
from comask.flower.report import Refusal
from comask.wire.container import decode, inspect
from comask.wire.update import ParamLayout

_MAX_TEXT = 300
_PARTS = ("mask", "value", "buffer", "overhead")


@dataclass(frozen=True, slots=True)
class Sent:
    """Who was sent a message."""

    client: int
    node: int


class Intake:
    """Takes in the replies of one round.

    Args:
        algorithm: Its server rule checks the updates.
        state: The server's state before the round.
        layout: The model's layout.
        sent: Who was asked, by message id.
        max_examples: The most samples that a client may claim.

    Attributes:
        accepted: Samples of each client whose upload was handed on.
        held: The broadcast that each of them keeps.
        memory_lost: Those of them that had lost their memory.
        refused: What was not handed on.
        metrics: The means of what the clients measured.
        part_bytes: Bytes of the payloads that arrived, by part.
        num_payloads: How many arrived.
        seconds: Time spent in checks and decoding.
        waited: Time spent waiting for replies.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        state: ServerState,
        layout: ParamLayout,
        sent: Mapping[str, Sent],
        *,
        max_examples: int,
    ) -> None:
        self._algorithm, self._state, self._layout, self._sent = algorithm, state, layout, sent
        self._max_examples = max_examples
        # No coding of a valid update is longer than twice its floats; past that nothing is worth looking at. Some
        # algorithms send up to three streams though only the weights stay with the server.
        floats = max(algorithm.num_streams, 3) * layout.dim + len(state.model.buffers)
        self.max_payload = 8 * floats + 65_536
        self._answered: set[str] = set()
        self.accepted: dict[int, int] = {}
        self.held: dict[int, int] = {}
        self.memory_lost: list[int] = []
        self.refused: list[Refusal] = []
        self.metrics = WeightedMetrics()
        self.part_bytes = dict.fromkeys(_PARTS, 0)
        self.num_payloads = 0
        self.seconds = self.waited = 0.0

    def uploads(self, replies: Iterable[Message]) -> Iterator[Upload]:
        """Yield the uploads that may be added, one reply at a time."""
        arriving = iter(replies)
        while True:
            began = time.perf_counter()
            reply = next(arriving, None)
            arrived = time.perf_counter()
            self.waited += arrived - began
            if reply is None:
                return
            upload = self._admit(reply)
            self.seconds += time.perf_counter() - arrived
            if upload is not None:
                yield upload

    @property
    def dropped(self) -> tuple[int, ...]:
        """The clients that have not answered."""
        return tuple(sent.client for key, sent in self._sent.items() if key not in self._answered)

    def _admit(self, reply: Message) -> Upload | None:
        sent = self._sent.get(reply.metadata.reply_to_message_id)
        try:
            return self._open(reply, self._expect(reply, sent))
        except RefusedUpdateError as error:
            reason, text = error.reason, str(error)
        except PayloadError as error:
            reason, text = "payload", str(error)
        except ComaskError as error:  # whatever else a reader or a check objects to: no reply may end the run
            reason, text = "malformed", str(error)
        self.refused.append(Refusal(-1 if sent is None else sent.client, reason, printable(text)))
        return None

    def _expect(self, reply: Message, sent: Sent | None) -> Sent:
        """Take the first reply to each message, and no other."""
        key = reply.metadata.reply_to_message_id
        if sent is None:
            raise RefusedUpdateError("unsolicited", f"The reply is to message {key!r}, which was not sent.")
        if key in self._answered:
            raise RefusedUpdateError("duplicate", "The message was answered before.")
        self._answered.add(key)
        return sent

    def _open(self, reply: Message, sent: Sent) -> Upload:
        if reply.has_error():
            raise RefusedUpdateError("failed", f"Flower's error {reply.error.code}: {reply.error.reason}")
        if reply.metadata.src_node_id != sent.node:
            raise RefusedUpdateError(
                "wrong-node", f"Node {sent.node} was asked, node {reply.metadata.src_node_id} answered."
            )
        content = reply.content
        receipt = Receipt.from_content(content, RECEIPT)
        round_number = self._state.round + 1
        if receipt.round != round_number:
            raise RefusedUpdateError("stale-round", f"The answer is for round {receipt.round}.")
        if receipt.client != sent.client:
            raise RefusedUpdateError("wrong-client", f"The answer is from client {receipt.client}.")
        if receipt.failure:
            raise RefusedUpdateError("non-finite", receipt.failure)
        payload = read_payload(content)
        if len(payload) > self.max_payload:
            raise RefusedUpdateError(
                "too-large", f"The payload has {len(payload)} bytes, at most {self.max_payload} are allowed."
            )
        self._count(payload)
        weight = num_examples(content, self._max_examples)
        update = decode(payload, dim=self._layout.dim, layout=self._layout)
        self._algorithm.server.check(self._state, update)
        self.accepted[sent.client] = weight
        if receipt.held == round_number:
            self.held[sent.client] = round_number
        if receipt.memory_lost:
            self.memory_lost.append(sent.client)
        self.metrics.add(content.metric_records[METRICS], weight)
        return Upload(sent.client, float(weight), update)

    def _count(self, payload: bytes) -> None:
        info = inspect(payload)
        self.num_payloads += 1
        for part in _PARTS:
            self.part_bytes[part] += getattr(info, f"{part}_bytes")


def printable(text: str) -> str:
    """Return a text from a client as one short line that a terminal can be shown."""
    flat = "".join(character if character.isprintable() else " " for character in text)
    return flat if len(flat) <= _MAX_TEXT else f"{flat[:_MAX_TEXT]}..."
