"""Settings of the tests on Flower. They are skipped where flwr is not installed."""

from __future__ import annotations

import importlib
import os
import warnings

import pytest

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of flwr's own imports
        importlib.import_module("flwr.clientapp.mod")
        importlib.import_module("flwr.serverapp.strategy")
except ModuleNotFoundError:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True, scope="session")
def identity():
    """Give Flower the identity that its engines give a server, which newer versions need to make messages."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ModuleNotFoundError:
        return
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Train on one thread, as the simulator does: sums over several differ in the last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def no_power_cuts():
    """Leave files in the page cache: waiting for the disk is most of what a small round takes, and nothing here cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def pytest_collection_modifyitems(items):
    """Start the deployment first: it mostly waits, and the other worker goes through the rest meanwhile."""
    items.sort(key=lambda item: "test_flower_deployment" not in item.nodeid)
