"""Rollouts ahead of learning (`dynamo.lag`): a mix-in over verl's asynchronous trainer on shared GPUs.

While a step learns, vLLM rests. Then unfinished responses go on where they were, with the new weights. So the longest
responses of a batch are made beside the bulk of the next. A step learns from a whole batch, in the order of submission.
verl's own learns from what is finished first. Here budget, counts and groups of a step are those of its allocation, and
a prompt is not learnt from later because its responses are long.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBufferAsync
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync

from scale.plugin.phases import QUEUE
from scale.plugin.reproducible import SAMPLE_POLL, Reproducible
from scale.plugin.row_order import step_of
from scale.plugin.seeds import ContinuingClient
from scale.plugin.trainer import Dynamo
from theory.base.files import read_json, write_json

IN_FLIGHT = "in_flight.json"
"""File of a checkpoint with their keys and counts."""


class InOrder(ReplayBufferAsync):  # type: ignore[misc]  # verl is untyped
    """verl's buffer, which hands out the batch that was submitted first, as a whole."""

    def _sampleable_terminal_keys(self, partition_id: str, eviction_reasons: Any) -> set[str]:
        keys: set[str] = super()._sampleable_terminal_keys(partition_id, eviction_reasons)
        if partition_id != "train":
            return keys
        first = min(map(step_of, self.prompt_global_steps[partition_id]), default=0)
        return {uid for uid in keys if step_of(uid) == first}


class RollsAhead(Reproducible):
    """Mix-in: what changes where a batch is learnt from `lag` steps after it was submitted."""

    mode = "colocate_async"

    def __init__(self, config: Any) -> None:
        self.ahead: dict[int, tuple[dict[str, str], Counter[str]]] = {}
        super().__init__(config)

    def get_llm_client(self) -> Any:
        """Return verl's client that goes on with interrupted responses, with seeds of their own."""
        return self.llm_server_manager.get_client(client_cls=ContinuingClient)

    def _build_replay_buffer(self) -> Any:
        buffer = InOrder(
            trainer_mode=self.mode,
            trainer_config=self.config.trainer.v1.colocate_async,
            max_off_policy_threshold=None,
            max_off_policy_strategy="wait",
            sampler_kwargs={},
            poll_interval=SAMPLE_POLL,
        )
        return self.watched(buffer)

    def _init_dataloader(self) -> None:
        """Load whole batches. verl loads prompt by prompt, to replace those that it drops, and none is dropped here."""
        self.mode = "sync"
        super()._init_dataloader()
        self.mode = type(self).mode

    # Submission

    def next_step(self) -> int:
        """Return the step after those whose batches have been submitted."""
        return max(self.ahead, default=self.global_steps - 1) + 1

    def prepare_step(self) -> dict[str, Any]:
        """Submit a batch, unless no step is left to learn from it."""
        return super().prepare_step() if self.next_step() <= self.total_training_steps else {}

    def _add_prompts_to_generate(self, num_prompts: int) -> int:
        """Submit the first batches, one by one: each has its own budget."""
        for _ in range(num_prompts // self.config.data.train_batch_size):
            self.prepare_step()
        return num_prompts

    def _submit_batch_to_rollout(self, batch: Any) -> int:
        step = self.next_step()
        submitted: int = super()._submit_batch_to_rollout(batch)
        self.ahead[step] = (self.keys, self.counts)
        return submitted

    # Learning

    def _balance_batch(self, batch: Any, metrics: dict[str, Any], **kwargs: Any) -> Any:
        self.keys, self.counts = self.ahead.pop(self.global_steps)
        return super()._balance_batch(batch, metrics, **kwargs)

    # State

    def _save_checkpoint(self) -> None:
        """Write what is in flight first."""
        self.checkpoint_folder.mkdir(parents=True, exist_ok=True)
        batches = {
            str(step): {uid: [keys[uid], counts[uid]] for uid in keys} for step, (keys, counts) in self.ahead.items()
        }
        write_json(self.checkpoint_folder / IN_FLIGHT, {"batches": batches})
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps:
            self.ahead = read_in_flight(self.checkpoint_folder / IN_FLIGHT)
            self._require_queue()

    def _require_queue(self) -> None:
        """Require in verl's queue the prompts that are in flight, no other ones: a step would wait for ever.

        The responses that the checkpoint's own step learnt from are still there, and are cleared.
        """
        tags = (tq.kv_list("train") or {}).get("train", {})
        there = {key for key, tag in tags.items() if tag.get("is_prompt", False)}
        expected = {uid for keys, _ in self.ahead.values() for uid in keys}
        if there != expected:
            raise ValueError(
                f"checkpoint at step {self.global_steps}: expected {len(expected)} prompts in {QUEUE}, as "
                f"{IN_FLIGHT} says, got {len(there & expected)} of them and {len(there - expected)} others"
            )
        learnt = [key for key in tags if key.partition("_")[0] not in expected]
        if learnt:
            tq.kv_clear(keys=learnt, partition_id="train")


def read_in_flight(path: Path) -> dict[int, tuple[dict[str, str], Counter[str]]]:
    """Return the keys and the counts of the prompts in flight, by the step that learns from them."""
    batches: Any = read_json(path).get("batches")
    found: dict[int, tuple[dict[str, str], Counter[str]]] = {}
    try:
        for step, prompts in batches.items():
            keys = {uid: key for uid, (key, _) in prompts.items()}
            counts = Counter({uid: n for uid, (_, n) in prompts.items()})
            texts = all(isinstance(key, str) and step_of(uid) == int(step) for uid, key in keys.items())
            if not texts or not all(type(n) is int and n > 0 for n in counts.values()):
                raise ValueError
            found[int(step)] = (keys, counts)
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"{path}: expected keys and counts of prompts by step, got other content") from None
    return found


@register_trainer("stock-seeded-ahead")
class StockAhead(RollsAhead, PPOTrainerColocateAsync):  # type: ignore[misc]  # verl is untyped
    """Stock: verl's own GRPO, with batches in order."""


@register_trainer("dynamo-ahead")
class DynamoAhead(RollsAhead, Dynamo, PPOTrainerColocateAsync):  # type: ignore[misc]  # verl is untyped
    """Every method of `theory.methods`, with batches in order."""
