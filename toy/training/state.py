"""What a training step works on: what stays the same for the whole run, and what every step changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from theory.allocation import SuccessHistory
from theory.base.arrays import IntArray
from toy.training.config import TrainConfig
from toy.training.generators import Stream, generator
from toy.training.optimizers import Optimizer
from toy.training.rollouts import of_states
from toy.worlds import World


@dataclass(frozen=True)
class Setup:
    """What stays the same for the whole run: the config, and every seed's world, stacked into tensors on a device.

    Attributes
    ----------
    keys : Names of the prompts, the same in all worlds.
    correct : Which tokens of every row of the table are correct, [S, R, K].
    rows, tokens : Row of every token of every prompt, and which of them the prompt has, [S, N, T].
    """

    config: TrainConfig
    device: torch.device
    worlds: list[World]
    keys: tuple[str, ...]
    correct: torch.Tensor
    rows: torch.Tensor
    tokens: torch.Tensor

    @classmethod
    def draw(cls, config: TrainConfig, device: torch.device) -> Setup:
        """Draw the world of every seed."""
        worlds = [config.world.sample(generator(seed, Stream.WORLD)) for seed in config.seeds]
        correct, rows, tokens = (
            torch.from_numpy(np.stack(arrays)).to(device)
            for arrays in zip(*((world.correct, world.rows, world.mask) for world in worlds), strict=True)
        )
        return cls(config, device, worlds, worlds[0].keys, correct, rows, tokens)

    def tensor(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
        """Return an array on the run's device."""
        return torch.from_numpy(array).to(self.device)

    def states(self, prompts: IntArray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the rows [S, U] of the table that prompts [S, Q] need, and their tokens' states and mask, [S, Q, T].

        The states are the tokens' rows one by one where these are fewer than the rows of the table, else all rows.
        """
        index = self.tensor(prompts)
        rows, tokens = of_states(self.rows, index), of_states(self.tokens, index)
        num_seeds, num_rows, _ = self.correct.shape
        if rows[0].numel() < num_rows:
            states = torch.arange(rows[0].numel(), device=self.device).reshape(rows[0].shape).expand_as(rows)
            return rows.flatten(1), states, tokens
        return torch.arange(num_rows, device=self.device).expand(num_seeds, -1), rows, tokens

    def generators(self, stream: Stream, step: int) -> list[np.random.Generator]:
        """Return every seed's generator for one purpose at one step."""
        return [generator(seed, stream, step) for seed in self.config.seeds]


@dataclass
class State:
    """What every step changes: tables of `logits` [S, R, K], the optimizer, and each seed's history of its prompts."""

    logits: torch.Tensor
    optimizer: Optimizer
    histories: list[SuccessHistory]
    num_steps: int = 0

    @classmethod
    def before_training(cls, setup: Setup) -> State:
        """Return the state before the first step."""
        logits = setup.tensor(np.stack([world.logits for world in setup.worlds]))
        histories = [SuccessHistory(setup.config.history_discount) for _ in setup.worlds]
        return cls(logits, Optimizer(setup.config.optimizer, logits), histories)
