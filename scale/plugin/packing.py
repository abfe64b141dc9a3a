"""Responses of unequal lengths, handled with little padding.

In a rollout batch the longest response has some ten times the tokens of the mean one: rows of one width are nine tenths
padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

PART_NUMBERS = 2**18
"""Numbers in an array of a part: its temporary arrays stay in the processor's cache."""


def like_lengths(rows: Mapping[str, Any], part_numbers: int = PART_NUMBERS) -> Iterator[dict[str, torch.Tensor]]:
    """Yield nested rows in parts of like length, the longest first; each part is padded with zeros on the right.

    Parameters
    ----------
    rows : Nested tensors [N, (lengths)] by name, all of the same lengths.
    part_numbers : Numbers in an array of a part, >= 1; at least one row's.

    Examples
    --------
    >>> rows = torch.nested.as_nested_tensor([torch.ones(1), torch.ones(3), torch.ones(2)], layout=torch.jagged)
    >>> [part["x"].tolist() for part in like_lengths({"x": rows}, 6)]
    [[[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], [[1.0]]]
    """
    offsets = next(iter(rows.values())).offsets()
    values = {name: x.values() for name, x in rows.items()}
    lengths = offsets.diff()
    order = torch.argsort(lengths, descending=True, stable=True)
    start = 0
    while start < len(order):
        width = int(lengths[order[start]])
        part = order[start : start + max(part_numbers // max(width, 1), 1)]
        start += len(part)
        column = torch.arange(width, device=offsets.device)
        inside = column < lengths[part].unsqueeze(1)
        index = torch.where(inside, offsets[part].unsqueeze(1) + column, 0)
        yield {name: torch.where(inside, x[index], 0) for name, x in values.items()}


def nested_like(values: torch.Tensor, rows: Any) -> torch.Tensor:
    """Return values [tokens] as nested rows of the lengths of others."""
    offsets = rows.offsets()
    lengths = offsets.diff()
    nested: torch.Tensor = torch.nested.nested_tensor_from_jagged(
        values, offsets, min_seqlen=int(lengths.min()), max_seqlen=int(lengths.max())
    )
    return nested


def response_of(whole: Any, mask: Any) -> torch.Tensor:
    """Return a model's outputs for the responses' tokens: each is at the position before its token.

    Parameters
    ----------
    whole : Nested outputs of prompts and responses, [N, (lengths)].
    mask : Nested rows of the responses' lengths.

    Examples
    --------
    >>> nested = lambda *rows: torch.nested.as_nested_tensor([torch.tensor(x) for x in rows], layout=torch.jagged)
    >>> [x.tolist() for x in response_of(nested([1, 2, 3, 4], [5, 6, 7]), nested([1, 1], [1])).unbind()]
    [[2, 3], [6]]
    """
    lengths = mask.offsets().diff()
    shift = whole.offsets()[1:] - mask.offsets()[1:] - 1
    index = torch.arange(int(lengths.sum())) + shift.repeat_interleave(lengths)
    return nested_like(whole.values()[index], mask)


def row_sums(rows: Any) -> torch.Tensor:
    """Return the sums of nested rows of floats, [N]."""
    return torch.segment_reduce(rows.values(), "sum", offsets=rows.offsets())
