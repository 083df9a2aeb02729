"""Changes downwards: the very bits of the full broadcast, fewer bytes, and all of it again whenever a client lost its copy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fleet import FEEDBACK, NODES, make_grid, run

from comask.algorithms.base import ServerState
from comask.errors import FleetError
from comask.flower.downlink import Downlink, apply_changes, digest
from comask.state import ModelState
from comask.wire import Block, Codec, ParamLayout, Update, decode

DIM = 400
LAYOUT = ParamLayout(("w",), ((DIM,),))


def states(rounds):
    """Server states of consecutive rounds; each changes 20 positions, one of them in the sign of a zero only."""
    rng = np.random.default_rng(5)
    streams = rng.standard_normal((3, DIM)).astype(np.float32)
    streams[:, 0] = 0.0
    for number in range(rounds):
        yield ServerState(ModelState(streams, np.full(2, number, np.float32)), round=number)
        streams = streams.copy()
        streams[:, rng.choice(DIM, 20, replace=False)] += 1.0
        streams[1, 0] = -0.0 if number % 2 == 0 else 0.0


def test_every_version_is_brought_up_to_the_very_bits():
    downlink = Downlink(FEEDBACK, LAYOUT, patches=True)
    kept = {}
    for state in states(6):
        downlink.advance(state)
        broadcast = FEEDBACK.server.broadcast(state)
        whole = downlink.outgoing(held=0, accepted=0)
        assert whole.base == 0
        for version, streams in kept.items():
            out = downlink.outgoing(held=version, accepted=0)
            assert out.base == version
            assert len(out.payload) < len(whole.payload)
            changes = decode(out.payload, dim=DIM, layout=LAYOUT)
            result = apply_changes(changes, streams, downlink.digest)
            assert result.blocks[0].values.tobytes() == broadcast.blocks[0].values.tobytes()
            np.testing.assert_array_equal(result.buffers, broadcast.buffers)
            assert result.round == broadcast.round == state.round + 1
        kept[state.round + 1] = broadcast.blocks[0].values
    assert len(kept) == 6


def test_whole_when_changes_would_be_longer_or_the_version_is_unknown():
    downlink = Downlink(FEEDBACK, LAYOUT, patches=True)
    first, *_ = states(1)
    downlink.advance(replace(first, round=7))  # the first state after a restart
    assert [downlink.outgoing(held=held, accepted=0).base for held in (0, 3, 7, 9)] == [0, 0, 0, 0]
    other = ServerState(ModelState(first.model.streams + 1.0), round=8)
    downlink.advance(other)
    assert downlink.outgoing(held=8, accepted=0).base == 0  # everything changed
    downlink.advance(replace(other, round=9))
    out = downlink.outgoing(held=9, accepted=0)
    assert (out.base, len(out.payload) < 64) == (9, True)  # nothing changed


@pytest.mark.parametrize(
    "algorithm",
    [replace(FEEDBACK, downlink=Codec("half", values=("bfloat16",))), FEEDBACK],
    ids=["lossy codec", "switched off"],
)
def test_no_changes_where_they_cannot_be_or_are_not_wanted(algorithm):
    downlink = Downlink(algorithm, LAYOUT, patches=algorithm is not FEEDBACK)
    for state in states(3):
        downlink.advance(state)
    assert not downlink.keep
    assert downlink.outgoing(held=2, accepted=0).base == 0


def test_changes_to_another_copy_are_noticed():
    streams = np.zeros((3, DIM), np.float32)
    changes = Update(DIM, (Block(np.array([3], np.uint32), np.ones((3, 1), np.float32)),), round=4)
    expected = streams.copy()
    expected[:, 3] = 1.0
    good = digest(Update(DIM, (Block(None, expected),), round=4))
    np.testing.assert_array_equal(apply_changes(changes, streams, good).blocks[0].values, expected)
    streams[2, 9] = 1e-30
    with pytest.raises(FleetError, match="is not the server's model"):
        apply_changes(changes, streams, good)
    with pytest.raises(
        FleetError, match=r"for 3 streams of 400 in 1 blocks, the kept model has shape \(3, 9\)"
    ):
        apply_changes(changes, np.zeros((3, 9), np.float32), good)


@pytest.mark.parametrize("damage", ["lost", "cut", "changed", "of another shape"])
def test_a_client_whose_copy_is_gone_fails_once_and_gets_all_of_it(tmp_path, damage):
    grid = make_grid(FEEDBACK, tmp_path)

    def spoil_copy(message, call):
        (file,) = tmp_path.glob("clients/*/client-000003/model-000001.npz")
        if damage == "lost":
            file.unlink()
        elif damage == "cut":
            file.write_bytes(file.read_bytes()[:100])
        else:
            with np.load(file) as archive:
                streams = archive["streams"]
            streams[1, 1] += 1.0
            np.savez(file, streams=streams if damage == "changed" else streams[0])
        return call(message)

    grid.faults[NODES[3], 2] = spoil_copy
    _, _, (first, second, third), _ = run(FEEDBACK, tmp_path, rounds=3, grid=grid)
    assert (first.full_downlinks, second.full_downlinks, third.full_downlinks) == (5, 0, 1)
    assert [(refusal.client, refusal.reason) for refusal in second.refused] == [(3, "failed")]
    assert "FleetError" in second.refused[0].message
    assert third.participants == (0, 1, 2, 3, 4)
    assert third.memory_lost == ()


def test_clients_keep_one_model_and_one_memory(tmp_path):
    run(FEEDBACK, tmp_path, rounds=4)
    for folder in tmp_path.glob("clients/*/*"):
        names = sorted(file.name for file in folder.iterdir())
        assert names == ["memory-000003.npz", "memory-000004.npz", "model-000004.npz"]


def test_clients_keep_no_model_when_all_is_sent_anyway(tmp_path):
    _, _, reports, _ = run(FEEDBACK, tmp_path, rounds=2, downlink="full")
    assert [report.full_downlinks for report in reports] == [5, 5]
    assert list(tmp_path.glob("clients/*/*/model-*")) == []
