"""toy.training.oracles: what rules that know more than a history go by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.toy.helpers import with_rule
from theory import allocation
from theory.estimators import moments
from theory.policy.softmax import log_softmax
from toy.training import oracles
from toy.training.config import TrainConfig
from toy.training.generators import Stream
from toy.training.loop import Trainer
from toy.training.step import allocate, draw_prompts, roll_out
from toy.worlds import WORLDS


def test_oracles_know_the_prompts_of_their_batch(small):
    trainer = Trainer(with_rule(small("grpo"), "oracle-variance"))
    batch, correct = np.array([7, 2, 4]), trainer.setup.correct[1].numpy()
    probs = np.exp(log_softmax(trainer.state.logits[1].numpy()))
    found = oracles.knowledge(trainer.setup, trainer.state.logits, 1, batch)
    np.testing.assert_array_equal(found.variances, moments.single_rollout_variance(probs, correct)[batch])
    assert found.success_rates is None
    expected = moments.expected_progress(probs, correct, 12, "grpo_sample")[batch]
    for mode, weight in (("prompt-mean", 1), ("sequence-mean", np.arange(13)), ("token-mean", np.arange(13))):
        config = with_rule(small("grpo"), "oracle-progress")
        trainer = Trainer(replace(config, method=replace(config.method, aggregation=mode)))
        np.testing.assert_array_equal(
            oracles.knowledge(trainer.setup, trainer.state.logits, 1, batch).gains, expected * weight
        )


def test_true_success_rates_are_what_the_rule_goes_by():
    """The rule's counts from exact p, on a first step, where a history knows nothing."""
    config = TrainConfig.named("dynamo-only-dra", "mixed", num_seeds=2, num_steps=1, success_rates="true")
    trainer = Trainer(config)
    prompts = draw_prompts(trainer.setup, trainer.state.num_steps)
    rngs = trainer.setup.generators(Stream.ROLLOUTS, 0)
    rollouts = roll_out(trainer.setup, trainer.state.logits, prompts, rngs)
    rollouts = rollouts._replace(correct=np.zeros((2, 64, 24), dtype=bool))
    counts = allocate(trainer.setup, trainer.state, rollouts)
    for s, world in enumerate(trainer.setup.worlds):
        p = world.success_probability(world.logits)[prompts[s]]
        expected = allocation.water_level(p * (1 - p), 64 * 16, 8, 24)
        assert counts[s].tolist() == expected.tolist()
    blind = Trainer(replace(config, success_rates="history"))
    assert (allocate(blind.setup, blind.state, rollouts) == 16).all()


def test_true_success_rates_are_those_of_the_policy_as_it_is(small):
    """After steps as before them, and of the prompts that are asked for."""
    trainer = Trainer(small("dynamo", success_rates="true", num_minibatches=1))
    batch = np.array([7, 2, 4])
    for _ in range(2):
        for s in range(3):
            probs = np.exp(log_softmax(trainer.state.logits[s].numpy()))
            expected = (probs * trainer.setup.correct[s].numpy()).sum(-1)[batch]
            found = oracles.knowledge(trainer.setup, trainer.state.logits, s, batch).success_rates
            np.testing.assert_allclose(found, expected, rtol=1e-12)
        trainer.step()


@pytest.mark.parametrize("rule", ["knapsack", "neyman", "uniform", "vip"])
def test_rules_that_are_no_oracles_know_no_moments(small, rule):
    """Whatever their names are: those before "oracle" in the alphabet, and those after it."""
    trainer = Trainer(with_rule(small("grpo"), rule))
    found = oracles.knowledge(trainer.setup, trainer.state.logits, 0, np.array([7, 2, 4]))
    assert all(value is None for value in vars(found).values())


def test_a_prompts_weight_in_the_loss_is_that_of_its_rollouts_or_tokens(small):
    """Prompts of unequal length: a mean over sequences counts rollouts, one over tokens their tokens."""
    trainer = Trainer(small("grpo", replace(WORLDS["skills"], num_prompts=12, length_low=2, length_high=9)))
    batch, n = np.arange(12), np.arange(13)
    lengths = trainer.setup.worlds[1].lengths[batch, None]
    assert len(np.unique(lengths)) > 1
    expected = {"prompt-mean": 0 * lengths + 0 * n + 1, "sequence-mean": 0 * lengths + n, "token-mean": lengths * n}
    for mode, weights in expected.items():
        config = trainer.setup.config
        setup = replace(trainer.setup, config=replace(config, method=replace(config.method, aggregation=mode)))
        np.testing.assert_array_equal(oracles.loss_weights(setup, 1, batch), weights, err_msg=mode)
