"""What vLLM draws with: a random number of its own for every token, from the request's seed and the token's position.

vLLM's V1 model runner has a generator for every request with a seed, and fills a row of noise with each, one after the
other: 1,024 kernels for 1,024 requests, and two arrays as large as the logits. Here a step takes one random number a
row, for all rows at once, and finds the token in which the cumulated probabilities pass it.

- A token depends on its request's seed, its position in the sequence and its logits; on nothing that was drawn before,
  and on no other request. Preempted and recomputed, in another turn or on another engine, it is drawn alike.
- The probabilities are those of vLLM: float32, after temperature, top-k and top-p. Their sums over blocks of `BLOCK`
  are float32, each within 1e-6 of its value; all further sums and the random numbers, multiples of 2^-53, are float64.
  So a token of probability p is drawn with p, up to 2e-6 p + 1e-15; one of probability 0 never.
- Nothing waits for the device. Beside the logits there are their probabilities, and nothing else of that size.

vLLM's V2 model runner draws for all rows at once by itself, from seed and position too: there nothing is changed.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

BLOCK = 384
"""Tokens of a block: about the root of the vocabulary, so that blocks and a block's tokens cost alike."""

GOLDEN, FIRST, SECOND = (x - (x >> 63 << 64) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""The constants of SplitMix64 (Steele, Lea and Flood 2014), as int64."""


def _mixed(x: torch.Tensor) -> torch.Tensor:
    """Return SplitMix64's hash of int64, as it multiplies: modulo 2^64."""
    for shift, factor in ((30, FIRST), (27, SECOND)):
        x = (x ^ (x >> shift & (1 << 64 - shift) - 1)) * factor
    return x ^ (x >> 31 & (1 << 33) - 1)


def streams(seeds: torch.Tensor) -> torch.Tensor:
    """Return where the generator of every seed, int64, starts: so that those of neighbouring seeds are far apart."""
    return _mixed(seeds)


def uniforms(streams: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return number `position` of every stream's SplitMix64 generator: float64, a multiple of 2^-53 in [0, 1).

    Examples
    --------
    >>> uniforms(streams(torch.tensor([1, 1, 2])), torch.tensor([7, 8, 7]))
    tensor([0.1859, 0.3149, 0.5740], dtype=torch.float64)
    """
    bits = _mixed(streams + (positions.long() + 1) * GOLDEN)
    return (bits >> 11 & (1 << 53) - 1).double() * 2.0**-53


def draw(probabilities: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return the token of every row in which the cumulated probabilities pass the row's number.

    Parameters
    ----------
    probabilities : Weights >= 0 of the tokens, [B, V], float32; rows need not sum to 1.
    numbers : Random numbers in [0, 1), [B], float64.

    Examples
    --------
    >>> draw(torch.tensor([[0.25, 0.0, 0.75]] * 2), torch.tensor([0.2, 0.3], dtype=torch.float64))
    tensor([0, 2])
    """
    size = probabilities.shape[1]
    whole = size - size % BLOCK
    sums = probabilities[:, :whole].unflatten(1, (whole // BLOCK, BLOCK)).sum(2)
    if whole < size:
        sums = torch.cat((sums, probabilities[:, whole:].sum(1, keepdim=True)), 1)
    cumulated = sums.double().cumsum(1)
    aim = numbers.unsqueeze(1) * cumulated[:, -1:]
    block = (cumulated <= aim).sum(1, keepdim=True)  # 0 where a probability is not a number, never out of range
    before = cumulated.gather(1, (block - 1).clamp(min=0)).masked_fill(block == 0, 0)
    share = (aim - before) / (cumulated.gather(1, block) - before)  # below 1, as aim is below the sum above it
    tokens = block * BLOCK + torch.arange(BLOCK, device=block.device)
    inside = probabilities.gather(1, tokens.clamp(max=size - 1)).masked_fill(tokens >= size, 0).double().cumsum(1)
    token: torch.Tensor = block * BLOCK + (inside <= share * inside[:, -1:]).sum(1, keepdim=True)
    return token.squeeze(1)


class SeededSampler(torch.nn.Module):
    """vLLM's last step of sampling (`TopKTopPSampler`), which draws with `numbers` where there are some."""

    def __init__(self, original: torch.nn.Module) -> None:
        super().__init__()
        self.original = original
        self.numbers: torch.Tensor | None = None
        self.rows: tuple[Any, torch.Tensor, torch.Tensor | None] | None = None

    def forward(self, logits: torch.Tensor, generators: Any, k: Any, p: Any) -> tuple[torch.Tensor, Any]:
        """Return drawn tokens [B] and the logits or log-probabilities that vLLM is asked to report, if any."""
        if self.numbers is None:  # vLLM's warm-up
            return self.original(logits, generators, k, p)  # type: ignore[no-any-return]
        from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

        logits = apply_top_k_top_p(logits, k, p)
        mode, reported = self.original.logprobs_mode, None
        if mode == "processed_logits":
            reported = logits
        elif mode == "processed_logprobs":
            reported = logits.log_softmax(-1, dtype=torch.float32)
        return draw(logits.softmax(-1, dtype=torch.float32), self.numbers), reported

    def numbers_of(self, runner: Any) -> torch.Tensor:
        """Return the random numbers of a step's rows; seeds go to the device only when the rows have changed."""
        metadata = runner.input_batch.sampling_metadata  # vLLM makes another when any row gets another request
        if self.rows is None or self.rows[0] is not metadata:
            self.rows = metadata, *_rows(runner)
        _, started, unseeded = self.rows
        numbers = uniforms(started, runner.seq_lens[: len(started)])
        return numbers if unseeded is None else torch.where(unseeded, torch.rand_like(numbers), numbers)


def _rows(runner: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the streams of the runner's rows, and which rows have no seed, if any."""
    seeds = [runner.requests[name].sampling_params.seed for name in runner.input_batch.req_ids]
    started = streams(torch.tensor([seed or 0 for seed in seeds])).to(runner.device, non_blocking=True)
    if None not in seeds:
        return started, None
    return started, torch.tensor([seed is None for seed in seeds]).to(runner.device, non_blocking=True)


def seed_rows(vllm_config: Any) -> None:
    """Let this process's V1 model runner, if vLLM uses it, draw with seeds and positions; again it does nothing."""
    if vllm_config.use_v2_model_runner:
        return
    if vllm_config.speculative_config is not None:
        raise ValueError(
            "speculative_config: expected none, since vLLM verifies drafts with random numbers that depend on how many "
            "were accepted before, got one; leave speculative decoding off (verl: rollout.mtp)"
        )
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    sample = GPUModelRunner._sample
    if hasattr(sample, "__wrapped__"):
        return

    @functools.wraps(sample)
    def seeded(self: Any, logits: torch.Tensor | None, spec_decode_metadata: Any) -> Any:
        sampler = self.sampler.topk_topp_sampler
        if not isinstance(sampler, SeededSampler):
            self.sampler.topk_topp_sampler = sampler = SeededSampler(sampler)
        self.input_batch.generators.clear()  # nobody uses them, and vLLM's CPU build cannot wind them back
        sampler.numbers = sampler.numbers_of(self)
        try:
            return sample(self, logits, spec_decode_metadata)
        finally:
            sampler.numbers = None

    GPUModelRunner._sample = seeded
