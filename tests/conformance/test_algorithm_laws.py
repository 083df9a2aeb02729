"""Every row of the table obeys every law, and a broken algorithm is caught by the law it breaks."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest

from comask.algorithms import ALGORITHMS
from comask.algorithms.accounting import DenseBits
from comask.algorithms.base import ServerState
from comask.algorithms.delta import AveragingServer, DeltaClient
from comask.algorithms.fedadam import fedadam
from comask.algorithms.fedadam_ssm import fedadam_ssm
from comask.algorithms.server_step import SteppingServer
from comask.algorithms.two_way import CompressStep, MarkingServer
from comask.state import ModelState
from comask.testing import ALGORITHM_LAWS, check_algorithm, check_law, law_increment

VARIANTS = {
    **ALGORITHMS,
    "fedadam-ssm with feedback": partial(fedadam_ssm, feedback=("w",)),
    "fedadam-ssm with all feedback": partial(fedadam_ssm, feedback=("w", "m", "v")),
    "fedadam-ssm with the bound's mask": partial(fedadam_ssm, mask="bound"),
    "fedadam-ssm per tensor": partial(fedadam_ssm, per_tensor=True),
    "fedadam-top with feedback": partial(ALGORITHMS["fedadam-top"], feedback=("w", "v")),
    "fedcams by sign": partial(ALGORITHMS["fedcams"], compressor="sign"),
    "fedams": partial(ALGORITHMS["fedcams"], compressor="none"),
    "one-bit-adam after its warm-up": partial(ALGORITHMS["one-bit-adam"], warmup_rounds=1),
    "one-bit-adam as published": partial(ALGORITHMS["one-bit-adam"], warmup_rounds=1, scale="vector"),
}

_OWN_STEP = dict.fromkeys(
    ("law_full_density_is_dense", "law_one_client_is_central"),
    "the server takes a step of its own along the mean change",
)
_ROUNDED = dict.fromkeys(
    ("law_full_density_is_dense", "law_one_client_is_central"),
    "values are rounded to a sign and a scale at any density: that is the method",
)
_AFTER_WARM_UP = _ROUNDED | {"law_second_moment": "no upload carries a second moment once it is frozen"}
EXEMPT = {
    "fedopt-adam": _OWN_STEP,
    "fedcams": _OWN_STEP,
    "fedcams by sign": _OWN_STEP,
    "fedams": _OWN_STEP,
    "fedadamw": {
        "law_one_client_is_central": "local moments restart in every round: zero, and the mean of each tensor"
    },
    "stc": _ROUNDED,
    "one-bit-adam after its warm-up": _AFTER_WARM_UP,
    "one-bit-adam as published": _AFTER_WARM_UP,
}
"""Laws that cannot hold, each with the reason; `check_law` makes sure that they do not."""


@pytest.mark.parametrize("law", ALGORITHM_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_law(name, law):
    check_law(law, VARIANTS[name], exempt=EXEMPT.get(name, {}))


def test_check_algorithm_runs_all_laws():
    check_algorithm(fedadam)


def test_an_exemption_that_is_not_needed_is_an_error():
    with pytest.raises(AssertionError, match="law_order holds, though it is exempted: no reason"):
        check_algorithm(fedadam, exempt={"law_order": "no reason"})


@dataclass(frozen=True)
class _LosesTheIncrement(CompressStep):
    """Moves the model by more than its increments say."""

    def __call__(self, mean, state):
        change, memory = super().__call__(mean, state)
        return 2 * change, memory


def test_increments_that_lead_elsewhere_are_caught():
    stc = ALGORITHMS["stc"]()
    step = _LosesTheIncrement(stc.increment.step.select, stc.increment.step.codec)
    broken = replace(stc, server=MarkingServer(SteppingServer(step)))
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        law_increment(lambda: broken)


@dataclass(frozen=True)
class _SumsInsteadOfMean(AveragingServer):
    def aggregate(self, state, uploads):
        uploads = list(uploads)
        after = super().aggregate(state, uploads)
        gain = np.float32(sum(u.weight for u in uploads))
        return replace(
            after, model=ModelState(state.model.streams + gain * (after.model.streams - state.model.streams))
        )


@dataclass(frozen=True)
class _NeverClamps(AveragingServer):
    def aggregate(self, state, uploads):
        (upload, *_) = list(uploads)
        return ServerState(ModelState(state.model.streams + upload.update.blocks[0].values), state.round + 1)


@dataclass(frozen=True)
class _LastOneWins(AveragingServer):
    def aggregate(self, state, uploads):
        return super().aggregate(state, list(uploads)[-1:])


@dataclass(frozen=True)
class _ForgetsTheRound(AveragingServer):
    def aggregate(self, state, uploads):
        return replace(super().aggregate(state, uploads), round=state.round)


@dataclass(frozen=True)
class _ChecksNothing(AveragingServer):
    def check(self, state, update):
        pass


@dataclass(frozen=True)
class _Remembers(DeltaClient):
    """Sends something else each time it is asked."""

    calls: ClassVar[list[None]] = []

    def finish(self, start, end, memory, context):
        self.calls.append(None)
        update, memory = super().finish(start, end, memory, context)
        return replace(update, buffers=update.buffers + len(self.calls)), memory


@dataclass(frozen=True)
class _DropsTheLast(DeltaClient):
    def finish(self, start, end, memory, context):
        end = ModelState(np.concatenate([end.streams[:, :-1], start.streams[:, -1:]], axis=1), end.buffers)
        return super().finish(start, end, memory, context)


@pytest.mark.parametrize(
    ("law", "part"),
    [
        ("law_weights_sum_to_one", {"server": _SumsInsteadOfMean(3)}),
        ("law_second_moment", {"server": _NeverClamps(3)}),
        ("law_order", {"server": _LastOneWins(3)}),
        ("law_silence", {"server": _ForgetsTheRound(3)}),
        ("law_non_finite", {"server": _ChecksNothing(3)}),
        ("law_pure", {"client": _Remembers(fedadam().client.select)}),
        ("law_full_density_is_dense", {"client": _DropsTheLast(fedadam().client.select)}),
        ("law_one_client_is_central", {"client": _DropsTheLast(fedadam().client.select)}),
        ("law_accounting", {"paper_bits": DenseBits(1)}),
        ("law_value", {"paper_bits": lambda dim, round_number=1: 96 * dim + 0 * round_number}),
    ],
)
def test_a_broken_algorithm_is_caught(law, part):
    check = next(each for each in ALGORITHM_LAWS if each.__name__ == law)
    with pytest.raises((AssertionError, pickle.PicklingError)):
        check(lambda: replace(fedadam(), **part))
