"""The kernels give the same integers on a processor without wide vectors: LLVM makes narrower instructions of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
sys.path.insert(0, "tests/vectors")
import numba, numpy as np
from make_vectors import FOLDER, cases
from comask.kernels.select import top_k_abs_indices
from comask.wire import decode, encode

assert numba.config.CPU_NAME == "generic"
for name in ("context-of-a-network", "coded-streams", "shaped-of-two-tensors"):
    update, codec, layout = cases()[name]
    payload = encode(update, codec, layout=layout)
    assert payload == (FOLDER / f"{name}.bin").read_bytes(), name
    assert np.array_equal(decode(payload, dim=update.dim, layout=layout).blocks[0].indices, update.blocks[0].indices)
x = np.random.default_rng(0).standard_normal(70_003).astype(np.float32)
for k in (1, 700, 17_000):
    assert np.array_equal(top_k_abs_indices(x, k), np.sort(np.argsort(-np.abs(x), kind="stable")[:k]))
"""


@pytest.mark.slow
def test_a_generic_processor_makes_the_same_bytes(tmp_path: Path) -> None:
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, env=os.environ | generic, check=True)
