"""What a result depends on beside its configuration: versions, platform, the moment."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata

from comask.errors import MissingExtraError

_PACKAGES = ("comask", "numpy", "numba", "torch")


def describe_environment() -> dict[str, str | int]:
    """Return versions of Python and of the packages that shape results, the platform and the number of cores."""
    versions = {name: _version(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    }


def now() -> str:
    """Return the time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def require_packages(names: Iterable[str], extra: str) -> None:
    """Check that packages can be imported, without importing them.

    Raises:
        MissingExtraError: For the first that cannot; the message says what to install.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(name, extra)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
