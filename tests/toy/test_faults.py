"""The defects that peers shipped (R1 to R16) are not in the toy.

R14, a group of one with its raw reward, is a matter of `theory.estimators` alone.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.toy.helpers import assert_same, watched_step
from toy.training import checkpoint, metrics
from toy.training.loop import Trainer, train
from toy.training.step import draw_prompts
from toy.worlds import LogisticNormal


def hard(small, mean):
    """Return a population of which many groups have one reward only."""
    return replace(small().world, difficulty=LogisticNormal(mean=mean, std=3.0))


def uneven(small, method="grpo", rule="neyman", **fields):
    """Return a trainer after an epoch and a step with groups of unequal size: its prompts, its batch, what it measured.

    And the histories' counts and the logits before it.
    """
    config = small(method, num_seeds=2, **fields)
    trainer = Trainer(replace(config, method=replace(config.method, allocator=rule)))
    for _ in range(config.world.num_prompts // config.batch_prompts):
        trainer.step()
    before = [history.counts(trainer.setup.keys) for history in trainer.state.histories]
    prompts = draw_prompts(trainer.setup, trainer.state.num_steps)
    logits = trainer.state.logits.clone()
    batch, measured = watched_step(trainer)
    counts = batch.mask[..., 0].sum(-1).numpy()
    assert len(np.unique(counts)) > 2
    return trainer, prompts, batch, measured, before, logits


def rewards_of(trainer, prompts, batch):
    """Judge every rollout by the answers of its own prompt, [S, Q, G]."""
    seeds = np.arange(len(prompts)).reshape(-1, 1, 1)
    return trainer.setup.correct.numpy()[seeds, prompts[:, :, None], batch.actions[..., 0].numpy()]


def test_R1_every_rollout_is_judged_by_its_own_prompt(small):
    """DynaMO's code expands prompts by their counts and answers by a constant: rows meet the wrong ground truth."""
    trainer, prompts, batch, measured, *_ = uneven(small)
    rewards, mask = rewards_of(trainer, prompts, batch), batch.mask[..., 0].numpy()
    advantages = batch.advantages[..., 0].numpy()
    mixed = (rewards & mask).any(-1) & (~rewards & mask).any(-1)
    assert mixed.any()
    np.testing.assert_array_equal(advantages > 0, rewards & mask & mixed[..., None])
    np.testing.assert_array_equal(advantages < 0, ~rewards & mask & mixed[..., None])
    np.testing.assert_allclose(measured["reward"], (rewards & mask).sum((1, 2)) / mask.sum((1, 2)))


def test_R2_outcomes_reach_the_history_of_their_own_prompt(small):
    """DynaMO's code balances the batch, then zips the reordered ids with rewards in the old order."""
    trainer, prompts, batch, _, before, _ = uneven(small)
    rewards, mask = rewards_of(trainer, prompts, batch), batch.mask[..., 0].numpy()
    for s, history in enumerate(trainer.state.histories):
        new = np.array(history.counts(trainer.setup.keys)) - before[s]
        expected = np.zeros_like(new)
        expected[:, prompts[s]] = [(rewards & mask)[s].sum(-1), mask[s].sum(-1)]
        np.testing.assert_array_equal(new, expected)


def test_R3_keys_are_the_same_at_every_step_and_in_every_run(small):
    """With a fresh uid per step every prompt is for ever unknown, and the allocation silently uniform."""
    trainer = uneven(small)[0]
    assert trainer.setup.keys == Trainer(trainer.setup.config).setup.keys
    assert all(len(history) == trainer.setup.config.world.num_prompts for history in trainer.state.histories)
    assert (trainer.result()["allocation_concentration"][:, 1] == 1.0).all()
    trainer.step()
    assert (trainer.result()["allocation_concentration"][:, -1] > 1.0).all()


def test_R4_groups_are_prompts_not_strides(small):
    """Public slime and AReaL normalise runs of a fixed length; here each prompt's advantages have mean 0 and std 1."""
    trainer, prompts, batch, *_ = uneven(small)
    rewards, mask = rewards_of(trainer, prompts, batch), batch.mask[..., 0].numpy()
    for s, q in np.ndindex(prompts.shape):
        own = batch.advantages[s, q, :, 0].numpy()[mask[s, q]]
        np.testing.assert_allclose(own.sum(), 0.0, atol=1e-12)
        if 0 < rewards[s, q][mask[s, q]].sum() < mask[s, q].sum():
            np.testing.assert_allclose(own.std(ddof=1), 1.0, rtol=1e-5)


def test_R5_a_prompt_with_equal_rewards_learns_nothing_in_an_uneven_batch(small):
    """Public slime falls back to one mean over the batch: such a prompt then gets an advantage of -1.09."""
    trainer, prompts, batch, measured, *_ = uneven(small, world=hard(small, mean=0.0))
    rewards, mask = rewards_of(trainer, prompts, batch), batch.mask[..., 0].numpy()
    right = (rewards & mask).sum(-1)
    equal = (right == 0) | (right == mask.sum(-1))
    assert equal.any()
    assert not equal.all()
    assert (batch.advantages[..., 0].numpy()[equal] == 0.0).all()
    np.testing.assert_allclose(measured["degenerate_groups"], equal.mean(-1))


def test_R6_modulation_does_not_depend_on_mini_batches(small, monkeypatch):
    """The public code takes extremes per micro-batch. Here the first part of 4 is modulated as within the whole."""
    from theory.losses.modulation import modulate

    seen: list[Any] = []

    def record(*args: Any, **kwargs: Any) -> Any:
        seen.append(modulate(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr("theory.losses.modulation.modulate", record)
    for num in (1, 4):
        train(small("dynamo", num_minibatches=num, num_steps=1))
    whole, first = seen[0], seen[1]
    assert (first.advantages != 0).any()
    for one, part in zip(whole, first, strict=True):
        assert torch.equal(one[:, :, ::4], part)


@pytest.mark.parametrize("size", [3, 7, 10])
def test_R7_equal_rewards_move_nothing_to_the_bit(size, small):
    """NeMo-RL: a float standard deviation of equal rewards need not be 0."""
    config = small("grpo", num_steps=1, rollouts=size, rollouts_low=size, rollouts_high=size, num_minibatches=1)
    trainer = Trainer(config)
    trainer.setup.correct[:, ::2] = True
    before = trainer.state.logits.clone()
    trainer.step()
    assert torch.equal(trainer.state.logits[:, ::2], before[:, ::2])
    assert not torch.equal(trainer.state.logits, before)


def test_R8_a_lone_loser_is_unlearnt(small):
    """NeMo-RL: per-row leave-one-out masks drop the only loser of a group."""
    trainer, prompts, batch, *_, before = uneven(small, world=hard(small, mean=2.0), num_minibatches=1)
    rewards, mask = rewards_of(trainer, prompts, batch), batch.mask[..., 0].numpy()
    lone = (~rewards & mask).sum(-1) == 1
    assert lone.any()
    for s, q in np.argwhere(lone):
        loser = int(np.flatnonzero(~rewards[s, q] & mask[s, q])[0])
        answer = batch.actions[s, q, loser, 0]
        assert batch.advantages[s, q, loser, 0] < 0
        assert trainer.state.logits[s, prompts[s, q], answer] < before[s, prompts[s, q], answer]


def test_R9_a_resumed_run_knows_what_it_knew(small, tmp_path):
    """DynaMO's statistics are in no checkpoint: after a resume its allocation is uniform again."""
    config = small(num_steps=3)
    train(config, out=tmp_path)
    resumed, whole = Trainer(config), Trainer(config)
    resumed.load(tmp_path / checkpoint.NAME)
    for _ in range(3):
        whole.step()
    for one, other in zip(resumed.state.histories, whole.state.histories, strict=True):
        np.testing.assert_array_equal(one.counts(whole.setup.keys), other.counts(whole.setup.keys))
    assert (resumed.state.histories[0].counts(whole.setup.keys)[1] > 0).all()
    for trainer in (resumed, whole):
        trainer.step()
    last = [trainer.result()["allocation_concentration"][:, -1] for trainer in (resumed, whole)]
    np.testing.assert_array_equal(*last)
    assert (last[0] > 1.0).all()


def test_R10_solved_prompts_stay_in_the_pool(small):
    """prime-rl's pools drained one way; here a solved prompt keeps its visits and its least rollouts."""
    config = small("dynamo", num_steps=0)
    trainer = Trainer(config)
    trainer.state.logits[:, :6] += 50.0 * trainer.setup.correct[:, :6]
    for _ in range(6):
        trainer.step()
    for history in trainer.state.histories:
        _, attempts = history.counts(trainer.setup.keys[:6])
        assert (attempts >= 3 * config.rollouts_low).all()


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_R11_a_resumed_run_neither_skips_nor_repeats_a_prompt(cut, small, tmp_path):
    """NeMo-RL: a counter and the position in the stream part ways. Here three batches are an epoch; cut within."""
    config = small(batch_prompts=4, num_steps=cut)
    train(config, out=tmp_path)
    trainer = Trainer(config)
    visited = []
    for _ in range(cut):
        visited.append(draw_prompts(trainer.setup, trainer.state.num_steps))
        trainer.step()
    trainer = Trainer(config)
    trainer.load(tmp_path / checkpoint.NAME)
    for _ in range(6 - cut):
        visited.append(draw_prompts(trainer.setup, trainer.state.num_steps))
        trainer.step()
    for epoch in (visited[:3], visited[3:]):
        for s in range(3):
            assert sorted(np.concatenate([batch[s] for batch in epoch])) == list(range(12))


@pytest.mark.parametrize("rule", ["dars", "reinforce-ada", "pilot-commit"])
def test_R12_pilots_are_paid_for_and_learnt_from(rule, small, monkeypatch):
    """GVM pilots for free. Here every rollout that a rule has seen counts in the metric, the history and the loss."""
    from toy.training.rollouts import Outcomes

    seen = []
    reveal = Outcomes.reveal
    monkeypatch.setattr(Outcomes, "reveal", lambda self, counts: (seen.append(counts.sum()), reveal(self, counts))[1])
    config = small("grpo", num_seeds=2, rollouts=12, rollouts_high=24)
    trainer = Trainer(replace(config, method=replace(config.method, allocator=rule)))
    batch, measured = watched_step(trainer)
    assert len(seen) > 2, "a rule in rounds looks more than once"
    assert measured["rollouts"].sum() == sum(seen) == batch.mask.sum()
    assert sum(history.counts(trainer.setup.keys)[1].sum() for history in trainer.state.histories) == sum(seen)


def test_R13_counts_follow_the_history(small):
    """CurES reads counts from a file of stage 0. Here the same prompts get other counts when the history differs."""
    counts = []
    for successes in (1, 20):
        trainer = Trainer(small("dynamo", batch_prompts=12, num_seeds=1))
        trainer.state.histories[0].update(trainer.setup.keys, [successes] * 6 + [4] * 6, [40] * 12)
        prompts = draw_prompts(trainer.setup, trainer.state.num_steps)[0]
        batch, _ = watched_step(trainer)
        counts.append(batch.mask[0, np.argsort(prompts), :, 0].sum(-1)[:6])
    assert (counts[1] > counts[0]).all()


@pytest.mark.parametrize("method", ["dynamo", "clip-cov"])
def test_R15_global_generators_are_neither_read_nor_moved(method, small):
    """CurES samples prompts from NumPy's unseeded global generator."""
    found = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002 (the global generator is what must not matter)
        torch.manual_seed(seed)
        random.seed(seed)
        states = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), random.getstate())  # noqa: NPY002
        found.append(train(small(method)))
        assert states == (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), random.getstate())  # noqa: NPY002
    assert_same(*found)


@pytest.mark.parametrize("rule", ["dynamo", "pilot-commit", "reinforce-ada", "oracle-variance"])
@pytest.mark.parametrize("solved", [True, False])
def test_R16_a_batch_without_an_informative_group_does_not_end_the_run(rule, solved, small):
    """The DAPO recipe of verl dies after so many such batches. Here the step teaches nothing, and the next follows."""
    config = small("grpo", num_steps=0)
    trainer = Trainer(replace(config, method=replace(config.method, allocator=rule)))
    trainer.state.logits += torch.where(trainer.setup.correct, 1.0, -1.0) * (100.0 if solved else -100.0)
    before = trainer.state.logits.clone()
    for _ in range(3):
        trainer.step()
    assert torch.equal(trainer.state.logits, before)
    found = trainer.result()
    assert (found["degenerate_groups"][:, 1:] == 1.0).all()
    assert (found["reward"][:, 1:] == float(solved)).all()
    for name in metrics.STEP:
        assert np.isfinite(found[name][:, 1:]).all(), name
