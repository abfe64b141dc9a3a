"""A comparison at several points of a training: after equal numbers of visits, and at equal progress of the reference.

A method may be ahead early and behind late, so that one horizon decides nothing. Where a run ends is a choice, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import seaborn as sns
from matplotlib.axes import Axes

from paper_figs.experiments import CellResult, seeds_of, settings
from paper_figs.style import PALETTE, plot_estimates
from paper_figs.wording import points, span
from theory.base import require
from theory.base.runs import lookup
from theory.base.tables import Column, Estimate, Value

END = "pass_at_1"
"""Measure of pass@1 after the last step."""

AFTER: Mapping[str, int] = MappingProxyType({f"pass_at_1_after_{n}_visits": n for n in (4, 8, 16, 25, 50)})
"""Measures of pass@1 after so many visits to a prompt."""

MATCHED: Mapping[str, float] = MappingProxyType({f"pass_at_1_at_reference_{x:g}": x for x in (0.5, 0.6, 0.7, 0.8, 0.9)})
"""Measures of pass@1 at the first step at which the reference has so much of it, as a mean over seeds."""

HORIZONS = (*AFTER, *MATCHED)

WHEN: Mapping[str, str] = MappingProxyType(
    {
        **{name: f"after {n} visits" for name, n in AFTER.items()},
        **{name: f"at {100 * x:g} %" for name, x in MATCHED.items()},
        END: "at the end",
        "pass_at_32": "in pass@32",
    }
)
"""Horizons in words."""

CHOSEN = (
    "a visit is a batch with the prompt in it; the number of steps was chosen by the outcome of GRPO, so that the end "
    "is one horizon among others"
)
"""What a caption says of horizons."""

_SHADES = sns.color_palette("crest", len(AFTER)).as_hex()
LOOKS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        name: {"label": WHEN[name], "color": color, "marker": marker, "linestyle": line}
        for name, color, marker, line in zip(
            (*AFTER, END), (*_SHADES, PALETTE[1]), "^sDvPo", (":", "--", "-.", ":", "--", "-"), strict=True
        )
    }
)
"""Look of the horizons, where a figure draws several."""


def num_visits(config: Mapping[str, Any]) -> float:
    """Return how often a run of the tabular testbed visits each prompt, on average."""
    prompts = _number(config, "world.num_prompts")
    return _number(config, "num_steps") * _number(config, "batch_prompts") / prompts


def _number(config: Mapping[str, Any], path: str) -> float:
    try:
        value = lookup(config, path)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected it in the configuration of a run, got none") from error
    return require.in_range(path, value, 0.0, float("inf"), open_low=True, open_high=True)


def conditions(cells: Sequence[CellResult], setting: str) -> str:
    """Say what a setting is, how long and at which learning rate it is trained, and how many seeds there are."""
    of = [cell for cell in cells if cell.setting == setting]
    configs = [cell.config for cell in of if cell.config]
    seeds = seeds_of({cell.num_seeds for cell in of})
    if not of[0].is_toy:
        return f"{setting} (in verl, {seeds})"
    visits = span([num_visits(config) for config in configs], "g")
    rate = span([_number(config, "optimizer.learning_rate") for config in configs], "g")
    name = {"sgd": "SGD", "adamw": "AdamW"}.get(str(configs[0]["optimizer"].get("name")), "an optimizer")
    return f"{setting} (tabular, {visits} visits a prompt, {name} at learning rate {rate}, {seeds})"


def end_of(cells: Sequence[CellResult], setting: str) -> float:
    """Return the visits of a world's longest runs; 0 for a model, whose visits are not known."""
    of = [num_visits(cell.config) for cell in cells if cell.setting == setting and cell.is_toy and cell.config]
    return max(of, default=0.0)


def shown(cells: Sequence[CellResult]) -> list[str]:
    """Return the horizons that cells reach before their end, and the end."""
    ends = {setting: end_of(cells, setting) for setting in settings(cells)}
    before = [
        name for name, n in AFTER.items() if any(name in cell.values and n < ends[cell.setting] for cell in cells)
    ]
    return [*before, END]


def matched(cells: Sequence[CellResult]) -> list[str]:
    """Return the accuracies at which a difference to the reference is there."""
    return [name for name in MATCHED if any(name in cell.differences for cell in cells)]


def gains_of(cells: Sequence[CellResult], measure: str) -> list[Estimate]:
    """Return the differences of the cells that have them."""
    return [cell.differences[measure] for cell in cells if measure in cell.differences]


def told(cell: CellResult, measures: Sequence[str]) -> str:
    """Say by how many points a cell differs from its reference at every horizon that it reaches."""
    there = [measure for measure in measures if measure in cell.differences]
    return ", ".join(f"{points(cell.differences[measure])} {WHEN[measure]}" for measure in there)


def columns(measures: Sequence[str], of: str) -> list[Column]:
    """Return the columns of a table for the differences at these horizons."""
    return [Column(f"{of} {WHEN[measure]}", signed=True) for measure in measures]


def differences(cell: CellResult, measures: Sequence[str]) -> list[Value]:
    """Return the differences of a cell in points; None where it does not get there, or is the reference."""
    return [(gain := cell.differences.get(measure)) and gain.scaled(100) for measure in measures]


def plot_visits(ax: Axes, cell: CellResult, end: float, shift: float = 0.0, **look: Any) -> None:
    """Draw the differences of a cell over visits, with those of the `end`; `shift` sets points apart sideways."""
    there = _over_visits(cell, end)
    gains = [cell.differences[name].scaled(100) for name in there]
    plot_estimates(ax, [n * 1.04**shift for n in there.values()], gains, **look)


def set_visits(ax: Axes, cells: Sequence[CellResult], end: float) -> None:
    """Make the horizontal axis one of visits, with a tick at every horizon of the cells."""
    ticks = sorted({n for cell in cells for n in _over_visits(cell, end).values()})
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{n:g}" for n in ticks])
    ax.minorticks_off()
    ax.set_xlabel("visits to a prompt")


def _over_visits(cell: CellResult, end: float) -> dict[str, float]:
    """Return the visits of the horizons at which a cell has a difference, once each."""
    there: dict[str, float] = {name: n for name, n in AFTER.items() if name in cell.differences}
    return there if end in there.values() or END not in cell.differences else {**there, END: end}


def plot_matched(ax: Axes, cell: CellResult, shift: float = 0.0, **look: Any) -> None:
    """Draw the differences of a cell over the accuracy of its reference, in percent; `shift` sets points apart."""
    there = {name: 100 * x for name, x in MATCHED.items() if name in cell.differences}
    gains = [cell.differences[name].scaled(100) for name in there]
    if there:
        ax.set_xticks([100 * x for x in MATCHED.values()])
        plot_estimates(ax, [x + 0.4 * shift for x in there.values()], gains, **look)
