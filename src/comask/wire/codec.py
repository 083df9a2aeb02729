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

ROUNDINGS = ("nearest", "stochastic", "safe")
"""Modes of rounding."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A choice of codings, by name.

    Attributes:
        name: What reports and error messages call it.
        indices: An index coding's name, or `"auto"`.
        values: Value codings' names. One: for every stream. Several: stream `i`, counted across the blocks, uses
            `values[i]`; an update with fewer streams uses the first ones.
        rounding: Modes of rounding, one for every stream or one each, as for `values`: `"nearest"`; `"stochastic"`, up or
            down at random so that the mean is exact; `"safe"`, to the nearest, except that no negative value becomes more
            negative: a second moment that is not negative stays so when the decoded change is added.
        entropy: Whether quantised streams are also coded by the adaptive model, and sent that way where that is shorter: the
            values that come back are the same, for about 60 ns more a value and direction.
    """

    name: str
    indices: str = AUTO
    values: tuple[str, ...] = ("float32",)
    rounding: tuple[str, ...] = ("nearest",)
    entropy: bool = False

    def __post_init__(self) -> None:
        for what, given in (("values", self.values), ("rounding", self.rounding)):
            if not given:
                raise ConfigError(
                    f"Codec({self.name!r}).{what} must have one name for all streams, or one for each."
                )
        for mode in self.rounding:
            if mode not in ROUNDINGS:
                raise UnknownNameError("rounding", mode, ROUNDINGS)

    def value_coding(self, stream: int) -> str:
        """Return the name of the value coding of stream `stream`, counted from 0 across the blocks.

        Raises:
            ConfigError: If there are several codings but none for this stream.
        """
        return self._of_stream("value codings", self.values, stream)

    def rounding_mode(self, stream: int) -> str:
        """Return the mode of rounding of stream `stream`.

        Raises:
            ConfigError: If there are several modes but none for this stream.
        """
        return self._of_stream("modes of rounding", self.rounding, stream)

    def _of_stream(self, what: str, given: tuple[str, ...], stream: int) -> str:
        if len(given) == 1:
            return given[0]
        if stream >= len(given):
            raise ConfigError(
                f"Codec {self.name!r} has {what} for {len(given)} streams, the update has more. "
                "Name one for all streams, or one for each."
            )
        return given[stream]


_MOMENTS = ("nearest", "nearest", "safe")  # the third stream, if there is one, is the second moment

_PRESETS = (
    Codec("exact"),
    # bfloat16 and not float16: changes of the second moment are around 1e-7, where float16 has two significant bits.
    Codec("half", values=("bfloat16",)),
    Codec("compact", values=("linear4", "log4", "log4"), rounding=_MOMENTS, entropy=True),
    Codec("extreme", values=("log2", "log2", "log2"), rounding=_MOMENTS, entropy=True),
    # What the paper counts (Deng et al., arXiv 2405.17932): float32 values, and a bitmap or ceil(log2 d) bits a position.
    Codec("paper-bitmap", indices="bitmap"),
    Codec("paper-index", indices="fixed"),
    # What other systems send: index lists of 32 or 64 bits with float32 values,
    Codec("coo32", indices="coo32"),
    Codec("coo64", indices="coo64"),
    # Golomb-coded gaps with 8-bit uniform weights and 8-bit exponential moments (CE-FedAvg: Mills, Hu and Min, 2020),
    Codec("golomb-8bit", indices="rice", values=("linear8", "log8", "log8")),
    # 12 bits a position within chunks of 4096 and 2-bit values (SparseLoCo: Sarfi et al., arXiv 2508.15706).
    Codec("sparse-loco-12+2", indices="chunk12", values=("log2",)),
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
