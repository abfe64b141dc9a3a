"""Ranks that really talk: forked processes with a gloo group on the loopback interface."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from pathlib import Path

import torch.distributed as dist


def on_ranks(function, num):
    """Return what a function of a rank returns on each rank of a group."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe() for _ in range(num)]
        ranks = [
            context.Process(target=_rank, args=(function, rank, num, Path(folder) / "store", pipe))
            for rank, (_, pipe) in enumerate(pipes)
        ]
        for process in ranks:
            process.start()
        found = [pipe.recv() if pipe.poll(120) else "no answer" for pipe, _ in pipes]
        for process in ranks:
            process.join()
    for answer in found:
        assert isinstance(answer, tuple), answer
    return [answer for (answer,) in found]


def _rank(function, rank, num, store, pipe):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        dist.init_process_group("gloo", store=dist.FileStore(str(store), num), rank=rank, world_size=num)
        pipe.send((function(rank),))
        dist.barrier()
        dist.destroy_process_group()
    except Exception:
        pipe.send(traceback.format_exc())
    os._exit(0)  # without what a test session does at its end
