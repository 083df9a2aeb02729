"""The mask of the divergence bound: what it keeps, and what it must be told."""

from __future__ import annotations

import numpy as np
import pytest

from comask.algorithms import make_algorithm
from comask.algorithms.base import ClientContext
from comask.errors import ConfigError, UnknownNameError
from comask.state import ModelState
from comask.wire import ParamLayout

LAYOUT = ParamLayout(("a", "b"), ((10, 20), (200,)))


def a_round():
    rng = np.random.default_rng(0)
    start = np.stack([rng.standard_normal(400), 1e-2 * rng.standard_normal(400), 1e-4 * rng.random(400)])
    end = start + np.stack(
        [1e-2 * rng.standard_normal(400), 1e-2 * rng.standard_normal(400), 1e-4 * rng.random(400)]
    )
    return ModelState(start.astype(np.float32)), ModelState(end.astype(np.float32))


def kept(steps, mask="bound", **options):
    algorithm = make_algorithm("fedadam-ssm", mask=mask, density=0.1, **options)
    context = ClientContext(1, 0, 0, LAYOUT, algorithm.uplink, steps=steps)
    update, _ = algorithm.client.finish(*a_round(), {}, context)
    (block,) = update.blocks
    assert block.num_streams == 3
    return block.indices.tolist()


@pytest.mark.parametrize("steps", [1, 5, 30])
def test_it_keeps_what_would_move_the_next_weights_most(steps):
    """By brute force: the same gradients again, with and without what is dropped, in double precision.

    Under the same gradients an error in a moment fades by its beta at every step, whatever the gradients are; they are
    taken to be those that keep the moments where they are.
    """
    lr, b1, b2, eps = 1e-3, 0.9, 0.999, 1e-6
    start, end = (state.streams.astype(np.float64) for state in a_round())
    small = 1e-4  # of the change: the score is a first order
    lost = small * (end - start)

    def displacement(error_m, error_v):
        """How far the next steps carry a weight when the moments are off by so much."""
        steps_taken = [
            lr * (end[1] - b1**step * error_m) / np.sqrt(end[2] - b2**step * error_v + eps)
            for step in range(1, steps + 1)
        ]
        return sum(steps_taken)

    whole = displacement(0.0, 0.0)
    effects = (lost[0], displacement(lost[1], 0.0) - whole, displacement(0.0, lost[2]) - whole)
    exact = np.sqrt(sum(effect**2 for effect in effects))
    expected = set(np.argsort(-exact)[:40].tolist())
    assert len(expected & set(kept(steps))) >= 39


def test_it_is_the_weights_mask_when_moments_cannot_matter():
    assert kept(1, lr=1e-12) == kept(1, mask="w", lr=1e-12)
    assert kept(30) != kept(30, mask="w")


def test_per_tensor():
    indices = np.array(kept(5, per_tensor=True))
    assert (indices < 200).sum() == 20
    assert len(indices) == 40


@pytest.mark.parametrize("options", [{"eps_inside_sqrt": False}, {"bias_correction": "local"}, {"eps": 0.0}])
def test_it_refuses_an_adam_that_it_is_not_derived_for(options):
    with pytest.raises(
        ConfigError, match="mask='bound' is derived for eps above 0 inside the root and no bias"
    ):
        make_algorithm("fedadam-ssm", mask="bound", **options)


def test_its_name_is_among_those_suggested():
    with pytest.raises(UnknownNameError, match="Unknown mask rule 'bounds'. Did you mean 'bound'"):
        make_algorithm("fedadam-ssm", mask="bounds")
