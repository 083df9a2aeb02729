"""An update of a large model, span by span: time of the processor and memory, both ways.

    python benchmarks/scale.py [--dim 300000000] [--span 16777216] [--density 0.01] [--codec compact]

Each span's three streams are made, its largest changes selected, gathered and written; then the stream is read back and compared.
What making and comparing take is not counted.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time

import numpy as np

from comask.kernels.rows import gather_rows
from comask.kernels.select import top_k_abs_indices
from comask.wire import Block, Update, read_stream, write_stream


def span_of(number, length):
    """Return the three streams of a span, shape (3, length): the same every time."""
    return np.random.default_rng(number).standard_normal((3, length), np.float32)


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=300_000_000)
    parser.add_argument("--span", type=int, default=1 << 24)
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--codec", default="compact")
    args = parser.parse_args()
    lengths = [min(args.span, args.dim - start) for start in range(0, args.dim, args.span)]
    seconds = dict.fromkeys(("select and gather", "encode and write", "read and decode"), 0.0)

    def parts():
        for number, length in enumerate(lengths):
            made = span_of(number, length)
            start = time.process_time()
            indices = top_k_abs_indices(made[0], max(round(args.density * length), 1))
            values = np.empty((3, indices.size), np.float32)
            gather_rows(made, indices, values)
            taken = time.process_time() - start
            seconds["select and gather"] += taken
            del made
            yield Update(length, (Block(indices, values),))

    made = span_of(0, lengths[0])
    top_k_abs_indices(made[0], lengths[0] // 100)
    del made
    before = peak_mib()
    with tempfile.TemporaryFile() as file:
        total = 0.0
        stream = parts()

        def timed():
            # What passes between two spans being asked for is encoding and writing.
            nonlocal total
            for part in stream:
                start = time.process_time()
                yield part
                total += time.process_time() - start

        size = write_stream(file, timed(), dim=args.dim, codec=args.codec)
        seconds["encode and write"] = total
        writing = peak_mib() - before
        file.seek(0)
        spans = read_stream(file, dim=args.dim)
        kept = 0
        for number, length in enumerate(lengths):
            start = time.process_time()
            first, update = next(spans)
            seconds["read and decode"] += time.process_time() - start
            assert (first, update.dim) == (number * args.span, length)
            block = update.blocks[0]
            made = span_of(number, length)[0]
            assert np.array_equal(block.indices, top_k_abs_indices(made, block.num_kept))
            kept += block.num_kept
    print(
        f"dim {args.dim}, {len(lengths)} spans of {args.span}, {kept} positions kept, codec {args.codec!r}: {size} bytes"
    )
    for what, taken in seconds.items():
        print(f"{taken:8.2f} s of the processor: {what}")
    print(
        f"{writing:8.0f} MiB above the first span's vectors ({4 * 3 * lengths[0] / 2**20:.0f} MiB) at most, while writing"
    )


if __name__ == "__main__":
    main()
