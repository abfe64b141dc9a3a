"""The statistics of `theory.policy` over vocabularies of 152,000 tokens: in chunks, so that memory stays bounded."""

from __future__ import annotations

import torch

from theory.base import require
from theory.policy import TokenStatistics, token_statistics

CHUNK_NUMBERS = 2**25
"""Logits of a chunk; a chunk's temporary arrays take some 20 bytes for each."""


def chunked_token_statistics(
    logits: torch.Tensor,
    actions: torch.Tensor,
    temperature: torch.Tensor | None = None,
    *,
    chunk_numbers: int = CHUNK_NUMBERS,
) -> TokenStatistics:
    """Return the statistics of sampled tokens, exact over the vocabulary, without a gradient.

    As `theory.policy.token_statistics`, of which every chunk of tokens is one call, in at least float32: the sum of
    squares of 152,000 probabilities has no meaning in bfloat16.

    Parameters
    ----------
    logits : Logits, [N, V]; any floating dtype.
    actions : Sampled token ids, [N], integer.
    temperature : What each token's logits are divided by, [N], > 0; None for 1.
    chunk_numbers : Logits handled at a time, >= 1; at least one token's.

    Returns
    -------
    TokenStatistics : Four tensors [N], float32 (float64 for float64 logits), on the device of `logits`; the same for
        all sizes of chunks.

    Examples
    --------
    >>> stats = chunked_token_statistics(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]))
    >>> [round(x, 3) for x in stats.entropy.tolist()]
    [0.693, 0.001]
    """
    require.count("chunk_numbers", chunk_numbers, 1)
    if logits.ndim != 2 or tuple(actions.shape) != tuple(logits.shape[:1]):
        raise ValueError(
            f"logits, actions: expected shapes [N, V] and [N], got {tuple(logits.shape)} and {tuple(actions.shape)}"
        )
    if temperature is not None and temperature.shape != actions.shape:
        raise ValueError(f"temperature: expected shape {tuple(actions.shape)}, got {tuple(temperature.shape)}")
    dtype = torch.promote_types(logits.dtype, torch.float32)
    rows = max(chunk_numbers // max(logits.shape[1], 1), 1)
    with torch.no_grad():
        parts = []
        for start in range(0, max(len(logits), 1), rows):
            part = slice(start, start + rows)
            chunk = logits[part].to(dtype)
            if temperature is not None:  # by chunks: a copy of all logits in float32 takes gigabytes
                chunk = chunk / temperature[part].to(dtype).unsqueeze(-1)
            parts.append(token_statistics(chunk, actions[part]))
        return TokenStatistics(*(torch.cat(fields) for fields in zip(*parts, strict=True)))
