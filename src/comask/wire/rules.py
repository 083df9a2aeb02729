"""The rules that every payload must keep; `docs/format/v1.md` lists the same table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

RULES: Mapping[str, str] = MappingProxyType(
    {
        "magic": "The payload starts with the four magic bytes.",
        "version": "The version byte is 1.",
        "checksum": "The last four bytes are the CRC-32 of all bytes before them.",
        "flags": "Flag bits without a meaning are zero.",
        "truncated": "No field or section reaches into the checksum.",
        "varint": "A varint is below 2**63 and written in as few bytes as possible.",
        "trailing": "The last section ends where the checksum starts.",
        "dim": "The dimension is in 1..2**32 and is the receiver's.",
        "layout": "A layout fingerprint, where there is one, is that of the receiver's layout.",
        "buffers": "The buffer count is at least 1 where the buffer flag is set.",
        "streams": "There are no more blocks, and no more streams in all blocks together, than the receiver allows.",
        "kept": "A block keeps at most `dim` positions; a dense block keeps exactly `dim`.",
        "index-coding": "The index coding's number is in the table.",
        "index-length": "The index section is as long as its coding and the number of kept positions require.",
        "index-range": "Every position is below the dimension.",
        "index-order": "Listed positions are strictly increasing.",
        "index-count": "An index section names exactly as many positions as the block keeps.",
        "index-padding": "Bits that fill up the last byte of an index section or group are zero.",
        "rice-parameter": "A Golomb-Rice parameter is at most 62.",
        "index-shape": "The tensors of a `shaped` section are at most 65,536, add up to the dimension, and have 1 to `size` columns and a stride of 1 to 2**32.",
        "stream": "A stream of payloads starts, continues and ends as section 10 says.",
        "value-coding": "The value coding's number is in the table.",
        "value-scale": "A scale is finite and not negative.",
        "value-code": "A linear code is not the most negative one; a byte of five ternary digits is below 243.",
        "value-padding": "Bits or ternary digits that fill up the last byte of a value section are zero.",
        "value-length": "A value section is as long as its coding and the number of kept positions require.",
    }
)
"""Name of the rule, as in `PayloadError.rule`, and what it demands."""
