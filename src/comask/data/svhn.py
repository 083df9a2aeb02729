"""SVHN, the Street View House Numbers, as cropped digits: colour images of 32x32 in ten classes.

Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Y. Ng, "Reading Digits in Natural Images with Unsupervised Feature
Learning", NIPS Workshop on Deep Learning and Unsupervised Feature Learning, 2011. For non-commercial use only.

Read from the published `train_32x32.mat` and `test_32x32.mat` (73,257 and 26,032 digits; the `extra` file is not used),
or from `svhn_train_head.npz`, the first 1,083 training digits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from comask.data.dataset import Dataset
from comask.data.files import channel_statistics, check_array, check_file, read_npz
from comask.data.mat5 import read_mat5
from comask.data.places import Download

# File: number of digits, md5.
MAT_FILES: dict[str, tuple[int, str]] = {
    "train_32x32.mat": (73257, "e26dedcc434d2e4c54c9b2d4a06d8373"),
    "test_32x32.mat": (26032, "eb5a983be6a315427106f1b164d9cef3"),
}
DOWNLOADS = tuple(
    Download(f"http://ufldl.stanford.edu/housenumbers/{name}", name, f"md5:{md5}")
    for name, (_, md5) in MAT_FILES.items()
)

HEAD_FILE = "svhn_train_head.npz"
HEAD_SHA256 = "7f17e45090d8f98377280f3802e3857f96cc0ab209f0059a61d22a17e08a6d66"
HEAD_DIGITS, HEAD_TEST_DIGITS = 1083, 283
HEAD_NOTE = (
    "SVHN (only the first 1,083 training digits: 800 to train on, the last 283 held out in place of the test set; "
    "not comparable with published results)"
)

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def read_svhn(folder: Path) -> Dataset | None:
    """Read the two `.mat` files or, failing these, the fragment; None when the folder has neither.

    Raises:
        DamagedDataError: If a file is there and is not the published one.
    """
    if all((folder / name).is_file() for name in MAT_FILES):
        train, test = (_read_mat(folder / name, *facts) for name, facts in MAT_FILES.items())
        return _as_dataset(train, test)
    if (folder / HEAD_FILE).is_file():
        images, labels = _read_head(folder / HEAD_FILE)
        cut = HEAD_DIGITS - HEAD_TEST_DIGITS
        return _as_dataset((images[:cut], labels[:cut]), (images[cut:], labels[cut:]), HEAD_NOTE)
    return None


def _read_mat(path: Path, count: int, md5: str) -> Part:
    check_file(path, md5=md5)
    arrays = read_mat5(path, {"X": (32, 32, 3, count), "y": (count, 1)})
    # MATLAB stores (row, column, channel, digit) and calls the digit 0 class 10.
    return np.ascontiguousarray(arrays["X"].transpose(3, 2, 0, 1)), arrays["y"][:, 0] % 10


def _read_head(path: Path) -> Part:
    check_file(path, sha256=HEAD_SHA256)
    images, labels = read_npz(path, ("images", "labels"))
    check_array(f"images of {path}", images, shape=(HEAD_DIGITS, 32, 32, 3))
    check_array(f"labels of {path}", labels, shape=(HEAD_DIGITS,))
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels


def _as_dataset(train: Part, test: Part, note: str = "") -> Dataset:
    mean, std = channel_statistics(train[0])
    return Dataset(
        name="svhn",
        task="image",
        train_inputs=train[0],
        train_targets=train[1],
        test_inputs=test[0],
        test_targets=test[1],
        num_classes=10,
        mean=mean,
        std=std,
        note=note,
    )
