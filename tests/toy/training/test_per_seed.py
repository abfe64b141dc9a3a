"""toy.training.per_seed: the batch of all seeds gives every seed what theory gives it alone, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from theory import losses
from theory.losses.aggregation import AGGREGATIONS, aggregation_weights
from theory.policy.softmax import token_statistics
from toy.training import per_seed

S, Q, G, T, K = 4, 3, 5, 2, 6


@pytest.fixture
def batch():
    """Advantages, statistics, mask, coefficient of four seeds; the last has one entropy, up to rounding, and A = 0."""
    rng = np.random.default_rng(20260222)
    logits = torch.from_numpy(rng.normal(size=(S, Q, G, T, K)) * 2)
    logits[3] = torch.from_numpy(rng.permuted(np.broadcast_to(logits[3, 0, 0, 0], (Q, G, T, K)), axis=-1))
    stats = token_statistics(logits, torch.from_numpy(rng.integers(K, size=(S, Q, G, T))))
    advantages = torch.from_numpy(rng.normal(size=(S, Q, G, T)))
    advantages[3] = 0.0
    mask = torch.from_numpy(rng.random((S, Q, G, T)) < 0.7)
    mask[:, 0, 0, 0] = True
    return advantages, stats, mask, advantages * torch.from_numpy(rng.uniform(0.5, 1.5, (S, Q, G, T)))


@pytest.mark.parametrize("mode", AGGREGATIONS)
def test_weights_of_all_seeds_are_those_of_each(batch, mode):
    mask = batch[2]
    together = per_seed.weights(mask, mode)
    prompts = torch.arange(Q).repeat_interleave(G).reshape(Q, G)
    for s in range(S):
        assert torch.equal(together[s], aggregation_weights(mask[s], mode, prompts=prompts, dtype=torch.float64))
    torch.testing.assert_close(together.sum((1, 2, 3)), torch.ones(S, dtype=torch.float64))


@pytest.mark.parametrize(
    ("loss", "fork"),
    [
        (losses.ClipCov(ratio=0.2, covariance_low=-1.0), None),
        (losses.KlCov(ratio=0.3), None),
        (losses.ClippedSurrogate(), losses.ForkTokens(0.4)),
    ],
)
def test_selection_of_all_seeds_is_that_of_each(batch, loss, fork):
    advantages, stats, mask, _ = batch
    uniforms = torch.from_numpy(np.random.default_rng(1).random(mask.shape))
    tokens = (stats.log_prob, stats.log_prob, advantages)
    together = per_seed.select(loss, fork, *tokens, mask, stats.entropy, uniforms)
    for s in range(S):
        alone = losses.select_tokens(
            loss, *(x[s] for x in tokens), mask[s], token_selection=fork, entropy=stats.entropy[s], uniforms=uniforms[s]
        )
        assert torch.equal(together.counted[s], alone.counted)
        assert torch.equal(together.targeted[s], alone.targeted)


def test_mean_counts_masked_tokens_only():
    values = torch.tensor([[[[1.0], [5.0]]], [[[2.0], [7.0]]]], dtype=torch.float64)
    mask = torch.tensor([[[[True], [True]]], [[[False], [False]]]])
    assert per_seed.mean(values, mask, empty=-1.0).tolist() == [3.0, -1.0]
