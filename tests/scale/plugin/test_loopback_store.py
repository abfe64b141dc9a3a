"""A group that is made by an address of the loopback listens there alone; two real processes that find each other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs_verl

ROOT = Path(__file__).parents[3]

RANK = """
import sys, psutil, torch
from torch import distributed
from scale.plugin.loopback_store import WorkerExtension
rank, port = map(int, sys.argv[1:])
distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
total = torch.tensor([rank + 1])
distributed.all_reduce(total)
print(total.item(), *{x.laddr.ip for x in psutil.Process().net_connections() if x.status == "LISTEN"})
distributed.barrier()
"""


def test_a_group_by_an_address_listens_on_it_alone():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    both = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(port)], env=environ, stdout=-1, text=True)
        for rank in (0, 1)
    ]
    assert [x.communicate(timeout=300)[0].split() for x in both] == [["3", "127.0.0.1"]] * 2
