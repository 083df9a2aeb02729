"""A run's folder: what is written when, so that a kill at any moment loses nothing.

```
config.toml     every setting of the run, resolved; written first, never changed but by a resume that extends the run
checkpoint/     written by the simulation after each round, atomically
rounds.jsonl    one record a round, appended and flushed to disk after the checkpoint of that round
summary.json    totals, and one entry a session: command, versions, device, precision
```

Because a round's record follows its checkpoint, a kill leaves `rounds.jsonl` one record short at worst, and the checkpoint
holds that record; a line that was being written is cut off. `reconcile` repairs both.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comask.errors import CheckpointError, ConfigError
from comask.simulation.records import RoundRecord

CONFIG, ROUNDS, SUMMARY, CHECKPOINT, LOCK = (
    "config.toml",
    "rounds.jsonl",
    "summary.json",
    "checkpoint",
    ".lock",
)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run's files.

    Attributes:
        path: The folder; it need not exist.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / CONFIG

    @property
    def rounds(self) -> Path:
        """The records, one JSON object a line."""
        return self.path / ROUNDS

    @property
    def summary(self) -> Path:
        """Totals and sessions."""
        return self.path / SUMMARY

    @property
    def checkpoint(self) -> Path:
        """What the simulation continues from; absent before the first round is done."""
        return self.path / CHECKPOINT

    def create(self, config: str, *, overwrite: bool) -> None:
        """Make the folder and write its configuration.

        Args:
            config: The text of `config.toml`.
            overwrite: Replace the run that is already there. Only files that a run writes are removed.

        Raises:
            ConfigError: If the folder holds anything, unless that is a run and `overwrite` is set.
        """
        require_vacant(self.path, overwrite=overwrite, marker=CONFIG)
        self.path.mkdir(parents=True, exist_ok=True)
        self.clear()
        self.write_config(config)

    def clear(self) -> None:
        """Remove the files of a run that is there; others stay.

        Raises:
            ConfigError: If another process is writing them.
        """
        with self.locked():
            for leftover in (self.config, self.rounds, self.summary):
                leftover.unlink(missing_ok=True)
            if self.checkpoint.exists():
                shutil.rmtree(self.checkpoint)

    def write_config(self, config: str) -> None:
        """Replace `config.toml`, atomically."""
        write_atomic(self.config, config)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing to the folder; the lock ends with the process, however that ends.

        Raises:
            ConfigError: If another process holds it.
        """
        # A record lock rather than flock: worker processes do not inherit it, so a killed parent's orphans hold nothing.
        with (self.path / LOCK).open("w") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    f"Another process is running in {self.path}; wait for it to end, or choose another --out."
                ) from None
            yield

    def append(self, record: RoundRecord) -> None:
        """Add one record and flush it to disk."""
        with self.rounds.open("ab") as file:
            file.write((json.dumps(record_facts(record), allow_nan=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def reconcile(self, done: int, last: RoundRecord | None) -> list[RoundRecord]:
        """Make `rounds.jsonl` hold exactly the rounds that the checkpoint has behind it.

        Args:
            done: The checkpoint's round; 0 without one.
            last: The record of that round as the checkpoint holds it.

        Returns:
            The records of rounds 1 to `done`.

        Raises:
            CheckpointError: If the two differ by more than a kill can explain.
        """
        parsed = _parse(self.rounds)
        lost = len(parsed) == done - 1 and last is not None and last.round == done
        if not lost and not done <= len(parsed) <= done + 1:
            raise CheckpointError(
                f"{self.checkpoint} is at round {done} and {self.rounds} holds {len(parsed)} records; they may differ by one "
                "at most, so one of them was changed or removed. Start again with --overwrite."
            )
        kept = parsed[:done]
        if self.rounds.exists():
            os.truncate(self.rounds, kept[-1][1] if kept else 0)
        records = [record for record, _ in kept]
        if lost and last is not None:
            self.append(last)
            records.append(last)
        return records

    def read_summary(self) -> dict[str, Any]:
        """Return what `summary.json` holds; empty if there is none yet."""
        if not self.summary.exists():
            return {}
        try:
            data = json.loads(self.summary.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{self.summary} is not valid JSON: {error}.") from None
        if not isinstance(data, dict):
            raise CheckpointError(f"{self.summary} must hold a JSON object, got {type(data).__name__}.")
        return data

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace `summary.json`, atomically."""
        write_atomic(self.summary, json.dumps(summary, indent=2) + "\n")


def record_facts(record: RoundRecord) -> dict[str, Any]:
    """Return a record as plain data that is valid JSON: a loss that is NaN or infinite becomes null, as JSON has neither."""
    facts = record.to_json()
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in facts.items()
    }


def read_rounds(path: Path) -> list[RoundRecord]:
    """Return the records of a `rounds.jsonl`; a last line that was cut off while being written is left out.

    Raises:
        CheckpointError: If any other line is damaged, or rounds do not count up from 1.
    """
    return [record for record, _ in _parse(path)]


def require_vacant(path: Path, *, overwrite: bool, marker: str) -> None:
    """Check that a folder may be written to.

    Raises:
        ConfigError: If it holds anything, unless `overwrite` is set and the file `marker` shows that it is one of ours.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file; --out must be a folder.")
    if not path.exists() or not any(not entry.name.startswith(".") for entry in path.iterdir()):
        return
    if not (path / marker).exists():
        raise ConfigError(f"{path} is not empty and holds no {marker}; choose another --out.")
    if not overwrite:
        raise ConfigError(
            f"{path} already holds a run. Continue it with --resume {path}, replace it with --overwrite, or choose another --out."
        )


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old text or the new one, never a part, even after a power cut."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _parse(path: Path) -> list[tuple[RoundRecord, int]]:
    """Return each record with the offset at which its line ends."""
    if not path.exists():
        return []
    parsed: list[tuple[RoundRecord, int]] = []
    end = 0
    lines = path.read_bytes().split(b"\n")  # what follows the last newline is nothing, or a line cut off
    for number, line in enumerate(lines[:-1], start=1):
        end += len(line) + 1
        try:
            record = RoundRecord.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) - 1:
                break
            raise CheckpointError(f"{path}, line {number}, is not a round's record: {error!r}.") from None
        if record.round != number:
            raise CheckpointError(
                f"{path}, line {number}, is of round {record.round}; lines must count up from 1."
            )
        parsed.append((record, end))
    return parsed
