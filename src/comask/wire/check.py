"""What every coding must do, as one function: the conformance suite of the codings.

Run it on a coding of your own before adding it to a table.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from comask.errors import PayloadError
from comask.wire.coding import (
    Beside,
    IndexCoding,
    Indices,
    Known,
    Rounding,
    ValueCoding,
    Values,
    check_length,
)
from comask.wire.update import ParamLayout


def check_coding(coding: IndexCoding | ValueCoding) -> None:
    """Check an index coding or a value coding on masks and values chosen to break it.

    An index coding must return the very positions, announce its size exactly and write the same bytes each time; a section
    that is cut short or continued must be refused or be the section of other positions. A value coding must
    write the same bytes each time, keep a stream of zeros, turn finite values into finite values, keep the promises of its
    modes of rounding, and refuse sections of another length, or find other values in them if it is an adaptive one.

    Raises:
        AssertionError: If the coding breaks one of these laws; the message says which, on what.
    """
    if isinstance(coding, IndexCoding):
        for name, indices, known in _masks():
            _check_mask(coding, name, indices, known)
    else:
        for name, values in _streams():
            _check_stream(coding, name, values)


def _masks() -> Iterator[tuple[str, Indices, Known]]:
    rng = np.random.default_rng(0)
    for dim in (1, 2, 7, 8, 9, 1000, 70_000):
        layout = ParamLayout(("weight", "bias"), ((dim // 4, 3), (dim - dim // 4 * 3,)))
        for known in (Known(dim), Known(dim, layout)):
            yield "nothing kept", np.empty(0, np.uint32), known
            yield "everything kept", np.arange(dim, dtype=np.uint32), known
            yield "the first", np.zeros(1, np.uint32), known
            yield "the last", np.full(1, dim - 1, np.uint32), known
            yield "every second", np.arange(0, dim, 2, dtype=np.uint32), known
            yield "a run at the end", np.arange(dim - dim // 3, dim, dtype=np.uint32), known
            for density in (0.5, 0.05, 0.001):
                yield f"density {density}", np.flatnonzero(rng.random(dim) < density).astype(np.uint32), known
    far = np.array([0, 1, 2**31, 2**32 - 2, 2**32 - 1], np.uint32)
    yield "the longest gaps", far, Known(2**32)


def _check_mask(coding: IndexCoding, name: str, indices: Indices, known: Known) -> None:
    what = f"{name}, k = {indices.size}, dim = {known.dim}, {'with' if known.layout else 'without'} a layout"
    if coding.scales_with_dim and known.dim == 2**32:
        return  # minutes, or a bitmap of half a gigabyte
    prepared = coding.prepare(indices, known)
    if prepared is None:
        return
    section = prepared.write()
    assert len(section) == prepared.size, f"{what}: announced {prepared.size} bytes and wrote {len(section)}"
    again = coding.prepare(indices, known)
    assert again is not None, f"{what}: expressed once and not again"
    assert again.write() == section, f"{what}: the same positions gave other bytes"
    decoded = coding.decode(memoryview(section), indices.size, known)
    expected = np.arange(known.dim, dtype=np.uint32) if decoded is None else decoded
    assert np.array_equal(expected, indices), f"{what}: other positions came back"
    for other in [section + b"\x00"] + ([section[:-1]] if section else []):
        assert _refuses_or_is_valid(coding, other, indices, known), (
            f"{what}: {len(other)} bytes in place of {len(section)} gave the same or impossible positions"
        )


def _refuses_or_is_valid(coding: IndexCoding, section: bytes, indices: Indices, known: Known) -> bool:
    try:
        decoded = coding.decode(memoryview(section), indices.size, known)
    except PayloadError:
        return True
    if decoded is None or decoded.size != indices.size or np.array_equal(decoded, indices):
        return False
    return bool((np.diff(decoded.astype(np.int64)) > 0).all() and decoded[-1] < known.dim)


def _refuses_or_differs(coding: ValueCoding, section: bytes, values: Values) -> bool:
    try:
        decoded = _decode_values(coding, section, values.size)
    except PayloadError:
        return True
    # Other symbols in a scale of zero are the same values.
    return coding.uses_beside and not (values.any() and np.array_equal(decoded, values))


def _decode_values(coding: ValueCoding, section: bytes, k: int) -> Values:
    check_length(coding, "value", len(section), k)
    out = np.full(k, np.nan, np.float32)
    coding.decode(memoryview(section), out, Beside())
    return out


def _streams() -> Iterator[tuple[str, Values]]:
    rng = np.random.default_rng(1)
    yield "no values", np.empty(0, np.float32)
    yield "one value", np.full(1, 0.37, np.float32)
    yield "zeros", np.zeros(777, np.float32)
    yield "normal", rng.standard_normal(1000).astype(np.float32)
    yield "eight decades", (rng.choice([-1, 1], 1000) * 10.0 ** rng.uniform(-10, -2, 1000)).astype(np.float32)


def _check_stream(coding: ValueCoding, name: str, values: Values) -> None:
    for mode in coding.modes:
        what = f"{name}, k = {values.size}, rounding {mode}"
        section = coding.encode(values, Rounding(0, mode, 17), Beside())
        assert coding.encode(values, Rounding(0, mode, 17), Beside()) == section, (
            f"{what}: the same values gave other bytes"
        )
        decoded = _decode_values(coding, section, values.size)
        assert np.isfinite(decoded).all(), f"{what}: finite values did not come back finite"
        assert values.any() or not decoded.any(), f"{what}: zeros did not stay zeros"
        if mode == "nearest":
            assert not (decoded * values < 0).any(), f"{what}: a sign changed"
        if mode == "safe":
            assert (decoded >= values)[values < 0].all(), f"{what}: a negative value became more negative"
        for other in [section + b"\x00"] + ([section[:-1]] if section else []):
            assert _refuses_or_differs(coding, other, decoded), (
                f"{what}: {len(other)} bytes in place of {len(section)} gave the same values"
            )
