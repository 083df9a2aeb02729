"""Lemmas 4 and 5: what a mask keeps, and what error feedback carries."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comask.errors import ConfigError
from comask.masks import fair_indices
from comask.theory import captured_energy, fair_energy, residual_factor, top_k_energy


@settings(max_examples=100, deadline=None)
@given(dim=st.integers(1, 50), data=st.data(), seed=st.integers(0, 10**6))
def test_top_k_keeps_at_least_its_share(dim, data, seed):
    num_kept = data.draw(st.integers(1, dim))
    values = np.random.default_rng(seed).standard_t(2, size=dim)
    by_hand = np.sort(values**2)[::-1][:num_kept].sum() / np.sum(values**2)
    assert captured_energy(values, num_kept) == pytest.approx(by_hand)
    assert captured_energy(values, num_kept) >= top_k_energy(dim, num_kept) * (1 - 1e-12)


def test_equal_entries_attain_the_share():
    assert captured_energy(np.full(10, -3.0), 3) == pytest.approx(top_k_energy(10, 3))


def test_nothing_is_lost_of_the_zero_vector():
    assert captured_energy(np.zeros(5), 1) == 1.0


def test_the_fair_mask_keeps_what_27_says():
    changes = np.random.default_rng(0).normal(size=(3, 30)).astype(np.float32)
    for num_kept in range(1, 31):
        kept = fair_indices(changes, num_kept)
        share = np.sum(changes[0, kept] ** 2) / np.sum(changes[0] ** 2)
        assert share >= fair_energy(30, num_kept)


def test_residual_factor_is_the_limit_of_the_geometric_series():
    for energy in (0.01, 0.3, 0.9):
        length = 0.0
        for _ in range(20_000):
            length = math.sqrt(1 - energy) * (length + 1)
        assert residual_factor(energy) == pytest.approx(length, rel=1e-9)
        assert residual_factor(energy) <= 2 / energy
    assert residual_factor(1.0) == 0


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match=r"num_kept must be in 1\.\.4, got 5"):
        top_k_energy(4, 5)
    with pytest.raises(ConfigError, match=r"num_kept must be in 1\.\.4, got 0"):
        captured_energy(np.ones(4), 0)
    with pytest.raises(ConfigError, match=r"energy must be in \(0, 1\], got 0"):
        residual_factor(0)
