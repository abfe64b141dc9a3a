"""A seed for every run, step, prompt and number, whatever the round of rollouts; and rewards, which are numbers."""

from __future__ import annotations

import asyncio
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("verl")

from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

from scale.plugin import agent_loop
from scale.plugin.agent_loop import SeededWorker, require_reward, trajectory_seed
from scale.plugin.row_order import prompt_name

pytestmark = pytest.mark.needs_verl


def test_every_trajectory_has_a_seed_of_its_own():
    seeds = {
        trajectory_seed(seed, step, key, session)
        for seed in range(4)
        for step in range(-1, 4)
        for key in ("a", "b", "1")
        for session in range(12)
    }
    assert len(seeds) == 4 * 5 * 3 * 12
    assert 0 <= min(seeds) <= max(seeds) < 2**31


@pytest.mark.parametrize(
    ("validate", "told", "asked"),
    [
        (False, {"uid": prompt_name(3, 0), "session_id": 2, "extra_info": {"key": "a"}}, (3, "a", 2)),
        (
            False,
            {"uid": prompt_name(3, 0), "session_id": 2, "first_session": 8, "extra_info": {"key": "a"}},
            (3, "a", 10),
        ),
        (True, {"uid": "0f3a-11", "session_id": 0, "extra_info": {"key": "a"}}, (-1, "a", 0)),
        (False, {"uid": prompt_name(0, 5), "session_id": 1, "extra_info": None}, (0, "7", 1)),
    ],
)
def test_a_trajectory_is_sampled_with_its_seed(validate, told, asked, monkeypatch):
    """A later round goes on with the numbers; validations draw alike; a row without a key has its place.

    The step is the one that learns from it: a prompt that a resumed run submits again has another `step` for verl.
    """
    seen = []

    async def record(self, sampling_params, trajectory, **kwargs):
        seen.append((sampling_params, kwargs["session_id"], "first_session" in kwargs))

    monkeypatch.setattr(agent_loop._Worker, "_run_agent_loop", record)
    worker = object.__new__(agent_loop.SeededWorker)
    worker.config = SimpleNamespace(dynamo=SimpleNamespace(seed=5))
    trajectory = {"sample_index": 7, "step": 99, "validate": validate}
    asyncio.run(worker._run_agent_loop({"temperature": 0.7}, trajectory, **told))
    assert seen == [({"temperature": 0.7, "seed": trajectory_seed(5, *asked)}, asked[2], False)]


@pytest.mark.parametrize("score", [1, 0.5, -2.0, True, np.float32(1), np.int64(0), np.bool_(True)], ids=repr)
def test_numbers_are_rewards(score):
    reward = require_reward(score, {"acc": True, "pred": "7", "similarity": math.nan}, "k", "r.py:f")
    assert type(reward) is float
    assert reward == score


@pytest.mark.parametrize("score", [1, 0.5, True, np.float32(0.5), np.int64(0), np.bool_(True), 10**30], ids=repr)
def test_verl_takes_every_number_that_is_a_reward(score):
    """Into the tensor of its own output, as it goes into the queue."""
    output = AgentLoopOutput(prompt_ids=[1], response_ids=[2, 3], response_mask=[1, 1], metrics=AgentLoopMetrics())
    output.reward_score = score
    asyncio.run(worker(["a reward worker"])._compute_score([output], kwargs={}))
    assert torch.equal(output.as_dict()["rm_scores"], torch.tensor([0.0, float(score)]))


@pytest.mark.parametrize(
    "score", [math.nan, math.inf, -math.inf, 1e39, "1", None, [], {}, 1j, np.float32("nan"), np.array([1.0])], ids=repr
)
def test_what_is_no_number_is_no_reward(score):
    for name, given in (("score", (score, {})), ("acc", (1.0, {"acc": score}))):
        message = f"reward: expected a finite number, got {name} {score!r:.80} of a response to prompt 'k' by r.py:f"
        with pytest.raises(ValueError, match=re.escape(message)):
            require_reward(*given, "k", "r.py:f")


@pytest.mark.parametrize(
    "score", [10**39, -(10**400), 10**5000], ids=["float64", "int", "more digits than are written"]
)
def test_an_integer_beyond_float32_is_no_reward(score):
    for name, given in (("score", (score, {})), ("acc", (1.0, {"acc": score}))):
        message = f"reward: expected a finite number, got {name} an integer beyond float32 of a response to prompt 'k'"
        with pytest.raises(ValueError, match=re.escape(message)):
            require_reward(*given, "k", "r.py:f")


def worker(handles):
    made = SeededWorker.__new__(SeededWorker)
    made.reward_loop_worker_handles = handles
    custom = SimpleNamespace(path="r.py", name="f")
    made.config = SimpleNamespace(reward=SimpleNamespace(custom_reward_function=custom))
    return made


@pytest.mark.parametrize("handles", [None, ["a reward worker"]])
def test_a_worker_looks_at_every_reward(handles):
    """Without reward workers a reward model scores later."""
    output = SimpleNamespace(reward_score=math.nan, extra_fields={}, metrics=SimpleNamespace())
    call = worker(handles)._compute_score([output], kwargs={"extra_info": {"key": "k7"}})
    if handles is None:
        asyncio.run(call)
    else:
        with pytest.raises(ValueError, match=r"got score nan of a response to prompt 'k7' by r\.py:f"):
            asyncio.run(call)
