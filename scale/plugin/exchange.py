"""What ranks that share a mini-batch tell each other: extremes, numbers, and tokens that compete with each other.

A group of one rank, and a process without a group, tell nobody. Everything arrives exactly as it was sent, and in the
order of the ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist

from theory.losses import Scope


def num_ranks(group: Any) -> int:
    """Return the number of ranks in a group; 1 in a process without any."""
    return dist.get_world_size(group) if dist.is_initialized() else 1


def merged(scope: Scope, device: torch.device, group: Any) -> Scope:
    """Return the scope of the tokens of all ranks: one reduction of three numbers."""
    fields = vars(scope)
    low, high, largest = (torch.as_tensor(x, dtype=torch.float64, device=device) for x in fields.values())
    extremes = torch.stack([low, -high, -largest])
    if num_ranks(group) > 1:
        dist.all_reduce(extremes, op=dist.ReduceOp.MIN, group=group)
    dtype = scope.entropy_min.dtype if isinstance(scope.entropy_min, torch.Tensor) else torch.float32
    low, high, largest = (extremes * extremes.new_tensor([1.0, -1.0, -1.0])).to(dtype).unbind()
    return Scope(low, high, largest)


def of_all_ranks(mine: Mapping[str, torch.Tensor], group: Any) -> tuple[dict[str, torch.Tensor], slice]:
    """Return what the ranks have, one after the other, and where this rank's is.

    Parameters
    ----------
    mine : Tensors [n] of floats by name, the same names on all ranks; n is each rank's own.
    group : Process group of the ranks.
    """
    packed = torch.stack([x.double() for x in mine.values()])  # holds each number of float32 exactly
    sizes = [packed.shape[1]]
    if (ranks := num_ranks(group)) > 1:
        told = [torch.zeros(1, dtype=torch.int64, device=packed.device) for _ in range(ranks)]
        dist.all_gather(told, torch.tensor(sizes, device=packed.device), group=group)
        sizes = torch.cat(told).tolist()
        filled = torch.nn.functional.pad(packed, (0, max(sizes) - packed.shape[1]))
        parts = [torch.empty_like(filled) for _ in range(ranks)]
        dist.all_gather(parts, filled, group=group)
        packed = torch.cat([part[:, :size] for part, size in zip(parts, sizes, strict=True)], dim=1)
    here = _place(sizes, group)
    return {name: row.to(x.dtype) for (name, x), row in zip(mine.items(), packed, strict=True)}, here


def lengths_of_all_ranks(
    lengths: torch.Tensor, prompts: Iterable[Any], group: Any
) -> tuple[torch.Tensor, torch.Tensor, slice]:
    """Return the lengths of the sequences of all ranks, numbers of their prompts, and where this rank's are.

    Parameters
    ----------
    lengths : Counted tokens of this rank's sequences, integer, [rows].
    prompts : The name of each one's prompt.
    group : Process group of the ranks.
    """
    mine = list(zip(lengths.tolist(), map(str, prompts), strict=True))
    parts: list[Any] = [mine]
    if (ranks := num_ranks(group)) > 1:
        parts = [None] * ranks
        dist.all_gather_object(parts, mine, group=group)
    rows = [row for part in parts for row in part]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(name for _, name in rows))}
    of_all = torch.tensor([length for length, _ in rows], dtype=torch.int64, device=lengths.device)
    ids = torch.tensor([numbers[name] for _, name in rows], dtype=torch.int64, device=lengths.device)
    return of_all, ids, _place([len(part) for part in parts], group)


def _place(sizes: list[int], group: Any) -> slice:
    rank = dist.get_rank(group) if len(sizes) > 1 else 0
    start = sum(sizes[:rank])
    return slice(start, start + sizes[rank])
