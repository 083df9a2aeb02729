# ruff: noqa: ANN001, ANN201, ANN202, D103, INP001, T201
"""Throw damaged payloads at the decoder: each must decode to a valid update or raise PayloadError.

    python fuzz/fuzz_decode.py --payloads 1000000 --seed 1        mutations of the golden vectors and of random updates
    python fuzz/fuzz_decode.py --atheris CORPUS                   coverage-guided, where atheris is installed

The checksum is repaired after each mutation, so that the damage reaches the decoder behind it, and every array access of the
kernels is checked. A payload that takes more memory or time than
`docs/format/v1.md` allows, or raises anything else, stops the run with its bytes on the screen.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import tempfile
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path

# Every array access of the kernels is checked. A cache of their own: numba's cache does not tell checked kernels from others.
os.environ.setdefault("NUMBA_BOUNDSCHECK", "1")
os.environ.setdefault("NUMBA_CACHE_DIR", tempfile.mkdtemp(prefix="comask-fuzz-"))

import numpy as np

from comask.errors import PayloadError
from comask.wire import (
    INDEX_CODINGS,
    RULES,
    VALUE_CODINGS,
    Block,
    Codec,
    ParamLayout,
    Update,
    decode,
    encode,
    inspect,
)

VECTORS = Path(__file__).parents[1] / "tests" / "vectors"
MAX_STREAMS = 16
SLACK_BYTES = 1 << 20  # interpreter objects, tables and error messages
SECONDS = 5.0


def seeds(rng):
    """Return (payload, dim, layout) to start from: one for each pair of codings, and the golden vectors."""
    found = []
    for index_name in INDEX_CODINGS:
        for value_name in VALUE_CODINGS:
            dim = int(rng.integers(1, 3000))
            k = dim if index_name == "dense" else int(rng.integers(0, dim // 4 + 1))
            indices = np.sort(rng.choice(dim, k, replace=False)).astype(np.uint32)
            values = rng.standard_normal((int(rng.integers(0, 4)), k)).astype(np.float32)
            layout = (
                ParamLayout(("a", "b"), ((dim // 6, 3, 2), (dim - dim // 6 * 6,)))
                if rng.random() < 0.5
                else None
            )
            codec = Codec("fuzz", index_name, (value_name,))
            found.append((encode(Update(dim, (Block(indices, values),)), codec, layout=layout), dim, layout))
    for path in sorted(VECTORS.glob("*.bin")):
        payload = path.read_bytes()
        if len(payload) < 5000 and "largest" not in path.name and not payload[5] & 1:
            found.append((payload, inspect(payload).dim, None))
    return found


def mutate(payload, rng):
    """Return the payload with one to four changes and its checksum repaired."""
    body = bytearray(payload[:-4])
    # What changes the length is nearly always refused by the directory: three times in four, change bytes in place only.
    kinds = 3 if rng.random() < 0.75 else 6
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(5, max(len(body), 6)))
        kind = int(rng.integers(0, kinds))
        if kind == 0 and at < len(body):
            body[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1 and at < len(body):
            body[at] = int(rng.choice((0, 1, 2, 0x3F, 0x7F, 0x80, 0xFE, 0xFF)))
        elif kind <= 2:
            width = len(body[at : at + 4])
            body[at : at + width] = rng.bytes(width)
        elif kind == 3:
            del body[at : at + int(rng.integers(1, 9))]
        elif kind == 4:
            body[at:at] = rng.bytes(int(rng.integers(1, 9)))
        else:
            body[at:at] = body[at : at + int(rng.integers(1, 64))]
    return bytes(body) + zlib.crc32(body).to_bytes(4, "little")


def attempt(payload, dim, layout):
    """Decode; return the name of the broken rule, or "valid"; raise anything that must not happen."""
    try:
        update = decode(payload, dim=dim, layout=layout, max_streams=MAX_STREAMS)
    except PayloadError as error:
        if error.rule not in RULES:
            raise AssertionError(f"unknown rule {error.rule}") from error
        return error.rule
    for block in update.blocks:
        indices = np.arange(dim) if block.indices is None else block.indices.astype(np.int64)
        assert indices.size == block.num_kept
        assert indices.size == 0 or (indices[-1] < dim and (np.diff(indices) > 0).all())
    return "valid"


def run(count, seed):
    rng = np.random.default_rng(seed)
    starts = seeds(rng)
    warnings.simplefilter("error")  # a warning is an exception that a caller may have asked for
    for payload, dim, layout in starts:  # compiles every kernel before memory and time are watched
        attempt(payload, dim, layout)
    outcomes = collections.Counter()
    began = time.perf_counter()
    for done in range(count):
        start, dim, layout = starts[int(rng.integers(len(starts)))]
        payload = mutate(start, rng)
        watched = done % 64 == 0  # watching memory slows Python down
        if watched:
            tracemalloc.start()
        before = time.perf_counter()
        try:
            outcomes[attempt(payload, dim, layout)] += 1
            assert time.perf_counter() - before < SECONDS, "too slow"
            bound = 8 * dim * (MAX_STREAMS + 2) + 16 * len(payload) + SLACK_BYTES
            assert not watched or tracemalloc.get_traced_memory()[1] < bound, "too much memory"
        except BaseException:
            print(f"payload {done} of seed {seed}, dim {dim}: {payload.hex()}", file=sys.stderr)
            raise
        finally:
            if watched:
                tracemalloc.stop()
        if (done + 1) % 100_000 == 0:
            print(f"{done + 1} payloads, {time.perf_counter() - began:.0f} s", flush=True)
    print(f"{count} payloads of seed {seed}: none crashed, hung, or took more memory than allowed.")
    for outcome, times in outcomes.most_common():
        print(f"{times:9d}  {outcome}")


def run_atheris(arguments):
    import atheris  # noqa: PLC0415 - optional

    def one(data):
        body = b"\xc0MSK\x01" + data
        attempt(body + zlib.crc32(body).to_bytes(4, "little"), 609, None)

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--payloads", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--atheris", nargs=argparse.REMAINDER, help="arguments for libFuzzer, such as a corpus folder"
    )
    args = parser.parse_args()
    if args.atheris is not None:
        run_atheris(args.atheris)
    else:
        run(args.payloads, args.seed)


if __name__ == "__main__":
    main()
