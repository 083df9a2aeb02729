"""Golden vectors: the bytes never change, and two decoders agree on them."""

import re
from pathlib import Path

import numpy as np
import pytest
import reference_decoder
from make_vectors import FOLDER, cases

from comask.wire import INDEX_CODINGS, RULES, VALUE_CODINGS, Codec, decode, encode

DOCUMENT = (Path(__file__).parents[2] / "docs/format/v1.md").read_text()


@pytest.mark.parametrize("name", cases())
def test_bytes_never_change(name: str) -> None:
    update, codec, layout = cases()[name]
    assert encode(update, codec, layout=layout) == (FOLDER / f"{name}.bin").read_bytes()


def test_every_file_is_checked() -> None:
    assert {path.stem for path in FOLDER.glob("*.bin")} == set(cases())


@pytest.mark.parametrize("name", cases())
def test_the_decoder_written_from_the_document_agrees(name: str) -> None:
    update, _, layout = cases()[name]
    payload = (FOLDER / f"{name}.bin").read_bytes()
    ours = decode(payload, dim=update.dim, layout=layout)
    plain_layout = layout and list(zip(layout.names, layout.shapes, strict=True))
    round_, buffers, blocks = reference_decoder.decode(payload, update.dim, plain_layout)
    assert round_ == ours.round == update.round
    assert buffers == tuple(ours.buffers.tolist())
    for (positions, streams), block, original in zip(blocks, ours.blocks, update.blocks, strict=True):
        everything = list(range(update.dim)) if block.indices is None else block.indices.tolist()
        assert positions == everything
        assert original.indices is None or positions == original.indices.tolist()
        assert np.array_equal(np.array(streams, np.float32).reshape(block.values.shape), block.values)


def test_the_document_lists_the_rules_of_the_code() -> None:
    section = DOCUMENT.split("## 7. Rules")[1]
    assert dict(re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", section, re.MULTILINE)) == dict(RULES)


@pytest.mark.parametrize(
    ("title", "table"), [("## 4. Index codings", INDEX_CODINGS), ("## 5. Value codings", VALUE_CODINGS)]
)
def test_the_document_lists_the_codings_of_the_code(title, table) -> None:  # type: ignore[no-untyped-def]
    section = DOCUMENT.split(title)[1].split("\n## ")[0]
    listed = {
        name: int(number)
        for number, name in re.findall(r"^\| (\d+) \| `([a-z0-9-]+)` \|", section, re.MULTILINE)
    }
    assert listed == {name: coding.number for name, coding in table.items()}


def test_the_worked_example_of_the_document() -> None:
    example = re.search(r"```\n((?:[0-9A-F]{2}[ \n])+)```", DOCUMENT)
    assert example is not None
    payload = bytes.fromhex(example[1])
    round_, buffers, blocks = reference_decoder.decode(payload, 40)
    assert (round_, buffers, blocks) == (7, (), [([3, 4, 21], [[0.5, -1.0, 0.25]])])
    decoded = decode(payload, dim=40)
    assert encode(decoded, Codec("rice", "rice")) == payload
    assert decoded.blocks[0].indices.tolist() == [3, 4, 21]
