"""What a simulation reports: one `RoundRecord` a round, plain data that turns into JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

PHASES = ("train", "mask", "encode", "decode", "aggregate", "evaluate")
"""What a round's seconds are split into. Client phases are summed over clients, so with several workers they may
exceed the round's wall-clock time."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An upload that was not added, and why."""

    client: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round.

    Attributes:
        round: Counted from 1.
        cohort: The clients chosen for the round.
        participants: Those whose upload was added.
        dropped: Those that never answered.
        refused: Uploads that arrived or failed and were not added, each with its reason.
        uplink_bytes: Sum of `len(payload)` over all uploads that arrived.
        downlink_bytes: Sum of `len(payload)` over the broadcasts that the cohort received.
        paper_bits: The same uplink in the paper's accounting (formula bits), summed over the uploads that arrived.
        mask_bytes: Part of `uplink_bytes` that says which positions are kept.
        value_bytes: Part that holds the values.
        buffer_bytes: Part that holds buffers, such as batch-norm statistics.
        overhead_bytes: Part that is header and checksum. The four parts sum to `uplink_bytes`.
        train_loss: Mean loss over the local steps of the participants, weighted by samples; None if nobody took part.
        test_loss: Mean loss on the test set after the round; None when the round was not evaluated.
        test_accuracy: Fraction of test targets predicted, in 0..1; None when the round was not evaluated.
        seconds: By phase (`PHASES`), and `wall` for the whole round.
    """

    round: int
    cohort: tuple[int, ...]
    participants: tuple[int, ...]
    dropped: tuple[int, ...]
    refused: tuple[Refusal, ...]
    uplink_bytes: int
    downlink_bytes: int
    paper_bits: int
    mask_bytes: int
    value_bytes: int
    buffer_bytes: int
    overhead_bytes: int
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for one line of `rounds.jsonl`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_json` wrote."""
        known = {f.name: data[f.name] for f in fields(cls)}
        for name in ("cohort", "participants", "dropped"):
            known[name] = tuple(known[name])
        known["refused"] = tuple(Refusal(**item) for item in known["refused"])
        return cls(**known)
