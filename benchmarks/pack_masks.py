"""Keep recorded masks in little space: each as a payload of its own, without values.

python benchmarks/pack_masks.py masks benchmarks/masks
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from comask.wire import Block, ParamLayout, Update, encode


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="folder that record_masks.py wrote")
    parser.add_argument("target", help="folder to write")
    args = parser.parse_args()
    Path(args.target).mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(args.source).glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            names, shapes, masks = file["names"], file["shapes"], file["masks"]
        layout = ParamLayout(
            tuple(names.tolist()), tuple(tuple(map(int, filter(None, s.split(",")))) for s in shapes)
        )
        none = np.empty((0, masks.shape[1]), np.float32)
        payloads = {
            f"payload{number}": np.frombuffer(
                encode(Update(layout.dim, (Block(mask, none),)), layout=layout), np.uint8
            )
            for number, mask in enumerate(masks)
        }
        np.savez(Path(args.target) / path.name, names=names, shapes=shapes, **payloads)
        print(
            f"{path.name}: {sum(map(len, payloads.values()))} bytes for {len(masks)} masks of {masks.shape[1]} positions"
        )


if __name__ == "__main__":
    main()
