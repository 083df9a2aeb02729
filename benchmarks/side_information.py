"""What the masks of real training would gain from side information: vectors that both sides hold when a round begins.

    python benchmarks/record_masks.py --out masks --model cnn char_lstm --rounds 10
    python benchmarks/side_information.py masks

The sum of code lengths of the positions under two models: one that knows what the coding `context` knows (rates of the
column, the row, the columns nearby, and the decisions around), and the same one with one more prediction, from a vector that the
receiver has before the payload comes: the magnitude of the weights' last aggregated update, of the first moment, of the step that it
announces, m / sqrt(v), or the second moment. Logistic mixing in double precision: no bytes are written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numba import njit

from comask.wire import INDEX_CODINGS, ParamLayout
from comask.wire.coding import Known
from comask.wire.context import grid_of

EPS = 1e-6
LEVELS = 24


@njit(cache=True)
def code_length(kept, offsets, columns, strides, side, levels):  # noqa: PLR0915 - a kernel is one loop
    """Return the bits that the positions take; `side` is a level for each, below `levels`: with 1 level it says nothing."""
    prior = kept.mean()
    limit = 1 / 4096
    contexts = (256, 16 * 16 * 4, 16 * 16 * 8, levels * 8, levels * 16)
    tables = [np.full(size, prior) for size in contexts]
    seen = [np.full(size, 2.0) for size in contexts]
    weights = np.full((3, 9), 0.25)
    weights[:, 8] = 0.0
    x = np.zeros(9)
    total = 0.0
    where = np.zeros(5, np.int64)
    for t in range(offsets.size - 1):
        first, stop, width, stride = offsets[t], offsets[t + 1], columns[t], strides[t]
        rates = np.full(width + 4, prior)
        row = prior
        for i in range(first, stop):
            c = (i - first) % width
            r = (i - first) // width
            if c == 0:
                row = (prior + row) / 2
                run = 0
            left = kept[i - 1] if c >= 1 else 0
            left2 = kept[i - 2] if c >= 2 else 0
            up = kept[i - width] if r >= 1 else 0
            upleft = kept[i - width - 1] if r >= 1 and c >= 1 else 0
            upright = kept[i - width + 1] if r >= 1 and c + 1 < width else 0
            up2 = kept[i - 2 * width] if r >= 2 else 0
            near = kept[i - stride] if c >= stride else 0
            near2 = kept[i - 2 * stride] if c >= 2 * stride else 0
            around = (rates[c] + 3 * rates[c + 1] + 3 * rates[c + 3] + rates[c + 4]) / 8
            lc = _level(rates[c + 2])
            la = _level(around)
            lr = _level(row)
            digits = 0
            while run >> digits and digits < 15:
                digits += 1
            where[0] = (
                left + 2 * left2 + 4 * up + 8 * upleft + 16 * upright + 32 * up2 + 64 * near + 128 * near2
            )
            where[1] = (la * 16 + lc) * 4 + near * 2 + left
            where[2] = (lr * 16 + digits) * 8 + near * 4 + up * 2 + left
            where[3] = side[i] * 8 + left + 2 * up + 4 * near
            where[4] = side[i] * 16 + lc
            x[0], x[1], x[2] = _logit(rates[c + 2]), _logit(row), _logit(around)
            for j in range(5):
                x[3 + j] = _logit(tables[j][where[j]])
            if levels == 1:
                x[6] = 0.0
                x[7] = 0.0
            x[8] = 1.0
            w = weights[min(left + up + near, 2)]
            dot = 0.0
            for j in range(9):
                dot += w[j] * x[j]
            p = min(max(1 / (1 + np.exp(-dot)), limit / 16), 1 - limit / 16)
            bit = kept[i]
            total -= np.log2(p if bit else 1 - p)
            for j in range(9):
                w[j] += 0.004 * (bit - p) * x[j]
            for j in range(5):
                n = seen[j][where[j]]
                tables[j][where[j]] += (bit - tables[j][where[j]]) / (n + 1.5)
                seen[j][where[j]] = min(n + 1, 255)
            rates[c + 2] += (bit - rates[c + 2]) / (r + 3.5)
            row += (bit - row) / min(c + 16.5, 256)
            run = 0 if bit else run + 1
    return total


@njit(inline="always")
def _logit(p):
    q = min(max(p, 1e-5), 1 - 1e-5)
    return np.log(q / (1 - q))


@njit(inline="always")
def _level(p):
    return min(max(int((_logit(p) + 7.5) * 2), 0), 15)


def levels_of(vector):
    """Return 24 levels of a vector's magnitudes: equally many positions each from half of them down, ever fewer above."""
    magnitude = np.abs(vector)
    shares = 1 - 2.0 ** -np.linspace(1, 12, LEVELS - 1)
    return np.searchsorted(np.quantile(magnitude, shares), magnitude, side="right").astype(np.int64)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="what record_masks.py wrote")
    parser.add_argument("--masks", type=int, default=2, help="recorded masks of each file that are looked at")
    args = parser.parse_args()
    print(
        f"{'bits, and the gain in per cent':20}{'context':>20}{'this':>10}{'last update':>14}{'|m|':>8}{'|m|/sqrt(v)':>13}{'v':>8}"
    )
    gains = []
    for path in sorted(Path(args.folder).glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            shapes = [tuple(int(n) for n in shape.split(",") if n) for shape in file["shapes"]]
            masks, update = file["masks"][: args.masks], file["last_update"]
            first, second = file["first_moment"], file["second_moment"]
        layout = ParamLayout(tuple(map(str, range(len(shapes)))), tuple(shapes))
        grid, offsets = grid_of(Known(layout.dim, layout)), np.array(layout.offsets)
        columns, strides = np.array(grid.columns), np.array(grid.strides)
        sides = [update, first, first / np.sqrt(second + EPS), second]
        rows = []
        for mask in masks:
            kept = np.zeros(update.size, np.int64)
            kept[mask] = 1
            nothing = np.zeros(update.size, np.int64)
            without = code_length(kept, offsets, columns, strides, nothing, 1)
            coded = 8 * INDEX_CODINGS["context"].prepare(mask, Known(layout.dim, layout)).size
            rows.append(
                [
                    coded,
                    without,
                    *(code_length(kept, offsets, columns, strides, levels_of(s), LEVELS) for s in sides),
                ]
            )
        means = np.mean(rows, axis=0)
        gain = 100 * (1 - means[2:] / means[1])
        gains.append(gain)
        print(
            f"{path.stem:30}{means[0]:10.0f}{means[1]:10.0f}{gain[0]:14.1f}{gain[1]:8.1f}{gain[2]:13.1f}{gain[3]:8.1f}"
        )
    print(
        f"{'median':50}"
        + "".join(f"{g:{n}.1f}" for g, n in zip(np.median(gains, axis=0), (14, 8, 13, 8), strict=True))
    )


if __name__ == "__main__":
    main()
