"""How long a run trains: a name for each number of steps, so that the default is affordable.

The paper gives no number of steps. Its public script has 2,000; verl's own recipes take 100 to 400.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Budget:
    """A number of steps, and what goes with it.

    Attributes
    ----------
    title : In words.
    settings : As on the command line.
    model, cluster : What is taken if the command names none; None for the usual defaults.
    variant : Name of runs that cannot be gone on with under another budget; "" where more steps go on.
    """

    title: str
    settings: tuple[str, ...]
    model: str | None = None
    cluster: str | None = None
    variant: str = ""


def _steps(number: int) -> str:
    return f"trainer.total_training_steps={number}"


BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "first-look": Budget(
            "50 steps of 64 prompts, by default of the 1.5B model on one GPU",
            (_steps(50), "data.train_batch_size=64", "trainer.test_freq=10", "trainer.save_freq=25"),
            model="qwen2.5-math-1.5b",
            cluster="1xa100",
            variant="first-look",
        ),
        "recipe": Budget("200 steps, as many as verl's recipes take", (_steps(200),)),
        "script": Budget("2,000 steps, those of the public script", (_steps(2000),)),
    }
)

DEFAULT = "recipe"
"""The budget of a run: what others found enough, at a tenth of the public script's cost."""

OF_EXPERIMENTS = "script"
"""The budget of an experiment: its table stands beside the paper's."""
