"""toy.training.metrics and the draws behind them, by hand."""

from __future__ import annotations

import numpy as np
import torch

from theory import allocation
from toy.training import metrics
from toy.training.generators import Stream, generator


def test_streams_are_independent():
    draws = {generator(seed, stream, step).random() for seed in range(4) for stream in Stream for step in range(4)}
    assert len(draws) == 4 * len(Stream) * 4


def test_metrics_by_hand():
    logits = torch.log(torch.tensor([[[0.5, 0.5], [0.9, 0.1]]], dtype=torch.float64))
    correct = torch.tensor([[[True, False], [False, True]]])
    rows = torch.tensor([[[0], [1]]])
    found = metrics.evaluate(logits, correct, rows, torch.ones_like(rows, dtype=torch.bool))
    np.testing.assert_allclose(found["pass_at_1"], [0.3])
    np.testing.assert_allclose(found["pass_at_32"], [(1 - 0.5**32 + 1 - 0.9**32) / 2])
    np.testing.assert_allclose(found["entropy"], [(np.log(2) - 0.9 * np.log(0.9) - 0.1 * np.log(0.1)) / 2])
    np.testing.assert_allclose(allocation.concentration(np.array([[4, 4], [8, 0]])), [1.0, 2.0])
