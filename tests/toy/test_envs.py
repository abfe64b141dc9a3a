"""toy.envs: Gymnasium's own checker, rewards, seeding; single, vector environment and trainer are one world."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.utils.env_match import check_environments_match
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from scipy import stats

from tests.toy.helpers import watched_step
from theory.policy.softmax import log_softmax
from toy.envs import DRAWN_AHEAD, SkillChain, SkillChainVector, SoftmaxBandit, SoftmaxBanditVector
from toy.training.config import TrainConfig
from toy.training.generators import Stream, generator
from toy.training.loop import Trainer
from toy.training.rollouts import sample
from toy.training.step import draw_prompts
from toy.worlds import WORLDS, Population, World

ID = "dynamo/SoftmaxBandit-v0"
CHAIN = "dynamo/SkillChain-v0"
BANDITS = [name for name, population in WORLDS.items() if isinstance(population, Population)]
BOTH = [(ID, "mixed"), (CHAIN, "skills")]


@pytest.fixture
def world():
    logits = np.log([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]])
    return World(logits, np.array([[0, 1, 0, 0], [1, 0, 0, 1]], dtype=bool), ("a", "b"))


@pytest.fixture
def chain():
    """Prompt a: a decision, a filler, a decision; prompt b: one decision."""
    correct = np.array([[0, 1], [1, 0], [1, 1]], dtype=bool)
    return World(np.log([[0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]), correct, ("a", "b"), np.array([[0, 2, 1], [1, 0, 0]]),
                 np.array([3, 1]))  # fmt: skip


@pytest.mark.parametrize(("env_id", "name"), [(ID, name) for name in BANDITS] + [(CHAIN, name) for name in WORLDS])
def test_gymnasium_accepts_it(env_id, name):
    check_env(gym.make(env_id, world=name).unwrapped)
    with_text = gym.make(env_id, world=name, render_mode="ansi")
    check_environments_match(with_text, gym.make(env_id, world=name, render_mode="ansi"), num_steps=50, seed=3)


def test_the_registered_module_can_be_named_in_the_id():
    assert isinstance(gym.make(f"toy.envs:{ID}", world="binary").unwrapped, SoftmaxBandit)


def test_every_reward_is_that_of_the_world(world):
    env = gym.make(ID, world=world)
    for prompt in range(2):
        for answer in range(4):
            observation, info = env.reset(options={"prompt": prompt})
            assert observation == prompt
            assert info == {"key": "ab"[prompt]}
            observation, reward, terminated, truncated, _ = env.step(answer)
            assert (observation, terminated, truncated) == (prompt, True, False)
            assert reward == float(world.correct[prompt, answer])


def test_seeds_decide_the_prompts():
    env = SoftmaxBandit("mixed")
    drawn = [[int(env.reset(seed=seed)[0]), *(int(env.reset()[0]) for _ in range(9))] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_chain_is_rewarded_at_its_end(chain):
    env = gym.make(CHAIN, world=chain)
    for prompt, length in ((0, 3), (1, 1)):
        for tokens in np.ndindex(*[2] * length):
            observation, info = env.reset(options={"prompt": prompt})
            assert info == {"key": "ab"[prompt]}
            total = 0.0
            for position, token in enumerate(tokens):
                np.testing.assert_array_equal(observation, [prompt, position])
                observation, reward, terminated, truncated, info = env.step(token)
                assert (terminated, truncated, info) == (position + 1 == length, False, {"key": "ab"[prompt]})
                assert terminated or reward == 0.0
                total += reward
            np.testing.assert_array_equal(observation, [prompt, length])
            assert total == float(tokens[0] == 1 and tokens[2] == 0 if prompt == 0 else tokens[0] == 0)


def test_text_of_a_chain_shows_skills_tokens_and_outcome(chain):
    env = gym.make(CHAIN, world=chain, render_mode="ansi")
    env.reset(options={"prompt": 0})
    assert env.render() == "a  p = 0.280  0 (2) 1\n"
    env.step(1)
    env.step(0)
    assert env.render() == "a  p = 0.280  0=1+ (2)=0 1\n"
    env.step(1)
    assert env.render() == "a  p = 0.280  0=1+ (2)=0 1=1- wrong\n"


def test_the_world_seed_decides_the_world():
    one, same, other = (SoftmaxBandit("mixed", world_seed=seed).world for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.logits, same.logits)
    assert (one.logits != other.logits).any()


def test_text_shows_prompt_answers_and_outcome(world):
    env = gym.make(ID, world=world, render_mode="ansi")
    env.reset(options={"prompt": 0})
    assert env.render() == "a  p = 0.300  answers 0 0.500  1* 0.300  2 0.150\n"
    env.step(1)
    assert env.render().endswith("-> 1 correct\n")
    env.reset(options={"prompt": 1})
    assert env.render() == "b  p = 0.500  answers 3* 0.400  2 0.300  1 0.200\n"


def test_vector_environment_is_the_single_one_many_times(world):
    envs = gym.make_vec(ID, num_envs=6, world=world)
    assert isinstance(envs, SoftmaxBanditVector)
    prompts, _ = envs.reset(options={"prompt": np.array([0, 0, 0, 1, 1, 1])})
    assert envs.observation_space.contains(prompts)
    actions = np.array([0, 1, 2, 0, 1, 3])
    following, rewards, terminated, truncated, info = envs.step(actions)
    np.testing.assert_array_equal(rewards, world.correct[prompts, actions])
    assert terminated.all()
    assert not truncated.any()
    np.testing.assert_array_equal(info["final_obs"], prompts)
    assert envs.observation_space.contains(following)
    _, rewards, *_ = envs.step(actions)
    np.testing.assert_array_equal(rewards, world.correct[following, actions])


@pytest.mark.parametrize(("env_id", "name"), BOTH)
def test_vector_environment_is_gymnasiums_vector_of_single_ones(env_id, name):
    """To the bit, infos included, from seed and actions alone, until every environment has drawn ahead again."""
    native = gym.make_vec(env_id, num_envs=5, world=name)
    mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
    reference = gym.make_vec(env_id, num_envs=5, world=name, vectorization_mode="sync", vector_kwargs=mode)
    assert isinstance(reference.unwrapped, SyncVectorEnv)
    for space in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(native, space) == getattr(reference, space)
    assert native.metadata["autoreset_mode"] == reference.metadata["autoreset_mode"]
    actions = np.random.default_rng(1).integers(native.single_action_space.n, size=(DRAWN_AHEAD * 13, 5))
    num_ended = np.zeros(5, dtype=int)
    for seed in (7, None, 8):
        assert data_equivalence(native.reset(seed=seed), reference.reset(seed=seed), exact=True)
        for action in actions:
            ours, theirs = native.step(action), reference.step(action)
            assert data_equivalence(ours, theirs, exact=True)
            num_ended += ours[2]
    assert (num_ended > DRAWN_AHEAD).all()
    options = {"prompt": 3}
    theirs = reference.reset(options=options)[0]
    np.testing.assert_array_equal(native.reset(options={"prompt": np.full(5, 3)})[0], theirs)


@pytest.mark.parametrize(("env_id", "name"), BOTH)
def test_rollouts_of_the_trainer_are_those_of_the_environments(env_id, name):
    """Same world, prompts and uniforms: the same tokens, and the same rewards as single and vector environment give."""
    sizes = {"rollouts": 3, "rollouts_low": 3, "rollouts_high": 3, "num_minibatches": 1}
    config = TrainConfig.named("grpo", name, num_seeds=2, batch_prompts=8, **sizes)
    config = replace(config, world=replace(config.world, num_prompts=20))
    trainer = Trainer(config)
    prompts, (batch, measured) = draw_prompts(trainer.setup, trainer.state.num_steps), watched_step(trainer)
    for s, seed in enumerate(config.seeds):
        world = config.world.sample(generator(seed, Stream.WORLD))
        uniforms = generator(seed, Stream.ROLLOUTS, 0).random((8, world.max_length, 3))
        single, vector = gym.make(env_id, world=world), gym.make_vec(env_id, num_envs=24, world=world)
        vector.reset(options={"prompt": np.repeat(prompts[s], 3)})
        rewards, together = np.zeros((8, 3)), np.zeros(24)
        for q, g in np.ndindex(8, 3):
            single.reset(options={"prompt": prompts[s, q]})
            for t in range(world.lengths[prompts[s, q]]):
                # The policy, drawn from by hand: the first answer whose cumulative probability exceeds the uniform.
                pi = np.exp(log_softmax(world.logits[world.rows[prompts[s, q], t]]))
                token = int(np.argmax(np.cumsum(pi) / pi.sum() > uniforms[q, t, g]))
                assert token == batch.actions[s, q, g, t]
                _, reward, ended, _, _ = single.step(token)
            assert ended
            rewards[q, g] = reward
        for t in range(world.max_length):
            _, reward, _, _, _ = vector.step(batch.actions[s].numpy()[..., t].reshape(24))
            running = world.lengths[np.repeat(prompts[s], 3)] == t + 1
            together[running] = reward[running]
        np.testing.assert_array_equal(together.reshape(8, 3), rewards)
        np.testing.assert_array_equal(measured["reward"][s], rewards.mean())
        np.testing.assert_array_equal(batch.mask[s, :, 0].sum(-1), world.lengths[prompts[s]])
        positive = batch.advantages[s, :, :, 0].numpy() > 0
        mixed = (rewards.min(-1) < rewards.max(-1))[:, None]
        np.testing.assert_array_equal(positive, (rewards == 1) & mixed)


@pytest.mark.parametrize(("env_id", "name"), BOTH)
def test_environment_and_trainer_have_the_same_law(env_id, name):
    """Mean reward of 3,000 rollouts of a prompt, by each way, within 4 standard errors of the exact p."""
    world = WORLDS[name].sample(np.random.default_rng(0))
    p = world.success_probability()
    prompt, rng, num = int(np.argmin(np.abs(p - 0.4))), np.random.default_rng(5), 3000
    rows, length = world.rows[prompt], int(world.lengths[prompt])
    log_pi = torch.from_numpy(log_softmax(world.logits))[None]
    tokens = sample(log_pi, torch.from_numpy(rows)[None, None], torch.from_numpy(rng.random((1, 1, len(rows), num))))
    core = np.all([world.correct[rows[t], tokens[0, 0, :, t]] for t in range(length)], axis=0)
    envs = gym.make_vec(env_id, num_envs=num, world=world)
    envs.reset(options={"prompt": np.full(num, prompt)})
    for t in range(length):
        probs = np.exp(log_softmax(world.logits[rows[t]]))
        drawn = rng.choice(len(probs), size=num, p=probs / probs.sum())
        _, rewards, ended, _, _ = envs.step(drawn)
        # The core's tokens at this position have the law of the policy.
        seen = np.bincount(tokens[0, 0, :, t], minlength=len(probs))
        common = probs * num > 5
        rest = [[x[~common].sum()] for x in (seen, probs * num)] if not common.all() else [[], []]
        expected = np.concatenate([(probs * num)[common], rest[1]])
        assert stats.chisquare(np.concatenate([seen[common], rest[0]]), expected / expected.sum() * num).pvalue > 1e-4
    assert ended.all()
    for found in (core, rewards):
        assert abs(found.mean() - p[prompt]) < 4 * np.sqrt(p[prompt] * (1 - p[prompt]) / num)


def test_prompts_that_are_given_stay_the_callers(world):
    """They are drawn anew within the environment, which returns no view of its own either."""
    envs, given = SoftmaxBanditVector(2, world), np.array([1, 0])
    first, _ = envs.reset(seed=0, options={"prompt": given})
    before = first.copy()
    for _ in range(20):
        envs.step(np.array([0, 0]))
    assert given.tolist() == [1, 0]
    np.testing.assert_array_equal(first, before)


def test_vector_seeds_and_uniform_prompts():
    envs = SoftmaxBanditVector(num_envs=20_000, world="binary")
    one, _ = envs.reset(seed=1)
    two, _ = envs.reset(seed=1)
    np.testing.assert_array_equal(one, two)
    # 256 prompts, 78.1 expected each with standard deviation 8.8.
    assert np.abs(np.bincount(one, minlength=256) - 20_000 / 256).max() < 5 * 8.8


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda w: SoftmaxBandit("easy"), r"world: expected one of binary, peaked, diffuse, mixed, .*got 'easy'"),
        (lambda w: SoftmaxBandit("skills"), "world: expected prompts of one token, got up to 12"),
        (lambda w: SoftmaxBanditVector(2, "skills"), "world: expected prompts of one token, got up to 12"),
        (lambda w: SkillChain("easy"), r"world: expected one of .*skills.*, got 'easy'"),
        (lambda w: SkillChain(w).step(np.int64(0)), "step: expected a call of reset"),
        (lambda w: SkillChainVector(2, w).step(np.array([0, 0])), "step: expected a call of reset"),
        (lambda w: SoftmaxBandit(w, render_mode="human"), "render_mode: expected one of None, ansi, rgb_array"),
        (lambda w: SoftmaxBandit("mixed", world_seed=-1), "world_seed: expected an integer >= 0"),
        (lambda w: SoftmaxBandit(w).step(np.int64(0)), "step: expected a call of reset"),
        (lambda w: SoftmaxBandit(w).reset(options={"prompt": 2}), r"prompt: expected an index in \[0, 2\), got 2"),
        (lambda w: SoftmaxBandit(w).reset(options={"key": 2}), "options: expected the key 'prompt' only"),
        (lambda w: SoftmaxBanditVector(0, w), "num_envs: expected an integer >= 1, got 0"),
        (lambda w: SoftmaxBanditVector(2, w).step(np.array([0, 0])), "step: expected a call of reset"),
        (lambda w: SoftmaxBanditVector(2, w).reset(options={"prompt": [0]}), "prompt: expected 2 indices"),
        (lambda w: SoftmaxBanditVector(2, w).reset(options={"x": [0]}), "options: expected the key 'prompt' only"),
    ],
)
def test_wrong_calls_are_named(act, message, world):
    with pytest.raises(ValueError, match=message):
        act(world)


def test_wrong_answers_are_named(world):
    env = SoftmaxBandit(world)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: expected an answer in \[0, 4\), got 4"):
        env.step(np.int64(4))
    env.step(np.int64(0))
    with pytest.raises(ValueError, match="step: expected a call of reset"):
        env.step(np.int64(0))
    envs = SoftmaxBanditVector(2, world)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="actions: expected 2 answers"):
        envs.step(np.array([0, 4]))
