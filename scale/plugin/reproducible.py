"""verl's own trainers, whose rows have names and an order that do not depend on chance.

What of this holds for a synchronous trainer and for one that rolls out ahead is a mix-in over both.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import transfer_queue as tq
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer

from scale.plugin.config import DynamoConfig
from scale.plugin.packed import Packed, values_of
from scale.plugin.packing import row_sums
from scale.plugin.phases import Phased
from scale.plugin.row_order import deal, prompt_name, row_of, spread
from scale.run import records

SAMPLE_POLL = 0.05
"""Seconds between two looks of the trainer for finished rollouts; verl's own are 2."""


class Reproducible(Phased, Packed):
    """Mix-in over a trainer of verl. Formulas, budget and losses are verl's."""

    mode = "sync"
    """What verl calls the trainer below; it would take one of any other name for an asynchronous one."""

    trainer_mode = property(lambda self: self.mode, lambda self, value: None)

    def __init__(self, config: Any) -> None:
        self.settings = DynamoConfig.from_mapping(config.dynamo)
        self.records = records.Records(Path(config.trainer.default_local_dir).parent)
        self.keys: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        super().__init__(config)

    @property
    def num_minibatches(self) -> int:
        """Optimiser steps per rollout batch and epoch."""
        return int(self.config.data.train_batch_size // self.config.actor_rollout_ref.actor.ppo_mini_batch_size)

    @property
    def budget(self) -> int:
        """Rollouts of a step, at most; the rows of a rollout batch."""
        return int(self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n)

    @property
    def checkpoint_folder(self) -> Path:
        """Folder of the checkpoint of the current step."""
        return Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"

    def _build_replay_buffer(self) -> Any:
        buffer = super()._build_replay_buffer()
        buffer.poll_interval = SAMPLE_POLL
        return buffer

    def _next_train_batch(self, num_prompts: int | None = None) -> Any:
        batch = super()._next_train_batch(num_prompts)
        names = [prompt_name(self.next_step(), row) for row in range(len(batch))]
        self.keys = dict(zip(names, (str(info["key"]) for info in values_of(batch, "extra_info")), strict=True))
        self.counts = Counter(dict.fromkeys(names, int(self.config.actor_rollout_ref.rollout.n)))
        tu.assign_non_tensor_stack(batch, "uid", names)
        return batch

    def next_step(self) -> int:
        """Return the step that will learn from the next batch of prompts."""
        return int(self.global_steps)

    def _balance_batch(self, batch: Any, metrics: dict[str, Any], **kwargs: Any) -> Any:
        """Order the rows: verl's order depends on who answered first. Budget that was not spent becomes padding."""
        self._require_rows(batch)
        batch.reorder(sorted(range(len(batch)), key=lambda i: row_of(batch.keys[i])))
        num_real = len(batch)
        batch = upsample_batch_to_divisible_size(batch, self.budget, self.tokenizer.eos_token_id)
        batch.reorder(spread(num_real, len(batch), self.num_minibatches))
        group = self.actor_rollout_wg
        if "actor" not in group._dispatch_info:
            group._dispatch_info["actor"] = group._query_dispatch_info("actor")
        lengths = [tag["seq_len"] for tag in batch.tags]
        batch.reorder(deal(lengths, self.num_minibatches, max(group._dispatch_info["actor"]) + 1))
        return batch

    def _require_rows(self, batch: Any) -> None:
        counts = Counter(row_of(key)[0] for key in batch.keys)
        if counts != self.counts:
            different = {uid: (n, counts[uid]) for uid, n in self.counts.items() if counts[uid] != n}
            raise RuntimeError(
                f"rollouts: expected {self.counts.total()}, got {counts.total()} (expected, got): {different}"
            )

    def _log_rollout_data(self, batch: Any, timing_raw: dict[str, Any], rollout_data_dir: str) -> None:
        """Dump the responses as verl does, which would decode every row at the length of the longest, and padding."""
        tags = zip(batch.keys, batch.tags, strict=True)
        keys = sorted((key for key, tag in tags if not tag.get("is_padding", False)), key=row_of)
        first = {row_of(key)[0]: key for key in reversed(keys)}  # A prompt's rows have one answer.
        get = partial(tq.kv_batch_get, partition_id=batch.partition_id)
        with marked_timer("dump_rollout_generations", timing_raw, color="green"):
            data = get(keys=keys, select_fields=["prompts", "responses", "rm_scores"])
            inputs, outputs = (
                self.tokenizer.batch_decode([row.tolist() for row in data[name].unbind()], skip_special_tokens=True)
                for name in ("prompts", "responses")
            )
            told = get(keys=list(first.values()), select_fields=["rm_scores", "reward_model"])
            answers = values_of(told, "reward_model") if "reward_model" in told else [{}] * len(first)
            gold = {uid: x.get("ground_truth") for uid, x in zip(first, answers, strict=True)}
            golds = [gold[row_of(key)[0]] for key in keys]
            scores = row_sums(data["rm_scores"]).tolist()
            self._dump_generations(inputs, outputs, golds, scores, {"uid": keys}, rollout_data_dir)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        rewards = row_sums(self.fetch(batch, ["rm_scores"])["rm_scores"]).tolist()
        uids, reward = [row_of(key)[0] for key in batch.keys], self.config.reward.custom_reward_function
        require_finite_rewards(rewards, [self.keys.get(x, x) for x in uids], f"{reward.path}:{reward.name}")
        return super()._compute_advantage(batch, metrics)

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch = super()._update_actor(batch, metrics)
        require_finite_gradient(self.global_steps, metrics)
        return batch

    def _validate(self) -> dict[str, Any]:
        metrics: dict[str, Any] = super()._validate()
        require_finite_validation(self.global_steps, metrics)
        if self.global_steps == 0:
            self.records.append(self.global_steps, metrics)
        return metrics

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super()._compute_metrics(batch, metrics, *args, **kwargs)
        metrics |= self._told_by_reward(batch)
        self.forget()
        self.records.append(self.global_steps, metrics)
        reward = metrics.get("critic/score/mean", math.nan)
        self.done(self.global_steps, reward=float(reward), of=int(self.total_training_steps))

    def _told_by_reward(self, batch: Any) -> dict[str, float]:
        """Return the shares of responses that the reward function could not check, and of guesses, if it tells them."""
        told = zip(values_of(self.fetch(batch, ["extra_fields"]), "extra_fields"), batch.tags, strict=True)
        infos = [x.get("reward_extra_info", {}) for x, tag in told if not tag.get("is_padding", False)]
        names = [name for name in ("unverified", "guessed") if all(info.get(name) is not None for info in infos)]
        return {f"dynamo/{name}": float(np.mean([info[name] for info in infos])) for name in names}

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        self.records.truncate(self.global_steps or -1)  # a run from scratch validates before its first step again


def require_finite_rewards(rewards: Sequence[float], keys: Sequence[str], function: str) -> None:
    """Require finite rewards of a step's responses, given the prompts' keys; of a reward model too."""
    for reward, key in zip(rewards, keys, strict=True):
        if not math.isfinite(reward):
            raise ValueError(
                f"reward: expected a finite number, got {reward} of a response to prompt {key!r} by {function}"
            )


def require_finite_gradient(step: int, metrics: Mapping[str, Any]) -> None:
    """Require a finite gradient norm in every mini-batch of a step.

    verl leaves a mini-batch with another norm out and goes on: the step would count as done, with no or a partial
    update. The metric is the mean over mini-batches, which is not finite if one of them is not.
    """
    norm = metrics.get("actor/grad_norm")
    if norm is None or not math.isfinite(norm):
        raise ValueError(
            f"step {step}: expected a finite gradient norm, got {norm}: verl has not learnt from a mini-batch, and the "
            "step is not counted as done"
        )


def require_finite_validation(step: int, metrics: Mapping[str, Any]) -> None:
    """Require finite mean rewards of a validation, a reward model's too: verl has them apart if there is an `acc`."""
    means = [name for name in metrics if re.fullmatch(r"val-core/.+|val-aux/.+/reward/mean@\d+", name)]
    odd = [name for name in means if not math.isfinite(metrics[name])]
    if odd:
        raise ValueError(f"validation at step {step}: expected finite rewards, got {odd[0]} {metrics[odd[0]]}")
