"""Made logs and groups, which the tests of replay, of estimates and of intervals draw."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from theory.allocation import Problem, allocate, get_allocator, past_counts, replay

counts = st.lists(st.integers(-1, 12), min_size=0, max_size=6)
seeds = st.integers(0, 2**32 - 1)


def log_of(rng, num_steps=6, num_prompts=12, size=5, n=6):
    """Return step, prompt, successes, attempts of a made log with drifting success rates."""
    p = rng.random(num_prompts)
    rows = [(t, i) for t in range(num_steps) for i in rng.choice(num_prompts, size, replace=False)]
    step, prompt = np.array(rows).T
    return step, prompt, rng.binomial(n, np.clip(p[prompt] + 0.02 * step, 0, 1)), np.full(step.size, n)


@st.composite
def groups(draw, most=10):
    """Draw lists of k and n, and a list of the same length."""
    n = draw(st.lists(st.integers(1, most), min_size=1, max_size=6))
    k = [draw(st.integers(0, x)) for x in n]
    m = draw(st.lists(st.integers(1, 3 * most), min_size=len(n), max_size=len(n)))
    return k, n, m


class Run(NamedTuple):
    """A log whose success rates are known: step, prompt, successes, attempts and rate of each group."""

    step: np.ndarray
    prompt: np.ndarray
    successes: np.ndarray
    attempts: np.ndarray
    rate: np.ndarray

    def kept(self, keep):
        """Return the log of some groups."""
        return Run(*(x[keep] for x in self))


LAWS = {"bathtub": (0.7, 0.7), "flat": (1.0, 1.0), "hard": (0.5, 2.0), "solved": (0.3, 0.3)}
"""Parameters of the Beta law of a run's first success rates."""


def made_run(rng, num_prompts, visits, n, rule="uniform", drift=0.0, law="bathtub"):
    """Return a run in half epochs, whose steps are allocated in [n/2, 3n/2] by a rule that sees the run's own past.

    Log-odds change by drift (1.2 + 2.8 z) over the run, z normal for each prompt.
    """
    odds = rng.beta(*LAWS[law], num_prompts)
    odds = np.log(np.clip(odds, 1e-9, 1)) - np.log(np.clip(1 - odds, 1e-9, 1))
    slope = drift * rng.normal(1.2, 2.8, num_prompts)
    size, steps = num_prompts // 2, 2 * visits
    prompt = np.concatenate([rng.permutation(num_prompts) for _ in range(visits)]).reshape(steps, size)
    rate = 1 / (1 + np.exp(-odds[prompt] - slope[prompt] * np.arange(steps)[:, None] / steps))
    attempts, successes = np.zeros((2, steps, size), dtype=np.int64)
    past = np.zeros((2, num_prompts))
    for t, batch in enumerate(prompt):
        problem = Problem(*past[:, batch], n * size, *bounds(n))
        attempts[t] = allocate(get_allocator(rule), problem, rng)
        successes[t] = rng.binomial(attempts[t], rate[t])
        past[:, batch] += successes[t], attempts[t]
    step = np.repeat(np.arange(steps), size)
    return Run(step, *(x.reshape(-1) for x in (prompt, successes, attempts, rate)))


def bounds(n):
    """Return the audit's bounds for groups of n on average."""
    return max(2, n // 2), -(-3 * n // 2)


def replayed(run, n, rule, rng):
    """Return the groups in steps with a history, their pasts, and the sizes under a rule and under uniform."""
    past = np.stack(past_counts(*run[:4]))
    rows = np.isin(run.step, np.unique(run.step[past[1] > 0]))
    part, past = run.kept(rows), past[:, rows]
    sizes = [
        replay(get_allocator(name), part.step, *past, part.attempts, *bounds(n), rng) for name in (rule, "uniform")
    ]
    return part, past, *sizes


def true_ratio(rate, sizes, others, estimator):
    """Return the exact ratio of two noises, for groups of equal weight."""
    p, q = rate, 1 - rate
    if estimator == "grpo":
        above, below = ((1 - p**x - q**x) / x for x in (sizes, others))
    else:
        lost = 1 if estimator == "rloo" else 0
        above, below = (p * q / (x - lost) for x in (sizes, others))
    return above.sum() / below.sum()
