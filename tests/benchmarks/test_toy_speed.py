"""Rollouts per second of the trainer's sampling, beside Gymnasium and a plain loop (`--benchmark-enable -s` tells).

All sample the same policy in the same world and judge every rollout; all ratios come from one run on one core. The core
draws the batch of all seeds at once. Gymnasium steps many environments at once, by its own vectorisation of the single
environment (`sync`) and by the native vector environment. The loop is what one writes first: for every token a softmax,
`Generator.choice`, and a look at the set of correct tokens.

The floor is what any such sampler pays at least: one random number per token, and writing numbers, tokens and rewards
to memory once. The rest is the policy at the batch's states, and the search for each number among its cumulative sums.
"""

from __future__ import annotations

import time

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.toy.helpers import watched_step
from theory.policy.softmax import log_softmax
from toy.training.config import TrainConfig
from toy.training.generators import Stream, uniforms
from toy.training.loop import Trainer
from toy.training.rollouts import judge, of_states, sample
from toy.training.step import draw_prompts

WORLDS = ("mixed", "skills")
AT_LEAST = {"gymnasium, sync": 100, "gymnasium, native": 4, "plain loop": 150}
"""Asserted ratios, far enough below the measured ones for a noisy machine. The aim was 1,000 for the loop, see
`test_rollouts_per_second`."""


def core(trainer):
    """Sample and judge a rollout batch of all seeds, as `toy.training.step` does; returns actions and correctness."""
    setup, state = trainer.setup, trainer.state
    rows, states, tokens = setup.states(draw_prompts(setup, state.num_steps))
    log_pi = log_softmax(of_states(state.logits, rows))
    shape = (*states.shape[1:], setup.config.rollouts_high)
    actions = sample(log_pi, states, uniforms(setup.generators(Stream.ROLLOUTS, state.num_steps), shape))
    return actions, judge(of_states(setup.correct, rows), states, tokens, actions)


def cumulative(world):
    """Return the cumulative probabilities of every row of a world's table."""
    sums = np.exp(world.logits - world.logits.max(-1, keepdims=True)).cumsum(-1)
    return sums / sums[:, -1:]


def gymnasium_rollouts(environment, world, sums, num_steps, rng):
    """Sample `num_steps` tokens in every environment; returns finished rollouts and the correct ones among them."""
    observations, _ = environment.reset(seed=0)
    num_finished = num_correct = 0
    for _ in range(num_steps):
        prompts, positions = observations.T if observations.ndim == 2 else (observations, 0)
        reached = sums[world.rows[prompts, positions]]
        actions = (rng.random((len(reached), 1)) >= reached).sum(-1)
        observations, rewards, ended, _, _ = environment.step(actions)
        num_finished += int(ended.sum())
        num_correct += int(rewards.sum())
    return num_finished, num_correct


def make(world, num_envs, mode):
    """Return a vector environment over a `World`, of Gymnasium's own making or the native one."""
    name = f"toy.envs:dynamo/{'SoftmaxBandit' if world.max_length == 1 else 'SkillChain'}-v0"
    own = {"vector_kwargs": {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}} if mode == "sync" else {}
    return gym.make_vec(name, num_envs=num_envs, vectorization_mode=mode, world=world, **own)


def loop_rollouts(world, num, rng):
    """Sample rollouts one by one; returns how many are correct."""
    num_correct = 0
    for i in range(num):
        prompt, correct = i % world.num_prompts, True
        for row in world.rows[prompt, : world.lengths[prompt]]:
            weights = np.exp(world.logits[row] - world.logits[row].max())
            token = rng.choice(len(weights), p=weights / weights.sum())
            correct &= bool(world.correct[row, token])
        num_correct += correct
    return num_correct


def floor(num_tokens, num_rollouts, rng):
    """Draw the random numbers, and write as much as the core returns."""
    uniforms = rng.random(num_tokens)
    return uniforms, np.ones(num_tokens, dtype=np.int64), np.ones(num_rollouts, dtype=np.bool_)


def seconds(function, rounds):
    """Return the best time of a few calls."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


@pytest.fixture
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("world", WORLDS)
def test_rollouts_per_second(benchmark, world):
    """The core against the others, with defaults: 32 seeds x 64 prompts x 24 rollouts at a time.

    One run on an AMD EPYC with AVX-512, rollouts per second, and of how many the core is so many times as fast:

        mixed  (K = 32, T = 1)   32.9 million   sync 327   native 15 to 18   loop 326   floor 6 %
        skills (K = 16, T <= 12)  8.8 million   sync 350   native 39 to 40   loop 638   floor 19 %

    The aims are 20 times a Gymnasium vector environment, reached but for the native one in `mixed`, and 1,000 times the
    loop, which is not: that needs 0.5 ms per batch in `mixed` and 3.6 ms in `skills`. There is more than the floor that
    no sampler of these draws is spared: generators that are seeded anew for every seed and step (0.2 ms), and the
    policy itself, two exponentials and a sum per token of every state (0.4 ms in `mixed`, where a state has 24 draws
    only). Timed apart, counting takes 0.25 ms in `mixed` and 1.3 ms in `skills`, putting numbers in its order and
    tokens back 0.1 and 0.8 ms, looking up what is correct 0.1 and 0.8 ms.
    """
    trainer = Trainer(TrainConfig.named("grpo", world, num_seeds=32 if benchmark.enabled else 2))
    actions, correct = benchmark.pedantic(core, args=(trainer,), rounds=30, warmup_rounds=2 * benchmark.enabled)
    sampled, sums, rng = trainer.setup.worlds[0], cumulative(trainer.setup.worlds[0]), np.random.default_rng(0)
    assert torch.equal(actions, watched_step(trainer)[0].actions)
    if not benchmark.enabled:
        return
    per_second = {"core": correct.size / benchmark.stats.stats.min}
    for label, num_envs, mode in (
        ("gymnasium, sync", 64, "sync"),
        ("gymnasium, native", 64, "vector_entry_point"),
        ("gymnasium, native", 1024, "vector_entry_point"),
        ("gymnasium, native", 16384, "vector_entry_point"),
    ):
        environment, num_steps = make(sampled, num_envs, mode), max(24, 8192 // num_envs)
        finished = gymnasium_rollouts(environment, sampled, sums, num_steps, rng)[0]
        spent = seconds(lambda e=environment, n=num_steps: gymnasium_rollouts(e, sampled, sums, n, rng), 5)
        per_second[f"{label} x {num_envs:,}"] = finished / spent
    per_second["plain loop"] = 500 / seconds(lambda: loop_rollouts(sampled, 500, rng), 5)
    shares = seconds(lambda: floor(actions.numel(), correct.size, rng), 20) / benchmark.stats.stats.min
    print(f"\n{world}: {per_second['core']:,.0f} rollouts per second, of which random numbers and memory {shares:.0%}")
    benchmark.extra_info |= {"world": world, "floor": shares, "rollouts per second": per_second}
    for label, speed in per_second.items():
        ratio = per_second["core"] / speed
        print(f"  {label:28s} {speed:14,.0f} per second, core {ratio:8,.1f} times")
        assert all(ratio > least for name, least in AT_LEAST.items() if label.startswith(name)), label


@pytest.mark.parametrize("world", WORLDS)
def test_all_sample_the_same_law(world):
    """Success rates of the core, Gymnasium and the loop within 4 standard errors of the exact one."""
    trainer = Trainer(TrainConfig.named("grpo", world, num_seeds=1, num_steps=0, batch_prompts=256))
    sampled, sums = trainer.setup.worlds[0], cumulative(trainer.setup.worlds[0])
    p = sampled.success_probability()
    _, correct = core(trainer)
    within = 4 * np.sqrt((p * (1 - p)).mean() / correct.size)
    assert abs(correct.mean() - p.mean()) < within
    rng = np.random.default_rng(1)
    for mode in ("sync", "vector_entry_point"):
        finished, right = gymnasium_rollouts(make(sampled, 32, mode), sampled, sums, 200, rng)
        # Their prompts are drawn too, and a chain that is not finished in the steps given is not counted.
        assert abs(right / finished - p.mean()) < 0.01 + 4 * np.sqrt(p.mean() * (1 - p.mean()) / finished)
    within = 4 * np.sqrt((p * (1 - p)).mean() / 512)
    assert abs(loop_rollouts(sampled, 512, rng) / 512 - p.mean()) < within
