"""The order of the rows that a step learns from: a function of their names and lengths, never of who answered first."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions


def prompt_name(step: int, row: int) -> str:
    """Return the name of a prompt's group: names are in the order of the steps that learn from them."""
    return f"{step:08d}-{row:05d}"


def step_of(uid: str) -> int:
    """Return the step that learns from a prompt's group.

    Examples
    --------
    >>> step_of(prompt_name(12, 3))
    12
    """
    return int(uid.partition("-")[0])


def row_of(key: str) -> tuple[str, int, int]:
    """Return the prompt, trajectory and turn of a row of verl's queue: "1-2_3_0" is ("1-2", 3, 0)."""
    uid, session, turn = key.rsplit("_", 2)
    return uid, int(session), int(turn)


def spread(num_real: int, num_rows: int, num_minibatches: int) -> list[int]:
    """Return the order of rows in which every mini-batch has about the same number of real ones, then padding.

    A rule that spends in rounds may leave a part of the budget; the number of optimiser steps must not depend on it.

    Parameters
    ----------
    num_real : Rows with a response; they come first.
    num_rows : All rows, padding included; a multiple of `num_minibatches`, the optimiser steps.

    Examples
    --------
    >>> spread(5, 8, 2)
    [0, 1, 2, 5, 3, 4, 6, 7]
    """
    real = np.array_split(np.arange(num_real), num_minibatches)
    padding = iter(range(num_real, num_rows))
    size = num_rows // num_minibatches
    return [row for part in real for row in [*part.tolist(), *itertools.islice(padding, size - len(part))]]


def deal(lengths: list[int], num_minibatches: int, num_ranks: int) -> list[int]:
    """Return the order of rows in which every rank's part of every mini-batch has about the same number of tokens.

    Rows stay in their mini-batch: which rows are learnt from together does not depend on the number of data-parallel
    ranks. verl gives rank r the r-th part of the rows, and cuts that into mini-batches, one for each optimiser step.
    `lengths` has the tokens of every row; `num_minibatches` x `num_ranks` divides their number.

    Examples
    --------
    >>> deal([9, 1, 8, 2, 5, 5, 5, 5], 2, 2)
    [0, 1, 4, 7, 2, 3, 5, 6]
    """
    if len(lengths) % (num_minibatches * num_ranks):
        raise ValueError(
            f"lengths: expected a multiple of {num_minibatches} mini-batches x {num_ranks} ranks, got {len(lengths)}"
        )
    size = len(lengths) // num_minibatches
    if num_ranks == 1:
        return list(range(len(lengths)))
    ranks: list[list[int]] = [[] for _ in range(num_ranks)]
    for start in range(0, len(lengths), size):
        workload = calculate_workload(torch.tensor(lengths[start : start + size]))
        parts = get_seqlen_balanced_partitions(workload, k_partitions=num_ranks, equal_size=True)
        for rank, part in zip(ranks, parts, strict=True):
            rank.extend(start + i for i in part)
    return [row for rank in ranks for row in rank]
