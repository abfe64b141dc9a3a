"""toy.envs: Gymnasium's own checker, rewards, seeding, the vector environment."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from toy.envs import SoftmaxBandit, SoftmaxBanditVector
from toy.worlds import WORLDS, World

ID = "dynamo/SoftmaxBandit-v0"


@pytest.fixture
def world():
    logits = np.log([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]])
    return World(logits, np.array([[0, 1, 0, 0], [1, 0, 0, 1]], dtype=bool), ("a", "b"))


@pytest.mark.parametrize("name", WORLDS)
def test_gymnasium_accepts_it(name):
    check_env(gym.make(ID, world=name).unwrapped)


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
    assert SoftmaxBandit(world).render() is None


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
        (lambda w: SoftmaxBandit("easy"), "world: expected one of binary, peaked, diffuse, mixed, got 'easy'"),
        (lambda w: SoftmaxBandit(w, render_mode="human"), "render_mode: expected one of None, ansi, got 'human'"),
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
