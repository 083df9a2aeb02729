"""The coding kernels alone: bounds, odd geometries, and what truncated or random bytes do to them."""

import numpy as np
import pytest

from comask.kernels import context, golomb, quantise
from comask.wire.warmup import warm_up

RNG = np.random.default_rng(41)


def golomb_bytes(indices: np.ndarray) -> np.ndarray:
    parameters = np.zeros(-(-indices.size // golomb.CHUNK), np.uint8)
    out = np.zeros((golomb.plan(indices, -1, parameters) + 7) // 8, np.uint8)
    assert golomb.encode(indices, -1, parameters, out) == out.size
    return out


@pytest.mark.parametrize("mean_gap", [0, 1, 3, 100, 2_000_000])
def test_golomb_codes_of_every_length(mean_gap: int) -> None:
    gaps = RNG.geometric(1 / (mean_gap + 1), 700) + (RNG.random(700) < 0.01) * 60 * mean_gap
    indices = np.cumsum(gaps, dtype=np.int64)
    dim = int(indices[-1]) + 1
    assert dim <= 2**32
    data = golomb_bytes(indices.astype(np.uint32))
    back = np.empty(indices.size, np.uint32)
    assert golomb.decode(data, dim, back) == golomb.OK
    assert np.array_equal(back, indices)
    assert golomb.decode(data, dim - 1, back) == golomb.OUT_OF_RANGE
    assert golomb.decode(data[:-1], dim, back) in {golomb.TRUNCATED, golomb.TRAILING}


def test_golomb_plan_finds_the_best_parameter_of_random_gaps() -> None:
    for density in (0.9, 0.3, 0.1, 0.01):
        indices = np.flatnonzero(RNG.random(200_000) < density)[: golomb.CHUNK].astype(np.uint32)
        planned = golomb.plan(indices, -1, np.zeros(1, np.uint8))
        every = []
        for parameter in range(golomb.MAX_PARAMETER + 1):
            out = np.zeros(1 << 20, np.uint8)
            size = golomb.encode(indices, -1, np.array([parameter], np.uint8), out)
            every.append(size if size > 0 else 1 << 20)
        assert (planned + 7) // 8 == min(every)


def test_golomb_encode_does_not_write_beyond_its_room() -> None:
    indices = np.array([5, 1000, 2**31], np.uint32)
    assert golomb.encode(indices, -1, np.zeros(1, np.uint8), np.zeros(100, np.uint8)) == -1


def test_golomb_decode_survives_random_bytes() -> None:
    out = np.empty(600, np.uint32)
    for size in [0, 1, 2, 7, 8, 9, 100, 1000]:
        for _ in range(200):
            data = RNG.integers(0, 256, size).astype(np.uint8)
            status = golomb.decode(data, 1 << 30, out)
            assert golomb.OK <= status <= golomb.BAD_PADDING


# Length, columns, first column, stride: one row, many rows, a piece that starts within a row, a piece shorter than a row that
# runs over the row's end, a single entry, and several pieces.
GEOMETRIES = [
    [(500, 500, 0, 3)],
    [(500, 10, 0, 3)],
    [(500, 30, 17, 9)],
    [(500, 700, 650, 3)],
    [(1, 1, 0, 3)],
    [(3, 1, 0, 3), (400, 20, 0, 25), (97, 5000, 4990, 3)],
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_context_round_trip(geometry: list[tuple[int, ...]], density: float) -> None:
    pieces = np.array(geometry, np.int64)
    kept = (RNG.random(pieces[:, 0].sum()) < density).astype(np.uint8)
    prior = min(max((int(kept.sum()) << 22) // kept.size, 64), 2**22 - 64)
    coded = context.encode(kept, pieces, prior)
    assert coded is not None
    back = np.full(kept.size, 9, np.uint8)
    assert context.decode(np.frombuffer(coded, np.uint8), pieces, prior, back) == context.OK
    assert np.array_equal(back, kept)


def test_context_learns_busy_rows_and_columns() -> None:
    busy = np.outer(RNG.random(100) < 0.2, RNG.random(300) < 0.2) & (RNG.random((100, 300)) < 0.7)
    kept = busy.astype(np.uint8).ravel()
    shuffled = RNG.permutation(kept)
    prior = (int(kept.sum()) << 22) // kept.size
    sizes = [
        len(context.encode(x, np.array([(kept.size, 300, 0, 3)], np.int64), prior) or b"")
        for x in (kept, shuffled)
    ]
    assert sizes[0] < 0.5 * sizes[1]


def test_context_is_canonical() -> None:
    """Whatever bytes are accepted are those that the positions they stand for are coded as."""
    pieces = np.array([(200, 20, 0, 3)], np.int64)
    accepted = 0
    for _ in range(3000):
        data = RNG.integers(0, 256, int(RNG.integers(0, 40))).astype(np.uint8)
        kept = np.empty(200, np.uint8)
        if context.decode(data, pieces, 1 << 20, kept) == context.OK:
            assert context.encode(kept, pieces, 1 << 20) == data.tobytes()
            accepted += 1
    assert accepted > 10


def test_context_constants() -> None:
    squash, stretch, reciprocal = context.tables()
    assert (np.diff(squash) >= 0).all()
    assert (squash[0], squash[context.LIMIT], squash[-1]) == (1, 32768, 65535)
    assert (np.diff(stretch) >= 0).all()
    assert all(squash[stretch[p] + context.LIMIT] >= p for p in range(1, 65536))
    assert reciprocal[0] == 43690
    logits = np.arange(-context.LIMIT, context.LIMIT + 1) / 256
    assert np.abs(squash / 65536 - 1 / (1 + np.exp(-logits))).max() < 0.001


@pytest.mark.parametrize("width", range(33))
def test_packing(width: int) -> None:
    codes = RNG.integers(0, 2**width, 101).astype(np.uint32)
    data = np.zeros((codes.size * width + 7) // 8, np.uint8)
    quantise.pack(codes, width, data)
    back = np.empty_like(codes)
    assert quantise.unpack(data, width, back)
    assert np.array_equal(back, codes)
    assert sum(int(c) << (width * i) for i, c in enumerate(codes)) == int.from_bytes(data.tobytes(), "little")
    if codes.size * width % 8:
        data[-1] |= 0x80
        assert not quantise.unpack(data, width, back)


def test_warm_up_goes_through_every_coding() -> None:
    assert warm_up() > 20
