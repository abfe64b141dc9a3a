"""A small config of every method: seconds become milliseconds."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from toy.training.config import TrainConfig
from toy.worlds import WORLDS, Population


def small_config(method: str = "dynamo", world: str | Population = "mixed", **fields: Any) -> TrainConfig:
    """Return a config of 3 seeds, 12 prompts in batches of 6 and 8 rollouts in [4, 12] each; `fields` override."""
    name = world if isinstance(world, str) else "mixed"
    sizes = {"num_seeds": 3, "num_steps": 6, "batch_prompts": 6, "rollouts": 8, "rollouts_low": 4, "rollouts_high": 12}
    population = replace(WORLDS[name], num_prompts=12) if isinstance(world, str) else world
    return replace(TrainConfig.named(method, name), world=population, **{**sizes, **fields})


@pytest.fixture
def small() -> Callable[..., TrainConfig]:
    """`small_config`."""
    return small_config


@pytest.fixture(autouse=True, scope="session")
def interrupts():
    """Let children be interrupted: a shell starts background jobs with SIGINT ignored, and children inherit that."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
