"""Exact selection against a stable full sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from comask.errors import ConfigError, NonFiniteError
from comask.kernels.select import top_k_abs_indices, top_k_indices
from comask.kernels.threads import limited

# Values that break selections: ties, both zeros, denormals, infinities, and neighbours that differ in the last bit only.
AWKWARD = np.array(
    [
        0.0,
        -0.0,
        1e-45,
        -1e-45,
        1.1e-38,
        1.0,
        -1.0,
        np.nextafter(np.float32(1), np.float32(2)),
        65504,
        3.4e38,
        np.inf,
        -np.inf,
    ],
    np.float32,
)


def by_sorting(scores: np.ndarray, k: int) -> np.ndarray:
    return np.sort(np.argsort(-scores, kind="stable")[:k]).astype(np.uint32)


vectors = st.one_of(
    hnp.arrays(np.float32, st.integers(0, 300), elements=st.sampled_from([float(x) for x in AWKWARD])),
    hnp.arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32, allow_nan=False)),
)


@settings(deadline=None)
@given(vectors, st.data())
def test_equals_a_stable_sort(x: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, x.size))
    assert np.array_equal(top_k_indices(x, k), by_sorting(x, k))
    assert np.array_equal(top_k_abs_indices(x, k), by_sorting(np.abs(x), k))


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -1.0, 1e-45, np.inf, -np.inf])
def test_all_equal_keeps_the_lowest_positions(value: float) -> None:
    x = np.full(1000, value, np.float32)
    for k in (0, 1, 999, 1000):
        assert np.array_equal(top_k_indices(x, k), np.arange(k))


def test_minus_zero_equals_zero() -> None:
    x = np.array([-0.0, 0.0, -0.0, 0.0, -1.0], np.float32)
    assert top_k_indices(x, 2).tolist() == [0, 1]
    assert top_k_abs_indices(x, 3).tolist() == [0, 1, 4]


def test_negative_scores_rank_by_value_not_magnitude() -> None:
    x = np.array([-3, -1, -2, -np.inf], np.float32)
    assert top_k_indices(x, 2).tolist() == [1, 2]
    assert top_k_abs_indices(x, 2).tolist() == [0, 3]


@pytest.mark.parametrize("threads", [1, 2])
def test_parts_of_a_long_vector_agree_with_a_sort(threads: int) -> None:
    # Few distinct values, so that the threshold is a tie that spans the border between the parts.
    x = np.random.default_rng(7).integers(-4, 5, (1 << 20) + 3).astype(np.float32)
    with limited(threads):
        for k in (200_000, x.size):
            assert np.array_equal(top_k_abs_indices(x, k), by_sorting(np.abs(x), k))


def columns_in_step(rng: np.random.Generator, d: int) -> np.ndarray:
    """Scores that depend on the place alone, in a rhythm: what a sample at even distances would misjudge."""
    return (np.arange(d) % 16 == 0) + rng.random(d) * 0.01


LONG = {
    "normal": lambda rng, d: rng.standard_normal(d),
    "all in one half": lambda rng, d: rng.standard_normal(d) * (np.arange(d) < d // 2),
    "columns in step": columns_in_step,
    "few values": lambda rng, d: rng.integers(-3, 4, d),
    "nearly all zero": lambda rng, d: (rng.random(d) < 0.001) * rng.standard_normal(d),
    "infinities": lambda rng, d: np.where(rng.random(d) < 0.01, np.inf, rng.standard_normal(d)),
    "eight decades": lambda rng, d: 10 ** rng.uniform(-40, -2, d),
}


@pytest.mark.parametrize("name", LONG)
def test_long_vectors_that_are_sampled_agree_with_a_sort(name: str) -> None:
    d = 1 << 16
    x = LONG[name](np.random.default_rng(3), d).astype(np.float32)
    for k in (1, d // 1000, d // 20, d // 4):
        assert np.array_equal(top_k_abs_indices(x, k), by_sorting(np.abs(x), k))
        assert np.array_equal(top_k_indices(x, k), by_sorting(x, k))


@pytest.mark.parametrize("name", ["normal", "all in one half"])
def test_long_vectors_in_parts_agree_with_a_sort(name: str) -> None:
    x = LONG[name](np.random.default_rng(4), 1_100_000).astype(np.float32)
    assert np.array_equal(top_k_abs_indices(x, 55_000), by_sorting(np.abs(x), 55_000))


@pytest.mark.parametrize("select", [top_k_indices, top_k_abs_indices])
@pytest.mark.parametrize("nan", [np.nan, -np.nan])
def test_nan_in_a_long_vector(select, nan) -> None:  # type: ignore[no-untyped-def]
    x = np.random.default_rng(5).standard_normal(1_100_000).astype(np.float32)
    x[[700_001, 900_000]] = nan
    with pytest.raises(NonFiniteError, match="nan at position 700001"):
        select(x, 1000)


def test_does_not_write_its_input() -> None:
    x = np.arange(100, dtype=np.float32)
    x.setflags(write=False)
    assert top_k_indices(x[::2], 3).tolist() == [47, 48, 49]


@pytest.mark.parametrize("select", [top_k_indices, top_k_abs_indices])
@pytest.mark.parametrize("nan", [np.nan, -np.nan])
def test_nan_is_named_by_its_first_position(select, nan) -> None:  # type: ignore[no-untyped-def]
    x = np.arange(50, dtype=np.float32)
    x[[17, 31]] = nan
    for k in (0, 3, 50):
        with pytest.raises(NonFiniteError, match="nan at position 17") as caught:
            select(x, k)
        assert caught.value.position == 17


@pytest.mark.parametrize("k", [-1, 6])
def test_k_out_of_range(k: int) -> None:
    with pytest.raises(ConfigError, match=rf"k must be in 0\.\.5, the length of scores, got {k}"):
        top_k_indices(np.zeros(5, np.float32), k)


def test_wrong_type_and_shape() -> None:
    with pytest.raises(ConfigError, match=r"1-D float32 array, got shape \(5,\) float64"):
        top_k_indices(np.zeros(5), 1)
    with pytest.raises(ConfigError, match=r"got shape \(1, 5\) float32"):
        top_k_indices(np.zeros((1, 5), np.float32), 1)
