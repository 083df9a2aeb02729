"""Bytes of an upload of any algorithm in any codec, without making one: equation (46) of `docs/theory.md`, coding by coding.

Exact for headers and for values of a fixed width; positions are those of a mask without structure, in expectation, and values
that are entropy coded those of normal changes, measured on a short vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType

from comask.experiments.upload_shapes import configured, play, takes_density, upload_shapes
from comask.kernels import golomb
from comask.theory import mask_floor_bits
from comask.wire import INDEX_CODINGS, VALUE_CODINGS, Codec, encode, inspect
from comask.wire.codec import AUTO
from comask.wire.context import ALWAYS_TRIED_DIM
from comask.wire.header import CHECKSUM_BYTES, FINGERPRINT_BYTES, BlockHeader, Header, write_header
from comask.wire.indices import GROUP

_GROUP_LENGTH_BYTES = 4  # before every group of a rice section but one
_SHARE_DIM, _MOST_DIM, _SHARE_VALUES = (
    1 << 15,
    1 << 19,
    4096,
)  # of the vectors that show what entropy coding leaves
_CHUNK = 4096  # positions that chunk12 counts together


def _golomb_bits(density: float) -> float:
    """Expected bits of one gap between kept positions, in the best of the Golomb codes of moduli `2**j` and `3 * 2**j`."""

    def bits(shift: int, ternary: bool) -> float:
        # A gap is geometric. Divided by the modulus in unary, the rest as a digit below 3 (one bit or two) and plain bits.
        below = math.pow(1 - density, 2**shift)  # P(gap >= 2**shift)
        modulus = below**3 if ternary else below
        digit = 1 + 1 - (1 - below) / (1 - modulus) if ternary else 0
        return 1 + shift + modulus / (1 - modulus) + digit

    return min(bits(shift, ternary) for shift in range(32) for ternary in (False, True))


def _rice_bytes(dim: int, k: int) -> float:
    if k == 0:
        return 0.0
    gaps = k * (_golomb_bits(k / dim) + golomb.PARAMETER_BITS / golomb.CHUNK) / 8 if k < dim else k / 8
    return gaps + _GROUP_LENGTH_BYTES * (-(-k // GROUP) - 1)


_INDEX_BYTES: Mapping[str, Callable[[int, int], float]] = MappingProxyType(
    {
        "dense": lambda dim, k: 0.0 if k == dim else math.inf,
        "bitmap": lambda dim, _: -(-dim // 8),
        "rice": _rice_bytes,
        "context": lambda dim, k: 1.003 * mask_floor_bits(dim, k) / 8 + 2,
        "fixed": lambda dim, k: -(-k * (dim - 1).bit_length() // 8),
        "coo32": lambda _, k: 4 * k,
        "coo64": lambda _, k: 8 * k,
        "shaped": lambda dim, k: 1.003 * mask_floor_bits(dim, k) / 8 + 8,
        "chunk12": lambda dim, k: 2 * -(-dim // _CHUNK) + -(-12 * k // 8),
    }
)


def index_coding(codec: Codec, dim: int, num_kept: int) -> str:
    """Return the index coding that `codec` uses for a mask without structure: for `auto`, the smallest of those it tries."""
    if codec.indices != AUTO:
        return codec.indices
    if num_kept == 0:
        return "rice"
    # Large masks without structure do not pass the trial of `context`.
    tried = [
        name
        for name, coding in INDEX_CODINGS.items()
        if dim <= coding.max_auto_dim and (name not in {"context", "shaped"} or dim <= ALWAYS_TRIED_DIM)
    ]
    return min(tried, key=lambda name: _index_bytes(name, dim, num_kept))


def _index_bytes(name: str, dim: int, num_kept: int) -> float:
    """Expected bytes of a mask without structure; a coding that is not in the table is taken for an adaptive one."""
    return _INDEX_BYTES.get(name, _INDEX_BYTES["context"])(dim, num_kept)


def payload_bytes(
    codec: Codec,
    dim: int,
    blocks: Sequence[tuple[int, int | None]],
    *,
    num_buffers: int = 0,
    round_number: int = 100,
    value_share: float = 1.0,
) -> float:
    """Return the expected length of one payload that is encoded with a layout.

    Args:
        codec: Its codings.
        dim: Length of the flat vector.
        blocks: For every block, how many streams share its positions, and how many positions those are; None: all, and
            they are not listed.
        num_buffers: Numbers that are sent densely beside the streams.
        round_number: The round that the header names.
        value_share: What entropy coding leaves of the values' full width.
    """
    headers, stream = [], 0
    for streams, listed in blocks:
        kept = dim if listed is None else listed
        index = "dense" if listed is None else index_coding(codec, dim, kept)
        codings = [VALUE_CODINGS[codec.value_coding(stream + place)] for place in range(streams)]
        headers.append(
            BlockHeader(
                index_coding=INDEX_CODINGS[index].number,
                num_kept=kept,
                index_bytes=math.ceil(_index_bytes(index, dim, kept)),
                value_codings=tuple(coding.number for coding in codings),
                value_bytes=tuple(math.ceil(value_share * coding.bounds(kept)[1]) for coding in codings),
            )
        )
        stream += streams
    header = Header(dim, round_number, bytes(FINGERPRINT_BYTES), num_buffers, tuple(headers))
    return len(write_header(header)) + header.section_bytes + CHECKSUM_BYTES


@cache
def value_shares(algorithm: str, codec: str, dim: int, density: float, rounds: int) -> tuple[float, ...]:
    """Return what entropy coding leaves of the values' full width, for each of `upload_shapes`: 1 where the codec has none.

    Measured on an upload of normal changes, long enough to hold some thousand values. A trained network's values differ.
    """
    made = configured(algorithm, codec, density)
    if not made.uplink.entropy:
        return (1.0,) * len(upload_shapes(algorithm, rounds))
    length = min(dim, max(_SHARE_DIM, min(_MOST_DIM, math.ceil(_SHARE_VALUES / density))))
    shares = []
    for shape in upload_shapes(algorithm, rounds):
        turn = play(made, length, shape.last)
        payload = encode(
            turn.finish()[0], made.uplink, layout=turn.context.layout, seed=turn.context.rounding_seed
        )
        blocks = [(block.streams, block.kept(length, density)) for block in shape.blocks]
        streams = [kept for count, kept in blocks for _ in range(count)]
        full = sum(
            VALUE_CODINGS[made.uplink.value_coding(stream)].bounds(kept)[1]
            for stream, kept in enumerate(streams)
        )
        shares.append(inspect(payload).value_bytes / full)
    return tuple(shares)


def predicted_bytes(
    algorithm: str,
    codec: str,
    dim: int,
    density: float,
    *,
    num_buffers: int = 0,
    rounds: int = 1,
    shares: tuple[float, ...] | None = None,
) -> float:
    """Return the expected length of one payload, the mean over rounds.

    Within 2 % of the codec's for normal changes, whose masks have no structure.

    Args:
        algorithm: One of `comask.algorithms.ALGORITHMS`.
        codec: One of `comask.wire.CODECS`, or `OWN` for an algorithm that brings its own.
        dim: Length of the flat vector.
        density: Fraction kept by algorithms that have a density, in (0, 1].
        num_buffers: Numbers that are sent densely beside the streams.
        rounds: Rounds of the run, which algorithms with a warm-up do not treat alike.
        shares: From `value_shares`, where many densities are asked for; None: those of this density.
    """
    chosen = configured(algorithm, codec, density).uplink
    known = value_shares(algorithm, codec, dim, density, rounds) if shares is None else shares
    return sum(
        shape.share
        * payload_bytes(
            chosen,
            dim,
            [(block.streams, None if block.dense else block.kept(dim, density)) for block in shape.blocks],
            num_buffers=num_buffers if shape.buffers else 0,
            value_share=value_share,
        )
        for shape, value_share in zip(upload_shapes(algorithm, rounds), known, strict=True)
    )


def density_in_budget(
    algorithm: str,
    codec: str,
    dim: int,
    budget: float,
    *,
    num_buffers: int = 0,
    rounds: int = 1,
    shares: tuple[float, ...] | None = None,
) -> float | None:
    """Return the largest density whose upload has at most `budget` bytes in the mean, or None if no upload is that small.

    An algorithm without a density has density 1 or None. The other arguments are those of `predicted_bytes`.
    """

    def fits(kept: int) -> bool:
        size = predicted_bytes(
            algorithm, codec, dim, kept / dim, num_buffers=num_buffers, rounds=rounds, shares=shares
        )
        return size <= budget

    if fits(dim):
        return 1.0
    if not takes_density(algorithm) or not fits(1):
        return None
    low, high = 1, dim  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low / dim
