"""comask beside what Flower users already have: dense apps, privacy mods, evaluation, size accounting, adapters."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from fleet import (
    BATCH,
    FEDERATION,
    FEEDBACK,
    NODES,
    batches,
    initial_arrays,
    make_app,
    make_model,
    make_strategy,
    payloads,
    pixels,
    run,
)
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, message_size_mod
from flwr.serverapp.strategy import Strategy as Stock
from local_grid import LocalGrid
from torch import nn

from comask.algorithms import make_algorithm
from comask.algorithms.delta import DeltaClient
from comask.algorithms.fedadam_ssm import SharedMask
from comask.flower import ModelSpec, Strategy, comask_mod, open_round
from comask.wire import decode

FEDAVG = make_algorithm("fedavg", lr=0.1)
SPARSE_FEDAVG = replace(FEDAVG, client=DeltaClient(SharedMask(0.05), feedback=("w",)))


def stock_app(mods, returned=None) -> ClientApp:
    """A stock Flower client: whole state dicts in and out, its own optimiser, no word of comask."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        model = make_model()
        model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        client = context.node_config["partition-id"]
        for x, y in batches(client, msg.content["config"]["server-round"]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        if returned is not None:
            returned[client] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        records = {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(FEDERATION.clients[client]), "loss": 1.5}),
        }
        return Message(RecordDict(records), reply_to=msg)

    return app


def grid_of(app: ClientApp) -> LocalGrid:
    return LocalGrid(app, {node: {"partition-id": client} for client, node in enumerate(NODES)})


def run_stock(algorithm, folder, mods=(), *, rounds=1, returned=None, **options):
    mod = comask_mod(algorithm, make_model(), folder=folder)
    grid = grid_of(stock_app([mod, *mods], returned))
    return run(algorithm, folder, rounds=rounds, grid=grid, numbering="assigned", **options)


def test_a_stock_app_under_the_mod_is_federated_averaging(tmp_path):
    returned = {}
    _, _, (report,), result = run_stock(FEDAVG, tmp_path, returned=returned)
    sizes = [len(samples) for samples in FEDERATION.clients]
    for name in ("1.weight", "2.running_var", "4.bias"):
        mean = np.average([returned[c][name].numpy() for c in range(5)], axis=0, weights=sizes)
        np.testing.assert_allclose(result.arrays[name].numpy(), mean, atol=1e-6)
    assert report.metrics == {"loss": pytest.approx(1.5)}


def test_a_stock_app_gains_mask_and_feedback(tmp_path):
    """Five percent of the entries travel, the rest waits in the residual, and the app has not changed."""
    strategy, _, reports, _ = run_stock(SPARSE_FEDAVG, tmp_path, rounds=3)
    dense = 5 * 4 * 520
    assert all(report.value_bytes == 5 * 4 * 26 < 0.06 * dense for report in reports)
    assert len(list(tmp_path.glob("*/client-*/memory-000003.npz"))) == 5
    assert strategy.state.round == 3


def test_the_mod_sends_what_the_client_rule_makes_of_the_app(tmp_path):
    """The moments travel as records of their own; the app here moves every stream by known amounts."""
    app = ClientApp(mods=[comask_mod(FEEDBACK, make_model(), folder=tmp_path)])
    seen = []

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        seen.append(sorted(msg.content))
        moved = RecordDict({"metrics": MetricRecord({"num-examples": 3})})
        for add, name in enumerate(("arrays", "first-moment", "second-moment"), start=1):
            moved[name] = ArrayRecord(
                {
                    key: Array(array.numpy() + np.float32(add) if "num_batches" not in key else array.numpy())
                    for key, array in msg.content[name].items()
                }
            )
        return Message(moved, reply_to=msg)

    strategy, _, (report,), _ = run(FEEDBACK, tmp_path, rounds=1, grid=grid_of(app), numbering="assigned")
    assert seen == [["arrays", "config", "first-moment", "second-moment"]] * 5
    assert report.participants == (0, 1, 2, 3, 4)
    kept = strategy.state.model.second_moment != 0
    assert kept.sum() == 52
    np.testing.assert_array_equal(strategy.state.model.first_moment[kept], np.full(52, 2, np.float32))
    np.testing.assert_array_equal(strategy.state.model.second_moment[kept], np.full(52, 3, np.float32))


def test_the_mod_refuses_algorithms_that_prescribe_the_steps(tmp_path):
    _, _, (report,), _ = run_stock(make_algorithm("fedadamw"), tmp_path)
    assert len(report.refused) == 5
    assert "fedadamw prescribes how its clients step" in report.refused[0].message


def test_messages_that_are_not_ours_pass_through_the_mod():
    mod = comask_mod(FEDAVG, make_model())
    message = Message(RecordDict(), dst_node_id=1, message_type="train")
    assert mod(message, None, lambda given, _: (given, "untouched")) == (message, "untouched")


@pytest.mark.parametrize(
    ("spoil", "reason", "text"),
    [
        (lambda content: content.pop("arrays"), "failed", "lacks arrays; it holds: metrics"),
        (lambda content: content.pop("metrics"), "failed", "lacks metrics; it holds: arrays"),
        (lambda content: content.update(metrics=MetricRecord()), "failed", "num_examples must be a positive"),
        (
            lambda content: content["arrays"].update({"4.bias": Array(np.full(4, np.nan, np.float32))}),
            "non-finite",
            "holds nan at position 516",
        ),
    ],
)
def test_an_app_that_replies_nonsense_is_counted(tmp_path, spoil, reason, text):
    def spoiling_mod(message, context, call_next):
        reply = call_next(message, context)
        if context.node_config["partition-id"] == 0:
            spoil(reply.content)
        return reply

    _, _, (report,), _ = run_stock(FEDAVG, tmp_path, [spoiling_mod])
    (refusal,) = report.refused
    assert refusal.reason == reason
    assert text in refusal.message
    assert len(report.participants) == 4


def test_differential_privacy_acts_inside_the_codec(tmp_path):
    """Flower's mod clips and perturbs the whole update; the mask is chosen from, and sends, what it leaves."""
    clip = 0.05
    private = LocalDpMod(clipping_norm=clip, sensitivity=1e-9, epsilon=1.0, delta=0.5)
    _, grid, (report,), _ = run_stock(SPARSE_FEDAVG, tmp_path, [private])
    assert report.participants == (0, 1, 2, 3, 4)
    _, free, _, _ = run_stock(SPARSE_FEDAVG, tmp_path / "free")
    clipped, whole = payloads(grid), payloads(free)
    assert len(clipped) == 5
    for key in clipped:
        assert np.linalg.norm(values_of(clipped[key])) <= clip < np.linalg.norm(values_of(whole[key]))


def values_of(payload):
    layout = ModelSpec.of(make_model()).trained
    return decode(payload, dim=layout.dim, layout=layout).blocks[0].values


def test_evaluation_apps_need_no_change(tmp_path):
    """The evaluate function of the fleet is a stock one; the number is that of the final model."""
    _, grid, _, result = run(FEEDBACK, tmp_path, rounds=2, evaluate_fraction=0.4)
    asked = [m.metadata.dst_node_id for m in grid.pushed if m.metadata.message_type == "evaluate"]
    assert len(asked) == 4
    model = make_model()
    model.load_state_dict(result.arrays.to_torch_state_dict())
    model.eval()
    data = FEDERATION.dataset
    with torch.no_grad():
        right = model(pixels(data.test_inputs)).argmax(1).numpy() == data.test_targets
    assert result.evaluate_metrics_clientapp[2]["accuracy"] == pytest.approx(right.mean())


def test_flowers_own_loop_can_drive_the_strategy(tmp_path):
    """Wrappers and Flower's `start` call the four methods; the rounds are the same."""
    ours, *_ = run(FEEDBACK, tmp_path / "a", rounds=2)
    strategy, grid = make_strategy(FEEDBACK), grid_of(make_app(FEEDBACK, tmp_path / "b"))
    result = Stock.start(strategy, grid, initial_arrays(), num_rounds=2)
    np.testing.assert_array_equal(strategy.state.model.streams, ours.state.model.streams)
    assert result.train_metrics_clientapp[2]["participants"] == 5


def test_a_server_side_evaluation_sees_every_round(tmp_path):
    seen = []

    def evaluate(number, arrays):
        seen.append((number, float(np.abs(arrays["1.weight"].numpy()).sum())))
        return MetricRecord({"norm": seen[-1][1]})

    strategy = make_strategy(FEEDBACK)
    grid = grid_of(make_app(FEEDBACK, tmp_path))
    result = strategy.start(grid, initial_arrays(), num_rounds=2, timeout=5.0, evaluate_fn=evaluate)
    assert [number for number, _ in seen] == [0, 1, 2]
    assert len({norm for _, norm in seen}) == 3
    assert [metrics["norm"] for metrics in result.evaluate_metrics_serverapp.values()] == [n for _, n in seen]


def test_flowers_accounting_agrees_with_ours(tmp_path, caplog):
    """Flower counts the header, the metrics and the names with the payload: a few hundred bytes, whatever its size."""
    app = ClientApp()

    @app.train(mods=[message_size_mod])
    def train(msg: Message, context: Context) -> Message:
        opened = open_round(msg, context, make_model(), FEEDBACK, folder=tmp_path)
        for x, y in batches(opened.client, BATCH):
            opened.optimizer.zero_grad()
            nn.functional.cross_entropy(model_of(opened)(x), y).backward()
            opened.optimizer.step()
        return opened.reply(9)

    def model_of(opened):
        return opened._training._model.module

    caplog.set_level(logging.INFO, "flwr")
    _, _, (report,), _ = run(FEEDBACK, tmp_path, rounds=1, grid=grid_of(app), numbering="assigned")
    counted = {
        kind: [int(n) for n in re.findall(rf"{kind} message size: (\d+) bytes", caplog.text)]
        for kind in ("Incoming", "Outgoing")
    }
    assert len(counted["Outgoing"]) == 5
    assert 0 < sum(counted["Outgoing"]) - report.uplink_bytes < 5 * 400
    assert 0 < sum(counted["Incoming"]) - report.downlink_bytes < 5 * 700


class Adapted(nn.Module):
    """A frozen linear layer with a low-rank adapter."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(36, 4).requires_grad_(False)
        self.down = nn.Linear(36, 2, bias=False)
        self.up = nn.Linear(2, 4, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        flat = x.flatten(1)
        return self.base(flat) + self.up(self.down(flat))


def test_only_adapters_travel(tmp_path):
    """The layout names what is trained: the frozen layer is in no message and comes out as it went in."""
    torch.manual_seed(0)
    model = Adapted()
    arrays = ArrayRecord(model.state_dict())
    spec = ModelSpec.of(model)
    assert spec.trained.names == ("down.weight", "up.weight")
    algorithm = make_algorithm("fedadam-ssm", density=0.5, lr=1e-2)
    app = ClientApp()

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        mine = Adapted()
        mine.base.load_state_dict(model.base.state_dict())  # from the device's own copy of the backbone
        opened = open_round(msg, context, mine, algorithm, folder=tmp_path)
        for x, y in batches(opened.client, opened.stream_seed("batches")):
            opened.optimizer.zero_grad()
            nn.functional.cross_entropy(mine(x), y).backward()
            opened.optimizer.step()
        return opened.reply(1)

    reports = []
    strategy = Strategy(algorithm, spec, evaluate_fraction=0.0, on_report=reports.append)
    result = strategy.start(grid_of(app), arrays, num_rounds=3, timeout=5.0)
    np.testing.assert_array_equal(result.arrays["base.weight"].numpy(), arrays["base.weight"].numpy())
    assert np.abs(result.arrays["up.weight"].numpy()).max() > 0
    assert reports[0].value_bytes == 5 * 3 * 4 * 40
    assert reports[0].downlink_bytes < 5 * (3 * 4 * 80 + 100)
