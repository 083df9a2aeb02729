import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from cli_fakes import call

from comask.algorithms import ALGORITHMS
from comask.errors import (
    CheckpointError,
    ConfigError,
    DamagedDataError,
    DataNotFoundError,
    MissingExtraError,
    NonFiniteError,
    PayloadError,
    UnknownNameError,
    WorkerError,
)
from comask.experiments.exits import EXIT_CODES, exit_code
from comask.wire import Block, Update, encode


@pytest.fixture
def payload(tmp_path):
    kept = np.arange(0, 1000, 20, dtype=np.uint32)
    update = Update(1000, (Block(kept, np.ones((3, 50), np.float32)),), np.ones(4, np.float32), round=7)
    file = tmp_path / "upload.bin"
    file.write_bytes(encode(update))
    return file


def test_inspect_shows_every_section(payload, capsys):
    code, stdout, _ = call(capsys, "inspect", payload)
    assert code == 0
    assert f"round 7, 1,000 parameters, layout none, {payload.stat().st_size:,} bytes" in stdout
    for section in (
        "block 1: mask",
        "block 1: stream 0",
        "block 1: stream 2",
        "buffers",
        "header and checksum",
    ):
        assert section in stdout


def test_inspect_gives_json_whose_parts_sum_to_the_whole(payload, capsys):
    _, stdout, _ = call(capsys, "inspect", payload, "--json")
    info = json.loads(stdout)
    parts = [info[f"{part}_bytes"] for part in ("mask", "value", "buffer", "overhead")]
    assert sum(parts) == info["total_bytes"] == payload.stat().st_size
    assert (info["round"], info["dim"], info["fingerprint"], info["blocks"][0]["num_kept"]) == (
        7,
        1000,
        None,
        50,
    )


def test_inspect_refuses_what_is_no_payload(payload, tmp_path, capsys):
    payload.write_bytes(payload.read_bytes()[:-1])
    code, _, stderr = call(capsys, "inspect", payload)
    assert code == 4
    assert "[checksum]" in stderr
    code, _, stderr = call(capsys, "inspect", tmp_path / "nothing")
    assert code == 2
    assert "nothing is not a file" in stderr


def test_algorithms_lists_the_table_with_formulas_options_and_papers(capsys):
    _, stdout, _ = call(capsys, "algorithms", "--json")
    facts = json.loads(stdout)
    assert [fact["name"] for fact in facts] == list(ALGORITHMS)
    _, text, _ = call(capsys, "algorithms")
    for fact in facts:
        assert fact["summary"] in text
        assert "lr=" in text.partition(fact["summary"])[2].splitlines()[1]
    assert "arXiv 2405.17932" in text


def test_data_counts_every_sample_and_draws(tmp_path, capsys):
    figure = tmp_path / "partition.png"
    flags = ("--clients", 5, "--partition", "shards:2", "--seed", 1)
    code, stdout, stderr = call(capsys, "data", *flags, "--json", "--figure", figure)
    assert (code, stderr) == (0, f"Written: {figure}\n")
    assert np.array(json.loads(stdout)["counts"]).shape == (5, 10)
    assert np.array(json.loads(stdout)["counts"]).sum() == 10_000
    assert figure.read_bytes().startswith(b"\x89PNG")
    _, table, _ = call(capsys, "data", *flags)
    assert "fashion-mnist-mini, shards:2: 5 clients, 10,000 samples" in table


def test_data_refuses_a_figure_it_cannot_draw(capsys):
    code, _, stderr = call(capsys, "data", "--figure", "p.xyz")
    assert code == 2
    assert "--figure must end in .png, .svg, .pdf, got 'p.xyz'" in stderr
    code, _, stderr = call(capsys, "data", "--figure", "nowhere/p.png")
    assert code == 2
    assert "--figure must be in a folder that exists, got 'nowhere/p.png'" in stderr


def test_data_that_are_nowhere_have_an_exit_code_of_their_own(monkeypatch, capsys):
    def nowhere(name, *, root):
        raise DataNotFoundError(f"Data set {name!r} was not found.")

    monkeypatch.setattr("comask.data.load_dataset", nowhere)
    code, _, stderr = call(capsys, "data", "--dataset", "svhn")
    assert (code, stderr) == (3, "comask: Data set 'svhn' was not found.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frob"], "No such command"),
        (["run", "--rouns", "3"], "No such option"),
        (["run", "--rounds", "x"], "--rounds must be an integer of at least 1, got 'x'"),
        (["run", "--density", "much"], "--density must be a number with 0 < value <= 1, got 'much'"),
        (["run", "--option", "beta1"], "--option must be NAME=VALUE"),
        (["run", "--config", "nowhere.toml"], "Configuration file nowhere.toml does not exist"),
        (["report", "nowhere"], "nowhere is not a folder"),
        (["inspect"], "Missing argument"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(arguments, message, capsys):
    code, _, stderr = call(capsys, *arguments)
    assert code == 2
    assert message in stderr


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_packages_of_the_command_line_a_sentence_says_what_to_install(
    missing, monkeypatch, capsys
):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else find(name))
    code, _, stderr = call(capsys, "--help")
    assert code == 1
    assert stderr == f"comask: {missing} is not installed. Install it with: pip install 'comask[train]'\n"


@pytest.mark.parametrize(("missing", "command"), [("torch", ["run"]), ("matplotlib", ["report", "."])])
def test_without_the_packages_of_a_command_a_sentence_says_what_to_install(
    missing, command, monkeypatch, capsys
):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else find(name))
    code, _, stderr = call(capsys, *command)
    assert code == 1
    assert f"{missing} is not installed. Install it with: pip install 'comask[train]'" in stderr


def test_a_full_disk_ends_in_the_systems_message(monkeypatch, capsys):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("comask.experiments.report.write_report", full)
    code, _, stderr = call(capsys, "report", ".")
    assert (code, stderr) == (1, "comask: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (UnknownNameError("algorithm", "x", ["y"]), 2),
        (DataNotFoundError("x"), 3),
        (DamagedDataError("x"), 3),
        (PayloadError("magic", "x"), 4),
        (CheckpointError("x"), 5),
        (WorkerError("x"), 1),
        (NonFiniteError("scores", 0, 1.0), 1),
        (MissingExtraError("torch", "train"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code):
    assert exit_code(error) == code
    assert code in EXIT_CODES


def test_help_is_instant_because_it_imports_nothing_heavy():
    script = (
        "import sys\n"
        "from comask.experiments.cli import main\n"
        "try: main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numba', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_python_m_comask_is_the_same_program():
    done = subprocess.run(
        [sys.executable, "-m", "comask", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("comask ")
