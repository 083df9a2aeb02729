"""Checkpoints: what is written is what is read, damage is refused, and a run goes on as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from comask.algorithms import make_algorithm
from comask.algorithms.base import ServerState
from comask.errors import CheckpointError
from comask.simulation import simulate
from comask.simulation.checkpoint import MANIFEST, Checkpoint, CheckpointFolder
from comask.state import ModelState
from simulation_jobs import federation, make_small_net

TESTS = Path(__file__).parents[2]
OPTIONS = {"density": 0.1, "feedback": ("w",)}


def start(folder, *, rounds, resume=False, seed=1, density=0.1, **kwargs):
    algorithm = make_algorithm("fedadam-ssm", **(OPTIONS | {"density": density}))
    settings = {
        "local_steps": 2,
        "batch_size": 8,
        "precision": "float32",
        "workers": 0,
        "cohort_fraction": 0.5,
    }
    return simulate(
        algorithm, federation(), make_small_net, rounds=rounds, seed=seed, checkpoint=folder, resume=resume,
        **(settings | kwargs),
    )  # fmt: skip


def comparable(records):
    return [replace(record, seconds={}) for record in records]


def test_resume_continues_to_the_same_bytes_and_model(tmp_path):
    whole = start(tmp_path / "whole", rounds=6)
    expected = list(whole)
    first = list(start(tmp_path / "parts", rounds=4))
    second = start(tmp_path / "parts", rounds=6, resume=True)
    assert second.start_round == 5
    assert second.precision_reason == "as in the checkpoint"
    assert replace(second.last_record, seconds={}) == replace(first[-1], seconds={})
    assert comparable(first + list(second)) == comparable(expected)
    np.testing.assert_array_equal(second.model.streams, whole.model.streams)
    np.testing.assert_array_equal(second.model.buffers, whole.model.buffers)


def test_only_the_current_files_stay(tmp_path):
    list(start(tmp_path, rounds=3))
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    named = {MANIFEST, manifest["state"], *manifest["clients"].values()}
    assert {file.name for file in tmp_path.iterdir()} == named
    assert len(manifest["clients"]) >= 3


_KILLED_RUN = """
import sys
sys.path.insert(0, {tests!r})
from unit.simulation.test_checkpoint import start
if __name__ == "__main__":
    for record in start({folder!r}, rounds=40, workers={workers}):
        print(record.round, flush=True)
"""


@pytest.mark.parametrize(("workers", "delays"), [(0, (0.0, 0.003, 0.011, 0.02)), (2, (0.004,))])
def test_kill_at_any_moment(tmp_path, workers, delays):
    """A real kill -9, at several moments within a round, of the process and so of its workers."""
    expected = start(tmp_path / "whole", rounds=12)
    records = list(expected)
    for number, delay in enumerate(delays):
        folder = tmp_path / f"killed-{number}"
        script = _KILLED_RUN.format(tests=str(TESTS), folder=str(folder), workers=workers)
        file = tmp_path / f"run_{number}.py"
        file.write_text(script)
        with subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if int(line) == 3 + number:
                    break
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        resumed = start(folder, rounds=12, resume=True)
        assert 4 <= resumed.start_round <= 12
        rest = list(resumed)
        assert comparable(rest) == comparable(records[-len(rest) :])
        np.testing.assert_array_equal(resumed.model.streams, expected.model.streams)


def test_an_unfinished_write_is_ignored(tmp_path):
    list(start(tmp_path, rounds=2))
    (tmp_path / "state-000003.npz.tmp").write_bytes(b"half a fi")
    (tmp_path / "client-000001-000003.npz").write_bytes(b"written before the manifest was")
    resumed = start(tmp_path, rounds=4, resume=True)
    assert resumed.start_round == 3
    list(resumed)
    assert not list(tmp_path.glob("*.tmp"))


def test_resume_without_a_checkpoint_starts_at_one(tmp_path):
    assert start(tmp_path / "new", rounds=1, resume=True).start_round == 1


def test_a_checkpoint_is_not_overwritten_by_chance(tmp_path):
    list(start(tmp_path, rounds=1))
    with pytest.raises(
        CheckpointError, match="already holds a checkpoint; resume it, or choose another folder"
    ):
        start(tmp_path, rounds=2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"seed": 2}, "belongs to another run: its settings is"),
        ({"density": 0.2}, "belongs to another run: its algorithm is"),
        ({"precision": "bfloat16"}, "was started in float32 and cannot continue with precision='bfloat16'"),
    ],
)
def test_another_run_does_not_continue_from_it(tmp_path, kwargs, message):
    list(start(tmp_path, rounds=1))
    with pytest.raises(CheckpointError, match=message):
        start(tmp_path, rounds=2, resume=True, **kwargs)


def edit(name, change):
    def damage(folder):
        path = next(folder.glob(name))
        path.write_bytes(change(path.read_bytes()))

    return damage


def edit_manifest(**changes):
    return edit(MANIFEST, lambda raw: json.dumps(json.loads(raw) | changes).encode())


def broken_deflate(raw):
    """The same arrays, compressed, with damage inside of the compressed bytes."""
    import io

    with np.load(io.BytesIO(raw)) as archive:
        file = io.BytesIO()
        np.savez_compressed(file, **archive)
    content = bytearray(file.getvalue())
    content[60:100] = bytes(40)
    return bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit("state-*.npz", lambda raw: raw[: len(raw) // 2]), "damaged"),
        (edit("state-*.npz", lambda raw: raw[:200] + bytes([raw[200] ^ 1]) + raw[201:]), "damaged"),
        (edit("state-*.npz", lambda _: b""), "damaged"),
        (edit("state-*.npz", broken_deflate), "damaged: error"),
        (edit(MANIFEST, lambda raw: raw[:-20]), "damaged: JSONDecodeError"),
        (edit(MANIFEST, lambda _: b"[]"), "damaged"),
        (edit_manifest(format=99), "has checkpoint format 99; this version reads 1"),
        (edit_manifest(state="../../etc/passwd"), "must be a plain file name"),
        (edit_manifest(record={}), "damaged: KeyError"),
    ],
)
def test_damage_is_refused(tmp_path, damage, message):
    list(start(tmp_path, rounds=1))
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        start(tmp_path, rounds=2, resume=True)


def test_pickles_are_not_loaded(tmp_path):
    list(start(tmp_path, rounds=1))
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    np.savez(
        tmp_path / manifest["state"], streams=np.array([{"a": 1}], object), buffers=np.zeros(0, np.float32)
    )
    with pytest.raises(CheckpointError, match="allow_pickle=False"):
        start(tmp_path, rounds=2, resume=True)


def test_memory_of_server_and_clients_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    memory = {"error": rng.standard_normal(7).astype(np.float32), "scale": np.zeros((), np.float32)}
    record = next(start(tmp_path / "other", rounds=1))
    state = ServerState(ModelState(rng.standard_normal((3, 7)).astype(np.float32)), 1, memory)
    clients = {4: {"residual": np.ones((1, 7), np.float32)}, 11: memory}
    folder = CheckpointFolder(tmp_path / "folder")
    folder.save(Checkpoint(state, clients, record, {"a": [1]}, "float32"), clients)
    found = CheckpointFolder(tmp_path / "folder").load()
    assert found.record == record
    assert found.identity == {"a": [1]}
    np.testing.assert_array_equal(found.state.model.streams, state.model.streams)
    for ours, theirs in (
        (found.state.memory, memory),
        (found.memories[4], clients[4]),
        (found.memories[11], memory),
    ):
        assert set(ours) == set(theirs)
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs[name])
