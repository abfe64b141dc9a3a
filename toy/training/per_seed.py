"""Functions of `theory` that look at one batch, applied to the batches of all seeds at once.

Arrays are [S, Q, G, T]: seeds, prompts of the batch, rollouts of a prompt, tokens of a rollout (T = 1 in a bandit).
A seed's tokens compete with each other, never with another seed's: no result depends on which seeds run beside it.
"""

from __future__ import annotations

import numpy as np
import torch

from theory.base.arrays import FloatArray
from theory.losses import ForkTokens, Loss, Scope, Selection, Shaping, aggregation_weights, select_tokens
from theory.policy import TokenStatistics


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
    """Return `theory.losses.aggregation_weights` of every seed's tokens, [S, Q, G, T]."""
    _, num_prompts, num_rollouts, _ = mask.shape
    prompts = torch.arange(num_prompts, device=mask.device).unsqueeze(-1).expand(num_prompts, num_rollouts)
    return torch.stack([aggregation_weights(m, mode, prompts=prompts, dtype=torch.float64) for m in mask])


def scope_by_prompts(
    shaping: Shaping, stats: TokenStatistics, coefficient: torch.Tensor, mask: torch.Tensor, num_prompts: int
) -> Scope:
    """Return the shaping's extremes over every `num_prompts` consecutive prompts of every seed, [S, Q, 1, 1]."""
    num_seeds, size, *rest = mask.shape

    def in_blocks(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(num_seeds, size // num_prompts, num_prompts, *rest)

    blocks = TokenStatistics(*(in_blocks(x.detach()) for x in stats))
    scope = shaping.scope(blocks, in_blocks(coefficient), in_blocks(mask), axis=(2, 3, 4))
    fields = (scope.entropy_min, scope.entropy_max, scope.instability_max)
    return Scope(*(torch.as_tensor(x).repeat_interleave(num_prompts, 1).reshape(num_seeds, size, 1, 1) for x in fields))


def mean(values: torch.Tensor, mask: torch.Tensor, *, empty: float) -> FloatArray:
    """Return every seed's mean of `values` over its masked tokens, [S]; `empty` where there are none."""
    num = mask.flatten(1).sum(-1).cpu().numpy()
    # In NumPy: torch splits a long sum over its threads, which would change the last bits.
    total = np.where(mask.cpu(), values.cpu(), 0.0).reshape(len(mask), -1).sum(-1)
    return np.where(num > 0, total / np.maximum(num, 1), empty)
