"""`comask warmup` leaves nothing to compile for a client or a server at work."""

import importlib
import importlib.util
import json
import pkgutil

import numpy as np
import pytest
from cli_fakes import call
from numba.core.dispatcher import Dispatcher

from comask import kernels
from comask.aggregate import WeightedSum
from comask.algorithms import ClientContext, make_algorithm
from comask.experiments.warmup import warm_up
from comask.state import ModelState
from comask.wire import CODECS, ParamLayout, decode, encode


def compiled():
    """Count the compiled signatures of every kernel."""
    modules = [
        importlib.import_module(f"{kernels.__name__}.{m.name}")
        for m in pkgutil.iter_modules(kernels.__path__)
    ]
    return {
        f"{module.__name__}.{name}": len(kernel.signatures)
        for module in modules
        for name, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher)
    }


@pytest.mark.parametrize("codec", CODECS)
def test_after_it_a_long_upload_compiles_nothing(codec):
    warm_up()
    before = compiled()
    assert sum(before.values()) > 15
    dim = 1_100_000  # long enough for several threads and groups
    rng = np.random.default_rng(0)
    start, end = (ModelState(rng.standard_normal((3, dim), np.float32)) for _ in range(2))
    layout = ParamLayout(("w",), ((1100, 1000),))
    algorithm = make_algorithm("fedadam-ssm", density=0.01, feedback=("w",), codec=codec)
    update, _ = algorithm.client.finish(start, end, {}, ClientContext(1, 0, 0, layout, algorithm.uplink))
    received = decode(encode(update, codec, layout=layout), dim=dim, layout=layout)
    WeightedSum(3, dim).add(received, 1.0).mean()
    assert compiled() == before


def test_the_command_says_how_long_it_took(capsys):
    code, stdout, _ = call(capsys, "warmup")
    assert code == 0
    assert "Compiled or loaded: codec, masks and aggregation" in stdout
    assert "local Adam" in stdout
    _, stdout, _ = call(capsys, "warmup", "--json")
    seconds = json.loads(stdout)
    assert set(seconds) == {"codec_seconds", "optimizer_seconds"}
    assert min(seconds.values()) > 0


def test_a_server_without_torch_is_warmed_up_too(capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest)
    )
    code, stdout, _ = call(capsys, "warmup")
    assert code == 0
    assert stdout.endswith("local Adam left out, for torch is not installed.\n")
