"""Exit codes of the command line: what a script can tell from the number alone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from comask.errors import CheckpointError, ConfigError, DamagedDataError, DataNotFoundError, PayloadError

OK, FAILED, USAGE, NO_DATA, BAD_PAYLOAD, BAD_CHECKPOINT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

EXIT_CODES: Mapping[int, str] = MappingProxyType(
    {
        OK: "Done.",
        FAILED: "Something failed while running, or a package is missing.",
        USAGE: "A flag, a configuration key or a value is not allowed; nothing was run.",
        NO_DATA: "The data set is in none of the places looked at, or one of its files is damaged.",
        BAD_PAYLOAD: "Bytes that are not a valid payload.",
        BAD_CHECKPOINT: "A checkpoint or a run's records are damaged, or belong to another run.",
        INTERRUPTED: "Stopped by Ctrl-C; the message says how to continue.",
    }
)
"""Every exit code and its meaning."""

_BY_ERROR: tuple[tuple[type[Exception], int], ...] = (
    (ConfigError, USAGE),
    (DataNotFoundError, NO_DATA),
    (DamagedDataError, NO_DATA),
    (PayloadError, BAD_PAYLOAD),
    (CheckpointError, BAD_CHECKPOINT),
)


def exit_code(error: Exception) -> int:
    """Return the exit code for an error that ended a command."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILED)
