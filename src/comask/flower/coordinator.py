"""A round of the server, between the messages that go out and the replies that come back. Knows no grid."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from comask.algorithms.base import Algorithm, ServerState
from comask.errors import ConfigError
from comask.flower.downlink import Downlink
from comask.flower.intake import Intake, Sent
from comask.flower.messages import CONFIG, ORDER, PAYLOAD, Order, payload_record
from comask.flower.report import Refusal, RoundReport
from comask.kernels.rows import first_non_finite
from comask.wire.update import ParamLayout


@dataclass(frozen=True, slots=True)
class _Asked:
    """A message that was made for a client, until the round is over. Its id is filled in when it is sent."""

    message: Message
    sent: Sent
    payload_bytes: int
    is_full: bool


class Coordinator:
    """The server's state, and what it knows of its clients.

    Args:
        algorithm: What is run.
        layout: The model's layout.
        seed: The run's root seed, in [-2^63, 2^63).
        patches: Whether clients are sent changes to what they hold.
        min_replies: Uploads that a round needs.
        max_examples: The most samples that a client may claim.

    Attributes:
        state: The state after the last completed round; there once `begin` was called.
        run: The run's token: what clients keep their files under.
        accepted: For each client, the last round in which its upload was added.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        layout: ParamLayout,
        *,
        seed: int,
        patches: bool,
        min_replies: int,
        max_examples: int,
    ) -> None:
        for name, value in (("min_replies", min_replies), ("max_examples", max_examples)):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be an integer of at least 1, got {value!r}.")
        if not -(2**63) <= seed < 2**63:
            raise ConfigError(f"seed must fit 64 bits, got {seed!r}.")
        self._algorithm, self._layout, self._seed = algorithm, layout, seed
        self._min_replies, self._max_examples = min_replies, max_examples
        self._patches = patches
        self._asked: list[_Asked] = []
        self._records: dict[int, ArrayRecord] = {}
        self._began = 0.0
        self._held: dict[int, int]
        self._downlink: Downlink
        self.state: ServerState
        self.run: str
        self.accepted: dict[int, int]

    def begin(
        self, state: ServerState, *, run: str | None = None, accepted: Mapping[int, int] | None = None
    ) -> None:
        """Take a state to go on from; what clients hold is not known any more.

        Args:
            state: The state after the last completed round.
            run: The token of the run that is continued; None: this is a new one.
            accepted: What `accepted` was when the state was saved.
        """
        self.state, self.run = state, run or secrets.token_hex(16)
        self.accepted, self._held = dict(accepted or {}), {}
        self._downlink = Downlink(self._algorithm, self._layout, patches=self._patches)

    def ask(self, cohort: Mapping[int, int], config: Mapping[str, object]) -> list[Message]:
        """Make the messages of the next round.

        Args:
            cohort: Node ids by client number, in the order in which replies are to be added.
            config: For the clients' train function; `server-round` is added.
        """
        self._began = time.perf_counter()
        self._downlink.advance(self.state)
        record = ConfigRecord({**config, "server-round": self.state.round + 1})  # type: ignore[dict-item]  # checked by the record
        self._records.clear()
        self._asked = [self._ask(client, node, record) for client, node in cohort.items()]
        return [asked.message for asked in self._asked]

    def take(self, replies: Iterable[Message]) -> RoundReport:
        """Add the uploads to the model, one reply at a time, and count the round.

        Args:
            replies: In any order; the same order gives the same bits.
        """
        before, server = self.state, self._algorithm.server
        # A message that could not be sent has no id, and stays unanswered.
        sent = {
            asked.message.metadata.message_id or f"unsent {position}": asked.sent
            for position, asked in enumerate(self._asked)
        }
        intake = Intake(self._algorithm, before, self._layout, sent, max_examples=self._max_examples)
        began = time.perf_counter()
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked for below
            self.state = server.aggregate(before, intake.uploads(replies))
        aggregated = time.perf_counter() - began - intake.waited - intake.seconds
        self._judge(intake, before)
        for asked in self._asked:
            # Whoever did not answer well may or may not have kept this round's broadcast: it is sent all of the next.
            self._held[asked.sent.client] = intake.held.get(asked.sent.client, 0)
        self.accepted |= dict.fromkeys(intake.accepted, self.state.round)
        return self._report(
            intake, {"wait": intake.waited, "decode": intake.seconds, "aggregate": aggregated}
        )

    def _judge(self, intake: Intake, before: ServerState) -> None:
        """Take a round back that has too few uploads, or that finite uploads have made infinite."""
        if len(intake.accepted) < self._min_replies:
            reason, text = "too-few", f"{len(intake.accepted)} of {self._min_replies} uploads were accepted."
        elif not _is_finite(self.state):
            reason, text = "diverged", "The mean of the round's uploads makes the model infinite."
        else:
            return
        intake.refused += [Refusal(client, reason, text) for client in intake.accepted]
        intake.accepted.clear()
        self.state = self._algorithm.server.aggregate(before, ())

    def _ask(self, client: int, node: int, config: ConfigRecord) -> _Asked:
        accepted = self.accepted.get(client, 0)
        out = self._downlink.outgoing(held=self._held.get(client, 0), accepted=accepted)
        order = Order(
            run=self.run,
            round=self.state.round + 1,
            client=client,
            seed=self._seed,
            accepted=accepted,
            algorithm=self._algorithm.name,
            base=out.base,
            digest=self._downlink.digest if out.base else "",
            increment=out.increment,
            keep=self._downlink.keep,
        )
        # Messages share the record of a payload: Flower hashes and stores it once.
        key = -1 if out.increment else out.base
        if key not in self._records:
            self._records[key] = payload_record(out.payload)
        content = RecordDict({ORDER: order.to_record(), PAYLOAD: self._records[key], CONFIG: config})
        message = Message(
            content, dst_node_id=node, message_type=MessageType.TRAIN, group_id=str(order.round)
        )
        return _Asked(message, Sent(client, node), len(out.payload), is_full=not (out.base or out.increment))

    def _report(self, intake: Intake, seconds: Mapping[str, float]) -> RoundReport:
        parts = intake.part_bytes
        return RoundReport(
            round=self.state.round,
            cohort=tuple(asked.sent.client for asked in self._asked),
            participants=tuple(intake.accepted),
            dropped=intake.dropped,
            refused=tuple(intake.refused),
            memory_lost=tuple(intake.memory_lost),
            uplink_bytes=sum(parts.values()),
            downlink_bytes=sum(asked.payload_bytes for asked in self._asked),
            full_downlinks=sum(asked.is_full for asked in self._asked),
            paper_bits=intake.num_payloads * self._algorithm.paper_bits(self._layout.dim, self.state.round),
            mask_bytes=parts["mask"],
            value_bytes=parts["value"],
            buffer_bytes=parts["buffer"],
            overhead_bytes=parts["overhead"],
            metrics=intake.metrics.means(),
            seconds={**seconds, "wall": time.perf_counter() - self._began},
        )


def _is_finite(state: ServerState) -> bool:
    arrays = (*state.model.streams, state.model.buffers, *state.memory.values())
    return all(first_non_finite(np.ravel(array)) < 0 for array in arrays)
