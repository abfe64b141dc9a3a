"""Training dynamics in the tabular testbed: GRPO against DynaMO on the same seeds."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from paper_figs.figure import Figure
from paper_figs.sources import Curves, Run, ToyRun
from paper_figs.style import GUIDE, METHODS, TEXT_WIDTH, legend_above, panels
from theory import methods
from theory.intervals import interquartile_mean, stratified_bootstrap_interval

BASELINE, METHOD = "grpo", "dynamo"
TITLES = {name: methods.METHODS[name].title for name in (BASELINE, METHOD)}
METRICS = {"pass_at_1": "exact pass@1", "entropy": "entropy (nats)", "gradient_norm": "gradient norm"}
NUM_RESAMPLES = 2000


def require_pairs(baseline: Run, run: Run) -> None:
    """Require two runs that differ in the method only: the same seeds in the same setting."""
    named = {"method", "method_name"}
    fields = sorted((set(baseline.config) | set(run.config)) - named)
    different = [name for name in fields if baseline.config.get(name) != run.config.get(name)]
    different += [] if np.array_equal(baseline.seeds, run.seeds) else ["seeds"]
    different += [
        f"steps of {name}"
        for name in METRICS
        if not np.array_equal(baseline.metrics[name].steps, run.metrics[name].steps)
    ]
    if different:
        folders = f"toy/{BASELINE}, toy/{METHOD}"
        raise ValueError(f"{folders}: expected runs that differ in the method only, got other {', '.join(different)}")


def plot_band(ax: Axes, curves: Curves, method: str, label: str) -> None:
    """Draw the interquartile mean over seeds at every step, and its interval as a band."""
    interval = stratified_bootstrap_interval(
        curves.values[:, None], interquartile_mean, np.random.default_rng(0), num_resamples=NUM_RESAMPLES
    )
    look = METHODS[method]
    ax.fill_between(curves.steps, interval.low, interval.high, color=look.color, alpha=0.25, linewidth=0)
    ax.plot(curves.steps, interval.point, **look._asdict(), markevery=0.125, label=label)


def draw(baseline: Run, run: Run) -> Drawing:
    """Draw the three metrics, and the paired difference in pass@1."""
    require_pairs(baseline, run)
    figure, axes = panels(TEXT_WIDTH, 4.0, 2, 2)
    for ax, (metric, label) in zip(axes, METRICS.items(), strict=False):
        plot_band(ax, baseline.metrics[metric], BASELINE, TITLES[BASELINE])
        plot_band(ax, run.metrics[metric], METHOD, TITLES[METHOD])
        ax.set_ylabel(label)
    legend_above(axes[0], 2)

    steps, values = run.metrics["pass_at_1"]
    difference = Curves(steps, values - baseline.metrics["pass_at_1"].values)
    axes[3].axhline(0.0, color=GUIDE, linewidth=0.8, linestyle=":")
    plot_band(axes[3], difference, METHOD, f"{TITLES[METHOD]} minus {TITLES[BASELINE]}")
    axes[3].set_ylabel("paired difference in pass@1")
    legend_above(axes[3], 1)
    for ax in axes:
        ax.set(xlabel="training step", xlim=(0, steps[-1]))
    return figure


def caption(baseline: Run, run: Run) -> str:
    """Say what is drawn."""
    return (
        f"{TITLES[BASELINE]} and {TITLES[METHOD]} in the tabular world '{run.config['world_name']}', "
        f"{run.config['rollouts']} rollouts per prompt on average: interquartile mean over {len(run.seeds)} seeds; "
        f"bands: 95 % percentile bootstrap over seeds, {NUM_RESAMPLES:,} resamples; (d) differences within seeds."
    )


FIGURE = Figure("bandit_training", tuple(ToyRun(name, tuple(METRICS)) for name in (BASELINE, METHOD)), draw, caption)
