"""What several tests of training need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toy.training.config import TrainConfig
from toy.training.loop import Run, Trainer
from toy.training.rollouts import Batch
from toy.training.step import step


def assert_same(one: Run, other: Run) -> None:
    """Require two runs of the same bits."""
    np.testing.assert_array_equal(one.logits, other.logits)
    assert one.metrics.keys() == other.metrics.keys()
    for name in one.metrics:
        np.testing.assert_array_equal(one.metrics[name], other.metrics[name], err_msg=name)


def with_rule(config: TrainConfig, name: str) -> TrainConfig:
    """Return a config with another allocation rule."""
    return replace(config, method=replace(config.method, allocator=name))


def watched_step(trainer: Trainer) -> tuple[Batch, dict[str, np.ndarray]]:
    """Do a step, unrecorded; return the batch that it learnt from, and what it measured."""
    batches = []

    def watch(batch: Batch) -> dict[str, np.ndarray]:
        batches.append(batch)
        return {}

    measured = step(trainer.setup, trainer.state, watch)
    return batches[0], measured
