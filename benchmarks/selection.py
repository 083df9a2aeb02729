"""Exact selection against what a user would otherwise take: `torch.topk` and `np.argpartition`. Ratios are from one run.

python benchmarks/selection.py [--dim 10000000] [--density 0.05] [--repeats 5]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from comask.kernels.select import top_k_abs_indices


def best_seconds(function, repeats):
    """Return the shortest of several runs, after one that is not counted: by the clock, and of all cores together."""
    function()
    wall, cpu = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return min(wall), min(cpu)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=10_000_000)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    k = round(args.density * args.dim)
    x = np.random.default_rng(0).standard_normal(args.dim).astype(np.float32)
    tensor = torch.from_numpy(x)

    candidates = {
        "comask top_k_abs_indices (exact, ties by position)": lambda: top_k_abs_indices(x, k),
        "torch.topk of abs, sorted=False": lambda: torch.topk(tensor.abs(), k, sorted=False),
        "np.argpartition of abs": lambda: np.argpartition(np.abs(x), args.dim - k),
        "reading the vector once (np.max)": x.max,
    }
    seconds = {name: best_seconds(function, args.repeats) for name, function in candidates.items()}
    ours_wall, ours_cpu = next(iter(seconds.values()))
    print(
        f"dim {args.dim}, k {k}, normal values; {torch.get_num_threads()} torch threads; best of {args.repeats}"
    )
    print(f"{'clock':>11}{'x ours':>10}{'CPU':>13}{'x ours':>10}")
    for name, (wall, cpu) in seconds.items():
        print(
            f"{1e3 * wall:8.1f} ms{wall / ours_wall:10.2f}{1e3 * cpu:10.1f} ms{cpu / ours_cpu:10.2f}   {name}"
        )


if __name__ == "__main__":
    main()
