"""Quantised value codings: errors, promises of the modes of rounding, and refusals."""

import numpy as np
import pytest

from comask.errors import ConfigError, NonFiniteError, UnknownNameError
from comask.wire import VALUE_CODINGS, Block, Codec, Update, decode, encode
from comask.wire.coding import Beside, Rounding
from comask.wire.quantised import levels

RNG = np.random.default_rng(21)
QUANTISED = [name for name in VALUE_CODINGS if "float" not in name]
NORMAL = RNG.standard_normal(20_000).astype(np.float32)
DECADES = (RNG.choice([-1, 1], 20_000) * 10 ** RNG.normal(-6, 1.3, 20_000)).astype(np.float32)


def through(name: str, values: np.ndarray, mode: str = "nearest", seed: int | None = None) -> np.ndarray:
    update = Update(values.size, (Block(None, values[None]),))
    payload = encode(update, Codec("one", values=(name,), rounding=(mode,)), seed=seed)
    return decode(payload, dim=values.size).blocks[0].values[0]


def error(name: str, values: np.ndarray, mode: str = "nearest", seed: int | None = None) -> float:
    """Relative error in the mean square."""
    difference = through(name, values, mode, seed).astype(np.float64) - values
    return float(np.sqrt((difference**2).sum() / (values.astype(np.float64) ** 2).sum()))


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("linear8", 0.01),
        ("linear4", 0.14),
        ("linear2", 0.70),
        ("log8", 0.02),
        ("log4", 0.18),
        ("log3", 0.31),
        ("log2", 0.48),
        ("sign", 0.61),
        ("ternary", 0.47),
    ],
)
def test_error_on_normal_values(name: str, bound: float) -> None:
    # Lloyd and Max: at best 0.107 with 16 levels, 0.186 with 8, 0.343 with 4, 0.436 with 3 and 0.603 with 2.
    assert 0.5 * bound < error(name, NORMAL) < bound


@pytest.mark.parametrize(("name", "bound"), [("log8", 0.03), ("log4", 0.4), ("log3", 0.8)])
def test_logarithmic_scales_follow_eight_decades(name: str, bound: float) -> None:
    """The middle value's error in decades; a linear scale loses most values altogether."""
    decoded = through(name, DECADES)
    assert (decoded != 0).all()
    assert np.median(np.abs(np.log10(np.abs(decoded) / np.abs(DECADES)))) < bound
    assert (through("linear4", DECADES) == 0).mean() > 0.8


def test_log8_halves_meet_in_the_middle() -> None:
    magnitudes = levels(np.float32(3.0), 64, 4)
    assert magnitudes.tolist() == [3.0, 1.5, 0.75, 0.375]
    assert levels(np.float32(1.0), 32, 3)[1] == np.sqrt(0.5)
    assert levels(np.float32(1e-30), 65535, 128)[-1] == 0.0


@pytest.mark.parametrize("name", [name for name in QUANTISED if "safe" in VALUE_CODINGS[name].modes])
def test_safe_rounding_keeps_a_second_moment(name: str) -> None:
    old = np.abs(DECADES)
    new = old * RNG.uniform(0, 2, old.size).astype(np.float32)
    new[::7] = 0
    change = new - old
    assert (old + through(name, change, "safe") >= 0).all()
    assert (old + through(name, change) < 0).any(), "otherwise this test shows nothing"


@pytest.mark.parametrize("name", [name for name in QUANTISED if "stochastic" in VALUE_CODINGS[name].modes])
def test_stochastic_rounding_is_right_on_average(name: str) -> None:
    values = RNG.uniform(-1, 1, 100).astype(np.float32)
    values[0] = 1
    draws = np.array([through(name, values, "stochastic", seed) for seed in range(400)], np.float64)
    deviation = draws.mean(axis=0) - values
    standard = draws.std(axis=0) / 20
    assert (np.abs(deviation) < 5 * standard + 0.02).all()
    assert standard.max() > 0


def test_stochastic_rounding_follows_its_seed_and_tells_streams_apart() -> None:
    update = Update(500, (Block(None, np.repeat(NORMAL[None, :500], 2, axis=0)),))
    codec = Codec("random", values=("linear4",), rounding=("stochastic",))
    payload = encode(update, codec, seed=3)
    assert payload == encode(update, codec, seed=3) != encode(update, codec, seed=4)
    first, second = decode(payload, dim=500).blocks[0].values
    assert not np.array_equal(first, second)
    with pytest.raises(ConfigError, match="'random' rounds stochastically: encode needs a seed"):
        encode(update, codec)


def test_modes_are_checked() -> None:
    update = Update(10, (Block(None, NORMAL[None, :10]),))
    with pytest.raises(ConfigError, match="Value coding 'sign' cannot round 'safe'; it has: nearest"):
        encode(update, Codec("x", values=("sign",), rounding=("safe",)))
    with pytest.raises(UnknownNameError, match=r"Unknown rounding 'saef'\. Did you mean 'safe'\?"):
        Codec("x", rounding=("saef",))
    with pytest.raises(ConfigError, match="'x' has modes of rounding for 2 streams"):
        encode(
            Update(10, (Block(None, np.zeros((3, 10), np.float32)),)), Codec("x", rounding=("nearest",) * 2)
        )


@pytest.mark.parametrize("name", QUANTISED)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_cannot_be_quantised(name: str, bad: float) -> None:
    values = NORMAL[:600].copy()
    values[401] = bad
    with pytest.raises(NonFiniteError, match=rf"Stream 0 holds {bad} at position 401"):
        through(name, values)


@pytest.mark.parametrize("name", QUANTISED)
@pytest.mark.parametrize("scale", [1e-37, 1.0, 1e38])
def test_extreme_magnitudes_stay_finite_and_ordered(name: str, scale: float) -> None:
    values = (np.array([1, -1, 0.5, 0.25]) * scale).astype(np.float32)
    decoded = through(name, values)
    assert np.isfinite(decoded).all()
    assert decoded[0] > 0 > decoded[1]


@pytest.mark.parametrize("name", ["linear8", "linear4", "linear2"])
def test_linear_scales_are_local(name: str) -> None:
    values = np.concatenate([np.full(256, 1e6), np.full(256, 1e-6)]).astype(np.float32)
    assert np.allclose(through(name, values), values, rtol=0.01)


def test_a_scale_too_large_for_bfloat16() -> None:
    with pytest.raises(ConfigError, match="Stream 5 holds .*, too large for a block's scale"):
        VALUE_CODINGS["linear4"].encode(np.full(3, 3.4e38, np.float32), Rounding(5), Beside())
