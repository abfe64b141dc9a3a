"""A step of every method on chains so small that all batches can be enumerated: the exact expectation.

`plain_update` is one pass over a batch, written down token by token, from `theory` alone: no seeds side by side, no
shared states, no arrays over rollouts that were not paid for.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.toy.helpers import watched_step
from theory import losses
from theory.losses import scope_of
from theory.losses.aggregation import aggregation_weights
from theory.losses.modulation import Modulation, instability, modulate
from theory.methods import METHODS
from theory.policy.entropy_change import update_coefficient
from theory.policy.softmax import log_softmax, token_statistics
from toy.training.config import OptimizerConfig, TrainConfig
from toy.training.generators import Stream, generator
from toy.training.loop import Trainer
from toy.training.step import draw_prompts
from toy.worlds import LogisticNormal, SkillChainPopulation, World

LAW = SkillChainPopulation(
    num_prompts=2, num_skills=2, num_decisions=1, num_tokens=2, num_accepted=1, length_low=1, length_high=2,
    decision_share=0.5, concentration_low=1.0, concentration_high=1.0, difficulty=LogisticNormal(mean=0.0, std=1.0),
)  # fmt: skip
TINY = World(
    np.log([[0.35, 0.65], [0.8, 0.2]]), np.array([[True, False], [True, True]]), ("a", "b"),
    rows=np.array([[0, 1], [0, 0]]), lengths=np.array([2, 1]),
)  # fmt: skip
NUM, EPOCHS, RATE = 3, 2, 4.0


def tiny_trainer(method, num_seeds):
    """All seeds in `TINY`: prompt a is a decision and a filler, prompt b the same decision; two passes on a batch."""
    sizes = {"batch_prompts": 2, "rollouts": NUM, "rollouts_low": NUM, "rollouts_high": NUM, "num_minibatches": 1}
    config = replace(
        TrainConfig.named(method, "skills", num_seeds=num_seeds, num_epochs=EPOCHS, num_steps=1),
        world=LAW,
        optimizer=OptimizerConfig(learning_rate=RATE, max_grad_norm=None),
        **sizes,
    )
    trainer = Trainer(config)
    trainer.state.logits[:] = torch.from_numpy(TINY.logits)
    trainer.setup.correct[:] = torch.from_numpy(TINY.correct)
    trainer.setup.rows[:] = torch.from_numpy(TINY.rows)
    trainer.setup.tokens[:] = torch.from_numpy(TINY.mask)
    return trainer


def plain_update(method, table, old, tokens, uniforms):
    """One pass over `tokens`: rows, actions, mask and advantages, each [rollouts, 2]; returns table and targets."""
    rows, actions, mask, advantages = tokens
    prompts = torch.arange(2).repeat_interleave(NUM)
    old_stats = token_statistics(old[rows], actions)
    leaf = table.clone().requires_grad_()
    stats = token_statistics(leaf[rows], actions)
    clips = (1.0, losses.LARGEST_CLIP)
    if not isinstance(method.loss, losses.KlCov):
        clips = (method.loss.clip_low, method.loss.clip_high)
    shaped = advantages
    if isinstance(method.shaping, Modulation):
        scope = scope_of(old_stats, instability(old_stats, advantages, mask), mask)
        xi = update_coefficient(advantages, (stats.log_prob.detach() - old_stats.log_prob).exp(), *clips)
        shaped = modulate(advantages, stats, mask, method.shaping, coefficient=xi, scope=scope).advantages
    elif method.shaping is not None:
        shaped = losses.entropy_advantages(
            advantages, stats.entropy, alpha=method.shaping.alpha, kappa=method.shaping.kappa
        )
    given = {"token_selection": method.token_selection, "entropy": stats.entropy, "uniforms": uniforms}
    inputs = (method.loss, stats.log_prob, old_stats.log_prob, shaped, mask)
    loss = losses.policy_loss(*inputs, **given)
    total = (
        aggregation_weights(loss.mask, method.aggregation, prompts=prompts, dtype=torch.float64) * loss.values
    ).sum()
    if method.entropy_bonus:
        bonus = losses.entropy_bonus(stats.entropy, mask, method.entropy_bonus.coefficient)
        total = (
            total + (aggregation_weights(mask, method.aggregation, prompts=prompts, dtype=torch.float64) * bonus).sum()
        )
    total.backward()
    with torch.no_grad():
        targeted = losses.select_tokens(*inputs, **given).targeted
    return table - RATE * leaf.grad, targeted


def tokens_of(method, order, rollouts):
    """Rows, actions, mask and advantages, each [6, 2], of three rollouts of each prompt in some order."""
    rows = torch.from_numpy(np.repeat(TINY.rows[list(order)], NUM, axis=0))
    mask = torch.from_numpy(np.repeat(TINY.mask[list(order)], NUM, axis=0))
    actions = torch.tensor([(*tokens, 0)[:2] for tokens in rollouts])
    right = (torch.from_numpy(TINY.correct)[rows, actions] | ~mask).all(-1)
    advantages = method.advantages(right.double(), torch.arange(2).repeat_interleave(NUM), right)
    return rows, actions, mask, advantages.unsqueeze(-1) * mask


def batches(ordered):
    """Every batch: probability, order of the prompts, three rollouts of each; one of all orders unless `ordered`."""
    pi = np.exp(log_softmax(TINY.logits))
    laws = [
        {tokens: pi[0, tokens[0]] * pi[1, tokens[1]] for tokens in itertools.product(range(2), repeat=2)},
        {(token,): pi[0, token] for token in range(2)},
    ]
    for order in [(0, 1), (1, 0)] if ordered else [(0, 1)]:
        groups = []
        for law in (laws[i] for i in order):
            if ordered:
                groups.append(
                    [(math.prod(law[x] for x in group), group) for group in itertools.product(law, repeat=NUM)]
                )
                continue
            groups.append([])
            for group in itertools.combinations_with_replacement(law, NUM):
                repeats = math.prod(math.factorial(num) for num in Counter(group).values())
                weight = math.factorial(NUM) / repeats * math.prod(law[x] for x in group)
                groups[-1].append((weight, group))
        for (first, one), (second, other) in itertools.product(*groups):
            yield first * second / (2 if ordered else 1), order, [*one, *other]


def expected_table(method, table, old, tokens, passes):
    """Mean table after the passes; Clip-Cov's choice, uniform among its candidates, is enumerated."""
    if passes == 0:
        return table
    mask = tokens[2]
    every = [torch.full(mask.shape, 0.5, dtype=torch.float64)]
    if isinstance(method.loss, losses.ClipCov):
        every = [torch.ones(mask.shape, dtype=torch.float64) for _ in range(mask.numel())]
        for i, uniforms in enumerate(every):
            uniforms.view(-1)[i] = 0.0
    found = {}
    for uniforms in every:
        after, targeted = plain_update(method, table, old, tokens, uniforms)
        found[tuple(targeted.flatten().tolist())] = after
        if isinstance(method.loss, losses.ClipCov) and not targeted.any():
            break
    return sum(expected_table(method, after, old, tokens, passes - 1) for after in found.values()) / len(found)


@pytest.mark.parametrize(
    ("name", "aggregation"),
    [(name, "token-mean") for name in METHODS]
    + [(name, mode) for name in ("grpo", "w-reinforce", "dynamo") for mode in ("sequence-mean", "prompt-mean")],
)
def test_a_step_of_every_method_is_that_of_the_enumeration(name, aggregation):
    """Mean change of the table over 600 seeds against the exact mean over all batches, within 4 standard errors.

    And 20 of the seeds one by one, to rounding. The second pass is off-policy, so that clips, penalties, entropies and
    the modulation's ratios take part. The order of a batch matters to fork-tokens only: tokens of one row have one
    entropy, and of these ties it takes the first.
    """
    method = replace(METHODS[name], aggregation=aggregation)
    num_seeds = 600
    trainer = tiny_trainer(name, num_seeds)
    trainer.setup = replace(trainer.setup, config=replace(trainer.setup.config, method=method))
    old = torch.from_numpy(TINY.logits)
    prompts = draw_prompts(trainer.setup, trainer.state.num_steps)
    batch, _ = watched_step(trainer)
    moved = (trainer.state.logits - old).numpy()

    uniforms = torch.full((EPOCHS, 2, NUM, 2), 0.5, dtype=torch.float64)
    for s in range(20):
        tokens = tokens_of(method, prompts[s], batch.actions[s].reshape(-1, 2).tolist())
        if isinstance(method.loss, losses.ClipCov):
            uniforms = torch.from_numpy(generator(s, Stream.LOSS, 0).random((EPOCHS, 2, NUM, 2)))
        table = old
        for epoch in range(EPOCHS):
            table, _ = plain_update(method, table, old, tokens, uniforms[epoch].reshape(-1, 2))
        np.testing.assert_allclose(trainer.state.logits[s], table, rtol=1e-10, atol=1e-12)

    exact, total = torch.zeros_like(old), 0.0
    for weight, order, rollouts in batches(ordered=method.token_selection is not None):
        total += weight
        after = expected_table(method, old, old, tokens_of(method, order, rollouts), EPOCHS)
        exact += weight * (after - old)
    assert abs(total - 1.0) < 1e-12
    error = moved.std(0, ddof=1) / np.sqrt(num_seeds)
    assert (np.abs(moved.mean(0) - exact.numpy()) < 4 * error + 1e-12).all()
    assert np.abs(exact.numpy()[0]).max() > 4 * error[0].max()
