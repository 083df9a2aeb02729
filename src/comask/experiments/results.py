"""Finished and unfinished runs read back from their folders, and what is computed from them.

Every number comes from `rounds.jsonl`; `config.toml` says what to call it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError
from comask.experiments.config import SETTINGS, RunConfig
from comask.experiments.folder import CONFIG, ROUNDS, SUMMARY, RunFolder, read_rounds
from comask.simulation.records import RoundRecord

_NOT_A_DIFFERENCE = ("algorithm", "seed", "workers", "data_root", "rounds")
"""Settings that do not make two runs of one algorithm different things to compare."""

_LOSSLESS = ("exact", "float32")
_TARGET_SHARE = 0.98


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run's folder, read.

    Attributes:
        folder: Where it is.
        config: Its resolved configuration.
        records: Its rounds so far, at least one of them evaluated.
        summary: What `summary.json` holds: versions, device, precision.
    """

    folder: Path
    config: RunConfig
    records: tuple[RoundRecord, ...]
    summary: Mapping[str, Any]

    @property
    def evaluated(self) -> list[tuple[int, float]]:
        """Round and test accuracy of the rounds that were evaluated."""
        return [
            (record.round, record.test_accuracy)
            for record in self.records
            if record.test_accuracy is not None
        ]

    @property
    def final_accuracy(self) -> float:
        """Test accuracy after the last evaluated round."""
        return self.evaluated[-1][1]

    def uplink_until(self, round: int) -> int:  # noqa: A002  # the project's word
        """Bytes that all clients together have sent up to and including a round."""
        return sum(record.uplink_bytes for record in self.records if record.round <= round)

    def round_reaching(self, accuracy: float) -> int | None:
        """Return the first evaluated round at that test accuracy or above; None if there is none."""
        return next((number for number, reached in self.evaluated if reached >= accuracy), None)

    def mean(self, quantity: str) -> float:
        """Return the mean over rounds of a record's field, such as `mask_bytes`."""
        return float(np.mean([getattr(record, quantity) for record in self.records]))


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Runs that differ by their seed only.

    Attributes:
        label: The algorithm, and what sets the group apart from others of the same algorithm.
        runs: In the order of their seeds.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def algorithm(self) -> str:
        """The algorithm that all runs share."""
        return self.runs[0].config.algorithm

    @property
    def is_dense(self) -> bool:
        """Whether uploads hold every position in float32: there is no density, and the coding loses nothing."""
        config = self.runs[0].config
        coding = config.options.get("codec", config.options.get("values"))
        return config.density is None and coding in _LOSSLESS

    @property
    def final_accuracy(self) -> float:
        """Mean over seeds of the accuracy after the last evaluated round."""
        return float(np.mean([run.final_accuracy for run in self.runs]))


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A group's course over the rounds that all of its seeds have evaluated; each array has shape `(n,)`.

    Attributes:
        rounds: Round numbers.
        accuracy: Mean test accuracy over seeds.
        spread: Sample standard deviation over seeds; zero with one seed.
        uplink: Bytes sent by all clients together up to the round, mean over seeds.
    """

    rounds: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    spread: NDArray[np.float64]
    uplink: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Target:
    """The accuracy that a table counts bytes and rounds to.

    Attributes:
        accuracy: In 0..1.
        rule: Where it comes from, in words.
    """

    accuracy: float
    rule: str


def find_runs(paths: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """Read every run in or below some folders.

    Returns:
        The runs that have an evaluated round, and a sentence about each that has none or is not finished.

    Raises:
        ConfigError: If a path does not exist, or there is no run with an evaluated round.
        CheckpointError: If a run's records are damaged.
    """
    paths = list(paths)
    folders: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise ConfigError(f"{path} is not a folder; name the folder of a run or of a comparison.")
        folders |= dict.fromkeys(
            found.parent.resolve() for found in sorted(path.rglob(CONFIG)) if _has_begun(found.parent)
        )
    runs, notes = [], []
    for path in folders:
        run = read_run(path)
        if not run.evaluated:
            notes.append(
                f"{run.config.algorithm}, seed {run.config.seed}, has no evaluated round and is left out."
            )
            continue
        if len(run.records) < run.config.rounds:
            notes.append(
                f"{run.config.algorithm}, seed {run.config.seed}, has {len(run.records)} of {run.config.rounds} rounds."
            )
        runs.append(run)
    if not runs:
        raise ConfigError(f"There is no run with an evaluated round in {', '.join(map(str, paths))}.")
    return runs, notes


def _has_begun(folder: Path) -> bool:
    return (folder / ROUNDS).exists() or (folder / SUMMARY).exists()


def read_run(path: Path) -> Run:
    """Read one run's folder.

    Raises:
        CheckpointError: If its records or its summary are damaged.
    """
    folder = RunFolder(path)
    return Run(
        folder=path,
        config=RunConfig.load(folder.config, {}),
        records=tuple(read_rounds(folder.rounds)),
        summary=folder.read_summary(),
    )


def group_runs(runs: Sequence[Run], order: Iterable[str]) -> list[Group]:
    """Put runs that differ by seed together, in the order of the algorithms.

    Args:
        runs: Any runs.
        order: Algorithms' names; those that are not in it come last.

    Raises:
        ConfigError: If two runs have the same configuration and seed.
    """
    ranks = {name: rank for rank, name in enumerate(order)}
    sorted_runs = sorted(
        runs,
        key=lambda run: (ranks.get(run.config.algorithm, len(ranks)), run.config.algorithm, run.config.seed),
    )
    members: list[tuple[RunConfig, list[Run]]] = []
    for run in sorted_runs:
        key = replace(run.config, seed=0, workers=None, data_root=None, rounds=1)
        same = next((group for other, group in members if other == key), None)
        if same is None:
            members.append((key, [run]))
        elif same[-1].config.seed == run.config.seed:
            raise ConfigError(
                f"{same[-1].folder} and {run.folder} hold the same run: same settings, same seed. Give one of them."
            )
        else:
            same.append(run)
    keys = [key for key, _ in members]
    return [Group(_label(key, keys), tuple(group)) for key, group in members]


def _label(config: RunConfig, all_configs: Sequence[RunConfig]) -> str:
    """Return the algorithm's name, with the settings that differ from those of other groups of that algorithm."""
    rivals = [other for other in all_configs if other.algorithm == config.algorithm]
    names = [name for name in SETTINGS if name not in _NOT_A_DIFFERENCE]
    differing = [
        name for name in names if any(getattr(other, name) != getattr(config, name) for other in rivals)
    ]
    parts = [f"{name} {getattr(config, name)}" for name in differing]
    options = sorted({name for other in rivals for name in other.options})
    parts += [
        f"{name} {config.options.get(name)}"
        for name in options
        if any(other.options.get(name) != config.options.get(name) for other in rivals)
    ]
    return f"{config.algorithm} ({', '.join(parts)})" if parts else config.algorithm


def curve(group: Group) -> Curve:
    """Return a group's mean course and its spread over seeds."""
    courses = [dict(run.evaluated) for run in group.runs]
    rounds = sorted(set.intersection(*(set(course) for course in courses)))
    accuracy = np.array([[course[number] for number in rounds] for course in courses])  # (seeds, n)
    uplink = np.array([[run.uplink_until(number) for number in rounds] for run in group.runs], np.float64)
    spread = accuracy.std(axis=0, ddof=1) if len(courses) > 1 else np.zeros(len(rounds))
    return Curve(np.array(rounds, np.int64), accuracy.mean(axis=0), spread, uplink.mean(axis=0))


def choose_target(groups: Sequence[Group], accuracy: float | None) -> Target:
    """Return the target that was asked for, or else 0.98 of the best dense group's mean final accuracy.

    Args:
        groups: All groups that are compared.
        accuracy: In 0..1, or None. Without a dense group the best of all takes its place.

    Raises:
        ConfigError: If the accuracy is out of range.
    """
    if accuracy is not None:
        if not 0 < accuracy <= 1:
            raise ConfigError(f"--target must be a number with 0 < value <= 1, got {accuracy!r}.")
        return Target(accuracy, "as asked for")
    dense = [group for group in groups if group.is_dense]
    best = max(dense or groups, key=lambda group: group.final_accuracy)
    kind = "the best dense algorithm" if dense else "the best algorithm, as none of them is dense"
    return Target(
        _TARGET_SHARE * best.final_accuracy,
        f"{_TARGET_SHARE} of the mean final accuracy of {best.label}, {kind}",
    )
