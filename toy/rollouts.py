"""One rollout batch of all seeds, and how its outcomes are revealed to an allocation rule.

Arrays are [S, Q, G, T]: seeds, prompts of the batch, rollouts of a prompt, tokens of a rollout (T = 1 in a bandit). G
is the most rollouts that a prompt can have and T the most tokens, constants of the config: no shape depends on what a
rule decides or a seed draws. Policies are tables of U states [S, U, K], from which a prompt's tokens [S, Q, T] take
theirs: many tokens share a state, and what belongs to a state is computed once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from theory._checks import BoolArray, IntArray
from theory.modulation import Scope
from theory.softmax import TokenStatistics, token_statistics


class Rollouts(NamedTuple):
    """One rollout batch of all seeds; [S, Q, G, T] unless stated.

    Attributes
    ----------
    rows
        Rows of the table that the batch needs, its states, [S, U].
    states
        State of every token of a prompt, an index into `rows`, [S, Q, T].
    actions
        Sampled tokens, also where `mask` is False: what a prompt would have got with more rollouts.
    mask
        The tokens of rollouts that were paid for.
    old_log_prob
        log pi of the actions under the policy that sampled them.
    advantages
        A, before shaping; 0 outside the mask.
    scope
        The modulation's normalisers, arrays [S, 1, 1, 1]; None without modulation.
    """

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


def sample(log_pi: torch.Tensor, states: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Sample tokens [S, Q, G, T] from log pi [S, U, K] at states [S, Q, T], by inversion of uniforms [S, Q, T, G]."""
    cumulative = log_pi.exp().cumsum(-1)
    # The last value is 1 exactly, above every uniform; a token of probability 0 is never drawn.
    cumulative = of_states(cumulative / cumulative[..., -1:], states)
    return torch.searchsorted(cumulative, uniforms, right=True).transpose(2, 3).contiguous()


def of_states(values: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Return values [S, U, ...] of states, such as rows of a table, at indices [S, ...]."""
    seeds = torch.arange(len(values)).reshape(-1, *[1] * (states.ndim - 1))
    return values[seeds, states]


def of_actions(values: torch.Tensor, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Return values [S, U, K] of every token in every state at states [S, Q, T] and actions [S, Q, G, T]."""
    at = states.unsqueeze(2) * values.shape[-1] + actions
    return values.flatten(1).gather(1, at.flatten(1)).reshape(actions.shape)


def statistics_of(logits: torch.Tensor, states: torch.Tensor, log_prob: torch.Tensor) -> TokenStatistics:
    """Return the statistics of tokens [S, Q, G, T]; all but log_prob belong to their state, one of [S, U, K]."""
    every = token_statistics(logits, torch.zeros(logits.shape[:-1], dtype=torch.int64))
    of_tokens = (of_states(x, states).unsqueeze(2).expand_as(log_prob) for x in every[1:])
    return TokenStatistics(log_prob, *of_tokens)
