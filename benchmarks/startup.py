"""Seconds from `import comask` to the first payload, in fresh processes whose kernels are cached.

python benchmarks/startup.py [--runs 5]
"""

from __future__ import annotations

import argparse
import subprocess
import sys

PROGRAM = """
import time
clock, processor = time.perf_counter(), time.process_time()
import comask
import numpy as np
from comask.kernels.rows import gather_rows
from comask.kernels.select import top_k_abs_indices
from comask.wire import Block, ParamLayout, Update, encode
state = np.random.default_rng(0).standard_normal((3, 215_370), np.float32)
indices = top_k_abs_indices(state[0], 10_768)
values = np.empty((3, indices.size), np.float32)
gather_rows(state, indices, values)
layout = ParamLayout(("weight", "rest"), ((128, 1568), (14_666,)))
encode(Update(layout.dim, (Block(indices, values),)), "compact", layout=layout)
print(time.perf_counter() - clock, time.process_time() - processor)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    taken = []
    for _ in range(runs + 1):  # the first one fills the cache
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        taken.append(tuple(map(float, done.stdout.split())))
    for name, times in zip(("clock", "processor"), zip(*taken[1:], strict=True), strict=True):
        print(f"{name:10}{min(times):6.2f} to {max(times):.2f} s over {runs} starts")


if __name__ == "__main__":
    main()
