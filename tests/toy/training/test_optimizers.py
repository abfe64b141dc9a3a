"""toy.training.optimizers: against torch.optim, and seed by seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from toy.training.config import OptimizerConfig


@pytest.mark.parametrize(("name", "betas"), [("sgd", ()), ("adamw", (0.9, 0.999)), ("adamw", (0.2, 0.3))])
def test_optimizer_steps_are_those_of_torch(name, betas):
    """One seed, gradients below the norm at which clipping starts; torch.optim as the independent formula."""
    from toy.training.optimizers import Optimizer

    rng = np.random.default_rng(3)
    decay = 0.1 if name == "adamw" else 0.0
    settings = OptimizerConfig(name=name, learning_rate=0.05, weight_decay=decay)
    settings = replace(settings, **dict(zip(("beta1", "beta2"), betas, strict=False)))
    logits = torch.from_numpy(rng.normal(size=(1, 4, 3)))
    parameter = torch.nn.Parameter(logits.clone())
    ours = Optimizer(settings, logits)
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
    theirs = kind([parameter], lr=0.05, weight_decay=decay, **({"betas": betas} if betas else {}))
    for _ in range(5):
        gradient = torch.from_numpy(rng.normal(size=(1, 4, 3)) / 10)
        norms = ours.step(logits, gradient)
        np.testing.assert_allclose(norms, [gradient.norm()], rtol=1e-12)
        parameter.grad = gradient
        theirs.step()
    torch.testing.assert_close(logits, parameter.detach(), rtol=1e-12, atol=1e-14)


def test_gradients_are_clipped_seed_by_seed():
    from toy.training.optimizers import Optimizer

    logits = torch.zeros(2, 1, 2, dtype=torch.float64)
    gradient = torch.tensor([[[3.0, 4.0]], [[0.3, 0.4]]], dtype=torch.float64)
    norms = Optimizer(OptimizerConfig(learning_rate=1.0), logits).step(logits, gradient)
    np.testing.assert_allclose(norms, [5.0, 0.5])
    np.testing.assert_allclose(logits[:, 0], [[-0.6, -0.8], [-0.3, -0.4]], rtol=1e-6)


def test_a_gradient_is_scaled_down_as_torch_does():
    """By norm / (norm + 1e-6), which shows where the norm itself is small."""
    from toy.training.optimizers import Optimizer

    gradient = torch.tensor([[[3e-4, 4e-4]]], dtype=torch.float64)
    parameter = torch.nn.Parameter(torch.zeros_like(gradient))
    parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_([parameter], 1e-4)
    logits = torch.zeros_like(gradient)
    Optimizer(OptimizerConfig(learning_rate=1.0, max_grad_norm=1e-4), logits).step(logits, gradient)
    torch.testing.assert_close(logits, -parameter.grad, rtol=1e-12, atol=0.0)
