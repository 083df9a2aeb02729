"""A federation as a table and as a figure."""

import sys

import numpy as np
import pytest

from comask.data import Dataset, make_federation, partition_table
from comask.errors import MissingExtraError
from comask.experiments.data_figures import draw_partition

TARGETS = (np.arange(600) % 3).astype(np.uint8)
PIXELS = np.zeros((600, 1, 2, 2), np.uint8)
IMAGES = Dataset("toy", "image", PIXELS, TARGETS, PIXELS, TARGETS, 3, (0.5,), (0.5,), note="made up")
SYMBOLS = np.zeros((600, 4), np.uint8)
TEXT = Dataset("play", "text", SYMBOLS, SYMBOLS, SYMBOLS, SYMBOLS, 65, groups=np.arange(600) % 30)


def rendered(table):
    console = pytest.importorskip("rich.console").Console(width=100, file=None, record=True, quiet=False)
    with console.capture() as capture:
        console.print(table)
    return [
        [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]
        for line in capture.get().splitlines()
    ]


def test_the_table_counts_classes_and_totals():
    federation = make_federation(IMAGES, "shards:1", 3, seed=0)
    lines = rendered(partition_table(federation))
    assert ["toy, shards:1: 3 clients, 600 samples"] in lines
    assert ["client", "samples", "0", "1", "2"] in lines
    rows = [line for line in lines if line[0] in {"0", "1", "2"}]
    assert sorted(row[2:] for row in rows) == [["200", "·", "·"], ["·", "200", "·"], ["·", "·", "200"]]
    assert ["all", "600", "200", "200", "200"] in lines
    assert ["made up"] in lines


def test_a_long_table_can_be_cut_and_keeps_its_totals():
    lines = rendered(partition_table(make_federation(IMAGES, "iid", 50, seed=0), max_clients=2))
    assert [line[0] for line in lines if line[0].isdecimal()] == ["0", "1"]
    assert ["…", "", "", "", ""] in lines
    assert ["all", "600", "200", "200", "200"] in lines


def test_many_labels_are_summed_up():
    lines = rendered(partition_table(make_federation(TEXT, "natural", 3, seed=0)))
    assert ["client", "samples", "labels", "top share"] in lines
    assert ["0", "20", "1", "100%"] in lines
    assert ["all", "60", "3", ""] in lines


@pytest.mark.parametrize(
    ("dataset", "partition", "num_clients"),
    [(IMAGES, "dirichlet:0.3", 12), (IMAGES, "iid", 1), (TEXT, "natural", None), (TEXT, "dirichlet:1", 4)],
)
def test_the_figure_is_drawn(tmp_path, dataset, partition, num_clients):
    image = pytest.importorskip("matplotlib.image")
    draw_partition(make_federation(dataset, partition, num_clients, seed=0), tmp_path / "figure.png")
    pixels = image.imread(tmp_path / "figure.png")[..., :3]
    colours = np.unique((pixels.reshape(-1, 3) * 255).astype(int), axis=0)
    assert len(colours) > 10  # more than a white page


def test_the_ending_decides_the_format(tmp_path):
    pytest.importorskip("matplotlib")
    draw_partition(make_federation(IMAGES, "iid", 3, seed=0), tmp_path / "figure.svg")
    assert "</svg>" in (tmp_path / "figure.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "view"), [("rich.table", partition_table), ("matplotlib.figure", draw_partition)]
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module, view):
    monkeypatch.setitem(sys.modules, module, None)
    federation = make_federation(IMAGES, "iid", 3, seed=0)
    arguments = () if view is partition_table else (tmp_path / "x.png",)
    with pytest.raises(
        MissingExtraError, match=rf"{module.partition('.')[0]} is not installed.*comask\[train\]"
    ):
        view(federation, *arguments)
