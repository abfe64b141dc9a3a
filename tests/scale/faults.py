"""Failures on demand in the parts of a run: each looks for a file `fail-PART` in the folder of the run."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from scale import tiny

PLACES = {}
"""Prompts in the order in which a worker first saw them."""


def asked(part):
    folder = os.environ.get("DYNAMO_RUN_FOLDER")
    return bool(folder) and (Path(folder) / f"fail-{part}").exists()


def fail_if_asked(part):
    if asked(part):
        raise ArithmeticError(f"a deliberate failure of the {part}")


def compute_score(*args, **kwargs):
    fail_if_asked("reward")
    if asked("nan"):
        return float("nan")
    return tiny.compute_score(*args, **kwargs)


try:
    from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

    from scale.plugin.vllm_worker import WorkerExtension
except ImportError:  # the reward worker loads this file by its path, without the rest
    pass
else:

    class FailingLoop(SingleTurnAgentLoop):
        async def run(self, *args, **kwargs):
            fail_if_asked("loop")
            if asked("slow"):  # no failure: the eight prompts of a step are finished one after the other
                key = kwargs["extra_info"]["key"]
                await asyncio.sleep(1.25 * (1 + PLACES.setdefault(key, len(PLACES)) % 8))
            return await super().run(*args, **kwargs)

    class FailingExtension(WorkerExtension):
        def _apply_buffer_updates_all_models(self, *args, **kwargs):
            fail_if_asked("worker")
            return super()._apply_buffer_updates_all_models(*args, **kwargs)


class FailingCallback:
    """verl's checkpoint callback, called in the trainer."""

    def __init__(self, *args, **kwargs):
        pass

    def on_save(self, *args, **kwargs):
        fail_if_asked("trainer")
