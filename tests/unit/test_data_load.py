"""Finding and reading: the embedded subset, and a miniature Fashion-MNIST in every place that is looked into."""

import functools
import hashlib
import http.server
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from comask.data import DATASETS, fashion_mnist, load, load_dataset
from comask.data.places import Download, places
from comask.errors import DamagedDataError, DataNotFoundError, UnknownNameError

SYSTEM = Path("/usr/share/datasets/fashion-mnist")


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Make `load_dataset("fashion-mnist")` expect a few images; return the files' contents by name."""
    rng = np.random.default_rng(1)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (6, 28, 28), np.uint8),
        "train-labels-idx1-ubyte": np.arange(6, dtype=np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (3, 28, 28), np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(3, dtype=np.uint8),
    }
    contents = {name: idx(array) for name, array in arrays.items()}
    known = {
        name: (array.shape, hashlib.sha256(contents[name]).hexdigest()) for name, array in arrays.items()
    }
    monkeypatch.setattr(fashion_mnist, "IDX_FILES", known)
    source = replace(load.SOURCES["fashion-mnist"], system=(str(tmp_path / "system"),), downloads=())
    monkeypatch.setattr(load, "SOURCES", {"fashion-mnist": source})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("COMASK_DATA", raising=False)
    return contents


def put(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)


def test_the_embedded_subset_is_balanced_and_complete():
    dataset = load_dataset("fashion-mnist-mini")
    assert dataset.train_inputs.shape == (10_000, 1, 28, 28)
    assert dataset.test_inputs.shape == (2_000, 1, 28, 28)
    assert np.bincount(dataset.train_targets).tolist() == [1000] * 10
    assert np.bincount(dataset.test_targets).tolist() == [200] * 10
    assert dataset.mean == pytest.approx((0.2860,), abs=1e-3)
    assert dataset.std == pytest.approx((0.3530,), abs=2e-3)
    assert (dataset.task, dataset.num_classes, dataset.groups) == ("image", 10, None)
    assert "first 1,000 training and 200 test images of each class" in dataset.note


def test_the_embedded_file_is_small_and_has_its_licence_beside_it():
    folder = Path(load.__file__).parent / "embedded"
    assert (folder / "fashion-mnist-mini.npz").stat().st_size <= 6_000_000
    licence = (folder / "FASHION-MNIST-LICENSE.txt").read_text(encoding="utf-8")
    assert "Zalando SE" in licence
    assert "Permission is hereby granted, free of charge" in licence


@pytest.mark.skipif(not SYSTEM.is_dir(), reason="the original Fashion-MNIST is not installed")
def test_the_embedded_subset_is_the_first_of_each_class_of_the_original():
    whole, mini = load_dataset("fashion-mnist", download=False), load_dataset("fashion-mnist-mini")
    assert whole.mean == pytest.approx((0.2860,), abs=5e-5)
    assert whole.std == pytest.approx((0.3530,), abs=5e-5)
    for part, count in (("train", 1000), ("test", 200)):
        labels = getattr(whole, f"{part}_targets")
        chosen = sorted(i for c in range(10) for i in np.flatnonzero(labels == c)[:count])
        np.testing.assert_array_equal(getattr(mini, f"{part}_targets"), labels[chosen])
        np.testing.assert_array_equal(
            getattr(mini, f"{part}_inputs"), getattr(whole, f"{part}_inputs")[chosen]
        )


@pytest.mark.skipif(not SYSTEM.is_dir(), reason="the original Fashion-MNIST is not installed")
def test_the_script_makes_the_embedded_subset_again(tmp_path):
    script = Path(__file__).parents[2] / "scripts/make_fashion_mnist_mini.py"
    command = [sys.executable, str(script), str(SYSTEM), "--output", str(tmp_path / "mini.npz")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.count("as expected") == 4


def test_a_damaged_embedded_file_is_refused(monkeypatch):
    shape, _ = fashion_mnist.MINI_ARRAYS["test_labels"]
    monkeypatch.setitem(fashion_mnist.MINI_ARRAYS, "test_labels", (shape, "00"))
    with pytest.raises(DamagedDataError, match="test_labels of fashion-mnist-mini has sha256"):
        load_dataset("fashion-mnist-mini")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"Unknown data set 'fashion-mist'\. Did you mean 'fashion-mnist'"
    ):
        load_dataset("fashion-mist")
    assert DATASETS == ("fashion-mnist-mini", "fashion-mnist", "cifar10", "svhn", "shakespeare")


@pytest.mark.parametrize("below", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_root_and_its_usual_subfolders_are_looked_into(tiny, tmp_path, below):
    put(tmp_path / "mine" / below, tiny)
    dataset = load_dataset("fashion-mnist", root=tmp_path / "mine", download=False)
    assert dataset.train_targets.tolist() == [0, 1, 2, 3, 4, 5]
    assert dataset.test_inputs.shape == (3, 1, 28, 28)
    assert dataset.note == ""


def test_the_variable_the_system_and_the_cache_are_looked_into(tiny, tmp_path, monkeypatch):
    for folder in (tmp_path / "cache/comask/fashion-mnist", tmp_path / "system", tmp_path / "variable"):
        if folder.name == "variable":
            monkeypatch.setenv("COMASK_DATA", str(folder))
        with pytest.raises(DataNotFoundError):
            load_dataset("fashion-mnist", download=False)
        put(folder, tiny)
        assert len(load_dataset("fashion-mnist", download=False).train_targets) == 6
        for name in tiny:
            (folder / name).unlink()


def test_places_are_in_the_stated_order_and_each_once(tmp_path, monkeypatch):
    monkeypatch.setenv("COMASK_DATA", str(tmp_path / "b"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    found = places("x", tmp_path / "a", subfolders=(), system=("/usr/share/x",))
    assert [place.origin for place in found] == [
        "root",
        "root",
        "COMASK_DATA",
        "COMASK_DATA",
        "system",
        "cache",
    ]
    same = places("x", tmp_path / "b", subfolders=(), system=())
    assert [(place.origin, place.folder.name) for place in same] == [
        ("root", "b"),
        ("root", "x"),
        ("cache", "x"),
    ]


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load.cache_folder() == Path("/home/somebody/.cache/comask")


def test_what_is_nowhere_is_reported_with_every_place_and_what_to_do(tiny, tmp_path):
    with pytest.raises(DataNotFoundError) as caught:
        load_dataset("fashion-mnist", root=tmp_path / "mine", download=False)
    message = str(caught.value)
    for place in (
        "mine",
        "mine/fashion-mnist",
        "mine/FashionMNIST/raw",
        "system",
        "cache/comask/fashion-mnist",
    ):
        assert f": {tmp_path / place}\n" in message
    assert "download: not tried: download=False" in message
    assert "set COMASK_DATA to the folder that holds them" in message
    assert "apt-get install dataset-fashion-mnist" in message


def test_a_damaged_file_stops_the_search_and_is_named(tiny, tmp_path):
    name = "t10k-labels-idx1-ubyte"
    put(tmp_path / "mine", tiny | {name: tiny[name][:-1]})
    put(tmp_path / "system", tiny)
    with pytest.raises(DamagedDataError, match=f"mine/{name} is not an IDX file of 11 bytes"):
        load_dataset("fashion-mnist", root=tmp_path / "mine", download=False)


@pytest.fixture
def server(tmp_path):
    """Serve `tmp_path/served` on this machine; yields the address and the list of requests."""
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/", requests
        running.shutdown()
        thread.join()


def serve(tiny, tmp_path, monkeypatch, address, *, wrong=None):
    pytest.importorskip("pooch")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    put(tmp_path / "served", tiny)
    sums = {name: "md5:" + hashlib.md5(data).hexdigest() for name, data in tiny.items()}
    downloads = tuple(Download(address + n, n, "md5:00" if n == wrong else sums[n]) for n in tiny)
    source = replace(load.SOURCES["fashion-mnist"], downloads=downloads)
    monkeypatch.setattr(load, "SOURCES", {"fashion-mnist": source})


def test_a_download_is_checked_cached_and_made_once(tiny, tmp_path, monkeypatch, server):
    address, requests = server
    serve(tiny, tmp_path, monkeypatch, address)
    first = load_dataset("fashion-mnist")
    assert len(requests) == 4
    again = load_dataset("fashion-mnist")
    assert len(requests) == 4
    np.testing.assert_array_equal(first.train_inputs, again.train_inputs)
    assert sorted(path.name for path in (tmp_path / "cache/comask/fashion-mnist").iterdir()) == sorted(tiny)


def test_a_download_with_another_sum_is_not_kept(tiny, tmp_path, monkeypatch, server):
    address, _ = server
    serve(tiny, tmp_path, monkeypatch, address, wrong="train-images-idx3-ubyte")
    with pytest.raises(DataNotFoundError, match=r"download: .*train-images-idx3-ubyte: MD5 hash"):
        load_dataset("fashion-mnist")
    assert not (tmp_path / "cache/comask/fashion-mnist/train-images-idx3-ubyte").exists()


def test_a_failed_download_is_part_of_the_message(tiny, tmp_path, monkeypatch, server):
    address, _ = server
    serve(tiny, tmp_path, monkeypatch, address)
    (tmp_path / "served/train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataNotFoundError, match="train-labels-idx1-ubyte: 404 Client Error"):
        load_dataset("fashion-mnist")


def test_downloading_without_pooch_says_what_to_install(tiny, tmp_path, monkeypatch):
    serve(tiny, tmp_path, monkeypatch, "http://127.0.0.1:9/")
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataNotFoundError, match=r"pooch is not installed.*comask\[train\]"):
        load_dataset("fashion-mnist")
