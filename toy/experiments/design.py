"""The design of an experiment, as data: its runs, which of them compete, what they are compared with, what is measured.

Cells compete within blocks of one world and one cost, and are compared, seed by seed, with the reference of their
block. The designs themselves are in `toy.experiments.sweeps`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from toy.training import TrainConfig

TIMING = "seconds_per_step"
"""The one measure that is not of `toy.experiments.MEASURES`: it stands alone in a sweep."""

AFTER_VISITS: Mapping[str, int] = MappingProxyType({f"pass_at_1_after_{n}_visits": n for n in (4, 8, 16, 25, 50)})
"""Measures of pass@1 after so many visits to a prompt, on average; one exists where the run is that long."""

AT_REFERENCE: Mapping[str, float] = MappingProxyType(
    {f"pass_at_1_at_reference_{x:g}": x for x in (0.5, 0.6, 0.7, 0.8, 0.9)}
)
"""Measures of pass@1 at the first step at which the reference has so much of it, mean over seeds; one exists where the
reference starts below it and gets there."""

HORIZONS = (*AFTER_VISITS, *AT_REFERENCE)
"""Measures that show a comparison at several points of the training, since a method may be ahead early and behind late:
at equal cost, and at equal progress of the reference."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: its values on the sweep's axes, as text, and its config."""

    axes: Mapping[str, str]
    config: TrainConfig

    @property
    def name(self) -> str:
        """The cell's folder."""
        return "-".join(self.axes.values())


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """An experiment.

    Attributes
    ----------
    name : Its folder, and its name on the command line.
    title, reproduces : The axes that are varied, in words; and the paper's item, or our question.
    cells : The runs, all with the same axes.
    blocks : Axes; the cells that agree on all of them compete with each other.
    reference : Values on other axes; one cell of each block has them all, and the others are compared with it.
    measures : Names of `toy.experiments.MEASURES`, or `TIMING` alone; a cell lacks those of `HORIZONS` beyond its end.
    chooses : Axis whose best value per block, by the first measure, is written to `chosen.json`; None: no choice.
    equalizes : Measure; the learning rates at which it would be the reference's, were it proportional to the rate, are
        written to `chosen.json`; None: no choice.
    """

    name: str
    title: str
    reproduces: str
    cells: tuple[Cell, ...]
    blocks: tuple[str, ...]
    reference: Mapping[str, str]
    measures: tuple[str, ...] = ("pass_at_1", "pass_at_1_mean", "pass_at_32")
    chooses: str | None = None
    equalizes: str | None = None
    _references: Mapping[str, Cell] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [cell.name for cell in self.cells]
        for name in names:
            if names.count(name) > 1 or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", name):
                raise ValueError(f"cells: expected different names fit for folders, got {name!r} in {self.name}")
        axes = (*self.blocks, *self.reference)
        for cell in self.cells:
            if tuple(cell.axes) != self.axes or not set(axes) <= set(self.axes):
                raise ValueError(f"cells: expected the axes {', '.join(self.axes)}, got {cell.name} in {self.name}")
        references = {}
        for cell in self.cells:
            block = [other for other in self.cells if all(other.axes[axis] == cell.axes[axis] for axis in self.blocks)]
            matches = [other for other in block if all(other.axes[a] == value for a, value in self.reference.items())]
            if len(matches) != 1 or matches[0].config.seeds != cell.config.seeds:
                raise ValueError(
                    f"reference: expected one run of the same seeds for {self.name}/{cell.name}, got {matches}"
                )
            references[cell.name] = matches[0]
        object.__setattr__(self, "_references", MappingProxyType(references))

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(self.cells[0].axes)

    def reference_of(self, cell: Cell) -> Cell:
        """Return the cell with which another is compared; itself for the reference."""
        return self._references[cell.name]

    def longer(self) -> Sweep:
        """Return the sweep with twice the steps and twice the seeds."""
        return self._mapped(lambda c: replace(c, num_steps=2 * c.num_steps, num_seeds=2 * c.num_seeds))

    def tuned(self, choices: Sequence[Mapping[str, Any]]) -> Sweep:
        """Return the sweep with the learning rates that `tuning` chose: one for every method in every world."""
        rates = {(c["world"], c["method"]): float(c["learning_rate"]) for c in choices}

        def tune(config: TrainConfig) -> TrainConfig:
            key = (config.world_name, config.method_name)
            if key not in rates:
                raise ValueError(f"tuned: expected a learning rate for {key[1]} in {key[0]}, got none ({self.name})")
            return replace(config, optimizer=replace(config.optimizer, learning_rate=rates[key]))

        return self._mapped(tune)

    def _mapped(self, change: Callable[[TrainConfig], TrainConfig]) -> Sweep:
        return replace(self, cells=tuple(replace(cell, config=change(cell.config)) for cell in self.cells))
