"""Made logs and groups, which the tests of replay, of estimates and of intervals draw."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

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
