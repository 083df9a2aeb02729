"""What a round on Flower reports: the simulator's `RoundRecord`, less what only a simulator knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reply that was not added, and why.

    Attributes:
        client: Who should have answered; -1 if the reply answers nothing that was asked.
        reason: One word for counting: `failed`, `malformed`, `too-large`, `payload`, `shape`, `stale-round`,
            `non-finite`, `weight`, `wrong-client`, `wrong-node`, `duplicate`, `unsolicited`, `too-few` or `diverged`.
        message: The whole story, printable and short.
    """

    client: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One round.

    Attributes:
        round: Counted from 1.
        cohort: The clients chosen for the round.
        participants: Those whose upload was added.
        dropped: Those that never answered.
        refused: Replies that arrived and were not added, each with its reason.
        memory_lost: Clients that took part without what they should have remembered (a lost or damaged file).
        uplink_bytes: Sum of `len(payload)` over the uploads that arrived and have a readable header.
        downlink_bytes: Sum of `len(payload)` over the messages of the round.
        full_downlinks: How many of these messages held the whole model.
        paper_bits: The same uplink in the paper's accounting (formula bits).
        mask_bytes: Part of `uplink_bytes` that says which positions are kept.
        value_bytes: Part that holds the values.
        buffer_bytes: Part that holds buffers, such as batch-norm statistics.
        overhead_bytes: Part that is header and checksum. The four parts sum to `uplink_bytes`.
        metrics: What the participants reported, each name's mean weighted by samples.
        seconds: `wait` for replies, `decode` (check and decode them), `aggregate`, and `wall` for the whole round.
    """

    round: int
    cohort: tuple[int, ...]
    participants: tuple[int, ...]
    dropped: tuple[int, ...]
    refused: tuple[Refusal, ...]
    memory_lost: tuple[int, ...]
    uplink_bytes: int
    downlink_bytes: int
    full_downlinks: int
    paper_bits: int
    mask_bytes: int
    value_bytes: int
    buffer_bytes: int
    overhead_bytes: int
    metrics: Mapping[str, float]
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain data for one line of a log."""
        return asdict(self)
