"""What holds for every update, and for every sequence of bytes."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_strategies import codecs, damages, layouts, updates

from comask.errors import PayloadError
from comask.wire import RULES, Codec, ParamLayout, Update, decode, encode, inspect

RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def assert_valid(update: Update, dim: int) -> None:
    """What every receiver may rely on."""
    assert update.dim == dim
    for block in update.blocks:
        assert block.values.shape[1] == (dim if block.indices is None else block.indices.size)
        if block.indices is not None and block.indices.size:
            assert int(block.indices[-1]) < dim
            assert (np.diff(block.indices.astype(np.int64)) > 0).all()


def attempt(payload: bytes, dim: int, layout: ParamLayout | None) -> None:
    """Decode: a valid update comes back, or PayloadError with a rule of the document; anything else fails the test."""
    try:
        update = decode(payload, dim=dim, layout=layout)
    except PayloadError as error:
        assert error.rule in RULES  # noqa: PT017 - either outcome is right
    else:
        assert_valid(update, dim)
        info = inspect(payload)
        assert info.mask_bytes + info.value_bytes + info.buffer_bytes + info.overhead_bytes == len(payload)


@RELAXED
@given(st.data())
def test_positions_and_lossless_values_come_back(data: st.DataObject) -> None:
    update = data.draw(updates())
    layout = data.draw(layouts(update.dim))
    codec = Codec("drawn", data.draw(codecs()).indices)
    decoded = decode(encode(update, codec, layout=layout), dim=update.dim, layout=layout)
    assert (decoded.round, decoded.buffers.tolist()) == (update.round, update.buffers.tolist())
    for ours, theirs in zip(decoded.blocks, update.blocks, strict=True):
        assert np.array_equal(ours.values, theirs.values)
        everything = np.arange(update.dim)
        assert np.array_equal(
            everything if ours.indices is None else ours.indices,
            everything if theirs.indices is None else theirs.indices,
        )


@RELAXED
@given(st.data())
def test_any_codec_gives_a_payload_that_decodes(data: st.DataObject) -> None:
    update, codec = data.draw(updates()), data.draw(codecs())
    layout = data.draw(layouts(update.dim))
    payload = encode(update, codec, layout=layout)
    assert encode(update, codec, layout=layout) == payload
    decoded = decode(payload, dim=update.dim, layout=layout)
    assert_valid(decoded, update.dim)
    for ours, theirs in zip(decoded.blocks, update.blocks, strict=True):
        assert np.isfinite(ours.values).all()
        assert not ours.values[theirs.values == 0].any()


@RELAXED
@given(st.binary(max_size=200), st.integers(1, 100))
def test_any_bytes_are_valid_or_refused(data: bytes, dim: int) -> None:
    attempt(data, dim, None)


@settings(RELAXED, max_examples=300)
@given(st.data())
def test_damage_under_a_repaired_checksum_is_valid_or_refused(data: st.DataObject) -> None:
    update, codec = data.draw(updates()), data.draw(codecs())
    layout = data.draw(layouts(update.dim))
    payload = encode(update, codec, layout=layout)
    attempt(data.draw(damages(payload)), update.dim, layout)
