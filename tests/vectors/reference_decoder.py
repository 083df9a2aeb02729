"""A decoder of the payload format, written from `docs/format/v1.md` alone: plain Python, slow, and without comask.

It checks every rule, and returns plain data: `(round, buffers, [(positions, [values, ...]), ...])`.
"""

import bisect
import decimal
import hashlib
import math
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

    def __init__(self, data, at, beyond="truncated"):
        self.data, self.at, self.beyond = data, at, beyond

    def take(self, count):
        demand(self.at + count <= len(self.data), self.beyond)
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
        positions = INDEX_CODINGS[coding](data.take(length), k, dim, layout)
        values, symbols = [], [[], []]  # of the streams so far; none for the two before the first
        for number, n in streams:
            each = VALUE_CODINGS[number]
            if isinstance(each, Quantised):
                decoded, of_stream = each.decode(data.take(n), k, symbols, number >= 16)
            else:
                decoded, of_stream = each(data.take(n), k), []
            values.append(decoded)
            symbols.append(of_stream)
        blocks.append((positions, values))
    return round_, buffers, blocks


def dense(section, k, dim, _layout):
    """Section 4.1."""
    demand(k == dim, "kept")
    demand(not section, "index-length")
    return list(range(dim))


def bitmap(section, k, dim, _layout):
    """Section 4.2."""
    demand(len(section) == (dim + 7) // 8, "index-length")
    positions = [i for i in range(8 * len(section)) if section[i // 8] >> i % 8 & 1]
    demand(not positions or positions[-1] < dim, "index-padding")
    demand(len(positions) == k, "index-count")
    return positions


def rice(section, k, dim, _layout):
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


def squash_table():
    """Section 4.4.3."""
    knots = [min(max(round(65536 / (1 + math.exp(-j / 4))), 1), 65535) for j in range(-44, 46)]
    return [knots[t // 64] + ((knots[t // 64 + 1] - knots[t // 64]) * (t % 64) >> 6) for t in range(5633)]


SQUASH = squash_table()
STRETCH = [min(bisect.bisect_left(SQUASH, p), 5632) - 2816 for p in range(65536)]


def logit(rate):
    return STRETCH[max(rate >> 6, 1)]


def level(x):
    return min(max((x + 1920) >> 7, 0), 15)


def step(count):
    return 131072 // (2 * min(count, 255) + 3)


class Arithmetic:
    """Section 4.4.2."""

    def __init__(self, data):
        self.data, self.taken = data, 4
        self.low, self.high = 0, 2**32 - 1
        self.code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def bit(self, p):
        middle = self.low + ((self.high - self.low) * p >> 16)
        bit = self.code <= middle
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            following = self.data[self.taken] if self.taken < len(self.data) else 0
            self.taken += 1
            self.code = (self.code << 8 & 0xFFFFFFFF) | following
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = (self.high << 8 & 0xFFFFFFFF) | 255
        return int(bit)

    def finish(self, section):
        tail = next(t for t in range(5) if self.high >> (32 - 8 * t) << (32 - 8 * t) >= self.low)
        demand(self.taken - 4 + tail == len(self.data), f"{section}-length")
        demand(self.code == self.high >> (32 - 8 * tail) << (32 - 8 * tail), f"{section}-padding")


def context(section, k, dim, layout):
    """Section 4.4."""
    tensors, offset, channels = [], 0, 0  # (first, end, columns, stride)
    for _, shape in layout or [("", (dim,))]:
        size, kernel = math.prod(shape), math.prod(shape[2:])
        columns = size if len(shape) < 2 or not size else size // shape[0]
        stride = 3
        if kernel > 1:
            stride = kernel
        elif len(shape) == 2 and channels and shape[1] % channels == 0:
            side = math.isqrt(shape[1] // channels)
            stride = side if side > 1 and side * side * channels == shape[1] else 3
        tensors.append((offset, offset + size, columns, stride))
        offset += size
        channels = shape[0] if len(shape) > 2 else channels
    return context_of(section, k, dim, tensors)


def shaped(section, k, dim, _layout):
    """Section 4.7."""
    data = Bytes(section, 0, "index-length")
    count = data.varint()
    demand(1 <= count <= 65536, "index-shape")
    tensors, offset = [], 0
    for _ in range(count):
        size, columns, stride = data.varint(), data.varint(), data.varint()
        demand(1 <= size <= dim - offset and 1 <= columns <= size and 1 <= stride <= 2**32, "index-shape")
        tensors.append((offset, offset + size, columns, stride))
        offset += size
    demand(offset == dim, "index-shape")
    return context_of(section[data.at :], k, dim, tensors)


def context_of(section, k, dim, tensors):
    """Section 4.4, on tensors that are given."""
    segments = -(-dim // 2**21)
    at = 8 * (segments - 1)
    demand(len(section) >= at, "index-length")
    directory = [struct.unpack_from("<II", section, 8 * s) for s in range(segments - 1)]
    directory.append((len(section) - at - sum(n for n, _ in directory), k - sum(c for _, c in directory)))
    demand(directory[-1][0] >= 0, "index-length")
    positions = []
    for segment, (length, count) in enumerate(directory):
        start, stop = segment * 2**21, min((segment + 1) * 2**21, dim)
        data = section[at : at + length]
        at += length
        demand(0 <= count <= stop - start, "index-count")
        if count == 0:
            demand(not data, "index-length")
            continue
        kept = context_segment(data, count, start, stop, tensors)
        demand(len(kept) == count, "index-count")
        positions += sorted(kept)
    return positions


def context_segment(data, count, start, stop, tensors):
    """Section 4.4.1: the positions that one segment keeps."""
    prior = min(max(count * 2**22 // (stop - start), 64), 2**22 - 64)
    base = logit(prior)
    coder = Arithmetic(data)
    rates = [[prior] * 3328, [2] * 3328]
    weights = [[393216, 393216, 196608, 1048576, 196608, 196608, 196608] for _ in range(3)]
    kept = set()
    for first, end, columns, stride in tensors:
        first_here, end_here = max(first, start), min(end, stop)
        column_rates = {}
        row_rate = last_row_rate = prior
        for i in range(first_here, end_here):
            row, c = divmod(i - first, columns)
            row_first = max(first_here, first + row * columns)
            if i == row_first:
                row_rate, run = (prior + last_row_rate) >> 1, 0
            in_row = [int(i - j >= row_first and i - j in kept) for j in (1, 2, stride, 2 * stride)]
            left, left2, side, side2 = in_row
            in_piece = [
                int(j >= first_here and j in kept) for j in (i - columns + n for n in (-1, 0, 1, -columns))
            ]
            up_left, up, up_right, up2 = in_piece
            up_left = up_left if i > row_first else 0
            up_right = up_right if c + 1 < columns else 0
            slot = i - first_here if columns > end_here - first_here else c
            a, b, rate, d, e = (column_rates.get(slot + j, prior) for j in range(-2, 3))
            x = [logit(rate) - base, logit(row_rate) - base, logit((a + 3 * b + 3 * d + e) >> 3) - base, base]
            digits = min(run.bit_length(), 15)
            contexts = [
                left + 2 * left2 + 4 * up + 8 * up_left + 16 * up_right + 32 * up2 + 64 * side + 128 * side2,
                256 + 64 * level(x[2] + base) + 4 * level(x[0] + base) + 2 * side + left,
                1280 + 128 * level(x[1] + base) + 8 * digits + 4 * side + 2 * up + left,
            ]
            x += [logit(rates[0][context]) - base for context in contexts]
            w = weights[min(left + up + side, 2)]
            mixed = sum(wj * xj for wj, xj in zip(w, x, strict=True)) >> 20
            p = SQUASH[min(max(mixed, -2816), 2816) + 2816]

            bit = coder.bit(p)

            for j in range(7):
                w[j] += (((bit << 16) - p) * x[j] + 2048) >> 12
            for context in contexts:
                rates[0][context] += ((bit << 22) - rates[0][context]) * step(rates[1][context]) >> 16
                rates[1][context] = min(rates[1][context] + 1, 255)
            rows_before = (i - first) // columns - (first_here - first) // columns
            column_rates[slot] = rate + (((bit << 22) - rate) * step(rows_before + 2) >> 16)
            row_rate += ((bit << 22) - row_rate) * step(c + 15) >> 16
            last_row_rate = row_rate
            run = 0 if bit else run + 1
            if bit:
                kept.add(i)
    coder.finish("index")
    return kept


def listed(width):
    """Section 4.5; width 0 stands for as many bits as the dimension needs."""

    def decode_section(section, k, dim, _layout):
        bits = width or (dim - 1).bit_length()
        demand(len(section) == (k * bits + 7) // 8, "index-length")
        return ordered(codes_of(section, bits, k, "index-padding"), dim)

    return decode_section


def ordered(positions, dim):
    for before, position in zip([-1, *positions], positions, strict=False):
        demand(position < dim, "index-range")
        demand(position > before, "index-order")
    return positions


def chunk12(section, k, dim, _layout):
    """Section 4.6."""
    chunks = -(-dim // 4096)
    demand(len(section) == 2 * chunks + (12 * k + 7) // 8, "index-length")
    counts = struct.unpack(f"<{chunks}H", section[: 2 * chunks])
    demand(sum(counts) == k, "index-count")
    chunk_of = [chunk for chunk, count in enumerate(counts) for _ in range(count)]
    within = codes_of(section[2 * chunks :], 12, k, "index-padding")
    return ordered([4096 * chunk + low for chunk, low in zip(chunk_of, within, strict=True)], dim)


def fixed_width(width, read):
    """Section 5, for codings that spend the same bytes on every value."""

    def decode_section(section, k):
        demand(len(section) == width * k, "value-length")
        return [read(section[width * i : width * i + width]) for i in range(k)]

    return decode_section


def binary32(data):
    return struct.unpack("<f", data)[0]


def demand_scale(scale):
    """Section 5.2."""
    demand(math.isfinite(scale) and math.copysign(1, scale) > 0, "value-scale")


def codes_of(data, width, k, rule="value-padding"):
    number = int.from_bytes(data, "little")
    demand(number >> (width * k) == 0, rule)
    return [number >> (width * i) & ((1 << width) - 1) for i in range(k)]


def rounded(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


class Quantised:
    """Sections 5.2 to 5.6: scales, then codes side by side or coded symbols.

    A symbol is kept as (magnitude, sign, class).
    """

    signed_zero = True

    def __init__(self, width, digits):
        self.width, self.digits = width, digits

    def head(self, k):
        return 2 * ((k + 255) // 256)

    def codes_length(self, k):
        return (self.width * k + 7) // 8

    def codes(self, data, k):
        """The codes that stand side by side, as (magnitude, sign)."""
        return [self.split(code) for code in codes_of(data, self.width, k)]

    def decode(self, section, k, streams, is_coded):
        head = section[: self.head(k)]
        if is_coded:
            demand(len(section) >= self.head(k) + 4 * max((k - 1) // 65536, 0), "value-length")
            scales = self.scales(head, k)
            pairs = self.coded(section[self.head(k) :], k, streams)
        else:
            demand(len(section) == self.head(k) + self.codes_length(k), "value-length")
            scales = self.scales(head, k)
            pairs = self.codes(section[self.head(k) :], k)
        values = [self.value(scales, i, magnitude, sign) for i, (magnitude, sign) in enumerate(pairs)]
        return values, [(m, s, m >> max(self.digits - 3, 0)) for m, s in pairs]

    def scales(self, head, _k):
        scales = [binary32(b"\0\0" + head[at : at + 2]) for at in range(0, len(head), 2)]
        for scale in scales:
            demand_scale(scale)
        return scales

    def coded(self, data, k, streams):
        """Section 5.6."""
        groups = (k + 65535) // 65536
        demand(k or not data, "value-length")
        at = 4 * max(groups - 1, 0)
        lengths = [int.from_bytes(data[4 * g : 4 * g + 4], "little") for g in range(groups - 1)]
        demand(at + sum(lengths) <= len(data), "value-length")
        lengths.append(len(data) - at - sum(lengths))
        pairs = []
        for group in range(groups):
            first, last = 65536 * group, min(65536 * group + 65536, k)
            pairs += self.coded_group(data[at : at + lengths[group]], first, last, streams)
            at += lengths[group]
        return pairs

    def coded_group(self, data, first, last, streams):
        coder, pairs, mean, before = Arithmetic(data), [], 0, 0
        rates, weights = {}, [[196608] * 5 for _ in range(2**self.digits)]

        def decide(kind, node, lines):
            keys = [(kind, line, node, place) for line, place in enumerate(lines)]
            states = [rates.setdefault(key, [1 << 21, 0]) for key in keys]
            x = [STRETCH[max(state[0] >> 6, 1)] for state in states]
            w = weights[node]
            mixed = sum(wj * xj for wj, xj in zip(w, x, strict=True)) >> 20
            p = SQUASH[min(max(mixed, -2816), 2816) + 2816]
            bit = coder.bit(p)
            for j in range(5):
                w[j] += (((bit << 16) - p) * x[j] + 512) >> 10
            for state in states:
                state[0] += ((bit << 22) - state[0]) * step(state[1]) >> 16
                state[1] = min(state[1] + 1, 30)
            return bit

        def class_of(magnitude):
            return magnitude >> max(self.digits - 3, 0)

        for place in range(first, last):
            class1, class2, class3 = [class_of(m) for m, _ in pairs[:-4:-1]] + [0] * (3 - min(len(pairs), 3))
            sign1, sign2 = [s for _, s in pairs[:-3:-1]] + [0] * (2 - min(len(pairs), 2))
            _, sign_a, a = streams[-1][place] if streams[-1] else (0, 0, 0)
            _, sign_b, b = streams[-2][place] if streams[-2] else (0, 0, 0)
            both = 2 * sign_a + sign_b
            node = 1
            for _ in range(self.digits):
                lines = [
                    8 * class1 + class2,
                    8 * a + b,
                    8 * a + class1,
                    8 * (class1 + class2 + class3) + b,
                    8 * (mean >> 6) + a,
                ]
                node = 2 * node + decide("digit", node, lines)
            magnitude, sign = node - 2**self.digits, 0
            if magnitude or self.signed_zero:
                lines = [
                    2 * sign1 + sign2,
                    both,
                    64 * both + 8 * class_of(magnitude) + a,
                    8 * both + 2 * before + sign1,
                    64 * both + 8 * a + b,
                ]
                sign = decide("sign", 0, lines)
            pairs.append((magnitude, sign))
            mean += ((class_of(magnitude) << 8) - mean) >> 3
            before = both
        coder.finish("value")
        return pairs


class Linear(Quantised):
    """Section 5.2."""

    signed_zero = False

    def __init__(self, width):
        super().__init__(width, width - 1)
        self.top = 2 ** (width - 1) - 1

    def split(self, code):
        demand(code != self.top + 1, "value-code")
        q = code if code <= self.top else code - 2 * self.top - 2
        return abs(q), int(q < 0)

    def value(self, scales, i, magnitude, sign):
        return rounded(scales[i // 256] * (-magnitude if sign else magnitude) / self.top)


class Sign(Quantised):
    """Section 5.4."""

    def __init__(self):
        super().__init__(1, 0)

    def split(self, code):
        return 0, code

    def value(self, scales, i, _magnitude, sign):
        return -scales[i // 256] if sign else scales[i // 256]


class Logarithmic(Quantised):
    """Section 5.3."""

    def __init__(self, width):
        super().__init__(width, width - 1)

    def head(self, k):
        return 6 if k else 0

    def split(self, code):
        return code // 2, code % 2

    def scales(self, head, k):
        if k:
            demand_scale(binary32(head[:4]))
        return head

    def value(self, head, _i, magnitude, sign):
        octaves, part = divmod(magnitude * int.from_bytes(head[4:], "little"), 64)
        with decimal.localcontext(prec=40):
            fraction = float(decimal.Decimal(2) ** (decimal.Decimal(-part) / 64))
        value = rounded(math.ldexp(binary32(head[:4]) * fraction, -octaves))
        return -value if sign else value


class Ternary(Quantised):
    """Section 5.5."""

    signed_zero = False

    def __init__(self):
        super().__init__(0, 1)

    def head(self, k):
        return 4 if k else 0

    def codes_length(self, k):
        return (k + 4) // 5

    def scales(self, head, k):
        if k:
            demand_scale(binary32(head))
        return head

    def codes(self, data, k):
        demand(max(data, default=0) < 243, "value-code")
        digits = [byte // 3**j % 3 for byte in data for j in range(5)]
        demand(not any(digits[k:]), "value-padding")
        return [(int(digit > 0), int(digit == 2)) for digit in digits[:k]]

    def value(self, head, _i, magnitude, sign):
        return (-binary32(head) if sign else binary32(head)) if magnitude else 0.0


INDEX_CODINGS = {
    0: dense,
    1: bitmap,
    2: rice,
    3: context,
    4: listed(0),
    5: listed(32),
    6: listed(64),
    7: chunk12,
    8: shaped,
}
VALUE_CODINGS = {
    0: fixed_width(4, binary32),
    1: fixed_width(2, lambda data: binary32(b"\0\0" + data)),
    2: fixed_width(2, lambda data: struct.unpack("<e", data)[0]),
}
QUANTISED = [
    Linear(8),
    Linear(4),
    Linear(2),
    Logarithmic(8),
    Logarithmic(4),
    Logarithmic(3),
    Logarithmic(2),
    Sign(),
    Ternary(),
]
VALUE_CODINGS |= {number + 3: each for number, each in enumerate(QUANTISED)}
VALUE_CODINGS |= {number + 19: each for number, each in enumerate(QUANTISED)}
