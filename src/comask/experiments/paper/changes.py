"""How large the changes of W, M and V are, and how much their rankings agree: measured inside real runs.

A probe around the client rule looks at what local training changed, before anything is masked, and changes nothing: the run is the same to
the last bit. It works in whatever process trains the client, so it leaves a small file for each round and client; when the run is
done these become `changes.jsonl`, one line a round with means over clients.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.base import Algorithm, ClientContext, ClientRule, Memory
from comask.errors import CheckpointError
from comask.experiments.folder import RunFolder, write_atomic
from comask.masks import mask_rule, num_kept
from comask.state import ModelState
from comask.wire.update import Update

CHANGES, _PROBES = "changes.jsonl", ".probes"
STREAMS = ("w", "m", "v")


@dataclass(frozen=True, slots=True)
class Changes:
    """One upload's changes, or means over a round's.

    Attributes:
        w: Mean |dW| over all positions.
        m: Mean |dM|.
        v: Mean |dV|.
        w_m: Share of positions that the top-k of |dW| and of |dM| have in common.
        w_v: Likewise of |dW| and |dV|.
        m_v: Likewise of |dM| and |dV|.
        kept_w: Share of dW's squared length at the top-k of |dW|.
        kept_m: Share of dM's squared length there.
        kept_v: Share of dV's squared length there.
    """

    w: float
    m: float
    v: float
    w_m: float
    w_v: float
    m_v: float
    kept_w: float
    kept_m: float
    kept_v: float


def measure(delta: NDArray[np.float32], density: float) -> Changes:
    """Measure one upload.

    Args:
        delta: Shape `(3, d)`: the changes of W, M and V.
        density: Fraction kept by the rankings.
    """
    count = num_kept(density, delta.shape[1])
    masks = [mask_rule(name)(delta, count) for name in STREAMS]
    common = [
        len(np.intersect1d(first, second, assume_unique=True)) / max(1, count)
        for first, second in combinations(masks, 2)
    ]
    square = delta.astype(np.float64) ** 2
    total = square.sum(axis=1)
    kept = square[:, masks[0]].sum(axis=1) / np.where(total > 0, total, 1.0)
    return Changes(*map(float, np.abs(delta).mean(axis=1, dtype=np.float64)), *common, *map(float, kept))


@dataclass(frozen=True, slots=True)
class Probe:
    """A client rule that measures what another one is given, and leaves the rest to it.

    Attributes:
        inner: The rule.
        density: Fraction kept by the rankings.
        folder: Where to leave the measurements; a text, so that the rule can be described and sent to a worker.
    """

    inner: ClientRule
    density: float
    folder: str

    def begin(self, broadcast: Update, memory: Memory) -> ModelState:
        """Leave it to the inner rule."""
        return self.inner.begin(broadcast, memory)

    def finish(
        self, start: ModelState, end: ModelState, memory: Memory, context: ClientContext
    ) -> tuple[Update, Memory]:
        """Measure, and leave the upload to the inner rule."""
        finished = self.inner.finish(start, end, memory, context)
        file = Path(self.folder) / f"{context.round:06d}-{context.client:06d}.json"
        write_atomic(file, json.dumps(asdict(measure(end.streams - start.streams, self.density))))
        return finished


def probing(folder: RunFolder, density: float) -> Callable[[Algorithm], Algorithm]:
    """Return what puts the probe around an algorithm's client rule; the run's folder must exist."""
    probes = folder.path / _PROBES
    probes.mkdir(exist_ok=True)
    return lambda algorithm: replace(algorithm, client=Probe(algorithm.client, density, str(probes)))


def forget(folder: RunFolder) -> None:
    """Remove what probes have left, for a run that starts over."""
    (folder.path / CHANGES).unlink(missing_ok=True)
    shutil.rmtree(folder.path / _PROBES, ignore_errors=True)


def collect(folder: RunFolder) -> None:
    """Turn the probes' files into `changes.jsonl`, means over the clients of each round."""
    by_round: dict[int, list[Mapping[str, float]]] = {}
    for file in sorted((folder.path / _PROBES).glob("*.json")):
        by_round.setdefault(int(file.stem.split("-")[0]), []).append(
            json.loads(file.read_text(encoding="utf-8"))
        )
    lines = [
        json.dumps(
            {"round": number, **{name: float(np.mean([row[name] for row in rows])) for name in rows[0]}}
        )
        for number, rows in by_round.items()
    ]
    write_atomic(folder.path / CHANGES, "".join(f"{line}\n" for line in lines))
    shutil.rmtree(folder.path / _PROBES)


def has_changes(folder: Path) -> bool:
    """Tell whether a run's measurements are there."""
    return (folder / CHANGES).exists()


def read_changes(folder: Path) -> Sequence[Changes]:
    """Return a run's measurements by round, from round 1.

    Raises:
        CheckpointError: If the file is damaged.
    """
    file = folder / CHANGES
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [Changes(**{item.name: float(row[item.name]) for item in fields(Changes)}) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged: {error!r}.") from None
