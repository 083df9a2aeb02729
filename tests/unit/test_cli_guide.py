"""`docs/guides/cli.md` says what the code does."""

import re
from pathlib import Path

import pytest
from cli_fakes import app, call

from comask.experiments.config import COMPARE_SETTINGS, SETTINGS
from comask.experiments.exits import EXIT_CODES

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
GUIDE = (GUIDES / "cli.md").read_text(encoding="utf-8")
COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


def rows(pattern):
    return [tuple(match.groups()) for match in re.finditer(pattern, GUIDE, re.MULTILINE)]


def test_the_guide_has_every_setting_with_its_default_and_what_is_allowed():
    documented = rows(r"^\| `(--[a-z-]+)` \| (.*) \| (.*) \| (.*) \|$")
    in_code = {**SETTINGS, **COMPARE_SETTINGS}.values()
    assert documented == [(row.flag, row.fallback, row.help, row.rule.text) for row in in_code]


def test_the_guide_has_every_exit_code():
    assert rows(r"^\| ([0-9]+) \| (.*) \|$") == [(str(code), text) for code, text in EXIT_CODES.items()]


def test_the_guide_has_every_command():
    assert rows(r"^comask ([a-z]+) ") == [(name,) for name in COMMANDS]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_in_the_guide(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, help_text, _ = call(capsys, command, "--help")
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", help_text)
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", plain)) - {"--help"}
    assert flags
    own = GUIDES / f"{command}.md"
    documented = GUIDE + own.read_text(encoding="utf-8") if own.exists() else GUIDE
    assert not {flag for flag in flags if f"`{flag}" not in documented and f"{flag} " not in documented}


@pytest.mark.parametrize("command", ["list", "run", "report", "claims"])
def test_every_flag_of_the_study_is_in_its_guide(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, help_text, _ = call(capsys, "paper", command, "--help")
    assert code == 0
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"\x1b\[[0-9;]*m", "", help_text))) - {
        "--help"
    }
    guide = (GUIDES / "paper.md").read_text(encoding="utf-8")
    documented = {
        (flag, name)
        for flag, of in re.findall(r"^\| `(--[a-z]+)` \| ([a-z, ]+) \|", guide, re.MULTILINE)
        for name in (of.split(", ") if of != "all" else ("list", "run", "report", "claims"))
    }
    assert flags == {flag for flag, name in documented if name == command}
    assert f"comask paper {command} " in guide


def test_the_guides_example_file_is_valid(tmp_path):
    from comask.experiments.config import CompareConfig
    from comask.experiments.resolve import resolve_all

    (example,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    file = tmp_path / "c.toml"
    file.write_text(example)
    runs = resolve_all(CompareConfig.load(file, {}))
    assert [run.lr for run in runs] == [1e-3] * 3 + [0.1] * 3
