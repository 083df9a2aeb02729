"""Whole payloads: what comes back, what it costs, what is refused."""

import subprocess
import sys

import numpy as np
import pytest

from comask.errors import ConfigError, PayloadError, UnknownNameError
from comask.wire import CODECS, Block, Codec, ParamLayout, Update, decode, encode, inspect

RNG = np.random.default_rng(5)
LAYOUT = ParamLayout(("weight", "bias"), ((90, 100), (1000,)))


def masked(dim: int, k: int, streams: int = 3) -> Block:
    indices = np.sort(RNG.choice(dim, k, replace=False)).astype(np.uint32)
    return Block(indices, RNG.standard_normal((streams, k)).astype(np.float32))


def dense(dim: int, streams: int = 3) -> Block:
    return Block(None, RNG.standard_normal((streams, dim)).astype(np.float32))


def assert_same(a: Update, b: Update) -> None:
    assert (a.dim, a.round, len(a.blocks)) == (b.dim, b.round, len(b.blocks))
    assert np.array_equal(a.buffers, b.buffers)
    for x, y in zip(a.blocks, b.blocks, strict=True):
        assert np.array_equal(x.values, y.values)
        assert (x.indices is None) == (y.indices is None)
        assert x.indices is None or np.array_equal(x.indices, y.indices)


UPDATES = {
    "shared mask": Update(10_000, (masked(10_000, 500),), round=3),
    "three masks": Update(10_000, tuple(masked(10_000, k, 1) for k in (500, 1, 0))),
    "dense": Update(10_000, (dense(10_000),)),
    "dense and sparse": Update(10_000, (dense(10_000, 1), masked(10_000, 20, 2))),
    "buffers": Update(10_000, (masked(10_000, 500),), buffers=np.arange(7, dtype=np.float32), round=2**40),
    "nothing kept": Update(10_000, (masked(10_000, 0),)),
    "no blocks": Update(10_000, ()),
    "a mask alone": Update(10_000, (masked(10_000, 77, 0),)),
    "one parameter": Update(1, (dense(1),)),
    "one parameter, nothing kept": Update(1, (masked(1, 0),)),
    "the largest dimension": Update(
        2**32, (Block(np.array([0, 2**32 - 1], np.uint32), np.ones((1, 2), np.float32)),)
    ),
}


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("container", [bytes, bytearray, memoryview])
def test_exact_round_trip(name: str, container: type) -> None:
    update = UPDATES[name]
    payload = encode(update)
    assert_same(decode(container(payload), dim=update.dim), update)
    assert encode(update) == payload


@pytest.mark.parametrize("name", UPDATES)
def test_inspect_accounts_for_every_byte(name: str) -> None:
    update = UPDATES[name]
    payload = encode(update)
    info = inspect(payload)
    assert info.total_bytes == len(payload)
    assert info.mask_bytes + info.value_bytes + info.buffer_bytes + info.overhead_bytes == len(payload)
    assert (info.round, info.dim, info.fingerprint) == (update.round, update.dim, None)
    assert info.buffer_bytes == 4 * update.buffers.size
    assert info.value_bytes == sum(4 * block.values.size for block in update.blocks)
    assert [block.num_kept for block in info.blocks] == [block.num_kept for block in update.blocks]


def test_overhead_of_a_typical_upload_is_at_most_64_bytes() -> None:
    layout = ParamLayout(("w",), ((10_000_000,),))
    update = Update(10_000_000, (masked(10_000_000, 500_000),), round=100_000)
    assert inspect(encode(update, layout=layout)).overhead_bytes <= 64


def test_positions_of_a_dense_block_cost_nothing() -> None:
    everything = np.arange(1000, dtype=np.uint32)
    values = RNG.standard_normal((2, 1000)).astype(np.float32)
    payload = encode(Update(1000, (Block(everything, values),)))
    assert inspect(payload).mask_bytes == 0
    assert decode(payload, dim=1000).blocks[0].indices is None
    assert payload == encode(Update(1000, (Block(None, values),)))


def test_a_layout_must_be_shown_to_decode() -> None:
    update = Update(10_000, (masked(10_000, 50),))
    payload = encode(update, layout=LAYOUT)
    assert inspect(payload).fingerprint == LAYOUT.fingerprint
    assert_same(decode(payload, dim=10_000, layout=LAYOUT), update)
    with pytest.raises(PayloadError, match=r"decode was called without one\. \[layout\]"):
        decode(payload, dim=10_000)
    other = ParamLayout(("weight", "bias"), ((100, 90), (1000,)))
    with pytest.raises(
        PayloadError,
        match=f"coded with layout {LAYOUT.fingerprint.hex()}, the receiver's is {other.fingerprint.hex()}",
    ):
        decode(payload, dim=10_000, layout=other)


def test_a_payload_without_a_layout_needs_none() -> None:
    update = Update(10_000, (masked(10_000, 50),))
    assert_same(decode(encode(update), dim=10_000, layout=LAYOUT), update)


def test_a_layout_of_another_dimension_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ConfigError, match="layout has 10000 entries, the update has 5"):
        encode(Update(5, ()), layout=LAYOUT)
    with pytest.raises(ConfigError, match="layout has 10000 entries, dim is 5"):
        decode(encode(Update(5, ())), dim=5, layout=LAYOUT)


def test_the_receiver_bounds_the_streams() -> None:
    update = Update(100, (masked(100, 5, 3), masked(100, 5, 2)))
    assert decode(encode(update), dim=100, max_streams=5).num_streams == 5
    with pytest.raises(PayloadError, match="5 streams in 2 blocks, the receiver allows 4"):
        decode(encode(update), dim=100, max_streams=4)
    with pytest.raises(PayloadError, match="0 streams in 17 blocks, the receiver allows 16"):
        decode(encode(Update(100, (masked(100, 0, 0),) * 17)), dim=100)


def test_what_is_decoded_does_not_share_memory_with_the_payload() -> None:
    update = Update(100, (dense(100),), buffers=np.ones(3, np.float32))
    payload = bytearray(encode(update))
    decoded = decode(payload, dim=100)
    payload[:] = bytes(len(payload))
    assert_same(decoded, update)


@pytest.mark.parametrize("indices", [[3, 3], [4, 3], [3, 10]])
def test_positions_must_be_increasing_and_below_dim(indices: list[int]) -> None:
    block = Block(np.array(indices, np.uint32), np.zeros((1, 2), np.float32))
    with pytest.raises(
        ConfigError, match=rf"indices\[1\] is {indices[1]}; indices must be strictly increasing and below 10"
    ):
        encode(Update(10, (block,)))


def test_values_may_be_views() -> None:
    matrix = RNG.standard_normal((40, 4)).astype(np.float32)
    update = Update(40, (Block(None, matrix.T),))
    assert np.array_equal(decode(encode(update), dim=40).blocks[0].values, matrix.T)


def test_each_stream_has_its_own_coding() -> None:
    codec = Codec("mixed", values=("float32", "bfloat16", "float16"))
    update = Update(100, (masked(100, 10, 1), masked(100, 20, 2)))
    info = inspect(encode(update, codec))
    assert [block.values for block in info.blocks] == [("float32",), ("bfloat16", "float16")]
    assert [block.value_bytes for block in info.blocks] == [(40,), (40, 40)]
    with pytest.raises(ConfigError, match="'mixed' has value codings for 3 streams, the update has more"):
        encode(Update(100, (masked(100, 10, 4),)), codec)


def test_half_takes_half() -> None:
    update = Update(10_000, (masked(10_000, 500),))
    assert inspect(encode(update, "half")).value_bytes * 2 == inspect(encode(update)).value_bytes


def test_unknown_names_are_told_the_nearest() -> None:
    update = Update(100, (masked(100, 10),))
    with pytest.raises(UnknownNameError, match=r"Unknown codec 'exat'\. Did you mean 'exact'\?"):
        encode(update, "exat")
    with pytest.raises(UnknownNameError, match=r"Unknown index coding 'rise'\. Did you mean 'rice'\?"):
        encode(update, Codec("x", indices="rise"))
    with pytest.raises(UnknownNameError, match=r"Unknown value coding 'float23'\. Did you mean 'float32'\?"):
        encode(update, Codec("x", values=("float23",)))


def test_a_forced_coding_that_cannot_express_the_mask() -> None:
    with pytest.raises(ConfigError, match="Index coding 'dense' cannot express 10 positions of 100"):
        encode(Update(100, (masked(100, 10),)), Codec("x", indices="dense"))


def test_a_codec_names_a_value_coding() -> None:
    with pytest.raises(ConfigError, match=r"Codec\('x'\)\.values must have one name for all"):
        Codec("x", values=())


def test_round_is_in_range() -> None:
    with pytest.raises(ConfigError, match=r"Update\.round must be in .*, got -1"):
        encode(Update(1, (), round=-1))


@pytest.mark.parametrize("name", CODECS)
def test_presets_are_filed_under_their_names(name: str) -> None:
    assert CODECS[name].name == name


def test_importing_the_format_compiles_nothing_and_brings_no_torch() -> None:
    code = (
        "import sys, comask.wire\n"
        "from comask.kernels import bits, golomb, rows, select\n"
        "kernels = [f for m in (bits, golomb, rows, select) for f in vars(m).values() if hasattr(f, 'signatures')]\n"
        "assert len(kernels) > 10\n"
        "assert not [f for f in kernels if f.signatures]\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
