"""Exact selection against what a user would otherwise take: `torch.topk` and `np.argpartition`. Ratios are from one run.

python benchmarks/select.py [--dim 10000000] [--density 0.05] [--repeats 5]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from comask.kernels.select import top_k_abs_indices


def best_seconds(function, repeats):
    """Return the shortest of several runs, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


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
    ours = next(iter(seconds.values()))
    print(
        f"dim {args.dim}, k {k}, normal values; {torch.get_num_threads()} torch threads; best of {args.repeats}"
    )
    for name, taken in seconds.items():
        print(f"{1e3 * taken:10.1f} ms  {taken / ours:8.2f} x ours   {name}")


if __name__ == "__main__":
    main()
