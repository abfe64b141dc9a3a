"""The process group of verl's workers: where its store listens, and its backend without an accelerator.

Imported after verl's function that makes the group. The store, through which ranks find each other, would listen on all
addresses of the machine and let in anybody: torch knows no other way by its address. Here it gets a socket that listens
on the address alone that verl gives to the workers. That is the loopback address on one machine
(`scale.launch.network`).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch.distributed
from torch.distributed.rendezvous import register_rendezvous_handler

from scale.run import RUN_ID

SCHEME = "dynamo"


def rendezvous(url: str, timeout: timedelta, **_: Any) -> Iterator[tuple[Any, int, int]]:
    """Yield the store, the rank and the number of ranks of this worker's group, as torch asks of such a function.

    verl's variables of the environment have rank, size, address and port.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    listening = listen(host, port) if rank == 0 else None
    store = torch.distributed.TCPStore(  # type: ignore[attr-defined]  # not in torch's own list of names
        host, port, size, rank == 0, timeout, master_listen_fd=listening
    )
    yield store, rank, size
    raise RuntimeError("expected one rendezvous of a process group, got a second")


def listen(host: str, port: int) -> int:
    """Return a socket, as its file's number, that listens on one address alone."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
        return made.detach()


def initialize() -> None:
    """Tell verl in a run's worker how to make its group; on a CPU make it, since verl would name that device twice."""
    if RUN_ID not in os.environ or "WG_PREFIX" not in os.environ or torch.distributed.is_initialized():
        return
    register_rendezvous_handler(SCHEME, rendezvous)
    os.environ["DIST_INIT_METHOD"] = f"{SCHEME}://"  # what verl calls torch with
    if os.environ.get("VERL_PLATFORM") == "cpu":
        torch.distributed.init_process_group(
            "gloo",
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            init_method=os.environ["DIST_INIT_METHOD"],
        )


initialize()
