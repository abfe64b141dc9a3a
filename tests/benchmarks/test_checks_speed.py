"""What checks of values cost a training step of the toy (`--benchmark-enable -s` tells).

The same steps with every look at a value taken out, in turn with steps as they are; processor time, one core. Measured
on an idle machine, 32 seeds: 4.7 % (DynaMO), 2.7 % (Clip-Cov) and 2.9 % (GRPO) in `mixed`, 0.5 % (DynaMO) in `skills`.
On a busy machine the share scatters by more than its size. Within `require.trusted()` only rules, histories and their
counts are looked at, which are NumPy's.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from theory.base import require
from toy.training.config import TrainConfig
from toy.training.loop import Trainer
from toy.training.step import step

LOOKS = {
    **dict.fromkeys(("finite", "values", "representable", "squarable"), lambda *_, **__: None),
    **dict.fromkeys(("vector", "numbers"), lambda _, x, **__: np.asarray(x, dtype=np.float64)),
    **dict.fromkeys(("integer_vector", "integers"), lambda _, x, **__: np.asarray(x, dtype=np.int64)),
}


def seconds(trainer):
    start = time.process_time()
    step(trainer.setup, trainer.state)
    return time.process_time() - start


@pytest.mark.benchmark(group="checks")
@pytest.mark.parametrize("method", ["grpo", "dynamo", "clip-cov"])
@pytest.mark.parametrize("world", ["mixed", "skills"])
def test_share_of_a_step(method, world, benchmark, monkeypatch):
    trainer = Trainer(TrainConfig.named(method, world, num_seeds=32))
    seconds(trainer)
    checked, unchecked = [], []
    for _ in range(2 if benchmark.disabled else 30):
        checked.append(seconds(trainer))
        with monkeypatch.context() as patch:
            for name, look in LOOKS.items():
                patch.setattr(require, name, look)
            unchecked.append(seconds(trainer))
    share = 1 - np.median(unchecked) / np.median(checked)
    benchmark.extra_info["share of a step"] = share
    print(f"{method} in {world}: {share:.1%} of {np.median(checked) * 1e3:.0f} ms")
    benchmark.pedantic(seconds, (trainer,), rounds=1)
