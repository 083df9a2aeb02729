"""Hypothesis strategies for updates, codecs and damaged payloads."""

import zlib

import numpy as np
from hypothesis import strategies as st

from comask.wire import INDEX_CODINGS, VALUE_CODINGS, Block, Codec, ParamLayout, Update


@st.composite
def layouts(draw: st.DrawFn, dim: int) -> ParamLayout | None:
    """None, or a layout of `dim` entries with shapes of rank 0 to 4."""
    if draw(st.booleans()):
        return None
    shapes: list[tuple[int, ...]] = []
    left = dim
    while left > 0 and len(shapes) < 4:
        shape = tuple(draw(st.lists(st.integers(1, 9), max_size=4)))
        if np.prod(shape, dtype=int) <= left:
            shapes.append(shape)
            left -= int(np.prod(shape, dtype=int))
        else:
            break
    shapes.append((left,))
    return ParamLayout(tuple(map(str, range(len(shapes)))), tuple(shapes))


@st.composite
def blocks(draw: st.DrawFn, dim: int) -> Block:
    streams = draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.integers(0, 4)) == 0:
        indices, k = None, dim
    else:
        density = draw(st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.3, 0.5, 0.97, 1.0]))
        clustered = np.repeat(rng.random(-(-dim // 7)), 7)[:dim]
        chance = clustered if draw(st.booleans()) else rng.random(dim)
        indices = np.flatnonzero(chance < density).astype(np.uint32)
        k = indices.size
    scale = draw(st.sampled_from([0.0, 1e-30, 1e-6, 1.0, 1e4]))
    return Block(indices, (rng.standard_normal((streams, k)) * scale).astype(np.float32))


@st.composite
def updates(draw: st.DrawFn) -> Update:
    dim = draw(st.one_of(st.integers(1, 64), st.integers(65, 5000)))
    buffers = np.arange(draw(st.integers(0, 3)), dtype=np.float32)
    return Update(
        dim, tuple(draw(st.lists(blocks(dim), max_size=3))), buffers, draw(st.integers(0, 2**63 - 1))
    )


def codecs() -> st.SearchStrategy[Codec]:
    indices = [name for name in INDEX_CODINGS if name != "dense"]
    values = st.lists(st.sampled_from(list(VALUE_CODINGS)), min_size=9, max_size=9).map(tuple)
    return st.builds(
        Codec, st.just("drawn"), st.sampled_from(["auto", *indices]), values, entropy=st.booleans()
    )


@st.composite
def damages(draw: st.DrawFn, payload: bytes) -> bytes:
    """A payload with bytes changed, removed or inserted, and its checksum repaired."""
    body = bytearray(payload[:-4])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(5, len(body)))
        kind = draw(st.sampled_from(["set", "flip", "remove", "insert"]))
        if kind == "remove":
            del body[at : at + draw(st.integers(1, 4))]
        elif kind == "insert" or at >= len(body):
            body[at:at] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "flip":
            body[at] ^= 1 << draw(st.integers(0, 7))
        else:
            body[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    return bytes(body) + zlib.crc32(body).to_bytes(4, "little")
