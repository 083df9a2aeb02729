"""Gather, scatter-add and the search for non-finite values."""

import numpy as np
import pytest

from comask.errors import ConfigError
from comask.kernels.rows import first_non_finite, gather_rows, scatter_add_rows

RNG = np.random.default_rng(3)


def test_gather_is_fancy_indexing() -> None:
    matrix = RNG.standard_normal((3, 50)).astype(np.float32)
    indices = np.array([0, 7, 7, 49], np.uint32)
    out = np.empty((3, 4), np.float32)
    gather_rows(matrix, indices, out)
    assert np.array_equal(out, matrix[:, indices])


def test_scatter_add_sums_in_double_precision() -> None:
    acc = np.full((2, 6), 1e9)
    indices = np.array([1, 5], np.uint32)
    values = np.array([[0.1, 0.2], [0.3, 0.4]], np.float32)
    scatter_add_rows(acc, indices, values, 0.25)
    expected = np.full((2, 6), 1e9)
    expected[:, indices] += 0.25 * values.astype(np.float64)
    assert np.array_equal(acc, expected)


def test_no_indices_is_no_work() -> None:
    empty = np.empty(0, np.uint32)
    acc = np.ones((2, 3))
    scatter_add_rows(acc, empty, np.empty((2, 0), np.float32), 1.0)
    gather_rows(np.ones((2, 3), np.float32), empty, np.empty((2, 0), np.float32))
    assert np.array_equal(acc, np.ones((2, 3)))


def test_an_index_out_of_range_is_named_and_nothing_is_added() -> None:
    acc = np.zeros((1, 4))
    indices = np.array([0, 4], np.uint32)
    with pytest.raises(ConfigError, match=r"indices\[1\] is 4, it must be below 4"):
        scatter_add_rows(acc, indices, np.ones((1, 2), np.float32), 1.0)
    assert not acc.any()
    with pytest.raises(ConfigError, match=r"indices\[1\] is 4, it must be below 4"):
        gather_rows(np.zeros((1, 4), np.float32), indices, np.empty((1, 2), np.float32))


def test_shapes_must_fit() -> None:
    indices = np.array([0, 1], np.uint32)
    with pytest.raises(ConfigError, match=r"values must have shape \(2, 2\), got \(1, 2\)"):
        scatter_add_rows(np.zeros((2, 4)), indices, np.ones((1, 2), np.float32), 1.0)
    with pytest.raises(ConfigError, match=r"out must have shape \(1, 2\), got \(1, 3\)"):
        gather_rows(np.zeros((1, 4), np.float32), indices, np.empty((1, 3), np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 4095, 4096, 9999])
def test_first_non_finite(bad: float, place: int) -> None:
    x = RNG.standard_normal(10_000).astype(np.float32)
    assert first_non_finite(x) == -1
    x[place] = bad
    x[-1] = np.nan
    assert first_non_finite(x) == place


def test_first_non_finite_of_nothing_and_of_the_largest() -> None:
    assert first_non_finite(np.empty(0, np.float32)) == -1
    assert first_non_finite(np.array([3.4028235e38, -3.4028235e38, 1e-45], np.float32)) == -1
