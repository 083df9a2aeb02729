"""Flower's own simulation engine gives the model of the in-process grid, and so of `comask.simulate`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fleet import FEEDBACK, run

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Flower's simulation engine needs ray")
def test_same_model_under_flowers_simulation_engine(tmp_path):
    environment = {
        **os.environ,
        "FLWR_HOME": str(tmp_path / "flwr"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        "PYTHONWARNINGS": "ignore",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray then listens on the loopback only
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "simulated_fleet.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    expected, *_ = run(FEEDBACK, tmp_path / "grid", rounds=3)
    with np.load(tmp_path / "model.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["streams"], expected.state.model.streams)
        np.testing.assert_array_equal(found["buffers"], expected.state.model.buffers)
