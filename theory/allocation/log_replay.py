"""A log of rollouts replayed: what was known before each group, and what a rule would have given it.

A log has groups: at step t prompt i got n rollouts, of which k were correct. A rule is replayed by giving it what was
known before each step (`past_counts`, `replay`), and its m rollouts are judged by that step's own (k, n), as in
`theory.allocation.log_estimates`. As long as n was fixed before the rewards of the step were seen, k is a binomial draw
given the past, so that an unbiased estimate from (k, n) stays unbiased after multiplication by whatever the rule made
of the past. Judging by success rates that are pooled over the log, or that the rule has seen, does not: a rule then
profits from the noise it has adapted to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.allocation.rules import Allocator, Problem, allocate, spends_in_rounds
from theory.base import require
from theory.base.arrays import FloatArray, IntArray


def past_counts(
    steps: Any, prompts: Any, successes: Any, attempts: Any, discount: float = 1.0
) -> tuple[FloatArray, FloatArray]:
    """Successes and attempts of each group's prompt before the group's step: what `SuccessHistory` would have known.

    (K, G) <- discount (K, G) + (k, n) at each visit of the prompt, read before the visit.

    Parameters
    ----------
    steps, prompts : Integers >= 0, [G], in any order; a prompt has at most one group per step.
    successes, attempts : k and n of each group, integers, [G], 0 <= k <= n.
    discount : Factor on old counts, in [0, 1].

    Returns
    -------
    tuple of FloatArray : K and G, each [G]; 0 at a prompt's first visit.

    Examples
    --------
    >>> past_counts([1, 1, 2], [0, 1, 0], [3, 0, 4], [4, 4, 4])
    (array([0., 0., 3.]), array([0., 0., 4.]))
    """
    t, i = require.integer_vector("steps", steps), require.integer_vector("prompts", prompts)
    k, n = require.groups(successes, attempts)
    require.same_shape(attempts=n, steps=t, prompts=i)
    discount = require.in_range("discount", discount, 0.0, 1.0)
    order = np.lexsort((i, t))
    same = (np.diff(t[order]) == 0) & (np.diff(i[order]) == 0)
    if same.any():
        row = order[int(np.argmax(same))]
        raise ValueError(f"prompts: expected a prompt once per step, got {i[row]} twice in step {t[row]}")
    _, i = np.unique(i, return_inverse=True)
    new = np.stack([k, n]).astype(np.float64)
    past, counts = np.zeros(new.shape), np.zeros((2, int(i.max()) + 1))
    for rows in _by_step(t, order):
        past[:, rows] = counts[:, i[rows]]
        counts[:, i[rows]] = discount * past[:, rows] + new[:, rows]
    return past[0], past[1]


def replay(
    rule: Allocator,
    steps: Any,
    past_successes: Any,
    past_attempts: Any,
    attempts: Any,
    low: int,
    high: int,
    rng: np.random.Generator,
) -> IntArray:
    """Rollouts that a rule would have given to each group, at the cost of each step in the log.

    Parameters
    ----------
    rule : A rule that decides before the first rollout. One in rounds cannot be replayed: it asks for outcomes of the
        step itself, more of them than the log may hold, and the group it stops at would judge itself.
    steps : Integers >= 0, [G]. Rules place ties and remainders by the order of a step's groups, so it must not know
        their rewards.
    past_successes, past_attempts : What was known of each group's prompt before, [G]: `past_counts`.
    attempts : Rollouts of the log, integers >= 1, [G]; their sum over a step is the rule's budget.
    low, high : Bounds on a prompt's rollouts.
    rng : For rules that draw.

    Returns
    -------
    IntArray : Counts, [G]; the sum over each step is the log's.

    Raises
    ------
    ValueError
        If a step's budget does not fit the bounds, or the rule breaks its contract (`allocate`).

    Examples
    --------
    >>> from theory.allocation.rules import Neyman
    >>> rng = np.random.default_rng(0)
    >>> replay(Neyman(), [1, 1, 1], [0, 4, 1], [8, 8, 8], [6, 6, 6], 3, 9, rng).tolist()
    [3, 9, 6]
    """
    if spends_in_rounds(rule):
        raise ValueError(f"rule: expected one that decides before the first rollout, got {rule.name}")
    t, n = require.integer_vector("steps", steps), require.integer_vector("attempts", attempts, minimum=1)
    k, g = require.vector("past_successes", past_successes), require.vector("past_attempts", past_attempts)
    require.same_shape(steps=t, attempts=n, past_successes=k, past_attempts=g)
    counts = np.zeros(n.size, dtype=np.int64)
    for rows in _by_step(t, np.argsort(t, kind="stable")):
        try:
            counts[rows] = allocate(rule, Problem(k[rows], g[rows], int(n[rows].sum()), low, high), rng)
        except ValueError as error:
            raise ValueError(f"{error} (step {t[rows[0]]})") from error
    return counts


def _by_step(steps: IntArray, order: IntArray) -> list[IntArray]:
    """Split the rows, in an order by step, at the ends of the steps."""
    return np.split(order, np.flatnonzero(np.diff(steps[order])) + 1)
