import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comask.data import (
    PARTITIONS,
    Dataset,
    class_table,
    make_federation,
    parse_partition,
    sample_labels,
)
from comask.data.partition import _fill_up
from comask.errors import ConfigError, UnknownNameError


def images(labels, num_classes=10):
    targets = np.asarray(labels, np.uint8)
    pixels = np.zeros((len(targets), 1, 2, 2), np.uint8)
    return Dataset("toy", "image", pixels, targets, pixels[:1], targets[:1], num_classes, (0.5,), (0.5,))


def text(groups):
    symbols = np.zeros((len(groups), 4), np.uint8)
    numbers = None if groups is None else np.asarray(groups, np.int64)
    return Dataset("play", "text", symbols, symbols, symbols[:1], symbols[:1], 65, groups=numbers)


BALANCED = images(np.arange(1000) % 10)


def assigned(federation):
    return np.concatenate(federation.clients)


@pytest.mark.parametrize("form", PARTITIONS)
def test_every_rule_gives_each_sample_at_most_once_and_the_same_again(form):
    partition = form.replace(":A", ":0.1").replace(":S", ":2")
    dataset = text(np.arange(1000) % 7) if form == "natural" else BALANCED
    federation = make_federation(dataset, partition, 7, seed=3)
    assert federation.partition == partition
    assert federation.num_clients == 7
    assert sorted(assigned(federation).tolist()) == list(range(1000))
    for client, again in zip(
        federation.clients, make_federation(dataset, partition, 7, seed=3).clients, strict=True
    ):
        assert client.dtype == np.int64
        assert (np.diff(client) > 0).all()
        np.testing.assert_array_equal(client, again)


@pytest.mark.parametrize("partition", ["iid", "dirichlet:0.5", "shards:2"])
def test_another_seed_gives_another_federation(partition):
    first, second = (make_federation(BALANCED, partition, 5, seed=seed) for seed in (0, 1))
    assert any(not np.array_equal(a, b) for a, b in zip(first.clients, second.clients, strict=True))


@settings(max_examples=200, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=120),
    partition=st.one_of(
        st.just("iid"),
        st.sampled_from([1e-4, 0.01, 0.3, 1.0, 1e6]).map(lambda a: f"dirichlet:{a}"),
        st.integers(1, 3).map(lambda s: f"shards:{s}"),
    ),
    num_clients=st.integers(1, 12),
    min_samples=st.integers(1, 10),
    seed=st.integers(0, 2**40),
)
def test_all_samples_are_assigned_and_every_client_has_the_minimum(
    labels, partition, num_clients, min_samples, seed
):
    try:
        federation = make_federation(
            images(labels), partition, num_clients, seed=seed, min_samples=min_samples
        )
    except ConfigError:
        num_shards = num_clients * (int(partition[7:]) if partition.startswith("shards") else 1)
        assert num_clients * min_samples > len(labels) or num_shards > len(labels)
        return
    assert sorted(assigned(federation).tolist()) == list(range(len(labels)))
    assert min(map(len, federation.clients)) >= min_samples


def test_iid_parts_differ_by_at_most_one():
    federation = make_federation(BALANCED, "iid", 7, seed=0)
    assert sorted(map(len, federation.clients)) == [142] + [143] * 6


def test_dirichlet_shares_of_a_class_have_the_distributions_second_moment():
    """A symmetric Dirichlet(a) over K clients has E[sum of squared shares] = (a + 1) / (K a + 1)."""
    concentration, num_clients = 0.5, 10
    dataset = images(np.arange(20_000) % 10)
    squares = [
        ((class_table(make_federation(dataset, "dirichlet:0.5", num_clients, seed=seed)) / 2000) ** 2).sum(0)
        for seed in range(40)
    ]
    expected = (concentration + 1) / (num_clients * concentration + 1)
    # 400 independent classes; the standard error of the mean is about 0.005.
    assert np.mean(squares) == pytest.approx(expected, abs=0.02)


def test_dirichlet_limits():
    nearly_iid = class_table(make_federation(BALANCED, "dirichlet:1e7", 4, seed=0))
    assert nearly_iid.min() >= 24
    assert nearly_iid.max() <= 26
    one_owner = class_table(make_federation(BALANCED, "dirichlet:0.0001", 4, seed=0))
    assert (one_owner.max(axis=0) >= 98).all()


def test_filling_up_takes_from_the_largest_class_of_the_largest_client():
    labels = np.array([0] * 6 + [1] * 4 + [2] * 5)
    clients = [
        np.array([3, 1, 2, 0, 4, 5, 6, 7]),
        np.array([8]),
        np.array([9, 10, 11, 12, 13, 14]),
        np.array([], int),
    ]
    _fill_up(clients, labels, 3)
    # Client 1 lacks two and gets the first two of class 0, the largest class of client 0. Clients 0 and 2 are then equally
    # large; the lower number gives, so client 3 gets its three from client 0, of class 0 again.
    assert [client.tolist() for client in clients] == [
        [5, 6, 7],
        [8, 3, 1],
        [9, 10, 11, 12, 13, 14],
        [2, 0, 4],
    ]


def test_filling_up_leaves_the_other_clients_as_drawn():
    drawn = make_federation(BALANCED, "dirichlet:0.05", 30, seed=5)
    filled = make_federation(BALANCED, "dirichlet:0.05", 30, seed=5, min_samples=8)
    assert min(map(len, drawn.clients)) < 8
    same = [np.array_equal(a, b) for a, b in zip(drawn.clients, filled.clients, strict=True)]
    assert sum(same) >= 15


def test_shards_deal_few_classes_to_each_client():
    table = class_table(make_federation(BALANCED, "shards:2", 10, seed=0))
    assert (table.sum(axis=1) == 100).all()
    assert (np.count_nonzero(table, axis=1) <= 2).all()


def test_natural_keeps_the_largest_in_order_of_their_number():
    dataset = text([4] * 5 + [0] * 3 + [9] * 1 + [2] * 3 + [7] * 6)
    everyone = make_federation(dataset, "natural", None, seed=0)
    assert [len(client) for client in everyone.clients] == [3, 3, 5, 6, 1]
    three = make_federation(dataset, "natural", 3, seed=0)
    assert [dataset.groups[client].tolist() for client in three.clients] == [[0] * 3, [4] * 5, [7] * 6]
    enough = make_federation(dataset, "natural", None, seed=0, min_samples=4)
    assert [len(client) for client in enough.clients] == [5, 6]


def test_a_text_is_labelled_by_its_speakers():
    dataset = text(np.repeat([0, 1, 2], 50))
    np.testing.assert_array_equal(sample_labels(dataset), dataset.groups)
    table = class_table(make_federation(dataset, "shards:1", 3, seed=0))
    assert sorted(table.max(axis=1).tolist()) == [50, 50, 50]
    assert class_table(make_federation(dataset, "dirichlet:0.1", 5, seed=0)).sum() == 150


def test_class_table_counts_by_client_and_class():
    dataset = images([0, 1, 1, 2, 2, 2], num_classes=4)
    federation = make_federation(dataset, "iid", 1, seed=0)
    assert class_table(federation).tolist() == [[1, 2, 3, 0]]


def test_federations_stay_the_same_from_version_to_version():
    """Runs are resumed and compared across versions, so a federation is part of the public behaviour."""
    sums = {}
    for partition in ("iid", "dirichlet:0.1", "shards:2"):
        federation = make_federation(BALANCED, partition, 5, seed=42)
        joined = np.concatenate([[len(c), *c] for c in federation.clients]).astype("<i8")
        sums[partition] = hashlib.sha256(joined.tobytes()).hexdigest()[:16]
    assert sums == {
        "iid": "c348fd512f880c00",
        "dirichlet:0.1": "dcc2ced3ffd5f484",
        "shards:2": "c300f29ce476370c",
    }


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        ("dirichlet", r"partition 'dirichlet': A in 'dirichlet:A' must be a finite number above 0, got ''"),
        ("dirichlet:", "above 0, got ''"),
        ("dirichlet:-1", "above 0, got '-1'"),
        ("dirichlet:0", "above 0, got '0'"),
        ("dirichlet:0.0", r"above 0, got '0\.0'"),
        ("dirichlet:nan", "above 0, got 'nan'"),
        ("dirichlet:inf", "above 0, got 'inf'"),
        ("dirichlet:1e999", "above 0, got '1e999'"),
        ("dirichlet: 1", "above 0, got ' 1'"),
        ("dirichlet:1_0", "above 0, got '1_0'"),
        ("dirichlet:٣", "above 0, got '٣'"),
        ("dirichlet:1:2", "above 0, got '1:2'"),
        ("shards", "S in 'shards:S' must be a whole number of at least 1, got ''"),
        ("shards:x", "at least 1, got 'x'"),
        ("shards:0", "at least 1, got '0'"),
        ("shards:1.5", r"at least 1, got '1\.5'"),
        ("shards:٣", "at least 1, got '٣'"),
        ("iid:3", "partition 'iid:3': 'iid' takes no parameter; write 'iid'"),
        ("natural:", "'natural' takes no parameter"),
    ],
)
def test_a_parameter_that_is_not_allowed_is_named(partition, message):
    with pytest.raises(ConfigError, match=message):
        parse_partition(partition)


def test_rules_are_parsed():
    assert parse_partition("iid") == ("iid", 0.0)
    assert parse_partition("dirichlet:0.1") == ("dirichlet", 0.1)
    assert parse_partition("dirichlet:1e-3") == ("dirichlet", 1e-3)
    assert parse_partition("shards:12") == ("shards", 12.0)


def test_an_unknown_rule_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Unknown partition 'dirchlet'\. Did you mean 'dirichlet'"):
        make_federation(BALANCED, "dirchlet:0.1", 5, seed=0)


@pytest.mark.parametrize(
    ("dataset", "partition", "num_clients", "min_samples", "message"),
    [
        (BALANCED, "iid", 0, 1, "num_clients must be at least 1, got 0"),
        (BALANCED, "iid", 5, 0, "min_samples must be at least 1, got 0"),
        (BALANCED, "iid", None, 1, "num_clients must be given for partition 'iid'"),
        (BALANCED, "iid", 101, 10, "101 with min_samples = 10 needs 1010 samples; 'toy' has 1000"),
        (BALANCED, "shards:3", 400, 1, "'shards:3' cuts 1200 shards for num_clients = 400, .* 1000 samples"),
        (
            BALANCED,
            "natural",
            None,
            1,
            "'toy' has no clients of its own. Use one of: iid, dirichlet:A, shards:S",
        ),
        (text([0, 0, 1]), "natural", 2, 2, "num_clients = 2 .* 'play' has 1 clients of at least that size"),
        (text([0, 0, 1]), "natural", None, 5, "'play' has 0 clients of at least that size"),
    ],
)
def test_what_cannot_be_divided_is_refused(dataset, partition, num_clients, min_samples, message):
    with pytest.raises(ConfigError, match=message):
        make_federation(dataset, partition, num_clients, seed=0, min_samples=min_samples)


def test_a_text_without_speakers_can_only_be_iid():
    symbols = np.zeros((6, 4), np.uint8)
    dataset = Dataset("letters", "text", symbols, symbols, symbols, symbols, 65)
    assert make_federation(dataset, "iid", 3, seed=0).num_clients == 3
    with pytest.raises(ConfigError, match=r"'letters' is a text without natural clients.*Use 'iid'"):
        make_federation(dataset, "dirichlet:1", 3, seed=0)
