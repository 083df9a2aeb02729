"""The public surface is pinned, lazy and light."""

from __future__ import annotations

import subprocess
import sys

import pytest

import comask


def test_all_is_what_is_promised():
    assert comask.__all__ == sorted(
        comask.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )
    assert set(comask.__all__) == {"__version__", *comask._HOME_OF}
    assert dir(comask) == sorted(comask.__all__)


@pytest.mark.parametrize("name", comask.__all__)
def test_every_name_is_there_and_documented(name):
    value = getattr(comask, name)
    if callable(value):
        assert value.__doc__


def test_unknown_names():
    with pytest.raises(AttributeError, match="module 'comask' has no attribute 'simulat'"):
        comask.simulat  # noqa: B018


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return {name.partition(".")[0] for name in output.split()}


def test_importing_comask_is_light():
    assert not loaded_after("import comask") & {"numpy", "numba", "torch", "typer", "rich", "matplotlib"}


def test_a_server_needs_no_torch():
    statement = (
        "import comask.algorithms, comask.aggregate, comask.wire; comask.make_algorithm('fedadam-ssm')"
    )
    assert not loaded_after(statement) & {"torch", "typer", "rich", "matplotlib", "pooch"}


def test_without_torch_an_error_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None; import comask; comask.simulate"
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert found.returncode == 1
    assert "torch is not installed. Install it with: pip install 'comask[train]'" in found.stderr


def test_version_is_the_packages():
    from importlib.metadata import version

    assert comask.__version__ == version("comask")
