"""Two defects of DynaMO's public trainer (commit 63e5ec9), simulated: rows are matched by position, not by prompt.

A batch is a list of rows, one for each rollout that is paid for, prompt by prompt. In
`recipe/dynamo/dynamo_ray_trainer.py` of that commit

- responses are expanded by the counts of an allocation (line 387), their ground truth, group and prompt by the average
  (line 426). Both lists are equally long, so that nothing fails. With unequal counts, most rows have the ground truth
  and the group of another prompt;
- rows are then sorted over the workers (line 537). The history pairs the prompts in the new order with the outcomes in
  the old one (lines 630 to 632).

With equal counts the first one does nothing. These are facts about that commit; which code has made the paper's numbers
is not known.
"""

from __future__ import annotations

import numpy as np

from theory.base.arrays import BoolArray, IntArray
from toy.training.rollouts import Batch, Rollouts, of_states
from toy.training.state import Setup

NUM_WORKERS = 8
"""Workers over which rows are sorted: the GPUs of a node in the paper's Appendix E."""


def labels(paid: BoolArray, rollouts: int) -> IntArray:
    """Return the prompt whose ground truth and group each rollout gets, an index of the batch's prompts, [S, Q, G].

    Parameters
    ----------
    paid : Which rollouts are paid for, [S, Q, G]: `rollouts` for each of the Q prompts on average, exactly.
    rollouts : Rows into which each prompt's ground truth is expanded, >= 1.

    Examples
    --------
    >>> labels(np.array([[[True, False, False], [True, True, True]]]), 2).tolist()
    [[[0, 0, 0], [0, 1, 1]]]
    """
    num_seeds, num_prompts, _ = paid.shape
    flat = paid.reshape(num_seeds, -1)
    if (flat.sum(-1) != num_prompts * rollouts).any():
        raise ValueError(f"row_defects: expected {num_prompts * rollouts} rollouts a step, got {flat.sum(-1)}")
    place = np.clip(flat.cumsum(-1) - 1, 0, None)
    return np.asarray(place // rollouts).reshape(paid.shape)


def judge_by_label(setup: Setup, rollouts: Rollouts, labels: IntArray) -> BoolArray:
    """Return which rollouts are correct by the ground truth of the prompts that they are labelled with, [S, Q, G].

    A chain is compared token by token; one that ends before the ground truth does is wrong.
    """
    seeds = np.arange(len(labels)).reshape(-1, 1, 1)
    states, tokens = rollouts.states.cpu().numpy(), rollouts.tokens.cpu().numpy()
    correct = of_states(setup.correct, rollouts.rows).cpu().numpy()
    right = correct[seeds[..., None], states[seeds, labels], rollouts.actions.cpu().numpy()]
    return np.asarray(((right & tokens[:, :, None]) | ~tokens[seeds, labels]).all(-1))


def by_label(labels: IntArray, counted: BoolArray) -> IntArray:
    """Return how many of the rollouts that are `counted` have each label; both [S, Q, G], the result [S, Q]."""
    num_prompts = labels.shape[1]
    pairs = zip(labels, counted, strict=True)
    return np.stack([np.bincount(each[counts], minlength=num_prompts) for each, counts in pairs])


def recorded(batch: Batch, generators: list[np.random.Generator]) -> IntArray:
    """Return the successes that a history gets for each prompt when outcomes stay in place and rows do not, [S, Q]."""
    found = np.zeros_like(batch.successes)
    for s, rng in enumerate(generators):
        own, outcomes = batch.labels[s][batch.paid[s]], batch.rewarded[s][batch.paid[s]]
        found[s] = np.bincount(own[sorted_over_workers(len(own), rng)][outcomes], minlength=found.shape[1])
    return found


def sorted_over_workers(num_rows: int, rng: np.random.Generator) -> IntArray:
    """Return the rows in their new order: each worker gets equally many, in their old order.

    The trainer balances the lengths of responses over the workers; here it is chance who gets what.
    """
    shares = np.array_split(rng.permutation(num_rows), NUM_WORKERS)
    return np.concatenate([np.sort(share) for share in shares])
