"""theory.claims.entropy_change: what (28) leaves out of a group's change, against formulas by hand."""

from __future__ import annotations

import numpy as np
import pytest

from theory.claims.entropy_change import _random_contexts, _two_contexts


def test_contexts_by_reward_leave_out_what_the_count_of_correct_responses_says():
    """Mean of A E_pi[pi Lambda] over 16 responses, k correct: sqrt(15/16 k (16 - k))/16 of the peaked context's."""
    kept, whole = _two_contexts(np.random.default_rng(0), by_reward=True)
    pi = np.array([0.8, *np.full(255, 0.2 / 255)])
    expected = float(pi**2 @ (np.log(pi) - pi @ np.log(pi)))
    k = np.arange(17)
    possible = np.sqrt(15 / 16 * k * (16 - k)) / 16 * expected
    assert np.abs((whole - kept)[:, None] - possible).min(axis=1).max() < 1e-6
    # Tokens are drawn on-policy, so that the mean change is 0: 40,000 groups of standard deviation .075.
    assert abs(whole.mean()) < 0.002
    assert kept.mean() == pytest.approx(-(whole - kept).mean(), abs=0.002)


@pytest.mark.parametrize(
    "parts",
    [
        lambda rng: _two_contexts(rng, by_reward=False),
        lambda rng: np.concatenate([_random_contexts(rng, 64, 0.3, 10.0) for _ in range(4)], axis=1),
    ],
)
def test_tokens_that_decide_nothing_never_leave_out_more_than_is_kept(parts):
    """The left-out part is minus the mean of the kept one given the contexts, so that squares add up."""
    kept, whole = parts(np.random.default_rng(1))
    assert np.mean((whole - kept) ** 2) + np.mean(whole**2) == pytest.approx(np.mean(kept**2), rel=0.1)
