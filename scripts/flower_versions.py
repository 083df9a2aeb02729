"""Run the tests on Flower with its oldest allowed and its newest version, each in a fresh virtual environment.

`python scripts/flower_versions.py [VERSION ...]`; without arguments the floor of pyproject.toml and the index's newest. pip is
told the version, because it otherwise goes back to an older one without a word when a requirement cannot be met.
Everything that is not Flower's is pinned by constraints.txt. Prints a table; the exit code is 0 if all tests passed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")
SHOWN = ("protobuf", "cryptography", "grpcio")


@dataclass(frozen=True)
class Row:
    """What came of one version."""

    version: str
    installed: str
    outcome: str
    seconds: float
    passed: bool


def floor() -> str:
    """Return the oldest version that pyproject.toml allows."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = re.search(r"flwr>=([\d.]+)", extras["flower"][0])
    assert found is not None, extras["flower"]
    return found[1] if found[1].count(".") > 1 else f"{found[1]}.0"


def newest() -> str:
    """Return the newest version on the index."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", "flwr"], capture_output=True, text=True, check=True
    )
    found = re.search(r"flwr \(([\d.]+)\)", done.stdout)
    assert found is not None, done.stdout
    return found[1]


def test(version: str, folder: Path, selected: list[str]) -> Row:
    """Install a version, run the tests, return what came of it."""
    began = time.monotonic()
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    for requirements in (["-c", "constraints.txt", "-e", ".[train,dev]"], [f"flwr=={version}"]):
        done = subprocess.run(
            [python, *PIP, "install", *requirements], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return Row(version, "-", f"not installable: {last_line(done.stderr)}", 0.0, passed=False)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    found = dict(line.split("==") for line in listed.stdout.splitlines() if "==" in line)
    done = subprocess.run(
        [python, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-q", *(selected or ["tests/flower"])],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(done.stdout if done.returncode else last_line(done.stdout))
    installed = ", ".join(f"{name} {found[name]}" for name in SHOWN)
    seconds = time.monotonic() - began
    outcome = last_line(done.stdout).strip("= ").partition(" in ")[0]
    return Row(version, installed, outcome, seconds, passed=not done.returncode)


def last_line(text: str) -> str:
    """Return the last line that is not empty."""
    return ([line for line in text.splitlines() if line.strip()] or [""])[-1]


def main() -> int:
    """Test each version and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="*", help="default: the floor and the newest")
    parser.add_argument("--tests", nargs="*", default=[], help="what pytest is given; default: tests/flower")
    arguments = parser.parse_args()
    rows = []
    for version in arguments.versions or (floor(), newest()):
        with tempfile.TemporaryDirectory(prefix=f"comask-flwr-{version}-") as name:
            rows.append(test(version, Path(name) / "venv", arguments.tests))
    print(f"\n{dt.datetime.now(dt.UTC):%d %B %Y}, Python {sys.version.split()[0]}\n")
    print("| flwr | with | tests | seconds |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row.version} | {row.installed} | {row.outcome} | {row.seconds:.0f} |")
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
