import hashlib
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comask.data import load_dataset, svhn
from comask.data.mat5 import read_mat5
from comask.errors import DamagedDataError, DataNotFoundError

HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def element(kind, data):
    if 0 < len(data) <= 4:  # MATLAB packs short data into the tag
        return struct.pack("<I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def variable(name, array):
    """One compressed MATLAB variable, written from the format's description."""
    flags = element(6, struct.pack("<II", 9, 0))
    dims = element(5, struct.pack(f"<{array.ndim}i", *array.shape))
    matrix = flags + dims + element(1, name.encode()) + element(2, array.tobytes(order="F"))
    packed = zlib.compress(struct.pack("<II", 14, len(matrix)) + matrix)
    return struct.pack("<II", 15, len(packed)) + packed


def digits(count, seed=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (32, 32, 3, count), np.uint8), rng.integers(1, 11, (count, 1), np.uint8)


@pytest.fixture
def mat_files(tmp_path, monkeypatch):
    """Write `train_32x32.mat` with five digits and `test_32x32.mat` with two; return their arrays."""
    known, arrays = {}, {}
    for name, count in (("train_32x32.mat", 5), ("test_32x32.mat", 2)):
        arrays[name] = digits(count)
        data = HEADER + variable("X", arrays[name][0]) + variable("y", arrays[name][1])
        (tmp_path / name).write_bytes(data)
        known[name] = (count, hashlib.md5(data).hexdigest())
    monkeypatch.setattr(svhn, "MAT_FILES", known)
    return arrays


def test_the_published_files_are_read(tmp_path, mat_files):
    dataset = load_dataset("svhn", root=tmp_path, download=False)
    for name, inputs, targets in (
        ("train_32x32.mat", dataset.train_inputs, dataset.train_targets),
        ("test_32x32.mat", dataset.test_inputs, dataset.test_targets),
    ):
        pixels, labels = mat_files[name]
        assert inputs.shape == (len(labels), 3, 32, 32)
        for digit, channel, row, column in ((0, 0, 0, 0), (1, 2, 30, 7), (1, 1, 7, 30)):
            assert inputs[digit, channel, row, column] == pixels[row, column, channel, digit]
        assert targets.tolist() == [label % 10 for label in labels[:, 0]]
    assert dataset.note == ""


def test_a_file_with_another_sum_is_refused(tmp_path, mat_files):
    data = (tmp_path / "test_32x32.mat").read_bytes()
    (tmp_path / "test_32x32.mat").write_bytes(data[:-1] + b"\0")
    with pytest.raises(DamagedDataError, match=r"test_32x32\.mat has md5"):
        svhn.read_svhn(tmp_path)


def test_the_fragment_holds_out_its_last_digits(tmp_path, monkeypatch):
    rng = np.random.default_rng(4)
    images, labels = rng.integers(0, 256, (1083, 32, 32, 3), np.uint8), rng.integers(0, 10, 1083, np.uint8)
    np.savez_compressed(tmp_path / "svhn_train_head.npz", images=images, labels=labels)
    with pytest.raises(DamagedDataError, match=r"svhn_train_head\.npz has sha256"):
        svhn.read_svhn(tmp_path)
    found = hashlib.sha256((tmp_path / "svhn_train_head.npz").read_bytes()).hexdigest()
    monkeypatch.setattr(svhn, "HEAD_SHA256", found)
    dataset = svhn.read_svhn(tmp_path)
    np.testing.assert_array_equal(dataset.train_inputs, images[:800].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.test_inputs, images[800:].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(dataset.test_targets, labels[800:])
    assert "only the first 1,083 training digits: 800 to train on, the last 283 held out" in dataset.note


def test_an_empty_folder_is_not_the_data_set(tmp_path):
    assert svhn.read_svhn(tmp_path) is None


def test_the_real_data_set_has_the_published_counts():
    try:
        dataset = load_dataset("svhn", download=False)
    except DataNotFoundError:
        pytest.skip("SVHN is not on this machine")
    labels = np.concatenate([dataset.train_targets, dataset.test_targets])
    if dataset.note:
        assert np.bincount(labels).tolist() == [66, 227, 141, 134, 110, 112, 78, 70, 78, 67]
    else:
        assert (len(dataset.train_targets), len(dataset.test_targets)) == (73257, 26032)


def test_variables_keep_matlabs_order_of_memory(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a.mat").write_bytes(HEADER + variable("other", array[0]) + variable("numbers", array))
    np.testing.assert_array_equal(read_mat5(tmp_path / "a.mat", {"numbers": (2, 3, 4)})["numbers"], array)


def test_files_of_scipy_are_read(tmp_path):
    io = pytest.importorskip("scipy.io")
    images, labels = digits(3)
    io.savemat(tmp_path / "a.mat", {"X": images, "y": labels}, do_compression=True)
    found = read_mat5(tmp_path / "a.mat", {"X": images.shape, "y": labels.shape})
    np.testing.assert_array_equal(found["X"], images)
    np.testing.assert_array_equal(found["y"], labels)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a little-endian MATLAB 5 file"),
        (HEADER[:-2] + b"MI", "is not a little-endian MATLAB 5 file"),
        (HEADER, "variable 'y' must be bytes of shape .2, 1., but is missing"),
        (HEADER + variable("y", np.zeros((3, 1), np.uint8)), r"'y' must be .* has shape \(3, 1\)"),
        (HEADER + variable("y", np.zeros((2, 1), np.uint8))[:-3], "is not a whole MATLAB 5 file"),
        (HEADER + variable("y", np.zeros((2, 1), np.uint8)) + b"\1", "is not a whole MATLAB 5 file"),
        (HEADER + struct.pack("<II", 15, 8) + b"not zlib", "is not a whole MATLAB 5 file"),
        (HEADER + variable("y", np.zeros((10_000, 1_000), np.uint8)), "runs past the end"),
    ],
)
def test_other_files_are_refused(tmp_path, data, message):
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(DamagedDataError, match=message):
        read_mat5(tmp_path / "a.mat", {"y": (2, 1)})


@given(matrix=st.binary(max_size=80))
def test_any_matrix_is_read_or_refused(tmp_path_factory, matrix):
    packed = zlib.compress(struct.pack("<II", 14, len(matrix)) + matrix)
    path = tmp_path_factory.getbasetemp() / "any.mat"
    path.write_bytes(HEADER + struct.pack("<II", 15, len(packed)) + packed)
    try:
        assert read_mat5(path, {"y": (2, 1)})["y"].shape == (2, 1)
    except DamagedDataError as error:
        assert "any.mat" in str(error)  # noqa: PT017  # either outcome is right
