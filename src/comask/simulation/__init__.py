"""Federated training, simulated on one machine with real payloads."""

from comask.simulation.engine import Simulation, simulate
from comask.simulation.records import PHASES, Refusal, RoundRecord

__all__ = ["PHASES", "Refusal", "RoundRecord", "Simulation", "simulate"]
