"""Learning curves in the tabular testbed: GRPO against DynaMO on the same seeds, and when which is ahead."""

from __future__ import annotations

import numpy as np

from paper_figs import horizons
from paper_figs.experiments import estimate, seeds_and_intervals, seeds_of
from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Curves, RunCurves, ToyRun
from paper_figs.style import TEXT_WIDTH, legend_above, panels, plot_band, zero_line
from paper_figs.wording import TABULAR, points
from theory import methods
from theory.base.runs import differences, lookup

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
    per_visit = steps[-1] / horizons.num_visits(run.config)
    ticks = {n * per_visit: f"{n}" for n in (0, *horizons.AFTER.values()) if n * per_visit <= steps[-1]}
    for ax in axes:
        ax.set_xticks(list(ticks), list(ticks.values()))
        ax.set(xlabel=f"visits to a prompt ({per_visit:g} steps each)", xlim=(0, steps[-1]))
    return figure


def _caption(baseline: RunCurves, run: RunCurves) -> str:
    return (
        f"{TITLES[BASELINE]} and {TITLES[METHOD]} in the tabular world '{run.config['world_name']}', "
        f"{run.config['rollouts']} rollouts per prompt on average, "
        f"{seeds_and_intervals([len(run.seeds)])}, in (d) of differences within seeds; bands are of each step alone, "
        f"and no sign is decided; {horizons.CHOSEN}."
    )


def _reading(baseline: RunCurves, run: RunCurves) -> str:
    require_pairs(baseline, run)
    steps, ours = run.metrics["pass_at_1"]
    theirs = baseline.metrics["pass_at_1"].values
    visits = horizons.num_visits(run.config)
    indices = {f"after {n} visits": round(n * steps[-1] / visits) for n in horizons.AFTER.values() if n < visits}
    indices[f"at the end ({visits:g} visits)"] = int(steps[-1])
    gains = [estimate(ours[:, i], theirs[:, i]) for i in indices.values()]
    told = [f"{points(gain)} {when}" for gain, when in zip(gains, indices, strict=True)]
    ahead = [i for i in range(len(steps)) if np.median(ours[:, i] - theirs[:, i]) > 0]
    if not ahead:
        crossing = "The median gain is at no step above 0."
    elif ahead[-1] == len(steps) - 1:
        crossing = "The median gain is above 0 at the last step."
    else:
        crossing = (
            f"The median gain is last above 0 at step {steps[ahead[-1]]}, where {TITLES[BASELINE]} has "
            f"{100 * theirs[:, ahead[-1]].mean():.0f} %."
        )
    return (
        f"{run.config['world_name']} (tabular, learning rate {lookup(run.config, 'optimizer.learning_rate'):g}, "
        f"{seeds_of([len(run.seeds)])}): {TITLES[METHOD]} minus {TITLES[BASELINE]} in points of pass@1 "
        f"{', '.join(told)}. {crossing} The paper says that {TITLES[METHOD]} ends above {TITLES[BASELINE]}. {TABULAR}"
    )


FIGURE = Figure(
    name="bandit_training",
    title="Learning curves in the bandit",
    inputs=tuple(ToyRun(name, tuple(LABELS)) for name in (BASELINE, METHOD)),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
