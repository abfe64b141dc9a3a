"""The rollouts of a batch, all seeds side by side, and how its outcomes are revealed to an allocation rule.

Arrays are [S, Q, G, T]: seeds, prompts of the batch, rollouts of a prompt, tokens of a rollout (T = 1 in a bandit). G
is the most rollouts that a prompt can have and T the most tokens, constants of the config: no shape depends on what a
rule decides or a seed draws. Policies are tables of U states [S, U, K], from which a prompt's tokens [S, Q, T] take
theirs: many tokens share a state, and what belongs to a state is computed once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from theory.base.arrays import BoolArray, FloatArray, IntArray
from theory.losses import Scope
from theory.policy import TokenStatistics, token_statistics

MOST_COUNTED = 64
"""Tokens up to which counting is faster than bisection; twice as fast at this many, equal at twice as many."""

BLOCK = 150_000
"""Uniforms that are counted at a time: about what a core's cache holds. Powers of 2 would share cache lines."""


class Rollouts(NamedTuple):
    """As many rollouts of every prompt as it can have, paid for or not; [S, Q, G, T] unless stated.

    Attributes
    ----------
    prompts : The batch, [S, Q].
    rows : Rows of the table that the batch needs, its states, [S, U].
    states, tokens : State of every token of a prompt, an index into `rows`; and which tokens a prompt has; [S, Q, T].
    logits : The policy that sampled, at the states, [S, U, K].
    actions, log_prob : Sampled tokens, and their log pi.
    correct : Which rollouts are correct, [S, Q, G].
    """

    prompts: IntArray
    rows: torch.Tensor
    states: torch.Tensor
    tokens: torch.Tensor
    logits: torch.Tensor
    actions: torch.Tensor
    log_prob: torch.Tensor
    correct: BoolArray


class Batch(NamedTuple):
    """The rollouts that were paid for, as they are learnt from; [S, Q, G, T] unless stated.

    Attributes
    ----------
    prompts, counts : The prompts, and their rollouts, [S, Q].
    sizes, successes : Rollouts of the groups in which rewards are compared, and how many of these are rewarded, [S, Q];
        a prompt's own, unless rows have defects.
    paid, labels, rewarded : Which rollouts were paid for, the group that each is in, an index of prompts, and which
        are rewarded, [S, Q, G].
    rows, states, actions : As in `Rollouts`; actions where `mask` is False are those that a prompt would have got with
        more rollouts.
    mask : The tokens of rollouts that were paid for.
    old_log_prob : log pi of the actions under the policy that sampled them.
    advantages : A, before shaping; 0 outside the mask.
    scope : The modulation's normalisers, arrays [S, 1, 1, 1]; None without modulation.
    """

    prompts: IntArray
    counts: IntArray
    sizes: IntArray
    successes: IntArray
    paid: BoolArray
    labels: IntArray
    rewarded: BoolArray
    rows: torch.Tensor
    states: torch.Tensor
    actions: torch.Tensor
    mask: torch.Tensor
    old_log_prob: torch.Tensor
    advantages: torch.Tensor
    scope: Scope | None


class Outcomes:
    """The outcomes of a batch's rollouts, revealed as far as they are paid for; for one seed."""

    def __init__(self, correct: BoolArray) -> None:
        num_prompts, _ = correct.shape
        self._sums = np.concatenate([np.zeros((num_prompts, 1), dtype=np.int64), correct.cumsum(-1)], axis=-1)
        self._revealed = np.zeros(num_prompts, dtype=np.int64)

    def successes(self, counts: IntArray) -> IntArray:
        """Return the successes among the first `counts` rollouts of every prompt, [Q]."""
        return np.take_along_axis(self._sums, counts[:, None], axis=-1)[:, 0]

    def reveal(self, counts: IntArray) -> IntArray:
        """Return the successes among the next `counts` rollouts of every prompt, [Q]."""
        before = self.successes(self._revealed)
        self._revealed = self._revealed + counts
        return np.asarray(self.successes(self._revealed) - before)


def sample(log_pi: torch.Tensor, states: torch.Tensor, uniforms: FloatArray) -> torch.Tensor:
    """Sample tokens [S, Q, G, T] from log pi [S, U, K] at states [S, Q, T], by inversion of uniforms [S, Q, T, G].

    A token is the number of cumulative probabilities that its uniform number reaches, wherever that is counted: on the
    CPU, whatever the device of log pi.
    """
    cumulative = log_pi.cpu().exp().cumsum(-1)
    # The last value is 1 exactly, above every uniform; a token of probability 0 is never drawn.
    cumulative = cumulative / cumulative[..., -1:]
    if cumulative.shape[-1] <= MOST_COUNTED:
        actions = _count(cumulative.numpy(), states.cpu().numpy(), uniforms)
    else:
        bounds = of_states(cumulative, states.cpu())
        actions = torch.searchsorted(bounds, torch.from_numpy(uniforms), right=True).transpose(2, 3).contiguous()
    return actions.to(log_pi.device)


def _count(cumulative: FloatArray, states: IntArray, uniforms: FloatArray) -> torch.Tensor:
    """Return what `searchsorted` finds, by comparing all uniforms with one bound after the other, in long rows.

    Bisection mispredicts a branch at every other step; a comparison of a row does not branch.
    """
    num_seeds, num_prompts, length, size = uniforms.shape
    table = np.ascontiguousarray(cumulative.reshape(-1, cumulative.shape[-1]).T)
    rows = (np.arange(num_seeds).reshape(-1, 1, 1) * cumulative.shape[1] + states).reshape(-1)
    draws = uniforms.reshape(-1, size)
    actions = np.empty((num_seeds * num_prompts, size, length), dtype=np.int64)
    block = max(BLOCK // (size * length), 1)
    for start in range(0, len(actions), block):
        tokens = slice(start * length, (start + block) * length)
        columns, bounds = np.ascontiguousarray(draws[tokens].T), table.take(rows[tokens], axis=1)
        reached, chosen = np.empty(columns.shape, dtype=np.bool_), np.zeros(columns.shape, dtype=np.uint8)
        for bound in bounds[:-1]:
            np.greater_equal(columns, bound, out=reached)
            chosen += reached.view(np.uint8)
        actions[start : start + block] = chosen.reshape(size, -1, length).swapaxes(0, 1)
    return torch.from_numpy(actions.reshape(num_seeds, num_prompts, size, length))


def judge(correct: torch.Tensor, states: torch.Tensor, tokens: torch.Tensor, actions: torch.Tensor) -> BoolArray:
    """Return which rollouts are correct, [S, Q, G]: those with a correct action at all `tokens` [S, Q, T].

    `correct` [S, U, K] are the correct tokens of every state; `states` and `actions` are those of `of_actions`.
    """
    wrong = of_actions(~correct, states, actions).cpu().numpy()
    # On booleans, the sum of products is the any of ands.
    return np.asarray(~np.matmul(wrong, tokens.unsqueeze(-1).cpu().numpy())[..., 0])


def of_states(values: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Return values [S, U, ...] of states, such as rows of a table, at indices [S, ...]."""
    seeds = torch.arange(len(values), device=values.device).reshape(-1, *[1] * (states.ndim - 1))
    return values[seeds, states]


def to_rows(values: torch.Tensor, rows: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Add values [S, ..., K] of rows [S, ...] up to what belongs to every row of a table [S, R, K]."""
    seeds = torch.arange(len(rows), device=rows.device).reshape(-1, *[1] * (rows.ndim - 1))
    return torch.zeros_like(table).index_put_((seeds, rows), values, accumulate=True)


def of_actions(values: torch.Tensor, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Return values [S, U, K] of every token in every state at states [S, Q, T] and actions [S, Q, G, T]."""
    index = states.unsqueeze(2) * values.shape[-1] + actions
    return values.flatten(1).gather(1, index.flatten(1)).reshape(actions.shape)


def statistics_of(logits: torch.Tensor, states: torch.Tensor, log_prob: torch.Tensor) -> TokenStatistics:
    """Return the statistics of tokens [S, Q, G, T]; all but log_prob belong to their state, one of [S, U, K]."""
    every = token_statistics(logits, torch.zeros(logits.shape[:-1], dtype=torch.int64, device=logits.device))
    of_tokens = (of_states(x, states).unsqueeze(2).expand_as(log_prob) for x in every[1:])
    return TokenStatistics(log_prob, *of_tokens)
