"""The seeds of trajectories: one for every run, step, prompt and number, whatever the round of rollouts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

from scale.plugin import agent_loop
from scale.plugin.agent_loop import trajectory_seed

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
    ("trajectory", "told", "asked"),
    [
        ({"validate": False, "step": 3}, {"session_id": 2, "extra_info": {"key": "a"}}, (3, "a", 2)),
        (
            {"validate": False, "step": 3},
            {"session_id": 2, "first_session": 8, "extra_info": {"key": "a"}},
            (3, "a", 10),
        ),
        ({"validate": True, "step": 3}, {"session_id": 0, "extra_info": {"key": "a"}}, (-1, "a", 0)),
        ({"validate": False, "step": 0}, {"session_id": 1, "extra_info": None}, (0, "7", 1)),
    ],
)
def test_a_trajectory_is_sampled_with_its_seed(trajectory, told, asked, monkeypatch):
    """A later round goes on with the numbers; validations draw alike; a row without a key has its place."""
    seen = []

    async def record(self, sampling_params, trajectory, **kwargs):
        seen.append((sampling_params, kwargs["session_id"], "first_session" in kwargs))

    monkeypatch.setattr(agent_loop._Worker, "_run_agent_loop", record)
    worker = object.__new__(agent_loop.SeededWorker)
    worker.config = SimpleNamespace(dynamo=SimpleNamespace(seed=5))
    asyncio.run(worker._run_agent_loop({"temperature": 0.7}, {"sample_index": 7, **trajectory}, **told))
    assert seen == [({"temperature": 0.7, "seed": trajectory_seed(5, *asked)}, asked[2], False)]
