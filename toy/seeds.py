"""Functions of `theory` that look at one batch, applied to the batches of all seeds at once.

Arrays are [S, Q, G, T]: seeds, prompts of the batch, rollouts of a prompt, tokens of a rollout (T = 1 in a bandit).
A seed's tokens compete with each other, never with another seed's: no result depends on which seeds run beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from theory._checks import FloatArray
from theory.aggregation import aggregation_weights
from theory.losses import ForkTokens, Loss, Selection, select_tokens
from theory.modulation import ROUNDING, Modulated, Modulation, Scope, compensation, instability, stabilization
from theory.softmax import TokenStatistics

_UNIT = Scope(entropy_min=0.0, entropy_max=1.0, instability_max=1.0)


class Scopes(NamedTuple):
    """`theory.modulation.Scope` of every seed; each [S, 1, 1, 1]."""

    entropy_min: torch.Tensor
    entropy_max: torch.Tensor
    instability_max: torch.Tensor


def scopes_of(stats: TokenStatistics, advantages: torch.Tensor, mask: torch.Tensor, modulation: Modulation) -> Scopes:
    """Return the extremes over every seed's valid tokens under the policy that sampled them (xi = A)."""
    axes = (1, 2, 3)
    indicator = instability(stats, advantages, mask, modulation.mean)
    return Scopes(
        torch.where(mask, stats.entropy, torch.inf).amin(axes, keepdim=True),
        torch.where(mask, stats.entropy, -torch.inf).amax(axes, keepdim=True),
        indicator.amax(axes, keepdim=True),
    )


def modulate(
    advantages: torch.Tensor,
    stats: TokenStatistics,
    mask: torch.Tensor,
    modulation: Modulation,
    coefficient: torch.Tensor,
    scopes: Scopes,
) -> Modulated:
    """Return `theory.modulation.modulate` of every seed under its own scope, to the bit.

    The factors depend on a token's place between the extremes of its scope only: with that place as entropy and as
    instability, the scope of all seeds is (0, 1).
    """
    low, high, largest = scopes
    one = torch.ones_like(low)
    spread = high - low > ROUNDING * torch.finfo(high.dtype).eps * high.clamp(min=1.0)
    place = (stats.entropy.clamp(low, high) - low) / torch.where(spread, high - low, one)
    factor = compensation(place, advantages, modulation.compensation_strength, _UNIT)
    comp = torch.where(mask & spread, factor, 1.0)
    place = instability(stats, coefficient, mask, modulation.mean).clamp(max=largest) / torch.where(
        largest > 0, largest, one
    )
    strength = modulation.stabilization_strength
    factor = stabilization(place, strength, modulation.sharpness, modulation.threshold, _UNIT)
    stab = torch.where(mask & (largest > 0), factor, 1.0)
    return Modulated(advantages * comp * stab, comp, stab)


def select(
    loss: Loss,
    token_selection: ForkTokens | None,
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    entropy: torch.Tensor | None,
    uniforms: torch.Tensor | None,
) -> Selection:
    """Return `theory.losses.select_tokens` of every seed."""
    parts = [
        select_tokens(
            loss,
            log_prob[s],
            old_log_prob[s],
            advantages[s],
            mask[s],
            token_selection=token_selection,
            entropy=None if entropy is None else entropy[s],
            uniforms=None if uniforms is None else uniforms[s],
        )
        for s in range(len(mask))
    ]
    return Selection(*(torch.stack(masks) for masks in zip(*parts, strict=True)))


def weights(mask: torch.Tensor, mode: str) -> torch.Tensor:
    """Return `theory.aggregation.aggregation_weights` of every seed's tokens, [S, Q, G, T]."""
    _, num_prompts, num_rollouts, _ = mask.shape
    prompts = torch.arange(num_prompts).unsqueeze(-1).expand(num_prompts, num_rollouts)
    return torch.stack([aggregation_weights(m, mode, prompts=prompts, dtype=torch.float64) for m in mask])


def mean(values: torch.Tensor, mask: torch.Tensor, *, empty: float) -> FloatArray:
    """Return every seed's mean of `values` over its masked tokens, [S]; `empty` where there are none."""
    num = mask.flatten(1).sum(-1).numpy()
    # In NumPy: torch splits a long sum over its threads, which would change the last bits.
    total = np.where(mask, values, 0.0).reshape(len(mask), -1).sum(-1)
    return np.where(num > 0, total / np.maximum(num, 1), empty)
