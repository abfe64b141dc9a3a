"""SGD and AdamW on tables of logits [S, ...], seeds in the first axis: no seed sees another's gradient.

`torch.optim` clips over all seeds, and keeps its state in a form of its own; here the state is a dict of tensors.
"""

from __future__ import annotations

import numpy as np
import torch

from theory.base.arrays import FloatArray
from toy.training.config import OptimizerConfig


class Optimizer:
    """Moves `logits` in place along minus the gradient; `num_steps` counts its steps so far.

    `state` holds the moments of AdamW, tensors of the shape of the logits; it is empty for SGD.
    """

    def __init__(self, config: OptimizerConfig, logits: torch.Tensor) -> None:
        self.config = config
        self.num_steps = 0
        names = ("first_moment", "second_moment") if config.name == "adamw" else ()
        self.state = {name: torch.zeros_like(logits) for name in names}

    def step(self, logits: torch.Tensor, gradient: torch.Tensor) -> FloatArray:
        """Update `logits` in place; returns each seed's gradient norm before clipping, [S], an error if not finite."""
        config = self.config
        self.num_steps += 1
        # In NumPy: torch splits a long sum over its threads, which would change the last bits.
        norms: FloatArray = np.sqrt(np.square(gradient.flatten(1).cpu().numpy()).sum(-1))
        if not np.isfinite(norms).all():
            first = int(np.argmin(np.isfinite(norms)))
            raise ValueError(f"gradient: expected finite values, got a norm of {norms[first]} for seed number {first}")
        if config.max_grad_norm is not None:
            scale = np.minimum(config.max_grad_norm / (norms + 1e-6), 1.0)
            factor = torch.from_numpy(scale).to(gradient.device)
            gradient = gradient * factor.reshape(-1, *[1] * (gradient.ndim - 1))
        if config.weight_decay:
            logits.mul_(1 - config.learning_rate * config.weight_decay)
        if config.name == "sgd":
            logits.sub_(gradient, alpha=config.learning_rate)
        else:
            self._adamw(logits, gradient)
        return norms

    def _adamw(self, logits: torch.Tensor, gradient: torch.Tensor) -> None:
        config = self.config
        first, second = self.state["first_moment"], self.state["second_moment"]
        first.mul_(config.beta1).add_(gradient, alpha=1 - config.beta1)
        second.mul_(config.beta2).addcmul_(gradient, gradient, value=1 - config.beta2)
        size = config.learning_rate / (1 - config.beta1**self.num_steps)
        root = (second / (1 - config.beta2**self.num_steps)).sqrt_().add_(config.epsilon)
        logits.addcdiv_(first, root, value=-size)
