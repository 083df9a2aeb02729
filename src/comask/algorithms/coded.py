"""A codec from the names of value codings, as options of algorithms give them."""

from __future__ import annotations

from comask.errors import UnknownNameError
from comask.wire.codec import Codec
from comask.wire.values import VALUE_CODINGS


def coded(name: str, *values: str, safe: int | None = None, entropy: bool = False) -> Codec:
    """Return the codec with these value codings, one for all streams or one for each, and the smallest index coding.

    Args:
        name: What reports call it.
        *values: Names in `VALUE_CODINGS`.
        safe: A stream of changes to a non-negative state, rounded so that the state stays so, if its coding rounds at all.
        entropy: Whether quantised values are entropy-coded too, where that is shorter.

    Raises:
        UnknownNameError: If there is no value coding of one of these names.
    """
    for value in values:
        if value not in VALUE_CODINGS:
            raise UnknownNameError("value coding", value, VALUE_CODINGS)
    modes = ["nearest"] * len(values)
    if safe is not None and "safe" in VALUE_CODINGS[values[safe]].modes:
        modes[safe] = "safe"
    return Codec(f"{name}({', '.join(values)})", values=values, rounding=tuple(modes), entropy=entropy)
