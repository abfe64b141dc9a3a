"""Figure 3: the hyper-parameters of DynaMO, one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from paper_figs.experiments import INTERVALS, CellResult, ExperimentResults, about
from paper_figs.figure import Drawing, Figure
from paper_figs.style import GUIDE, PALETTE, TEXT_WIDTH, legend_above, panels, plot_estimates, zero_line
from paper_figs.wording import span, verdict
from theory.base.tables import Estimate

NARROW = 1.0
"""Points of pass@1 within which a hyper-parameter counts as harmless."""

SERIES = {
    "pass_at_1": ("at the end", PALETTE[0], "o", "-"),
    "pass_at_1_mean": ("mean over steps", PALETTE[2], "^", "--"),
}
"""What is drawn, by measure: its label, colour, marker and line."""


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
        lambda v: f"[{v[1]}, {v[2]}]",
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
    for (factor, (label, _, text)), ax in zip(FACTORS.items(), axes, strict=True):
        series = _series(cells, factor)
        for measure, (name, color, marker, line) in SERIES.items():
            gains = [_gain(cell, measure).scaled(100) for _, cell in series]
            plot_estimates(ax, list(range(len(series))), gains, color=color, marker=marker, linestyle=line, label=name)
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
        f"{100 * default.values['pass_at_1'].value:.1f} % at the end); {about(cells)}; {INTERVALS}."
    )


def _reading(cells: Sequence[CellResult]) -> str:
    parts, narrow = [], []
    for factor in FACTORS:
        gains = [100 * _gain(cell, "pass_at_1").value for _, cell in _series(cells, factor)]
        parts.append(f"{factor} {span(gains)}")
        narrow.append(max(gains) - min(gains) <= NARROW)
    alpha = [cell.values["pass_at_1"].value for _, cell in _series(cells, "alpha")]
    inside = 0 < alpha.index(max(alpha)) < len(alpha) - 1
    peak = FACTORS["alpha"].text(_series(cells, "alpha")[alpha.index(max(alpha))][0])
    flat = ", ".join(factor for factor, is_narrow in zip(FACTORS, narrow, strict=True) if is_narrow) or "none"
    return (
        f"Final pass@1 minus the default's, in points: {'; '.join(parts)}; the largest over alpha is at {peak}; within "
        f"{NARROW:g} point: {flat}. "
        + verdict(
            "alpha has an inverted U, and that bounds, sharpness and threshold hardly matter over wide ranges",
            [inside, *narrow[1:]],
            f"parts (alpha: a maximum inside the range; the others: a span of at most {NARROW:g} point)",
        )
    )


FIGURE = Figure(
    name="fig3_hyperparameters",
    title="Figure 3: sensitivity to hyper-parameters",
    inputs=(ExperimentResults(name="fig3", axes=("factor", "setting"), measures=tuple(SERIES), worlds=False),),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
