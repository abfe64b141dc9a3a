"""vLLM's server in our runs: on the loopback address, with a key; and its runner. Imported after verl's server.

verl starts the server in every run and never calls it: it reaches vLLM through Ray. So nobody needs the key. It is made
in the server's process and written nowhere. To call the server, set VLLM_API_KEY yourself. The key guards the routes
below /v1 alone, and so does not replace the address.

All models have vLLM's first model runner, which draws as `scale.plugin.vllm_sampling` says. To have the second and its
draws, set VLLM_USE_V2_MODEL_RUNNER=1 yourself.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from verl.workers.rollout.vllm_rollout import vllm_async_server

from scale.plugin.config import FIRST_RUNNER
from scale.run import RUN_ID

_run = vllm_async_server.run_uvicorn


async def run_on_loopback(app: Any, args: Any, address: str) -> Any:
    """Start the server as verl does, whatever the address of the node is."""
    return await _run(app, args, "127.0.0.1")


if RUN_ID in os.environ:
    os.environ.setdefault("VLLM_API_KEY", secrets.token_hex(32))
    os.environ.setdefault(*FIRST_RUNNER)
    vllm_async_server.run_uvicorn = run_on_loopback
