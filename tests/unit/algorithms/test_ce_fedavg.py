"""CE-FedAvg: the masks of its tensors, its 8-bit values, and the plain average."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import NO_BUFFERS, begin, finish

from comask.algorithms import make_algorithm
from comask.errors import ConfigError, UnknownNameError
from comask.wire import ParamLayout

LAYOUT = ParamLayout(("weight", "bias", "head", "scale"), ((4, 5), (3,), (2, 5), ()))


def a_round(algorithm, rng):
    state = algorithm.server.init(rng.standard_normal(LAYOUT.dim).astype(np.float32), NO_BUFFERS)
    start = begin(algorithm, state)
    changes = [
        rng.standard_normal((3, LAYOUT.dim)).astype(np.float32) * [[1], [1e-2], [1e-5]] for _ in range(2)
    ]
    for change in changes:
        change[2] = np.abs(change[2])
    uploads = [
        finish(algorithm, start, start.streams + change, client=c, weight=(1.0, 3.0)[c], layout=LAYOUT)[0]
        for c, change in enumerate(changes)
    ]
    return state, start, changes, uploads


def test_masks_and_average():
    """k = 2 of 20, all of 3, 1 of 10, all of 1: by |dW| in each tensor, and the same for both moments."""
    algorithm = make_algorithm("ce-fedavg", density=0.1, values="float32", moment_values="float32")
    state, start, changes, uploads = a_round(algorithm, np.random.default_rng(0))
    expected = np.zeros((3, LAYOUT.dim))
    for weight, change, upload in zip((0.25, 0.75), changes, uploads, strict=True):
        dw = np.abs(start.streams[0] + change[0].astype(np.float32) - start.streams[0])
        ranked = [np.argsort(-dw[:20])[:2], [20, 21, 22], 23 + np.argsort(-dw[23:33])[:1], [33]]
        kept = np.sort(np.concatenate(ranked))
        (block,) = upload.update.blocks
        np.testing.assert_array_equal(block.indices, kept)
        expected[:, kept] += weight * change[:, kept]
    after = algorithm.server.aggregate(state, uploads).model
    np.testing.assert_allclose(after.streams - state.model.streams, expected, rtol=1e-5, atol=1e-6)


def test_values_take_eight_bits():
    """The weights' error is bounded by the largest change over 254, the moments' by a share of each value that is not tiny."""
    algorithm = make_algorithm("ce-fedavg", density=1.0)
    _, start, changes, uploads = a_round(algorithm, np.random.default_rng(1))
    for change, upload in zip(changes, uploads, strict=True):
        received = upload.update.blocks[0].values
        sent = (start.streams + change).astype(np.float32) - start.streams
        assert np.abs(received[0] - sent[0]).max() <= 1.01 * np.abs(sent[0]).max() / 254
        for got, given in zip(received[1:], sent[1:], strict=True):
            large = np.abs(given) > 0.05 * np.abs(given).max()
            np.testing.assert_allclose(got[large], given[large], rtol=0.05)


def test_a_second_moment_never_becomes_negative():
    """Devices that take almost all of V away: rounding must not take more than there is."""
    algorithm = make_algorithm("ce-fedavg", density=1.0)
    rng = np.random.default_rng(2)
    state = algorithm.server.init(np.zeros(LAYOUT.dim, np.float32), NO_BUFFERS)
    streams = state.model.streams.copy()
    streams[2] = 10.0 ** rng.uniform(-8, -2, LAYOUT.dim)
    start = type(state.model)(streams)
    end = streams.copy()
    end[2] = streams[2] * np.float32(1e-6)
    upload, _ = finish(algorithm, start, end, layout=LAYOUT)
    assert (streams[2] + upload.update.blocks[0].values[2] >= 0).all()


def test_refused_settings():
    with pytest.raises(ConfigError, match=r"density must be in \[0, 1\], got -0.5"):
        make_algorithm("ce-fedavg", density=-0.5)
    with pytest.raises(UnknownNameError, match="Unknown value coding 'linear9'. Did you mean 'linear8'"):
        make_algorithm("ce-fedavg", values="linear9")
