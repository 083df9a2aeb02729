"""One code path: with the same seed, Flower and the simulator make the same payloads and the same model."""

from __future__ import annotations

import numpy as np
import pytest
from fleet import BATCH, FEDERATION, FEEDBACK, SEED, STEPS, make_grid, make_model, payloads, run

from comask.algorithms import ALGORITHMS, make_algorithm
from comask.simulation import round as simulated_round
from comask.simulation import simulate

VARIANTS = {name: lambda name=name: make_algorithm(name) for name in ALGORITHMS}
VARIANTS["with feedback"] = lambda: FEEDBACK
VARIANTS["local buffers"] = lambda: make_algorithm("fedadam-ssm", density=0.1, buffers="local")
VARIANTS["bfloat16"] = lambda: make_algorithm("fedadam-ssm", feedback=("w", "m", "v"), codec="half")


def simulated(monkeypatch, algorithm, *, rounds, **options):
    """Run the simulator; return it, its records, and every payload that its server decoded, in order."""
    seen = []

    def decode(payload, **arguments):
        seen.append(bytes(payload))
        return original(payload, **arguments)

    original = simulated_round.decode
    monkeypatch.setattr(simulated_round, "decode", decode)
    simulation = simulate(
        algorithm,
        FEDERATION,
        make_model,
        rounds=rounds,
        seed=SEED,
        local_steps=STEPS,
        batch_size=BATCH,
        workers=0,
        device="cpu",
        precision="float32",
        **options,
    )
    return simulation, list(simulation), seen


@pytest.mark.parametrize("name", VARIANTS)
def test_same_payloads_and_same_model(name, tmp_path, monkeypatch):
    algorithm = VARIANTS[name]()
    simulation, records, expected = simulated(monkeypatch, algorithm, rounds=3)
    strategy, grid, reports, _ = run(algorithm, tmp_path, rounds=3, downlink="full")
    found = payloads(grid)
    assert [found[key] for key in sorted(found)] == expected
    assert len(expected) == 15
    np.testing.assert_array_equal(strategy.state.model.streams, simulation.model.streams)
    np.testing.assert_array_equal(strategy.state.model.buffers, simulation.model.buffers)
    for report, record in zip(reports, records, strict=True):
        for field in ("cohort", "participants", "uplink_bytes", "downlink_bytes", "paper_bits", "mask_bytes"):
            assert getattr(report, field) == getattr(record, field), field
        assert report.metrics["train-loss"] == pytest.approx(record.train_loss, rel=1e-6)


def test_same_with_a_part_of_the_clients_and_changes_downwards(tmp_path, monkeypatch):
    """Clients that are not asked in every round hold different versions; what they are sent must not matter."""
    simulation, records, expected = simulated(monkeypatch, FEEDBACK, rounds=6, cohort_fraction=0.4)
    strategy, grid, reports, _ = run(FEEDBACK, tmp_path, rounds=6, cohort_fraction=0.4)
    found = payloads(grid)
    assert [found[key] for key in sorted(found)] == expected
    np.testing.assert_array_equal(strategy.state.model.streams, simulation.model.streams)
    assert [report.cohort for report in reports] == [record.cohort for record in records]
    assert len({record.cohort for record in records}) > 1
    assert sum(report.full_downlinks for report in reports) < 12
    assert sum(report.downlink_bytes for report in reports) < sum(record.downlink_bytes for record in records)


def test_order_of_the_replies_does_not_matter(tmp_path):
    """The grid answers each pull backwards; the sums are still made in the order of the clients."""
    first, *_ = run(FEEDBACK, tmp_path / "a", rounds=2)
    grid = make_grid(FEEDBACK, tmp_path / "b")
    forwards = grid.pull_messages
    grid.pull_messages = lambda keys: list(forwards(keys))[::-1]
    second, *_ = run(FEEDBACK, tmp_path / "b", rounds=2, grid=grid)
    np.testing.assert_array_equal(first.state.model.streams, second.state.model.streams)
