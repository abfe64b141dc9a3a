"""verl's synchronous trainer, with rollouts divided by a rule of `theory.allocation` and advantages shaped in the loss.

A step: the batch's prompt keys -> counts from the history -> the rule -> `__rollout_n__` -> rollouts -> rewards back to
the history, by key. Budget, number of rows and number of optimiser steps are exactly verl's for `rollout.n`.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.padding import response_from_nested, response_to_nested

from scale.plugin.config import FIRST_SESSION, DynamoConfig, require_method
from scale.plugin.engine import LOOK_AHEAD, STATISTICS, TOKEN_STATISTICS
from scale.plugin.loss import SCOPE, MethodLoss, looks_ahead, token_statistics_of
from scale.plugin.metrics import allocation_metrics, factor_quantiles
from scale.plugin.row_order import deal, row_of, spread
from scale.run import beat, records
from theory.allocation import Problem, SuccessHistory, allocate, get_allocator, spends_in_rounds
from theory.base import require
from theory.base.files import read_json, write_json
from theory.losses import Scope

SAMPLE_POLL = 0.05
"""Seconds between two looks of the trainer for finished rollouts; verl's own are 2."""


class ReproducibleTrainer(PPOTrainerSync):  # type: ignore[misc]  # verl is untyped
    """verl's own synchronous trainer, whose rows have names and an order that do not depend on chance.

    Registered as `stock-seeded`. Formulas, budget and losses are verl's.
    """

    # verl takes a trainer of any other name for an asynchronous one.
    trainer_mode = property(lambda self: "sync", lambda self, value: None)

    def __init__(self, config: Any) -> None:
        self.settings = DynamoConfig.from_mapping(config.dynamo)
        self.records = records.Records(Path(config.trainer.default_local_dir).parent)
        self.keys: dict[str, str] = {}
        super().__init__(config)

    @property
    def num_minibatches(self) -> int:
        """Optimiser steps per rollout batch and epoch."""
        return int(self.config.data.train_batch_size // self.config.actor_rollout_ref.actor.ppo_mini_batch_size)

    @property
    def budget(self) -> int:
        """Rollouts of a step, at most; the rows of a rollout batch."""
        return int(self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n)

    def _build_replay_buffer(self) -> Any:
        buffer = super()._build_replay_buffer()
        buffer.poll_interval = SAMPLE_POLL
        return buffer

    def _next_train_batch(self, num_prompts: int | None = None) -> Any:
        batch = super()._next_train_batch(num_prompts)
        names = [f"{self.global_steps:08d}-{row:05d}" for row in range(len(batch))]
        self.keys = dict(zip(names, (str(info["key"]) for info in _values(batch, "extra_info")), strict=True))
        tu.assign_non_tensor_stack(batch, "uid", names)
        return batch

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
        expected = self._counts()
        counts = Counter(row_of(key)[0] for key in batch.keys)
        if counts != expected:
            different = {uid: (n, counts[uid]) for uid, n in expected.items() if counts[uid] != n}
            raise RuntimeError(
                f"rollouts: expected {expected.total()}, got {counts.total()} (expected, got): {different}"
            )

    def _counts(self) -> Counter[str]:
        return Counter(dict.fromkeys(self.keys, int(self.config.actor_rollout_ref.rollout.n)))

    def _log_rollout_data(self, batch: Any, *args: Any, **kwargs: Any) -> None:
        """Dump the responses; verl would dump padding too."""
        real = [i for i, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
        keys, tags = [batch.keys[i] for i in real], [batch.tags[i] for i in real]
        super()._log_rollout_data(
            tq.KVBatchMeta(partition_id=batch.partition_id, keys=keys, tags=tags), *args, **kwargs
        )

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["rm_scores"])
        rewards = [row.sum().item() for row in data["rm_scores"].unbind()]
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
        self.records.append(self.global_steps, metrics)
        reward = metrics.get("critic/score/mean", math.nan)
        beat(self.global_steps, reward=float(reward), of=int(self.total_training_steps))

    def _told_by_reward(self, batch: Any) -> dict[str, float]:
        """Return the shares of responses that the reward function could not check, and of guesses, if it tells them."""
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
        infos = [x.get("reward_extra_info", {}) for x in _values(data, "extra_fields")]
        names = [name for name in ("unverified", "guessed") if all(info.get(name) is not None for info in infos)]
        return {f"dynamo/{name}": float(np.mean([info[name] for info in infos])) for name in names}

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        self.records.truncate(self.global_steps or -1)  # a run from scratch validates before its first step again


@register_trainer("stock-seeded")
class StockTrainer(ReproducibleTrainer):
    """Stock: verl's own GRPO, reproducibly."""


@register_trainer("dynamo")
class DynamoTrainer(ReproducibleTrainer):
    """Trainer for every method of `theory.methods`."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.method = self.settings.resolved()
        self.history = SuccessHistory(self.settings.history_discount)
        self.counts: Counter[str] = Counter()

    def on_init_end(self) -> None:
        """Hand the loss to the workers, and verl's weights to the rollouts."""
        folder = str(self.records.folder / "modulated") if self.settings.dump else None
        actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
        self.actor_rollout_wg.set_loss_fn(MethodLoss(self.method, actor, self.settings.scope, folder))
        super().on_init_end()

    # Allocation

    def _submit_batch_to_rollout(self, batch: Any) -> int:
        """Roll out a batch by the method's rule: at once, or in the rule's rounds."""
        rule = get_allocator(self.method.allocator)
        self.counts = Counter(dict.fromkeys(self.keys, 0))
        past = self.history.counts(self.keys.values())
        problem = Problem(*past, self.budget, self.settings.rollouts_low, self.settings.rollouts_high)
        rng = np.random.default_rng([self.settings.seed, self.global_steps])
        counts = allocate(rule, problem, rng, lambda counts: self._observe(batch, counts))
        if not spends_in_rounds(rule):
            self._roll_out(batch, counts)
        return len(batch)

    def _roll_out(self, batch: Any, counts: Any) -> None:
        """Submit further rollouts of the prompts; their numbers go on from those of earlier rounds."""
        rows = np.flatnonzero(counts).tolist()
        part = tu.index_select_tensor_dict(batch, rows)
        uids, more = _values(part, "uid"), counts[rows].tolist()
        tu.assign_non_tensor_stack(part, "__rollout_n__", more)
        tu.assign_non_tensor_stack(part, FIRST_SESSION, [self.counts[uid] for uid in uids])
        self.counts.update(dict(zip(uids, more, strict=True)))
        super()._submit_batch_to_rollout(part)

    def _observe(self, batch: Any, counts: Any) -> Any:
        """Roll out, wait, and return the successes of every prompt."""
        before = dict(self.counts)
        self._roll_out(batch, counts)
        asked = {uid for uid, n in self.counts.items() if n > before[uid]}
        buffer = self.replay_buffer
        buffer._sync_metadata_from_transfer_queue()
        while not asked <= buffer.finished_keys["train"] | buffer.failure_keys["train"]:
            time.sleep(SAMPLE_POLL)
            buffer._sync_metadata_from_transfer_queue()
        rows = [(key, row_of(key)) for key in buffer.partitions["train"]]
        new = [(key, uid) for key, (uid, session, _) in rows if uid in asked and session >= before[uid]]
        arrived = Counter(uid for _, uid in new)
        if any(arrived[uid] != n - before[uid] for uid, n in self.counts.items()):
            raise RuntimeError(f"rollouts: expected {int(counts.sum())} in this round, got {arrived.total()}")
        data = tq.kv_batch_get(keys=[key for key, _ in new], partition_id="train", select_fields=["rm_scores"])
        rewards = np.array([row.sum().item() for row in data["rm_scores"].unbind()])
        require_binary(rewards, self.method.allocator)
        successes = Counter(uid for (_, uid), reward in zip(new, rewards, strict=True) if reward == 1)
        return np.array([successes[uid] for uid in self.keys])

    def _counts(self) -> Counter[str]:
        return self.counts

    # Learning

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch.extra_info[TOKEN_STATISTICS] = self.method.needs_statistics
        return super()._compute_old_log_prob(batch, metrics)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch = super()._compute_advantage(batch, metrics)
        fields = ["rm_scores", "response_mask", "advantages"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        rewards = torch.tensor([row.sum().item() for row in data["rm_scores"].unbind()])
        uids = [row_of(key)[0] for key in batch.keys]
        self._learn_rates(uids, rewards, metrics)
        own = self._own_advantages(uids, rewards, data) | self._uniforms(batch.keys, data)
        if own:
            content = TensorDict(own, batch_size=len(batch))
            batch = tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=content)
        return batch

    def _learn_rates(self, uids: list[str], rewards: torch.Tensor, metrics: dict[str, Any]) -> None:
        """Update the history by key, and record the allocation."""
        scores = rewards.numpy()
        if self.method.allocator == "uniform" and not np.isin(scores, (0.0, 1.0)).all():
            return
        require_binary(scores, self.method.allocator)
        successes = Counter(uid for uid, score in zip(uids, scores, strict=True) if score == 1)
        names = list(self.keys)
        keys = [self.keys[uid] for uid in names]
        k, n = np.array([successes[uid] for uid in names]), np.array([self.counts[uid] for uid in names])
        past_k, past_n = self.history.counts(keys)
        rates = (past_k + 1) / (past_n + 2)
        self.history.update(keys, k, n)
        self.records.allocation(self.global_steps, keys, n, k)
        bounds = (self.settings.rollouts_low, self.settings.rollouts_high)
        metrics |= allocation_metrics(n, k, rates, bounds)

    def _own_advantages(self, uids: list[str], rewards: torch.Tensor, data: Any) -> dict[str, Any]:
        """Return advantages where the method's differ from verl's; verl's are those of GRPO."""
        if self.method.advantage == "grpo":
            return {}
        ids = {uid: i for i, uid in enumerate(dict.fromkeys(uids))}
        groups = torch.tensor([ids[uid] for uid in uids])
        advantages = self.method.advantages(rewards, groups, rewards == 1)
        mask = data["response_mask"]
        padded = mask.to_padded_tensor(0)
        return {"advantages": response_to_nested(advantages.unsqueeze(-1) * padded, mask)}

    def _uniforms(self, keys: list[str], data: Any) -> dict[str, Any]:
        """Return random numbers of tokens for the losses that draw; a row has the same ones on every rank."""
        if not self.method.loss.draws:
            return {}
        mask = data["response_mask"]
        drawn = np.zeros(tuple(mask.to_padded_tensor(0).shape))
        rng = np.random.default_rng([self.settings.seed, self.global_steps, 1])
        for row in sorted(range(len(keys)), key=lambda i: row_of(keys[i])):
            drawn[row] = rng.random(drawn.shape[1])
        return {"uniforms": response_to_nested(torch.from_numpy(drawn), mask)}

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch.extra_info[TOKEN_STATISTICS] = self.method.needs_statistics
        batch.extra_info[LOOK_AHEAD] = looks_ahead(self.method, self.settings.scope)
        fields = ["old_log_probs", "advantages", "response_mask", *(STATISTICS if self.method.compares else ())]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        # The door of the step: here, on the CPU, the values of all tokens are looked at once.
        advantages, log_prob = (data[name].to_padded_tensor(0) for name in ("advantages", "old_log_probs"))
        require.finite(require.namespace(advantages=advantages), advantages=advantages, old_log_probs=log_prob)
        require.values("old_log_probs", log_prob, "values <= 0", lambda x: x <= 0.01)
        if self.method.compares:
            scope = self._scope(data, advantages, log_prob, metrics)
            if self.settings.scope == "rollout-batch":
                batch.extra_info[SCOPE] = scope
        return super()._update_actor(batch, metrics)

    def _scope(self, data: Any, advantages: torch.Tensor, log_prob: torch.Tensor, metrics: dict[str, Any]) -> Scope:
        """Return the extremes over the rollout batch, under the policy that sampled it; measure the factors."""
        shaping = self.method.shaping
        assert shaping is not None
        nested = data["response_mask"]
        mask = nested.to_padded_tensor(0).bool()
        statistics = [response_from_nested(data[name], nested).to_padded_tensor(0) for name in STATISTICS]
        stats = token_statistics_of(log_prob, statistics, mask)
        scope = shaping.scope(stats, advantages, mask)
        factors = shaping.apply(advantages, stats, mask, coefficient=advantages, scope=scope).factors
        for name, factor in factors.items():
            metrics |= factor_quantiles(name, factor[mask].numpy())
        return scope

    # State

    def _save_checkpoint(self) -> None:
        """Write our state first, so that every checkpoint that verl calls complete has it."""
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / records.STATE, self.state_dict())
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps:
            folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
            self.load_state_dict(read_json(folder / records.STATE), folder / records.STATE)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data; random numbers follow from the step and need none."""
        return {"method": self.method.to_dict(), "history": self.history.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], where: object = "checkpoint") -> None:
        """Take over the state of a run of the same method and the same discount of the history, read from `where`."""
        require_method(where, state, self.settings)
        try:
            self.history.load_state_dict(state["history"])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def require_binary(rewards: Any, rule: str) -> None:
    """Require rewards that a rule can count as successes and failures."""
    odd = sorted(set(rewards.tolist()) - {0.0, 1.0})
    if odd:
        raise ValueError(f"rewards: expected 0 or 1, since the rule {rule} counts successes, got {odd[:5]}")


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


def _values(batch: Any, name: str) -> list[Any]:
    values = batch[name]
    return [getattr(value, "data", value) for value in values]
