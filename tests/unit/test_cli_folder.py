import json
import subprocess
import sys
from dataclasses import replace

import pytest
from cli_fakes import make_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comask.errors import CheckpointError, ConfigError
from comask.experiments.folder import RunFolder, read_rounds, require_vacant, write_atomic
from comask.simulation.records import Refusal


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "run")
    made.create("rounds = 3\n", overwrite=False)
    return made


def fill(folder, rounds):
    for number in range(1, rounds + 1):
        folder.append(make_record(number))


def numbers(records):
    return [record.round for record in records]


def test_what_is_appended_is_read_back(folder):
    fill(folder, 3)
    assert read_rounds(folder.rounds) == [make_record(1), make_record(2), make_record(3)]


def test_before_the_first_round_there_are_no_records(folder):
    assert read_rounds(folder.rounds) == []
    assert folder.reconcile(0, None) == []


def test_records_and_checkpoint_that_agree_are_left_alone(folder):
    fill(folder, 3)
    before = folder.rounds.read_bytes()
    assert numbers(folder.reconcile(3, make_record(3))) == [1, 2, 3]
    assert folder.rounds.read_bytes() == before


def test_a_record_lost_between_checkpoint_and_file_is_taken_from_the_checkpoint(folder):
    fill(folder, 2)
    last = make_record(3, accuracy=0.75)
    assert folder.reconcile(3, last)[-1] == last
    assert read_rounds(folder.rounds)[-1] == last


def test_a_record_ahead_of_the_checkpoint_is_cut_off(folder):
    fill(folder, 3)
    assert numbers(folder.reconcile(2, make_record(2))) == [1, 2]
    assert numbers(read_rounds(folder.rounds)) == [1, 2]


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_last_line_cut_anywhere_is_replaced(folder, data):
    folder.clear()
    fill(folder, 3)
    whole = folder.rounds.read_bytes()
    lines = whole.splitlines(keepends=True)
    kept = data.draw(st.integers(0, len(lines[2]) - 1))
    folder.rounds.write_bytes(whole[: len(lines[0] + lines[1]) + kept])
    folder.reconcile(3, make_record(3))
    assert folder.rounds.read_bytes() == whole


def test_a_garbled_last_line_is_replaced_and_one_before_it_is_refused(folder):
    fill(folder, 3)
    lines = folder.rounds.read_text().splitlines(keepends=True)
    folder.rounds.write_text(lines[0] + lines[1] + "\0\0\n")
    assert numbers(folder.reconcile(3, make_record(3))) == [1, 2, 3]
    folder.rounds.write_text(lines[0] + "{}\n" + lines[2])
    with pytest.raises(CheckpointError, match=r"rounds\.jsonl, line 2, is not a round's record"):
        read_rounds(folder.rounds)


def test_lines_that_do_not_count_up_are_refused(folder):
    folder.append(make_record(2))
    with pytest.raises(CheckpointError, match="line 1, is of round 2; lines must count up from 1"):
        read_rounds(folder.rounds)


@pytest.mark.parametrize(("lines", "done", "last"), [(0, 2, 2), (1, 2, None), (3, 1, 1), (2, 0, None)])
def test_a_difference_that_no_kill_explains_is_refused_and_nothing_is_cut(folder, lines, done, last):
    fill(folder, lines)
    with pytest.raises(CheckpointError, match=f"is at round {done} and .* holds {lines} records"):
        folder.reconcile(done, None if last is None else make_record(last))
    assert len(read_rounds(folder.rounds)) == lines


def test_a_folder_with_a_run_is_refused_unless_it_is_to_be_replaced(folder):
    fill(folder, 1)
    folder.checkpoint.mkdir()
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(
        ConfigError, match=r"already holds a run\. Continue it with --resume .*, replace it with --overwrite"
    ):
        folder.create("rounds = 4\n", overwrite=False)
    folder.create("rounds = 4\n", overwrite=True)
    assert folder.config.read_text() == "rounds = 4\n"
    assert not folder.rounds.exists()
    assert not folder.checkpoint.exists()
    assert (folder.path / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_no_run_is_never_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"is not empty and holds no config\.toml"):
        RunFolder(tmp_path).create("", overwrite=True)


def test_a_file_is_no_folder_and_hidden_files_do_not_fill_one(tmp_path):
    (tmp_path / ".draft").write_text("")
    require_vacant(tmp_path, overwrite=False, marker="config.toml")
    with pytest.raises(ConfigError, match="is a file; --out must be a folder"):
        require_vacant(tmp_path / ".draft", overwrite=False, marker="config.toml")


def test_an_interrupted_write_leaves_the_old_text(tmp_path, monkeypatch):
    file = tmp_path / "summary.json"
    write_atomic(file, "old")

    def fail(_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, "new")
    assert file.read_text() == "old"


def test_two_processes_cannot_write_to_one_folder_and_a_kill_frees_it(folder):
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(folder.path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigError, match=r"Another process is running in .*; wait for it to end"),
            folder.locked(),
        ):
            pass
        with pytest.raises(ConfigError, match="Another process is running in"):
            folder.create("", overwrite=True)
        other.kill()
    with folder.locked():
        pass


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not valid JSON"), ("[]", "must hold a JSON object, got list")]
)
def test_a_damaged_summary_is_refused(folder, text, message):
    folder.summary.write_text(text)
    with pytest.raises(CheckpointError, match=message):
        folder.read_summary()


def test_a_loss_that_is_no_number_is_null_because_json_has_neither_nan_nor_infinity(folder):
    folder.append(replace(make_record(1), train_loss=float("nan"), test_loss=float("inf")))
    line = json.loads(folder.rounds.read_text(), parse_constant=pytest.fail)
    assert (line["train_loss"], line["test_loss"], line["test_accuracy"]) == (None, None, 0.5)


def test_refusals_are_read_back(folder):
    refused = replace(make_record(1), refused=(Refusal(3, "non-finite", "values hold nan at position 7"),))
    folder.append(refused)
    assert read_rounds(folder.rounds) == [refused]
