"""The fault table: whatever one client does, it is counted by its reason, and the model is that of a round without it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from fleet import FEEDBACK, NODES, initial_arrays, make_grid, make_strategy, payloads, run
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from comask.algorithms import make_algorithm
from comask.wire import Block, ParamLayout, Update, decode, encode

FAULTY = 2
NODE = NODES[FAULTY]
OTHERS = (0, 1, 3, 4)


def payload_array(data, stype="comask.update.v1"):
    return ArrayRecord({"data": Array("uint8", (len(data),), stype, data)})


def edited(change):
    """A fault: the client does its work, then `change(reply)` happens to the reply."""

    def fault(message, call):
        reply = call(message)
        change(reply)
        return reply

    return fault


def with_payload(make):
    """A fault: `make(payload, layout)` is sent in place of the payload."""

    def change(reply):
        layout = make_strategy(FEEDBACK)._spec.trained
        sent = reply.content["comask.payload"]["data"].data
        reply.content["comask.payload"] = payload_array(make(sent, layout))

    return edited(change)


def with_update(change):
    """A fault: a valid payload of `change(update)`."""

    def make(payload, layout):
        update = decode(payload, dim=layout.dim, layout=layout)
        return encode(change(update), layout=layout)

    return with_payload(make)


def with_values(value):
    def change(update):
        (block,) = update.blocks
        values = block.values.copy()
        values[1, -1] = value
        return Update(update.dim, (Block(block.indices, values),), update.buffers, update.round)

    return with_update(change)


def with_receipt(**fields):
    def change(reply):
        record = reply.content["comask.receipt"]
        reply.content["comask.receipt"] = ConfigRecord({**record, **fields})

    return edited(change)


def with_examples(value):
    def change(reply):
        reply.content["metrics"] = MetricRecord({"num-examples": value} if value is not None else {})

    return edited(change)


def without(name):
    return edited(lambda reply: reply.content.pop(name))


def with_metadata(**fields):
    def change(reply):
        for name, value in fields.items():
            reply.metadata.__dict__[f"_{name}"] = value

    return edited(change)


def raises(message, call):
    call(message)  # the residual of a round that comes to nothing is on disk
    return Message(Error(2, "<class 'ValueError'>:<'\x1b[31mboom\n'>"), reply_to=message)


def dies(message, call):
    reply = Message(Error(5, "Node is offline"), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = 1  # the SuperLink answers in its place
    return reply


def hangs(message, call):
    call(message)


def other_layout(payload, layout):
    update = decode(payload, dim=layout.dim, layout=layout)
    return encode(update, layout=ParamLayout(("other",), ((layout.dim,),)))


def other_model(payload, layout):
    return encode(Update(9, (Block(None, np.ones((3, 9), np.float32)),), round=1))


def one_stream(update):
    return Update(
        update.dim, (Block(None, np.ones((1, update.dim), np.float32)),), update.buffers, update.round
    )


def other_round(update):
    return Update(update.dim, update.blocks, update.buffers, update.round + 1)


REFUSED = {
    "raises": (raises, "failed"),
    "dies": (dies, "failed"),
    "NaN": (with_values(np.nan), "non-finite"),
    "infinity": (with_values(np.inf), "non-finite"),
    "update of another round": (with_update(other_round), "stale-round"),
    "answer for another round": (with_receipt(round=9), "stale-round"),
    "another algorithm's update": (with_update(one_stream), "shape"),
    "another model's payload": (with_payload(other_model), "payload"),
    "payload of another layout": (with_payload(other_layout), "payload"),
    "truncated payload": (with_payload(lambda sent, _: sent[:-1]), "payload"),
    "flipped bit": (with_payload(lambda sent, _: sent[:-9] + bytes([sent[-9] ^ 1]) + sent[-8:]), "payload"),
    "zeros": (with_payload(lambda *_: bytes(1000)), "payload"),
    "many zeros": (with_payload(lambda *_: bytes(10**6)), "too-large"),
    "no payload": (without("comask.payload"), "malformed"),
    "a numpy array for a payload": (
        edited(lambda reply: reply.content.update({"comask.payload": ArrayRecord([np.ones(3)])})),
        "malformed",
    ),
    "no receipt": (without("comask.receipt"), "malformed"),
    "nothing at all": (edited(lambda reply: reply.content.clear()), "malformed"),
    "text for a round": (with_receipt(round="1"), "malformed"),
    "unknown field": (with_receipt(admin=True), "malformed"),
    "another client's answer": (with_receipt(client=3), "wrong-client"),
    "another node's answer": (with_metadata(src_node_id=NODES[0]), "wrong-node"),
    "10^18 samples": (with_examples(10**18), "weight"),
    "no samples": (with_examples(0), "weight"),
    "fewer than none": (with_examples(-3), "weight"),
    "half a sample": (with_examples(0.5), "weight"),
    "no weight": (with_examples(None), "weight"),
    "no metrics": (without("metrics"), "weight"),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Two rounds in whose first one the faulty client never answers."""
    return faulty_run(tmp_path_factory.mktemp("reference"), lambda message, call: None)


def faulty_run(folder, fault, *, in_round=1):
    grid = make_grid(FEEDBACK, folder)
    grid.faults[NODE, in_round] = fault
    strategy, grid, reports, _ = run(FEEDBACK, folder, rounds=2, grid=grid, timeout=0.2)
    return strategy.state.model, reports, payloads(grid)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_counted_and_survived(name, tmp_path, reference):
    fault, reason = REFUSED[name]
    model, (first, second), sent = faulty_run(tmp_path, fault)
    assert [(refusal.client, refusal.reason) for refusal in first.refused] == [(FAULTY, reason)]
    assert first.refused[0].message.isprintable()
    assert first.participants == OTHERS
    assert first.dropped == ()
    assert second.participants == (0, 1, 2, 3, 4)
    expected_model, _, expected = reference
    np.testing.assert_array_equal(model.streams, expected_model.streams)
    assert sent[2, FAULTY] == expected[2, FAULTY]  # its residual is not that of the refused upload


def test_silence_is_counted_as_such(tmp_path, reference):
    model, (first, second), sent = faulty_run(tmp_path, hangs)
    assert (first.dropped, first.refused, first.participants) == ((FAULTY,), (), OTHERS)
    assert second.participants == (0, 1, 2, 3, 4)
    np.testing.assert_array_equal(model.streams, reference[0].streams)
    assert sent[2, FAULTY] == reference[2][2, FAULTY]


@pytest.mark.parametrize("years", [-10, 10])
def test_clocks_do_not_matter(tmp_path, years):
    healthy, _, _, _ = run(FEEDBACK, tmp_path / "healthy", rounds=2)
    wrong = 1.7e9 + years * 3.15e7
    model, (first, _), _ = faulty_run(tmp_path / "wrong", with_metadata(created_at=wrong))
    assert first.participants == (0, 1, 2, 3, 4)
    np.testing.assert_array_equal(model.streams, healthy.state.model.streams)


def test_an_old_reply_again_is_stale(tmp_path):
    kept = []
    grid = make_grid(FEEDBACK, tmp_path)
    grid.faults[NODE, 1] = edited(lambda reply: kept.append(reply.content.copy()))

    def again(message, call):
        return Message(RecordDict(dict(kept[0])), reply_to=message)

    grid.faults[NODE, 2] = again
    _, _, (first, second), _ = run(FEEDBACK, tmp_path, rounds=2, grid=grid)
    assert first.participants == (0, 1, 2, 3, 4)
    assert [(r.client, r.reason) for r in second.refused] == [(FAULTY, "stale-round")]


def test_a_reply_given_twice_is_added_once(tmp_path):
    healthy, _, _, _ = run(FEEDBACK, tmp_path / "healthy", rounds=2)

    def twice(message, call):
        reply = call(message)
        return [reply, reply]

    model, (first, _), _ = faulty_run(tmp_path / "twice", twice)
    assert [(r.client, r.reason) for r in first.refused] == [(FAULTY, "duplicate")]
    assert first.participants == (0, 1, 2, 3, 4)
    np.testing.assert_array_equal(model.streams, healthy.state.model.streams)


def test_a_reply_to_nothing_is_counted(tmp_path, reference):
    _, (first, _), _ = faulty_run(tmp_path, with_metadata(reply_to_message_id="message-99"))
    assert [(r.client, r.reason) for r in first.refused] == [(-1, "unsolicited")]
    assert first.dropped == (FAULTY,)


def test_training_that_diverges_is_counted_by_the_client(tmp_path, reference):
    def spoil(model, opened):
        if (opened.client, opened.number) == (FAULTY, 1):
            model[1].weight.data[0, 0] = np.nan

    grid = make_grid(FEEDBACK, tmp_path, spoil=spoil)
    strategy, _, (first, _), _ = run(FEEDBACK, tmp_path, rounds=2, grid=grid)
    assert [(r.client, r.reason) for r in first.refused] == [(FAULTY, "non-finite")]
    assert "client 2 holds nan at position 0" in first.refused[0].message
    np.testing.assert_array_equal(strategy.state.model.streams, reference[0].streams)


def test_a_gigabyte_of_zeros_is_refused_by_its_length(tmp_path):
    """No copy is made, let alone an array of what a header could claim."""
    grid = make_grid(FEEDBACK, tmp_path)
    strategy = make_strategy(FEEDBACK)
    messages = strategy.configure_train(1, initial_arrays(), ConfigRecord(), grid)
    grid.push_messages(messages)
    zeros = bytes(2**30)
    grid.replied[-1].content["comask.payload"] = payload_array(zeros)
    tracemalloc.start()
    strategy.aggregate_train(1, [reply for reply in grid.replied if reply.metadata.message_type == "train"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert strategy._coordinator.accepted.keys() == {0, 1, 2, 3}
    assert peak < 2**20


def test_too_few_uploads_leave_the_model_and_the_residuals(tmp_path):
    """Nobody is told that an upload was accepted, so the next round sends what the first one would have."""
    grid = make_grid(FEEDBACK, tmp_path)
    for node in NODES[1:]:
        grid.faults[node, 1] = raises
    strategy = make_strategy(FEEDBACK, min_replies=2)
    start = strategy.begin(initial_arrays()).model.streams.copy()
    reports = []
    strategy, _, reports, _ = run(FEEDBACK, tmp_path, rounds=1, grid=grid, min_replies=2)
    assert reports[0].participants == ()
    assert [(r.client, r.reason) for r in reports[0].refused if r.reason != "failed"] == [(0, "too-few")]
    np.testing.assert_array_equal(strategy.state.model.streams, start)
    assert strategy.state.round == 1
    assert strategy._coordinator.accepted == {}


def test_finite_uploads_that_make_the_model_infinite_are_taken_back(tmp_path):
    largest = np.finfo(np.float32).max
    layout = make_strategy(FEEDBACK)._spec.trained

    def forged(message, call):
        order = message.content["comask.order"]
        block = Block(None, np.full((3, layout.dim), largest, np.float32))
        update = Update(layout.dim, (block,), np.zeros(24, np.float32), order["round"])
        receipt = {"round": order["round"], "client": order["client"], "held": 0, "memory_lost": False}
        records = {
            "comask.receipt": ConfigRecord(receipt),
            "comask.payload": payload_array(encode(update, layout=layout)),
            "metrics": MetricRecord({"num-examples": 5}),
        }
        return Message(RecordDict(records), reply_to=message)

    grid = make_grid(FEEDBACK, tmp_path)
    grid.faults = {(node, 0): forged for node in NODES}
    strategy, _, (first, second), _ = run(FEEDBACK, tmp_path, rounds=2, grid=grid)
    assert first.participants == (0, 1, 2, 3, 4)
    assert (second.participants, {refusal.reason for refusal in second.refused}) == ((), {"diverged"})
    assert np.isfinite(strategy.state.model.streams).all()


def test_a_whole_fleet_of_garbage_changes_nothing(tmp_path):
    algorithm = make_algorithm("fedavg", lr=0.1)
    grid = make_grid(algorithm, tmp_path)
    for node in NODES:
        grid.faults[node, 0] = with_payload(lambda *_: b"\x00" * 64)
    strategy, _, reports, result = run(algorithm, tmp_path, rounds=2, grid=grid)
    assert [len(report.refused) for report in reports] == [5, 5]
    weights = result.arrays["1.weight"].numpy()
    np.testing.assert_array_equal(weights, initial_arrays()["1.weight"].numpy())
    assert strategy.state.round == 2
