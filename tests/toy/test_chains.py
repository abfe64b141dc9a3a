"""Training on skill chains: bits, neutral settings, weights of tokens, oracles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.toy.helpers import assert_same, watched_step, with_rule
from theory import losses
from theory.estimators import WReinforce, moments
from theory.losses.aggregation import AGGREGATIONS
from theory.losses.modulation import Modulation
from theory.methods import METHODS
from theory.policy.softmax import log_softmax
from toy.training import metrics, oracles
from toy.training.config import OptimizerConfig
from toy.training.loop import Trainer, train
from toy.training.step import draw_prompts
from toy.worlds import WORLDS

SKILLS = replace(WORLDS["skills"], num_skills=12, num_decisions=6, length_low=2, length_high=5)


@pytest.fixture
def skills(small):
    """Make small configs in a world of 12 prompts over 12 skills."""

    def make(method="dynamo", **fields):
        return small(method, replace(SKILLS, num_prompts=12), **fields)

    return make


# Bits


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_chains_and_repeats_to_the_bit(method, skills):
    run = train(skills(method))
    for name in (*metrics.POLICY, *metrics.STEP):
        assert np.isfinite(run.metrics[name][:, 1:]).all(), name
    assert (run.logits != Trainer(skills(method)).state.logits.numpy()).any()
    assert_same(run, train(skills(method)))


def test_dynamo_without_allocation_and_modulation_is_grpo(skills):
    off = replace(METHODS["dynamo"], allocator="uniform", shaping=Modulation(alpha=0.0))
    assert_same(train(replace(skills(), method=off)), train(skills("grpo")))


NEUTRAL = {
    "clip-higher": {"loss": METHODS["grpo"].loss},
    "entropy-loss": {"entropy_bonus": losses.EntropyBonus(0.0)},
    "fork-tokens": {"token_selection": losses.ForkTokens(1.0), "loss": METHODS["grpo"].loss},
    "entropy-advantages": {"shaping": losses.EntropyAdvantages(alpha=0.0), "loss": METHODS["grpo"].loss},
    # A band that no covariance reaches, and the clip of GRPO.
    "clip-cov": {"loss": losses.ClipCov(covariance_low=1e6, covariance_high=2e6, clip_low=0.2, clip_high=0.2)},
    "kl-cov": {"loss": losses.KlCov(coefficient=0.0)},
    "dynamo-only-gc": {"shaping": Modulation(alpha=0.0)},
    "dynamo-only-ums": {"shaping": Modulation(alpha=0.0)},
    "dynamo-only-dra": {"allocator": "uniform"},
}


@pytest.mark.parametrize("world", ["mixed", "skills"])
@pytest.mark.parametrize("name", NEUTRAL)
def test_each_baseline_is_grpo_at_its_neutral_setting(name, world, small, skills):
    """To the bit; GRPO has the clip of the baseline where that has none: no dual clip, or (KL-Cov) no clip at all."""
    make = skills if world == "skills" else small
    neutral = replace(METHODS[name], **NEUTRAL[name])
    clip = METHODS["grpo"].loss
    if name in ("clip-cov", "kl-cov"):
        clip = losses.ClippedSurrogate(*((0.2, 0.2) if name == "clip-cov" else (1.0, losses.LARGEST_CLIP)))
    grpo = replace(METHODS["grpo"], loss=clip)
    steps = OptimizerConfig(learning_rate=30.0)  # Large enough for clips to matter.
    one, other = (train(replace(make("grpo", optimizer=steps), method=method)) for method in (neutral, grpo))
    assert_same(one, other)
    if name != "kl-cov":
        assert one.metrics["clip_fraction"][:, 1:].max() > 0.0
    if "shaping" not in NEUTRAL[name] or name == "entropy-advantages":
        plain = train(replace(make("grpo", optimizer=steps), method=METHODS[name]))
        assert name == "dynamo-only-dra" or name == "clip-cov" or (plain.logits != one.logits).any()


def test_w_reinforce_of_weight_one_is_reinforce_of_rewards_one_and_minus_one(skills):
    """Its neutral point is plain REINFORCE, not GRPO: A = R - (1 - R) has no group."""
    method = replace(METHODS["w-reinforce"], advantage=WReinforce(1.0))
    batch, _ = watched_step(Trainer(replace(skills(), method=method)))
    other, _ = watched_step(Trainer(replace(skills(), method=replace(method, advantage="reinforce"))))
    assert torch.equal(batch.advantages[batch.mask], 2 * other.advantages[batch.mask] - 1)


@pytest.mark.parametrize("method", ["dynamo", "clip-cov", "fork-tokens", "entropy-loss"])
def test_a_seed_of_chains_does_not_depend_on_its_neighbours(method, skills):
    config = skills(method, num_seeds=4, num_steps=4, minibatch="prompts", num_minibatches=3)
    together = train(config)
    for first, num in ((0, 1), (2, 2)):
        alone = train(replace(config, first_seed=first, num_seeds=num))
        np.testing.assert_array_equal(alone.logits, together.logits[first : first + num])
        for name, values in alone.metrics.items():
            np.testing.assert_array_equal(values, together.metrics[name][first : first + num], err_msg=name)


@pytest.mark.parametrize("minibatch", ["rollouts", "prompts"])
def test_chains_resume_to_the_same_bits(minibatch, skills, tmp_path):
    config = skills(minibatch=minibatch, num_steps=6)
    train(replace(config, num_steps=3), out=tmp_path)
    assert_same(train(config, out=tmp_path), train(config))


def test_threads_change_no_bit_of_chains(skills):
    config = replace(skills(num_seeds=2, num_steps=2), world=replace(SKILLS, num_prompts=300), batch_prompts=300)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(train(config))
    finally:
        torch.set_num_threads(before)
    assert_same(*found)


@pytest.mark.parametrize("method", ["grpo", "dynamo"])
def test_chains_are_learnt(method, skills):
    run = train(skills(method, num_steps=20))
    first, last = run.metrics["pass_at_1"][:, 0], run.metrics["pass_at_1"][:, -1]
    assert (last > first + 0.1).all()
    decisions, fillers = (run.metrics[f"entropy_{kind}"] for kind in ("decisions", "fillers"))
    assert (decisions[:, -1] < decisions[:, 0] - 0.1).all()
    assert np.abs(fillers[:, -1] - fillers[:, 0]).mean() < 0.5 * (decisions[:, 0] - decisions[:, -1]).mean()


def test_metrics_of_the_policy_are_exact(skills):
    """Against `World`, and entropies token by token."""
    trainer = Trainer(skills("grpo"))
    trainer.step()
    found = trainer.result()
    for s, world in enumerate(trainer.setup.worlds):
        logits = trainer.state.logits[s].numpy()
        p = world.success_probability(logits)
        np.testing.assert_allclose(found["pass_at_1"][s, -1], p.mean(), rtol=1e-12)
        np.testing.assert_allclose(found["pass_at_32"][s, -1], (1 - (1 - p) ** 32).mean(), rtol=1e-9)
        log_pi = log_softmax(logits)
        entropies = -(np.exp(log_pi) * log_pi).sum(-1)
        tokens = [row for rows, length in zip(world.rows, world.lengths, strict=True) for row in rows[:length]]
        for name, rows in (
            ("entropy", tokens),
            ("entropy_decisions", [row for row in tokens if row < 6]),
            ("entropy_fillers", [row for row in tokens if row >= 6]),
        ):
            np.testing.assert_allclose(found[name][s, -1], entropies[rows].mean(), rtol=1e-12)


def test_rows_that_no_paid_token_touches_stay_put(skills):
    trainer = Trainer(skills("grpo"))
    before = trainer.state.logits.clone()
    batch, _ = watched_step(trainer)
    for s in range(3):
        used = set(batch.rows[s][batch.states[s]][batch.mask[s].any(1)].tolist())
        moved = set(np.flatnonzero((trainer.state.logits[s] != before[s]).any(-1)))
        assert moved <= used
        assert moved


# Aggregation, mini-batches


@pytest.mark.parametrize("mode", AGGREGATIONS)
def test_aggregation_decides_what_a_long_chain_weighs(mode, skills):
    """With one mini-batch the update is the weighted sum of the groups' gradients: weights by hand."""
    config = skills("grpo", num_minibatches=1, optimizer=OptimizerConfig(learning_rate=1.0, max_grad_norm=None))
    config = replace(config, method=replace(config.method, aggregation=mode, allocator="reinforce-ada"))
    trainer = Trainer(config)
    before, prompts = trainer.state.logits.clone(), draw_prompts(trainer.setup, trainer.state.num_steps)
    batch, _ = watched_step(trainer)
    for s in range(3):
        pi = log_softmax(before[s]).exp()
        n, lengths = batch.mask[s, :, :, 0].sum(-1), trainer.setup.tokens[s][prompts[s]].sum(-1)
        expected = torch.zeros_like(before[s])
        for q, g in np.ndindex(6, 12):
            if batch.mask[s, q, g, 0]:
                weight = {
                    "token-mean": 1 / float((n * lengths).sum()),
                    "sequence-mean": 1 / float(n.sum() * lengths[q]),
                    "prompt-mean": 1 / float((n > 0).sum() * n[q] * lengths[q]),
                }[mode]
                for t in range(int(lengths[q])):
                    row, token = int(batch.rows[s, batch.states[s, q, t]]), int(batch.actions[s, q, g, t])
                    score = -pi[row]
                    score[token] += 1.0
                    expected[row] += weight * batch.advantages[s, q, g, t] * score
        torch.testing.assert_close(trainer.state.logits[s] - before[s], expected, rtol=1e-9, atol=1e-12)


def test_minibatches_of_prompts_share_out_the_batch(skills):
    """With tiny steps and prompt-mean, updates of three parts of two prompts add up to three times the whole's."""
    moved = {}
    for num in (1, 3):
        config = skills("grpo", num_minibatches=num, minibatch="prompts", num_steps=1)
        config = replace(config, optimizer=OptimizerConfig(learning_rate=1e-7))
        config = replace(config, method=replace(config.method, aggregation="prompt-mean"))
        moved[num] = train(config).logits - Trainer(config).state.logits.numpy()
    assert np.abs(moved[1]).max() > 0
    np.testing.assert_allclose(moved[3], 3 * moved[1], rtol=1e-4, atol=1e-14)


def test_prompts_of_a_bandit_are_on_policy_and_those_of_a_chain_are_not(small, skills):
    large = OptimizerConfig(learning_rate=100.0, max_grad_norm=None)
    fields = {"minibatch": "prompts", "num_minibatches": 6, "optimizer": large}
    assert train(small("grpo", **fields)).metrics["clip_fraction"][:, 1:].max() == 0.0
    assert train(skills("grpo", **fields)).metrics["clip_fraction"][:, 1:].max() > 0.0


# Oracles


def test_oracles_know_the_chains_of_their_batch(skills):
    trainer = Trainer(with_rule(skills("grpo"), "oracle-variance"))
    trainer.step()
    world, logits, batch = trainer.setup.worlds[1], trainer.state.logits[1].numpy(), np.array([7, 2, 4])
    found = oracles.knowledge(trainer.setup, trainer.state.logits, 1, batch)
    np.testing.assert_array_equal(found.variances, world.single_rollout_variance(logits)[batch])
    trainer = Trainer(with_rule(skills("grpo"), "oracle-progress"))
    gains = oracles.knowledge(trainer.setup, trainer.state.logits, 1, batch).gains
    assert gains.shape == (3, 13)
    assert (gains[:, 0] == 0.0).all()
    p, products = world.success_probability(), world.gradient_products()
    for i, prompt in enumerate(batch):
        for n in (1, 5, 12):
            expected = moments.implied_weight(p[prompt], n, "grpo_sample") * products[prompt]
            tokens = n * world.lengths[prompt]
            np.testing.assert_allclose(gains[i, n], expected * tokens, rtol=1e-12)
