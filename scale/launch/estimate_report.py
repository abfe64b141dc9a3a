"""The estimate of a run in words, and what is said of a run that does not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

from scale.launch.estimate import cache_tokens, memory, needs
from scale.launch.job import ASSUMED, Hardware, Job, Shape, assumptions, model_and_gpu

FORMULAS = """\
  rollouts     prompts x rollout.n in every step, however they are divided among prompts
  tokens       rollouts x (mean prompt + mean response)
  training     P parameters over N GPUs: 4 P / N bytes of weights, 4 P / N of gradients, 8 P / N of AdamW
  activations  T tokens of a micro-batch: 2 T x hidden x layers (checkpoints), and the larger one of a layer with its
               gradients, 4 T x widths, and the logits, 2 T x vocabulary (16 T x vocabulary with an entropy bonus)
  entropy      12 x vocabulary for each of the 2048 tokens whose entropy under the old policy is computed at once
  vLLM         gpu_memory_utilization x memory, of which 2 P / TP are weights and the rest KV cache,
               2 x 2 x layers x kv_heads x head_dim bytes a token
  disk         checkpoints: 16 P (weights and AdamW, and the export, all in float32) x max_actor_ckpt_to_keep
  operations   a token forward: 2 P (without the input embedding) + 4 x layers x heads x head_dim x (mean context);
               4 passes for the update (1 forward, 1 again for checkpoints, 2 backward), 1 for the old policy; 1
               more for methods whose tokens are compared within the mini-batch
  decoding     a step of vLLM reads weights and KV cache once: bytes / bandwidth + operations / peak + decoding_ms; as
               many sequences at once as the KV cache and max_num_seqs hold; at last the longest response alone
  GPU-hours    steps x GPUs x overhead x (decoding + operations / peak + a validation's share), without start-up"""

WITHOUT_FLASH = """\
  flash-attn   not used (attn_implementation): attention over a whole micro-batch, a mask for it, and the log-softmax
               token by token, row_us in each pass; verl takes flash-attn's kernel where flash-attn is installed"""


def report(config: Any) -> str:
    """Return the estimate of a composed configuration in words, with its formulas."""
    job, values = Job.from_config(config), needs(config)
    tokens = values["tokens"]
    lines = [
        f"rollouts     {values['rollouts_per_step']:,} a step ({job.prompts:,} prompts x {job.rollouts}), "
        f"{values['optimizer_steps_per_step']} optimiser steps; {values['rollouts']:,} in {job.steps:,} steps",
        f"tokens       {in_words(tokens)} in all, longest sequence {job.max_prompt + job.max_response:,}",
    ]
    if "parameters" in values:
        lines.insert(0, f"parameters   {values['parameters']:,}")
    if "gpu_hours" not in values:
        return "\n".join([*lines, "no estimate of memory and time: the model's shape or the GPU is not given"])
    for phase, parts in values["memory_gib"].items():
        lines.append(f"memory       {phase}: {sum(parts.values()):.1f} GiB a GPU ({in_parts(parts)})")
    node, disk = values["node_gib"], values["disk_gb"]
    lines.append(f"host         {sum(node.values()):.0f} GiB on the fullest node ({in_parts(node)})")
    lines.append(f"disk         {sum(disk.values()):.0f} GB ({in_parts(disk) or 'no checkpoints'})")
    seconds = values["step_seconds"]
    spans = {name: in_words([x / 60 for x in pair]) for name, pair in seconds.items()}
    assumed = [f"{name} {' to '.join(f'{x:g}' for x in config.estimate[name])}" for name in ASSUMED]
    checked = f"{job.validation:,} rollouts every {job.validate_every} steps" if job.validation else "none"
    lines += [
        f"validation   {checked}",
        f"time         {spans['step']} minutes a step: generation {spans['generation']}, update {spans['update']}, "
        f"validation {spans['validation']}, and overhead",
        f"GPU-hours    {in_words(values['gpu_hours'])}",
        "formulas",
        FORMULAS,
        *([] if job.flash else [WITHOUT_FLASH]),
        f"assumptions  {', '.join(assumed)}",
    ]
    return "\n".join(lines)


def describe(config: Any) -> str:
    """Return in words, and in JSON on the last line, what would run and what it would need."""
    trainer = config.trainer
    hardware = config.hardware.name if config.get("hardware") else trainer.device
    return "\n".join(
        [
            f"{config.dynamo.method}, seed {config.dynamo.seed}, {config.actor_rollout_ref.model.path}, "
            f"{trainer.nnodes} x {trainer.n_gpus_per_node} {hardware}",
            report(config),
            json.dumps(
                {
                    "method": config.dynamo.method,
                    "model": config.actor_rollout_ref.model.path,
                    "device": trainer.device,
                    **needs(config),
                }
            ),
        ]
    )


def in_words(pair: list[float]) -> str:
    """Return two numbers to two digits.

    Examples
    --------
    >>> in_words([1234.0, 56789.0])
    '1,200 to 57,000'
    """
    return " to ".join(f"{float(f'{x:.2g}'):,.15g}" for x in pair) if pair[0] != pair[1] else f"{pair[0]:,.15g}"


def in_parts(parts: Mapping[str, float]) -> str:
    """Return sizes with their names.

    Examples
    --------
    >>> in_parts({"weights": 3.55, "reserve": 4})
    'weights 3.5, reserve 4.0'
    """
    return ", ".join(f"{name} {size:.1f}" for name, size in parts.items())


# What does not fit


def shortages(job: Job, shape: Shape, hardware: Hardware) -> list[str]:
    """Return a sentence for everything that does not fit."""
    sentences = []
    for phase, parts in memory(job, shape, hardware).items():
        total = sum(parts.values())
        if total > hardware.memory_gib:
            sentences.append(f"{phase} takes {total:.1f} of {hardware.memory_gib:.1f} GiB ({in_parts(parts)})")
    room, longest = cache_tokens(job, shape, hardware), job.max_prompt + job.max_response
    if room < longest:
        sentences.append(f"vLLM's KV cache holds {max(room, 0):,.0f} tokens, and a sequence has up to {longest:,}")
    return sentences


def check(config: Any) -> None:
    """Require that a configuration fits into its GPUs by the estimate, if both are known; the error says what to do."""
    shape, hardware = model_and_gpu(config)
    assumptions(config)
    if shape is None or hardware is None or not config.estimate.enforce:
        return
    job = Job.from_config(config)
    short = shortages(job, shape, hardware)
    if short:
        raise ValueError(
            f"memory: expected a configuration that fits into {job.gpus} x {hardware.name}, got one in which "
            f"{'; '.join(short)}. {_advice(job, shape, hardware)}"
        )


def _advice(job: Job, shape: Shape, hardware: Hardware) -> str:
    changes = _changes(job)
    single = [x for x in changes if not shortages(replace(job, **changes[x]), shape, hardware)]
    pairs = [] if single else list(combinations(changes, 2))
    double = [
        " ".join(x) for x in pairs if not shortages(replace(job, **changes[x[0]], **changes[x[1]]), shape, hardware)
    ]
    if not single and not double:
        return "Nothing of what was tried makes it fit: take more GPUs (--cluster) or a smaller model"
    return f"By the estimate it fits with {' | '.join(single or double)}"


def _changes(job: Job) -> dict[str, dict[str, Any]]:
    """Return overrides that save memory, and what they make of the job."""
    actor, longest = "actor_rollout_ref.actor", job.max_prompt + job.max_response
    offload = f"{actor}.fsdp_config.param_offload=true {actor}.fsdp_config.optimizer_offload=true"
    changes: dict[str, dict[str, Any]] = {
        f"actor_rollout_ref.rollout.gpu_memory_utilization={x}": {"utilization": x}
        for x in (0.7, 0.6, 0.5)
        if x < job.utilization
    }
    changes[offload] = {"params_rest": False, "optimizer_rests": False}
    if longest < job.micro_batch:
        changes[f"{actor}.ppo_max_token_len_per_gpu={longest}"] = {
            "micro_batch": longest,
            "micro_batch_forward": longest,
        }
    changes[f"{actor}.fsdp_config.offload_policy=true"] = {"params_on_host": True}
    changes[f"trainer.nnodes={2 * job.nodes}"] = {"gpus": 2 * job.gpus}
    return changes
