"""A data set in memory, and a data set divided among clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError

Task = Literal["image", "text"]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Train and test arrays of one task, compact enough to sit in shared memory.

    Attributes:
        name: The name it was loaded by.
        task: `"image"`: inputs are uint8 pixels `(n, channels, height, width)`, targets `(n,)` class numbers.
            `"text"`: inputs are uint8 symbols `(n, length)`, targets `(n, length)` the next symbol at each place.
        train_inputs: As above.
        train_targets: uint8.
        test_inputs: As above.
        test_targets: uint8.
        num_classes: Number of classes or symbols.
        mean: Per channel, of pixels scaled to 0..1; empty for text.
        std: Per channel, likewise.
        groups: Shape `(n,)`: the natural client of each training sample (a speaker), or None.
        note: What a report must say about the data's origin, or an empty string.
    """

    name: str
    task: Task
    train_inputs: NDArray[np.uint8]
    train_targets: NDArray[np.uint8]
    test_inputs: NDArray[np.uint8]
    test_targets: NDArray[np.uint8]
    num_classes: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    groups: NDArray[np.int64] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for part, inputs, targets in (
            ("train", self.train_inputs, self.train_targets),
            ("test", self.test_inputs, self.test_targets),
        ):
            if len(inputs) != len(targets):
                raise ConfigError(
                    f"Dataset {self.name!r}: {part} has {len(inputs)} inputs and {len(targets)} targets."
                )


@dataclass(frozen=True, slots=True, eq=False)
class Federation:
    """A data set and who holds which training samples.

    Attributes:
        dataset: The data.
        clients: One array of training positions a client, each ascending; no position is held twice.
        partition: The rule that made it, such as `"dirichlet:0.1"`.
    """

    dataset: Dataset
    clients: tuple[NDArray[np.int64], ...]
    partition: str

    @property
    def num_clients(self) -> int:
        """How many clients there are."""
        return len(self.clients)
