"""toy.training.rollouts: tokens, their verdicts, and what a rule may see of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toy.training import rollouts
from toy.training.rollouts import Outcomes


@pytest.mark.parametrize(("num_tokens", "most"), [(2, 64), (16, 64), (64, 64), (65, 64), (9, 1)])
def test_tokens_are_those_that_bisection_finds(num_tokens, most, monkeypatch):
    """NumPy's search token by token, on both sides of the limit and of a block; ties and zero probabilities too."""
    monkeypatch.setattr(rollouts, "MOST_COUNTED", most)
    monkeypatch.setattr(rollouts, "BLOCK", 100)
    rng = np.random.default_rng(num_tokens)
    log_pi = torch.from_numpy(np.log(rng.dirichlet(np.full(num_tokens, 0.5), (2, 3))))
    log_pi[0, 0, 0] = -torch.inf
    cumulative = log_pi.exp().cumsum(-1)
    cumulative = (cumulative / cumulative[..., -1:]).numpy()
    states, uniforms = torch.from_numpy(rng.integers(3, size=(2, 5, 4))), rng.random((2, 5, 4, 7))
    uniforms[0, 0, 0, 0] = cumulative[0, states[0, 0, 0], 0]
    uniforms[1, 4, 3, 6] = 0.0
    found = rollouts.sample(log_pi, states, uniforms)
    assert found.dtype == torch.int64
    assert found.is_contiguous()
    for s, q, t, g in np.ndindex(uniforms.shape):
        bounds = cumulative[s, states[s, q, t]]
        assert found[s, q, g, t] == np.searchsorted(bounds, uniforms[s, q, t, g], side="right")


def test_a_rollout_is_correct_if_all_its_tokens_are():
    """Of two tokens, of which the second prompt has one only."""
    correct = torch.tensor([[[True, False], [False, True]]])
    states, tokens = torch.tensor([[[0, 1], [0, 1]]]), torch.tensor([[[True, True], [True, False]]])
    actions = torch.tensor([[[[0, 1], [0, 0], [1, 1]]] * 2])
    assert rollouts.judge(correct, states, tokens, actions).tolist() == [[[True, False, False], [True, True, False]]]


def test_outcomes_are_revealed_in_order():
    outcomes = Outcomes(np.array([[True, False, True], [False, False, True]]))
    assert outcomes.reveal(np.array([1, 2])).tolist() == [1, 0]
    assert outcomes.reveal(np.array([2, 1])).tolist() == [1, 1]
    assert outcomes.successes(np.array([2, 3])).tolist() == [1, 1]
