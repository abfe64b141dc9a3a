"""Gymnasium environments over tabular worlds, each single and as a native vector environment.

`dynamo/SoftmaxBandit-v0` is one answer to one prompt, `dynamo/SkillChain-v0` one token after the other. Importing this
module registers them; `gymnasium.make("toy.envs:dynamo/SoftmaxBandit-v0", world="mixed")` does both. The native vector
environments do what `gymnasium.vector.SyncVectorEnv` does with the single ones, seeds and infos included, without a
loop over the environments.
"""

from __future__ import annotations

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

DRAWN_AHEAD = 64
"""Prompts that a vector environment draws at once for each of its environments."""


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

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 (an instance attribute of gymnasium's base)

    def __init__(self, world: World, render_mode: str | None) -> None:
        require.one_of("render_mode", render_mode, (None, "ansi"))
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

    def render(self) -> str | None:
        """Return the episode so far as text."""
        if self.render_mode is None or self._prompt is None:
            return None
        p = self.world.success_probability()[self._prompt]
        text = f"{self.world.keys[self._prompt]}  p = {p:.3f}  {self._text(self._prompt)}"
        if len(self._actions) == self.world.lengths[self._prompt]:
            text += f" {'correct' if self._right(self._prompt).all() else 'wrong'}"
        return text + "\n"

    def _right(self, prompt: int) -> BoolArray:
        """Return which of the tokens so far are correct."""
        rows = self.world.rows[prompt, : len(self._actions)]
        return np.asarray(self.world.correct[rows, self._actions])

    def _observation(self, prompt: int) -> Any:
        raise NotImplementedError

    def _text(self, prompt: int) -> str:
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
    render_mode : None or "ansi": `render` returns the prompt, its three likeliest answers before training (`*` is
        correct) and the last answer, as text.
    """

    def __init__(self, world: str | World = "mixed", world_seed: int = 0, render_mode: str | None = None) -> None:
        super().__init__(_world(world, world_seed), render_mode)
        _require_bandit(self.world)
        self.observation_space = spaces.Discrete(self.world.num_prompts)

    def _observation(self, prompt: int) -> np.int64:
        return np.int64(prompt)

    def _text(self, prompt: int) -> str:
        row = self.world.rows[prompt, 0]
        correct, logits = self.world.correct[row], self.world.logits[row]
        probs = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        top = np.argsort(-probs, kind="stable")[:3]
        answers = "  ".join(f"{a}{'*' if correct[a] else ''} {probs[a]:.3f}" for a in top)
        return f"answers {answers}" + "".join(f"  -> {a}" for a in self._actions)


class SkillChain(_Single):
    """One prompt, a chain of tokens, one reward at the end: the token-level world.

    Observation: index of the prompt and number of tokens so far, `MultiDiscrete([N, T + 1])`; the skill that the next
    token belongs to is `world.rows[prompt, position]`. Action: a token, `Discrete(K)`. Reward: 0.0, and after the last
    token 1.0 if every token is correct in its skill. `reset` and the info are as in `SoftmaxBandit`.

    Parameters
    ----------
    world, world_seed : As in `SoftmaxBandit`, with prompts of any number of tokens.
    render_mode : None or "ansi": `render` returns the prompt and its skills as text, `7` for a decision and `(7)` for a
        filler, with the tokens so far, as in `7=3+ (9)=0 2=5- 4`: `+` is correct, `-` wrong.
    """

    def __init__(self, world: str | World = "skills", world_seed: int = 0, render_mode: str | None = None) -> None:
        super().__init__(_world(world, world_seed), render_mode)
        self.observation_space = _chain_space(self.world)

    def _observation(self, prompt: int) -> IntArray:
        return np.array([prompt, len(self._actions)])

    def _text(self, prompt: int) -> str:
        rows = self.world.rows[prompt, : self.world.lengths[prompt]]
        skills = [str(row) if self.world.decisions[row] else f"({row})" for row in rows]
        for t, (action, right) in enumerate(zip(self._actions, self._right(prompt), strict=True)):
            mark = ("+" if right else "-") if self.world.decisions[rows[t]] else ""
            skills[t] += f"={action}{mark}"
        return " ".join(skills)


class _Vector(VectorEnv[IntArray, IntArray, Any]):
    """Many rollouts over one world at once; an environment whose episode ends starts the next one in the same step."""

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, world: World, single_observation_space: spaces.Space[Any]) -> None:
        self.num_envs = require.count("num_envs", num_envs, 1)
        self.world = world
        self.single_observation_space = single_observation_space
        self.single_action_space = spaces.Discrete(world.num_answers)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._keys = np.array(world.keys, dtype=object)
        self._generators: list[np.random.Generator] = []
        self._ahead = np.zeros((num_envs, DRAWN_AHEAD), dtype=np.int64)
        self._num_used = np.full(num_envs, DRAWN_AHEAD)
        self._prompts: IntArray | None = None
        self._positions = np.zeros(num_envs, dtype=np.int64)
        self._right = np.ones(num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Start all episodes with drawn prompts, or with `options["prompt"]` [num_envs]; environment i has seed + i."""
        if seed is not None or not self._generators:
            seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
            self._generators = [seeding.np_random(s)[0] for s in seeds]
            self._num_used[:] = DRAWN_AHEAD
        given = _prompt_option(options)
        every = np.ones(self.num_envs, dtype=np.bool_)
        if given is None:
            self._prompts = self._draw(every)
        else:
            prompts, num_prompts = np.asarray(given), self.world.num_prompts
            if not batch_space(spaces.Discrete(num_prompts), self.num_envs).contains(prompts):
                raise ValueError(f"prompt: expected {self.num_envs} indices in [0, {num_prompts}), got {given!r}")
            self._prompts = prompts.astype(np.int64)
        self._positions[:] = 0
        self._right[:] = True
        return self._observations(), {"key": self._keys[self._prompts], "_key": every}

    def step(self, actions: IntArray) -> tuple[IntArray, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Take a token in every environment; those at their end give their reward and start the next episode.

        The infos hold `final_obs` and `final_info` of the episodes that ended, valid where `_final_obs` is True.
        """
        if self._prompts is None:
            raise ValueError("step: expected a call of reset first, got none")
        if not self.action_space.contains(np.asarray(actions)):
            raise ValueError(
                f"actions: expected {self.num_envs} answers in [0, {self.world.num_answers}), got {actions!r}"
            )
        self._right &= self.world.correct[self.world.rows[self._prompts, self._positions], actions]
        self._positions += 1
        ended = self._positions == self.world.lengths[self._prompts]
        rewards = (ended & self._right).astype(np.float64)
        infos: dict[str, Any] = {}
        if ended.any():
            keys = self._keys[self._prompts]
            keys[~ended] = None
            final = {"key": keys, "_key": ended.copy()}
            infos = {"final_obs": self._observations(), "final_info": final}
            infos |= {"_final_obs": ended.copy(), "_final_info": ended.copy()}
            self._prompts[ended] = self._draw(ended)
            self._positions[ended] = 0
            self._right[ended] = True
        infos |= {"key": self._keys[self._prompts], "_key": np.ones(self.num_envs, dtype=np.bool_)}
        return self._observations(), rewards, ended, np.zeros(self.num_envs, dtype=np.bool_), infos

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

    def __init__(self, num_envs: int = 1, world: str | World = "mixed", world_seed: int = 0) -> None:
        sampled = _world(world, world_seed)
        _require_bandit(sampled)
        super().__init__(num_envs, sampled, spaces.Discrete(sampled.num_prompts))

    def _observations(self) -> IntArray:
        assert self._prompts is not None
        return self._prompts.copy()


class SkillChainVector(_Vector):
    """Many `SkillChain` episodes at once, over one world, without a loop.

    An environment whose episode ends starts the next one in the same step (`AutoresetMode.SAME_STEP`); how the episode
    ended is in the infos, `final_obs` where `_final_obs`. `reset` takes `options={"prompt": indices}`.
    """

    def __init__(self, num_envs: int = 1, world: str | World = "skills", world_seed: int = 0) -> None:
        sampled = _world(world, world_seed)
        super().__init__(num_envs, sampled, _chain_space(sampled))

    def _observations(self) -> IntArray:
        assert self._prompts is not None
        return np.stack([self._prompts, self._positions], axis=-1)


for _name in ("SoftmaxBandit", "SkillChain"):
    gym.register(id=f"dynamo/{_name}-v0", entry_point=f"toy.envs:{_name}", vector_entry_point=f"toy.envs:{_name}Vector")
