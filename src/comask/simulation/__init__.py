"""Federated training, simulated on one machine with real payloads. Records can be read without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comask.simulation.records import PHASES, Refusal, RoundRecord

if TYPE_CHECKING:
    from comask.simulation.engine import Simulation, simulate

__all__ = ["PHASES", "Refusal", "RoundRecord", "Simulation", "simulate"]


def __getattr__(name: str) -> Any:
    """Load the engine, and torch with it, when a run is wanted."""
    if name not in ("Simulation", "simulate"):
        raise AttributeError(f"module 'comask.simulation' has no attribute {name!r}")
    from comask.simulation import engine  # noqa: PLC0415 -- the reason for this function

    return getattr(engine, name)
