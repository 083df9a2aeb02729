"""What a client reads, keeps and refuses; who is who; and what the headers hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fleet import FEEDBACK, NODES, initial_arrays, make_app, make_grid, make_model, make_strategy, run
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.clientapp import ClientApp
from local_grid import LocalGrid
from torch import nn

import comask.flower
from comask.algorithms import make_algorithm
from comask.errors import ConfigError, FleetError, NonFiniteError, PayloadError
from comask.flat import FlatModel
from comask.flower import ModelSpec, announce, open_round
from comask.flower.messages import ORDER, Order
from comask.flower.store import ClientStore, default_folder

RUN = "0123456789abcdef" * 2


@pytest.fixture
def order(tmp_path):
    """The message that client 0 gets in the first round."""
    grid = make_grid(FEEDBACK, tmp_path)
    grid.push_messages(make_strategy(FEEDBACK).configure_train(1, initial_arrays(), ConfigRecord(), grid))
    return next(
        message
        for message in grid.pushed
        if message.metadata.dst_node_id == NODES[0] and ORDER in message.content
    )


def opened(message, folder, *, model=None, algorithm=FEEDBACK, node_config=None):
    context = Context(1, NODES[0], node_config or {}, RecordDict(), {})
    return open_round(message, context, model or make_model(), algorithm, folder=folder)


def changed(message, **fields):
    record = {key: value for key, value in {**message.content[ORDER], **fields}.items() if value is not None}
    message.content[ORDER] = ConfigRecord(record)
    return message


def test_an_order_says_who_and_what(order, tmp_path):
    found = Order.from_content(order.content, ORDER)
    assert (found.round, found.client, found.seed, found.accepted, found.base) == (1, 0, 7, 0, 0)
    assert (found.algorithm, found.digest, found.increment, found.keep) == ("fedadam-ssm", "", False, True)
    begun = opened(order, tmp_path)
    assert (begun.number, begun.client) == (1, 0)
    assert order.content["config"]["server-round"] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"run": "../../../../etc"}, r"token must be 32 hexadecimal digits, got '../"),
        ({"round": 2}, "The order is for round 2, its payload for round 1"),
        ({"algorithm": "fedadam"}, "The server runs 'fedadam', this client 'fedadam-ssm'"),
        ({"base": 1}, "builds on the model of round 1, which is not kept here"),
        ({"increment": True}, "builds on the last round's model, which is not remembered here"),
        ({"client": "0"}, r"comask\.order\['client'\] must be of type int, got '0'"),
        ({"keep": None}, r"comask\.order\['keep'\] must be of type bool, got None"),
        ({"nonce": 3}, "unknown fields: 'nonce'"),
    ],
)
def test_orders_that_cannot_be_acted_on(order, tmp_path, fields, message):
    with pytest.raises(FleetError, match=message):
        opened(changed(order, **fields), tmp_path)


def test_messages_of_other_strategies_and_for_other_models(order, tmp_path):
    with pytest.raises(PayloadError, match=r"for 520 parameters, the receiver has 40"):
        opened(order, tmp_path, model=nn.Linear(9, 4))
    del order.content["comask.payload"]
    with pytest.raises(FleetError, match="must hold one 'comask.update.v1' array"):
        opened(order, tmp_path)
    del order.content[ORDER]
    with pytest.raises(FleetError, match=r"holds no 'comask\.order'; it holds: config"):
        opened(order, tmp_path)


@pytest.mark.parametrize("count", [0, -1, True, 2.5, 10.0])
def test_clients_state_a_positive_number_of_samples(order, tmp_path, count):
    with pytest.raises(ConfigError, match="num_examples must be a positive integer"):
        opened(order, tmp_path).reply(count)
    with pytest.raises(ConfigError, match="metrics must not hold 'num-examples'"):
        opened(order, tmp_path).reply(1, {"num-examples": 2.0})


def test_files_are_where_the_operator_wants_them(order, tmp_path, monkeypatch):
    opened(order, None, node_config={"comask-folder": str(tmp_path / "node")}).reply(1)
    assert len(list((tmp_path / "node").glob("*/client-000000/memory-000001.npz"))) == 1
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    opened(order, None).reply(1)
    assert len(list((tmp_path / "state" / "comask").glob("*/client-000000/memory-000001.npz"))) == 1
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_folder().parts[-3:] == (".local", "state", "comask")


def test_the_server_says_which_memory_counts(tmp_path):
    store = ClientStore(tmp_path, RUN, 3)
    one, two = ({"residual": np.full(4, value, np.float32)} for value in (1.0, 2.0))
    assert store.memory(0) == ({}, False)
    store.save_memory(1, one)
    store.save_memory(2, two)
    memory, lost = store.memory(1)  # round 2 never reached the server
    assert (memory["residual"].tolist(), lost) == ([1.0] * 4, False)
    assert store.memory(2) == ({}, True)  # and is gone
    store.save_memory(5, {})
    assert store.memory(5) == ({}, False)  # a memory without arrays is one


def test_damaged_and_foreign_memories_count_as_lost(tmp_path):
    store = ClientStore(tmp_path, RUN, 3)
    store.save_memory(1, {"residual": np.ones(4, np.float32)})
    (file,) = store.path.iterdir()
    data = bytearray(file.read_bytes())
    data[data.index(np.ones(4, np.float32).tobytes())] ^= 1
    file.write_bytes(data)
    assert store.memory(1) == ({}, True)
    np.savez(file, residual=np.ones(4))
    assert store.memory(1) == ({}, True)
    np.savez(file, residual=np.array([{}], dtype=object), allow_pickle=True)
    assert store.memory(1) == ({}, True)


def test_numbers_are_assigned_in_the_order_of_the_ids(tmp_path):
    strategy = make_strategy(FEEDBACK, numbering="assigned")
    grid = make_grid(FEEDBACK, tmp_path)
    strategy.configure_train(1, initial_arrays(), ConfigRecord(), grid)
    assert strategy._roster.clients == {118: 0, 305: 1, 642: 2, 777: 3, 901: 4}
    assert grid.pushed == []


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ([{"partition-id": 5}, {"partition-id": 5}, {"partition-id": 0}], {0: 5, 2: 0}),
        ([{"partition-id": -1}, {}, {"partition-id": 2**31}], {}),
        ([{"partition-id": 3}, {"partition-id": 1}], {0: 3, 1: 1}),
    ],
)
def test_announced_numbers_are_checked(tmp_path, configs, expected):
    grid = LocalGrid(make_app(FEEDBACK, tmp_path), dict(enumerate(configs)))
    strategy = make_strategy(FEEDBACK)
    for _ in range(2):
        assert {node: number for number, node in strategy._roster.online(grid).items()} == expected
    assert len(grid.pushed) == len(configs)  # nobody is asked twice


def test_a_number_passes_on_when_its_node_is_gone():
    """A restarted node may come with another id; as long as the old one seems to be there, the number is the old one's."""
    configs = {1: {"partition-id": 0}, 2: {"partition-id": 1}, 3: {"partition-id": 1}}
    grid, roster = LocalGrid(announce(ClientApp()), configs), make_strategy(FEEDBACK)._roster
    grid.offline = {3}
    assert roster.online(grid) == {0: 1, 1: 2}
    grid.offline = set()
    assert roster.online(grid) == {0: 1, 1: 2}
    grid.offline = {2}
    assert roster.online(grid) == {0: 1, 1: 3}
    grid.offline = set()
    assert roster.online(grid) == {0: 1, 1: 3}
    assert roster.clients == {1: 0, 3: 1}
    assert len(grid.pushed) == 4  # node 2 was asked again when it was back


def test_nodes_that_fail_to_announce_are_asked_three_times():
    grid = LocalGrid(
        ClientApp(), {1: {"partition-id": 1}}
    )  # an app without announce: every question is an error
    roster = make_strategy(FEEDBACK)._roster
    for _ in range(5):
        assert roster.online(grid) == {}
    assert len(grid.pushed) == 3
    grid.offline = {1}
    roster.online(grid)
    grid.offline = set()
    grid._app = announce(ClientApp())
    assert roster.online(grid) == {1: 1}  # it was restarted, with an app that does


class Tied(nn.Module):
    """A tied weight, a frozen layer, a counter and a buffer."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.decode = nn.Linear(4, 3)
        self.decode.weight = self.encode.weight
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_a_specification_is_the_flat_models():
    for module in (make_model(), Tied()):
        spec, flat = ModelSpec.of(module), FlatModel(module)
        assert spec.trained == flat.layout
        assert spec.buffers.dim == flat.buffers.numel()
    assert spec.aliases == (("decode.weight", "encode.weight"),)


def test_arrays_come_apart_and_together():
    from flwr.app import ArrayRecord

    module = Tied()
    spec, arrays = ModelSpec.of(module), ArrayRecord(module.state_dict())
    params, buffers = spec.split(arrays)
    merged = spec.merge(params + 1, buffers + 2, arrays)
    assert list(merged) == list(arrays)
    for name in arrays:
        added = 0 if "frozen" in name or "num_batches" in name else 2 if "running" in name else 1
        np.testing.assert_array_equal(merged[name].numpy(), arrays[name].numpy() + added)
    Tied().load_state_dict(merged.to_torch_state_dict())


def test_arrays_of_another_model_are_refused():
    from flwr.app import Array, ArrayRecord

    spec, arrays = ModelSpec.of(make_model()), initial_arrays()
    for array, message in (
        (
            np.zeros((2, 2), np.float32),
            r"'1\.weight' must be float32 of shape \(12, 36\), got float32 of shape \(2, 2\)",
        ),
        (np.zeros((12, 36)), r"must be float32 of shape \(12, 36\), got float64"),
    ):
        with pytest.raises(ConfigError, match=message):
            spec.split(ArrayRecord({**arrays, "1.weight": Array(array)}))
    with pytest.raises(NonFiniteError, match="holds inf at position 0"):
        spec.split(ArrayRecord({**arrays, "1.weight": Array(np.full((12, 36), np.inf, np.float32))}))
    del arrays["4.bias"]
    with pytest.raises(
        ConfigError, match=r"lack '4\.bias', which the model specification names; they hold: 1\.weight"
    ):
        spec.split(arrays)


def test_names_are_lazy_and_missing_extras_are_named():
    """Importing the package imports nothing; a name that needs what is not installed says what to install."""
    program = """
import sys
import comask.flower
assert not {"flwr", "torch"} & set(sys.modules)
sys.modules["flwr"] = None
try:
    comask.flower.Strategy
except ImportError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (
        done.stdout.strip()
        == "MissingExtraError flwr is not installed. Install it with: pip install 'comask[flower]'"
    )
    with pytest.raises(AttributeError, match="has no attribute 'Server'"):
        comask.flower.Server  # noqa: B018 -- looking it up is the test
    assert set(comask.flower.__all__) <= set(dir(comask.flower))


def test_only_public_modules_of_flower_are_imported():
    imported = set()
    for file in Path(comask.flower.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module)
            elif isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
    assert {name for name in imported if name.partition(".")[0] == "flwr"} == {
        "flwr.app",
        "flwr.clientapp",
        "flwr.serverapp",
    }


def test_a_server_needs_no_torch():
    program = """
import sys, warnings
warnings.simplefilter("ignore")
sys.modules["torch"] = None
from comask.algorithms import make_algorithm
from comask.flower import ModelSpec, Strategy
from comask.wire import ParamLayout
Strategy(make_algorithm("fedadam-ssm"), ModelSpec(ParamLayout(("w",), ((3,),)), ParamLayout((), ())))
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_bias_correction_over_rounds_counts_the_steps_of_earlier_rounds(tmp_path):
    algorithm = make_algorithm("fedadam-ssm", bias_correction="global")
    grid = make_grid(algorithm, tmp_path)
    run(algorithm, tmp_path, rounds=4, grid=grid, downlink="full")
    begun = open_round(
        grid.pushed[-1],
        Context(1, NODES[4], {}, RecordDict(), {}),
        make_model(),
        algorithm,
        folder=tmp_path / "clients",
        local_steps=30,
    )
    begun.optimizer.step()
    (state,) = begun.optimizer.state.values()
    assert (begun.number, state["step"]) == (4, 91)
    with pytest.raises(
        ConfigError, match="local_steps=...\\) must be at least 1 with bias_correction='global', got 0"
    ):
        opened(grid.pushed[-1], tmp_path, algorithm=algorithm)
