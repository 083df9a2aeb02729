"""A server that is killed in any phase of a round and started again ends with the model of one that was not."""

from __future__ import annotations

import os

import numpy as np
import pytest
from fleet import FEEDBACK, NODES, initial_arrays, make_app, make_grid, make_strategy, payloads, run
from flwr.app import ConfigRecord
from local_grid import LocalGrid

from comask.algorithms import make_algorithm
from comask.errors import CheckpointError, ConfigError, FleetError
from comask.flower import coordinator as coordinator_module
from comask.flower import strategy as strategy_module


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    strategy, grid, _, _ = run(FEEDBACK, folder, rounds=4)
    return strategy.state, payloads(grid)


def kill(*_, **__):
    raise Killed


def before_sending(patch, grid):
    patch.setattr(grid, "push_messages", kill)


def half_way_through_sending(patch, grid):
    original = grid.push_messages

    def push(messages):
        original(messages[:3])
        raise Killed

    patch.setattr(grid, "push_messages", push)


def before_the_first_reply(patch, grid):
    patch.setattr(grid, "pull_messages", kill)


def while_adding(patch, grid):
    from comask.aggregate import WeightedSum

    original, calls = WeightedSum.add, []

    def add(self, update, weight):
        calls.append(weight)
        if len(calls) == 3:
            raise Killed
        return original(self, update, weight)

    patch.setattr(WeightedSum, "add", add)


def before_the_checkpoint(patch, grid):
    patch.setattr(strategy_module, "save", kill)


def while_writing_the_checkpoint(patch, grid):
    patch.setattr(os, "fsync", kill)


def before_the_rename(patch, grid):
    patch.setattr("comask.files.Path.replace", kill)


def after_the_checkpoint(patch, grid):
    patch.setattr(coordinator_module.Coordinator, "ask", kill)


SERVER_PHASES = (
    before_sending,
    half_way_through_sending,
    before_the_first_reply,
    while_adding,
    before_the_checkpoint,
    after_the_checkpoint,
)


@pytest.mark.parametrize("phase", SERVER_PHASES, ids=lambda phase: phase.__name__)
def test_killed_and_started_again(phase, tmp_path, undisturbed, monkeypatch):
    grid = make_grid(FEEDBACK, tmp_path)
    run(FEEDBACK, tmp_path, rounds=2, grid=grid, checkpoint=tmp_path / "server")
    with monkeypatch.context() as patch:
        phase(patch, grid)
        with pytest.raises(Killed):
            run(FEEDBACK, tmp_path, rounds=4, grid=grid, checkpoint=tmp_path / "server")
    strategy, _, reports, _ = run(FEEDBACK, tmp_path, rounds=4, grid=grid, checkpoint=tmp_path / "server")
    assert [report.round for report in reports] == [3, 4]
    assert all(report.participants == (0, 1, 2, 3, 4) and not report.memory_lost for report in reports)
    state, sent = undisturbed
    np.testing.assert_array_equal(strategy.state.model.streams, state.model.streams)
    np.testing.assert_array_equal(strategy.state.model.buffers, state.model.buffers)
    assert payloads(grid) == sent


def test_killed_and_started_again_with_a_superlink_that_knows_no_node(tmp_path, undisturbed):
    """One without a database: the same devices register again, and get other ids."""
    run(FEEDBACK, tmp_path, rounds=2, grid=make_grid(FEEDBACK, tmp_path), checkpoint=tmp_path / "server")
    nodes = {10_000 - node: {"partition-id": client} for client, node in enumerate(NODES)}
    grid = LocalGrid(make_app(FEEDBACK, tmp_path / "clients"), nodes)
    strategy, _, reports, _ = run(FEEDBACK, tmp_path, rounds=4, grid=grid, checkpoint=tmp_path / "server")
    assert all(report.participants == (0, 1, 2, 3, 4) and not report.memory_lost for report in reports)
    np.testing.assert_array_equal(strategy.state.model.streams, undisturbed[0].model.streams)


@pytest.mark.parametrize("phase", [while_writing_the_checkpoint, before_the_rename], ids=lambda p: p.__name__)
def test_killed_while_the_checkpoint_is_written(phase, tmp_path, undisturbed, monkeypatch):
    """The clients write files of their own, so here only the server's last step is run under the knife."""
    grid = make_grid(FEEDBACK, tmp_path)
    strategy, _, _, _ = run(FEEDBACK, tmp_path, rounds=2, grid=grid, checkpoint=tmp_path / "server")
    messages = strategy.configure_train(3, initial_arrays(), ConfigRecord(), grid)
    replies = grid.pull_messages(list(grid.push_messages(messages)))
    with monkeypatch.context() as patch:
        phase(patch, grid)
        with pytest.raises(Killed):
            strategy.aggregate_train(3, replies)
    resumed, _, reports, _ = run(FEEDBACK, tmp_path, rounds=4, grid=grid, checkpoint=tmp_path / "server")
    assert [report.round for report in reports] == [3, 4]
    np.testing.assert_array_equal(resumed.state.model.streams, undisturbed[0].model.streams)
    assert [file.name for file in (tmp_path / "server").iterdir()] == ["server.npz"]


def test_a_strategy_that_is_started_twice_begins_anew(tmp_path):
    """Nothing of the first run may leak into the second: not its residuals, not its versions."""
    strategy, grid = make_strategy(FEEDBACK), make_grid(FEEDBACK, tmp_path)
    for _ in range(2):
        strategy.start(grid, initial_arrays(), num_rounds=2, timeout=5.0)
    sent = [reply for reply in grid.replied if reply.metadata.message_type == "train"]
    first, second = (
        [reply.content["comask.payload"]["data"].data for reply in part] for part in (sent[:10], sent[10:])
    )
    assert first == second
    assert len(list((tmp_path / "clients").iterdir())) == 2


def test_rounds_that_are_complete_are_not_run_again(tmp_path):
    grid = make_grid(FEEDBACK, tmp_path)
    first, *_ = run(FEEDBACK, tmp_path, rounds=2, grid=grid, checkpoint=tmp_path / "server")
    sent = len(grid.pushed)
    second, _, reports, result = run(FEEDBACK, tmp_path, rounds=2, grid=grid, checkpoint=tmp_path / "server")
    assert (reports, len(grid.pushed)) == ([], sent)
    np.testing.assert_array_equal(second.state.model.streams, first.state.model.streams)
    np.testing.assert_array_equal(result.arrays["1.bias"].numpy(), first.state.model.params[432:444])


@pytest.mark.parametrize(
    ("algorithm", "options", "what"),
    [
        (make_algorithm("fedadam"), {}, "algorithm is 'fedadam-ssm', this run's is 'fedadam'"),
        (FEEDBACK, {"seed": 8}, "seed is 7, this run's is 8"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, algorithm, options, what):
    run(FEEDBACK, tmp_path, rounds=1, checkpoint=tmp_path / "server")
    with pytest.raises(CheckpointError, match=f"belongs to another run: its {what}"):
        run(algorithm, tmp_path, rounds=2, checkpoint=tmp_path / "server", **options)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:200], lambda data: b"", lambda data: b"\x00" * len(data)]
)
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    run(FEEDBACK, tmp_path, rounds=1, checkpoint=tmp_path / "server")
    file = tmp_path / "server" / "server.npz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match=r"server\.npz is damaged"):
        make_strategy(FEEDBACK, checkpoint=tmp_path / "server").begin(initial_arrays())


def test_a_checkpoint_that_cannot_be_written_stops_the_run(tmp_path):
    (tmp_path / "server").write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="cannot be written"):
        run(FEEDBACK, tmp_path, rounds=1, checkpoint=tmp_path / "server")


def test_a_lost_residual_is_reported_and_training_goes_on(tmp_path):
    grid = make_grid(FEEDBACK, tmp_path)
    run(FEEDBACK, tmp_path, rounds=2, grid=grid, checkpoint=tmp_path / "server")
    (lost,) = tmp_path.glob("clients/*/client-000003/memory-000002.npz")
    lost.write_bytes(lost.read_bytes()[:40])
    _, _, (report,), _ = run(FEEDBACK, tmp_path, rounds=3, grid=grid, checkpoint=tmp_path / "server")
    assert report.memory_lost == (3,)
    assert report.participants == (0, 1, 2, 3, 4)


def test_a_fleet_that_stays_too_small_is_an_error(tmp_path):
    with pytest.raises(FleetError, match=r"Round 1 needs 6 nodes, and 5 can be reached after 0\.1 s"):
        run(FEEDBACK, tmp_path, rounds=1, timeout=0.1, min_nodes=6)


def test_a_node_that_comes_back_keeps_its_number(tmp_path):
    grid = make_grid(FEEDBACK, tmp_path)
    grid.offline = {grid.get_node_ids()[0]}
    _, _, reports, _ = run(FEEDBACK, tmp_path, rounds=1, grid=grid, checkpoint=tmp_path / "server")
    assert reports[0].cohort == (1, 2, 3, 4)
    grid.offline = set()
    _, _, reports, _ = run(FEEDBACK, tmp_path, rounds=2, grid=grid, checkpoint=tmp_path / "server")
    assert reports[0].cohort == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("cohort_fraction", 0.0, r"cohort_fraction=\.\.\.\) must be above 0"),
        ("evaluate_fraction", 1.5, r"evaluate_fraction=\.\.\.\) must be at least 0\.0 and at most 1\.0"),
        ("min_nodes", 0, r"min_nodes=\.\.\.\) must be an integer of at least 1, got 0"),
        ("min_replies", 0, "min_replies must be an integer of at least 1, got 0"),
        ("max_examples", 1.5, r"max_examples must be an integer of at least 1, got 1\.5"),
        ("downlink", "sparse", "must be 'changes' or 'full', got 'sparse'"),
        ("numbering", "random", "must be 'assigned' or 'announced', got 'random'"),
        ("seed", 2**63, "seed must fit 64 bits, got 9223372036854775808"),
    ],
)
def test_options_are_checked(option, value, message):
    with pytest.raises(ConfigError, match=message):
        make_strategy(FEEDBACK, **{option: value})
