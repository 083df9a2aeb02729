"""Hostile payloads: one named file for each rule, refused by both decoders for that rule and no other reason."""

import io
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from make_abuse import DIM, FOLDER, VALID, cases

from comask.errors import PayloadError
from comask.wire import RULES, Codec, decode, encode, inspect, read_stream
from comask.wire.header import BlockHeader, Header, seal, write_header, write_varint

sys.path.insert(0, str(Path(__file__).parents[1] / "vectors"))
import reference_decoder


def test_there_is_a_file_for_every_rule_and_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.bin")} == set(RULES) == set(cases())


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "stream"])
def test_both_decoders_name_the_rule(rule: str) -> None:
    payload = (FOLDER / f"{rule}.bin").read_bytes()
    assert payload == cases()[rule]
    with pytest.raises(PayloadError, match=rf"\[{rule}\]$") as ours:
        decode(payload, dim=DIM)
    assert ours.value.rule == rule
    with pytest.raises(reference_decoder.Refused) as theirs:
        reference_decoder.decode(payload, DIM)
    assert theirs.value.rule == rule


def test_the_hostile_stream() -> None:
    data = (FOLDER / "stream.bin").read_bytes()
    assert data == cases()["stream"]
    with pytest.raises(PayloadError, match=r"payloads were lost or exchanged\. \[stream\]$"):
        list(read_stream(io.BytesIO(data), dim=DIM))


def test_the_valid_payload_that_they_are_made_from_is_valid() -> None:
    assert encode(decode(VALID, dim=DIM), Codec("rice", "rice")) == VALID


@pytest.mark.parametrize("length", range(len(VALID)))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(PayloadError):
        decode(VALID[:length], dim=DIM)
    with pytest.raises(PayloadError):
        inspect(VALID[:length])


@pytest.mark.parametrize("bit", range(8 * len(VALID)))
def test_every_flipped_bit_is_refused(bit: int) -> None:
    flipped = bytearray(VALID)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PayloadError):
        decode(flipped, dim=DIM)


def bomb(coding: int, k: int, section: bytes) -> bytes:
    return seal(
        write_header(Header(2**32, 1, None, 0, (BlockHeader(coding, k, len(section), (), ()),))) + section
    )


BOMBS = {
    "more positions than bits": bomb(2, 2**32, bytes(1000)),
    "a bitmap that is not there": bomb(1, 2**32, bytes(1000)),
    "dense without values": bomb(2, 2**31, b""),
    "more streams than bytes": seal(b"\xc0MSK\x01\x00\x28\x07\x01\x02\x00\x00" + write_varint(2**62)),
    "more blocks than bytes": seal(b"\xc0MSK\x01\x00\x28\x07" + write_varint(2**62)),
    "more buffers than bytes": seal(b"\xc0MSK\x01\x02\x28\x07" + write_varint(2**62) + b"\x00"),
    "values that are not there": seal(
        write_header(Header(2**32, 1, None, 0, (BlockHeader(0, 2**32, 0, (0, 1, 2), (8, 8, 8)),))) + bytes(24)
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_memory_is_taken(name: str) -> None:
    dim = DIM if "bytes" in name else 2**32
    with pytest.raises(PayloadError):
        decode(BOMBS[name], dim=dim)  # compiles what it needs
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError):
            decode(BOMBS[name], dim=dim)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_dense_block_of_values_is_no_larger_than_its_bytes() -> None:
    values = np.zeros((1, 100), np.float32)
    payload = seal(
        write_header(Header(100, 1, None, 0, (BlockHeader(0, 100, 0, (0,), (400,)),))) + values.tobytes()
    )
    assert np.array_equal(decode(payload, dim=100).blocks[0].values, values)
