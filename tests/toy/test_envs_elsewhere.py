"""The environments in others' hands: Gymnasium's vectors and wrappers; Stable-Baselines3's checker, vectors, PPO."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import wrappers
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common import env_checker
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor

from toy.envs import SkillChain, SoftmaxBandit
from toy.worlds import World
from toy.worlds.frames import SQUARE

IDS = [name for name in gym.registry if name.startswith("dynamo/")]


@pytest.fixture
def chain():
    """Prompt a: a decision, a filler, a decision; prompt b: one decision."""
    correct = np.array([[0, 1], [1, 0], [1, 1]], dtype=bool)
    return World(np.log([[0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]), correct, ("a", "b"), np.array([[0, 2, 1], [1, 0, 0]]),
                 np.array([3, 1]))  # fmt: skip


def test_both_environments_are_registered():
    assert IDS == ["dynamo/SoftmaxBandit-v0", "dynamo/SkillChain-v0"]


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("vectorization_mode", ["sync", "async"])
def test_native_vector_returns_what_gymnasiums_do(env_id, vectorization_mode):
    """Keys, masks, types, shapes and values of everything, in the mode of autoreset that the environment declares."""
    native = gym.make_vec(env_id, num_envs=3)
    mode = native.metadata["autoreset_mode"]
    assert mode is AutoresetMode.SAME_STEP
    theirs = gym.make_vec(
        env_id, num_envs=3, vectorization_mode=vectorization_mode, vector_kwargs={"autoreset_mode": mode}
    )
    assert native.metadata == theirs.metadata
    for space in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(native, space) == getattr(theirs, space)
    actions, num_ended = np.random.default_rng(0).integers(native.single_action_space.n, size=(60, 3)), 0
    for seed, options in ((7, None), ([3, None, 5], None), (None, {"prompt": 2})):
        starts = [envs.reset(seed=seed, options=options) for envs in (native, theirs)]
        assert data_equivalence(*starts, exact=True)
        for action in actions:
            ours = native.step(action)
            assert data_equivalence(ours, theirs.step(action), exact=True)
            infos = ours[4]
            if ours[2].any():
                num_ended += 1
                assert infos["final_obs"].dtype == object
                assert infos["final_obs"].shape == (3,)
                for i, ended in enumerate(ours[2]):
                    final = infos["final_obs"][i]
                    assert native.single_observation_space.contains(final) if ended else final is None
                np.testing.assert_array_equal(infos["_final_info"], ours[2])
                np.testing.assert_array_equal(infos["final_info"]["_key"], ours[2])
    assert num_ended > 30
    theirs.close()
    native.close()


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
def test_native_vector_shows_what_gymnasiums_do(env_id, render_mode):
    native = gym.make_vec(env_id, num_envs=3, render_mode=render_mode)
    kwargs = {"autoreset_mode": AutoresetMode.SAME_STEP}
    sync = gym.make_vec(env_id, num_envs=3, render_mode=render_mode, vectorization_mode="sync", vector_kwargs=kwargs)
    native.reset(seed=0)
    sync.reset(seed=0)
    for action in np.random.default_rng(0).integers(native.single_action_space.n, size=(30, 3)):
        assert data_equivalence(native.render(), sync.render(), exact=True)
        native.step(action)
        sync.step(action)


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_vector_wrappers_take_the_native_vector_for_their_own(env_id):
    def wrapped(**kwargs):
        env = wrappers.vector.RecordEpisodeStatistics(gym.make_vec(env_id, num_envs=3, **kwargs))
        return wrappers.vector.DictInfoToList(wrappers.vector.NormalizeReward(env))

    ours = wrapped()
    theirs = wrapped(vectorization_mode="sync", vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP})
    assert data_equivalence(ours.reset(seed=1), theirs.reset(seed=1), exact=True)
    for action in np.random.default_rng(0).integers(ours.single_action_space.n, size=(30, 3)):
        steps = ours.step(action), theirs.step(action)
        for info in (info for step in steps for info in step[4]):
            for holder in (info, info.get("final_info", {})):
                holder.get("episode", {}).pop("t", None)  # in seconds
        assert data_equivalence(*steps, exact=True)


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_wrappers_work(env_id):
    env = gym.make(env_id, max_episode_steps=2, render_mode="rgb_array_list")
    env = wrappers.FlattenObservation(wrappers.RecordEpisodeStatistics(env))
    observation, _ = env.reset(seed=0, options={"prompt": 3})
    assert env.observation_space.contains(observation)
    assert observation[3] == 1.0
    ended, steps = False, 0
    while not ended:
        observation, _, terminated, truncated, info = env.step(0)
        steps += 1
        ended = terminated or truncated
    assert terminated is (env_id == IDS[0])
    assert info["episode"]["l"] == steps
    frames = env.render()
    assert len(frames) == 1 + steps
    assert all(frame.dtype == np.uint8 for frame in frames)


def test_a_picture_shows_answers_and_tokens(chain):
    """The likeliest answer of a row has its full colour; where p = 0.3 against 0.7, 0.25 + 0.75 * 3 / 7 of it."""
    env = gym.make(IDS[1], world=chain, render_mode="rgb_array")
    env.reset(options={"prompt": 0})
    picture = env.render()
    assert picture.shape == (3 * SQUARE, 2 * SQUARE, 3)
    assert picture.dtype == np.uint8
    centre = SQUARE // 2
    blue, orange, grey = [0, 114, 178], [213, 94, 0], [128, 128, 128]
    np.testing.assert_array_equal(picture[centre, centre], orange)
    np.testing.assert_array_equal(picture[centre, SQUARE + centre], [int(0.75 * c) for c in blue])  # 0.4 against 0.6
    np.testing.assert_array_equal(picture[SQUARE + centre, SQUARE + centre], grey)
    np.testing.assert_array_equal(picture[2 * SQUARE + centre, centre], blue)
    np.testing.assert_array_equal(picture[-centre, -centre], [int((0.25 + 0.75 * 3 / 7) * c) for c in orange])
    assert not (picture == 255).any()
    env.step(1)
    changed = (env.render() != picture).any(-1)
    inside = np.zeros_like(changed)
    inside[:SQUARE, SQUARE:] = True
    inside[2 : SQUARE - 2, SQUARE + 2 : -2] = False
    np.testing.assert_array_equal(changed, inside)
    assert (env.render()[inside] == 255).all()
    env.step(0)
    border = np.zeros_like(inside)
    border[SQUARE : 2 * SQUARE, :SQUARE] = True
    border[SQUARE + 2 : 2 * SQUARE - 2, 2 : SQUARE - 2] = False
    np.testing.assert_array_equal((env.render() != picture).any(-1), inside | border)
    env.reset(options={"prompt": 1})
    assert not env.render()[SQUARE:].any()


@pytest.mark.parametrize("env_id", IDS)
def test_a_mode_that_is_not_there_is_refused_and_none_is_warned_of(env_id):
    message = "render_mode: expected one of None, ansi, rgb_array, got 'depth_array'"
    with (
        pytest.warns(UserWarning, match="render_mode='depth_array' that is not in the possible render_modes"),
        pytest.raises(ValueError, match=message),
    ):
        gym.make(env_id, render_mode="depth_array")
    with pytest.raises(ValueError, match=message):
        gym.make_vec(env_id, render_mode="depth_array")
    for env in (gym.make(env_id).unwrapped, gym.make_vec(env_id)):
        env.reset()
        with pytest.warns(UserWarning, match="render was called without a render mode"):
            assert env.render() is None
    for env in (gym.make(env_id, render_mode="ansi").unwrapped, gym.make_vec(env_id, render_mode="ansi")):
        with pytest.raises(ValueError, match="render: expected a call of reset first"):
            env.render()


def played(env, actions):
    """Step with every action; a single environment is reset after each episode."""
    seen = []
    for action in actions:
        seen.append(env.step(action))
        if seen[-1][2] is True:
            seen.append(env.reset())
    return seen


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))], ids=["copy", "pickle"])
def test_a_copy_goes_on_as_the_original_and_by_itself(env_id, duplicate):
    for env, shape in ((gym.make(env_id), ()), (gym.make_vec(env_id, num_envs=3), (3,))):
        actions = np.random.default_rng(0).integers(2, size=(100, *shape))
        env.reset(seed=4)
        played(env, actions[:20])
        other = duplicate(env)
        assert data_equivalence(played(other, actions[20:]), played(env, actions[20:]), exact=True)


@pytest.mark.parametrize("wrong", [1.0, np.float32(0), "0", None, [0], np.array([0]), -1, 10**6, 10**30])
def test_actions_of_a_wrong_type_are_named(wrong):
    env = SoftmaxBandit("binary")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: expected an answer in \[0, 2\)"):
        env.step(wrong)
    for right in (np.int32(0), np.array(1), 1):  # The refused one was no step.
        env.step(right)
        env.reset()


@pytest.mark.parametrize(
    "wrong",
    [0, [0], [0, 1, 2], [0.0, 1.0], np.array([True, False]), [[0], [0, 1]], "01", None, [0, -1], [0, 10**30], [[0, 1]]],
)
def test_actions_of_a_wrong_type_are_named_by_the_vector(wrong):
    envs = gym.make_vec(IDS[0], num_envs=2, world="binary")
    before, _ = envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions: expected 2 answers in \[0, 2\)"):
        envs.step(wrong)
    for right in ([0, 1], np.array([0, 1], dtype=np.uint8), torch.tensor([0, 1])):
        observation, *_, infos = envs.step(right)
        np.testing.assert_array_equal(infos["final_obs"].astype(int), before)
        before = observation


@pytest.mark.parametrize("wrong", [[0.5, 1.0], [True, False], [0], "a", [[0], [1, 2]], 0.5, True])
def test_prompts_of_a_wrong_type_are_named_by_the_vector(wrong):
    with pytest.raises(ValueError, match="prompt: expected 2 indices"):
        gym.make_vec(IDS[0], num_envs=2).reset(options={"prompt": wrong})


def test_seeds_of_a_vector_are_one_or_as_many_as_environments():
    envs = gym.make_vec(IDS[0], num_envs=3)
    with pytest.raises(ValueError, match="seed: expected a seed or 3 of them, got 2"):
        envs.reset(seed=[1, 2])
    for same in ([7, 8, 9], (7, 8, 9), np.int64(7)):
        np.testing.assert_array_equal(envs.reset(seed=same)[0], envs.reset(seed=7)[0])


@pytest.mark.parametrize("env_id", IDS)
def test_stable_baselines_accepts_it(env_id):
    """Its checker; warnings are errors here, as in all tests."""
    env_checker.check_env(gym.make(env_id, render_mode="rgb_array"), warn=True, skip_render_check=False)
    env_checker.check_env({IDS[0]: SoftmaxBandit, IDS[1]: SkillChain}[env_id](), warn=True, skip_render_check=False)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_stable_baselines_makes_vectors(env_id, kind):
    """Infos, final observations and frames are those of single environments with seeds 5 and 6."""
    envs = make_vec_env(f"toy.envs:{env_id}", n_envs=2, seed=5, vec_env_cls=kind)
    singles = [gym.make(env_id, render_mode="rgb_array") for _ in range(2)]
    starts = [env.reset(seed=5 + i)[0] for i, env in enumerate(singles)]
    np.testing.assert_array_equal(envs.reset(), starts)
    num_ended = 0
    for actions in np.random.default_rng(0).integers(envs.action_space.n, size=(40, 2)):
        observations, rewards, dones, infos = envs.step(actions)
        for i, env in enumerate(singles):
            observation, reward, terminated, _, info = env.step(actions[i])
            assert (rewards[i], dones[i], infos[i]["key"]) == (reward, terminated, info["key"])
            assert infos[i]["TimeLimit.truncated"] is False
            if terminated:
                num_ended += 1
                np.testing.assert_array_equal(infos[i]["terminal_observation"], observation)
                assert infos[i]["episode"]["r"] == reward
                observation = env.reset()[0]
            np.testing.assert_array_equal(observations[i], observation)
    assert num_ended > 2
    for ours, env in zip(envs.get_images(), singles, strict=True):
        np.testing.assert_array_equal(ours, env.render())
    assert envs.render(mode="rgb_array").dtype == np.uint8
    envs.close()


@pytest.mark.parametrize("env_id", IDS)
def test_stable_baselines_monitors_vectors(env_id):
    envs = VecMonitor(DummyVecEnv([lambda: gym.make(env_id)] * 2))
    envs.seed(0)
    envs.reset()
    lengths = []
    for actions in np.random.default_rng(0).integers(envs.action_space.n, size=(40, 2)):
        for info, done in zip(*envs.step(actions)[:1:-1], strict=True):
            assert ("episode" in info) == done
            lengths += [info["episode"]["l"]] if done else []
    world = envs.get_attr("unwrapped")[0].world
    assert set(lengths) <= set(world.lengths.tolist())
    assert len(lengths) > 2


def trained(env_id, world, num_steps):
    """Train a small PPO; return success of its likeliest answers before and after, and its weights."""
    envs = make_vec_env(env_id, n_envs=4, seed=1, env_kwargs={"world": world})
    ppo = PPO("MlpPolicy", envs, n_steps=64, batch_size=64, learning_rate=0.01, gamma=1.0, seed=1, device="cpu",
              policy_kwargs={"net_arch": [16]})  # fmt: skip

    def success():
        evaluated = make_vec_env(env_id, n_envs=1, seed=2, env_kwargs={"world": world})
        return evaluate_policy(ppo, evaluated, n_eval_episodes=100)[0]

    before = success()
    ppo.learn(num_steps)
    return before, success(), [p.detach().numpy() for p in ppo.policy.parameters()]


@pytest.mark.parametrize("env_id", IDS)
def test_ppo_of_stable_baselines_learns_and_repeats_itself_to_the_bit(env_id, chain):
    if env_id == IDS[0]:
        correct = np.eye(4, dtype=bool)[[2, 0, 3, 1, 2, 3]]
        world = World(np.zeros((6, 4)), correct, tuple("abcdef"))
    else:
        world = chain
    (before, after, weights), again = trained(env_id, world, 3072), trained(env_id, world, 3072)
    assert before < 0.8
    assert after == 1.0
    assert (before, after) == again[:2]
    for one, other in zip(weights, again[2], strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_example_of_the_page_runs():
    page = Path(__file__).parents[2] / "docs" / "toy.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(example, {})
