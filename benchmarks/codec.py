"""Size and speed of the codec against what a user would otherwise take. Ratios are from one run.

    python benchmarks/codec.py                      speed at dim 10^7, density 0.05
    python benchmarks/codec.py --masks benchmarks/masks   sizes on masks recorded from training

Peers that are not installed (zstandard, pyroaring, constriction) are left out and said so.
"""

from __future__ import annotations

import argparse
import importlib
import io
import sys
import time
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from comask.aggregate import WeightedSum
from comask.kernels.rows import gather_rows
from comask.kernels.select import top_k_abs_indices
from comask.wire import CODECS, INDEX_CODINGS, Block, Codec, ParamLayout, Update, decode, encode, inspect
from comask.wire.coding import Known


def seconds(function, repeats):
    """Return the shortest of several runs, after one that is not counted: by the clock, or with --cpu of all cores together."""
    function()
    times = []
    for _ in range(repeats):
        start = clock()
        function()
        times.append(clock() - start)
    return min(times)


def clock():
    return time.process_time() if "--cpu" in sys.argv else time.perf_counter()


def optional(name):
    """Return a module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        print(f"{name} is not installed: left out")
        return None


def entropy_bytes(k, dim):
    density = k / dim
    return dim * (-density * np.log2(density) - (1 - density) * np.log2(1 - density)) / 8


def gap_bytes(indices):
    """The gaps as bytes with an escape: what a general compressor is given."""
    gaps = np.diff(indices.astype(np.int64), prepend=-1) - 1
    out = np.minimum(gaps, 255).astype(np.uint8).tobytes()
    return out + gaps[gaps >= 255].astype("<u4").tobytes()


def peer_masks(zstandard, pyroaring, constriction):
    """Other ways to send positions: name and a function from positions to a number of bytes."""

    def saved(indices):
        file = io.BytesIO()
        torch.save(torch.from_numpy(indices.astype(np.int64)), file)
        return len(file.getvalue())

    peers = {
        "torch.save of int64 positions": saved,
        "zlib of the gaps": lambda x: len(zlib.compress(gap_bytes(x), 9)),
    }
    if zstandard:
        compressor = zstandard.ZstdCompressor(level=19)
        peers["zstandard 19 of the gaps"] = lambda x: len(compressor.compress(gap_bytes(x)))
    if pyroaring:
        peers["roaring bitmap"] = lambda x: len(pyroaring.BitMap(x).serialize())
    if constriction:

        def ans(indices):
            gaps = (np.diff(indices.astype(np.int64), prepend=-1) - 1).astype(np.int32)
            share = 1 / (1 + gaps.mean())
            support = min(int(gaps.max()), 65_000) + 1
            probabilities = share * (1 - share) ** np.arange(support)
            probabilities[-1] += (1 - share) ** support
            model = constriction.stream.model.Categorical(probabilities, perfect=False)
            coder = constriction.stream.stack.AnsCoder()
            coder.encode_reverse(np.minimum(gaps, support - 1), model)
            return 4 * len(coder.get_compressed())

        peers["constriction ANS of the gaps (geometric)"] = ans
    return peers


def recorded(folder):
    """Yield (name, layout, masks) of masks as record_masks.py writes them, or as pack_masks.py does."""
    for path in sorted(Path(folder).glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            shapes = tuple(tuple(int(n) for n in shape.split(",") if n) for shape in file["shapes"])
            layout = ParamLayout(tuple(file["names"].tolist()), shapes)
            if "masks" in file:
                masks = file["masks"]
            else:
                payloads = [file[name].tobytes() for name in file.files if name.startswith("payload")]
                updates = [decode(payload, dim=layout.dim, layout=layout) for payload in payloads]
                masks = np.stack([update.blocks[0].indices for update in updates])
        yield path.stem, layout, masks


def print_sizes(folder, peers):
    print("\nBytes over d*H(density)/8, mean over the recorded masks:")
    names = ["rice", "context", "no layout: context", "no layout: shaped", *peers]
    print(f"{'':22}" + "".join(f"{name[:22]:>24}" for name in names))
    for name, layout, masks in recorded(folder):
        floor = entropy_bytes(masks.shape[1], layout.dim)
        with_layout, without = Known(layout.dim, layout), Known(layout.dim)
        rows = []
        for mask in masks:
            row = [INDEX_CODINGS["rice"].prepare(mask, without).size]
            row += [INDEX_CODINGS["context"].prepare(mask, known).size for known in (with_layout, without)]
            row.append(INDEX_CODINGS["shaped"].prepare(mask, without).size)
            rows.append([*row, *(peer(mask) for peer in peers.values())])
        print(f"{name:22}" + "".join(f"{ratio:24.3f}" for ratio in np.mean(rows, axis=0) / floor))


def print_speed(dim, density, repeats, peers):
    rng = np.random.default_rng(0)
    k = round(dim * density)
    state = rng.standard_normal((3, dim)).astype(np.float32)
    tensor = torch.from_numpy(state[0])
    indices = top_k_abs_indices(state[0], k)
    values = np.empty((3, k), np.float32)
    gather_rows(state, indices, values)
    update = Update(dim, (Block(indices, values),))

    def whole_upload(codec):
        kept = top_k_abs_indices(state[0], k)
        gather_rows(state, kept, values)
        return encode(Update(dim, (Block(kept, values),)), codec)

    topk = seconds(lambda: torch.topk(tensor.abs(), k, sorted=False), repeats)
    print(
        f"\ndim {dim}, k {k}, 3 streams, uniform mask, best of {repeats}; torch.topk alone: {1e3 * topk:.0f} ms"
    )
    print(
        f"{'codec':22}{'bytes':>12}{'bits/entry':>12}{'encode ms':>12}{'decode ms':>12}{'select+gather+encode':>24}{'/ topk':>8}"
    )
    fast = Codec("compact, rice", "rice", CODECS["compact"].values, CODECS["compact"].rounding)
    plain = replace(CODECS["compact"], name="compact, entropy off", entropy=False)
    for codec in (*CODECS.values(), plain, fast):
        payload = encode(update, codec)
        times = [
            seconds(lambda codec=codec: encode(update, codec), repeats),
            seconds(lambda payload=payload: decode(payload, dim=dim), repeats),
            seconds(lambda codec=codec: whole_upload(codec), repeats),
        ]
        bits = 8 * len(payload) / k
        print(
            f"{codec.name:22}{len(payload):12}{bits:12.2f}{1e3 * times[0]:12.1f}{1e3 * times[1]:12.1f}{1e3 * times[2]:24.1f}{times[2] / topk:8.2f}"
        )

    print("\nPositions alone:")
    for name in ("bitmap", "rice", "context", "shaped", "fixed", "coo32", "coo64"):
        mask_only = Update(dim, (Block(indices, values[:0]),))
        payload = encode(mask_only, Codec(name, name))
        taken = [
            seconds(partial(encode, mask_only, Codec(name, name)), repeats),
            seconds(partial(decode, payload, dim=dim), repeats),
        ]
        size = inspect(payload).mask_bytes
        print(f"{size:12} bytes {1e3 * taken[0]:9.1f} ms {1e3 * taken[1]:9.1f} ms back   {name}")
    for name, peer in peers.items():
        print(
            f"{peer(indices):12} bytes {1e3 * seconds(lambda peer=peer: peer(indices), 1):9.1f} ms{'':18}{name}"
        )

    for codec in (fast, CODECS["compact"]):
        print_aggregation(encode(update, codec), codec.name, dim, repeats)


def print_aggregation(payload, name, dim, repeats):
    running = WeightedSum(3, dim)
    total = np.zeros((3, dim))

    def numpy_way():
        decoded = decode(payload, dim=dim)
        dense = np.zeros((3, dim), np.float32)
        dense[:, decoded.blocks[0].indices] = decoded.blocks[0].values
        return np.add(total, np.float32(0.3) * dense, out=total)

    ours = seconds(lambda: running.add(decode(payload, dim=dim), 0.3), repeats)
    theirs = seconds(numpy_way, repeats)
    print(
        f"\n{name}: decode into accumulators {1e3 * ours:.1f} ms; decode, densify and add in numpy {1e3 * theirs:.1f} ms: {theirs / ours:.1f} x"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=10_000_000)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--masks", help="folder of recorded masks: print sizes instead of speed")
    parser.add_argument(
        "--cpu", action="store_true", help="time of the processor, for a machine that is busy"
    )
    args = parser.parse_args()
    peers = peer_masks(*(optional(name) for name in ("zstandard", "pyroaring", "constriction")))
    if args.masks:
        print_sizes(args.masks, peers)
    else:
        print_speed(args.dim, args.density, args.repeats, peers)


if __name__ == "__main__":
    main()
