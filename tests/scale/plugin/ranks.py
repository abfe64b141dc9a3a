"""Our engine and loss on several ranks over gloo, without Ray and vLLM: what a mini-batch gives, setting by setting.

`python -m tests.scale.plugin.ranks ARGUMENTS.json` starts the ranks. The settings are overrides of the configuration.
For each, rank 0 writes what a forward pass and a mini-batch's gradients came to, put together over all ranks, to
`SETTING.pt` in the folder.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["VERL_PLATFORM"] = "cpu"

import torch
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.dataset.dataset_utils import DatasetPadMode
from verl.workers.utils.padding import response_from_nested

LENGTHS = ((5, 7), (3, 1), (9, 12), (4, 4), (2, 9), (6, 3), (8, 8), (3, 11))
"""Prompts and responses of the mini-batch: 96 tokens, which no Ulysses of 2 divides evenly in all parts."""


def rows(vocabulary):
    """Return the mini-batch, row by row."""
    draw = torch.Generator().manual_seed(0)
    return [
        {
            "ids": torch.randint(vocabulary, (p + r,), generator=draw),
            "ratio": 0.1 * torch.randn(r, generator=draw),
            "advantage": torch.randn(1, generator=draw).expand(r).contiguous(),
        }
        for p, r in LENGTHS
    ]


def batch(config, which, made, log_probs=None):
    """Return some rows as verl's workers get them, sampled by a policy near the one with these log-probabilities."""
    nested = lambda xs: torch.nested.as_nested_tensor(list(xs), layout=torch.jagged)  # noqa: E731
    lengths = [LENGTHS[i] for i in which]
    tensors = {
        "input_ids": nested(made[i]["ids"] for i in which),
        "position_ids": nested(torch.arange(p + r) for p, r in lengths),
        "prompts": nested(made[i]["ids"][: LENGTHS[i][0]] for i in which),
        "responses": nested(made[i]["ids"][LENGTHS[i][0] :] for i in which),
        "response_mask": nested(torch.ones(r, dtype=torch.int64) for _, r in lengths),
        "loss_mask": nested(torch.ones(r, dtype=torch.int64) for _, r in lengths),
        "advantages": nested(made[i]["advantage"] for i in which),
    }
    if log_probs is not None:
        near = response_from_nested(log_probs, tensors["response_mask"])
        # Ratios near 1, so that every token has a gradient: the model finds the made-up responses unlikely.
        tensors["old_log_probs"] = nested(x.float() - made[i]["ratio"] for x, i in zip(near, which, strict=True))
    data = tu.get_tensordict(
        tensors,
        {
            "temperature": float(config.actor_rollout_ref.rollout.temperature),
            "use_remove_padding": config.actor_rollout_ref.model.use_remove_padding,
            "pad_mode": DatasetPadMode.NO_PADDING,
            "use_dynamic_bsz": True,
            "max_token_len_per_gpu": int(config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu),
            "calculate_entropy": True,
            "token_statistics": True,
            "look_ahead": True,
            "return_model_output": True,
            "global_batch_size": len(LENGTHS),
        },
    )
    tu.assign_non_tensor_stack(data, "uid", [f"prompt-{i % 3}" for i in which])
    return data


def one(config, rank):
    """Return what a setting gives, on rank 0."""
    from scale.plugin.config import DynamoConfig
    from scale.plugin.engine import StatisticsEngine
    from scale.plugin.loss import MethodLoss

    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    engine = StatisticsEngine(model, actor.engine, actor.optim, actor.checkpoint)
    engine.initialize()
    loss = MethodLoss(DynamoConfig.from_mapping(config.dynamo).resolved(), actor, scope="mini-batch")
    made = rows(model.hf_config.vocab_size)
    mine = range(engine.get_data_parallel_rank(), len(LENGTHS), engine.get_data_parallel_size())
    with engine.eval_mode():
        outputs = engine.infer_batch(batch(config, mine, made))["model_output"]
    with engine.train_mode():
        engine.optimizer_zero_grad()
        data = batch(config, mine, made, outputs["log_probs"])
        learnt = engine.forward_backward_batch(data, loss, forward_only=False)
        grads = {name: p.grad.full_tensor().clone() for name, p in engine.module.named_parameters()}  # before clipping
        norm = engine.optimizer_step()
    tokens = {i: {k: x[j].float() for k, x in outputs.items()} for j, i in enumerate(mine)}
    terms = {name: float(learnt["metrics"][f"actor/{name}"].aggregate()) for name in ("pg_loss", "entropy_loss")}
    parts = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, (tokens, terms))
    if rank == 0:
        every = {i: x for found, _ in parts for i, x in found.items()}
        means = {name: sum(x[name] for _, x in parts) / len(parts) for name in terms}
        return {"tokens": every, "grads": grads, "norm": norm, "terms": means}
    return None


def main(rank, arguments):
    from scale import launch

    torch.set_num_threads(1)
    folder = Path(arguments["folder"])
    store = torch.distributed.FileStore(str(folder / "store"), arguments["ranks"])
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=arguments["ranks"])
    for name, overrides in arguments["settings"].items():
        found = one(launch.compose("tiny", out=folder, overrides=overrides), rank)
        if found is not None:
            torch.save(found, folder / f"{name}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    torch.multiprocessing.spawn(main, (given,), given["ranks"])
