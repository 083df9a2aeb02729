"""Error feedback loses nothing; weighted sums are means."""

from __future__ import annotations

import numpy as np
import pytest

from comask.aggregate import WeightedSum, check_update
from comask.algorithms import make_algorithm
from comask.algorithms.base import ClientContext
from comask.errors import ConfigError, RefusedUpdateError
from comask.feedback import compensate, residual
from comask.state import ModelState
from comask.wire import Block, Codec, ParamLayout, Update, decode, encode

LAYOUT = ParamLayout(("w",), ((200,),))


def dense(update):
    """What an update adds to each stream."""
    rows = []
    for block in update.blocks:
        for values in block.values:
            row = np.zeros(update.dim, np.float32)
            row[slice(None) if block.indices is None else block.indices] = values
            rows.append(row)
    return np.stack(rows)


@pytest.mark.parametrize("name", ["fedadam-ssm", "fedadam-top"])
@pytest.mark.parametrize(
    ("values", "rounding"),
    [
        ("float32", "nearest"),
        ("bfloat16", "nearest"),
        ("float16", "nearest"),
        ("linear4", "stochastic"),
        ("log4", "nearest"),
    ],
)
def test_sent_plus_residual_is_all_that_changed(name, values, rounding):
    """Over ten rounds, what arrived and what is still kept add up to what training did, on the streams with feedback."""
    algorithm = make_algorithm(
        name, density=0.1, feedback=("w", "v"), codec=Codec("test", values=(values,), rounding=(rounding,))
    )
    rng = np.random.default_rng(0)
    memory, arrived, wanted = {}, np.zeros((3, 200)), np.zeros((3, 200))
    for round_number in range(1, 11):
        start = ModelState(rng.standard_normal((3, 200)).astype(np.float32))
        end = ModelState(start.streams + rng.standard_normal((3, 200)).astype(np.float32))
        context = ClientContext(round_number, 0, 0, LAYOUT, algorithm.uplink)
        update, memory = algorithm.client.finish(start, end, memory, context)
        arrived += dense(decode(encode(update, algorithm.uplink, seed=context.rounding_seed), dim=200))
        wanted += end.streams - start.streams
    assert set(memory) == {"residual"}
    np.testing.assert_allclose(arrived[[0, 2]] + memory["residual"], wanted[[0, 2]], atol=1e-5)
    assert np.abs(arrived[1] - wanted[1]).max() > 0.1  # the stream without feedback did lose something


def test_residual_of_a_dense_exact_update_is_zero():
    wanted = np.ones((3, 200), np.float32)
    update = Update(200, (Block(None, wanted.copy()),))
    np.testing.assert_array_equal(residual(wanted, update, (0, 2), Codec("exact")), np.zeros((2, 200)))


def test_compensate_refuses_a_residual_of_another_model():
    with pytest.raises(ConfigError, match=r"residual must have shape \(1, 200\), got \(1, 7\)"):
        compensate(np.zeros((3, 200), np.float32), np.zeros((1, 7), np.float32), (0,))


def test_feedback_and_buffers_options_are_checked():
    with pytest.raises(ConfigError, match="feedback must name different streams out of w, m, v"):
        make_algorithm("fedadam-ssm", feedback=("w", "w"))
    with pytest.raises(ConfigError, match="buffers must be one of average, local, freeze, got 'drop'"):
        make_algorithm("fedadam-ssm", buffers="drop")


def sparse(rng, dim=200, k=20):
    indices = np.sort(rng.choice(dim, k, replace=False)).astype(np.uint32)
    return Update(
        dim, (Block(indices, rng.standard_normal((3, k)).astype(np.float32)),), np.ones(2, np.float32)
    )


def test_weighted_sum_equals_the_dense_mean():
    rng = np.random.default_rng(0)
    updates, weights = [sparse(rng) for _ in range(5)], [1.0, 2.5, 3.0, 10.0, 0.5]
    total = WeightedSum(3, 200, 2)
    for update, weight in zip(updates, weights, strict=True):
        total.add(update, weight)
    streams, buffers = total.mean()
    expected = sum(w * dense(u).astype(np.float64) for u, w in zip(updates, weights, strict=True)) / sum(
        weights
    )
    np.testing.assert_allclose(streams, expected, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(buffers, [1.0, 1.0], rtol=1e-15)
    assert (total.weight, total.count) == (17.0, 5)


def test_one_client_of_any_weight_is_reproduced_exactly():
    update = sparse(np.random.default_rng(1))
    for weight in (1.0, 3.0, 601.0, 1e6 + 1):
        streams, _ = WeightedSum(3, 200, 2).add(update, weight).mean()
        np.testing.assert_array_equal(streams.astype(np.float32), dense(update))


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_weighted_sum_refuses_weights(weight):
    with pytest.raises(ConfigError, match="weight must be positive and finite"):
        WeightedSum(3, 200, 2).add(sparse(np.random.default_rng(0)), weight)


def test_mean_of_nothing():
    with pytest.raises(ConfigError, match="at least one update"):
        WeightedSum(1, 3).mean()


def poisoned(stream, value):
    update = sparse(np.random.default_rng(2))
    update.blocks[0].values[stream, 4] = value
    return update


@pytest.mark.parametrize(
    ("update", "reason", "message"),
    [
        (
            Update(7, (Block(None, np.zeros((3, 7), np.float32)),)),
            "shape",
            r"= \(3, 200, 2\), got \(3, 7, 0\)",
        ),
        (poisoned(0, np.nan), "non-finite", r"Stream 0 holds nan at position \d+"),
        (poisoned(2, -np.inf), "non-finite", r"Stream 2 holds -inf at position \d+"),
        (
            Update(200, (Block(None, np.zeros((3, 200), np.float32)),), np.array([0, np.inf], np.float32)),
            "non-finite",
            "Buffer 1 is inf",
        ),
    ],
)
def test_check_update_names_what_is_wrong(update, reason, message):
    with pytest.raises(RefusedUpdateError, match=message) as caught:
        check_update(update, num_streams=3, dim=200, num_buffers=2)
    assert caught.value.reason == reason


def test_check_update_names_the_position_in_the_vector():
    update = poisoned(1, np.inf)
    with pytest.raises(RefusedUpdateError, match=f"position {update.blocks[0].indices[4]};"):
        check_update(update, num_streams=3, dim=200, num_buffers=2)


def test_check_update_round():
    with pytest.raises(RefusedUpdateError, match="must belong to round 3, got 0"):
        check_update(
            sparse(np.random.default_rng(0)), num_streams=3, dim=200, num_buffers=2, expected_round=3
        )
