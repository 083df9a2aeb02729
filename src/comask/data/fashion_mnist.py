"""Fashion-MNIST, whole and as the subset that is inside the package.

H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv:1708.07747, 2017. 70,000 grey images of 28x28 in ten classes. MIT licence.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from comask.data.dataset import Dataset
from comask.data.files import channel_statistics, check_array, read_idx, read_npz
from comask.data.places import Download

# Name without ".gz": shape, sha256 of the unpacked file.
IDX_FILES: dict[str, tuple[tuple[int, ...], str]] = {
    "train-images-idx3-ubyte": (
        (60000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte": ((60000,), "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (
        (10000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte": ((10000,), "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}

_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
DOWNLOADS = (
    Download(
        f"{_URL}train-images-idx3-ubyte.gz",
        "train-images-idx3-ubyte.gz",
        "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ),
    Download(
        f"{_URL}train-labels-idx1-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "md5:25c81989df183df01b3e8a0aad5dffbe",
    ),
    Download(
        f"{_URL}t10k-images-idx3-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "md5:bef4ecab320f06d8554ea6380940ec79",
    ),
    Download(
        f"{_URL}t10k-labels-idx1-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        "md5:bb300cfdad3c16e7a12a480ee83cd310",
    ),
)

# Array in fashion-mnist-mini.npz: shape, sha256 of its bytes. Written by scripts/make_fashion_mnist_mini.py.
MINI_ARRAYS: dict[str, tuple[tuple[int, ...], str]] = {
    "train_images": ((10000, 28, 28), "e1427044c614fabc29feeff0f27e6b68f88a9ee2f2cfe7d783b9157159864883"),
    "train_labels": ((10000,), "2c02745d4ad8b4511333d0eca662ac5664a371860abaa4588b1670e7be59fbdf"),
    "test_images": ((2000, 28, 28), "96315b1732ab731e68b8def3c284f34b605f7deb7a61e683c7d786265c827c83"),
    "test_labels": ((2000,), "b2095bc797d1201e84da76c94012c02d0e6f07af0938df4e00120a3b42d1aa4c"),
}


def read_fashion_mnist(folder: Path) -> Dataset | None:
    """Read the four IDX files, gzipped or not; None when the folder lacks one of them.

    Raises:
        DamagedDataError: If a file is there and is not the published one.
    """
    arrays = []
    for name, (shape, sha256) in IDX_FILES.items():
        path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
        if path is None:
            return None
        arrays.append(read_idx(path, shape=shape, sha256=sha256))
    return _as_dataset("fashion-mnist", *arrays)


def read_fashion_mnist_mini() -> Dataset:
    """Read the subset that is inside the package: the first 1,000 + 200 images of each class, in original order.

    Raises:
        DamagedDataError: If the installed file is not the one that was shipped.
    """
    place = resources.files("comask.data").joinpath("embedded", "fashion-mnist-mini.npz")
    with place.open("rb") as file:
        arrays = read_npz(file, tuple(MINI_ARRAYS))
    for array, (name, (shape, sha256)) in zip(arrays, MINI_ARRAYS.items(), strict=True):
        check_array(f"{name} of fashion-mnist-mini", array, shape=shape, sha256=sha256)
    note = "fashion-mnist-mini: the first 1,000 training and 200 test images of each class of Fashion-MNIST"
    return _as_dataset("fashion-mnist-mini", *arrays, note=note)


def _as_dataset(
    name: str,
    train_images: NDArray[np.uint8],
    train_labels: NDArray[np.uint8],
    test_images: NDArray[np.uint8],
    test_labels: NDArray[np.uint8],
    *,
    note: str = "",
) -> Dataset:
    train_inputs = train_images[:, None]
    mean, std = channel_statistics(train_inputs)
    return Dataset(
        name=name,
        task="image",
        train_inputs=train_inputs,
        train_targets=train_labels,
        test_inputs=test_images[:, None],
        test_targets=test_labels,
        num_classes=10,
        mean=mean,
        std=std,
        note=note,
    )
