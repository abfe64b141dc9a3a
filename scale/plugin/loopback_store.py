"""The store of a group of vLLM's workers, through which they find each other: on its own address alone.

torch lets the store of an address `tcp://127.0.0.1:PORT` listen on all addresses of the machine, and let in anybody.
Importing this module gives it a socket that listens on the named address. vLLM 0.24 makes such a group in each engine,
0.28 where an engine has several GPUs.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import torch.distributed

from scale.plugin.process_group import listen


def by_address(url: str, timeout: timedelta, **_: Any) -> Iterator[tuple[Any, int, int]]:
    """Yield the store, the rank and the number of ranks of a URL's group, as torch asks of such a function."""
    parts = urlsplit(url)
    rank, size = (int(parse_qs(parts.query)[name][0]) for name in ("rank", "world_size"))
    host, port = str(parts.hostname), int(parts.port or 0)
    listening = listen(host, port) if rank == 0 else None
    store = torch.distributed.TCPStore(  # type: ignore[attr-defined]  # not in torch's own list of names
        host, port, size, rank == 0, timeout, master_listen_fd=listening
    )
    yield store, rank, size
    raise RuntimeError("expected one rendezvous of a process group, got a second")


# torch registers a function of one's own for new schemes only.
importlib.import_module("torch.distributed.rendezvous")._rendezvous_handlers["tcp"] = by_address


class WorkerExtension:
    """Extends a worker by nothing: naming it (`worker_extension_cls`) imports this module before the group is made."""
