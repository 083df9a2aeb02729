"""Make `src/comask/data/embedded/fashion-mnist-mini.npz` from the originals, and check it.

The subset is the first 1,000 training and the first 200 test images of each class, in the original order: no random
draw, so anybody can make it again. The originals are checked against the published sums (by the reader), the result
against the sums that the package checks on loading.

    python scripts/make_fashion_mnist_mini.py FOLDER [--output FILE]

FOLDER holds the four IDX files, gzipped or not (Debian and Ubuntu: `apt-get install dataset-fashion-mnist` puts them in
/usr/share/datasets/fashion-mnist). Exits with 1 when the arrays are not those that the package expects.
"""

import argparse
import hashlib
import sys
import zipfile
from pathlib import Path

import numpy as np

from comask.data.fashion_mnist import MINI_ARRAYS, read_fashion_mnist

PER_CLASS = {"train": 1000, "test": 200}
OUTPUT = Path(__file__).parents[1] / "src/comask/data/embedded/fashion-mnist-mini.npz"


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(10)]))


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write like numpy.savez_compressed, at zlib's best level and with a fixed time, so the bytes do not depend on the day."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()

    originals = read_fashion_mnist(arguments.folder)
    if originals is None:
        parser.error(f"{arguments.folder} does not hold the four IDX files of Fashion-MNIST")
    arrays = {}
    for part, inputs, labels in (
        ("train", originals.train_inputs, originals.train_targets),
        ("test", originals.test_inputs, originals.test_targets),
    ):
        chosen = first_of_each_class(labels, PER_CLASS[part])
        arrays[f"{part}_images"] = np.ascontiguousarray(inputs[chosen, 0])
        arrays[f"{part}_labels"] = labels[chosen]
    write_npz(arguments.output, arrays)

    size = arguments.output.stat().st_size
    print(
        f"{arguments.output}: {size} bytes, sha256 {hashlib.sha256(arguments.output.read_bytes()).hexdigest()}"
    )
    wrong = 0
    for name, array in arrays.items():
        found, expected = hashlib.sha256(array.tobytes()).hexdigest(), MINI_ARRAYS[name][1]
        print(
            f"  {name} {array.shape} {found} {'as expected' if found == expected else f'but expected {expected}'}"
        )
        wrong += found != expected
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
