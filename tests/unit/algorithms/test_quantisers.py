"""Selectors that round, and the formulas of their bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from by_hand import flat_layout, vector

from comask.algorithms.accounting import CodedBits, SignBits, TernaryBits, golomb_bits
from comask.algorithms.quantisers import ChunkTopK, ScaledSign, Ternary, scaled_sign
from comask.errors import ConfigError
from comask.wire import decode, encode
from comask.wire.codec import Codec
from comask.wire.update import Update


def test_scaled_sign_by_hand():
    x = vector(3, -4, 0, 1)
    np.testing.assert_array_equal(scaled_sign(x, "l1"), vector(2, -2, 2, 2))
    np.testing.assert_allclose(scaled_sign(x, "l2"), np.sqrt(26 / 4) * vector(1, -1, 1, 1), rtol=1e-6)
    assert scaled_sign(vector(), "l2").shape == (0,)


def test_mean_magnitude_is_the_best_scale():
    """No other scale of the sign leaves a smaller squared error than ||x||_1 / d."""
    x = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    best = np.sum((x - scaled_sign(x, "l1")) ** 2)
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert np.sum((x - factor * scaled_sign(x, "l1")) ** 2) > best


def test_ternary_by_hand():
    (block,) = Ternary(0.5)(vector(1, -5, 3, 0)[None], flat_layout(4))
    assert block.indices.tolist() == [1, 2]
    np.testing.assert_array_equal(block.values, [[-4, 4]])


def test_chunks_starve_no_part_of_the_vector():
    x = np.concatenate([np.linspace(100, 200, 10), np.linspace(-0.2, -0.1, 10), [1e-3, 2e-3, 0.0]])
    (block,) = ChunkTopK(0.2, chunk=10)(x.astype(np.float32)[None], flat_layout(23))
    assert block.indices.tolist() == [8, 9, 10, 11, 21]  # 2 of 10, 2 of 10, 1 of 3
    np.testing.assert_array_equal(block.values[0], x.astype(np.float32)[block.indices])


@pytest.mark.parametrize("dim", [1, 255, 256, 700])
def test_one_bit_codes_what_the_selector_says(dim):
    """Two-valued streams come back with their signs and one scale, and go through a second time unchanged."""
    x = np.random.default_rng(dim).standard_normal((1, dim)).astype(np.float32)
    update = Update(dim, ScaledSign("l2")(x, flat_layout(dim)))
    codec = Codec("sign", values=("sign",))
    once = decode(encode(update, codec), dim=dim)
    np.testing.assert_allclose(once.blocks[0].values, update.blocks[0].values, rtol=2**-7)
    twice = decode(encode(once, codec), dim=dim)
    np.testing.assert_array_equal(once.blocks[0].values, twice.blocks[0].values)


@pytest.mark.parametrize(("density", "bits"), [(0.01, 8.11), (0.05, 5.79), (0.1, 4.76)])
def test_golomb_bits(density, bits):
    """The published figures; never below the entropy of a gap."""
    assert golomb_bits(density) == pytest.approx(bits, abs=6e-3)
    entropy = -(density * math.log2(density) + (1 - density) * math.log2(1 - density)) / density
    assert golomb_bits(density) >= entropy
    assert golomb_bits(0.0) == golomb_bits(1.0) == 0.0


def test_formulas_of_bits():
    assert TernaryBits(0.01)(10_000) == math.ceil(100 * (1 + golomb_bits(0.01))) + 32
    assert SignBits()(1024) == 1024 + 4 * 16
    assert SignBits(2)(1024) == 1024 + 4 * 16 + 64
    assert CodedBits(("float32", "float16"), 0.5, position_bits=3)(10) == 5 * (3 + 32 + 16)
    assert CodedBits(("linear8",))(256) == 256 * 8 + 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScaledSign("l3"), "norm must be one of l1, l2, got 'l3'"),
        (lambda: Ternary(-1.0), r"density must be in \[0, 1\], got -1.0"),
        (lambda: ChunkTopK(0.1, 0), "chunk must be at least 1, got 0"),
        (lambda: ChunkTopK(1.1), r"density must be in \[0, 1\], got 1.1"),
    ],
)
def test_refused_settings(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
