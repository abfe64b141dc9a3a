"""The paper's experiments as data: cells of a model, a method, a seed and overrides, each a run of its own.

`python -m scale experiments` lists them. A cell's folder is named by what is trained, not by the experiment: cells that
several experiments share, such as DynaMO on 7B, are trained once.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from scale.launch.budgets import BUDGETS, OF_EXPERIMENTS
from theory.base import require
from theory.methods import Budget, grids

SEEDS = (1, 2, 3)
"""As many as in the paper."""

ROOT = Path("results/scale")
"""Where runs go if nothing else is said."""

MODEL_1_5B, MODEL_7B, MODEL_14B, TINY = "qwen2.5-math-1.5b", "qwen2.5-math-7b", "qwen3-14b", "tiny"


@dataclass(frozen=True)
class Cell:
    """A run of an experiment.

    Attributes
    ----------
    name : Name within the experiment; what `--cell` takes.
    model, method : A file of `conf/model`, and a name of `theory.methods.METHODS`.
    overrides, variant : Further settings, as on the command line, and their name; "" if there are none.
    budget : A name of `BUDGETS`, for other models than the tiny one.

    Examples
    --------
    >>> print(get_cell("table1", "7b-dynamo-1").command())
    python -m scale train --model qwen2.5-math-7b --method dynamo --seed 1 --budget script \
--out results/scale/qwen2.5-math-7b-dynamo-1
    """

    name: str
    model: str
    method: str
    seed: int
    overrides: tuple[str, ...] = ()
    variant: str = ""
    budget: str = OF_EXPERIMENTS

    @property
    def folder(self) -> Path:
        """Where the run goes; the same for the same run, whatever the experiment."""
        return ROOT / run_name(self.model, self.method, self.seed, self.variant)

    @property
    def settings(self) -> tuple[str, ...]:
        """Settings of the run other than model and cluster."""
        length = () if self.model == TINY else BUDGETS[self.budget].settings
        return (f"dynamo.method={self.method}", f"dynamo.seed={self.seed}", *length, *self.overrides)

    def command(self) -> str:
        """Return the command that starts or resumes the run."""
        chosen = ["--model", self.model, "--method", self.method, "--seed", str(self.seed)]
        chosen += [*([] if self.model == TINY else ["--budget", self.budget]), "--out", str(self.folder)]
        return shlex.join(["python", "-m", "scale", "train", *chosen, *self.overrides])


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper; its title says what varies over its runs."""

    name: str
    title: str
    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        names = [cell.name for cell in self.cells]
        if len(set(names)) != len(names):
            raise ValueError(f"cells: expected different names, got {', '.join(names)}")


def run_name(model: str, method: str, seed: int, variant: str = "") -> str:
    """Return the name of a run's folder.

    Examples
    --------
    >>> run_name("tiny", "dynamo", 1), run_name("tiny", "dynamo", 1, "n8")
    ('tiny-dynamo-1', 'tiny-dynamo-n8-1')
    """
    return "-".join(filter(None, (model, method, variant, str(seed))))


def _by_method(models: Mapping[str, str], methods: Iterable[str], seeds: Sequence[int] = SEEDS) -> tuple[Cell, ...]:
    """Return models x methods x seeds; `models` gives each its prefix in the cells' names."""
    return tuple(
        Cell(f"{prefix}{method}-{seed}", model, method, seed)
        for model, prefix in models.items()
        for method in methods
        for seed in seeds
    )


def _budgets() -> Iterable[Cell]:
    """Yield figure 2: average rollouts, with dynamic allocation and without."""
    for budget in grids.BUDGETS:
        rollouts = f"actor_rollout_ref.rollout.n={budget.mean}"
        overrides = (rollouts, *_bounds(budget)) if budget.mean != 16 else ()
        variant = f"n{budget.mean}" if overrides else ""
        for method in grids.WITH_AND_WITHOUT_ALLOCATION:
            for seed in SEEDS:
                yield Cell(f"n{budget.mean}-{method}-{seed}", MODEL_7B, method, seed, overrides, variant)


def _bounds(budget: Budget) -> tuple[str, ...]:
    return (f"dynamo.rollouts_low={budget.low}", f"dynamo.rollouts_high={budget.high}")


def _factors() -> Iterable[Cell]:
    """Yield figure 3: one factor at a time, the others at their defaults (alpha .4, [8, 24], sharpness 50, .9)."""
    variants: dict[str, tuple[str, ...]] = {"": ()}
    variants |= {f"alpha{x:g}": (f"dynamo.alpha={x:g}",) for x in grids.ALPHAS}
    variants |= {f"bounds{x.low}-{x.high}": _bounds(x) for x in grids.BOUNDS}
    variants |= {f"sharpness{x:g}": (f"dynamo.sharpness={x:g}",) for x in grids.SHARPNESSES}
    variants |= {f"threshold{x:g}": (f"dynamo.threshold={x:g}",) for x in grids.THRESHOLDS}
    for variant, overrides in variants.items():
        for seed in SEEDS:
            yield Cell(f"{variant or 'default'}-{seed}", MODEL_7B, "dynamo", seed, overrides, variant)


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        x.name: x
        for x in (
            Experiment(
                "table1", "nine methods", _by_method({MODEL_1_5B: "1.5b-", MODEL_7B: "7b-"}, grids.METHODS_OF_TABLE_1)
            ),
            Experiment(
                "table2",
                "DynaMO without each part; GRPO has none",
                _by_method({MODEL_7B: ""}, grids.METHODS_OF_TABLE_2),
            ),
            Experiment("fig2", "average rollouts, with dynamic allocation and without", tuple(_budgets())),
            Experiment("fig3", "alpha, bounds, sharpness and threshold, one at a time", tuple(_factors())),
            Experiment(
                "fig4",
                "three sizes of a model",
                _by_method({MODEL_1_5B: "1.5b-", MODEL_7B: "7b-", MODEL_14B: "14b-"}, ("grpo", "dynamo")),
            ),
            Experiment("smoke", "a tiny model, without a GPU", _by_method({TINY: ""}, ("grpo", "dynamo"), seeds=(1,))),
        )
    }
)
"""Every experiment, by name. The paper leaves some choices open. `theory.methods.grids` makes those of figure 3 (all
values other than alpha = 0), for the tabular worlds too; the model of figure 2 and three seeds for every figure are
chosen here."""


def get_experiment(name: str) -> Experiment:
    """Return an experiment by name."""
    require.one_of("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def get_cell(experiment: str, cell: str) -> Cell:
    """Return a cell of an experiment by name."""
    cells = {x.name: x for x in get_experiment(experiment).cells}
    require.one_of("cell", cell, cells)
    return cells[cell]


def distinct(names: Iterable[str] = EXPERIMENTS) -> tuple[Cell, ...]:
    """Return the runs of some experiments, each once.

    Examples
    --------
    >>> len(EXPERIMENTS["table2"].cells), len(distinct(["table1", "table2"])) - len(distinct(["table1"]))
    (24, 18)
    """
    return tuple({cell.folder: cell for name in names for cell in EXPERIMENTS[name].cells}.values())
