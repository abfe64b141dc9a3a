"""Parts of verl's step that look at all tokens, on packed rows: a mix-in over a trainer of verl.

verl pads every row to the longest one: of 8,192 rows of 1,000 tokens on average, seven eighths are padding. Here verl's
own functions get the tokens alone, or a number for each row, and give the same values to the bit. What a step needs
more than once is fetched once. Only settings that `scale.launch.settings` lets through are dealt with.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import agg_loss
from verl.trainer.ppo.metric_utils import (
    compute_data_metrics,
    compute_throughout_metrics,
    compute_timing_metrics,
)
from verl.utils.debug.metrics import calculate_debug_metrics

from scale.plugin.packing import nested_like, response_of, row_sums
from scale.plugin.row_order import row_of

if TYPE_CHECKING:
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
else:
    PPOTrainer = object  # A mix-in; importing verl's would import `scale.plugin.trainer`, which imports this.


class Packed(PPOTrainer):  # type: ignore[misc]  # verl is untyped
    """Mix-in over a trainer of verl."""

    kept_of: Sequence[str] = ()
    """Keys of the rows whose fields are kept."""

    kept: dict[str, Any]

    def fetch(self, batch: Any, names: Sequence[str]) -> dict[str, Any]:
        """Return fields of a batch's rows from verl's queue; those that were fetched or put before are kept."""
        if self.kept_of != batch.keys:
            self.forget()
            self.kept_of = list(batch.keys)
        missing = [name for name in names if name not in self.kept]
        if missing:
            data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=missing)
            self.kept |= {name: data[name] for name in missing}
        return {name: self.kept[name] for name in names}

    def put(self, batch: Any, fields: dict[str, Any]) -> Any:
        """Write fields of a batch's rows to verl's queue, and keep them."""
        content = TensorDict(fields, batch_size=len(batch))
        self.fetch(batch, [])
        self.kept |= fields
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=content)

    def forget(self) -> None:
        """Keep nothing; the memory is free while vLLM samples."""
        self.kept_of, self.kept = (), {}

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """Let the model compute log-probabilities; write those of responses back, and compare them with vLLM's."""
        rollout, actor = self.config.actor_rollout_ref.rollout, self.config.actor_rollout_ref.actor
        batch.extra_info |= {
            "calculate_entropy": True,
            "compute_loss": False,
            "temperature": rollout.temperature,
        }
        output = self.actor_rollout_wg.compute_log_prob(batch)
        assert len(output) == len(batch)
        told = ["rollout_log_probs"] if rollout.calculate_log_probs else []
        data = self.fetch(batch, ["entropy", "log_probs", "response_mask", "rm_scores", *told])
        mask = data["response_mask"]
        own = {"old_log_probs": response_of(data["log_probs"], mask), "entropy": response_of(data["entropy"], mask)}
        del self.kept["log_probs"], data["log_probs"]
        batch = self.put(batch, own)
        metrics["actor/entropy"] = agg_loss(
            loss_mat=own["entropy"].to_padded_tensor(0.0),
            loss_mask=nested_like(mask.values().bool(), mask).to_padded_tensor(False),
            loss_agg_mode=actor.loss_agg_mode,
            loss_scale_factor=actor.loss_scale_factor,
        ).item()
        if told:
            names = ("old_log_probs", "rollout_log_probs", "response_mask")
            tokens = {name: (data | own)[name].values().unsqueeze(0) for name in names}
            metrics |= calculate_debug_metrics(SimpleNamespace(batch=tokens | {"responses": tokens["response_mask"]}))
        return batch

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """Compute advantages of rows, which all their tokens have."""
        algorithm = self.config.algorithm
        if algorithm.use_kl_in_reward or algorithm.get("rollout_correction") is not None:
            return super()._compute_advantage(batch, metrics)  # They need numbers of tokens.
        # Imported before, it would import `scale.plugin.trainer`, which imports this.
        from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

        data = self.fetch(batch, ["response_mask", "rm_scores"])
        mask = data["response_mask"]
        rows = {
            "token_level_rewards": row_sums(data["rm_scores"]),
            "response_mask": (row_sums(mask.float()) > 0).long(),
        }
        rows = compute_advantage_for_multi_trajectories(
            DataProto(
                batch=TensorDict({name: x.unsqueeze(1) for name, x in rows.items()}, batch_size=len(batch)),
                non_tensor_batch={"uid": np.array([row_of(key)[0] for key in batch.keys], dtype=object)},
            ),
            batch_keys=batch.keys,
            adv_estimator=algorithm.adv_estimator,
            gamma=algorithm.gamma,
            lam=algorithm.lam,
            num_repeat=self.config.actor_rollout_ref.rollout.n,
            norm_adv_by_std_in_grpo=algorithm.get("norm_adv_by_std_in_grpo", True),
            config=algorithm,
        )
        advantages = rows.batch["advantages"].squeeze(1)
        tokens = nested_like(advantages.repeat_interleave(mask.offsets().diff()) * mask.values(), mask)
        return self.put(batch, {"advantages": tokens, "returns": tokens})

    def _compute_metrics(
        self, batch: Any, metrics: dict[str, Any], timing_raw: dict[str, float], global_steps: int, epoch: int
    ) -> None:
        """Compute verl's metrics of a step, of the rows that are no padding."""
        if self.config.algorithm.use_kl_in_reward:
            super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)  # Rewards of tokens differ.
            return
        data = self.fetch(batch, ["response_mask", "advantages", "returns", "rm_scores", "num_turns"])
        mask = data["response_mask"]
        real = torch.tensor([not tag.get("is_padding", False) for tag in batch.tags])
        prompts, responses = (torch.tensor([tag[x] for tag in batch.tags]) for x in ("prompt_len", "response_len"))
        tokens = (prompts + responses).tolist()
        prompts, responses = prompts.float(), responses.float()
        turns = np.array(values_of(data, "num_turns"))[real.numpy()]
        scores = row_sums(data["rm_scores"])[real].unsqueeze(1)
        of_all = SimpleNamespace(
            batch={"prompt_length": prompts, "response_length": responses},
            meta_info={"global_token_num": tokens},
        )
        of_real = SimpleNamespace(
            batch={
                "token_level_scores": scores,
                "token_level_rewards": scores,
                "advantages": data["advantages"].values(),
                "returns": data["returns"].values(),
                "response_mask": mask.values().bool() & real.repeat_interleave(mask.offsets().diff()),
                "prompt_length": prompts[real],
                "response_length": responses[real],
                # verl looks at the shapes: widths of the longest rows.
                "prompts": torch.empty(0, int(prompts.max())),
                "responses": torch.empty(0, int(responses.max())),
            },
            non_tensor_batch={"__num_turns__": turns.astype(np.int32)},
        )
        metrics |= {"training/global_step": global_steps, "training/epoch": epoch}
        metrics |= compute_data_metrics(of_real, use_critic=False)
        metrics |= compute_timing_metrics(of_all, timing_raw)
        metrics |= compute_throughout_metrics(of_all, timing_raw, self._get_n_gpus_for_throughput())
        oldest, newest = (
            np.array([tag[name] for tag in batch.tags], dtype=int)[real.numpy()]
            for name in ("min_global_steps", "max_global_steps")
        )
        for name, values in {
            "num_turns": turns,
            "off_policy/trajectory_spans": newest - oldest + 1,
            "off_policy/trajectory_staleness": global_steps - 1 - newest,
            "off_policy/trajectory_staleness_worst": global_steps - 1 - oldest,
        }.items():
            metrics |= {f"training/{name}/{x}": getattr(values, x)() for x in ("mean", "max", "min")}


def values_of(batch: Any, name: str) -> list[Any]:
    """Return a field of a batch that is no tensor, row by row."""
    values = batch[name]
    return [getattr(value, "data", value) for value in values]
