"""Section 9: what a mask must cost."""

import math

import pytest

from comask.errors import ConfigError
from comask.theory import binary_entropy, mask_entropy_bits, mask_floor_bits, payload_floor_bits


@pytest.mark.parametrize(
    ("dim", "num_kept"), [(1, 0), (1, 1), (10, 3), (1000, 50), (4096, 4095), (20_000, 10_000)]
)
def test_floor_is_the_log_of_the_binomial(dim, num_kept):
    exact = math.comb(dim, num_kept)
    bits = (
        math.log2(exact)
        if exact < 10**300
        else exact.bit_length() - 1 + math.log2(exact / (1 << exact.bit_length() - 1))
    )
    assert mask_floor_bits(dim, num_kept) == pytest.approx(bits, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 17, 1000, 11_173_962])
@pytest.mark.parametrize("density", [0.0, 0.001, 0.05, 0.5, 1.0])
def test_entropy_and_floor_obey_43(dim, density):
    num_kept = round(density * dim)
    entropy, floor = mask_entropy_bits(dim, num_kept), mask_floor_bits(dim, num_kept)
    assert entropy - math.log2(dim + 1) <= floor + 1e-6
    assert floor <= entropy + 1e-6


def test_entropy_in_bits():
    assert binary_entropy(0.5) == 1
    assert binary_entropy(0.0) == binary_entropy(1.0) == 0
    assert binary_entropy(0.11) == pytest.approx(0.499916, abs=1e-6)


def test_a_shared_mask_is_paid_once():
    # ResNet-18 with 11.17 M weights at density 0.05: 7.10 MB shared, and two more masks otherwise.
    shared, separate = (payload_floor_bits(11_173_962, 558_698, shared_mask=s) for s in (True, False))
    assert shared / 8e6 == pytest.approx(7.104, abs=1e-3)
    assert separate - shared == pytest.approx(2 * mask_floor_bits(11_173_962, 558_698))


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match=r"probability must be in \[0, 1\], got 1\.5"):
        binary_entropy(1.5)
    with pytest.raises(
        ConfigError, match=r"num_kept must be in 0\.\.dim and dim at least 1, got num_kept=4, dim=3"
    ):
        mask_floor_bits(3, 4)
