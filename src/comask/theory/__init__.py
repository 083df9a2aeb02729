"""The theory behind the mask, one function a statement: `docs/theory.md` proves what this package computes.

Needs numpy only, and nothing else of comask but its exceptions.
"""

from comask.theory.compressors import captured_energy, fair_energy, residual_factor, top_k_energy
from comask.theory.constants import (
    AdamSetting,
    ProblemConstants,
    moment_ratio,
    preconditioner_range,
    step_bound,
    step_sensitivity,
)
from comask.theory.convergence import (
    convergence_bound_convex,
    convergence_bound_nonconvex,
    heterogeneity_floor,
)
from comask.theory.density import DensityChoice, optimal_density
from comask.theory.divergence import DivergenceBound, divergence_bound, sparsification_bound, transition
from comask.theory.entropy import binary_entropy, mask_entropy_bits, mask_floor_bits, payload_floor_bits
from comask.theory.mask import (
    MaskWeights,
    bound_scores,
    coordinate_sensitivities,
    mask_objective,
    mask_weights,
    optimal_mask,
    weights_mask_is_optimal,
)
from comask.theory.momentum import (
    MomentumError,
    Sparsity,
    momentum_error,
    preconditioner_disagreement,
    residual_bound,
    stale_momentum_bound,
)
from comask.theory.path import PathConstants, measure_step, path_divergence_bound
from comask.theory.planner import Effect, PlanRow, plan, predict_effects
from comask.theory.sizes import (
    MESSAGES,
    VALUE_BITS,
    Message,
    break_even_bandwidth,
    density_for_budget,
    kept_positions,
    mask_bytes,
    upload_bytes,
)
from comask.theory.weighted import RoundMeasures, measure_round, weighted_convergence_bound

__all__ = [
    "MESSAGES",
    "VALUE_BITS",
    "AdamSetting",
    "DensityChoice",
    "DivergenceBound",
    "Effect",
    "MaskWeights",
    "Message",
    "MomentumError",
    "PathConstants",
    "PlanRow",
    "ProblemConstants",
    "RoundMeasures",
    "Sparsity",
    "binary_entropy",
    "bound_scores",
    "break_even_bandwidth",
    "captured_energy",
    "convergence_bound_convex",
    "convergence_bound_nonconvex",
    "coordinate_sensitivities",
    "density_for_budget",
    "divergence_bound",
    "fair_energy",
    "heterogeneity_floor",
    "kept_positions",
    "mask_bytes",
    "mask_entropy_bits",
    "mask_floor_bits",
    "mask_objective",
    "mask_weights",
    "measure_round",
    "measure_step",
    "moment_ratio",
    "momentum_error",
    "optimal_density",
    "optimal_mask",
    "path_divergence_bound",
    "payload_floor_bits",
    "plan",
    "preconditioner_disagreement",
    "preconditioner_range",
    "predict_effects",
    "residual_bound",
    "residual_factor",
    "sparsification_bound",
    "stale_momentum_bound",
    "step_bound",
    "step_sensitivity",
    "top_k_energy",
    "transition",
    "upload_bytes",
    "weighted_convergence_bound",
    "weights_mask_is_optimal",
]
