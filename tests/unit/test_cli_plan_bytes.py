"""The planner's bytes are those of the codec, to 2 %: every algorithm, every preset, masks without structure."""

from functools import cache

import numpy as np
import pytest

from comask.algorithms import ALGORITHMS
from comask.experiments.coded_sizes import density_in_budget, index_coding, payload_bytes, predicted_bytes
from comask.experiments.upload_shapes import OWN, configured, play, takes_codec, takes_density, upload_shapes
from comask.theory import kept_positions
from comask.wire import CODECS, INDEX_CODINGS, Block, Codec, ParamLayout, Update, encode, inspect

CASES = [(5000, 0.05), (20_000, 0.01), (20_000, 0.3), (215_370, 0.001), (50_000, 0.6), (3000, 1.0)]
LOOK_ALIKES = {upload_shapes(name, 1): name for name in reversed(ALGORITHMS) if takes_codec(name)}
GRID = [
    (name, *case)
    for name in ALGORITHMS
    if takes_codec(name)
    for case in (CASES if name in LOOK_ALIKES.values() else CASES[:1])
]
OWN_CODEC = [name for name in ALGORITHMS if not takes_codec(name)]


@cache
def upload(name, dim, density):
    """Make the upload of a real algorithm in the first round, of normal changes."""
    return play(configured(name, "exact", density), dim, 1, num_buffers=3).finish()[0]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("name", "dim", "density"), GRID)
def test_predicted_bytes_are_the_codecs_to_two_per_cent(name, dim, density, codec):
    layout = ParamLayout(("all",), ((dim, 1),))
    payload = encode(upload(name, dim, density), codec, layout=layout, seed=0)
    assert predicted_bytes(name, codec, dim, density, num_buffers=3) == pytest.approx(len(payload), rel=0.02)


@pytest.mark.parametrize(("dim", "density"), [(20_480, 0.05), (40_960, 0.3)])
@pytest.mark.parametrize("name", OWN_CODEC)
def test_the_mean_of_all_rounds_is_predicted_for_methods_with_their_own_codec(name, dim, density):
    algorithm, rounds, sizes = configured(name, OWN, density), 14, []
    for number in range(1, rounds + 1) if len(upload_shapes(name, rounds)) > 1 else [1]:
        turn = play(algorithm, dim, number, num_buffers=3)
        update, _ = turn.finish()
        sizes.append(len(encode(update, algorithm.uplink, layout=turn.context.layout, seed=0)))
    predicted = predicted_bytes(name, OWN, dim, density, num_buffers=3, rounds=rounds)
    assert predicted == pytest.approx(np.mean(sizes), rel=0.02)


def test_rounds_that_differ_are_told_apart():
    warm, cold = upload_shapes("one-bit-adam", 40)
    assert (warm.share, cold.share, cold.last) == (0.25, 0.75, 11)
    assert [block.dense for block in cold.blocks] == [False, True, False]
    assert len(upload_shapes("fedadam-ssm", 40)) == 1


def test_what_grows_with_the_vector_is_told_from_what_does_not():
    (shape,) = upload_shapes("fedadamw", 1)
    weights, means, steps = shape.blocks
    assert weights.kept(10**6, 0.05) == 10**6
    assert means.kept(10**6, 0.05) == steps.kept(10**6, 0.05) == 1
    (shape,) = upload_shapes("ce-fedavg", 1)
    assert [block.kept(10**6, 0.05) for block in shape.blocks] == [50_000]


@pytest.mark.parametrize("name", ["fedadam-ssm", "fedadam-top", "stc", "fedavg", "one-bit-adam"])
@pytest.mark.parametrize("budget", [500, 20_000, 10**6])
def test_budget_density_is_the_largest_that_fits(name, budget):
    dim, codec = 50_000, "exact" if takes_codec(name) else OWN
    density = density_in_budget(name, codec, dim, budget)
    if density is None:
        least = 1 / dim if takes_density(name) else 1.0
        assert predicted_bytes(name, codec, dim, least) > budget
        return
    kept = kept_positions(dim, density)
    assert predicted_bytes(name, codec, dim, density) <= budget
    if kept < dim:
        assert predicted_bytes(name, codec, dim, (kept + 1) / dim) > budget


@pytest.mark.parametrize("coding", [name for name in INDEX_CODINGS if name != "dense"])
@pytest.mark.parametrize(("dim", "density"), [(50_000, 0.01), (50_000, 0.1), (5000, 0.5)])
def test_the_mask_alone_is_predicted_to_three_per_cent(coding, dim, density):
    codec, kept, rng = Codec("mask", indices=coding), kept_positions(dim, density), np.random.default_rng(dim)
    mask = np.sort(rng.choice(dim, kept, replace=False)).astype(np.uint32)
    block = Block(mask, rng.standard_normal((3, kept), np.float32))
    info = inspect(encode(Update(dim, (block,), np.ones(3, np.float32), round=7), codec))
    total = payload_bytes(codec, dim, [(3, kept)], num_buffers=3)
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
