"""What a simulation is asked to do, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from comask.errors import ConfigError
from comask.hyperparams import require_finite
from comask.simulation.workers import default_workers


@dataclass(frozen=True, slots=True)
class Settings:
    """The numbers of a run; `comask.simulation.simulate` documents each."""

    rounds: int
    seed: int
    local_steps: int
    local_epochs: float | None
    batch_size: int
    cohort_fraction: float
    dropout: float
    eval_every: int
    min_samples: int

    def __post_init__(self) -> None:
        for name, low in (
            ("rounds", 1),
            ("local_steps", 1),
            ("batch_size", 1),
            ("eval_every", 0),
            ("min_samples", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise ConfigError(
                    f"simulate({name}=...) must be an integer of at least {low}, got {value!r}."
                )
        require_finite("simulate", "cohort_fraction", self.cohort_fraction, low=0.0, high=1.0, open_low=True)
        require_finite("simulate", "dropout", self.dropout, low=0.0, high=1.0)
        if self.local_epochs is not None:
            require_finite("simulate", "local_epochs", self.local_epochs, low=0.0, open_low=True)

    def steps_for(self, num_samples: int) -> int:
        """Return the local steps of a client with that many samples."""
        if self.local_epochs is None:
            return self.local_steps
        return max(1, math.ceil(self.local_epochs * num_samples / min(self.batch_size, num_samples)))

    def evaluates(self, round_number: int) -> bool:
        """Tell whether the model is tested after that round."""
        if not self.eval_every:
            return False
        return round_number % self.eval_every == 0 or round_number == self.rounds


def choose_device(device: str) -> str:
    """Resolve `"auto"` and refuse what is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device must be 'auto', 'cpu' or 'cuda', got {device!r}.")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigError(
            "device='cuda' was asked for, but torch sees no CUDA device; 'cpu' and 'auto' work."
        )
    if device == "auto":
        return "cuda" if available else "cpu"
    return device


def choose_workers(workers: int | None, device: str) -> int:
    """Resolve None: one process a core, or this one alone where a GPU does the work."""
    if workers is None:
        return 0 if device == "cuda" else default_workers()
    if not isinstance(workers, int) or workers < 0:
        raise ConfigError(f"workers must be None or an integer of at least 0, got {workers!r}.")
    return workers
