"""One rollout batch of all seeds, and how its outcomes are revealed to an allocation rule.

Arrays are [S, Q, G, T]: seeds, prompts of the batch, rollouts of a prompt, tokens of a rollout (T = 1 in a bandit). G
is the most rollouts that a prompt can have, a constant of the config: no shape depends on what a rule decides.
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
        Rows of the table that the tokens of a prompt's rollouts come from, [S, Q, T].
    actions
        Sampled answers, also where `mask` is False: what a prompt would have got with more rollouts.
    mask
        The rollouts that were paid for.
    old_log_prob
        log pi of the actions under the policy that sampled them.
    advantages
        A, before shaping; 0 outside the mask.
    scope
        The modulation's normalisers, arrays [S, 1, 1, 1]; None without modulation.
    """

    rows: torch.Tensor
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


def log_prob_of(log_pi: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Return log pi [S, Q, T, K] of the actions [S, Q, G, T]."""
    return log_pi.gather(-1, actions.transpose(2, 3)).transpose(2, 3)


def statistics_of(logits: torch.Tensor, log_prob: torch.Tensor) -> TokenStatistics:
    """Return the statistics of tokens [S, Q, G, T]; all but log_prob belong to their state, one of [S, Q, T, K]."""
    state = token_statistics(logits, torch.zeros(logits.shape[:-1], dtype=torch.int64))
    of_tokens = (x.unsqueeze(2).expand_as(log_prob) for x in state[1:])
    return TokenStatistics(log_prob, *of_tokens)
