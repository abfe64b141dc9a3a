"""What a run needs of a node beside its GPUs: disk for checkpoints and rollouts, memory of the host.

Sizes that verl 0.9.1's files decide are counted. What a process and a token in verl's queue take is assumed, on the
high side; nothing of it was measured on GPUs.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scale.launch.job import BF16, FP32, Job, Shape, assumptions
from scale.plugin.config import of_checkpoints

GIB = 2**30

PROCESS_GIB, GPU_PROCESS_GIB = 0.6, 3.0
"""Memory of a process of Python with verl and torch (measured on CPUs), and of one that has loaded CUDA (assumed)."""

QUEUE_BYTES = 96
"""A token in verl's queue: four arrays of 64-bit token ids and positions, masks, and six of float32."""

TEXT_BYTES = 5
"""A token in a file of rollouts, about four characters and their escapes."""


def checkpoint_bytes(parameters: int, contents: Iterable[str]) -> int:
    """Return the bytes of one checkpoint of verl's FSDP engine.

    `model` has the weights in float32, `optimizer` two more of each. `hf_model` has them in float32 too, though its
    config.json says bfloat16: verl hands the tensors of the trainer to `save_pretrained` as they are.

    Examples
    --------
    >>> checkpoint_bytes(7_615_616_512, ["model", "optimizer", "extra", "hf_model"]) / 1e9
    121.849864192
    """
    arrays = {"model": 1, "optimizer": 2, "hf_model": 1}
    return FP32 * parameters * sum(arrays.get(str(name), 0) for name in contents)


def at_once(keep: int | None, steps: int, every: int, *, first: int = 0, exports: int = 0) -> tuple[int, int]:
    """Return the most checkpoints that are there at once, and how many exports of deleted ones are there with them.

    The oldest is deleted before the next one is written, but not the only one. `first` and `exports` are
    `checkpoints.first` and `checkpoints.keep_exports`.

    Examples
    --------
    >>> at_once(2, 200, 20), at_once(1, 200, 20), at_once(None, 200, 20), at_once(2, 200, 20, first=1, exports=2)
    ((2, 0), (2, 0), (10, 0), (2, 4))
    """
    if every <= 0:
        return 0, 0
    saved = {*range(every, steps + 1, every), steps, *([first] if 0 < first < steps else [])}
    deleted = [] if keep is None else sorted(saved)[: -max(keep, 2)]
    return len(saved) - len(deleted), sum(1 for step in deleted if exports and step % (every * exports) == 0)


def disk(config: Any, shape: Shape) -> dict[str, float]:
    """Return what a run writes into its folder, GB: checkpoints, and exports and rollouts if they are kept."""
    job, trainer = Job.from_config(config), config.trainer
    contents = config.actor_rollout_ref.actor.checkpoint.save_contents
    early, kept = (of_checkpoints(config, name) for name in ("first", "keep_exports"))
    whole, exports = at_once(
        trainer.max_actor_ckpt_to_keep, job.steps, int(trainer.save_freq), first=early, exports=kept
    )
    parts = {
        "checkpoints": float(whole * checkpoint_bytes(shape.parameters, contents)),
        "exports": float(exports * checkpoint_bytes(shape.parameters, ["hf_model"])),
    }
    if trainer.rollout_data_dir:
        high = assumptions(config)[1]
        parts["rollouts"] = (
            job.steps * job.prompts * job.rollouts * TEXT_BYTES * (high.prompt_length + high.response_length)
        )
    return {name: size / 1e9 for name, size in parts.items() if size}


def host(config: Any, shape: Shape, offloaded: float) -> dict[str, float]:
    """Return the memory that the fullest node needs, GiB, part by part; `offloaded` is that of all nodes.

    State that GPUs give away lies there all the time. The larger of two moments comes on top. One is loading: rank 0
    has the weights in float32, or every rank if the model's embeddings are tied. The other is a checkpoint: rank 0
    gathers the weights in float32 beside an empty model in bfloat16.
    """
    job, high = Job.from_config(config), assumptions(config)[1]
    ranks, p = job.gpus // job.nodes, shape.parameters
    loading = FP32 * p * (ranks if shape.tied else 1)
    others = (
        int(config.actor_rollout_ref.rollout.agent.num_workers)
        + int(config.reward.num_workers)
        + int(config.transfer_queue.backend.SimpleStorage.num_data_storage_units)
        + 6  # driver, trainer, load balancer, Ray's own
    )
    engines = ranks + ranks // job.tensor_parallel
    tokens = job.prompts * job.rollouts * (high.prompt_length + high.response_length)
    parts = {
        "offloaded": offloaded * GIB / job.nodes,
        "loading or saving": max(loading, (FP32 + BF16) * p),
        "processes": (GPU_PROCESS_GIB * (ranks + engines) + PROCESS_GIB * others) * GIB,
        "rollouts": QUEUE_BYTES * tokens,
    }
    return {name: size / GIB for name, size in parts.items() if size}


def check(needs: Mapping[str, Any], out: Path, *, here: bool) -> None:
    """Require the disk and, if the run's processes are `here`, the memory that a run needs, as far as it is known.

    Disk that the run has taken before is its own.
    """
    parts: Mapping[str, float]
    for name, what, unit, free, instead in (
        (
            "disk_gb",
            f"{out}: disk",
            "GB",
            free_disk(out) + written(out),
            "another --out, a smaller trainer.max_actor_ckpt_to_keep",
        ),
        ("node_gib", "memory of the host", "GiB", free_memory() if here else math.inf, "a node with more"),
    ):
        parts = needs.get(name, {})
        needed = sum(parts.values())
        if needed > free:
            listed = ", ".join(f"{part} {size:.0f}" for part, size in parts.items())
            raise ValueError(
                f"{what}: expected {needed:.0f} {unit} free ({listed}), got {free:.0f}; choose {instead}, or "
                "estimate.enforce=false"
            )


def free_disk(out: Path) -> float:
    """Return the free room, GB, of the disk that a folder is on, or will be."""
    there = next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())
    return shutil.disk_usage(there).free / 1e9


def written(out: Path) -> float:
    """Return what a run has written into its folder, GB: one that goes on replaces its checkpoints."""
    return sum(path.lstat().st_size for path in out.rglob("*") if path.is_file()) / 1e9


def free_memory() -> float:
    """Return the memory of this machine that is free, GiB."""
    import psutil

    return float(psutil.virtual_memory().available) / GIB
