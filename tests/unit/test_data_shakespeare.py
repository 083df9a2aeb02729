import hashlib
import json

import numpy as np
import pytest

from comask.data import load_dataset, shakespeare
from comask.errors import DamagedDataError, DataNotFoundError

PLAY = """First Citizen:
Before we proceed any further, hear me speak.

All:
Speak, speak.

Ghost of CLARENCE:

First Citizen:
You are all resolved rather to die
than to famish?
"""


def decode(symbols):
    return "".join(shakespeare.VOCABULARY[symbol] for symbol in symbols)


def text(length, seed):
    rng = np.random.default_rng(seed)
    return "".join(rng.choice(list(shakespeare.VOCABULARY), length))


def test_the_vocabulary_is_the_65_characters_in_ascii_order():
    assert len(shakespeare.VOCABULARY) == 65
    assert sorted(shakespeare.VOCABULARY) == list(shakespeare.VOCABULARY)


def test_speeches_are_joined_by_speaker_and_empty_ones_skipped():
    first = "Before we proceed any further, hear me speak.\n\nYou are all resolved rather to die\nthan to famish?\n"
    found = shakespeare.split_by_speaker(PLAY)
    assert found == {"First Citizen": first.rstrip("\n"), "All": "Speak, speak."}


def test_sequences_are_the_text_and_the_text_one_later():
    words = text(1000, seed=5)
    dataset = shakespeare.as_dataset({"Somebody": words})
    assert dataset.train_inputs.shape == (
        9,
        80,
    )  # 800 characters: nine times 80 with one to predict, and 79 left over
    assert dataset.test_inputs.shape == (2, 80)  # 200 characters
    assert decode(dataset.train_inputs.ravel()) == words[:720]
    assert decode(dataset.train_targets.ravel()) == words[1:721]
    assert decode(dataset.test_inputs.ravel()) == words[800:960]
    assert decode(dataset.test_targets.ravel()) == words[801:961]
    assert (dataset.task, dataset.num_classes, dataset.mean) == ("text", 65, ())


def test_speakers_with_too_little_text_are_dropped_and_counted():
    dataset = shakespeare.as_dataset({"C": text(2000, 1), "B": text(999, 2), "A": text(1000, 3)})
    assert np.bincount(dataset.groups).tolist() == [9, 19]
    assert decode(dataset.train_inputs[0]) == text(1000, 3)[:80]
    assert dataset.note == "tiny Shakespeare, 2 of 3 speakers (those with at least 1000 characters)"


def test_both_files_give_the_same_data_set(tmp_path, monkeypatch):
    speakers = {"A": text(1200, 6).replace("\n", " "), "B": text(1100, 7).replace("\n", " ")}
    play = "\n\n".join(f"{name}:\n{words}" for name, words in speakers.items()) + "\n"
    for name, content, constant in (
        (shakespeare.SPEAKERS_FILE, json.dumps(speakers), "SPEAKERS_SHA256"),
        (shakespeare.TEXT_FILE, play, "TEXT_SHA256"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(DamagedDataError, match=f"{name} has sha256"):
            shakespeare.read_shakespeare(tmp_path)
        monkeypatch.setattr(shakespeare, constant, hashlib.sha256(content.encode()).hexdigest())
        dataset = shakespeare.read_shakespeare(tmp_path)
        assert decode(dataset.train_inputs[0]) == speakers["A"][:80]
        assert decode(dataset.test_targets[-1, -5:]) == speakers["B"][880 + 156 : 880 + 161]


def test_an_empty_folder_is_not_the_data_set(tmp_path):
    assert shakespeare.read_shakespeare(tmp_path) is None


def test_the_real_text_has_the_stated_speakers():
    try:
        dataset = load_dataset("shakespeare", download=False)
    except DataNotFoundError:
        pytest.skip("tiny Shakespeare is not on this machine")
    assert dataset.note.startswith("tiny Shakespeare, 142 of 299 speakers")
    assert (len(dataset.train_inputs), len(dataset.test_inputs)) == (9767, 2387)
    np.testing.assert_array_equal(dataset.train_inputs[:, 1:], dataset.train_targets[:, :-1])
