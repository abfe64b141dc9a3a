"""One training step, from top to bottom: sample, allocate, advantage, shape, loss, update.

`step` is the whole of it; what it calls follows below, in the order of the calls. All seeds are one computation, in
float64: arrays are [S, Q, G, T], that is seeds, prompts of the batch, rollouts of a prompt, tokens of a rollout
(`toy.training.rollouts`).

Draws have no state (`toy.training.generators`) and seeds no common sums (`toy.training.per_seed`): a seed's result is
the same to the bit, alone or beside others, in one go or resumed, on the CPU with the same software. A CUDA device has
the same worlds and the same draws, which are made on the CPU; its sums are taken in an order of its own, not always the
same, so that results agree up to rounding only, until a rounding decides on a token or a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from theory import allocation
from theory.allocation import Problem, get_allocator
from theory.base import require
from theory.base.arrays import FloatArray, IntArray
from theory.losses import Scope, Shaped, TokenLoss, entropy_bonus, policy_loss
from theory.methods import Method
from theory.policy import TokenStatistics, log_softmax
from toy.training import metrics, oracles, per_seed, row_defects
from toy.training.config import TrainConfig
from toy.training.generators import Stream, generator, uniforms
from toy.training.rollouts import (
    Batch,
    Outcomes,
    Rollouts,
    judge,
    of_actions,
    of_states,
    sample,
    statistics_of,
    to_rows,
)
from toy.training.state import Setup, State

Inspect = Callable[[Batch], dict[str, FloatArray]]
"""Measures a batch before anything is learnt from it, by the policy or by the histories."""

Part = tuple[slice, slice]
"""Some of the batch's prompts, and some of their rollouts."""

WHOLE: Part = (slice(None), slice(None))


@require.trusted()
def step(setup: Setup, state: State, inspect: Inspect | None = None) -> dict[str, FloatArray]:
    """Do one step: sample, allocate, advantage, shape, loss, update.

    Returns the `STEP` metrics, each [S], and what `inspect` measures. `theory` trusts the values of tensors here: a
    policy that overflows is noticed by the norm of its gradient.
    """
    prompts = draw_prompts(setup, state.num_steps)
    rollouts = roll_out(setup, state.logits, prompts, setup.generators(Stream.ROLLOUTS, state.num_steps))
    counts = allocate(setup, state, rollouts)
    batch = with_advantages(setup, rollouts, counts)
    measured = metrics.of_batch(batch.successes, batch.sizes, batch.counts)
    if inspect is not None:
        measured |= inspect(batch)
    remember(setup, state, batch)
    updates = []
    for part, draws in minibatches(setup, batch, state.num_steps):
        gradient, values = loss_gradient(setup, state.logits, batch, part, draws)  # shape, loss
        values["gradient_norm"] = state.optimizer.step(state.logits, gradient)  # update
        updates.append(values)
    state.num_steps += 1
    return measured | {name: np.stack([values[name] for values in updates], axis=1).mean(-1) for name in updates[0]}


def loss_gradient(
    setup: Setup, logits: torch.Tensor, batch: Batch, part: Part = WHOLE, draws: torch.Tensor | None = None
) -> tuple[torch.Tensor, dict[str, FloatArray]]:
    """Return the gradient in the table, [S, R, K], of the loss on a part of the batch, and measures, each [S]."""
    tokens = under_policy(setup.config.method, logits, batch, part)
    shaped = shape(setup.config, tokens)
    total, loss = total_loss(setup.config.method, tokens, shaped.advantages, draws)
    (gradient,) = torch.autograd.grad(total, tokens.logits)
    return to_rows(gradient, batch.rows, logits), {
        "clip_fraction": per_seed.mean(loss.clipped, loss.mask, empty=0.0),
        "compensation": mean_factor(shaped, "compensation", tokens.mask & (tokens.advantages > 0)),
        "stabilization": mean_factor(shaped, "stabilization", tokens.mask & (tokens.advantages != 0)),
    }


# Sample


def draw_prompts(setup: Setup, step: int) -> IntArray:
    """Return the prompts of a step's batch, [S, Q]."""
    size, num_prompts = setup.config.batch_prompts, setup.config.world.num_prompts
    epoch, batch = divmod(step, num_prompts // size)
    return shuffled(setup.config.seeds, num_prompts, epoch)[:, batch * size : (batch + 1) * size]


@lru_cache(maxsize=1)
def shuffled(seeds: tuple[int, ...], num_prompts: int, epoch: int) -> IntArray:
    """Return every seed's order of the prompts in an epoch, [S, N]."""
    return np.stack([generator(seed, Stream.PROMPTS, epoch).permutation(num_prompts) for seed in seeds])


def roll_out(setup: Setup, logits: torch.Tensor, prompts: IntArray, rngs: list[np.random.Generator]) -> Rollouts:
    """Sample and judge as many rollouts of prompts [S, Q] as each can have at most; the budget is divided later."""
    rows, states, tokens = setup.states(prompts)
    policy = of_states(logits, rows)
    log_pi = log_softmax(policy)
    actions = sample(log_pi, states, uniforms(rngs, (*states.shape[1:], setup.config.rollouts_high)))
    correct = judge(of_states(setup.correct, rows), states, tokens, actions)
    log_prob = of_actions(log_pi, states, actions)
    return Rollouts(prompts, rows, states, tokens, policy, actions, log_prob, correct)


# Allocate


def allocate(setup: Setup, state: State, rollouts: Rollouts) -> IntArray:
    """Divide the budget by the method's rule, from each seed's own history; returns every prompt's rollouts, [S, Q]."""
    config, prompts = setup.config, rollouts.prompts
    rule = get_allocator(config.method.allocator)
    counts = np.zeros(prompts.shape, dtype=np.int64)
    for s, rng in enumerate(setup.generators(Stream.ALLOCATION, state.num_steps)):
        problem = Problem(
            *state.histories[s].counts([setup.keys[i] for i in prompts[s]]),
            config.batch_prompts * config.rollouts,
            config.rollouts_low,
            config.rollouts_high,
            oracles.knowledge(setup, state.logits, s, prompts[s]),
        )
        counts[s] = allocation.allocate(rule, problem, rng, Outcomes(rollouts.correct[s]).reveal)
    return counts


def remember(setup: Setup, state: State, batch: Batch) -> None:
    """Tell the histories how the batch's rollouts went."""
    successes = batch.successes
    if setup.config.row_defects in ("history", "both"):
        successes = row_defects.recorded(batch, setup.generators(Stream.ROW_ORDER, state.num_steps))
    for s, history in enumerate(state.histories):
        history.update([setup.keys[i] for i in batch.prompts[s]], successes[s], batch.sizes[s])


# Advantage


def with_advantages(setup: Setup, rollouts: Rollouts, counts: IntArray) -> Batch:
    """Return the rollouts that are paid for, with their advantages and the normalisers of their modulation.

    The normalisers are those of the seed's whole batch, under the policy that sampled it.
    """
    method = setup.config.method
    paid = np.arange(setup.config.rollouts_high) < counts[..., None]
    mask = setup.tensor(paid).unsqueeze(-1) & rollouts.tokens.unsqueeze(2)
    labels = np.broadcast_to(np.arange(counts.shape[1])[:, None], paid.shape).copy()
    rewarded, sizes, successes = rollouts.correct, counts, (rollouts.correct & paid).sum(-1)
    if setup.config.row_defects in ("expansion", "both"):
        labels = row_defects.labels(paid, setup.config.rollouts)
        rewarded = row_defects.judge_by_label(setup, rollouts, labels)
        sizes, successes = (row_defects.by_label(labels, each) for each in (paid, paid & rewarded))
    rows = tuple(setup.tensor(each) for each in (rewarded, paid, labels))
    advantages = group_advantages(method, *rows).unsqueeze(-1) * mask
    scope = None
    if method.shaping is not None and method.compares:
        stats = statistics_of(rollouts.logits, rollouts.states, rollouts.log_prob)
        scope = method.shaping.scope(stats, advantages, mask, axis=(1, 2, 3))
    tokens = (rollouts.rows, rollouts.states, rollouts.actions, mask, rollouts.log_prob, advantages)
    return Batch(rollouts.prompts, counts, sizes, successes, paid, labels, rewarded, *tokens, scope)


def group_advantages(method: Method, correct: torch.Tensor, paid: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the advantage of every rollout, 0 where it is not paid for, [S, Q, G]; groups are (seed, label)."""
    first = torch.arange(0, paid[..., 0].numel(), paid.shape[1], device=paid.device)
    groups = first.reshape(-1, 1, 1) + labels
    advantages = torch.zeros(paid.shape, dtype=torch.float64, device=paid.device)
    rewards = correct[paid].to(torch.float64)
    advantages[paid] = method.advantages(rewards, groups[paid], correct[paid])
    return advantages


# Shape


class Tokens(NamedTuple):
    """Tokens of a part of the batch under the current policy, [S, Q, G, T] unless stated.

    Attributes
    ----------
    logits : The policy at the batch's states, [S, U, K]; what the gradient is taken in.
    log_prob, old_log_prob : Under the current policy, and under the one that sampled.
    stats : What else the method looks at; None if nothing.
    mask, advantages, scope : As in `Batch`.
    """

    logits: torch.Tensor
    log_prob: torch.Tensor
    old_log_prob: torch.Tensor
    stats: TokenStatistics | None
    mask: torch.Tensor
    advantages: torch.Tensor
    scope: Scope | None


def minibatches(setup: Setup, batch: Batch, step: int) -> Iterator[tuple[Part, torch.Tensor | None]]:
    """Yield the parts of a batch that are learnt from one after the other, with the loss's draws for their tokens."""
    config = setup.config
    draws = None
    if config.method.loss.draws:
        rngs = setup.generators(Stream.LOSS, step)
        draws = setup.tensor(uniforms(rngs, (config.num_epochs, *batch.mask.shape[1:])))
    for epoch in range(config.num_epochs):
        for minibatch in range(config.num_minibatches):
            dealt = slice(minibatch, None, config.num_minibatches)
            part = (slice(None), dealt) if config.minibatch == "rollouts" else (dealt, slice(None))
            yield part, None if draws is None else draws[(slice(None), epoch, *part)]


def under_policy(method: Method, logits: torch.Tensor, batch: Batch, part: Part) -> Tokens:
    """Return the tokens of a part of the batch as the policy of the table `logits` has them."""
    states = batch.states[:, part[0]]
    actions, mask, old_log_prob, advantages = (
        x[(slice(None), *part)] for x in (batch.actions, batch.mask, batch.old_log_prob, batch.advantages)
    )
    policy = of_states(logits, batch.rows).requires_grad_()
    log_prob = of_actions(log_softmax(policy), states, actions)
    stats = None
    if method.needs_statistics or method.entropy_bonus:
        stats = statistics_of(policy, states, log_prob)
    return Tokens(policy, log_prob, old_log_prob, stats, mask, advantages, batch.scope)


def mean_factor(shaped: Shaped, name: str, mask: torch.Tensor) -> FloatArray:
    """Return every seed's mean of a factor of the shaping, [S]; 1 where the shaping has no such factor."""
    return per_seed.mean(shaped.factors.get(name, torch.ones_like(shaped.advantages)), mask, empty=1.0)


def shape(config: TrainConfig, tokens: Tokens) -> Shaped:
    """Return the advantages as the method shapes them."""
    method, scope = config.method, tokens.scope
    if config.normalizer_prompts is not None and method.shaping is not None and tokens.stats is not None:
        xi = method.loss.update_coefficient(tokens.log_prob, tokens.old_log_prob, tokens.advantages)
        scope = per_seed.scope_by_prompts(method.shaping, tokens.stats, xi, tokens.mask, config.normalizer_prompts)
    return method.shape(tokens.advantages, tokens.stats, tokens.mask, tokens.log_prob, tokens.old_log_prob, scope)


# Loss


def total_loss(
    method: Method, tokens: Tokens, advantages: torch.Tensor, draws: torch.Tensor | None
) -> tuple[torch.Tensor, TokenLoss]:
    """Return the sum of all seeds' losses, entropy bonus included, and the policy loss token by token."""
    given = (tokens.log_prob, tokens.old_log_prob, advantages, tokens.mask)
    selection = None
    if method.singles_out:
        entropy = None if tokens.stats is None else tokens.stats.entropy
        selection = per_seed.select(method.loss, method.token_selection, *given, entropy, draws)
    loss = policy_loss(method.loss, *given, selection=selection)
    total = (per_seed.weights(loss.mask, method.aggregation) * loss.values).sum()
    if method.entropy_bonus:
        assert tokens.stats is not None
        bonus = entropy_bonus(tokens.stats.entropy, tokens.mask, method.entropy_bonus.coefficient)
        total = total + (per_seed.weights(tokens.mask, method.aggregation) * bonus).sum()
    return total, loss
