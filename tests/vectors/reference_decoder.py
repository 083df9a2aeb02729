"""A decoder of the payload format, written from `docs/format/v1.md` alone: plain Python, slow, and without comask.

It checks every rule, and returns plain data: `(round, buffers, [(positions, [values, ...]), ...])`.
"""

import hashlib
import struct
import zlib


class Refused(Exception):  # noqa: N818 - it is what the document calls it
    def __init__(self, rule):
        super().__init__(rule)
        self.rule = rule


def demand(condition, rule):
    if not condition:
        raise Refused(rule)


def fingerprint(layout):
    """Section 3; `layout` is a list of (name, shape)."""
    text = b"".join(
        name.encode() + b"\0" + ",".join(map(str, shape)).encode() + b"\1" for name, shape in layout
    )
    return hashlib.blake2b(text, digest_size=8, person=b"comask.layout").digest()


class Bytes:
    """The bytes before the checksum, read one after the other."""

    def __init__(self, data, at):
        self.data, self.at = data, at

    def take(self, count):
        demand(self.at + count <= len(self.data), "truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self):
        return self.take(1)[0]

    def varint(self):
        value = 0
        for count in range(9):
            byte = self.u8()
            value |= (byte & 127) << (7 * count)
            if byte < 128:
                demand(byte or count == 0, "varint")
                return value
        raise Refused("varint")


class Bits:
    """The bits of a section, lowest first."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        value = 0
        for i in range(count):
            demand(self.at < 8 * len(self.data), "index-length")
            value |= (self.data[self.at // 8] >> self.at % 8 & 1) << i
            self.at += 1
        return value


def decode(payload, dim, layout=None, max_streams=16):
    """Decode one payload; raises Refused, whose `rule` is the name of a rule."""
    demand(payload[:4] == b"\xc0MSK", "magic")
    demand(len(payload) >= 10, "truncated")
    demand(payload[4] == 1, "version")
    demand(zlib.crc32(payload[:-4]) == int.from_bytes(payload[-4:], "little"), "checksum")
    data = Bytes(payload[:-4], 5)
    flags = data.u8()
    demand(flags < 4, "flags")
    stated_dim = data.varint()
    demand(1 <= stated_dim <= 2**32, "dim")
    round_ = data.varint()
    stated_layout = data.take(8) if flags & 1 else None
    num_buffers = data.varint() if flags & 2 else 0
    demand(num_buffers or not flags & 2, "buffers")
    directory = []
    for _ in range(data.varint()):
        coding, k, length = data.u8(), data.varint(), data.varint()
        directory.append((coding, k, length, [(data.u8(), data.varint()) for _ in range(data.varint())]))
    sections = 4 * num_buffers + sum(
        length + sum(n for _, n in streams) for _, _, length, streams in directory
    )
    demand(data.at + sections <= len(data.data), "truncated")
    demand(data.at + sections == len(data.data), "trailing")

    demand(stated_dim == dim, "dim")
    demand(stated_layout is None or (layout and stated_layout == fingerprint(layout)), "layout")
    demand(max(len(directory), sum(len(block[3]) for block in directory)) <= max_streams, "streams")
    buffers = struct.unpack(f"<{num_buffers}f", data.take(4 * num_buffers))
    blocks = []
    for coding, k, length, streams in directory:
        demand(k <= dim, "kept")
        demand(coding in INDEX_CODINGS, "index-coding")
        demand(all(number in VALUE_CODINGS for number, _ in streams), "value-coding")
        positions = INDEX_CODINGS[coding](data.take(length), k, dim)
        blocks.append((positions, [VALUE_CODINGS[number](data.take(n), k) for number, n in streams]))
    return round_, buffers, blocks


def dense(section, k, dim):
    """Section 4.1."""
    demand(k == dim, "kept")
    demand(not section, "index-length")
    return list(range(dim))


def bitmap(section, k, dim):
    """Section 4.2."""
    demand(len(section) == (dim + 7) // 8, "index-length")
    positions = [i for i in range(8 * len(section)) if section[i // 8] >> i % 8 & 1]
    demand(not positions or positions[-1] < dim, "index-padding")
    demand(len(positions) == k, "index-count")
    return positions


def rice(section, k, dim):
    """Section 4.3."""
    groups = (k + 65535) // 65536
    at = 4 * max(groups - 1, 0)
    demand(len(section) >= at + (k + 7) // 8, "index-length")
    demand(k or not section, "index-length")
    lengths = [int.from_bytes(section[4 * g : 4 * g + 4], "little") for g in range(groups - 1)]
    positions = []
    for group in range(groups):
        if group < groups - 1:
            demand(at + lengths[group] <= len(section), "index-length")
            bits = Bits(section[at : at + lengths[group]])
            at += lengths[group]
        else:
            bits = Bits(section[at:])
        for place in range(min(65536, k - 65536 * group)):
            if place % 256 == 0:
                p = bits.take(6)
                demand(p <= 62, "rice-parameter")
                ternary = p > 0 and p % 2 == 0
                low = p // 2 - 1 if ternary else (p + 1) // 2
            gap = 0
            while bits.take(1) == 0:
                gap += 1
            if ternary:
                gap = 3 * gap + (1 + bits.take(1) if bits.take(1) else 0)
            gap = (gap << low) + bits.take(low)
            positions.append((positions[-1] if positions else -1) + 1 + gap)
            demand(positions[-1] < dim, "index-range")
        demand((bits.at + 7) // 8 == len(bits.data), "index-length")
        demand(bits.take(8 * len(bits.data) - bits.at) == 0, "index-padding")
    return positions


def fixed_width(width, read):
    """Section 5, for codings that spend the same bytes on every value."""

    def decode_section(section, k):
        demand(len(section) == width * k, "value-length")
        return [read(section[width * i : width * i + width]) for i in range(k)]

    return decode_section


def binary32(data):
    return struct.unpack("<f", data)[0]


INDEX_CODINGS = {0: dense, 1: bitmap, 2: rice}
VALUE_CODINGS = {
    0: fixed_width(4, binary32),
    1: fixed_width(2, lambda data: binary32(b"\0\0" + data)),
    2: fixed_width(2, lambda data: struct.unpack("<e", data)[0]),
}
