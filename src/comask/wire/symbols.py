"""How the symbols of quantised values are written: side by side in a fixed number of bits, or by an adaptive model.

`docs/format/v1.md`, sections 5.2 to 5.6.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from comask.errors import PayloadError
from comask.kernels import context, threads
from comask.kernels import symbols as kernel
from comask.wire.coding import Beside, Rounding, ValueCoding, Values
from comask.wire.quantised import Quantiser

_GROUP_LENGTH_BYTES = 4


def packed(number: int, name: str, quantiser: Quantiser) -> ValueCoding:
    """Return the coding that spends the same bits on every value."""

    def length(k: int) -> int:
        return quantiser.head_bytes(k) + quantiser.packed_bytes(k)

    def encode(values: Values, rounding: Rounding, beside: Beside) -> bytes:
        head, codes = quantiser.quantise(values, rounding)
        _tell(beside, quantiser, codes)
        return head + quantiser.pack(codes)

    def decode(section: memoryview, out: Values, beside: Beside) -> None:
        head = quantiser.head_bytes(out.size)
        scales = quantiser.read_head(section[:head], out.size)
        codes = quantiser.unpack(section[head:], out.size)
        quantiser.restore(scales, codes, out)
        _tell(beside, quantiser, codes)

    return ValueCoding(
        number,
        lambda k: (length(k), length(k)),
        encode,
        decode,
        quantiser.modes,
        entropy_coded=f"{name}-coded",
    )


def coded(number: int, quantiser: Quantiser) -> ValueCoding:
    """Return the coding of the same values whose symbols go through an adaptive model."""

    def bounds(k: int) -> tuple[int, int]:
        groups = -(-k // kernel.GROUP)
        least = quantiser.head_bytes(k) + _GROUP_LENGTH_BYTES * max(groups - 1, 0)
        return least, least + 2 * (quantiser.digits + 1) * k + 4 * groups

    def encode(values: Values, rounding: Rounding, beside: Beside) -> bytes:
        head, codes = quantiser.quantise(values, rounding)
        symbols = quantiser.symbol_of[codes]
        hints = beside.last_two(values.size)
        _tell(beside, quantiser, codes)

        def encode_group(group: slice) -> bytes:
            return kernel.encode(
                symbols[group], hints[0][group], hints[1][group], quantiser.digits, quantiser.signed_zero
            )

        parts = threads.run(encode_group, [(group,) for group in _groups(values.size)])
        directory = np.array([len(part) for part in parts[:-1]], "<u4").tobytes()
        return b"".join([head, directory, *parts])

    def decode(section: memoryview, out: Values, beside: Beside) -> None:
        groups = _groups(out.size)
        head = quantiser.head_bytes(out.size)
        scales = quantiser.read_head(section[:head], out.size)
        starts = _starts(section, head, len(groups))
        symbols = np.empty(out.size, np.uint8)
        hints = beside.last_two(out.size)

        def decode_group(number: int, group: slice) -> None:
            data = np.frombuffer(section[starts[number] : starts[number + 1]], np.uint8)
            status = kernel.decode(
                data,
                hints[0][group],
                hints[1][group],
                quantiser.digits,
                quantiser.signed_zero,
                symbols[group],
            )
            if status == context.TRAILING:
                raise PayloadError(
                    "value-length", f"Group {number} does not end where its {data.size} bytes end."
                )
            if status == context.BAD_END:
                raise PayloadError(
                    "value-padding", f"Group {number} does not end as its values would be coded."
                )

        threads.run(decode_group, list(enumerate(groups)))
        codes = quantiser.code_of[symbols]
        quantiser.restore(scales, codes, out)
        _tell(beside, quantiser, codes)

    return ValueCoding(number, bounds, encode, decode, quantiser.modes, uses_beside=True)


def _groups(k: int) -> list[slice]:
    return [slice(start, start + kernel.GROUP) for start in range(0, k, kernel.GROUP)]


def _starts(section: memoryview, at: int, num_groups: int) -> list[int]:
    """Return where each group's bytes start, and where the last one's end."""
    first = at + _GROUP_LENGTH_BYTES * max(num_groups - 1, 0)
    lengths = np.frombuffer(section[at:first], "<u4").astype(np.int64)
    starts = [first, *(first + np.cumsum(lengths)).tolist()][: max(num_groups, 1)]
    if starts[-1] > len(section):
        raise PayloadError(
            "value-length", f"The groups have {starts[-1] - len(section)} bytes more than their section."
        )
    if num_groups == 0 and len(section) > first:
        raise PayloadError("value-length", f"No values, and {len(section) - first} bytes for them.")
    return [*starts, len(section)]


def _tell(beside: Beside, quantiser: Quantiser, codes: NDArray[np.uint8]) -> None:
    beside.add(quantiser.hint_of[codes] if beside.wanted else None)
