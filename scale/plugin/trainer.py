"""A trainer of verl, with rollouts divided by a rule of `theory.allocation` and advantages shaped in the loss.

A step: the batch's prompt keys -> counts from the history -> the rule -> `__rollout_n__` -> rollouts -> rewards back to
the history, by key. Budget, number of rows and number of optimiser steps are exactly verl's for `rollout.n`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass

from scale.plugin.config import FIRST_SESSION, require_method
from scale.plugin.engine import LOOK_AHEAD, STATISTICS, TOKEN_STATISTICS
from scale.plugin.loss import SCOPE, MethodLoss, looks_ahead, token_statistics_of
from scale.plugin.metrics import allocation_metrics, factor_quantiles
from scale.plugin.packed import values_of
from scale.plugin.packing import like_lengths, nested_like, response_of, row_sums
from scale.plugin.reproducible import SAMPLE_POLL, Reproducible
from scale.plugin.row_order import row_of
from scale.run import records
from theory.allocation import Problem, SuccessHistory, allocate, get_allocator, spends_in_rounds
from theory.base import require
from theory.base.files import read_json, write_json
from theory.losses import Scope


class Dynamo(Reproducible):
    """Mix-in for every method of `theory.methods`."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.method = self.settings.resolved()
        self.history = SuccessHistory(self.settings.history_discount)

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
        rng = np.random.default_rng([self.settings.seed, self.next_step()])
        counts = allocate(rule, problem, rng, lambda counts: self._observe(batch, counts))
        if not spends_in_rounds(rule):
            self._roll_out(batch, counts)
        return len(batch)

    def _roll_out(self, batch: Any, counts: Any) -> None:
        """Submit further rollouts of the prompts; their numbers go on from those of earlier rounds."""
        rows = np.flatnonzero(counts).tolist()
        part = tu.index_select_tensor_dict(batch, rows)
        uids, more = values_of(part, "uid"), counts[rows].tolist()
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
            self.look("train")
            time.sleep(SAMPLE_POLL)
            buffer._sync_metadata_from_transfer_queue()
        rows = [(key, row_of(key)) for key in buffer.partitions["train"]]
        new = [(key, uid) for key, (uid, session, _) in rows if uid in asked and session >= before[uid]]
        arrived = Counter(uid for _, uid in new)
        if any(arrived[uid] != n - before[uid] for uid, n in self.counts.items()):
            raise RuntimeError(f"rollouts: expected {int(counts.sum())} in this round, got {arrived.total()}")
        data = tq.kv_batch_get(keys=[key for key, _ in new], partition_id="train", select_fields=["rm_scores"])
        rewards = row_sums(data["rm_scores"]).numpy()
        require_binary(rewards, self.method.allocator)
        successes = Counter(uid for (_, uid), reward in zip(new, rewards, strict=True) if reward == 1)
        return np.array([successes[uid] for uid in self.keys])

    # Learning

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch.extra_info[TOKEN_STATISTICS] = self.method.needs_statistics
        return super()._compute_old_log_prob(batch, metrics)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch = super()._compute_advantage(batch, metrics)
        data = self.fetch(batch, ["rm_scores", "response_mask"])
        rewards = row_sums(data["rm_scores"])
        uids = [row_of(key)[0] for key in batch.keys]
        self._learn_rates(uids, rewards, metrics)
        own = self._own_advantages(uids, rewards, data) | self._uniforms(batch.keys, data)
        if own:
            batch = self.put(batch, own)
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
        tokens = advantages.repeat_interleave(mask.offsets().diff()) * mask.values()
        return {"advantages": nested_like(tokens, mask)}

    def _uniforms(self, keys: list[str], data: Any) -> dict[str, Any]:
        """Return random numbers of tokens for the losses that draw; a row has the same ones on every rank."""
        if not self.method.loss.draws:
            return {}
        lengths = data["response_mask"].offsets().diff().tolist()
        rng = np.random.default_rng([self.settings.seed, self.global_steps, 1])
        rows = sorted(range(len(keys)), key=lambda i: row_of(keys[i]))
        drawn = {row: torch.from_numpy(rng.random(max(lengths))[: lengths[row]].copy()) for row in rows}
        return {"uniforms": torch.nested.as_nested_tensor([drawn[i] for i in range(len(keys))], layout=torch.jagged)}

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch.extra_info[TOKEN_STATISTICS] = self.method.needs_statistics
        batch.extra_info[LOOK_AHEAD] = looks_ahead(self.method, self.settings.scope)
        fields = ["old_log_probs", "advantages", "response_mask", *(STATISTICS if self.method.compares else ())]
        data = self.fetch(batch, fields)
        # The door of the step: here, on the CPU, the values of all tokens are looked at once.
        advantages, log_prob = (data[name].values() for name in ("advantages", "old_log_probs"))
        require.finite(require.namespace(advantages=advantages), advantages=advantages, old_log_probs=log_prob)
        require.values("old_log_probs", log_prob, "values <= 0", lambda x: x <= 0.01)
        if self.method.compares:
            scope = self._scope(data, metrics)
            if self.settings.scope == "rollout-batch":
                batch.extra_info[SCOPE] = scope
        return super()._update_actor(batch, metrics)

    def _scope(self, data: Any, metrics: dict[str, Any]) -> Scope:
        """Return the extremes over the rollout batch, under the policy that sampled it; measure the factors."""
        shaping = self.method.shaping
        assert shaping is not None
        mask = data["response_mask"]
        rows = {"mask": mask, "advantages": data["advantages"], "log_prob": data["old_log_probs"]}
        rows |= {name: response_of(data[name], mask) for name in STATISTICS}
        parts = []
        for part in like_lengths(rows):
            valid = part["mask"].bool()
            stats = token_statistics_of(part["log_prob"], [part[name] for name in STATISTICS], valid)
            parts.append((part["advantages"], stats, valid))
        scope = Scope.merge(shaping.scope(stats, advantages, valid) for advantages, stats, valid in parts)
        factors: dict[str, list[torch.Tensor]] = {}
        for advantages, stats, valid in parts:
            shaped = shaping.apply(advantages, stats, valid, coefficient=advantages, scope=scope)
            for name, factor in shaped.factors.items():
                factors.setdefault(name, []).append(factor[valid])
        for name, values in factors.items():
            metrics |= factor_quantiles(name, torch.cat(values).numpy())
        return scope

    # State

    def _save_checkpoint(self) -> None:
        """Write our state first, so that every checkpoint that verl calls complete has it."""
        self.checkpoint_folder.mkdir(parents=True, exist_ok=True)
        write_json(self.checkpoint_folder / records.STATE, self.state_dict())
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps:
            path = self.checkpoint_folder / records.STATE
            self.load_state_dict(read_json(path), path)

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
