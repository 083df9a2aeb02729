"""A codec: which index coding and which value codings an encoder uses.

The receiver never needs a `Codec`: a payload says itself how each of its sections is coded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from comask.errors import ConfigError, UnknownNameError

AUTO = "auto"
"""In place of an index coding's name: the coding that makes each block's index section smallest."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A choice of codings, by name.

    Attributes:
        name: What reports and error messages call it.
        indices: An index coding's name, or `"auto"`.
        values: Value codings' names. One: for every stream. Several: stream `i`, counted across the blocks, uses
            `values[i]`; an update with fewer streams uses the first ones.
    """

    name: str
    indices: str = AUTO
    values: tuple[str, ...] = ("float32",)

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError(f"Codec({self.name!r}).values must name at least one value coding.")

    def value_coding(self, stream: int) -> str:
        """Return the name of the coding of stream `stream`, counted from 0 across the blocks.

        Raises:
            ConfigError: If there are several codings but none for this stream.
        """
        if len(self.values) == 1:
            return self.values[0]
        if stream >= len(self.values):
            raise ConfigError(
                f"Codec {self.name!r} has value codings for {len(self.values)} streams, the update has more. "
                "Name one coding for all streams, or one for each."
            )
        return self.values[stream]


_PRESETS = (
    Codec("exact"),
    # bfloat16 and not float16: changes of the second moment are around 1e-7, where float16 has two significant bits.
    Codec("half", values=("bfloat16",)),
)

CODECS: Mapping[str, Codec] = MappingProxyType({codec.name: codec for codec in _PRESETS})
"""The presets, by name."""


def get_codec(codec: Codec | str) -> Codec:
    """Return the preset of that name; a `Codec` is returned as it is.

    Raises:
        UnknownNameError: If there is no such preset.
    """
    if isinstance(codec, Codec):
        return codec
    if codec not in CODECS:
        raise UnknownNameError("codec", codec, CODECS)
    return CODECS[codec]
