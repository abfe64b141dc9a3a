"""Gymnasium environments over tabular worlds, each single and as a native vector environment.

`dynamo/SoftmaxBandit-v0` is one answer to one prompt, `dynamo/SkillChain-v0` one token after the other. Importing this
module registers them; `gymnasium.make("toy.envs:dynamo/SoftmaxBandit-v0", world="mixed")` does both. The native vector
environments do what `gymnasium.vector.SyncVectorEnv` does with the single ones in `AutoresetMode.SAME_STEP`: seeds,
infos and frames included.

An environment shows itself as text (render mode "ansi") or as a picture ("rgb_array"), as `toy.worlds.frames` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from theory.base import require
from theory.base.arrays import BoolArray, FloatArray, IntArray
from toy.worlds import WORLDS, World
from toy.worlds.frames import Frame, answers_text, frame, skills_text

DRAWN_AHEAD = 64
"""Prompts that a vector environment draws at once for each of its environments."""

RENDERING: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 1}
"""What single and vector environments declare of how they are shown."""


def _world(world: str | World, world_seed: int) -> World:
    if isinstance(world, World):
        return world
    require.one_of("world", world, WORLDS)
    return WORLDS[world].sample(np.random.default_rng(require.count("world_seed", world_seed)))


def _require_bandit(world: World) -> None:
    if world.max_length > 1:
        raise ValueError(
            f"world: expected prompts of one token, got up to {world.max_length}; use dynamo/SkillChain-v0"
        )


def _chain_space(world: World) -> spaces.MultiDiscrete:
    return spaces.MultiDiscrete(np.array([world.num_prompts, world.max_length + 1]))


def _warn_of_no_mode(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> None:
    """Warn as Gymnasium's own environments do."""
    gym.logger.warn(
        f"{type(env).__name__}: render was called without a render mode; give one of "
        f"{', '.join(RENDERING['render_modes'])} as render_mode when you make the environment"
    )


def _indices(name: str, given: Any, what: str, num: int, limit: int) -> IntArray:
    """Require `num` integers in [0, limit); Gymnasium's spaces would let floats and booleans through."""
    try:
        values = np.asarray(given)
    except (TypeError, ValueError, RuntimeError):  # Lists of several lengths, or a tensor that is not on the CPU.
        values = np.empty(0)
    if values.dtype.kind not in "iu" or values.shape != (num,) or (values < 0).any() or (values >= limit).any():
        raise ValueError(f"{name}: expected {num} {what} in [0, {limit}), got {given!r}")
    return values.astype(np.int64)


def _prompt_option(options: dict[str, Any] | None) -> Any:
    """Return the option "prompt", None without options; any other key is an error."""
    if not options:
        return None
    unknown = set(options) - {"prompt"}
    if unknown:
        raise ValueError(f"options: expected the key 'prompt' only, got {sorted(map(str, unknown))}")
    return options["prompt"]


class _Single(gym.Env[Any, np.int64]):
    """One rollout per episode, one token per step; subclasses say what is observed and shown."""

    metadata: dict[str, Any] = RENDERING
    _describe: Callable[..., str]

    def __init__(self, world: World, render_mode: str | None) -> None:
        require.one_of("render_mode", render_mode, (None, *RENDERING["render_modes"]))
        self.world = world
        self.render_mode = render_mode
        self.action_space: spaces.Discrete = spaces.Discrete(world.num_answers)
        self._prompt: int | None = None
        self._actions: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode with a drawn prompt, or with `options["prompt"]`."""
        super().reset(seed=seed)
        prompt = _prompt_option(options)
        if prompt is None:
            self._prompt = int(self.np_random.integers(self.world.num_prompts))
        elif spaces.Discrete(self.world.num_prompts).contains(prompt):
            self._prompt = int(prompt)
        else:
            raise ValueError(f"prompt: expected an index in [0, {self.world.num_prompts}), got {prompt!r}")
        self._actions = []
        return self._observation(self._prompt), {"key": self.world.keys[self._prompt]}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take the next token; after the last one the episode ends, with its reward."""
        prompt = self._prompt
        if prompt is None or len(self._actions) == self.world.lengths[prompt]:
            raise ValueError("step: expected a call of reset before each rollout, got none")
        if not self.action_space.contains(action):
            raise ValueError(f"action: expected an answer in [0, {self.world.num_answers}), got {action}")
        self._actions.append(int(action))
        ended = len(self._actions) == int(self.world.lengths[prompt])
        reward = float(ended and bool(self._right(prompt).all()))
        return self._observation(prompt), reward, ended, False, {"key": self.world.keys[prompt]}

    def render(self) -> Frame | None:
        """Return the episode so far as text or as a picture; without a render mode None, with a warning."""
        if self.render_mode is None:
            _warn_of_no_mode(self)
            return None
        if self._prompt is None:
            raise ValueError("render: expected a call of reset first, got none")
        return frame(self.render_mode, self.world, self._prompt, self._actions, self._describe)

    def _right(self, prompt: int) -> BoolArray:
        """Return which of the tokens so far are correct."""
        rows = self.world.rows[prompt, : len(self._actions)]
        return np.asarray(self.world.correct[rows, self._actions])

    def _observation(self, prompt: int) -> Any:
        raise NotImplementedError


class SoftmaxBandit(_Single):
    """One prompt, one answer, one reward: a contextual bandit with a verifiable reward.

    Observation: index of the prompt, `Discrete(N)`. Action: id of the answer, `Discrete(K)`. Reward: 1.0 if the answer
    is correct, else 0.0. An episode is one step; the best mean return is 1. `reset` draws the prompt uniformly, or
    takes it from `options={"prompt": index}`. The info holds `key`, the stable name of the prompt.

    Parameters
    ----------
    world : Name in `toy.worlds.WORLDS`, or a `World`; one token per prompt.
    world_seed : Seed of the population if `world` is a name; independent of the seed of `reset`.
    render_mode : None, "ansi" or "rgb_array". As text, `render` returns the prompt, its three likeliest answers before
        training (`*` is correct) and the last answer.
    """

    _describe = staticmethod(answers_text)

    def __init__(self, world: str | World = "mixed", world_seed: int = 0, render_mode: str | None = None) -> None:
        super().__init__(_world(world, world_seed), render_mode)
        _require_bandit(self.world)
        self.observation_space = spaces.Discrete(self.world.num_prompts)

    def _observation(self, prompt: int) -> np.int64:
        return np.int64(prompt)


class SkillChain(_Single):
    """One prompt, a chain of tokens, one reward at the end: the token-level world.

    Observation: index of the prompt and number of tokens so far, `MultiDiscrete([N, T + 1])`; the skill that the next
    token belongs to is `world.rows[prompt, position]`. Action: a token, `Discrete(K)`. Reward: 0.0, and after the last
    token 1.0 if every token is correct in its skill. `reset` and the info are as in `SoftmaxBandit`.

    Parameters
    ----------
    world, world_seed : As in `SoftmaxBandit`, with prompts of any number of tokens.
    render_mode : None, "ansi" or "rgb_array". As text, `render` returns the prompt and its skills, `7` for a decision
        and `(7)` for a filler, with the tokens so far, as in `7=3+ (9)=0 2=5- 4`: `+` is correct, `-` wrong.
    """

    _describe = staticmethod(skills_text)

    def __init__(self, world: str | World = "skills", world_seed: int = 0, render_mode: str | None = None) -> None:
        super().__init__(_world(world, world_seed), render_mode)
        self.observation_space = _chain_space(self.world)

    def _observation(self, prompt: int) -> IntArray:
        return np.array([prompt, len(self._actions)])


class _Vector(VectorEnv[IntArray, IntArray, Any]):
    """Many rollouts over one world at once; an environment whose episode ends starts the next one in the same step."""

    metadata: dict[str, Any] = RENDERING | {"autoreset_mode": AutoresetMode.SAME_STEP}
    _describe: Callable[..., str]

    def __init__(
        self, num_envs: int, world: World, single_observation_space: spaces.Space[Any], render_mode: str | None
    ) -> None:
        self.num_envs = require.count("num_envs", num_envs, 1)
        require.one_of("render_mode", render_mode, (None, *RENDERING["render_modes"]))
        self.render_mode = render_mode
        self.world = world
        self.single_observation_space = single_observation_space
        self.single_action_space = spaces.Discrete(world.num_answers)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._keys = np.array(world.keys, dtype=object)
        self._generators: dict[int, np.random.Generator] = {}
        self._ahead = np.zeros((num_envs, DRAWN_AHEAD), dtype=np.int64)
        self._num_used = np.full(num_envs, DRAWN_AHEAD)
        self._prompts: IntArray | None = None
        self._tokens = np.zeros((num_envs, world.max_length), dtype=np.int64)
        self._positions = np.zeros(num_envs, dtype=np.int64)
        self._right = np.ones(num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Start all episodes with drawn prompts, or with `options["prompt"]`, one index or `num_envs` of them.

        Environment i has seed + i, or the i-th of a list of seeds; with None it goes on with the generator that it has.
        """
        if seed is None:
            seeds: list[int | None] = [None] * self.num_envs
        elif isinstance(seed, (int, np.integer)):
            seeds = [int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed: expected a seed or {self.num_envs} of them, got {len(seeds)}")
        for i, each in enumerate(seeds):
            if each is not None or i not in self._generators:
                self._generators[i] = seeding.np_random(each)[0]
                self._num_used[i] = DRAWN_AHEAD
        given = _prompt_option(options)
        every = np.ones(self.num_envs, dtype=np.bool_)
        if given is None:
            self._prompts = self._draw(every)
        else:
            prompts = given if np.iterable(given) else [given] * self.num_envs
            self._prompts = _indices("prompt", prompts, "indices", self.num_envs, self.world.num_prompts)
        self._positions[:] = 0
        self._right[:] = True
        return self._observations(), {"key": self._keys[self._prompts], "_key": every}

    def step(self, actions: IntArray) -> tuple[IntArray, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Take a token in every environment; those at their end give their reward and start the next episode.

        If any ended, the infos hold `final_obs` and `final_info` of those that did, as in Gymnasium: `final_obs` is an
        object array of single observations, None where `_final_obs` is False.
        """
        if self._prompts is None:
            raise ValueError("step: expected a call of reset first, got none")
        actions = _indices("actions", actions, "answers", self.num_envs, self.world.num_answers)
        if self.render_mode is not None:
            self._tokens[np.arange(self.num_envs), self._positions] = actions
        self._right &= self.world.correct[self.world.rows[self._prompts, self._positions], actions]
        self._positions += 1
        ended = self._positions == self.world.lengths[self._prompts]
        rewards = (ended & self._right).astype(np.float64)
        infos: dict[str, Any] = {}
        if ended.any():
            keys = self._keys[self._prompts]
            keys[~ended] = None
            final_obs = np.full(self.num_envs, None, dtype=object)
            final_obs[ended] = np.fromiter(self._observations()[ended], dtype=object)
            infos = {"final_obs": final_obs, "final_info": {"key": keys, "_key": ended.copy()}}
            infos |= {"_final_obs": ended.copy(), "_final_info": ended.copy()}
            self._prompts[ended] = self._draw(ended)
            self._positions[ended] = 0
            self._right[ended] = True
        infos |= {"key": self._keys[self._prompts], "_key": np.ones(self.num_envs, dtype=np.bool_)}
        return self._observations(), rewards, ended, np.zeros(self.num_envs, dtype=np.bool_), infos

    def render(self) -> tuple[Frame, ...] | None:
        """Return what every environment shows, as in the single one."""
        if self.render_mode is None:
            _warn_of_no_mode(self)
            return None
        if self._prompts is None:
            raise ValueError("render: expected a call of reset first, got none")
        return tuple(
            frame(self.render_mode, self.world, int(prompt), tokens[:position].tolist(), self._describe)
            for prompt, tokens, position in zip(self._prompts, self._tokens, self._positions, strict=True)
        )

    def _draw(self, envs: BoolArray) -> IntArray:
        """Return the next prompt of some environments, each from its own generator."""
        for i in np.flatnonzero(envs & (self._num_used == DRAWN_AHEAD)):
            self._ahead[i] = self._generators[i].integers(self.world.num_prompts, size=DRAWN_AHEAD)
            self._num_used[i] = 0
        prompts = self._ahead[envs, self._num_used[envs]]
        self._num_used[envs] += 1
        return np.asarray(prompts)

    def _observations(self) -> IntArray:
        raise NotImplementedError


class SoftmaxBanditVector(_Vector):
    """Many `SoftmaxBandit` episodes at once, over one world, without a loop.

    Every step ends every episode and starts the next one (`AutoresetMode.SAME_STEP`): `step` returns the indices of the
    new prompts, and the answered ones as `final_obs` in the infos. `reset` takes `options={"prompt": indices}`.
    """

    _describe = staticmethod(answers_text)

    def __init__(
        self, num_envs: int = 1, world: str | World = "mixed", world_seed: int = 0, render_mode: str | None = None
    ) -> None:
        sampled = _world(world, world_seed)
        _require_bandit(sampled)
        super().__init__(num_envs, sampled, spaces.Discrete(sampled.num_prompts), render_mode)

    def _observations(self) -> IntArray:
        assert self._prompts is not None
        return self._prompts.copy()


class SkillChainVector(_Vector):
    """Many `SkillChain` episodes at once, over one world, without a loop.

    An environment whose episode ends starts the next one in the same step (`AutoresetMode.SAME_STEP`); how the episode
    ended is in the infos, `final_obs` where `_final_obs`. `reset` takes `options={"prompt": indices}`.
    """

    _describe = staticmethod(skills_text)

    def __init__(
        self, num_envs: int = 1, world: str | World = "skills", world_seed: int = 0, render_mode: str | None = None
    ) -> None:
        sampled = _world(world, world_seed)
        super().__init__(num_envs, sampled, _chain_space(sampled), render_mode)

    def _observations(self) -> IntArray:
        assert self._prompts is not None
        return np.stack([self._prompts, self._positions], axis=-1)


for _name in ("SoftmaxBandit", "SkillChain"):
    gym.register(id=f"dynamo/{_name}-v0", entry_point=f"toy.envs:{_name}", vector_entry_point=f"toy.envs:{_name}Vector")
