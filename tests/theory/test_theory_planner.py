"""The planner's formulas: bytes are the codec's to 2 % at the values' full width, and the table says what its parts say."""

import math
from dataclasses import replace

import numpy as np
import pytest

from comask.algorithms import ALGORITHMS, make_algorithm
from comask.algorithms.base import ClientContext
from comask.errors import ConfigError, UnknownNameError
from comask.state import ModelState
from comask.theory import (
    MESSAGES,
    VALUE_BITS,
    AdamSetting,
    Message,
    ProblemConstants,
    Sparsity,
    break_even_bandwidth,
    convergence_bound_nonconvex,
    density_for_budget,
    kept_positions,
    plan,
    predict_effects,
    upload_bytes,
)
from comask.wire.codec import CODECS
from comask.wire.container import encode
from comask.wire.update import ParamLayout


def payload_length(name, dim, density, codec):
    """Make one upload of a real algorithm, from changes without structure; return the lengths of its payload without and with
    entropy coding of its values."""
    options = {"density": density, "codec": codec} if MESSAGES[name].masks else {}
    algorithm = make_algorithm(name, **options)
    rng = np.random.default_rng(dim)
    start = ModelState(np.abs(rng.normal(size=(algorithm.num_streams, dim))).astype(np.float32))
    end = ModelState(np.abs(rng.normal(size=(algorithm.num_streams, dim))).astype(np.float32))
    layout = ParamLayout(("weight",), ((dim,),))
    context = ClientContext(round=7, client=0, seed=0, layout=layout, codec=algorithm.uplink)
    update, _ = algorithm.client.finish(start, end, {}, context)
    return tuple(len(encode(update, replace(algorithm.uplink, entropy=kind))) for kind in (False, True))


SIZES = [(2000, 0.05), (20_000, 0.01), (215_370, 0.001), (215_370, 0.05), (50_000, 0.6)]
CASES = [
    (codec, dim, density)
    for codec, bits in VALUE_BITS.items()
    for dim, density in SIZES
    if bits > 8 or density * dim > 1000  # what a stream needs once is not small against a few short values
]


@pytest.mark.parametrize("name", [name for name, message in MESSAGES.items() if message.masks])
@pytest.mark.parametrize(("codec", "dim", "density"), CASES)
def test_predicted_bytes_are_the_codecs_to_two_per_cent(codec, name, dim, density):
    message = replace(MESSAGES[name], value_bits=VALUE_BITS[codec])
    predicted = upload_bytes(message, dim, kept_positions(dim, density))
    plain, entropy_coded = payload_length(name, dim, density, codec)
    assert predicted == pytest.approx(plain, rel=0.02)
    assert entropy_coded <= plain


@pytest.mark.parametrize("name", [name for name, message in MESSAGES.items() if not message.masks])
def test_dense_bytes_are_exact(name):
    assert upload_bytes(MESSAGES[name], 5000, 5000) == payload_length(name, 5000, 1.0, "exact")[0]


def test_messages_and_codecs_are_those_of_the_library():
    assert set(MESSAGES) <= set(ALGORITHMS)
    assert set(VALUE_BITS) <= set(CODECS)


def test_buffers_are_counted():
    message = MESSAGES["fedadam-ssm"]
    assert upload_bytes(message, 1000, 50, num_buffers=64) - upload_bytes(message, 1000, 50) == 256


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("budget", [500, 20_000, 10**6])
def test_budget_density_is_the_largest_that_fits(name, budget):
    message, dim = MESSAGES[name], 50_000
    density = density_for_budget(message, dim, budget)
    if density is None:
        assert upload_bytes(message, dim, 1 if message.masks else dim) > budget
        return
    kept = kept_positions(dim, density)
    assert upload_bytes(message, dim, kept) <= budget
    if kept < dim:
        assert upload_bytes(message, dim, kept + 1) > budget


def test_break_even_is_where_both_take_equally_long():
    uplink = break_even_bandwidth(1e6, 1e5, 0.5)
    assert 8 * 1e6 / uplink == pytest.approx(8 * 1e5 / uplink + 0.5)
    assert break_even_bandwidth(1e6, 1e6, 0.5) == 0
    assert break_even_bandwidth(1e6, 1e5, 0.0) == math.inf


def test_plan_agrees_with_its_parts():
    table = plan(
        100_000, density=0.05, uplink=1e6, clients=20, codecs=["exact", "compact"], budget=100_000,
        seconds={("fedadam-ssm", "exact"): 0.01},
    )  # fmt: skip
    assert [(row.name, row.codec) for row in table] == [
        (name, codec) for name in MESSAGES for codec in ("exact", "compact")
    ]
    rows = {row.name: row for row in table if row.codec == "exact"}
    (compact,) = (row for row in table if (row.name, row.codec) == ("fedadam-ssm", "compact"))
    ssm, dense, top = rows["fedadam-ssm"], rows["fedadam"], rows["fedadam-top"]
    assert ssm.upload_bytes == upload_bytes(MESSAGES["fedadam-ssm"], 100_000, 5000)
    assert ssm.round_bytes == 20 * ssm.upload_bytes
    assert ssm.upload_seconds == 8 * ssm.upload_bytes / 1e6
    assert ssm.saving == pytest.approx(dense.upload_bytes / ssm.upload_bytes)
    assert ssm.budget_density == density_for_budget(MESSAGES["fedadam-ssm"], 100_000, 100_000)
    assert ssm.break_even == break_even_bandwidth(dense.upload_bytes, ssm.upload_bytes, 0.01)
    assert (dense.num_kept, dense.saving, dense.budget_density, dense.break_even) == (
        100_000,
        1.0,
        None,
        None,
    )
    assert top.upload_bytes > ssm.upload_bytes > compact.upload_bytes
    assert (compact.message.value_bits, compact.break_even) == (VALUE_BITS["compact"], None)
    assert compact.budget_density > ssm.budget_density


def test_plan_uses_measured_sizes():
    (row,) = plan(
        1000,
        density=0.1,
        uplink=8.0,
        messages={"mine": Message(3, 1)},
        size=lambda _message, _dim, kept: 2.0 * kept,
    )
    assert (row.upload_bytes, row.upload_seconds, row.saving) == (200.0, 200.0, 10.0)


def test_effects_are_the_bound_with_one_quantity_changed():
    problem, adam = ProblemConstants(1000, 1.0, 0.1, 0.2), AdamSetting(1e-4, eps=0.1, local_steps=10)
    sparsity = Sparsity(0.05, error_feedback=True, stale=0.1)
    effects = predict_effects(
        problem, adam, sparsity, rounds=100, gap=2.0, local_steps=[1, 20], lrs=[1e-3], densities=[0.01, 1.0]
    )
    assert [(e.quantity, e.value) for e in effects] == [
        ("local_steps", 1), ("local_steps", 20), ("lr", 1e-3), ("density", 0.01), ("density", 1.0)
    ]  # fmt: skip
    more = replace(adam, local_steps=20)
    assert effects[1].bound == convergence_bound_nonconvex(problem, more, sparsity, rounds=100, gap=2.0)
    assert effects[1].optimisation == pytest.approx(2.0 / (1e-4 * 20 * 100))
    assert effects[1].error.stale < effects[0].error.stale
    assert effects[3].error.residual > effects[4].error.residual == 0
    assert effects[4].bound == convergence_bound_nonconvex(
        problem, adam, Sparsity(1.0, True), rounds=100, gap=2.0
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Message(3, 2), ConfigError, "masks must be 0, 1 or streams = 3, got 2"),
        (lambda: Message(0, 0), ConfigError, "streams must be at least 1, got 0"),
        (lambda: Message(1, 1, 0.0), ConfigError, r"value_bits must be a positive finite number, got 0\.0"),
        (lambda: upload_bytes(Message(3, 1), 10, 11), ConfigError, r"num_kept must be in 1\.\.10, got 11"),
        (lambda: kept_positions(10, 0.0), ConfigError, r"density must be in \(0, 1\], got 0\.0"),
        (lambda: density_for_budget(Message(3, 1), 10, 0.0), ConfigError, r"budget must be a positive finite number, got 0\.0"),
        (lambda: break_even_bandwidth(2.0, 1.0, -1.0), ConfigError, r"seconds must be a finite number that is not negative, got -1\.0"),
        (lambda: plan(10, density=0.5, uplink=0.0), ConfigError, r"uplink must be a positive finite number, got 0\.0"),
        (lambda: plan(10, density=0.5, uplink=1.0, clients=0), ConfigError, "clients must be at least 1, got 0"),
        (lambda: plan(10, density=0.5, uplink=1.0, seconds={("fedadam-sm", "exact"): 1.0}), UnknownNameError, "Unknown method 'fedadam-sm'. Did you mean"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
