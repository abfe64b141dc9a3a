"""The process group of verl's workers, made by verl's own function in processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from scale.launch import cpu_environment
from tests.scale.sockets import addresses

pytestmark = pytest.mark.needs_verl

WORKER = """
import json, psutil, torch
from verl.utils.distributed import initialize_global_process_group_ray
initialize_global_process_group_ray(backend="cpu:gloo")
total = torch.ones(1)
torch.distributed.all_reduce(total)
listening = {x.laddr.ip: x.laddr.port for x in psutil.Process().net_connections("tcp") if x.status == "LISTEN"}
torch.distributed.barrier()
print(json.dumps([total.item(), listening]))
"""


def workers(count, host, environ, code=WORKER):
    """Run a group of workers of a run; returns their output."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    environ = environ | {
        "DYNAMO_RUN_ID": "one",
        "GLOO_SOCKET_IFNAME": "lo",
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
        "WG_PREFIX": "w",
        "WORLD_SIZE": str(count),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd="/",
            env=environ | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    said = [each.communicate(timeout=240) for each in started]
    return port, [(each.returncode, *x) for each, x in zip(started, said, strict=True)]


def outward():
    """Return an IPv4 address of this machine beside the loopback's."""
    found = [x for x in addresses() if ":" not in x]
    if not found:
        pytest.skip("this machine has no network")
    return found[0]


@pytest.mark.long
@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_the_store_of_a_group_listens_on_loopback(platform, tmp_path):
    """Without an accelerator we make the group, and on GPUs verl does, which is asked here for what a CPU can do."""
    environ = cpu_environment(tmp_path) if platform == "cpu" else dict(os.environ)
    _, done = workers(2, "127.0.0.1", environ)
    for code, said, wrong in done:
        assert code == 0, wrong
        total, listening = json.loads(said.splitlines()[-1])
        assert total == 2
        assert set(listening) == {"127.0.0.1"}, listening


@pytest.mark.long
def test_the_store_listens_on_the_address_of_the_node_alone():
    """On several nodes verl gives the workers the address by which Ray knows the first."""
    host = outward()
    port, ((code, said, wrong),) = workers(1, host, dict(os.environ))
    assert code == 0, wrong
    assert json.loads(said.splitlines()[-1])[1] == {"127.0.0.1": pytest.approx(0, abs=2**16), host: port}


@pytest.mark.long
def test_other_uses_of_verl_keep_torchs_way(tmp_path):
    """In a process that belongs to no run, nothing is set."""
    code = "import os, verl.utils.distributed; print(os.environ.get('DIST_INIT_METHOD'))"
    for more in ({"WG_PREFIX": "w"}, {"DYNAMO_RUN_ID": "one"}):
        said = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd="/",
            env=cpu_environment(tmp_path / "-".join(more)) | more,
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout.splitlines()[-1] == "None"
