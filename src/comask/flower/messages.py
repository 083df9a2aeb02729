"""What travels inside Flower's messages: one payload, a header each way, and the stock records beside them.

```
server -> client    comask.order    ConfigRecord   Order          client -> server    comask.receipt   ConfigRecord   Receipt
                    comask.payload  ArrayRecord    one Array                          comask.payload   ArrayRecord    one Array
                    config          ConfigRecord   the app's                          metrics          MetricRecord   the app's
```

A payload is one Array of bytes: Flower stores every Array as an object of its own, so one is the cheapest, and unlike
bytes in a ConfigRecord it is cut into chunks and hashed once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Self

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from comask.errors import FleetError

ORDER, RECEIPT, PAYLOAD = "comask.order", "comask.receipt", "comask.payload"
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
NUM_EXAMPLES = "num-examples"

STYPE = "comask.update.v1"
"""Flower's name for how an Array's bytes are to be read. Anything but numpy's makes `Array.numpy()` refuse them."""

_DATA = "data"
_TYPES: dict[str, type] = {"int": int, "str": str, "bool": bool}


class _Header:
    """A flat dataclass of `int`, `str` and `bool` that a ConfigRecord can hold."""

    __slots__ = ()

    def to_record(self) -> ConfigRecord:
        """Return the record. Empty strings are left out: Flower cannot count a record's bytes with one."""
        return ConfigRecord({key: value for key, value in asdict(self).items() if value != ""})  # type: ignore[call-overload]  # a dataclass in every subclass

    @classmethod
    def from_content(cls, content: RecordDict, name: str) -> Self:
        """Read and check the header of that name.

        Raises:
            FleetError: If it is missing, or a field is missing, unknown or of another type.
        """
        record = content.config_records.get(name)
        if record is None:
            raise FleetError(f"A message holds no {name!r}; it holds: {', '.join(content) or 'nothing'}.")
        found = dict(record)
        values = {}
        for field in fields(cls):  # type: ignore[arg-type]  # a dataclass in every subclass
            kind = _TYPES[str(field.type)]
            value = found.pop(field.name, "" if kind is str else None)
            if type(value) is not kind:
                raise FleetError(f"{name}[{field.name!r}] must be of type {field.type}, got {value!r:.100}.")
            values[field.name] = value
        if found:
            raise FleetError(f"{name} has unknown fields: {', '.join(map(repr, found)):.100}.")
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Order(_Header):
    """What a client is asked to do.

    Attributes:
        run: The run's token, 32 hexadecimal digits: what a client's files are kept under. It outlives a restart of the
            server, unlike Flower's run number.
        round: Counted from 1.
        client: The client's number.
        seed: The run's root seed.
        accepted: The last round in which the server added an upload of this client; 0: none.
        algorithm: Name of the algorithm.
        base: 0: the payload is the broadcast itself. Otherwise it holds what changed since the broadcast of that round.
        digest: What the broadcast must hash to once the changes are applied; empty with `base=0`.
        increment: Whether the payload is the algorithm's own increment in place of the broadcast.
        keep: Whether the client is to keep the broadcast, so that the next one can be sent as changes.
    """

    run: str
    round: int
    client: int
    seed: int
    accepted: int
    algorithm: str
    base: int
    digest: str
    increment: bool
    keep: bool


@dataclass(frozen=True, slots=True)
class Receipt(_Header):
    """What a client answers, beside its payload.

    Attributes:
        round: The order's.
        client: The order's.
        held: The round of the broadcast that the client keeps; 0: none.
        memory_lost: Whether the client had to start from an empty memory though an upload of its own was accepted.
        failure: Why there is no payload: NaN or infinity in training. Empty if there is one.
    """

    round: int
    client: int
    held: int
    memory_lost: bool
    failure: str


def payload_record(payload: bytes) -> ArrayRecord:
    """Wrap a payload."""
    return ArrayRecord({_DATA: Array("uint8", (len(payload),), STYPE, payload)})


def read_payload(content: RecordDict) -> bytes:
    """Return the payload of a message.

    Raises:
        FleetError: If there is none.
    """
    record = content.array_records.get(PAYLOAD)
    array = None if record is None else record.get(_DATA)
    if array is None or array.stype != STYPE:
        raise FleetError(
            f"A message must hold one {STYPE!r} array at {PAYLOAD!r}[{_DATA!r}], and holds none."
        )
    return array.data
