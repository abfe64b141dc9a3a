"""vLLM's HTTP server, as verl's module starts it; its key is seen in a real run (`run/test_runs.py`)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scale.launch import cpu_environment
from tests.scale.sockets import addresses

pytestmark = [pytest.mark.needs_verl, pytest.mark.long]

SERVE = """
import asyncio, os, psutil, sys
from fastapi import FastAPI
from verl.workers.rollout.vllm_rollout import vllm_async_server

async def serve():
    port, task = await vllm_async_server.run_uvicorn(FastAPI(), None, sys.argv[1])
    there = {x.laddr.ip for x in psutil.Process().net_connections("tcp") if x.laddr.port == port}
    print(*there, len(os.environ.get("VLLM_API_KEY", "")), os.environ.get("VLLM_USE_V2_MODEL_RUNNER"), flush=True)
    os._exit(0)

asyncio.run(serve())
"""


@pytest.mark.parametrize("run", [{"DYNAMO_RUN_ID": "one"}, {}])
def test_the_server_is_on_loopback_whatever_the_node_is_called(run, tmp_path):
    """On several nodes verl gives it the node's address; outside of a run nothing is changed."""
    host = next((x for x in addresses() if ":" not in x), None)
    if host is None:
        pytest.skip("this machine has no network")
    environ = cpu_environment(tmp_path) | run
    environ.pop("VLLM_API_KEY", None)
    words = [sys.executable, "-W", "ignore", "-c", SERVE, host]
    said = subprocess.run(words, cwd="/", env=environ, capture_output=True, text=True, check=False)
    expected = ["127.0.0.1", "64", "0"] if run else [host, "0", "None"]  # the length of the key, and the model runner
    assert said.stdout.split()[-3:] == expected, said.stderr
