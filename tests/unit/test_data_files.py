import gzip
import hashlib

import numpy as np
import pytest

from comask.data.files import channel_statistics, check_array, check_file, read_idx
from comask.errors import DamagedDataError

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + IMAGES.tobytes()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_idx_is_read_as_it_is_or_gzipped(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(IDX) if name.endswith(".gz") else IDX)
    found = read_idx(path, shape=(2, 3, 4), sha256=sha256(IDX))
    np.testing.assert_array_equal(found, IMAGES)
    assert found.flags.writeable  # torch warns of read-only arrays


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (IDX[:-1], "is not an IDX file of 40 bytes"),
        (IDX + b"\0", "is not an IDX file of 40 bytes"),
        (IDX + bytes(10_000_000), "is not an IDX file of 40 bytes"),
        (b"\0\0\x09" + IDX[3:], "is not an IDX file of 40 bytes"),
        (IDX[:-1] + b"\0", "has sha256 .* unpacked; it must be"),
    ],
)
def test_idx_that_is_not_the_expected_array_is_refused(tmp_path, data, message):
    for path, stored in ((tmp_path / "images", data), (tmp_path / "images.gz", gzip.compress(data))):
        path.write_bytes(stored)
        with pytest.raises(DamagedDataError, match=message):
            read_idx(path, shape=(2, 3, 4), sha256=sha256(IDX))


def test_only_one_byte_too_many_of_a_gzip_bomb_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(IDX + bytes(1_000_000)))
    asked = []
    original = gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda self, size=-1: asked.append(size) or original(self, size)
    )
    with pytest.raises(DamagedDataError):
        read_idx(path, shape=(2, 3, 4), sha256=sha256(IDX))
    assert asked == [41]


@pytest.mark.parametrize("cut", [0, 5, 15, -1])
def test_broken_gzip_files_are_refused(tmp_path, cut):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(IDX)[:cut] if cut else b"not gzip")
    with pytest.raises(DamagedDataError, match=r"images\.gz is not a whole gzip file"):
        read_idx(path, shape=(2, 3, 4), sha256=sha256(IDX))


def test_check_file_compares_size_and_sums(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    md5 = "900150983cd24fb0d6963f7d28e17f72"  # of "abc", from RFC 1321
    check_file(path, size=3, sha256=sha256(b"abc"), md5=md5)
    with pytest.raises(DamagedDataError, match=r"data has 3 bytes; it must have 4\. Delete it"):
        check_file(path, size=4)
    with pytest.raises(DamagedDataError, match=r"data has sha256 .*; it must be 00"):
        check_file(path, sha256="00")
    with pytest.raises(DamagedDataError, match=f"data has md5 {md5}; it must be 00"):
        check_file(path, md5="00")


def test_check_array_compares_type_shape_and_sum():
    check_array("x", IMAGES, shape=(2, 3, 4), sha256=sha256(IMAGES.tobytes()))
    with pytest.raises(DamagedDataError, match=r"x is uint8 \(2, 3, 4\); it must be uint8 \(24,\)"):
        check_array("x", IMAGES, shape=(24,))
    with pytest.raises(DamagedDataError, match="x is int64"):
        check_array("x", IMAGES.astype(np.int64), shape=(2, 3, 4))
    with pytest.raises(DamagedDataError, match=r"x has sha256 .*; it must be 00"):
        check_array("x", IMAGES, shape=(2, 3, 4), sha256="00")


def test_channel_statistics_agree_with_numpy():
    images = np.random.default_rng(0).integers(0, 256, (1003, 3, 2, 5), np.uint8)
    images[:, 1] //= 3
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 2, 3)), rtol=1e-10)
