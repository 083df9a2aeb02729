"""Every exception that comask raises on purpose.

```
ComaskError
├── ConfigError (ValueError)          an argument, flag or configuration value is not allowed
├── UnknownNameError (ConfigError)    a name that is in none of the tables; suggests the nearest one
├── PayloadError (ValueError)         bytes that are not a valid update; `.rule` names the rule they break
├── NonFiniteError (ValueError)       NaN or infinity where a finite number is needed; `.position` says where
├── RefusedUpdateError                a decoded update that a server must not add; `.reason` is one word for counting
├── DataNotFoundError                 a data set that is in none of the places looked at
├── DamagedDataError (ValueError)     a data file that is not, byte for byte, what it should be
├── CheckpointError                   a checkpoint that is damaged or belongs to another run
├── WorkerError                       a simulation worker died or raised
├── FleetError                        a fleet cannot go on: too few nodes, or a message that cannot be acted on
└── MissingExtraError (ImportError)   an optional dependency is not installed; says what to install
```
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ComaskError(Exception):
    """Base class: `except ComaskError` catches everything below and nothing else."""


class ConfigError(ComaskError, ValueError):
    """An argument, flag or configuration value is not allowed."""


class UnknownNameError(ConfigError):
    """A name that is in none of the tables.

    Args:
        kind: What the name should have been, such as `"algorithm"`.
        name: The name that was given.
        allowed: The names that exist.
    """

    def __init__(self, kind: str, name: str, allowed: Iterable[str]) -> None:
        self.kind, self.name, self.allowed = kind, name, tuple(sorted(allowed))
        near = difflib.get_close_matches(name, self.allowed, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"Unknown {kind} {name!r}.{hint} It must be one of: {', '.join(self.allowed)}.")


class PayloadError(ComaskError, ValueError):
    """Bytes that are not a valid update.

    Args:
        rule: The short name of the broken rule, as listed in `docs/format/v1.md`.
        message: What was found and what is allowed.
    """

    def __init__(self, rule: str, message: str) -> None:
        self.rule = rule
        super().__init__(f"{message} [{rule}]")


class NonFiniteError(ComaskError, ValueError):
    """NaN or infinity where a finite number is needed.

    Args:
        what: What holds the value, such as `"scores"`.
        position: The first offending position in the flat vector.
        value: The value found there.
    """

    def __init__(self, what: str, position: int, value: float) -> None:
        self.what, self.position, self.value = what, position, value
        super().__init__(f"{what} holds {value} at position {position}; every entry must be a finite number.")


class RefusedUpdateError(ComaskError):
    """A decoded update that a server must not add.

    Args:
        reason: One word for counting, such as `"non-finite"`.
        message: The whole story.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class DataNotFoundError(ComaskError):
    """A data set that is in none of the places looked at."""


class DamagedDataError(ComaskError, ValueError):
    """A data file that is not, byte for byte, what it should be."""


class CheckpointError(ComaskError):
    """A checkpoint that is damaged, or that belongs to another run."""


class WorkerError(ComaskError):
    """A simulation worker died or raised."""


class FleetError(ComaskError):
    """A fleet cannot go on: too few nodes, or a message that its receiver cannot act on."""


class MissingExtraError(ComaskError, ImportError):
    """An optional dependency is not installed.

    Args:
        module: The module that could not be imported.
        extra: The extra of comask that brings it.
    """

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed. Install it with: pip install 'comask[{extra}]'")
