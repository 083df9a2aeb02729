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
from comask.state import ModelState
from comask.testing import ALGORITHM_LAWS, check_algorithm

VARIANTS = {
    **ALGORITHMS,
    "fedadam-ssm with feedback": partial(fedadam_ssm, feedback=("w",)),
    "fedadam-ssm with all feedback": partial(fedadam_ssm, feedback=("w", "m", "v")),
    "fedadam-ssm per tensor": partial(fedadam_ssm, per_tensor=True),
    "fedadam-top with feedback": partial(ALGORITHMS["fedadam-top"], feedback=("w", "v")),
}


@pytest.mark.parametrize("law", ALGORITHM_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_law(name, law):
    law(VARIANTS[name])


def test_check_algorithm_runs_all_laws():
    check_algorithm(fedadam)


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
        ("law_value", {"paper_bits": lambda dim: 96 * dim}),
    ],
)
def test_a_broken_algorithm_is_caught(law, part):
    check = next(each for each in ALGORITHM_LAWS if each.__name__ == law)
    with pytest.raises((AssertionError, pickle.PicklingError)):
        check(lambda: replace(fedadam(), **part))
