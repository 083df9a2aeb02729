"""comask on Flower: any row of `ALGORITHMS` as a strategy, and the client side that goes with it.

The server needs no torch. flwr is imported by the first name that is used, and only its public modules are.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from comask.errors import MissingExtraError

if TYPE_CHECKING:
    from comask.flower.mod import comask_mod
    from comask.flower.report import Refusal, RoundReport
    from comask.flower.roster import announce
    from comask.flower.session import OpenRound, open_round
    from comask.flower.spec import ModelSpec
    from comask.flower.strategy import Strategy

_HOMES = {
    "ModelSpec": "spec",
    "OpenRound": "session",
    "Refusal": "report",
    "RoundReport": "report",
    "Strategy": "strategy",
    "announce": "roster",
    "comask_mod": "mod",
    "open_round": "session",
}

__all__ = [
    "ModelSpec",
    "OpenRound",
    "Refusal",
    "RoundReport",
    "Strategy",
    "announce",
    "comask_mod",
    "open_round",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used.

    Raises:
        MissingExtraError: If flwr, or torch where the name needs it, is not installed.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        if top in ("flwr", "torch"):
            raise MissingExtraError(top, "flower" if top == "flwr" else "train") from error
        raise


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
