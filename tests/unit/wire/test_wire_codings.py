"""Index and value codings, each alone."""

import numpy as np
import pytest

from comask.errors import ConfigError, PayloadError
from comask.wire import (
    INDEX_CODINGS,
    VALUE_CODINGS,
    Block,
    Codec,
    ParamLayout,
    Update,
    decode,
    encode,
    inspect,
)
from comask.wire.check import check_coding
from comask.wire.coding import Beside, Known
from comask.wire.context import Grid, encode_on
from comask.wire.header import write_varint

RNG = np.random.default_rng(11)


@pytest.mark.parametrize("name", INDEX_CODINGS)
def test_index_coding_keeps_the_laws(name: str) -> None:
    check_coding(INDEX_CODINGS[name])


@pytest.mark.parametrize("name", VALUE_CODINGS)
def test_value_coding_keeps_the_laws(name: str) -> None:
    check_coding(VALUE_CODINGS[name])


@pytest.mark.parametrize("table", [INDEX_CODINGS, VALUE_CODINGS])
def test_numbers_are_unique(table) -> None:  # type: ignore[no-untyped-def]
    numbers = [coding.number for coding in table.values()]
    assert numbers == sorted(set(numbers))


def entropy(density: float) -> float:
    return float(-density * np.log2(density) - (1 - density) * np.log2(1 - density))


@pytest.mark.parametrize("density", [0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001])
def test_rice_is_within_two_percent_of_the_entropy_of_uniform_masks(density: float) -> None:
    dim = 1_000_000
    indices = np.sort(RNG.choice(dim, round(density * dim), replace=False)).astype(np.uint32)
    prepared = INDEX_CODINGS["rice"].prepare(indices, Known(dim))
    ratio = prepared.size * 8 / (dim * entropy(density))
    assert 0.99 < ratio < 1.02, f"{ratio:.4f} of d*H(density)"


@pytest.mark.parametrize("density", [1.0, 0.9, 0.5, 0.3, 0.05, 0.001, 0.0])
def test_auto_takes_the_smallest(density: float) -> None:
    dim = 20_000
    indices = np.flatnonzero(RNG.random(dim) < density).astype(np.uint32)
    update = Update(dim, (Block(indices, np.zeros((1, indices.size), np.float32)),))
    sizes = {
        name: inspect(encode(update, Codec("one", indices=name))).mask_bytes
        for name in INDEX_CODINGS
        if name != "dense" or density == 1
    }
    chosen = inspect(encode(update)).blocks[0]
    assert chosen.mask_bytes == min(sizes.values()) == sizes[chosen.indices]


def through(coding: str, values: list[float]) -> np.ndarray:
    row = np.array([values], np.float32)
    update = Update(row.size, (Block(None, row),))
    return decode(encode(update, Codec("one", values=(coding,))), dim=row.size).blocks[0].values[0]


def test_bfloat16_rounds_to_nearest_even() -> None:
    one, step = 1.0, 2.0**-7  # bfloat16 has 7 stored bits of fraction
    halves = [one + step / 2, one + 3 * step / 2, one + step * 0.51, -one - step / 2]
    assert through("bfloat16", halves).tolist() == [one, one + 2 * step, one + step, -one]


def test_bfloat16_is_the_nearest_of_all_bfloat16s() -> None:
    values = (RNG.choice([-1.0, 1.0], 2000) * 10 ** RNG.uniform(-44, 38, 2000)).astype(np.float32)
    rounded = through("bfloat16", values.tolist()).astype(np.float64)
    bits = rounded.astype(np.float32).view(np.uint32).astype(np.int64)
    for step in (-0x10000, 0x10000):
        neighbour = (bits + step).astype(np.uint32).view(np.float32).astype(np.float64)
        usable = np.isfinite(neighbour) & (np.sign(neighbour) == np.sign(rounded))
        assert (np.abs(rounded - values) <= np.abs(neighbour - values))[usable].all()


@pytest.mark.parametrize("coding", ["float32", "bfloat16", "float16"])
def test_floats_carry_non_finite_values_for_the_receiver_to_refuse(coding: str) -> None:
    decoded = through(coding, [np.nan, np.inf, -np.inf, -0.0])
    assert np.isnan(decoded[0])
    assert decoded[1:].tolist() == [np.inf, -np.inf, 0.0]
    assert np.signbit(decoded[3])


@pytest.mark.parametrize(
    ("coding", "value", "wider"), [("float16", -7e4, "bfloat16"), ("bfloat16", 3.4e38, "float32")]
)
def test_a_value_too_large_is_an_error_and_not_infinity(coding: str, value: float, wider: str) -> None:
    rows = np.array([[1, 1], [1, value]], np.float32)
    update = Update(2, (Block(None, rows),))
    with pytest.raises(
        ConfigError, match=rf"Stream 1 holds .* at entry 1, too large for {coding}\. Use {wider}"
    ):
        encode(update, Codec("small", values=(coding,)))


def test_float16_holds_its_largest_number() -> None:
    assert through("float16", [65504, -65519]).tolist() == [65504, -65504]


@pytest.mark.parametrize(
    ("coding", "value"),
    [("float32", b"\x01\x00\x80\x7f"), ("bfloat16", b"\x81\x7f"), ("float16", b"\x01\x7c")],
)
def test_a_signalling_nan_is_decoded_without_a_warning(coding: str, value: bytes) -> None:
    out = np.zeros(1, np.float32)
    VALUE_CODINGS[coding].decode(memoryview(value), out, Beside())
    assert np.isnan(out[0])


@pytest.mark.parametrize("coding", ["linear4", "log4", "sign", "ternary"])
@pytest.mark.parametrize("scale", [b"\x81\x7f", b"\x80\x7f", b"\x80\xbf"])
def test_a_scale_that_is_none_is_refused_without_a_warning(coding: str, scale: bytes) -> None:
    section = {
        "linear4": scale + b"\x00",
        "sign": scale + b"\x00",
        "log4": b"\x00\x00" + scale + b"\x00\x00\x00",
    }
    with pytest.raises(PayloadError, match=r"\[value-scale\]"):
        VALUE_CODINGS[coding].decode(
            memoryview(section.get(coding, b"\x01\x00" + scale + b"\x00")), np.zeros(1, np.float32), Beside()
        )


@pytest.mark.parametrize(("density", "chosen"), [(0.05, "rice"), (0.001, "rice"), (0.4, "bitmap")])
def test_auto_does_not_model_large_masks_without_structure(density: float, chosen: str) -> None:
    dim = 1_200_000
    indices = np.flatnonzero(np.random.default_rng(3).random(dim) < density).astype(np.uint32)
    assert not INDEX_CODINGS["context"].promising(indices, Known(dim))
    update = Update(dim, (Block(indices, np.zeros((0, indices.size), np.float32)),))
    assert inspect(encode(update)).blocks[0].indices == chosen


def test_auto_models_large_masks_with_structure() -> None:
    rng = np.random.default_rng(4)
    busy = rng.gamma(0.5, size=1200)[:, None] * rng.gamma(0.5, size=1000) * 0.2
    indices = np.flatnonzero(rng.random((1200, 1000)) < busy).astype(np.uint32)
    layout = ParamLayout(("weight",), ((1200, 1000),))
    assert INDEX_CODINGS["context"].promising(indices, Known(layout.dim, layout))
    update = Update(layout.dim, (Block(indices, np.zeros((0, indices.size), np.float32)),))
    assert inspect(encode(update, layout=layout)).blocks[0].indices == "context"


def test_auto_finds_the_rows_of_a_mask_whose_layout_nobody_knows() -> None:
    rng = np.random.default_rng(6)
    kept = rng.random((300, 700)) < rng.gamma(0.2, size=700) * 0.2
    indices = np.flatnonzero(kept).astype(np.uint32)
    update = Update(210_000, (Block(indices, np.zeros((0, indices.size), np.float32)),))
    chosen = inspect(encode(update)).blocks[0]
    plain = INDEX_CODINGS["context"].prepare(indices, Known(210_000))
    told = INDEX_CODINGS["context"].prepare(indices, Known(210_000, ParamLayout(("w",), ((300, 700),))))
    assert chosen.indices == "shaped"
    assert chosen.mask_bytes < 0.8 * plain.size
    assert chosen.mask_bytes < 1.05 * told.size
    assert np.array_equal(decode(encode(update), dim=210_000).blocks[0].indices, indices)


def test_many_short_tensors_take_no_longer_than_few() -> None:
    """A hostile section may name as many tensors as it has bytes for; each costs what its entries cost."""
    shapes = b"".join(map(write_varint, (20_001, 400_000, 400_000, 1, *(1, 1, 1) * 20_000)))
    kept = np.array([0, 419_999], np.uint32)
    grid = Grid([400_000, *[1] * 20_000], [400_000, *[1] * 20_000], [1] * 20_001)
    section = shapes + encode_on(grid, kept)
    decoded = INDEX_CODINGS["shaped"].decode(memoryview(section), 2, Known(420_000))
    assert decoded.tolist() == kept.tolist()


def test_rice_groups_are_checked_where_they_end_up() -> None:
    """Each group is decoded from its own start on: only behind the others can a position be out of range."""
    dim = 200_000
    indices = np.sort(np.random.default_rng(8).choice(dim - 1, 70_000, replace=False)).astype(np.uint32)
    indices[-1] = dim - 1
    section = memoryview(INDEX_CODINGS["rice"].prepare(indices, Known(dim)).write())
    assert np.array_equal(INDEX_CODINGS["rice"].decode(section, indices.size, Known(dim)), indices)
    with pytest.raises(PayloadError, match=r"Group 1 .* at or beyond the dimension\. \[index-range\]"):
        INDEX_CODINGS["rice"].decode(section, indices.size, Known(dim - 1))
