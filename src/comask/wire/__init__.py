"""The wire format: updates to bytes and back, and what the bytes are made of. Needs numpy and numba, not torch."""

from comask.wire.codec import CODECS, Codec
from comask.wire.container import MAX_STREAMS, BlockInfo, PayloadInfo, decode, encode, inspect
from comask.wire.indices import INDEX_CODINGS
from comask.wire.rules import RULES
from comask.wire.stream import read_stream, write_stream
from comask.wire.update import Block, ParamLayout, Update
from comask.wire.values import VALUE_CODINGS
from comask.wire.warmup import warm_up

__all__ = [
    "CODECS",
    "INDEX_CODINGS",
    "MAX_STREAMS",
    "RULES",
    "VALUE_CODINGS",
    "Block",
    "BlockInfo",
    "Codec",
    "ParamLayout",
    "PayloadInfo",
    "Update",
    "decode",
    "encode",
    "inspect",
    "read_stream",
    "warm_up",
    "write_stream",
]
