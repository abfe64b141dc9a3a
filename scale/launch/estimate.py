"""What a run will need, before it starts: parameters, rollouts, tokens, memory of a GPU, time.

Arithmetic on a composed configuration; no GPU, no model files. Counts are exact. Memory is counted part by part, with a
stated reserve. Time is a range between two sets of assumptions (the node `estimate` of the configuration), since nobody
knows the share of a GPU's peak or the length of responses beforehand; nothing in it was measured.
"""

from __future__ import annotations

from typing import Any

from scale.launch.job import BF16, FP32, Assumptions, Hardware, Job, Shape, assumptions, model_and_gpu

GIB = 2**30

LOGITS_CHUNK = 2048
"""Tokens whose logits are in float32 at a time (`entropy_from_logits_chunk_size`)."""


# Memory


def memory(job: Job, shape: Shape, hardware: Hardware) -> dict[str, dict[str, float]]:
    """Return the memory of a GPU in GiB, phase by phase and part by part: generation, update.

    Generation: the part of the training state that stays, and vLLM's share. Update: the training state, the embedding
    and two layers gathered from all GPUs with their gradients, activations, logits and their gradient, and three copies
    in float32 of the logits whose entropy is computed at once. The reserve counts in both.
    """
    p, on_gpu = shape.parameters, not job.params_on_host
    tokens = job.micro_batch
    hidden, vocabulary = shape.hidden, shape.vocabulary
    widths = 6 * hidden + 3 * shape.intermediate + 2 * (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    layer = tokens * BF16 * widths
    in_float = min(tokens, LOGITS_CHUNK) if job.chunked else tokens
    generation = {
        "weights": FP32 * p / job.gpus * (job.params_rest and on_gpu),
        "AdamW": 2 * FP32 * p / job.gpus * (job.optimizer_rests and on_gpu),
        "vLLM": job.utilization * hardware.memory_gib * GIB,
    }
    update = {
        "weights": FP32 * p / job.gpus * on_gpu,
        "gradients": FP32 * p / job.gpus * on_gpu,
        "AdamW": 2 * FP32 * p / job.gpus * on_gpu,
        "gathered layers": 2 * BF16 * (vocabulary * hidden + 2 * shape.layer_parameters),
        "activations": layer + tokens * BF16 * hidden * shape.layers if job.checkpointing else layer * shape.layers,
        "logits": 2 * BF16 * tokens * vocabulary,
        "entropy": 3 * FP32 * in_float * vocabulary,
    }
    phases = {"generation": generation, "update": update}
    return {
        phase: {name: size / GIB for name, size in parts.items() if size} | {"reserve": job.reserve_gib}
        for phase, parts in phases.items()
    }


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


def step_seconds(job: Job, shape: Shape, hardware: Hardware, given: Assumptions) -> dict[str, float]:
    """Return the seconds of a step: generation, update, and both with the overhead.

    Generation: each of the N / TP engines decodes its part of the rollouts, as many sequences at once as fit. A step of
    decoding reads weights and KV cache and multiplies; at the end the longest response decodes alone. Update:
    operations over what all GPUs do.
    """
    length = min(given.response_length, job.max_response)
    prompt = min(given.prompt_length, job.max_prompt)
    peak = given.compute_share * hardware.bf16_tflops * 1e12
    bandwidth = given.bandwidth_share * hardware.bandwidth_gb_s * 1e9
    sequences = job.prompts * job.rollouts
    share = sequences * job.tensor_parallel / job.gpus
    at_once = max(1.0, min(job.max_sequences, cache_tokens(job, shape, hardware) / (prompt + length), share))
    read = BF16 * shape.parameters + at_once * (prompt + length / 2) * shape.cache_bytes
    multiplied = at_once * shape.forward_flops(prompt + length / 2)
    decoding = (read / bandwidth + multiplied / peak) / job.tensor_parallel
    alone = BF16 * shape.parameters / bandwidth / job.tensor_parallel
    generation = share * length / at_once * decoding + (job.max_response - length) * alone
    per_token = shape.forward_flops((prompt + length) / 2)
    update = sequences * (prompt + length) * per_token * job.passes / (job.gpus * peak)
    return {"generation": generation, "update": update, "step": given.overhead * (generation + update)}


# From a configuration


def needs(config: Any) -> dict[str, Any]:
    """Return what a composed configuration needs, as plain values.

    These are counts of rollouts and tokens; and, if model and hardware are known, `memory_gib`, `host_gib`,
    `step_seconds` and `gpu_hours`. A range is [low, high].
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
            "cache_tokens": cache_tokens(job, shape, hardware),
            "step_seconds": {name: [x[name] for x in times] for name in times[0]},
            "gpu_hours": [job.steps * x["step"] * job.gpus / 3600 for x in times],
        }
    return values
