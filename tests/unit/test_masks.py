"""Mask rules: exact, deterministic, and what their names say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from comask.errors import ConfigError, NonFiniteError, UnknownNameError
from comask.masks import MASK_RULES, _top_k_device, fair_indices, mask_rule, num_kept, select, top_k
from comask.wire.update import ParamLayout

floats = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, -1e-45, 3.4e38]),
    st.floats(width=32, allow_nan=False),
)
vectors = hnp.arrays(np.float32, st.integers(1, 60), elements=floats)


def by_full_sort(scores, k):
    return np.sort(np.argsort(-scores.astype(np.float64), kind="stable")[:k])


@given(vectors, st.data())
@settings(deadline=None)
def test_top_k_equals_a_stable_full_sort(scores, data):
    k = data.draw(st.integers(0, len(scores)))
    expected = by_full_sort(scores, k)
    np.testing.assert_array_equal(top_k(scores, k), expected)
    np.testing.assert_array_equal(top_k(torch.from_numpy(scores), k).numpy(), expected)
    np.testing.assert_array_equal(_top_k_device(torch.from_numpy(scores), k).numpy(), expected)


@pytest.mark.parametrize("kind", ["numpy", "tensor", "device"])
def test_top_k_names_the_nan_and_the_range(kind):
    scores = np.array([1.0, 2.0, np.nan, np.nan], np.float32)
    call = {
        "numpy": lambda s, k: top_k(s, k),
        "tensor": lambda s, k: top_k(torch.from_numpy(s), k),
        "device": lambda s, k: _top_k_device(torch.from_numpy(s), k),
    }[kind]
    with pytest.raises(NonFiniteError, match="position 2"):
        call(scores, 1)
    with pytest.raises(ConfigError, match=r"0\.\.(4|d)"):
        call(np.zeros(4, np.float32), 5)


@pytest.mark.parametrize(
    ("density", "dim", "k"),
    [
        (0.0, 10, 0),
        (1.0, 10, 10),
        (0.05, 215_370, 10_768),
        (1e-9, 10, 1),
        (0.25, 10, 2),
        (0.35, 10, 4),
        (0.5, 1, 1),
    ],
)
def test_num_kept(density, dim, k):
    assert num_kept(density, dim) == k


@pytest.mark.parametrize("density", [-0.1, 1.1, float("nan")])
def test_num_kept_refuses(density):
    with pytest.raises(ConfigError, match=r"density must be in \[0, 1\]"):
        num_kept(density, 10)


def test_rules_rank_their_own_stream():
    rng = np.random.default_rng(0)
    delta = rng.standard_normal((3, 500)).astype(np.float32)
    for row, name in enumerate("wmv"):
        np.testing.assert_array_equal(mask_rule(name)(delta, 40), by_full_sort(np.abs(delta[row]), 40))
    with pytest.raises(UnknownNameError, match="Unknown mask rule 'fiar'. Did you mean 'fair'"):
        mask_rule("fiar")


def fair_by_hand(rows, k):
    """Take turns one by one, as the definition says."""
    rankings = [np.argsort(-np.abs(row), kind="stable") for row in rows]
    chosen = []
    for rank in range(rows.shape[1]):
        for ranking in rankings:
            if len(chosen) < k and ranking[rank] not in chosen:
                chosen.append(ranking[rank])
    return np.sort(chosen)


@given(hnp.arrays(np.float32, (3, 17), elements=st.floats(-4, 4, width=16)), st.integers(0, 17))
@settings(deadline=None)
def test_fair_takes_equal_turns(rows, k):
    np.testing.assert_array_equal(fair_indices(rows, k), fair_by_hand(rows, k))


@pytest.mark.parametrize("name", MASK_RULES)
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_select_whole_and_per_tensor(name, density):
    layout = ParamLayout(("a", "empty", "b"), ((30,), (0, 4), (10, 7)))
    delta = np.random.default_rng(1).standard_normal((3, 100)).astype(np.float32)
    whole = select(mask_rule(name), delta, density)
    assert len(whole) == num_kept(density, 100)
    each = select(mask_rule(name), delta, density, layout)
    assert (np.diff(each.astype(np.int64)) > 0).all()
    assert (each < 30).sum() == num_kept(density, 30)
    assert len(each) == num_kept(density, 30) + num_kept(density, 70)
