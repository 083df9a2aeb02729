"""Fairness-Top: a shared mask to which the three streams contribute in equal turns.

Source of the selection: FAB-top-k, Han, Wang, Leung, "Adaptive Gradient Sparsification for Efficient Federated Learning:
An Online Learning Approach", ICDCS 2020, arXiv 2001.04756, where *devices* take turns until k positions are chosen, so
that none goes unheard. Deng et al. (arXiv 2405.17932) compare with a method of this name on three streams; how they carry
it over cannot be read in what is public. The reading taken here: dW, dM and dV of one device take the turns, and the
chosen positions serve all three, so that the upload costs what FedAdam-SSM's costs.
"""

from __future__ import annotations

from comask.algorithms.base import Algorithm
from comask.algorithms.delta import BufferPolicy
from comask.algorithms.fedadam_ssm import fedadam_ssm
from comask.hyperparams import AdamConfig
from comask.wire.codec import Codec


def fairness_top(
    local: AdamConfig = AdamConfig(),  # noqa: B008 -- frozen
    *,
    density: float = 0.05,
    per_tensor: bool = False,
    feedback: tuple[str, ...] = (),
    codec: Codec | str = "exact",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """Fairness-Top: one mask, to which |dW|, |dM| and |dV| add in equal turns; min{k(3q + log2 d), 3kq + d} bits up.

    Args:
        local: Local Adam's settings.
        density: Fraction kept, in [0, 1].
        per_tensor: Select within each tensor instead of over the whole vector.
        feedback: Streams out of `w`, `m`, `v` with error feedback.
        codec: The uplink codec, or the name of a preset.
        buffers: What happens to batch-norm statistics.
    """
    return fedadam_ssm(
        local,
        density=density,
        mask="fair",
        per_tensor=per_tensor,
        feedback=feedback,
        codec=codec,
        buffers=buffers,
        name="fairness-top",
    )
