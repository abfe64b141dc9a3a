"""verl's table of rollouts, imported right after it: in our runs, vLLM is reached by a socket of the run's own."""

from __future__ import annotations

import os

from verl.workers.rollout import base

from scale.run import RUN_ID

if RUN_ID in os.environ:
    base._ROLLOUT_REGISTRY["vllm", "async"] = "scale.plugin.vllm_worker.RunServerAdapter"
