"""What is known of a prompt in a tabular world only: exact success rates, and moments of the policy's gradient.

Rules that are oracles go by them; the diagnostics compare the others with them.
"""

from __future__ import annotations

import numpy as np
import torch

from theory.allocation import Knowledge
from theory.base.arrays import FloatArray, IntArray
from theory.estimators import expected_progress, implied_weight, single_rollout_variance
from theory.policy import log_softmax
from toy.training.batch_moments import estimator_name
from toy.training.state import Setup


def knowledge(setup: Setup, logits: torch.Tensor, seed_index: int, prompts: IntArray) -> Knowledge:
    """Return what only an oracle knows, for the oracle rules; for the others, true success rates if configured.

    Progress is weighted as the loss weighs prompts: with their rollouts under a mean over sequences, and with their
    tokens under a mean over tokens. The progress of a chain is that of the mean success probability of all prompts,
    w(p, n) <grad p, grad J>: a group's mean gradient is w(p, n) grad p whatever a rollout is made of, as long as
    rollouts are independent and the advantages depend on the rewards only.
    """
    method, world = setup.config.method, setup.worlds[seed_index]
    if method.allocator == "oracle-variance":
        return Knowledge(variances=variances(setup, logits, seed_index, prompts))
    if method.allocator != "oracle-progress":
        if setup.config.success_rates == "history":
            return Knowledge()
        p = world.success_probability(logits[seed_index].cpu().numpy())[prompts]
        return Knowledge(success_rates=np.minimum(p, 1.0))
    table, high = logits[seed_index].cpu().numpy(), setup.config.rollouts_high
    estimator = estimator_name(str(method.advantage))
    if world.max_length == 1:
        rows = world.rows[prompts, 0]
        gains = expected_progress(np.exp(log_softmax(table[rows])), world.correct[rows], high, estimator)
    else:
        p = np.minimum(world.success_probability(table)[prompts, None], 1.0)
        gains = implied_weight(p, np.arange(1, high + 1), estimator) * world.gradient_products(table)[prompts, None]
        gains = np.concatenate([np.zeros((len(prompts), 1)), gains], axis=-1)
    return Knowledge(gains=gains * loss_weights(setup, seed_index, prompts))


def loss_weights(setup: Setup, seed_index: int, prompts: IntArray) -> FloatArray:
    """Return what a prompt with n = 0, ... rollouts counts in the loss, up to a factor; [Q, high + 1]."""
    n = np.arange(setup.config.rollouts_high + 1.0)
    tokens = n * setup.worlds[seed_index].lengths[prompts, None]
    weights = {"prompt-mean": np.ones_like(tokens), "sequence-mean": n + 0 * tokens, "token-mean": tokens}
    return weights[setup.config.method.aggregation]


def variances(setup: Setup, logits: torch.Tensor, seed_index: int, prompts: IntArray) -> FloatArray:
    """Return the exact variance of one rollout's gradient, [Q]."""
    world, table = setup.worlds[seed_index], logits[seed_index].cpu().numpy()
    if world.max_length > 1:
        return world.single_rollout_variance(table)[prompts]
    rows = world.rows[prompts, 0]
    return single_rollout_variance(np.exp(log_softmax(table[rows])), world.correct[rows])
