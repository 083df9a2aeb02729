"""The main faults in a real deployment: SuperLink and SuperNodes in processes of their own, with TLS and keys."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "flower-deployment" / "demo.py"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("ssh-keygen")),
    reason="certificates need openssl and ssh-keygen",
)
def test_the_demonstration_ends_with_the_right_model():
    done = subprocess.run(
        [sys.executable, str(DEMO)], capture_output=True, text=True, check=False, cwd=DEMO.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "status finished:completed" in done.stdout
    assert "1: payload" in done.stdout
