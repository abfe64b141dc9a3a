"""Training dynamics in the tabular testbed: GRPO against DynaMO on the same seeds."""

from __future__ import annotations

import numpy as np

from paper_figs.experiments import estimate, seeds_and_intervals
from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Curves, RunCurves, ToyRun
from paper_figs.style import TEXT_WIDTH, legend_above, panels, plot_band, zero_line
from paper_figs.wording import span, verdict
from theory import methods
from theory.base.runs import differences

BASELINE, METHOD = "grpo", "dynamo"
TITLES = {name: methods.METHODS[name].title for name in (BASELINE, METHOD)}
LABELS = {"pass_at_1": "exact pass@1", "entropy": "entropy (nats)", "gradient_norm": "gradient norm"}
"""What is drawn: metrics, and how their axes are labelled."""


def require_pairs(baseline: RunCurves, run: RunCurves) -> None:
    """Require two runs that differ in the method only: the same seeds in the same setting."""
    fields = differences(baseline.config, run.config)
    different = [name for name in fields if name.split(".")[0] not in ("method", "method_name")]
    different += [] if np.array_equal(baseline.seeds, run.seeds) else ["seeds"]
    different += [
        f"steps of {name}"
        for name in LABELS
        if not np.array_equal(baseline.metrics[name].steps, run.metrics[name].steps)
    ]
    if different:
        folders = f"toy/{BASELINE}, toy/{METHOD}"
        raise ValueError(f"{folders}: expected runs that differ in the method only, got other {', '.join(different)}")


def _draw(baseline: RunCurves, run: RunCurves) -> Drawing:
    require_pairs(baseline, run)
    figure, axes = panels(TEXT_WIDTH, 4.0, 2, 2)
    for ax, (metric, label) in zip(axes, LABELS.items(), strict=False):
        plot_band(ax, baseline.metrics[metric], BASELINE, TITLES[BASELINE])
        plot_band(ax, run.metrics[metric], METHOD, TITLES[METHOD])
        ax.set_ylabel(label)
    legend_above(axes[0], 2)

    steps, values = run.metrics["pass_at_1"]
    difference = Curves(steps, values - baseline.metrics["pass_at_1"].values)
    zero_line(axes[3])
    plot_band(axes[3], difference, METHOD, f"{TITLES[METHOD]} minus {TITLES[BASELINE]}")
    axes[3].set_ylabel("paired difference in pass@1")
    legend_above(axes[3], 1)
    for ax in axes:
        ax.set(xlabel="training step", xlim=(0, steps[-1]))
    return figure


def _caption(baseline: RunCurves, run: RunCurves) -> str:
    return (
        f"{TITLES[BASELINE]} and {TITLES[METHOD]} in the tabular world '{run.config['world_name']}', "
        f"{run.config['rollouts']} rollouts per prompt on average, "
        f"{seeds_and_intervals([len(run.seeds)])}, in (d) of differences within seeds; bands are of each step alone."
    )


def _reading(baseline: RunCurves, run: RunCurves) -> str:
    require_pairs(baseline, run)
    gains = run.metrics["pass_at_1"].values - baseline.metrics["pass_at_1"].values
    steps = run.metrics["pass_at_1"].steps
    middle = np.median(gains, axis=0)
    last = estimate(gains[:, -1])
    best = int(np.argmax(middle))
    return (
        f"{TITLES[METHOD]} minus {TITLES[BASELINE]} in pass@1 is largest at step {steps[best]} "
        f"({span([100 * middle[best]], '+.1f')} points, median over seeds) and {span([100 * last.value], '+.1f')} "
        "points "
        "at the end. " + verdict(f"{TITLES[METHOD]} ends above {TITLES[BASELINE]}", [last.sign > 0], "worlds")
    )


FIGURE = Figure(
    name="bandit_training",
    title="Learning curves in the bandit",
    inputs=tuple(ToyRun(name, tuple(LABELS)) for name in (BASELINE, METHOD)),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
