"""Kernels use the threads they may, and leave torch's alone."""

from __future__ import annotations

import subprocess
import sys
import threading

import numba
import pytest

from comask.kernels import threads

_CODE_AND_SELECT = """
import numpy as np, torch
torch.set_num_threads(1)
assert torch.get_num_threads() == 1  # torch settles on a number when it is first asked or first works in parallel
from comask.masks import top_k
from comask.wire import Block, ParamLayout, Update, decode, encode

dim = 1 << 21
rng = np.random.default_rng(0)
indices = top_k(np.abs(rng.standard_normal(dim).astype(np.float32)), 300_000).astype(np.uint32)
update = Update(dim, (Block(indices, rng.standard_normal((3, indices.size)).astype(np.float32)),))
for codec in ("exact", "compact"):
    decode(encode(update, codec), dim=dim)
decode(encode(update, "exact", layout=ParamLayout(("w",), ((2048, 1024),))), dim=dim, layout=ParamLayout(("w",), ((2048, 1024),)))
print(torch.get_num_threads())
"""


def test_torch_keeps_its_number_of_threads():
    """In a process of its own: once numba's pool has been started, nothing changes torch's number again."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE_AND_SELECT], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"


def test_a_limit_holds_within_and_not_beyond():
    allowed = threads.num_threads()
    assert allowed == numba.config.NUMBA_NUM_THREADS
    with threads.limited(1):
        assert threads.num_threads() == 1
        with threads.limited(allowed + 5):
            assert threads.num_threads() == allowed
        assert len(threads.split(1 << 24)) == 1
    assert threads.num_threads() == allowed


@pytest.mark.parametrize("limit", [1, 2])
def test_results_come_in_order_and_on_as_many_threads_as_allowed(limit):
    with threads.limited(limit):
        found = threads.run(lambda value: (value, threading.get_ident()), [(value,) for value in range(20)])
    assert [value for value, _ in found] == list(range(20))
    assert len({thread for _, thread in found}) <= limit
    assert (found[0][1] == threading.get_ident()) == (min(limit, threads.num_threads()) == 1)
