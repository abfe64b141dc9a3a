"""What an agent loop makes of a reward: a finite number, in training and in validation, or the end of the run."""

from __future__ import annotations

import asyncio
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("verl")
from scale.plugin.agent_loop import SeededWorker, require_reward

pytestmark = pytest.mark.needs_verl


@pytest.mark.parametrize("score", [1, 0.5, -2.0, True, np.float32(1), np.int64(0), np.bool_(True)], ids=repr)
def test_numbers_are_rewards(score):
    require_reward(score, {"acc": True, "pred": "7", "similarity": math.nan}, "k", "r.py:f")


@pytest.mark.parametrize(
    "score", [math.nan, math.inf, -math.inf, 1e39, "1", None, [], {}, 1j, np.float32("nan"), np.array([1.0])], ids=repr
)
def test_what_is_no_number_is_no_reward(score):
    for name, given in (("score", (score, {})), ("acc", (1.0, {"acc": score}))):
        message = f"reward: expected a finite number, got {name} {score!r:.80} of a response to prompt 'k' by r.py:f"
        with pytest.raises(ValueError, match=re.escape(message)):
            require_reward(*given, "k", "r.py:f")


@pytest.mark.parametrize("handles", [None, ["a reward worker"]])
def test_a_worker_looks_at_every_reward(handles):
    """Without reward workers a reward model scores later."""
    worker = SeededWorker.__new__(SeededWorker)
    worker.reward_loop_worker_handles = handles
    worker.config = SimpleNamespace(
        reward=SimpleNamespace(custom_reward_function=SimpleNamespace(path="r.py", name="f"))
    )
    output = SimpleNamespace(reward_score=math.nan, extra_fields={}, metrics=SimpleNamespace())
    call = worker._compute_score([output], kwargs={"extra_info": {"key": "k7"}})
    if handles is None:
        asyncio.run(call)
    else:
        with pytest.raises(ValueError, match=r"got score nan of a response to prompt 'k7' by r\.py:f"):
            asyncio.run(call)
