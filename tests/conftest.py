"""Settings for all tests."""

from __future__ import annotations

import os

import hypothesis

# Examples are drawn from a fixed seed, so that a run today and one tomorrow test the same thing.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

os.environ.setdefault("MPLBACKEND", "Agg")
