"""The synchronous trainers of a run (`dynamo.lag` = 0), by their names in verl's table."""

from __future__ import annotations

from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from scale.plugin.reproducible import Reproducible
from scale.plugin.trainer import Dynamo


@register_trainer("stock-seeded")
class StockTrainer(Reproducible, PPOTrainerSync):  # type: ignore[misc]  # verl is untyped
    """Stock: verl's own GRPO, reproducibly."""


@register_trainer("dynamo")
class DynamoTrainer(Dynamo, PPOTrainerSync):  # type: ignore[misc]  # verl is untyped
    """Every method of `theory.methods`."""
