"""Streams of payloads: round trips, positions beyond 32 bits, and refusals."""

import io
from collections.abc import Iterator

import numpy as np
import pytest

from comask.errors import ConfigError, PayloadError
from comask.wire import Block, Update, read_stream, write_stream

RNG = np.random.default_rng(31)


def parts(spans: list[int]) -> Iterator[Update]:
    for span in spans:
        k = min(span - 1, 5)
        indices = np.unique(np.linspace(0, span - 1, k).astype(np.uint32))
        yield Update(span, (Block(indices, np.full((2, indices.size), span, np.float32)),))


def written(spans: list[int]) -> bytes:
    file = io.BytesIO()
    assert write_stream(file, parts(spans), dim=sum(spans)) == len(file.getvalue())
    return file.getvalue()


def test_round_trip() -> None:
    spans = [1000, 2, 2500]
    back = list(read_stream(io.BytesIO(written(spans)), dim=3502))
    assert [start for start, _ in back] == [0, 1000, 1002]
    for (_, ours), theirs in zip(back, parts(spans), strict=True):
        assert np.array_equal(ours.blocks[0].indices, theirs.blocks[0].indices)
        assert np.array_equal(ours.blocks[0].values, theirs.blocks[0].values)


def test_positions_pass_32_bits() -> None:
    spans = [2**32, 2**32, 100]
    data = written(spans)
    assert len(data) < 500
    back = list(read_stream(io.BytesIO(data), dim=sum(spans), max_span=2**32))
    assert back[-1][0] == 2**33
    assert back[-1][0] + int(back[-1][1].blocks[0].indices[-1]) == 2**33 + 99


def test_parts_must_cover_the_vector() -> None:
    with pytest.raises(ConfigError, match="The parts cover 5 positions, dim is 6"):
        write_stream(io.BytesIO(), parts([2, 3]), dim=6)
    with pytest.raises(ConfigError, match="The parts cover 5 positions or more, dim is 4"):
        write_stream(io.BytesIO(), parts([2, 3]), dim=4)
    with pytest.raises(ConfigError, match=r"dim must be in 1\.\.2\*\*63 - 1, got 0"):
        write_stream(io.BytesIO(), parts([]), dim=0)


def refused(data: bytes, match: str, dim: int = 30, max_span: int = 1000) -> None:
    with pytest.raises(PayloadError, match=match):
        list(read_stream(io.BytesIO(data), dim=dim, max_span=max_span))


def test_refusals() -> None:
    good = written([10, 20])
    first, second = written([10]), written([20])
    refused(b"\x00" + good[1:], r"A stream starts with c0 4d 53 53 01\. \[stream\]")
    refused(good, r"The stream is for 30 parameters, the receiver has 31\. \[dim\]", dim=31)
    refused(good, r"A span of 20 from 10 on; 15 are allowed", max_span=15)
    refused(good + b"\x00", "Bytes stand after the end of the stream")
    refused(good[:-1] + b"\x99", "payloads were lost or exchanged")
    refused(good[:6] + second[6:-5] + first[6:-5] + good[-5:], "payloads were lost or exchanged")
    refused(good[:6] + first[6:-5] + b"\x00" + good[-4:], "The stream ends after 10 of 30 positions")
    refused(
        good[:6] + b"\xff\xff\xff\xff\xff\xff\x7f", "A payload of .* bytes is longer than spans of 1000 need"
    )


def test_every_truncation_is_refused() -> None:
    good = written([10, 20])
    for length in range(len(good)):
        refused(good[:length], r"\[(stream|varint|truncated)\]")
