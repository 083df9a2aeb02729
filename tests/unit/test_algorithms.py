"""The table of algorithms, their options, and the formulas of their bits."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

from comask.algorithms import ALGORITHMS, algorithm_options, make_algorithm, source, summary
from comask.algorithms.accounting import DenseBits, SeparateMaskBits, SharedMaskBits, index_bits
from comask.algorithms.base import ClientContext, Upload
from comask.algorithms.delta import AveragingServer
from comask.errors import ConfigError, UnknownNameError
from comask.state import ModelState
from comask.wire import Block, ParamLayout, Update


@pytest.mark.parametrize("name", ALGORITHMS)
def test_row(name):
    algorithm = make_algorithm(name)
    assert algorithm.name == name
    assert summary(name).endswith(".")
    assert "arXiv" in source(name) or "IEEE" in source(name)
    for option, default in algorithm_options(name).items():
        assert make_algorithm(name, **{option: default}) == algorithm
    function = getattr(ALGORITHMS[name], "func", ALGORITHMS[name])
    for parameter in inspect.signature(function).parameters:
        assert f"{parameter}:" in function.__doc__, f"{name} does not document {parameter}"


def test_options_reach_the_local_optimiser():
    algorithm = make_algorithm("fedadam-ssm-v", density=0.01, lr=3e-4, bias_correction="local")
    assert algorithm.local.lr == 3e-4
    assert algorithm.local.bias_correction == "local"
    assert algorithm.client.select.density == 0.01
    assert algorithm.client.select.rule == "v"


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"Unknown algorithm 'fedadam-sms'. Did you mean 'fedadam-ssm'"
    ):
        make_algorithm("fedadam-sms")
    with pytest.raises(
        UnknownNameError, match=r"Unknown option of fedadam-ssm 'densty'. Did you mean 'density'"
    ):
        make_algorithm("fedadam-ssm", densty=0.1)
    with pytest.raises(UnknownNameError, match="Unknown option of fedadam-ssm-m 'mask'"):
        make_algorithm("fedadam-ssm-m", mask="w")
    with pytest.raises(ConfigError, match=r"density must be in \[0, 1\], got 2"):
        make_algorithm("fedadam-ssm", density=2)


@pytest.mark.parametrize(
    ("density", "top_mb", "ssm_mb"),
    [(0.01, 2.347, 1.676), (0.05, 10.895, 8.101), (0.10, 17.599, 14.805)],
)
def test_bits_of_resnet18(density, top_mb, ssm_mb):
    """Megabytes an upload, worked out by hand for d = 11,173,962 and q = 32."""
    dim = 11_173_962
    assert DenseBits(1)(dim) / 8e6 == pytest.approx(44.70, abs=5e-3)
    assert DenseBits(3)(dim) / 8e6 == pytest.approx(134.09, abs=5e-3)
    assert SeparateMaskBits(density)(dim) / 8e6 == pytest.approx(top_mb, abs=2e-3)
    assert SharedMaskBits(density)(dim) / 8e6 == pytest.approx(ssm_mb, abs=2e-3)


@pytest.mark.parametrize("dim", [1, 2, 3, 1023, 1024, 1025, 2**32])
def test_index_bits(dim):
    assert index_bits(dim) == math.ceil(math.log2(dim))


def model(dim, rng):
    return ModelState(rng.standard_normal((3, dim)).astype(np.float32))


def test_one_round_by_hand():
    """Two clients, four parameters, density 1/2: the numbers of one round of FedAdam-SSM on paper."""
    algorithm = make_algorithm("fedadam-ssm", density=0.5)
    layout = ParamLayout(("w",), ((4,),))
    state = algorithm.server.init(np.array([1, 2, 3, 4], np.float32), np.empty(0, np.float32))
    start = algorithm.client.begin(algorithm.server.broadcast(state), {})
    np.testing.assert_array_equal(start.streams, [[1, 2, 3, 4], [0, 0, 0, 0], [0, 0, 0, 0]])
    ends = (
        [[1.5, 2, 2, 4.25], [0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4]],  # |dW| = .5 0 1 .25: keeps 0 and 2
        [[1.125, 1, 3, 4.5], [0.5, 0.6, 0.7, 0.8], [5, 6, 7, 8]],  # |dW| = .125 1 0 .5: keeps 1 and 3
    )
    uploads = []
    for client, end in enumerate(ends):
        context = ClientContext(1, client, 0, layout, algorithm.uplink)
        update, _ = algorithm.client.finish(start, ModelState(np.array(end, np.float32)), {}, context)
        uploads.append(Upload(client, (1.0, 3.0)[client], update))
    assert uploads[0].update.blocks[0].indices.tolist() == [0, 2]
    assert uploads[1].update.blocks[0].indices.tolist() == [1, 3]
    after = algorithm.server.aggregate(state, uploads).model
    expected = [
        [1 + 0.25 * 0.5, 2 - 0.75 * 1, 3 - 0.25 * 1, 4 + 0.75 * 0.5],
        [0.25 * 0.1, 0.75 * 0.6, 0.25 * 0.3, 0.75 * 0.8],
        [0.25 * 1, 0.75 * 6, 0.25 * 3, 0.75 * 8],
    ]
    np.testing.assert_allclose(after.streams, expected, rtol=1e-6)


def test_top_keeps_each_streams_own_largest():
    algorithm = make_algorithm("fedadam-top", density=0.1)
    rng = np.random.default_rng(0)
    start, end = model(50, rng), model(50, rng)
    context = ClientContext(1, 0, 0, ParamLayout(("w",), ((50,),)), algorithm.uplink)
    update, _ = algorithm.client.finish(start, end, {}, context)
    assert len(update.blocks) == 3
    for row, block in enumerate(update.blocks):
        expected = np.sort(np.argsort(-np.abs(end.streams[row] - start.streams[row]))[:5])
        np.testing.assert_array_equal(block.indices, expected)
        np.testing.assert_array_equal(block.values[0], (end.streams - start.streams)[row, expected])


@pytest.mark.parametrize("policy", ["average", "local", "freeze"])
def test_buffer_policies(policy):
    algorithm = make_algorithm("fedadam", buffers=policy)
    layout = ParamLayout(("w",), ((4,),))
    state = algorithm.server.init(np.zeros(4, np.float32), np.array([1, 2], np.float32))
    start = algorithm.client.begin(algorithm.server.broadcast(state), {})
    np.testing.assert_array_equal(start.buffers, [1, 2])
    end = ModelState(start.streams + 1, np.array([5, 5], np.float32))
    context = ClientContext(1, 0, 0, layout, algorithm.uplink)
    update, memory = algorithm.client.finish(start, end, {}, context)
    algorithm.server.check(state, update)
    state = algorithm.server.aggregate(state, [Upload(0, 2.0, update)])
    again = algorithm.client.begin(algorithm.server.broadcast(state), memory)
    np.testing.assert_array_equal(state.model.buffers, {"average": [5, 5]}.get(policy, [1, 2]))
    np.testing.assert_array_equal(again.buffers, {"freeze": [1, 2]}.get(policy, [5, 5]))
    assert len(update.buffers) == (2 if policy == "average" else 0)


def test_second_moment_is_clamped():
    server = AveragingServer(3)
    state = server.init(np.zeros(2, np.float32), np.empty(0, np.float32))
    values = np.array([[1, 1], [1, 1], [-1, 2]], np.float32)
    after = server.aggregate(state, [Upload(0, 1.0, Update(2, (Block(None, values),)))])
    np.testing.assert_array_equal(after.model.second_moment, [0, 2])
