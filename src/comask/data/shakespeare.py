"""Shakespeare's plays, next character, one client a speaker.

The text is "tiny Shakespeare": 40,000 lines put together by A. Karpathy for char-rnn (2015); public domain. Making one
client of each role follows the Shakespeare task of LEAF (S. Caldas et al., arXiv:1812.01097), on less text and with a
prediction at every place of a sequence instead of one at its end, so numbers are not comparable with LEAF's.

Each speaker's speeches, joined in the order of the plays, are one text. Speakers with less than 1,000 characters are
dropped: 142 of 299 remain, with 95 % of the text. The last fifth of each text is for the test set, pooled over the
speakers; both parts are cut into sequences of 80 characters without overlap, and a remainder at the end is dropped.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from comask.data.dataset import Dataset
from comask.data.files import check_file
from comask.data.places import Download

VOCABULARY = "\n !$&',-.3:;?" + string.ascii_uppercase + string.ascii_lowercase
"""The 65 characters that occur, in ASCII order; a symbol is a position in this string."""
LENGTH = 80
"""Characters in a sequence."""
MIN_CHARACTERS = 1000
"""Speakers with less text are dropped."""
TEST_SHARE = 0.2
"""Share of each speaker's text, at its end, that is held out."""

TEXT_FILE = "tinyshakespeare.txt"
TEXT_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SPEAKERS_FILE = "tinyshakespeare_speakers.json"
SPEAKERS_SHA256 = "4c5cc9556ca563272e52cddca404117d3a3d3054479386d5a9c56d317a0a532a"
DOWNLOADS = (
    Download(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        TEXT_FILE,
        f"sha256:{TEXT_SHA256}",
    ),
)


def read_shakespeare(folder: Path) -> Dataset | None:
    """Read the text or, failing that, the texts by speaker; None when the folder has neither.

    Raises:
        DamagedDataError: If a file is there and is not the published one.
    """
    if (folder / TEXT_FILE).is_file():
        check_file(folder / TEXT_FILE, sha256=TEXT_SHA256)
        return as_dataset(split_by_speaker((folder / TEXT_FILE).read_text(encoding="ascii")))
    if (folder / SPEAKERS_FILE).is_file():
        check_file(folder / SPEAKERS_FILE, sha256=SPEAKERS_SHA256)
        return as_dataset(json.loads((folder / SPEAKERS_FILE).read_text(encoding="utf-8")))
    return None


def split_by_speaker(text: str) -> dict[str, str]:
    """Return each speaker's text.

    Blank lines separate speeches; a speech's first line, less its final colon, names the speaker, and the other lines
    are what is said (blocks without any are skipped). One speaker's speeches are joined by a blank line.
    """
    speeches: dict[str, list[str]] = {}
    for block in text.split("\n\n"):
        name, _, speech = block.strip("\n").partition("\n")
        if speech:
            speeches.setdefault(name.removesuffix(":"), []).append(speech)
    return {name: "\n\n".join(parts) for name, parts in speeches.items()}


def as_dataset(speakers: Mapping[str, str]) -> Dataset:
    """Cut the speakers' texts into sequences; groups are numbered in the alphabetical order of the speakers kept.

    Args:
        speakers: Text by speaker, made of the characters of `VOCABULARY`.
    """
    train, test, groups = [], [], []
    kept = sorted(name for name, text in speakers.items() if len(text) >= MIN_CHARACTERS)
    for group, name in enumerate(kept):
        symbols = _encode(speakers[name])
        cut = round(len(symbols) * (1 - TEST_SHARE))
        train.append(_sequences(symbols[:cut]))
        test.append(_sequences(symbols[cut:]))
        groups.append(np.full(len(train[-1]), group, np.int64))
    train_all, test_all = np.concatenate(train), np.concatenate(test)
    return Dataset(
        name="shakespeare",
        task="text",
        train_inputs=train_all[:, :-1].copy(),
        train_targets=train_all[:, 1:].copy(),
        test_inputs=test_all[:, :-1].copy(),
        test_targets=test_all[:, 1:].copy(),
        num_classes=len(VOCABULARY),
        groups=np.concatenate(groups),
        note=f"tiny Shakespeare, {len(kept)} of {len(speakers)} speakers (those with at least {MIN_CHARACTERS} characters)",
    )


def _encode(text: str) -> NDArray[np.uint8]:
    alphabet = np.frombuffer(VOCABULARY.encode("ascii"), np.uint8)
    return np.searchsorted(alphabet, np.frombuffer(text.encode("ascii"), np.uint8)).astype(np.uint8)


def _sequences(symbols: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut into rows of `LENGTH + 1`: a row's last symbol, only predicted, is the next row's first, only seen."""
    count = (len(symbols) - 1) // LENGTH
    return np.lib.stride_tricks.sliding_window_view(symbols, LENGTH + 1)[: count * LENGTH : LENGTH]
