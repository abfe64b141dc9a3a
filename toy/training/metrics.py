"""Every logged number: its name, one sentence, and where it is not a plain sum, its estimator.

The row of step t describes the policy after t steps (exact expectations over all prompts and answers) and how step t
went. Row 0 is the policy before training; the columns of a step are null there. Diagnostics take time: they are null
except at every `diagnose_every`-th step.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch

from theory import allocation
from theory.base.arrays import FloatArray, IntArray
from theory.policy import log_softmax
from theory.statistics import exact_pass_at_k
from toy.training import per_seed

POLICY: Mapping[str, str] = MappingProxyType(
    {
        "pass_at_1": "Probability that one rollout is correct, mean over all prompts; exact.",
        "pass_at_32": "Probability that at least one of 32 rollouts is correct, mean over all prompts; exact.",
        "entropy": "Entropy of the policy, mean over the tokens of all prompts, in nats; exact.",
        "entropy_decisions": "Entropy at tokens that can be wrong, mean over these; exact.",
        "entropy_fillers": "Entropy at tokens of which any is correct, mean over these; exact, null if there are none.",
    }
)
STEP: Mapping[str, str] = MappingProxyType(
    {
        "reward": "Share of correct rollouts in the batch; the allocation decides which prompts weigh most.",
        "rollouts": "Rollouts spent, pilots included.",
        "rollouts_wasted": "Share of rollouts in groups of one reward only, lost on methods that compare in groups.",
        "allocation_concentration": "N sum n^2 / (sum n)^2 over the batch's N prompts; 1 if all n are equal.",
        "degenerate_groups": "Share of the batch's prompts whose rollouts all have one reward (or that have none).",
        "gradient_norm": "Norm of the gradient before it is scaled down, mean over the optimiser steps.",
        "clip_fraction": "Share of counted tokens that a clip keeps from learning, mean over the optimiser steps.",
        "compensation": "beta_comp of DynaMO, mean over tokens with A > 0 and optimiser steps; 1 without modulation.",
        "stabilization": "beta_stab of DynaMO, mean over tokens with A != 0 and optimiser steps; 1 without modulation.",
    }
)
DIAGNOSTICS: Mapping[str, str] = MappingProxyType(
    {
        "gradient_variance": "Trace variance of the step's gradient estimator, given the batch's prompts and history; "
        "exact where `batch_moments.exact_estimator` knows it, else from 64 resampled batches, as the next four.",
        "gradient_bias_squared": "Squared distance of the estimator's mean from the gradient of the batch's mean p; "
        "resampled: unbiased, hence below 0 at times.",
        "gradient_mse": "Mean squared distance of the estimator from that gradient: variance plus squared bias.",
        "gradient_cosine": "<E g, grad J> / (|grad J| sqrt(E|g|^2)): how much of the estimator's root mean square "
        "points along the gradient; noise and a biased direction lower it, no scale does.",
        "gradient_alignment": "Cosine of the angle between the estimator's mean and the gradient: 1 without a bias in "
        "direction; resampled: lowered by the noise of the mean of 64.",
        "true_gradient_squared": "Squared norm of the gradient of the batch's mean p; exact.",
        "implied_weight_min": "Least weight of a prompt's gradient in the estimator's mean, over its 1/Q in J; exact, "
        "null where only resamples are to be had, as the next two.",
        "implied_weight_max": "Largest such weight; exact.",
        "implied_weight_share": "(sum W)^2 / (Q sum W^2) of these weights W: the share of prompts that count; exact.",
        "variance_ratio_predicted": "sum v/n over the same with equal n, v what the rule takes for the variance of a "
        "rollout (`diagnostics.proxy_variances`); null for rules without such a proxy.",
        "variance_ratio_realized": "Variance of the estimator over its variance with equal n, same aggregation; exact, "
        "null where only resamples are to be had.",
        "allocation_regret": "sum v/n over its least value within budget and bounds, minus 1; v is the exact variance "
        "of a rollout with baseline p (`single_rollout_variance` of a `World`; `allocation.optimal`).",
        "estimate_error": "|k/G - p|, mean over the batch's prompts with a history: what is known before the step.",
        "estimate_bias": "k/G - p, mean over the batch's prompts with a history.",
    }
)
"""Columns of every `diagnose_every`-th step (`toy.training.diagnostics`), null at the others."""
METRICS: Mapping[str, str] = MappingProxyType({**POLICY, **STEP, **DIAGNOSTICS})

MAY_BE_NULL = ("entropy_decisions", "entropy_fillers", *DIAGNOSTICS)
"""Columns in which NaN says that there is no such number."""


def require_finite(measured: Mapping[str, FloatArray]) -> None:
    """Require finite numbers, or NaN where it may stand for none: a run that diverged is an error, never a gap."""
    for name, values in measured.items():
        bad = np.isinf(values) if name in MAY_BE_NULL else ~np.isfinite(values)
        if bad.any():
            raise ValueError(f"{name}: expected finite numbers, got {values[bad][0]}: the run has diverged")


def evaluate(
    logits: torch.Tensor, correct: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor
) -> dict[str, FloatArray]:
    """Return the `POLICY` metrics, each [S], of tables [S, R, K] whose `rows` prompts draw `tokens` from, [S, N, T]."""
    log_pi = log_softmax(logits)
    pi = log_pi.exp()
    decides = ~correct.all(-1)
    mass = torch.where(decides, (pi * correct).sum(-1).clamp(max=1.0), 1.0)
    entropy = -(pi * log_pi).sum(-1)
    index = (torch.arange(len(logits), device=logits.device).reshape(-1, 1, 1), rows)
    p = torch.where(tokens, mass[index], 1.0).prod(-1).cpu().numpy()
    decisions, entropies = decides[index], entropy[index]
    return {
        "pass_at_1": p.mean(-1),
        "pass_at_32": exact_pass_at_k(p, 32).mean(-1),
        "entropy": per_seed.mean(entropies, tokens, empty=np.nan),
        "entropy_decisions": per_seed.mean(entropies, tokens & decisions, empty=np.nan),
        "entropy_fillers": per_seed.mean(entropies, tokens & ~decisions, empty=np.nan),
    }


def of_batch(successes: IntArray, sizes: IntArray, counts: IntArray) -> dict[str, FloatArray]:
    """Return the `STEP` metrics that describe the rollouts, each [S].

    Parameters
    ----------
    successes, sizes : Rewarded rollouts, and all, of the groups in which they are compared, [S, Q].
    counts : Rollouts of the prompts, [S, Q]; the same as `sizes`, unless rows have defects.
    """
    return {
        "reward": successes.sum(-1) / sizes.sum(-1),
        "rollouts": counts.sum(-1).astype(np.float64),
        "rollouts_wasted": allocation.wasted_share(successes, sizes),
        "allocation_concentration": allocation.concentration(counts),
        "degenerate_groups": allocation.degenerate_groups(successes, sizes).mean(-1),
    }
