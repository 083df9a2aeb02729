"""What a simulation promises: the same bytes for any number of workers, honest counts, survival of bad clients."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from comask.algorithms import ALGORITHMS, make_algorithm
from comask.errors import ConfigError, WorkerError
from comask.simulation import PHASES, RoundRecord, simulate
from comask.simulation.settings import choose_workers
from simulation_jobs import Deadly, Exploding, Fragile, Noting, Viewing, federation, make_small_net


def run(
    algorithm="fedadam-ssm",
    *,
    rounds=2,
    workers=0,
    fed=None,
    model=make_small_net,
    seed=3,
    options=None,
    **kwargs,
):
    settings = {"local_steps": 3, "batch_size": 8, "precision": "float32", "device": "cpu"} | kwargs
    algorithm = make_algorithm(algorithm, **(options or {}))
    with simulate(
        algorithm, fed or federation(), model, rounds=rounds, seed=seed, workers=workers, **settings
    ) as simulation:
        return simulation, list(simulation)


def comparable(records):
    return [replace(record, seconds={}) for record in records]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_learns_and_counts(name):
    _, records = run(name, rounds=20)
    for record in records:
        parts = record.mask_bytes + record.value_bytes + record.buffer_bytes + record.overhead_bytes
        assert parts == record.uplink_bytes
        assert record.participants == record.cohort == tuple(range(6))
        assert record.buffer_bytes == 6 * 8 * 4
        assert record.overhead_bytes <= 6 * 64
        assert record.paper_bits == 6 * make_algorithm(name).paper_bits(
            4 * 9 + 4 + 8 + 64 * 3 + 3, record.round
        )
        assert set(record.seconds) == {*PHASES, "wall"}
    assert records[-1].test_accuracy > 0.6
    assert records[-1].train_loss < records[0].train_loss


def test_same_bytes_for_any_number_of_workers():
    options = {"feedback": ("w",), "density": 0.2}
    kwargs = {"cohort_fraction": 0.7, "dropout": 0.2, "options": options, "rounds": 3}
    results = [run(workers=workers, **kwargs) for workers in (0, 1, 2)]
    for simulation, records in results[1:]:
        assert comparable(records) == comparable(results[0][1])
        np.testing.assert_array_equal(simulation.model.streams, results[0][0].model.streams)
        np.testing.assert_array_equal(simulation.model.buffers, results[0][0].model.buffers)


def test_the_global_generator_and_thread_count_are_left_alone():
    torch.manual_seed(5)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    run(rounds=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_another_seed_is_another_run():
    assert comparable(run(rounds=1)[1]) != comparable(run(rounds=1, seed=4)[1])


def test_dropout_and_partial_cohorts():
    _, records = run(rounds=12, cohort_fraction=0.5, dropout=0.4)
    assert {len(record.cohort) for record in records} == {3}
    assert len({record.cohort for record in records}) > 3
    dropped = sum(len(record.dropped) for record in records)
    assert 5 <= dropped <= 24
    for record in records:
        assert set(record.participants) | set(record.dropped) == set(record.cohort)
        assert not set(record.participants) & set(record.dropped)
        assert record.downlink_bytes % len(record.cohort) == 0


def test_a_round_that_everybody_drops_changes_nothing():
    simulation, records = run(rounds=2, dropout=1.0)
    initial = run(rounds=1, dropout=1.0)[0]
    np.testing.assert_array_equal(simulation.model.streams, initial.model.streams)
    assert records[1].participants == ()
    assert records[1].uplink_bytes == records[1].paper_bits == 0
    assert records[1].train_loss is None
    assert records[1].test_accuracy is not None


@pytest.mark.parametrize("workers", [0, 2])
def test_non_finite_updates_are_refused_named_and_counted(workers):
    fed = federation()
    inputs = fed.dataset.train_inputs.copy()
    inputs[fed.clients[2]] = 0
    fed = replace(fed, dataset=replace(fed.dataset, train_inputs=inputs))
    simulation, records = run(rounds=3, fed=fed, model=Exploding, workers=workers)
    for record in records:
        assert [(r.client, r.reason) for r in record.refused] == [(2, "non-finite")]
        assert "client 2" in record.refused[0].message
        assert "position 0" in record.refused[0].message
        assert record.participants == (0, 1, 3, 4, 5)
        assert math.isfinite(record.train_loss)
    assert np.isfinite(simulation.model.streams).all()
    assert records[-1].train_loss < records[0].train_loss


def test_clients_with_too_few_samples():
    fed = federation()
    tiny = replace(fed, clients=(np.empty(0, np.int64), fed.clients[1][:3], *fed.clients[2:]))
    simulation, records = run(fed=tiny)
    assert simulation.excluded == (0,)
    assert records[0].participants == (1, 2, 3, 4, 5)
    simulation, records = run(fed=tiny, min_samples=4)
    assert simulation.excluded == (0, 1)
    with pytest.raises(ConfigError, match="No client holds min_samples=1000 samples; the largest has 29"):
        run(min_samples=1000)


def test_local_epochs_replace_local_steps():
    """Clients of 24..29 samples: a quarter of a pass in steps of 8 is one step for all of them."""
    assert comparable(run(rounds=1, local_epochs=0.25)[1]) == comparable(run(rounds=1, local_steps=1)[1])
    assert comparable(run(rounds=1, local_epochs=1.0)[1]) != comparable(run(rounds=1, local_steps=3)[1])


def test_eval_every():
    _, records = run(rounds=5, eval_every=2)
    assert [record.test_accuracy is not None for record in records] == [False, True, False, True, True]
    _, records = run(rounds=1, eval_every=0)
    assert records[0].test_loss is None


def test_records_survive_json():
    import json

    _, records = run(rounds=1, dropout=0.5)
    assert RoundRecord.from_json(json.loads(json.dumps(records[0].to_json()))) == records[0]


def test_workers_report_what_went_wrong():
    with pytest.raises(WorkerError, match="boom on 8 samples"):
        run(workers=2, model=Fragile)
    with pytest.raises(WorkerError, match=r"ended with exit code 41.*if __name__ == '__main__'"):
        run(workers=1, model=Deadly)
    with pytest.raises(ConfigError, match=r"simulate\(model=...\) must be picklable"):
        run(workers=1, model=lambda: make_small_net())


def test_precision_is_measured_and_said():
    simulation, records = run(rounds=1, precision="auto")
    assert simulation.precision in ("float32", "bfloat16")
    assert "ms in float32" in simulation.precision_reason
    low, _ = run(rounds=1, precision="bfloat16")
    assert low.precision_reason == "as asked"
    assert records[0].test_accuracy is not None
    assert not np.array_equal(low.model.params, run(rounds=1)[0].model.params)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_images_are_channels_last_even_grey_ones(precision):
    model = Noting()
    run(model=lambda: model, precision=precision)
    assert model.strides == {(36, 1, 6, 1)}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_that_cannot_take_channels_last_trains_all_the_same(precision):
    _, records = run(rounds=6, model=Viewing, precision=precision)
    assert records[-1].train_loss < records[0].train_loss


def test_the_order_of_images_changes_rounding_and_nothing_else(monkeypatch):
    fast, records = run()
    monkeypatch.setattr(
        "comask.simulation.local.LocalTrainer._choose_image_format", lambda _: torch.contiguous_format
    )
    plain, expected = run()
    np.testing.assert_allclose(fast.model.params, plain.model.params, rtol=1e-4, atol=1e-6)
    assert records[-1].train_loss == pytest.approx(expected[-1].train_loss, rel=1e-4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rounds": 0}, r"simulate\(rounds=...\) must be an integer of at least 1, got 0"),
        ({"local_steps": 1.5}, r"simulate\(local_steps=...\) must be an integer"),
        (
            {"cohort_fraction": 0.0},
            r"simulate\(cohort_fraction=...\) must be above 0.0 and at most 1.0, got 0.0",
        ),
        ({"dropout": 1.5}, r"simulate\(dropout=...\) must be at least 0.0 and at most 1.0, got 1.5"),
        ({"local_epochs": -1.0}, r"simulate\(local_epochs=...\) must be above 0.0"),
        ({"precision": "half"}, "precision must be 'auto', 'float32', 'bfloat16', got 'half'"),
        ({"device": "tpu"}, "device must be 'auto', 'cpu' or 'cuda', got 'tpu'"),
        ({"workers": -1}, "workers must be None or an integer of at least 0, got -1"),
    ],
)
def test_arguments_that_are_not_allowed(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        run(**kwargs)


def test_workers_default_to_the_cores_and_to_none_on_a_gpu():
    assert choose_workers(None, "cpu") >= 1
    assert choose_workers(None, "cuda") == 0
