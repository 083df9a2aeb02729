"""Which part of comask may import which: the direction of DESIGN, kept by reading every import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import comask

ROOT = Path(comask.__file__).parent

BASE = {"cohort", "errors", "seeding", "files", "hyperparams"}
WIRE = BASE | {"kernels", "wire", "state"}
RULES = WIRE | {"aggregate", "masks", "feedback"}
MODEL = RULES | {"flat", "optim"}
ALLOWED = {
    "errors": set(),
    "cohort": {"seeding"},
    "files": set(),
    "seeding": set(),
    "hyperparams": {"errors"},
    "state": {"errors"},
    "kernels": {"errors"},
    "wire": {"errors", "kernels"},
    "aggregate": {"errors", "kernels", "wire"},
    "masks": {"errors", "kernels", "wire", "state"},
    "feedback": {"errors", "wire"},
    "flat": {"errors", "wire"},
    "optim": {"errors", "kernels", "hyperparams", "state", "flat"},
    "algorithms": RULES | {"theory"},
    "session": MODEL | {"algorithms"},
    "data": {"errors", "seeding"},
    "models": {"errors", "seeding", "data"},
    "simulation": MODEL | {"algorithms", "session", "data"},
    "theory": {"errors"},
    "testing": MODEL | {"algorithms", "session"},
    "flower": MODEL | {"algorithms", "session"},
    "experiments": MODEL | {"algorithms", "session", "data", "models", "simulation", "theory"},
    "__main__": {"experiments"},
}
"""What each part may import of comask; itself is always allowed."""

ONLY_IN = {
    "torch": {"flat", "optim", "models", "simulation", "testing", "flower", "masks", "session", "experiments"}
}
ONLY_IN |= {"matplotlib": {"experiments"}, "typer": {"experiments"}, "flwr": {"flower"}, "pooch": {"data"}}
ONLY_IN |= {"rich": {"experiments", "data"}}


def imports(file: Path) -> set[str]:
    """Absolute names of everything a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(file):
    part = file.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imports(file):
        root, _, rest = name.partition(".")
        if root == "comask":
            target = rest.partition(".")[0]
            assert target == part or target in ALLOWED[part] or target == "__version__", (
                f"{part} must not import {name}"
            )
        assert part in ONLY_IN.get(root, {part}), f"{part} must not import {name}"


def test_files_stay_short():
    lengths = {file.relative_to(ROOT): len(file.read_text().splitlines()) for file in FILES}
    assert {name: length for name, length in lengths.items() if length > 600} == {}
