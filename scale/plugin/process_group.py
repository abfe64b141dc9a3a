"""The process group of verl's workers without an accelerator; named by `model.external_lib`, imported by each of them.

verl would ask torch for "cpu:gloo,cpu:gloo", which names one device twice; a group that exists it leaves alone.
"""

from __future__ import annotations

import os

import torch.distributed


def initialize() -> None:
    """Make the group, on gloo, if this is one of verl's workers and there is none yet."""
    if "WG_PREFIX" not in os.environ or torch.distributed.is_initialized():
        return
    torch.distributed.init_process_group(
        "gloo",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        init_method=os.environ.get("DIST_INIT_METHOD"),
    )


initialize()
