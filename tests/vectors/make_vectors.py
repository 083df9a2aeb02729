"""The inputs of the golden vectors. Run this file to write the vectors of new inputs: existing files are never changed.

The inputs use no generator whose stream might change: a small linear congruence, written out here.
"""

from pathlib import Path

import numpy as np

from comask.wire import INDEX_CODINGS, VALUE_CODINGS, Block, Codec, ParamLayout, Update, encode

FOLDER = Path(__file__).parent
LAYOUT = ParamLayout(("conv.weight", "conv.bias", "scale"), ((8, 3, 5, 5), (8,), ()))
NETWORK = ParamLayout(
    ("conv.weight", "conv.bias", "linear.weight", "linear.bias", "head.weight"),
    ((8, 3, 5, 5), (8,), (20, 8 * 36), (20,), (10, 20)),
)
LONG = ParamLayout(("a", "b"), ((3, 700_000), (10, 500)))


def numbers(count: int, seed: int) -> np.ndarray:
    """Return `count` numbers in 0..2**31 - 1 (Park and Miller's generator)."""
    out, state = np.empty(count, np.int64), seed
    for i in range(count):
        state = state * 48271 % (2**31 - 1)
        out[i] = state
    return out


def mask(dim: int, one_in: int, seed: int) -> np.ndarray:
    return np.flatnonzero(numbers(dim, seed) % one_in == 0).astype(np.uint32)


def clustered(dim: int, seed: int, first: int = 0) -> Block:
    """A block whose positions come in bursts from `first` on, without values."""
    starts = first + numbers(60, seed) % (dim - first)
    lengths = numbers(60, seed + 100) % 40
    kept = np.unique(
        np.concatenate([np.arange(a, min(a + n, dim)) for a, n in zip(starts, lengths, strict=True)])
    )
    return Block(kept.astype(np.uint32), np.empty((0, kept.size), np.float32))


def busy_columns(rows: int, widths: tuple[int, ...], seed: int) -> Block:
    """A block that keeps about every fifth column of tensors of some rows, with gaps, without values."""
    kept, first = [], 0
    for width in widths:
        places, busy = np.arange(rows * width), numbers(width, seed + width) % 5 == 0
        kept.append(first + places[busy[places % width] & (numbers(places.size, seed) % 3 > 0)])
        first += rows * width
    indices = np.concatenate(kept).astype(np.uint32)
    return Block(indices, np.empty((0, indices.size), np.float32))


def values(streams: int, k: int, seed: int) -> np.ndarray:
    """Numbers of both signs over four decades, the same on every machine: integers times powers of two."""
    raw = numbers(2 * streams * k, seed).reshape(2, streams, k)
    return ((raw[0] % 4001 - 2000) * 2.0 ** -(raw[1] % 14 + 6)).astype(np.float32)


def block(dim: int, one_in: int, streams: int, seed: int) -> Block:
    indices = mask(dim, one_in, seed)
    return Block(indices, values(streams, indices.size, seed))


def related(dim: int, one_in: int, seed: int) -> Block:
    """Three streams whose signs and magnitudes go together and drift, as those of a real update do."""
    indices = mask(dim, one_in, seed)
    noise = values(3, indices.size, seed + 1)
    drift = 2.0 ** (np.arange(indices.size) // 50 % 7).astype(np.float32)
    first = noise[0] * drift
    return Block(indices, np.stack([first, first / 8 + noise[1] / 4, first * first / 64]).astype(np.float32))


def cases() -> dict[str, tuple[Update, Codec, ParamLayout | None]]:
    found = {}
    for name in INDEX_CODINGS:
        sparse = Block(None, values(1, 609, 1)) if name == "dense" else block(609, 7, 1, 1)
        found[f"indices-{name}"] = (Update(609, (sparse,), round=1), Codec("x", name), LAYOUT)
    for name in VALUE_CODINGS:
        found[f"values-{name}"] = (
            Update(609, (block(609, 7, 2, 2),), round=2),
            Codec("x", "rice", (name,)),
            None,
        )
    exact = Codec("x", "rice")
    far = Block(np.array([0, 1, 70_000, 2**31, 2**32 - 1], np.uint32), values(1, 5, 3))
    found |= {
        "nothing": (Update(1, ()), exact, None),
        "nothing-kept": (
            Update(609, (Block(np.empty(0, np.uint32), np.empty((3, 0), np.float32)),)),
            exact,
            None,
        ),
        "a-mask-alone": (Update(609, (block(609, 50, 0, 4),)), exact, None),
        "buffers": (Update(609, (), values(1, 3, 5)[0], round=300), exact, LAYOUT),
        "three-masks": (
            Update(609, tuple(block(609, n, 1, n) for n in (3, 30, 300)), round=2**40),
            exact,
            LAYOUT,
        ),
        "the-largest-dimension": (Update(2**32, (far,)), exact, None),
        "context-without-a-layout": (Update(609, (block(609, 7, 0, 7),)), Codec("x", "context"), None),
        "context-of-a-network": (
            Update(NETWORK.dim, (clustered(NETWORK.dim, 8),)),
            Codec("x", "context"),
            NETWORK,
        ),
        "shaped-of-two-tensors": (
            Update(90 * 900, (busy_columns(90, (533, 367), 15),)),
            Codec("x", "shaped"),
            None,
        ),
        "context-of-two-segments": (
            Update(LONG.dim, (clustered(LONG.dim, 9, first=2**21),)),
            Codec("x", "context"),
            LONG,
        ),
        "coded-streams": (
            Update(3000, (related(3000, 5, 10), related(3000, 9, 12))),
            Codec(
                "x",
                "rice",
                ("linear4-coded", "log4", "log3-coded", "float16", "linear8-coded", "ternary-coded"),
            ),
            None,
        ),
        "two-coded-groups": (
            Update(140_000, (block(140_000, 2, 1, 14),)),
            Codec("x", "bitmap", ("sign-coded",)),
            None,
        ),
        "two-rice-groups": (Update(140_000, (block(140_000, 2, 0, 6),)), Codec("x", "rice"), None),
    }
    return found


def main() -> None:
    for name, (update, codec, layout) in cases().items():
        path = FOLDER / f"{name}.bin"
        if not path.exists():
            path.write_bytes(encode(update, codec, layout=layout))


if __name__ == "__main__":
    main()
