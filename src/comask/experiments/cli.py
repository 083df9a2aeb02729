"""The `comask` command. Light, so that help is instant and a missing package ends in a sentence."""

from __future__ import annotations

import sys

from comask.errors import ComaskError
from comask.experiments.environment import require_packages
from comask.experiments.exits import FAILED, exit_code


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: Without the program's name; those of the process if None.
    """
    try:
        require_packages(("typer", "rich"), "train")
        from comask.experiments.app import app  # noqa: PLC0415  # needs what was just checked

        app(arguments, obj=arguments)
    except ComaskError as error:
        _fail(error, exit_code(error))
    except OSError as error:  # a full disk, a folder without permission: the system's message says it
        _fail(error, FAILED)


def _fail(error: Exception, code: int) -> None:
    print(f"comask: {error}", file=sys.stderr)  # noqa: T201  # the message is the output
    sys.exit(code)
