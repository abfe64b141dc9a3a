"""Every logged number: its name, one sentence, and where it is not a plain sum, its estimator.

The row of step t describes the policy after t steps (exact expectations over all prompts and answers) and how step t
went. Row 0 is the policy before training; the columns of a step are null there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch

from theory import passk
from theory._checks import FloatArray, IntArray
from theory.softmax import log_softmax

POLICY: Mapping[str, str] = MappingProxyType(
    {
        "pass_at_1": "Probability that one answer is correct, mean over all prompts; exact.",
        "pass_at_32": "Probability that at least one of 32 answers is correct, mean over all prompts; exact.",
        "entropy": "Entropy of the policy, mean over all prompts, in nats; exact.",
    }
)
STEP: Mapping[str, str] = MappingProxyType(
    {
        "reward": "Share of correct rollouts in the batch; the allocation decides which prompts weigh most.",
        "rollouts": "Rollouts spent, pilots included.",
        "allocation_concentration": "N sum n^2 / (sum n)^2 over the batch's N prompts; 1 if all n are equal.",
        "degenerate_groups": "Share of the batch's prompts whose rollouts all have one reward (or that have none).",
        "gradient_norm": "Norm of the gradient before it is scaled down, mean over the optimiser steps.",
        "clip_fraction": "Share of counted tokens that a clip keeps from learning, mean over the optimiser steps.",
        "compensation": "beta_comp of DynaMO, mean over tokens with A > 0 and optimiser steps; 1 without modulation.",
        "stabilization": "beta_stab of DynaMO, mean over tokens with A != 0 and optimiser steps; 1 without modulation.",
    }
)
METRICS: Mapping[str, str] = MappingProxyType({**POLICY, **STEP})
"""Every metric column, in order."""


def evaluate(logits: torch.Tensor, correct: torch.Tensor) -> dict[str, FloatArray]:
    """Return the `POLICY` metrics, each [S], of the tables `logits` [S, N, K] with correct answers `correct`."""
    log_pi = log_softmax(logits)
    pi = log_pi.exp()
    p = (pi * correct).sum(-1).clamp(max=1.0).numpy()
    return {
        "pass_at_1": p.mean(-1),
        "pass_at_32": passk.exact(p, 32).mean(-1),
        "entropy": -(pi * log_pi).sum(-1).numpy().mean(-1),
    }


def concentration(counts: IntArray) -> FloatArray:
    """Return N sum n^2 / (sum n)^2 over the last axis."""
    n = counts.astype(np.float64)
    return np.asarray(n.shape[-1] * (n * n).sum(-1) / n.sum(-1) ** 2)
