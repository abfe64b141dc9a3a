"""Gymnasium environments over tabular worlds: `dynamo/SoftmaxBandit-v0`, single and as a native vector environment.

Importing this module registers them; `gymnasium.make("toy.envs:dynamo/SoftmaxBandit-v0", world="mixed")` does both.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from theory import _checks
from theory._checks import BoolArray, FloatArray, IntArray
from toy.worlds import WORLDS, World


def _world(world: str | World, world_seed: int) -> World:
    if isinstance(world, World):
        return world
    _checks.one_of("world", world, WORLDS)
    return WORLDS[world].sample(np.random.default_rng(_checks.count("world_seed", world_seed)))


class SoftmaxBandit(gym.Env[np.int64, np.int64]):
    """One prompt, one answer, one reward: a contextual bandit with a verifiable reward.

    Observation: index of the prompt, `Discrete(N)`. Action: id of the answer, `Discrete(K)`. Reward: 1.0 if the answer
    is correct, else 0.0. An episode is one step; the best mean return is 1. `reset` draws the prompt uniformly, or
    takes it from `options={"prompt": index}`. The info holds `key`, the stable name of the prompt.

    Parameters
    ----------
    world
        Name in `toy.worlds.WORLDS`, or a `World`.
    world_seed
        Seed of the population if `world` is a name; it has nothing to do with the seed of `reset`.
    render_mode
        None or "ansi": `render` returns the prompt, its three likeliest answers before training (`*` is correct) and
        the last answer, as text.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 (an instance attribute of gymnasium's base)

    def __init__(self, world: str | World = "mixed", world_seed: int = 0, render_mode: str | None = None) -> None:
        _checks.one_of("render_mode", render_mode, (None, "ansi"))
        self.world = _world(world, world_seed)
        self.render_mode = render_mode
        self.observation_space: spaces.Discrete = spaces.Discrete(self.world.num_prompts)
        self.action_space: spaces.Discrete = spaces.Discrete(self.world.num_answers)
        self._prompt: int | None = None
        self._answer: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Start an episode with a drawn prompt, or with `options["prompt"]`."""
        super().reset(seed=seed)
        unknown = set(options or {}) - {"prompt"}
        if unknown:
            raise ValueError(f"options: expected the key 'prompt' only, got {sorted(map(str, unknown))}")
        if options:
            if not self.observation_space.contains(options["prompt"]):
                raise ValueError(
                    f"prompt: expected an index in [0, {self.world.num_prompts}), got {options['prompt']!r}"
                )
            self._prompt = int(options["prompt"])
        else:
            self._prompt = int(self.np_random.integers(self.world.num_prompts))
        self._answer = None
        return np.int64(self._prompt), {"key": self.world.keys[self._prompt]}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Answer the prompt; the episode ends."""
        if self._prompt is None or self._answer is not None:
            raise ValueError("step: expected a call of reset before each answer, got none")
        if not self.action_space.contains(action):
            raise ValueError(f"action: expected an answer in [0, {self.world.num_answers}), got {action}")
        self._answer = int(action)
        reward = float(self.world.correct[self._prompt, self._answer])
        return np.int64(self._prompt), reward, True, False, {"key": self.world.keys[self._prompt]}

    def render(self) -> str | None:
        """Return the prompt, its likeliest answers and the last answer as text."""
        if self.render_mode is None or self._prompt is None:
            return None
        correct, logits = self.world.correct[self._prompt], self.world.logits[self._prompt]
        probs = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        top = np.argsort(-probs, kind="stable")[:3]
        answers = "  ".join(f"{a}{'*' if correct[a] else ''} {probs[a]:.3f}" for a in top)
        text = f"{self.world.keys[self._prompt]}  p = {probs[correct].sum():.3f}  answers {answers}"
        if self._answer is not None:
            text += f"  -> {self._answer} {'correct' if correct[self._answer] else 'wrong'}"
        return text + "\n"


class SoftmaxBanditVector(VectorEnv[IntArray, IntArray, Any]):
    """Many `SoftmaxBandit` episodes at once, over one world, without a loop.

    Every step ends every episode and starts the next one (`AutoresetMode.SAME_STEP`): `step` returns the indices of the
    new prompts, and the answered ones as `final_obs` in the infos. `reset` takes `options={"prompt": indices}`.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, world: str | World = "mixed", world_seed: int = 0) -> None:
        self.num_envs = _checks.count("num_envs", num_envs, 1)
        self.world = _world(world, world_seed)
        self.single_observation_space = spaces.Discrete(self.world.num_prompts)
        self.single_action_space = spaces.Discrete(self.world.num_answers)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._prompts: IntArray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[IntArray, dict[str, Any]]:
        """Start all episodes with drawn prompts, or with `options["prompt"]` [num_envs]."""
        super().reset(seed=seed)
        unknown = set(options or {}) - {"prompt"}
        if unknown:
            raise ValueError(f"options: expected the key 'prompt' only, got {sorted(map(str, unknown))}")
        if options:
            prompts = np.asarray(options["prompt"])
            if not self.observation_space.contains(prompts):
                raise ValueError(
                    f"prompt: expected {self.num_envs} indices in [0, {self.world.num_prompts}), got {prompts!r}"
                )
            self._prompts = prompts.astype(np.int64)
        else:
            self._prompts = self._draw()
        return self._prompts.copy(), {}

    def step(self, actions: IntArray) -> tuple[IntArray, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Answer all prompts, end all episodes and start the next ones."""
        if self._prompts is None:
            raise ValueError("step: expected a call of reset first, got none")
        if not self.action_space.contains(np.asarray(actions)):
            raise ValueError(
                f"actions: expected {self.num_envs} answers in [0, {self.world.num_answers}), got {actions!r}"
            )
        answered = self._prompts
        rewards = self.world.correct[answered, actions].astype(np.float64)
        self._prompts = self._draw()
        every = np.ones(self.num_envs, dtype=np.bool_)
        return self._prompts.copy(), rewards, every, ~every, {"final_obs": answered, "_final_obs": every.copy()}

    def _draw(self) -> IntArray:
        return self.np_random.integers(self.world.num_prompts, size=self.num_envs)


gym.register(
    id="dynamo/SoftmaxBandit-v0",
    entry_point="toy.envs:SoftmaxBandit",
    vector_entry_point="toy.envs:SoftmaxBanditVector",
)
