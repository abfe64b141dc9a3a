"""toy.training.step: bits, limits, the gradient against its exact mean, learning, accounts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.theory.methods.own import Calm, Likelihood
from tests.toy.helpers import assert_same, watched_step, with_rule
from theory.allocation import water_level
from theory.allocation.rules import ALLOCATORS, Rounds, register, spends_in_rounds
from theory.estimators import moments
from theory.losses.modulation import Modulation, modulate
from theory.methods import METHODS, register_loss, register_shaping
from theory.policy.entropy_change import update_coefficient
from theory.policy.softmax import log_softmax, token_statistics
from toy.training import diagnostics, metrics, per_seed
from toy.training.config import OptimizerConfig, TrainConfig
from toy.training.generators import Stream, generator
from toy.training.loop import Trainer, train
from toy.training.step import draw_prompts


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_repeats_to_the_bit(method, small):
    run = train(small(method))
    assert set(run.metrics) == set(metrics.METRICS)
    for name, values in run.metrics.items():
        assert values.shape == (3, 7)
        # A bandit has no fillers, and diagnostics are off.
        absent = name == "entropy_fillers" or name in metrics.DIAGNOSTICS
        assert np.isfinite(values[:, 1:]).all() != absent, name
    for name in metrics.STEP:
        assert np.isnan(run.metrics[name][:, 0]).all()
    assert (run.logits != Trainer(small(method)).state.logits.numpy()).any()
    assert_same(run, train(small(method)))


@pytest.mark.parametrize("rule", ALLOCATORS)
def test_every_rule_is_charged_what_it_spends(rule, small):
    config = with_rule(small("grpo"), rule)
    trainer = Trainer(config)
    for _ in range(config.num_steps):
        trainer.step()
    rollouts = trainer.result()["rollouts"][:, 1:]
    budget = config.batch_prompts * config.rollouts
    assert (rollouts <= budget).all()
    assert spends_in_rounds(ALLOCATORS[rule]) or (rollouts == budget).all()
    for s, history in enumerate(trainer.state.histories):
        successes, attempts = history.counts(trainer.setup.keys)
        assert attempts.sum() == rollouts[s].sum()
        np.testing.assert_allclose(successes.sum(), (trainer.result()["reward"][s, 1:] * rollouts[s]).sum())


class Failures:
    """A rule of one's own: more rollouts for prompts that have failed often."""

    name = "failures"

    def counts(self, problem, rng):
        failures = problem.attempts - problem.successes
        return water_level(1 + failures, problem.budget, problem.low, problem.high)


class UntilTwo:
    """A rule of one's own that goes on until a prompt has two successes."""

    name = "until-two"

    def spend(self, problem, observe, rng):
        rounds = Rounds(problem, observe)
        for _ in range(5):
            rounds.roll_out(np.where(rounds.successes < 2, 2, 0))
        return rounds.spent


@pytest.mark.parametrize("rule", [Failures(), UntilTwo()], ids=lambda rule: rule.name)
def test_a_rule_of_ones_own_trains(rule, small):
    register(rule)
    trainer = Trainer(with_rule(small("grpo"), rule.name))
    for _ in range(6):
        trainer.step()
    rollouts = trainer.result()["rollouts"][:, 1:]
    assert (rollouts <= 48).all()
    assert (rollouts == 48).all() == (not spends_in_rounds(rule))
    assert trainer.result()["allocation_concentration"][:, -1].min() > 1


class Fixed:
    name = "fixed"

    def __init__(self, each):
        self.each = each

    def counts(self, problem, rng):
        return np.full(problem.num_prompts, self.each)


class Overdrawn(Fixed):
    counts = None

    def spend(self, problem, observe, rng):
        observe(np.full(problem.num_prompts, self.each))
        return np.full(problem.num_prompts, 8)


@pytest.mark.parametrize("make", [Fixed, Overdrawn])
@pytest.mark.parametrize("each", [16, 9, 8.9, np.nan, 2])
def test_a_rule_that_breaks_its_contract_does_not_train(make, each, small):
    """8 rollouts each in [4, 12]: above the bound, above the budget, a fraction, no number, below the bound."""
    register(make(each))
    with pytest.raises(ValueError, match=r"^rule fixed: (counts|round): expected"):
        Trainer(with_rule(small("grpo"), "fixed")).step()


@pytest.mark.parametrize(
    "method", ["dynamo", "clip-cov", "kl-cov", "fork-tokens", "entropy-loss", "entropy-advantages"]
)
def test_a_seed_does_not_depend_on_its_neighbours(method, small):
    """Neither in short sums nor in long ones, nor with mini-batches in which some seeds have no rollout."""
    world = replace(small().world, num_prompts=40)
    config = small(method, world=world, num_seeds=5, num_steps=4, batch_prompts=16, num_minibatches=12)
    together = train(config)
    for first, num in ((0, 1), (3, 1), (2, 3)):
        alone = train(replace(config, first_seed=first, num_seeds=num))
        np.testing.assert_array_equal(alone.logits, together.logits[first : first + num])
        for name, values in alone.metrics.items():
            np.testing.assert_array_equal(values, together.metrics[name][first : first + num], err_msg=name)


def test_threads_change_no_bit(small):
    config = small(world="mixed", num_seeds=1, num_steps=2)
    config = replace(config, batch_prompts=256, world=replace(config.world, num_prompts=1200))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(train(config))
    finally:
        torch.set_num_threads(before)
    assert_same(*found)


@pytest.mark.parametrize("rule", ["reinforce-ada", "pilot-commit"])
def test_a_seed_does_not_depend_on_its_neighbours_where_spending_differs(rule, small):
    config = with_rule(small("grpo"), rule)
    together, alone = train(config), train(replace(config, first_seed=1, num_seeds=1))
    np.testing.assert_array_equal(alone.logits, together.logits[1:2])


def test_dynamo_without_allocation_and_modulation_is_grpo(small):
    off = replace(METHODS["dynamo"], allocator="uniform", shaping=Modulation(alpha=0.0))
    assert_same(train(replace(small(), method=off)), train(small("grpo")))


@pytest.mark.parametrize("part", ["allocation", "modulation"])
def test_each_part_of_dynamo_does_something(part, small):
    off = {"allocator": "uniform"} if part == "modulation" else {"shaping": Modulation(alpha=0.0)}
    run = train(replace(small(), method=replace(METHODS["dynamo"], **off)))
    assert (run.logits != train(small("grpo")).logits).any()
    if part == "modulation":
        assert (run.metrics["compensation"][:, 1:] > 1.0).any()
        assert (run.metrics["stabilization"][:, 1:] < 1.0).any()
    else:
        assert (run.metrics["allocation_concentration"][:, 1:] > 1.0).any()


def test_methods_share_their_draws(small):
    """The g-th rollout of a prompt uses the same uniform number, however many rollouts the prompt gets."""
    one, other = (watched_step(Trainer(small(method)))[0] for method in ("grpo", "dynamo"))
    np.testing.assert_array_equal(one.actions, other.actions)


def test_no_two_steps_share_a_draw(small, monkeypatch):
    """Rollouts, allocation, loss and diagnostics each have a generator of their own at every step of every seed."""
    asked = []

    def record(seed, stream, step=0):
        asked.append((seed, stream, step))
        return generator(seed, stream, step)

    monkeypatch.setattr("toy.training.state.generator", record)
    monkeypatch.setattr(diagnostics, "NUM_RESAMPLES", 2)
    trainer = Trainer(small("clip-cov", diagnose_every=1))
    asked.clear()  # The worlds are drawn.
    for _ in range(4):
        trainer.step()
    streams = (Stream.ROLLOUTS, Stream.ALLOCATION, Stream.LOSS, Stream.DIAGNOSTICS)
    assert sorted(asked) == sorted(itertools.product(range(3), streams, range(4)))


@pytest.mark.parametrize("estimator", ["grpo", "rloo"])
def test_one_step_is_the_exact_expected_gradient(estimator, small):
    """Mean update of 4,000 seeds against theory.estimators.moments, component by component, within 4 standard errors.

    One mini-batch, no clip, uniform allocation: the update is the learning rate times the mean of the prompts' group
    gradients. The errors are small enough to tell the estimators apart: GRPO's mean is far from RLOO's, the gradient.
    """
    num_seeds, n, rate = 4000, 6, 0.1
    config = small(
        "grpo",
        num_seeds=num_seeds,
        num_minibatches=1,
        batch_prompts=3,
        rollouts=n,
        rollouts_low=n,
        rollouts_high=n,
        optimizer=OptimizerConfig(learning_rate=rate, max_grad_norm=None),
    )
    config = replace(
        config,
        method=replace(config.method, advantage=estimator),
        world=replace(config.world, num_prompts=3, num_answers=4, num_correct=2),
    )
    trainer = Trainer(config)
    trainer.state.logits[:] = trainer.state.logits[:1].clone()  # All seeds in the first one's world.
    trainer.setup.correct[:] = trainer.setup.correct[:1].clone()
    before = trainer.state.logits[0].clone()
    trainer.step()
    updates = (trainer.state.logits - before).numpy() * 3 / rate
    probs, correct = log_softmax(before).exp().numpy(), trainer.setup.correct[0].numpy()
    exact = moments.gradient_moments(probs, correct, n, "grpo_sample" if estimator == "grpo" else estimator)
    error = np.sqrt(updates.var(axis=0, ddof=1) / num_seeds)
    assert (np.abs(updates.mean(0) - exact.mean) < 4 * error + 1e-6).all()
    np.testing.assert_allclose(updates.var(0).sum(-1), exact.variance, rtol=0.15)
    other = moments.gradient_moments(probs, correct, n, "rloo" if estimator == "grpo" else "grpo_sample").mean
    assert (np.abs(updates.mean(0) - other) > 4 * error + 1e-6).any()


@pytest.mark.parametrize("method", ["grpo", "dynamo"])
@pytest.mark.parametrize("world", ["binary", "mixed"])
def test_learning_happens(method, world, small):
    """pass@1 rises by more than 0.1 for every seed, without a loss of pass@32."""
    run = train(small(method, world, num_steps=40))
    first, last = run.metrics["pass_at_1"][:, 0], run.metrics["pass_at_1"][:, -1]
    assert (last > first + 0.1).all()
    assert (run.metrics["pass_at_32"][:, -1] > run.metrics["pass_at_32"][:, 0] - 0.02).all()


def test_adamw_learns_too(small):
    run = train(small("grpo", num_steps=40, optimizer=OptimizerConfig(name="adamw", learning_rate=0.1)))
    assert (run.metrics["pass_at_1"][:, -1] > run.metrics["pass_at_1"][:, 0] + 0.1).all()


def test_ratios_are_real(small):
    """With one mini-batch every token is on-policy and nothing is clipped; with more, large steps are."""
    large = OptimizerConfig(learning_rate=100.0, max_grad_norm=None)
    clipped = {
        num: train(small("grpo", num_minibatches=num, optimizer=large)).metrics["clip_fraction"][:, 1:].max()
        for num in (1, 4)
    }
    assert clipped[1] == 0.0
    assert clipped[4] > 0.05


def test_minibatches_share_out_the_batch(small):
    """With tiny steps and equal parts, four updates of a quarter each add up to four times the whole's update."""
    tiny = OptimizerConfig(learning_rate=1e-7)
    moved = {}
    for num in (1, 4):
        config = small("grpo", num_minibatches=num, num_steps=1, optimizer=tiny)
        moved[num] = train(config).logits - Trainer(config).state.logits.numpy()
    assert np.abs(moved[1]).max() > 0
    np.testing.assert_allclose(moved[4], 4 * moved[1], rtol=1e-4, atol=1e-14)


def test_modulation_sees_the_current_ratios_and_the_clip_of_the_method(small, monkeypatch):
    seen = []

    def record(advantages, ratio, *clips):
        seen.append((float((ratio - 1).abs().max()), clips))
        return update_coefficient(advantages, ratio, *clips)

    monkeypatch.setattr("theory.losses.protocol.update_coefficient", record)
    train(small("dynamo", num_steps=1))
    assert [clips for _, clips in seen] == [(0.2, 0.2)] * 4
    assert seen[0][0] == 0.0
    assert min(distance for distance, _ in seen[1:]) > 0.0


def test_a_loss_and_a_shaping_of_ones_own(small):
    """On-policy, -A log pi has the gradient of the surrogate; what `Calm` takes from every advantage shrinks it."""
    register_loss(Likelihood)
    register_shaping(Calm)
    config = small("grpo", "skills", num_minibatches=1, num_steps=1, optimizer=OptimizerConfig(max_grad_norm=None))
    start = Trainer(config).state.logits.numpy()

    def moved(**parts):
        return train(replace(config, method=replace(config.method, **parts))).logits - start

    grpo = moved()
    np.testing.assert_allclose(moved(loss=Likelihood()), grpo, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(moved(loss=Likelihood(0.5)), grpo / 2, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(moved(shaping=Calm(0.0)), grpo, rtol=1e-9, atol=1e-12)
    assert 0.1 < np.linalg.norm(moved(shaping=Calm(0.5))) / np.linalg.norm(grpo) < 0.99


def test_epochs_reuse_the_batch(small):
    one, two = (train(small("grpo", num_epochs=num)) for num in (1, 2))
    np.testing.assert_array_equal(one.metrics["rollouts"], two.metrics["rollouts"])
    assert (two.metrics["pass_at_1"][:, -1].mean()) > one.metrics["pass_at_1"][:, -1].mean()


def test_an_epoch_visits_every_prompt_once(small):
    trainer = Trainer(small("grpo"))
    seen = []
    for _ in range(4):
        seen.append(draw_prompts(trainer.setup, trainer.state.num_steps))
        trainer.step()
    for s in range(3):
        first, second = (np.concatenate([batch[s] for batch in seen[i : i + 2]]) for i in (0, 2))
        assert sorted(first) == sorted(second) == list(range(12))
        assert (first != second).any()


@pytest.mark.parametrize("minibatch", ["rollouts", "prompts"])
def test_normalizers_of_a_few_prompts(minibatch):
    """Blocks of prompts are batches of their own; one block of all prompts is the mini-batch."""
    fields = {"num_seeds": 2, "num_steps": 2, "batch_prompts": 16, "minibatch": minibatch}
    config = TrainConfig.named("dynamo", "skills", **fields)
    found = {n: train(replace(config, normalizer_prompts=n)).logits for n in (1, 4)}
    assert not np.array_equal(found[1], found[4])
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(2, 8, 3, 2, 5)))
    stats = token_statistics(logits, torch.from_numpy(rng.integers(5, size=(2, 8, 3, 2))))
    xi, mask = torch.from_numpy(rng.normal(size=(2, 8, 3, 2))), torch.from_numpy(rng.random((2, 8, 3, 2)) < 0.7)
    scope = per_seed.scope_by_prompts(Modulation(), stats, xi, mask, 4)
    result = modulate(xi, stats, mask, Modulation(), scope=scope)
    for s in range(2):
        for block in (slice(0, 4), slice(4, 8)):
            part = type(stats)(*(x[s, block] for x in stats))
            alone = modulate(xi[s, block], part, mask[s, block], Modulation())
            assert torch.equal(result.advantages[s, block], alone.advantages)
    with pytest.raises(ValueError, match="normalizer_prompts: expected a divisor of the mini-batch's"):
        replace(config, normalizer_prompts=3)
