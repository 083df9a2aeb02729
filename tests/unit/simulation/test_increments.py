"""The short way down in a simulation: who gets it, what it costs, and that it changes nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from comask.algorithms import make_algorithm
from comask.simulation import simulate
from comask.wire.container import encode
from simulation_jobs import federation, make_small_net


def run(algorithm, *, rounds=5, workers=0, **kwargs):
    settings = {"local_steps": 2, "batch_size": 8, "precision": "float32", "device": "cpu", "eval_every": 0}
    with simulate(
        algorithm, federation(), make_small_net, rounds=rounds, seed=3, workers=workers, **settings | kwargs
    ) as simulation:
        return simulation, list(simulation)


@pytest.mark.parametrize("name", ["stc", "efficient-adam", "one-bit-adam"])
def test_increments_change_bytes_down_and_nothing_else(name):
    options = {"warmup_rounds": 2} if name == "one-bit-adam" else {}
    algorithm = make_algorithm(name, **options)
    kwargs = {"cohort_fraction": 0.7, "dropout": 0.2, "rounds": 6}
    short, short_records = run(algorithm, **kwargs)
    whole, whole_records = run(replace(algorithm, increment=None), **kwargs)
    np.testing.assert_array_equal(short.model.streams, whole.model.streams)
    assert [r.uplink_bytes for r in short_records] == [r.uplink_bytes for r in whole_records]
    assert sum(r.downlink_bytes for r in short_records) < sum(r.downlink_bytes for r in whole_records)


def test_only_those_who_took_part_get_the_increment():
    """Each client that took part in the round before gets the increment, each other one the whole: counted to the byte."""
    algorithm = make_algorithm("stc", density=0.1, downlink_density=0.1)
    simulation, records = run(algorithm, cohort_fraction=0.7, dropout=0.3, rounds=8)
    whole = len(encode(algorithm.server.broadcast(simulation.state), algorithm.downlink)) + 8  # a fingerprint
    followers = 0
    for before, record in pairwise(records):
        short = set(record.cohort) & set(before.participants)
        followers += len(short)
        rest = record.downlink_bytes - whole * (len(record.cohort) - len(short))
        assert 0.05 * whole * len(short) <= rest <= 0.35 * whole * len(short)
    assert followers


def test_a_worker_gets_the_same_broadcasts():
    algorithm = make_algorithm("stc", density=0.1)
    kwargs = {"cohort_fraction": 0.7, "dropout": 0.2, "rounds": 3}
    alone, alone_records = run(algorithm, **kwargs)
    pool, pool_records = run(algorithm, workers=1, **kwargs)
    np.testing.assert_array_equal(alone.model.streams, pool.model.streams)
    assert [r.downlink_bytes for r in alone_records] == [r.downlink_bytes for r in pool_records]
