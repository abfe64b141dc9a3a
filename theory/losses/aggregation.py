"""From per-token losses to one number: aggregation as weights, fixed once for a whole batch.

A loss is sum_{i,t} w_{i,t} l_{i,t}, and the aggregation is nothing but the weights w. Computed once over the batch they
travel with their tokens, and the sums over micro-batches, ranks and packings add up to the loss of the batch. A mean
taken inside each micro-batch, as in the public code of most of the methods compared, does not.
"""

from __future__ import annotations

from typing import Any

import array_api_compat

from theory.base import require
from theory.base.arrays import Array, clip, group_index, segment_sum

AGGREGATIONS = ("token-mean", "sequence-mean", "prompt-mean")
"""Known aggregations, by name."""


def aggregation_weights(mask: Array, mode: str, *, prompts: Array | None = None, dtype: Any = None) -> Array:
    """Weight of every token in the loss of a batch.

    With N counted tokens in the batch, S sequences that have one, N_i counted tokens in sequence i, M prompts that have
    one and N_q counted tokens of prompt q, all its sequences together:

        token-mean:     w = 1 / N            every token alike; a prompt weighs as many tokens as it was given
        sequence-mean:  w = 1 / (S N_i)      every sequence alike
        prompt-mean:    w = 1 / (M N_q)      every prompt alike, whatever its number of rollouts

    Parameters
    ----------
    mask : Tokens that count, boolean, [..., T]; one row is one sequence.
    mode : One of `AGGREGATIONS`.
    prompts : For `prompt-mean`: the prompt of every sequence, any integer ids, [...]. Not used by the other modes.
    dtype : Floating dtype of the weights; by default the array library's own default.

    Returns
    -------
    Array : w >= 0, [..., T], 0 outside the mask, of sum 1. Sequences and prompts without a counted token count nowhere;
        a mask without any token gives zeros (a rank that holds only padding contributes 0 and its gradient).

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.array([[True, True], [True, False], [True, False]])
    >>> aggregation_weights(mask, "token-mean").tolist()
    [[0.25, 0.25], [0.25, 0.0], [0.25, 0.0]]
    >>> aggregation_weights(mask, "prompt-mean", prompts=np.array([7, 3, 3])).tolist()
    [[0.25, 0.25], [0.25, 0.0], [0.25, 0.0]]
    >>> aggregation_weights(mask, "sequence-mean").round(3).tolist()
    [[0.167, 0.167], [0.333, 0.0], [0.333, 0.0]]
    """
    xp = require.namespace(mask=mask)
    require.boolean(xp, mask=mask)
    require.one_of("mode", mode, AGGREGATIONS)
    if mask.ndim < 1:
        raise ValueError(f"mask: expected shape [..., T], got {tuple(mask.shape)}")
    each = sequence_weights(xp.sum(xp.astype(mask, xp.int64), axis=-1), mode, prompts=prompts, dtype=dtype)
    return xp.where(mask, each[..., None], 0.0)


def sequence_weights(lengths: Array, mode: str, *, prompts: Array | None = None, dtype: Any = None) -> Array:
    """Weight of each counted token of a sequence, from the numbers of counted tokens alone.

    The w of `aggregation_weights`, which is the same for all counted tokens of a sequence: ranks that share a batch
    need to tell each other no more than these numbers.

    Parameters
    ----------
    lengths : Counted tokens of every sequence of the batch, integer, >= 0, [...].
    mode, prompts, dtype : As in `aggregation_weights`.

    Returns
    -------
    Array : w > 0, [...]; that of a sequence without a counted token is no one's.

    Examples
    --------
    >>> import numpy as np
    >>> sequence_weights(np.array([2, 1, 1]), "prompt-mean", prompts=np.array([7, 3, 3])).tolist()
    [0.25, 0.25, 0.25]
    """
    xp = require.namespace(lengths=lengths)
    require.integer(xp, lengths=lengths)
    expected = f"values in [0, {require.MAX_COUNT}]"
    require.values("lengths", lengths, expected, lambda x: (x >= 0) & (x <= require.MAX_COUNT))
    require.one_of("mode", mode, AGGREGATIONS)
    if dtype is not None and not xp.isdtype(dtype, "real floating"):
        raise ValueError(f"dtype: expected a floating dtype, got {dtype}")
    ones = xp.ones(lengths.shape, dtype=dtype, device=array_api_compat.device(lengths))
    if mode == "token-mean":
        weight = clip(xp.sum(lengths), 1)
    elif mode == "sequence-mean":
        weight = clip(lengths, 1) * clip(xp.sum(xp.astype(lengths > 0, xp.int64)), 1)
    else:
        tokens, num_prompts = _tokens_of_prompt(xp, lengths, prompts)
        weight = clip(tokens, 1) * clip(num_prompts, 1)
    return ones / xp.astype(weight, ones.dtype)


def _tokens_of_prompt(xp: Any, lengths: Array, prompts: Array | None) -> tuple[Array, Array]:
    """Return, for every sequence, the counted tokens of its prompt, and the number of prompts that have one."""
    if prompts is None:
        raise ValueError("prompts: expected the prompt id of every sequence for prompt-mean, got None")
    require.namespace(lengths=lengths, prompts=prompts)
    require.integer(xp, prompts=prompts)
    if tuple(prompts.shape) != tuple(lengths.shape):
        raise ValueError(f"prompts: expected shape {tuple(lengths.shape)}, got {tuple(prompts.shape)}")
    index = group_index(xp, xp.reshape(prompts, (-1,)))
    tokens = segment_sum(xp, xp.reshape(lengths, (-1,)), index, index.shape[0])
    return xp.reshape(tokens[index], lengths.shape), xp.sum(xp.astype(tokens > 0, xp.int64))


def aggregate(values: Array, mask: Array, mode: str, *, prompts: Array | None = None) -> Array:
    """Loss of a whole batch from the losses of its tokens.

    L = sum_{i,t} w_{i,t} l_{i,t} with the weights of `aggregation_weights`. For a batch in parts, take the weights of
    the whole once and add sum(weights * values) over the parts.

    Parameters
    ----------
    values : Per-token losses, floating, [..., T]; finite, also outside the mask.
    mask : Tokens that count, boolean, [..., T].
    mode : One of `AGGREGATIONS`.
    prompts : For `prompt-mean`: the prompt of every sequence, integer, [...].

    Returns
    -------
    Array : Scalar of the dtype of `values`; 0 for a mask without any token.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.array([[1.0, 3.0], [8.0, 0.0]])
    >>> mask = np.array([[True, True], [True, False]])
    >>> [float(aggregate(values, mask, mode)) for mode in ("token-mean", "sequence-mean")]
    [4.0, 5.0]
    """
    xp = require.namespace(values=values, mask=mask)
    require.finite(xp, values=values)
    require.same_shape(mask=mask, values=values)
    return xp.sum(aggregation_weights(mask, mode, prompts=prompts, dtype=values.dtype) * values)
