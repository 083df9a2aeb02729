"""The planner's bytes are those of the codec, to 2 %: every preset, every method, masks without structure."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from comask.experiments.coded_sizes import index_coding, predicted_bytes, size_in
from comask.theory import MESSAGES, kept_positions
from comask.wire import CODECS, INDEX_CODINGS, Block, Codec, ParamLayout, Update, encode, inspect

CASES = [(5000, 0.05), (20_000, 0.01), (20_000, 0.3), (215_370, 0.001), (50_000, 0.6), (3000, 1.0)]


@cache
def upload(name, dim, density):
    """Make an update of a method's shape, of normal values on uniform masks."""
    message, kept = MESSAGES[name], kept_positions(dim, density)
    rng = np.random.default_rng(dim)

    def values(streams, count):
        return rng.standard_normal((streams, count), np.float32)

    def mask():
        return np.sort(rng.choice(dim, kept, replace=False)).astype(np.uint32)

    if message.masks == 0:
        blocks = (Block(None, values(message.streams, dim)),)
    else:
        streams = message.streams // message.masks
        blocks = tuple(Block(mask(), values(streams, kept)) for _ in range(message.masks))
    return Update(dim, blocks, np.ones(3, np.float32), round=7)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("dim", "density"), CASES)
@pytest.mark.parametrize("name", MESSAGES)
def test_predicted_bytes_are_the_codecs_to_two_per_cent(name, dim, density, codec):
    layout = ParamLayout(("all",), ((dim,),))
    update, predicted = upload(name, dim, density), predicted_bytes(name, codec, dim, density, num_buffers=3)
    payload = encode(update, replace(CODECS[codec], entropy=False), layout=layout, seed=0)
    assert predicted == pytest.approx(len(payload), rel=0.02)
    assert len(encode(update, codec, layout=layout, seed=0)) <= len(payload)


@pytest.mark.parametrize("coding", [name for name in INDEX_CODINGS if name != "dense"])
@pytest.mark.parametrize(("dim", "density"), [(50_000, 0.01), (50_000, 0.1), (5000, 0.5)])
def test_the_mask_alone_is_predicted_to_three_per_cent(coding, dim, density):
    codec, kept = Codec("mask", indices=coding), kept_positions(dim, density)
    info = inspect(encode(upload("fedadam-ssm", dim, density), codec))
    total = size_in(codec, num_buffers=3)(MESSAGES["fedadam-ssm"], dim, kept)
    rest = info.value_bytes + info.buffer_bytes + info.overhead_bytes + 8  # the layout's fingerprint
    assert total - rest == pytest.approx(info.mask_bytes, rel=0.03)


def test_auto_is_the_smallest_coding_that_it_tries():
    auto = Codec("auto")
    assert index_coding(auto, 1000, 1000) == "dense"
    assert index_coding(auto, 1_000_000, 500_000) == "bitmap"
    assert index_coding(auto, 1_000_000, 10_000) == "context"
    assert index_coding(auto, 2**21, 2**16) == "rice"  # the context model is tried on a part, in vain
    assert index_coding(auto, 2**30, 2**20) == "rice"  # too long for the context model
    assert index_coding(Codec("named", indices="coo32"), 1000, 10) == "coo32"
