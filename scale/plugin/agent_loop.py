"""verl's agent loop, with a seed for every trajectory: what is sampled depends on the run's seed and the prompt's key.

Not on the order in which requests arrive, on how many workers there are, or on interruptions. A failed trajectory ends
the run with its cause; verl would go on with a smaller group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from scale.plugin.config import FIRST_SESSION
from scale.plugin.row_order import step_of
from scale.plugin.seeds import trajectory_seed
from scale.run import reported

_Worker: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class


LARGEST = float(np.finfo(np.float32).max)
"""Largest reward, either way: verl keeps rewards in float32."""


def require_reward(score: Any, extra: Mapping[str, Any], key: str, function: str) -> float:
    """Require a finite number as the reward of a response to the prompt `key`, and as its `acc` if there is one.

    Returns the reward as a float, since verl puts it into a tensor, which takes no scalar of NumPy.

    Examples
    --------
    >>> require_reward(float("nan"), {}, "k7", "r.py:f")
    Traceback (most recent call last):
    ValueError: reward: expected a finite number, got score nan of a response to prompt 'k7' by r.py:f
    """
    for name, value in {"score": score, **{x: extra[x] for x in ("acc",) if x in extra}}.items():
        number = isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating))
        large = isinstance(value, int) and abs(value) > LARGEST  # perhaps beyond float64, and beyond what is written
        if not number or large or not abs(float(value)) <= LARGEST:
            got = "an integer beyond float32" if large else f"{value!r:.80}"
            raise ValueError(
                f"reward: expected a finite number, got {name} {got} of a response to prompt {key!r} by {function}"
            )
    return float(score)


class SeededWorker(_Worker):  # type: ignore[misc]  # verl is untyped
    """Worker that runs trajectories with their seeds."""

    @reported("agent loop")
    async def _run_agent_loop(self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **kwargs: Any) -> Any:
        step = -1 if trajectory["validate"] else step_of(kwargs["uid"])
        key = str((kwargs.get("extra_info") or {}).get("key", trajectory["sample_index"]))
        kwargs["session_id"] += kwargs.pop(FIRST_SESSION, 0)
        seed = trajectory_seed(self.config.dynamo.seed, step, key, kwargs["session_id"])
        return await super()._run_agent_loop({**sampling_params, "seed": seed}, trajectory, **kwargs)

    async def _compute_score(self, outputs: list[Any], kwargs: dict[str, Any]) -> None:
        """Let verl score a response, in training and in validation; what is no number ends the run."""
        await super()._compute_score(outputs, kwargs=kwargs)
        if self.reward_loop_worker_handles is None:  # A reward model scores later; the trainer looks at its rewards.
            return
        reward = self.config.reward.custom_reward_function
        extra = outputs[-1].extra_fields.get("reward_extra_info") or {}
        key = str((kwargs.get("extra_info") or {}).get("key"))
        function = f"{reward.path}:{reward.name}"
        outputs[-1].reward_score = require_reward(outputs[-1].reward_score, extra, key, function)


class SeededAgentLoopManager(AgentLoopManagerTQ):  # type: ignore[misc]  # verl is untyped
    """verl's manager (`agent_loop_manager_class`), with seeded workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(SeededWorker)
