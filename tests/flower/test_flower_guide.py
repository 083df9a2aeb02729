"""The guide's steps are the quick start's code, word for word, and the quick start trains."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from flwr.app import Context, RecordDict
from local_grid import LocalGrid

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flower-quickstart"


def statements(text):
    """Return the lines that are not empty, without indentation."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_the_guide_shows_the_quick_start():
    guide = (ROOT / "docs" / "guides" / "flower.md").read_text()
    (steps,) = re.findall(r"^## From a stock PyTorch app.*?(?=^### )", guide, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"```(\w+)\n(.*?)```", steps, re.DOTALL)
    sources = {
        "python": [statements(file.read_text()) for file in (EXAMPLE / "quickstart").glob("*.py")],
        "toml": [statements((EXAMPLE / "pyproject.toml").read_text())],
    }
    shown = [(language, statements(block)) for language, block in blocks if language in sources]
    assert [language for language, _ in shown].count("python") >= 3
    for language, lines in shown:
        homes = [source for source in sources[language] if set(lines) <= set(source)]
        assert homes, "\n".join(lines)


@pytest.fixture
def quickstart(monkeypatch, tmp_path):
    """The apps of the example, imported as Flower imports them."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    from quickstart import client_app, server_app, task

    yield client_app.app, server_app.app, task
    for name in [name for name in sys.modules if name.partition(".")[0] == "quickstart"]:
        del sys.modules[name]


def test_the_quick_start_learns_and_saves_a_model(quickstart, tmp_path, capsys):
    client_app, server_app, task = quickstart
    config = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    config |= {"save-to": str(tmp_path / "model.pt"), "num-server-rounds": 3}
    nodes = {node: {"partition-id": node, "num-partitions": 8} for node in range(3)}
    torch.manual_seed(0)
    server_app(grid=LocalGrid(client_app, nodes, config), context=Context(1, 0, {}, RecordDict(), config))
    before, after = task.Net(), task.Net()
    after.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    data = task.federation(8).dataset
    tests = torch.utils.data.TensorDataset(
        torch.from_numpy(data.test_inputs).float() / 255.0, torch.from_numpy(data.test_targets).long()
    )
    loader = torch.utils.data.DataLoader(tests, 256)
    accuracies = [task.test(net, loader, torch.device("cpu"))[1] for net in (before, after)]
    assert accuracies[0] < 0.2
    assert accuracies[1] > 0.4
    uplink = [int(each) for each in re.findall(r"uplink_bytes=(\d+)", capsys.readouterr().out)]
    dense = 3 * 3 * 4 * sum(p.numel() for p in after.parameters())
    assert len(uplink) == 3
    assert max(uplink) < 0.07 * dense
    assert list((tmp_path / "state" / "comask").glob("*/client-000002/memory-000003.npz"))
