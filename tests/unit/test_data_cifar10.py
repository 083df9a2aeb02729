import hashlib
import io
import tarfile

import numpy as np
import pytest

from comask.data import cifar10, load_dataset
from comask.errors import DamagedDataError, DataNotFoundError

ROWS = 4


@pytest.fixture
def images():
    """Six batches of four images, channels first, and their labels."""
    rng = np.random.default_rng(2)
    return rng.integers(0, 256, (6, ROWS, 3, 32, 32), np.uint8), rng.integers(0, 10, (6, ROWS), np.uint8)


@pytest.fixture
def files(images, monkeypatch):
    """The six binary files as `{name: bytes}`, and a reader that expects them."""
    pixels, labels = images
    records = np.concatenate([labels[..., None], pixels.reshape(6, ROWS, -1)], axis=-1)
    sums = {"train": hashlib.sha256(labels[:5]).hexdigest(), "test": hashlib.sha256(labels[5]).hexdigest()}
    monkeypatch.setattr(cifar10, "ROWS", ROWS)
    monkeypatch.setattr(cifar10, "LABELS_SHA256", sums)
    names = (*cifar10.TRAIN_FILES, *cifar10.TEST_FILES)
    return {name: batch.tobytes() for name, batch in zip(names, records, strict=True)}


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def put_archive(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return hashlib.md5(path.read_bytes()).hexdigest()


def check(dataset, images, note=""):
    pixels, labels = images
    np.testing.assert_array_equal(dataset.train_inputs, pixels[:5].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(dataset.train_targets, labels[:5].ravel())
    np.testing.assert_array_equal(dataset.test_inputs, pixels[5])
    np.testing.assert_array_equal(dataset.test_targets, labels[5])
    assert (dataset.task, dataset.num_classes, dataset.note) == ("image", 10, note)
    assert dataset.train_inputs.flags.c_contiguous
    assert dataset.train_inputs.flags.writeable  # torch warns of read-only arrays
    assert len(dataset.mean) == len(dataset.std) == 3


def test_binary_files_are_read_in_order(tmp_path, files, images):
    put(tmp_path / "cifar-10-batches-bin", files)
    check(load_dataset("cifar10", root=tmp_path, download=False), images)


def test_the_archive_is_read_without_unpacking_it(tmp_path, files, images, monkeypatch):
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", put_archive(tmp_path / cifar10.ARCHIVE, files))
    check(load_dataset("cifar10", root=tmp_path, download=False), images)
    assert [path.name for path in tmp_path.iterdir()] == [cifar10.ARCHIVE]


def test_an_archive_with_another_sum_is_refused(tmp_path, files):
    put_archive(tmp_path / cifar10.ARCHIVE, files)
    with pytest.raises(DamagedDataError, match=r"cifar-10-binary\.tar\.gz has md5 .*; it must be c32a1d4a"):
        cifar10.read_cifar10(tmp_path)


def test_differences_are_undone(tmp_path, images, monkeypatch):
    pixels, labels = images
    for part, chosen in (("train", slice(0, 5)), ("test", slice(5, 6))):
        plain = pixels[chosen].reshape(-1, 3, 32, 32).copy()
        plain[:, 0] -= plain[:, 1]
        plain[:, 2] -= plain[:, 1]
        plain[..., 1:] -= plain[..., :-1].copy()
        path = tmp_path / f"cifar10_{part}.npz"
        np.savez_compressed(path, delta=plain, labels=labels[chosen].ravel(), exact=np.ones(len(plain), bool))
        facts = (path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        monkeypatch.setitem(cifar10.REASSEMBLED, part, facts)
    dataset = cifar10.read_cifar10(tmp_path)
    check(dataset, images, note="CIFAR-10 (reassembled; 93 of 60,000 images JPEG-approximate)")


def test_the_published_files_come_before_the_reassembled_ones(tmp_path, files):
    put(tmp_path, files | {"cifar10_train.npz": b"", "cifar10_test.npz": b""})
    assert cifar10.read_cifar10(tmp_path).note == ""


def test_an_incomplete_folder_is_not_the_data_set(tmp_path, files):
    del files["data_batch_3.bin"]
    put(tmp_path, files)
    assert cifar10.read_cifar10(tmp_path) is None


def test_wrong_files_are_refused(tmp_path, files):
    put(tmp_path, files | {"data_batch_2.bin": files["data_batch_2.bin"][:-1]})
    with pytest.raises(DamagedDataError, match=r"data_batch_2\.bin has 12291 bytes; it must have 12292"):
        cifar10.read_cifar10(tmp_path)
    put(tmp_path, files | {"data_batch_2.bin": files["data_batch_1.bin"]})
    with pytest.raises(DamagedDataError, match="The labels of CIFAR-10's train files has sha256"):
        cifar10.read_cifar10(tmp_path)


def test_a_reassembled_file_that_differs_is_refused(tmp_path):
    put(tmp_path, {"cifar10_train.npz": b"PK", "cifar10_test.npz": b"PK"})
    with pytest.raises(DamagedDataError, match=r"cifar10_train\.npz has 2 bytes; it must have 101952190"):
        cifar10.read_cifar10(tmp_path)


@pytest.mark.slow
def test_the_real_data_set_has_the_published_statistics():
    try:
        dataset = load_dataset("cifar10", download=False)
    except DataNotFoundError:
        pytest.skip("CIFAR-10 is not on this machine")
    assert dataset.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert dataset.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)
    assert np.bincount(dataset.train_targets).tolist() == [5000] * 10
    assert np.bincount(dataset.test_targets).tolist() == [1000] * 10
    if dataset.note:
        pixels = np.ascontiguousarray(dataset.test_inputs.transpose(0, 2, 3, 1))
        expected = "1249626010949d8f448e0faf792debbc3da0c50ed31bfff3678c99c37fbc7e48"
        assert hashlib.sha256(pixels).hexdigest() == expected
