"""Coded symbols: the same values in fewer bytes, and nothing but those bytes."""

import sys
from pathlib import Path

import numpy as np
import pytest

from comask.errors import PayloadError
from comask.wire import VALUE_CODINGS, Block, Codec, Update, decode, encode, inspect
from comask.wire.header import seal

sys.path.insert(0, str(Path(__file__).parents[2] / "vectors"))
import reference_decoder
from make_vectors import related

CODED = [name for name in VALUE_CODINGS if name.endswith("-coded")]
RNG = np.random.default_rng(31)


def one_block(values: np.ndarray) -> Update:
    return Update(values.shape[1], (Block(None, values),))


def streams(k: int) -> np.ndarray:
    """Three streams that know of each other, as the changes of weights and moments do."""
    first = RNG.standard_normal(k) * np.exp(np.sin(np.arange(k) / 300))
    second = first / 2 + RNG.standard_normal(k) / 8
    return np.stack([first, second, second * second]).astype(np.float32)


@pytest.mark.parametrize("name", CODED)
def test_the_values_are_those_of_the_plain_coding(name: str) -> None:
    update = one_block(streams(70_000 if name == "log4-coded" else 3000))
    plain, coded = (Codec("one", values=(each,)) for each in (name.removesuffix("-coded"), name))
    ours, theirs = (
        decode(encode(update, codec), dim=update.dim).blocks[0].values for codec in (coded, plain)
    )
    assert np.array_equal(ours, theirs)
    assert VALUE_CODINGS[name].number == VALUE_CODINGS[plain.values[0]].number + 16


@pytest.mark.parametrize(
    ("values", "share"), [(("linear4", "log4", "log4"), 0.75), (("sign", "ternary", "log2"), 0.9)]
)
def test_related_streams_take_fewer_bytes(values: tuple[str, ...], share: float) -> None:
    update = one_block(streams(20_000))
    plain = encode(update, Codec("plain", values=values))
    coded = encode(update, Codec("coded", values=values, entropy=True))
    assert len(coded) < share * len(plain)
    assert np.array_equal(
        decode(coded, dim=update.dim).blocks[0].values, decode(plain, dim=update.dim).blocks[0].values
    )


def test_each_stream_takes_the_shorter_way() -> None:
    noise = RNG.integers(-127, 128, 4096)
    noise[::256] = 127  # the scale of every block
    update = one_block(np.stack([noise, noise // 64, noise]).astype(np.float32))
    payload = encode(update, Codec("one", values=("linear8", "linear4", "float32"), entropy=True))
    assert inspect(payload).blocks[0].values == ("linear8", "linear4-coded", "float32")
    assert np.array_equal(decode(payload, dim=4096).blocks[0].values[0], noise)


def test_a_stream_is_cheap_beside_one_that_gives_it_away() -> None:
    values = RNG.standard_normal(20_000).astype(np.float32)
    alone, twice = (
        inspect(encode(one_block(np.stack(each)), Codec("one", values=("log4-coded",)))).value_bytes
        for each in ([values], [values, values])
    )
    assert twice < 1.05 * alone


def _damaged(count: int) -> list[bytes]:
    codings = ("linear4-coded", "log3-coded", "ternary-coded", "linear8-coded", "sign-coded", "log2")
    block = related(1200, 5, 77)
    block = Block(block.indices, np.concatenate([block.values, block.values[::-1]]))
    payload = encode(Update(1200, (block,)), Codec("one", "rice", codings))
    start = len(payload) - inspect(payload).value_bytes - 4
    rng = np.random.default_rng(5)
    damaged = []
    for _ in range(count):
        body = bytearray(payload[:-4])
        for _ in range(int(rng.integers(1, 4))):
            body[int(rng.integers(start, len(body)))] ^= 1 << int(rng.integers(0, 8))
        damaged.append(seal(bytes(body)))
    return damaged


@pytest.mark.parametrize("payload", _damaged(40))
def test_both_decoders_say_the_same_of_damage(payload: bytes) -> None:
    try:
        ours = decode(payload, dim=1200).blocks[0].values
    except PayloadError as error:
        with pytest.raises(reference_decoder.Refused) as refused:
            reference_decoder.decode(payload, 1200)
        assert refused.value.rule == error.rule  # noqa: PT017 - the other outcome is right, too
    else:
        _, _, [(_, theirs)] = reference_decoder.decode(payload, 1200)
        assert np.array_equal(np.array(theirs, np.float32), ours)


def test_groups_longer_than_their_section_are_refused() -> None:
    update = one_block(streams(70_000)[:1])
    payload = bytearray(encode(update, Codec("one", values=("sign-coded",))))
    at = len(payload) - inspect(bytes(payload)).value_bytes - 4 + 2 * -(-70_000 // 256)
    payload[at + 3] = 1
    with pytest.raises(PayloadError, match=r"more than their section\. \[value-length\]"):
        decode(seal(bytes(payload[:-4])), dim=70_000)
