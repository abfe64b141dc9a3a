"""What a run will need, before it starts: parameters, rollouts, tokens, memory of a GPU, time.

Arithmetic on a composed configuration; no GPU, no model files. Counts are exact. Memory is counted part by part, with a
stated reserve. Time is a range between two sets of assumptions (the node `estimate` of the configuration), since nobody
knows the share of a GPU's peak or the length of responses beforehand; nothing in it was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scale.launch import room
from scale.launch.job import BF16, FP32, Assumptions, Hardware, Job, Shape, assumptions, model_and_gpu

GIB = 2**30

LOGITS_CHUNK = 2048
"""Tokens whose logits are in float32 at a time (`entropy_from_logits_chunk_size`)."""

STATISTICS_BYTES = 20 * 2**25
"""What the token statistics take at a time (`scale.plugin.token_statistics`)."""


# Memory


def memory(job: Job, shape: Shape, hardware: Hardware) -> dict[str, dict[str, float]]:
    """Return the memory of a GPU in GiB, phase by phase and part by part: generation, old policy, update.

    Generation: the part of the training state that stays, and vLLM's share. Old policy: a forward pass, and what is
    larger, a layer or the logits with verl's entropy (the token statistics of other methods take less). Update: the
    training state, the embedding and two layers gathered from all GPUs with their gradients, the checkpoints of a
    micro-batch, and what is larger: a layer computed again with its gradients, or the logits. The reserve counts in
    each.
    """
    p, on_gpu = shape.parameters, not job.params_on_host
    tokens, ahead = job.micro_batch, job.micro_batch_forward
    vocabulary, whole = shape.vocabulary, shape.vocabulary * shape.hidden + 2 * shape.layer_parameters
    widths = 6 * shape.hidden + 3 * shape.intermediate + 2 * (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    layer = BF16 * widths
    weights = FP32 * p / job.gpus * on_gpu
    generation = {
        "weights": weights * job.params_rest,
        "AdamW": 2 * weights * job.optimizer_rests,
        "vLLM": job.utilization * hardware.memory_gib * GIB,
    }
    in_float = min(ahead, LOGITS_CHUNK) if job.chunked else ahead
    old_policy = {
        "weights": weights,
        "AdamW": 2 * weights * job.optimizer_rests,
        "gathered layers": BF16 * whole,
    } | _larger(
        {"a layer": ahead * layer},
        {
            "logits": ahead * vocabulary * BF16 * (1 + job.tempered),
            "entropy": in_float * vocabulary * 3 * FP32,
        },
    )
    at_layer = {"a layer": 2 * tokens * layer}
    at_logits = {
        # flash-attn's log-softmax writes the gradient over the logits, unless the entropy needs them; PyTorch's keeps
        # every token's result in float32.
        "logits": tokens
        * vocabulary
        * (BF16 * job.tempered + (BF16 * (1 + job.entropy_bonus) if job.flash else BF16 + FP32)),
        # For the backward pass verl computes all parts again and keeps them: logits and probabilities in float32, and
        # two more arrays of gradients in bfloat16.
        "entropy": tokens * vocabulary * (2 * FP32 + 2 * BF16) * job.entropy_bonus,
        "statistics": STATISTICS_BYTES,
    }
    update = {
        "weights": weights,
        "gradients": FP32 * p * on_gpu / (1 if job.gradients_whole else job.gpus),
        "AdamW": 2 * weights,
        "gathered layers": 2 * BF16 * whole,
        "activations": tokens * shape.layers * (BF16 * shape.hidden if job.checkpointing else layer),
    } | _larger(at_layer, at_logits)
    if not job.flash:
        old_policy["attention mask"], update["attention mask"] = 3 * ahead**2, 3 * tokens**2
    phases = {"generation": generation, "old policy": old_policy, "update": update}
    return {
        phase: {name: size / GIB for name, size in parts.items() if size} | {"reserve": job.reserve_gib}
        for phase, parts in phases.items()
    }


def _larger(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Return the parts that take more in all."""
    return dict(one if sum(one.values()) > sum(other.values()) else other)


def cache_tokens(job: Job, shape: Shape, hardware: Hardware) -> float:
    """Return the tokens that a vLLM's KV cache holds: (share of its GPUs - weights - reserve) / bytes of a token."""
    room = job.tensor_parallel * (job.utilization * hardware.memory_gib - job.reserve_gib) * GIB
    return (room - BF16 * shape.parameters) / shape.cache_bytes


def host_gib(job: Job, shape: Shape) -> float:
    """Return the memory that all hosts together need for offloaded state, GiB: 4 P of weights, 8 P of AdamW.

    Where FSDP keeps the gradients on the host too, they are 4 P more. verl keeps a reference policy, 4 P, on the host.
    """
    state = FP32 * shape.parameters
    if job.params_on_host:
        return (4 + job.reference) * state / GIB
    return state * ((not job.params_rest) + 2 * (not job.optimizer_rests) + job.reference) / GIB


# Time


def generation_seconds(job: Job, shape: Shape, hardware: Hardware, given: Assumptions, sequences: int) -> float:
    """Return the seconds in which all engines together generate some responses.

    Each of the N / TP engines decodes its part, as many sequences at once as fit. A step of decoding reads weights and
    KV cache, multiplies, and takes a time of its own; at the end the longest response decodes alone.
    """
    length, prompt, peak = _lengths_and_peak(job, hardware, given)
    bandwidth = given.bandwidth_share * hardware.bandwidth_gb_s * 1e9
    share = sequences * job.tensor_parallel / job.gpus
    at_once = max(1.0, min(job.max_sequences, cache_tokens(job, shape, hardware) / (prompt + length), share))
    read = BF16 * shape.parameters + at_once * (prompt + length / 2) * shape.cache_bytes
    multiplied = at_once * shape.forward_flops(prompt + length / 2)
    own = given.decoding_ms / 1e3
    decoding = (read / bandwidth + multiplied / peak) / job.tensor_parallel + own
    alone = BF16 * shape.parameters / bandwidth / job.tensor_parallel + own
    return share * length / at_once * decoding + (job.max_response - length) * alone


def step_seconds(job: Job, shape: Shape, hardware: Hardware, given: Assumptions) -> dict[str, float]:
    """Return the seconds of a step: generation, update, a validation's share, and all with the overhead.

    Update: operations over what all GPUs do. Without flash-attn, attention is computed over a whole micro-batch, and
    the log-softmax token by token.
    """
    length, prompt, peak = _lengths_and_peak(job, hardware, given)
    sequences = job.prompts * job.rollouts
    tokens = sequences * (prompt + length) / job.gpus
    per_token = shape.forward_flops((prompt + length) / 2 if job.flash else job.micro_batch)
    update = tokens * per_token * job.passes / peak
    if not job.flash:
        # Operations count a backward pass twice, and checkpoints once: there is no log-softmax in them.
        update += tokens * (job.passes - 1 - job.checkpointing) * given.row_us / 1e6
    seconds = {
        "generation": generation_seconds(job, shape, hardware, given, sequences),
        "update": update,
        "validation": validation_seconds(job, shape, hardware, given) / max(job.validate_every, 1),
    }
    return seconds | {"step": given.overhead * sum(seconds.values())}


def validation_seconds(job: Job, shape: Shape, hardware: Hardware, given: Assumptions) -> float:
    """Return the seconds of a validation; 0 where there is none."""
    return generation_seconds(job, shape, hardware, given, job.validation) if job.validation else 0.0


def _lengths_and_peak(job: Job, hardware: Hardware, given: Assumptions) -> tuple[float, float, float]:
    """Return the mean tokens of a response and of a prompt, and the operations that a GPU does in a second."""
    length, prompt = min(given.response_length, job.max_response), min(given.prompt_length, job.max_prompt)
    return length, prompt, given.compute_share * hardware.bf16_tflops * 1e12


# From a configuration


def needs(config: Any) -> dict[str, Any]:
    """Return what a composed configuration needs, as plain values.

    These are counts of rollouts and tokens; and, if model and hardware are known, `memory_gib` of a GPU, `host_gib` of
    what is offloaded, `node_gib` of the fullest node's memory, `disk_gb`, `step_seconds`, `validation_seconds` (of one
    whole validation) and `gpu_hours`. A range is [low, high].
    """
    job = Job.from_config(config)
    low, high = assumptions(config)
    rollouts = job.steps * job.prompts * job.rollouts
    lengths = [min(x.prompt_length, job.max_prompt) + min(x.response_length, job.max_response) for x in (low, high)]
    values: dict[str, Any] = {
        "gpus": job.gpus,
        "steps": job.steps,
        "rollouts_per_step": job.prompts * job.rollouts,
        "rollouts": rollouts,
        "optimizer_steps_per_step": job.prompts // job.mini_batch,
        "validation_rollouts": job.validation,
        "tokens": [round(rollouts * length) for length in lengths],
    }
    shape, hardware = model_and_gpu(config)
    if shape is not None:
        values["parameters"] = shape.parameters
    if shape is not None and hardware is not None:
        times = [step_seconds(job, shape, hardware, x) for x in (low, high)]
        values |= {
            "memory_gib": memory(job, shape, hardware),
            "host_gib": host_gib(job, shape),
            "node_gib": room.host(config, shape, host_gib(job, shape)),
            "disk_gb": room.disk(config, shape),
            "cache_tokens": cache_tokens(job, shape, hardware),
            "step_seconds": {name: [x[name] for x in times] for name in times[0]},
            "validation_seconds": [validation_seconds(job, shape, hardware, x) for x in (low, high)],
            "gpu_hours": [job.steps * x["step"] * job.gpus / 3600 for x in times],
        }
    return values
