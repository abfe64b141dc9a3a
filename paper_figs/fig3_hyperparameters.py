"""Figure 3: the hyper-parameters of DynaMO, one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from paper_figs import horizons
from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about
from paper_figs.figure import Drawing, Figure
from paper_figs.style import GUIDE, TEXT_WIDTH, legend_above, panels, plot_estimates, zero_line
from paper_figs.wording import TABULAR, points
from theory.base.tables import Estimate

SERIES = {name: dict(horizons.LOOKS[name]) for name in ("pass_at_1_after_8_visits", horizons.END)}
"""What is drawn: horizons, the end among them, and their looks."""


class Factor(NamedTuple):
    """A hyper-parameter: how it is labelled, its value in a configuration, and how that is ordered and printed."""

    label: str
    value: Any
    text: Any = "{:g}".format


def _shaping(config: Mapping[str, Any], name: str) -> float:
    return float(config["method"]["shaping"][name])


FACTORS = {
    "alpha": Factor("modulation strength $\\alpha$", lambda c: _shaping(c, "alpha")),
    "bounds": Factor(
        "bounds on the rollouts of a prompt",
        lambda c: (c["rollouts_low"] - c["rollouts_high"], c["rollouts_low"], c["rollouts_high"]),
        lambda v: f"[{v[1]}, {v[2]}]" + " (off)" * (v[1] == v[2]),
    ),
    "sharpness": Factor("sharpness $\\gamma$", lambda c: _shaping(c, "sharpness")),
    "threshold": Factor("threshold $\\tau$", lambda c: _shaping(c, "threshold")),
}


def _series(cells: Sequence[CellResult], factor: str) -> list[tuple[Any, CellResult]]:
    """Return the cells along a factor, the default among them, ordered by its value."""
    of = FACTORS[factor].value
    chosen = [(of(cell.config), cell) for cell in cells if cell.axes["factor"] in (factor, "default")]
    return sorted(chosen, key=lambda pair: pair[0])


def _gain(cell: CellResult, measure: str) -> Estimate:
    """Return the difference to the default; 0 for the default itself."""
    return cell.differences.get(measure, Estimate(0.0))


def _draw(cells: Sequence[CellResult]) -> Drawing:
    figure, axes = panels(TEXT_WIDTH, 3.6, 2, 2)
    there = [measure for measure in SERIES if horizons.gains_of(cells, measure)]
    for (factor, (label, _, text)), ax in zip(FACTORS.items(), axes, strict=True):
        series = _series(cells, factor)
        for measure in there:
            gains = [_gain(cell, measure).scaled(100) for _, cell in series]
            plot_estimates(ax, list(range(len(series))), gains, **SERIES[measure])
        default = next(i for i, (_, cell) in enumerate(series) if cell.axes["factor"] == "default")
        ax.axvline(default, color=GUIDE, linewidth=0.8, linestyle=":", zorder=0)
        zero_line(ax)
        ax.set_xticks(range(len(series)), [text(value) for value, _ in series])
        ax.margins(x=0.1)
        ax.set(xlabel=label, ylabel="change of pass@1 (points)")
    low, high = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)  # one scale, so that flat is flat
    legend_above(axes[0], 2)
    return figure


def _caption(cells: Sequence[CellResult]) -> str:
    (default,) = [cell for cell in cells if cell.axes["factor"] == "default"]
    texts = {factor: text(value(default.config)) for factor, (_, value, text) in FACTORS.items()}
    return (
        "Change of pass@1 when one hyper-parameter of DynaMO is another than its default (dotted: alpha "
        f"{texts['alpha']}, bounds {texts['bounds']}, gamma {texts['sharpness']}, tau {texts['threshold']}; pass@1 "
        f"{100 * default.values['pass_at_1'].value:.1f} % at the end); equal bounds switch the allocation off; "
        f"{horizons.CHOSEN}; {about(cells)}; {INTERVALS}."
    )


def _is_off(cell: CellResult) -> bool:
    """Return whether bounds leave nothing to allocate."""
    return bool(cell.config["rollouts_low"] == cell.config["rollouts_high"])


def _range(series: Sequence[tuple[Any, CellResult]], text: Any, measure: str) -> str:
    """Return the lowest and the highest change, of cells other than the default."""
    changes = [(cell.differences[measure], value) for value, cell in series if measure in cell.differences]
    changes.sort(key=lambda pair: pair[0].value)
    told = [f"{points(gain)} at {text(value)}" for gain, value in changes]
    return " to ".join(dict.fromkeys((told[0], told[-1]))) if told else "not tried"


def _reading(cells: Sequence[CellResult]) -> str:
    by_factor = {factor: _series(cells, factor) for factor in FACTORS}
    off = [pair for pair in by_factor["bounds"] if _is_off(pair[1])]
    parts = []
    for measure in SERIES:
        if horizons.gains_of(cells, measure):
            ranges = [
                f"{factor} {_range([pair for pair in series if pair not in off], FACTORS[factor].text, measure)}"
                for factor, series in by_factor.items()
            ]
            switched = f"; without allocation {_range(off, FACTORS['bounds'].text, measure)}" if off else ""
            parts.append(f"{horizons.WHEN[measure]} {'; '.join(ranges)}{switched}")
    alpha = by_factor["alpha"]
    highest = max(alpha, key=lambda pair: pair[1].values[horizons.END].value)[0]
    words = {1: "behind", -1: "ahead of", 0: "undecided against"}
    ends = [f"{words[_gain(cell, horizons.END).sign]} {value:g}" for value, cell in (alpha[0], alpha[-1])]
    return (
        f"{horizons.conditions(cells, cells[0].setting)}: pass@1 minus the default's, in points, from lowest to "
        f"highest: {'. And '.join(parts)}. The paper says that alpha has an inverted U: here the default is at the end "
        f"{' and '.join(ends)}, and the highest is {highest:g}. It says that bounds, sharpness and threshold are "
        f"stable over wide ranges; no allocation is none of these. {TABULAR}"
    )


FIGURE = Figure(
    name="fig3_hyperparameters",
    title="Figure 3: sensitivity to hyper-parameters",
    inputs=(
        ExperimentResults(
            name="fig3",
            axes=("factor", "setting"),
            measures=(horizons.END,),
            worlds=False,
            where_reached=horizons.HORIZONS,
        ),
    ),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
